//! Makes the corpus of the boot test and tests isokiln with it: see tests/corpus/README.md.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use isokiln_tests::corpus::{Case, Row, Score, Table, Workshop, markdown, run};
use isokiln_tests::repository;

/// Boot ISOs whose behaviour is known, and see whether isokiln judges them rightly.
#[derive(Parser)]
struct Arguments {
    /// Only these cases
    cases: Vec<String>,
    /// Only the quick subset
    #[arg(long)]
    quick: bool,
    /// Make what is missing, and boot nothing
    #[arg(long)]
    make: bool,
    /// How often each is booted; every time it must be judged rightly
    #[arg(long, default_value_t = 1, value_name = "N")]
    times: usize,
    /// Where the ISOs are kept
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Where the table of results is written; results.md in the folder if not given
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

fn main() -> Result<ExitCode, String> {
    let arguments = Arguments::parse();
    let table = Table::of_repository().map_err(|error| error.to_string())?;
    if let Some(unknown) = arguments.cases.iter().find(|name| table.case(name).is_none()) {
        return Err(format!("there is no case {unknown:?} in tests/corpus/cases.toml"));
    }
    let wanted = |case: &&Case| arguments.cases.is_empty() || arguments.cases.contains(&case.name);
    let cases: Vec<_> = table.cases.iter().filter(wanted).collect();
    let folder = arguments.folder.unwrap_or_else(|| repository().join("target/corpus"));
    let workshop =
        Workshop::open(&table, &folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    if arguments.make {
        for case in cases {
            println!("{}", workshop.iso(case)?.display());
        }
        workshop.tidy()?;
        return Ok(ExitCode::SUCCESS);
    }

    let report = arguments.report.unwrap_or_else(|| folder.join("results.md"));
    let mut rows: Vec<Row> = Vec::new();
    let mut score = Score::default();
    for case in cases {
        let boots = case.boots.iter().filter(|expected| expected.quick || !arguments.quick);
        for expected in boots.flat_map(|expected| std::iter::repeat_n(expected, arguments.times)) {
            let row = run(&workshop, case, expected);
            println!("{row}");
            score.add(&row.judged.differences);
            rows.push(row);
            fs::write(&report, markdown(&rows, &score))
                .map_err(|error| format!("{}: {error}", report.display()))?;
        }
    }
    println!("{score}");
    workshop.tidy()?;
    Ok(if score.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
