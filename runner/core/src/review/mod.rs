//! Reviewing what a stage printed: from a log to a cause, from a cause to what may be done about it.

mod action;
mod excerpt;

pub use action::{Action, UnknownAction};
pub use excerpt::{Excerpt, ExcerptLine, MOST_BYTES};
