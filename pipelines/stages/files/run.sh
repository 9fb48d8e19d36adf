target=$ROOTFS/$(option target)
mkdir -p "$target"
target=$(realpath "$target")
[[ $target = "$ROOTFS" || $target = "$ROOTFS"/* ]] || fail "target leads out of the root file system" "name a folder inside"
source=$INPUTS/source
if [[ -d $source ]]; then
    # A link that leads out of the tree would take files along that are then in no layer.
    while read -r -d '' folder; do
        if [[ -L $target/$folder && $(realpath --canonicalize-missing "$target/$folder") != "$ROOTFS"/* ]]; then
            fail "$folder is a link to $(readlink "$target/$folder") in the root file system, which cannot be copied into" \
                "put the files into the folder that it leads to"
        fi
    done < <(cd "$source" && find . -mindepth 1 -type d -printf '%P\0')
    # Existing folders keep their owners and modes; only what the project brings is new.
    tar --create --directory="$source" --owner=0 --group=0 . |
        tar --extract --directory="$target" --no-overwrite-dir --keep-directory-symlink --preserve-permissions
else
    cp --no-preserve=ownership "$source" "$target/$(jq -r '.source' "$OPTIONS" | xargs -d '\n' basename)"
fi

# each OPTION COMMAND…: runs a command on the paths of every pattern of a map option, longest pattern last.
each() {
    local map=$1 pattern value
    shift
    while IFS=$'\t' read -r pattern value; do
        shopt -s nullglob dotglob
        local paths=("$ROOTFS"/${pattern#/})
        shopt -u nullglob dotglob
        ((${#paths[@]})) || fail "$map names \"$pattern\", which matches nothing" "correct the pattern"
        "$@" "$value" "${paths[@]#"$ROOTFS"}" ||
            fail "$map cannot give \"$value\" to \"$pattern\"" "see the stage's log"
    done < <(jq -r --arg map "$map" '.[$map] | to_entries | sort_by(.key | length)[] | [.key, .value] | @tsv' "$OPTIONS")
}
IFS= # patterns may hold spaces
each owners in_rootfs chown --no-dereference
each modes in_rootfs chmod
