//! isokiln: builds Linux live ISOs in sealed containers and proves that they boot.

mod args;
mod commands;
mod diagnostics;
mod output;
mod reporter;
mod signals;
mod words;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::main()
}
