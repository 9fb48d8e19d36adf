//! The JSON documents of an image layout: config, manifest, index.

use std::collections::HashMap;

use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, HistoryBuilder, ImageConfigurationBuilder, ImageIndexBuilder,
    ImageManifest, ImageManifestBuilder, MediaType, Os, RootFsBuilder, SCHEMA_VERSION, Sha256Digest,
};
use serde::Serialize;

use super::checkpoint::{Artifact, Checkpoint, LayerBlob};
use crate::digest::{DiffId, Digest};
use crate::names::{PipelineName, RunId, StageName};
use crate::plan::StageInputs;

/// Artifact type of the files that a stage leaves.
pub const ARTIFACTS_TYPE: &str = "application/vnd.isokiln.artifacts.v1";
/// Artifact type of a boot test's report.
pub const BOOT_REPORT_TYPE: &str = "application/vnd.isokiln.boot-report.v1";
/// Artifact type of the record of a checkpoint's making.
pub const CIRCUMSTANCES_TYPE: &str = "application/vnd.isokiln.circumstances.v1";

const PIPELINE: &str = "org.isokiln.pipeline";
const STAGE: &str = "org.isokiln.stage";
const INPUTS: &str = "org.isokiln.inputs";
const KEY: &str = "org.isokiln.key";
const ROLE: &str = "org.isokiln.role";
const CREATED: &str = "org.isokiln.created";
const RUN: &str = "org.isokiln.run";
const PINNED: &str = "org.isokiln.pinned";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const TITLE: &str = "org.opencontainers.image.title";
/// Begins the history lines of a checkpoint; the stage's name follows.
const CREATED_BY: &str = "isokiln stage ";

/// The documents of one manifest, ready to be stored.
#[derive(Debug, Clone)]
pub struct Documents {
    /// Blobs that the manifest refers to and that are made here: config, or the empty object.
    pub blobs: Vec<Vec<u8>>,
    /// The manifest itself.
    pub manifest: Vec<u8>,
}

/// What an index entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A root file system after a stage.
    Checkpoint,
    /// Files that a stage left.
    Artifacts,
    /// The record of a checkpoint's making.
    Circumstances,
    /// A boot test's report.
    BootReport,
}

impl Role {
    const NAMES: [(&str, Self); 4] = [
        ("checkpoint", Self::Checkpoint),
        ("artifacts", Self::Artifacts),
        ("circumstances", Self::Circumstances),
        ("boot-report", Self::BootReport),
    ];

    /// Whether it belongs to a checkpoint, with which it goes.
    pub fn is_of_a_checkpoint(self) -> bool {
        matches!(self, Self::Artifacts | Self::Circumstances)
    }

    /// What documents of this artifact type are, where they belong to a checkpoint.
    fn of_type(artifact_type: &str) -> Option<Self> {
        match artifact_type {
            ARTIFACTS_TYPE => Some(Self::Artifacts),
            CIRCUMSTANCES_TYPE => Some(Self::Circumstances),
            _ => None,
        }
    }
}

/// What the index says of a manifest besides its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryNote {
    /// What it is.
    pub role: Role,
    /// Key of the stage or of the boot test.
    pub key: Digest,
    /// Pipeline that made it.
    pub pipeline: PipelineName,
    /// Stage that made it.
    pub stage: StageName,
    /// Run that made it.
    pub run: RunId,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Whether the user rolled back to it.
    pub pinned: bool,
}

/// An entry of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Digest of the manifest.
    pub manifest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
    /// What the index says of it.
    pub note: EntryNote,
}

/// JSON with keys in order, so that equal documents have equal digests.
pub fn canonical_json(document: &impl Serialize) -> Vec<u8> {
    // Maps of `serde_json::Value` are ordered; documents made here always serialise.
    serde_json::to_value(document).and_then(|value| serde_json::to_vec(&value)).unwrap_or_default()
}

/// The file `oci-layout`.
pub fn oci_layout() -> Vec<u8> {
    br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()
}

/// An index without entries.
pub fn empty_index() -> Vec<u8> {
    index_document(&[])
}

/// Documents of a checkpoint. `stages` is the chain that led to it, each with whether it added a layer.
/// They depend on nothing but the arguments: the same layers made from the same inputs are the same
/// manifest on every machine.
pub fn checkpoint_documents(
    pipeline: &PipelineName,
    stages: &[(StageName, bool)],
    inputs: &StageInputs,
    layers: &[LayerBlob],
    epoch: i64,
) -> Result<Documents, oci_spec::OciSpecError> {
    let created = timestamp(epoch);
    let history = stages
        .iter()
        .map(|(stage, has_layer)| {
            HistoryBuilder::default()
                .created(&*created)
                .created_by(format!("{CREATED_BY}{stage}"))
                .empty_layer(!has_layer)
                .build()
        })
        .collect::<Result<Vec<_>, _>>()?;
    let config = ImageConfigurationBuilder::default()
        .architecture(Arch::Amd64)
        .os(Os::Linux)
        .created(&*created)
        .config(
            ConfigBuilder::default()
                .cmd(["/bin/sh".to_owned()])
                .env(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()])
                .build()?,
        )
        .rootfs(
            RootFsBuilder::default()
                .typ("layers")
                .diff_ids(layers.iter().map(|layer| layer.diff_id.to_string()).collect::<Vec<_>>())
                .build()?,
        )
        .history(history)
        .build()?;
    let config = canonical_json(&config);
    let stage = stages.last().map(|(stage, _)| stage.to_string()).unwrap_or_default();
    let annotations = HashMap::from([
        (PIPELINE.to_owned(), pipeline.to_string()),
        (STAGE.to_owned(), stage),
        (INPUTS.to_owned(), serde_json::to_string(inputs).unwrap_or_default()),
    ]);
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(descriptor(MediaType::ImageConfig, &Digest::of(&config), config.len() as u64))
        .layers(
            layers
                .iter()
                .map(|layer| {
                    descriptor(MediaType::from(layer.media_type.as_str()), &layer.digest, layer.size)
                })
                .collect::<Vec<_>>(),
        )
        .annotations(annotations)
        .build()?;
    Ok(Documents { blobs: vec![config], manifest: canonical_json(&manifest) })
}

/// Documents of files that belong to a manifest (OCI 1.1 "artifact" with a `subject`).
pub fn attachment_documents(
    artifact_type: &str,
    files: &[Artifact],
    subject: Option<(Digest, u64)>,
) -> Result<Documents, oci_spec::OciSpecError> {
    let empty = b"{}".to_vec();
    let mut manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .artifact_type(MediaType::from(artifact_type))
        .config(descriptor(MediaType::EmptyJSON, &Digest::of(&empty), empty.len() as u64))
        .layers(
            files
                .iter()
                .map(|file| {
                    let mut layer =
                        descriptor(MediaType::from("application/octet-stream"), &file.digest, file.size);
                    layer.set_annotations(Some(HashMap::from([(TITLE.to_owned(), file.name.clone())])));
                    layer
                })
                .collect::<Vec<_>>(),
        );
    if let Some((digest, size)) = subject {
        manifest = manifest.subject(descriptor(MediaType::ImageManifest, &digest, size));
    }
    Ok(Documents { blobs: vec![empty], manifest: canonical_json(&manifest.build()?) })
}

/// The index document for these entries. The newest checkpoint of a stage is named
/// `PIPELINE-STAGE`, so that other tools can ask for it.
pub(super) fn index_document(entries: &[Entry]) -> Vec<u8> {
    let mut named = Vec::new();
    let mut manifests: Vec<Descriptor> = Vec::new();
    for entry in entries.iter().rev() {
        let note = &entry.note;
        let mut annotations = HashMap::from([
            (
                ROLE.to_owned(),
                Role::NAMES.iter().find(|(_, r)| *r == note.role).map_or("", |(n, _)| n).to_owned(),
            ),
            (KEY.to_owned(), note.key.to_string()),
            (PIPELINE.to_owned(), note.pipeline.to_string()),
            (STAGE.to_owned(), note.stage.to_string()),
            (RUN.to_owned(), note.run.to_string()),
            (CREATED.to_owned(), timestamp(note.created)),
        ]);
        if note.pinned {
            annotations.insert(PINNED.to_owned(), "true".to_owned());
        }
        let name = format!("{}-{}", note.pipeline, note.stage);
        if note.role == Role::Checkpoint && !named.contains(&name) {
            annotations.insert(REF_NAME.to_owned(), name.clone());
            named.push(name);
        }
        let mut descriptor = descriptor(MediaType::ImageManifest, &entry.manifest, entry.size);
        descriptor.set_annotations(Some(annotations));
        manifests.push(descriptor);
    }
    manifests.reverse();
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests)
        .build();
    index.map(|index| canonical_json(&index)).unwrap_or_default()
}

/// Whether a name stays in the folder that it is put into.
pub fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

impl Entry {
    /// The index document for these entries.
    pub fn write_index(entries: &[Self]) -> Vec<u8> {
        index_document(entries)
    }

    /// Reads an index document. Manifests that other tools have added are not isokiln's and are left out.
    pub fn read_index(document: &[u8]) -> Result<Vec<Self>, String> {
        let index = oci_spec::image::ImageIndex::from_reader(document).map_err(|error| error.to_string())?;
        index
            .manifests()
            .iter()
            .filter_map(|descriptor| Self::from_descriptor(descriptor).transpose())
            .collect()
    }

    fn from_descriptor(descriptor: &Descriptor) -> Result<Option<Self>, String> {
        let empty = HashMap::new();
        let annotations = descriptor.annotations().as_ref().unwrap_or(&empty);
        let Some(role) = annotations.get(ROLE) else { return Ok(None) };
        let role = Role::NAMES
            .iter()
            .find(|(name, _)| name == role)
            .map(|(_, role)| *role)
            .ok_or_else(|| format!("unknown role {role:?}"))?;
        let text =
            |key: &str| annotations.get(key).cloned().ok_or_else(|| format!("annotation {key} is missing"));
        let created: jiff::Timestamp =
            text(CREATED)?.parse().map_err(|error: jiff::Error| error.to_string())?;
        Ok(Some(Self {
            manifest: parse_digest(descriptor)?,
            size: descriptor.size(),
            note: EntryNote {
                role,
                key: text(KEY)?.parse().map_err(|error| format!("{KEY}: {error}"))?,
                pipeline: text(PIPELINE)?.parse().map_err(|error| format!("{PIPELINE}: {error}"))?,
                stage: text(STAGE)?.parse().map_err(|error| format!("{STAGE}: {error}"))?,
                run: text(RUN)?.parse().map_err(|error| format!("{RUN}: {error}"))?,
                created: created.as_second(),
                pinned: annotations.contains_key(PINNED),
            },
        }))
    }

    /// The entry of a manifest that no index names any more, as far as its document tells; `known` are the
    /// checkpoints recovered so far, because what a stage left names the checkpoint that it belongs to.
    /// Neither pins nor boot reports are recovered.
    pub fn recovered(manifest: Digest, document: &[u8], created: i64, known: &[Self]) -> Option<Self> {
        let size = document.len() as u64;
        let document = ImageManifest::from_reader(document).ok()?;
        let artifact_type = document.artifact_type().as_ref().map(ToString::to_string);
        if let Some(role) = artifact_type.as_deref().and_then(Role::of_type) {
            let subject = parse_digest(document.subject().as_ref()?).ok()?;
            let owner = known.iter().find(|entry| entry.manifest == subject)?;
            return Some(Self { manifest, size, note: EntryNote { role, ..owner.note.clone() } });
        }
        let annotations = document.annotations().as_ref()?;
        let inputs: StageInputs = serde_json::from_str(annotations.get(INPUTS)?).ok()?;
        let note = EntryNote {
            role: Role::Checkpoint,
            key: inputs.key(),
            pipeline: annotations.get(PIPELINE)?.parse().ok()?,
            stage: annotations.get(STAGE)?.parse().ok()?,
            run: "recovered".parse().ok()?,
            created,
            pinned: false,
        };
        Some(Self { manifest, size, note })
    }

    /// The checkpoint that this entry's manifest and config documents describe.
    pub fn checkpoint(&self, manifest: &[u8], config: &[u8]) -> Result<Checkpoint, String> {
        let document = ImageManifest::from_reader(manifest).map_err(|error| error.to_string())?;
        let config =
            oci_spec::image::ImageConfiguration::from_reader(config).map_err(|error| error.to_string())?;
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != document.layers().len() {
            return Err("manifest and config disagree about the number of layers".to_owned());
        }
        let layers = document
            .layers()
            .iter()
            .zip(diff_ids)
            .map(|(layer, diff_id)| {
                Ok(LayerBlob {
                    diff_id: DiffId(diff_id.parse().map_err(|error| format!("{error}"))?),
                    digest: parse_digest(layer)?,
                    size: layer.size(),
                    media_type: layer.media_type().to_string(),
                })
            })
            .collect::<Result<Vec<_>, String>>()?;
        let inputs = document
            .annotations()
            .as_ref()
            .and_then(|annotations| annotations.get(INPUTS))
            .ok_or_else(|| format!("annotation {INPUTS} is missing"))?;
        let history = config.history().iter().flatten();
        let chain = history
            .filter_map(|step| step.created_by().as_deref()?.strip_prefix(CREATED_BY)?.parse().ok())
            .collect();
        Ok(Checkpoint {
            manifest: self.manifest,
            pipeline: self.note.pipeline.clone(),
            stage: self.note.stage.clone(),
            chain,
            inputs: serde_json::from_str(inputs).map_err(|error| error.to_string())?,
            layers,
            created: self.note.created,
            run: self.note.run.clone(),
            pinned: self.note.pinned,
        })
    }

    /// The files that this entry's manifest document lists.
    pub fn files(manifest: &[u8]) -> Result<Vec<Artifact>, String> {
        let document = ImageManifest::from_reader(manifest).map_err(|error| error.to_string())?;
        document
            .layers()
            .iter()
            .map(|layer| {
                let title =
                    layer.annotations().as_ref().and_then(|annotations| annotations.get(TITLE)).cloned();
                let name = title.unwrap_or_default();
                if !is_file_name(&name) {
                    return Err(format!("{name:?} is no name of a file"));
                }
                Ok(Artifact { name, digest: parse_digest(layer)?, size: layer.size() })
            })
            .collect()
    }

    /// Every blob that a manifest document refers to, with its size; the subject is not among them.
    pub fn references(manifest: &[u8]) -> Result<Vec<(Digest, u64)>, String> {
        let document = ImageManifest::from_reader(manifest).map_err(|error| error.to_string())?;
        std::iter::once(document.config())
            .chain(document.layers())
            .map(|descriptor| Ok((parse_digest(descriptor)?, descriptor.size())))
            .collect()
    }
}

fn descriptor(media_type: MediaType, digest: &Digest, size: u64) -> Descriptor {
    let mut descriptor = Descriptor::new(media_type, size, oci_digest(digest));
    descriptor.set_annotations(None);
    descriptor
}

fn oci_digest(digest: &Digest) -> oci_spec::image::Digest {
    let parsed: Result<Sha256Digest, _> = digest.hex().parse();
    parsed.map_or_else(|_| unreachable!("64 hexadecimal digits"), oci_spec::image::Digest::from)
}

fn parse_digest(descriptor: &Descriptor) -> Result<Digest, String> {
    descriptor.digest().to_string().parse().map_err(|error| format!("{error}"))
}

fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
