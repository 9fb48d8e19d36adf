//! `isokiln review`, `isokiln agents` and `isokiln rules`.

use std::path::Path;
use std::time::Duration;

use isokiln_core::exit;
use isokiln_core::review::{Class, Facts, Judgement, Review, RuleSet, prove};
use isokiln_engine::review::SeatReport;
use isokiln_engine::rules::rules_beside;
use isokiln_engine::run::{About, RunError, council, review_log};
use serde_json::{Value, json};

use crate::args::{Format, Global, ReviewLog, Rules, WhichRules};
use crate::{output, words};

/// How long seats are given to say that they are there.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn run(global: &Global, args: &ReviewLog) -> Result<u8, RunError> {
    let rules = rules_of(&args.which)?;
    let council = if args.no_agents { None } else { Some(council(folder(&args.which), &global.dir)?) };
    let stage = args.stage.as_ref().map(ToString::to_string).unwrap_or_default();
    let about = About { stage, ..About::default() };
    let facts = Facts::of_status(args.exit_code);
    let review = review_log(&args.log, &rules, council.as_ref(), about, &facts).await?;
    output::result(global.format, &review, told);
    Ok(exit::OK)
}

fn told(review: &Review) -> String {
    let mut lines = Vec::new();
    lines.push(match (review.verdict, &review.cause) {
        (_, Some(cause)) => match cause.line {
            Some(line) => format!("line {line}: {}", cause.text),
            None => cause.text.clone(),
        },
        (Judgement::Clean, None) => "clean".to_owned(),
        (_, None) => "unknown".to_owned(),
    });
    lines.push(format!("  {}", review.explanation));
    if !review.cure.is_empty() {
        lines.push(format!("  {}", review.cure));
    }
    let rule = review.cause.as_ref().map(|cause| format!("rule {}; ", cause.rule)).unwrap_or_default();
    let retry = match review.retry_helps {
        Some(true) => "; running it again can help",
        Some(false) => "; running it again does not help",
        None => "",
    };
    lines.push(format!("  {rule}action {}{retry}", review.action));
    for vote in &review.votes {
        let reading = &vote.reading;
        lines.push(format!(
            "  {} ({}, {}): {}; {}",
            vote.seat, vote.provider, vote.model, reading.action, reading.cause
        ));
    }
    lines.join("\n") + "\n"
}

pub(super) async fn agents(global: &Global) -> Result<u8, RunError> {
    let council = council(None, &global.dir)?;
    let reports = council.probe(PATIENCE).await;
    let document: Vec<Value> = reports.iter().map(as_json).collect();
    output::result(global.format, &document, |_| {
        let rows: Vec<_> = reports.iter().map(row).collect();
        let note = if council.can_ask() {
            ""
        } else {
            "No agent is configured: the rules review alone. .env.example says how to change that.\n"
        };
        format!("{}{note}", words::table(&rows))
    });
    Ok(exit::OK)
}

fn as_json(report: &SeatReport) -> Value {
    let answers = report.answers.as_ref().map(Result::is_ok);
    let reason = report.answers.as_ref().and_then(|answer| answer.as_ref().err()).map(ToString::to_string);
    json!({
        "seat": report.seat, "role": report.seat.role(), "open": report.open, "provider": report.provider,
        "model": report.model, "host": report.host, "answers": answers, "reason": reason,
        "milliseconds": report.millis, "spent": report.spent,
    })
}

fn row(report: &SeatReport) -> Vec<String> {
    let state = match (&report.answers, report.open) {
        (_, false) => "closed".to_owned(),
        (None, true) => "taken by another, or by the rules".to_owned(),
        (Some(Ok(())), true) => format!("answers in {} ms", report.millis),
        (Some(Err(trouble)), true) => trouble.to_string(),
    };
    let who = match (&report.provider, &report.model) {
        (Some(provider), Some(model)) => format!("{provider}, {model}"),
        _ => "nobody configured".to_owned(),
    };
    let spent = &report.spent;
    let spent = format!(
        "{} calls, {} tokens, {}",
        spent.calls,
        spent.tokens_in + spent.tokens_out,
        spent.micro_dollars
    );
    vec![report.seat.to_string(), report.seat.role().to_owned(), who, state, spent]
}

pub(super) fn rules(global: &Global, args: &Rules) -> Result<u8, RunError> {
    match args {
        Rules::List(which) => {
            let rules = rules_of(which)?;
            list(global.format, &rules);
            Ok(exit::OK)
        }
        Rules::Test(which) => {
            let rules = rules_of(which)?;
            let faults = prove(&rules);
            let count = |class| rules.rules().iter().filter(|rule| rule.class == class).count();
            let examples: usize = rules.rules().iter().map(|rule| rule.examples.len()).sum();
            let counterexamples: usize = rules.rules().iter().map(|rule| rule.counterexamples.len()).sum();
            let document = json!({
                "rules": rules.rules().len(), "causes": count(Class::Cause), "wrappers": count(Class::Wrapper),
                "benign": count(Class::Benign), "examples": examples, "counterexamples": counterexamples,
                "faults": faults,
            });
            output::result(global.format, &document, |_| {
                let mut text = String::new();
                for fault in &faults {
                    text.push_str(&format!("{}: {:?} {}\n", fault.rule, fault.text, fault.problem));
                }
                text.push_str(&format!(
                    "{} rules ({} causes, {} wrappers, {} benign) on {examples} examples and {counterexamples} counterexamples: {}\n",
                    rules.rules().len(),
                    count(Class::Cause),
                    count(Class::Wrapper),
                    count(Class::Benign),
                    if faults.is_empty() { "all as they should be".to_owned() } else { format!("{} faults", faults.len()) },
                ));
                text
            });
            Ok(if faults.is_empty() { exit::OK } else { exit::USAGE })
        }
    }
}

fn list(format: Format, rules: &RuleSet) {
    let document: Vec<Value> = rules
        .rules()
        .iter()
        .map(|rule| {
            json!({
                "id": rule.id, "class": rule.class, "pattern": rule.pattern, "after": rule.after, "fact": rule.fact,
                "explanation": rule.explanation, "cure": rule.cure, "actions": rule.actions, "retry": rule.retry,
                "silent": rule.silent, "source": rule.source,
            })
        })
        .collect();
    output::result(format, &document, |_| {
        let row = |rule: &isokiln_core::review::Rule| {
            let actions: Vec<_> = rule.actions.iter().map(|action| action.name()).collect();
            vec![rule.id.clone(), actions.join(", "), rule.explanation.clone()]
        };
        words::table(&rules.rules().iter().map(row).collect::<Vec<_>>())
    });
}

fn folder(which: &WhichRules) -> Option<&Path> {
    which.pipeline.as_deref().map(|file| file.parent().unwrap_or(Path::new("")))
}

/// The bundled rules, and those beside a pipeline file.
fn rules_of(which: &WhichRules) -> Result<RuleSet, RunError> {
    Ok(rules_beside(folder(which).unwrap_or(Path::new("/nonexistent")))?)
}
