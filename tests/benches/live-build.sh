#!/usr/bin/env bash
# Builds pipelines/ailinux.toml with isokiln and the same packages with Debian's live-build, in turns on this machine: cold,
# and again with one package more. Both have empty caches to begin with, the same mirror and the same squashfs settings.
# Prints a table. Needs an engine and ./target/release/isokiln; takes some 40 minutes on two processors.
#
# No drivers by DKMS on either side: live-build would leave compiler and headers in the image. It does less otherwise, too: no
# brand, no set-up of the installer, no boot menu of its own look.
set -euo pipefail
cd "$(dirname "$0")/../.."
isokiln=$PWD/target/release/isokiln
image=$("$isokiln" image build --format json | sed -n 's/.*"image":"\([^"]*\)".*/\1/p')
work=$(mktemp -d)
trap '"$isokiln" clean --dir "$work/isokiln" >/dev/null 2>&1; docker volume rm -f "$volume" >/dev/null 2>&1; rm -rf "$work"' EXIT
volume=isokiln-bench-live-build-$$
more=mc

cp -r pipelines branding "$work/"
pipeline=$work/pipelines/ailinux.toml
sed -i 's/, drivers = \["broadcom-sta-dkms"\]//' "$pipeline"

# seconds COMMAND…: how long it takes; its output goes to a log.
seconds() {
    local start=$EPOCHREALTIME
    "$@" >>"$work/log" 2>&1 </dev/null || { tail -n 40 "$work/log" >&2; echo "failed: $*" >&2; return 1; }
    awk -v start="$start" -v end="$EPOCHREALTIME" 'BEGIN { printf "%.1f", end - start }'
}

with_isokiln() { "$isokiln" build "$pipeline" --no-test --dir "$work/isokiln"; }

# lb_in SCRIPT: runs a script in the builder image, in a folder of the engine that stays.
lb_in() {
    docker run --rm --log-driver=none --cap-add=SYS_ADMIN --cap-add=MKNOD --security-opt=seccomp=unconfined --security-opt=apparmor=unconfined \
        --volume="$volume:/work" --workdir=/work --env DEBIAN_FRONTEND=noninteractive "$image" bash -euc "
        apt-get update -qq
        apt-get install -qq -y --no-install-recommends live-build >/dev/null
        $1"
}

echo "| | isokiln | live-build | ratio |"
echo "| --- | --- | --- | --- |"
row() { awk -v what="$1" -v ours="$2" -v theirs="$3" 'BEGIN { printf "| %s | %.1f s | %.1f s | %.2f |\n", what, ours, theirs, ours / theirs }'; }

ours=$(seconds with_isokiln)
run=$(ls -d "$work"/isokiln/runs/*/ | tail -n 1)
# Everything that isokiln has installed, by name.
packages=$(cat "$run"/artifacts/*.packages.tsv | cut -f 1 | sed 's/:.*//' | sort -u | tr '\n' ' ')
set_up="
    read -r _ mirror suite _ < <(grep -m1 '^deb ' /etc/apt/sources.list)
    security=\${mirror%/}-security
    lb config --distribution \$suite --archive-areas 'main contrib non-free non-free-firmware' --apt-recommends false \
        --mirror-bootstrap \$mirror --mirror-binary \$mirror \
        --mirror-chroot-security \$security --mirror-binary-security \$security \
        --debootstrap-options --variant=minbase --memtest none --firmware-chroot false \
        --chroot-squashfs-compression-type zstd --chroot-squashfs-compression-level 15
    mkdir -p config/includes.chroot_before_packages/etc/dpkg/dpkg.cfg.d
    printf '%s\n' 'path-exclude=/usr/share/doc/*' 'path-include=/usr/share/doc/*/copyright' 'path-exclude=/usr/share/man/*' \
        'path-exclude=/usr/share/info/*' 'path-exclude=/usr/share/locale/*' \
        >config/includes.chroot_before_packages/etc/dpkg/dpkg.cfg.d/slim
    echo '$packages' >config/package-lists/ailinux.list.chroot"
theirs=$(seconds lb_in "$set_up; lb build; stat --format 'live-build: %s bytes' live-image-amd64.hybrid.iso")
row "cold build" "$ours" "$theirs"

sed -i "s/install = \[\"falkon\"/install = [\"$more\", \"falkon\"/" "$pipeline"
grep -q "\"$more\"" "$pipeline"
ours=$(seconds with_isokiln)
# Its caches of the bootstrap and of packages stay.
theirs=$(seconds lb_in "lb clean; $set_up; echo $more >>config/package-lists/ailinux.list.chroot; lb build")
row "rebuild with $more" "$ours" "$theirs"
grep '^live-build: ' "$work/log" | tail -n 1
stat --format 'isokiln: %s bytes' "$(ls -d "$work"/isokiln/runs/*/ | tail -n 1)/artifacts/ailinux.iso"
