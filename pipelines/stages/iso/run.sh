name=$(option name)
name=${name:-$PIPELINE}
tree=/isokiln/iso
label=$(option label)
label=${label:-$(tr 'a-z.-' 'A-Z__' <<<"$PIPELINE" | cut -c 1-32)}
title=$(option title)
title=${title:-$PIPELINE}
timeout=$(option timeout)
option_list exclude exclude
[[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$ ]] || fail "name \"$name\" is not valid" "use letters, digits, '.', '_', '+' and '-', beginning with a letter or digit"
[[ $label =~ ^[A-Z0-9_]{1,32}$ ]] || fail "label \"$label\" is not valid" "use up to 32 capital letters, digits and '_'"

case $DISTRIBUTION in
    debian) live=live arguments="boot=live components" ;;
    ubuntu) live=casper arguments="boot=casper" ;;
esac
arguments+=" quiet"
if enabled serial-console; then arguments="${arguments% quiet} console=tty0 console=ttyS0,115200"; fi
extra=$(option kernel-arguments)
arguments+=${extra:+ $extra}

# The newest kernel that has an initramfs.
version=$(cd "$ROOTFS/boot" && ls vmlinuz-* 2>/dev/null | sed 's/^vmlinuz-//' | sort -V | tail -n 1) || true
[[ $version ]] || fail "the root file system holds no kernel" "add a stage with uses = \"live\" before this one"
[[ -s $ROOTFS/boot/initrd.img-$version ]] || fail "kernel $version has no initramfs" "add a stage with uses = \"live\" before this one"
mkdir -p "$tree"/{$live,isolinux,boot/grub,EFI/BOOT,.disk}
cp "$ROOTFS/boot/vmlinuz-$version" "$tree/$live/vmlinuz"
cp "$ROOTFS/boot/initrd.img-$version" "$tree/$live/initrd.img"

progress "compressing the root file system"
compression=$(option compression)
level=$(option level)
case $compression in
    zstd) squash=(-comp zstd -Xcompression-level "${level/#0/15}") ;;
    gzip) squash=(-comp gzip -Xcompression-level "${level/#0/9}") ;;
    xz) squash=(-comp xz -Xbcj x86) ;;
    lz4) squash=(-comp lz4 -Xhc) ;;
esac
((${#exclude[@]})) && squash+=(-wildcards -e "${exclude[@]}")
# A snapshot of the tree's own times, and of the epoch for those of the file system itself.
mksquashfs "$ROOTFS" "$tree/$live/filesystem.squashfs" -noappend -no-progress -xattrs "${squash[@]}" ||
    fail "mksquashfs could not compress the root file system" "the stage's log has the whole story"
du --summarize --block-size=1 --apparent-size "$ROOTFS" | cut -f1 >"$tree/$live/filesystem.size"

progress "making the boot menus"
printf '%s %s %s\n' "$title" "$SUITE" "$ARCHITECTURE" >"$tree/.disk/info"

cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/{ldlinux,libcom32,libutil,menu}.c32 "$tree/isolinux/"
{
    if enabled serial-console; then echo "serial 0 115200"; fi
    printf 'ui menu.c32\nprompt 0\ntimeout %d\nmenu title %s\n' "$((timeout * 10))" "$title"
    printf 'label live\n  menu label %s\n  menu default\n' "$title"
    printf '  kernel /%s/vmlinuz\n  append initrd=/%s/initrd.img %s\n' "$live" "$live" "$arguments"
    printf 'label failsafe\n  menu label %s (safe graphics)\n' "$title"
    printf '  kernel /%s/vmlinuz\n  append initrd=/%s/initrd.img %s nomodeset\n' "$live" "$live" "$arguments"
} >"$tree/isolinux/isolinux.cfg"

quoted=${title//\'/}
{
    if enabled serial-console; then
        printf 'serial --unit=0 --speed=115200\nterminal_input console serial\nterminal_output console serial\n'
    fi
    printf 'set timeout=%d\nset default=0\n' "$timeout"
    printf "menuentry '%s' {\n  linux /%s/vmlinuz %s\n  initrd /%s/initrd.img\n}\n" "$quoted" "$live" "$arguments" "$live"
    printf "menuentry '%s (safe graphics)' {\n  linux /%s/vmlinuz %s nomodeset\n  initrd /%s/initrd.img\n}\n" \
        "$quoted" "$live" "$arguments" "$live"
    printf "menuentry 'UEFI firmware settings' {\n  fwsetup\n}\n"
} >"$tree/boot/grub/grub.cfg"

# GRUB for UEFI finds the disc by its label, then reads the menu there.
embedded=/isokiln/embedded.cfg
printf 'search --no-floppy --set=root --label %s\nset prefix=($root)/boot/grub\nconfigfile ($root)/boot/grub/grub.cfg\n' \
    "$label" >"$embedded"
grub-mkimage --directory=/usr/lib/grub/x86_64-efi --format=x86_64-efi --prefix=/boot/grub --config="$embedded" \
    --output="$tree/EFI/BOOT/BOOTX64.EFI" \
    all_video boot configfile echo efi_gop efifwsetup fat font gfxmenu gfxterm iso9660 linux loopback ls normal part_gpt \
    part_msdos png reboot halt search search_fs_file search_label serial sleep terminal test true
esp=$tree/boot/grub/efi.img
size=$(($(stat --format=%s "$tree/EFI/BOOT/BOOTX64.EFI") / 1024 + 256))
mkfs.vfat -C "$esp" -n ESP -i "$(printf %08x "$((SOURCE_DATE_EPOCH & 0xffffffff))")" --invariant "$size" >/dev/null
export MTOOLS_SKIP_CHECK=1 TZ=UTC
find "$tree/EFI" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
mcopy -m -s -i "$esp" "$tree/EFI" ::

(cd "$tree" && find . -type f ! -name sha256sum.txt ! -path ./isolinux/isolinux.bin ! -path ./isolinux/boot.cat -print0 |
    LC_ALL=C sort -z | xargs -0 sha256sum >sha256sum.txt)
find "$tree" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

progress "writing the ISO"
xorriso -as mkisofs -o "$ARTIFACTS/$name.iso" -V "$label" -r -J -joliet-long \
    -isohybrid-mbr /usr/lib/ISOLINUX/isohdpfx.bin \
    -c isolinux/boot.cat -b isolinux/isolinux.bin -no-emul-boot -boot-load-size 4 -boot-info-table \
    -eltorito-alt-boot -e boot/grub/efi.img -no-emul-boot -isohybrid-gpt-basdat \
    "$tree" || fail "xorriso could not write the ISO" "the stage's log has the whole story"
(cd "$ARTIFACTS" && sha256sum "$name.iso" >"$name.iso.sha256")
note "$name.iso: $(stat --format=%s "$ARTIFACTS/$name.iso" | numfmt --to=iec-i --suffix=B)"
