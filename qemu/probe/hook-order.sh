# Read by the init script of initramfs-tools before it runs anything.
if [ -e /scripts/init-bottom/ORDER ]; then
    echo 'sh /scripts/init-bottom/isokiln' >>/scripts/init-bottom/ORDER
else
    echo 'sh /scripts/init-bottom/isokiln' >/scripts/init-bottom/ORDER
fi
