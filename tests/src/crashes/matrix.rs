//! What came of all instants, as a table of faults and phases.

use std::collections::BTreeMap;
use std::fmt;

use super::bench::Instant;
use super::fault::Fault;
use super::phase::Phase;

/// Counts for each fault in each phase.
#[derive(Debug, Default)]
pub struct Matrix {
    cells: BTreeMap<(Fault, Phase), Cell>,
    problems: Vec<String>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Cell {
    struck: usize,
    survived: usize,
    /// Instants whose build had ended before it could be struck.
    late: usize,
    /// Most stages of one build that had begun and had to run again.
    again: usize,
    /// Checkpoints that were told of and were gone.
    lost: usize,
}

impl Cell {
    fn add(&mut self, other: Self) {
        self.struck += other.struck;
        self.survived += other.survived;
        self.late += other.late;
        self.again = self.again.max(other.again);
        self.lost += other.lost;
    }
}

impl Matrix {
    /// Counts an instant.
    pub fn add(&mut self, instant: &Instant) {
        let is_well = instant.problems.is_empty();
        let cell = Cell {
            struck: usize::from(instant.struck),
            survived: usize::from(instant.struck && is_well),
            late: usize::from(!instant.struck && is_well),
            again: instant.again,
            lost: instant.lost,
        };
        self.cells.entry((instant.case.fault, instant.case.phase)).or_default().add(cell);
        let name = format!("{} at {} (seed {})", instant.case.fault, instant.case.phase, instant.case.seed);
        self.problems.extend(instant.problems.iter().map(|problem| format!("{name}: {problem}")));
    }

    /// Whether nothing was lost, nothing was left, and everything went on as it must.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many instants were struck.
    pub fn struck(&self) -> usize {
        self.cells.values().map(|cell| cell.struck).sum()
    }
}

/// In Markdown.
impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults =
            Fault::ALL.into_iter().filter(|fault| self.cells.keys().any(|(other, _)| other == fault));
        let faults: Vec<_> = faults.collect();
        let heads: Vec<_> = Phase::ALL.iter().map(Phase::to_string).collect();
        writeln!(f, "| Fault | {} | instants | survived | most stages again | lost |", heads.join(" | "))?;
        writeln!(f, "| --- |{} ---: | ---: | ---: | ---: |", " ---: |".repeat(heads.len()))?;
        let mut reasons = Vec::new();
        let mut all = Cell::default();
        for fault in &faults {
            write!(f, "| {fault} |")?;
            let mut row = Cell::default();
            for phase in Phase::ALL {
                let cell = self.cells.get(&(*fault, phase)).copied().unwrap_or_default();
                row.add(cell);
                match fault.why_not(phase) {
                    Some(reason) => {
                        let place = reasons.iter().position(|other| *other == reason);
                        let place = place.unwrap_or_else(|| {
                            reasons.push(reason);
                            reasons.len() - 1
                        });
                        write!(f, " [{}] |", place + 1)?;
                    }
                    None if cell.struck + cell.late == 0 => write!(f, " |")?,
                    None => write!(f, " {}/{} |", cell.survived, cell.struck)?,
                }
            }
            writeln!(f, " {} | {} | {} | {} |", row.struck, row.survived, row.again, row.lost)?;
            all.add(row);
        }
        let gap = " |".repeat(Phase::ALL.len());
        writeln!(f, "| all |{gap} {} | {} | {} | {} |", all.struck, all.survived, all.again, all.lost)?;
        writeln!(f, "\nEach cell is instants survived of instants struck.")?;
        for (place, reason) in reasons.iter().enumerate() {
            writeln!(f, "[{}] {reason}.", place + 1)?;
        }
        if all.late > 0 {
            writeln!(f, "{} builds had ended before they could be struck; they are not counted.", all.late)?;
        }
        for problem in &self.problems {
            writeln!(f, "\n{problem}")?;
        }
        Ok(())
    }
}
