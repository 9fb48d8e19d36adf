//! Tries faults on real stages, and tells how isokiln took them: see CONTRIBUTING.md.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use isokiln_tests::faults::{Bench, Fault, Row, Score, all, markdown};

/// Inject faults into real stages, and see whether isokiln gets over them or stops for the right reason.
#[derive(Parser)]
struct Arguments {
    /// Only these faults
    faults: Vec<String>,
    /// Only the few that `cargo test` tries
    #[arg(long)]
    quick: bool,
    /// Tell which faults there are, and try none
    #[arg(long)]
    list: bool,
    /// Rules to try out in place of those in the binary
    #[arg(long, value_name = "FOLDER")]
    rules: Option<PathBuf>,
    /// Also show what was said, and the logs, of faults that were not taken as they must be; twice, of all
    #[arg(long, action = clap::ArgAction::Count)]
    logs: u8,
    /// Where the table of results is written as well
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

fn main() -> Result<ExitCode, String> {
    let arguments = Arguments::parse();
    let mut faults = all();
    if let Some(unknown) =
        arguments.faults.iter().find(|name| faults.iter().all(|fault| fault.name != **name))
    {
        return Err(format!("there is no fault {unknown:?}; --list tells which there are"));
    }
    faults.retain(|fault| {
        arguments.faults.is_empty() || arguments.faults.iter().any(|name| name == fault.name)
    });
    faults.retain(|fault| fault.quick || !arguments.quick);
    if arguments.list {
        for Fault { name, what, expected, .. } in &faults {
            println!("{name}: {what} ({expected})");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let bench = Bench::open(arguments.rules)?;
    let mut rows: Vec<Row> = Vec::new();
    let mut score = Score::default();
    for fault in &faults {
        let row = bench.run(fault);
        println!("{row}");
        if arguments.logs > u8::from(row.is_good()) {
            println!("{}", row.log);
        }
        score.add(&row);
        rows.push(row);
        if let Some(report) = &arguments.report {
            fs::write(report, markdown(&rows, &score))
                .map_err(|error| format!("{}: {error}", report.display()))?;
        }
    }
    println!("{score}");
    Ok(if score.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
