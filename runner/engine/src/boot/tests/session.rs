//! Whole boot tests: what a good one leaves, what is refused, and what happens around the machine.

use isokiln_core::boot::Lane;

use super::fake::End;
use super::*;
use crate::boot::REPORT_FILE;

#[tokio::test(start_paused = true)]
async fn a_good_boot_passes_with_phases_news_and_evidence() {
    let checks = [CheckSpec::Boot, CheckSpec::NetworkManager, CheckSpec::Wlan, command("true")];
    let outcome = run(good(), &checks).await;
    let report = outcome.report();
    assert_eq!(report.verdict, Verdict::Pass, "{report:?}");
    let names: Vec<_> = report.checks.iter().map(|check| check.check.as_str()).collect();
    assert_eq!(names, ["boot", "network-manager", "wlan", "command: true"]);
    assert!(report.checks.iter().all(|check| check.lane == Lane::Probe && !check.evidence.is_empty()));
    assert_eq!(outcome.check("network-manager").summary, "active, connected: enp0s2 (ethernet)");
    assert_eq!(outcome.check("command: true").evidence, ["done"]);
    use Phase::*;
    assert_eq!(outcome.phases(), [Firmware, BootMenu, Kernel, Initramfs, Userspace, MultiUser]);
    let kernel = report.phases[2].seconds;
    assert!((4.9..5.3).contains(&kernel), "the kernel spoke after 5 seconds, not {kernel}");
    assert!((44.0..50.0).contains(&report.seconds), "four answers of a second: {}", report.seconds);

    let told: Vec<_> = outcome
        .news
        .iter()
        .map(|item| match item {
            BootNews::Entered(phase, _) => phase.to_string(),
            BootNews::Checked(result) => format!("{} {}", result.check, result.verdict),
        })
        .collect();
    let phases = ["firmware", "boot menu", "kernel", "initramfs", "userspace", "multi-user"];
    let results = ["boot PASS", "network-manager PASS", "wlan PASS", "command: true PASS"];
    assert_eq!(told, [&phases[..], &results[..]].concat());

    assert_eq!(outcome.file("serial.log").lines().count(), 3);
    assert!(outcome.file("firmware.log").starts_with("SeaBIOS"));
    assert!(outcome.file("qemu.args").contains("file=/volume/iso/demo.iso"));
    let written: BootReport = serde_json::from_str(&outcome.file(REPORT_FILE)).unwrap();
    assert_eq!(written, *report);
    let pictures = outcome.pictures();
    assert_eq!(
        pictures,
        ["01-boot-menu.png", "02-userspace.png", "03-multi-user.png", "04-end.png"],
        "one for each milestone and one of the end"
    );
    for picture in pictures {
        assert_eq!(fs::read(outcome.folder.path().join("screens").join(picture)).unwrap(), fake::PICTURE);
    }
    let orders = outcome.host.ledger.orders.lock().unwrap();
    assert_eq!((orders[0].purpose.as_str(), orders[0].kvm), ("boot-bios-cd", false));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_to_use_kvm_gets_it() {
    let folder = TempDir::new().unwrap();
    let mut request = request(&folder, &[CheckSpec::Boot]);
    request.acceleration.accelerator = Accelerator::Kvm;
    let outcome = run_request(FakeHost::new([Ok(good())]), folder, &request, std::future::pending()).await;
    assert_eq!(outcome.report().accelerator, "kvm");
    assert!(outcome.host.ledger.orders.lock().unwrap()[0].kvm);
}

#[tokio::test(start_paused = true)]
async fn an_iso_that_promises_the_firmware_nothing_fails_without_a_machine() {
    let folder = TempDir::new().unwrap();
    let mut request = request(&folder, &[CheckSpec::Boot, CheckSpec::Wlan]);
    request.profile.firmware = Firmware::Uefi;
    let outcome = run_request(FakeHost::new([]), folder, &request, std::future::pending()).await;
    assert_eq!(outcome.verdicts(), [Verdict::Fail, Verdict::Inconclusive]);
    assert_eq!(outcome.check("boot").summary, "the ISO has no boot record (El Torito) for UEFI");
    assert!(outcome.check("boot").evidence[0].contains("Bios"), "{:?}", outcome.check("boot").evidence);
    assert!(outcome.check("wlan").summary.contains("no boot record"), "{:?}", outcome.check("wlan"));
    assert!(outcome.file(REPORT_FILE).contains("FAIL"));
}

#[tokio::test(start_paused = true)]
async fn cancelling_ends_the_machine_at_once_at_any_time() {
    let silent: Box<dyn FnMut(usize) -> fake::Actor + Send> = Box::new(|_| fake::Actor::stubborn(vec![]));
    let machines = [
        ("in the handshake", 3.0, Machine { monitor: silent, ..good() }),
        ("while it boots", 20.0, good()),
        ("while a check is made", 41.0, Machine { probe: fake::probe(40.0, |_| vec![]), ..good() }),
    ];
    for (when, at, machine) in machines {
        let folder = TempDir::new().unwrap();
        let request = request(&folder, &[CheckSpec::Boot]);
        let cancelled = tokio::time::sleep(Duration::from_secs_f64(at));
        let outcome = run_request(FakeHost::new([Ok(machine)]), folder, &request, cancelled).await;
        assert!(matches!(outcome.error(), BootError::Cancelled), "{when}: {:?}", outcome.result);
        assert!(outcome.seconds < at + 0.1, "{when}: {}", outcome.seconds);
        assert_eq!(outcome.host.ledger.removed.load(Ordering::SeqCst), 1, "{when}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_cannot_start_or_remove_machines_is_an_error() {
    let folder = TempDir::new().unwrap();
    let request = request(&folder, &[CheckSpec::Boot]);
    let host = FakeHost::new([Err(BootError::Host("no engine".to_owned()))]);
    let outcome = run_request(host, folder, &request, std::future::pending()).await;
    assert_eq!(outcome.error().to_string(), "no engine");

    let outcome = run(Machine { removable: false, ..good() }, &[CheckSpec::Boot]).await;
    assert_eq!(outcome.error().to_string(), "it will not go");
}

#[tokio::test(start_paused = true)]
async fn evidence_that_cannot_be_written_is_an_error_with_its_reason() {
    let folder = TempDir::new().unwrap();
    let mut request = request(&folder, &[CheckSpec::Boot]);
    // A folder where a log should be.
    fs::create_dir_all(folder.path().join("serial.log")).unwrap();
    let outcome = run_request(FakeHost::new([Ok(good())]), folder, &request, std::future::pending()).await;
    let report = infra_report(&request, outcome.error());
    assert_eq!(report.verdict, Verdict::Infra);
    let [what, why] = &report.checks[0].evidence[..] else { panic!("{:?}", report.checks) };
    assert!(what.starts_with("cannot write ") && what.ends_with("serial.log"), "{what}");
    assert!(why.contains("directory"), "{why}");

    // A file where the folder should be: known before anything is started.
    request.folder = outcome.folder.path().join("qemu.args");
    let outcome = run_request(FakeHost::new([]), outcome.folder, &request, std::future::pending()).await;
    assert!(matches!(outcome.error(), BootError::Evidence { .. }), "{:?}", outcome.result);
}

#[tokio::test(start_paused = true)]
async fn qemu_that_ends_by_itself_breaks_the_test_with_its_last_words() {
    let words = "qemu-system-x86_64: out of memory";
    const NEVER: f64 = 1e6;
    // Before anything can be connected; in the handshake; long after. Sockets and logs may close a little
    // sooner than QEMU's end is known, at the same time, or stay open.
    for known in [1.0, 2.0, 20.0] {
        for closed in [known - 1.0, known, NEVER] {
            let mut machine = Machine { end: Some(End { known, closed, status: 1, words }), ..good() };
            if known == 2.0 {
                machine.monitor = Box::new(|_| fake::Actor::stubborn(vec![]));
            }
            let (error, seconds) = broken(machine).await;
            let what = format!("known after {known} seconds, closed after {closed}");
            assert_eq!(error.to_string(), format!("QEMU ended with status 1: {words}"), "{what}");
            assert!(seconds < known + 0.1, "{what}: told after {seconds}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_out_of_reach_breaks_the_test() {
    let end = End { known: 1e6, closed: 20.0, status: 0, words: "" };
    let (error, seconds) = broken(Machine { end: Some(end), ..good() }).await;
    assert_eq!(error.to_string(), "the connection to the machine was lost");
    assert!(seconds < 26.0, "after {seconds} seconds");
}
