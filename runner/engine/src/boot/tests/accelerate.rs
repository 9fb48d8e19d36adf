//! The canary: which accelerator runs guests.

use isokiln_core::boot::CANARY_EXIT_STATUS;

use super::fake::End;
use super::*;
use crate::boot::find_acceleration;

/// A machine that ends so.
fn ends(seconds: f64, status: i64, words: &'static str) -> Result<Machine, BootError> {
    Ok(Machine { end: Some(End { known: seconds, closed: seconds, status, words }), ..good() })
}

/// A machine that starts and never gets anywhere.
fn stuck() -> Result<Machine, BootError> {
    Ok(good())
}

async fn find(
    machines: impl IntoIterator<Item = Result<Machine, BootError>>,
) -> (Result<Acceleration, BootError>, FakeHost) {
    let host = FakeHost::new(machines);
    let found = timeout(FOR_EVER, find_acceleration(&host)).await.expect("it hangs");
    let started = host.ledger.orders.lock().unwrap().len();
    assert_eq!(host.ledger.removed.load(Ordering::SeqCst), started, "a canary was left behind");
    (found, host)
}

#[tokio::test(start_paused = true)]
async fn kvm_that_runs_the_canary_is_used() {
    let (found, host) = find([ends(0.3, CANARY_EXIT_STATUS, "")]).await;
    let reason = "KVM runs guests".to_owned();
    assert_eq!(found.unwrap(), Acceleration { accelerator: Accelerator::Kvm, reason, scale: 1.0 });
    let orders = host.ledger.orders.lock().unwrap();
    let [order] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!((order.purpose.as_str(), order.kvm), ("canary-kvm", true));
    let [(path, disk)] = &order.files[..] else { panic!("one disk") };
    assert_eq!(disk.len(), 2 << 20);
    assert!(order.arguments.iter().any(|argument| argument.contains(&format!("file={path}"))));
}

#[tokio::test(start_paused = true)]
async fn kvm_that_runs_no_guest_is_passed_over_with_the_reason() {
    let missing =
        BootError::Host("error gathering device information for \"/dev/kvm\": no such file".to_owned());
    let denied = "qemu-system-x86_64: failed to initialize kvm: Permission denied\nmore";
    for (kvm, why) in [
        (stuck(), "a guest of one instruction loop does not end within 10 seconds"),
        (ends(0.1, 1, denied), "failed to initialize kvm: Permission denied"),
        (ends(0.1, 7, ""), "QEMU ends with status 7"),
        (Err(missing), "there is no /dev/kvm"),
        (Err(BootError::Host("devices are not allowed".to_owned())), "devices are not allowed"),
    ] {
        let (found, host) = find([kvm, ends(1.5, CANARY_EXIT_STATUS, "")]).await;
        let found = found.unwrap();
        assert_eq!(found.accelerator, Accelerator::Tcg, "{why}");
        assert_eq!(found.reason, format!("KVM does not run guests: {why}"));
        let orders = host.ledger.orders.lock().unwrap();
        let last = orders.last().unwrap();
        assert_eq!((last.purpose.as_str(), last.kvm), ("canary-tcg", false), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_canarys_time_stretches_time_limits_within_bounds() {
    for (seconds, scale) in [(0.2, 1.0), (1.5, 1.0), (6.0, 4.0), (100.0, 20.0)] {
        let (found, _) = find([stuck(), ends(seconds, CANARY_EXIT_STATUS, "")]).await;
        let found = found.unwrap().scale;
        assert!((found - scale).abs() < 0.01, "{seconds} seconds stretch by {found}, not {scale}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_on_which_nothing_runs_is_an_error_that_says_why() {
    let (found, _) = find([stuck(), stuck()]).await;
    let error = found.unwrap_err().to_string();
    assert!(error.contains("not even under TCG") && error.contains("120 seconds"), "{error}");

    let (found, _) = find([stuck(), ends(0.1, 1, "qemu-system-x86_64: no memory")]).await;
    assert_eq!(found.unwrap_err().to_string(), "no guest runs, not even under TCG: no memory");

    let refused = || Err(BootError::Host("no engine".to_owned()));
    let (found, _) = find([refused(), refused()]).await;
    assert_eq!(found.unwrap_err().to_string(), "no engine");
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_cannot_be_removed_is_an_error() {
    let machine = ends(0.3, CANARY_EXIT_STATUS, "").map(|machine| Machine { removable: false, ..machine });
    let (found, _) = find([machine]).await;
    assert_eq!(found.unwrap_err().to_string(), "it will not go");
}
