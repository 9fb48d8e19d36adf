//! A machine that is made up: each of its sockets and consoles is an [`Actor`] that says what is on its
//! agenda and reacts to what it is told, so that a test writes down when which part misbehaves.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use isokiln_core::boot::CheckSpec;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, DuplexStream, duplex, split};
use tokio::time::{Duration, Instant, sleep_until};

use super::body::{Body, Sight};
use crate::boot::{BootError, Guest, GuestHost, Order, Wire};

/// Bytes that the sockets between QEMU and isokiln hold while nobody reads.
const SOCKET: usize = 16 << 10;
/// How QEMU greets.
pub(super) const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}, "package": ""}, "capabilities": ["oob"]}}"#;

/// What an actor does.
pub(super) enum Act {
    Say(Vec<u8>),
    HangUp,
}

/// What is done how many seconds from now.
pub(super) type Agenda = Vec<(f64, Act)>;

/// Says a line.
pub(super) fn line(text: &str) -> Act {
    Act::Say(format!("{text}\n").into_bytes())
}

/// What an actor does when it is told a line by a machine's host.
type React = Box<dyn FnMut(&str, &Arc<Sight>) -> Agenda + Send>;

/// The far end of a conversation.
pub(super) struct Actor {
    agenda: Agenda,
    react: React,
    reads: bool,
}

impl Actor {
    pub(super) fn new(agenda: Agenda, mut react: impl FnMut(&str) -> Agenda + Send + 'static) -> Self {
        Self::sighted(agenda, move |said, _| react(said))
    }

    /// One that knows what its machine shows.
    fn sighted(agenda: Agenda, react: impl FnMut(&str, &Arc<Sight>) -> Agenda + Send + 'static) -> Self {
        Self { agenda, react: Box::new(react), reads: true }
    }

    /// Says its agenda whatever it is told.
    pub(super) fn stubborn(agenda: Agenda) -> Self {
        Self::new(agenda, |_| vec![])
    }

    /// Says its agenda and never reads, so that what it is told piles up.
    pub(super) fn deaf(agenda: Agenda) -> Self {
        Self { reads: false, ..Self::stubborn(agenda) }
    }

    /// Adds something to say.
    pub(super) fn also(mut self, seconds: f64, act: Act) -> Self {
        self.agenda.push((seconds, act));
        self
    }

    async fn play(mut self, stream: DuplexStream, sight: Arc<Sight>) {
        let (reader, mut writer) = split(stream);
        let mut lines = BufReader::new(reader).lines();
        let mut due = Vec::new();
        let plan = |due: &mut Vec<(Instant, Act)>, agenda: Agenda| {
            let now = Instant::now();
            due.extend(
                agenda.into_iter().map(|(seconds, act)| (now + Duration::from_secs_f64(seconds), act)),
            );
            // Stable: what was planned first is done first.
            due.sort_by_key(|(at, _)| *at);
        };
        plan(&mut due, std::mem::take(&mut self.agenda));
        loop {
            let next = due.first().map(|(at, _)| *at);
            tokio::select! {
                biased;
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => match due.remove(0).1 {
                    Act::Say(bytes) => {
                        if writer.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                    Act::HangUp => return,
                },
                said = lines.next_line(), if self.reads => match said {
                    Ok(Some(line)) => plan(&mut due, (self.react)(&line, &sight)),
                    _ => return,
                },
                () = std::future::pending() => {}
            }
        }
    }
}

/// A command that QEMU's monitor is given.
pub(super) struct Command {
    pub(super) name: String,
    pub(super) arguments: Value,
    id: Option<Value>,
    sight: Arc<Sight>,
}

impl Command {
    /// A message that answers this command.
    pub(super) fn answer(&self, mut message: Value) -> String {
        if let Some(id) = &self.id {
            message["id"] = id.clone();
        }
        message.to_string()
    }

    pub(super) fn refuse(&self, why: &str) -> Agenda {
        vec![(0.0, line(&self.answer(json!({"error": {"class": "GenericError", "desc": why}}))))]
    }

    /// Does as a healthy QEMU does.
    pub(super) fn obey(&self) -> Agenda {
        let answer = match self.name.as_str() {
            "query-status" => json!({"return": {"status": "running", "running": true}}),
            "human-monitor-command" => {
                let question = self.arguments["command-line"].as_str().expect("a question");
                json!({"return": self.sight.print(question)})
            }
            "send-key" => {
                let keys = self.arguments["keys"].as_array().expect("keys");
                let names: Vec<_> = keys.iter().filter_map(|key| key["data"].as_str()).collect();
                self.sight.press(&names);
                json!({"return": {}})
            }
            _ => json!({"return": {}}),
        };
        vec![(0.0, line(&self.answer(answer)))]
    }
}

/// A monitor that greets, says its agenda and lets `react` answer commands.
pub(super) fn monitor(agenda: Agenda, react: impl FnMut(&Command) -> Agenda + Send + 'static) -> Actor {
    monitor_greeting(GREETING, agenda, react)
}

/// The same with another greeting.
pub(super) fn monitor_greeting(
    greeting: &str,
    mut agenda: Agenda,
    mut react: impl FnMut(&Command) -> Agenda + Send + 'static,
) -> Actor {
    agenda.insert(0, (0.0, line(greeting)));
    Actor::sighted(agenda, move |said, sight| {
        let command: Value = serde_json::from_str(said).expect("isokiln speaks QMP");
        let name = command["execute"].as_str().expect("a command").to_owned();
        let arguments = command["arguments"].clone();
        react(&Command { name, arguments, id: command.get("id").cloned(), sight: sight.clone() })
    })
}

/// A script that the agent in the guest is given.
pub(super) struct Asked {
    pub(super) id: u64,
    pub(super) script: String,
}

impl Asked {
    /// Whether it is this check's script.
    pub(super) fn is(&self, check: &CheckSpec) -> bool {
        check.script().as_ref() == Some(&self.script)
    }

    pub(super) fn answer(&self, status: i32, output: &str) -> Act {
        line(&json!({"id": self.id, "status": status, "out": STANDARD.encode(output)}).to_string())
    }
}

/// A guest that says hello after so many seconds, starts the agent it is sent, and lets `react` run its
/// scripts.
pub(super) fn probe(hello: f64, mut react: impl FnMut(&Asked) -> Agenda + Send + 'static) -> Actor {
    let mut agent = false;
    Actor::new(vec![(hello, line("hello"))], move |said| {
        let words: Vec<_> = said.split(' ').collect();
        let decode = |text| String::from_utf8(STANDARD.decode(text).expect("base64")).expect("text");
        match words[..] {
            [source] if !agent => {
                agent = decode(source).contains("ready");
                vec![(0.5, line("{\"ready\":1}"))]
            }
            [id, _, _, script] if agent => {
                react(&Asked { id: id.parse().expect("a number"), script: decode(script) })
            }
            _ => panic!("unexpected: {said:?}"),
        }
    })
}

/// How a machine behaves.
pub(super) struct Machine {
    /// The monitor, for the n-th connection to it, from 1. QEMU serves them one after the other.
    pub(super) monitor: Box<dyn FnMut(usize) -> Actor + Send>,
    pub(super) probe: Actor,
    /// What is on the second serial port.
    pub(super) shell: Actor,
    /// The guest agent, for the n-th connection to it, from 1.
    pub(super) agent: Box<dyn FnMut(usize) -> Actor + Send>,
    pub(super) body: Body,
    pub(super) serial: Box<dyn Console>,
    pub(super) firmware: Agenda,
    /// How QEMU ends by itself.
    pub(super) end: Option<End>,
    /// Whether it can be removed.
    pub(super) removable: bool,
}

/// QEMU's end. Its lines may close sooner or later than the end becomes known.
#[derive(Clone)]
pub(super) struct End {
    /// Seconds from the start until the end is known.
    pub(super) known: f64,
    /// Seconds from the start until sockets and logs close.
    pub(super) closed: f64,
    pub(super) status: i64,
    pub(super) words: &'static str,
}

/// Where a followed file's bytes come from.
pub(super) trait Console: Send {
    fn open(self: Box<Self>, stage: &Stage) -> Box<dyn AsyncRead + Send + Unpin>;
}

impl Console for Agenda {
    fn open(self: Box<Self>, stage: &Stage) -> Box<dyn AsyncRead + Send + Unpin> {
        Box::new(stage.enter(Actor::stubborn(*self)))
    }
}

/// Where actors play until a machine's lines close.
pub(super) struct Stage {
    closed: Option<Instant>,
    /// QEMU serves one connection to a socket after the other.
    monitor: Turn,
    agent: Turn,
    sight: Arc<Sight>,
}

type Turn = Arc<tokio::sync::Mutex<()>>;

impl Stage {
    fn enter(&self, actor: Actor) -> DuplexStream {
        self.play(|far| actor.play(far, self.sight.clone()))
    }

    fn enter_in_turn(&self, actor: Actor, turn: &Turn) -> DuplexStream {
        let (turn, sight) = (turn.clone(), self.sight.clone());
        self.play(|far| async move {
            let _turn = turn.lock_owned().await;
            actor.play(far, sight).await;
        })
    }

    fn play<P: Future<Output = ()> + Send + 'static>(
        &self,
        play: impl FnOnce(DuplexStream) -> P,
    ) -> DuplexStream {
        let (near, far) = duplex(SOCKET);
        let (play, closed) = (play(far), self.closed);
        tokio::spawn(async move {
            tokio::select! {
                () = play => {}
                () = past(closed) => {}
            }
        });
        near
    }
}

async fn past(end: Option<Instant>) {
    match end {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What a host saw.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) orders: Mutex<Vec<Order>>,
    pub(super) connections: AtomicUsize,
    pub(super) agent_connections: AtomicUsize,
    /// What each machine shows.
    pub(super) sights: Mutex<Vec<Arc<Sight>>>,
    pub(super) removed: AtomicUsize,
}

/// Starts made-up machines, one after the other.
pub(super) struct FakeHost {
    machines: Mutex<VecDeque<Result<Machine, BootError>>>,
    pub(super) ledger: Arc<Ledger>,
}

impl FakeHost {
    pub(super) fn new(machines: impl IntoIterator<Item = Result<Machine, BootError>>) -> Self {
        Self { machines: Mutex::new(machines.into_iter().collect()), ledger: Arc::default() }
    }
}

#[async_trait]
impl GuestHost for FakeHost {
    async fn start(&self, order: Order) -> Result<Box<dyn Guest>, BootError> {
        let machine = self.machines.lock().unwrap().pop_front().expect("no more machines expected")?;
        self.ledger.orders.lock().unwrap().push(order);
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs_f64(seconds);
        let sight = Sight::new(machine.body);
        self.ledger.sights.lock().unwrap().push(sight.clone());
        Ok(Box::new(FakeGuest {
            monitor: Mutex::new(machine.monitor),
            probe: Mutex::new(Some(machine.probe)),
            serial: Mutex::new(Some(machine.serial)),
            firmware: Mutex::new(Some(Box::new(machine.firmware))),
            shell: Mutex::new(Some(machine.shell)),
            agent: Mutex::new(machine.agent),
            stage: Stage {
                closed: machine.end.as_ref().map(|end| at(end.closed)),
                monitor: Turn::default(),
                agent: Turn::default(),
                sight,
            },
            known: machine.end.as_ref().map(|end| at(end.known)),
            end: machine.end,
            removable: machine.removable,
            ledger: self.ledger.clone(),
        }))
    }
}

struct FakeGuest {
    monitor: Mutex<Box<dyn FnMut(usize) -> Actor + Send>>,
    probe: Mutex<Option<Actor>>,
    shell: Mutex<Option<Actor>>,
    agent: Mutex<Box<dyn FnMut(usize) -> Actor + Send>>,
    serial: Mutex<Option<Box<dyn Console>>>,
    firmware: Mutex<Option<Box<dyn Console>>>,
    stage: Stage,
    known: Option<Instant>,
    end: Option<End>,
    removable: bool,
    ledger: Arc<Ledger>,
}

#[async_trait]
impl Guest for FakeGuest {
    async fn connect(&self, path: &str) -> Result<Wire, BootError> {
        if self.stage.closed.is_some_and(|closed| closed <= Instant::now()) {
            return Err(BootError::Host("the container is not running".to_owned()));
        }
        let near = match path.rsplit('/').next() {
            Some("qmp.sock") => {
                let number = self.ledger.connections.fetch_add(1, Ordering::SeqCst) + 1;
                let actor = (self.monitor.lock().unwrap())(number);
                self.stage.enter_in_turn(actor, &self.stage.monitor)
            }
            Some("agent.sock") => {
                let number = self.ledger.agent_connections.fetch_add(1, Ordering::SeqCst) + 1;
                let actor = (self.agent.lock().unwrap())(number);
                self.stage.enter_in_turn(actor, &self.stage.agent)
            }
            Some("shell.sock") => {
                let shell = self.shell.lock().unwrap().take().expect("the shell is connected to once");
                self.stage.enter(shell)
            }
            Some("probe.sock") => {
                let probe = self.probe.lock().unwrap().take().expect("the probe is connected to once");
                self.stage.enter(probe)
            }
            other => panic!("no socket {other:?}"),
        };
        let (reader, writer) = split(near);
        Ok(Wire { reader: Box::new(reader), writer: Box::new(writer) })
    }

    async fn follow(&self, path: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>, BootError> {
        let console = match path.rsplit('/').next() {
            Some("serial.log") => &self.serial,
            Some("firmware.log") => &self.firmware,
            other => panic!("no log {other:?}"),
        };
        Ok(console.lock().unwrap().take().expect("a log is followed once").open(&self.stage))
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, BootError> {
        let name = path.rsplit('/').next().unwrap_or_default();
        self.stage.sight.file(name).ok_or_else(|| BootError::Host(format!("there is no {path}")))
    }

    async fn ended(&self) -> Result<(i64, String), BootError> {
        past(self.known).await;
        let end = self.end.as_ref().expect("a machine whose end is known has one");
        Ok((end.status, end.words.to_owned()))
    }

    async fn remove(self: Box<Self>) -> Result<(), BootError> {
        self.ledger.removed.fetch_add(1, Ordering::SeqCst);
        if self.removable { Ok(()) } else { Err(BootError::Host("it will not go".to_owned())) }
    }
}
