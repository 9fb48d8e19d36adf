//! `network-manager`: the service is active and one of its devices is connected.

use super::{Answer, Finding, Judgement, lines, values};

pub(super) const SCRIPT: &str = r#"
echo "system $(systemctl is-system-running 2>/dev/null)"
echo "load $(systemctl show --property=LoadState --value NetworkManager.service)"
echo "service $(systemctl is-active NetworkManager.service)"
nmcli --terse --fields DEVICE,TYPE,STATE device 2>&1 | sed 's/^/device /'
ip -brief address 2>/dev/null | sed 's/^/address /'
journalctl --boot --no-pager --output=cat --lines=10 --unit=NetworkManager.service | sed 's/^/log /'
"#;

pub(super) fn judge(answer: &Answer) -> Judgement {
    let evidence = lines(answer);
    let first = |key| values(answer, key).first().copied().unwrap_or_default();
    match (first("load"), first("service")) {
        ("not-found", _) => {
            return Judgement::Settled(Finding::fail("NetworkManager is not installed", evidence));
        }
        ("masked", _) => return Judgement::Settled(Finding::fail("NetworkManager is masked", evidence)),
        (_, "active") => {}
        (_, service) => {
            let finding = Finding::fail(format!("NetworkManager is {service}"), evidence);
            let booted = matches!(first("system"), "running" | "degraded");
            return if booted && service != "activating" {
                Judgement::Settled(finding)
            } else {
                Judgement::NotYet(finding)
            };
        }
    }
    let connected = values(answer, "device").into_iter().find_map(|device| {
        let mut fields = device.splitn(3, ':');
        let (name, kind, state) = (fields.next()?, fields.next()?, fields.next()?);
        let real = kind == "ethernet" || kind == "wifi";
        (real && state == "connected").then(|| format!("{name} ({kind})"))
    });
    match connected {
        Some(device) => Judgement::Settled(Finding::pass(format!("active, connected: {device}"), evidence)),
        None => {
            Judgement::NotYet(Finding::fail("NetworkManager is active but has connected no device", evidence))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Verdict;

    fn judged(output: &str) -> Judgement {
        judge(&Answer { status: 0, output: output.into() })
    }

    #[test]
    fn a_connected_card_passes_and_the_loopback_does_not_count() {
        let up = "load loaded\nservice active\ndevice enp0s2:ethernet:connected\n";
        assert!(matches!(judged(up), Judgement::Settled(f) if f.verdict == Verdict::Pass));
        let only_loopback = "load loaded\nservice active\ndevice lo:loopback:connected (externally)\n";
        assert!(matches!(judged(only_loopback), Judgement::NotYet(f) if f.verdict == Verdict::Fail));
    }

    #[test]
    fn a_missing_masked_or_dead_service_fails_at_once() {
        for output in [
            "system running\nload not-found\nservice inactive\n",
            "system running\nload masked\nservice inactive\n",
            "system degraded\nload loaded\nservice failed\n",
        ] {
            assert!(
                matches!(judged(output), Judgement::Settled(f) if f.verdict == Verdict::Fail),
                "{output}"
            );
        }
    }

    #[test]
    fn a_service_that_may_still_start_is_waited_for() {
        let output = "system starting\nload loaded\nservice inactive\n";
        assert!(matches!(judged(output), Judgement::NotYet(_)));
    }
}
