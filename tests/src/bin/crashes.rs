//! Strikes builds at random instants, and tells what was lost: see CONTRIBUTING.md.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use isokiln_tests::crashes::{Bench, Fault, Matrix, Phase, cases};

/// Strike builds at random instants, and see whether anything is lost or left.
#[derive(Parser)]
struct Arguments {
    /// Only these faults
    faults: Vec<Fault>,
    /// How many instants
    #[arg(long, default_value_t = 200)]
    instants: usize,
    /// Where chance begins: the same seed strikes at the same instants, as far as the machine is as quick
    #[arg(long, default_value_t = 6)]
    seed: u64,
    /// Only this phase, by its name
    #[arg(long)]
    phase: Option<String>,
    /// Where the table is written as well, after each instant
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

fn main() -> Result<ExitCode, String> {
    let arguments = Arguments::parse();
    let faults = if arguments.faults.is_empty() { Fault::ALL.to_vec() } else { arguments.faults };
    let phases: Vec<_> = Phase::ALL
        .into_iter()
        .filter(|phase| arguments.phase.as_ref().is_none_or(|name| *name == phase.to_string()))
        .collect();
    let mut cases = cases(arguments.instants, arguments.seed, &faults, &phases);
    let bench = Bench::open();
    let mut matrix = Matrix::default();
    // Instants that came too late are made up for, a few times.
    for round in 0..3 {
        let mut late = Vec::new();
        for mut case in cases {
            case.seed = case.seed.wrapping_add(round);
            let instant = bench.strike(case);
            println!("{instant}");
            if !instant.struck {
                late.push(case);
            }
            matrix.add(&instant);
            if let Some(report) = &arguments.report {
                fs::write(report, matrix.to_string())
                    .map_err(|error| format!("{}: {error}", report.display()))?;
            }
        }
        cases = late;
    }
    println!("\n{matrix}");
    Ok(if matrix.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
