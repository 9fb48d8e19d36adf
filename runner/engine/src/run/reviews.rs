//! Reviews that go on while the build does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use isokiln_core::event::Event;
use isokiln_core::pipeline::Stage;
use tokio::task::JoinSet;

use super::reviewer::{Case, Reviewer};

/// Reviews of stages that ended well.
#[derive(Debug, Default)]
pub(super) struct Reviews(Mutex<JoinSet<()>>);

impl Reviews {
    /// Begins one.
    pub(super) fn begin(&self, reviewer: Arc<Reviewer>, stage: Stage, case: Case) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spawn(async move {
            match reviewer.review(&stage, case.clone()).await {
                Ok(reviewed) => {
                    let outcome = if reviewed.is_suspect() { "told" } else { "passed" };
                    reviewer.decided(&case, &reviewed, outcome, None);
                }
                Err(error) => tracing::warn!("the log of stage {} cannot be reviewed: {error}", stage.name),
            }
        });
    }

    /// Waits for them, but not longer than that: they only advise. Gives how many were broken off.
    pub(super) async fn end(self, patience: Duration) -> usize {
        let mut reviews = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let all = async { while reviews.join_next().await.is_some() {} };
        drop(tokio::time::timeout(patience, all).await);
        let left = reviews.len();
        reviews.shutdown().await;
        left
    }
}

/// What is told of reviews that were not waited for.
pub(super) fn broken_off(count: usize) -> Event {
    let text = if count == 1 {
        "one review had not ended and was not waited for".to_owned()
    } else {
        format!("{count} reviews had not ended and were not waited for")
    };
    Event::Note { stage: None, text }
}
