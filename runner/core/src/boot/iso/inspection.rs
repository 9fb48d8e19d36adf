//! Everything that an ISO says of itself.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek};

use serde::Serialize;

use super::esp::{self, Esp};
use super::extents;
use super::facts::{IsoFacts, NotAnIso};
use super::fat::Fat;
use super::files::{Files, Kind};
use super::images::{self, RootImage};
use super::kernel::{Initrd, KERNEL_HEAD, Kernel};
use super::loader::{self, LoaderConfig, MenuEntry};
use super::system::{LiveScheme, System};
use super::tree::IsoTree;
use crate::boot::profile::Firmware;

/// Folders in which kernels and initrds lie also where no boot menu names them.
const KERNEL_FOLDERS: [&str; 12] = [
    "/",
    "/live",
    "/casper",
    "/boot",
    "/isolinux",
    "/install",
    "/install.amd",
    "/LiveOS",
    "/images/pxeboot",
    "/boot/x86_64/loader",
    "/arch/boot/x86_64",
    "/d-i",
];
/// Files looked for that boot menus name.
const MAX_LOOKED_FOR: usize = 2000;
/// Problems told at most; a damaged ISO would fill pages.
const MAX_PROBLEMS: usize = 100;

/// What an ISO says of itself, read without booting it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// Boot records and partition tables.
    pub facts: IsoFacts,
    /// What UEFI finds; `None` where there is no such partition that can be read.
    pub esp: Option<Esp>,
    /// Boot menus: isolinux', GRUB's, systemd-boot's; those on the EFI system partition first.
    pub loader_configs: Vec<LoaderConfig>,
    /// Kernels, those that a boot menu names first.
    pub kernels: Vec<Kernel>,
    /// Initrds, likewise.
    pub initrds: Vec<Initrd>,
    /// The live system; `None` where none was found that can be read.
    pub system: Option<System>,
    /// What is damaged, missing or not understood, one sentence each.
    pub problems: Vec<String>,
}

impl Inspection {
    /// Reads all but the live system, which [`Inspection::root_images`] and [`Inspection::add_system`] are for.
    /// Gives the ISO's files too. Only what is no ISO is an error.
    pub fn read<R: Read + Seek + Clone>(mut iso: R) -> Result<(Self, IsoTree<R>), NotAnIso> {
        let facts = IsoFacts::read(&mut iso)?;
        let mut tree = IsoTree::open(iso.clone())?;
        let mut problems: Vec<String> = tree.complaint()?.into_iter().collect();
        for entry in facts.boot_entries.iter().filter(|entry| entry.bootable) {
            let start = extents::read_at(&mut iso, entry.image, 512)?;
            if start.iter().all(|byte| *byte == 0) {
                problems.push(format!("the boot image at byte {} is empty", entry.image));
            }
        }
        let mut fat = esp::open(&facts, &iso, &mut problems);
        let mut loader_configs = Vec::new();
        let mut esp = None;
        if let Some(fat) = &mut fat {
            esp = Esp::read(fat, &mut problems)
                .inspect_err(|error| {
                    problems.push(format!("the EFI system partition cannot be read: {error}"))
                })
                .ok();
            loader_configs.extend(loader::on_esp(fat, &mut tree, &mut problems));
        }
        loader_configs.extend(loader::on_iso(&mut tree, &mut problems));
        let mut inspection = Self {
            facts,
            esp,
            loader_configs,
            kernels: Vec::new(),
            initrds: Vec::new(),
            system: None,
            problems,
        };
        inspection.add_kernels(&mut tree, fat);
        inspection.problems.truncate(MAX_PROBLEMS);
        Ok((inspection, tree))
    }

    /// The entry that boots by itself on firmware of that kind, or when Enter is pressed.
    pub fn default_entry(&self, firmware: Firmware) -> Option<&MenuEntry> {
        let config = self.menu(firmware)?;
        config.entries.get(config.default?)
    }

    /// The menu that firmware of that kind comes to, as far as can be told: BIOS to isolinux if it is there.
    pub fn menu(&self, firmware: Firmware) -> Option<&LoaderConfig> {
        let suiting = |config: &&LoaderConfig| {
            let place = firmware.is_uefi() || !config.path.starts_with("esp:");
            place && config.loader.suits(firmware) && !config.entries.is_empty()
        };
        self.loader_configs.iter().find(suiting)
    }

    /// The entry that boots by itself on any firmware.
    pub fn any_default(&self) -> Option<&MenuEntry> {
        let uefi = Firmware::Uefi { secure_boot: false };
        self.default_entry(Firmware::Bios).or_else(|| self.default_entry(uefi))
    }

    /// Whether the ISO is there to start Linux, though what it takes may be missing or damaged.
    pub fn is_for_linux(&self) -> bool {
        // A rescue disc's menu may start what lies on another disk.
        let on_iso = |initrd: &String| !initrd.starts_with('(');
        let mut entries = self.loader_configs.iter().flat_map(|config| &config.entries);
        !self.kernels.is_empty()
            || !self.initrds.is_empty()
            || self.system.is_some()
            || self.esp.iter().flat_map(|esp| &esp.programs).any(|program| program.holds_kernel)
            || entries.any(|entry| entry.initrds.iter().any(on_iso))
    }

    /// The files on the ISO that make up the live system, the uppermost first.
    pub fn root_images<R: Read + Seek + Clone>(&mut self, tree: &mut IsoTree<R>) -> Vec<RootImage> {
        let arguments = self.any_default().map(|entry| entry.arguments.clone()).unwrap_or_default();
        let found = images::find(tree, &arguments, &mut self.problems);
        if found.is_empty()
            && let Some(live) = LiveScheme::of(&arguments, "")
        {
            let problem =
                format!("the kernel's arguments ask for {}, but no squashfs was found", live.name());
            self.problems.push(problem);
        }
        found
    }

    /// Reads the live system; `images` are the paths of the files that it lies in.
    pub fn add_system(&mut self, root: &mut impl Files, images: Vec<String>) {
        let place = images.first().cloned().unwrap_or_default();
        if let Ok(Some(_)) = root.find("/LiveOS/rootfs.img") {
            self.problems
                .push(format!("{place} holds an image of another file system, which cannot be looked into"));
            return;
        }
        let default = self.any_default();
        let kernel = default.and_then(|entry| entry.kernel.as_deref());
        let release =
            kernel.and_then(|path| self.kernels.iter().find(|kernel| kernel.path == path)?.release.clone());
        let live = LiveScheme::of(default.map_or("", |entry| &entry.arguments), &place);
        let mut system = System::read(root, images, release.as_deref(), &mut self.problems);
        system.live = live;
        // Others may be installed beside it.
        system.initramfs = live.and_then(LiveScheme::generator).or(system.initramfs);
        self.system = Some(system);
        self.problems.truncate(MAX_PROBLEMS);
    }

    fn add_kernels<R: Read + Seek + Clone, E: Read + Seek>(
        &mut self,
        tree: &mut IsoTree<R>,
        mut esp: Option<Fat<E>>,
    ) {
        let mut kernels = Vec::new();
        let mut initrds = Vec::new();
        for config in &self.loader_configs {
            for entry in &config.entries {
                let of =
                    |path: &String| (path.clone(), format!("{}: the entry {:?}", config.path, entry.title));
                // What gets an initrd must be Linux.
                let linux = !entry.initrds.is_empty();
                kernels.extend(entry.kernel.iter().map(|path| (of(path), linux)));
                initrds.extend(entry.initrds.iter().map(of));
            }
        }
        for folder in KERNEL_FOLDERS {
            for entry in tree.list_at(folder).unwrap_or_default() {
                let path = format!("{}/{}", folder.trim_end_matches('/'), entry.name);
                let begins = |names: &[&str]| names.iter().any(|name| entry.name.starts_with(name));
                if entry.kind != Kind::Folder && begins(&["vmlinuz", "bzImage"]) {
                    kernels.push(((path, String::new()), false));
                } else if entry.kind != Kind::Folder && begins(&["initrd", "initramfs"]) {
                    initrds.push((path, String::new()));
                }
            }
        }
        let mut seen = BTreeSet::new();
        for ((path, named_by), linux) in kernels {
            let Some((size, head)) = self.head(tree, &mut esp, &path, &named_by, KERNEL_HEAD, &mut seen)
            else {
                continue;
            };
            let kernel = Kernel::parse(&path, size, &head);
            if kernel.cut_off {
                self.problems
                    .push(format!("{path} is cut off: its header promises more than its {size} bytes"));
            }
            if linux && kernel.release.is_none() {
                self.problems.push(format!("{named_by} names {path}, which is no Linux kernel"));
            }
            // Menus also name other programs: memory tests, modules of the boot loader.
            if kernel.release.is_some() {
                self.kernels.push(kernel);
            }
        }
        for (path, named_by) in initrds {
            if let Some((size, head)) = self.head(tree, &mut esp, &path, &named_by, 16, &mut seen) {
                if size == 0 {
                    self.problems.push(format!("{path} is empty"));
                }
                self.initrds.push(Initrd::parse(&path, size, &head));
            }
        }
    }

    /// Size and beginning of a file on the ISO or on the EFI system partition, the first time that it is asked for.
    fn head<R: Read + Seek + Clone, E: Read + Seek>(
        &mut self,
        tree: &mut IsoTree<R>,
        esp: &mut Option<Fat<E>>,
        path: &str,
        named_by: &str,
        most: usize,
        seen: &mut BTreeSet<String>,
    ) -> Option<(u64, Vec<u8>)> {
        // What lies on another disk, and the blocks that a chain loader takes, are no files here.
        let elsewhere = path.starts_with('(') || path.contains('+') && !path.contains('.');
        if elsewhere || seen.len() > MAX_LOOKED_FOR || !seen.insert(path.to_owned()) {
            return None;
        }
        if seen.len() > MAX_LOOKED_FOR {
            // First, because there are too many problems to tell all.
            let problem =
                format!("boot menus name more than {MAX_LOOKED_FOR} files; not all were looked for");
            self.problems.insert(0, problem);
            return None;
        }
        let mut found = beginning(tree, path, most);
        if let (Ok(None), Some(esp)) = (&found, esp) {
            found = beginning(esp, path, most);
        }
        // isolinux adds these itself.
        for end in [".c32", ".cbt", ".com"] {
            if let Ok(None) = found {
                found = beginning(tree, &format!("{path}{end}"), most);
            }
        }
        match found {
            Ok(Some(found)) => return Some(found),
            Ok(None) if named_by.is_empty() => {}
            Ok(None) => self.problems.push(format!("{named_by} names {path}, which is not there")),
            Err(error) => self.problems.push(format!("{path} cannot be read: {error}")),
        }
        None
    }
}

fn beginning(files: &mut impl Files, path: &str, most: usize) -> io::Result<Option<(u64, Vec<u8>)>> {
    match files.find(path)? {
        Some(entry) if entry.kind == Kind::File => {
            Ok(Some((files.size(&entry.node)?, files.read(&entry.node, most)?)))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::{image, record};
    use super::*;

    #[test]
    fn a_menu_of_too_many_files_is_not_looked_through() {
        let label = |label: usize| {
            let initrds: Vec<_> = (0..5).map(|initrd| format!("i{}", label * 5 + initrd)).collect();
            format!("label l\ninitrd {}\n", initrds.join(","))
        };
        let menu: String = (0..500).map(label).collect();
        let file = record(b"ISOLINUX.CFG;1", 22, menu.len() as u32, 0, &[]);
        let (inspection, _) = Inspection::read(image(false, &[file], &[(22, menu.as_bytes())])).unwrap();
        assert_eq!(inspection.loader_configs[0].entries.len(), 500);
        assert_eq!(inspection.problems.len(), MAX_PROBLEMS);
        assert!(inspection.problems[0].contains("more than 2000 files"), "{}", inspection.problems[0]);
    }
}
