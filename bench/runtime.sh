#!/usr/bin/env bash
# bench/runtime.sh [CTR-RUNTIME] - what the bare runtime costs beside crun and runc, measured in the same minute.
#
# The same root file system and the same config for all, on tmpfs, in a mount namespace of this script. Prints a
# table in Markdown; --quick runs fewer rounds.
set -euo pipefail
cd "$(dirname "$0")/.."

quick=
[ "${1:-}" = --quick ] && { quick=yes; shift; }
ctr=$(realpath "${1:-target/$(rustc -vV | sed -n 's/^host: //p')/release/ctr-runtime}")

[ "$(id -u)" -eq 0 ] || { echo "bench: as root" >&2; exit 1; }
[ -x "$ctr" ] || { echo "bench: no $ctr: cargo build --release -p runtime" >&2; exit 1; }
if [ -z "${BENCH_INSIDE:-}" ]; then
    scripts/need hyperfine crun runc jq time busybox=busybox-static unshare=util-linux
    exec env BENCH_INSIDE=yes unshare --mount "$0" ${quick:+--quick} "$ctr"
fi
# crun 1.8 takes a hybrid machine for a v2 one as soon as the empty v2 tree is mounted.
mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified

work=$(mktemp -d /dev/shm/ctr-bench.XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/bundle/rootfs/bin" "$work/small"
cp "$(command -v busybox)" "$work/bundle/rootfs/bin/busybox"
ln -s busybox "$work/bundle/rootfs/bin/true"
files=$(ulimit -Hn)
(cd "$work/bundle" && runc spec && jq --argjson n "$files" '.process.args = ["/bin/true"] | .process.terminal = false
    | .process.rlimits = [{type: "RLIMIT_NOFILE", hard: $n, soft: $n}]' config.json >c && mv c config.json)

ours="$ctr --root $work/ctr" crun="crun --root $work/crun" runc="runc --root $work/runc"
run() { echo "$1 run --bundle ${2:-$work/bundle} bench"; }
rounds=60 apart=40 crowds=7
[ -n "$quick" ] && rounds=15 apart=8 crowds=3

measure() { hyperfine --shell=none --export-json "$work/result.json" "$@" >/dev/null 2>"$work/error" || { cat "$work/error" >&2; exit 1; }; }
ms() { jq -r ".results[$1].median * 10000 | round / 10" "$work/result.json"; }
ratio() { jq -r "(.results[0].median / .results[1].median) * 100 | round / 100" "$work/result.json"; }
row() { printf '| %s | %s | %s | %s | %s |\n' "$@"; }

printf 'kernel %s, %s cores, %s, %s\n\n' "$(uname -r)" "$(nproc)" "$(crun --version | head -n 1)" "$(runc --version | head -n 1)"
row 'run of /bin/true' ctr-runtime crun runc '× crun'
printf '| --- | ---: | ---: | ---: | ---: |\n'

measure --warmup 3 --runs "$rounds" "$(run "$ours")" "$(run "$crun")" "$(run "$runc")"
row 'back to back, ms' "$(ms 0)" "$(ms 1)" "$(ms 2)" "$(ratio)"
measure --warmup 1 --runs "$apart" --prepare 'sleep 0.25' "$(run "$ours")" "$(run "$crun")" "$(run "$runc")"
row '250 ms apart, ms' "$(ms 0)" "$(ms 1)" "$(ms 2)" "$(ratio)"

# The most of any process of a run, its container's included; the median of some, for what the kernel maps beside what was asked for varies.
rss() {
    for _ in $(seq 15); do
        # shellcheck disable=SC2046 # a list of words
        /usr/bin/time -f %M $(run "$1") 2>&1
    done | sort -n | awk '{ all[NR] = $1 } END { printf "%.2f", all[int((NR + 1) / 2)] / 1024 }'
}
mine=$(rss "$ours") theirs=$(rss "$crun")
row 'peak RSS, MiB' "$mine" "$theirs" "$(rss "$runc")" "$(jq -n "$mine / $theirs * 100 | round / 100")"

# Fifty at once, from the first start to the last end.
crowd() {
    local begin end n
    begin=$(date +%s%N)
    for n in $(seq 50); do $1 run --bundle "$work/bundle" "crowd$n" & done
    wait
    end=$(date +%s%N)
    echo $(((end - begin) / 100000)) >>"$work/$(basename "${1%% *}").times"
}
median() { sort -n "$work/$(basename "${1%% *}").times" | jq -s '.[length / 2 | floor] / 10'; }
# In turns: what else the machine does meanwhile is then the same for all.
for _ in $(seq "$crowds"); do
    for runtime in "$ours" "$crun" "$runc"; do crowd "$runtime"; done
done
mine=$(median "$ours") theirs=$(median "$crun")
row '50 in parallel, ms' "$mine" "$theirs" "$(median "$runc")" "$(jq -n "$mine / $theirs * 100 | round / 100")"

# The least memory limit, in steps of 128 KiB, under which the container still starts.
least() {
    local kib
    for kib in $(seq 128 128 16384); do
        jq --argjson n $((kib * 1024)) '.root.path = "../bundle/rootfs" | .linux.resources.memory = {limit: $n, swap: $n}' \
            "$work/bundle/config.json" >"$work/small/config.json"
        $1 run --bundle "$work/small" small >/dev/null 2>&1 && { echo "$kib"; return; }
        $1 delete --force small >/dev/null 2>&1 || true
    done
    echo none
}
row 'least memory limit, KiB' "$(least "$ours")" "$(least "$crun")" "$(least "$runc")" ""
