//! From a log of any size to its cause and an excerpt, in one pass and constant memory.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::excerpt::{Excerpt, ExcerptLine, MOST_BYTES};
use super::line::clean;
use super::lines::Lines;
use super::rule::{Class, Rule};
use super::rules::{Before, Meaning, RuleSet};
use super::template::template_id;

/// Longest line read, in bytes; the rest of it is not looked at.
const LONGEST_LINE: usize = 4 << 10;
/// Longest line shown, in characters.
const LONGEST_SHOWN: usize = 400;
/// Lines around a cause that are shown, before and after it.
const AROUND: usize = 4;
/// Causes, wrappers and other suspicious lines that are kept, the first and the last of them.
const FIRST: usize = 16;
const LAST: usize = 16;
/// Lines of the log's beginning and end that are kept.
const HEAD: usize = 10;
const TAIL: usize = 60;
/// Templates that are told apart; what a log has more of is not folded.
const TEMPLATES: usize = 1 << 16;

/// A line that a rule knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule's id.
    pub rule: String,
    /// The line's number, from 1.
    pub line: u64,
    /// What it says.
    pub text: String,
    /// The package that it names.
    pub package: Option<String>,
}

/// What a log holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogReading {
    /// The earliest line of each rule that names a cause and was not got over, in order. The first is the cause.
    pub causes: Vec<Finding>,
    /// The last line that says that something failed, but not why; rather one about which something can be done.
    pub wrapper: Option<Finding>,
    /// The earliest line of each silent rule: what went wrong though the programs went on.
    pub silent: Vec<Finding>,
    /// What a review needs to see.
    pub excerpt: Excerpt,
    /// The last suspicious line, which stands for a failure that nobody knows.
    pub last_suspicious: Option<String>,
}

/// Templates of the lines of logs of stages that ended well.
pub type Templates = HashSet<u64>;

/// Reads a log as it comes.
pub struct Reducer<'r> {
    rules: &'r RuleSet,
    /// What good logs of the same stage hold too; none where there are no such logs.
    good: Option<&'r Templates>,
    lines: Lines,
    number: u64,
    before: Before,
    reading: LogReading,
    /// How often each template has come.
    times: HashMap<u64, u64>,
    kept: Kept,
    /// Lines that still belong to the neighbourhood of a cause.
    following: usize,
}

/// Lines that may become part of the excerpt, by what makes them worth it.
struct Kept {
    head: Vec<Line>,
    around: Ends,
    recent: Recent,
    causes: Ends,
    wrappers: Ends,
    suspicious: Ends,
    novel: Ends,
    tail: Recent,
}

#[derive(Clone)]
struct Line {
    number: u64,
    text: String,
    template: u64,
}

impl Line {
    fn set(&mut self, number: u64, text: &str, template: u64) {
        (self.number, self.template) = (number, template);
        self.text.clear();
        show(text, &mut self.text);
    }
}

/// The first and the last of many lines.
#[derive(Default)]
struct Ends {
    first: Vec<Line>,
    last: VecDeque<Line>,
}

impl Ends {
    fn push(&mut self, line: Line) {
        if self.first.len() < FIRST {
            self.first.push(line);
        } else {
            if self.last.len() == LAST {
                self.last.pop_front();
            }
            self.last.push_back(line);
        }
    }
}

/// The last of many lines. What it lets go of is used again: a log has millions of lines.
struct Recent {
    lines: VecDeque<Line>,
    most: usize,
}

impl Recent {
    fn new(most: usize) -> Self {
        Self { lines: VecDeque::with_capacity(most), most }
    }

    fn push(&mut self, number: u64, text: &str, template: u64) {
        let used = if self.lines.len() == self.most { self.lines.pop_front() } else { None };
        let mut line = used.unwrap_or_else(|| Line { number, text: String::new(), template });
        line.set(number, text, template);
        self.lines.push_back(line);
    }
}

impl<'r> Reducer<'r> {
    /// Reads with these rules; `good` tells what is nothing new.
    pub fn new(rules: &'r RuleSet, good: Option<&'r Templates>) -> Self {
        Self {
            rules,
            good,
            lines: Lines::new(LONGEST_LINE),
            number: 0,
            before: Before::default(),
            reading: LogReading::default(),
            times: HashMap::new(),
            kept: Kept {
                head: Vec::new(),
                around: Ends::default(),
                recent: Recent::new(AROUND),
                causes: Ends::default(),
                wrappers: Ends::default(),
                suspicious: Ends::default(),
                novel: Ends::default(),
                tail: Recent::new(TAIL),
            },
            following: 0,
        }
    }

    /// Takes the next bytes of the log.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut lines = std::mem::replace(&mut self.lines, Lines::new(LONGEST_LINE));
        lines.feed(bytes, |line| self.line(line));
        self.lines = lines;
    }

    /// What the log holds, now that it is over.
    pub fn finish(mut self) -> LogReading {
        let mut lines = std::mem::replace(&mut self.lines, Lines::new(LONGEST_LINE));
        lines.finish(|line| self.line(line));
        self.reading.excerpt = self.kept.excerpt(&self.times, self.number);
        self.reading
    }

    fn line(&mut self, bytes: &[u8]) {
        self.number += 1;
        let text = clean(bytes);
        if text.is_empty() {
            return;
        }
        let template = template_id(&text);
        let has_room = self.times.len() < TEMPLATES;
        let is_first = match self.times.entry(template) {
            Entry::Occupied(mut times) => {
                *times.get_mut() += 1;
                false
            }
            Entry::Vacant(times) if has_room => {
                times.insert(1);
                true
            }
            Entry::Vacant(_) => true,
        };
        let meaning = self.rules.read(&text, &self.before);
        self.before.push(&text);
        let line = || Line { number: self.number, text: shown(&text), template };
        match meaning {
            Meaning::Nothing => {
                if is_first && self.good.is_some_and(|good| !good.contains(&template)) {
                    self.kept.novel.push(line());
                }
            }
            Meaning::Suspicious => {
                let is_new = self.good.is_none_or(|good| !good.contains(&template));
                if is_new {
                    self.reading.last_suspicious = Some(text.clone().into_owned());
                }
                if is_first && is_new {
                    self.kept.suspicious.push(line());
                }
            }
            Meaning::Known(rule) => match rule.class {
                Class::Benign => {}
                Class::Overcome => self.reading.causes.retain(|cause| {
                    !rule.clears.is_empty()
                        && !rule.clears.iter().any(|start| cause.rule.starts_with(start.as_str()))
                }),
                Class::Wrapper => {
                    // One that knows something to do tells more than those around it.
                    let helps = |rule: &Rule| rule.actions.iter().any(|action| action.runs_again());
                    let before =
                        self.reading.wrapper.as_ref().and_then(|before| self.rules.get(&before.rule));
                    if helps(rule) || !before.is_some_and(helps) {
                        self.reading.wrapper = Some(finding(self.rules, rule, self.number, &text));
                    }
                    self.kept.wrappers.push(line());
                }
                Class::Cause => {
                    let found = finding(self.rules, rule, self.number, &text);
                    let is_known =
                        |findings: &[Finding]| findings.iter().any(|other| other.rule == found.rule);
                    if rule.silent && !is_known(&self.reading.silent) {
                        self.reading.silent.push(found.clone());
                    }
                    if !is_known(&self.reading.causes) {
                        self.reading.causes.push(found);
                    }
                    let recent: Vec<_> = self.kept.recent.lines.iter().cloned().collect();
                    recent.into_iter().for_each(|line| self.kept.around.push(line));
                    self.kept.causes.push(line());
                    self.following = AROUND + 1;
                }
            },
        }
        if self.following > 0 {
            self.following -= 1;
            self.kept.around.push(line());
        }
        if self.kept.head.len() < HEAD {
            self.kept.head.push(line());
        }
        self.kept.recent.push(self.number, &text, template);
        // Of many alike the end shows the last.
        match self.kept.tail.lines.back_mut() {
            Some(last) if last.template == template => last.set(self.number, &text, template),
            _ => self.kept.tail.push(self.number, &text, template),
        }
    }
}

fn finding(rules: &RuleSet, rule: &Rule, line: u64, text: &str) -> Finding {
    Finding {
        rule: rule.id.clone(),
        line,
        text: shown(text),
        package: rules.package(rule, text).map(str::to_owned),
    }
}

/// What of a line is shown.
fn shown(text: &str) -> String {
    let mut out = String::new();
    show(text, &mut out);
    out
}

fn show(text: &str, out: &mut String) {
    // Counting characters takes longer than looking at the length.
    let end = if text.len() > LONGEST_SHOWN { text.char_indices().nth(LONGEST_SHOWN) } else { None };
    match end {
        Some((end, _)) => {
            out.push_str(&text[..end]);
            out.push('…');
        }
        None => out.push_str(text),
    }
}

impl Kept {
    /// As much of it as fits, what matters most first, in the order of the log.
    fn excerpt(self, times: &HashMap<u64, u64>, total: u64) -> Excerpt {
        let ends = |ends: Ends| ends.first.into_iter().chain(ends.last);
        // From the end backwards: the last line matters more than those before it.
        let tail: Vec<_> = self.tail.lines.into_iter().rev().collect();
        let (last, rest) = tail.split_at(tail.len().min(AROUND * 4));
        let by_worth = ends(self.causes)
            .chain(last.iter().cloned())
            .chain(ends(self.around))
            .chain(ends(self.wrappers))
            .chain(ends(self.suspicious))
            .chain(ends(self.novel))
            .chain(rest.iter().cloned())
            .chain(self.head);
        // Room for the marks of gaps.
        let mut room = MOST_BYTES - 1024;
        let mut lines = BTreeMap::new();
        for line in by_worth {
            let times = times.get(&line.template).copied().unwrap_or(1);
            let shown = ExcerptLine { number: line.number, text: line.text, times };
            let size = shown.render().len() + 1;
            // A mark of a gap may come before each line.
            if size + 7 > room {
                break;
            }
            if lines.insert(shown.number, shown).is_none() {
                room -= size + 7;
            }
        }
        Excerpt { lines: lines.into_values().collect(), total }
    }
}

/// Collects the templates of good logs.
#[derive(Debug)]
pub struct GoodLogs {
    lines: Lines,
    templates: Templates,
}

impl Default for GoodLogs {
    fn default() -> Self {
        Self { lines: Lines::new(LONGEST_LINE), templates: Templates::new() }
    }
}

impl GoodLogs {
    /// Takes the next bytes of a log; an empty piece ends one.
    pub fn feed(&mut self, bytes: &[u8]) {
        let templates = &mut self.templates;
        let mut take = |line: &[u8]| {
            let text = clean(line);
            if !text.is_empty() && templates.len() < TEMPLATES {
                templates.insert(template_id(&text));
            }
        };
        self.lines.feed(bytes, &mut take);
        if bytes.is_empty() {
            self.lines.finish(take);
        }
    }

    /// What all of them hold.
    pub fn templates(self) -> Templates {
        self.templates
    }
}
