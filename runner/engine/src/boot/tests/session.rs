//! Whole boot tests: what a good one leaves, what is refused, and what happens around the machine.

use isokiln_core::boot::iso::{Extent, Partition, PartitionTables, Table};
use isokiln_core::boot::screen::Frame;
use isokiln_core::boot::{DirectKernel, Lane};

use super::consoles::with_events;
use super::fake::End;
use super::*;
use crate::boot::REPORT_FILE;

#[tokio::test(start_paused = true)]
async fn a_good_boot_passes_with_phases_news_and_evidence() {
    let checks = [CheckSpec::boot(), network_manager(), wlan(), command("true")];
    let outcome = run(good(), &checks).await;
    let report = outcome.report();
    assert_eq!(report.verdict, Verdict::Pass, "{report:?}");
    assert_eq!((report.cause, report.reached), (None, Some(Phase::MultiUser)));
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
            BootNews::Entered { phase, .. } => phase.to_string(),
            BootNews::Checked(result) => format!("{} {}", result.check, result.verdict),
        })
        .collect();
    let phases = ["firmware", "boot menu", "kernel", "initramfs", "userspace", "multi-user"];
    let results = ["boot PASS", "network-manager PASS", "wlan PASS", "command: true PASS"];
    assert_eq!(told, [&phases[..], &results[..]].concat());

    assert_eq!(outcome.file("serial.log").lines().count(), 4);
    assert!(outcome.file("firmware.log").starts_with("SeaBIOS"));
    assert!(outcome.file("qemu.args").contains("file=/volume/iso/demo.iso"));
    let written: BootReport = serde_json::from_str(&outcome.file(REPORT_FILE)).unwrap();
    assert_eq!(written, *report);
    let pictures = outcome.pictures();
    let times = ["0000.0s", "0001.0s-boot-menu", "0005.0s-kernel", "0008.0s-initramfs", "0030.0s-userspace"];
    let names: Vec<_> = times.into_iter().chain(["0040.0s"]).map(|time| format!("{time}.png")).collect();
    assert_eq!(pictures, names, "one for each change, and labels for phases");
    for picture in pictures {
        let png = fs::read(outcome.folder.path().join("screens").join(picture)).unwrap();
        assert_eq!(Frame::from_png(&png).unwrap().width(), 64);
    }
    for (name, magic) in
        [("end.png", &b"\x89PNG"[..]), ("filmstrip.png", b"\x89PNG"), ("filmstrip.gif", b"GIF8")]
    {
        assert!(fs::read(outcome.folder.path().join(name)).unwrap().starts_with(magic), "{name}");
    }
    assert!(outcome.file("reproduce.sh").contains("exec qemu-system-x86_64"));
    let inventory = report.inventory.clone().unwrap();
    assert_eq!((inventory.kernel.as_str(), inventory.modules.len()), ("6.12.1", 2), "asked last");
    let lanes: Vec<_> = report.lanes.iter().map(|lane| (lane.lane, lane.channel, lane.verdict)).collect();
    let probe = (Lane::Probe, Some(Channel::Credentials), Verdict::Pass);
    assert_eq!(lanes, [(Lane::Faithful, None, Verdict::Pass), probe]);
    let orders = outcome.host.ledger.orders.lock().unwrap();
    assert_eq!((orders[0].purpose.as_str(), orders[0].kvm), ("boot-bios-cd", false));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_to_use_kvm_gets_it() {
    let folder = TempDir::new().unwrap();
    let mut request = request(&folder, &[CheckSpec::boot()]);
    request.acceleration.accelerator = Accelerator::Kvm;
    let outcome = run_request(FakeHost::new([Ok(good())]), folder, &request, std::future::pending()).await;
    assert_eq!(outcome.report().accelerator, "kvm");
    assert!(outcome.host.ledger.orders.lock().unwrap()[0].kvm);
}

#[tokio::test(start_paused = true)]
async fn an_iso_that_promises_the_firmware_nothing_fails_without_a_machine() {
    let folder = TempDir::new().unwrap();
    let mut request = request(&folder, &[CheckSpec::boot(), wlan()]);
    request.profile.firmware = Firmware::Uefi { secure_boot: false };
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
        let request = request(&folder, &[CheckSpec::boot()]);
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
    let request = request(&folder, &[CheckSpec::boot()]);
    let host = FakeHost::new([Err(BootError::Host("no engine".to_owned()))]);
    let outcome = run_request(host, folder, &request, std::future::pending()).await;
    assert_eq!(outcome.error().to_string(), "no engine");

    let outcome = run(Machine { removable: false, ..good() }, &[CheckSpec::boot()]).await;
    assert_eq!(outcome.error().to_string(), "it will not go");
}

#[tokio::test(start_paused = true)]
async fn evidence_that_cannot_be_written_is_an_error_with_its_reason() {
    let folder = TempDir::new().unwrap();
    let mut request = request(&folder, &[CheckSpec::boot()]);
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
async fn a_qemu_that_crashes_is_started_once_more() {
    let words = "msix_table_mmio_write: assertion failed";
    let crashing = || Machine { end: Some(End { known: 20.0, closed: 20.0, status: 134, words }), ..good() };
    let crash = format!("QEMU ended with status 134: {words}");
    let run = async |machines: [Machine; 2]| {
        let folder = TempDir::new().unwrap();
        let mut request = request(&folder, &[CheckSpec::boot()]);
        request.folder = folder.path().join("bios-cd");
        let host = FakeHost::new(machines.map(Ok));
        let outcome = run_request(host, folder, &request, std::future::pending()).await;
        assert!(outcome.folder.path().join("bios-cd-crashed/serial.log").exists());
        assert_eq!(outcome.host.ledger.removed.load(Ordering::SeqCst), 2);
        outcome
    };
    let outcome = run([crashing(), good()]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass]);
    let notes = outcome.report().notes.join("\n");
    assert!(notes.starts_with(&format!("{crash}; started again, and ")), "{notes}");
    assert!(outcome.file("bios-cd/serial.log").starts_with("[    0.000000] Linux version"));

    assert_eq!(run([crashing(), crashing()]).await.error().to_string(), crash);
}

#[tokio::test(start_paused = true)]
async fn what_was_found_out_before_qemu_died_is_kept() {
    // The first check was answered after 41.5 seconds; the second one is being asked.
    let end = End { known: 42.0, closed: 41.8, status: 1, words: "out of memory" };
    let monitor_lost: Box<dyn FnMut(usize) -> Actor + Send> = Box::new(|number| match number {
        1 => fake::monitor(vec![(41.8, fake::Act::HangUp)], Command::obey),
        _ => Actor::stubborn(vec![]),
    });
    for (machine, words) in [
        (Machine { end: Some(end), ..good() }, "QEMU ended with status 1: out of memory"),
        (
            Machine { monitor: monitor_lost, probe: fake::probe(40.0, first_only()), ..good() },
            "QEMU's monitor failed at the greeting",
        ),
    ] {
        let checks = [CheckSpec::boot(), network_manager(), check("screen:Welcome"), wlan()];
        let outcome = run(machine, &checks).await;
        use Verdict::*;
        assert_eq!(outcome.verdicts(), [Pass, Infra, Infra, Infra], "{words}");
        assert_eq!(outcome.report().verdict, Infra);
        for name in ["network-manager", "screen: Welcome", "wlan"] {
            assert!(outcome.check(name).summary.starts_with(words), "{}", outcome.check(name).summary);
        }
        assert_eq!(outcome.report().cause, None, "not the ISO's fault");
        assert_eq!(outcome.report().reached, Some(Phase::MultiUser));
        let told = outcome.news.iter().filter(|item| matches!(item, BootNews::Checked(_))).count();
        assert_eq!(told, 4);
        assert!(outcome.file(REPORT_FILE).contains("INFRA"));
    }
}

/// Answers the first question and no other.
fn first_only() -> impl FnMut(&Asked) -> Agenda + Send {
    let mut asked_before = false;
    move |asked| if std::mem::replace(&mut asked_before, true) { vec![] } else { vec![(1.0, healthy(asked))] }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_out_of_reach_breaks_the_test() {
    let end = End { known: 1e6, closed: 20.0, status: 0, words: "" };
    let (error, seconds) = broken(Machine { end: Some(end), ..good() }).await;
    assert_eq!(error.to_string(), "the connection to the machine was lost");
    assert!(seconds < 26.0, "after {seconds} seconds");
}

/// Makes the machine one of this kind, and the ISO one that boots on it.
fn start_from(request: &mut BootRequest, firmware: Firmware, medium: Medium) {
    (request.profile.firmware, request.profile.medium) = (firmware, medium);
    request.iso.facts.boot_entries[0].platform =
        if firmware == Firmware::Bios { Platform::Bios } else { Platform::Efi };
    let esp = Partition {
        table: Table::Mbr,
        number: 1,
        kind: "0xef".to_owned(),
        place: Extent { start: 0, size: 512 },
        esp: true,
    };
    request.iso.facts.tables =
        PartitionTables { mbr: true, boot_code: true, gpt: false, partitions: vec![esp] };
}

#[tokio::test(start_paused = true)]
async fn a_stick_is_made_ready_for_the_firmware_again_where_the_guest_restarts() {
    let uefi = Firmware::Uefi { secure_boot: false };
    let restarts = with_events(vec![(8.0, "RESET", true)], good());
    let outcome = of_iso(restarts, |request| start_from(request, uefi, Medium::Usb)).await;
    let bytes = outcome.told_disks(0).into_iter().map(|(_, order)| order.contains("-P 69 "));
    assert_eq!(bytes.collect::<Vec<_>>(), [true, false, true], "for the kernel, the firmware, the kernel");
}

#[tokio::test(start_paused = true)]
async fn a_stick_is_as_it_was_made_when_the_kernel_looks_at_it() {
    let uefi = Firmware::Uefi { secure_boot: false };
    let hook =
        DirectKernel { kernel: "/k".to_owned(), initrds: vec!["/i".to_owned()], arguments: String::new() };
    for (firmware, medium, ride, told) in [
        (uefi, Medium::Usb, Ride::of_medium(vec![Channel::Credentials]), 1),
        (uefi, Medium::Cd, Ride::of_medium(vec![Channel::Credentials]), 0),
        (Firmware::Bios, Medium::Usb, Ride::of_medium(vec![Channel::Credentials]), 0),
        (uefi, Medium::Usb, Ride::of_kernel(hook), 0),
    ] {
        let outcome = of_iso(good(), |request| {
            start_from(request, firmware, medium);
            request.rides = vec![ride];
        })
        .await;
        let orders = outcome.told_disks(0);
        assert_eq!(orders.len(), told, "{firmware:?} {medium:?}: {orders:?}");
        for (seconds, order) in orders {
            assert_eq!(order, "qemu-io medium \"write -q -P 69 34823 1\"");
            assert!((5.0..6.5).contains(&seconds), "the kernel speaks after 5 s: {seconds}");
        }
    }
}
