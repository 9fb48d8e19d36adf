//! A server in an engine's place, for what the real one must not be asked in a test: to lose its builder
//! images, to take broken ones, to answer nonsense.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// For example `GET`.
    pub method: String,
    /// Path and query, without the API's version.
    pub path: String,
    /// Its body, as far as it came.
    pub body: Vec<u8>,
    /// Whether the body came to its proper end.
    pub whole: bool,
}

/// Status and body of an answer.
pub type Answer = (u16, String);

/// A server on a port of this machine.
#[derive(Debug)]
pub struct StandIn {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl StandIn {
    /// Opens the port; `answer` says what is answered.
    pub fn open(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("tcp://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answer, record) = (Arc::new(answer), requests.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (answer, record) = (answer.clone(), record.clone());
                thread::spawn(move || serve(client, &*answer, &record));
            }
        });
        Self { address, requests }
    }

    /// For `DOCKER_HOST`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The requests of a method whose path begins so.
    pub fn requests(&self, method: &str, path: &str) -> Vec<Request> {
        let requests = self.requests.lock().expect("no panic");
        let matching =
            requests.iter().filter(|request| request.method == method && request.path.starts_with(path));
        matching.cloned().collect()
    }
}

fn serve(client: TcpStream, answer: &dyn Fn(&Request) -> Answer, record: &Mutex<Vec<Request>>) {
    let Ok(reading) = client.try_clone() else { return };
    let Some(request) = read(BufReader::new(reading)) else { return };
    let (status, body) = answer(&request);
    record.lock().expect("no panic").push(request);
    let head = format!(
        "HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut client = client;
    // The other end may have left.
    drop(client.write_all((head + &body).as_bytes()));
}

fn read(mut stream: impl BufRead) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).ok()?;
        let header = header.trim().to_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        chunked |= header.starts_with("transfer-encoding:") && header.contains("chunked");
    }
    let mut body = Vec::new();
    let whole = if chunked {
        read_chunks(&mut stream, &mut body).is_some()
    } else {
        stream.take(length).read_to_end(&mut body).is_ok_and(|count| count as u64 == length)
    };
    // "/v1.41/_ping"
    let path = match path.strip_prefix("/v").and_then(|rest| rest.split_once('/')) {
        Some((_, rest)) => format!("/{rest}"),
        None => path,
    };
    Some(Request { method, path, body, whole })
}

/// Reads a body that comes in chunks; `None` where it breaks off.
fn read_chunks(stream: &mut impl BufRead, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut size = String::new();
        stream.read_line(&mut size).ok()?;
        let size = u64::from_str_radix(size.trim(), 16).ok()?;
        let before = body.len() as u64;
        stream.take(size).read_to_end(body).ok()?;
        if body.len() as u64 != before + size {
            return None;
        }
        let mut end = [0; 2];
        stream.read_exact(&mut end).ok()?;
        if size == 0 {
            return Some(());
        }
    }
}
