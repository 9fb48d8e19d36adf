//! Whether each seat answers, for `isokiln agents`.

use std::time::Duration;

use futures_util::future::join_all;
use isokiln_core::review::wire::{Trouble, read_from, request};
use isokiln_core::review::{Prompt, Seat};
use tokio::time::{Instant, timeout_at};

use super::super::SeatSetting;
use super::super::ledger::Spent;
use super::Council;
use super::record::millis;

/// Tokens for the answer.
const ANSWER_TOKENS: u32 = 64;

/// What is to be said of a seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeatReport {
    /// The seat.
    pub seat: Seat,
    /// Whether it takes part.
    pub open: bool,
    /// Who holds it.
    pub provider: Option<String>,
    /// Which model.
    pub model: Option<String>,
    /// Where that is.
    pub host: Option<String>,
    /// Whether it answers, or why not; `None` if it was not asked.
    pub answers: Option<Result<(), Trouble>>,
    /// How long the answer took.
    pub millis: u64,
    /// What its provider was used for so far, over all builds.
    pub spent: Spent,
}

impl Council {
    /// Asks the holder of each open seat something tiny.
    pub async fn probe(&self, deadline: Duration) -> Vec<SeatReport> {
        let end = Instant::now() + deadline;
        let mut reports =
            join_all(self.seats.seats.iter().map(|setting| self.probe_seat(setting, end))).await;
        let ledger = self.ledger.as_ref().map(|ledger| ledger.read()).unwrap_or_default();
        for report in &mut reports {
            let spent = report.provider.as_ref().and_then(|provider| ledger.get(provider));
            report.spent = spent.copied().unwrap_or_default();
        }
        reports
    }

    async fn probe_seat(&self, setting: &SeatSetting, end: Instant) -> SeatReport {
        let provider = setting.own.map(|index| &self.seats.providers[index]);
        let mut report = SeatReport {
            seat: setting.seat,
            open: setting.open,
            provider: provider.map(|provider| provider.name.clone()),
            model: provider.map(|provider| provider.endpoint.model.clone()),
            host: provider.map(|provider| provider.host()),
            answers: None,
            millis: 0,
            spent: Spent::default(),
        };
        let Some(provider) = provider.filter(|_| setting.open) else { return report };
        let tiny = Prompt {
            system: "You answer with JSON only.".into(),
            user: "Answer with the JSON object {\"ready\": true} and nothing else.".into(),
        };
        let begin = Instant::now();
        let endpoint = &provider.endpoint;
        let sent = self.ask.send(request(endpoint, &tiny, ANSWER_TOKENS), end);
        let reply = timeout_at(end, sent).await.unwrap_or(Err(Trouble::TimedOut));
        let reply = reply.and_then(|reply| read_from(endpoint, &reply, jiff::Timestamp::now()));
        report.millis = millis(begin.elapsed());
        report.answers = Some(reply.map(|reply| self.note_probe(provider, &reply)));
        report
    }

    fn note_probe(&self, provider: &super::super::Provider, reply: &isokiln_core::review::wire::Reply) {
        let (tokens_in, tokens_out) = (reply.tokens_in, reply.tokens_out);
        let cost = isokiln_core::review::cost_of(&provider.endpoint.model, tokens_in, tokens_out);
        if let Some(ledger) = &self.ledger {
            let micro_dollars = cost.unwrap_or_default();
            ledger.add(&provider.name, Spent { calls: 1, tokens_in, tokens_out, micro_dollars });
        }
    }
}
