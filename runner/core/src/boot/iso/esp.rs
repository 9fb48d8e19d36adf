//! The EFI system partition: what UEFI finds to start.

use std::io::{self, Read, Seek};

use serde::Serialize;

use super::extents::{Extent, ExtentReader};
use super::facts::{IsoFacts, Platform};
use super::fat::Fat;
use super::files::{Files, Kind};
use super::pe::EfiProgram;

/// Programs read, and bytes of one: a unified kernel image is larger, and who has signed it stands at its end.
const MAX_PROGRAMS: usize = 64;
const MAX_BYTES: usize = 16 << 20;

/// An EFI system partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Esp {
    /// Programs in the folders of `EFI/`.
    pub programs: Vec<EfiProgram>,
}

impl Esp {
    /// What UEFI on a PC starts from a medium that it does not know: `EFI/BOOT/BOOTX64.EFI`.
    pub fn boot_program(&self) -> Option<&EfiProgram> {
        self.programs.iter().find(|program| program.path.eq_ignore_ascii_case("/EFI/BOOT/BOOTX64.EFI"))
    }

    /// Whether there is something to start for other machines.
    pub(super) fn starts_others(&self) -> bool {
        let folder = |program: &EfiProgram| program.path.get(..14).map(str::to_ascii_uppercase);
        self.programs.iter().any(|program| folder(program).as_deref() == Some("/EFI/BOOT/BOOT"))
            && self.boot_program().is_none()
    }

    /// Finds the programs of a file system.
    pub(super) fn read(files: &mut impl Files, problems: &mut Vec<String>) -> io::Result<Self> {
        let mut esp = Self::default();
        for folder in files.list_at("/EFI")?.into_iter().filter(|entry| entry.kind == Kind::Folder) {
            for file in files.list(&folder.node)?.into_iter().filter(|entry| entry.kind == Kind::File) {
                if !file.name.to_ascii_lowercase().ends_with(".efi") || esp.programs.len() >= MAX_PROGRAMS {
                    continue;
                }
                let path = format!("/EFI/{}/{}", folder.name, file.name);
                let bytes = files.read(&file.node, MAX_BYTES)?;
                match EfiProgram::parse(&path, &bytes) {
                    Some(program) => esp.programs.push(program),
                    None => problems.push(format!("esp:{path} is not an EFI program")),
                }
            }
        }
        Ok(esp)
    }
}

/// The file system that UEFI starts from: the boot image for it, else the partition.
pub(super) fn open<R: Read + Seek + Clone>(
    facts: &IsoFacts,
    iso: &R,
    problems: &mut Vec<String>,
) -> Option<Fat<ExtentReader<R>>> {
    // How long a boot image is stands nowhere reliable; the file system in it knows.
    let image =
        facts.boot_entry(Platform::Efi).map(|entry| Extent { start: entry.image, size: u64::MAX >> 1 });
    let partition = facts.tables.esp().map(|partition| partition.place);
    for (what, place) in [("boot image for UEFI", image), ("EFI system partition", partition)] {
        let Some(place) = place else { continue };
        match Fat::open(ExtentReader::new(iso.clone(), vec![place])) {
            Ok(Some(fat)) => return Some(fat),
            Ok(None) => problems.push(format!("the {what} at byte {} holds no FAT file system", place.start)),
            Err(error) => {
                problems.push(format!("the {what} at byte {} cannot be read: {error}", place.start))
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::files::memory::Memory;
    use super::*;

    #[test]
    fn lists_programs_and_tells_of_others() {
        let mut program = vec![0; 0x200];
        program[..2].copy_from_slice(b"MZ");
        program[0x3c] = 0x40;
        program[0x40..0x46].copy_from_slice(b"PE\0\0\x64\x86");
        let mut files = Memory::of(&[("/EFI/BOOT/grubx64.efi", "text"), ("/EFI/BOOT/grub.cfg", "")]);
        files.0.insert("/EFI/boot/bootx64.efi".to_owned(), program);
        let mut problems = Vec::new();
        let esp = Esp::read(&mut files, &mut problems).unwrap();
        assert_eq!(esp.boot_program().unwrap().machine, "x86-64");
        assert_eq!(problems, ["esp:/EFI/BOOT/grubx64.efi is not an EFI program"]);
        assert_eq!(Esp::read(&mut Memory::default(), &mut problems).unwrap().boot_program(), None);
    }
}
