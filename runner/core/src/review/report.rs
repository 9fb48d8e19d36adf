//! What a review came to, as it is told and kept.

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::diagnosis::{Cause, Diagnosis, Judgement};
use super::vote::Vote;

/// What a review came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Review {
    /// What it comes to.
    pub verdict: Judgement,
    /// The line, or the fact, that says why.
    pub cause: Option<Cause>,
    /// What happened.
    pub explanation: String,
    /// What a person does next; may be empty.
    pub cure: String,
    /// What the reviewers agreed on; policy decides whether it is done.
    pub action: Action,
    /// Whether running the stage again can help; absent where nobody knows.
    pub retry_helps: Option<bool>,
    /// What the agents said, so far as it counted.
    pub votes: Vec<Vote>,
}

impl Review {
    /// The rules' review, without anybody else's.
    pub fn of(diagnosis: &Diagnosis) -> Self {
        Self {
            verdict: diagnosis.judgement,
            cause: diagnosis.cause.clone(),
            explanation: diagnosis.explanation.clone(),
            cure: diagnosis.cure.clone(),
            action: diagnosis.action(),
            retry_helps: diagnosis.retry_helps(),
            votes: Vec::new(),
        }
    }
}
