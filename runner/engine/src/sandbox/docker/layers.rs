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

#[async_trait]
impl Sandbox for DockerSandbox {
    async fn prepare(&self) -> Result<Option<String>, SandboxError> {
        self.porter().await?;
        let first = !self.remarked.swap(true, Ordering::Relaxed);
        Ok(self.rights().await?.remark().filter(|_| first))
    }

    async fn restore(&self, layer: DiffId) -> Result<Inflow, SandboxError> {
        self.carry_in(&["restore", &layer.0.hex()], "unpacking a layer").await
    }

    async fn settle(&self, layer: DiffId) -> Result<(), SandboxError> {
        self.carry(&["settle", &layer.0.hex()], "naming a layer").await.map(drop)
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
        run: &RunId,
        layers: &BTreeSet<DiffId>,
    ) -> Result<BTreeSet<DiffId>, SandboxError> {
        let names: Vec<_> = layers.iter().map(|layer| layer.0.hex()).collect();
        // Boot tests and shells take no lock: they are at work for as long as they have a container.
        let at_work = sweep::runs(&self.engine).await?.join(" ");
        let mut arguments = vec!["keep-only", run.as_str(), &at_work];
        arguments.extend(names.iter().map(String::as_str));
        let listed = self.carry(&arguments, "tidying the volume").await?;
        Ok(listed
            .lines()
            .filter_map(|hex| format!("sha256:{hex}").parse::<Digest>().ok())
            .map(DiffId)
            .collect())
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
