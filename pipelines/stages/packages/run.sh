option_list install install
option_list optional optional
option_list remove remove
option_list hold hold
option_list debconf debconf
enabled recommends && _apt_options+=(-o APT::Install-Recommends=true)

before=/isokiln/packages-before.tsv
after=/isokiln/packages-after.tsv
record_packages "$before"

if ((${#debconf[@]})); then
    printf '%s\n' "${debconf[@]}" | in_rootfs debconf-set-selections ||
        fail "debconf does not take the answers" "write them as \"package question type value\""
fi

((${#install[@]} + ${#optional[@]})) && apt_update
apt_install "${install[@]}"

for package in "${optional[@]}"; do
    install_optional "$package" || warn "optional package $package could not be installed; the image goes without it"
done

if ((${#remove[@]})); then
    apt purge --auto-remove "${remove[@]}" ||
        fail "apt-get could not remove the packages" "the stage's log has the whole story"
fi

if ((${#hold[@]})); then
    in_rootfs apt-mark hold "${hold[@]}" || fail "apt-mark could not hold the packages" "install them first"
fi

record_packages "$after"
comm -13 "$before" "$after" >"$ARTIFACTS/$STAGE.packages.tsv"
note "$(wc -l <"$ARTIFACTS/$STAGE.packages.tsv") packages installed, $(comm -23 <(cut -f1 "$before") <(cut -f1 "$after") | wc -l) removed"
