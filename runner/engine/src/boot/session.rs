//! One boot from the machine's first instruction to the last verdict.

use std::time::Duration;

use isokiln_core::boot::{
    Answer, BootReport, CheckResult, CheckSpec, ConsoleReader, Firmware, GuestFiles, Judgement, Lane,
    Machine, Phase, PhaseTime, Platform, ProbeMessage, Sighting, Verdict, qemu_args,
};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::evidence::Evidence;
use super::probe::Probe;
use super::qmp::Monitor;
use super::watch::{Ending, Watch};
use super::{BootError, BootNews, BootRequest, Guest, GuestHost, Order, REPORT_FILE};

/// QEMU's folder in its container.
const FOLDER: &str = "/run/guest";
/// Seconds that one run of a check's script may take on the reference machine.
const SCRIPT_SECONDS: f64 = 120.0;
/// Pause before a check that does not hold yet is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How often time limits are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long QEMU may take to end after a connection to it was lost.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Boots the ISO and makes every check. What goes wrong with the tester is an error; what goes wrong
/// with the ISO is in the report.
pub async fn boot(
    host: &dyn GuestHost,
    request: &BootRequest,
    news: mpsc::UnboundedSender<BootNews>,
    cancelled: impl Future<Output = ()> + Send,
) -> Result<BootReport, BootError> {
    let mut evidence = Evidence::new(&request.folder)?;
    if let Some(result) = refuse(request) {
        // Whoever listened may have gone; the report says the same.
        drop(news.send(BootNews::Checked(result.clone())));
        return finish(request, &evidence, Vec::new(), with_untested(request, vec![result], 0.0), 0.0);
    }
    let files = GuestFiles { iso: request.iso.path.clone(), folder: FOLDER.to_owned() };
    let machine = Machine {
        profile: &request.profile,
        accelerator: request.acceleration.accelerator,
        memory: request.memory,
        cpus: request.cpus,
    };
    let arguments = qemu_args(&machine, &files);
    evidence.file("qemu.args", arguments.join("\n").as_bytes())?;
    let order = Order {
        purpose: format!("boot-{}", request.profile.name),
        arguments,
        kvm: request.acceleration.accelerator == isokiln_core::boot::Accelerator::Kvm,
        files: Vec::new(),
    };
    let guest = host.start(order).await?;
    let session = Session { request, guest: &*guest, files, evidence: &mut evidence, news, milestone: None };
    let outcome = tokio::select! {
        outcome = session.run() => outcome,
        () = cancelled => Err(BootError::Cancelled),
    };
    let removed = guest.remove().await;
    let (phases, checks, seconds) = outcome?;
    removed?;
    finish(request, &evidence, phases, checks, seconds)
}

/// A failure that can be told without booting: the firmware is promised nothing.
fn refuse(request: &BootRequest) -> Option<CheckResult> {
    let (platform, name) = match request.profile.firmware {
        Firmware::Bios => (Platform::Bios, "BIOS"),
        Firmware::Uefi => (Platform::Efi, "UEFI"),
    };
    if request.iso.facts.boots_on(platform) {
        return None;
    }
    let entries = &request.iso.facts.boot_entries;
    let summary = if entries.is_empty() {
        "the ISO has no boot record (El Torito): no firmware can start it from a CD".to_owned()
    } else {
        format!("the ISO has no boot record (El Torito) for {name}")
    };
    Some(CheckResult {
        check: CheckSpec::Boot.name(),
        lane: Lane::Faithful,
        verdict: Verdict::Fail,
        summary,
        evidence: vec![format!("boot catalogue: {entries:?}")],
        seconds: 0.0,
    })
}

/// Adds the checks that were not made, because the boot ended before they could be; its result comes first.
fn with_untested(request: &BootRequest, mut results: Vec<CheckResult>, seconds: f64) -> Vec<CheckResult> {
    let why = results.first().map_or_else(String::new, |first| format!(": {}", first.summary));
    for check in &request.checks {
        if !results.iter().any(|result| result.check == check.name()) {
            results.push(CheckResult {
                check: check.name(),
                lane: Lane::Probe,
                verdict: Verdict::Inconclusive,
                summary: format!("not tested{why}"),
                evidence: Vec::new(),
                seconds,
            });
        }
    }
    results
}

fn finish(
    request: &BootRequest,
    evidence: &Evidence,
    phases: Vec<PhaseTime>,
    checks: Vec<CheckResult>,
    seconds: f64,
) -> Result<BootReport, BootError> {
    let report = report(request, phases, checks, seconds);
    let json = serde_json::to_vec_pretty(&report).unwrap_or_default();
    evidence.file(REPORT_FILE, &json)?;
    Ok(report)
}

pub(super) fn report(
    request: &BootRequest,
    phases: Vec<PhaseTime>,
    checks: Vec<CheckResult>,
    seconds: f64,
) -> BootReport {
    BootReport {
        iso: request.iso.name.clone(),
        digest: request.iso.digest,
        size: request.iso.size,
        profile: request.profile.name.clone(),
        accelerator: request.acceleration.accelerator.to_string(),
        accelerator_reason: request.acceleration.reason.clone(),
        phases,
        verdict: BootReport::overall(&checks),
        checks,
        seconds,
    }
}

struct Session<'s> {
    request: &'s BootRequest,
    guest: &'s dyn Guest,
    files: GuestFiles,
    evidence: &'s mut Evidence,
    news: mpsc::UnboundedSender<BootNews>,
    /// A picture to take.
    milestone: Option<&'static str>,
}

/// What connects the session with the machine.
struct Lines<'s> {
    monitor: Monitor<'s>,
    probe: Probe,
    serial: Box<dyn AsyncRead + Send + Unpin>,
    firmware: Box<dyn AsyncRead + Send + Unpin>,
}

/// The check that is being made.
struct Asking {
    index: usize,
    since: Instant,
    /// When to ask (again); `None` while an answer is awaited.
    next: Option<Instant>,
    asked: Instant,
}

impl<'s> Session<'s> {
    async fn run(mut self) -> Result<(Vec<PhaseTime>, Vec<CheckResult>, f64), BootError> {
        let (event_sender, mut events) = mpsc::unbounded_channel();
        let mut ended = std::pin::pin!(self.guest.ended());
        let connected = tokio::select! {
            biased;
            ended = &mut ended => return Err(quit(ended)),
            connected = self.connect(event_sender) => connected,
        };
        let Lines { mut monitor, mut probe, mut serial, mut firmware } = match connected {
            Ok(lines) => lines,
            Err(error) => return Err(last_words(&mut ended).await.unwrap_or(error)),
        };
        let mut consoles = [ConsoleReader::default(), ConsoleReader::default()];
        let mut buffers = [vec![0; 16 << 10], vec![0; 16 << 10]];
        let [serial_buffer, firmware_buffer] = &mut buffers;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);

        let mut watch = Watch::new(self.request.acceleration.scale);
        let mut results: Vec<CheckResult> = Vec::new();
        let mut asking: Option<Asking> = None;
        let mut hung_up = false;

        let ending = loop {
            tokio::select! {
                // Time first: it must not stand still for a guest that talks without a pause. Then the
                // consoles: what they say explains what the others only notice.
                biased;
                _ = ticks.tick() => {
                    if let Some(label) = self.milestone.take() {
                        self.picture(&mut monitor, label).await;
                    }
                    if asking.is_none() {
                        if let Some(ending) = watch.ending() {
                            break Some(ending);
                        }
                    } else if let Some(ending) = watch.failure() {
                        break Some(ending);
                    }
                    if let Some(current) = &mut asking
                        && let Some(result) = self.ask(current, &mut probe, hung_up, &watch).await
                    {
                        let next = current.index + 1;
                        self.tell(BootNews::Checked(result.clone()));
                        results.push(result);
                        if next == self.request.checks.len() {
                            break None;
                        }
                        asking = Some(Asking::new(next));
                    }
                }
                count = serial.read(serial_buffer) => {
                    let count = count.map_err(|error| BootError::Host(error.to_string()))?;
                    if count == 0 {
                        return Err(last_words(&mut ended).await.unwrap_or_else(lost));
                    }
                    self.console(&mut watch, &mut consoles[0], "serial.log", &serial_buffer[..count])?;
                }
                count = firmware.read(firmware_buffer) => {
                    let count = count.map_err(|error| BootError::Host(error.to_string()))?;
                    if count == 0 {
                        return Err(last_words(&mut ended).await.unwrap_or_else(lost));
                    }
                    self.console(&mut watch, &mut consoles[1], "firmware.log", &firmware_buffer[..count])?;
                }
                Some(event) = events.recv() => {
                    self.evidence.append("qmp.jsonl", format!("{event}\n").as_bytes())?;
                    watch.event(&event);
                    if event["event"] == "STOP" {
                        self.note_stop(&mut monitor, &mut watch).await;
                    }
                }
                said = probe.next(), if !hung_up => match said {
                    Some(ProbeMessage::Hello) => hung_up = probe.send_agent().await.is_none(),
                    Some(ProbeMessage::Ready) => {
                        self.reached(&mut watch, Phase::Userspace);
                        asking.get_or_insert_with(|| Asking::new(0));
                    }
                    Some(ProbeMessage::Answer { answer, .. }) => {
                        if let Some(current) = asking.take() {
                            asking = self.judge(&mut watch, &mut results, current, &answer);
                            if asking.is_none() {
                                break None;
                            }
                        }
                    }
                    None => hung_up = true,
                },
                ended = &mut ended => return Err(quit(ended)),
            }
        };
        if let Some(ending) = &ending {
            let result = self.explain(ending, &watch);
            // What the probe said before the end stays; the boot itself is what failed.
            results.retain(|earlier| earlier.check != result.check);
            self.tell(BootNews::Checked(result.clone()));
            results.insert(0, result);
        }
        let label = if ending.is_some() { "failure" } else { "end" };
        self.picture(&mut monitor, label).await;
        let seconds = watch.seconds();
        Ok((watch.phases, with_untested(self.request, results, seconds), seconds))
    }

    /// Connects everything, then lets the guest execute its first instruction.
    async fn connect(&self, events: mpsc::UnboundedSender<Value>) -> Result<Lines<'s>, BootError> {
        let mut monitor = Monitor::open(self.guest, self.files.path("qmp.sock"), events).await?;
        let probe = Probe::new(self.guest.connect(&self.files.path("probe.sock")).await?);
        let serial = self.guest.follow(&self.files.path("serial.log")).await?;
        let firmware = self.guest.follow(&self.files.path("firmware.log")).await?;
        monitor.execute(qapi::qmp::cont {}).await?;
        Ok(Lines { monitor, probe, serial, firmware })
    }

    fn tell(&self, news: BootNews) {
        // Whoever listened may have gone; the report says the same.
        drop(self.news.send(news));
    }

    fn reached(&mut self, watch: &mut Watch, phase: Phase) {
        if let Some(time) = watch.entered(phase) {
            self.milestone = match phase {
                Phase::BootMenu => Some("boot-menu"),
                Phase::Userspace => Some("userspace"),
                Phase::MultiUser => Some("multi-user"),
                Phase::Firmware | Phase::Kernel | Phase::Initramfs => self.milestone,
            };
            self.tell(BootNews::Entered(time.phase, time.seconds));
        }
    }

    fn console(
        &mut self,
        watch: &mut Watch,
        reader: &mut ConsoleReader,
        log: &str,
        bytes: &[u8],
    ) -> Result<(), BootError> {
        self.evidence.append(log, bytes)?;
        for (sighting, line) in reader.feed(bytes) {
            match sighting {
                Sighting::Entered(phase) => self.reached(watch, phase),
                Sighting::Failed(failure) => watch.failed(failure, line),
            }
        }
        Ok(())
    }

    /// Asks why QEMU stopped the machine; a guest's own shutdown also stops it and has its own event.
    async fn note_stop(&self, monitor: &mut Monitor<'_>, watch: &mut Watch) {
        if let Ok(status) = monitor.execute(qapi::qmp::query_status {}).await {
            let state = format!("{:?}", status.status);
            if !["running", "shutdown", "paused", "guest_panicked"].contains(&state.as_str()) {
                watch.stopped(&state);
            }
        }
    }

    /// Asks if it is time to; gives the check's end if its time is over.
    async fn ask(
        &self,
        current: &mut Asking,
        probe: &mut Probe,
        hung_up: bool,
        watch: &Watch,
    ) -> Option<CheckResult> {
        let check = &self.request.checks[current.index];
        if hung_up {
            return Some(self.silent(check, watch));
        }
        let scale = self.request.acceleration.scale;
        let script_seconds = (SCRIPT_SECONDS * scale).ceil();
        match current.next {
            Some(at) if at <= Instant::now() => {
                current.next = None;
                current.asked = Instant::now();
                let asked = probe.ask(script_seconds as u64, &check.script()).await;
                asked.is_none().then(|| self.silent(check, watch))
            }
            Some(_) => None,
            // The agent stops scripts by itself, so this long a silence means that it cannot.
            None if current.asked.elapsed().as_secs_f64() > script_seconds + 60.0 => {
                Some(self.silent(check, watch))
            }
            None => None,
        }
    }

    fn silent(&self, check: &CheckSpec, watch: &Watch) -> CheckResult {
        CheckResult {
            check: check.name(),
            lane: Lane::Probe,
            verdict: Verdict::Inconclusive,
            summary: "the probe in the guest has stopped answering; try again, with more memory if the guest ran out \
                      of it"
                .to_owned(),
            evidence: Vec::new(),
            seconds: watch.seconds(),
        }
    }

    /// Takes an answer; gives what to ask next, if anything.
    fn judge(
        &mut self,
        watch: &mut Watch,
        results: &mut Vec<CheckResult>,
        mut current: Asking,
        answer: &Answer,
    ) -> Option<Asking> {
        let check = &self.request.checks[current.index];
        let finding = match check.judge(answer) {
            Judgement::Settled(finding) => finding,
            Judgement::NotYet(finding) => {
                let patience = check.patience().mul_f64(self.request.acceleration.scale);
                if current.since.elapsed() < patience {
                    current.next = Some(Instant::now() + ASK_AGAIN);
                    return Some(current);
                }
                finding
            }
        };
        let check = check.clone();
        if check == CheckSpec::Boot && finding.verdict == Verdict::Pass {
            self.reached(watch, Phase::MultiUser);
        }
        let result = CheckResult {
            check: check.name(),
            lane: Lane::Probe,
            verdict: finding.verdict,
            summary: finding.summary,
            evidence: finding.evidence,
            seconds: watch.seconds(),
        };
        self.tell(BootNews::Checked(result.clone()));
        results.push(result);
        let next = current.index + 1;
        (next < self.request.checks.len()).then(|| Asking::new(next))
    }

    /// The boot's own verdict, where the probe could not give it.
    fn explain(&self, ending: &Ending, watch: &Watch) -> CheckResult {
        let furthest =
            watch.furthest().map_or("the start".to_owned(), |phase| format!("the phase \"{phase}\""));
        let (verdict, summary, evidence) = match ending {
            Ending::Failed { failure, line } => (Verdict::Fail, failure.to_string(), vec![line.clone()]),
            Ending::PoweredOff => (Verdict::Fail, "the machine switched itself off".to_owned(), vec![]),
            Ending::RebootLoop => (Verdict::Fail, "the machine restarts again and again".to_owned(), vec![]),
            Ending::Panicked => (Verdict::Fail, "the guest's kernel reports a panic".to_owned(), vec![]),
            Ending::Stopped(state) => (Verdict::Infra, format!("QEMU stopped the machine: {state}"), vec![]),
            Ending::NoProbe => (
                Verdict::Inconclusive,
                "a login prompt came, but no probe: it needs an ISO with systemd 256 or later".to_owned(),
                vec![],
            ),
            Ending::TooSlow => (
                Verdict::Fail,
                format!("the boot did not get beyond {furthest} within {:.0} seconds", watch.seconds()),
                vec![],
            ),
            Ending::Silent => (
                Verdict::Inconclusive,
                format!(
                    "nothing was heard beyond {furthest} within {:.0} seconds: add console=ttyS0 to the ISO's kernel \
                     arguments, so that a silent boot can be told from a hung one",
                    watch.seconds()
                ),
                vec![],
            ),
        };
        CheckResult {
            check: CheckSpec::Boot.name(),
            lane: Lane::Faithful,
            verdict,
            summary,
            evidence,
            seconds: watch.seconds(),
        }
    }

    /// Takes a picture. It is evidence but decides nothing, so one that cannot be had is only noted.
    async fn picture(&mut self, monitor: &mut Monitor<'_>, label: &str) {
        let path = self.files.path("screen.png");
        let kept = match monitor.screenshot(&path).await {
            Ok(()) => match self.guest.read(&path).await {
                Ok(png) => self.evidence.picture(label, &png),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::warn!("no picture of the screen: {error}");
        }
    }
}

/// What QEMU's end means to the session.
fn quit(ended: Result<(i64, String), BootError>) -> BootError {
    match ended {
        Ok((status, words)) => BootError::QemuEnded { status, words },
        Err(error) => error,
    }
}

fn lost() -> BootError {
    BootError::Host("the connection to the machine was lost".to_owned())
}

/// Whatever is lost first when QEMU ends, its last words say why.
async fn last_words(
    ended: &mut (impl Future<Output = Result<(i64, String), BootError>> + Unpin),
) -> Option<BootError> {
    tokio::time::timeout(LAST_WORDS, ended).await.ok().map(quit)
}

impl Asking {
    fn new(index: usize) -> Self {
        let now = Instant::now();
        Self { index, since: now, next: Some(now), asked: now }
    }
}
