//! `isokiln attach`, `status`, `logs`, `cancel` and `runs`: what goes on, and what went on.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use console::Style;
use isokiln_core::event::Event;
use isokiln_core::exit;
use isokiln_core::names::StageName;
use isokiln_core::record::StageState;
use isokiln_core::session::{News, Problem, Wish};
use isokiln_core::units::show_duration;
use isokiln_engine::run::{Home, Reporter, RunError, RunReport, RunState, RunView, SystemClock};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::args::{Attach, CancelRun, DEFAULT_DIR, Format, Global, Logs, WhichRun};
use crate::reporter::Terminal;
use crate::view::{End, Purpose, Seen, Signals, watch};
use crate::{output, words};

/// How often a log that is followed is looked at.
const PAUSE: Duration = Duration::from_millis(150);
/// How long a run may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Bytes of a log that are read at once.
const PIECE: usize = 64 << 10;

fn find(global: &Global, run: Option<&str>) -> Result<RunView, RunError> {
    Home::find(&global.dir).ok_or(RunError::NoRuns)?.run_view(run)
}

pub(super) async fn attach(global: &Global, args: &Attach) -> Result<u8, RunError> {
    let view = find(global, args.which.run.as_deref())?;
    match view.connect() {
        Ok(stream) => {
            let run = view.name();
            let stop_now = format!("isokiln cancel --now{} stops it now", which(global, Some(&run)));
            let terminal = Terminal::new(global.format, Some(stop_now));
            let seen = watch(stream, Signals::catch()?, &terminal, global.format, Purpose::Look).await?;
            after(global, &terminal, seen, Some(run), || GONE.to_owned())
        }
        Err(source) => {
            let report = view.report(&SystemClock);
            if report.state == RunState::Running {
                return Err(RunError::NoAnswer { run: view.name(), pid: report.pid, source });
            }
            replay(global.format, &Terminal::new(global.format, None), &view, 0, || GONE.to_owned())
        }
    }
}

/// How a process ends that leaves no word.
const GONE: &str = "its process was killed, or the machine went down";

/// Arguments that name a run again.
fn which(global: &Global, run: Option<&str>) -> String {
    let mut which = run.map(|run| format!(" {run}")).unwrap_or_default();
    if global.dir != Path::new(DEFAULT_DIR) {
        which.push_str(&format!(" --dir {}", global.dir.display()));
    }
    which
}

/// What a viewing comes to, of the run that was asked for, if one was; `how` tells how the other process has ended.
pub(super) fn after(
    global: &Global,
    terminal: &Terminal,
    seen: Seen,
    run: Option<String>,
    how: impl FnOnce() -> String,
) -> Result<u8, RunError> {
    terminal.rest();
    let run = seen.run.map(|run| run.to_string()).or(run);
    match seen.end {
        End::Ended(ending) => {
            if let Some(problem) = &ending.problem {
                output::error(global.format, problem, ending.exit_code);
            }
            Ok(ending.exit_code)
        }
        End::Left(code) => {
            let which = which(global, run.as_deref());
            output::tell(&if seen.is_stopping {
                format!("the build is being stopped: isokiln attach{which} shows it again")
            } else {
                format!(
                    "the build goes on: isokiln attach{which} shows it again, isokiln cancel{which} stops it"
                )
            });
            Ok(code)
        }
        // Its files may say more.
        End::Lost => match run.as_deref().and_then(|run| Home::find(&global.dir)?.run_view(Some(run)).ok()) {
            Some(view) => replay(global.format, terminal, &view, seen.events, how),
            None => Err(RunError::SupervisorGone { run, how: how() }),
        },
    }
}

/// Tells what a run's files know of it, but for the events that were told; gives its exit code. `how` tells how its
/// process has ended, where they do not.
fn replay(
    format: Format,
    terminal: &Terminal,
    view: &RunView,
    told: usize,
    how: impl FnOnce() -> String,
) -> Result<u8, RunError> {
    let mut problem = None;
    // What was told is counted from the beginning of the run.
    let is_before = |event: &Event| told > 0 && !matches!(event, Event::RunStarted { .. });
    for (index, (at, event)) in view.events().skip_while(|(_, event)| is_before(event)).enumerate() {
        if index >= told && !output::Reader::of(format).has_left() {
            terminal.event(&event, at);
        }
        if let Event::RunFinished { error: Some(message), causes, hint, .. } = event {
            problem = Some(Problem { message, causes, hint, ..Problem::default() });
        }
    }
    let Some(code) = view.report(&SystemClock).record.exit_code else {
        return Err(RunError::SupervisorGone { run: Some(view.name()), how: how() });
    };
    if let Some(problem) = problem {
        output::error(format, &problem, code);
    }
    Ok(code)
}

pub(super) fn status(global: &Global, args: &WhichRun) -> Result<u8, RunError> {
    let view = find(global, args.run.as_deref())?;
    let report = view.report(&SystemClock);
    output::result(global.format, &report, show);
    Ok(exit::OK)
}

pub(super) fn list(global: &Global) -> Result<u8, RunError> {
    let views = Home::find(&global.dir).map(|home| home.run_views()).unwrap_or_default();
    let reports: Vec<_> = views.iter().map(|view| (view.name(), view.report(&SystemClock))).collect();
    let documents: Vec<_> = reports.iter().map(|(_, report)| report).collect();
    output::result(global.format, &documents, |_| {
        if reports.is_empty() {
            return "no runs yet\n".to_owned();
        }
        let rows: Vec<_> = reports
            .iter()
            .map(|(name, report)| {
                vec![name.clone(), word(report.state).to_owned(), time(report), what(report), remark(report)]
            })
            .collect();
        words::table(&rows)
    });
    Ok(exit::OK)
}

fn word(state: RunState) -> &'static str {
    match state {
        RunState::Running => "running",
        RunState::Finished => "finished",
        RunState::Failed => "failed",
        RunState::Cancelled => "cancelled",
        RunState::Killed => "killed",
    }
}

fn style(state: RunState) -> Style {
    match state {
        RunState::Running => words::calm(),
        RunState::Finished => words::good(),
        RunState::Failed | RunState::Killed => words::bad(),
        RunState::Cancelled => words::fair(),
    }
    .for_stdout()
}

/// How long a run has taken so far.
fn time(report: &RunReport) -> String {
    match report.state {
        RunState::Killed => String::new(),
        _ => show_duration(Duration::from_secs_f64(report.record.seconds)),
    }
}

/// What a run is for.
fn what(report: &RunReport) -> String {
    match (&report.record.pipeline, &report.record.run) {
        (Some(pipeline), _) => pipeline.to_string(),
        (None, Some(_)) => "boot test".to_owned(),
        (None, None) => "nothing recorded".to_owned(),
    }
}

fn remark(report: &RunReport) -> String {
    if let Some(holder) = &report.waiting {
        return format!("waits for {}", words::printable(holder));
    }
    if let Some(doing) = report.doing.last() {
        return format!("{} {}", doing.name, words::printable(&doing.words));
    }
    match (&report.record.error, report.record.exit_code) {
        (Some(error), _) => words::printable(error),
        (None, Some(exit::BOOT_FAILED)) => "a boot test failed".to_owned(),
        (None, Some(exit::BOOT_INCONCLUSIVE)) => "a boot test could not decide".to_owned(),
        _ => String::new(),
    }
}

fn show(report: &RunReport) -> String {
    let plain = Style::new();
    let run = report.folder.file_name().unwrap_or_default().to_string_lossy();
    let mut head = format!("{}, run {run}", what(report));
    for more in [time(report), report.pid.map(|pid| format!("process {pid}")).unwrap_or_default()] {
        if !more.is_empty() {
            head.push_str(&format!(", {more}"));
        }
    }
    let mut lines = vec![words::line(word(report.state), &style(report.state), &head)];
    if let Some(place) = report.place {
        let how = if report.foreground { "in the foreground" } else { "supervised" };
        lines.push(words::line("session", &plain, &format!("{place}, {how}")));
    }
    for stage in &report.planned {
        let record = report.record.stages.iter().find(|record| record.stage == *stage);
        let doing = report.doing.iter().find(|doing| doing.name == stage.as_str());
        lines.push(match (record.map(|record| record.state), doing) {
            (Some(StageState::Hit), _) => words::line("hit", &plain, stage.as_str()),
            (Some(StageState::Started), Some(doing)) => {
                let time = show_duration(Duration::from_secs_f64(doing.seconds));
                words::line(
                    "running",
                    &words::calm().for_stdout(),
                    &format!("{stage}  {time}  {}", doing.words),
                )
            }
            (Some(StageState::Done), _) => words::line("done", &words::good().for_stdout(), stage.as_str()),
            (Some(StageState::Failed), _) => {
                words::line("failed", &words::bad().for_stdout(), stage.as_str())
            }
            (Some(StageState::Started), None) => {
                words::line("broken off", &words::fair().for_stdout(), stage.as_str())
            }
            (None, _) => words::line("-", &plain, stage.as_str()),
        });
    }
    for doing in
        report.doing.iter().filter(|doing| !report.planned.iter().any(|stage| stage.as_str() == doing.name))
    {
        lines.push(words::line(
            "booting",
            &words::calm().for_stdout(),
            &format!("{}  {}", doing.name, doing.words),
        ));
    }
    if let Some(holder) = &report.waiting {
        lines.push(words::line("waits", &words::fair().for_stdout(), &format!("for {holder}")));
    }
    if let Some(question) = &report.question {
        lines.push(words::line(
            "asks",
            &words::fair().for_stdout(),
            &format!("{question} (isokiln attach answers)"),
        ));
    }
    if let Some(error) = &report.record.error {
        lines.push(words::line("error", &words::bad().for_stdout(), error));
    }
    lines.push(words::line("folder", &plain, &words::short(&report.folder.display().to_string())));
    lines.join("\n") + "\n"
}

pub(super) async fn cancel(global: &Global, args: &CancelRun) -> Result<u8, RunError> {
    let view = find(global, args.which.run.as_deref())?;
    let run = view.name();
    let report = view.report(&SystemClock);
    if report.state != RunState::Running {
        return Err(RunError::NotRunning { run });
    }
    let no_answer = |source| RunError::NoAnswer { run: run.clone(), pid: report.pid, source };
    let stream = view.connect().map_err(no_answer)?;
    stream.set_nonblocking(true).map_err(no_answer)?;
    let (reader, mut writer) = UnixStream::from_std(stream).map_err(no_answer)?.into_split();
    let wish = if args.now { Wish::StopNow } else { Wish::Stop };
    let line = serde_json::to_string(&wish).unwrap_or_default() + "\n";
    writer.write_all(line.as_bytes()).await.map_err(no_answer)?;
    let mut lines = BufReader::new(reader).lines();
    // Whoever comes is told at once what there has been.
    let first = tokio::time::timeout(ANSWER, lines.next_line()).await;
    let mut line = first.map_err(|late| no_answer(late.into()))?;
    let mut stops_later = false;
    while let Ok(Some(text)) = line {
        match serde_json::from_str(&text) {
            Ok(News::Event { event: Event::Cancelling { .. }, .. }) if !args.now => {
                stops_later = true;
                break;
            }
            Ok(News::Ended(_)) => break,
            _ => {}
        }
        line = lines.next_line().await;
    }
    let state = view.report(&SystemClock).state;
    output::result(global.format, &json!({ "run": run, "state": state }), |_| {
        if stops_later {
            format!("run {run} stops when the stage in progress is done; --now does not wait\n")
        } else {
            format!("run {run} is {}\n", word(state))
        }
    });
    Ok(exit::OK)
}

pub(super) async fn logs(global: &Global, args: &Logs) -> Result<u8, RunError> {
    let view = find(global, args.run.as_deref())?;
    if args.follow && args.stage.is_none() {
        return follow_all(&view).await;
    }
    let report = view.report(&SystemClock);
    let known = || report.record.stages.iter().filter(|stage| stage.state != StageState::Hit);
    let stage = args.stage.clone().or_else(|| view.stage_of_interest());
    let is_to_come = |stage: &StageName| {
        args.follow && report.state == RunState::Running && report.planned.contains(stage)
    };
    match stage.filter(|stage| view.log(stage).exists() || is_to_come(stage)) {
        Some(stage) => {
            print_log(&view, &stage, args.follow).await;
            Ok(exit::OK)
        }
        None => Err(RunError::NoLog {
            stage: args.stage.as_ref().map(ToString::to_string),
            run: view.name(),
            known: known().map(|stage| stage.stage.to_string()).collect(),
        }),
    }
}

/// Prints the logs of all stages that have run or will, one after the other, as they come.
async fn follow_all(view: &RunView) -> Result<u8, RunError> {
    let mut told: Vec<StageName> = Vec::new();
    loop {
        let report = view.report(&SystemClock);
        let stages = report.record.stages.iter().filter(|stage| stage.state != StageState::Hit);
        let next = stages.map(|stage| &stage.stage).find(|stage| !told.contains(stage)).cloned();
        match next {
            _ if output::STDOUT.has_left() => return Ok(exit::OK),
            Some(stage) => {
                output::tell(&words::line("log", &words::faint(), stage.as_str()));
                print_log(view, &stage, true).await;
                told.push(stage);
            }
            None if report.state == RunState::Running => tokio::time::sleep(PAUSE).await,
            None => return Ok(exit::OK),
        }
    }
}

/// Prints a stage's log; with `follow`, until the stage has ended. Where it is run again, the log begins anew.
async fn print_log(view: &RunView, stage: &StageName, follow: bool) {
    let path = view.log(stage);
    let mut opened: Option<(File, u64)> = None;
    loop {
        // Looked at before the log is read to its end: what comes after is then read in the next round.
        let report = view.report(&SystemClock);
        let record = report.record.stages.iter().find(|record| record.stage == *stage);
        let runs = match record.map(|record| record.state) {
            Some(StageState::Started) | None => report.state == RunState::Running,
            Some(StageState::Hit | StageState::Done | StageState::Failed) => false,
        };
        if let Some((file, _)) = &mut opened {
            copy(file);
        }
        let inode = path.metadata().map(|facts| facts.ino()).ok();
        if inode.is_some()
            && inode != opened.as_ref().map(|(_, inode)| *inode)
            && let Some((mut file, inode)) = open(&path)
        {
            copy(&mut file);
            opened = Some((file, inode));
        }
        if !(follow && runs) || output::STDOUT.has_left() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn open(path: &Path) -> Option<(File, u64)> {
    let file = File::open(path).ok()?;
    let inode = file.metadata().ok()?.ino();
    Some((file, inode))
}

/// Prints what a log has from where it was read to. A terminal is shown no commands that a log holds.
fn copy(file: &mut File) {
    let is_terminal = std::io::stdout().is_terminal();
    let mut bytes = vec![0; PIECE];
    let mut rest: Vec<u8> = Vec::new();
    while let Ok(count @ 1..) = file.read(&mut bytes)
        && !output::STDOUT.has_left()
    {
        if !is_terminal {
            output::print_bytes(&bytes[..count]);
            continue;
        }
        rest.extend_from_slice(&bytes[..count]);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        // A line without an end is shown in pieces.
        let whole = if rest.len() > PIECE { rest.len() } else { whole };
        show_lines(&rest[..whole]);
        rest.drain(..whole);
    }
    show_lines(&rest);
}

fn show_lines(bytes: &[u8]) {
    for line in String::from_utf8_lossy(bytes).split_inclusive('\n') {
        let end = if line.ends_with('\n') { "\n" } else { "" };
        output::print(&(words::printable(line.trim_end_matches(['\n', '\r'])) + end));
    }
}
