//! Running a stage until it ends well, or until policy has nothing more to try.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use isokiln_core::event::Event;
use isokiln_core::pipeline::{Gate, Hook, Stage};
use isokiln_core::plan::BuildContext;
use isokiln_core::review::{Action, Attempt, Decision, Facts, Judgement, Proposal, Recover, decide};
use serde_json::Value;

use super::build::Build;
use super::consult::Reviewed;
use super::error::RunError;
use super::failure::Failure;
use super::reviewer::Case;
use super::stage::{Ended, Failed, Ran};
use crate::sandbox::{Cancel, CancelWatch, Tree, cancelled, cancelled_now};

/// Option of a stage that lists the packages which the image can go without.
const OPTIONAL: &str = "optional";

/// Asks a person.
#[async_trait]
pub trait Consent: Send + Sync {
    /// Whether to do what the question says; `None` where nobody can be asked.
    async fn ask(&self, question: &str) -> Option<bool>;
}

/// How a stage is run once more.
#[derive(Debug, Clone, Default)]
pub(super) struct Again {
    /// Without what was fetched before.
    pub(super) fresh_cache: bool,
    /// Without these optional packages.
    pub(super) without: BTreeSet<String>,
}

impl Again {
    /// The stage as it is run. Its key is that of a stage without the packages that are left out, so that nobody takes
    /// its checkpoint for one of the whole.
    fn of(&self, stage: &Stage) -> Stage {
        let mut used = stage.clone();
        if let Some(optional) = used.options.values.get_mut(OPTIONAL).and_then(Value::as_array_mut) {
            optional.retain(|package| package.as_str().is_none_or(|name| !self.without.contains(name)));
        }
        used
    }
}

impl Build {
    /// Runs a stage; where it fails, has its log reviewed, and does what policy allows until it ends well.
    pub(super) async fn run_until_well(
        &self,
        stage: &Stage,
        changed: Vec<String>,
        trees: Vec<Tree>,
        mut stop: CancelWatch,
    ) -> Result<Ran, RunError> {
        let mut again = self.recovery.again(&stage.name);
        loop {
            self.stop_before_a_stage(&stop)?;
            let attempt = self.recovery.begin(&stage.name);
            let description = self.kind(stage).map(|kind| kind.summary.clone()).unwrap_or_default();
            let before = unless_now(&stop, self.hook(stage, Hook::PrePhase, &[description])).await?;
            if let Some(problem) = before {
                return Err(self.failed_hook(stage, problem));
            }
            self.stop_before_a_stage(&stop)?;
            let context = self.context();
            let used = again.of(stage);
            let running = self.run_stage(
                &used,
                attempt,
                changed.clone(),
                trees.clone(),
                again.fresh_cache,
                &context,
                stop.clone(),
            );
            let (failed, reviewed, hook) = match running.await? {
                Ended::Well(ran) => match unless_now(&stop, self.review_good(stage, attempt, *ran)).await? {
                    Ok(ran) => {
                        let words = ["success".to_owned(), format!("{:.0}", ran.seconds)];
                        let after = self.hook(stage, Hook::PostPhase, &words);
                        if let Some(problem) = unless_now(&stop, after).await? {
                            return Err(self.failed_hook(stage, problem));
                        }
                        if let Some((signature, action)) = self.recovery.end_cure(&stage.name) {
                            self.reviewer.learn(&signature, action, true);
                        }
                        return Ok(ran);
                    }
                    Err((failed, reviewed)) => {
                        let hook = unless_now(&stop, self.hooks_after(stage, &failed)).await?;
                        (failed, Some(reviewed), hook)
                    }
                },
                Ended::Failed(failed) => {
                    let hook = unless_now(&stop, self.hooks_after(stage, &failed)).await?;
                    let reviewed = unless_now(&stop, self.review_failed(stage, attempt, &failed)).await?;
                    (failed, reviewed, hook)
                }
            };
            let Some(reviewed) = reviewed else {
                return Err(self.failed(stage, failed.failure, failed.tail));
            };
            let signature = reviewed.diagnosis.signature.clone();
            if let Some((before, action)) = self.recovery.end_cure(&stage.name) {
                self.reviewer.learn(&before, action, before != signature);
            }
            let case = self.case(stage, attempt, failed.facts.clone());
            let choice = match hook {
                Some(problem) => Err(problem),
                None => self.choose(stage, &failed, &reviewed, &again, &context, &mut stop).await,
            };
            match choice {
                Ok((action, pause)) => {
                    self.reviewer.decided(&case, &reviewed, "recovering", Some(action));
                    let tried = Attempt { stage: stage.name.clone(), signature: signature.clone(), action };
                    self.recovery.begin_cure(tried);
                    self.events.emit(Event::StageRecovering {
                        stage: stage.name.clone(),
                        action,
                        attempt,
                        cause: failed.failure.cause.clone(),
                        pause_seconds: pause.as_secs_f64(),
                    });
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = cancelled(&mut stop) => return Err(RunError::Cancelled),
                    }
                    self.apply(stage, action, &reviewed, &mut again, &context).await?;
                }
                Err(reason) => {
                    self.reviewer.decided(&case, &reviewed, &reason, None);
                    return Err(self.failed(stage, told(failed.failure, &reviewed), failed.tail));
                }
            }
        }
    }

    /// Nothing begins once the user wishes to stop, however gently.
    fn stop_before_a_stage(&self, stop: &CancelWatch) -> Result<(), RunError> {
        match (*self.cancel.borrow()).max(*stop.borrow()) {
            Cancel::No => Ok(()),
            Cancel::Gracefully | Cancel::Now => Err(RunError::Cancelled),
        }
    }

    fn case(&self, stage: &Stage, attempt: usize, facts: Facts) -> Case {
        Case { stage: stage.name.clone(), attempt, log: self.run.log_path(&stage.name), facts }
    }

    /// Has the log of a stage that ended well reviewed: while the build goes on, unless the gate blocks.
    async fn review_good(
        &self,
        stage: &Stage,
        attempt: usize,
        ran: Ran,
    ) -> Result<Result<Ran, (Failed, Reviewed)>, RunError> {
        if !self.reviewer.looks_at(true) {
            return Ok(Ok(ran));
        }
        let case = self.case(stage, attempt, Facts::of_status(Some(0)));
        if self.reviewer.gate == Gate::Advise {
            self.reviews.begin(self.reviewer.clone(), stage.clone(), case);
            return Ok(Ok(ran));
        }
        let log = case.log.clone();
        let reviewed =
            self.reviewer.review(stage, case.clone()).await.map_err(|source| self.run.error(&log, source))?;
        if !reviewed.blocks {
            let outcome = if reviewed.is_suspect() { "told" } else { "passed" };
            self.reviewer.decided(&case, &reviewed, outcome, None);
            return Ok(Ok(ran));
        }
        let dismissed = ran.dismissed.await;
        dismissed.map_err(RunError::sandbox(format!("stage {} could not be ended", stage.name)))?;
        let cause = reviewed.review.cause.as_ref().map_or(&reviewed.review.explanation, |cause| &cause.text);
        let failure = Failure {
            cause: format!("its review says that its result is damaged: {cause}"),
            hint: Some("gate = \"advise\" in the pipeline file lets it pass".to_owned()),
        };
        let facts = Facts::of_status(Some(0));
        let failed = Failed { failure, facts, status: 0, tail: Vec::new(), seconds: ran.seconds };
        Ok(Err((failed, reviewed)))
    }

    async fn review_failed(
        &self,
        stage: &Stage,
        attempt: usize,
        failed: &Failed,
    ) -> Result<Option<Reviewed>, RunError> {
        if !self.reviewer.looks_at(false) {
            return Ok(None);
        }
        let case = self.case(stage, attempt, failed.facts.clone());
        let log = case.log.clone();
        let reviewed = self.reviewer.review(stage, case).await;
        reviewed.map(Some).map_err(|source| self.run.error(&log, source))
    }

    /// What is done about a failed stage, and after which pause; or why nothing is.
    async fn choose(
        &self,
        stage: &Stage,
        failed: &Failed,
        reviewed: &Reviewed,
        again: &Again,
        context: &BuildContext,
        stop: &mut CancelWatch,
    ) -> Result<(Action, Duration), String> {
        if *stop.borrow() != Cancel::No {
            return Err("the build is being stopped".to_owned());
        }
        if self.options.recover == Recover::Off {
            return Err("recovery is off".to_owned());
        }
        let possible = self.possible(stage, reviewed, again, context);
        let proposal = Proposal {
            stage: &stage.name,
            signature: &reviewed.diagnosis.signature,
            action: reviewed.review.action,
            allowed: &reviewed.allowed,
            possible: &possible,
        };
        match decide(&proposal, &self.recovery.tried()) {
            Decision::Stop { reason } => Err(reason),
            Decision::Act { action, pause } if self.options.recover == Recover::Ask => {
                let question = format!(
                    "stage {} failed: {}. Do this about it: {action}?",
                    stage.name, failed.failure.cause
                );
                let asking = async {
                    // One question at a time: an answer must not be taken for another's.
                    let _turn = self.asking.lock().await;
                    self.events.emit(Event::Asking { stage: stage.name.clone(), question: question.clone() });
                    self.consent.ask(&question).await
                };
                let answer = tokio::select! {
                    answer = asking => answer,
                    () = cancelled(stop) => Some(false),
                };
                match answer {
                    Some(true) => Ok((action, pause)),
                    Some(false) => Err("the user refused".to_owned()),
                    None => Err("nobody was there to be asked".to_owned()),
                }
            }
            Decision::Act { action, pause } => Ok((action, pause)),
        }
    }

    /// What can be done at all here and now.
    fn possible(
        &self,
        stage: &Stage,
        reviewed: &Reviewed,
        again: &Again,
        context: &BuildContext,
    ) -> Vec<Action> {
        let can = |action: &Action| match action {
            Action::Stop | Action::None => false,
            Action::Retry => true,
            Action::Rollback => !self.rests_on_a_pin(stage),
            Action::CleanCache => !again.fresh_cache,
            Action::RefreshMirror => {
                stage.archive && self.mirrors.has_next(&context.archive, reviewed.cause())
            }
            Action::SkipOptional => self.culprit(stage, reviewed, again).is_some(),
        };
        Action::ALL.into_iter().filter(can).collect()
    }

    /// Whether the user rolled back to the checkpoint that a stage starts from: it is to stay.
    fn rests_on_a_pin(&self, stage: &Stage) -> bool {
        let pipeline = &self.project.pipeline.name;
        let newest = stage.parent.as_ref().map(|parent| self.store.newest(Some(pipeline), parent));
        newest.and_then(Result::ok).flatten().is_some_and(|checkpoint| checkpoint.pinned)
    }

    /// The optional package that a stage failed of.
    fn culprit(&self, stage: &Stage, reviewed: &Reviewed, again: &Again) -> Option<String> {
        let named = reviewed.diagnosis.package.as_deref()?;
        let name = named.split([':', '=', '/']).next().unwrap_or(named);
        let optional = stage.options.values.get(OPTIONAL)?.as_array()?;
        let is_optional = optional.iter().any(|package| package.as_str() == Some(name));
        (is_optional && !again.without.contains(name)).then(|| name.to_owned())
    }

    async fn apply(
        &self,
        stage: &Stage,
        action: Action,
        reviewed: &Reviewed,
        again: &mut Again,
        context: &Arc<BuildContext>,
    ) -> Result<(), RunError> {
        match action {
            Action::Stop | Action::None | Action::Retry => {}
            Action::CleanCache => again.fresh_cache = true,
            Action::RefreshMirror => {
                // Another stage may have turned to the next mirror meanwhile.
                if Arc::ptr_eq(context, &self.context()) {
                    match self.mirrors.next(&context.archive, reviewed.cause()).await {
                        Some(archive) => self.set_archive(archive),
                        None => self.events.warn("no other mirror answers; the same one is tried again"),
                    }
                }
            }
            Action::Rollback => {
                // Without a stage before it, an empty tree is all that there is to go back to.
                if let Some(parent) = &stage.parent {
                    self.recovery.distrust(parent);
                    return Err(RunError::RolledBack { stage: stage.name.clone(), to: parent.clone() });
                }
            }
            Action::SkipOptional => {
                if let Some(package) = self.culprit(stage, reviewed, again) {
                    let text = format!("optional package {package} is left out; the image goes without it");
                    self.events.emit(Event::Warning { stage: Some(stage.name.clone()), text });
                    again.without.insert(package);
                    self.recovery.keep(&stage.name, again);
                }
            }
        }
        Ok(())
    }
}

/// Does something unless the user wishes to stop now.
async fn unless_now<T>(
    stop: &CancelWatch,
    work: impl Future<Output = Result<T, RunError>>,
) -> Result<T, RunError> {
    let mut stop = stop.clone();
    tokio::select! {
        done = work => done,
        () = cancelled_now(&mut stop) => Err(RunError::Cancelled),
    }
}

/// What is told of a failed stage: its own words, and what the review knows to do where those only name the log.
fn told(failure: Failure, reviewed: &Reviewed) -> Failure {
    let names_the_log = |hint: &str| hint.starts_with("see ") || hint.starts_with("the stage's log");
    let knows_more = failure.hint.as_deref().is_some_and(|hint| !names_the_log(hint));
    let is_from_log = reviewed.review.cause.as_ref().is_some_and(|cause| cause.line.is_some());
    let hint = match reviewed.review.verdict {
        Judgement::Known if is_from_log && !knows_more && !reviewed.review.cure.is_empty() => {
            Some(reviewed.review.cure.clone())
        }
        _ => failure.hint,
    };
    Failure { cause: failure.cause, hint }
}
