//! "Privileged": everything that this engine can grant.
//!
//! An engine that itself runs in a container may lack capabilities and then refuses `--privileged`
//! altogether ("unable to apply caps"). There isokiln asks for the capabilities that the engine has, by
//! name, with seccomp and AppArmor out of the way.

use bollard::models::HostConfig;
use serde::Serialize;

use super::super::SandboxError;
use super::container::{Container, ContainerSpec};
use super::engine::Engine;
use super::upload::Upload;

/// What a container may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "rights", content = "capabilities")]
pub enum Rights {
    /// No capability at all.
    Nothing,
    /// These capabilities and no other, and nothing else out of the ordinary.
    Only(Vec<String>),
    /// `--privileged`.
    Privileged,
    /// These capabilities, and no filter on system calls.
    Capabilities(Vec<String>),
}

/// Names of the capabilities in the order of their numbers (capability.h). The three newest are left out:
/// engines up to version 20 do not know them, and no stage needs them.
const CAPABILITIES: [&str; 38] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
];

/// Without these no stage can be mounted, changed and captured.
const NEEDED: [&str; 10] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "SETGID",
    "SETUID",
    "SYS_CHROOT",
    "SYS_ADMIN",
    "MKNOD",
    "SETFCAP",
];

impl Rights {
    pub(super) fn apply(&self, host: &mut HostConfig) {
        let unconfined = || Some(vec!["seccomp=unconfined".to_owned(), "apparmor=unconfined".to_owned()]);
        match self {
            Self::Nothing => host.cap_drop = Some(vec!["ALL".to_owned()]),
            Self::Only(names) => {
                host.cap_drop = Some(vec!["ALL".to_owned()]);
                host.cap_add = Some(names.clone());
            }
            Self::Privileged => {
                host.privileged = Some(true);
                host.security_opt = unconfined();
            }
            Self::Capabilities(names) => {
                host.cap_add = Some(names.clone());
                host.security_opt = unconfined();
            }
        }
    }

    /// What people should know of rights that are not what stages ask for first.
    pub fn remark(&self) -> Option<String> {
        let Self::Capabilities(names) = self else { return None };
        Some(format!("the engine refuses --privileged, but grants {} capabilities by name", names.len()))
    }

    /// Finds out what the engine grants, by asking for it.
    pub async fn find(
        engine: &Engine,
        image: &str,
        run: &isokiln_core::names::RunId,
    ) -> Result<Self, SandboxError> {
        // Three questions, only one answer of which is needed; but each takes a moment to ask.
        let needed = Self::Capabilities(NEEDED.map(str::to_owned).to_vec());
        let (privileged, has, least) = tokio::join!(
            try_start(engine, image, run, "privileged", Self::Privileged),
            engine_capabilities(engine, image, run),
            try_start(engine, image, run, "needed", needed.clone())
        );
        match (privileged, has, least) {
            (Ok(()), ..) => Ok(Self::Privileged),
            // What the engine itself has, it can grant.
            (_, Ok(has), Ok(())) if NEEDED.iter().all(|name| has.iter().any(|has| has == name)) => {
                Ok(Self::Capabilities(has))
            }
            (_, _, Ok(())) => Ok(needed),
            (_, _, Err(refusal)) => Err(SandboxError::TooFewRights(refusal.to_string())),
        }
    }
}

async fn try_start(
    engine: &Engine,
    image: &str,
    run: &isokiln_core::names::RunId,
    purpose: &str,
    rights: Rights,
) -> Result<(), SandboxError> {
    let spec = ContainerSpec { rights, ..ContainerSpec::new(image, run, purpose, &["true"]) };
    let container = Container::create(engine, &spec).await?;
    let started = async {
        container.upload(Upload::library().stream()).await?;
        container.start().await
    }
    .await;
    container.remove().await?;
    started
}

/// The bounding set of the engine's own world, as its first process has it.
async fn engine_capabilities(
    engine: &Engine,
    image: &str,
    run: &isokiln_core::names::RunId,
) -> Result<Vec<String>, SandboxError> {
    let command = ["grep", "CapBnd", "/proc/1/status"];
    let spec =
        ContainerSpec { host_processes: true, ..ContainerSpec::new(image, run, "capabilities", &command) };
    let text = super::exec::output_of(engine, &spec).await?;
    Ok(capabilities(text.trim().rsplit('\t').next().unwrap_or_default()))
}

/// Names of the capabilities in a mask such as `000001fffeffffff`.
fn capabilities(mask: &str) -> Vec<String> {
    let mask = u64::from_str_radix(mask, 16).unwrap_or_default();
    let has = |(number, _): &(usize, &&str)| mask >> number & 1 == 1;
    CAPABILITIES.iter().enumerate().filter(has).map(|(_, name)| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_become_names() {
        let names = capabilities("000001fffeffffff");
        assert_eq!(names.len(), 37);
        assert!(!names.contains(&"SYS_RESOURCE".to_owned()));
        assert_eq!(capabilities("0000000000000001"), ["CHOWN"]);
        assert_eq!(capabilities("nonsense"), [""; 0]);
        assert!(NEEDED.iter().all(|needed| CAPABILITIES.contains(needed)));
    }
}
