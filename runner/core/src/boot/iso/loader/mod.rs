//! Boot-loader configurations: what the boot menu offers, and what boots by itself.

mod grub;
mod grub_words;
mod isolinux;
mod systemd_boot;

use std::collections::BTreeSet;

use serde::Serialize;

use super::files::Files;
use crate::boot::profile::Firmware;

/// Files read for one menu and asked for, bytes of each, entries of a menu, and files in files: no real menu comes
/// near, and one that includes itself ends.
const MAX_FILES: usize = 200;
const MAX_BYTES: usize = 128 << 10;
const MAX_ENTRIES: usize = 500;
const MAX_DEPTH: usize = 16;
/// Initrds of one entry, and characters of a title: more than any screen shows.
const MAX_INITRDS: usize = 16;
const MAX_TITLE: usize = 200;

/// A boot menu as its configuration has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoaderConfig {
    /// The file that the loader begins with; on the EFI system partition it begins with `esp:`.
    pub path: String,
    /// What reads it.
    pub loader: Loader,
    /// In the order of the menu, those of submenus too.
    pub entries: Vec<MenuEntry>,
    /// Which of the entries boots by itself, or when Enter is pressed.
    pub default: Option<usize>,
    /// Seconds until the default entry boots; `None`: the menu waits for a key for ever.
    pub timeout: Option<u32>,
    /// Whether a person may change an entry's arguments.
    pub editable: bool,
}

/// One choice of a boot menu.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MenuEntry {
    /// As the menu shows it; the titles of the menus above it come first, with ` > ` between them.
    pub title: String,
    /// Path of the kernel on the ISO, or of another program; begins with `(` where it lies on another disk.
    /// `None` where the entry starts none.
    pub kernel: Option<String>,
    /// Paths of the initrds, in the order in which they are loaded.
    pub initrds: Vec<String>,
    /// Arguments of the kernel, without `initrd=`.
    pub arguments: String,
}

/// A boot loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loader {
    /// ISOLINUX, SYSLINUX and EXTLINUX.
    Isolinux,
    /// GRUB 2.
    Grub,
    /// systemd-boot.
    SystemdBoot,
}

impl Loader {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Isolinux => "isolinux",
            Self::Grub => "GRUB",
            Self::SystemdBoot => "systemd-boot",
        }
    }

    /// Whether firmware of that kind can start it from these media. isolinux for UEFI exists, but never on ISOs.
    pub(super) fn suits(self, firmware: Firmware) -> bool {
        match self {
            Self::Grub => true,
            Self::Isolinux => firmware == Firmware::Bios,
            Self::SystemdBoot => firmware != Firmware::Bios,
        }
    }
}

/// Where each loader looks for its configuration; of several for one loader the first is taken, as it would.
const ISOLINUX_PATHS: [&str; 9] = [
    "/boot/isolinux/isolinux.cfg",
    "/isolinux/isolinux.cfg",
    "/isolinux.cfg",
    "/boot/syslinux/isolinux.cfg",
    "/syslinux/isolinux.cfg",
    "/boot/syslinux/syslinux.cfg",
    "/isolinux/syslinux.cfg",
    "/syslinux/syslinux.cfg",
    "/syslinux.cfg",
];
const GRUB_PATHS: [&str; 5] = [
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/grub/grub.cfg",
    "/EFI/BOOT/grub.cfg",
    "/boot/grub/x86_64-efi/grub.cfg",
];

/// Reads the configurations of an ISO.
pub(super) fn on_iso(iso: &mut impl Files, problems: &mut Vec<String>) -> Vec<LoaderConfig> {
    let mut configs = Vec::new();
    let mut reader = Reader::new(|path: &str| text_of(iso, path));
    for path in ISOLINUX_PATHS {
        if reader.exists(path) {
            configs.push(isolinux::parse(path, &mut reader));
            break;
        }
    }
    for path in GRUB_PATHS {
        if reader.exists(path) {
            configs.push(grub::parse(path, &mut reader));
            break;
        }
    }
    problems.append(&mut reader.problems);
    drop(reader);
    configs.extend(systemd_boot::read(iso, "", problems));
    configs
}

/// Reads the configurations of an EFI system partition. What they lead to may lie on the ISO.
pub(super) fn on_esp(
    esp: &mut impl Files,
    iso: &mut impl Files,
    problems: &mut Vec<String>,
) -> Vec<LoaderConfig> {
    let mut paths = vec!["/EFI/BOOT/grub.cfg".to_owned(), "/boot/grub/grub.cfg".to_owned()];
    for entry in esp.list_at("/EFI").unwrap_or_default() {
        paths.push(format!("/EFI/{}/grub.cfg", entry.name));
    }
    let mut configs: Vec<LoaderConfig> = Vec::new();
    let mut reader = Reader::new(|path: &str| match path.strip_prefix("esp:") {
        Some(path) => text_of(esp, path),
        None => text_of(iso, path).or_else(|| text_of(esp, path)),
    });
    let own = paths.iter().map(|path| format!("esp:{path}")).find(|path| reader.exists(path));
    if let Some(path) = own {
        configs.push(grub::parse(&path, &mut reader));
    }
    problems.append(&mut reader.problems);
    drop(reader);
    configs.extend(systemd_boot::read(esp, "esp:", problems));
    configs
}

fn text_of(files: &mut impl Files, path: &str) -> Option<String> {
    let bytes = files.read_at(path, MAX_BYTES).ok().flatten()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Gives the text of the file at a path.
type Open<'f> = Box<dyn FnMut(&str) -> Option<String> + 'f>;

/// Reads the files of one menu after the other, within bounds.
struct Reader<'f> {
    read: Open<'f>,
    /// Files opened so far, and files that it was asked for whether they are there.
    opened: usize,
    asked: usize,
    /// What was looked for in vain, so that it is told once.
    missing: BTreeSet<String>,
    problems: Vec<String>,
}

impl<'f> Reader<'f> {
    fn new(read: impl FnMut(&str) -> Option<String> + 'f) -> Self {
        Self { read: Box::new(read), opened: 0, asked: 0, missing: BTreeSet::new(), problems: Vec::new() }
    }

    fn exists(&mut self, path: &str) -> bool {
        self.asked += 1;
        self.asked <= MAX_FILES && (self.read)(path).is_some()
    }

    /// The text of a file that another one includes; says so where it is missing.
    fn include(&mut self, path: &str, from: &str) -> Option<String> {
        let text = self.open(path);
        if text.is_none() && self.opened <= MAX_FILES && self.missing.insert(path.to_owned()) {
            self.problems.push(format!("{from} includes {path}, which is not there"));
        }
        text
    }

    /// The text of a file; `None` also when more were opened than a menu can have.
    fn open(&mut self, path: &str) -> Option<String> {
        self.opened += 1;
        if self.opened == MAX_FILES + 1 {
            self.problems
                .push(format!("the boot menu includes more than {MAX_FILES} files, the last {path}"));
        }
        if self.opened > MAX_FILES {
            return None;
        }
        (self.read)(path)
    }
}

/// A title as far as a screen can show it.
fn shown(title: &str) -> String {
    title.chars().take(MAX_TITLE).collect()
}

/// A path in a configuration as a path from the top folder; what does not begin with `/` lies beside `beside`.
fn absolute(path: &str, beside: &str) -> String {
    if path.starts_with('/') || path.starts_with('(') {
        return path.to_owned();
    }
    let folder = beside.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{folder}/{path}")
}

#[cfg(test)]
mod tests;
