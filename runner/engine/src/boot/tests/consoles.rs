//! What consoles and events say about a boot that does not end well, and silence.

use std::pin::Pin;
use std::task::{Context, Poll};

use isokiln_core::boot::Lane;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::coop;
use tokio::time::advance;

use super::fake::{Act, Console, Stage, monitor};
use super::*;

/// A machine that works, but of which nothing is known to those who only look.
fn silent() -> Machine {
    dark(|seconds, _| Pose::new(Processor::Waits, (seconds * 1e6) as u64, Screen::Grey(0)))
}

fn event(at: f64, name: &str, by_guest: bool) -> (f64, Act) {
    (at, line(&serde_json::json!({"event": name, "data": {"guest": by_guest}}).to_string()))
}

/// A good boot until the events come.
pub(super) fn with_events(events: Vec<(f64, &'static str, bool)>, machine: Machine) -> Machine {
    let agenda = move || events.iter().map(|(at, name, by_guest)| event(*at, name, *by_guest)).collect();
    Machine { monitor: Box::new(move |_| monitor(agenda(), Command::obey)), ..machine }
}

async fn both(machine: Machine) -> Outcome {
    run(machine, &[CheckSpec::boot(), network_manager()]).await
}

#[tokio::test(start_paused = true)]
async fn words_of_failure_fail_the_boot_with_phase_and_evidence() {
    use Phase::*;
    let kernel = || (5.0, line("[    0.000000] Linux version 6.12.1"));
    let init = || (9.0, line("[    4.000000] Run /init as init process"));
    let panic = "[    7.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x7f00";
    let cases: [(Agenda, Vec<Phase>, Cause, &str); 8] = [
        (vec![kernel(), (12.0, line(panic))], vec![Kernel], Cause::KernelPanic, panic),
        (
            // In pieces, as a console gives it.
            vec![kernel(), (12.0, Act::Say(panic.as_bytes()[..20].to_vec())), (12.5, line(&panic[20..]))],
            vec![Kernel],
            Cause::KernelPanic,
            panic,
        ),
        (
            vec![
                kernel(),
                (12.0, line("[    7.1] Kernel panic - not syncing: VFS: Unable to mount root fs")),
            ],
            vec![Kernel],
            Cause::NoLiveMedium,
            "[    7.1] Kernel panic - not syncing: VFS: Unable to mount root fs",
        ),
        (
            vec![kernel(), init(), (12.0, Act::Say(b"\r\n(initramfs) ".to_vec()))],
            vec![Kernel, Initramfs],
            Cause::InitramfsShell,
            "(initramfs)",
        ),
        (
            vec![kernel(), init(), (12.0, line("You are in emergency mode. After logging in, type"))],
            vec![Kernel, Initramfs],
            Cause::EmergencyMode,
            "You are in emergency mode. After logging in, type",
        ),
        (
            vec![kernel(), init(), (12.0, line("No init found. Try passing init= bootarg."))],
            vec![Kernel, Initramfs],
            Cause::NoInit,
            "No init found. Try passing init= bootarg.",
        ),
        (
            vec![(1.0, line("SeaBIOS (version 1.16)")), (12.0, line("No bootable device.  Retrying in 60"))],
            vec![Firmware],
            Cause::NothingBootable,
            "No bootable device.  Retrying in 60",
        ),
        (
            vec![
                (1.0, line("ISOLINUX 6.04 20200816")),
                (12.0, line("Could not find kernel image: /vmlinuz")),
            ],
            vec![BootMenu],
            Cause::NoKernel,
            "Could not find kernel image: /vmlinuz",
        ),
    ];
    for (serial, phases, cause, evidence) in cases {
        let outcome = both(Machine { serial: Box::new(serial), ..silent() }).await;
        let boot = outcome.check("boot");
        assert_eq!(outcome.verdicts(), [Verdict::Fail, Verdict::Inconclusive], "{cause}");
        assert_eq!(
            (outcome.report().cause, boot.cause, boot.lane),
            (Some(cause), Some(cause), Lane::Faithful)
        );
        assert_eq!(boot.evidence, [evidence]);
        assert_eq!(outcome.phases(), phases, "{cause}");
        // A boot loader may go on with another entry.
        let told = if phases[0] == Kernel { 18.0 } else { 34.0 };
        assert!(outcome.seconds < told, "{cause}: told after {}", outcome.seconds);
        assert!(outcome.file("serial.log").contains(evidence), "{cause}");
        assert!(outcome.folder.path().join("failure.png").exists(), "{cause}");
        let untested = outcome.check("network-manager");
        assert!(untested.summary.contains(&cause.to_string()), "it says why: {}", untested.summary);
        let [lane] = &outcome.report().lanes[..] else { panic!("{:?}", outcome.report().lanes) };
        assert_eq!((lane.lane, lane.verdict), (Lane::Faithful, Verdict::Fail));
    }
}

#[tokio::test(start_paused = true)]
async fn what_broke_first_is_the_cause_and_not_what_came_of_it() {
    let kernel = || (5.0, line("[    0.000000] Linux version 6.12.1"));
    let shell = || (14.0, Act::Say(b"(initramfs) ".to_vec()));
    let panic =
        || (14.0, line("[   9.9] Kernel panic - not syncing: Attempted to kill init! exitcode=0x100"));
    let squashfs = "[    8.1] SQUASHFS error: zstd decompression failed, data probably corrupt";
    let memory = "[    8.1] Out of memory: Killed process 1 (init) total-vm:100kB";
    for (noted, end, cause) in [
        (squashfs, shell(), Cause::SquashfsError),
        (squashfs, panic(), Cause::SquashfsError),
        (memory, panic(), Cause::OutOfMemory),
        (memory, shell(), Cause::OutOfMemory),
        ("[    8.1] BUG: kernel NULL pointer dereference, address: 0000", panic(), Cause::KernelOops),
    ] {
        let serial = vec![kernel(), (12.0, line(noted)), end];
        let outcome = both(Machine { serial: Box::new(serial), ..silent() }).await;
        assert_eq!(outcome.report().cause, Some(cause));
        let evidence = &outcome.check("boot").evidence;
        assert!(
            evidence.len() == 2 && evidence[0] == noted,
            "what broke first, and what came of it: {evidence:?}"
        );
    }
    // Said last, but more than a way of saying that something is wrong.
    let last = (15.0, line("Unable to find a medium containing a live file system"));
    let outcome = both(Machine { serial: Box::new(vec![kernel(), shell(), last]), ..silent() }).await;
    assert_eq!(outcome.report().cause, Some(Cause::NoLiveMedium));
}

#[tokio::test(start_paused = true)]
async fn a_note_that_the_boot_survives_fails_nothing() {
    let mut serial = good_serial();
    serial.insert(2, (12.0, line("[    8.1] SQUASHFS error: unable to read xattr id index table")));
    let outcome = both(Machine { serial: Box::new(serial), ..good() }).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass; 2]);
    assert_eq!(outcome.report().cause, None);
}

#[tokio::test(start_paused = true)]
async fn the_firmwares_own_log_counts_as_well() {
    let firmware = vec![(2.0, line("BdsDxe: failed to load Boot0001 \"UEFI QEMU DVD-ROM\""))];
    let outcome = both(Machine { firmware, ..silent() }).await;
    assert_eq!(outcome.verdicts(), [Verdict::Fail, Verdict::Inconclusive]);
    assert_eq!(outcome.report().cause, Some(Cause::NothingBootable));
    assert!(outcome.file("firmware.log").contains("BdsDxe"));
}

#[tokio::test(start_paused = true)]
async fn what_the_firmware_says_a_moment_after_the_last_answer_counts() {
    let firmware = vec![(0.5, line("SeaBIOS (version 1.16)")), (1.4, line("Booting from 0000:7c00"))];
    let serial: Agenda = vec![(0.9, line("HELLO"))];
    let machine = Machine { firmware, serial: Box::new(serial), ..silent() };
    let outcome = run(machine, &[check("screen:HELLO")]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass]);
    assert_eq!(outcome.phases(), [Phase::Firmware, Phase::BootMenu]);
}

#[tokio::test(start_paused = true)]
async fn a_boot_loader_on_an_iso_without_linux_has_nothing_to_load() {
    for (holds_linux, cause) in [(true, Cause::NoKernel), (false, Cause::NotLinux)] {
        let firmware = vec![(1.0, line("Booting from 0000:7c00"))];
        let serial: Agenda = vec![(3.0, line("error: you need to load the kernel first."))];
        let machine = Machine { firmware, serial: Box::new(serial), ..silent() };
        let outcome = of_iso(machine, |request| request.iso.holds_linux = holds_linux).await;
        assert_eq!(outcome.report().cause, Some(cause));
        assert_eq!(outcome.check("boot").verdict, cause.verdict());
    }
}

#[tokio::test(start_paused = true)]
async fn words_of_a_boot_menu_are_no_login_and_no_failure() {
    let words = [" Live (default login: user)", " Live, with a shell (initramfs)", " old login:"];
    let mut serial: Agenda = words.iter().map(|words| (3.0, line(words))).collect();
    serial.extend(good_serial());
    let machine = Machine { serial: Box::new(serial), ..good() };
    let outcome = both(machine).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass; 2]);
    use Phase::*;
    assert_eq!(outcome.phases(), [Firmware, BootMenu, Kernel, Initramfs, Userspace, MultiUser]);
    let [faithful, _] = &outcome.report().lanes[..] else { panic!("{:?}", outcome.report().lanes) };
    assert_eq!(faithful.summary, "reached multi-user; the probe says the rest");
}

#[tokio::test(start_paused = true)]
async fn a_boot_that_only_goes_on_ends_at_its_time_limit() {
    let kernel = vec![(5.0, line("[    0.000000] Linux version 6.12.1"))];
    for (serial, summary) in [
        (kernel, "the boot did not get beyond the phase \"kernel\" within 420 seconds"),
        (vec![], "the boot did not get beyond the start within 420 seconds"),
    ] {
        let outcome = both(Machine { serial: Box::new(serial), ..silent() }).await;
        assert_eq!(outcome.verdicts(), [Verdict::Fail, Verdict::Inconclusive]);
        assert_eq!(outcome.report().cause, Some(Cause::TooSlow));
        assert_eq!(outcome.check("boot").summary, summary);
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
    let outcome = both(Machine { serial: Box::new(serial), probe, ..silent() }).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass, Verdict::Pass]);
}

#[tokio::test(start_paused = true)]
async fn slow_machines_get_more_time() {
    let folder = TempDir::new().unwrap();
    let mut request = request(&folder, &[CheckSpec::boot()]);
    request.acceleration.scale = 2.0;
    // The probe comes late, and then the system takes another 300 seconds.
    let mut times = 0;
    let probe = fake::probe(500.0, move |asked| {
        times += 1;
        vec![(1.0, if times < 100 { asked.answer(0, "state starting\n") } else { healthy(asked) })]
    });
    let machine = Machine { probe, ..silent() };
    let outcome = run_request(FakeHost::new([Ok(machine)]), folder, &request, std::future::pending()).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass]);
}

#[tokio::test(start_paused = true)]
async fn a_login_prompt_without_a_probe_came_up_but_cannot_be_judged() {
    let kernel = line("[    0.000000] Linux version 6.12.1");
    let serial: Agenda = vec![(5.0, kernel), (100.0, Act::Say(b"live login: ".to_vec()))];
    let outcome = both(Machine { serial: Box::new(serial), ..silent() }).await;
    assert_eq!(outcome.verdicts(), [Verdict::Inconclusive; 2]);
    assert_eq!(outcome.report().cause, Some(Cause::NoProbe));
    for check in &outcome.report().checks {
        assert!(check.summary.contains("came up (live login:), but no probe got in"), "{}", check.summary);
    }
    assert_eq!(outcome.phases(), [Phase::Kernel, Phase::MultiUser]);
    assert!((145.0..147.0).contains(&outcome.seconds), "{}", outcome.seconds);
    let [lane] = &outcome.report().lanes[..] else { panic!("{:?}", outcome.report().lanes) };
    assert_eq!((lane.verdict, lane.summary.as_str()), (Verdict::Pass, "came up by itself: live login:"));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_switches_itself_off_or_restarts_for_ever_fails() {
    let off = vec![(20.0, "SHUTDOWN", true)];
    let restarts = vec![(10.0, "RESET", true), (12.0, "RESET", true), (20.0, "RESET", true)];
    let panic = vec![(20.0, "GUEST_PANICKED", true)];
    for (events, cause) in
        [(off, Cause::PoweredOff), (restarts, Cause::RebootLoop), (panic, Cause::KernelPanic)]
    {
        let outcome = both(with_events(events, good())).await;
        assert_eq!(outcome.verdicts(), [Verdict::Fail, Verdict::Inconclusive], "{cause}");
        assert_eq!(outcome.report().cause, Some(cause));
        assert!((24.0..25.0).contains(&outcome.seconds), "{cause}: {}", outcome.seconds);
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
    let machine = Machine { serial: Box::new(serial), ..silent() };
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
    let outcome = both(Machine { serial: Box::new(Endless(0)), ..silent() }).await;
    assert_eq!(outcome.verdicts(), [Verdict::Fail, Verdict::Inconclusive]);
    assert!(outcome.seconds < 430.0, "{}", outcome.seconds);
}
