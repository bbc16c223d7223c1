#!/usr/bin/env bash
# bench/image.sh FOLDER - makes the image that bench/images.sh moves about, as an OCI layout named `big`.
#
# Four layers (a half, three tenths, three twentieths and a twentieth) of every third file of over 2 KiB in this machine's /usr: real
# contents in real sizes, some 24,000 entries, 400 MB once compressed by gzip -6 as docker's own layers are. The same /usr
# gives the same bytes. Where /usr is smaller, so is the image.
set -euo pipefail
to=$1
export LC_ALL=C
mkdir -p "$to/blobs/sha256"
work=$(mktemp -d "$to/work.XXXXXX")
echo "bench: making the image" >&2
trap 'rm -rf "$work"' EXIT

find /usr -xdev -type f -size +2k -size -40960k -not -path '*/__pycache__/*' -printf '%p\n' | sort | awk -v to="$work" '
    NR % 3 == 1 && n < 14700 {
        part = n++ % 20
        layer = part < 10 ? 1 : part < 16 ? 2 : part < 19 ? 3 : 4
        path = substr($0, 2)
        count = split(path, names, "/")
        folder = ""
        for (i = 1; i < count; i++) {
            folder = folder (i > 1 ? "/" : "") names[i]
            if (!((layer, folder) in seen)) { seen[layer, folder]; print folder > (to "/" layer) }
        }
        print path > (to "/" layer)
    }'

blob() { # file → its descriptor's digest and size; moved to its place
    local digest size
    digest=$(sha256sum "$1" | cut -d' ' -f1) size=$(stat -c %s "$1")
    mv "$1" "$to/blobs/sha256/$digest"
    printf '"digest":"sha256:%s","size":%s' "$digest" "$size"
}
pack() {
    tar -C / --no-recursion --verbatim-files-from --files-from="$work/$1" --owner=0 --group=0 --numeric-owner --mtime=@1700000000 \
        --format=gnu -cf - | gzip -6 -n >"$work/$1.gz"
    gzip -dc "$work/$1.gz" | sha256sum | cut -d' ' -f1 >"$work/$1.diff"
}
pids=()
for layer in 1 2 3 4; do pack "$layer" & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid"; done

diffs=$(for layer in 1 2 3 4; do printf '"sha256:%s",' "$(cat "$work/$layer.diff")"; done)
printf '{"architecture":"%s","os":"linux","config":{"Cmd":["true"]},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
    "$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')" "${diffs%,}" >"$work/config"
layers=$(for layer in 1 2 3 4; do
    printf '{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip",%s},' "$(blob "$work/$layer.gz")"
done)
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json",%s},"layers":[%s]}' \
    "$(blob "$work/config")" "${layers%,}" >"$work/manifest"
printf '{"imageLayoutVersion":"1.0.0"}' >"$to/oci-layout"
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",%s,"annotations":{"org.opencontainers.image.ref.name":"big"}}]}' \
    "$(blob "$work/manifest")" >"$to/index.json"
cat "$work"/[1-4] | wc -l >"$to/entries"
