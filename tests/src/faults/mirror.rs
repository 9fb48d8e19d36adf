//! A package mirror that can be made to fail: a reverse proxy before the one that this machine's apt uses.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use super::upstream::{Body, LONG_AGO, Upstream};

/// How an answer is spoilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Another status, with a page that says so.
    Status(u16),
    /// The right number of bytes, some in the middle of them wrong.
    WrongBytes,
    /// A proper answer that holds only the first half of the file.
    HalfFile,
    /// The whole length is announced, and half of it sent.
    CutOff,
    /// A captive portal's page, and all is well.
    Portal,
    /// Nothing is answered, for ever.
    Silence,
    /// The head and a few bytes; then nothing, for ever.
    Stall,
    /// One byte in so many microseconds: slow-loris the other way round.
    Drip(u64),
    /// The connection is closed before anything is answered.
    HangUp,
    /// The client is sent to the same address again.
    Loop,
    /// What is no HTTP at all.
    Garbage,
    /// The file is good, but the server's clock is wrong by so many seconds.
    Clock(i64),
}

/// Some requests are answered wrongly.
#[derive(Debug, Clone)]
pub struct Tamper {
    /// What the path must hold.
    path: &'static str,
    how: How,
    /// How many of them; `None` for all.
    times: Option<usize>,
    /// What isokiln itself asks for, too, not only apt.
    planning: bool,
}

impl Tamper {
    /// Every request whose path holds this.
    pub fn all(path: &'static str, how: How) -> Self {
        Self { path, how, times: None, planning: false }
    }

    /// The first so many.
    pub fn first(times: usize, path: &'static str, how: How) -> Self {
        Self { times: Some(times), ..Self::all(path, how) }
    }

    /// Also what isokiln asks for when it plans.
    pub fn of_planning_too(self) -> Self {
        Self { planning: true, ..self }
    }
}

/// A mirror on the address under which containers find this machine.
pub struct Mirror {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    upstream: Arc<Upstream>,
    tampers: Mutex<Vec<Tamper>>,
    /// Paths whose answers were spoilt.
    spoilt: Mutex<Vec<String>>,
    closed: AtomicBool,
    /// Connections that were made since the last time that all were cut.
    open: Mutex<Vec<TcpStream>>,
}

impl Mirror {
    /// Opens a port on the address.
    pub fn open(address: IpAddr, upstream: Arc<Upstream>) -> Result<Self, String> {
        let listener = TcpListener::bind((address, 0)).map_err(|error| format!("{address}: {error}"))?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let state = Arc::new(State {
            upstream,
            tampers: Mutex::default(),
            spoilt: Mutex::default(),
            closed: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let mirror = Self { address, state };
        mirror.listen(listener);
        Ok(mirror)
    }

    fn listen(&self, listener: TcpListener) {
        let shared = self.state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.closed.load(Ordering::SeqCst) {
                    return;
                }
                let state = shared.clone();
                // A client that leaves is no error here.
                thread::spawn(move || drop(serve(&state, client)));
            }
        });
    }

    /// Nothing listens at its port any more, and who is connected is cut off.
    pub fn shut(&self) {
        self.state.closed.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for clients.
        drop(TcpStream::connect(self.address));
        self.hang_up();
    }

    /// Something listens at its port again.
    pub fn reopen(&self) {
        if self.state.closed.load(Ordering::SeqCst) {
            let listener = TcpListener::bind(self.address).expect("the port is still free");
            self.state.closed.store(false, Ordering::SeqCst);
            self.listen(listener);
        }
    }

    fn hang_up(&self) {
        for client in self.state.open.lock().expect("no panic").drain(..) {
            drop(client.shutdown(Shutdown::Both));
        }
    }

    /// For `[system] mirrors`.
    pub fn uri(&self) -> String {
        format!("http://{}/debian", self.address)
    }

    /// From now on answers like this; what was spoilt so far is forgotten.
    pub fn tamper(&self, tampers: Vec<Tamper>) {
        *self.state.tampers.lock().expect("no panic") = tampers;
        self.state.spoilt.lock().expect("no panic").clear();
        self.hang_up();
    }

    /// Paths whose answers were spoilt since then.
    pub fn spoilt(&self) -> Vec<String> {
        self.state.spoilt.lock().expect("no panic").clone()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.shut();
    }
}

#[derive(Default)]
struct Request {
    method: String,
    path: String,
    agent: String,
    /// `If-Modified-Since`.
    since: String,
}

/// Answers the requests of one client, one after another.
fn serve(state: &State, client: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    state.open.lock().expect("no panic").push(client.try_clone()?);
    let mut reader = BufReader::new(client.try_clone()?);
    let mut client = client;
    while let Some(request) = read(&mut reader)? {
        let how = state.spoils(&request);
        if !answer(state, &mut client, &request, how)? {
            return client.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let mut request = Request { method: method.to_owned(), path: path.to_owned(), ..Request::default() };
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 {
            return Ok(None);
        }
        match header.trim().split_once(':') {
            None => return Ok(Some(request)),
            Some((name, value)) if name.eq_ignore_ascii_case("user-agent") => {
                request.agent = value.trim().to_owned();
            }
            Some((name, value)) if name.eq_ignore_ascii_case("if-modified-since") => {
                request.since = value.trim().to_owned();
            }
            Some(_) => {}
        }
    }
}

impl State {
    /// How the answer to this request is spoilt.
    fn spoils(&self, request: &Request) -> Option<How> {
        let mut tampers = self.tampers.lock().expect("no panic");
        let is_planning = request.agent.starts_with("isokiln");
        let tamper = tampers.iter_mut().find(|tamper| {
            request.path.contains(tamper.path) && (tamper.planning || !is_planning) && tamper.times != Some(0)
        })?;
        if let Some(times) = &mut tamper.times {
            *times -= 1;
        }
        self.spoilt.lock().expect("no panic").push(request.path.clone());
        Some(tamper.how)
    }

    /// Waits until the client has left, or the mirror is told otherwise.
    fn hold(client: &TcpStream) -> std::io::Result<()> {
        let mut client = client.try_clone()?;
        let mut buffer = [0; 4096];
        while client.read(&mut buffer)? > 0 {}
        Ok(())
    }
}

/// Answers one request; whether the connection is still good.
fn answer(
    state: &State,
    client: &mut TcpStream,
    request: &Request,
    how: Option<How>,
) -> std::io::Result<bool> {
    let path = request.path.split('?').next().unwrap_or_default();
    let wants_body = request.method != "HEAD";
    let page = |text: &str| Body {
        status: 200,
        modified: LONG_AGO.to_owned(),
        bytes: format!("<html><body><h1>{text}</h1></body></html>\n").repeat(20).into_bytes(),
    };
    let fetched = |path: &str| match state.upstream.get(path) {
        Ok(body) => body,
        Err(reason) => {
            Arc::new(Body { status: 502, modified: LONG_AGO.to_owned(), bytes: reason.into_bytes() })
        }
    };
    let mut clock = 0;
    let body = match how {
        Some(How::Status(status)) => Arc::new(Body { status, ..page("something is wrong here") }),
        Some(How::Portal) => Arc::new(page("Please log in to this network")),
        Some(How::HangUp) => return Ok(false),
        Some(How::Silence) => {
            State::hold(client)?;
            return Ok(false);
        }
        Some(How::Garbage) => {
            client.write_all(b"\x15\x03\x01\x00\x02\x02\x50 this is no HTTP\r\n\r\n")?;
            return Ok(false);
        }
        Some(How::Loop) => {
            let head = format!("HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\n\r\n");
            client.write_all(head.as_bytes())?;
            return Ok(true);
        }
        Some(How::WrongBytes) => {
            let good = fetched(path);
            let mut bytes = good.bytes.clone();
            let middle = bytes.len() / 2;
            for byte in bytes.iter_mut().skip(middle).take(64) {
                *byte ^= 0x55;
            }
            Arc::new(Body { status: good.status, modified: good.modified.clone(), bytes })
        }
        Some(How::HalfFile) => {
            let good = fetched(path);
            let bytes = good.bytes[..good.bytes.len() / 2].to_vec();
            Arc::new(Body { status: good.status, modified: good.modified.clone(), bytes })
        }
        Some(How::Clock(seconds)) => {
            clock = seconds;
            fetched(path)
        }
        Some(How::CutOff | How::Stall | How::Drip(_)) | None => fetched(path),
    };
    if how.is_none() && body.status == 200 && request.since == body.modified {
        let head = format!("HTTP/1.1 304 Not Modified\r\nDate: {}\r\n\r\n", http_date(now(0)));
        client.write_all(head.as_bytes())?;
        return Ok(true);
    }
    client.write_all(head(&body, clock).as_bytes())?;
    if !wants_body {
        return Ok(true);
    }
    match how {
        Some(How::CutOff) => {
            client.write_all(&body.bytes[..body.bytes.len() / 2])?;
            Ok(false)
        }
        Some(How::Stall) => {
            client.write_all(&body.bytes[..body.bytes.len().min(16)])?;
            State::hold(client)?;
            Ok(false)
        }
        Some(How::Drip(pause)) => {
            for byte in &body.bytes {
                client.write_all(&[*byte])?;
                thread::sleep(Duration::from_micros(pause));
            }
            Ok(true)
        }
        _ => {
            client.write_all(&body.bytes)?;
            Ok(true)
        }
    }
}

fn head(body: &Body, clock: i64) -> String {
    let reason = match body.status {
        200 => "OK",
        403 => "Forbidden",
        404 => "Not Found",
        410 => "Gone",
        407 => "Proxy Authentication Required",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Something",
    };
    format!(
        "HTTP/1.1 {} {reason}\r\nDate: {}\r\nLast-Modified: {}\r\nContent-Length: {}\r\n\r\n",
        body.status,
        http_date(now(clock)),
        body.modified,
        body.bytes.len()
    )
}

/// The time of day, in seconds since 1970, for a clock that is wrong by so many.
fn now(clock: i64) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    now.saturating_add_signed(clock)
}

/// A date as HTTP writes it, of seconds since 1970.
fn http_date(seconds: u64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    format!(
        "{}, {:02} {} {year} {:02}:{:02}:{:02} GMT",
        DAYS[usize::try_from(days % 7).unwrap_or(0)],
        left + 1,
        MONTHS[month],
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Host and port of the first archive of this machine's apt that serves `main` by HTTP.
pub(super) fn host_archive() -> Result<String, String> {
    let mut files = vec![std::path::PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    let hosts: Vec<_> = texts.flat_map(|text| archives(&text)).collect();
    hosts.into_iter().next().ok_or_else(|| "this machine's apt has no archive with main by HTTP".to_owned())
}

/// Hosts that one of apt's files names, in either of its forms.
fn archives(text: &str) -> Vec<String> {
    let lines = || text.lines().filter(|line| !line.starts_with('#'));
    let host = |uri: &str| {
        let rest = uri.strip_prefix("http://")?;
        Some(rest.split('/').next().unwrap_or(rest).to_owned())
    };
    let one_line = lines().filter(|line| line.starts_with("deb ") && line.contains(" main"));
    let uris = one_line.filter_map(|line| line.split_whitespace().find_map(host));
    let stanzas = text
        .split("\n\n")
        .filter(|stanza| stanza.lines().any(|line| line.starts_with("Components:") && line.contains("main")));
    let more =
        stanzas.flat_map(|stanza| stanza.lines().filter_map(|line| host(line.strip_prefix("URIs:")?.trim())));
    uris.chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_as_in_http() {
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(1_709_210_096), "Thu, 29 Feb 2024 12:34:56 GMT");
    }

    #[test]
    fn both_forms_of_apts_sources_are_read() {
        assert_eq!(
            archives(
                "# deb http://no.example.org/debian x main\ndeb [a=b] http://one.example.org/debian x main\n"
            ),
            ["one.example.org"]
        );
        let deb822 = "Types: deb\n# http://no.example.org/\nURIs: http://two.example.org:80/debian\n\
                      Suites: x\nComponents: main\n\nURIs: http://three.example.org/\nComponents: contrib\n";
        assert_eq!(archives(deb822), ["two.example.org:80"]);
    }
}
