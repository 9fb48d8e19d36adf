# The root file system of a stage and the rights of its script; sourced by what runs the script (stage) and by what
# opens a shell in its place (shell).
#
# Given: ISOKILN_WORK (folder for what the stage changes), ISOKILN_TREES (folders in the volume, the top first),
# ISOKILN_ROOTFS, ISOKILN_PRIVILEGE.

volume=/isokiln/volume
work=$ISOKILN_WORK
export ROOTFS=/rootfs ARTIFACTS=$work/artifacts CACHE=$volume/cache
export OPTIONS=/isokiln/options.json INPUTS=/isokiln/inputs
# Packages downloaded by this stage, on the same file system as the cache.
export ISOKILN_DEBS=$work/debs

# Paths of trees are long and the kernel takes one page of mount options: short links stand for them.
mount_rootfs() {
    local link=0 lower= tree path options attempt
    local -A seen=()
    # A build that runs a stage a second time starts from nothing too.
    rm -rf "$work"
    mkdir -p "$ROOTFS" /isokiln/l "$work"/{upper,overlay,artifacts,empty} "$CACHE"
    for tree in $ISOKILN_TREES; do
        # Stages that changed the same share one layer. Overlay refuses a layer given twice, and the upper
        # one hides all of the lower.
        path=$(realpath --canonicalize-missing "$volume/$tree")
        [[ ! -v seen[$path] ]] || continue
        seen[$path]=1
        ln -s "$volume/$tree" "/isokiln/l/$link"
        lower+="$link:"
        link=$((link + 1))
    done
    ln -s "$work/empty" /isokiln/l/empty
    lower+=empty
    cd /isokiln/l
    if [[ $ISOKILN_ROOTFS = read ]]; then
        options="ro,lowerdir=$lower"
    else
        options="lowerdir=$lower,upperdir=$work/upper,workdir=$work/overlay"
        options+=",redirect_dir=off,metacopy=off,index=off"
    fi
    # A parent's tree may be given its name as a layer this very moment; for that long it is nowhere.
    for attempt in {1..20}; do
        if take_root_attributes 2>/dev/null && mount_overlay "$options" "$ROOTFS" 2>/isokiln/mount.log; then return; fi
        sleep 0.1
    done
    cat /isokiln/mount.log >&2
    fail "the engine does not let a container mount an overlay file system" \
        "isokiln doctor says what this engine grants"
}

# The root directory's own mode, owner and time come from the upper directory.
take_root_attributes() {
    if [[ $ISOKILN_ROOTFS = change ]]; then
        chmod --reference=0/. "$work/upper" && chown --reference=0/. "$work/upper" && touch --reference=0/. "$work/upper"
    fi
}

# mount_overlay OPTIONS FOLDER
mount_overlay() {
    # "volatile" spares waiting for the disk: a tree that does not survive a power cut is made again.
    if [[ $1 = *upperdir=* ]]; then
        if mount -t overlay overlay -o "$1,volatile" "$2"; then return; fi
    fi
    mount -t overlay overlay -o "$1" "$2"
}

# as_kind +CAPABILITY COMMAND…: runs a command with no more rights than the kind asks for, and that capability, if any.
as_kind() {
    local bounding=-all,+chown,+dac_override,+dac_read_search,+fowner,+fsetid,+mknod,+setfcap
    case $ISOKILN_PRIVILEGE in
        none) ;;
        chroot) bounding+=,+audit_write,+kill,+net_bind_service,+setgid,+setpcap,+setuid,+sys_chroot,+sys_ptrace ;;
        full) bounding= ;;
    esac
    bounding+=${1:+${bounding:+,$1}}
    setpriv ${bounding:+--bounding-set="$bounding"} "${@:2}"
}
