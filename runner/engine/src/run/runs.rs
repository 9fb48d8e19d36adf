//! The runs of a folder: which there are, what each does or came to, and speaking with those that go on.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use isokiln_core::event::Event;
use isokiln_core::exit;
use isokiln_core::names::StageName;
use isokiln_core::record::{RunRecord, StageState};
use isokiln_core::session::Place;
use serde::{Deserialize, Serialize};

use super::clock::Clock;
use super::error::RunError;
use super::home::Home;
use super::hub;
use crate::guard::FolderGuard;

/// What has become of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It goes on.
    Running,
    /// All went well.
    Finished,
    /// It ended with an error, a failed or an undecided boot test.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// Its process is gone without a word: killed, or the machine went down.
    Killed,
}

/// A run, as far as it has come.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// What has become of it.
    pub state: RunState,
    /// The process that has it, while it runs.
    pub pid: Option<u32>,
    /// When it began, in UTC (RFC 3339).
    pub started: Option<String>,
    /// Where the command was started.
    pub place: Option<Place>,
    /// Whether the build is the command's own process.
    pub foreground: bool,
    /// Its folder.
    #[serde(serialize_with = "lossily")]
    pub folder: PathBuf,
    /// What it came to so far. Of a run that goes on, `seconds` is how long it has.
    #[serde(flatten)]
    pub record: RunRecord,
    /// All its stages, in order.
    pub planned: Vec<StageName>,
    /// What it does at the moment.
    pub doing: Vec<Doing>,
    /// What a person is asked.
    pub question: Option<String>,
    /// What it waits for: whoever writes to the same store, say.
    pub waiting: Option<String>,
}

/// Something that a run does at the moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Doing {
    /// The stage, or the machine of a boot test.
    pub name: String,
    /// Seconds since it began.
    pub seconds: f64,
    /// Its latest words.
    pub words: String,
}

/// A line of `events.jsonl`.
#[derive(Deserialize)]
struct Recorded {
    time: String,
    #[serde(flatten)]
    event: Event,
}

/// Bytes at a log's end among which its last line is looked for.
const TAIL: u64 = 4096;

/// A run's folder, read without a claim to it.
#[derive(Debug, Clone)]
pub struct RunView {
    folder: PathBuf,
}

impl Home {
    /// All runs, oldest first.
    pub fn run_views(&self) -> Vec<RunView> {
        self.run_folders().into_iter().map(|folder| RunView { folder }).collect()
    }

    /// The run that is meant: by its id or the beginning of it; otherwise the newest that goes on, otherwise the newest.
    pub fn run_view(&self, given: Option<&str>) -> Result<RunView, RunError> {
        let mut views = self.run_views();
        let Some(given) = given else {
            let newest = views.len().checked_sub(1).ok_or(RunError::NoRuns)?;
            let running = views.iter().rposition(|view| view.is_alive() && view.goes_on());
            return Ok(views.swap_remove(running.unwrap_or(newest)));
        };
        let matching = |exactly: bool| {
            let fits = |name: &str| if exactly { name == given } else { name.starts_with(given) };
            views.iter().filter(|view| fits(&view.name())).cloned().collect::<Vec<_>>()
        };
        let found = Some(matching(true)).filter(|found| !found.is_empty()).unwrap_or_else(|| matching(false));
        match <[RunView; 1]>::try_from(found) {
            Ok([view]) => Ok(view),
            Err(found) => {
                let known = if found.is_empty() { &views } else { &found };
                let known = known.iter().rev().map(RunView::name).collect();
                Err(RunError::NoSuchRun { given: given.to_owned(), known, several: !found.is_empty() })
            }
        }
    }
}

impl RunView {
    /// The run's id.
    pub fn name(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn process(&self) -> Option<u32> {
        fs::read_to_string(self.folder.join(super::home::PID)).ok()?.trim().parse().ok()
    }

    /// Whether the process that made it is there.
    fn is_alive(&self) -> bool {
        FolderGuard::is_taken(&self.folder)
    }

    /// Whether it has not ended by itself.
    fn goes_on(&self) -> bool {
        let record = fs::read(self.folder.join("run.json")).ok();
        let record: Option<RunRecord> = record.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        record.is_none_or(|record| record.exit_code.is_none())
    }

    /// Its events so far, with when each was. A line that was cut short by a crash is none, nor is one of another
    /// version that this one does not know.
    fn recorded(&self) -> impl Iterator<Item = Recorded> + use<> {
        let lines =
            fs::File::open(self.folder.join("events.jsonl")).ok().map(|file| BufReader::new(file).lines());
        lines.into_iter().flatten().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok())
    }

    /// Its events so far, each with when it was, in seconds since 1970.
    pub fn events(&self) -> impl Iterator<Item = (f64, Event)> + use<> {
        self.recorded().map(|Recorded { time, event }| {
            let time = time.parse::<jiff::Timestamp>().unwrap_or_default();
            (time.as_nanosecond() as f64 / 1e9, event)
        })
    }

    /// Speaks with the process that has it.
    pub fn connect(&self) -> io::Result<UnixStream> {
        hub::connect(&self.folder)
    }

    /// Path of a stage's log.
    pub fn log(&self, stage: &StageName) -> PathBuf {
        self.folder.join("stages").join(stage.as_str()).join("log")
    }

    /// Removes the socket of a process that was killed; tells whether there was one.
    pub(super) fn sweep_socket(&self) -> bool {
        !self.is_alive() && hub::socket_of(&self.folder).is_some_and(|socket| fs::remove_file(socket).is_ok())
    }

    /// How far it is.
    pub fn report(&self, clock: &dyn Clock) -> RunReport {
        let mut record = RunRecord::default();
        let (mut started, mut place, mut foreground, mut planned) = (None, None, false, Vec::new());
        let mut doing: Vec<(String, String)> = Vec::new();
        let mut words: Vec<(String, String)> = Vec::new();
        let (mut question, mut waiting): (Option<(StageName, String)>, _) = (None, None);
        for Recorded { time, event } in self.recorded() {
            record.absorb(&event);
            let ended =
                |doing: &mut Vec<(String, String)>, name: &str| doing.retain(|(other, _)| other != name);
            // Whatever a stage does next, it asks no more; what is said of it is not done by it.
            let is_said = matches!(
                event,
                Event::Asking { .. }
                    | Event::Note { .. }
                    | Event::Warning { .. }
                    | Event::StageReviewed { .. }
            );
            if !is_said {
                question = question.filter(|(asking, _)| event.stage() != Some(asking));
            }
            if !matches!(event, Event::Note { .. } | Event::Warning { .. } | Event::Cancelling { .. }) {
                waiting = None;
            }
            match event {
                Event::RunStarted { place: of, foreground: is_foreground, stages, .. } => {
                    (started, place, foreground, planned) = (Some(time), of, is_foreground, stages);
                }
                Event::StageStarted { stage, .. } => doing.push((stage.to_string(), time)),
                Event::StageProgress { stage, text } | Event::Note { stage: Some(stage), text } => {
                    words.push((stage.to_string(), text))
                }
                Event::StageFinished { stage, .. }
                | Event::StageFailed { stage, .. }
                | Event::StageRecovering { stage, .. } => ended(&mut doing, stage.as_str()),
                Event::Asking { stage, question: asked } => question = Some((stage, asked)),
                Event::Waiting { holder } => waiting = Some(holder),
                Event::BootStarted { profile, .. } => doing.push((profile.to_string(), time)),
                Event::BootPhase { profile, phase, .. } => {
                    words.push((profile.to_string(), phase.name().to_owned()))
                }
                Event::BootFinished { report, .. } => ended(&mut doing, report.profile.as_str()),
                _ => {}
            }
        }
        let state = match (record.exit_code, self.is_alive()) {
            (Some(exit::OK), _) => RunState::Finished,
            (Some(exit::CANCELLED), _) => RunState::Cancelled,
            (Some(_), _) => RunState::Failed,
            (None, true) => RunState::Running,
            (None, false) => RunState::Killed,
        };
        let is_running = state == RunState::Running;
        let now =
            jiff::Timestamp::from_nanosecond(clock.nanoseconds().try_into().unwrap_or(0)).unwrap_or_default();
        let since = |time: &str| {
            let since = time.parse::<jiff::Timestamp>().unwrap_or(now);
            now.duration_since(since).as_secs_f64().max(0.0)
        };
        if is_running {
            record.seconds = started.as_deref().map(since).unwrap_or_default();
        }
        let doing = doing.into_iter().filter(|_| is_running).map(|(name, began)| {
            let latest = words.iter().rev().find(|(other, _)| *other == name).map(|(_, words)| words.clone());
            let words = latest.or_else(|| last_line(&self.log(&name.parse().ok()?))).unwrap_or_default();
            Doing { seconds: since(&began), name, words }
        });
        RunReport {
            state,
            pid: self.process().filter(|_| is_running),
            started,
            place,
            foreground,
            folder: self.folder.clone(),
            planned,
            doing: doing.collect(),
            question: question.filter(|_| is_running).map(|(_, question)| question),
            waiting: waiting.filter(|_| is_running),
            record,
        }
    }

    /// The stage whose log is of interest: the one that runs, otherwise the one that failed, otherwise the last one.
    pub fn stage_of_interest(&self) -> Option<StageName> {
        let mut record = RunRecord::default();
        self.events().for_each(|(_, event)| record.absorb(&event));
        let last = |state: Option<StageState>| {
            let mut stages = record.stages.iter().rev();
            stages.find(|stage| state.map_or(stage.state != StageState::Hit, |state| stage.state == state))
        };
        let found =
            last(Some(StageState::Started)).or_else(|| last(Some(StageState::Failed))).or_else(|| last(None));
        found.map(|stage| stage.stage.clone())
    }
}

/// JSON knows no paths that are not UTF-8.
fn lossily<S: serde::Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

/// The last line of a log that holds anything.
fn last_line(path: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::SystemClock;
    use super::*;

    /// What is reported of a run that lives and has recorded these events.
    fn report(events: &[&str]) -> RunReport {
        let folder = tempfile::tempdir().unwrap();
        let lines = events.iter().map(|event| {
            let (head, rest) = event.split_once(' ').unwrap_or((event, ""));
            format!("{{\"time\":\"2026-11-29T08:00:00Z\",\"event\":\"{head}\"{rest}}}\n")
        });
        fs::write(folder.path().join("events.jsonl"), lines.collect::<String>()).unwrap();
        let _life = FolderGuard::take(folder.path()).unwrap();
        RunView { folder: folder.path().to_owned() }.report(&SystemClock)
    }

    #[test]
    fn a_question_stays_until_its_own_stage_goes_on() {
        const ASKED: &str = r#"asking ,"stage":"one","question":"again?""#;
        const OTHER: &str = r#"stage-progress ,"stage":"two","text":"works""#;
        const NOTE: &str = r#"note ,"stage":"one","text":"a hook says so""#;
        const AGAIN: &str = r#"stage-started ,"stage":"one","changed":[]"#;
        assert_eq!(report(&[ASKED, OTHER, NOTE]).question.as_deref(), Some("again?"));
        assert_eq!(report(&[ASKED, OTHER, AGAIN]).question, None);
        assert_eq!(report(&[AGAIN, ASKED]).question.as_deref(), Some("again?"));
    }

    #[test]
    fn a_run_waits_until_anything_else_happens() {
        const WAITING: &str = r#"waiting ,"holder":"process 1""#;
        const WARNING: &str = r#"warning ,"stage":null,"text":"a hook says so""#;
        const STOPPING: &str = r#"cancelling ,"gracefully":true"#;
        const WORKING: &str = r#"working ,"text":"planning""#;
        assert_eq!(report(&[WAITING, WARNING, STOPPING]).waiting.as_deref(), Some("process 1"));
        assert_eq!(report(&[WAITING, WORKING]).waiting, None);
    }
}
