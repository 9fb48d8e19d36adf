//! What is written of a run's boot tests as a whole: `junit.xml`, and how two ISOs compare.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use isokiln_core::boot::screen::Frame;
use isokiln_core::boot::{BootReport, Comparison, MachineProfile};
use isokiln_core::junit::{BootSuite, junit};
use isokiln_core::record::RunRecord;

use super::boot_test::TestRequest;
use super::error::RunError;
use super::home::RunFolder;

/// Bytes of the serial log's end that `junit.xml` takes in.
const TAIL: u64 = 16 << 10;

/// Writes the boot tests as JUnit XML.
pub(super) fn write_junit(path: &Path, record: &RunRecord, reports: &[BootReport]) -> io::Result<()> {
    let suite = |(report, folder): (&BootReport, &String)| BootSuite {
        report: report.clone(),
        folder: folder.clone(),
        // A machine that was never started has no log.
        serial_tail: tail(&Path::new(folder).join("serial.log")).unwrap_or_default(),
    };
    let folders = record.boot_tests.iter().map(|test| &test.folder);
    // What another ISO does is no result of this one.
    let own = reports.iter().zip(folders).filter(|(report, _)| record.baseline.as_ref() != Some(&report.iso));
    fs::write(path, junit(record, &own.map(suite).collect::<Vec<_>>()))
}

fn tail(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl TestRequest {
    /// Asks the same of two ISOs: whatever machine or check one of them is to be tested with. Makes their names differ.
    pub(super) fn align(&mut self, baseline: &mut Self) {
        let missing =
            |profile: &MachineProfile| !self.profiles.iter().any(|known| known.name == profile.name);
        let profiles: Vec<_> = baseline.profiles.iter().filter(|p| missing(p)).cloned().collect();
        self.profiles.extend(profiles);
        let checks = baseline.checks.iter().filter(|check| !self.checks.contains(check));
        let checks: Vec<_> = checks.cloned().collect();
        self.checks.extend(checks);
        baseline.profiles.clone_from(&self.profiles);
        self.left_out.retain(|found| !baseline.profiles.iter().any(|profile| profile.name == found.subject));
        // The other's would be told twice, or is tested for this one's sake.
        baseline.left_out.clear();
        baseline.checks.clone_from(&self.checks);
        if baseline.name == self.name {
            baseline.name = format!("baseline-{}", self.name);
        }
    }
}

/// Compares boot tests of two ISOs in the same run, machine by machine, and writes `comparison.json`.
pub(super) fn compare(
    run: &RunFolder,
    old: &[BootReport],
    new: &[BootReport],
) -> Result<Vec<Comparison>, RunError> {
    let comparisons: Vec<_> = new
        .iter()
        .filter_map(|new| Some((old.iter().find(|old| old.profile == new.profile)?, new)))
        .map(|(old, new)| {
            let screens = last_screen(run, old).zip(last_screen(run, new));
            Comparison::of(old, new, screens.map(|(old, new)| old.similarity(&new, &[])))
        })
        .collect();
    let path = run.path().join("comparison.json");
    let json = serde_json::to_string_pretty(&comparisons).unwrap_or_default() + "\n";
    fs::write(&path, json).map_err(|source| run.error(&path, source))?;
    Ok(comparisons)
}

/// What the machine's screen showed at its end.
fn last_screen(run: &RunFolder, report: &BootReport) -> Option<Frame> {
    let folder = run.boot(&report.iso, &report.profile);
    let png = ["end.png", "failure.png"].iter().find_map(|name| fs::read(folder.join(name)).ok())?;
    Frame::from_png(&png).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_log_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial.log");
        fs::write(&path, [vec![b'a'; 40_000], b"the end".to_vec()].concat()).unwrap();
        let kept = tail(&path).unwrap();
        assert_eq!(kept.len() as u64, TAIL);
        assert!(kept.ends_with(b"the end"));
        fs::write(&path, "short").unwrap();
        assert_eq!(tail(&path).unwrap(), b"short");
    }
}
