use std::collections::BTreeMap;
use std::fs;

use isokiln_core::review::wire::Protocol;
use isokiln_core::review::{Cost, Seat};

use super::*;

fn seats(variables: &[(&str, &str)]) -> Result<Seats, ConfigError> {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    Seats::from_environment(&|name| variables.get(name).map(|value| (*value).to_owned()))
}

/// Per seat: the provider's name and model, or a dash.
fn holders(seats: &Seats) -> Vec<String> {
    let name = |index: usize| {
        let provider = &seats.providers[index];
        format!("{} {}", provider.name, provider.endpoint.model)
    };
    seats.seats.iter().map(|seat| seat.own.map_or_else(|| "-".into(), name)).collect()
}

#[test]
fn keys_alone_fill_the_seats() {
    let all = [
        ("MIXTRAL_API_KEY", "a"),
        ("GEMINI_API_KEY", "b"),
        ("GROK_API_KEY", "c"),
        ("ANTHROPIC_API_KEY", "d"),
    ];
    let seats = seats(&all).unwrap();
    let expected =
        ["mistral mistral-small-latest", "gemini gemini-flash-latest", "xai grok-4.20-non-reasoning"];
    assert_eq!(holders(&seats), expected);
    assert_eq!(seats.providers.last().unwrap().name, "anthropic", "it stands in for the others");
    assert!(seats.can_ask() && seats.parallel && seats.session_safe);
    assert!(!format!("{seats:?}").contains("Secret(\"a"), "{seats:?}");
}

#[test]
fn a_seat_goes_to_the_next_provider_with_a_key() {
    let found = seats(&[("ANTHROPIC_API_KEY", "d"), ("GROQ_API_KEY", "e"), ("XAI_API_KEY", "f")]).unwrap();
    assert_eq!(holders(&found), ["anthropic claude-haiku-4-5", "-", "groq openai/gpt-oss-120b"]);
    let confused = seats(&[("GROK_API_KEY", "gsk_0")]).unwrap();
    assert_eq!(holders(&confused)[2], "groq openai/gpt-oss-120b", "a key of Groq's under xAI's name");
    assert_eq!(confused.providers.len(), 1);
    assert!(!seats(&[]).unwrap().can_ask());
}

#[test]
fn a_local_server_needs_no_key_and_gets_none() {
    let local =
        [("C3_ENDPOINT", "http://127.0.0.1:11434/v1"), ("C3_MODEL", "qwen3:8b"), ("GROQ_API_KEY", "e")];
    let seats = seats(&local).unwrap();
    assert_eq!(holders(&seats)[2], "127.0.0.1:11434 qwen3:8b");
    let own = &seats.providers[seats.seats[2].own.unwrap()];
    assert_eq!((own.endpoint.protocol, own.endpoint.key.is_some()), (Protocol::OpenAi, false));
    assert_eq!((own.host().as_str(), seats.providers.len()), ("127.0.0.1", 2));
}

#[test]
fn a_seat_can_be_given_to_anybody() {
    let given = [
        ("C1_PROTOCOL", "xai"),
        ("C1_MODEL", "grok-x"),
        ("XAI_API_KEY", "f"),
        ("C2_PROTOCOL", "mistral"),
        ("C2_ENDPOINT", "https://proxy.example/v1"),
        ("MISTRAL_API_KEY", "a"),
        ("C3_ENDPOINT", "https://api.groq.com/openai/v1"),
        ("GROQ_API_KEY", "e"),
    ];
    let seats = seats(&given).unwrap();
    assert_eq!(holders(&seats), ["xai grok-x", "mistral mistral-small-latest", "groq openai/gpt-oss-120b"]);
    assert_eq!(seats.providers[1].endpoint.url, "https://proxy.example/v1");
    assert!(seats.providers.iter().all(|provider| provider.endpoint.key.is_some()));
}

#[test]
fn a_key_does_not_go_to_a_stranger() {
    let stranger = [("C3_ENDPOINT", "https://llm.example/v1"), ("C3_MODEL", "m"), ("GROQ_API_KEY", "e")];
    let found = seats(&stranger).unwrap();
    assert_eq!(found.providers[0].endpoint.key, None);
    let plain = [("C3_ENDPOINT", "http://llm.example/v1"), ("C3_MODEL", "m"), ("C3_API_KEY", "k")];
    let error = seats(&plain).unwrap_err().to_string();
    assert!(error.starts_with("C3_ENDPOINT: ") && error.contains("https"), "{error}");
}

#[test]
fn switches_close_seats() {
    let keys = [("GEMINI_API_KEY", "b")];
    let off = seats(&[&keys[..], &[("AILINUX_ENABLE_AI_COORDINATION", "false")]].concat()).unwrap();
    assert!(!off.can_ask() && off.seats.iter().all(|seat| !seat.open));
    let one = [&keys[..], &[("AILINUX_AI_C2_AVAILABLE", "no"), ("AILINUX_AI_PARALLEL_AGENTS", "0")]].concat();
    let one = seats(&one).unwrap();
    assert_eq!(one.seats.iter().map(|seat| seat.open).collect::<Vec<_>>(), [true, false, true]);
    assert!(!one.parallel);
    let limits = seats(&[("ISOKILN_AI_TOKENS", "50_000"), ("ISOKILN_AI_COST", "0.25")]).unwrap().limits;
    assert_eq!((limits.tokens, limits.cost), (50_000, Cost(250_000)));
    assert!(!seats(&[("AILINUX_AI_SESSION_SAFE", "False")]).unwrap().session_safe);
}

#[test]
fn what_means_nothing_is_told_with_the_variables_name() {
    for (variables, name) in [
        (vec![("AILINUX_AI_C1_AVAILABLE", "perhaps")], "AILINUX_AI_C1_AVAILABLE"),
        (vec![("C1_PROTOCOL", "smtp")], "C1_PROTOCOL"),
        (vec![("C2_PROTOCOL", "openai")], "C2_ENDPOINT"),
        (vec![("C2_ENDPOINT", "llm.example")], "C2_ENDPOINT"),
        (vec![("C2_ENDPOINT", "ftp://llm.example")], "C2_ENDPOINT"),
        (vec![("C2_ENDPOINT", "https://a:b@llm.example"), ("C2_MODEL", "m")], "C2_ENDPOINT"),
        (vec![("C3_ENDPOINT", "http://127.0.0.1:1/v1")], "C3_MODEL"),
        (vec![("C3_MODEL", "m\u{1b}[31m")], "C3_MODEL"),
        (vec![("GROQ_API_KEY", "gsk_a:b c")], "GROQ_API_KEY"),
        (vec![("ISOKILN_AI_TOKENS", "many")], "ISOKILN_AI_TOKENS"),
        (vec![("ISOKILN_AI_COST", "-1")], "ISOKILN_AI_COST"),
    ] {
        let error = seats(&variables).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{name}: ")), "{error}");
        assert!(!error.contains("a:b"), "{error}");
    }
}

#[test]
fn the_process_goes_over_the_file_and_is_never_changed() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Environment::overlay(folder.path(), |_| None).unwrap().get("GROQ_API_KEY").is_none());
    let text = "# keys\nGROQ_API_KEY=\"from file\"\nGEMINI_API_KEY=hidden\nC1_MODEL=m # why\nOTHER=1\n";
    fs::write(folder.path().join(".env"), text).unwrap();
    let process = |name: &str| match name {
        "GEMINI_API_KEY" => Some(String::new()),
        "C1_MODEL" => Some("from process".into()),
        _ => None,
    };
    let environment = Environment::overlay(folder.path(), process).unwrap();
    assert_eq!(environment.get("GROQ_API_KEY"), Some("from file"));
    assert_eq!((environment.get("GEMINI_API_KEY"), environment.get("OTHER")), (None, None));
    assert_eq!(environment.get("C1_MODEL"), Some("from process"));
    assert!(!format!("{environment:?}").contains("from file"));
    let own = Environment::read(folder.path()).unwrap();
    assert!(own.get("GROQ_API_KEY").is_some() && std::env::var("C1_MODEL").is_err());
}

#[test]
fn a_line_that_does_not_read_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    // What is there for other programs is none of our business.
    fs::write(folder.path().join(".env"), "FOO=a b c\nC1_MODEL=m\n").unwrap();
    assert_eq!(Environment::overlay(folder.path(), |_| None).unwrap().get("C1_MODEL"), Some("m"));
    fs::write(folder.path().join(".env"), "C1_MODEL=m\n# c\nGROQ_API_KEY=a secret key\n").unwrap();
    let error = Environment::overlay(folder.path(), |_| None).unwrap_err();
    assert!(matches!(error, ConfigError::NoAssignment { number: 3, .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

#[test]
fn the_example_documents_every_variable_and_nothing_else() {
    let example = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.env.example"));
    let assigned = |line: &str| Some(line.trim_start_matches(['#', ' ']).split_once('=')?.0.to_owned());
    let mut named: Vec<_> = example.lines().filter_map(assigned).filter(|name| !name.contains(' ')).collect();
    named.sort();
    named.dedup();
    assert_eq!(named, VARIABLES);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".env"), example).unwrap();
    let environment = Environment::overlay(folder.path(), |_| None).unwrap();
    let seats = Seats::from_environment(&|name| environment.get(name).map(str::to_owned)).unwrap();
    assert!(!seats.can_ask(), "the example alone asks nobody");
    assert_eq!(seats.seats[0].seat, Seat::C1);
}
