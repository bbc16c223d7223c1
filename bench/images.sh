#!/usr/bin/env bash
# bench/images.sh [CTR] [FLOOR] - pull and push of a large image with ctr, podman, docker and skopeo with umoci, and the floor:
# what hashing, inflating and writing the layers costs without anything around it (store/examples/floor.rs).
#
# The registry, its data and all storage lie on tmpfs, in namespaces of this script; each run gets a new, empty file system and
# each push an empty registry. The engines take turns, and ratios are those of one round, so that other work on the machine hits
# all of them. Prints tables in Markdown; --quick runs fewer rounds; ROUNDS=n says how many.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-5}
[ "${1:-}" = --quick ] && { rounds=2; shift; }
release=${CARGO_TARGET_DIR:-target}/$(rustc -vV | sed -n 's/^host: //p')/release
ctr=$(realpath "${1:-$release/ctr}")
floor=$(realpath "${2:-$release/examples/floor}")
image=${BENCH_IMAGE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/ctr/bench-1}

[ "$(id -u)" -eq 0 ] || { echo "bench: as root" >&2; exit 1; }
for program in "$ctr" "$floor"; do [ -x "$program" ] || { echo "bench: no $program: make bench" >&2; exit 1; }; done
if [ -z "${BENCH_INSIDE:-}" ]; then
    scripts/need podman dockerd=docker.io skopeo umoci docker-registry jq curl time ip=iproute2 unshare=util-linux
    if [ ! -e "$image/entries" ]; then
        rm -rf "$image" "$image.new"
        bench/image.sh "$image.new"
        mv "$image.new" "$image"
    fi
    # With a process namespace, whatever is left ends with the script.
    exec env BENCH_INSIDE=yes ROUNDS="$rounds" unshare --mount --net --pid --fork --kill-child --mount-proc "$0" "$ctr" "$floor"
fi
mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified
ip link set lo up
mount -t tmpfs bench /run
work=/run/bench
mkdir -p $work/home $work/fs
export HOME=$work/home XDG_RUNTIME_DIR=$work/home
# From memory, as a registry that was just asked for it would have it.
cp -r "$image" $work/image
export CTR_ROOT=$work/fs/ctr CTR_STATE=$work/ctr-run
port=5000
podman="podman --root $work/fs/podman --runroot $work/podman-run --tmpdir $work/podman-tmp --cgroup-manager=cgroupfs --events-backend=file"
export DOCKER_HOST=unix://$work/docker.sock

registry() { # FOLDER: a registry on $port; its process is $registry_pid
    cat >"$work/registry.yml" <<END
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $1}, delete: {enabled: true}}
http: {addr: 127.0.0.1:$port}
END
    docker-registry serve "$work/registry.yml" >/dev/null 2>&1 &
    registry_pid=$!
    until curl -sf "http://127.0.0.1:$port/v2/" >/dev/null; do sleep 0.05; done
}
end() { kill "$1" 2>/dev/null || true; wait "$1" 2>/dev/null || true; }
fresh() { # an empty file system for who comes next
    umount -R -l "$work/fs" 2>/dev/null || true
    mount -t tmpfs bench "$work/fs"
}
daemon() {
    echo "{}" >"$work/docker.json"
    dockerd --config-file "$work/docker.json" --data-root "$work/fs/docker" --exec-root "$work/docker-exec" --pidfile "$work/docker.pid" -H "$DOCKER_HOST" \
        --bridge none --iptables=false --ip6tables=false --storage-driver overlay2 >"$work/docker.log" 2>&1 &
    daemon_pid=$!
    until docker version >/dev/null 2>&1; do kill -0 $daemon_pid 2>/dev/null || { cat "$work/docker.log" >&2; exit 1; }; sleep 0.1; done
}
# Hundredths of seconds of a process, its threads, and its children that ended: dockerd unpacks in those.
ticks() { awk '{ print $14 + $15 + $16 + $17 }' "/proc/$1/stat"; }
# measure ROW COMMAND...: notes milliseconds in times.ROW and hundredths of processor seconds in cpu.ROW, a line a round. What the
# command says is shown if it fails.
measure() {
    local row=$1 begin end before=0 after=0
    shift
    [ -z "${daemon_pid:-}" ] || before=$(ticks "$daemon_pid")
    begin=$(date +%s%N)
    /usr/bin/time -o "$work/cpu" -f '%U %S' "$@" >"$work/said" 2>&1 || { cat "$work/said" >&2; echo "bench: $*: failed" >&2; exit 1; }
    end=$(date +%s%N)
    [ -z "${daemon_pid:-}" ] || after=$(ticks "$daemon_pid")
    echo $(((end - begin) / 1000000)) >>"$work/times.$row"
    awk -v more=$((after - before)) '{ print ($1 + $2) * 100 + more }' "$work/cpu" >>"$work/cpu.$row"
}
spread() { sort -n | awk -v f="${FORMAT:-%.2f}" '{ a[NR] = $1 } END { printf f " / " f " / " f, a[1], a[int((NR + 1) / 2)], a[NR] }'; }
times() { awk '{ print $1 / 1000 }' "$work/times.$1" | spread; }
against() { paste "$work/$1" "$work/$2" | awk '{ print $1 / $2 }' | spread; }
row() { # TITLE ROW OURS: beside what ctr took in the same round
    printf '| %s | %s | %s | %s |\n' "$1" "$(times "$2")" "$(against "times.$2" "times.$3")" "$(against "cpu.$2" "cpu.$3")"
}

printf '#!/bin/sh\nskopeo copy -q --src-tls-verify=false "docker://$1" "oci:%s:big" && exec umoci unpack --image "%s:big" "%s"\n' \
    "$work/fs/oci" "$work/fs/oci" "$work/fs/bundle" >"$work/unpack"
chmod +x "$work/unpack"
name=127.0.0.1:$port/big:1

registry "$work/data"
skopeo copy -q --dest-tls-verify=false "oci:$work/image:big" "docker://$name"
bytes=$(find "$work/image/blobs" -type f -printf '%s\n' | awk '{ n += $1 } END { printf "%.0f", n / 1e6 }')
printf 'kernel %s, %s cores; %s MB in 4 layers, %s entries; %s rounds; %s, docker %s, %s, %s\n\n' "$(uname -r)" "$(nproc)" "$bytes" \
    "$(cat "$work/image/entries")" "$rounds" "$(podman --version)" "$(dockerd --version | awk '{ sub(",", "", $3); print $3 }')" \
    "$(skopeo --version)" "$(umoci --version | head -n 1)"

for _ in $(seq "$rounds"); do
    fresh; for n in 0 1 2 3; do mkdir "$work/fs/$n"; done
    measure floor "$floor" "$work/image" "$work/fs"
    fresh; measure ctr "$ctr" pull -q "$name"
    measure again "$ctr" pull -q "$name"
    # shellcheck disable=SC2086 # a list of words
    fresh; measure podman $podman pull -q --tls-verify=false "$name"
    fresh; daemon; measure docker docker pull -q "$name"; end $daemon_pid; daemon_pid=
    fresh; measure umoci "$work/unpack" "$name"
done
printf '| pull | seconds, min / median / max | × ctr | processor time × ctr |\n| --- | ---: | ---: | ---: |\n'
row ctr ctr ctr
row 'the floor' floor ctr
for other in podman docker umoci; do row "${other/umoci/skopeo, umoci}" $other ctr; done
printf '| ctr, nothing has changed | %s | | |\n' "$(FORMAT=%.3f times again)"

# Each has the image in its storage; each registry is new and empty.
end $registry_pid
fresh
registry "$work/data"
daemon
for put in "$ctr pull -q" "$podman pull -q --tls-verify=false" "docker pull -q"; do $put "$name" >/dev/null; done
skopeo copy -q --src-tls-verify=false "docker://$name" "oci:$work/fs/oci:big"
end $registry_pid
docker_pid=$daemon_pid daemon_pid=
push() { # ROW COMMAND...
    rm -rf "$work/pushed"
    registry "$work/pushed"
    measure "$@"
    end $registry_pid
}
# What a registry takes to get the same blobs from nobody in particular, all at once: the least that a push can take.
cat >"$work/put" <<'END'
#!/bin/bash -e
for blob in "$1"/blobs/sha256/*; do
    {
        to=$(curl -sf -X POST -D - -o /dev/null "$2/blobs/uploads/" | tr -d '\r' | awk 'tolower($1) == "location:" { print $2 }')
        curl -sf -X PUT -T "$blob" -H 'Content-Type: application/octet-stream' "$to&digest=sha256:${blob##*/}"
    } &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done
END
chmod +x "$work/put"
for _ in $(seq "$rounds"); do
    push push-floor "$work/put" "$work/image" "http://127.0.0.1:$port/v2/big"
    push push-ctr "$ctr" push -q "$name"
    # shellcheck disable=SC2086 # a list of words
    push push-podman $podman push -q --tls-verify=false "$name"
    daemon_pid=$docker_pid; push push-docker docker push -q "$name"; daemon_pid=
    push push-umoci skopeo copy -q --dest-tls-verify=false "oci:$work/fs/oci:big" "docker://$name"
done
printf '\n| push of what was pulled | seconds, min / median / max | × ctr | processor time × ctr |\n| --- | ---: | ---: | ---: |\n'
row ctr push-ctr push-ctr
row 'the floor' push-floor push-ctr
for other in podman docker umoci; do row "${other/umoci/skopeo}" push-$other push-ctr; done
end "$docker_pid"

# The most memory of any command that moves a large layer.
memory() { /usr/bin/time -o "$work/rss" -f %M "${@:2}" >/dev/null; printf '| %s | %.0f |\n' "$1" "$(awk '{ print $1 / 1024 }' "$work/rss")"; }
printf '\n| peak memory of ctr | MiB |\n| --- | ---: |\n'
fresh
registry "$work/data"
memory pull "$ctr" pull -q "$name"
memory save "$ctr" save -o "$work/fs/saved.tar" "$name"
mkdir "$work/fs/context"
"$ctr" rmi "$name" >/dev/null
memory load "$ctr" load -q -i "$work/fs/saved.tar"
rm "$work/fs/saved.tar"
cp -r "$CTR_ROOT"/layers/*/fs "$work/fs/context/" 2>/dev/null || true
printf 'FROM scratch\nCOPY . /\n' >"$work/fs/context/Containerfile"
memory build "$ctr" build -q -t "127.0.0.1:$port/built" "$work/fs/context"
memory 'push of what was built' "$ctr" push -q "127.0.0.1:$port/built"
