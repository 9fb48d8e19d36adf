//! A boot test: one machine or several, and what they prove together.
//!
//! The first machine is the faithful lane: firmware, boot menu, kernel and userspace of the ISO, as for a person. Where
//! the probe can come into that same boot, it does. Where it cannot, another machine is started for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};

use isokiln_core::boot::{
    Accelerator, BootReport, Cause, CheckResult, CheckSpec, GuestFiles, HOOK_FOLDER, Lane, LaneReport,
    Machine, Ride, Start, Verdict, hides_record, initrd_hook, prepare_script, qemu_args, qemu_args_by_hand,
};
use tokio::sync::mpsc::UnboundedSender;

use super::evidence::Evidence;
use super::report::{blank, broken, completed, ended, faithful_lane, no_machine};
use super::session::{Outcome, Session};
use super::watch::Ending;
use super::{BootError, BootNews, BootRequest, FOLDER, GuestHost, Order, REPORT_FILE};

/// Boots the ISO and makes every check. What goes wrong with the tester is an error; what goes wrong
/// with the ISO is in the report.
pub async fn boot(
    host: &dyn GuestHost,
    request: &BootRequest,
    news: UnboundedSender<BootNews>,
    cancelled: impl Future<Output = ()> + Send,
) -> Result<BootReport, BootError> {
    let evidence = Evidence::new(&request.folder)?;
    let report = match refuse(request) {
        Some(result) => {
            // Whoever listened may have gone; the report says the same.
            drop(news.send(BootNews::Checked(result.clone())));
            let mut report = blank(request);
            report.cause = Some(Cause::NoBootRecord);
            report.lanes.push(LaneReport {
                lane: Lane::Faithful,
                channel: None,
                verdict: Verdict::Fail,
                summary: result.summary.clone(),
                seconds: 0.0,
            });
            report.checks = vec![result];
            completed(request, report)
        }
        None => ride_all(host, request, news, pin!(cancelled)).await?,
    };
    let json = serde_json::to_vec_pretty(&report).unwrap_or_default();
    evidence.file(REPORT_FILE, &json)?;
    Ok(report)
}

/// A failure that can be told without booting: the firmware is promised nothing.
fn refuse(request: &BootRequest) -> Option<CheckResult> {
    let facts = &request.iso.facts;
    let summary = facts.promises(request.profile.firmware, request.profile.medium).err()?;
    Some(CheckResult {
        check: CheckSpec::boot().name(),
        lane: Lane::Faithful,
        channel: None,
        verdict: Verdict::Fail,
        summary,
        cause: None,
        evidence: vec![format!("boot catalogue: {:?}", facts.boot_entries)],
        picture: None,
        seconds: 0.0,
    })
}

async fn ride_all(
    host: &dyn GuestHost,
    request: &BootRequest,
    news: UnboundedSender<BootNews>,
    mut cancelled: Pin<&mut (impl Future<Output = ()> + Send)>,
) -> Result<BootReport, BootError> {
    let mut report = blank(request);
    for (index, ride) in request.rides.iter().enumerate() {
        let folder = match index {
            0 => request.folder.clone(),
            _ => request.folder.join(format!("machine-{}", index + 1)),
        };
        let mut ride_once = async || {
            let number = index + 1;
            ride_once(host, request, ride, number, &folder, &news, cancelled.as_mut()).await
        };
        let mut outcome = ride_once().await;
        if let Err(error) = &outcome
            && error.is_crash()
        {
            // A defect of QEMU's that strikes now and then says nothing about the ISO.
            let kept = set_aside(&folder)?;
            report.notes.push(format!("{error}; started again, and {} kept", kept.display()));
            outcome = ride_once().await;
        }
        let outcome = match outcome {
            Ok(outcome) => outcome,
            // What an earlier machine has shown stays shown.
            Err(error) if index > 0 && !matches!(error, BootError::Cancelled) => {
                report.notes.push(no_machine(&error.to_string()));
                break;
            }
            Err(error) => return Err(error),
        };
        let goes_on = take(request, &mut report, ride, outcome, index, &news);
        if !goes_on {
            break;
        }
    }
    Ok(completed(request, report))
}

/// Starts a machine, watches it to its end and removes it.
async fn ride_once(
    host: &dyn GuestHost,
    request: &BootRequest,
    ride: &Ride,
    machine: usize,
    folder: &Path,
    news: &UnboundedSender<BootNews>,
    cancelled: Pin<&mut (impl Future<Output = ()> + Send)>,
) -> Result<Outcome, BootError> {
    let mut evidence = Evidence::new(folder)?;
    let files = GuestFiles { iso: request.iso.path.clone(), folder: FOLDER.to_owned() };
    let hardware = Machine {
        profile: &request.profile,
        accelerator: request.acceleration.accelerator,
        memory: request.memory,
        cpus: request.cpus,
        start: ride.start.clone(),
        hides_record: hides_record(&request.profile, &ride.start, &request.iso.facts),
    };
    let prepare = prepare_script(&hardware, &files);
    let arguments = qemu_args(&hardware, &files);
    evidence.file("qemu.args", arguments.join("\n").as_bytes())?;
    evidence.by_hand(
        request,
        &prepare_script(&hardware, &by_hand()),
        &qemu_args_by_hand(&hardware, &by_hand(), "none"),
    )?;
    let hook = match &ride.start {
        Start::Kernel(_) => initrd_hook(),
        Start::Medium { .. } => Vec::new(),
    };
    let order = Order {
        purpose: format!("boot-{}", request.profile.name),
        prepare,
        arguments,
        kvm: request.acceleration.accelerator == Accelerator::Kvm,
        files: hook.into_iter().map(|(name, text)| (format!("{HOOK_FOLDER}/{name}"), text.into())).collect(),
    };
    let guest = host.start(order).await?;
    let news = news.clone();
    let session = Session {
        request,
        ride,
        hides_record: hardware.hides_record,
        machine,
        guest: &*guest,
        files,
        evidence: &mut evidence,
        news,
    };
    let outcome = tokio::select! {
        outcome = session.run() => outcome,
        () = cancelled => Err(BootError::Cancelled),
    };
    let removed = guest.remove().await;
    let outcome = outcome?;
    removed?;
    Ok(outcome)
}

/// Renames the evidence of a machine that crashed.
fn set_aside(folder: &Path) -> Result<PathBuf, BootError> {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push("-crashed");
    let kept = folder.with_file_name(name);
    match fs::rename(folder, &kept) {
        Ok(()) => Ok(kept),
        Err(source) => Err(BootError::Evidence { path: kept, source }),
    }
}

/// Where the files lie when a person runs the machine.
fn by_hand() -> GuestFiles {
    GuestFiles { iso: "/iso/under-test.iso".to_owned(), folder: "/tmp/machine".to_owned() }
}

/// Adds what a machine has shown to the report; says whether another is worth starting.
fn take(
    request: &BootRequest,
    report: &mut BootReport,
    ride: &Ride,
    outcome: Outcome,
    index: usize,
    news: &UnboundedSender<BootNews>,
) -> bool {
    let faithful = index == 0;
    report.seconds += outcome.seconds;
    report.notes.extend(outcome.notes);
    if outcome.inventory.is_some() {
        report.inventory = outcome.inventory;
    }
    if faithful {
        report.reached = outcome.phases.iter().map(|time| time.phase).max();
        report.phases = outcome.phases;
        report.menu = outcome.menu;
    }
    let proves_boot = ride.channels.first().is_none_or(|channel| channel.proves_boot_loader());
    let mut results = outcome.results;
    let boot = results.iter().find(|result| result.check == CheckSpec::boot().name());
    let came_up = outcome.channel.is_some() && outcome.ending.is_none();
    if faithful {
        report.lanes.push(faithful_lane(
            &outcome.ending,
            outcome.login.as_deref(),
            came_up,
            report.reached,
            outcome.seconds,
        ));
    }
    if let Some(channel) = outcome.channel {
        let verdict =
            boot.map_or(if came_up { Verdict::Pass } else { Verdict::Inconclusive }, |boot| boot.verdict);
        let summary = match boot {
            Some(boot) => boot.summary.clone(),
            None => "the probe answers".to_owned(),
        };
        report.lanes.push(LaneReport {
            lane: Lane::Probe,
            channel: Some(channel),
            verdict,
            summary,
            seconds: outcome.seconds,
        });
    }
    // Where something came up, another way in may get an answer.
    let hopeful = index + 1 < request.rides.len()
        && match &outcome.ending {
            Some(Ending::Because { cause, .. }) => {
                !faithful || matches!(cause, Cause::NoProbe | Cause::Silent)
            }
            _ => false,
        };
    match &outcome.ending {
        // What an earlier machine has shown stays shown.
        Some(Ending::Broken(words)) if !faithful => report.notes.push(no_machine(words)),
        Some(Ending::Broken(words)) => {
            for name in request.checks.iter().map(CheckSpec::name) {
                if results.iter().all(|result| result.check != name) {
                    let result = broken(name, words, Vec::new(), outcome.seconds);
                    drop(news.send(BootNews::Checked(result.clone())));
                    results.push(result);
                }
            }
        }
        // Something was done to this machine's boot that is not done to a person's.
        Some(Ending::Because { cause, .. }) if !faithful && cause.verdict() == Verdict::Fail => {
            report.notes.push(format!("a machine for the probe did not come up: {cause}"));
        }
        Some(Ending::Because { cause, lines }) => {
            if faithful {
                report.cause = Some(*cause);
            }
            let result = ended(*cause, lines, outcome.login.as_deref(), report.reached, outcome.seconds);
            // What the probe said before the end stays; the boot itself is what failed.
            results.retain(|earlier| earlier.check != result.check);
            if !hopeful {
                drop(news.send(BootNews::Checked(result.clone())));
            }
            results.insert(0, result);
        }
        None if outcome.channel.is_some() && proves_boot => report.cause = None,
        None => {}
    }
    if !proves_boot && outcome.channel.is_some() {
        bound(report, &mut results, news);
    }
    for result in results {
        // A later machine's word counts for what an earlier one left undecided.
        report
            .checks
            .retain(|earlier| earlier.check != result.check || earlier.verdict > Verdict::Inconclusive);
        if !report.checks.iter().any(|earlier| earlier.check == result.check) {
            report.checks.push(result);
        }
    }
    hopeful
}

/// A system that is fine when its kernel is started directly has not booted: whether the ISO does is for the faithful
/// lane to say. Tells of the boot only now.
fn bound(report: &mut BootReport, results: &mut [CheckResult], news: &UnboundedSender<BootNews>) {
    let Some(faithful) = report.lanes.iter().find(|lane| lane.lane == Lane::Faithful).cloned() else {
        return;
    };
    let came_up = faithful.verdict == Verdict::Pass;
    if came_up {
        report.cause = None;
    }
    let Some(boot) = results.iter_mut().find(|result| result.check == CheckSpec::boot().name()) else {
        return;
    };
    if !came_up && boot.verdict == Verdict::Pass {
        boot.verdict = faithful.verdict;
        boot.summary = format!(
            "the system is fine when its kernel is started directly, but of its own boot: {}",
            faithful.summary
        );
    }
    drop(news.send(BootNews::Checked(boot.clone())));
}
