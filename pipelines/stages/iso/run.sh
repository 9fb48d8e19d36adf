. /isokiln/kind/squash.sh
name=$(option name)
name=${name:-$PIPELINE}
tree=/isokiln/iso
label=$(option label)
label=${label:-$(tr 'a-z.-' 'A-Z__' <<<"$PIPELINE" | cut -c 1-32)}
title=$(option title)
title=${title:-$PIPELINE}
timeout=$(option timeout)
[[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$ ]] || fail "name \"$name\" is not valid" "use letters, digits, '.', '_', '+' and '-', beginning with a letter or digit"
[[ $label =~ ^[A-Z0-9_]{1,32}$ ]] || fail "label \"$label\" is not valid" "use up to 32 capital letters, digits and '_'"

case $DISTRIBUTION in
    debian) live=live arguments="boot=live components" ;;
    ubuntu) live=casper arguments="boot=casper" ;;
esac
arguments+=" quiet"
if enabled serial-console; then arguments="${arguments% quiet} console=tty0 console=ttyS0,115200"; fi
if [[ -d $ROOTFS/usr/share/plymouth/themes ]] && ! enabled serial-console; then arguments+=" splash"; fi
extra=$(option kernel-arguments)
arguments+=${extra:+ $extra}

brand=$ROOTFS/usr/share/isokiln/brand
[[ -e $brand/brand.json ]] || brand=
# "#rrggbb" of the brand, without "#".
colour() { jq -r --arg name "$1" '.colours[$name][1:]' "$brand/brand.json"; }

# Ubuntu keeps several shims, each with an ending of its own; the one without is a link that leads out of the tree.
for shim in "$ROOTFS"/usr/lib/shim/shimx64.efi.signed{.latest,} ""; do [[ ! -s $shim ]] || break; done
signed_grub=$ROOTFS/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed
signed=
case $(option secure-boot) in
    auto) [[ ! $shim || ! -s $signed_grub ]] || signed=yes ;;
    yes)
        [[ $shim && -s $signed_grub ]] || fail "the root file system holds no signed boot loaders" \
            "install shim-signed and grub-efi-amd64-signed in an earlier stage, or set secure-boot = \"no\""
        signed=yes
        ;;
esac

# The newest kernel that has an initramfs.
version=$(cd "$ROOTFS/boot" && ls vmlinuz-* 2>/dev/null | sed 's/^vmlinuz-//' | sort -V | tail -n 1) || true
[[ $version ]] || fail "the root file system holds no kernel" "add a stage with uses = \"live\" before this one"
[[ -s $ROOTFS/boot/initrd.img-$version ]] || fail "kernel $version has no initramfs" \
    "add a stage with uses = \"live\" before this one, or where that has initramfs = false, one with run = \"update-initramfs -c -k all\""
installed=$(sed -n 's|.*/boot/vmlinuz-\([^"]*\)".*|\1|p' "$ROOTFS/etc/calamares/modules/unpackfs.conf" 2>/dev/null) || true
[[ ! $installed || $installed = "$version" ]] || fail "the installer is set up for kernel $installed, and the ISO has $version" \
    "put the stage with uses = \"calamares\" behind the one that has installed kernel $version"
mkdir -p "$tree"/{$live,isolinux,boot/grub,EFI/BOOT,.disk}
cp "$ROOTFS/boot/vmlinuz-$version" "$tree/$live/vmlinuz"
cp "$ROOTFS/boot/initrd.img-$version" "$tree/$live/initrd.img"

progress "putting the layers together"
layers=()
for layer in $LAYERS; do layers+=("$(squashed "$layer")"); done
python3 /isokiln/kind/merge.py "$tree/$live/filesystem.squashfs" "$SOURCE_DATE_EPOCH" "${layers[@]}" ||
    fail "the compressed layers cannot be put together" "the stage's log has the whole story; isokiln clean drops them, and the next build makes them anew"
du --summarize --block-size=1 --apparent-size "$ROOTFS" | cut -f1 >"$tree/$live/filesystem.size"

progress "making the boot menus"
printf '%s %s %s\n' "$title" "$SUITE" "$ARCHITECTURE" >"$tree/.disk/info"

menu=menu
if [[ $brand ]]; then menu=vesamenu; fi
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/{ldlinux,libcom32,libutil,$menu}.c32 "$tree/isolinux/"
if [[ $brand ]]; then cp "$brand/isolinux.png" "$tree/isolinux/splash.png"; fi
{
    if enabled serial-console; then echo "serial 0 115200"; fi
    printf 'ui %s.c32\nprompt 0\ntimeout %d\n' "$menu" "$((timeout * 10))"
    if [[ $brand ]]; then
        # The picture has the name.
        printf 'menu title \nmenu background splash.png\nmenu resolution 640 480\nmenu vshift 11\nmenu hshift 13\nmenu width 54\nmenu margin 4\n'
        printf 'menu color screen * #00000000 #00000000 none\nmenu color border * #00000000 #00000000 none\n'
        printf 'menu color title * #00000000 #00000000 none\nmenu color tabmsg * #80%s #00000000 none\n' "$(colour text)"
        printf 'menu color unsel * #ff%s #00000000 none\nmenu color sel * #ff%s #ff%s none\n' \
            "$(colour text)" "$(colour highlight-text)" "$(colour highlight)"
        printf 'menu color timeout_msg * #ff%s #00000000 none\nmenu color timeout * #ff%s #00000000 none\n' \
            "$(colour text)" "$(colour highlight)"
        printf 'menu color cmdmark * #ff%s #00000000 none\nmenu color cmdline * #ff%s #00000000 none\n' \
            "$(colour highlight)" "$(colour text)"
    else
        printf 'menu title %s\n' "$title"
    fi
    printf 'label live\n  menu label %s\n  menu default\n' "$title"
    printf '  kernel /%s/vmlinuz\n  append initrd=/%s/initrd.img %s\n' "$live" "$live" "$arguments"
    printf 'label failsafe\n  menu label %s (safe graphics)\n' "$title"
    printf '  kernel /%s/vmlinuz\n  append initrd=/%s/initrd.img %s nomodeset\n' "$live" "$live" "$arguments"
} >"$tree/isolinux/isolinux.cfg"

quoted=${title//\'/}
screen=console
if [[ $brand ]]; then
    screen=gfxterm
    theme=$tree/boot/grub/theme
    mkdir -p "$theme" "$tree/boot/grub/fonts"
    cp /usr/share/grub/unicode.pf2 "$tree/boot/grub/fonts/"
    cp "$brand/grub.png" "$theme/background.png"
    # The bar behind the chosen entry: one dot, which GRUB stretches.
    python3 - "$(colour highlight)" "$theme/select_c.png" <<'PYTHON'
import struct, sys, zlib
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
dot = zlib.compress(b"\0" + bytes.fromhex(sys.argv[1]))
open(sys.argv[2], "wb").write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", dot) + chunk(b"IEND", b""))
PYTHON
    cat >"$theme/theme.txt" <<THEME
title-text: ""
desktop-image: "background.png"
desktop-color: "#$(colour background)"
terminal-font: "Unifont Regular 16"
terminal-left: "10%"
terminal-top: "10%"
terminal-width: "80%"
terminal-height: "80%"
+ boot_menu {
    left = 25%
    top = 38%
    width = 50%
    height = 36%
    item_font = "Unifont Regular 16"
    item_color = "#$(colour text)"
    selected_item_color = "#$(colour highlight-text)"
    selected_item_pixmap_style = "select_*.png"
    item_height = 36
    item_padding = 14
    item_spacing = 8
}
+ progress_bar {
    id = "__timeout__"
    left = 25%
    top = 78%
    width = 50%
    height = 20
    font = "Unifont Regular 16"
    text = "@TIMEOUT_NOTIFICATION_SHORT@"
    text_color = "#$(colour text)"
    fg_color = "#$(colour highlight)"
    bg_color = "#$(colour panel)"
    border_color = "#$(colour panel)"
}
THEME
fi
{
    if [[ $brand ]]; then
        # Under Secure Boot, GRUB takes only the font that it brings along, which is the same one.
        printf 'if loadfont ($root)/boot/grub/fonts/unicode.pf2; then true; fi\nset gfxmode=1920x1080,1280x800,1024x768,auto\n'
        printf 'insmod all_video\ninsmod gfxterm\ninsmod gfxmenu\ninsmod png\nset theme=($root)/boot/grub/theme/theme.txt\n'
    fi
    if enabled serial-console; then
        printf 'serial --unit=0 --speed=115200\nterminal_input console serial\nterminal_output %s serial\n' "$screen"
    elif [[ $brand ]]; then
        printf 'terminal_output gfxterm\n'
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
if [[ $signed ]]; then
    # The firmware trusts shim, shim trusts GRUB, and GRUB reads its first words from a folder named after whoever
    # signed it.
    cp "$shim" "$tree/EFI/BOOT/BOOTX64.EFI"
    cp "$signed_grub" "$tree/EFI/BOOT/grubx64.efi"
    for keys in "$ROOTFS"/usr/lib/shim/mmx64.efi{.signed,}; do
        if [[ -s $keys ]]; then
            cp "$keys" "$tree/EFI/BOOT/mmx64.efi"
            break
        fi
    done
    mkdir -p "$tree/EFI/$DISTRIBUTION"
    cp "$embedded" "$tree/EFI/$DISTRIBUTION/grub.cfg"
else
    grub-mkimage --directory=/usr/lib/grub/x86_64-efi --format=x86_64-efi --prefix=/boot/grub --config="$embedded" \
        --output="$tree/EFI/BOOT/BOOTX64.EFI" \
        all_video boot configfile echo efi_gop efifwsetup fat font gfxmenu gfxterm iso9660 linux loopback ls normal part_gpt \
        part_msdos png reboot halt search search_fs_file search_label serial sleep terminal test true
fi
esp=$tree/boot/grub/efi.img
size=$(($(du --summarize --block-size=1024 --apparent-size "$tree/EFI" | cut -f1) + 256))
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
