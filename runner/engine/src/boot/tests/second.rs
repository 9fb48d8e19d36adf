//! Several machines, and what they prove together.

use isokiln_core::boot::{DirectKernel, Lane};

use super::fake::{Act, End};
use super::*;

/// The probe comes with the initrd.
fn by_kernel() -> Ride {
    Ride::of_kernel(DirectKernel {
        kernel: "/live/vmlinuz".to_owned(),
        initrds: vec!["/live/initrd.img".to_owned()],
        arguments: "boot=live".to_owned(),
    })
}

fn faithful() -> Ride {
    Ride::of_medium(vec![])
}

/// A machine that comes up, and lets no probe in.
fn comes_up() -> Machine {
    let mut serial = good_serial();
    serial.push((50.0, Act::Say(b"live login: ".to_vec())));
    Machine { probe: Actor::stubborn(vec![]), serial: Box::new(serial), ..good() }
}

/// A machine of which nothing is heard.
fn silent() -> Machine {
    dark(|seconds, _| match seconds {
        ..5.0 => Pose::new(Processor::Waits, 0, Screen::Grey(0)),
        ..9.0 => Pose::new(Processor::Kernel, 0, Screen::Grey(1)),
        ..20.0 => Pose::new(Processor::Program, 0, Screen::Grey(1)),
        _ => Pose::new(Processor::Halted, 0, Screen::Grey(1)),
    })
}

fn panics() -> Machine {
    let mut serial = good_serial();
    serial.push((32.0, line("[   27.0] Kernel panic - not syncing: Attempted to kill init!")));
    Machine { probe: Actor::stubborn(vec![]), serial: Box::new(serial), ..good() }
}

fn checks() -> [CheckSpec; 2] {
    [CheckSpec::boot(), network_manager()]
}

fn lanes(outcome: &Outcome) -> Vec<(Lane, Option<Channel>, Verdict)> {
    outcome.report().lanes.iter().map(|lane| (lane.lane, lane.channel, lane.verdict)).collect()
}

use Verdict::*;

#[tokio::test(start_paused = true)]
async fn what_came_up_by_itself_is_judged_by_a_second_machine() {
    let outcome = run_rides(vec![faithful(), by_kernel()], vec![comes_up(), good()], &checks()).await;
    assert_eq!(outcome.verdicts(), [Pass, Pass]);
    assert_eq!(outcome.report().cause, None);
    let hook = (Lane::Probe, Some(Channel::InitramfsHook), Pass);
    assert_eq!(lanes(&outcome), [(Lane::Faithful, None, Pass), hook]);
    assert_eq!(outcome.check("boot").channel, Some(Channel::InitramfsHook));
    // The ISO's own way is the first machine's.
    assert_eq!(outcome.report().phases.last().map(|time| time.phase), Some(Phase::MultiUser));
    assert!(outcome.report().phases.last().unwrap().seconds > 49.0);
    assert!(outcome.report().seconds > 80.0, "both machines: {}", outcome.report().seconds);

    assert!(outcome.file("serial.log").contains("login:"));
    assert!(outcome.file("machine-2/serial.log").contains("Linux version"));
    let (first, second) = (outcome.file("qemu.args"), outcome.file("machine-2/qemu.args"));
    assert!(!first.contains("-kernel") && second.contains("-kernel"), "{second}");
    assert!(outcome.folder.path().join("machine-2/end.png").exists());
    assert!(outcome.folder.path().join("failure.png").exists());
    let orders = outcome.host.ledger.orders.lock().unwrap();
    let files: Vec<_> = orders.iter().map(|order| order.files.len()).collect();
    assert!(files[0] == 0 && files[1] > 0, "the hook is for the second only: {files:?}");
    let told: Vec<_> = outcome.news.iter().filter(|item| matches!(item, BootNews::Checked(_))).collect();
    assert_eq!(told.len(), 2, "nothing is told that is taken back: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_kernel_started_directly_does_not_prove_that_the_iso_boots() {
    let folder = TempDir::new().unwrap();
    let rides = vec![faithful(), by_kernel()];
    let mut request = BootRequest { rides, ..request(&folder, &checks()) };
    request.iso.takes_credentials = false;
    let host = FakeHost::new([Ok(silent()), Ok(good())]);
    let outcome = run_request(host, folder, &request, std::future::pending()).await;
    assert_eq!(outcome.verdicts(), [Inconclusive, Pass]);
    let summary = &outcome.check("boot").summary;
    assert!(summary.contains("kernel is started directly, but of its own boot"), "{summary}");
    assert_eq!(outcome.report().cause, Some(Cause::Silent));
    let hook = (Lane::Probe, Some(Channel::InitramfsHook), Pass);
    assert_eq!(lanes(&outcome), [(Lane::Faithful, None, Inconclusive), hook]);
}

#[tokio::test(start_paused = true)]
async fn a_second_machine_that_goes_through_the_boot_loader_decides() {
    let rides = vec![faithful(), Ride::of_medium(vec![Channel::BootMenu])];
    let outcome = run_rides(rides, vec![silent(), good()], &checks()).await;
    assert_eq!(outcome.verdicts(), [Pass, Pass]);
    assert_eq!(outcome.report().cause, None);
}

#[tokio::test(start_paused = true)]
async fn a_boot_that_failed_needs_no_second_machine() {
    let outcome = run_rides(vec![faithful(), by_kernel()], vec![panics()], &checks()).await;
    assert_eq!(outcome.verdicts(), [Fail, Inconclusive]);
    assert_eq!(outcome.report().cause, Some(Cause::KernelPanic));
}

#[tokio::test(start_paused = true)]
async fn a_second_machine_condemns_nothing() {
    let third = Ride::of_medium(vec![Channel::Console]);
    let rides = vec![faithful(), by_kernel(), third];
    let outcome = run_rides(rides, vec![comes_up(), panics(), comes_up()], &checks()).await;
    assert_eq!(outcome.verdicts(), [Inconclusive, Inconclusive], "{:?}", outcome.report());
    assert_eq!(outcome.report().cause, Some(Cause::NoProbe));
    let notes = outcome.report().notes.join("\n");
    assert!(notes.contains("did not come up: kernel panic"), "{notes}");
    assert_eq!(outcome.host.ledger.orders.lock().unwrap().len(), 3, "the next way is tried");

    // Nor one of which nothing is known: its boot was another one.
    let outcome = run_rides(vec![faithful(), by_kernel()], vec![silent(), panics()], &checks()).await;
    assert_eq!((outcome.report().cause, outcome.verdicts()[0]), (Some(Cause::Silent), Inconclusive));
    assert!(outcome.report().notes.join("\n").contains("did not come up: kernel panic"));
}

#[tokio::test(start_paused = true)]
async fn a_second_machine_that_breaks_takes_nothing_back() {
    let end = End { known: 20.0, closed: 20.0, status: 1, words: "no memory" };
    let rides = || vec![faithful(), by_kernel()];
    for second in [Ok(Machine { end: Some(end), ..good() }), Err(BootError::Host("no memory".to_owned()))] {
        let folder = TempDir::new().unwrap();
        let request = BootRequest { rides: rides(), ..request(&folder, &checks()) };
        let host = FakeHost::new([Ok(comes_up()), second]);
        let outcome = run_request(host, folder, &request, std::future::pending()).await;
        assert_eq!(outcome.verdicts(), [Inconclusive, Inconclusive]);
        assert_eq!(lanes(&outcome), [(Lane::Faithful, None, Pass)]);
        let notes = outcome.report().notes.join("\n");
        assert!(notes.contains("could not be run: ") && notes.contains("no memory"), "{notes}");
    }

    // It had answered the first check already.
    let end = End { known: 41.9, closed: 41.9, status: 1, words: "no memory" };
    let second = Machine { end: Some(end), ..good() };
    let outcome = run_rides(rides(), vec![comes_up(), second], &checks()).await;
    assert_eq!(outcome.verdicts(), [Pass, Inconclusive]);
    assert!(outcome.report().notes.join("\n").contains("no memory"));
}
