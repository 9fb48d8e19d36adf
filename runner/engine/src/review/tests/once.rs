//! One question, one property.

use std::time::{Duration, Instant};

use isokiln_core::review::wire::Protocol;
use isokiln_core::review::{Action, Cost, How, Limits, Seat};

use super::super::{Cache, Council, Held, Ledger, Outcome};
use super::behaviour::{Behaviour, NAMES, named, well};
use super::log::{self, question, rules};
use super::server::{GRACE, KEY};
use super::{DEADLINE, asker, council, council_with, seats, servers};

const RETRY: Action = Action::Retry;

#[tokio::test]
async fn seats_that_agree_decide_at_once() {
    let slow = Behaviour::Slowly(Duration::from_secs(1), super::behaviour::vote(RETRY, log::PROOF));
    let servers = servers(vec![
        ("mistral", Protocol::Mistral, vec![well(RETRY)]),
        ("gemini", Protocol::Gemini, vec![well(RETRY)]),
        ("groq", Protocol::Groq, vec![slow]),
    ])
    .await;
    let council = council(&servers);
    let begin = Instant::now();
    let outcome = council.ask(&question("base"), DEADLINE).await;
    assert!(begin.elapsed() < Duration::from_millis(900), "it did not wait for the third");
    let consensus = outcome.consensus(&rules(Action::Stop));
    assert_eq!((consensus.action, consensus.how, consensus.on_agents_word), (RETRY, How::Agreed, true));
    let held: Vec<_> = outcome.holders.iter().map(|holder| holder.held.clone()).collect();
    assert_eq!(held, [Held::Own("mistral".into()), Held::Own("gemini".into()), Held::NotAwaited]);
    assert_eq!((outcome.votes[0].seat, outcome.votes[0].reading.line), (Seat::C1, Some(108)));
    assert_eq!(outcome.tokens(), 2 * 980);
    assert!(council.used().0 > 2 * 980, "the third is still reckoned with");
    assert!(outcome.attempts.iter().any(|attempt| attempt.outcome == Outcome::NotAwaited));
}

#[tokio::test]
async fn nothing_that_is_private_and_no_key_is_sent_with_the_question() {
    let servers = servers(vec![
        ("mistral", Protocol::Mistral, vec![well(RETRY)]),
        ("anthropic", Protocol::Anthropic, vec![well(Action::Stop)]),
        ("gemini", Protocol::Gemini, vec![well(Action::CleanCache)]),
    ])
    .await;
    let outcome = council(&servers).ask(&question("base"), DEADLINE).await;
    assert_eq!(outcome.votes.len(), 3, "{outcome:?}");
    let mut markers = Vec::new();
    for call in servers.iter().flat_map(|server| server.calls()) {
        for secret in log::SECRETS {
            assert!(!call.body.contains(secret), "{secret} was sent: {}", call.body);
        }
        let first = call.head.lines().next().unwrap();
        assert!(!call.body.contains(KEY) && !first.contains(KEY), "{first}");
        assert!(call.head.contains(KEY) && call.body.contains("Hash Sum mismatch"));
        let (_, rest) = call.body.split_once("<<").unwrap();
        markers.push(rest[..32].to_owned());
    }
    markers.sort();
    markers.dedup();
    assert_eq!(markers.len(), 3, "every call has a marker of its own");
    assert!(!serde_json::to_string(&outcome).unwrap().contains(KEY));
}

#[tokio::test]
async fn every_misbehaviour_ends_by_the_deadline_and_leaves_the_seat_to_the_rules() {
    for protocol in [Protocol::Mistral, Protocol::Gemini, Protocol::Groq, Protocol::Anthropic] {
        let bad =
            NAMES.iter().filter(|name| !["well", "in a fence", "slow", "obeys, riskier"].contains(name));
        let ask = &asker();
        let all = bad.map(|name| async move {
            let deadline = Duration::from_millis(700);
            let script = vec![named(name, protocol, RETRY, deadline)];
            let servers = servers(vec![("lone", protocol, script)]).await;
            let council = council_with(ask, &servers);
            let begin = Instant::now();
            let outcome = council.ask(&question("base"), deadline).await;
            let took = begin.elapsed();
            assert!(took < deadline + GRACE * 2, "{name} took {took:?}");
            assert!(outcome.votes.is_empty(), "{name}: {outcome:?}");
            assert!(outcome.holders.iter().all(|holder| holder.held == Held::Rules), "{name}: {outcome:?}");
            let told = |attempt: &super::super::Attempt| {
                !attempt.why.is_empty() && attempt.outcome != Outcome::Voted
            };
            assert!(!outcome.attempts.is_empty() && outcome.attempts.iter().all(told), "{name}: {outcome:?}");
            let consensus = outcome.consensus(&rules(RETRY));
            assert_eq!((consensus.action, consensus.how), (RETRY, How::RulesAlone), "{name}");
        });
        futures_util::future::join_all(all).await;
    }
}

#[tokio::test]
async fn a_delay_that_the_provider_names_is_a_minimum() {
    for (name, minimum) in [
        ("429 retry-after fraction", 200),
        ("429 retry-after span", 150),
        ("429 retry-after-ms", 150),
        ("429 reset", 180),
        ("429 in words", 200),
        ("429 RetryInfo", 150),
        ("503", 100),
        ("500", 0),
        ("529", 0),
        ("hangs up", 0),
        ("429 no delay", 0),
    ] {
        let protocol = if name == "429 RetryInfo" { Protocol::Gemini } else { Protocol::Groq };
        let script = vec![named(name, protocol, RETRY, DEADLINE), well(RETRY)];
        let servers = servers(vec![("lone", protocol, script)]).await;
        let mut seats = seats(&servers);
        seats.seats.truncate(1);
        let outcome = Council::new(seats, asker(), None, None).ask(&question("base"), DEADLINE).await;
        assert_eq!(outcome.votes.len(), 1, "{name}: {outcome:?}");
        let calls = servers[0].calls();
        let pause = calls[1].at - calls[0].at;
        assert!(pause >= Duration::from_millis(minimum.max(200)), "{name} came back after {pause:?}");
        assert!(pause <= Duration::from_millis(450), "{name} came back after {pause:?}");
    }
}

#[tokio::test]
async fn the_same_question_is_asked_once() {
    let folder = tempfile::tempdir().unwrap();
    let servers = servers(vec![
        ("mistral", Protocol::Mistral, vec![well(RETRY)]),
        ("gemini", Protocol::Gemini, vec![well(Action::CleanCache)]),
        ("groq", Protocol::Groq, vec![well(Action::Stop)]),
    ])
    .await;
    let council = || Council::new(seats(&servers), asker(), Some(Cache::new(folder.path())), None);
    let first = council().ask(&question("base"), DEADLINE).await;
    let again = council().ask(&question("base"), DEADLINE).await;
    assert_eq!(first.votes, again.votes);
    assert!(again.attempts.iter().all(|attempt| attempt.cached && attempt.tokens == 0));
    assert!(servers.iter().all(|server| server.calls().len() == 1));
    council().ask(&question("another"), DEADLINE).await;
    assert!(servers.iter().all(|server| server.calls().len() == 2));
}

#[tokio::test]
async fn one_after_the_other_stops_when_two_agree() {
    let servers = servers(vec![
        ("mistral", Protocol::Mistral, vec![well(RETRY)]),
        ("gemini", Protocol::Gemini, vec![well(RETRY)]),
        ("groq", Protocol::Groq, vec![well(RETRY)]),
    ])
    .await;
    let mut seats = seats(&servers);
    seats.parallel = false;
    let outcome = Council::new(seats, asker(), None, None).ask(&question("base"), DEADLINE).await;
    assert_eq!((outcome.votes.len(), servers[2].calls().len()), (2, 0));
    assert_eq!(outcome.holders[2].held, Held::NotAwaited);
}

#[tokio::test]
async fn a_budget_that_is_used_up_asks_nobody() {
    let servers = servers(vec![("mistral", Protocol::Mistral, vec![well(RETRY)])]).await;
    let mut seats = seats(&servers);
    seats.limits = Limits { tokens: 500, cost: Cost(0) };
    let outcome = Council::new(seats, asker(), None, None).ask(&question("base"), DEADLINE).await;
    assert!(servers[0].calls().is_empty() && outcome.votes.is_empty());
    assert!(outcome.attempts.iter().all(|attempt| attempt.why.contains("budget")), "{outcome:?}");
}

#[tokio::test]
async fn a_probe_says_who_answers_and_what_it_has_cost() {
    let folder = tempfile::tempdir().unwrap();
    let mut servers = servers(vec![
        ("mistral", Protocol::Mistral, vec![Behaviour::Says("{\"ready\": true}".into())]),
        ("gemini", Protocol::Gemini, vec![named("401", Protocol::Gemini, RETRY, DEADLINE)]),
    ])
    .await;
    servers[0].provider.endpoint.model = "mistral-small-latest".into();
    let mut seats = seats(&servers);
    seats.seats[2].open = false;
    let council = Council::new(seats, asker(), None, Some(Ledger::new(folder.path())));
    let reports = council.probe(DEADLINE).await;
    assert_eq!(reports[0].answers, Some(Ok(())));
    assert_eq!((reports[0].host.as_deref(), reports[0].spent.tokens_in), (Some("127.0.0.1"), 900));
    assert!(reports[0].spent.micro_dollars > Cost(0));
    assert!(matches!(&reports[1].answers, Some(Err(trouble)) if trouble.to_string().contains("401")));
    assert!(!reports[2].open && reports[2].answers.is_none() && reports[2].provider.is_none());
    let again = council.probe(DEADLINE).await;
    assert_eq!(again[0].spent.calls, 2);
}

#[tokio::test]
async fn where_no_vote_could_count_nobody_is_asked() {
    let servers = servers(vec![("mistral", Protocol::Mistral, vec![well(RETRY)])]).await;
    let council = council(&servers);
    let mut nothing = question("base");
    nothing.allowed.clear();
    let mut silent = question("base");
    silent.excerpt.lines.clear();
    for (question, deadline) in
        [(&nothing, DEADLINE), (&silent, DEADLINE), (&question("base"), Duration::ZERO)]
    {
        let outcome = council.ask(question, deadline).await;
        assert!(outcome.holders.iter().all(|holder| holder.held == Held::Rules), "{outcome:?}");
    }
    assert!(servers[0].calls().is_empty());
}
