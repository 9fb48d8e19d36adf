//! Finding machine profiles and checks: those inside the binary, and those of the project.

use std::path::Path;

use isokiln_core::boot::{CheckCatalog, CheckDefinition, MachineProfile};
use isokiln_core::diagnostic::Diagnostics;
use isokiln_core::names::ProfileName;

use crate::definition::{Definition, DefinitionError, own};
use crate::library::{CHECKS, MACHINE_PROFILES};

/// Folders of a project's own profiles and checks, beside its pipeline files.
const PROFILES: &str = "profiles";
const OWN_CHECKS: &str = "checks";

/// Everything that an ISO can be tested on and for.
#[derive(Debug, Clone, Default)]
pub struct Testbed {
    /// The machines.
    pub profiles: Vec<MachineProfile>,
    /// The checks.
    pub checks: CheckCatalog,
}

impl Testbed {
    /// What is bundled, and what lies in `profiles/` and `checks/` of a folder, which comes first.
    pub fn beside(folder: &Path) -> Result<Self, DefinitionError> {
        let bundled = |files: &[(&str, &str)]| -> Vec<Definition> {
            files.iter().map(|(name, text)| Definition::bundled(name, text)).collect()
        };
        let mut profiles: Vec<MachineProfile> = Vec::new();
        for definition in bundled(&MACHINE_PROFILES).into_iter().chain(own(&folder.join(PROFILES))?) {
            let profile = definition.read(|name, text| {
                let name: ProfileName = name.parse().map_err(|error| wrong_name(&error))?;
                MachineProfile::parse(name, text)
            })?;
            match profiles.iter_mut().find(|known| known.name == profile.name) {
                Some(known) => *known = profile,
                None => profiles.push(profile),
            }
        }
        let definitions = bundled(&CHECKS).into_iter().chain(own(&folder.join(OWN_CHECKS))?);
        let checks: Result<Vec<_>, _> =
            definitions.map(|definition| definition.read(CheckDefinition::parse)).collect();
        Ok(Self { profiles, checks: CheckCatalog::new(checks?) })
    }

    /// The machines of these names, so far as there are any.
    pub fn named(&self, names: &[ProfileName]) -> Vec<MachineProfile> {
        names
            .iter()
            .filter_map(|name| self.profiles.iter().find(|known| known.name == *name).cloned())
            .collect()
    }

    /// Names of the machines.
    pub fn profile_names(&self) -> Vec<ProfileName> {
        self.profiles.iter().map(|profile| profile.name.clone()).collect()
    }
}

fn wrong_name(error: &isokiln_core::names::InvalidName) -> Diagnostics {
    Diagnostics(vec![isokiln_core::diagnostic::Diagnostic::new(error.to_string(), 0..1)])
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use isokiln_core::boot::{Answer, Judgement, Verdict};

    use super::*;

    /// What a bundled check comes to in a folder that stands for the guest: its `proc`, `sys` and `lib`, and in `bin`
    /// the programs.
    fn tried(check: &str, guest: &Path) -> (Verdict, String) {
        let check = Testbed::beside(Path::new("/nonexistent")).unwrap().checks.parse(check).unwrap();
        let mut script = check.script().unwrap();
        for folder in
            ["/proc/", "/sys/", "/lib/modules/", "/lib/firmware/", "/run/isokiln-probe/", "/var/lib/dpkg/"]
        {
            script = script.replace(folder, &format!("{}{folder}", guest.display()));
        }
        let path = format!("{}/bin:{}", guest.display(), std::env::var("PATH").unwrap());
        let ran = Command::new("sh").args(["-c", &script]).env("PATH", path).output().unwrap();
        let output = String::from_utf8_lossy(&ran.stdout).into_owned();
        let (Judgement::Settled(finding) | Judgement::NotYet(finding)) =
            check.judge(&Answer { status: ran.status.code().unwrap(), output });
        (finding.verdict, finding.summary)
    }

    fn write(guest: &Path, path: &str, text: &str) {
        let path = guest.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_module_that_modprobe_only_says_it_loads_is_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let guest = folder.path();
        // As with `install NAME /bin/true` in modprobe.d.
        write(guest, "bin/modprobe", "#!/bin/sh\n");
        write(guest, "bin/uname", "#!/bin/sh\necho 6.1\n");
        write(guest, "bin/modinfo", "#!/bin/sh\n");
        write(guest, "bin/sleep", "#!/bin/sh\n");
        write(guest, "run/isokiln-probe/script", "");
        write(guest, "lib/modules/6.1/modules.builtin", "kernel/fs/built-in.ko\n");
        let dependencies = "drivers/a-b.ko.xz: net/cfg80211.ko.xz\n";
        write(guest, "lib/modules/6.1/modules.dep", dependencies);
        assert_eq!(tried("module:built-in", guest).0, Verdict::Pass);
        let (verdict, summary) = tried("module:a-b", guest);
        assert_eq!(verdict, Verdict::Fail);
        assert!(summary.contains("a_b is not there"), "{summary}");
        assert_eq!(tried("wlan", guest), (Verdict::Fail, "1 of 1 WLAN modules do not load: a_b".to_owned()));
        for module in ["a_b", "mac80211_hwsim"] {
            fs::create_dir_all(guest.join("sys/module").join(module)).unwrap();
        }
        assert_eq!(tried("module:a-b", guest).0, Verdict::Pass);
        let radios = "1 WLAN modules load, but 0 of 2 simulated radios are Wi-Fi devices of NetworkManager";
        assert_eq!(tried("wlan", guest), (Verdict::Fail, radios.to_owned()));
        // An alias is no module itself.
        assert_eq!(tried("module:alias", guest).0, Verdict::Fail);
        write(guest, "bin/modprobe", "#!/bin/sh\nif [ \"$1\" = --resolve-alias ]; then echo a_b; fi\n");
        assert_eq!(tried("module:alias", guest).0, Verdict::Pass);
    }

    /// Stand-ins for everything that takes part in joining one radio with the other.
    fn two_radios(guest: &Path) {
        write(guest, "bin/modprobe", "#!/bin/sh\n");
        write(guest, "bin/uname", "#!/bin/sh\necho 6.1\n");
        let modinfo = "echo filename: /lib/modules/6.1/a-b.ko.xz; for file in chip.bin old.bin; do echo firmware: $file; done";
        write(guest, "bin/modinfo", &format!("#!/bin/sh\n{modinfo}\n"));
        write(guest, "lib/modules/6.1/modules.dep", "drivers/a-b.ko.xz: net/cfg80211.ko.xz\n");
        write(guest, "lib/firmware/chip.bin.zst", "");
        let packaged = format!("/.\n/usr/lib/firmware\n/usr{}/lib/firmware/chip.bin\n", guest.display());
        write(guest, "var/lib/dpkg/info/firmware-chips.list", &packaged);
        write(guest, "run/isokiln-probe/script", "");
        for (radio, device) in [("phy0", "wlan0"), ("phy1", "wlan1")] {
            let folder = guest.join("sys/class/ieee80211").join(radio).join("device");
            fs::create_dir_all(folder.join("net").join(device)).unwrap();
            std::os::unix::fs::symlink("../../mac80211_hwsim", folder.join("driver")).unwrap();
        }
        for module in ["a_b", "mac80211_hwsim"] {
            fs::create_dir_all(guest.join("sys/module").join(module)).unwrap();
        }
        let nmcli = "case $* in *device\\ show*) echo 10.77.0.2/24 ;; *'connection up'*) exec \"$0-joins\" ;; \
                     *STATE*) echo wlan0:wifi:x ;; *TYPE*) echo wlan0:wifi; echo wlan1:wifi ;; esac";
        write(guest, "bin/nmcli", &format!("#!/bin/sh\n{nmcli}\n"));
        write(guest, "bin/nmcli-joins", "#!/bin/sh\n");
        for program in ["wpa_supplicant", "perl", "journalctl"] {
            write(guest, &format!("bin/{program}"), "#!/bin/sh\n");
        }
    }

    #[test]
    fn a_radio_joins_and_firmware_that_was_brought_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let guest = folder.path();
        two_radios(guest);
        let joined = "1 WLAN modules load, wlan1 joined with WPA2 and got 10.77.0.2/24";
        assert_eq!(tried("wlan", guest), (Verdict::Pass, joined.to_owned()));
        let refusal = "echo 'Error: Connection activation failed: Secrets were required' >&2; exit 4";
        write(guest, "bin/nmcli-joins", &format!("#!/bin/sh\n{refusal}\n"));
        let (verdict, summary) = tried("wlan", guest);
        assert_eq!(verdict, Verdict::Fail);
        assert!(summary.ends_with("Secrets were required"), "{summary}");
        fs::remove_file(guest.join("lib/firmware/chip.bin.zst")).unwrap();
        let lost = "1 firmware files that the ISO's packages brought are gone, for a_b";
        assert_eq!(tried("wlan", guest), (Verdict::Fail, lost.to_owned()));
    }

    #[test]
    fn processes_whose_names_begin_alike_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let guest = folder.path();
        let process = |id: u32, comm: &str, line: &str, exe: &str| {
            write(guest, &format!("proc/{id}/comm"), &format!("{comm}\n"));
            write(guest, &format!("proc/{id}/cmdline"), line);
            std::os::unix::fs::symlink(exe, guest.join(format!("proc/{id}/exe"))).unwrap();
        };
        process(7, "systemd-network", "/lib/systemd/systemd-networkd\0", "/lib/systemd/systemd-networkd");
        process(
            8,
            "networkd-dispat",
            "/usr/bin/python3\0-u\0/usr/bin/networkd-dispatcher\0",
            "/usr/bin/python3",
        );
        process(9, "unattended-upgr", "renamed\0", "/usr/bin/unattended-upgrades");
        process(10, "sshd", "sshd: /usr/sbin/sshd -D\0", "/usr/sbin/sshd");
        let names =
            ["systemd-networkd", "networkd-dispatcher", "unattended-upgrades", "sshd", "systemd-network"];
        for name in names {
            assert_eq!(tried(&format!("process:{name}"), guest).0, Verdict::Pass, "{name}");
        }
        for name in ["systemd-network-generator", "systemd-networ", "unattended-upgrader", "python3"] {
            assert_eq!(tried(&format!("process:{name}"), guest).0, Verdict::Fail, "{name}");
        }
    }

    #[test]
    fn everything_bundled_is_valid() {
        let bed = Testbed::beside(Path::new("/nonexistent")).unwrap();
        let names: Vec<_> = bed.profiles.iter().map(|profile| profile.name.to_string()).collect();
        assert_eq!(names, ["bios-cd", "bios-usb", "uefi-cd", "uefi-usb", "uefi-secureboot"]);
        let with_argument = ["service:ssh", "module:x", "process:x", "file:/x", "port:22", "window:x"];
        for check in with_argument.into_iter().chain(["no-failed-units", "calamares"]) {
            let check = bed.checks.parse(check).unwrap();
            assert!(bed.profiles.iter().all(|profile| check.suits(profile)), "{}", check.name());
        }
        let check = bed.checks.parse("secure-boot").unwrap();
        let suited: Vec<_> = bed.profiles.iter().filter(|profile| check.suits(profile)).collect();
        assert_eq!(suited.len(), 1, "{suited:?}");
        assert_eq!(suited[0].name.as_str(), "uefi-secureboot");
    }

    #[test]
    fn a_projects_own_come_first_and_mistakes_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let profiles = folder.path().join("profiles");
        fs::create_dir(&profiles).unwrap();
        let text = MACHINE_PROFILES[0].1.replace("2GiB", "512MiB");
        fs::write(profiles.join("bios-cd.toml"), &text).unwrap();
        fs::write(profiles.join("old-pc.toml"), &text).unwrap();
        let bed = Testbed::beside(folder.path()).unwrap();
        assert_eq!((bed.profiles.len(), bed.profiles[0].memory), (6, 512 << 20));
        let checks = folder.path().join("checks");
        fs::create_dir(&checks).unwrap();
        fs::write(checks.join("mine.toml"), "summary = 3\n").unwrap();
        let error = Testbed::beside(folder.path()).unwrap_err();
        assert!(
            matches!(&error, DefinitionError::Wrong { path, .. } if path.ends_with("mine.toml")),
            "{error}"
        );
    }
}
