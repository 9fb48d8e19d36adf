# The check `wlan`, run by the probe: every WLAN module of the running kernel, the firmware that it names, and a real
# association of one simulated radio with another. Prints lines KEY VALUE, which core::boot::check::wlan reads.
modules=/lib/modules/$(uname -r)
echo "kernel $(uname -r)"

# With an install line in modprobe.d, modprobe says that all is well and loads nothing.
load() {
    modprobe "$@" 2>&1 || return
    [ -e "/sys/module/$1" ] && return
    echo "modprobe says that it has loaded it, but it is not there: see modprobe.d"
    return 1
}

# Under Secure Boot the kernel takes no module that nobody has signed.
locked=
grep -qsF -e '[integrity]' -e '[confidentiality]' /sys/kernel/security/lockdown && locked=yes
refuses() { [ "$locked" ] && [ -z "$(modinfo --field=signer "$1")" ]; }

# WLAN drivers are what needs cfg80211, directly or through mac80211, wherever it lies.
drivers=$(sed -n 's|^\([^:]*\):.*/cfg80211\.ko.*|\1|p' "$modules/modules.dep" |
    sed 's|.*/||; s|\.ko.*||; y/-/_/' | sort -u | grep -vx -e mac80211 -e mac80211_hwsim)
for module in $drivers; do
    if why=$(load "$module"); then
        echo "loaded $module"
    elif refuses "$module"; then
        echo "unsigned $module"
    else
        echo "broken $module: $why"
    fi
done

# Firmware that drivers name: there, packed or not, or missing; lost where a package of this system has brought it.
packaged=/run/isokiln-probe/firmware
cat /var/lib/dpkg/info/*firmware*.list 2>/dev/null | sed -n 's|^\(/usr\)\{0,1\}/lib/firmware/||p' >"$packaged"
[ -z "$drivers" ] || modinfo $drivers 2>/dev/null |
    awk '/^filename:/ { sub(/.*\//, ""); sub(/\.ko.*/, ""); gsub("-", "_"); module = $0 } /^firmware:/ { print module, $2 }' |
    while read -r module file; do
        state=missing
        # Some name all files of a folder, with an asterisk.
        for there in /lib/firmware/$file /lib/firmware/$file.zst /lib/firmware/$file.xz; do
            if [ -e "$there" ]; then state=present; break; fi
        done
        if [ $state = missing ] && grep -qxF -e "$file" -e "$file.zst" -e "$file.xz" "$packaged"; then state=lost; fi
        echo "firmware $module $state $file"
    done

if ! why=$(load mac80211_hwsim radios=2); then
    echo "hwsim-error $why"
    exit 0
fi
echo "hwsim loaded"

# The simulated radios' interfaces.
radios() {
    for radio in /sys/class/ieee80211/*; do
        case $(readlink "$radio/device/driver") in */mac80211_hwsim) ls "$radio/device/net" ;; esac
    done
}
set -- $(radios)
point=$1 client=$2
wifi() { nmcli --terse --fields DEVICE,TYPE device 2>&1 | grep -c ":wifi$"; }
waited=0
while [ "$(wifi)" -lt 2 ] && [ $waited -lt 20 ]; do
    sleep 1
    waited=$((waited + 1))
done
nmcli --terse --fields DEVICE,TYPE,STATE device 2>&1 | sed 's/^/device /'
[ "$client" ] && [ "$(wifi)" -ge 2 ] || exit 0

# One radio becomes an access point with WPA2; NetworkManager joins it with the other and asks for an address.
if ! command -v wpa_supplicant >/dev/null; then
    echo "untested there is no wpa_supplicant to make an access point with"
    exit 0
fi
if ! command -v perl >/dev/null; then
    echo "untested there is no perl to hand out addresses with"
    exit 0
fi
work=/run/isokiln-probe/wlan
mkdir -p "$work"
tidy() {
    nmcli connection delete isokiln-wlan >/dev/null 2>&1
    for pid in "$work"/*.pid; do [ -e "$pid" ] && kill "$(cat "$pid")" 2>/dev/null; done
    rm -f "$work"/*.pid
}
tidy
nmcli device set "$point" managed no
cat >"$work/point.conf" <<'POINT'
network={
    ssid="isokiln"
    mode=2
    frequency=2412
    key_mgmt=WPA-PSK
    proto=RSN
    pairwise=CCMP
    psk="isokiln proves it"
}
POINT
wpa_supplicant -B -D nl80211 -i "$point" -c "$work/point.conf" -P "$work/point.pid" -f "$work/point.log" >"$work/point.out" 2>&1
# Answers every DHCP request (RFC 2131) that comes in over the air with the one address that it has.
perl -e '
    use Socket;
    my $device = shift;
    socket(my $socket, PF_INET, SOCK_DGRAM, 17) or die "socket: $!";
    setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, 1);
    setsockopt($socket, SOL_SOCKET, SO_BROADCAST, 1) or die "broadcast: $!";
    setsockopt($socket, SOL_SOCKET, 25, "$device\0") or die "bind to $device: $!";
    bind($socket, sockaddr_in(67, INADDR_ANY)) or die "port 67: $!";
    alarm 300;
    my ($server, $client, $mask) = map { inet_aton($_) } "10.77.0.1", "10.77.0.2", "255.255.255.0";
    while (defined recv($socket, my $packet, 1500, 0)) {
        next unless length $packet > 240 && ord($packet) == 1;
        my ($options, $type) = (substr($packet, 240), 0);
        while (length $options > 2 && ord($options) != 255) {
            if (ord($options) == 0) { $options = substr($options, 1); next }
            my ($code, $length) = unpack "CC", $options;
            $type = ord substr($options, 2, 1) if $code == 53;
            $options = substr($options, 2 + $length);
        }
        my $answer = $type == 1 ? 2 : $type == 3 ? 5 : next;
        my $reply = pack("CCCC a4 nn a4 a4 a4 a4 a16 x64 x128 N", 2, 1, 6, 0, substr($packet, 4, 4), 0, 0x8000,
            "\0" x 4, $client, $server, "\0" x 4, substr($packet, 28, 16), 0x63825363);
        $reply .= pack("CCC CCa4 CCN CCa4 C", 53, 1, $answer, 54, 4, $server, 51, 4, 3600, 1, 4, $mask, 255);
        send($socket, $reply, 0, sockaddr_in(68, INADDR_BROADCAST));
    }' "$point" >"$work/dhcp.log" 2>&1 &
echo $! >"$work/dhcp.pid"
nmcli connection add type wifi con-name isokiln-wlan ifname "$client" ssid isokiln autoconnect no \
    wifi-sec.key-mgmt wpa-psk wifi-sec.psk "isokiln proves it" ipv4.never-default yes ipv6.method disabled >"$work/join.log" 2>&1
if nmcli --wait 60 connection up isokiln-wlan >>"$work/join.log" 2>&1; then
    echo "joined $client $(nmcli --terse --get-values IP4.ADDRESS device show "$client")"
else
    echo "unjoined $(tail -n 1 "$work/join.log")"
    tail -n 5 "$work/point.log" "$work/dhcp.log" 2>/dev/null | sed 's/^/log /'
    journalctl --boot --no-pager --output=cat --lines=15 --unit=NetworkManager.service | sed 's/^/log /'
fi
tidy
nmcli device set "$point" managed yes
exit 0
