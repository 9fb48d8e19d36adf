//! Following a run that another process has: it is told here, and what is wished here is told there.

use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::task::Poll;

use isokiln_core::event::Event;
use isokiln_core::exit;
use isokiln_core::names::{RunId, StageName};
use isokiln_core::session::{Ending, News, Wish};
use isokiln_engine::run::{Consent, Reporter, RunError};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::args::Format;
use crate::consent::AtTerminal;
use crate::output;
use crate::reporter::Terminal;

/// What a viewer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To build: Ctrl-C stops the build.
    Build,
    /// To see the build begin.
    Begin,
    /// To look: Ctrl-C ends the looking.
    Look,
}

/// How a viewing ended.
pub(crate) struct Seen {
    /// The run, once it had begun.
    pub(crate) run: Option<RunId>,
    /// How many of the run's events were seen.
    pub(crate) events: usize,
    /// Whether the run is being stopped.
    pub(crate) is_stopping: bool,
    /// What ended it.
    pub(crate) end: End,
}

/// What ends a viewing.
pub(crate) enum End {
    /// The run has ended.
    Ended(Ending),
    /// The viewer has left; with this code.
    Left(u8),
    /// The other process has gone without a word, or this one was too slow to hear it.
    Lost,
}

/// What stops at once a build whose viewer has asked it to stop.
pub(crate) const AGAIN: &str = "press Ctrl-C again to stop now";

/// What a shell calls the end of a program by SIGHUP.
const HUNG_UP: u8 = 129;

/// Follows a run to its end, or until this process is asked to leave it.
pub(crate) async fn watch(
    stream: StdStream,
    mut signals: Signals,
    terminal: &Terminal,
    format: Format,
    purpose: Purpose,
) -> Result<Seen, RunError> {
    let lost = |source| RunError::NoAnswer { run: String::new(), pid: None, source };
    stream.set_nonblocking(true).map_err(lost)?;
    let (reader, writer) = UnixStream::from_std(stream).map_err(lost)?.into_split();
    let mut news = BufReader::new(reader).lines();
    let mut viewer = Viewer::new(writer, terminal);
    if viewer.consent.is_possible() {
        viewer.wish(Wish::Present).await;
    }
    let end = loop {
        tokio::select! {
            // A process that is gone is none that has said its last word.
            line = news.next_line() => match line.ok().flatten() {
                None => break End::Lost,
                Some(line) => match serde_json::from_str(&line) {
                    Ok(News::Event { at, event }) => {
                        let begins = matches!(event, Event::RunStarted { .. });
                        viewer.event(&event, at);
                        let is_unseen = purpose == Purpose::Look && output::Reader::of(format).has_left();
                        if begins && purpose == Purpose::Begin || is_unseen {
                            break End::Left(exit::OK);
                        }
                    }
                    Ok(News::Ended(ending)) => break End::Ended(ending),
                    // Of an isokiln that knows more.
                    Err(error) => tracing::debug!("not understood: {error}: {line}"),
                },
            },
            Some(answer) = viewer.answers.1.recv() => viewer.wish(answer).await,
            signal = signals.next() => match (signal, purpose) {
                (Caught::HangUp, _) => break End::Left(HUNG_UP),
                (Caught::Quit, _) | (_, Purpose::Look) => break End::Left(exit::OK),
                (Caught::Interrupt, _) if !viewer.is_stopping => {
                    viewer.is_stopping = true;
                    viewer.wish(Wish::Stop).await;
                }
                _ => viewer.wish(Wish::StopNow).await,
            },
        }
    };
    let Viewer { run, events, is_stopping, .. } = viewer;
    Ok(Seen { run, events, is_stopping, end })
}

struct Viewer<'t> {
    terminal: &'t Terminal,
    consent: Arc<AtTerminal>,
    writer: OwnedWriteHalf,
    run: Option<RunId>,
    events: usize,
    /// Whether the run was asked to stop, by whomever.
    is_stopping: bool,
    /// The stage that a question is about, and who asks it.
    asking: Option<(StageName, JoinHandle<()>)>,
    answers: (mpsc::Sender<Wish>, mpsc::Receiver<Wish>),
}

impl<'t> Viewer<'t> {
    fn new(writer: OwnedWriteHalf, terminal: &'t Terminal) -> Self {
        Self {
            terminal,
            consent: Arc::default(),
            writer,
            run: None,
            events: 0,
            is_stopping: false,
            asking: None,
            answers: mpsc::channel(1),
        }
    }

    fn event(&mut self, event: &Event, at: f64) {
        self.terminal.event(event, at);
        // What came before the beginning is not among the run's.
        if !event.is_ephemeral() && (self.events > 0 || matches!(event, Event::RunStarted { .. })) {
            self.events += 1;
        }
        self.is_stopping |= matches!(event, Event::Cancelling { .. });
        let withdrawn = match event {
            Event::RunStarted { run, .. } => {
                self.run = Some(run.clone());
                false
            }
            Event::StageRecovering { stage, .. } | Event::StageFailed { stage, .. } => {
                self.asking.as_ref().is_some_and(|(asked, _)| asked == stage)
            }
            Event::RunFinished { .. } => true,
            _ => false,
        };
        if withdrawn && let Some((_, asking)) = self.asking.take() {
            asking.abort();
        }
        if let Event::Asking { stage, question } = event {
            // One question is open at a time.
            if let Some((_, old)) = self.asking.take() {
                old.abort();
            }
            let (consent, question, answers) =
                (self.consent.clone(), question.clone(), self.answers.0.clone());
            let asking = tokio::spawn(async move {
                if let Some(yes) = consent.ask(&question).await {
                    let _ = answers.send(Wish::Answer { question, yes }).await;
                }
            });
            self.asking = Some((stage.clone(), asking));
        }
    }

    async fn wish(&mut self, wish: Wish) {
        let line = serde_json::to_string(&wish).unwrap_or_default() + "\n";
        // If nobody listens any more, the news will end too.
        drop(self.writer.write_all(line.as_bytes()).await);
    }
}

/// A signal that means something to a viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caught {
    Interrupt,
    Terminate,
    HangUp,
    Quit,
}

/// The signals to a viewer, caught from the making of this on: before there is anything that one could leave alone.
pub(crate) struct Signals([(Caught, Signal); 4]);

impl Signals {
    pub(crate) fn catch() -> Result<Self, RunError> {
        Self::new().map_err(RunError::Supervisor)
    }

    fn new() -> std::io::Result<Self> {
        Ok(Self([
            (Caught::Interrupt, signal(SignalKind::interrupt())?),
            (Caught::Terminate, signal(SignalKind::terminate())?),
            (Caught::HangUp, signal(SignalKind::hangup())?),
            (Caught::Quit, signal(SignalKind::quit())?),
        ]))
    }

    async fn next(&mut self) -> Caught {
        let signals = &mut self.0;
        std::future::poll_fn(|context| {
            for (caught, signal) in signals.iter_mut() {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*caught);
                }
            }
            Poll::Pending
        })
        .await
    }
}
