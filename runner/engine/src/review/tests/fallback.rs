//! Who speaks for a seat whose provider does not, and what an attacker gains.

use std::time::{Duration, Instant};

use isokiln_core::review::wire::Protocol;
use isokiln_core::review::{Action, How, Seat};

use super::super::{Held, Outcome};
use super::behaviour::{Behaviour, named, well};
use super::log::{self, question, rules};
use super::server::Server;
use super::{DEADLINE, council, servers};

const RETRY: Action = Action::Retry;

fn bad(name: &str) -> Vec<Behaviour> {
    vec![named(name, Protocol::Mistral, RETRY, DEADLINE)]
}

async fn four(
    c1: Vec<Behaviour>,
    c2: Vec<Behaviour>,
    c3: Vec<Behaviour>,
    standby: Vec<Behaviour>,
) -> Vec<Server> {
    servers(vec![
        ("mistral", Protocol::Mistral, c1),
        ("gemini", Protocol::Gemini, c2),
        ("groq", Protocol::Groq, c3),
        ("anthropic", Protocol::Anthropic, standby),
    ])
    .await
}

#[tokio::test]
async fn a_dead_seat_is_taken_by_whoever_stands_by_and_left_alone_afterwards() {
    for name in ["401", "404", "429 for the day"] {
        let other = vec![well(Action::CleanCache)];
        let servers = four(bad(name), other, vec![well(Action::Stop)], vec![well(RETRY)]).await;
        let council = council(&servers);
        let outcome = council.ask(&question("base"), DEADLINE).await;
        assert_eq!(outcome.holders[0].held, Held::Other("anthropic".into()), "{name}: {outcome:?}");
        assert_eq!(outcome.votes.len(), 3);
        let second = council.ask(&question("desktop"), DEADLINE).await;
        assert_eq!(servers[0].calls().len(), 1, "{name} is not asked again");
        let skipped = second.attempts.iter().find(|attempt| attempt.provider == "mistral").unwrap();
        assert_eq!((skipped.outcome, skipped.seat), (Outcome::Skipped, Seat::C1));
    }
}

#[tokio::test]
async fn a_provider_that_hangs_leaves_time_for_another() {
    let servers = four(bad("too slow"), bad("slow white space"), bad("500"), vec![well(RETRY)]).await;
    let begin = Instant::now();
    let outcome = council(&servers).ask(&question("base"), DEADLINE).await;
    assert!(begin.elapsed() < DEADLINE + Duration::from_millis(200));
    assert!(!outcome.votes.is_empty(), "{outcome:?}");
    assert!(outcome.attempts.iter().any(|attempt| attempt.why == "no answer in time"));
    assert_eq!(outcome.consensus(&rules(RETRY)).how, How::Agreed, "with the rules");
}

#[tokio::test]
async fn an_answer_that_does_not_count_gets_one_more_try() {
    for name in
        ["ungrounded", "not allowed", "wrong schema", "refusal", "cut off", "white space", "truncated JSON"]
    {
        let scripts = || (bad(name), bad("refusal"), bad("refusal"), bad("refusal"));
        let (c1, c2, c3, standby) = scripts();
        let servers = four(c1, c2, c3, standby).await;
        let outcome = council(&servers).ask(&question("base"), DEADLINE).await;
        for seat in Seat::ALL {
            let of_seat = outcome.attempts.iter().filter(|attempt| attempt.seat == seat);
            let asked = of_seat.filter(|attempt| attempt.outcome == Outcome::Invalid).count();
            assert_eq!(asked, 2, "{name}, {seat}: {outcome:?}");
        }
        assert!(outcome.holders.iter().all(|holder| holder.held == Held::Rules));
    }
}

#[tokio::test]
async fn with_all_seats_dead_the_rules_act_and_the_record_says_so() {
    let servers = four(bad("401"), bad("hangs up"), bad("500"), bad("refusal")).await;
    let outcome = council(&servers).ask(&question("base"), DEADLINE).await;
    let consensus = outcome.consensus(&rules(Action::CleanCache));
    assert_eq!((consensus.action, consensus.how), (Action::CleanCache, How::RulesAlone));
    assert!(!consensus.on_agents_word && consensus.votes.is_empty());
    assert!(outcome.holders.iter().all(|holder| holder.held == Held::Rules));
    let record = serde_json::to_value(&outcome).unwrap();
    assert_eq!(record["holders"][0]["held"], "rules");
    for provider in ["mistral", "gemini", "groq", "anthropic"] {
        let told =
            outcome.attempts.iter().any(|attempt| attempt.provider == provider && !attempt.why.is_empty());
        assert!(told, "{provider}: {outcome:?}");
    }
}

#[tokio::test]
async fn nobody_waits_longer_than_the_deadline_for_a_delay() {
    let far = "429 retry-after far";
    let servers = four(bad(far), bad(far), bad(far), vec![well(RETRY)]).await;
    let begin = Instant::now();
    let council = council(&servers);
    let outcome = council.ask(&question("base"), DEADLINE).await;
    assert!(begin.elapsed() < Duration::from_millis(700), "the standby answers at once: {outcome:?}");
    assert!(outcome.votes.iter().all(|vote| vote.provider == "anthropic"));
    // Seats may ask it at the same moment, but none comes back.
    assert!(servers[..3].iter().all(|server| server.calls().len() <= 3));
    let calls = || servers[..3].iter().map(|server| server.calls().len()).sum::<usize>();
    let before = calls();
    council.ask(&question("desktop"), DEADLINE).await;
    assert_eq!(calls(), before);
}

#[tokio::test]
async fn a_seat_without_a_provider_is_taken_but_one_model_is_one_voice() {
    let servers = servers(vec![("mistral", Protocol::Mistral, vec![well(log::RISKY)])]).await;
    let outcome = council(&servers).ask(&question("base"), DEADLINE).await;
    let consensus = outcome.consensus(&rules(RETRY));
    assert_eq!((consensus.action, consensus.how), (RETRY, How::Safer), "it did not agree with itself");
}

#[tokio::test]
async fn instructions_inside_a_log_change_nothing() {
    // A model that does what the log says chooses what was not offered, or what is riskier.
    let forbidden = four(bad("obeys, forbidden"), vec![well(RETRY)], vec![well(RETRY)], bad("401")).await;
    let outcome = council(&forbidden).ask(&question("base"), DEADLINE).await;
    assert_eq!(outcome.consensus(&rules(Action::Stop)).action, RETRY);
    assert!(outcome.votes.iter().all(|vote| vote.provider != "mistral"));
    let riskier =
        four(bad("obeys, riskier"), vec![well(RETRY)], vec![well(Action::CleanCache)], bad("401")).await;
    let outcome = council(&riskier).ask(&question("base"), DEADLINE).await;
    assert_eq!(outcome.votes.len(), 3);
    let consensus = outcome.consensus(&rules(Action::Stop));
    assert_eq!((consensus.action, consensus.how), (RETRY, How::Safer));
    // Alone it gets no further than the rules.
    let alone = four(bad("obeys, riskier"), bad("401"), bad("401"), bad("401")).await;
    let outcome = council(&alone).ask(&question("base"), DEADLINE).await;
    assert_eq!(outcome.consensus(&rules(Action::Stop)).action, Action::Stop);
    // All of them together stay within what is allowed, and it is marked as their word alone.
    let obeys = || bad("obeys, riskier");
    let all = four(obeys(), obeys(), obeys(), obeys()).await;
    let consensus = council(&all).ask(&question("base"), DEADLINE).await.consensus(&rules(Action::Stop));
    assert!(log::ALLOWED.contains(&consensus.action) && consensus.on_agents_word);
}

#[tokio::test]
async fn a_long_delay_is_waited_for_where_nobody_else_answers() {
    let patient = || vec![named("429 retry-after s", Protocol::Groq, RETRY, DEADLINE), well(RETRY)];
    let alone =
        servers(vec![("groq", Protocol::Groq, patient()), ("gemini", Protocol::Gemini, bad("refusal"))])
            .await;
    let outcome = council(&alone).ask(&question("base"), DEADLINE).await;
    assert!(outcome.votes.iter().any(|vote| vote.provider == "groq"), "{outcome:?}");
    let calls = alone[0].calls();
    assert!(calls.last().unwrap().at - calls[0].at >= Duration::from_secs(1));
    let stands_by =
        servers(vec![("groq", Protocol::Groq, patient()), ("gemini", Protocol::Gemini, vec![well(RETRY)])])
            .await;
    let begin = Instant::now();
    council(&stands_by).ask(&question("base"), DEADLINE).await;
    assert!(begin.elapsed() < DEADLINE + Duration::from_millis(200));
}
