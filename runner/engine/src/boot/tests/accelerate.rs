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

async fn find_with(
    wanted: Option<Accelerator>,
    machines: impl IntoIterator<Item = Result<Machine, BootError>>,
) -> (Result<Acceleration, BootError>, FakeHost) {
    let host = FakeHost::new(machines);
    let found = timeout(FOR_EVER, find_acceleration(&host, wanted)).await.expect("it hangs");
    let started = host.ledger.orders.lock().unwrap().len();
    assert_eq!(host.ledger.removed.load(Ordering::SeqCst), started, "a canary was left behind");
    (found, host)
}

async fn find(
    machines: impl IntoIterator<Item = Result<Machine, BootError>>,
) -> (Result<Acceleration, BootError>, FakeHost) {
    find_with(None, machines).await
}

/// A canary that flies.
fn flies(seconds: f64) -> Result<Machine, BootError> {
    ends(seconds, CANARY_EXIT_STATUS, "")
}

#[tokio::test(start_paused = true)]
async fn kvm_that_runs_the_canaries_is_used() {
    let (found, host) = find([flies(0.3), flies(2.0)]).await;
    let found = found.unwrap();
    assert_eq!(
        found.bios,
        Measured {
            accelerator: Accelerator::Kvm,
            reason: "KVM runs guests".to_owned(),
            seconds: found.bios.seconds,
            scale: 1.0
        }
    );
    assert!((0.3..0.4).contains(&found.bios.seconds) && (2.0..2.1).contains(&found.uefi.seconds));
    assert_eq!(found.of(Firmware::Uefi { secure_boot: true }), &found.uefi);
    let orders = host.ledger.orders.lock().unwrap();
    let [bios, uefi] = &orders[..] else { panic!("{orders:?}") };
    for order in [bios, uefi] {
        assert_eq!((order.purpose.as_str(), order.kvm), ("canary-kvm", true));
    }
    let [(path, disk)] = &bios.files[..] else { panic!("one disk") };
    assert_eq!(disk.len(), 2 << 20);
    assert!(bios.arguments.iter().any(|argument| argument.contains(&format!("file={path}"))));
    let through_ovmf = |order: &crate::boot::Order| order.arguments.iter().any(|word| word.contains("OVMF"));
    assert!(through_ovmf(uefi) && !through_ovmf(bios));
}

#[tokio::test(start_paused = true)]
async fn each_firmware_has_its_own_canary() {
    // KVM runs SeaBIOS, but OVMF ends with an error of KVM's.
    let kvm = "qemu-system-x86_64: KVM internal error. Suberror: 1";
    let (found, host) = find([flies(0.3), ends(1.0, 1, kvm), flies(8.0)]).await;
    let found = found.unwrap();
    assert_eq!((found.bios.accelerator, found.bios.scale), (Accelerator::Kvm, 1.0));
    assert_eq!(found.uefi.accelerator, Accelerator::Tcg);
    assert_eq!(found.uefi.reason, "KVM does not run guests: KVM internal error. Suberror: 1");
    assert!((found.uefi.scale - 2.0).abs() < 0.01, "8 seconds instead of 4: {}", found.uefi.scale);
    assert_eq!(host.ledger.orders.lock().unwrap().len(), 3);

    // A guest that stands still under OVMF.
    let (found, _) = find([flies(0.3), stuck(), flies(4.0)]).await;
    let reason = found.unwrap().uefi.reason;
    assert!(reason.ends_with("does not end within 15 seconds through UEFI"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn an_accelerator_that_was_asked_for_is_the_only_one_tried() {
    let (found, host) = find_with(Some(Accelerator::Tcg), [flies(1.5), flies(4.0)]).await;
    let found = found.unwrap();
    for measured in [&found.bios, &found.uefi] {
        assert_eq!(measured.accelerator, Accelerator::Tcg);
        assert_eq!(measured.reason, "TCG was asked for");
    }
    assert!(host.ledger.orders.lock().unwrap().iter().all(|order| !order.kvm));

    let (found, _) = find_with(Some(Accelerator::Kvm), [flies(0.3), flies(1.0)]).await;
    assert_eq!(found.unwrap().uefi.accelerator, Accelerator::Kvm);

    let (found, host) = find_with(Some(Accelerator::Kvm), [stuck()]).await;
    let error = found.unwrap_err().to_string();
    assert!(error.starts_with("KVM does not run guests: a guest of one"), "{error}");
    assert_eq!(host.ledger.orders.lock().unwrap().len(), 1, "no TCG instead");
}

#[tokio::test(start_paused = true)]
async fn kvm_that_runs_no_guest_is_passed_over_with_the_reason() {
    let missing =
        || BootError::Host("error gathering device information for \"/dev/kvm\": no such file".to_owned());
    let denied = "qemu-system-x86_64: failed to initialize kvm: Permission denied\nmore";
    type Kvm<'f> = &'f dyn Fn() -> Result<Machine, BootError>;
    let cases: [(Kvm<'_>, &str); 5] = [
        (&stuck, "a guest of one instruction loop does not end within 15 seconds"),
        (&|| ends(0.1, 1, denied), "failed to initialize kvm: Permission denied"),
        (&|| ends(0.1, 7, ""), "QEMU ends with status 7"),
        (&|| Err(missing()), "there is no /dev/kvm"),
        (&|| Err(BootError::Host("devices are not allowed".to_owned())), "devices are not allowed"),
    ];
    for (kvm, why) in cases {
        let (found, host) = find([kvm(), flies(1.5), kvm(), flies(4.0)]).await;
        let found = found.unwrap();
        for measured in [&found.bios, &found.uefi] {
            assert_eq!(measured.accelerator, Accelerator::Tcg, "{why}");
            let reason = format!("KVM does not run guests: {why}");
            assert!(measured.reason.starts_with(&reason), "{} for {why}", measured.reason);
        }
        let orders = host.ledger.orders.lock().unwrap();
        let last = orders.last().unwrap();
        assert_eq!((last.purpose.as_str(), last.kvm), ("canary-tcg", false), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_canarys_time_stretches_time_limits_within_bounds() {
    for (seconds, scale) in [(0.2, 1.0), (1.5, 1.0), (6.0, 4.0), (100.0, 20.0)] {
        let (found, _) = find([stuck(), flies(seconds), flies(1.0)]).await;
        let found = found.unwrap().bios.scale;
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
    let machine = flies(0.3).map(|machine| Machine { removable: false, ..machine });
    let (found, _) = find([machine]).await;
    assert_eq!(found.unwrap_err().to_string(), "it will not go");
}
