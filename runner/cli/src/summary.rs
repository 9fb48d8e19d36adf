//! What boot tests came to, as tables: a column for each machine, or one for the old and one for the new ISO.

use isokiln_core::boot::{BootReport, CheckChange, Comparison, Pace, PhaseChange, SetChange, Verdict};

use crate::boots::style_of;
use crate::grid::{Cell, grid};
use crate::words::{bad, calm, faint, fair, good, line, printable};

/// What stands in a cell without anything.
const NOTHING: &str = "-";
/// Names that are listed of a set.
const NAMES: usize = 8;
/// Screens that are less alike than this are called different.
const ALIKE: f64 = 0.95;

/// The boot tests of an ISO, which is named where there are several: a row for each check, a column for each machine. One
/// machine on which all is well needs a line only.
pub(crate) fn of_iso(iso: Option<&str>, reports: &[&BootReport], width: usize) -> Vec<String> {
    if let [report] = reports
        && report.verdict == Verdict::Pass
    {
        let who = iso.map_or_else(String::new, |iso| format!("{iso} "));
        let facts = [
            report.reached.map(|phase| format!("reached {phase}")),
            report.channel().map(|channel| format!("probe by {channel}")),
            Some(format!("{:.1}s", report.seconds)),
        ];
        let facts: Vec<_> = facts.into_iter().flatten().collect();
        return vec![line("PASS", &good(), &format!("{who}{}: {}", report.profile, facts.join(", ")))];
    }
    let mut lines = vec![String::new()];
    lines.extend(iso.map(|iso| calm().apply_to(printable(iso)).to_string()));
    lines.extend(grid(&rows(reports), width));
    lines.push(String::new());
    lines
}

fn rows(reports: &[&BootReport]) -> Vec<Vec<Cell>> {
    let mut checks: Vec<&str> = Vec::new();
    for check in reports.iter().flat_map(|report| &report.checks) {
        if !checks.contains(&check.check.as_str()) {
            checks.push(&check.check);
        }
    }
    let row = |name: &str, cells: &mut dyn Iterator<Item = Cell>| {
        [Cell::plain(name)].into_iter().chain(cells).collect::<Vec<_>>()
    };
    let head = reports.iter().map(|report| Cell::new(report.profile.as_str(), calm()));
    let mut rows = vec![row("", &mut head.into_iter())];
    for check in checks {
        let verdict = |report: &&BootReport| {
            let found = report.checks.iter().find(|result| result.check == check);
            verdict_cell(found.map(|result| result.verdict))
        };
        rows.push(row(check, &mut reports.iter().map(verdict)));
    }
    let fact = |name: &str, fact: &dyn Fn(&BootReport) -> Option<String>| {
        let mut cells = row(
            name,
            &mut reports.iter().map(|report| Cell::plain(fact(report).unwrap_or(NOTHING.to_owned()))),
        );
        cells[0].style = faint();
        cells
    };
    rows.push(fact("reached", &|report| report.reached.map(|phase| phase.name().to_owned())));
    if reports.iter().any(|report| report.cause.is_some()) {
        rows.push(fact("cause", &|report| report.cause.map(|cause| cause.name().to_owned())));
    }
    rows.push(fact("probe", &|report| report.channel().map(|channel| channel.name().to_owned())));
    rows.push(fact("seconds", &|report| Some(format!("{:.1}", report.seconds))));
    rows
}

fn verdict_cell(verdict: Option<Verdict>) -> Cell {
    match verdict {
        Some(verdict) => Cell::new(verdict.to_string(), style_of(verdict)),
        None => Cell::plain(NOTHING),
    }
}

/// Two ISOs on one machine: what has become worse first, then times and everything else that is different.
pub(crate) fn of_comparison(comparison: &Comparison, width: usize) -> Vec<String> {
    let Comparison { profile, old, new, .. } = comparison;
    let mut lines = vec![line("Compared", &calm(), &format!("{profile}: {new} with {old}"))];
    let worse = comparison.regressions.iter();
    lines.extend(worse.map(|text| line("regression", &bad(), text)));
    if comparison.regressions.is_empty() {
        lines.push(line("no worse", &good(), "no check and no unit fails that did not before"));
    }
    let mut rows =
        vec![vec![Cell::plain(""), Cell::new(old, calm()), Cell::new(new, calm()), Cell::plain("")]];
    for CheckChange { check, old, new } in &comparison.checks {
        rows.push(vec![Cell::plain(check), verdict_cell(*old), verdict_cell(*new)]);
    }
    rows.extend(comparison.phases.iter().map(phase_row));
    if let Some([old, new]) = &comparison.kernels {
        rows.push(vec![Cell::new("kernel release", faint()), Cell::plain(old), Cell::plain(new)]);
    }
    if rows.len() > 1 {
        lines.extend(grid(&rows, width));
    }
    let sets = [
        ("failed units", &comparison.failed_units),
        ("modules", &comparison.modules),
        ("menu", &comparison.menu),
    ];
    for (name, change) in sets {
        if let Some(change) = change.as_ref().filter(|change| !change.is_empty()) {
            lines.push(line(name, &faint(), &changed(change)));
        }
    }
    if let Some(similarity) = comparison.similarity {
        let differs = if similarity < ALIKE { ": they differ" } else { "" };
        let text = format!("{:.0} % alike at the end{differs}", similarity * 100.0);
        lines.push(line("screens", &faint(), &text));
    }
    lines
}

fn phase_row(change: &PhaseChange) -> Vec<Cell> {
    let time = |seconds: Option<f64>| {
        Cell::plain(seconds.map_or(NOTHING.to_owned(), |seconds| format!("{seconds:.1}s")))
    };
    let ratio = change.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2} times"));
    let verdict = match change.pace {
        Pace::Same => Cell::new(ratio, faint()),
        Pace::Slower => Cell::new(format!("slower: {ratio}"), fair()),
        Pace::Faster => Cell::new(format!("faster: {ratio}"), good()),
    };
    vec![Cell::new(change.phase.name(), faint()), time(change.old), time(change.new), verdict]
}

fn changed(change: &SetChange) -> String {
    let part = |what: &str, names: &[String]| {
        let more = names.len().saturating_sub(NAMES);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let listed = names.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", ");
        (!names.is_empty()).then(|| format!("{} {what}: {listed}{more}", names.len()))
    };
    let parts = [part("new", &change.new), part("gone", &change.gone)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
pub(crate) mod tests;
