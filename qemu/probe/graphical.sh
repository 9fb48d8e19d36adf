# What scripts of checks about the graphical session begin with. Both functions end the script where there is nothing to
# find yet, so they must not be called in a subshell.

# Finds the X session of whoever is logged in, or of the greeter where nobody is: session_user, session_uid, session_pid,
# DISPLAY and XAUTHORITY.
find_session() {
    session_pid= session_uid=
    for environment in $(grep -lz '^DISPLAY=' /proc/[0-9]*/environ 2>/dev/null); do
        pid=${environment%/environ}
        pid=${pid##*/}
        uid=$(stat --format=%u "/proc/$pid" 2>/dev/null) || continue
        session_pid=$pid session_uid=$uid
        [ "$uid" -lt 1000 ] || break
    done
    if [ -z "$session_pid" ]; then echo "no graphical session runs"; exit 2; fi
    [ "$session_uid" -lt 1000 ] || echo "session $session_pid of $session_uid"
    session_user=$(getent passwd "$session_uid" | cut -d: -f1)
    DISPLAY=$(of_session DISPLAY)
    XAUTHORITY=$(of_session XAUTHORITY)
    [ "$XAUTHORITY" ] || XAUTHORITY=$(getent passwd "$session_uid" | cut -d: -f6)/.Xauthority
    export DISPLAY XAUTHORITY
}

# A variable of the session.
of_session() { tr '\0' '\n' <"/proc/$session_pid/environ" 2>/dev/null | sed -n "s/^$1=//p"; }

# Puts the open windows into `listed`, a line each: left, top, width, height, class, a tab, title.
list_windows() {
    if command -v wmctrl >/dev/null; then
        if ! wmctrl -m >/dev/null 2>&1; then echo "no window manager answers in the session on $DISPLAY"; exit 2; fi
        listed=$(wmctrl -lGx | awk '{
            title = $0
            for (field = 1; field <= 8; field++) sub(/^[^ ]+ */, "", title)
            print $3, $4, $5, $6, $7 "\t" title
        }')
    elif command -v xwininfo >/dev/null; then
        listed=$(xwininfo -root -tree | sed -nE \
            's/^ *0x[0-9a-f]+ "(.*)": \("([^"]*)".* ([0-9]+)x([0-9]+)\+.* \+(-?[0-9]+)\+(-?[0-9]+)$/\5 \6 \3 \4 \2\t\1/p')
    else
        echo "windows cannot be listed: put wmctrl or x11-utils into the ISO"
        exit 3
    fi
}
