# Makes one ISO of the corpus, inside the builder image: recipe.sh NAME BASE RECIPE makes /corpus/NAME.iso from
# /corpus/BASE.iso, or from nothing where BASE is empty. RECIPE is shell; these are its words beside the usual ones.
# They note changes of the base, from which the twin is written at the end, with the base's own boot records.
set -euo pipefail
name=$1 base=/corpus/$2.iso recipe=$3
# What a recipe without a base writes itself.
new=/corpus/.$name.iso
rm -f "$new"
export DEBIAN_FRONTEND=noninteractive MTOOLS_SKIP_CHECK=1
work=$(mktemp -d)
cd "$work"
changes=()
records=replay

# packages NAME… : unpacks Debian packages into ./usr, ./boot and so on.
packages() {
    apt-get update -qq
    (mkdir debs && cd debs && apt-get -o APT::Sandbox::User=root download -qq "$@")
    for deb in debs/*.deb; do dpkg-deb -x "$deb" .; done
}

# take PATH… : copies files of the base to ./iso/PATH; as they are in the end, so they come into the twin.
take() {
    local path
    for path; do
        mkdir -p "iso/$(dirname "$path")"
        [[ -e iso/$path ]] || xorriso -osirrox on -indev "$base" -extract "/$path" "iso/$path" 2>/dev/null || return
        chmod u+w "iso/$path"
        put "iso/$path" "$path"
    done
}

# put FILE PATH : puts a file or folder into the twin.
put() { changes+=(-map "$work/$1" "/$2"); }

# drop PATH… : leaves files or folders of the base out.
drop() { for path; do changes+=(-rm_r "/$path" --); done; }

# menus SED-SCRIPT : changes the boot menus that there are.
menus() {
    local path
    for path in isolinux/isolinux.cfg boot/grub/grub.cfg; do
        if take "$path"; then sed -i -E "$1" "iso/$path"; fi
    done
}

# arguments WORDS : adds to the kernel's arguments, behind what is there.
arguments() { menus "s|^( *append .*)|\1 $1|; s|^( *linux /.*)|\1 $1|"; }

# quiet_serial : takes the serial port out of menus and kernel arguments.
quiet_serial() { menus '/^ *serial |^ *terminal_/d; s/ console=[^ ]*//g; s/^( *(append|linux) .*)/\1 quiet/'; }

# root : unpacks the live system into ./root. squash : puts it back.
root() {
    take live/filesystem.squashfs
    unsquashfs -no-progress -d root iso/live/filesystem.squashfs >/dev/null
}
squash() {
    mksquashfs root iso/live/filesystem.squashfs -noappend -no-progress -quiet -comp zstd -Xcompression-level 1
}

# unit NAME TARGET LINES… : adds a unit to ./root that the target wants; its first section is [Unit].
unit() {
    local wants=root/etc/systemd/system/$2.wants
    mkdir -p "$wants"
    printf '%s\n' '[Unit]' "${@:3}" >"root/etc/systemd/system/$1"
    ln -s "../$1" "$wants/"
}

# service NAME COMMAND : adds a service to ./root that runs a command once, as one of the last.
service() { unit "$1.service" multi-user.target '[Service]' 'Type=oneshot' "ExecStart=$2"; }

# early COMMAND : adds a service to ./root that runs a command once, as soon as there are services.
early() { unit early.service sysinit.target 'DefaultDependencies=no' '[Service]' 'Type=oneshot' "ExecStart=$1"; }

# graft : lays the files in ./graft over those of the initramfs, as another archive behind it.
graft() {
    take live/initrd.img
    truncate --size=%512 iso/live/initrd.img
    (cd graft && find . -mindepth 1 | cpio --create --format=newc --quiet) >>iso/live/initrd.img
}

# truncate_to PERCENT PATH : cuts a file of the base short.
truncate_to() {
    take "$2"
    truncate --size=$(($(stat --format=%s "iso/$2") * $1 / 100)) "iso/$2"
}

# zeros PATH FIRST COUNT : overwrites bytes of a file of the base; COUNT 0 is all of them.
zeros() {
    take "$1"
    local count=$3
    ((count)) || count=$(stat --format=%s "iso/$1")
    head -c "$count" /dev/zero | dd of="iso/$1" bs=64K seek="$2" oflag=seek_bytes conv=notrunc status=none
}

# esp COMMAND… : takes the EFI system partition out and runs a command of mtools on it.
esp() {
    take boot/grub/efi.img
    "$1" -i iso/boot/grub/efi.img "${@:2}"
}

eval "$recipe"
if [[ ! -e $new ]]; then
    xorriso -overwrite on -indev "$base" -outdev "$new" -boot_image any "$records" -padding 0 \
        "${changes[@]}" -end 2>xorriso.log || { cat xorriso.log >&2; exit 1; }
fi
if declare -F finally >/dev/null; then finally "$new"; fi
chown --reference=/corpus "$new"
mv "$new" "/corpus/$name.iso"
