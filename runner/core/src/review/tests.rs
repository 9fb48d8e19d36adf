//! From logs and facts to causes.

use proptest::prelude::*;

use super::*;

const RULES: &str = r#"
[[rule]]
id = "apt-404"
class = "cause"
pattern = '404  Not Found'
explanation = "The mirror does not have it."
actions = ["clean-cache", "refresh-mirror"]
retry = "after-action"
source = ["x"]
example = "404  Not Found"

[[rule]]
id = "disk-full-line"
class = "cause"
fact = "disk-full"
pattern = 'No space left on device'
explanation = "The disk is full."
actions = ["clean-cache"]
retry = "after-action"
source = ["x"]
example = "No space left on device"

[[rule]]
id = "disk-full"
class = "cause"
fact = "disk-full"
explanation = "A disk is full."
actions = ["stop"]
source = ["x"]

[[rule]]
id = "out-of-memory"
class = "cause"
fact = "out-of-memory"
explanation = "Memory was over."
source = ["x"]

[[rule]]
id = "resolving"
class = "cause"
fact = "no-resolver"
pattern = 'Could not resolve'
explanation = "A name has no address."
actions = ["retry"]
retry = "once"
source = ["x"]
example = "Could not resolve"

[[rule]]
id = "no-network"
class = "cause"
fact = "no-network"
explanation = "The stage has no network."
source = ["x"]

[[rule]]
id = "clock"
class = "cause"
fact = "clock-behind"
explanation = "The clock is behind."
source = ["x"]

[[rule]]
id = "left-out"
class = "cause"
silent = true
pattern = 'creating empty file'
explanation = "A file is missing from the image."
source = ["x"]
example = "creating empty file"

[[rule]]
id = "postinst"
class = "wrapper"
pattern = 'returned error exit status'
explanation = "A script of a package failed."
actions = ["retry"]
retry = "once"
source = ["x"]
example = "returned error exit status"

[[rule]]
id = "dpkg-failed"
class = "wrapper"
pattern = '^E: Sub-process'
explanation = "dpkg failed."
source = ["x"]
example = "E: Sub-process dpkg"

[[rule]]
id = "debconf"
class = "benign"
pattern = 'unable to initialize frontend'
explanation = "Nobody is there to ask."
source = ["x"]
example = "unable to initialize frontend"

[[rule]]
id = "got-over"
class = "overcome"
pattern = '^isokiln: got over'
explanation = "It was got over."
source = ["x"]
example = "isokiln: got over it"
"#;

fn rules() -> RuleSet {
    RuleSet::new(parse_rules(RULES).unwrap()).unwrap()
}

fn read(log: &str) -> LogReading {
    let rules = rules();
    let mut reducer = Reducer::new(&rules, None);
    reducer.feed(log.as_bytes());
    reducer.finish()
}

fn failed() -> Facts {
    Facts { end: End::Status(100), ..Facts::default() }
}

/// Rule and line of the cause, or the judgement where there is none.
fn cause(log: &str, facts: &Facts) -> String {
    let diagnosis = diagnose(&rules(), &read(log), facts);
    match (diagnosis.cause, diagnosis.judgement) {
        (Some(cause), _) => {
            format!("{} {}", cause.rule, cause.line.map_or("-".into(), |line| line.to_string()))
        }
        (None, judgement) => format!("{judgement:?}"),
    }
}

#[test]
fn the_earliest_true_cause_is_named_with_its_line() {
    let log = "Get:1 x\n\x1b[31mdebconf: unable to initialize frontend\x1b[0m\n10%\r50%\r  404  Not Found\n\
               E: postinst returned error exit status 1\n[12:00:00] No space left on device\n";
    assert_eq!(cause(log, &failed()), "apt-404 3");
    assert_eq!(read(log).wrapper.unwrap().line, 4);
    assert_eq!(cause("E: x returned error exit status 1\n", &failed()), "Unknown");
    assert_eq!(cause("frobnicated\n", &failed()), "Unknown");
    assert_eq!(cause("404  Not Found\n", &Facts::of_status(Some(0))), "Clean");
    assert_eq!(cause("Failed to read file /x, creating empty file\n", &failed()), "left-out 1");
}

#[test]
fn what_was_got_over_is_no_cause() {
    let log = "404  Not Found\nisokiln: got over: optional package x\nNo space left on device\n";
    assert_eq!(cause(log, &failed()), "disk-full-line 3");
    assert_eq!(cause("404  Not Found\nisokiln: got over: x\nmore\n", &failed()), "Unknown");
}

#[test]
fn only_silent_rules_raise_an_alarm_on_a_good_stage() {
    let log = "404  Not Found\nFailed to read file /x, creating empty file\n";
    assert_eq!(cause(log, &Facts::of_status(Some(0))), "left-out 2");
    let diagnosis = diagnose(&rules(), &read(log), &Facts::of_status(Some(0)));
    assert_eq!(diagnosis.judgement, Judgement::Suspect);
}

#[test]
fn strong_facts_explain_everything_and_weak_ones_what_is_left() {
    let full = Facts { rooms: vec![Room { what: "the disk".into(), bytes: 1, inodes: 9 }], ..failed() };
    assert_eq!(cause("404  Not Found\n", &full), "disk-full -");
    // A line that says the same is quoted.
    assert_eq!(cause("404  Not Found\nNo space left on device\n", &full), "disk-full 2");
    assert_eq!(cause("404  Not Found\nNo space left on device\n", &failed()), "apt-404 1");
    assert_eq!(cause("x\n", &Facts { end: End::OutOfMemory, ..failed() }), "out-of-memory -");
    let late = Facts { clock_offset: Some(-7200), ..failed() };
    assert_eq!(cause("x\n", &late), "clock -");
    assert_eq!(cause("404  Not Found\n", &late), "apt-404 1");
    let unresolved = Facts { resolves: Some(false), has_network: Some(true), ..failed() };
    assert_eq!(cause("404  Not Found\nCould not resolve 'x'\n", &unresolved), "resolving 2");
    let offline = Facts { has_network: Some(false), ..failed() };
    assert_eq!(cause("Could not resolve 'x'\n", &offline), "no-network 1");
    assert_eq!(cause("x\n", &offline), "Unknown");
}

#[test]
fn an_unknown_failure_has_the_wrappers_actions_and_a_signature() {
    let diagnosis = diagnose(&rules(), &read("E: mv-1 returned error exit status 1\n"), &failed());
    assert_eq!((diagnosis.action(), diagnosis.retry_helps()), (Action::Retry, Some(true)));
    let two =
        diagnose(&rules(), &read("E: mv-1 returned error exit status 1\nE: Sub-process dpkg\n"), &failed());
    assert_eq!(two.action(), Action::Retry, "the one that knows something to do");
    let other = diagnose(&rules(), &read("E: mv-2 returned error exit status 3\n"), &failed());
    assert_eq!(diagnosis.signature, other.signature, "only numbers differ");
    assert!(diagnosis.signature.starts_with("unknown-"), "{}", diagnosis.signature);
    let nothing = diagnose(&rules(), &read("all is well\n"), &failed());
    assert_eq!((nothing.action(), nothing.retry_helps()), (Action::Stop, None));
    // Nobody says that this one failed.
    assert_eq!(diagnose(&rules(), &read("all is well\n"), &Facts::default()).action(), Action::None);
}

#[test]
fn the_excerpt_shows_causes_their_surroundings_and_the_end() {
    let mut log = String::new();
    for number in 1..=5000 {
        log.push_str(&format!("Setting up package{number} (1.{number}) ...\n"));
        if number == 2500 {
            log.push_str("before\n404  Not Found\nafter\n");
        }
    }
    log.push_str("the end\n");
    let excerpt = read(&log).excerpt;
    assert_eq!(excerpt.total, 5004);
    let number =
        |text: &str| excerpt.find(text).unwrap_or_else(|| panic!("{text}\n{}", excerpt.render())).number;
    assert_eq!((number("before"), number("404  Not Found"), number("after")), (2501, 2502, 2503));
    assert_eq!(number("the end"), 5004);
    // Lines of one kind stand for all of them.
    let folded = excerpt.lines.iter().find(|line| line.text.starts_with("Setting up")).unwrap();
    assert_eq!(folded.times, 5000);
    assert!(excerpt.lines.len() < 30, "{}", excerpt.render());
}

#[test]
fn what_good_logs_say_too_is_nothing_new() {
    let mut good = GoodLogs::default();
    good.feed(b"Get:1 x\nerror: code 5 ignored\nplain 1\n");
    good.feed(b"");
    let templates = good.templates();
    let rules = rules();
    let mut reducer = Reducer::new(&rules, Some(&templates));
    let mut log = "plain 0\nerror: code 7 ignored\nerror: something else\nodd words\n".to_owned();
    log.push_str(&"plain 2\n".repeat(500));
    for number in 0..200 {
        log.push_str(&format!("plain {number}\n"));
    }
    reducer.feed(log.as_bytes());
    let reading = reducer.finish();
    assert_eq!(reading.last_suspicious.as_deref(), Some("error: something else"));
    assert!(reading.excerpt.find("odd words").is_some(), "{}", reading.excerpt.render());
}

proptest! {
    /// Whatever a log holds, and however it comes, little of it leaves the machine, in order and as it was.
    #[test]
    fn an_excerpt_is_small_and_true(
        lines in proptest::collection::vec("[ -~]{0,600}|404  Not Found|error: [a-z]{1,300}", 0..300),
        piece in 1usize..5000,
    ) {
        let log = lines.join("\n");
        let rules = rules();
        let mut reducer = Reducer::new(&rules, None);
        for piece in log.as_bytes().chunks(piece) {
            reducer.feed(piece);
        }
        let reading = reducer.finish();
        prop_assert!(reading.excerpt.render().len() <= MOST_BYTES);
        let numbers: Vec<_> = reading.excerpt.lines.iter().map(|line| line.number).collect();
        prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
        let all: Vec<_> = log.split('\n').collect();
        for line in &reading.excerpt.lines {
            let own = clean(all[line.number as usize - 1].as_bytes()).into_owned();
            prop_assert!(own.starts_with(line.text.trim_end_matches('…')), "{own:?} {line:?}");
        }
        let first = all.iter().position(|line| line.contains("404  Not Found")).map(|line| line as u64 + 1);
        prop_assert_eq!(reading.causes.iter().find(|cause| cause.rule == "apt-404").map(|cause| cause.line), first);
    }
}
