//! What a stage's script is given.

use isokiln_core::image::{Setting, SettingFile};
use isokiln_core::kind::{Privilege, RootfsUse};
use isokiln_core::pipeline::Stage;
use isokiln_core::plan::{BuildContext, stage_variables};

use super::build::Build;
use super::prepare::PROXY_VARIABLES;
use crate::sandbox::{ContainerFile, StageSpec, Tree};

impl Build {
    /// What a stage's script is given, with all its files: the setting itself holds those that are text.
    pub(super) fn setting(&self, stage: &Stage, context: &BuildContext) -> (Vec<ContainerFile>, Setting) {
        let options = serde_json::to_vec(&stage.options.values).unwrap_or_default();
        let mut files = self.project.kinds.files(&stage.kind);
        files.push(ContainerFile::data("/isokiln/options.json", options));
        files.push(ContainerFile::data("/isokiln/sources.list", context.archive.sources_list()));
        files.push(ContainerFile::data("/isokiln/mirrors.sed", self.stand_ins(&context.archive)));
        let variables = stage_variables(&self.project.pipeline, stage).into_iter();
        let inputs = stage.options.inputs.iter().map(|input| {
            let path = self.project.resolve(&input.path);
            (input.option.clone(), std::path::absolute(&path).unwrap_or(path))
        });
        let kind = self.kind(stage);
        let setting = Setting {
            rootfs: kind.map_or(RootfsUse::Change, |kind| kind.rootfs),
            privilege: kind.map_or(Privilege::Chroot, |kind| kind.privilege),
            network: stage.network,
            archive: stage.archive,
            limits: stage.limits,
            epoch: context.epoch,
            variables: variables.map(|(name, value)| (name.to_owned(), value)).collect(),
            environment: stage.environment.clone(),
            files: files.iter().filter_map(as_text).collect(),
            inputs: inputs.collect(),
        };
        (files, setting)
    }

    pub(super) fn spec(
        &self,
        stage: &Stage,
        trees: Vec<Tree>,
        files: Vec<ContainerFile>,
        setting: &Setting,
        context: &BuildContext,
    ) -> StageSpec {
        let value = |name: &str| context.environment.get(name).cloned();
        with_proxies(StageSpec::of(setting, (&self.run.id, &stage.name), trees, files, value))
    }
}

/// The files of a setting, for a container.
pub(super) fn files_of(setting: &Setting) -> Vec<ContainerFile> {
    let file = |file: &SettingFile| ContainerFile {
        path: file.path.clone(),
        executable: file.executable,
        bytes: file.text.clone().into(),
    };
    setting.files.iter().map(file).collect()
}

/// Adds how this machine reaches the network.
pub(super) fn with_proxies(mut spec: StageSpec) -> StageSpec {
    for name in PROXY_VARIABLES {
        // What the pipeline passes on counts.
        if let Ok(value) = std::env::var(name) {
            spec.environment.entry(name.to_owned()).or_insert(value);
        }
    }
    spec
}

fn as_text(file: &ContainerFile) -> Option<SettingFile> {
    let text = std::str::from_utf8(&file.bytes).ok()?.to_owned();
    Some(SettingFile { path: file.path.clone(), executable: file.executable, text })
}
