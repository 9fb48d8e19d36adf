option_list firmware vendors
option_list drivers drivers
applet=$(option applet)

packages=(network-manager wpasupplicant wireless-regdb iw rfkill iproute2)
[[ $applet = none ]] || packages+=("$applet")
for vendor in "${vendors[@]}"; do
    case $DISTRIBUTION/$vendor in
        debian/intel) packages+=(firmware-iwlwifi) ;;
        debian/atheros) packages+=(firmware-atheros) ;;
        debian/realtek) packages+=(firmware-realtek) ;;
        debian/broadcom) packages+=(firmware-brcm80211) ;;
        debian/mediatek) packages+=(firmware-mediatek) ;;
        debian/marvell) packages+=(firmware-libertas) ;;
        # One package holds it all.
        ubuntu/intel | ubuntu/atheros | ubuntu/realtek | ubuntu/broadcom | ubuntu/mediatek | ubuntu/marvell)
            [[ " ${packages[*]} " = *" linux-firmware "* ]] || packages+=(linux-firmware)
            ;;
        *) fail "there is no firmware of \"$vendor\"" "choose from intel, atheros, realtek, broadcom, mediatek, marvell" ;;
    esac
done

before=/isokiln/packages-before.tsv
record_packages "$before"
apt_update
# Debian 12 has MediaTek's among many others'.
if ! in_rootfs apt-cache show firmware-mediatek >/dev/null 2>&1; then
    packages=("${packages[@]/#firmware-mediatek/firmware-misc-nonfree}")
fi
apt_install "${packages[@]}"

# Cuts off a module's signature. dkms signs with a key that it has just made up: no machine trusts it, and every build
# would leave another.
unsign() {
    perl -0777 -i -pe '
        my $magic = "~Module signature appended~\n";
        if (substr($_, -length $magic) eq $magic) {
            # struct module_signature ends with the length of the signature, big-endian.
            my $length = unpack "N", substr($_, -length($magic) - 4, 4);
            substr($_, -length($magic) - 12 - $length) = "";
        }' "$1"
}

# build_driver PACKAGE KERNEL: builds a driver and leaves its modules and settings in /isokiln/driver.
build_driver() {
    local module file
    install_optional "$1" || return 1
    # The package's own script builds for the running kernel, which is none of the image's.
    if ! in_rootfs dkms autoinstall -k "$2"; then
        # dkms would try it again with the next one, and fail that too.
        apt purge "$1" || fail "driver $1, which cannot be built, cannot be removed" "take it out of drivers"
        return 1
    fi
    rm -rf /isokiln/driver
    mkdir -p /isokiln/driver/{modules,modprobe.d}
    while IFS= read -r module; do
        cp "$module" /isokiln/driver/modules/
    done < <(find "$ROOTFS/lib/modules/$2/updates" -name '*.ko*' 2>/dev/null)
    find /isokiln/driver/modules -name '*.ko.xz' -exec xz --decompress {} +
    find /isokiln/driver/modules -name '*.ko.zst' -exec zstd --quiet --rm --decompress {} +
    [[ $(find /isokiln/driver/modules -name '*.ko' -print -quit) ]] || return 1
    for module in /isokiln/driver/modules/*.ko; do unsign "$module"; done
    # Drivers for other chips of the vendor are blacklisted by such a package, for good. Here they only come second: where the
    # new one has no chip, is refused under Secure Boot or has gone with its kernel, they are as they were.
    local names
    names=$(cd /isokiln/driver/modules && printf ' %s' *.ko)
    in_rootfs dpkg --listfiles "$1" | { grep '^/etc/modprobe.d/.*\.conf$' || true; } |
        while IFS= read -r file; do
            sed -E "s/^[[:space:]]*blacklist[[:space:]]+([^[:space:]]+).*/softdep \1 pre:${names//.ko/}/" "$ROOTFS$file" \
                >"/isokiln/driver/modprobe.d/${file##*/}"
        done
}

if ((${#drivers[@]})); then
    kernel=$(cd "$ROOTFS/boot" && ls vmlinuz-* 2>/dev/null | sed 's/^vmlinuz-//' | sort -V | tail -n 1) || true
    [[ $kernel ]] || fail "drivers are built for a kernel, and the root file system holds none" \
        "put this stage behind the one with uses = \"live\""
    kept=/isokiln/packages-kept.tsv
    record_packages "$kept"
    apt_install dkms "linux-headers-$kernel"
    built=()
    mkdir -p /isokiln/built/{modules,modprobe.d}
    for driver in "${drivers[@]}"; do
        progress "building $driver, which is optional"
        if build_driver "$driver" "$kernel"; then
            cp /isokiln/driver/modules/* /isokiln/built/modules/
            cp /isokiln/driver/modprobe.d/* /isokiln/built/modprobe.d/ 2>/dev/null || true
            built+=("$driver")
        else
            warn "driver $driver could not be built for $kernel; the image goes without it"
        fi
    done
    progress "removing what only the building needed"
    record_packages /isokiln/packages-after.tsv
    mapfile -t surplus < <(comm -13 <(cut -f1 "$kept") <(cut -f1 /isokiln/packages-after.tsv))
    ((${#surplus[@]} == 0)) || apt purge "${surplus[@]}" ||
        fail "what only the building needed cannot be removed" "the stage's log has the whole story"
    rm -rf "$ROOTFS/var/lib/dkms" "$ROOTFS/lib/modules/$kernel/updates/dkms"
    if ((${#built[@]})); then
        mkdir -p "$ROOTFS/lib/modules/$kernel/updates" "$ROOTFS/etc/modprobe.d"
        cp /isokiln/built/modules/* "$ROOTFS/lib/modules/$kernel/updates/"
        cp /isokiln/built/modprobe.d/* "$ROOTFS/etc/modprobe.d/" 2>/dev/null || true
        note "drivers built for $kernel: ${built[*]}"
    fi
    in_rootfs depmod "$kernel"
fi

record_packages /isokiln/packages-after.tsv
comm -13 "$before" /isokiln/packages-after.tsv >"$ARTIFACTS/$STAGE.packages.tsv"
note "$(wc -l <"$ARTIFACTS/$STAGE.packages.tsv") packages installed"
