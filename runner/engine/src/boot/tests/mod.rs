//! Boot tests of machines that are made up, so that every part of them can misbehave on command. Time is
//! made up as well: it passes only while everybody waits.

mod accelerate;
mod consoles;
mod fake;
mod monitor;
mod probe;
mod session;

use std::fs;
use std::sync::atomic::Ordering;

use isokiln_core::boot::{
    Accelerator, BootEntry, BootReport, CheckResult, CheckSpec, Firmware, IsoFacts, MachineProfile, Medium,
    Phase, Platform, Verdict,
};
use isokiln_core::digest::Digest;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, timeout};

use self::fake::{Agenda, Asked, Command, FakeHost, Machine, line};
use super::{Acceleration, BootError, BootNews, BootRequest, IsoUnderTest, boot, infra_report};

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
        serial: Box::new(good_serial()),
        firmware: vec![(0.5, line("SeaBIOS (version 1.16)")), (1.0, line("Booting from 0000:7c00"))],
        end: None,
        removable: true,
    }
}

fn good_serial() -> Agenda {
    vec![
        (5.0, line("[    0.000000] Linux version 6.12.1")),
        (9.0, line("[    4.000000] Run /init as init process")),
        (30.0, line("[   25.000000] systemd[1]: systemd 257 running in system mode")),
    ]
}

/// Answers as a system on which everything is as it should be.
fn healthy(asked: &Asked) -> fake::Act {
    let output = if asked.script == CheckSpec::Boot.script() {
        "state running\nmulti-user reached\n"
    } else if asked.script == CheckSpec::NetworkManager.script() {
        "system running\nload loaded\nservice active\ndevice enp0s2:ethernet:connected\n"
    } else if asked.script == CheckSpec::Wlan.script() {
        "kernel 6.12.1\nloaded iwlwifi\nhwsim loaded\ndevice wlan0:wifi:disconnected\ndevice wlan1:wifi:disconnected\n"
    } else {
        "done\n"
    };
    asked.answer(0, output)
}

fn command(run: &str) -> CheckSpec {
    format!("command:{run}").parse().unwrap()
}

fn request(folder: &TempDir, checks: &[CheckSpec]) -> BootRequest {
    let bios = BootEntry { platform: Platform::Bios, bootable: true };
    BootRequest {
        iso: IsoUnderTest {
            name: "demo.iso".to_owned(),
            digest: Digest::of(b"demo"),
            size: 4,
            facts: IsoFacts { label: "DEMO".to_owned(), boot_entries: vec![bios], has_mbr: false },
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
        },
        memory: 1 << 30,
        cpus: 2,
        checks: checks.to_vec(),
        acceleration: Acceleration {
            accelerator: Accelerator::Tcg,
            reason: "made up".to_owned(),
            scale: 1.0,
        },
        folder: folder.path().to_owned(),
    }
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

/// Boots a machine on which the tester breaks; gives the error, and the seconds that it took.
async fn broken(machine: Machine) -> (BootError, f64) {
    let checks = [CheckSpec::Boot, CheckSpec::Wlan];
    let outcome = run(machine, &checks).await;
    let report = infra_report(&request(&outcome.folder, &checks), outcome.error());
    assert_eq!(report.verdict, Verdict::Infra);
    assert!(report.checks.iter().all(|check| check.verdict == Verdict::Infra), "{:?}", report.checks);
    assert!(outcome.seconds < 60.0, "after {} seconds", outcome.seconds);
    (outcome.result.unwrap_err(), outcome.seconds)
}
