//! `isokiln doctor`: whether this machine can build and test, and what to do where it cannot.

use std::path::Path;
use std::sync::Arc;

use isokiln_core::boot::Accelerator;
use isokiln_core::names::RunId;
use isokiln_core::session::Logout;
use isokiln_core::units::show_size;
use serde::Serialize;

use super::builder_image::builder_system;
use super::error::RunError;
use super::guest::ContainerHost;
use super::logind::logout;
use super::session::Session;
use crate::archive::{archive_state, host_sources};
use crate::boot::find_acceleration;
use crate::sandbox::Sandbox;
use crate::sandbox::docker::{BuilderDefinition, DockerSandbox, Engine, Leftover, StoreVolume, leftovers};

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    /// What was looked at.
    pub subject: &'static str,
    /// How it is.
    pub state: Health,
    /// In words.
    pub finding: String,
    /// What to do where it is not well.
    pub cure: Option<String>,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Good,
    /// Builds work, but something is slower or less than it could be.
    Fair,
    /// Builds do not work.
    Bad,
}

/// A small build needs this much; a desktop several times as much.
const ENOUGH: u64 = 8 << 30;
const BARELY: u64 = 2 << 30;

impl Session {
    /// Looks at everything that a build needs. Makes nothing that stays.
    pub async fn doctor(&self, home: &Path) -> Result<Vec<Diagnosis>, RunError> {
        let mut findings = Vec::new();
        let engine = match Engine::connect().await {
            Ok(engine) => {
                findings.push(engine_facts(&engine).await);
                Some(engine)
            }
            Err(error) => {
                let error = RunError::sandbox("no engine")(error);
                findings.push(bad("engine", &error));
                None
            }
        };
        if let Some(engine) = engine {
            findings.extend(self.in_the_engine(&engine).await?);
        }
        let logout = logout();
        findings.push(Diagnosis {
            subject: "logout",
            state: if logout == Logout::Kills { Health::Fair } else { Health::Good },
            finding: logout.words().to_owned(),
            cure: logout.cure().map(str::to_owned),
        });
        findings.push(disk("disk of the store", free_here(home), home.display().to_string()));
        findings.push(self.until_cancelled(self.mirror()).await?);
        Ok(findings)
    }

    /// What killed runs have left, and what cannot be judged from here.
    pub async fn residue(&self) -> Result<Vec<Leftover>, RunError> {
        let engine = self.engine().await?;
        leftovers(&engine).await.map_err(RunError::sandbox("leftovers cannot be looked for"))
    }

    async fn in_the_engine(&self, engine: &Engine) -> Result<Vec<Diagnosis>, RunError> {
        let image = match BuilderDefinition::bundled().find(engine).await {
            Ok(Some(image)) => image,
            Ok(None) => {
                return Ok(vec![Diagnosis {
                    subject: "builder image",
                    state: Health::Fair,
                    finding: "not made yet; rights and KVM can be looked at when it is".to_owned(),
                    cure: Some("isokiln image build makes it; so does the first build".to_owned()),
                }]);
            }
            Err(error) => return Ok(vec![bad("builder image", &RunError::sandbox("no image")(error))]),
        };
        let mut findings = vec![good("builder image", format!("{} ({})", image.name, show_size(image.size)))];
        let Ok(run) = "doctor".parse::<RunId>() else { return Ok(findings) };
        // A volume of the doctor's own; one that a killed doctor leaves belongs to no folder that is there.
        let volume = StoreVolume::of(&std::env::temp_dir().join(format!("doctor-{}", std::process::id())));
        let sandbox = Arc::new(DockerSandbox::new(engine.clone(), image.name, volume.clone(), run));
        let grants = async { Ok(grants(&sandbox).await) };
        let looked = self.unless_cancelled(engine, grants).await;
        if let Err(error) = sandbox.destroy().await {
            findings.push(bad("engine", &RunError::sandbox("cannot tidy up")(error)));
        }
        if let Err(error) = volume.remove(engine).await {
            findings.push(bad("engine", &RunError::sandbox("cannot tidy up")(error)));
        }
        findings.extend(looked?);
        Ok(findings)
    }

    async fn mirror(&self) -> Diagnosis {
        match archive_state(&*self.fetch, &builder_system(), &host_sources(Path::new("/etc/apt")), &|_| ())
            .await
        {
            Ok(state) => {
                let suites: Vec<_> = state.0.iter().map(|suite| suite.suite.as_str()).collect();
                good("package archive", format!("reachable, with {}", suites.join(", ")))
            }
            Err(error @ crate::archive::ArchiveError::NoMirror { .. }) => Diagnosis {
                subject: "package archive",
                state: Health::Fair,
                finding: error.to_string(),
                cure: Some("name one in the pipeline: mirrors = [\"http://…\"] in [system]".to_owned()),
            },
            Err(source) => match "archive".parse() {
                Ok(stage) => bad("package archive", &RunError::Archive { stage, source }),
                Err(_) => good("package archive", source.to_string()),
            },
        }
    }
}

async fn engine_facts(engine: &Engine) -> Diagnosis {
    match engine.facts().await {
        Ok(facts) => good(
            "engine",
            format!(
                "{} {} at {}, {} processors, {}",
                facts.name,
                facts.version,
                facts.address,
                facts.cpus,
                show_size(u64::try_from(facts.memory).unwrap_or(0))
            ),
        ),
        Err(error) => bad("engine", &RunError::sandbox("the engine does not describe itself")(error)),
    }
}

/// What the engine grants and has, as a container finds it.
async fn grants(sandbox: &Arc<DockerSandbox>) -> Vec<Diagnosis> {
    let rights = match sandbox.rights().await {
        Ok(rights) => {
            let remark = rights.remark();
            good("rights", remark.unwrap_or_else(|| "the engine grants --privileged".to_owned()))
        }
        Err(error) => bad("rights", &RunError::sandbox("too few rights")(error)),
    };
    let free = sandbox.free_space().await.map_err(|error| error.to_string());
    let disk = disk("disk of the engine", free, "the engine's volumes".to_owned());
    vec![rights, disk, accelerator(&ContainerHost { sandbox: sandbox.clone() }).await]
}

fn kvm_cure(reason: &str) -> &'static str {
    if reason.contains("Permission denied") {
        "join the group that owns /dev/kvm (usually: sudo usermod -aG kvm $USER, then log in again)"
    } else {
        "switch virtualisation on in the firmware, or nested virtualisation in the hypervisor, and load kvm_intel or kvm_amd"
    }
}

async fn accelerator(host: &ContainerHost) -> Diagnosis {
    match find_acceleration(host, None).await.map(|found| found.uefi) {
        Ok(found) if found.accelerator == Accelerator::Kvm => good("boot tests", found.reason),
        Ok(found) => Diagnosis {
            subject: "boot tests",
            state: Health::Fair,
            finding: format!("run under TCG, several times slower than KVM: {}", found.reason),
            cure: Some(kvm_cure(&found.reason).to_owned()),
        },
        Err(error) => Diagnosis {
            subject: "boot tests",
            state: Health::Bad,
            finding: error.to_string(),
            cure: Some("isokiln image build --rebuild makes the image with QEMU anew".to_owned()),
        },
    }
}

fn free_here(path: &Path) -> Result<(u64, u64), String> {
    // The folder may not be there yet; what counts is the disk that it would lie on.
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let facts = nix::sys::statvfs::statvfs(existing).map_err(|error| error.to_string())?;
    Ok((facts.blocks_available() * facts.fragment_size(), facts.files_available()))
}

fn disk(subject: &'static str, free: Result<(u64, u64), String>, place: String) -> Diagnosis {
    let cure = Some(
        "free some space; isokiln gc --keep 1 and isokiln clean give back what old builds hold".to_owned(),
    );
    match free {
        Ok((bytes, _)) if bytes >= ENOUGH => good(subject, format!("{} free at {place}", show_size(bytes))),
        Ok((bytes, _)) => Diagnosis {
            subject,
            state: if bytes < BARELY { Health::Bad } else { Health::Fair },
            finding: format!(
                "{} free at {place}; a build wants {} or more",
                show_size(bytes),
                show_size(ENOUGH)
            ),
            cure,
        },
        Err(reason) => Diagnosis { subject, state: Health::Bad, finding: reason, cure },
    }
}

fn good(subject: &'static str, finding: String) -> Diagnosis {
    Diagnosis { subject, state: Health::Good, finding, cure: None }
}

fn bad(subject: &'static str, error: &RunError) -> Diagnosis {
    let finding = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    Diagnosis { subject, state: Health::Bad, finding, cure: error.hint() }
}
