//! Testing ISOs of the corpus with isokiln.

use std::fs;
use std::path::Path;

use super::judge::{Difference, Judged, Score, judge};
use super::make::Workshop;
use super::table::{Case, Expected};
use crate::isokiln::Finished;

/// One boot, tested and judged.
#[derive(Debug, Clone)]
pub struct Row {
    /// Name of the case.
    pub case: String,
    /// Machine, and options where there are some.
    pub machine: String,
    /// What was said of it.
    pub judged: Judged,
    /// Most bytes of memory that isokiln used.
    pub memory: u64,
    /// What there was to see where it was not judged as expected.
    pub seen: String,
}

/// Makes the case's ISO if need be and tests it once as the table says.
pub fn run(workshop: &Workshop<'_>, case: &Case, expected: &Expected) -> Row {
    let (judged, memory, seen) = match workshop.iso(case) {
        Ok(iso) => {
            let tested = test(workshop, &iso, expected);
            let judged = of_command(expected, &tested);
            let seen = if judged.differences.is_empty() { String::new() } else { evidence(&tested) };
            (judged, tested.peak_memory, seen)
        }
        Err(reason) => (broken(format!("the ISO cannot be made: {reason}")), 0, String::new()),
    };
    let machine = [std::slice::from_ref(&expected.profile), &expected.options].concat().join(" ");
    Row { case: case.name.clone(), machine, judged, memory, seen }
}

fn test(workshop: &Workshop<'_>, iso: &Path, expected: &Expected) -> Finished {
    let mut command = workshop.isokiln();
    command.arg("test").arg(iso).arg("--dir").arg(workshop.isokiln_folder()).arg("--format=json");
    command.args(["--profile", &expected.profile]).args(&expected.options);
    for (check, _) in expected.all_checks() {
        command.args(["--check", check]);
    }
    Finished::of(&mut command)
}

/// Standard output is events and last, if the boot was tested at all, the reports.
fn of_command(expected: &Expected, tested: &Finished) -> Judged {
    let last = tested.stdout.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let last: serde_json::Value = last.unwrap_or_default();
    match last["reports"].get(0) {
        Some(report) => judge(expected, report, silence(tested)),
        None => broken(tested.to_string()),
    }
}

/// What there is to see of a boot that was not judged as expected: its folder may be gone when somebody asks.
fn evidence(tested: &Finished) -> String {
    const LINES: usize = 60;
    let ended = tested.events().into_iter().find(|event| event["event"] == "boot-finished");
    let Some(folder) = ended.as_ref().and_then(|event| event["folder"].as_str()) else {
        return tested.to_string();
    };
    let mut text = format!("{}\n", ended.as_ref().map_or(String::new(), |event| event["report"].to_string()));
    for name in ["serial.log", "firmware.log", "qmp.jsonl"] {
        let said = fs::read(Path::new(folder).join(name)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let lines: Vec<_> = said.lines().collect();
        text.push_str(&format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(LINES)..].join("\n")));
    }
    text
}

/// How long the machine had said and shown nothing new when its report was written: evidence is written as it comes.
fn silence(tested: &Finished) -> Option<f64> {
    let ended = tested.events().into_iter().find(|event| event["event"] == "boot-finished")?;
    let folder = Path::new(ended["folder"].as_str()?);
    let written = |path: &Path| fs::metadata(path).ok()?.modified().ok();
    let pictures = fs::read_dir(folder.join("screens")).ok()?.flatten().map(|entry| entry.path());
    let consoles = ["serial.log", "firmware.log"].map(|name| folder.join(name));
    let last = pictures.chain(consoles).filter_map(|path| written(&path)).max()?;
    let report = written(&folder.join("report.json"))?;
    Some(report.duration_since(last).ok()?.as_secs_f64())
}

fn broken(reason: String) -> Judged {
    let none = || "-".to_owned();
    Judged {
        verdict: none(),
        reached: none(),
        cause: none(),
        seconds: 0.0,
        after: None,
        differences: vec![Difference::Verdict(reason)],
    }
}

/// The rows as a table in Markdown, and the score under it.
pub fn markdown(rows: &[Row], score: &Score) -> String {
    let mut text = String::from(
        "| Case | Machine | Verdict | Phase | Cause | Seconds | After | Memory, MiB | As expected |\n\
         | --- | --- | --- | --- | --- | ---: | ---: | ---: | --- |\n",
    );
    for row in rows {
        text.push_str(&line(row));
        text.push('\n');
    }
    text.push_str(&format!("\n{score}\n"));
    for row in rows.iter().filter(|row| !row.seen.is_empty()) {
        text.push_str(&format!("\n## {} on {}\n\n{}", row.case, row.machine, row.seen));
    }
    text
}

fn line(row: &Row) -> String {
    let Row { case, machine, judged, memory, .. } = row;
    let Judged { verdict, reached, cause, seconds, after, differences } = judged;
    let how: Vec<_> = differences.iter().map(Difference::to_string).collect();
    let how = if how.is_empty() { "yes".to_owned() } else { how.join("; ") };
    // A whole error message must not break the table.
    let how = how.replace('\n', " ").replace('|', "\\|");
    let memory = memory >> 20;
    let after = after.map_or_else(String::new, |after| format!("{after:.0}"));
    format!(
        "| {case} | {machine} | {verdict} | {reached} | {cause} | {seconds:.0} | {after} | {memory} | {how} |"
    )
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&line(self))
    }
}
