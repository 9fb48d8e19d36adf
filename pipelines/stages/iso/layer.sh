. /isokiln/kind/squash.sh
file=$(squashed "$LAYER_ID")
mkdir -p "${file%/*}"
# Another ISO of the pipeline may want the same one now.
exec {lock}<"$LAYER"
flock "$lock"
if [[ ! -e $file ]]; then
    progress "compressing layer ${LAYER_ID:0:12}"
    # Overlay's marks of what a layer hides are among the extended attributes.
    mksquashfs "$LAYER" "$file.new" -noappend -no-progress -xattrs -mem 1G "${squash[@]}" || {
        rm -f "$file.new"
        fail "mksquashfs could not compress layer ${LAYER_ID:0:12}" "the stage's log has the whole story"
    }
    # One that a power cut has emptied would be taken for whole.
    sync "$file.new"
    mv "$file.new" "$file"
fi
