//! `isokiln checkpoint …`.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

use isokiln_core::exit;
use isokiln_core::image::{Artifact, Checkpoint as Saved, Role};
use isokiln_core::units::show_size;
use isokiln_engine::run::{Home, RunError, rollback};
use isokiln_engine::store::{Store, StoreError};
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
            let _lock = lock(&home)?;
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
                    "the next build of {} goes on from {} {}{forgot}\n",
                    report.pipeline,
                    report.stage,
                    report.manifest.short()
                )
            });
            Ok(exit::OK)
        }
        Checkpoint::Export(args) => export(global, &store, &args),
        Checkpoint::Rm(which) => {
            let _lock = lock(&home)?;
            remove(global, &store, &which)
        }
    }
}

fn lock(home: &Home) -> Result<isokiln_engine::store::WriterLock, RunError> {
    home.lock(|holder| output::tell(&format!("waiting for {holder}, which writes to the same store")))
}

fn failed(source: StoreError) -> RunError {
    RunError::Store { what: "the checkpoint cannot be used".to_owned(), source }
}

fn list(global: &Global, store: &Store) -> Result<u8, RunError> {
    let checkpoints = store.checkpoints().map_err(failed)?;
    let document: Vec<Value> = checkpoints.iter().map(as_json).collect();
    output::result(global.format, &document, |_| {
        if checkpoints.is_empty() {
            return "no checkpoints\n".to_owned();
        }
        let mut rows = vec![
            ["PIPELINE", "STAGE", "DIGEST", "LAYERS", "SIZE", "CREATED", ""].map(str::to_owned).to_vec(),
        ];
        rows.extend(checkpoints.iter().map(|checkpoint| {
            vec![
                checkpoint.pipeline.to_string(),
                checkpoint.stage.to_string(),
                checkpoint.manifest.short(),
                checkpoint.layers.len().to_string(),
                show_size(checkpoint.size_bytes()),
                created(checkpoint),
                if checkpoint.pinned { "rolled back to".to_owned() } else { String::new() },
            ]
        }));
        words::table(&rows)
    });
    Ok(exit::OK)
}

fn as_json(checkpoint: &Saved) -> Value {
    json!({
        "pipeline": checkpoint.pipeline,
        "stage": checkpoint.stage,
        "digest": checkpoint.manifest,
        "diff_ids": checkpoint.diff_ids(),
        "size_bytes": checkpoint.size_bytes(),
        "created": created(checkpoint),
        "run": checkpoint.run,
        "key": checkpoint.inputs.key(),
        "pinned": checkpoint.pinned,
    })
}

fn created(checkpoint: &Saved) -> String {
    jiff::Timestamp::from_second(checkpoint.created).map_or_else(|_| "?".to_owned(), |time| time.to_string())
}

fn show(global: &Global, store: &Store, which: &Which) -> Result<u8, RunError> {
    let checkpoint = find(store, which)?;
    let artifacts = artifacts(store, &checkpoint)?;
    let mut document = as_json(&checkpoint);
    document["layers"] = json!(checkpoint.layers);
    document["inputs"] = json!(checkpoint.inputs);
    document["artifacts"] = json!(artifacts);
    output::result(global.format, &document, |_| {
        let mut text = format!(
            "{}/{}  {}\ncreated {} by run {}\n\nLayers, bottom to top:\n",
            checkpoint.pipeline,
            checkpoint.stage,
            checkpoint.manifest,
            created(&checkpoint),
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
    let target = find(store, which)?;
    let key = target.inputs.key();
    let gone = store
        .retain(|entry| {
            let of_stage = entry.note.pipeline == target.pipeline && entry.note.stage == target.stage;
            let chosen = which.digest.is_none() || entry.note.key == key;
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

/// The checkpoint that the user means.
fn find(store: &Store, which: &Which) -> Result<Saved, RunError> {
    let candidates: Vec<_> = store
        .checkpoints()
        .map_err(failed)?
        .into_iter()
        .filter(|checkpoint| checkpoint.stage == which.stage)
        .filter(|checkpoint| which.pipeline.as_ref().is_none_or(|pipeline| checkpoint.pipeline == *pipeline))
        .filter(|checkpoint| which.digest.is_none_or(|digest| checkpoint.manifest == digest))
        .collect();
    let mut pipelines: Vec<_> = candidates.iter().map(|checkpoint| &checkpoint.pipeline).collect();
    pipelines.dedup();
    if let [first, second, ..] = pipelines.as_slice() {
        return Err(failed(StoreError::NoSuchCheckpoint {
            what: format!(
                "{} that is meant alone: {first} and {second} have one; say --pipeline",
                which.stage
            ),
        }));
    }
    candidates.into_iter().next_back().ok_or_else(|| {
        failed(StoreError::NoSuchCheckpoint { what: format!("of a stage {:?}", which.stage.as_str()) })
    })
}
