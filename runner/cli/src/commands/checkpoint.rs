//! `isokiln checkpoint …`.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

use isokiln_core::exit;
use isokiln_core::image::{Artifact, Checkpoint as Saved, Circumstances, Entry, Process, Role};
use isokiln_core::units::show_size;
use isokiln_engine::run::{Home, RunError, Which as Meant, circumstances, find_checkpoint, rollback, unpin};
use isokiln_engine::store::{Store, StoreError, Writer, WriterLock};
use serde_json::{Value, json};

use crate::args::{Checkpoint, Export, Global, Which};
use crate::{output, words};

pub(super) fn run(global: &Global, args: Checkpoint) -> Result<u8, RunError> {
    let Some(home) = Home::find(&global.dir) else {
        return match args {
            Checkpoint::List => {
                output::result(global.format, &json!([]), |_| "no checkpoints\n".to_owned());
                Ok(exit::OK)
            }
            Checkpoint::Show(which)
            | Checkpoint::Rollback(which)
            | Checkpoint::Unpin(which)
            | Checkpoint::Rm(which)
            | Checkpoint::Export(Export { which, .. }) => {
                Err(RunError::NoSuchCheckpoint { which: (&which).into(), known: Vec::new() })
            }
        };
    };
    let store = home.store()?;
    match args {
        Checkpoint::List => list(global, &store),
        Checkpoint::Show(which) => show(global, &store, &which),
        Checkpoint::Rollback(which) => {
            let _lock = lock(&home, "checkpoint rollback")?;
            let target = find(&store, &which)?;
            let report = rollback(&store, &target).map_err(failed)?;
            output::result(global.format, &report, |report| {
                let forgotten: Vec<_> = report.forgotten.iter().map(ToString::to_string).collect();
                let forgot = if forgotten.is_empty() {
                    String::new()
                } else {
                    format!("; forgot {}", forgotten.join(", "))
                };
                format!(
                    "the next build of {} goes on from {} {}{forgot}\n\
                     until isokiln checkpoint unpin {}, or build --from {}\n",
                    report.pipeline,
                    report.stage,
                    report.manifest.short(),
                    report.stage,
                    report.stage
                )
            });
            Ok(exit::OK)
        }
        Checkpoint::Export(args) => export(global, &store, &args),
        Checkpoint::Unpin(which) => {
            let _lock = lock(&home, "checkpoint unpin")?;
            release(global, &store, &which)
        }
        Checkpoint::Rm(which) => {
            let _lock = lock(&home, "checkpoint rm")?;
            remove(global, &store, &which)
        }
    }
}

fn lock(home: &Home, command: &'static str) -> Result<WriterLock, RunError> {
    home.lock(&Writer::Alone(command), super::tell_waiting)
}

fn failed(source: StoreError) -> RunError {
    RunError::Store { what: "the checkpoint cannot be used".to_owned(), source }
}

fn list(global: &Global, store: &Store) -> Result<u8, RunError> {
    let entries = store.entries().map_err(failed)?.into_iter();
    let checkpoints: Vec<_> = entries
        .filter(|entry| entry.note.role == Role::Checkpoint)
        .map(|entry| {
            let trouble = store.usable(&entry).err();
            // Where only a layer is damaged, the documents still tell what it was.
            let checkpoint = store.checkpoint(&entry).ok();
            (entry, checkpoint, trouble)
        })
        .collect();
    let document: Vec<Value> = checkpoints
        .iter()
        .map(|(entry, checkpoint, trouble)| as_json(entry, checkpoint.as_ref(), trouble.as_ref()))
        .collect();
    output::result(global.format, &document, |_| {
        if checkpoints.is_empty() {
            return "no checkpoints\n".to_owned();
        }
        let mut rows = vec![
            ["PIPELINE", "STAGE", "DIGEST", "LAYERS", "SIZE", "CREATED", ""].map(str::to_owned).to_vec(),
        ];
        rows.extend(checkpoints.iter().map(|(entry, checkpoint, trouble)| {
            let unknown = || "?".to_owned();
            vec![
                entry.note.pipeline.to_string(),
                entry.note.stage.to_string(),
                entry.manifest.short(),
                checkpoint.as_ref().map_or_else(unknown, |known| known.layers.len().to_string()),
                checkpoint.as_ref().map_or_else(unknown, |known| show_size(known.size_bytes())),
                show_time(entry.note.created),
                match trouble {
                    Some(trouble) => format!("DAMAGED: {trouble}"),
                    None if entry.note.pinned => "rolled back to".to_owned(),
                    None => String::new(),
                },
            ]
        }));
        words::table(&rows)
    });
    Ok(exit::OK)
}

/// A checkpoint; what its documents say is missing where they are damaged.
fn as_json(entry: &Entry, checkpoint: Option<&Saved>, trouble: Option<&StoreError>) -> Value {
    json!({
        "pipeline": entry.note.pipeline,
        "stage": entry.note.stage,
        "digest": entry.manifest,
        "diff_ids": checkpoint.map(Saved::diff_ids).unwrap_or_default(),
        "size_bytes": checkpoint.map_or(0, Saved::size_bytes),
        "created": show_time(entry.note.created),
        "run": entry.note.run,
        "key": entry.note.key,
        "pinned": entry.note.pinned,
        "damaged": trouble.map(ToString::to_string),
    })
}

pub(super) fn show_time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |time| time.to_string())
}

fn show(global: &Global, store: &Store, which: &Which) -> Result<u8, RunError> {
    let entry = find_checkpoint(store, &which.into())?;
    let checkpoint = store.checkpoint(&entry).map_err(failed)?;
    let artifacts = artifacts(store, &checkpoint)?;
    let mut document = as_json(&entry, Some(&checkpoint), store.usable(&entry).err().as_ref());
    document["layers"] = json!(checkpoint.layers);
    document["inputs"] = json!(checkpoint.inputs);
    document["artifacts"] = json!(artifacts);
    let circumstances = circumstances(store, &entry.note);
    document["circumstances"] = json!(circumstances);
    output::result(global.format, &document, |_| {
        let mut text = format!(
            "{}/{}  {}\ncreated {} by run {}\n\nLayers, bottom to top:\n",
            checkpoint.pipeline,
            checkpoint.stage,
            checkpoint.manifest,
            show_time(checkpoint.created),
            checkpoint.run
        );
        let rows: Vec<_> = checkpoint
            .layers
            .iter()
            .map(|layer| vec![String::new(), layer.diff_id.to_string(), show_size(layer.size)])
            .collect();
        text.push_str(&words::table(&rows));
        text.push_str("\nMade from:\n");
        let rows: Vec<_> = checkpoint
            .inputs
            .0
            .iter()
            .map(|(name, value)| vec![String::new(), name.clone(), value.clone()])
            .collect();
        text.push_str(&words::table(&rows));
        if !artifacts.is_empty() {
            text.push_str("\nArtifacts:\n");
            let rows: Vec<_> = artifacts
                .iter()
                .map(|file| {
                    vec![String::new(), file.name.clone(), show_size(file.size), file.digest.to_string()]
                })
                .collect();
            text.push_str(&words::table(&rows));
        }
        if let Some(circumstances) = &circumstances {
            text.push_str(&told(circumstances));
        }
        text
    });
    Ok(exit::OK)
}

/// What was around a checkpoint's stage when it ended, for people.
fn told(circumstances: &Circumstances) -> String {
    let Circumstances { surroundings, review, .. } = circumstances;
    let mut text = String::new();
    if let Some(around) = surroundings {
        let names = around.environment.names.join(" ");
        text.push_str(&format!("\nVariables, {}:\n  {names}\n\nMounts:\n", around.environment.digest));
        // The rest is the engine's own.
        let of_isokiln = |target: &str| target.starts_with("/rootfs") || target.starts_with("/isokiln");
        let mounts = around.mounts.iter().filter(|mount| of_isokiln(&mount.target));
        let rows: Vec<_> = mounts
            .map(|mount| {
                let words = [&mount.target, &mount.kind, &mount.source, &mount.options];
                let words = words.into_iter().map(|word| words::printable(word));
                std::iter::once(String::new()).chain(words).collect()
            })
            .collect();
        text.push_str(&words::table(&rows));
        text.push_str("\nProcesses:\n");
        tree(&around.processes, 0, 1, &mut text);
    }
    text.push_str("\nReviews:\n");
    for review in &review.reviews {
        let action = review.action.map(|action| format!(", {action}")).unwrap_or_default();
        let verdict = serde_json::to_value(review.verdict).unwrap_or_default();
        let verdict = verdict.as_str().unwrap_or_default();
        text.push_str(&format!("  attempt {}: {verdict}{action}, {}\n", review.attempt, review.outcome));
    }
    if review.reviews.is_empty() {
        text.push_str("  none had ended\n");
    }
    if let Some(learnings) = review.learnings {
        text.push_str(&format!("  {} kinds of failure were known, {learnings}\n", review.signatures));
    }
    text
}

/// How far to the right a process is shown.
const DEEPEST: usize = 20;

/// The processes under one, each a step further to the right.
fn tree(processes: &[Process], parent: u32, depth: usize, text: &mut String) {
    for process in processes.iter().filter(|process| process.parent == parent) {
        text.push_str(&format!(
            "{}{} {}\n",
            "  ".repeat(depth),
            process.pid,
            words::printable(&process.command)
        ));
        // A process is not its own parent, whatever a script makes up.
        if depth < DEEPEST {
            tree(processes, process.pid, depth + 1, text);
        }
    }
}

fn artifacts(store: &Store, checkpoint: &Saved) -> Result<Vec<Artifact>, RunError> {
    match store.find(Role::Artifacts, checkpoint.inputs.key()).map_err(failed)? {
        Some(entry) => store.files(&entry).map_err(failed),
        None => Ok(Vec::new()),
    }
}

fn export(global: &Global, store: &Store, args: &Export) -> Result<u8, RunError> {
    let checkpoint = find(store, &args.which)?;
    let target = &args.target;
    let write = |source| RunError::Folder { path: target.clone(), source };
    // Under another name until it is whole: an archive that ends early must not be taken for one.
    let mut unfinished = target.clone().into_os_string();
    unfinished.push(".part");
    let unfinished = PathBuf::from(unfinished);
    let file = File::create(&unfinished).map_err(write)?;
    let written = store.export(checkpoint.manifest, BufWriter::with_capacity(1 << 20, file)).map_err(failed);
    let done = written.and_then(|()| std::fs::rename(&unfinished, target).map_err(write));
    if let Err(error) = done {
        // The first error is the one to tell.
        drop(std::fs::remove_file(&unfinished));
        return Err(error);
    }
    let name = format!("{}-{}", checkpoint.pipeline, checkpoint.stage);
    let size = std::fs::metadata(target).map_err(write)?.len();
    let document =
        json!({"file": target, "reference": name, "digest": checkpoint.manifest, "size_bytes": size});
    output::result(global.format, &document, |_| {
        format!("{} ({}), as oci-archive:{}:{name}\n", target.display(), show_size(size), target.display())
    });
    Ok(exit::OK)
}

fn remove(global: &Global, store: &Store, which: &Which) -> Result<u8, RunError> {
    let target = find_checkpoint(store, &which.into())?.note;
    let gone = store
        .retain(|entry| {
            let of_stage = entry.note.pipeline == target.pipeline && entry.note.stage == target.stage;
            let chosen = which.digest.is_none() || entry.note.key == target.key;
            !(of_stage && chosen && entry.note.role != Role::BootReport)
        })
        .map_err(failed)?;
    let digests: Vec<_> =
        gone.iter().filter(|entry| entry.note.role == Role::Checkpoint).map(|entry| entry.manifest).collect();
    output::result(global.format, &json!({"removed": digests}), |_| {
        format!("removed {} checkpoint(s) of {}; isokiln gc frees their space\n", digests.len(), target.stage)
    });
    Ok(exit::OK)
}

fn release(global: &Global, store: &Store, which: &Which) -> Result<u8, RunError> {
    let target = find_checkpoint(store, &which.into())?.note;
    let was_pinned = unpin(store, &target.pipeline, &target.stage).map_err(failed)?;
    let document = json!({"pipeline": target.pipeline, "stage": target.stage, "was_pinned": was_pinned});
    output::result(global.format, &document, |_| {
        if was_pinned {
            format!("the next build of {} runs {} if it has changed\n", target.pipeline, target.stage)
        } else {
            format!("{} of {} was not rolled back\n", target.stage, target.pipeline)
        }
    });
    Ok(exit::OK)
}

/// The checkpoint that the user means.
fn find(store: &Store, which: &Which) -> Result<Saved, RunError> {
    store.checkpoint(&find_checkpoint(store, &which.into())?).map_err(failed)
}

impl From<&Which> for Meant {
    fn from(which: &Which) -> Self {
        let Which { stage, pipeline, digest } = which.clone();
        Self { stage, pipeline, digest }
    }
}
