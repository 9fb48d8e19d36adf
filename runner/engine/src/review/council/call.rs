//! Asking one provider for one seat.

use std::time::Duration;

use isokiln_core::digest::Digest;
use isokiln_core::review::wire::{Reply, Trouble, most_written, read_from, request};
use isokiln_core::review::{Permit, Prompt, Reservation, Vote, prompt, read_vote};
use tokio::time::{Instant, sleep, timeout_at};

use super::super::ledger::Spent;
use super::super::{Provider, cache};
use super::chance::{jittered, marker};
use super::record::{Outcome, millis};
use super::turn::{Heard, Turn};

/// Tokens for an answer.
const ANSWER_TOKENS: u32 = 700;
/// Calls to one provider for one question.
const TRIES: u32 = 3;
/// The first pause where the provider names none; it doubles.
const PAUSE: Duration = Duration::from_millis(200);
/// The marker in what an answer is kept under, which is the same each time.
const NO_MARKER: &str = "0000000000000000";

impl Turn<'_> {
    /// Asks one provider, again where that may help.
    pub(super) async fn hear(&self, index: usize, tried: &[usize]) -> Heard {
        let provider = self.provider(index);
        let Some((asked, kept_as)) = self.prompts(provider) else { return Heard::Nothing };
        if let Some(vote) = self.remembered(index, &kept_as) {
            return Heard::Vote(Box::new(vote));
        }
        for try_number in 0..TRIES {
            let Some(reserved) = self.reserve(provider, &asked) else {
                self.note(index, Outcome::Skipped, "the budget of the build is used up");
                return Heard::Nothing;
            };
            let slot = self.note(index, Outcome::NotAwaited, "others had agreed before it answered");
            let begin = Instant::now();
            let outcome = self.call(provider, &asked, self.limit(tried)).await;
            self.settle(index, reserved, slot, begin, &outcome);
            let trouble = match outcome {
                Ok(reply) => return self.count(index, slot, &reply, &kept_as),
                Err(trouble) => trouble,
            };
            let is_void = trouble.is_void_answer();
            self.table.end(
                slot,
                if is_void { Outcome::Invalid } else { Outcome::Failed },
                trouble.to_string(),
            );
            if is_void {
                return Heard::Void;
            }
            let pause = jittered(trouble.after().unwrap_or_default().max(PAUSE * 2_u32.pow(try_number)));
            if !trouble.may_pass() || try_number + 1 == TRIES {
                return Heard::Nothing;
            }
            if pause > self.left() / 2 {
                // Others first.
                return if trouble.after().is_some() { Heard::Later } else { Heard::Nothing };
            }
            sleep(pause).await;
            if self.permit(index) != Permit::Go {
                return Heard::Nothing;
            }
        }
        Heard::Nothing
    }

    /// The prompt as it is sent, and what its answer is kept under.
    fn prompts(&self, provider: &Provider) -> Option<(Prompt, Digest)> {
        let plain = prompt(self.question, self.seat, NO_MARKER);
        let asked = (0..4).find_map(|_| prompt(self.question, self.seat, &marker()).ok())?;
        // A log that holds the plain marker is kept under what nobody asks for again.
        Some((asked.clone(), cache::key(&provider.endpoint, &plain.unwrap_or(asked))))
    }

    /// One call, within the time for it.
    async fn call(&self, provider: &Provider, asked: &Prompt, limit: Instant) -> Result<Reply, Trouble> {
        let endpoint = &provider.endpoint;
        let sent = self.council.ask.send(request(endpoint, asked, ANSWER_TOKENS), limit);
        let reply = timeout_at(limit, sent).await.unwrap_or(Err(Trouble::TimedOut))?;
        read_from(endpoint, &reply, jiff::Timestamp::now())
    }

    /// A vote from an answer, if it is one.
    fn count(&self, index: usize, slot: usize, reply: &Reply, kept_as: &Digest) -> Heard {
        match self.vote(index, reply) {
            Ok(vote) => {
                if let Some(cache) = &self.council.cache {
                    cache.put(kept_as, reply);
                }
                self.table.end(slot, Outcome::Voted, String::new());
                Heard::Vote(Box::new(vote))
            }
            Err(why) => {
                self.table.end(slot, Outcome::Invalid, why);
                Heard::Void
            }
        }
    }

    fn vote(&self, index: usize, reply: &Reply) -> Result<Vote, String> {
        let reading = read_vote(&reply.text, &self.question.excerpt, &self.question.allowed);
        let provider = self.provider(index);
        let (name, model) = (provider.name.clone(), provider.endpoint.model.clone());
        let reading = reading.map_err(|invalid| invalid.to_string())?;
        Ok(Vote { seat: self.seat, provider: name, model, reading })
    }

    /// The vote that the same question got before.
    fn remembered(&self, index: usize, kept_as: &Digest) -> Option<Vote> {
        let reply = self.council.cache.as_ref()?.get(kept_as)?;
        let vote = self.vote(index, &reply).ok()?;
        let slot = self.note(index, Outcome::Voted, "");
        self.table.change(slot, |attempt| attempt.cached = true);
        Some(vote)
    }

    fn reserve(&self, provider: &Provider, asked: &Prompt) -> Option<Reservation> {
        // Three bytes a token is more tokens than any log has.
        let read = (asked.system.len() + asked.user.len()) / 3;
        let read = u64::try_from(read).unwrap_or(u64::MAX);
        self.council.state().budget.reserve(
            &provider.endpoint.model,
            read,
            u64::from(most_written(&provider.endpoint, ANSWER_TOKENS)),
        )
    }

    /// Notes what a call used, and how its provider fares.
    fn settle(
        &self,
        index: usize,
        reserved: Reservation,
        slot: usize,
        begin: Instant,
        outcome: &Result<Reply, Trouble>,
    ) {
        let now = self.council.now();
        let provider = self.provider(index);
        let model = &provider.endpoint.model;
        let mut state = self.council.state();
        let breaker = &mut state.breakers[index];
        let mut used = (0, None);
        match outcome {
            Ok(reply) => {
                breaker.succeeded();
                let cost = state.budget.settle(reserved, model, reply.tokens_in, reply.tokens_out);
                used = (reply.tokens_in + reply.tokens_out, cost);
            }
            // It answered, or may have: what was set aside stays spent.
            Err(Trouble::Refused(_) | Trouble::Truncated) => breaker.succeeded(),
            Err(Trouble::Malformed(_) | Trouble::Endless(_) | Trouble::TimedOut) => breaker.failed(now),
            Err(trouble) => {
                if trouble.is_permanent() {
                    breaker.shut();
                } else if *trouble != Trouble::TooLarge {
                    breaker.failed(now);
                }
                if let Some(after) = trouble.after() {
                    breaker.hold(now, after);
                }
                state.budget.settle(reserved, model, 0, 0);
            }
        }
        drop(state);
        if let (Ok(reply), Some(ledger)) = (outcome, &self.council.ledger) {
            let (tokens_in, tokens_out) = (reply.tokens_in, reply.tokens_out);
            let micro_dollars = used.1.unwrap_or_default();
            ledger.add(&provider.name, Spent { calls: 1, tokens_in, tokens_out, micro_dollars });
        }
        self.table.change(slot, |attempt| {
            attempt.millis = millis(begin.elapsed());
            (attempt.tokens, attempt.cost) = used;
        });
    }
}
