//! [`Sandbox`] kept with containers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use isokiln_core::digest::{DiffId, Digest};
use isokiln_core::names::{RunId, StageName};
use tokio::sync::mpsc;

use super::super::{CancelWatch, Inflow, Outflow, Sandbox, SandboxError, StageEnd, StageOutput, StageSpec};
use super::{DockerSandbox, sweep};

/// Name of the folder in the volume in which a stage works.
pub(super) fn work(run: &RunId, stage: &StageName) -> String {
    format!("{run}.{stage}")
}

impl DockerSandbox {
    /// A command of the porter about everything but what is kept.
    async fn carry_kept(
        &self,
        command: &str,
        runs: &BTreeSet<RunId>,
        layers: Option<&BTreeSet<DiffId>>,
        what: &str,
    ) -> Result<String, SandboxError> {
        // A shell looks at what a run left that is over; it is at work for as long as it has a container.
        let at_work = sweep::runs(&self.engine).await?;
        let runs: Vec<_> = runs.iter().map(RunId::as_str).chain(at_work.iter().map(String::as_str)).collect();
        let runs = runs.join(" ");
        let names: Vec<_> = layers.into_iter().flatten().map(|layer| layer.0.hex()).collect();
        let mut arguments = vec![command, &runs, if layers.is_some() { "these" } else { "every" }];
        arguments.extend(names.iter().map(String::as_str));
        self.carry(&arguments, what).await
    }
}

#[async_trait]
impl Sandbox for DockerSandbox {
    async fn prepare(&self) -> Result<Option<String>, SandboxError> {
        self.porter().await?;
        let first = !self.remarked.swap(true, Ordering::Relaxed);
        Ok(self.rights().await?.remark().filter(|_| first))
    }

    async fn restore(&self, layer: DiffId) -> Result<Inflow, SandboxError> {
        self.carry_in(&["restore", self.run.as_str(), &layer.0.hex()], "unpacking a layer").await
    }

    async fn settle(&self, layer: DiffId) -> Result<(), SandboxError> {
        self.carry(&["settle", self.run.as_str(), &layer.0.hex()], "naming a layer").await.map(drop)
    }

    async fn run_stage(
        &self,
        spec: StageSpec,
        output: mpsc::Sender<StageOutput>,
        cancel: CancelWatch,
    ) -> Result<StageEnd, SandboxError> {
        self.run_stage_container(spec, output, cancel).await
    }

    async fn prepare_layer(&self, spec: StageSpec, cancel: CancelWatch) -> Result<(), SandboxError> {
        self.run_layer_container(spec, cancel).await
    }

    async fn capture(&self, run: &RunId, stage: &StageName) -> Result<Outflow, SandboxError> {
        self.carry_out(&["capture", &work(run, stage)], "capturing what the stage changed").await
    }

    async fn adopt(&self, run: &RunId, stage: &StageName, layer: DiffId) -> Result<(), SandboxError> {
        self.carry(&["adopt", &work(run, stage), &layer.0.hex()], "keeping a layer").await.map(drop)
    }

    async fn artifact(&self, run: &RunId, stage: &StageName, name: &str) -> Result<Outflow, SandboxError> {
        self.carry_out(&["artifact", &work(run, stage), name], "fetching an artifact").await
    }

    async fn keep_only(
        &self,
        runs: &BTreeSet<RunId>,
        layers: Option<&BTreeSet<DiffId>>,
    ) -> Result<BTreeSet<DiffId>, SandboxError> {
        let listed = self.carry_kept("keep-only", runs, layers, "tidying the volume").await?;
        Ok(listed
            .lines()
            .filter_map(|hex| format!("sha256:{hex}").parse::<Digest>().ok())
            .map(DiffId)
            .collect())
    }

    async fn weigh(&self, runs: &BTreeSet<RunId>, layers: &BTreeSet<DiffId>) -> Result<u64, SandboxError> {
        let what = "weighing what is not needed";
        let printed = self.carry_kept("weigh", runs, Some(layers), what).await?;
        let wrong = || SandboxError::Helper { what: what.to_owned(), reason: printed.clone() };
        printed.trim().parse().map_err(|_| wrong())
    }

    async fn free_space(&self) -> Result<(u64, u64), SandboxError> {
        let printed = self.carry(&["space"], "measuring free space").await?;
        let mut numbers = printed.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(bytes)), Some(Ok(inodes))) => Ok((bytes, inodes)),
            _ => Err(SandboxError::Helper { what: "measuring free space".to_owned(), reason: printed }),
        }
    }

    async fn again(&self) -> Result<Arc<dyn Sandbox>, SandboxError> {
        // Asks the engine, so it answers too.
        self.destroy().await?;
        Ok(Arc::new(DockerSandbox::again(self)))
    }

    async fn destroy(&self) -> Result<(), SandboxError> {
        sweep::remove_own(&self.engine).await
    }
}
