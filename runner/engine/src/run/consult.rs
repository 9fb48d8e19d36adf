//! One log's review: what the rules make of it, and what the council makes of that.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use isokiln_core::review::{
    Action, Consensus, Diagnosis, Excerpt, Facts, Judgement, LogReading, Question, Reducer, Review, RuleSet,
    RulesVote, Templates, diagnose, redact,
};

use super::error::RunError;
use crate::review::{Council, Deliberation};

/// Bytes of a log that are read at a time.
const PIECE: usize = 256 << 10;
/// How long the council may take.
const DEADLINE: Duration = Duration::from_secs(45);

/// What a log is of.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The stage's name.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// What it is for.
    pub role: String,
}

/// What came of a review.
#[derive(Debug, Clone)]
pub(super) struct Reviewed {
    pub(super) review: Review,
    pub(super) diagnosis: Diagnosis,
    /// What may be done about it, the best first.
    pub(super) allowed: Vec<Action>,
    /// Whether a gate that blocks holds it up.
    pub(super) blocks: bool,
}

/// What was asked of the council and answered.
pub(super) struct Conversation {
    pub(super) question: Question,
    pub(super) told: Deliberation,
    pub(super) consensus: Consensus,
}

/// Reviews any log, a file or standard input; the council is asked where somebody can be.
pub async fn review_log(
    path: &Path,
    rules: &RuleSet,
    council: Option<&Council>,
    about: About,
    facts: &Facts,
) -> Result<Review, RunError> {
    let reading =
        read_log(path, rules, None).map_err(|source| RunError::ReadLog { path: path.to_owned(), source })?;
    let diagnosis = diagnose(rules, &reading, facts);
    let (reviewed, _) = consult(council, about, &reading.excerpt, facts, diagnosis).await;
    Ok(reviewed.review)
}

/// Reads a log of any size with the rules; `good` tells what is nothing new.
pub fn read_log(path: &Path, rules: &RuleSet, good: Option<&Templates>) -> io::Result<LogReading> {
    let mut reducer = Reducer::new(rules, good);
    pieces(path, |piece| reducer.feed(piece))?;
    Ok(reducer.finish())
}

pub(super) fn pieces(path: &Path, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(size) => take(&piece[..size]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What the rules say, and what the council makes of it; with the conversation, where there was one.
pub(super) async fn consult(
    council: Option<&Council>,
    about: About,
    excerpt: &Excerpt,
    facts: &Facts,
    diagnosis: Diagnosis,
) -> (Reviewed, Option<Conversation>) {
    let review = Review::of(&diagnosis);
    let allowed = diagnosis.allowed.clone();
    let blocks = review.verdict == Judgement::Suspect;
    let mut reviewed = Reviewed { review, diagnosis, allowed, blocks };
    let Some(council) = council.filter(|council| council.can_ask()) else {
        reviewed.redact();
        return (reviewed, None);
    };
    let offered = reviewed.offer(facts);
    let cause = reviewed.review.cause.as_ref();
    let question = Question {
        stage: about.stage,
        kind: about.kind,
        role: about.role,
        excerpt: excerpt.clone(),
        facts: facts.lines(),
        allowed: offered.clone(),
        known: cause.map(|cause| format!("{}: {}", cause.rule, reviewed.diagnosis.explanation)),
    };
    let told = council.ask(&question, DEADLINE).await;
    let rules = RulesVote {
        action: reviewed.diagnosis.action(),
        knows_cause: reviewed.review.verdict == Judgement::Known,
        allowed: offered,
    };
    let consensus = told.consensus(&rules);
    // Agents that may only advise do not make anything run again that the rules would not.
    reviewed.take(&consensus, facts, council.seats().session_safe);
    reviewed.redact();
    (reviewed, Some(Conversation { question, told, consensus }))
}

impl Reviewed {
    /// Whether the stage ended well but what it made is not to be trusted.
    pub(super) fn is_suspect(&self) -> bool {
        self.review.verdict == Judgement::Suspect
    }

    /// The cause in its own words; empty where there is none.
    pub(super) fn cause(&self) -> &str {
        self.review.cause.as_ref().map_or("", |cause| &cause.text)
    }

    /// What agents may choose from, the safest first: what the rules allow. Of a stage that ended well they say whether
    /// it is good; where nobody knows the cause, that it be tried once more.
    fn offer(&mut self, facts: &Facts) -> Vec<Action> {
        if facts.ended_well() {
            self.allowed = vec![Action::Stop, Action::None];
        } else if self.review.verdict == Judgement::Unknown && !self.allowed.contains(&Action::Retry) {
            self.allowed.push(Action::Retry);
        }
        let mut offered = self.allowed.clone();
        offered.push(Action::Stop);
        offered.sort();
        offered.dedup();
        offered
    }

    /// Takes in what the council has agreed on.
    fn take(&mut self, consensus: &Consensus, facts: &Facts, only_advises: bool) {
        self.review.votes.clone_from(&consensus.votes);
        self.review.action = consensus.action;
        if consensus.on_agents_word && only_advises {
            self.review.action = self.diagnosis.action();
            self.allowed.clone_from(&self.diagnosis.allowed);
        }
        let Some(vote) = consensus.votes.iter().find(|vote| vote.reading.action == consensus.action) else {
            return;
        };
        let said = format!("{} ({}) says: {}", vote.seat, vote.provider, vote.reading.cause);
        match self.review.verdict {
            Judgement::Clean if facts.ended_well() && consensus.action == Action::Stop => {
                self.review.verdict = Judgement::Suspect;
                let stops = consensus.votes.iter().filter(|vote| vote.reading.action == Action::Stop);
                self.blocks = !only_advises && stops.count() > 1;
                self.review.explanation = said;
                self.review.cure.clone_from(&vote.reading.cure);
            }
            Judgement::Unknown => {
                self.review.explanation = format!("{} {said}", self.review.explanation);
                self.review.cure.clone_from(&vote.reading.cure);
            }
            Judgement::Clean | Judgement::Suspect | Judgement::Known => {}
        }
    }

    /// Takes out of its words what must not be stored.
    fn redact(&mut self) {
        let Review { cause, explanation, cure, .. } = &mut self.review;
        for text in cause.iter_mut().map(|cause| &mut cause.text).chain([explanation, cure]) {
            *text = redact(text).into_owned();
        }
    }
}
