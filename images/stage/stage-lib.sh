# Library of the stage kinds; sourced before run.sh, in the builder image.
#
# Given: ROOTFS (the mounted tree), OPTIONS (JSON file), INPUTS (folder with what path options name),
# ARTIFACTS (folder for files that leave the build), CACHE (kept between builds), SOURCE_DATE_EPOCH,
# PIPELINE, STAGE, DISTRIBUTION, SUITE, ARCHITECTURE, COMPONENTS (separated by commas).
# For a kind that has a layer.sh: LAYERS (identities of the layers that ROOTFS is made of, the lowest first). layer.sh is
# run before run.sh once for each, as soon as it is there, perhaps in an earlier build; it is given LAYER_ID and LAYER (the
# folder, an upper directory of overlayfs), not ROOTFS, and leaves in CACHE what run.sh finds there.

# --- talking to isokiln -------------------------------------------------------------------------
# Messages are lines that begin with a byte and a word that no other program prints.

# Kept apart from standard output, so that a message from within a pipe still arrives.
exec {_isokiln_out}>&1

_message() { printf '\036%s %s\n' "$ISOKILN_TOKEN" "$1" >&"$_isokiln_out"; }

# What the log must show too, so that who reads only the log can tell what became of what it says.
_log() { printf 'isokiln: %s\n' "$1" >&"$_isokiln_out"; }

# note TEXT: something worth a person's attention.
note() { _message "$(jq -cn --arg text "$1" '{note: $text}')"; }

# warn TEXT: something that went wrong and was got over.
warn() {
    _log "got over: $1"
    _message "$(jq -cn --arg text "$1" '{warning: $text}')"
}

# progress TEXT: what the stage is doing now.
progress() { _message "$(jq -cn --arg text "$1" '{progress: $text}')"; }

# fail CAUSE NEXT-STEP: ends the stage with a cause in one line and what to do about it.
fail() {
    _log "failed: $1"
    _message "$(jq -cn --arg cause "$1" --arg hint "${2:-}" '{failed: {cause: $cause, hint: $hint}}')"
    exit 1
}

# unexpected STATUS COMMAND: ends the stage because of a command that nobody expected to fail.
unexpected() {
    trap - ERR
    fail "\"$2\" ended with status $1" "see the last lines of the stage's log"
}

# report_space PATH WHAT: tells how full a file system is, which explains many a failure.
report_space() {
    local blocks size inodes all
    read -r blocks size inodes all < <(stat --file-system --format '%a %S %d %c' "$1")
    # Some file systems count no inodes, and never run out of them.
    ((all)) || inodes=$((1 << 62))
    local bytes=$((blocks * size))
    _message "{\"room\":{\"what\":\"$2\",\"bytes\":$bytes,\"inodes\":$inodes}}"
}

# Tells whether the archive's host has an address here, as programs of the stage would find it.
report_resolver() {
    local host resolves=false
    host=$(sed -nE '1s|^deb [a-z+]+://([^/@]*@)?([^/:]+).*|\2|p' /isokiln/sources.list 2>/dev/null)
    # Through a proxy, names are none of the stage's business.
    [[ $host && ! ${http_proxy:-}${HTTP_PROXY:-} ]] || return 0
    ! timeout 5 getent ahosts "$host" >/dev/null || resolves=true
    _message "{\"resolves\":$resolves}"
}

# Tells how long the kind's script took, given two values of EPOCHREALTIME.
report_script() { _message "{\"script_microseconds\":$((${2/[.,]/} - ${1/[.,]/}))}"; }

# Tells what is around the script: variables, without their values, which may be secrets; what is mounted; what runs.
# The stage's own folder is left out of the values, so that those of two runs can be compared.
report_surroundings() {
    local names=() values=() name digest folder stat words processes=
    for name in $(compgen -e | LC_ALL=C sort); do
        case $name in
            # isokiln's own, and the shell's.
            ISOKILN_* | _ | SHLVL | PWD | OLDPWD) ;;
            *) names+=("$name") values+=("$name=${!name//"$ISOKILN_WORK"/}") ;;
        esac
    done
    digest=$(printf '%s\0' "${values[@]}" | sha256sum)
    for folder in /proc/[0-9]*; do
        # A process may end while it is looked at.
        { read -r stat <"$folder/stat" && mapfile -d '' -t words <"$folder/cmdline"; } 2>/dev/null || continue
        words=${words[*]//$'\n'/ }
        # "PID (NAME) STATE PARENT …"; one that has ended and was not waited for has no words.
        [[ $words ]] || words="[${stat#*(}" words="${words%)*}]"
        stat=${stat##*) } stat=${stat#* }
        processes+="${folder#/proc/} ${stat%% *} ${words:0:300}"$'\n'
        # A message has its limit.
        ((${#processes} < 30000)) || break
    done
    _message "$(jq -cn --rawfile mounts /proc/self/mountinfo --arg digest "sha256:${digest%% *}" --arg processes "$processes" \
        '{surroundings: {environment: {digest: $digest, names: $ARGS.positional}, mounts: $mounts, processes: $processes}}' \
        --args -- "${names[@]}")"
}

# Tells which files the stage leaves.
report_artifacts() {
    local names=() other
    other=$(find "$1" -mindepth 1 -maxdepth 1 ! -type f -printf '%f' -quit)
    [[ ! $other ]] || fail "the stage leaves \"$other\" in ARTIFACTS, which is not a file" "leave plain files there; pack a folder with tar"
    mapfile -t -d '' names < <(find "$1" -type f -printf '%f\0' | LC_ALL=C sort -z)
    _message "$(jq -cn '{artifacts: $ARGS.positional}' --args -- "${names[@]}")"
}

# --- options ------------------------------------------------------------------------------------

# option NAME: the value of an option.
option() { jq -r --arg name "$1" '.[$name] // ""' "$OPTIONS"; }

# enabled NAME: whether a boolean option is true.
enabled() { [[ $(jq -r --arg name "$1" '.[$name]' "$OPTIONS") = true ]]; }

# option_list NAME VARIABLE: a list option's items, into an array.
option_list() { mapfile -t "$2" < <(jq -r --arg name "$1" '.[$name][]?' "$OPTIONS"); }

# --- programs of the root file system -----------------------------------------------------------

_isokiln_mounts=(proc sys dev run tmp)

# Mounts what programs expect; done before run.sh where the kind may chroot. Devices are the few that every
# program may use: a disk of the machine must be out of reach of a boot loader's installer.
enter_rootfs() {
    local device
    mkdir -p "${_isokiln_mounts[@]/#/$ROOTFS/}"
    mount -t proc proc "$ROOTFS/proc"
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$ROOTFS/sys"
    mount -t tmpfs -o mode=755,nosuid tmpfs "$ROOTFS/dev"
    mkdir -p "$ROOTFS"/dev/{pts,shm}
    for device in null zero full random urandom tty; do
        cp --archive "/dev/$device" "$ROOTFS/dev/$device"
    done
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$ROOTFS/dev/pts"
    mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$ROOTFS/dev/shm"
    ln -s pts/ptmx "$ROOTFS/dev/ptmx"
    ln -s /proc/self/fd "$ROOTFS/dev/fd"
    ln -s fd/0 "$ROOTFS/dev/stdin"
    ln -s fd/1 "$ROOTFS/dev/stdout"
    ln -s fd/2 "$ROOTFS/dev/stderr"
    mount -t tmpfs -o mode=755 tmpfs "$ROOTFS/run"
    mount -t tmpfs -o mode=1777 tmpfs "$ROOTFS/tmp"
    _hold_initramfs
    _lend_resolver
    if [[ $ISOKILN_ARCHIVE = yes ]]; then
        _lend_mirror
        _lend_packages
    fi
    _lend_policy
}

# Maintainer scripts must not start services. The file's time tells it from one that the project brings.
_policy_time=101
_lend_policy() {
    local file=$ROOTFS/usr/sbin/policy-rc.d
    [[ -d $ROOTFS/usr/sbin && ! -e $file && ! -L $file ]] || return 0
    printf '#!/bin/sh\nexit 101\n' >"$file"
    chmod 755 "$file"
    touch --date="@$_policy_time" "$file"
}

_return_policy() {
    local file=$ROOTFS/usr/sbin/policy-rc.d
    [[ ! -e $file || $(stat --format=%Y "$file") != "$_policy_time" ]] || rm "$file"
}

# Lets the root file system use the container's name resolution, without a trace in it.
_lend_resolver() {
    local file=$ROOTFS/etc/resolv.conf target
    [[ -d $ROOTFS/etc ]] || return 0
    if [[ -L $file ]]; then
        target=$(readlink "$file")
        case $target in
            /run/* | ../run/*)
                target=$ROOTFS/run/${target#*run/}
                mkdir -p "$(dirname "$target")"
                cp /etc/resolv.conf "$target"
                ;;
        esac
    elif [[ -e $file ]]; then
        mount --bind /etc/resolv.conf "$file"
    else
        touch "$file"
        mount --bind /etc/resolv.conf "$file"
        : >/isokiln/lent-resolver
    fi
}

# Ends the processes that run in the root file system, and waits until they are gone.
_end_processes() {
    local process left=yes
    while [[ $left ]]; do
        left=
        for process in /proc/[0-9]*; do
            if [[ $process/root -ef $ROOTFS ]]; then
                left=yes
                kill -KILL "${process#/proc/}" 2>/dev/null || true
            fi
        done
        [[ ! $left ]] || sleep 0.02
    done
}

leave_rootfs() {
    local mount
    # A service that was started after all would keep the tree busy.
    _end_processes
    for mount in "${_isokiln_lent_sources[@]}" etc/resolv.conf var/cache/apt/archives var/lib/apt/lists "${_isokiln_mounts[@]}"; do
        mountpoint --quiet "$ROOTFS/$mount" && umount --recursive --lazy "$ROOTFS/$mount"
    done
    [[ ! -e /isokiln/lent-resolver ]] || rm -f "$ROOTFS/etc/resolv.conf"
    _return_policy
    [[ ! -d $ISOKILN_DEBS ]] || return_debs "$ISOKILN_DEBS"
}

# Lends the root file system the package lists and packages that earlier stages and builds fetched.
# Lists are kept by sources, because apt cleans up what its sources do not name.
_lend_packages() {
    local sources lists
    # A root file system without apt has none.
    sources=$({ find "$ROOTFS"/etc/apt/sources.list* -type f -exec cat {} + 2>/dev/null || true; } | sha256sum)
    lists=$CACHE/lists/${sources:0:16}
    # Another stage may be using them: they are moved out of the way, and go with this stage's other files.
    if [[ $ISOKILN_FRESH_CACHE = yes && -d $lists ]]; then mv "$lists" "${ISOKILN_DEBS%/*}/stale-lists"; fi
    mkdir -p "$lists" "$ROOTFS/var/lib/apt/lists" "$ROOTFS/var/cache/apt/archives"
    borrow_debs "$ISOKILN_DEBS"
    mount --bind "$lists" "$ROOTFS/var/lib/apt/lists"
    mount --bind "$ISOKILN_DEBS" "$ROOTFS/var/cache/apt/archives"
}

# Where a mirror has failed and another stands in for it, the root file system uses that one, without a trace in it.
_isokiln_lent_sources=()
_lend_mirror() {
    local file copy number=0
    [[ -s /isokiln/mirrors.sed ]] || return 0
    for file in "$ROOTFS"/etc/apt/sources.list "$ROOTFS"/etc/apt/sources.list.d/*; do
        [[ -f $file && ! -L $file ]] || continue
        copy=/isokiln/lent-sources.$((number += 1))
        sed --regexp-extended --file=/isokiln/mirrors.sed "$file" >"$copy"
        if cmp --quiet "$file" "$copy"; then continue; fi
        mount --bind "$copy" "$file"
        _isokiln_lent_sources+=("${file#"$ROOTFS/"}")
    done
}

# An initramfs takes as long to make as many packages to install, and each package that has a say in it asks for a new one.
# So update-initramfs only notes that it was asked, and what was asked for is made once, when the kind's script has ended.
_hold_initramfs() {
    mkdir "$ROOTFS/run/isokiln"
    cat >"$ROOTFS/run/isokiln/update-initramfs" <<'STUB'
#!/bin/sh
case " $* " in *" -d "*) exec /usr/sbin/update-initramfs "$@" ;; esac
echo "update-initramfs $*: when the stage ends"
echo " $* " >>/run/isokiln/initramfs-wanted
STUB
    chmod 755 "$ROOTFS/run/isokiln/update-initramfs"
}

# forgo_initramfs: what update-initramfs was asked for so far is not made.
forgo_initramfs() { rm -f "$ROOTFS/run/isokiln/initramfs-wanted"; }

# Updates what there is, and makes what there is not if somebody asked for a new one.
_make_initramfs() {
    local wanted=$ROOTFS/run/isokiln/initramfs-wanted kernel version action
    [[ -s $wanted && -x $ROOTFS/usr/sbin/update-initramfs ]] || return 0
    for kernel in "$ROOTFS"/boot/vmlinuz-*; do
        [[ -e $kernel ]] || continue
        version=${kernel##*/vmlinuz-}
        if [[ -e $ROOTFS/boot/initrd.img-$version ]]; then
            action=-u
        elif grep -q -e ' -c ' "$wanted"; then
            action=-c
        else
            continue
        fi
        progress "making the initramfs"
        in_rootfs /usr/sbin/update-initramfs "$action" -k "$version" ||
            fail "the initramfs for kernel $version could not be made" "the stage's log has the whole story"
    done
}

# Where programs are looked for; first, those that isokiln lends.
_isokiln_path=/run/isokiln:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# in_rootfs COMMAND…: runs a program of the root file system in it.
in_rootfs() {
    chroot "$ROOTFS" /usr/bin/env -i \
        PATH="$_isokiln_path" HOME=/root TERM=dumb \
        LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true \
        SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" \
        ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
        ${no_proxy:+no_proxy="$no_proxy"} "${STAGE_ENVIRONMENT[@]}" "$@"
}

# Variables that the pipeline passes on, as NAME=VALUE.
STAGE_ENVIRONMENT=()
for _name in ${ISOKILN_ENVIRONMENT:-}; do
    [[ -v $_name ]] && STAGE_ENVIRONMENT+=("$_name=${!_name}")
done
unset _name

# --- packages -----------------------------------------------------------------------------------

_apt_options=(
    -o Acquire::Languages=none
    -o Acquire::Retries=3
    -o Acquire::http::Timeout=30
    -o Acquire::https::Timeout=30
    -o APT::Install-Recommends=false
    -o APT::Sandbox::User=root
    -o APT::Get::Assume-Yes=true
    -o Dpkg::Use-Pty=false
    # apt gives dpkg a path of its own.
    -o DPkg::Path="$_isokiln_path"
    -o Dpkg::Options::=--force-unsafe-io
    -o Dpkg::Options::=--force-confdef
    -o Dpkg::Options::=--force-confold
)

# apt COMMAND…: apt-get of the root file system, never asking anything.
apt() { in_rootfs apt-get "${_apt_options[@]}" "$@"; }

_isokiln_log=/isokiln/apt.log

# borrow_debs FOLDER: puts the packages downloaded by earlier stages and builds into a folder of this
# stage's own. They are links, so it costs nothing, and apt may delete them.
borrow_debs() {
    mkdir -p "$CACHE/debs" "$1/partial"
    # What is broken stays broken, and what is whole can be fetched again. Other stages have links of their own.
    [[ $ISOKILN_FRESH_CACHE = no ]] || find "$CACHE/debs" -type f -delete
    find "$CACHE/debs" -name '*.deb' -exec ln -t "$1" {} + 2>/dev/null || true
}

# return_debs FOLDER: keeps what was downloaded for later stages and builds.
return_debs() {
    find "$1" -maxdepth 1 -name '*.deb' -exec ln -t "$CACHE/debs" {} + 2>/dev/null || true
}

# apt_update: fetches the package lists.
apt_update() {
    progress "fetching package lists"
    if ! apt update --error-on=any 2>&1 | tee "$_isokiln_log"; then
        _explain_apt "the package lists cannot be fetched"
    fi
}

# apt_install PACKAGE…: installs packages or ends the stage with the reason.
apt_install() {
    local missing=() names=() name
    (($#)) || return 0
    mapfile -t missing < <(comm -23 <(printf '%s\n' "${@%%[=/:]*}" | sort -u) <(_package_names))
    if ((${#missing[@]})); then
        for name in "${missing[@]}"; do names+=("$name$(_nearest_package "$name")"); done
        fail "no such package in $DISTRIBUTION $SUITE: $(printf '%s; ' "${names[@]}" | sed 's/; $//')" \
            "correct the name, or add the archive component that holds it to [system] components"
    fi
    progress "installing $# packages"
    if ! apt install "$@" 2>&1 | tee "$_isokiln_log"; then
        _explain_apt "apt-get could not install the packages"
    fi
}

# install_optional PACKAGE: installs a package that the image can go without; false if it cannot be installed, which
# leaves nothing of it.
install_optional() {
    progress "installing $1, which is optional"
    if apt install "$1"; then return 0; fi
    # Half an installation would fail every later one.
    _undo_half_installed
    apt install --fix-broken || fail "the failed optional package $1 cannot be undone" "remove it from the optional ones"
    return 1
}

# Removes what is neither installed nor absent; its own scripts have failed and may fail again.
_undo_half_installed() {
    local half
    mapfile -t half < <(in_rootfs dpkg-query --show --showformat='${db:Status-Status} ${binary:Package}\n' |
        sed -nE 's/^(unpacked|half-installed|half-configured|triggers-awaited) //p')
    ((${#half[@]} == 0)) || in_rootfs dpkg --force-all --purge "${half[@]}" || true
}

# Every name that apt knows, virtual packages included, sorted.
_package_names() { in_rootfs apt-cache pkgnames | sort -u; }

# The name most like a given one, in parentheses, by edit distance.
_nearest_package() {
    _package_names | perl -ne '
        BEGIN { $want = shift @ARGV; $best = int(length($want) / 3) + 1 }
        chomp; next if abs(length($_) - length($want)) >= $best;
        my @row = (0 .. length $want);
        for my $i (1 .. length $_) {
            my @next = ($i); my $c = substr $_, $i - 1, 1;
            for my $j (1 .. length $want) {
                my $d = $row[$j - 1] + ($c ne substr($want, $j - 1, 1));
                $d = $row[$j] + 1 if $row[$j] + 1 < $d;
                $d = $next[$j - 1] + 1 if $next[$j - 1] + 1 < $d;
                push @next, $d;
            }
            @row = @next;
        }
        if ($row[-1] < $best) { $best = $row[-1]; $name = $_ }
        END { print " (did you mean $name?)" if defined $name }' -- "$1" 2>/dev/null || true
}

# Ends the stage with the first line of apt's or dpkg's own that names a cause.
_explain_apt() {
    local line hint="the stage's log has the whole story"
    line=$(grep -m1 -E '^(Err:|E: (Failed|The repository|Unable|Release|Version|Package|Could)|W: Failed|dpkg: error)' "$_isokiln_log") || true
    case $(<"$_isokiln_log") in
        *"Temporary failure resolving"* | *"Could not resolve"*)
            hint="check the network and name resolution of containers on this engine" ;;
        *"Could not connect"* | *"Connection refused"* | *"Connection timed out"* | *"Cannot initiate the connection"*)
            hint="the mirror does not answer; try again, or name another in [system] mirrors" ;;
        *"404  Not Found"*)
            hint="the mirror no longer has the file; try again, or name another in [system] mirrors" ;;
        *"No space left on device"* | *"not have enough free space"*)
            hint="the engine's disk is full; free some space, then build again" ;;
    esac
    fail "$1${line:+: $line}" "$hint"
}

# record_packages FILE: what is installed, for comparison and for the record.
record_packages() {
    in_rootfs dpkg-query --show --showformat='${binary:Package}\t${Version}\t${Installed-Size}\n' |
        LC_ALL=C sort >"$1"
}
