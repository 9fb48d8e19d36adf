//! What consoles and events say about a boot that does not end well, and silence.

use std::pin::Pin;
use std::task::{Context, Poll};

use isokiln_core::boot::Lane;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::coop;
use tokio::time::advance;

use super::fake::{Act, Actor, Console, Stage, monitor};
use super::*;

/// A machine whose guest never gets as far as the probe.
fn dark() -> Machine {
    Machine { probe: Actor::stubborn(vec![]), serial: Box::new(Agenda::new()), firmware: vec![], ..good() }
}

fn event(at: f64, name: &str, by_guest: bool) -> (f64, Act) {
    (at, line(&serde_json::json!({"event": name, "data": {"guest": by_guest}}).to_string()))
}

/// A good boot until the events come.
fn with_events(events: Vec<(f64, &'static str, bool)>, machine: Machine) -> Machine {
    let agenda = move || events.iter().map(|(at, name, by_guest)| event(*at, name, *by_guest)).collect();
    Machine { monitor: Box::new(move |_| monitor(agenda(), Command::obey)), ..machine }
}

async fn both(machine: Machine) -> Outcome {
    run(machine, &[CheckSpec::Boot, CheckSpec::NetworkManager]).await
}

#[tokio::test(start_paused = true)]
async fn words_of_failure_fail_the_boot_with_phase_and_evidence() {
    use Phase::*;
    let kernel = || (5.0, line("[    0.000000] Linux version 6.12.1"));
    let init = || (9.0, line("[    4.000000] Run /init as init process"));
    let panic = "[    7.1] Kernel panic - not syncing: VFS: Unable to mount root fs";
    let cases: [(Agenda, Vec<Phase>, &str, &str); 5] = [
        (vec![kernel(), (12.0, line(panic))], vec![Kernel], "kernel panic", panic),
        (
            // In pieces, as a console gives it.
            vec![kernel(), (12.0, Act::Say(panic.as_bytes()[..20].to_vec())), (12.5, line(&panic[20..]))],
            vec![Kernel],
            "kernel panic",
            panic,
        ),
        (
            vec![kernel(), init(), (12.0, Act::Say(b"\r\n(initramfs) ".to_vec()))],
            vec![Kernel, Initramfs],
            "the boot stopped in the initramfs and offers a shell",
            "(initramfs)",
        ),
        (
            vec![kernel(), init(), (12.0, line("You are in emergency mode. After logging in, type"))],
            vec![Kernel, Initramfs],
            "the system came up in emergency mode",
            "You are in emergency mode. After logging in, type",
        ),
        (
            vec![(1.0, line("SeaBIOS (version 1.16)")), (12.0, line("No bootable device.  Retrying in 60"))],
            vec![Firmware],
            "the firmware finds nothing to boot on the disc",
            "No bootable device.  Retrying in 60",
        ),
    ];
    for (serial, phases, summary, evidence) in cases {
        let outcome = both(Machine { serial: Box::new(serial), ..dark() }).await;
        let boot = outcome.check("boot");
        assert_eq!(outcome.verdicts(), [Verdict::Fail, Verdict::Inconclusive], "{summary}");
        assert_eq!((boot.summary.as_str(), boot.lane), (summary, Lane::Faithful));
        assert_eq!(boot.evidence, [evidence]);
        assert_eq!(outcome.phases(), phases, "{summary}");
        assert!(outcome.seconds < 18.0, "{summary}: told at once, not after {}", outcome.seconds);
        assert!(outcome.file("serial.log").contains(evidence), "{summary}");
        assert_eq!(outcome.pictures().last().unwrap().split_once('-').unwrap().1, "failure.png");
        let untested = outcome.check("network-manager");
        assert!(untested.summary.contains(summary), "it says why: {}", untested.summary);
    }
}

#[tokio::test(start_paused = true)]
async fn the_firmwares_own_log_counts_as_well() {
    let firmware = vec![(2.0, line("BdsDxe: failed to load Boot0001 \"UEFI QEMU DVD-ROM\""))];
    let outcome = both(Machine { firmware, ..dark() }).await;
    assert_eq!(outcome.verdicts(), [Verdict::Fail, Verdict::Inconclusive]);
    assert!(outcome.file("firmware.log").contains("BdsDxe"));
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_falls_silent_fails_and_one_never_heard_is_left_open() {
    let kernel = vec![(5.0, line("[    0.000000] Linux version 6.12.1"))];
    for (serial, verdict, summary) in [
        (kernel, Verdict::Fail, "did not get beyond the phase \"kernel\" within 300 seconds"),
        (
            vec![],
            Verdict::Inconclusive,
            "nothing was heard beyond the start within 300 seconds: add console=ttyS0",
        ),
    ] {
        let outcome = both(Machine { serial: Box::new(serial), ..dark() }).await;
        assert_eq!(outcome.verdicts(), [verdict, Verdict::Inconclusive]);
        assert!(outcome.check("boot").summary.contains(summary), "{}", outcome.check("boot").summary);
        assert!(!outcome.pictures().is_empty(), "the screen may say more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_boot_entry_that_fails_does_not_condemn_one_that_works() {
    let serial = vec![
        (1.0, line("BdsDxe: failed to load Boot0001 \"UEFI QEMU HARDDISK\"")),
        (2.0, line("BdsDxe: starting Boot0002 \"UEFI QEMU DVD-ROM\"")),
        (5.0, line("[    0.000000] Linux version 6.12.1")),
    ];
    let probe = fake::probe(20.0, |asked| vec![(1.0, healthy(asked))]);
    let outcome = both(Machine { serial: Box::new(serial), probe, ..dark() }).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass, Verdict::Pass]);
}

#[tokio::test(start_paused = true)]
async fn slow_machines_get_more_time() {
    let folder = TempDir::new().unwrap();
    let mut request = request(&folder, &[CheckSpec::Boot]);
    request.acceleration.scale = 2.0;
    // The probe comes late, and then the system takes another 300 seconds.
    let mut times = 0;
    let probe = fake::probe(500.0, move |asked| {
        times += 1;
        vec![(1.0, if times < 100 { asked.answer(0, "state starting\n") } else { healthy(asked) })]
    });
    let machine = Machine { probe, ..dark() };
    let outcome = run_request(FakeHost::new([Ok(machine)]), folder, &request, std::future::pending()).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass]);
}

#[tokio::test(start_paused = true)]
async fn a_login_prompt_without_a_probe_cannot_be_tested_and_says_what_it_takes() {
    let serial: Agenda = vec![(100.0, Act::Say(b"live login: ".to_vec()))];
    let outcome = both(Machine { serial: Box::new(serial), ..dark() }).await;
    assert_eq!(outcome.verdicts(), [Verdict::Inconclusive; 2]);
    for check in &outcome.report().checks {
        assert!(check.summary.contains("systemd 256"), "{}", check.summary);
    }
    assert_eq!(outcome.phases(), [Phase::MultiUser]);
    assert!((145.0..147.0).contains(&outcome.seconds), "{}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_switches_itself_off_or_restarts_for_ever_fails() {
    let off = vec![(20.0, "SHUTDOWN", true)];
    let restarts = vec![(10.0, "RESET", true), (12.0, "RESET", true), (20.0, "RESET", true)];
    let panic = vec![(20.0, "GUEST_PANICKED", true)];
    for (events, summary) in [
        (off, "the machine switched itself off"),
        (restarts, "the machine restarts again and again"),
        (panic, "the guest's kernel reports a panic"),
    ] {
        let outcome = both(with_events(events, good())).await;
        assert_eq!(outcome.verdicts(), [Verdict::Fail, Verdict::Inconclusive], "{summary}");
        assert_eq!(outcome.check("boot").summary, summary);
        assert!((24.0..25.0).contains(&outcome.seconds), "{summary}: {}", outcome.seconds);
        assert!(outcome.file("qmp.jsonl").contains("\"guest\":true"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_or_two_and_what_the_host_does_are_no_failure() {
    let events = vec![
        (0.5, "RESET", false),
        (10.0, "RESET", true),
        (12.0, "RESET", true),
        (13.0, "SHUTDOWN", false),
        // QEMU then says that the machine runs again.
        (14.0, "STOP", false),
    ];
    let outcome = both(with_events(events, good())).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_between_checks_takes_the_boots_pass_back() {
    // The first check is answered after 41 seconds, the second never.
    let mut answered = 0;
    let probe = fake::probe(40.0, move |asked| {
        answered += 1;
        if answered == 1 { vec![(1.0, healthy(asked))] } else { vec![] }
    });
    let mut serial = good_serial();
    serial.push((50.0, line("[   45.0] Kernel panic - not syncing: Fatal exception")));
    let outcome = both(Machine { probe, serial: Box::new(serial), ..good() }).await;
    assert_eq!(outcome.verdicts(), [Verdict::Fail, Verdict::Inconclusive]);
    assert_eq!(outcome.check("boot").summary, "kernel panic");
    let told = outcome.news.iter().any(
        |item| matches!(item, BootNews::Checked(result) if result.check == "boot" && result.verdict == Verdict::Pass),
    );
    assert!(told, "the boot had passed before: {:?}", outcome.news);
    assert!(outcome.seconds < 56.0, "{}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn the_console_explains_what_events_only_notice() {
    let serial = vec![(20.0, line("[   15.0] Kernel panic - not syncing: Attempted to kill init!"))];
    let machine = Machine { serial: Box::new(serial), ..dark() };
    let outcome = both(with_events(vec![(20.0, "GUEST_PANICKED", true)], machine)).await;
    assert_eq!(outcome.check("boot").summary, "kernel panic");
}

/// A console that never pauses, and how often it was read. Each read takes 20 milliseconds.
struct Endless(usize);

impl Console for Endless {
    fn open(self: Box<Self>, _: &Stage) -> Box<dyn AsyncRead + Send + Unpin> {
        self
    }
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        // As tokio's own streams do: from time to time every task has to let others run.
        let progress = std::task::ready!(coop::poll_proceed(context));
        self.0 += 1;
        assert!(self.0 < 50_000, "read for ever, and no time limit was looked at");
        // Time has moved after the first poll; what is left is about letting others run.
        let mut time = std::pin::pin!(advance(Duration::from_millis(20)));
        let _: Poll<()> = time.as_mut().poll(context);
        progress.made_progress();
        buffer.put_slice(b"chatter\n");
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_console_that_never_pauses_does_not_stop_the_clock() {
    let outcome = both(Machine { serial: Box::new(Endless(0)), ..dark() }).await;
    assert_eq!(outcome.verdicts(), [Verdict::Inconclusive, Verdict::Inconclusive]);
    assert!(outcome.seconds < 310.0, "{}", outcome.seconds);
}
