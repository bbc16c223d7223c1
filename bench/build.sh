#!/usr/bin/env bash
# bench/build.sh [--quick] [CTR] - what a build costs with ctr, with buildah, and with docker: its classic builder, and BuildKit.
#
# Everything lies on tmpfs, in a mount, a process and a network namespace of this script; both dockerds run in there, and end
# with it: Debian 12's own, and trixie's with buildx in a root of its own (bench/buildkit.sh).
# Prints tables in Markdown: min / median / max of the rounds, and ratios of medians.
set -euo pipefail
cd "$(dirname "$0")/.."

quick=
[ "${1:-}" = --quick ] && { quick=yes; shift; }
ctr=$(realpath "${1:-target/$(rustc -vV | sed -n 's/^host: //p')/release/ctr}")

[ "$(id -u)" -eq 0 ] || { echo "bench: as root" >&2; exit 1; }
[ -x "$ctr" ] || { echo "bench: no $ctr: make build" >&2; exit 1; }
if [ -z "${BENCH_INSIDE:-}" ]; then
    scripts/need hyperfine buildah dockerd=docker.io docker jq ip=iproute2 unshare=util-linux python3
    tar=$(scripts/base-images --tar busybox)
    kit=$(bench/buildkit.sh --root) || { echo "bench: no root for BuildKit: without it" >&2; kit=; }
    export BENCH_INSIDE=$tar BENCH_KIT=$kit
    exec unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private "$0" ${quick:+--quick} "$ctr"
fi
tar=$BENCH_INSIDE
mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified
ip link set lo up

work=$(mktemp -d /dev/shm/ctr-bench-build.XXXXXX)
export CTR_ROOT=$work/ctr CTR_STATE=$work/ctr-run DOCKER_BUILDKIT=0 DOCKER_HOST=unix://$work/docker.sock DOCKER_CONFIG=$work
# Layers, temporary files and all: on tmpfs, for everybody.
export TMPDIR=$work/tmp
mkdir -p "$TMPDIR"
# Who looks for a login finds that there is none.
echo "{}" >"$work/config.json"
buildah="buildah --root $work/buildah --runroot $work/buildah-run --storage-driver overlay"
files=$(ulimit -Hn)
bud="$buildah bud --layers --isolation chroot --ulimit nofile=$files:$files --pull-never -q"
daemon=
kit_daemon=
finish() {
    local pid
    for pid in $daemon $kit_daemon; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    # What is mounted below is this namespace's own; it goes with it.
    grep -o " $work/[^ ]*" /proc/self/mounts | sort -r | xargs -r umount -l 2>/dev/null || true
    rm -rf --one-file-system "$work"
    # The groups that docker made of --cgroup-parent.
    find /sys/fs/cgroup -depth -type d -path '*/ctr-bench-build*' -exec rmdir {} + 2>/dev/null || true
}
trap finish EXIT

"$ctr" import "$tar" localhost/busybox:latest >/dev/null
from=$($buildah from scratch)
$buildah add -q "$from" "$tar" / >/dev/null
$buildah commit -q "$from" localhost/busybox >/dev/null
$buildah rm "$from" >/dev/null
echo '{}' >"$work/daemon.json"
dockerd --config-file "$work/daemon.json" --data-root "$work/docker" --exec-root "$work/docker-exec" --pidfile "$work/docker.pid" \
    -H "$DOCKER_HOST" --bridge none --iptables=false --ip6tables=false --storage-driver overlay2 --cgroup-parent /ctr-bench-build \
    --default-ulimit "nofile=$files:$files" >"$work/dockerd.log" 2>&1 &
daemon=$!
for _ in $(seq 100); do
    docker version >/dev/null 2>&1 && break
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.1
done
if docker version >/dev/null 2>&1; then
    docker import "$tar" localhost/busybox:latest >/dev/null
    has_docker=yes
else
    echo "bench: dockerd does not start here ($(tail -n 1 "$work/dockerd.log")): without it" >&2
    has_docker=
fi

# BuildKit: a root with everything of the host's that it needs, which its daemon makes its own.
kit=
if [ -n "${BENCH_KIT:-}" ]; then
    mkdir "$work/kit"
    mount -t tmpfs kit "$work/kit"
    tar -C "$work/kit" -xf "$BENCH_KIT"
    mkdir -p "$work/kit$work" "$work/kit-data"
    for folder in /proc /sys /dev "$work"; do mount --rbind "$folder" "$work/kit$folder"; done
    kit_socket=$work/kit.sock
    unshare --mount --propagation private bench/buildkit.sh "$kit_socket" "$work/kit-data" "$work/kit" &
    kit_daemon=$!
    kit="chroot $work/kit env DOCKER_BUILDKIT=1 DOCKER_HOST=unix://$kit_socket docker"
    for _ in $(seq 100); do
        $kit version >/dev/null 2>&1 && break
        kill -0 "$kit_daemon" 2>/dev/null || break
        sleep 0.1
    done
    if $kit version >/dev/null 2>&1; then
        $kit import - localhost/busybox:latest <"$tar" >/dev/null
    else
        echo "bench: trixie's dockerd does not start here ($(tail -n 1 "$work/kit-data/log")): without it" >&2
        BENCH_KIT=
    fi
fi

# Who is measured, in order; each has the words that build, and those that forget what was built under a name.
names=(ctr buildah ${has_docker:+docker} ${BENCH_KIT:+BuildKit})
build_with() { # PEER NAME [FRESH]: the command
    local again=${3:+--no-cache} jobs=${3:+--jobs 6}
    case $1 in
        ctr) echo "$ctr build $again -q --network none -t $2 . >/dev/null" ;;
        buildah) echo "$bud $again $jobs -t $2 . >/dev/null" ;;
        docker) echo "docker build $again -q --network none -t $2 ." ;;
        BuildKit) echo "$kit build $again -q --network none -t $2 $PWD" ;;
    esac
}
forget_with() { # PEER NAME
    case $1 in
        ctr) echo "$ctr builder prune -af >/dev/null; $ctr rmi -f $2 >/dev/null 2>&1; $ctr image prune -f >/dev/null; true" ;;
        buildah) echo "$buildah rmi -f $2 >/dev/null 2>&1; true" ;;
        docker) echo "docker rmi -f $2 >/dev/null 2>&1; docker builder prune -af >/dev/null; true" ;;
        BuildKit) echo "$kit rmi -f $2 >/dev/null 2>&1; $kit builder prune -af >/dev/null; true" ;;
    esac
}
# measure ROUNDS NAME [forget | fresh]: builds what is here with each peer.
measure() {
    local rounds=$1 peer words
    [ -z "$quick" ] || rounds=3
    words=(--shell=bash --warmup 1 --runs "$rounds" --export-json "$work/result.json")
    for peer in "${names[@]}"; do
        if [ "${3:-}" = forget ]; then words+=(--prepare "$(forget_with "$peer" "$2")"); else words+=(--prepare true); fi
        if [ "${3:-}" = fresh ]; then words+=("$(build_with "$peer" "$2" fresh)"); else words+=("$(build_with "$peer" "$2")"); fi
    done
    hyperfine "${words[@]}" >/dev/null 2>"$work/error" || { cat "$work/error" >&2; exit 1; }
}
table() {
    printf '\n| %s | min | median | max, ms | × the time of ctr |\n| --- | ---: | ---: | ---: | ---: |\n' "$1"
    local n
    for n in "${!names[@]}"; do
        jq -r --arg name "${names[$n]}" --argjson n "$n" 'def ms: . * 10000 | round / 10;
            .results[$n] as $r | "| \($name) | \($r.min | ms) | \($r.median | ms) | \($r.max | ms) | \($r.median / .results[0].median * 100 | round / 100) |"' "$work/result.json"
    done
}

printf 'kernel %s, %s cores, %s, %s%s\n' "$(uname -r)" "$(nproc)" "$($buildah --version)" \
    "${has_docker:+docker $(docker version -f '{{.Server.Version}}') (classic builder)}" \
    "${BENCH_KIT:+, BuildKit of docker $($kit version -f '{{.Server.Version}}')}"

# 1. Nothing changed: forty instructions over a small context.
mkdir -p "$work/noop/src"
{
    echo 'FROM localhost/busybox'
    for n in $(seq 13); do
        printf 'ENV V%s=%s\nCOPY src/f%s /app/\nRUN echo %s >/r%s\n' "$n" "$n" "$n" "$n" "$n"
        echo "$n" >"$work/noop/src/f$n"
    done
} >"$work/noop/Dockerfile"
cd "$work/noop"
measure 30 noop
table 'rebuild of 40 instructions, nothing changed'

# 2. COPY of 500 MB in 20,000 files, never seen before. None of them is a hole or alike.
mkdir -p "$work/copy/files"
python3 - "$work/copy/files" <<'PYTHON'
import os, sys
block = os.urandom(1 << 20)
for n in range(20000):
    folder = f"{sys.argv[1]}/{n // 200}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/{n}", "wb") as file:
        file.write(n.to_bytes(4, "big") + block[n % 1000:][:26210])
PYTHON
printf 'FROM localhost/busybox\nCOPY files /files/\n' >"$work/copy/Dockerfile"
cd "$work/copy"
measure 5 copy forget
table 'COPY of 500 MB in 20,000 files'

# How much memory that takes: ctr's own processes, from an empty cache.
"$ctr" builder prune -af >/dev/null; "$ctr" rmi -f copy >/dev/null 2>&1 || true; "$ctr" image prune -f >/dev/null
peak=$(python3 - "$ctr" <<'PYTHON'
import resource, subprocess, sys
subprocess.run([sys.argv[1], "build", "-q", "--network", "none", "-t", "copy", "."], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
PYTHON
)
printf '\npeak memory of ctr in that build: %s MiB\n' "$peak"
"$ctr" rmi -f copy >/dev/null 2>&1 || true
$buildah rmi -f copy >/dev/null 2>&1 || true

# 3. Six stages that each compress some megabytes, and one that collects. What the work takes alone, all at once, is the floor.
mkdir -p "$work/stages" "$work/plain"
tar -C "$work/plain" -xf "$tar"
mount --rbind /dev "$work/plain/dev"
stages() { # MEGABYTES
    local n job="dd if=/dev/zero bs=1M count=$1 2>/dev/null | gzip -9"
    {
        for n in 1 2 3 4 5 6; do printf 'FROM localhost/busybox AS s%s\nRUN %s >/out%s\n' "$n" "$job" "$n"; done
        echo 'FROM localhost/busybox'
        for n in 1 2 3 4 5 6; do echo "COPY --from=s$n /out$n /"; done
    } >"$work/stages/Dockerfile"
    cd "$work/stages"
    measure 9 stages fresh
    table "six stages, each of $1 MB"
    hyperfine --shell=none --warmup 1 --runs 9 --export-json "$work/floor.json" \
        "chroot $work/plain sh -c 'for n in 1 2 3 4 5 6; do { $job >/out\$n; } & done; wait'" >/dev/null 2>&1
    jq -r --slurpfile ctr "$work/result.json" 'def ms: . * 10000 | round / 10;
        .results[0] as $r | "| the work alone | \($r.min | ms) | \($r.median | ms) | \($r.max | ms) | \($r.median / $ctr[0].results[0].median * 100 | round / 100) |"' "$work/floor.json"
}
stages 24
stages 4

# 4. A layer of 1 GB as gzip: half of it text, half noise.
mkdir -p "$work/layer"
python3 - "$work/layer/data" <<'PYTHON'
import os, random, sys
random.seed(1)
words = [bytes(random.choices(b"abcdefghijklmnopqrstuvwxyz", k=random.randint(2, 9))) for _ in range(4000)]
with open(sys.argv[1], "wb") as file:
    for n in range(64):
        text = b" ".join(random.choices(words, k=1500000))
        file.write(text[:8 << 20])
        file.write(os.urandom(8 << 20))
PYTHON
[ -z "$quick" ] || truncate -s 256M "$work/layer/data"
printf 'FROM scratch\nCOPY data /\n' >"$work/layer/Dockerfile"
cd "$work/layer"
bytes=$(stat -c %s data)
"$ctr" build -q -t layer . >/dev/null
begin=$(date +%s.%N)
"$ctr" save --format oci -o "$work/layer.tar" layer
middle=$(date +%s.%N)
python3 - data <<'PYTHON'
import sys, zlib
packer = zlib.compressobj(6, zlib.DEFLATED, 31)
with open(sys.argv[1], "rb") as file:
    while part := file.read(1 << 20):
        packer.compress(part)
packer.flush()
PYTHON
end=$(date +%s.%N)
awk -v b="$begin" -v m="$middle" -v e="$end" -v bytes="$bytes" 'BEGIN {
    printf "\n| export of a layer of %d MB as gzip | MB/s |\n| --- | ---: |\n| ctr save | %.0f |\n| zlib -6, one core | %.0f |\n| ratio | %.2f |\n",
        bytes / 1e6, bytes / 1e6 / (m - b), bytes / 1e6 / (e - m), (e - m) / (m - b) }'
