option_list include include
tool=$(option tool)
variant=$(option variant)
case $DISTRIBUTION in
    debian) keyring=/usr/share/keyrings/debian-archive-keyring ;;
    ubuntu) keyring=/usr/share/keyrings/ubuntu-archive-keyring ;;
esac
for keyring in "$keyring".{gpg,pgp}; do [[ -e $keyring ]] && break; done
sources=/isokiln/sources.list

# Paths that slim leaves out, as dpkg options.
slim=()
if enabled slim; then
    slim=(
        'path-exclude=/usr/share/doc/*' 'path-include=/usr/share/doc/*/copyright'
        'path-exclude=/usr/share/man/*' 'path-exclude=/usr/share/info/*'
        'path-exclude=/usr/share/locale/*' 'path-include=/usr/share/locale/locale.alias'
    )
fi

# Puts the options where dpkg finds them, now and in later stages.
write_slim() {
    ((${#slim[@]})) || return 0
    mkdir -p "$ROOTFS/etc/dpkg/dpkg.cfg.d"
    printf '%s\n' "${slim[@]}" >"$ROOTFS/etc/dpkg/dpkg.cfg.d/isokiln-slim"
}

# Removes what debootstrap has unpacked before there was a dpkg to leave it out. Folders stay, as with dpkg.
prune_slim() {
    local option out=() but=()
    for option in "${slim[@]}"; do
        case $option in
            path-exclude=*) out+=(-o -path "$ROOTFS${option#*=}") ;;
            path-include=*) but+=(! -path "$ROOTFS${option#*=}") ;;
        esac
    done
    ((${#out[@]} == 0)) || find "$ROOTFS/usr/share" ! -type d \( "${out[@]:1}" \) "${but[@]}" -delete
}

explain() {
    local line
    line=$(grep -m1 -E '^(E: [^s]|Err:|W: Failure|.*(NO_PUBKEY|not signed|invalid))' /isokiln/bootstrap.log) || true
    fail "$tool could not make the root file system${line:+: $line}" \
        "check that the mirror serves $SUITE for $ARCHITECTURE; the stage's log has the whole story"
}

with_mmdebstrap() {
    local component=$variant option comma
    [[ $variant = standard ]] && component=important
    local arguments=(--mode=root --variant="$component" --architectures="$ARCHITECTURE" --keyring="$keyring"
        --components="$COMPONENTS" --format=directory --skip=essential/unlink --skip=check/empty
        --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Retries "3"' --dpkgopt=force-unsafe-io
        --aptopt='Acquire::http::Timeout "30"' --aptopt='Acquire::https::Timeout "30"')
    for option in "${slim[@]}"; do arguments+=(--dpkgopt="$option"); done
    if ((${#include[@]})); then
        comma=$(IFS=,; echo "${include[*]}")
        arguments+=(--include="$comma")
    fi
    # Packages fetched before are linked into apt's archive folder, and new ones back from it.
    arguments+=(
        --setup-hook='mkdir -p "$1"/var/cache/apt/archives && mount --bind "$ISOKILN_DEBS" "$1"/var/cache/apt/archives'
        --customize-hook='umount "$1"/var/cache/apt/archives'
    )
    mmdebstrap "${arguments[@]}" "$SUITE" "$ROOTFS" "$sources"
}

with_debootstrap() {
    local base=$variant uri extra=()
    [[ $variant = standard ]] && base=
    uri=$(awk -v suite="$SUITE" '$1 == "deb" && $3 == suite { print $2; exit }' "$sources")
    ((${#include[@]})) && extra=(--include="$(IFS=,; echo "${include[*]}")")
    write_slim
    debootstrap --arch="$ARCHITECTURE" ${base:+--variant="$base"} --components="$COMPONENTS" \
        --keyring="$keyring" --cache-dir="$ISOKILN_DEBS" "${extra[@]}" "$SUITE" "$ROOTFS" ${uri:+"$uri"} || return
    cp "$sources" "$ROOTFS/etc/apt/sources.list"
    enter_rootfs
    apt update && apt dist-upgrade || return
    leave_rootfs
    prune_slim
}

borrow_debs "$ISOKILN_DEBS"
progress "running $tool for $DISTRIBUTION $SUITE"
if ! "with_$tool" 2>&1 | tee /isokiln/bootstrap.log; then explain; fi

cp "$sources" "$ROOTFS/etc/apt/sources.list"
rm -f "$ROOTFS"/etc/apt/sources.list.d/0000sources.list

# What the tools copy from the machine they run on, and what they leave of themselves.
echo localhost >"$ROOTFS/etc/hostname"
rm -f "$ROOTFS"/etc/resolv.conf "$ROOTFS"/etc/apt/apt.conf.d/99mmdebstrap \
    "$ROOTFS"/etc/dpkg/dpkg.cfg.d/99mmdebstrap
: >"$ROOTFS/etc/machine-id"
write_slim
record_packages "$ARTIFACTS/$STAGE.packages.tsv"
note "$(wc -l <"$ARTIFACTS/$STAGE.packages.tsv") packages installed"
