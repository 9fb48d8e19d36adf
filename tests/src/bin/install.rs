//! Installs the system of an ISO with its Calamares, as a person does, and starts the disk: see CONTRIBUTING.md.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use isokiln_tests::by_hand::{Firmware, Machine, Medium};

/// Install an ISO's system onto an empty disk, by keyboard and mouse, and see whether the disk starts
#[derive(Parser)]
struct Arguments {
    /// An ISO with LXQt and Calamares, as pipelines/ailinux.toml makes it
    iso: PathBuf,
    /// What the machine begins with
    #[arg(long, value_enum, default_value = "bios")]
    firmware: FirmwareName,
    /// Install nothing: start the disk that is in the folder
    #[arg(long)]
    installed: bool,
    /// Where the disk, the pictures and Calamares' log are left; emptied before an installation
    #[arg(long, value_name = "FOLDER", default_value = "target/install")]
    folder: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum FirmwareName {
    Bios,
    Uefi,
    SecureBoot,
}

/// Minutes that the copying may take where QEMU translates.
const COPYING: u64 = 40;

/// What must be so besides on a machine with BIOS.
const BIOS: [(&str, &str); 1] = [("it was started by BIOS", "! test -e /sys/firmware/efi")];
/// And with UEFI; the last with Secure Boot only.
const UEFI: [(&str, &str); 3] = [
    ("it was started by UEFI", "test -e /sys/firmware/efi"),
    (
        "it starts without a boot entry too",
        "cmp /boot/efi/EFI/BOOT/BOOTX64.EFI /usr/lib/shim/shimx64.efi.signed",
    ),
    ("Secure Boot is on", "mokutil --sb-state | grep -q enabled"),
];

/// What must be so in the installed system, as a test of its shell, by what it means.
const INSTALLED: [(&str, &str); 13] = [
    ("the root file system is on the disk", "findmnt --noheadings --output SOURCE / | grep -q ^/dev/vda"),
    ("the user is there, with a password", "getent shadow adal | cut -d: -f2 | grep -q '^[$]'"),
    ("the user may become root", "id --name --groups adal | grep -qw sudo"),
    ("no user of the live system is left", "! id ailinux 2>/dev/null"),
    ("Calamares is gone", "! command -v calamares && ! test -e /usr/share/isokiln/boot-loaders"),
    ("the live boot scripts are gone", "! dpkg --list 'live-boot*' 2>/dev/null | grep -q ^ii"),
    ("the boot loader is a package's", "dpkg --list grub-pc grub-efi-amd64 2>/dev/null | grep -q ^ii"),
    ("its boot menu has the name", "grep -q \"^menuentry '[^']*AILinux GNU/Linux'\" /boot/grub/grub.cfg"),
    ("other systems will be in it", "grep -q '^GRUB_DISABLE_OS_PROBER=.*false' /etc/default/grub"),
    ("it can be put into other languages", "grep -q 'de_DE.UTF-8' /etc/locale.gen && command -v locale-gen"),
    ("packages come whole from now on", "! test -e /etc/dpkg/dpkg.cfg.d/isokiln-slim"),
    ("its initramfs can be made anew", "update-initramfs -u"),
    ("no unit has failed", "test -z \"$(systemctl --failed --quiet --no-legend)\""),
];

fn main() -> Result<ExitCode, String> {
    let arguments = Arguments::parse();
    let firmware = match arguments.firmware {
        FirmwareName::Bios => Firmware::Bios,
        FirmwareName::Uefi => Firmware::Uefi { secure_boot: false },
        FirmwareName::SecureBoot => Firmware::Uefi { secure_boot: true },
    };
    let folder = &arguments.folder;
    let io = |error: std::io::Error| format!("{}: {error}", folder.display());
    if folder.exists() && !arguments.installed {
        fs::remove_dir_all(folder).map_err(io)?;
    }
    fs::create_dir_all(folder).map_err(io)?;
    let folder = folder.canonicalize().map_err(io)?;
    let iso =
        arguments.iso.canonicalize().map_err(|error| format!("{}: {error}", arguments.iso.display()))?;
    let started = Instant::now();
    let say = |what: &str| println!("{:5} s  {what}", started.elapsed().as_secs());

    if !arguments.installed {
        let mut live = Machine::start(&folder, firmware, &Medium::Iso(&iso))?;
        live.wait("the live desktop is there", 600, "pgrep -u 1000 lxqt-panel && pgrep -u 1000 pcmanfm-qt")?;
        live.is_drawn(300)?;
        live.picture("1-desktop")?;
        say("the live desktop is there");
        install(&mut live, &say)?;
        fs::write(folder.join("session.log"), live.shell("cat /root/.cache/calamares/session.log")?.1)
            .map_err(io)?;
        live.shell("sync")?;
        live.end()?;
    }

    let mut disk = Machine::start(&folder, firmware, &Medium::Disk)?;
    disk.wait("the installed system's login is there", 600, "systemctl is-active display-manager")?;
    disk.wait("it has started", 300, "systemctl is-system-running --wait | grep -q -e running -e degraded")?;
    disk.is_drawn(300)?;
    disk.picture("9-installed")?;
    say("the installed system has started");
    let mut is_good = true;
    let own = match firmware {
        Firmware::Bios => &BIOS[..],
        Firmware::Uefi { secure_boot: false } => &UEFI[..2],
        Firmware::Uefi { secure_boot: true } => &UEFI[..],
    };
    for (what, test) in own.iter().chain(&INSTALLED) {
        let (status, said) = disk.shell(test)?;
        say(&format!("{} {what}", if status == 0 { "PASS" } else { "FAIL" }));
        if status != 0 {
            is_good = false;
            println!("{said}");
        }
    }
    disk.end()?;
    println!("{}", folder.display());
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Goes through the pages of Calamares, and waits until it is done.
fn install(live: &mut Machine, say: &dyn Fn(&str)) -> Result<(), String> {
    // The icon in the corner of the desktop.
    let since = Instant::now();
    while live.shell("pgrep -f isokiln/installer")?.0 != 0 {
        if since.elapsed().as_secs() > 120 {
            return Err("the icon does not start the installer: see now.png".to_owned());
        }
        // It may not have been drawn yet.
        live.rest()?;
        live.click(68, 50, 2)?;
        std::thread::sleep(std::time::Duration::from_secs(5));
    }
    live.wait("Calamares has opened", 180, "grep -q 'requirement.*root' /root/.cache/calamares/session.log")?;
    live.rest()?;
    live.picture("2-welcome")?;
    for page in ["3-location", "4-keyboard", "5-partitions"] {
        live.turn_page(&["alt", "n"])?;
        live.picture(page)?;
    }
    // "Erase disk", within the window.
    let (x, y) = live.window("Installer")?;
    live.click(x + 184, y + 63, 1)?;
    live.rest()?;
    live.turn_page(&["alt", "n"])?;
    // The name gives the login's and the computer's. From there, four times Tab is the password.
    live.write("Ada Live")?;
    for _ in 0..3 {
        live.press(&["tab"])?;
    }
    live.write("kiln pass")?;
    live.press(&["tab"])?;
    live.write("kiln pass")?;
    live.rest()?;
    live.picture("6-users")?;
    live.turn_page(&["alt", "n"])?;
    live.picture("7-summary")?;
    live.turn_page(&["alt", "i"])?;
    live.wait("the disk is being written", 120, "grep -q 'Starting job' /root/.cache/calamares/session.log")?;
    say("installing");
    let log = "/root/.cache/calamares/session.log";
    live.wait("the installation is done", COPYING * 60, &format!("grep -q 'completion: ' {log}"))?;
    live.rest()?;
    live.picture("8-done")?;
    if live.shell(&format!("grep -q 'completion: succeeded' {log}"))?.0 != 0 {
        return Err("Calamares says that the installation failed: see 8-done.png".to_owned());
    }
    say("installed");
    Ok(())
}
