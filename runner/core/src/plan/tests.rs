//! Keys and plans.

use std::collections::BTreeMap;

use super::*;
use crate::archive::{ArchiveState, ArchiveSuite};
use crate::boot::CheckCatalog;
use crate::image::LayerBlob;
use crate::kind::{Kind, KindCatalog};
use crate::pipeline::Vocabulary;

fn kinds() -> KindCatalog {
    let declare = |name: &str, text: &str| {
        let name: crate::names::KindName = name.parse().unwrap();
        (name.clone(), Kind::parse(name, text, Digest::of(text)).unwrap())
    };
    KindCatalog(
        [
            declare("bootstrap", "summary = \"s\"\nrootfs = \"new\"\narchive = true\n"),
            declare("script", "summary = \"s\"\n[options.run]\ntype = \"string\"\nhelp = \"h\"\n"),
            declare("files", "summary = \"s\"\n[options.source]\ntype = \"path\"\nhelp = \"h\"\n"),
        ]
        .into(),
    )
}

fn context() -> BuildContext {
    BuildContext {
        kinds: kinds(),
        library: Digest::of("library"),
        builder: "sha256:builder".into(),
        archive: ArchiveState(vec![ArchiveSuite {
            uri: "http://mirror.example.org/debian".into(),
            suite: "trixie".into(),
            components: vec!["main".into()],
            digest: Digest::of("inrelease"),
            date: 1,
        }]),
        epoch: 1,
        files: BTreeMap::from([("overlay".to_owned(), Digest::of("files"))]),
        environment: BTreeMap::new(),
    }
}

fn pipeline(second: &str) -> Pipeline {
    let text = format!(
        "name = \"demo\"\n[system]\ndistribution = \"debian\"\nsuite = \"trixie\"\n\
         [[stage]]\nname = \"base\"\nuses = \"bootstrap\"\n\
         [[stage]]\nname = \"second\"\n{second}\n\
         [[stage]]\nname = \"third\"\nrun = \"true\"\n"
    );
    Pipeline::parse(&text, Vocabulary { kinds: &kinds(), profiles: &[], checks: &CheckCatalog::default() })
        .unwrap()
}

/// Checkpoints of a build whose stage N has the layers 1..=N.
#[derive(Default)]
struct Shelf(Vec<(Digest, Checkpoint)>);

impl Shelf {
    fn after_building(pipeline: &Pipeline, context: &BuildContext) -> Self {
        let mut shelf = Self::default();
        let mut layers = Vec::new();
        for stage in &pipeline.stages {
            let parent: Vec<DiffId> = layers.iter().map(|layer: &LayerBlob| layer.diff_id).collect();
            let inputs = stage_inputs(pipeline, stage, &parent, context);
            let digest = Digest::of(stage.name.as_str());
            layers.push(LayerBlob { diff_id: DiffId(digest), digest, size: 1, media_type: "x".into() });
            let checkpoint = Checkpoint {
                manifest: digest,
                pipeline: pipeline.name.clone(),
                stage: stage.name.clone(),
                chain: vec![stage.name.clone()],
                inputs: inputs.clone(),
                layers: layers.clone(),
                created: 0,
                run: "r1".parse().unwrap(),
                pinned: false,
            };
            shelf.0.push((inputs.key(), checkpoint));
        }
        shelf
    }
}

impl Checkpoints for Shelf {
    fn pinned(&self, _: &Pipeline, stage: &StageName) -> Option<Checkpoint> {
        self.0.iter().map(|(_, c)| c).find(|c| c.stage == *stage && c.pinned).cloned()
    }
    fn by_key(&self, key: Digest) -> Option<Checkpoint> {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, checkpoint)| checkpoint.clone())
    }
    fn newest(&self, _: &Pipeline, stage: &StageName) -> Option<Checkpoint> {
        self.0.iter().map(|(_, checkpoint)| checkpoint).find(|c| c.stage == *stage).cloned()
    }
}

/// `H` for hit, `M` for miss, `-` for after its parent.
fn shape(plan: &Plan) -> String {
    plan.stages
        .iter()
        .map(|stage| match stage.step {
            Step::Hit(_) => 'H',
            Step::Miss { .. } => 'M',
            Step::AfterParent(_) => '-',
        })
        .collect()
}

const SCRIPT: &str = "run = \"echo one\"";

#[test]
fn nothing_built_then_everything_then_nothing_changed() {
    let pipeline = pipeline(SCRIPT);
    assert_eq!(shape(&plan(&pipeline, &context(), &Shelf::default())), "M--");
    let shelf = Shelf::after_building(&pipeline, &context());
    assert_eq!(shape(&plan(&pipeline, &context(), &shelf)), "HHH");
}

#[test]
fn a_changed_option_is_a_miss_from_there_and_is_named() {
    let shelf = Shelf::after_building(&pipeline(SCRIPT), &context());
    let plan = plan(&pipeline("run = \"echo two\""), &context(), &shelf);
    assert_eq!(shape(&plan), "HM-");
    let Step::Miss { changes: Some(changes), .. } = &plan.stages[1].step else { panic!() };
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].input, "option run");
    assert_eq!(changes[0].before.as_deref(), Some("\"echo one\""));
    assert_eq!(changes[0].now.as_deref(), Some("\"echo two\""));
}

#[test]
fn a_parent_rebuilt_to_the_same_layers_cuts_off() {
    let pipeline = pipeline(SCRIPT);
    let shelf = Shelf::after_building(&pipeline, &context());
    let mut newer = context();
    newer.archive.0[0].digest = Digest::of("a newer inrelease");
    assert_eq!(shape(&plan(&pipeline, &newer, &shelf)), "M--");
    // The base has been rebuilt and its layer is as before: its children are hits.
    let base = shelf.by_key(shelf.0[0].0).unwrap();
    let step = decide(&pipeline, &pipeline.stages[1], &base.diff_ids(), &newer, &shelf);
    assert!(matches!(step, Step::Hit(_)));
}

#[test]
fn each_input_changes_the_key_and_bears_its_name() {
    let pipeline = pipeline("uses = \"files\"\nwith = { source = \"overlay\" }\nenvironment = [\"TOKEN\"]");
    let stage = &pipeline.stages[1];
    let before = stage_inputs(&pipeline, stage, &[], &context());
    let change = |edit: &dyn Fn(&mut BuildContext)| {
        let mut context = context();
        edit(&mut context);
        let changes = stage_inputs(&pipeline, stage, &[], &context).changes_since(&before);
        assert_eq!(changes.len(), 1, "{changes:?}");
        changes[0].input.clone()
    };
    assert_eq!(change(&|c| c.library = Digest::of("x")), "stage library");
    assert_eq!(change(&|c| c.builder = "other".into()), "builder image");
    assert_eq!(change(&|c| c.epoch = 2), "source date epoch");
    assert_eq!(
        change(&|c| {
            c.files.insert("overlay".into(), Digest::of("x"));
        }),
        "file overlay"
    );
    assert_eq!(change(&|c| drop(c.environment.insert("TOKEN".into(), "secret".into()))), "environment TOKEN");
    let renamed = Stage { name: "other".parse().unwrap(), ..stage.clone() };
    let changes = stage_inputs(&pipeline, &renamed, &[], &context()).changes_since(&before);
    assert_eq!(changes[0].input, "stage");
    let parent =
        stage_inputs(&pipeline, stage, &[DiffId(Digest::of("x"))], &context()).changes_since(&before);
    assert_eq!(parent[0].input, "parent");
}

#[test]
fn secrets_do_not_stand_in_the_inputs() {
    let pipeline = pipeline("run = \"true\"\nenvironment = [\"TOKEN\"]");
    let mut context = context();
    context.environment.insert("TOKEN".into(), "hunter2".into());
    let inputs = stage_inputs(&pipeline, &pipeline.stages[1], &[], &context);
    assert!(!serde_json::to_string(&inputs).unwrap().contains("hunter2"));
}

#[test]
fn a_stage_that_does_not_use_the_archive_ignores_its_state() {
    let pipeline = pipeline(SCRIPT);
    let inputs = stage_inputs(&pipeline, &pipeline.stages[1], &[], &context());
    assert!(!inputs.0.keys().any(|name| name.starts_with("archive")));
    let base = stage_inputs(&pipeline, &pipeline.stages[0], &[], &context());
    assert!(base.0.contains_key("archive http://mirror.example.org/debian trixie"));
}

#[test]
fn whatever_a_script_is_told_is_in_its_key() {
    let mut pipeline = pipeline(SCRIPT);
    pipeline.system.components = vec!["main".into(), "contrib".into()];
    for stage in &pipeline.stages {
        let inputs = stage_inputs(&pipeline, stage, &[], &context());
        for (variable, value) in stage_variables(&pipeline, stage) {
            assert_eq!(inputs.0[&variable.to_lowercase()], value, "{} of {}", variable, stage.name);
        }
    }
    let variables: Vec<_> = stage_variables(&pipeline, &pipeline.stages[0]).into_keys().collect();
    assert_eq!(variables, ["ARCHITECTURE", "COMPONENTS", "DISTRIBUTION", "STAGE", "SUITE"]);
}

#[test]
fn a_pinned_checkpoint_counts_whatever_its_key() {
    let pipeline = pipeline(SCRIPT);
    let mut shelf = Shelf::after_building(&pipeline, &context());
    shelf.0[0].1.pinned = true;
    let mut newer = context();
    newer.archive.0[0].digest = Digest::of("a newer inrelease");
    assert_eq!(shape(&plan(&pipeline, &newer, &shelf)), "HHH");
}
