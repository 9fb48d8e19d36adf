# How layers are compressed; sourced by layer.sh and run.sh.
option_list exclude exclude
level=$(option level)
case $(option compression) in
    zstd) squash=(-comp zstd -Xcompression-level "${level/#0/15}") ;;
    gzip) squash=(-comp gzip -Xcompression-level "${level/#0/9}") ;;
    xz) squash=(-comp xz -Xbcj x86) ;;
    lz4) squash=(-comp lz4 -Xhc) ;;
esac
((${#exclude[@]})) && squash+=(-wildcards -e "${exclude[@]}")
# Everything that decides what comes out, besides the layer.
_squash_key=$({
    printf '%s\0' "${squash[@]}" "$SOURCE_DATE_EPOCH"
    cat /isokiln/kind/{layer,squash}.sh
    dpkg-query --show squashfs-tools libzstd1 liblzma5 zlib1g liblz4-1
} | sha256sum | cut -c 1-16)

# squashed LAYER_ID: the file that a compressed layer is kept in.
squashed() { echo "$CACHE/layers/$1.$_squash_key"; }
