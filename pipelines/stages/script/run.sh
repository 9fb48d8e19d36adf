script=$ROOTFS/tmp/$STAGE
option run >"$script"
chmod 700 "$script"
status=0
if [[ $(head -c 2 "$script") = '#!' ]]; then
    in_rootfs "/tmp/$STAGE" || status=$?
else
    in_rootfs /bin/sh -e "/tmp/$STAGE" || status=$?
fi
case $status in
    0) ;;
    126 | 127) fail "the script could not be run (status $status)" "check that its interpreter is installed in the root file system" ;;
    129 | 13? | 14? | 15?) fail "the script was killed by signal $((status - 128)) ($(kill -l "$status"))" "see its last lines in the stage's log" ;;
    *) fail "the script ended with status $status" "see its last lines in the stage's log" ;;
esac
