//! Following a run that another process has: it is told here, and what is wished here is told there.

use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::task::Poll;

use isokiln_core::event::Event;
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
pub(crate) enum Seen {
    /// With the run.
    Ended(Ending),
    /// The viewer has left, on a signal; absent where it was not made to.
    Left(Option<u8>),
    /// The other process has gone without a word.
    Lost(Option<RunId>),
}

/// What a shell calls the end of a program by SIGHUP.
const HUNG_UP: u8 = 129;

/// Follows a run to its end, or until this process is asked to leave it.
pub(crate) async fn watch(
    stream: StdStream,
    mut signals: Signals,
    format: Format,
    purpose: Purpose,
) -> Result<Seen, RunError> {
    let lost = |source| RunError::NoAnswer { run: String::new(), pid: None, source };
    stream.set_nonblocking(true).map_err(lost)?;
    let (reader, writer) = UnixStream::from_std(stream).map_err(lost)?.into_split();
    let mut news = BufReader::new(reader).lines();
    let mut viewer = Viewer::new(writer, format);
    if viewer.consent.is_possible() {
        viewer.wish(Wish::Present).await;
    }
    let mut stops = false;
    loop {
        tokio::select! {
            // A process that is gone is none that has said its last word.
            line = news.next_line() => match line.ok().flatten() {
                None => return Ok(Seen::Lost(viewer.run)),
                Some(line) => match serde_json::from_str(&line) {
                    Ok(News::Event { at, event }) => {
                        let begins = matches!(event, Event::RunStarted { .. });
                        viewer.event(&event, at);
                        if begins && purpose == Purpose::Begin {
                            return Ok(Seen::Left(None));
                        }
                    }
                    Ok(News::Ended(ending)) => return Ok(Seen::Ended(ending)),
                    // Of an isokiln that knows more.
                    Err(error) => tracing::debug!("not understood: {error}: {line}"),
                },
            },
            Some(answer) = viewer.answers.1.recv() => viewer.wish(Wish::Answer(answer)).await,
            signal = signals.next() => match (signal, purpose) {
                (Caught::HangUp, _) => return Ok(Seen::Left(Some(HUNG_UP))),
                (Caught::Quit, _) | (_, Purpose::Look) => return Ok(Seen::Left(None)),
                (Caught::Interrupt, _) if !stops => {
                    stops = true;
                    viewer.wish(Wish::Stop).await;
                }
                _ => viewer.wish(Wish::StopNow).await,
            },
        }
    }
}

/// Says how to come back.
pub(crate) fn tell_left(run: Option<&str>) {
    let run = run.map(|run| format!(" {run}")).unwrap_or_default();
    output::tell(&format!(
        "the build goes on: isokiln attach{run} shows it again, isokiln cancel{run} stops it"
    ));
}

struct Viewer {
    terminal: Terminal,
    consent: Arc<AtTerminal>,
    writer: OwnedWriteHalf,
    run: Option<RunId>,
    /// The stage that a question is about, and who asks it.
    asking: Option<(StageName, JoinHandle<()>)>,
    answers: (mpsc::Sender<bool>, mpsc::Receiver<bool>),
}

impl Viewer {
    fn new(writer: OwnedWriteHalf, format: Format) -> Self {
        Self {
            terminal: Terminal::new(format),
            consent: Arc::default(),
            writer,
            run: None,
            asking: None,
            answers: mpsc::channel(1),
        }
    }

    fn event(&mut self, event: &Event, at: f64) {
        self.terminal.event(event, at);
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
            let (consent, question, answers) =
                (self.consent.clone(), question.clone(), self.answers.0.clone());
            let asking = tokio::spawn(async move {
                if let Some(answer) = consent.ask(&question).await {
                    let _ = answers.send(answer).await;
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
