//! A run on the terminal: a line for everything that is done, and one that lives for what is going on.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use isokiln_core::boot::Verdict;
use isokiln_core::event::{Event, RoomNeed, Usage};
use isokiln_core::names::StageName;
use isokiln_core::record::{RunRecord, StageState};
use isokiln_core::review::{Judgement, Review};
use isokiln_core::units::{show_duration, show_size};
use isokiln_engine::run::Reporter;

use crate::args::Format;
use crate::boots::Boots;
use crate::output;
use crate::words::{bad, calm, faint, fair, good, line, printable, quoted, short};

/// Without a terminal, a running stage is mentioned this often.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Tells a person, and with `--format json` also a program.
pub(crate) struct Terminal {
    format: Format,
    state: Mutex<State>,
}

struct State {
    /// What a person here can do to stop at once what is stopping already.
    stop_now: Option<String>,
    /// When what is being told was, in seconds since 1970.
    at: f64,
    bar: Option<ProgressBar>,
    is_terminal: bool,
    /// What is going on: stage or boot test, since when, and its latest words.
    current: Option<Current>,
    record: RunRecord,
    boots: Boots,
    /// Reviews of failed stages that are not told yet.
    reviews: Vec<(StageName, Review)>,
    /// Characters of the longest stage name.
    width: usize,
}

struct Current {
    name: String,
    since: Instant,
    told: Instant,
    usage: Usage,
    words: String,
}

impl Terminal {
    pub(crate) fn new(format: Format, stop_now: Option<String>) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let state = State {
            stop_now,
            at: 0.0,
            bar: None,
            is_terminal,
            current: None,
            record: RunRecord::default(),
            boots: Boots::default(),
            reviews: Vec::new(),
            width: 0,
        };
        Self { format, state: Mutex::new(state) }
    }
}

impl Terminal {
    /// Ends the line that lives: nothing more is told here.
    pub(crate) fn rest(&self) {
        if let Ok(mut state) = self.state.lock() {
            state.end();
        }
    }
}

impl Reporter for Terminal {
    fn event(&self, event: &Event, at: f64) {
        if self.format == Format::Json && !event.is_ephemeral() {
            output::json_line(event);
        }
        if let Ok(mut state) = self.state.lock() {
            state.at = at;
            state.tell(event);
        }
    }
}

impl State {
    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::tell(text)),
            None => output::tell(text),
        }
    }

    fn begin(&mut self, name: &str, words: &str) {
        let now = Instant::now();
        // What is told to a late viewer began before.
        let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() - self.at;
        let age = Duration::try_from_secs_f64(age.max(0.0)).unwrap_or_default();
        self.current = Some(Current {
            name: name.to_owned(),
            since: now.checked_sub(age).unwrap_or(now),
            told: now,
            usage: Usage::default(),
            words: words.to_owned(),
        });
        self.show("{spinner:>12.cyan} {wide_msg}");
        self.draw();
    }

    /// Begins the line that lives, on a terminal.
    fn show(&mut self, template: &str) {
        if self.is_terminal && self.bar.is_none() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            // A template that is written here is valid.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.tick_strings(&["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏", " "]));
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            self.bar = Some(bar);
        }
    }

    fn end(&mut self) {
        self.current = None;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn draw(&mut self) {
        let Some(current) = &mut self.current else { return };
        let elapsed = show_duration(Duration::from_secs(current.since.elapsed().as_secs().max(1)));
        let mut text = format!("{} {elapsed}", current.name);
        if current.usage.cpu_seconds > 0.0 {
            text.push_str(&format!(
                "  {:.0}s cpu, {}",
                current.usage.cpu_seconds,
                show_size(current.usage.memory_peak)
            ));
        }
        text.push_str(&format!("  {}", current.words));
        match &self.bar {
            Some(bar) => bar.set_message(printable(&text)),
            None if current.told.elapsed() >= HEARTBEAT => {
                current.told = Instant::now();
                output::tell(&line("…", &faint(), &text));
            }
            None => {}
        }
    }

    fn tell(&mut self, event: &Event) {
        self.record.absorb(event);
        match event {
            Event::RunStarted { run, pipeline, stages, place, foreground, .. } => {
                self.width = stages.iter().map(|stage| stage.as_str().len()).max().unwrap_or(0);
                let text = match pipeline {
                    Some(pipeline) => format!("{pipeline}, {} stages, run {run}", stages.len()),
                    None => format!("boot test, run {run}"),
                };
                self.say(&line("Start", &calm(), &text));
                if let Some(place) = place {
                    let text = if *foreground {
                        format!("{place}: the run is this process, and ends with it")
                    } else {
                        format!("{place}: the build goes on without it, isokiln attach shows it again")
                    };
                    self.say(&line("Session", &faint(), &text));
                }
            }
            Event::Note { stage, text } => self.say(&line("note", &faint(), &of_stage(stage, text))),
            Event::Warning { stage, text } => self.say(&line("warning", &fair(), &of_stage(stage, text))),
            Event::Waiting { holder } => {
                self.say(&line("warning", &fair(), &format!("waiting for {holder}")));
            }
            Event::Working { text } => match &mut self.current {
                Some(current) => {
                    current.words = text.clone();
                    self.draw();
                }
                None => {
                    self.begin("", text);
                    if self.bar.is_none() {
                        self.say(&line("…", &faint(), text));
                    }
                }
            },
            Event::ImageReady { image, built, seconds } => {
                self.end();
                if *built {
                    let time = show_duration(Duration::from_secs_f64(*seconds));
                    self.say(&line("Image", &good(), &format!("{image} made in {time}")));
                }
            }
            Event::RoomEstimated { unknown, store, engine, .. } => {
                let place = |need: &RoomNeed, place| {
                    let free =
                        need.free.map(|free| format!(" of {} free", show_size(free))).unwrap_or_default();
                    format!("{}{free} in the {place}", show_size(need.needed))
                };
                let names: Vec<_> = unknown.iter().map(StageName::as_str).collect();
                let unknown = match names.as_slice() {
                    [] => String::new(),
                    names => format!("; nothing is known yet of {}", names.join(", ")),
                };
                let text =
                    format!("about {} and {}{unknown}", place(store, "store"), place(engine, "engine"));
                self.say(&line("Room", &faint(), &text));
            }
            Event::StageHit { stage, pinned, .. } => {
                let note = if *pinned { "  rolled back to" } else { "" };
                self.say(&line("Hit", &good(), &format!("{stage}{note}")));
            }
            Event::StageStarted { stage, changed } => {
                let why = match changed.as_slice() {
                    [] => String::new(),
                    names => format!("  changed: {}", names.join(", ")),
                };
                self.say(&format!("{}{}", line("Run", &calm(), stage.as_str()), faint().apply_to(why)));
                self.begin(stage.as_str(), "starting");
            }
            Event::StageLine { text, .. } => {
                if let Some(current) = &mut self.current
                    && !text.trim().is_empty()
                {
                    current.words.clone_from(text);
                }
                // The spinner draws often enough by itself.
                if self.bar.is_some() {
                    self.draw();
                }
            }
            Event::StageProgress { text, .. } => {
                if let Some(current) = &mut self.current {
                    current.words.clone_from(text);
                }
                self.draw();
            }
            Event::StageUsage { usage, .. } => {
                if let Some(current) = &mut self.current {
                    current.usage = *usage;
                }
                self.draw();
            }
            // No stage runs yet, and what follows may want the terminal for itself.
            Event::LayerRestored { .. } if self.current.as_ref().is_some_and(|it| it.name.is_empty()) => {
                self.end();
            }
            Event::LayerStored { .. }
            | Event::LayerRestored { .. }
            | Event::CheckpointStored { .. }
            | Event::Artifact { .. } => {}
            Event::StageFinished { stage, seconds, usage, .. } => {
                self.end();
                let text = format!(
                    "{stage:width$}  {:>7}  ",
                    show_duration(Duration::from_secs_f64(*seconds)),
                    width = self.width
                );
                self.say(&format!("{}{}", line("Done", &good(), &text), faint().apply_to(used(usage))));
            }
            Event::StageReviewed { stage, review, .. } => {
                // Why a stage failed is told after that it did.
                if matches!(review.verdict, Judgement::Known | Judgement::Unknown) {
                    self.reviews.push((stage.clone(), (**review).clone()));
                } else {
                    self.review(stage, review);
                }
            }
            Event::Asking { stage, question } => {
                self.end();
                self.pending_review(stage, None);
                self.say(&line("Ask", &fair(), &format!("{question} [y/N]")));
            }
            Event::StageRecovering { stage, action, cause, pause_seconds, .. } => {
                self.end();
                let pause = show_duration(Duration::from_secs_f64(*pause_seconds));
                self.say(&line("Failed", &fair(), &format!("{stage}: {cause}")));
                self.pending_review(stage, None);
                self.say(&line("Recover", &calm(), &format!("{stage}: {action}, then again in {pause}")));
                self.begin(stage.as_str(), "waiting before it runs again");
            }
            Event::StageFailed { stage, cause, hint, log, tail } => {
                self.end();
                for text in tail {
                    self.say(&quoted(text));
                }
                self.say(&line("FAILED", &bad(), &format!("{stage}: {cause}")));
                self.pending_review(stage, hint.as_deref());
                if let Some(hint) = hint {
                    self.say(&line("hint", &calm(), hint));
                }
                self.say(&line("log", &faint(), log));
                self.say(&line("tree", &faint(), &format!("isokiln shell {stage}, until the next build")));
            }
            Event::BootStarted { .. }
            | Event::BootPhase { .. }
            | Event::BootCheck { .. }
            | Event::BootFinished { .. }
            | Event::BootCompared { .. } => self.boot(event),
            Event::Cancelling { gracefully } => {
                let text = match (gracefully, &self.stop_now) {
                    (true, Some(way)) => format!("stopping at the next safe point; {way}"),
                    (true, None) => "stopping at the next safe point".to_owned(),
                    (false, _) => "stopping now".to_owned(),
                };
                self.say(&line("Cancel", &fair(), &text));
            }
            Event::RunFinished { exit_code, seconds, .. } => {
                self.end();
                for line in self.boots.tables(width()) {
                    self.say(&line);
                }
                self.summary(*exit_code, *seconds);
            }
        }
    }

    /// Tells the review of a stage that failed; `hint` is what the stage itself would have a person do.
    fn pending_review(&mut self, stage: &StageName, hint: Option<&str>) {
        if let Some(index) = self.reviews.iter().position(|(other, _)| other == stage) {
            let (stage, review) = self.reviews.remove(index);
            self.review(&stage, &review);
            let cure = &review.cure;
            if hint.is_some_and(|hint| hint != cure) && review.cause.is_some() && !cure.is_empty() {
                self.say(&line("", &faint(), cure));
            }
        }
    }

    /// What a review found, where there is anything to tell.
    fn review(&self, stage: &StageName, review: &Review) {
        let (word, style) = match review.verdict {
            Judgement::Clean => return,
            Judgement::Suspect => ("warning", fair()),
            Judgement::Known | Judgement::Unknown => ("Review", calm()),
        };
        let place = review.cause.as_ref().map(|cause| match cause.line {
            Some(number) => format!("line {number} of its log: {}", cause.text),
            None => cause.text.clone(),
        });
        self.say(&line(word, &style, &format!("{stage}: {}", place.as_ref().unwrap_or(&review.explanation))));
        if place.is_some() {
            self.say(&line("", &faint(), &review.explanation));
        }
    }

    fn boot(&mut self, event: &Event) {
        if self.current.take().is_some() {
            // Getting ready is over.
            self.end();
        }
        let several = self.record.baseline.is_some() || self.record.isos().count() > 1;
        for line in self.boots.lines(event, several) {
            self.say(&line);
        }
        match self.boots.current() {
            Some(machines) => {
                self.show("{spinner:>12.cyan} {elapsed} {wide_msg}");
                if let Some(bar) = &self.bar {
                    bar.set_message(printable(&machines));
                }
            }
            None => self.end(),
        }
    }

    fn summary(&self, exit_code: u8, seconds: f64) {
        let mut parts = Vec::new();
        let (built, hits) = (self.record.count(StageState::Done), self.record.count(StageState::Hit));
        if hits + built > 0 {
            parts.push(format!("{built} stages run, {hits} from checkpoints"));
        }
        for verdict in [Verdict::Pass, Verdict::Fail, Verdict::Inconclusive, Verdict::Infra] {
            let tests = self.record.boot_tests.iter().filter(|test| test.verdict == verdict);
            // What the other ISO came to is in the comparison.
            let tests = tests.filter(|test| self.record.baseline.as_ref() != Some(&test.iso));
            let profiles: Vec<_> = tests.map(|test| test.profile.as_str()).collect();
            if !profiles.is_empty() {
                parts.push(format!("boot test {verdict} on {}", profiles.join(", ")));
            }
        }
        let (word, style) = match exit_code {
            0 => ("Finished", good()),
            130 => ("Cancelled", fair()),
            5 => ("Undecided", fair()),
            _ => ("Failed", bad()),
        };
        let time = show_duration(Duration::from_secs_f64(seconds));
        let parts = if parts.is_empty() { String::new() } else { format!(": {}", parts.join("; ")) };
        self.say(&line(word, &style, &format!("in {time}{parts}")));
        for iso in self.record.isos() {
            self.say(&line("ISO", &style, &format!("{} ({})", short(&iso.path), show_size(iso.size_bytes))));
        }
    }
}

fn of_stage(stage: &Option<StageName>, text: &str) -> String {
    match stage {
        Some(stage) => format!("{stage}: {text}"),
        None => text.to_owned(),
    }
}

fn used(usage: &Usage) -> String {
    let mut parts = vec![format!("{:.1}s cpu", usage.cpu_seconds)];
    // A short stage ends before the engine has looked at its memory.
    if usage.memory_peak > 0 {
        parts.push(format!("{} memory", show_size(usage.memory_peak)));
    }
    if usage.network_received > 1 << 20 {
        parts.push(format!("{} downloaded", show_size(usage.network_received)));
    }
    parts.join(", ")
}

/// Characters in a line of the terminal; a wide one's where output goes to a file.
fn width() -> usize {
    console::Term::stderr().size_checked().map_or(120, |(_, columns)| usize::from(columns))
}
