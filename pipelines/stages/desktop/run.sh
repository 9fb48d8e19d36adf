session=$(option session)
manager=$(option display-manager)
option_list packages more

packages=(xserver-xorg xserver-xorg-input-libinput x11-xserver-utils xauth dbus-x11 dbus-user-session polkitd pkexec
    libpam-systemd xdg-user-dirs xdg-utils gvfs udisks2 fonts-dejavu-core libgl1-mesa-dri "$manager")
case $session in
    lxqt)
        packages+=(lxqt-core lxqt-about lxqt-powermanagement lxqt-sudo pavucontrol-qt pulseaudio featherpad lximage-qt
            qps lxqt-archiver xfwm4 breeze-icon-theme breeze-cursor-theme)
        command=startlxqt
        ;;
    xfce)
        packages+=(xfce4 xfce4-terminal xfce4-power-manager xfce4-pulseaudio-plugin pulseaudio mousepad ristretto
            xfce4-taskmanager policykit-1-gnome)
        command=startxfce4
        ;;
esac
case $manager in
    # A theme that takes a brand's wallpaper.
    sddm) packages+=(sddm-theme-maldives) ;;
    lightdm) packages+=(lightdm-gtk-greeter) ;;
esac

before=/isokiln/packages-before.tsv
record_packages "$before"
printf '%s shared/default-x-display-manager select %s\n' "$manager" "$manager" | in_rootfs debconf-set-selections
apt_update
# Before Qt 6.7 they are part of the library.
if [[ $session = lxqt ]] && in_rootfs apt-cache show qt6-svg-plugins >/dev/null 2>&1; then packages+=(qt6-svg-plugins); fi
apt_install "${packages[@]}" "${more[@]}"
record_packages /isokiln/packages-after.tsv
comm -13 "$before" /isokiln/packages-after.tsv >"$ARTIFACTS/$STAGE.packages.tsv"

# What LXQt's panel starts with a click; without any, it shows a hint for people who set up panels.
panel=$ROOTFS/usr/share/lxqt/panel.conf
if [[ -e $panel ]]; then
    mkdir -p "$ROOTFS/etc/xdg/lxqt"
    awk '
        { print }
        $0 == "[quicklaunch]" {
            print "apps\\1\\desktop=/usr/share/applications/pcmanfm-qt.desktop"
            print "apps\\2\\desktop=/usr/share/applications/qterminal.desktop"
            print "apps\\size=2"
        }' "$panel" >"$ROOTFS/etc/xdg/lxqt/panel.conf"
fi

# What the live boot scripts look at to find the session.
in_rootfs update-alternatives --set x-session-manager "/usr/bin/$command" ||
    fail "there is no session /usr/bin/$command" "the stage's log has the whole story"
in_rootfs systemctl set-default graphical.target
echo "/usr/sbin/$manager" >"$ROOTFS/etc/X11/default-display-manager"
[[ -x $ROOTFS/usr/sbin/$manager ]] || echo "/usr/bin/$manager" >"$ROOTFS/etc/X11/default-display-manager"

if ! enabled autologin; then
    case $DISTRIBUTION in
        debian)
            mkdir -p "$ROOTFS/etc/live/config.conf.d"
            echo 'LIVE_CONFIG_NOX11AUTOLOGIN="true"' >"$ROOTFS/etc/live/config.conf.d/isokiln-desktop.conf"
            ;;
        ubuntu) fail "casper always logs its user in" "leave autologin true" ;;
    esac
fi
note "$(wc -l <"$ARTIFACTS/$STAGE.packages.tsv") packages installed"
