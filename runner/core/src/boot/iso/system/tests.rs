use super::super::files::memory::Memory;
use super::*;

const OS_RELEASE: &str = "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13\"\n\
                          VERSION=\"13 (trixie)\"\nID=debian\nHOME_URL=\"https://www.debian.org/\"\n";

fn read(files: &[(&str, &str)], release: Option<&str>) -> (System, Vec<String>) {
    let mut problems = Vec::new();
    let images = vec!["/live/filesystem.squashfs".to_owned()];
    let system = System::read(&mut Memory::of(files), images, release, &mut problems);
    (system, problems)
}

#[test]
fn reads_a_debian_desktop() {
    let (system, problems) = read(
        &[
            ("/etc/os-release", "->../usr/lib/os-release"),
            ("/usr/lib/os-release", OS_RELEASE),
            ("/lib", "->usr/lib"),
            ("/sbin", "->usr/sbin"),
            ("/usr/sbin/init", "->../lib/systemd/systemd"),
            ("/usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so", ""),
            ("/usr/sbin/NetworkManager", ""),
            ("/etc/systemd/system/multi-user.target.wants/NetworkManager.service", "->/lib/x"),
            ("/usr/bin/calamares", ""),
            (
                "/var/lib/dpkg/status",
                "Package: calamares-settings\nVersion: 13\n\nPackage: calamares\n\
                Status: install ok installed\nVersion: 3.3.14-1\nDescription: x\n",
            ),
            (
                "/usr/lib/modules/6.12.1-amd64/modules.dep",
                "kernel/drivers/net/wireless/ath9k.ko: kernel/mac80211.ko\n",
            ),
            ("/usr/lib/modules/6.12.1-amd64/modules.builtin", "kernel/drivers/char/virtio_console.ko\n"),
            ("/etc/X11/default-display-manager", "/usr/sbin/lightdm\n"),
            ("/usr/share/xsessions/lxqt.desktop", ""),
            ("/usr/share/wayland-sessions/lxqt.desktop", ""),
            ("/usr/share/wayland-sessions/labwc.desktop", ""),
            ("/usr/sbin/mkinitramfs", ""),
        ],
        Some("6.12.1-amd64"),
    );
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(system.name.as_deref(), Some("Debian GNU/Linux 13 (trixie)"));
    assert_eq!((system.id.as_deref(), system.version.as_deref()), (Some("debian"), Some("13")));
    assert_eq!((system.init.as_deref(), system.systemd), (Some("systemd"), Some(257)));
    assert_eq!(system.network_manager, Some(UnitState::Enabled));
    assert_eq!((system.calamares.as_deref(), system.guest_agent), (Some("3.3.14-1"), false));
    let modules = system.modules.unwrap();
    assert_eq!((modules.wlan.as_slice(), modules.virtio_console), (&["ath9k".to_owned()][..], true));
    assert_eq!(system.display_manager.as_deref(), Some("lightdm"));
    assert_eq!(system.sessions, ["labwc", "lxqt"]);
    assert_eq!(system.initramfs, Some(Initramfs::InitramfsTools));
}

#[test]
fn versions_come_from_libraries_or_packages() {
    let fedora = [
        ("/usr/lib/systemd/libsystemd-shared-256.11-1.fc41.so", ""),
        ("/usr/bin/qemu-ga", ""),
        ("/usr/bin/dracut", ""),
        ("/usr/bin/calamares", ""),
        ("/usr/lib64/libcalamares.so.3.3.8", ""),
        ("/etc/systemd/system/display-manager.service", "->/usr/lib/systemd/system/gdm.service"),
    ];
    let (system, _) = read(&fedora, None);
    assert_eq!((system.systemd, system.calamares.as_deref()), (Some(256), Some("3.3.8")));
    assert_eq!((system.guest_agent, system.initramfs), (true, Some(Initramfs::Dracut)));
    assert_eq!(system.display_manager.as_deref(), Some("gdm"));
    let status = "Package: systemd\nStatus: deinstall ok config-files\nVersion: 252.1\n";
    assert_eq!(read(&[("/var/lib/dpkg/status", status)], None).0.systemd, None);
    let status = "Package: systemd\nStatus: install ok installed\nVersion: 252.1\n";
    assert_eq!(read(&[("/var/lib/dpkg/status", status)], None).0.systemd, Some(252));
}

#[test]
fn masked_disabled_and_absent_are_different() {
    let installed = ("/usr/sbin/NetworkManager", "");
    let state = |files: &[(&str, &str)]| read(files, None).0.network_manager;
    assert_eq!(state(&[]), None);
    assert_eq!(state(&[installed]), Some(UnitState::Disabled));
    let masked = ("/etc/systemd/system/NetworkManager.service", "->/dev/null");
    let wanted = ("/etc/systemd/system/multi-user.target.wants/NetworkManager.service", "->/lib/x");
    assert_eq!(state(&[installed, masked, wanted]), Some(UnitState::Masked));
}

#[test]
fn modules_for_another_kernel_are_a_problem() {
    let files = [("/usr/lib/modules/6.1.0/modules.dep", "kernel/a.ko:\n")];
    let (system, problems) = read(&files, Some("6.12.0"));
    assert_eq!(system.modules, None);
    assert_eq!(
        problems,
        ["/live/filesystem.squashfs: there are no modules for the kernel 6.12.0 that boots, only for 6.1.0"]
    );
    assert_eq!(read(&files, None).0.modules.unwrap().release, "6.1.0");
    let (system, problems) = read(&[("/usr/lib/modules/6.1.0/kernel/a.ko", "")], None);
    assert_eq!((system.modules, problems.len()), (None, 1));
    assert_eq!(
        read(&[], Some("6.12.0")),
        (System { images: vec!["/live/filesystem.squashfs".into()], ..System::default() }, vec![])
    );
}

#[test]
fn the_live_scheme_is_told_by_arguments_before_folders() {
    let of = LiveScheme::of;
    assert_eq!(of("quiet boot=live", "/casper/x"), Some(LiveScheme::LiveBoot));
    assert_eq!(of("root=live:CDLABEL=Fedora rd.live.image", ""), Some(LiveScheme::Dmsquash));
    assert_eq!(of("archisobasedir=arch", ""), Some(LiveScheme::Archiso));
    assert_eq!((of("quiet", "/casper/x"), of("", "")), (Some(LiveScheme::Casper), None));
    let generator = |arguments| of(arguments, "").and_then(LiveScheme::generator);
    assert_eq!([generator("root=live:x"), generator("boot=live")], [Some(Initramfs::Dracut), None]);
}
