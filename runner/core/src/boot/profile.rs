//! Machine profiles: `qemu/profiles/NAME.toml`.

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::names::ProfileName;
use crate::table::{Table, integer, parse, wrong_type};
use crate::units::parse_size;

/// A machine to boot on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineProfile {
    /// File name without `.toml`.
    pub name: ProfileName,
    /// One line.
    pub summary: String,
    /// What runs first.
    pub firmware: Firmware,
    /// What the ISO is put into.
    pub medium: Medium,
    /// Bytes.
    pub memory: u64,
    /// Processors.
    pub cpus: u32,
    /// QEMU's name for the network card.
    pub network: String,
    /// QEMU's name for the graphics card.
    pub display: String,
    /// QEMU's name for the sound card; `None` for a machine without sound.
    pub sound: Option<String>,
}

/// Graphics card where the profile names none: what every firmware and kernel can draw on.
const DISPLAY: &str = "VGA";

/// What runs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi {
        /// Whether it starts only what is signed with the keys that PCs are sold with.
        secure_boot: bool,
    },
}

impl Firmware {
    /// Whether it is UEFI.
    pub fn is_uefi(self) -> bool {
        matches!(self, Self::Uefi { .. })
    }
}

/// What the ISO is put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A CD drive.
    Cd,
    /// A USB stick that the ISO's bytes were written to.
    Usb,
}

impl MachineProfile {
    /// Reads a profile file.
    pub fn parse(name: ProfileName, text: &str) -> Result<Self, Diagnostics> {
        let mut out = Diagnostics::default();
        let document = parse(text).map_err(|error| Diagnostics(vec![error]))?;
        let mut table = Table::new(format!("profile {name}"), document.get_ref(), 0..text.len().min(1));
        let summary = table.string("summary", &mut out);
        let uefi = Firmware::Uefi { secure_boot: false };
        let firmware = table.choice("firmware", &[("bios", Firmware::Bios), ("uefi", uefi)], &mut out);
        let secure_boot = table.boolean("secure-boot", &mut out);
        if let Some(wanted) = &secure_boot
            && wanted.value
            && firmware == Some(Firmware::Bios)
        {
            out.push(Diagnostic::new(
                "only UEFI knows Secure Boot: write firmware = \"uefi\"",
                wanted.span.clone(),
            ));
        }
        let medium = table.choice("medium", &[("cd", Medium::Cd), ("usb", Medium::Usb)], &mut out);
        let display = table.read("display", &mut out, device);
        let sound = table.read("sound", &mut out, device);
        let memory = table.read("memory", &mut out, parse_size);
        let network = table.read("network", &mut out, device);
        let cpus = table.any("cpus").and_then(|value| {
            let cpus = integer(value.get_ref()).and_then(|cpus| u32::try_from(cpus).ok());
            if cpus.is_none() {
                out.push(wrong_type(value, "a whole number", "cpus"));
            }
            cpus
        });
        for (key, example) in [
            ("summary", "summary = \"A PC\""),
            ("firmware", "firmware = \"bios\""),
            ("medium", "medium = \"cd\""),
            ("memory", "memory = \"2GiB\""),
            ("cpus", "cpus = 2"),
            ("network", "network = \"e1000e\""),
        ] {
            if table.key_span(key).is_none() {
                table.missing(key, example, &mut out);
            }
        }
        table.finish(&mut out);
        out.or(|| {
            Some(Self {
                name,
                summary: summary?.value,
                firmware: match firmware? {
                    Firmware::Uefi { .. } => {
                        Firmware::Uefi { secure_boot: secure_boot.is_some_and(|wanted| wanted.value) }
                    }
                    Firmware::Bios => Firmware::Bios,
                },
                medium: medium?,
                memory: memory?,
                cpus: cpus?,
                network: network?,
                display: display.unwrap_or_else(|| DISPLAY.to_owned()),
                sound,
            })
        })
    }
}

/// QEMU's name for a device: a word that cannot say anything else on QEMU's command line.
fn device(text: &str) -> Result<String, String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || !text.chars().all(valid) {
        return Err("write the name of a device of QEMU, for example \"e1000e\"".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_profile_and_refuses_half_of_one() {
        let text = "summary = \"x\"\nfirmware = \"uefi\"\nmedium = \"cd\"\nmemory = \"2GiB\"\ncpus = 2\nnetwork = \"e1000e\"\n";
        let profile = MachineProfile::parse("uefi-cd".parse().unwrap(), text).unwrap();
        assert_eq!(
            (profile.firmware, profile.memory, profile.cpus),
            (Firmware::Uefi { secure_boot: false }, 2 << 30, 2)
        );
        assert_eq!((profile.display.as_str(), profile.sound), ("VGA", None));
        let errors =
            MachineProfile::parse("x".parse().unwrap(), "firmware = \"bioss\"\n").unwrap_err().to_string();
        assert!(
            errors.contains("unknown firmware \"bioss\"") && errors.contains("has no memory"),
            "{errors}"
        );
    }

    #[test]
    fn secure_boot_is_for_uefi_and_devices_are_words() {
        let text = "summary = \"x\"\nfirmware = \"uefi\"\nsecure-boot = true\nmedium = \"usb\"\nmemory = \"2GiB\"\n\
                    cpus = 2\nnetwork = \"virtio-net-pci\"\nsound = \"intel-hda\"\n";
        let name: ProfileName = "x".parse().unwrap();
        let profile = MachineProfile::parse(name.clone(), text).unwrap();
        assert_eq!(profile.firmware, Firmware::Uefi { secure_boot: true });
        assert_eq!((profile.medium, profile.sound.as_deref()), (Medium::Usb, Some("intel-hda")));
        let bios = text.replace("uefi", "bios");
        let errors = MachineProfile::parse(name.clone(), &bios).unwrap_err().to_string();
        assert!(errors.contains("only UEFI knows Secure Boot"), "{errors}");
        let device = text.replace("virtio-net-pci", "e1000e,romfile=x");
        let errors = MachineProfile::parse(name, &device).unwrap_err().to_string();
        assert!(errors.contains("name of a device"), "{errors}");
    }
}
