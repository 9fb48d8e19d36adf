//! A provider on the loopback that misbehaves as told. Written by hand: it has to hang up and to never end.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use isokiln_core::review::Secret;
use isokiln_core::review::wire::{Endpoint, Protocol};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::super::Provider;
use super::behaviour::Behaviour;

/// The key that every loopback provider has.
pub(super) const KEY: &str = "loopback-key-0123456789";

/// What was asked.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) at: Instant,
    pub(super) head: String,
    pub(super) body: String,
}

/// A provider on the loopback, gone when dropped.
pub(super) struct Server {
    pub(super) provider: Provider,
    calls: Arc<Mutex<Vec<Call>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// One that does on its n-th call what the n-th entry says, and what the last one says from then on.
    pub(super) async fn start(name: &str, protocol: Protocol, script: Vec<Behaviour>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(listener, protocol, script, Arc::clone(&calls)));
        let key = Some(Secret::new(KEY));
        let endpoint = Endpoint { protocol, url, model: "loopback".into(), key };
        Self { provider: Provider { name: name.into(), endpoint }, calls, task }
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

async fn serve(
    listener: TcpListener,
    protocol: Protocol,
    script: Vec<Behaviour>,
    calls: Arc<Mutex<Vec<Call>>>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (script, calls) = (script.clone(), Arc::clone(&calls));
        tokio::spawn(async move { connection(stream, protocol, &script, &calls).await });
    }
}

async fn connection(
    mut stream: TcpStream,
    protocol: Protocol,
    script: &[Behaviour],
    calls: &Mutex<Vec<Call>>,
) -> Option<()> {
    let (head, body) = hear(&mut stream).await?;
    let number = {
        let mut calls = calls.lock().unwrap();
        calls.push(Call { at: Instant::now(), head, body });
        calls.len() - 1
    };
    let behaviour = script.get(number).or(script.last())?;
    // The other side may hang up on us as well.
    perform(&mut stream, protocol, behaviour).await.ok()
}

/// A whole request: its head and its body.
async fn hear(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 8192];
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.unwrap_or(0) {
            return Some((head.to_owned(), body.to_owned()));
        }
    }
}

async fn perform(stream: &mut TcpStream, protocol: Protocol, behaviour: &Behaviour) -> std::io::Result<()> {
    let good = |text: &str| envelope(protocol, text, "");
    match behaviour {
        Behaviour::Says(text) => say(stream, 200, "", &good(text)).await,
        Behaviour::Slowly(wait, text) => {
            tokio::time::sleep(*wait).await;
            say(stream, 200, "", &good(text)).await
        }
        Behaviour::Status(status, headers, body) => say(stream, *status, headers, body).await,
        Behaviour::Cut(text) => {
            let whole = good(text);
            say(stream, 200, "", &whole[..whole.len() * 2 / 3]).await
        }
        Behaviour::Ends(text, how) => say(stream, 200, "", &envelope(protocol, text, how)).await,
        Behaviour::HangsUpAtOnce => Ok(()),
        Behaviour::HangsUpHalfway => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n{\"choices\": [").await
        }
        Behaviour::Endless(pause) => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n")
                .await?;
            loop {
                stream.write_all(&[b' '; 4096]).await?;
                tokio::time::sleep(*pause).await;
            }
        }
    }
}

async fn say(stream: &mut TcpStream, status: u16, headers: &str, body: &str) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    stream.shutdown().await
}

/// An answer in the form of a protocol. `how` it ends: normally, by `refusal` or by `length`.
fn envelope(protocol: Protocol, text: &str, how: &str) -> String {
    let pick = |normal: &str, refusal: &str, length: &str| match how {
        "refusal" => refusal.to_owned(),
        "length" => length.to_owned(),
        _ => normal.to_owned(),
    };
    let body = match protocol {
        Protocol::Gemini => json!({
            "candidates": [{ "finishReason": pick("STOP", "SAFETY", "MAX_TOKENS"),
                             "content": { "parts": [{ "text": text }] } }],
            "usageMetadata": { "promptTokenCount": 900, "candidatesTokenCount": 80 },
        }),
        Protocol::Anthropic => json!({
            "stop_reason": pick("end_turn", "refusal", "max_tokens"),
            "content": [{ "type": "thinking", "thinking": "hm" }, { "type": "text", "text": text }],
            "usage": { "input_tokens": 900, "output_tokens": 80 },
        }),
        _ => json!({
            "choices": [{ "finish_reason": pick("stop", "content_filter", "length"), "message": { "content": text } }],
            "usage": { "prompt_tokens": 900, "completion_tokens": 80 },
        }),
    };
    body.to_string()
}

/// Waits that long at the most for the machine's other work; nothing here is measured finer.
pub(super) const GRACE: Duration = Duration::from_millis(100);
