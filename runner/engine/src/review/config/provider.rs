//! Who can be asked.

use isokiln_core::review::Secret;
use isokiln_core::review::wire::{Endpoint, Protocol};
use reqwest::Url;

use super::ConfigError;

/// Somebody who answers questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its name in records: the company's, or the host of an endpoint of one's own.
    pub name: String,
    /// Where and how it is asked.
    pub endpoint: Endpoint,
}

impl Provider {
    /// The host of its address, for people.
    pub fn host(&self) -> String {
        let url = Url::parse(&self.endpoint.url).ok();
        url.as_ref().and_then(Url::host_str).unwrap_or_default().to_owned()
    }
}

/// A provider that isokiln knows the address of.
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) protocol: Protocol,
    pub(super) url: &'static str,
    pub(super) model: &'static str,
    /// Variables that may hold its key.
    pub(super) keys: &'static [&'static str],
}

pub(super) const MISTRAL: Known = Known {
    name: "mistral",
    protocol: Protocol::Mistral,
    url: "https://api.mistral.ai/v1",
    model: "mistral-small-latest",
    keys: &["MISTRAL_API_KEY", "MIXTRAL_API_KEY"],
};
pub(super) const ANTHROPIC: Known = Known {
    name: "anthropic",
    protocol: Protocol::Anthropic,
    url: "https://api.anthropic.com/v1",
    model: "claude-haiku-4-5",
    keys: &["ANTHROPIC_API_KEY"],
};
pub(super) const GEMINI: Known = Known {
    name: "gemini",
    protocol: Protocol::Gemini,
    url: "https://generativelanguage.googleapis.com/v1beta",
    model: "gemini-flash-latest",
    keys: &["GEMINI_API_KEY"],
};
pub(super) const GROQ: Known = Known {
    name: "groq",
    protocol: Protocol::Groq,
    url: "https://api.groq.com/openai/v1",
    model: "openai/gpt-oss-120b",
    // GROK_API_KEY is xAI's, but has been used for Groq's as well; theirs tell by their beginning.
    keys: &["GROQ_API_KEY", "GROK_API_KEY"],
};
pub(super) const XAI: Known = Known {
    name: "xai",
    protocol: Protocol::OpenAi,
    url: "https://api.x.ai/v1",
    model: "grok-4.20-non-reasoning",
    keys: &["XAI_API_KEY", "GROK_API_KEY"],
};

/// All of them, in the order in which they stand in for others.
pub(super) const KNOWN: [&Known; 5] = [&MISTRAL, &ANTHROPIC, &GEMINI, &GROQ, &XAI];

impl Known {
    pub(super) fn key(&self, lookup: &dyn Fn(&str) -> Option<String>) -> Option<Secret> {
        let is_own = |name: &str, key: &str| {
            name != "GROK_API_KEY" || key.starts_with("gsk_") == (self.name == "groq")
        };
        let mut keys = self.keys.iter().filter_map(|name| Some((*name, lookup(name)?)));
        keys.find(|(name, key)| is_own(name, key)).map(|(_, key)| Secret::new(key))
    }

    pub(super) fn provider(
        &self,
        url: Option<String>,
        model: Option<String>,
        key: Option<Secret>,
    ) -> Provider {
        let url = url.unwrap_or_else(|| self.url.to_owned());
        let model = model.unwrap_or_else(|| self.model.to_owned());
        Provider { name: self.name.into(), endpoint: Endpoint { protocol: self.protocol, url, model, key } }
    }

    /// Whether an address is on this provider's own host.
    pub(super) fn owns(&self, url: &Url) -> bool {
        Url::parse(self.url).is_ok_and(|own| own.host_str() == url.host_str())
    }
}

/// Reads an address that a key may be sent to.
pub(super) fn address(variable: &str, text: &str, with_key: bool) -> Result<Url, ConfigError> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = url.ok_or_else(|| ConfigError::value(variable, "is not an http or https address"))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(ConfigError::value(
            variable,
            "an address holds no user, password or query; keys have variables",
        ));
    }
    let is_here = match url.host_str() {
        Some(host) => host == "localhost" || host.starts_with("127.") || host == "[::1]",
        None => false,
    };
    if with_key && url.scheme() == "http" && !is_here {
        return Err(ConfigError::value(variable, "a key is sent there, so it has to be https"));
    }
    Ok(url)
}
