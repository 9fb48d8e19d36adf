hostname=$(option hostname)
user=$(option user)
locale=$(option locale)
keyboard=$(option keyboard)
timezone=$(option timezone)
kernel=$(option kernel)
option_list groups groups

[[ $hostname =~ ^[a-zA-Z0-9]([a-zA-Z0-9-]{0,62})$ ]] || fail "hostname \"$hostname\" is not valid" "use letters, digits and '-'"
[[ $user || $DISTRIBUTION = debian ]] || fail "casper always makes a user" "give the option user a name"
[[ $user =~ ^([a-z_][a-z0-9_-]{0,31})?$ ]] || fail "user \"$user\" is not valid" "use lower-case letters, digits, '-' and '_'"

packages=(systemd-sysv dbus udev zstd)
case $DISTRIBUTION in
    debian)
        packages+=("${kernel:-linux-image-amd64}" live-boot live-boot-initramfs-tools live-config live-config-systemd)
        [[ $user ]] && packages+=(user-setup sudo)
        ;;
    ubuntu) packages+=("${kernel:-linux-image-generic}" casper) ;;
esac
[[ $locale = C.* || $locale = C || $locale = POSIX ]] || packages+=(locales)
[[ $timezone = Etc/UTC ]] || packages+=(tzdata)

# The live system's drivers and scripts go into one initramfs for all machines.
mkdir -p "$ROOTFS/etc/initramfs-tools/conf.d"
echo 'COMPRESS=zstd' >"$ROOTFS/etc/initramfs-tools/conf.d/isokiln"

before=/isokiln/packages-before.tsv
record_packages "$before"
apt_update
apt_install "${packages[@]}"
record_packages /isokiln/packages-after.tsv
comm -13 "$before" /isokiln/packages-after.tsv >"$ARTIFACTS/$STAGE.packages.tsv"

echo "$hostname" >"$ROOTFS/etc/hostname"
printf '127.0.0.1\tlocalhost\n127.0.1.1\t%s\n::1\tlocalhost ip6-localhost ip6-loopback\n' "$hostname" >"$ROOTFS/etc/hosts"

[[ -e $ROOTFS/usr/share/zoneinfo/$timezone || $timezone = Etc/UTC ]] ||
    fail "there is no time zone \"$timezone\"" "write it as in Europe/Berlin"
ln -sf "/usr/share/zoneinfo/$timezone" "$ROOTFS/etc/localtime"
echo "$timezone" >"$ROOTFS/etc/timezone"

if [[ -e $ROOTFS/etc/locale.gen || $locale != C* ]]; then
    case $locale in
        C | C.* | POSIX) ;;
        *)
            grep -qx "$locale ${locale##*.}" "$ROOTFS/usr/share/i18n/SUPPORTED" ||
                fail "there is no locale \"$locale\"" "write it as in de_DE.UTF-8"
            echo "$locale ${locale##*.}" >"$ROOTFS/etc/locale.gen"
            progress "making locale $locale"
            in_rootfs locale-gen
            ;;
    esac
fi
echo "LANG=$locale" >"$ROOTFS/etc/locale.conf"
mkdir -p "$ROOTFS/etc/default"
ln -sf ../locale.conf "$ROOTFS/etc/default/locale"
printf 'XKBMODEL="pc105"\nXKBLAYOUT="%s"\nXKBVARIANT=""\nXKBOPTIONS=""\nBACKSPACE="guess"\n' "$keyboard" \
    >"$ROOTFS/etc/default/keyboard"

# What the boot scripts would otherwise decide anew, and slowly, at every boot.
case $DISTRIBUTION in
    debian)
        mkdir -p "$ROOTFS/etc/live/config.conf.d"
        {
            printf 'LIVE_HOSTNAME="%s"\n' "$hostname"
            printf 'LIVE_USERNAME="%s"\n' "$user"
            printf 'LIVE_USER_FULLNAME="%s"\n' "$(option user-fullname | tr -d '"$`\\')"
            printf 'LIVE_USER_DEFAULT_GROUPS="%s"\n' "${groups[*]}"
            printf 'LIVE_LOCALES="%s"\nLIVE_TIMEZONE="%s"\nLIVE_KEYBOARD_LAYOUTS="%s"\n' "$locale" "$timezone" "$keyboard"
            [[ $user ]] || printf 'LIVE_CONFIG_NOCOMPONENTS="user-setup,sudo"\n'
        } >"$ROOTFS/etc/live/config.conf.d/isokiln.conf"
        ;;
    ubuntu)
        printf 'export USERNAME="%s"\nexport USERFULLNAME="%s"\nexport HOST="%s"\nexport BUILD_SYSTEM="Ubuntu"\nexport FLAVOUR="%s"\n' \
            "$user" "$(option user-fullname | tr -d '"$`\\')" "$hostname" "$hostname" >"$ROOTFS/etc/casper.conf"
        ;;
esac

if enabled initramfs; then in_rootfs update-initramfs -c -k all; else forgo_initramfs; fi
note "$(wc -l <"$ARTIFACTS/$STAGE.packages.tsv") packages installed"
