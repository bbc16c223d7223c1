#!/usr/bin/env bash
# bench/run.sh [CTR] - what a container costs with ctr, and with its neighbours, measured in the same minute.
#
# Everything lies on tmpfs, in a mount and a network namespace of this script: nothing of the neighbours
# (bridges, iptables rules, storage) touches the machine. Prints a table in Markdown; --quick runs fewer rounds.
set -euo pipefail
cd "$(dirname "$0")/.."

quick=
[ "${1:-}" = --quick ] && { quick=yes; shift; }
ctr=$(realpath "${1:-target/$(rustc -vV | sed -n 's/^host: //p')/release/ctr}")

[ "$(id -u)" -eq 0 ] || { echo "bench: as root" >&2; exit 1; }
[ -x "$ctr" ] || { echo "bench: no $ctr: make build" >&2; exit 1; }
if [ -z "${BENCH_INSIDE:-}" ]; then
    scripts/need hyperfine podman crun runc jq ip=iproute2 unshare=util-linux
    tar=$(scripts/base-images --tar busybox)
    export BENCH_INSIDE=$tar
    exec unshare --mount --net "$0" ${quick:+--quick} "$ctr"
fi
tar=$BENCH_INSIDE
# crun 1.8 takes a hybrid machine for a v2 one as soon as the empty v2 tree is mounted.
mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified
ip link set lo up

work=$(mktemp -d /dev/shm/ctr-bench.XXXXXX)
export CTR_ROOT=$work/ctr CTR_STATE=$work/ctr-run
podman="podman --root $work/podman --runroot $work/podman-run --tmpdir $work/podman-tmp --cgroup-manager=cgroupfs --events-backend=file"
finish() {
    "$ctr" rm -f idle >/dev/null 2>&1 || true
    $podman rm -af >/dev/null 2>&1 || true
    umount -R "$work/podman/overlay" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

# The same image everywhere; the same limits, since no caller may raise its own here.
"$ctr" import --change 'CMD ["sh"]' "$tar" busybox >/dev/null
$podman import "$tar" localhost/busybox >/dev/null 2>&1
files=$(ulimit -Hn)
prun="$podman run --rm --ulimit nofile=$files:$files --ulimit nproc=4096:4096"

# A bundle for the bare runtimes: the same root file system, a usual spec.
mkdir -p "$work/bundle/rootfs"
tar -C "$work/bundle/rootfs" -xf "$tar"
(cd "$work/bundle" && runc spec && jq --argjson n "$files" '.process.args = ["true"] | .process.terminal = false
    | .root.readonly = false | .process.rlimits = [{type: "RLIMIT_NOFILE", hard: $n, soft: $n}]' config.json >c && mv c config.json)

rounds=(--warmup 5 --min-runs 60)
[ -n "$quick" ] && rounds=(--warmup 2 --runs 15)
measure() { hyperfine --shell=none --export-json "$work/result.json" "${rounds[@]}" "$@" >/dev/null 2>"$work/error" || { cat "$work/error" >&2; exit 1; }; }
row() { printf '| %s | %s | %s |\n' "$1" "$(jq -r ".results[$2] | .median * 1000 | . * 10 | round / 10" "$work/result.json")" "$3"; }
ratio() { jq -r "(.results[$1].median / .results[$2].median) * 100 | round / 100" "$work/result.json"; }

printf 'kernel %s, %s cores, %s, %s, %s\n\n' "$(uname -r)" "$(nproc)" "$(podman --version)" "$(crun --version | head -n 1)" "$(runc --version | head -n 1)"

printf '| default network | median, ms | |\n| --- | ---: | --- |\n'
measure "$ctr run --rm busybox true" "$prun localhost/busybox true"
row '`ctr run --rm busybox true`' 0 "$(ratio 0 1) of podman"
row '`podman run --rm busybox true`' 1 ""

printf '\n| no network | median, ms | |\n| --- | ---: | --- |\n'
measure "$ctr run --rm --network none busybox true" \
    "crun --root $work/crun run --bundle $work/bundle bench" \
    "runc --root $work/runc run --bundle $work/bundle bench" \
    "$prun --network none localhost/busybox true"
row '`ctr run --rm --network none busybox true`' 0 "$(ratio 0 1) × crun, $(ratio 0 2) × runc"
row '`crun run` of the same root, bare' 1 ""
row '`runc run` of the same root, bare' 2 ""
row '`podman run --rm --network none busybox true`' 3 ""

printf '\n| in a running container | median, ms | |\n| --- | ---: | --- |\n'
"$ctr" run -d --name idle busybox sleep 100000 >/dev/null
$prun -d --name idle localhost/busybox sleep 100000 >/dev/null
measure "$ctr exec idle true" "$podman exec idle true"
row '`ctr exec idle true`' 0 "$(ratio 0 1) of podman"
row '`podman exec idle true`' 1 ""

memory() { awk -v key="$2" '$1 == key ":" { printf "%.2f", $2 / 1024 }' "/proc/$1/smaps_rollup"; }
init=$("$ctr" inspect -f '{{.State.Pid}}' idle)
monitor=$(awk '/^PPid:/ { print $2 }' "/proc/$init/status")
conmon=$($podman inspect -f '{{.State.ConmonPid}}' idle)
printf '\n| idle monitor | RSS, MiB | PSS, MiB |\n| --- | ---: | ---: |\n'
printf '| ctr | %s | %s |\n' "$(memory "$monitor" Rss)" "$(memory "$monitor" Pss)"
printf '| conmon (podman) | %s | %s |\n' "$(memory "$conmon" Rss)" "$(memory "$conmon" Pss)"
