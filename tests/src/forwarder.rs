//! A port that leads to the engine's socket: an engine by TCP, whose connections a test can cut.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Forwards connections on a port of this machine to the engine.
#[derive(Debug)]
pub struct Forwarder {
    address: String,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    cut: AtomicBool,
    connections: Mutex<Vec<(TcpStream, UnixStream)>>,
    sent: AtomicU64,
    received: AtomicU64,
    /// What was sent to the engine, up to a limit for each connection.
    requests: Mutex<Vec<u8>>,
}

/// Bytes of a connection's requests that are kept.
const KEPT: usize = 1 << 20;

impl Forwarder {
    /// Opens the port.
    pub fn open() -> Self {
        let engine =
            std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let socket =
            engine.strip_prefix("unix://").expect("these tests need the engine's own socket").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("tcp://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(State::default());
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(engine) = UnixStream::connect(&socket) else { continue };
                forward(&shared, client, engine);
            }
        });
        Self { address, state }
    }

    /// For `DOCKER_HOST`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Cuts every connection, and closes every new one at once.
    pub fn hang_up(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
        for (client, engine) in self.state.connections.lock().expect("no panic").drain(..) {
            // One that is closed already is as good.
            drop((client.shutdown(Shutdown::Both), engine.shutdown(Shutdown::Both)));
        }
    }

    /// Cuts every connection; new ones get through.
    pub fn hiccup(&self) {
        self.hang_up();
        self.state.cut.store(false, Ordering::SeqCst);
    }

    /// Bytes that went to the engine so far.
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }

    /// Bytes that came from the engine so far.
    pub fn received(&self) -> u64 {
        self.state.received.load(Ordering::SeqCst)
    }

    /// Whether the engine was sent this.
    pub fn was_sent(&self, text: &str) -> bool {
        let requests = self.state.requests.lock().expect("no panic");
        requests.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

fn forward(state: &Arc<State>, client: TcpStream, engine: UnixStream) {
    let twice = |client: &TcpStream, engine: &UnixStream| {
        (client.try_clone().expect("a handle"), engine.try_clone().expect("a handle"))
    };
    state.connections.lock().expect("no panic").push(twice(&client, &engine));
    let (mut from, mut to) = twice(&client, &engine);
    let shared = state.clone();
    thread::spawn(move || {
        let mut kept = 0;
        pass(&mut from, &mut to, |bytes| {
            shared.sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            if kept < KEPT {
                kept += bytes.len();
                shared.requests.lock().expect("no panic").extend_from_slice(bytes);
            }
        });
        drop(to.shutdown(Shutdown::Write));
    });
    let (mut client, mut engine, shared) = (client, engine, state.clone());
    thread::spawn(move || {
        pass(&mut engine, &mut client, |bytes| {
            shared.received.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        });
        drop(client.shutdown(Shutdown::Write));
    });
}

/// Passes bytes on until one end is closed.
fn pass(from: &mut impl Read, to: &mut impl Write, mut seen: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                seen(&buffer[..count]);
                if to.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
