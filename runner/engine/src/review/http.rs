//! Sending a question over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use isokiln_core::review::wire::{HttpReply, HttpRequest, Trouble};
use tokio::time::{Instant, timeout_at};

/// Most bytes of an answer that are read: one that does not end is given up.
pub(super) const MOST_BYTES: usize = 256 << 10;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A way to send a question.
#[async_trait]
pub trait Ask: Send + Sync {
    /// Sends it and reads the answer, both before `deadline`.
    async fn send(&self, request: HttpRequest, deadline: Instant) -> Result<HttpReply, Trouble>;
}

/// The real one.
pub struct HttpAsk {
    client: reqwest::Client,
}

impl HttpAsk {
    /// A client that honours the usual proxy variables and follows nobody elsewhere: a key goes where it belongs.
    pub fn new() -> Result<Self, String> {
        // Fails only if there is one already, which does as well.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder()
            .user_agent(concat!("isokiln/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build();
        client.map(|client| Self { client }).map_err(|error| innermost(&error))
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpReply, Trouble> {
        let mut builder = self.client.post(&request.url).body(request.body);
        for (name, value) in &request.headers {
            let mut value = reqwest::header::HeaderValue::from_str(value.reveal()).map_err(|_| {
                Trouble::Rejected { status: 0, said: format!("the header {name} cannot be sent") }
            })?;
            value.set_sensitive(true);
            builder = builder.header(*name, value);
        }
        let mut response = builder.send().await.map_err(|error| unreachable(&error))?;
        let status = response.status().as_u16();
        let headers = response.headers().iter();
        let headers = headers
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .collect();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(Trouble::Endless(MOST_BYTES));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(HttpReply { status, headers, body })
    }
}

#[async_trait]
impl Ask for HttpAsk {
    async fn send(&self, request: HttpRequest, deadline: Instant) -> Result<HttpReply, Trouble> {
        timeout_at(deadline, self.exchange(request)).await.unwrap_or(Err(Trouble::TimedOut))
    }
}

/// An address may hold what must not be shown; what went wrong does not need it.
fn unreachable(error: &reqwest::Error) -> Trouble {
    Trouble::Unreachable(innermost(error))
}

/// The innermost error says what happened: "connection refused", not "error sending request".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}
