//! Reviewing what a stage printed: from a log to a cause, from a cause to what may be done about it.

mod action;
mod diagnosis;
mod excerpt;
mod facts;
mod learnings;
mod line;
mod lines;
mod policy;
mod reduce;
mod report;
mod rule;
mod rules;
mod template;

pub use action::{Action, UnknownAction};
pub use diagnosis::{Cause, Diagnosis, Judgement, diagnose};
pub use excerpt::{Excerpt, ExcerptLine, MOST_BYTES};
pub use facts::{End, Fact, Facts, Room};
pub use learnings::{Learnings, Outcomes};
pub use line::{clean, printable};
pub use lines::Lines;
pub use policy::{Attempt, Decision, PER_BUILD, PER_STAGE, Proposal, Recover, decide};
pub use reduce::{Finding, GoodLogs, LogReading, Reducer, Templates};
pub use report::Review;
pub use rule::{Class, RetryHelps, Rule, parse_rules};
pub use rules::{Before, Meaning, RuleSet, RuleSetError};
pub use template::{template, template_id};
