//! `isokiln shell`: a shell where a stage's script ran, in what it left or in its checkpoint.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use isokiln_core::digest::DiffId;
use isokiln_core::image::{Checkpoint, Setting};
use isokiln_core::kind::{Privilege, RootfsUse};
use isokiln_core::names::{PipelineName, RunId, StageName};

use super::checkpoints::{Which, circumstances, find_among};
use super::error::RunError;
use super::home::Home;
use super::session::Session;
use super::setting::{files_of, with_proxies};
use super::unfinished::{Left, left};
use super::unpack::{Trouble, unpack_layer};
use crate::guard::FolderGuard;
use crate::sandbox::docker::{Console, DockerSandbox, Held, ShellCommand};
use crate::sandbox::{Sandbox, StageSpec, Tree};
use crate::store::{Store, Writer};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct ShellRequest {
    /// The stage. Where a digest is given, its checkpoint and not what a failed run left.
    pub which: Which,
    /// What to run there.
    pub command: ShellCommand,
}

/// Where a shell is, for its greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// The stage.
    pub stage: StageName,
    /// The run that worked on it.
    pub run: RunId,
    /// What of it is shown.
    pub state: PlaceState,
    /// What the script was given and the shell is not, in words.
    pub missing: Vec<String>,
}

/// What of a stage is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlaceState {
    /// What it left when it failed, with the reason, or was broken off; and whether there is a checkpoint too.
    Unfinished {
        /// Why it failed; absent where it was broken off.
        failed: Option<String>,
        /// Whether the stage also has a checkpoint.
        has_checkpoint: bool,
    },
    /// Its checkpoint.
    Checkpoint {
        /// How the digest of its manifest begins.
        digest: String,
        /// When it was made, in seconds since 1970.
        created: i64,
    },
}

/// What is shown in a shell, before it is known what of it lies in the engine.
struct Sight {
    place: Place,
    /// Bottom to top.
    trees: Vec<Tree>,
    setting: Setting,
}

impl Session {
    /// Opens a shell where a stage's script ran, and runs a command there; gives its exit status. `open` is told where
    /// that is once it can be used, and gives whoever uses it.
    pub async fn shell(
        &self,
        root: &Path,
        request: ShellRequest,
        open: impl FnOnce(&Place) -> io::Result<Console>,
    ) -> Result<u8, RunError> {
        let which = &request.which;
        let nothing = || RunError::NoSuchCheckpoint { which: which.clone(), known: Vec::new() };
        let home = Home::find(root).ok_or_else(nothing)?;
        let engine = self.engine().await?;
        self.sweep(&engine, &home).await?;
        let store = home.store()?;
        let left = unfinished_of(&home, which)?;
        // Whoever removes checkpoints waits until the shell is closed.
        let _lock = self.lock(&home, Writer::Beside("shell")).await?;
        // What is known to be nowhere is told before anything is made.
        let run = match &left {
            Some(left) => left.run.clone(),
            None => checkpoint(&store, which, &home)?.place.run,
        };
        let working = async {
            let image = self.ensure_image(&engine, None, false, &run).await?;
            let sandbox = DockerSandbox::new(engine.clone(), image.name, home.volume(), run.clone());
            let served = self.serve(&home, &store, &sandbox, left, &request, open).await;
            let destroyed = sandbox.destroy().await;
            let status = served?;
            destroyed.map_err(RunError::sandbox("the engine could not be tidied up"))?;
            Ok(status)
        };
        self.unless_cancelled(&engine, working).await
    }

    /// Makes the place and serves whoever uses it.
    async fn serve(
        &self,
        home: &Home,
        store: &Store,
        sandbox: &DockerSandbox,
        left: Option<Left>,
        request: &ShellRequest,
        open: impl FnOnce(&Place) -> io::Result<Console>,
    ) -> Result<u8, RunError> {
        let stage = &request.which.stage;
        let what = || format!("no shell can be opened in stage {stage}");
        let run = sandbox.run().clone();
        // From here on there is a container of that run, and nobody tidies away what it left.
        let held = sandbox.held(&run, stage).await.map_err(RunError::sandbox(what()))?;
        let sight = match left {
            Some(left) if held.work => unfinished(store, left, &request.which)?,
            _ => checkpoint(store, &request.which, home)?,
        };
        self.bring(home, store, sandbox, &sight, held).await?;
        let Sight { mut place, trees, mut setting } = sight;
        setting.inputs.retain(|option, path| {
            let is_there = path.exists();
            if !is_there {
                place.missing.push(format!("{} for option {option}", path.display()));
            }
            is_there
        });
        let names = setting.environment.iter().filter(|name| std::env::var_os(name).is_none());
        place.missing.extend(names.map(|name| format!("variable {name}")));
        // A root file system that is only read has nothing mounted in it; a new one is made from nothing.
        if request.command.in_rootfs || setting.rootfs == RootfsUse::New {
            setting.rootfs = RootfsUse::Change;
        }
        if request.command.in_rootfs {
            setting.privilege = setting.privilege.max(Privilege::Chroot);
        }
        let files = files_of(&setting);
        let value = |name: &str| std::env::var(name).ok();
        let spec = with_proxies(StageSpec::of(&setting, (&run, stage), trees, files, value));
        let is_evidence = matches!(place.state, PlaceState::Unfinished { .. });
        let shell = sandbox.open_shell(spec, is_evidence).await.map_err(RunError::sandbox(what()))?;
        let console = open(&place).map_err(|source| RunError::Folder { path: "/dev/tty".into(), source })?;
        let status = shell.run(&request.command, console).await;
        let removed = shell.remove().await;
        let status = status.map_err(RunError::sandbox(format!("the shell in stage {stage} broke off")))?;
        removed.map_err(RunError::sandbox("the engine could not be tidied up"))?;
        Ok(u8::try_from(status).unwrap_or(u8::MAX))
    }

    /// Brings the layers back into the engine that are not there.
    async fn bring(
        &self,
        home: &Home,
        store: &Store,
        sandbox: &DockerSandbox,
        sight: &Sight,
        held: Held,
    ) -> Result<(), RunError> {
        let what = || format!("the layers for stage {} cannot be unpacked", sight.place.stage);
        let wanted: BTreeSet<DiffId> = sight
            .trees
            .iter()
            .filter_map(|tree| match tree {
                Tree::Layer(layer) => Some(*layer),
                Tree::Work(_) => None,
            })
            .collect();
        if wanted.is_subset(&held.layers) {
            return Ok(());
        }
        // One shell at a time: two of one run would unpack the same layer at the same place.
        let folder = home.locks()?;
        let turn = tokio::task::spawn_blocking(move || {
            FolderGuard::take(&folder).map_err(|source| (folder, source))
        });
        let turn = self.until_cancelled(turn).await?;
        let turn = turn.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        let _turn = turn.map_err(|(path, source)| RunError::Folder { path, source })?;
        let held = sandbox.held(sandbox.run(), &sight.place.stage).await;
        let held = held.map_err(RunError::sandbox(what()))?;
        let checkpoints = store.checkpoints().map_err(RunError::store(what()))?;
        let blobs = checkpoints.iter().flat_map(|checkpoint| &checkpoint.layers);
        let mut missing: Vec<_> = blobs.filter(|blob| wanted.contains(&blob.diff_id)).collect();
        missing.sort_by_key(|blob| blob.diff_id);
        missing.dedup_by_key(|blob| blob.diff_id);
        for blob in missing.into_iter().filter(|blob| !held.layers.contains(&blob.diff_id)) {
            match unpack_layer(sandbox, store, &self.events, blob).await {
                Ok(()) => {}
                Err(Trouble::Sandbox(error)) => return Err(RunError::sandbox(what())(error)),
                Err(Trouble::Store(error)) => return Err(RunError::store(what())(error)),
            }
        }
        Ok(())
    }
}

/// What the newest run left of the stage, if it did not end well.
fn unfinished_of(home: &Home, which: &Which) -> Result<Option<Left>, RunError> {
    if which.digest.is_some() {
        return Ok(None);
    }
    let of_stage = |left: &Left| left.stage == which.stage && which.is_in(&left.pipeline);
    let mut found: Vec<_> = left(home).into_iter().filter(of_stage).collect();
    if found.len() > 1 {
        let pipelines = found.iter().map(|left| left.pipeline.to_string()).collect();
        return Err(RunError::ManyCheckpoints { stage: which.stage.clone(), pipelines });
    }
    match found.pop() {
        Some(left) if home.living_runs().contains(&left.run) => {
            Err(RunError::StageAtWork { stage: left.stage, run: left.run })
        }
        found => Ok(found),
    }
}

/// What a stage left that did not end well.
fn unfinished(store: &Store, left: Left, which: &Which) -> Result<Sight, RunError> {
    let Left { run, pipeline, stage, record, .. } = left;
    let failed = || RunError::store("the store cannot be read");
    let checkpoints = store.checkpoints().map_err(failed())?;
    let own_run = |of: &StageName| checkpoints.iter().rev().find(|c| c.run == run && c.stage == *of);
    let mut trees: Vec<_> = record
        .trees
        .into_iter()
        .map(|tree| match &tree {
            // It became a layer later in the same run.
            Tree::Work(parent) => own_run(parent)
                .and_then(|checkpoint| checkpoint.diff_ids().last().copied())
                .map_or(tree, Tree::Layer),
            Tree::Layer(_) => tree,
        })
        .collect();
    if record.setting.rootfs != RootfsUse::Read {
        trees.push(Tree::Work(stage.clone()));
    }
    let has_checkpoint = find_among(store, which, &[]).is_ok();
    let state = PlaceState::Unfinished { failed: record.failed, has_checkpoint };
    let place = Place { pipeline, stage, run, state, missing: Vec::new() };
    Ok(Sight { place, trees, setting: record.setting })
}

/// A stage's checkpoint.
fn checkpoint(store: &Store, which: &Which, home: &Home) -> Result<Sight, RunError> {
    let would_do = |left: &Left| which.is_in(&left.pipeline) && left.stage != which.stage;
    let others: Vec<_> = left(home).into_iter().filter(would_do).map(|left| left.stage).collect();
    let entry = find_among(store, which, &others)?;
    let failed = || RunError::store("the checkpoint cannot be used");
    let Checkpoint { stage, pipeline, run, created, layers, .. } =
        store.checkpoint(&entry).map_err(failed())?;
    let setting = circumstances(store, &entry.note).map(|record| record.setting);
    let mut missing = Vec::new();
    let setting = setting.unwrap_or_else(|| {
        missing.push("its options, variables and network: they were not recorded".to_owned());
        Setting::unknown(&stage)
    });
    let state = PlaceState::Checkpoint { digest: entry.manifest.short(), created };
    let trees = layers.iter().map(|layer| Tree::Layer(layer.diff_id)).collect();
    Ok(Sight { place: Place { pipeline, stage, run, state, missing }, trees, setting })
}
