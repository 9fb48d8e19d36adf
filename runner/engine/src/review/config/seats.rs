//! Who holds which seat.

use isokiln_core::review::wire::{Endpoint, Protocol};
use isokiln_core::review::{Cost, Limits, Seat, Secret};

use super::ConfigError;
use super::environment::VARIABLES;
use super::provider::{ANTHROPIC, GEMINI, GROQ, KNOWN, Known, MISTRAL, Provider, XAI, address};

/// One seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeatSetting {
    /// Which one.
    pub seat: Seat,
    /// Whether it takes part.
    pub open: bool,
    /// Who holds it, as an index into [`Seats::providers`]; without one it is taken by another provider.
    pub own: Option<usize>,
}

/// Everything that is configured about agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seats {
    /// Everybody who can be asked.
    pub providers: Vec<Provider>,
    /// C1, C2 and C3.
    pub seats: Vec<SeatSetting>,
    /// All seats are asked at once, not one after the other.
    pub parallel: bool,
    /// Agents only advise: nothing runs again on their word alone.
    pub session_safe: bool,
    /// What one build may use.
    pub limits: Limits,
}

type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Seats {
    /// Reads the seats from variables.
    pub fn from_environment(lookup: Lookup<'_>) -> Result<Self, ConfigError> {
        let lookup =
            &|name: &str| lookup(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let enabled = flag(lookup, "AILINUX_ENABLE_AI_COORDINATION", true)?;
        let mut seats = Self {
            providers: Vec::new(),
            seats: Seat::ALL.map(|seat| SeatSetting { seat, open: false, own: None }).into(),
            parallel: flag(lookup, "AILINUX_AI_PARALLEL_AGENTS", true)?,
            session_safe: flag(lookup, "AILINUX_AI_SESSION_SAFE", true)?,
            limits: limits(lookup)?,
        };
        if !enabled {
            return Ok(seats);
        }
        for name in VARIABLES.into_iter().filter(|name| name.ends_with("_API_KEY")) {
            if lookup(name).is_some_and(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
                return Err(ConfigError::value(name, "a key has no blanks and only ASCII characters"));
            }
        }
        for index in 0..seats.seats.len() {
            let seat = seats.seats[index].seat;
            seats.seats[index].open = flag(lookup, &format!("AILINUX_AI_{seat}_AVAILABLE"), true)?;
            seats.seats[index].own = own(lookup, seat)?.map(|provider| seats.index_of(provider));
        }
        for known in KNOWN {
            let is_there = seats.providers.iter().any(|provider| provider.name == known.name);
            if let (false, Some(key)) = (is_there, known.key(lookup)) {
                seats.providers.push(known.provider(None, None, Some(key)));
            }
        }
        Ok(seats)
    }

    /// Whether anybody can be asked at all.
    pub fn can_ask(&self) -> bool {
        !self.providers.is_empty() && self.seats.iter().any(|seat| seat.open)
    }

    fn index_of(&mut self, provider: Provider) -> usize {
        self.providers.iter().position(|other| *other == provider).unwrap_or_else(|| {
            self.providers.push(provider);
            self.providers.len() - 1
        })
    }
}

/// Who holds a seat by configuration.
fn own(lookup: Lookup<'_>, seat: Seat) -> Result<Option<Provider>, ConfigError> {
    let name = |what: &str| format!("{seat}_{what}");
    let (endpoint, model) = (lookup(&name("ENDPOINT")), lookup(&name("MODEL")));
    if model.as_deref().is_some_and(|model| model.contains(char::is_control)) {
        return Err(ConfigError::value(name("MODEL"), "holds control characters"));
    }
    let key = lookup(&name("API_KEY")).map(Secret::new);
    let protocol = lookup(&name("PROTOCOL"));
    let parsed: Option<Protocol> = match &protocol {
        Some(word) => {
            Some(word.parse().map_err(|error| ConfigError::value(name("PROTOCOL"), format!("{error}")))?)
        }
        None => None,
    };
    // xai and openai are one protocol, but not one provider.
    let named = protocol
        .as_deref()
        .and_then(|word| KNOWN.into_iter().find(|known| known.name.eq_ignore_ascii_case(word)));
    let Some(endpoint) = endpoint else {
        let usual = usual(seat).iter().copied().find(|known| key.is_some() || known.key(lookup).is_some());
        return match (named, parsed) {
            (None, Some(_)) => Err(ConfigError::value(name("ENDPOINT"), "is needed with that protocol")),
            (Some(known), _) => Ok(of_known(known, None, model, key.or_else(|| known.key(lookup)))),
            (None, None) => {
                Ok(usual.and_then(|known| of_known(known, None, model, key.or_else(|| known.key(lookup)))))
            }
        };
    };
    let variable = name("ENDPOINT");
    let url = address(&variable, &endpoint, false)?;
    // A provider's key goes to its own host, or where somebody says that this is that provider.
    let known = named.or_else(|| {
        let here = KNOWN.into_iter().find(|known| known.owns(&url));
        here.filter(|known| parsed.is_none_or(|protocol| protocol == known.protocol))
    });
    let key = key.or_else(|| known.and_then(|known| known.key(lookup)));
    address(&variable, &endpoint, key.is_some())?;
    if let Some(known) = known {
        return Ok(Some(known.provider(Some(endpoint), model, key)));
    }
    let model =
        model.ok_or_else(|| ConfigError::value(name("MODEL"), "is needed with an endpoint of one's own"))?;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let host = format!("{}{port}", url.host_str().unwrap_or_default());
    let protocol = parsed.unwrap_or(Protocol::OpenAi);
    Ok(Some(Provider { name: host, endpoint: Endpoint { protocol, url: endpoint, model, key } }))
}

/// A known provider at its own address, which takes nobody without a key.
fn of_known(
    known: &Known,
    url: Option<String>,
    model: Option<String>,
    key: Option<Secret>,
) -> Option<Provider> {
    key.is_some().then(|| known.provider(url, model, key))
}

fn usual(seat: Seat) -> &'static [&'static Known] {
    match seat {
        Seat::C1 => &[&MISTRAL, &ANTHROPIC],
        Seat::C2 => &[&GEMINI],
        Seat::C3 => &[&GROQ, &XAI],
    }
}

fn limits(lookup: Lookup<'_>) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    if let Some(text) = lookup("ISOKILN_AI_TOKENS") {
        let tokens = text.replace('_', "").parse();
        limits.tokens =
            tokens.map_err(|_| ConfigError::value("ISOKILN_AI_TOKENS", "is not a number of tokens"))?;
    }
    if let Some(text) = lookup("ISOKILN_AI_COST") {
        let dollars = text.parse().ok().filter(|dollars: &f64| dollars.is_finite() && *dollars >= 0.0);
        let dollars =
            dollars.ok_or_else(|| ConfigError::value("ISOKILN_AI_COST", "is not an amount of US dollars"))?;
        limits.cost = Cost::from_dollars(dollars);
    }
    Ok(limits)
}

fn flag(lookup: Lookup<'_>, name: &str, default: bool) -> Result<bool, ConfigError> {
    match lookup(name).map(|text| text.to_ascii_lowercase()).as_deref() {
        None => Ok(default),
        Some("true" | "1" | "yes" | "on") => Ok(true),
        Some("false" | "0" | "no" | "off") => Ok(false),
        Some(_) => Err(ConfigError::value(name, "is neither true nor false")),
    }
}
