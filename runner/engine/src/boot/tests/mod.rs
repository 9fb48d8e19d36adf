//! Boot tests of machines that are made up, so that every part of them can misbehave on command. Time is
//! made up as well: it passes only while everybody waits.

mod accelerate;
mod body;
mod consoles;
mod fake;
mod looks;
mod monitor;
mod probe;
mod screens;
mod second;
mod session;
mod watch;
mod ways;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use isokiln_core::boot::{
    Accelerator, BootEntry, BootReport, Cause, Channel, Check, CheckCatalog, CheckResult, CheckSpec,
    Firmware, Inventory, IsoFacts, MachineProfile, Medium, Phase, Platform, Ride, Verdict,
};
use isokiln_core::digest::Digest;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, timeout};

use self::body::{Key, Pose, Processor, Screen};
use self::fake::{Actor, Agenda, Asked, Command, FakeHost, Machine, line};
use super::{Acceleration, BootError, BootNews, BootRequest, IsoUnderTest, Measured, boot, infra_report};

/// A boot menu of isolinux's that waits for ever; its editor on an entry.
const WAITING: &[u8] = include_bytes!("../../../../core/src/boot/screen/fixtures/isolinux-waiting.vga");
const EDITOR: &[u8] = include_bytes!("../../../../core/src/boot/screen/fixtures/isolinux-edit.vga");
const COUNTDOWN: &[u8] = include_bytes!("../../../../core/src/boot/screen/fixtures/isolinux-countdown.vga");
const MEMTEST: &[u8] = include_bytes!("../../../../core/src/boot/screen/fixtures/memtest.vga");

/// No boot test takes longer than this on the reference machine; one that does hangs.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// How a boot test ended.
struct Outcome {
    result: Result<BootReport, BootError>,
    news: Vec<BootNews>,
    seconds: f64,
    host: FakeHost,
    folder: TempDir,
}

impl Outcome {
    fn report(&self) -> &BootReport {
        self.result.as_ref().expect("the tester works")
    }

    fn error(&self) -> &BootError {
        self.result.as_ref().expect_err("the tester broke")
    }

    fn check(&self, name: &str) -> &CheckResult {
        let found: Vec<_> = self.report().checks.iter().filter(|check| check.check == name).collect();
        assert_eq!(found.len(), 1, "{name}: {:?}", self.report().checks);
        found[0]
    }

    fn verdicts(&self) -> Vec<Verdict> {
        self.report().checks.iter().map(|check| check.verdict).collect()
    }

    fn phases(&self) -> Vec<Phase> {
        self.report().phases.iter().map(|time| time.phase).collect()
    }

    /// The keys that were pressed at a machine, counted from 0.
    fn keys(&self, machine: usize) -> Vec<String> {
        self.host.ledger.sights.lock().unwrap()[machine].keys()
    }

    /// What the disks of a machine were told through its monitor, and when.
    fn told_disks(&self, machine: usize) -> Vec<(f64, String)> {
        self.host.ledger.sights.lock().unwrap()[machine].told()
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn pictures(&self) -> Vec<String> {
        let screens = fs::read_dir(self.folder.path().join("screens")).unwrap();
        let mut names: Vec<_> =
            screens.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A machine on which everything is as it should be.
fn good() -> Machine {
    Machine {
        monitor: Box::new(|_| fake::monitor(vec![], Command::obey)),
        probe: fake::probe(40.0, |asked| vec![(1.0, healthy(asked))]),
        shell: Actor::stubborn(vec![]),
        agent: Box::new(|_| Actor::stubborn(vec![])),
        body: Arc::new(|seconds, _| healthy_body(seconds)),
        serial: Box::new(good_serial()),
        firmware: vec![(0.5, line("SeaBIOS (version 1.16)")), (1.0, line("Booting from 0000:7c00"))],
        end: None,
        removable: true,
    }
}

/// Another picture for each phase, and never at rest.
fn healthy_body(seconds: f64) -> Pose {
    let (processor, grey) = match seconds {
        ..1.0 => (Processor::Waits, 0),
        ..5.0 => (Processor::Waits, 40),
        ..7.5 => (Processor::Kernel, 80),
        ..30.0 => (Processor::Program, 120),
        ..40.0 => (Processor::Program, 160),
        _ => (Processor::Program, 200),
    };
    Pose::new(processor, (seconds * 1e6) as u64, Screen::Grey(grey))
}

/// A machine that is seen, but says nothing by itself.
fn dark(body: impl Fn(f64, &[Key]) -> Pose + Send + Sync + 'static) -> Machine {
    Machine {
        probe: Actor::stubborn(vec![]),
        body: Arc::new(body),
        serial: Box::new(Agenda::new()),
        firmware: vec![],
        ..good()
    }
}

fn good_serial() -> Agenda {
    vec![
        (5.0, line("[    0.000000] Linux version 6.12.1")),
        (7.5, line("[    2.500000] Run /init as init process")),
        (30.0, line("[   25.000000] systemd[1]: systemd 257 running in system mode")),
        (30.0, line("[   25.000000] systemd[1]: Hostname set to <live>.")),
    ]
}

/// Answers as a system on which everything is as it should be.
fn healthy(asked: &Asked) -> fake::Act {
    let output = if asked.is(&CheckSpec::boot()) {
        "state running\ntarget multi-user.target\n"
    } else if asked.is(&network_manager()) {
        "system running\nload loaded\nservice active\ndevice enp0s2:ethernet:connected\n"
    } else if asked.is(&wlan()) {
        "kernel 6.12.1\nloaded iwlwifi\nhwsim loaded\njoined wlan1 10.77.0.2/24\n"
    } else if asked.script == Inventory::SCRIPT {
        "kernel 6.12.1\nmodule virtio_console\nmodule e1000e\n"
    } else {
        "done\n"
    };
    asked.answer(0, output)
}

fn command(run: &str) -> CheckSpec {
    check(&format!("command:{run}"))
}

/// A check as it is written on a command line.
fn check(text: &str) -> CheckSpec {
    CheckCatalog::default().parse(text).unwrap()
}

fn network_manager() -> CheckSpec {
    Check::NetworkManager.into()
}

fn wlan() -> CheckSpec {
    Check::Wlan.into()
}

fn request(folder: &TempDir, checks: &[CheckSpec]) -> BootRequest {
    let bios = BootEntry { platform: Platform::Bios, bootable: true, image: 0 };
    BootRequest {
        iso: IsoUnderTest {
            name: "demo.iso".to_owned(),
            digest: Digest::of(b"demo"),
            size: 4,
            facts: IsoFacts { label: "DEMO".to_owned(), boot_entries: vec![bios], ..IsoFacts::default() },
            holds_linux: true,
            menu_waits: false,
            takes_credentials: true,
            path: "/volume/iso/demo.iso".to_owned(),
        },
        profile: MachineProfile {
            name: "bios-cd".parse().unwrap(),
            summary: String::new(),
            firmware: Firmware::Bios,
            medium: Medium::Cd,
            memory: 2 << 30,
            cpus: 2,
            network: "e1000e".to_owned(),
            display: "VGA".to_owned(),
            sound: None,
        },
        memory: 1 << 30,
        cpus: 2,
        checks: checks.to_vec(),
        rides: vec![Ride::of_medium(vec![Channel::Credentials])],
        unattended: false,
        acceleration: Measured {
            accelerator: Accelerator::Tcg,
            reason: "made up".to_owned(),
            seconds: 1.5,
            scale: 1.0,
        },
        builder: "builder".to_owned(),
        folder: folder.path().to_owned(),
    }
}

/// Boots machines, one for each way, and makes the checks.
async fn run_rides(rides: Vec<Ride>, machines: Vec<Machine>, checks: &[CheckSpec]) -> Outcome {
    let folder = TempDir::new().unwrap();
    let request = BootRequest { rides, ..request(&folder, checks) };
    run_request(FakeHost::new(machines.into_iter().map(Ok)), folder, &request, std::future::pending()).await
}

/// Boots a machine and makes the checks.
async fn run(machine: Machine, checks: &[CheckSpec]) -> Outcome {
    let folder = TempDir::new().unwrap();
    let request = request(&folder, checks);
    run_request(FakeHost::new([Ok(machine)]), folder, &request, std::future::pending()).await
}

/// Whatever happens: it comes to an end, and every machine that was started is removed.
async fn run_request(
    host: FakeHost,
    folder: TempDir,
    request: &BootRequest,
    cancelled: impl Future<Output = ()> + Send,
) -> Outcome {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let began = Instant::now();
    let result = timeout(FOR_EVER, boot(&host, request, sender, cancelled)).await.expect("it hangs");
    let seconds = began.elapsed().as_secs_f64();
    let started = host.ledger.orders.lock().unwrap().len();
    assert_eq!(host.ledger.removed.load(Ordering::SeqCst), started, "a machine was left behind");
    let mut news = Vec::new();
    while let Ok(item) = receiver.try_recv() {
        news.push(item);
    }
    Outcome { result, news, seconds, host, folder }
}

/// A test of an ISO of which something else is known.
async fn of_iso(machine: Machine, iso: impl FnOnce(&mut BootRequest)) -> Outcome {
    let folder = TempDir::new().unwrap();
    let mut request = request(&folder, &[CheckSpec::boot()]);
    iso(&mut request);
    run_request(FakeHost::new([Ok(machine)]), folder, &request, std::future::pending()).await
}

/// Boots a machine on which the tester breaks; gives the error, and the seconds that it took.
async fn broken(machine: Machine) -> (BootError, f64) {
    let checks = [CheckSpec::boot(), wlan()];
    let outcome = run(machine, &checks).await;
    let report = infra_report(&request(&outcome.folder, &checks), outcome.error());
    assert_eq!(report.verdict, Verdict::Infra);
    assert!(report.checks.iter().all(|check| check.verdict == Verdict::Infra), "{:?}", report.checks);
    assert!(outcome.seconds < 60.0, "after {} seconds", outcome.seconds);
    (outcome.result.unwrap_err(), outcome.seconds)
}
