//! What isokiln brings along inside its binary: stage library, bundled kinds, machine profiles, rules.

use bytes::Bytes;
use isokiln_core::digest::{Digest, Hasher};

use crate::sandbox::ContainerFile;

/// Files of the stage library: name, contents, whether it is run.
const STAGE_LIBRARY: [(&str, &str, bool); 9] = [
    ("guest", include_str!("../../../images/stage/guest"), true),
    ("leash", include_str!("../../../images/stage/leash"), true),
    ("porter", include_str!("../../../images/stage/porter"), true),
    ("shell", include_str!("../../../images/stage/shell"), true),
    ("stage", include_str!("../../../images/stage/stage"), true),
    ("stage-lib.sh", include_str!("../../../images/stage/stage-lib.sh"), false),
    ("stage-tree.sh", include_str!("../../../images/stage/stage-tree.sh"), false),
    ("terminal", include_str!("../../../images/stage/terminal"), true),
    ("volatile.list", include_str!("../../../images/stage/volatile.list"), false),
];

/// A bundled kind: its name and the files of its folder.
pub struct BundledKind {
    /// Name of the folder.
    pub name: &'static str,
    /// Names and contents of the files.
    pub files: &'static [(&'static str, &'static str)],
}

macro_rules! bundled_kinds {
    ($($name:literal $([$($more:literal),*])?),*) => {
        [$(bundled_kinds!(@kind $name, "kind.toml", "run.sh" $($(, $more)*)?)),*]
    };
    (@kind $name:literal, $($file:literal),*) => {
        BundledKind {
            name: $name,
            files: &[$(($file, include_str!(concat!("../../../pipelines/stages/", $name, "/", $file)))),*],
        }
    };
}

/// Kinds that every pipeline can use.
pub const BUNDLED_KINDS: [BundledKind; 10] = bundled_kinds![
    "bootstrap",
    "branding",
    "calamares",
    "desktop",
    "files",
    "iso" ["layer.sh", "merge.py", "squash.sh"],
    "live",
    "network",
    "packages",
    "script"
];

/// Machine profiles: name and contents of their file.
pub const MACHINE_PROFILES: [(&str, &str); 5] = [
    ("bios-cd", include_str!("../../../qemu/profiles/bios-cd.toml")),
    ("bios-usb", include_str!("../../../qemu/profiles/bios-usb.toml")),
    ("uefi-cd", include_str!("../../../qemu/profiles/uefi-cd.toml")),
    ("uefi-usb", include_str!("../../../qemu/profiles/uefi-usb.toml")),
    ("uefi-secureboot", include_str!("../../../qemu/profiles/uefi-secureboot.toml")),
];

/// Checks that are data: name and contents of their file.
pub const CHECKS: [(&str, &str); 9] = [
    ("no-failed-units", include_str!("../../../qemu/checks/no-failed-units.toml")),
    ("service", include_str!("../../../qemu/checks/service.toml")),
    ("process", include_str!("../../../qemu/checks/process.toml")),
    ("module", include_str!("../../../qemu/checks/module.toml")),
    ("file", include_str!("../../../qemu/checks/file.toml")),
    ("port", include_str!("../../../qemu/checks/port.toml")),
    ("window", include_str!("../../../qemu/checks/window.toml")),
    ("calamares", include_str!("../../../qemu/checks/calamares.toml")),
    ("secure-boot", include_str!("../../../qemu/checks/secure-boot.toml")),
];

macro_rules! rules {
    ($($name:literal),*) => {
        [$(($name, include_str!(concat!("../../../review/rules/", $name, ".toml")))),*]
    };
}

/// Rules that logs are reviewed by: name and contents of their file.
pub const RULES: [(&str, &str); 17] = rules![
    "apt",
    "benign",
    "boot",
    "bootstrap",
    "chroot",
    "disk",
    "dkms",
    "dpkg",
    "facts",
    "grub",
    "hooks",
    "initramfs",
    "iso",
    "isokiln",
    "network",
    "signature",
    "squashfs"
];

/// Packages of the builder image, one a line.
pub const BUILDER_PACKAGES: &str = include_str!("../../../images/builder/packages.list");
/// The builder image's recipe for engines with a registry.
pub const BUILDER_DOCKERFILE: &str = include_str!("../../../Dockerfile.builder");

/// The stage library as files of a container.
pub fn container_files() -> Vec<ContainerFile> {
    STAGE_LIBRARY
        .iter()
        .map(|(name, text, executable)| ContainerFile {
            path: format!("/isokiln/lib/{name}"),
            executable: *executable,
            bytes: Bytes::from_static(text.as_bytes()),
        })
        .collect()
}

/// Digest of the parts of the stage library that a stage's result depends on.
pub fn stage_library_digest() -> Digest {
    let mut hasher = Hasher::new();
    for (name, text, _) in
        STAGE_LIBRARY.iter().filter(|(name, ..)| name.starts_with("stage") || *name == "volatile.list")
    {
        hasher.update(format!("{name} {}\n", text.len()).as_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finish()
}
