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

/// Asks over a connection of its own.
fn fetch(host: &str, path: &str) -> std::io::Result<Body> {
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut writer = stream.try_clone()?;
    write!(
        writer,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: isokiln-tests\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let wrong = |what: &str| std::io::Error::other(what.to_owned());
    let status =
        line.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(|| wrong("no status"))?;
    let (mut modified, mut length, mut is_chunked) = (LONG_AGO.to_owned(), None, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "last-modified" => modified = value.trim().to_owned(),
            "content-length" => length = value.trim().parse::<usize>().ok(),
            "transfer-encoding" => is_chunked = value.contains("chunked"),
            _ => {}
        }
    }
    let mut bytes = Vec::new();
    if is_chunked {
        read_chunks(&mut reader, &mut bytes)?;
    } else {
        reader.read_to_end(&mut bytes)?;
    }
    if length.is_some_and(|length| length != bytes.len()) {
        return Err(wrong("the answer broke off"));
    }
    Ok(Body { status, modified, bytes })
}

fn read_chunks(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size = u64::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
        let before = bytes.len() as u64;
        reader.by_ref().take(size).read_to_end(bytes)?;
        reader.read_exact(&mut [0; 2])?;
        if bytes.len() as u64 != before + size {
            return Err(std::io::Error::other("the answer broke off"));
        }
        if size == 0 {
            return Ok(());
        }
    }
}
