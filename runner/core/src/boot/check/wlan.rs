//! `wlan`: every WLAN driver module that the ISO ships loads and finds the firmware that the ISO's packages brought for
//! it, and of `mac80211_hwsim`'s simulated radios one joins the other with WPA2 through NetworkManager.

use std::collections::BTreeMap;

use super::{Answer, Finding, Judgement, values};
use crate::boot::verdict::Verdict;

pub(super) const SCRIPT: &str = include_str!("../../../../../qemu/probe/wlan.sh");

/// Radios that the script asks `mac80211_hwsim` for.
const RADIOS: usize = 2;
/// Names of firmware files that are listed of a module.
const FILES: usize = 4;

/// What is known of a module.
#[derive(Debug, Default)]
struct Module<'a> {
    /// What modprobe said; `None` where it loads.
    broken: Option<&'a str>,
    /// Whether nobody has signed it and Secure Boot keeps it out, as it should.
    refused: bool,
    /// How many firmware files it names.
    firmware: usize,
    /// Those that are not there.
    missing: Vec<&'a str>,
    /// Those of them that a package of the ISO has brought.
    lost: Vec<&'a str>,
}

pub(super) fn judge(answer: &Answer) -> Judgement {
    let modules = modules(answer);
    let evidence = evidence(&modules, answer);
    let settled = |verdict: Verdict, summary: String| {
        Judgement::Settled(Finding { verdict, summary, evidence: evidence.clone(), cause: None })
    };
    let kernel = values(answer, "kernel").join("");
    if modules.is_empty() {
        return settled(Verdict::Fail, format!("the ISO ships no WLAN module for its kernel {kernel}"));
    }
    let named = |wanted: &dyn Fn(&Module<'_>) -> bool| -> Vec<&str> {
        modules.iter().filter(|(_, module)| wanted(module)).map(|(name, _)| *name).collect()
    };
    let broken = named(&|module| module.broken.is_some());
    if !broken.is_empty() {
        let (some, all) = (broken.len(), modules.len());
        let summary = format!("{some} of {all} WLAN modules do not load: {}", broken.join(", "));
        return settled(Verdict::Fail, summary);
    }
    let lost = named(&|module| !module.lost.is_empty());
    if !lost.is_empty() {
        let files: usize = modules.values().map(|module| module.lost.len()).sum();
        let summary = format!(
            "{files} firmware files that the ISO's packages brought are gone, for {}",
            lost.join(", ")
        );
        return settled(Verdict::Fail, summary);
    }
    let refused = named(&|module| module.refused);
    let mut loaded = format!("{} WLAN modules load", modules.len() - refused.len());
    if !refused.is_empty() {
        loaded += &format!(" (not {}: unsigned, under Secure Boot)", refused.join(", "));
    }
    if let Some(error) = values(answer, "hwsim-error").first() {
        return settled(Verdict::Fail, format!("{loaded}, but not the simulated radio: {error}"));
    }
    if let Some(joined) = values(answer, "joined").first() {
        let (device, address) = joined.split_once(' ').unwrap_or((joined, ""));
        return if address.is_empty() {
            let summary = format!("{loaded}, but {device} got no address from the simulated access point");
            Judgement::NotYet(Finding::fail(summary, evidence))
        } else {
            settled(Verdict::Pass, format!("{loaded}, {device} joined with WPA2 and got {address}"))
        };
    }
    if let Some(reason) = values(answer, "untested").first() {
        return settled(Verdict::Inconclusive, format!("{loaded}, but joining was not tested: {reason}"));
    }
    let summary = match values(answer, "unjoined").first() {
        Some(why) => format!("{loaded}, but NetworkManager does not join the simulated access point: {why}"),
        None => {
            let devices = values(answer, "device");
            let wifi = devices.iter().filter(|device| device.split(':').nth(1) == Some("wifi")).count();
            format!("{loaded}, but {wifi} of {RADIOS} simulated radios are Wi-Fi devices of NetworkManager")
        }
    };
    Judgement::NotYet(Finding::fail(summary, evidence))
}

fn modules(answer: &Answer) -> BTreeMap<&str, Module<'_>> {
    let mut modules: BTreeMap<&str, Module<'_>> = BTreeMap::new();
    for name in values(answer, "loaded") {
        modules.entry(name).or_default();
    }
    for line in values(answer, "broken") {
        let (name, why) = line.split_once(": ").unwrap_or((line, ""));
        modules.entry(name).or_default().broken = Some(why);
    }
    for name in values(answer, "unsigned") {
        modules.entry(name).or_default().refused = true;
    }
    for line in values(answer, "firmware") {
        let mut words = line.splitn(3, ' ');
        let (Some(name), Some(state), Some(file)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Some(module) = modules.get_mut(name) else { continue };
        module.firmware += 1;
        if state != "present" {
            module.missing.push(file);
        }
        if state == "lost" {
            module.lost.push(file);
        }
    }
    modules
}

/// A line for each module, the worst first, and what else was said.
fn evidence(modules: &BTreeMap<&str, Module<'_>>, answer: &Answer) -> Vec<String> {
    let width = modules.keys().map(|name| name.len()).max().unwrap_or(0);
    let mut rows: Vec<_> = modules.iter().collect();
    rows.sort_by_key(|(name, module)| (module.broken.is_none(), module.lost.is_empty(), **name));
    let table = rows.into_iter().map(|(name, module)| format!("{name:width$}  {}", module.words()));
    let said = answer.output.lines().filter(|line| {
        let key = line.split(' ').next().unwrap_or_default();
        !["loaded", "broken", "unsigned", "firmware"].contains(&key)
    });
    table.chain(said.map(str::to_owned)).collect()
}

impl Module<'_> {
    /// Its line of the table.
    fn words(&self) -> String {
        let loads = match self.broken {
            Some(why) => format!("does not load: {why}"),
            None if self.refused => "is not signed, and Secure Boot keeps it out".to_owned(),
            None => "loads".to_owned(),
        };
        let there = self.firmware - self.missing.len();
        let listed = |files: &[&str]| {
            let more = files.len().saturating_sub(FILES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}{more}", files.iter().take(FILES).copied().collect::<Vec<_>>().join(", "))
        };
        match (self.firmware, self.missing.len()) {
            (0, _) => loads,
            (all, 0) => format!("{loads}; firmware {all} of {all}"),
            (all, _) if !self.lost.is_empty() => {
                format!("{loads}; firmware {there} of {all}, gone: {}", listed(&self.lost))
            }
            (all, _) => format!("{loads}; firmware {there} of {all}, missing: {}", listed(&self.missing)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(output: &str) -> Judgement {
        judge(&Answer { status: 0, output: output.into() })
    }

    fn settled(output: &str) -> Finding {
        match judged(output) {
            Judgement::Settled(finding) => finding,
            Judgement::NotYet(finding) => panic!("not settled: {finding:?}"),
        }
    }

    const JOINED: &str = "hwsim loaded\ndevice wlan0:wifi:unmanaged\ndevice wlan1:wifi:disconnected\n\
                          joined wlan1 10.77.0.2/24\n";

    #[test]
    fn all_loaded_and_joined_with_an_address_passes() {
        let finding = settled(&format!("loaded iwlwifi\nloaded ath9k\n{JOINED}"));
        assert_eq!(finding.verdict, Verdict::Pass);
        assert_eq!(finding.summary, "2 WLAN modules load, wlan1 joined with WPA2 and got 10.77.0.2/24");
    }

    #[test]
    fn one_broken_module_fails_by_name() {
        let finding = settled(&format!("loaded iwlwifi\nbroken ath9k: invalid module format\n{JOINED}"));
        assert_eq!(finding.verdict, Verdict::Fail);
        assert_eq!(finding.summary, "1 of 2 WLAN modules do not load: ath9k");
        assert_eq!(finding.evidence[0], "ath9k    does not load: invalid module format");
    }

    #[test]
    fn an_unsigned_module_that_secure_boot_keeps_out_is_told_and_no_failure() {
        let finding = settled(&format!("loaded iwlwifi\nunsigned wl\n{JOINED}"));
        assert_eq!(finding.verdict, Verdict::Pass);
        assert!(
            finding
                .summary
                .starts_with("1 WLAN modules load (not wl: unsigned, under Secure Boot), wlan1 joined"),
            "{}",
            finding.summary
        );
        assert_eq!(finding.evidence[1], "wl       is not signed, and Secure Boot keeps it out");
    }

    #[test]
    fn firmware_that_a_package_brought_must_be_there_and_other_is_listed() {
        let present = "loaded ath9k\nloaded iwlwifi\nfirmware iwlwifi present a.ucode\nfirmware iwlwifi missing b.ucode\n";
        let finding = settled(&format!("{present}{JOINED}"));
        assert_eq!(finding.verdict, Verdict::Pass);
        assert_eq!(finding.evidence[1], "iwlwifi  loads; firmware 1 of 2, missing: b.ucode");
        let finding = settled(&format!("{present}firmware iwlwifi lost c.ucode\n{JOINED}"));
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(finding.summary.starts_with("1 firmware files") && finding.summary.ends_with("for iwlwifi"));
        assert_eq!(finding.evidence[0], "iwlwifi  loads; firmware 1 of 3, gone: c.ucode");
    }

    #[test]
    fn no_modules_is_a_failure_and_radios_and_joining_are_waited_for() {
        assert_eq!(settled(JOINED).verdict, Verdict::Fail);
        assert_eq!(settled("loaded a\nhwsim-error no\n").verdict, Verdict::Fail);
        for output in [
            "loaded a\nhwsim loaded\n",
            "loaded a\nhwsim loaded\nunjoined Error: Connection activation failed\n",
            "loaded a\nhwsim loaded\njoined wlan1 \n",
        ] {
            assert!(matches!(judged(output), Judgement::NotYet(f) if f.verdict == Verdict::Fail), "{output}");
        }
    }

    #[test]
    fn what_cannot_be_tried_is_not_passed() {
        let finding = settled("loaded a\nhwsim loaded\nuntested there is no wpa_supplicant\n");
        assert_eq!(finding.verdict, Verdict::Inconclusive);
    }
}
