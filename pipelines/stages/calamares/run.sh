option_list remove more
storage=$(option storage)
memory=$(option memory)

case $DISTRIBUTION in
    debian)
        medium=/run/live/medium/live
        live=(live-boot live-boot-initramfs-tools live-config live-config-systemd live-tools)
        ;;
    ubuntu)
        medium=/cdrom/casper
        live=(casper)
        ;;
esac
kernel=$(cd "$ROOTFS/boot" && ls vmlinuz-* 2>/dev/null | sed 's/^vmlinuz-//' | sort -V | tail -n 1) || true
[[ $kernel ]] || fail "the root file system holds no kernel to install" "put this stage behind the one with uses = \"live\""

before=/isokiln/packages-before.tsv
record_packages "$before"
apt_update
# What both firmwares need lies in the system; the packages that keep it up to date exclude each other, so they wait in a
# folder until it is known which machine it is. wmctrl lets the boot test see the installer's window.
apt_install calamares qml6-module-qtquick qml6-module-qtquick-controls qml6-module-qtquick-window os-prober parted \
    dosfstools e2fsprogs btrfs-progs xfsprogs ntfs-3g cryptsetup cryptsetup-initramfs rsync squashfs-tools efibootmgr \
    mokutil grub2-common grub-pc-bin grub-efi-amd64-bin grub-efi-amd64-signed shim-signed pkexec polkitd \
    x11-xserver-utils console-setup locales wmctrl
calamares=$(in_rootfs dpkg-query --show --showformat='${Version}' calamares)
in_rootfs dpkg --compare-versions "$calamares" ge 3.3 || fail "Calamares $calamares of $SUITE reads other settings than this kind writes" \
    "take a suite with Calamares 3.3 or newer, such as trixie"
# fetch FOLDER PACKAGE: leaves a package there, with all that it needs and the system has not.
fetch() {
    local folder=/usr/share/isokiln/boot-loaders/$1 names
    progress "fetching the boot loader for $1"
    mkdir -p "$ROOTFS$folder"
    names=$(apt install --simulate "$2" | sed -n 's/^Inst \([^ ]*\) .*/\1/p') &&
        in_rootfs sh -c 'cd "$0" && apt-get -o APT::Sandbox::User=root -o Acquire::Retries=3 download "$@"' "$folder" $names ||
        fail "the boot loader for $1 cannot be fetched" "the stage's log has the whole story"
}
fetch bios grub-pc
fetch uefi grub-efi-amd64
record_packages /isokiln/packages-after.tsv
comm -13 "$before" /isokiln/packages-after.tsv >"$ARTIFACTS/$STAGE.packages.tsv"
# Calamares' list of what to remove may name only what is there.
mapfile -t surplus < <(printf '%s\n' "${live[@]}" "${more[@]}" | sort | comm -12 - <(cut -f1 /isokiln/packages-after.tsv | sort))

# --- looks --------------------------------------------------------------------------------------
brand=$ROOTFS/usr/share/isokiln/brand
if [[ -e $brand/brand.json ]]; then
    said() { jq -r "$1 // \"\"" "$brand/brand.json"; }
    id=$(said .id) name=$(said .name) version=$(said .version) tagline=$(said .tagline)
    background=$(said .colours.panel) text=$(said .colours.text) highlight=$(said .colours.highlight)
    highlight_text=$(said '.colours["highlight-text"]')
else
    id=isokiln name=$(. "$ROOTFS/etc/os-release" && echo "$NAME") version=$(. "$ROOTFS/etc/os-release" && echo "${VERSION_ID:-}")
    tagline="" background="#292f34" text="#ffffff" highlight="#d35400" highlight_text="#ffffff"
fi
# What GRUB's menu calls the system. The folder on the EFI system partition is named after its first word, in updates too,
# and a signed GRUB reads its menu from the folder of whoever has signed it only.
distributor=${DISTRIBUTION^}
[[ $id = isokiln ]] || distributor+=" $name"
looks=$ROOTFS/etc/calamares/branding/$id
mkdir -p "$looks" "$ROOTFS"/etc/calamares/modules
if [[ -e $brand/brand.json ]]; then
    cp "$brand"/{mark,logo}.png "$looks/"
else
    cp "$ROOTFS/usr/share/calamares/branding/default/squid.png" "$looks/mark.png"
    cp "$looks/mark.png" "$looks/logo.png"
fi
cat >"$looks/branding.desc" <<YAML
---
componentName: $id
welcomeStyleCalamares: false
welcomeExpandingLogo: true
windowExpanding: normal
windowSize: 1000px,640px
windowPlacement: center
sidebar: widget
navigation: widget
strings:
    productName: "$name"
    shortProductName: "$name"
    version: "$version"
    shortVersion: "$version"
    versionedName: "$name $version"
    shortVersionedName: "$name $version"
    bootloaderEntryName: "$distributor"
images:
    productIcon: "mark.png"
    productLogo: "mark.png"
    productWelcome: "mark.png"
style:
    SidebarBackground: "$background"
    SidebarText: "$text"
    SidebarTextCurrent: "$highlight_text"
    SidebarBackgroundCurrent: "$highlight"
slideshow: "show.qml"
slideshowAPI: 2
YAML
cat >"$looks/show.qml" <<QML
import QtQuick 2.5
import calamares.slideshow 1.0

Presentation {
    id: presentation

    Timer {
        interval: 12000
        running: presentation.activatedInCalamares
        repeat: true
        onTriggered: presentation.goToNextSlide()
    }

    Slide {
        Rectangle {
            anchors.fill: parent
            color: "$background"
            Image {
                id: logo
                source: "logo.png"
                anchors.centerIn: parent
                fillMode: Image.PreserveAspectFit
                width: Math.min(parent.width * 0.6, 640)
            }
            Text {
                anchors.top: logo.bottom
                anchors.topMargin: 24
                anchors.horizontalCenter: parent.horizontalCenter
                text: "${tagline//\"/}"
                color: "$text"
                font.pixelSize: 22
            }
        }
    }
}
QML

# --- what it does -------------------------------------------------------------------------------
cat >"$ROOTFS/etc/calamares/settings.conf" <<YAML
---
modules-search: [ local, /usr/lib/calamares/modules ]
instances:
    - { id: boot-loaders, module: shellprocess, config: shellprocess-boot-loaders.conf }
    - { id: boot-fallback, module: shellprocess, config: shellprocess-boot-fallback.conf }
    - { id: live-only, module: shellprocess, config: shellprocess-live-only.conf }
sequence:
    - show: [ welcome, locale, keyboard, partition, users, summary ]
    - exec:
        - partition
        - mount
        - unpackfs
        - machineid
        - luksbootkeyfile
        - fstab
        - locale
        - keyboard
        - localecfg
        - users
        - displaymanager
        - networkcfg
        - hwclock
        - services-systemd
        - packages
        - shellprocess@boot-loaders
        - grubcfg
        - plymouthcfg
        - initramfscfg
        - initramfs
        - bootloader
        - shellprocess@boot-fallback
        - shellprocess@live-only
        - umount
    - show: [ finished ]
branding: $id
prompt-install: false
dont-chroot: false
oem-setup: false
disable-cancel: false
disable-cancel-during-exec: false
quit-at-end: false
YAML
module() { cat >"$ROOTFS/etc/calamares/modules/$1.conf"; }
module welcome <<YAML
---
showSupportUrl: false
showKnownIssuesUrl: false
showReleaseNotesUrl: false
requirements:
    requiredStorage: $storage
    requiredRam: $memory
    internetCheckUrl: ""
    check: [ storage, ram, power, root ]
    required: [ storage, ram, root ]
YAML
module locale <<YAML
---
region: "$(cut -d/ -f1 "$ROOTFS/etc/timezone" 2>/dev/null || echo Etc)"
zone: "$(cut -d/ -f2- "$ROOTFS/etc/timezone" 2>/dev/null || echo UTC)"
useSystemTimezone: true
adjustLiveTimezone: true
localeGenPath: "/etc/locale.gen"
geoip: { style: "none", url: "" }
YAML
module partition <<YAML
---
efi: { mountPoint: "/boot/efi", recommendedSize: 512MiB, minimumSize: 100MiB, label: "ESP" }
userSwapChoices: [ none, small, suspend, file ]
luksGeneration: luks1
drawNestedPartitions: false
alwaysShowPartitionLabels: true
initialPartitioningChoice: none
initialSwapChoice: none
defaultFileSystemType: "ext4"
availableFileSystemTypes: [ "ext4", "btrfs", "xfs" ]
requiredStorage: $storage.0
YAML
module mount <<'YAML'
---
extraMounts:
    - { device: proc, fs: proc, mountPoint: /proc }
    - { device: sys, fs: sysfs, mountPoint: /sys }
    - { device: /dev, mountPoint: /dev, options: [ bind ] }
    - { device: tmpfs, fs: tmpfs, mountPoint: /run }
    - { device: /run/udev, mountPoint: /run/udev, options: [ bind ] }
    - { device: efivarfs, fs: efivarfs, mountPoint: /sys/firmware/efi/efivars, efi: true }
btrfsSubvolumes:
    - { mountPoint: /, subvolume: /@ }
    - { mountPoint: /home, subvolume: /@home }
YAML
module unpackfs <<YAML
---
unpack:
    - { source: "$medium/filesystem.squashfs", sourcefs: "squashfs", destination: "" }
    - { source: "$medium/vmlinuz", sourcefs: "file", destination: "/boot/vmlinuz-$kernel" }
YAML
module machineid <<'YAML'
---
systemd: true
dbus: true
dbus-symlink: true
YAML
module fstab <<'YAML'
---
crypttabOptions: luks,keyscript=/bin/cat
tmpOptions: { default: { tmpfs: false } }
YAML
module users <<'YAML'
---
defaultGroups: [ audio, cdrom, dip, floppy, netdev, plugdev, sudo, users, video ]
sudoersGroup: sudo
sudoersConfigureWithGroup: true
setRootPassword: false
doAutologin: false
doReusePassword: false
passwordRequirements: { minLength: 1 }
allowWeakPasswords: false
user: { shell: /bin/bash, forbidden_names: [ root ] }
hostname: { location: EtcFile, writeHostsFile: true, template: "${first}-${product}" }
YAML
module displaymanager <<'YAML'
---
displaymanagers: [ sddm, lightdm ]
basicSetup: false
YAML
module services-systemd <<'YAML'
---
units:
    - { name: NetworkManager.service, action: enable, mandatory: false }
YAML
module packages <<YAML
---
backend: apt
skip_if_no_internet: false
update_db: false
update_system: false
operations:
    - try_remove: [ $(printf '"%s", ' "${surplus[@]}" | sed 's/, $//') ]
YAML
module grubcfg <<'YAML'
---
overwrite: false
keep_distributor: false
always_use_defaults: true
defaults: { GRUB_TIMEOUT: 5, GRUB_DISABLE_OS_PROBER: false }
YAML
module bootloader <<YAML
---
efiBootLoader: "grub"
efiBootloaderId: "$DISTRIBUTION"
grubInstall: "grub-install"
grubMkconfig: "grub-mkconfig"
grubCfg: "/boot/grub/grub.cfg"
grubProbe: "grub-probe"
efiBootMgr: "efibootmgr"
installEFIFallback: false
YAML
module initramfs <<'YAML'
---
kernel: "all"
be_unsafe: false
YAML
module finished <<'YAML'
---
restartNowMode: user-checked
restartNowCommand: "systemctl -i reboot"
notifyOnFinished: false
YAML
module shellprocess-boot-loaders <<'YAML'
---
dontChroot: false
timeout: 300
script:
    - "/usr/lib/isokiln/install-boot-loader"
YAML
module shellprocess-boot-fallback <<'YAML'
---
dontChroot: false
timeout: 120
script:
    - "/usr/lib/isokiln/install-boot-fallback"
YAML
module shellprocess-live-only <<'YAML'
---
dontChroot: false
timeout: 120
script:
    - "/usr/lib/isokiln/forget-live-system"
YAML
# Calamares' own fonts and helpers run as root in the installed system.
helpers=$ROOTFS/usr/lib/isokiln
mkdir -p "$helpers"
cat >"$helpers/install-boot-loader" <<'SH'
#!/bin/sh
# Run by Calamares in the new system: installs the boot loader's packages for this machine's firmware from the ISO.
set -e
export DEBIAN_FRONTEND=noninteractive
firmware=bios
if [ -d /sys/firmware/efi ]; then firmware=uefi; fi
# Calamares itself writes the boot loader to the disk, and knows to which.
echo 'grub-pc grub-pc/install_devices_empty boolean true' | debconf-set-selections
dpkg --install /usr/share/isokiln/boot-loaders/$firmware/*.deb
SH
cat >"$helpers/install-boot-fallback" <<SH
#!/bin/sh
# Run by Calamares in the new system: lets a machine with UEFI that has forgotten its boot entries start the disk, by the
# signed boot loaders. What another system has put there stays.
set -e
[ -d /sys/firmware/efi ] || exit 0
[ ! -e /boot/efi/EFI/BOOT/BOOTX64.EFI ] || exit 0
echo 'grub-efi-amd64 grub2/force_efi_extra_removable boolean true' | debconf-set-selections
grub-install --target=x86_64-efi --efi-directory=/boot/efi --bootloader-id=$DISTRIBUTION --force-extra-removable --no-nvram
SH
cat >"$helpers/forget-live-system" <<SH
#!/bin/sh
# Run by Calamares in the new system: removes what only the live system needs.
set -e
rm -rf /usr/share/isokiln/boot-loaders /etc/live /usr/share/applications/install-$id.desktop /etc/xdg/autostart/install-$id.desktop \\
    /etc/xdg/autostart/install-$id-icon.desktop /etc/sudoers.d/live /etc/polkit-1/rules.d/50-installer.rules
apt-get --assume-yes purge calamares || true
# Packages that are installed from now on are whole.
rm -rf /etc/calamares /usr/lib/isokiln /etc/dpkg/dpkg.cfg.d/isokiln-slim
SH
chmod 755 "$helpers"/*

# --- how a person gets to it --------------------------------------------------------------------
cat >"$helpers/installer" <<'SH'
#!/bin/sh
# Starts Calamares with root's rights in the live user's session.
xhost +si:localuser:root >/dev/null
pkexec calamares "$@"
status=$?
xhost -si:localuser:root >/dev/null
exit $status
SH
chmod 755 "$helpers/installer"
# The live user is asked for no password.
mkdir -p "$ROOTFS/etc/polkit-1/rules.d"
cat >"$ROOTFS/etc/polkit-1/rules.d/50-installer.rules" <<'JS'
polkit.addRule(function (action, subject) {
    if (action.id === "com.github.calamares.calamares.pkexec.run" && subject.local && subject.active) {
        return polkit.Result.YES;
    }
});
JS
icons=$ROOTFS/usr/share/icons/hicolor/256x256/apps
mkdir -p "$ROOTFS"/usr/share/applications "$ROOTFS"/etc/xdg/autostart "$icons"
cp "$looks/mark.png" "$icons/install-$id.png"
# A cache that is older than the icons would hide them.
rm -f "$ROOTFS/usr/share/icons/hicolor/icon-theme.cache"
entry() {
    printf '[Desktop Entry]\nType=Application\nVersion=1.0\nName=Install %s\nComment=Put %s onto this computer\nExec=%s\nIcon=install-%s\nTerminal=false\nCategories=System;\nStartupWMClass=calamares\nStartupNotify=true\n' \
        "$name" "$name" "$1" "$id"
}
entry /usr/lib/isokiln/installer >"$ROOTFS/usr/share/applications/install-$id.desktop"
# The package's own entry would be a second one.
rm -f "$ROOTFS/usr/share/applications/calamares.desktop"
if enabled autostart; then cp "$ROOTFS/usr/share/applications/install-$id.desktop" "$ROOTFS/etc/xdg/autostart/"; fi
if enabled desktop-icon; then
    cat >"$helpers/desktop-icon" <<SH
#!/bin/sh
# Puts the installer's icon onto the desktop, whatever the folder is called in the user's language.
desktop=\$(xdg-user-dir DESKTOP)
mkdir -p "\$desktop"
install --mode=755 /usr/share/applications/install-$id.desktop "\$desktop/"
# File managers start what its user trusts; they look at different words.
for word in trusted trust; do
    gio set "\$desktop/install-$id.desktop" metadata::\$word true 2>/dev/null || true
done
SH
    chmod 755 "$helpers/desktop-icon"
    entry /usr/lib/isokiln/desktop-icon | sed '/^Icon=/d; $a NoDisplay=true' \
        >"$ROOTFS/etc/xdg/autostart/install-$id-icon.desktop"
fi
note "$(wc -l <"$ARTIFACTS/$STAGE.packages.tsv") packages installed; the installer is \"Install $name\""
