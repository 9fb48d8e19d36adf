//! The live system that an ISO carries: what its root file system says before anything has run.

mod modules;

use std::io;

use serde::Serialize;

use super::files::{Files, Kind};
pub use modules::Modules;

/// Bytes read of a package list; that of a full desktop has 5 MB.
const MAX_STATUS: usize = 16 << 20;
/// Bytes read of a small text file.
const MAX_TEXT: usize = 64 << 10;

/// A live system, as its files have it. What is `None` or empty is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct System {
    /// Where it lies on the ISO: path of the file system, and of those stacked on it.
    pub images: Vec<String>,
    /// `PRETTY_NAME` of os-release, or its name and version.
    pub name: Option<String>,
    /// `ID` of os-release: `debian`, `fedora`, …
    pub id: Option<String>,
    /// `VERSION_ID` of os-release.
    pub version: Option<String>,
    /// The first process: `systemd`, or the name of the program that `/sbin/init` is. `None` where there is none.
    pub init: Option<String>,
    /// Version of systemd.
    pub systemd: Option<u32>,
    /// NetworkManager.
    pub network_manager: Option<UnitState>,
    /// Version of Calamares; `unknown` where only the program is there.
    pub calamares: Option<String>,
    /// QEMU's guest agent.
    pub guest_agent: bool,
    /// Kernel modules, of the kernel that boots by default where that can be told.
    pub modules: Option<Modules>,
    /// Display manager, by the name of its unit without `.service`.
    pub display_manager: Option<String>,
    /// Desktop sessions that can be logged in to.
    pub sessions: Vec<String>,
    /// What makes its initrds.
    pub initramfs: Option<Initramfs>,
    /// What finds it on the medium and mounts it.
    pub live: Option<LiveScheme>,
    /// Part of it could not be read: what is not there by the above may be there.
    pub incomplete: bool,
}

/// A way of booting a system from a medium that is only read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LiveScheme {
    /// Debian's.
    LiveBoot,
    /// Ubuntu's.
    Casper,
    /// dracut's, as on Fedora and openSUSE.
    Dmsquash,
    /// Arch's.
    Archiso,
}

impl LiveScheme {
    /// By the kernel's arguments, else by where the root file system lies.
    pub(super) fn of(arguments: &str, image: &str) -> Option<Self> {
        let by_argument = |word: &str| match word {
            "boot=live" => Some(Self::LiveBoot),
            "boot=casper" => Some(Self::Casper),
            _ if word.starts_with("root=live:") || word.starts_with("rd.live.") => Some(Self::Dmsquash),
            _ if word.starts_with("archiso") => Some(Self::Archiso),
            _ => None,
        };
        let folders = [
            ("/live/", Self::LiveBoot),
            ("/casper/", Self::Casper),
            ("/LiveOS/", Self::Dmsquash),
            ("/arch/", Self::Archiso),
        ];
        let by_folder = || folders.into_iter().find(|(folder, _)| image.starts_with(folder));
        let told = arguments.split_whitespace().find_map(by_argument);
        told.or_else(|| by_folder().map(|(_, scheme)| scheme))
    }

    /// The only generator of initrds that can find the live system so.
    pub(super) fn generator(self) -> Option<Initramfs> {
        match self {
            Self::LiveBoot | Self::Casper => None,
            Self::Dmsquash => Some(Initramfs::Dracut),
            Self::Archiso => Some(Initramfs::Mkinitcpio),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::LiveBoot => "live-boot",
            Self::Casper => "casper",
            Self::Dmsquash => "dracut (dmsquash-live)",
            Self::Archiso => "archiso",
        }
    }
}

/// Whether a systemd unit that is installed starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitState {
    /// A target wants it.
    Enabled,
    /// Nothing wants it.
    Disabled,
    /// It is a link to `/dev/null`.
    Masked,
}

/// A generator of initrds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initramfs {
    /// Debian's and Ubuntu's.
    InitramfsTools,
    /// Fedora's, and many others'.
    Dracut,
    /// Arch's.
    Mkinitcpio,
}

impl Initramfs {
    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::InitramfsTools => "initramfs-tools",
            Self::Dracut => "dracut",
            Self::Mkinitcpio => "mkinitcpio",
        }
    }
}

impl System {
    /// Reads a root file system. `release` is the version of the kernel that boots, if it is known. What cannot be
    /// read is told in `problems` and counts as not there.
    pub fn read<F: Files>(
        root: &mut F,
        images: Vec<String>,
        release: Option<&str>,
        problems: &mut Vec<String>,
    ) -> Self {
        let place = images.first().cloned().unwrap_or_default();
        let mut look = Look { root, place, problems, incomplete: false };
        let release_file = look.text("/etc/os-release").or_else(|| look.text("/usr/lib/os-release"));
        let field = |key: &str| release_file.as_deref().and_then(|text| os_release(text, key));
        let name = field("PRETTY_NAME").or_else(|| {
            let version = field("VERSION_ID").map(|version| format!(" {version}")).unwrap_or_default();
            field("NAME").map(|name| name + &version)
        });
        let (id, version) = (field("ID"), field("VERSION_ID"));
        let packages = look.packages(&["systemd", "calamares"]);
        let init = look.init();
        let modules = look.modules(release);
        let mut system = Self {
            name,
            id,
            version,
            systemd: look.systemd(packages[0].as_deref()),
            network_manager: look.network_manager(),
            calamares: look.calamares(packages[1].clone()),
            guest_agent: look.program("qemu-ga"),
            display_manager: look.display_manager(),
            sessions: look.sessions(),
            initramfs: look.initramfs(),
            images,
            init,
            modules,
            live: None,
            incomplete: false,
        };
        system.incomplete = look.incomplete;
        system
    }
}

/// Looks into a root file system; what goes wrong is told once and counts as not there.
struct Look<'l, F> {
    root: &'l mut F,
    place: String,
    problems: &'l mut Vec<String>,
    incomplete: bool,
}

impl<F: Files> Look<'_, F> {
    fn ok<T>(&mut self, path: &str, result: io::Result<T>) -> Option<T> {
        result
            .inspect_err(|error| {
                self.incomplete = true;
                let problem = format!("{}: {path} cannot be read: {error}", self.place);
                if !self.problems.contains(&problem) {
                    self.problems.push(problem);
                }
            })
            .ok()
    }

    fn is_there(&mut self, path: &str) -> bool {
        let found = self.root.find_link(path);
        self.ok(path, found).flatten().is_some()
    }

    /// Where a link leads, or the path itself for what is none.
    fn link(&mut self, path: &str) -> Option<String> {
        let found = self.root.find_link(path);
        let entry = self.ok(path, found).flatten()?;
        if entry.kind != Kind::Link {
            return Some(path.to_owned());
        }
        let target = self.root.target(&entry.node);
        self.ok(path, target)
    }

    fn bytes(&mut self, path: &str, most: usize) -> Option<Vec<u8>> {
        let bytes = self.root.read_at(path, most);
        self.ok(path, bytes).flatten()
    }

    fn text(&mut self, path: &str) -> Option<String> {
        self.bytes(path, MAX_TEXT).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn names(&mut self, folder: &str) -> Vec<String> {
        let entries = self.root.list_at(folder);
        let entries = self.ok(folder, entries).unwrap_or_default();
        entries.into_iter().map(|entry| entry.name).collect()
    }

    fn program(&mut self, name: &str) -> bool {
        ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .iter()
            .any(|folder| self.is_there(&format!("{folder}/{name}")))
    }

    /// Versions of packages by dpkg's list.
    fn packages(&mut self, names: &[&str]) -> Vec<Option<String>> {
        let status = self.bytes("/var/lib/dpkg/status", MAX_STATUS).unwrap_or_default();
        let status = String::from_utf8_lossy(&status);
        names.iter().map(|name| dpkg_version(&status, name)).collect()
    }

    fn init(&mut self) -> Option<String> {
        let target = self.link("/sbin/init").or_else(|| self.link("/usr/sbin/init"))?;
        Some(target.rsplit('/').next().unwrap_or(&target).to_owned())
    }

    /// systemd's version is part of the name of its private library, and begins its package's version.
    fn systemd(&mut self, package: Option<&str>) -> Option<u32> {
        let mut folders =
            vec!["/usr/lib/systemd".to_owned(), "/lib/systemd".to_owned(), "/usr/lib64/systemd".to_owned()];
        folders.extend(["x86_64", "aarch64", "i386"].map(|cpu| format!("/usr/lib/{cpu}-linux-gnu/systemd")));
        for folder in folders {
            let libraries = self.names(&folder);
            let mut versions = libraries.iter().filter_map(|name| name.strip_prefix("libsystemd-shared-"));
            if let Some(version) = versions.find_map(leading_number) {
                return Some(version);
            }
        }
        package.and_then(leading_number)
    }

    fn network_manager(&mut self) -> Option<UnitState> {
        if !self.program("NetworkManager") {
            return None;
        }
        let unit = "NetworkManager.service";
        if self.link(&format!("/etc/systemd/system/{unit}")).as_deref() == Some("/dev/null") {
            return Some(UnitState::Masked);
        }
        let wanted = ["/etc/systemd/system", "/usr/lib/systemd/system"]
            .iter()
            .any(|folder| self.is_there(&format!("{folder}/multi-user.target.wants/{unit}")));
        Some(if wanted { UnitState::Enabled } else { UnitState::Disabled })
    }

    fn calamares(&mut self, package: Option<String>) -> Option<String> {
        if !self.program("calamares") {
            return None;
        }
        let mut libraries = self.names("/usr/lib");
        libraries.extend(self.names("/usr/lib64"));
        libraries.extend(self.names("/usr/lib/x86_64-linux-gnu"));
        let library = libraries.iter().find_map(|name| name.strip_prefix("libcalamares.so."));
        Some(package.or_else(|| library.map(str::to_owned)).unwrap_or_else(|| "unknown".to_owned()))
    }

    fn modules(&mut self, release: Option<&str>) -> Option<Modules> {
        let mut releases = self.names("/usr/lib/modules");
        if releases.is_empty() {
            releases = self.names("/lib/modules");
        }
        releases.sort();
        let chosen = match release {
            Some(release) if releases.iter().any(|name| name == release) => release.to_owned(),
            Some(release) if !releases.is_empty() => {
                let problem = format!(
                    "{}: there are no modules for the kernel {release} that boots, only for {}",
                    self.place,
                    releases.join(", ")
                );
                self.problems.push(problem);
                return None;
            }
            _ => releases.pop()?,
        };
        let folder = format!("/usr/lib/modules/{chosen}");
        let folder = if self.is_there(&folder) { folder } else { format!("/lib/modules/{chosen}") };
        let path = format!("{folder}/modules.dep");
        let Some(dependencies) = self.bytes(&path, MAX_STATUS) else {
            if !self.is_there(&path) {
                self.problems.push(format!("{}: {path} is not there", self.place));
            }
            return None;
        };
        let built_in = self.bytes(&format!("{folder}/modules.builtin"), MAX_STATUS).unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(modules::find(&chosen, &text(&dependencies), &text(&built_in)))
    }

    fn display_manager(&mut self) -> Option<String> {
        let unit = self.link("/etc/systemd/system/display-manager.service");
        let debian = self.text("/etc/X11/default-display-manager");
        let path = unit.filter(|unit| unit != "/dev/null").or(debian)?;
        let name = path.trim().rsplit('/').next()?.trim_end_matches(".service");
        (!name.is_empty() && name != "display-manager").then(|| name.to_owned())
    }

    fn sessions(&mut self) -> Vec<String> {
        let mut names = self.names("/usr/share/xsessions");
        names.extend(self.names("/usr/share/wayland-sessions"));
        let mut sessions: Vec<_> =
            names.iter().filter_map(|name| name.strip_suffix(".desktop")).map(str::to_owned).collect();
        sessions.sort();
        sessions.dedup();
        sessions
    }

    fn initramfs(&mut self) -> Option<Initramfs> {
        let known = [
            ("mkinitramfs", Initramfs::InitramfsTools),
            ("dracut", Initramfs::Dracut),
            ("mkinitcpio", Initramfs::Mkinitcpio),
        ];
        known.into_iter().find(|(program, _)| self.program(program)).map(|(_, generator)| generator)
    }
}

/// A value of os-release; a value in quotes has a backslash before what a shell would replace.
fn os_release(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
    let plain = value.trim_matches(['"', '\'']).replace('\\', "");
    (!plain.is_empty()).then_some(plain)
}

/// Version of an installed package by dpkg's status file.
fn dpkg_version(status: &str, package: &str) -> Option<String> {
    let wanted = format!("Package: {package}");
    let mut lines = status.lines();
    lines.by_ref().find(|line| *line == wanted)?;
    let mut version = None;
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some(state) = line.strip_prefix("Status: ")
            && !state.ends_with(" installed")
        {
            return None;
        }
        version = version.or(line.strip_prefix("Version: "));
    }
    version.map(str::to_owned)
}

fn leading_number(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests;
