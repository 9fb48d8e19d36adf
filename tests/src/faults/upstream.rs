//! The archive that the mirrors stand before; what it has said once is kept.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub struct Body {
    pub(super) status: u16,
    /// `Last-Modified`.
    pub(super) modified: String,
    pub(super) bytes: Vec<u8>,
}

/// When files that do not say so were changed last.
pub(super) const LONG_AGO: &str = "Sat, 02 Aug 2025 08:00:00 GMT";

/// A server of Debian's archive.
#[derive(Debug)]
pub struct Upstream {
    /// Name, with a port where it is not 80.
    host: String,
    kept: Mutex<HashMap<String, Arc<Body>>>,
}

const PATIENCE: Duration = Duration::from_secs(60);
const TRIES: usize = 3;

impl Upstream {
    /// The archive on this host.
    pub fn new(host: String) -> Self {
        Self { host, kept: Mutex::default() }
    }

    /// A file. The security archive is another one; its files are found with the others here.
    pub fn get(&self, path: &str) -> Result<Arc<Body>, String> {
        let path = match path.strip_prefix("/debian/") {
            Some(rest) if rest.starts_with("pool/updates/") || rest.contains("-security/") => {
                format!("/debian-security/{rest}")
            }
            _ => path.to_owned(),
        };
        if let Some(body) = self.kept.lock().expect("no panic").get(&path) {
            return Ok(body.clone());
        }
        let mut last = String::new();
        for _ in 0..TRIES {
            match fetch(&self.host, &path) {
                Ok(body) if body.status < 500 => {
                    let body = Arc::new(body);
                    self.kept.lock().expect("no panic").insert(path, body.clone());
                    return Ok(body);
                }
                Ok(body) => last = format!("it answers {}", body.status),
                Err(error) => last = error.to_string(),
            }
        }
        Err(format!("{path}: {last}"))
    }
}

/// Asks in a way that is never answered in chunks.
fn fetch(host: &str, path: &str) -> std::io::Result<Body> {
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut writer = stream.try_clone()?;
    write!(writer, "GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: isokiln-tests\r\nAccept: */*\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let wrong = |what: &str| std::io::Error::other(what.to_owned());
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(|| wrong("no status"))?;
    let (mut modified, mut length) = (LONG_AGO.to_owned(), None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "last-modified" => modified = value.trim().to_owned(),
            "content-length" => length = value.trim().parse::<usize>().ok(),
            "transfer-encoding" => return Err(wrong("an answer in chunks")),
            _ => {}
        }
    }
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    if length.is_some_and(|length| length != bytes.len()) {
        return Err(wrong("the answer broke off"));
    }
    Ok(Body { status, modified, bytes })
}
