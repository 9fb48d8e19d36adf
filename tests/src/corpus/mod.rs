//! The corpus of the boot test: ISOs whose behaviour is known, and whether isokiln judges them rightly.
//!
//! `tests/corpus/cases.toml` is the table; see `tests/corpus/README.md`.

mod judge;
mod make;
mod run;
mod table;

pub use judge::{Difference, Judged, Score, judge};
pub use make::Workshop;
pub use run::{Row, markdown, run};
pub use table::{Case, Expected, Source, Table, TableError, Verdict};
