# The probe's agent, run by isokiln-probe.service in the guest with the port open as descriptor 3.
# Reads "ID SECONDS BYTES BASE64-SCRIPT", runs the script, answers with a line of JSON.
work=/run/isokiln-probe
mkdir -p "$work"
echo '{"ready":1}' >&3
while read -r id seconds bytes script <&3; do
    if echo "$script" | base64 -d >"$work/script" && [ "$(wc -c <"$work/script")" -eq "$bytes" ]; then
        timeout -k 5 "$seconds" sh "$work/script" >"$work/out" 2>&1 </dev/null 3>&-
        status=$?
    else
        # Half a script, or none, may hold whatever it is asked.
        status=-1
        : >"$work/out"
    fi
    printf '{"id":%s,"status":%s,"out":"%s"}\n' \
        "$id" "$status" "$(head -c 1000000 "$work/out" | base64 -w 0)" >&3
done
