//! `isokiln inspect`: an ISO is read without booting it, and nothing that lies on it is a reason to fail.

use std::fs;
use std::path::Path;
use std::process::Command;

use isokiln_tests::{Finished, Guard, Project, binary, boot_sector_iso};
use serde_json::{Value, json};

/// Makes `disc.iso`, a live system in small: isolinux, GRUB, a squashfs, and menus that name what is not there; and
/// `cut.iso`, the same without its end.
const DISC: &str = r#"
tree=/isokiln/disc root=/isokiln/root
mkdir -p "$tree"/{live,isolinux,boot/grub} "$root"/usr/{bin,sbin,lib} "$root"/usr/lib/{systemd,modules/6.12.1} "$root"/etc/systemd/system
printf 'PRETTY_NAME="Small 1"\nID=small\n' >"$root/usr/lib/os-release"
ln -s ../usr/lib/os-release "$root/etc/os-release"
ln -s usr/sbin "$root/sbin"
ln -s ../lib/systemd/systemd "$root/usr/sbin/init"
touch "$root"/usr/sbin/{NetworkManager,mkinitramfs} "$root"/usr/lib/systemd/libsystemd-shared-257.so
ln -s /dev/null "$root/etc/systemd/system/NetworkManager.service"
printf 'kernel/drivers/char/virtio_console.ko:\nkernel/drivers/net/ath9k.ko: kernel/net/mac80211.ko\n' >"$root/usr/lib/modules/6.12.1/modules.dep"
mksquashfs "$root" "$tree/live/filesystem.squashfs" -comp xz -no-progress -quiet
cp /usr/lib/ISOLINUX/isolinux.bin "$tree/isolinux/"
printf 'ui menu.c32\ntimeout 0\nlabel live\n menu label ^Small system\n linux /live/vmlinuz\n append initrd=/live/initrd boot=live\n' >"$tree/isolinux/isolinux.cfg"
printf 'set timeout=7\nmenuentry "Small GRUB" { linux /live/vmlinuz boot=live; initrd /live/initrd; }\n' >"$tree/boot/grub/grub.cfg"
xorriso -as mkisofs -quiet -o "$ARTIFACTS/disc.iso" -V SMALL -r -isohybrid-mbr /usr/lib/ISOLINUX/isohdpfx.bin \
    -c isolinux/boot.cat -b isolinux/isolinux.bin -no-emul-boot -boot-load-size 4 -boot-info-table "$tree"
head -c 100000 "$ARTIFACTS/disc.iso" >"$ARTIFACTS/cut.iso"
"#;

fn inspect(guard: &Guard, iso: &Path, arguments: &[&str]) -> Finished {
    // There is no engine: none is needed.
    let mut command = Command::new(binary());
    command.env("DOCKER_HOST", "unix:///nonexistent/engine.sock").arg("inspect").arg(iso).args(arguments);
    Finished::of(guard.mark(&mut command))
}

fn outlooks(document: &Value, of: &str) -> Vec<String> {
    let all = document["expectations"][of].as_array().expect("a list");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    all.iter().map(|found| format!("{} {}", text(&found["subject"]), text(&found["outlook"]))).collect()
}

#[test]
fn a_live_system_is_told_with_its_problems_and_what_to_expect() {
    let project = Project::tiny("\n[[stage]]\nname = \"disc\"\nuses = \"disc\"\n");
    project.add_kind("disc", DISC);
    project.build(&[]).expect_code(0);
    let iso = project.artifact("disc.iso");

    let guard = Guard::new();
    let told = inspect(&guard, &iso, &["--format", "json"]).expect_code(0);
    assert!(told.peak_memory < 50 << 20, "{} bytes", told.peak_memory);
    let document = told.json();
    let inspection = &document["inspection"];
    assert_eq!((&document["iso"], &inspection["facts"]["label"]), (&json!("disc.iso"), &json!("SMALL")));
    let system = &inspection["system"];
    let facts = [&system["name"], &system["systemd"], &system["network_manager"], &system["live"]];
    assert_eq!(facts, [&json!("Small 1"), &json!(257), &json!("masked"), &json!("live-boot")]);
    assert_eq!(system["modules"]["wlan"], json!(["ath9k"]));
    let menus = inspection["loader_configs"].as_array().expect("menus");
    let menus: Vec<_> =
        menus.iter().map(|menu| [&menu["loader"], &menu["timeout"], &menu["entries"][0]["title"]]).collect();
    assert_eq!(
        menus,
        [
            [&json!("isolinux"), &Value::Null, &json!("Small system")],
            [&json!("grub"), &json!(7), &json!("Small GRUB")],
        ]
    );
    let problems = inspection["problems"].as_array().expect("problems");
    for (problem, path) in problems.iter().zip(["/live/vmlinuz", "/live/initrd"]) {
        let text = problem.as_str().expect("a text");
        assert!(text.starts_with("/isolinux/isolinux.cfg: the entry \"Small system\" names "), "{text}");
        assert!(text.ends_with(&format!("{path}, which is not there")), "{text}");
    }
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert_eq!(outlooks(&document, "checks")[..2], ["boot yes", "network-manager no"]);
    let machines = outlooks(&document, "profiles");
    for machine in ["bios-cd yes", "bios-usb yes", "uefi-cd no", "uefi-usb no", "uefi-secureboot no"] {
        assert!(machines.iter().any(|found| found == machine), "{machine} of {machines:?}");
    }
    let ways = outlooks(&document, "channels");
    assert_eq!(ways[0], "credentials yes");
    assert!(ways.contains(&"initramfs-hook no".to_owned()), "{ways:?}");

    inspect(&guard, &iso, &[])
        .expect_code(0)
        .prints("system Small 1, in /live/filesystem.squashfs, by live-boot")
        .prints("problem /isolinux/isolinux.cfg: the entry \"Small system\" names /live/vmlinuz, which is not there")
        .prints("no network-manager: NetworkManager is masked");

    // Half of it is still worth reading.
    let cut = inspect(&guard, &project.artifact("cut.iso"), &["--format", "json"]).expect_code(0).json();
    let first = cut["inspection"]["problems"][0].as_str().expect("a problem").to_owned();
    assert!(first.starts_with("the ISO is cut off: it promises "), "{first}");
    assert_eq!(outlooks(&cut, "profiles")[0], "bios-cd yes");
}

#[test]
fn a_boot_sector_is_all_that_is_known_of_an_iso_without_files() {
    let guard = Guard::new();
    let iso = guard.path("endless\x1b[31m.iso");
    fs::write(&iso, boot_sector_iso()).expect("a file can be written");
    let told = inspect(&guard, &iso, &[])
        .expect_code(0)
        .prints("yes bios-cd: ")
        .prints("no uefi-cd: ")
        .prints("unknown boot: ");
    assert!(!told.stdout.contains('\x1b'), "{told}");
}

#[test]
fn what_is_no_iso_is_a_wrong_argument() {
    let guard = Guard::new();
    let file = guard.path("notes.txt");
    fs::write(&file, "milk, eggs\n").expect("a file can be written");
    let told = inspect(&guard, &file, &["--format", "json"])
        .expect_code(2)
        .says("hint: give the path of an ISO image");
    assert_eq!(told.json()["error"]["exit_code"], 2);
    inspect(&guard, &guard.path("gone.iso"), &[]).expect_code(2).says("cannot read it");
}
