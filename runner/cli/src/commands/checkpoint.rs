//! `isokiln checkpoint …`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

use isokiln_core::exit;
use isokiln_core::image::{Artifact, Checkpoint as Saved, Entry, Role};
use isokiln_core::units::show_size;
use isokiln_engine::run::{Home, RunError, rollback, unpin};
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
            _ => Err(failed(StoreError::NoSuchCheckpoint {
                what: format!("because there is no store in {}", global.dir.display()),
            })),
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

fn show_time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |time| time.to_string())
}

fn show(global: &Global, store: &Store, which: &Which) -> Result<u8, RunError> {
    let entry = find_entry(store, which)?;
    let checkpoint = store.checkpoint(&entry).map_err(failed)?;
    let artifacts = artifacts(store, &checkpoint)?;
    let mut document = as_json(&entry, Some(&checkpoint), store.usable(&entry).err().as_ref());
    document["layers"] = json!(checkpoint.layers);
    document["inputs"] = json!(checkpoint.inputs);
    document["artifacts"] = json!(artifacts);
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
        text
    });
    Ok(exit::OK)
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
    let target = find_entry(store, which)?.note;
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
    let target = find_entry(store, which)?.note;
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
    store.checkpoint(&find_entry(store, which)?).map_err(failed)
}

/// Its entry, which there is even where the checkpoint is damaged.
fn find_entry(store: &Store, which: &Which) -> Result<Entry, RunError> {
    let candidates: Vec<_> = store
        .entries()
        .map_err(failed)?
        .into_iter()
        .filter(|entry| entry.note.role == Role::Checkpoint && entry.note.stage == which.stage)
        .filter(|entry| which.pipeline.as_ref().is_none_or(|pipeline| entry.note.pipeline == *pipeline))
        .filter(|entry| which.digest.is_none_or(|digest| entry.manifest == digest))
        .collect();
    let pipelines: BTreeSet<_> = candidates.iter().map(|entry| &entry.note.pipeline).collect();
    if pipelines.len() > 1 {
        let names: Vec<_> = pipelines.iter().map(ToString::to_string).collect();
        return Err(failed(StoreError::NoSuchCheckpoint {
            what: format!(
                "{} that is meant alone: {} have one; say --pipeline",
                which.stage,
                names.join(" and ")
            ),
        }));
    }
    candidates.into_iter().next_back().ok_or_else(|| {
        failed(StoreError::NoSuchCheckpoint { what: format!("of a stage {:?}", which.stage.as_str()) })
    })
}
