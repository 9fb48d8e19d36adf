//! Machine profiles: `qemu/profiles/NAME.toml`.

use crate::diagnostic::Diagnostics;
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
}

/// What runs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

/// What the ISO is put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A CD drive.
    Cd,
}

impl MachineProfile {
    /// Reads a profile file.
    pub fn parse(name: ProfileName, text: &str) -> Result<Self, Diagnostics> {
        let mut out = Diagnostics::default();
        let document = parse(text).map_err(|error| Diagnostics(vec![error]))?;
        let mut table = Table::new(format!("profile {name}"), document.get_ref(), 0..text.len().min(1));
        let summary = table.string("summary", &mut out);
        let firmware =
            table.choice("firmware", &[("bios", Firmware::Bios), ("uefi", Firmware::Uefi)], &mut out);
        let medium = table.choice("medium", &[("cd", Medium::Cd)], &mut out);
        let memory = table.read("memory", &mut out, parse_size);
        let network = table.string("network", &mut out);
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
                firmware: firmware?,
                medium: medium?,
                memory: memory?,
                cpus: cpus?,
                network: network?.value,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_profile_and_refuses_half_of_one() {
        let text = "summary = \"x\"\nfirmware = \"uefi\"\nmedium = \"cd\"\nmemory = \"2GiB\"\ncpus = 2\nnetwork = \"e1000e\"\n";
        let profile = MachineProfile::parse("uefi-cd".parse().unwrap(), text).unwrap();
        assert_eq!((profile.firmware, profile.memory, profile.cpus), (Firmware::Uefi, 2 << 30, 2));
        let errors =
            MachineProfile::parse("x".parse().unwrap(), "firmware = \"bioss\"\n").unwrap_err().to_string();
        assert!(
            errors.contains("unknown firmware \"bioss\"") && errors.contains("has no memory"),
            "{errors}"
        );
    }
}
