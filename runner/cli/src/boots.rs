//! Boot tests on the terminal: lines while machines run, several at a time, and tables when all have ended.

use std::path::Path;

use isokiln_core::boot::{BootReport, Comparison, Verdict};
use isokiln_core::event::Event;
use isokiln_core::names::ProfileName;

use crate::summary;
use crate::words::{bad, calm, faint, fair, good, line, quoted, short};

/// Lines of evidence that are shown of a check.
const EVIDENCE: usize = 12;

/// What is known of a run's boot tests so far.
#[derive(Debug, Default)]
pub(crate) struct Boots {
    /// Machines that run: what they are called, and how far they are.
    running: Vec<(String, String)>,
    /// The accelerator and the reason for it that were told last.
    told: Option<(String, String)>,
    reports: Vec<BootReport>,
    comparisons: Vec<Comparison>,
}

impl Boots {
    /// Lines for an event; `several` says whether the run tests more than one ISO, so that each must be named.
    pub(crate) fn lines(&mut self, event: &Event, several: bool) -> Vec<String> {
        let who = |iso: &str, profile: &ProfileName| {
            if several { format!("{iso} {profile}") } else { profile.to_string() }
        };
        match event {
            Event::BootStarted { iso, profile, accelerator, reason } => {
                let who = who(iso, profile);
                self.running.push((who.clone(), "power on".to_owned()));
                let now = Some((accelerator.clone(), reason.clone()));
                let reason = if self.told == now { String::new() } else { format!(" ({reason})") };
                self.told = now;
                vec![line("Boot", &calm(), &format!("{who} under {accelerator}{reason}"))]
            }
            Event::BootPhase { iso, profile, machine, phase, seconds } => {
                let who = who(iso, profile);
                if let Some(running) = self.running.iter_mut().find(|running| running.0 == who) {
                    running.1 = phase.to_string();
                }
                let which = if *machine == 1 { String::new() } else { format!(" of machine {machine}") };
                vec![line("reached", &faint(), &format!("{who}  {phase} after {seconds:.1}s{which}"))]
            }
            Event::BootCheck { iso, profile, result } => {
                let text = format!("{}  {}: {}", who(iso, profile), result.check, result.summary);
                let mut lines = vec![line(&result.verdict.to_string(), &style_of(result.verdict), &text)];
                if result.verdict != Verdict::Pass {
                    let evidence = result.evidence.iter().take(EVIDENCE);
                    lines.extend(evidence.map(|line| quoted(line)));
                }
                lines
            }
            Event::BootFinished { report, folder, cached } => {
                let who = who(&report.iso, &report.profile);
                self.running.retain(|machine| machine.0 != who);
                self.reports.push((**report).clone());
                finished(report, &who, folder, *cached)
            }
            Event::BootCompared { comparison } => {
                self.comparisons.push((**comparison).clone());
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// What goes on, for the line that lives; `None` where no machine runs.
    pub(crate) fn current(&self) -> Option<String> {
        let machines: Vec<_> = self.running.iter().map(|(who, words)| format!("{who}: {words}")).collect();
        (!machines.is_empty()).then(|| machines.join(", "))
    }

    /// The tables when all is over, at most `width` characters wide where words allow.
    pub(crate) fn tables(&mut self, width: usize) -> Vec<String> {
        // Machines that ran at the same time ended in any order.
        self.reports.sort_by(|a, b| a.profile.cmp(&b.profile));
        let mut isos: Vec<&str> = Vec::new();
        for report in &self.reports {
            if !isos.contains(&report.iso.as_str()) {
                isos.push(&report.iso);
            }
        }
        let mut lines = Vec::new();
        for iso in &isos {
            let reports: Vec<_> = self.reports.iter().filter(|report| report.iso == **iso).collect();
            lines.extend(summary::of_iso((isos.len() > 1).then_some(*iso), &reports, width));
        }
        lines
            .extend(self.comparisons.iter().flat_map(|comparison| summary::of_comparison(comparison, width)));
        lines.dedup_by(|line, before| line.is_empty() && before.is_empty());
        lines
    }
}

fn finished(report: &BootReport, who: &str, folder: &str, cached: bool) -> Vec<String> {
    let notes = report.notes.iter().map(|note| line("note", &faint(), &format!("{who}  {note}")));
    let mut lines: Vec<_> = notes.collect();
    if cached {
        lines.push(line("PASS", &good(), &format!("{who}  the same ISO has passed this test before")));
    } else if report.verdict != Verdict::Pass {
        lines.push(line("evidence", &faint(), &short(folder)));
        let script = Path::new(folder).join("reproduce.sh");
        // A machine that was never started cannot be started again.
        if script.exists() {
            let script = short(&script.display().to_string());
            lines.push(line("by hand", &faint(), &format!("sh {script} ISO")));
        }
    }
    lines
}

pub(crate) fn style_of(verdict: Verdict) -> console::Style {
    match verdict {
        Verdict::Pass => good(),
        Verdict::Fail => bad(),
        Verdict::Inconclusive | Verdict::Infra => fair(),
    }
}

#[cfg(test)]
mod tests {
    use isokiln_core::boot::Phase;

    use super::*;

    fn started(iso: &str, profile: &str, reason: &str) -> Event {
        Event::BootStarted {
            iso: iso.to_owned(),
            profile: profile.parse().unwrap(),
            accelerator: "tcg".to_owned(),
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn the_accelerator_is_explained_once_and_again_where_it_is_another() {
        let mut boots = Boots::default();
        let mut say = |profile, reason| boots.lines(&started("a.iso", profile, reason), false).concat();
        assert_eq!(say("bios-cd", "no /dev/kvm"), "        Boot bios-cd under tcg (no /dev/kvm)");
        assert_eq!(say("bios-usb", "no /dev/kvm"), "        Boot bios-usb under tcg");
        assert_eq!(say("uefi-cd", "OVMF stops"), "        Boot uefi-cd under tcg (OVMF stops)");
    }

    #[test]
    fn machines_that_run_at_the_same_time_are_told_apart() {
        let mut boots = Boots::default();
        for profile in ["bios-cd", "uefi-cd"] {
            boots.lines(&started("a.iso", profile, ""), true);
        }
        let (iso, profile) = ("a.iso".to_owned(), "uefi-cd".parse().unwrap());
        let event = Event::BootPhase { iso, profile, machine: 2, phase: Phase::Kernel, seconds: 4.25 };
        assert_eq!(boots.lines(&event, true), ["     reached a.iso uefi-cd  kernel after 4.2s of machine 2"]);
        assert_eq!(boots.current().unwrap(), "a.iso bios-cd: power on, a.iso uefi-cd: kernel");
        for profile in ["bios-cd", "uefi-cd"] {
            let report = summary::tests::report("a.iso", profile, &[("boot", Verdict::Pass)]);
            boots.lines(
                &Event::BootFinished { report: Box::new(report), folder: String::new(), cached: false },
                true,
            );
        }
        assert_eq!(boots.current(), None);
    }

    #[test]
    fn notes_are_told_and_evidence_is_named_unless_all_is_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        let tell = |verdict| {
            let mut report = summary::tests::report("a.iso", "bios-cd", &[("boot", verdict)]);
            report.notes = vec!["pressed Enter at the boot menu".to_owned()];
            let event = Event::BootFinished { report: Box::new(report), folder: path.clone(), cached: false };
            Boots::default().lines(&event, false)
        };
        let note = "        note bios-cd  pressed Enter at the boot menu".to_owned();
        assert_eq!(tell(Verdict::Pass), std::slice::from_ref(&note));
        assert_eq!(tell(Verdict::Fail), [note.clone(), format!("    evidence {path}")]);
        std::fs::write(folder.path().join("reproduce.sh"), "").unwrap();
        let by_hand = format!("     by hand sh {path}/reproduce.sh ISO");
        assert_eq!(tell(Verdict::Inconclusive), [note, format!("    evidence {path}"), by_hand]);
    }

    #[test]
    fn what_a_guest_says_does_not_command_the_terminal() {
        let evil = "\u{1b}]0;x\u{7}\u{1b}[2Jevil\u{8}";
        let mut report = summary::tests::report(evil, "bios-cd", &[(evil, Verdict::Fail)]);
        report.checks[0].summary = evil.to_owned();
        report.checks[0].evidence = vec![evil.to_owned()];
        report.notes = vec![evil.to_owned()];
        let (iso, profile) = (evil.to_owned(), report.profile.clone());
        let checked = Event::BootCheck { iso, profile, result: report.checks[0].clone() };
        let ended = Event::BootFinished { report: Box::new(report), folder: String::new(), cached: false };
        let mut boots = Boots::default();
        let mut lines = boots.lines(&checked, true);
        assert_eq!(lines.len(), 2);
        lines.extend(boots.lines(&ended, true));
        lines.extend(boots.tables(80));
        assert!(lines.iter().any(|line| line.contains("evil")));
        assert!(!lines.concat().contains(char::is_control), "{lines:?}");
    }

    #[test]
    fn columns_do_not_depend_on_which_machine_ended_first() {
        let tables = |profiles: [&str; 2]| {
            let mut boots = Boots::default();
            for profile in profiles {
                let report = summary::tests::report("a.iso", profile, &[("boot", Verdict::Fail)]);
                boots.lines(
                    &Event::BootFinished { report: Box::new(report), folder: String::new(), cached: false },
                    false,
                );
            }
            boots.tables(80)
        };
        assert_eq!(tables(["bios-cd", "uefi-cd"]), tables(["uefi-cd", "bios-cd"]));
    }
}
