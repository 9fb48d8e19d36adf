//! `wlan`: every WLAN driver module that the ISO ships loads, and `mac80211_hwsim`'s simulated radios
//! come up as Wi-Fi devices of NetworkManager.

use super::{Answer, Finding, Judgement, lines, values};

pub(super) const SCRIPT: &str = r#"
modules=/lib/modules/$(uname -r)
echo "kernel $(uname -r)"
find "$modules/kernel/drivers/net/wireless" "$modules/updates" -name '*.ko*' 2>/dev/null |
    sed 's|.*/||; s|\.ko.*||' | sort -u | while read -r module; do
    [ "$module" = mac80211_hwsim ] && continue
    if why=$(modprobe "$module" 2>&1); then
        echo "loaded $module"
    else
        echo "broken $module: $why"
    fi
done
if why=$(modprobe mac80211_hwsim radios=2 2>&1); then echo "hwsim loaded"; else echo "hwsim-error $why"; fi
for radio in /sys/class/ieee80211/*; do [ -e "$radio" ] && echo "radio ${radio##*/}"; done
nmcli --terse --fields DEVICE,TYPE,STATE device 2>&1 | sed 's/^/device /'
"#;

/// Radios that the script asks `mac80211_hwsim` for.
const RADIOS: usize = 2;

pub(super) fn judge(answer: &Answer) -> Judgement {
    let evidence = lines(answer);
    let loaded = values(answer, "loaded").len();
    let broken = values(answer, "broken");
    if loaded + broken.len() == 0 {
        let kernel = values(answer, "kernel").join("");
        let summary = format!("the ISO ships no WLAN module for its kernel {kernel}");
        return Judgement::Settled(Finding::fail(summary, evidence));
    }
    if !broken.is_empty() {
        let names: Vec<_> = broken.iter().map(|line| line.split(':').next().unwrap_or(line)).collect();
        let summary = format!(
            "{} of {} WLAN modules do not load: {}",
            names.len(),
            loaded + names.len(),
            names.join(", ")
        );
        return Judgement::Settled(Finding::fail(summary, evidence));
    }
    if let Some(error) = values(answer, "hwsim-error").first() {
        let summary = format!("{loaded} WLAN modules load, but not the simulated radio: {error}");
        return Judgement::Settled(Finding::fail(summary, evidence));
    }
    let wifi =
        values(answer, "device").iter().filter(|device| device.split(':').nth(1) == Some("wifi")).count();
    if wifi >= RADIOS {
        let summary = format!("{loaded} WLAN modules load, {wifi} simulated radios are Wi-Fi devices");
        return Judgement::Settled(Finding::pass(summary, evidence));
    }
    let summary = format!(
        "{loaded} WLAN modules load, but {wifi} of {RADIOS} simulated radios are Wi-Fi devices of NetworkManager"
    );
    Judgement::NotYet(Finding::fail(summary, evidence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Verdict;

    fn judged(output: &str) -> Judgement {
        judge(&Answer { status: 0, output: output.into() })
    }

    const RADIOS_UP: &str = "hwsim loaded\ndevice wlan0:wifi:disconnected\ndevice wlan1:wifi:disconnected\n";

    #[test]
    fn all_loaded_and_two_radios_pass() {
        let output = format!("loaded iwlwifi\nloaded ath9k\n{RADIOS_UP}");
        let Judgement::Settled(finding) = judged(&output) else { panic!() };
        assert_eq!(finding.verdict, Verdict::Pass);
        assert_eq!(finding.summary, "2 WLAN modules load, 2 simulated radios are Wi-Fi devices");
    }

    #[test]
    fn one_broken_module_fails_by_name() {
        let output = format!("loaded iwlwifi\nbroken ath9k: invalid module format\n{RADIOS_UP}");
        let Judgement::Settled(finding) = judged(&output) else { panic!() };
        assert_eq!(finding.verdict, Verdict::Fail);
        assert_eq!(finding.summary, "1 of 2 WLAN modules do not load: ath9k");
    }

    #[test]
    fn no_modules_is_a_failure_and_missing_radios_are_waited_for() {
        assert!(matches!(judged(RADIOS_UP), Judgement::Settled(f) if f.verdict == Verdict::Fail));
        assert!(
            matches!(judged("loaded a\nhwsim loaded\n"), Judgement::NotYet(f) if f.verdict == Verdict::Fail)
        );
        assert!(
            matches!(judged("loaded a\nhwsim-error no\n"), Judgement::Settled(f) if f.verdict == Verdict::Fail)
        );
    }
}
