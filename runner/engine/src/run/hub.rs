//! Whoever watches a run, and may stop it: each is told all that has happened and then what happens, and is heard.
//!
//! Viewers come and go, by a socket in the run's folder, and none can hold up the run: what is recorded waits for
//! the slowest, what is only for the eye (a stage's lines, what it uses) is dropped where nobody keeps up.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use isokiln_core::event::Event;
use isokiln_core::session::{Ending, News, Wish};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::events::Reporter;
use super::recover::Consent;

/// Name of the socket in a run's folder.
const SOCKET: &str = "socket";
/// Lines for the eye that may wait for a viewer before the oldest is dropped.
const WAITING: usize = 256;
/// How long a run that has ended waits for viewers to take in how.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where the viewers of a command come together.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    /// Everything that is recorded, as lines of [`News`]. Few enough to be kept: a stage's output is not among them.
    history: Mutex<Vec<Arc<str>>>,
    /// How many lines the history has.
    grown: watch::Sender<usize>,
    has_ended: AtomicBool,
    live: broadcast::Sender<Arc<str>>,
    /// Wishes to stop.
    wishes: mpsc::UnboundedSender<Wish>,
    /// Whether somebody could answer a question.
    has_person: AtomicBool,
    question: Mutex<Option<(String, oneshot::Sender<bool>)>>,
}

/// A run's socket; closed and removed when dropped.
pub(super) struct Listening {
    path: PathBuf,
    task: AbortHandle,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        drop(fs::remove_file(&self.path));
    }
}

impl Hub {
    /// A hub without viewers, and where their wishes to stop come out.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Wish>) {
        let (wishes, wished) = mpsc::unbounded_channel();
        let shared = Shared {
            history: Mutex::default(),
            grown: watch::Sender::new(0),
            has_ended: AtomicBool::new(false),
            live: broadcast::Sender::new(WAITING),
            wishes,
            has_person: AtomicBool::new(false),
            question: Mutex::default(),
        };
        (Self(Arc::new(shared)), wished)
    }

    /// Takes in the viewers that connect to the socket in a run's folder.
    pub(super) fn listen(&self, folder: &Path) -> io::Result<Listening> {
        let listener = through_folder(folder, |path| StdListener::bind(path))?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let hub = self.clone();
        let accepting = async move {
            // One that cannot be taken in, for want of files, must not end it for those to come.
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => hub.serve(stream),
                    Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                }
            }
        };
        let task = tokio::spawn(accepting).abort_handle();
        Ok(Listening { path: folder.join(SOCKET), task })
    }

    /// Takes in a viewer.
    pub fn serve(&self, stream: UnixStream) {
        let hub = self.clone();
        // Subscribed at once: a run that ends now waits for this viewer too.
        let (grown, live) = (self.0.grown.subscribe(), self.0.live.subscribe());
        tokio::spawn(async move {
            if let Err(error) = hub.talk(stream, grown, live).await {
                tracing::debug!("a viewer has left: {error}");
            }
        });
    }

    async fn talk(
        &self,
        stream: UnixStream,
        mut grown: watch::Receiver<usize>,
        mut live: broadcast::Receiver<Arc<str>>,
    ) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut hearing = pin!(async {
            let mut wishes = BufReader::new(reader).lines();
            while let Some(line) = wishes.next_line().await? {
                self.heard(&line);
            }
            Ok(())
        });
        let telling = async {
            let mut told = 0;
            loop {
                let (new, is_last) = self.since(told);
                told += new.len();
                for line in new {
                    writer.write_all(line.as_bytes()).await?;
                }
                if is_last {
                    return writer.shutdown().await;
                }
                tokio::select! {
                    // A line for the eye comes after what was recorded before it.
                    biased;
                    changed = grown.changed() => if changed.is_err() { return Ok(()) },
                    line = live.recv() => if let Ok(line) = line {
                        writer.write_all(line.as_bytes()).await?;
                    },
                }
            }
        };
        // Heard also while it is not keeping up.
        let told = tokio::select! {
            ended = &mut hearing => return ended,
            ended = telling => ended,
        };
        match told {
            Ok(()) => Ok(()),
            // What it wished before it left counts.
            Err(_) => hearing.await,
        }
    }

    /// The history from a line on, and whether nothing can follow it.
    fn since(&self, told: usize) -> (Vec<Arc<str>>, bool) {
        // In this order: what was added before the end is in the history.
        let has_ended = self.0.has_ended.load(Ordering::Acquire);
        let history = self.0.history.lock().unwrap_or_else(PoisonError::into_inner);
        (history[told..].to_vec(), has_ended)
    }

    fn heard(&self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Wish::Present) => self.0.has_person.store(true, Ordering::Release),
            Ok(Wish::Answer { question, yes }) => {
                let mut asked = self.0.question.lock().unwrap_or_else(PoisonError::into_inner);
                // A question that was withdrawn needs no answer.
                if let Some((_, sender)) = asked.take_if(|(asked, _)| *asked == question) {
                    let _ = sender.send(yes);
                }
            }
            Ok(wish @ (Wish::Stop | Wish::StopNow)) => drop(self.0.wishes.send(wish)),
            Err(error) => tracing::warn!("a viewer said what is not understood: {error}"),
        }
    }

    fn add(&self, news: News) {
        let Some(line) = line(&news) else { return };
        let mut history = self.0.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.push(line);
        self.0.grown.send_replace(history.len());
    }

    /// The command has ended: tells the viewers, and waits for a moment until they know.
    pub async fn end(&self, ending: Ending) {
        self.add(News::Ended(ending));
        self.0.has_ended.store(true, Ordering::Release);
        self.0.grown.send_modify(|_| ());
        // One that was stopped, say, will find it in the run's files.
        drop(tokio::time::timeout(FAREWELL, self.0.grown.closed()).await);
    }
}

impl Reporter for Hub {
    fn event(&self, event: &Event, at: f64) {
        if !event.is_ephemeral() {
            self.add(News::Event { at, event: event.clone() });
        } else if self.0.live.receiver_count() > 0
            && let Some(line) = line(&News::Event { at, event: event.clone() })
        {
            drop(self.0.live.send(line));
        }
    }
}

/// Asks whichever viewer has a person before it. Where none ever had, nobody is asked; where it has gone, the next one
/// is.
#[async_trait]
impl Consent for Hub {
    async fn ask(&self, question: &str) -> Option<bool> {
        if !self.0.has_person.load(Ordering::Acquire) {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        *self.0.question.lock().unwrap_or_else(PoisonError::into_inner) = Some((question.to_owned(), sender));
        receiver.await.ok()
    }
}

fn line(news: &News) -> Option<Arc<str>> {
    let text = serde_json::to_string(news);
    text.inspect_err(|error| tracing::warn!("an event cannot be told: {error}"))
        .ok()
        .map(|text| (text + "\n").into())
}

/// Connects to the socket in a run's folder.
pub(super) fn connect(folder: &Path) -> io::Result<StdStream> {
    through_folder(folder, |path| StdStream::connect(path))
}

/// The socket that a run has left in its folder, if it has.
pub(super) fn socket_of(folder: &Path) -> Option<PathBuf> {
    let path = folder.join(SOCKET);
    path.symlink_metadata().is_ok().then_some(path)
}

/// Names the socket by way of the opened folder: a socket's address holds 107 bytes, a path in a project may be longer.
fn through_folder<T>(folder: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let opened = File::open(folder)?;
    work(&Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string()).join(SOCKET))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(text: &str) -> Event {
        Event::Note { stage: None, text: text.to_owned() }
    }

    fn told(text: &str) -> News {
        News::Event { at: 1.0, event: note(text) }
    }

    fn output(text: &str) -> Event {
        Event::StageLine { stage: "base".parse().unwrap(), text: text.to_owned() }
    }

    fn ended() -> Ending {
        Ending { exit_code: 7, problem: None }
    }

    /// A viewer that reads to the end.
    async fn all(stream: UnixStream) -> Vec<News> {
        let mut lines = BufReader::new(stream).lines();
        let mut news = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            news.push(serde_json::from_str(&line).unwrap());
        }
        news
    }

    #[tokio::test]
    async fn who_comes_late_is_told_everything_in_order_and_how_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        // Longer than a socket's address may be.
        let folder = folder.path().join("long".repeat(40)).join("run");
        fs::create_dir_all(&folder).unwrap();
        let (hub, _wished) = Hub::new();
        let listening = hub.listen(&folder).unwrap();
        let viewer = || {
            let stream = connect(&folder).unwrap();
            stream.set_nonblocking(true).unwrap();
            tokio::spawn(all(UnixStream::from_std(stream).unwrap()))
        };
        let early = viewer();
        hub.event(&note("one"), 1.0);
        let late = viewer();
        // Both are known before the end.
        while hub.0.grown.receiver_count() < 2 {
            tokio::task::yield_now().await;
        }
        hub.event(&note("two"), 1.0);
        hub.end(ended()).await;
        let expected = [told("one"), told("two"), News::Ended(ended())];
        assert_eq!(early.await.unwrap(), expected);
        assert_eq!(late.await.unwrap(), expected);
        assert!(socket_of(&folder).is_some());
        drop(listening);
        assert!(socket_of(&folder).is_none());
    }

    #[tokio::test]
    async fn a_viewer_that_reads_nothing_loses_lines_for_the_eye_only_and_holds_up_nobody() {
        let (hub, _wished) = Hub::new();
        let (theirs, ours) = UnixStream::pair().unwrap();
        hub.serve(ours);
        for number in 0..20_000 {
            hub.event(&output(&format!("line {number}")), 1.0);
            if number % 1000 == 0 {
                hub.event(&note(&number.to_string()), 1.0);
                tokio::task::yield_now().await;
            }
        }
        let ending = tokio::spawn({
            let hub = hub.clone();
            async move { hub.end(ended()).await }
        });
        let news = all(theirs).await;
        ending.await.unwrap();
        let notes =
            news.iter().filter(|news| matches!(news, News::Event { event: Event::Note { .. }, .. })).count();
        assert_eq!(notes, 20);
        assert!(news.len() < 20_000, "nothing was dropped of {}", news.len());
        assert_eq!(news.last(), Some(&News::Ended(ended())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_viewer_that_never_reads_does_not_keep_a_run_from_ending() {
        let (hub, _wished) = Hub::new();
        let (_theirs, ours) = UnixStream::pair().unwrap();
        hub.serve(ours);
        hub.event(&note(&"much".repeat(1 << 20)), 1.0);
        hub.end(ended()).await;
    }

    #[tokio::test]
    async fn wishes_are_heard_and_questions_answered_where_a_person_is() {
        let (hub, mut wished) = Hub::new();
        assert_eq!(hub.ask("again?").await, None, "nobody is there");
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        hub.serve(ours);
        let say = |wish| serde_json::to_string(&wish).unwrap() + "\n";
        // What is not understood does no harm.
        theirs
            .write_all(format!("nonsense\n{}{}", say(Wish::Present), say(Wish::Stop)).as_bytes())
            .await
            .unwrap();
        assert_eq!(wished.recv().await, Some(Wish::Stop));
        let asking = tokio::spawn({
            let hub = hub.clone();
            async move { hub.ask("again?").await }
        });
        while hub.0.question.lock().unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        let answer = |question: &str, yes| say(Wish::Answer { question: question.to_owned(), yes });
        theirs.write_all((answer("other?", false) + &answer("again?", true)).as_bytes()).await.unwrap();
        assert_eq!(asking.await.unwrap(), Some(true));
        // An answer to nothing.
        theirs.write_all((answer("again?", true) + &say(Wish::StopNow)).as_bytes()).await.unwrap();
        assert_eq!(wished.recv().await, Some(Wish::StopNow));
    }
}
