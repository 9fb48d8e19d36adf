modules=(
    ahci ata_piix sr_mod sd_mod usb_storage uas xhci_pci ehci_pci uhci_hcd usbhid hid_generic i8042 atkbd psmouse
    loop isofs squashfs overlay vfat nls_ascii nls_cp437 nls_iso8859_1 nls_utf8 autofs4 efivarfs fuse configfs
    virtio_pci virtio_console virtio_rng virtio_net virtio_blk virtio_scsi e1000e rfkill mac80211_hwsim ccm ctr cmac
    bochs qemu_fw_cfg dm_mod af_packet crc32c_generic crc32c_intel zstd ext4 evdev serio_raw button
)
for tree in "$ROOTFS"/usr/lib/modules/*; do
    version=${tree##*/}
    for module in "${modules[@]}"; do
        # Some are part of the kernel, and others have gone with it or are yet to come.
        in_rootfs modprobe --set-version "$version" --show-depends "$module" 2>/dev/null || true
    done | sed -n 's|^insmod /lib/|/usr/lib/|p; s|^insmod /usr|/usr|p' | cut -d ' ' -f 1 | sort -u >/isokiln/keep
    grep -q squashfs /isokiln/keep || fail "the modules of $version are not found" "see what modprobe --show-depends prints"
    find "$tree/kernel" -type f -name '*.ko*' | sed "s|^$ROOTFS||" | sort | comm -23 - /isokiln/keep |
        sed "s|^|$ROOTFS|" | xargs --delimiter='\n' rm
    find "$tree/kernel" -type d -empty -delete
    in_rootfs depmod "$version"
    in_rootfs update-initramfs -c -k "$version"
    note "$(wc -l </isokiln/keep) modules kept"
done
