//! The coordination measure: many reviews against providers that behave in every way at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use isokiln_core::review::wire::Protocol;
use isokiln_core::review::{Action, Consensus, How};

use super::super::{Ask, Deliberation, Held};
use super::behaviour::{NAMES, named};
use super::log::{self, question, rules};
use super::server::{GRACE, KEY};
use super::{DEADLINE, asker, council_with, servers};

const REVIEWS: u64 = 240;
const AT_ONCE: usize = 24;
const SEED: u64 = 20_261;

/// A generator of the same numbers each time (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }
}

/// How one provider behaves in one review.
#[derive(Debug, Clone)]
struct Part {
    name: &'static str,
    protocol: Protocol,
    behaviour: &'static str,
    /// It behaves so each time, not only on the first call.
    lasts: bool,
    /// What it says when it is well.
    action: Action,
}

impl Part {
    /// It answers with something that counts, in time, whenever it is asked.
    fn is_healthy(&self) -> bool {
        ["well", "in a fence"].contains(&self.behaviour)
    }

    fn is_compromised(&self) -> bool {
        self.behaviour.starts_with("obeys")
    }
}

/// Every third provider is well; the others behave in any way, and every other one of these each time.
fn draw(numbers: &mut Numbers) -> (Vec<Part>, Action) {
    let c1 = [("mistral", Protocol::Mistral), ("anthropic", Protocol::Anthropic)];
    let c3 = [("groq", Protocol::Groq), ("xai", Protocol::OpenAi)];
    let (first, third) = (numbers.below(2), numbers.below(2));
    let mut who = vec![c1[first], ("gemini", Protocol::Gemini), c3[third]];
    who.extend([c1[1 - first], c3[1 - third]].into_iter().take(numbers.below(3)));
    let parts = who.into_iter().map(|(name, protocol)| Part {
        name,
        protocol,
        behaviour: if numbers.below(3) == 0 { "well" } else { NAMES[numbers.below(NAMES.len())] },
        lasts: numbers.below(2) == 0,
        action: if numbers.below(4) == 0 { Action::CleanCache } else { Action::Retry },
    });
    let parts = parts.collect();
    (parts, [Action::Stop, Action::Retry][numbers.below(2)])
}

/// What came of one review.
struct Review {
    parts: Vec<Part>,
    own: Action,
    took: Duration,
    outcome: Deliberation,
    consensus: Consensus,
}

async fn review(ask: Arc<dyn Ask>, number: u64, parts: Vec<Part>, own: Action) -> Review {
    let script = |part: &Part| {
        let behave = |name| named(name, part.protocol, part.action, DEADLINE);
        let later = (!part.lasts).then(|| behave("well"));
        (part.name, part.protocol, [behave(part.behaviour)].into_iter().chain(later).collect())
    };
    let servers = servers(parts.iter().map(script).collect()).await;
    let council = council_with(&ask, &servers);
    let question = question(&format!("stage-{number}"));
    let begin = Instant::now();
    let outcome = council.ask(&question, DEADLINE).await;
    let took = begin.elapsed();
    for call in servers.iter().flat_map(|server| server.calls()) {
        let sent =
            [log::SECRETS.as_slice(), &[KEY]].concat().into_iter().find(|secret| call.body.contains(secret));
        assert_eq!(sent, None, "a prompt carried a secret");
    }
    let record = serde_json::to_string(&outcome).unwrap();
    assert!(!record.contains(KEY) && log::SECRETS.iter().all(|secret| !record.contains(secret)));
    let consensus = outcome.consensus(&rules(own));
    Review { parts, own, took, outcome, consensus }
}

impl Review {
    fn in_time(&self) -> bool {
        self.took <= DEADLINE + GRACE
    }

    fn voices(&self) -> usize {
        let mut providers: Vec<_> = self.outcome.votes.iter().map(|vote| &vote.provider).collect();
        providers.sort();
        providers.dedup();
        providers.len()
    }

    /// What no review may ever do.
    fn check(&self) {
        let action = self.consensus.action;
        let context = || format!("{:?} {:?}", self.parts, self.outcome);
        assert!(log::ALLOWED.contains(&action), "{action} is not allowed: {}", context());
        if self.consensus.how == How::RulesAlone {
            assert_eq!(action, self.own);
            let says_so = |held: &Held| matches!(held, Held::Rules);
            assert!(self.outcome.holders.iter().all(|holder| says_so(&holder.held)), "{}", context());
        }
        if self.parts.iter().filter(|part| part.is_compromised()).count() <= 1 {
            assert_ne!(action, log::RISKY, "one compromised provider had its way: {}", context());
        }
    }
}

fn part(of: usize, all: usize) -> f64 {
    100.0 * of as f64 / all.max(1) as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nearly_all_reviews_reach_a_consensus_inside_the_deadline() {
    let mut numbers = Numbers(SEED);
    let drawn: Vec<_> = (0..REVIEWS).map(|number| (number, draw(&mut numbers))).collect();
    let ask = asker();
    let begin = Instant::now();
    let reviews: Vec<Review> = stream::iter(drawn)
        .map(|(number, (parts, own))| tokio::spawn(review(Arc::clone(&ask), number, parts, own)))
        .buffer_unordered(AT_ONCE)
        .map(|joined| joined.unwrap())
        .collect()
        .await;
    reviews.iter().for_each(Review::check);
    show(&reviews, begin.elapsed());

    let all = reviews.len();
    assert!(all >= 200);
    let reached = reviews.iter().filter(|review| review.in_time()).count();
    assert!(part(reached, all) >= 98.0, "{reached} of {all} reached a consensus inside the deadline");
    // The rules are the last resort, not the excuse: who can be heard is heard.
    let healthy = |review: &&Review| review.parts.iter().filter(|part| part.is_healthy()).count();
    for least in [1, 2] {
        let could: Vec<_> = reviews.iter().filter(|review| healthy(review) >= least).collect();
        let did = could.iter().filter(|review| review.voices() >= least && review.in_time()).count();
        assert!(part(did, could.len()) >= 98.0, "{did} of {} heard {least}", could.len());
    }
}

/// Who spoke for a seat, by how its own provider behaved; then the outcomes.
fn show(reviews: &[Review], took: Duration) {
    let mut table: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for review in reviews {
        for (part, holder) in review.parts.iter().zip(&review.outcome.holders) {
            let column = match holder.held {
                Held::Own(_) => 0,
                Held::Other(_) => 1,
                Held::NotAwaited => 2,
                Held::Rules | Held::Closed => 3,
            };
            table.entry(part.behaviour).or_default()[column] += 1;
        }
    }
    println!("{:<26}{:>6}{:>8}{:>14}{:>7}", "the provider behaves", "own", "other", "not awaited", "rules");
    for name in NAMES {
        let [own, other, not_awaited, rules] = table.get(name).copied().unwrap_or_default();
        println!("{name:<26}{own:>6}{other:>8}{not_awaited:>14}{rules:>7}");
    }
    let count = |is: &dyn Fn(&Review) -> bool| reviews.iter().filter(|review| is(review)).count();
    let all = reviews.len();
    let mut times: Vec<_> = reviews.iter().map(|review| review.took.as_millis()).collect();
    times.sort_unstable();
    println!("\n{all} reviews, deadline {} ms, {:.1} s in all", DEADLINE.as_millis(), took.as_secs_f64());
    println!(
        "time: median {} ms, 95 % {} ms, longest {} ms",
        times[all / 2],
        times[all * 95 / 100],
        times[all - 1]
    );
    for (name, number) in [
        ("a consensus inside the deadline", count(&Review::in_time)),
        ("  agreed", count(&|review| review.consensus.how == How::Agreed)),
        ("  the safer of several", count(&|review| review.consensus.how == How::Safer)),
        ("  the rules alone", count(&|review| review.consensus.how == How::RulesAlone)),
        ("with a vote of an agent", count(&|review| review.voices() >= 1)),
        ("with two voices of agents", count(&|review| review.voices() >= 2)),
        ("a riskier action by compromised models", count(&|review| review.consensus.action == log::RISKY)),
    ] {
        println!("{name:<42}{number:>5}{:>8.1} %", part(number, all));
    }
}
