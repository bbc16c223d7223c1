#!/usr/bin/env bash
# bench/buildkit.sh --root           - makes the root file system with Debian trixie's docker and buildx, once; prints its tar's path
# bench/buildkit.sh SOCKET DATA ROOT - runs its daemon in ROOT, in the foreground, until it is killed
#
# Debian 12's docker comes without BuildKit's own client; trixie's has both, and runs on this kernel in a root of its own. ROOT is
# a mount that has the host's /proc, /sys and /dev in it, and the folders of SOCKET and DATA where the host has them; runc wants
# to be in a root that is one, hence pivot_root.
set -euo pipefail

if [ "$1" = --root ]; then
    "$(dirname "$0")/../scripts/need" mmdebstrap
    cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/ctr
    tar=$cache/bench-buildkit-1.tar
    mkdir -p "$cache"
    if [ ! -s "$tar" ]; then
        echo "buildkit: making a root with docker and buildx" >&2
        mmdebstrap --quiet --format=tar --variant=minbase --include=docker.io,docker-buildx,docker-cli trixie "$tar.part" http://deb.debian.org/debian >&2
        mv "$tar.part" "$tar"
    fi
    echo "$tar"
    exit
fi

socket=$1 data=$2 root=$3
files=$(ulimit -Hn)
mkdir -p "$data" "$root/old"
echo '{}' >"$data/daemon.json"
cd "$root"
/usr/sbin/pivot_root . old
umount -l /old
exec dockerd --config-file "$data/daemon.json" --data-root "$data/docker" --exec-root "$data/exec" --pidfile "$data/pid" -H "unix://$socket" \
    --bridge none --iptables=false --ip6tables=false --storage-driver overlay2 --cgroup-parent /ctr-bench-build/kit \
    --default-ulimit "nofile=$files:$files" >"$data/log" 2>&1
