//! isokiln: builds Linux live ISOs in sealed containers and proves that they boot.

mod args;
mod boots;
mod commands;
mod consent;
mod diagnostics;
mod grid;
mod output;
mod reporter;
mod signals;
mod summary;
mod terminal;
mod view;
mod words;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::main()
}
