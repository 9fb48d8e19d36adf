//! GRUB's menus: a script is followed as far as it can be without a machine. Where a condition hangs on the
//! machine, both ways are followed.

use std::collections::HashMap;

use super::grub_words::{Part, Statement, Word, parse as statements};
use super::{Loader, LoaderConfig, MAX_DEPTH, MAX_ENTRIES, MAX_INITRDS, MenuEntry, Reader, absolute, shown};
use crate::boot::iso::files::push_within;

/// Commands run for one menu; scripts that include each other end here.
const MAX_STEPS: usize = 20_000;
/// Bytes of a word whose variables are replaced, and of all words of a menu: a variable that holds itself twice, forty
/// times over, would fill any memory. Linux takes no longer path or command line.
const MAX_WORD: usize = 4096;
const MAX_WORDS: usize = 8 << 20;

pub(super) fn parse(path: &str, reader: &mut Reader<'_>) -> LoaderConfig {
    let mut script = Script { reader, steps: 0, count: 0, room: MAX_WORDS };
    let mut scope = Scope::default();
    let home = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    scope.set("prefix", home.trim_start_matches("esp:"));
    script.file(path, &mut scope, 0);
    let mut config = LoaderConfig {
        path: path.to_owned(),
        loader: Loader::Grub,
        entries: Vec::new(),
        default: None,
        timeout: match scope.get("timeout") {
            Some(text) => text.trim().parse().ok(),
            None => None,
        },
        // Whoever is no superuser only boots.
        editable: scope.get("superusers").is_none_or(str::is_empty),
    };
    let wanted = scope.get("default").filter(|text| !text.is_empty()).unwrap_or("0").to_owned();
    let chosen = choose(&scope.items, &wanted);
    flatten(&scope.items, "", chosen.as_deref().unwrap_or_default(), &mut config);
    config
}

/// Something that a menu shows.
#[derive(Debug)]
enum Item {
    Entry { id: Option<String>, entry: MenuEntry },
    Submenu { id: Option<String>, title: String, items: Vec<Item> },
}

impl Item {
    fn title(&self) -> &str {
        match self {
            Self::Entry { entry, .. } => &entry.title,
            Self::Submenu { title, .. } => title,
        }
    }

    fn is_called(&self, name: &str) -> bool {
        let (Self::Entry { id, .. } | Self::Submenu { id, .. }) = self;
        id.as_deref() == Some(name) || self.title() == name
    }
}

/// The way to the item that `default` names: number, title or id, for submenus joined by `>`.
fn choose(items: &[Item], wanted: &str) -> Option<Vec<usize>> {
    let by_name = |name: &str| items.iter().position(|item| item.is_called(name));
    let (first, rest) = match by_name(wanted) {
        Some(_) => (wanted, ""),
        None => wanted.split_once('>').unwrap_or((wanted, "")),
    };
    let number = first.trim().parse().ok().filter(|number| *number < items.len());
    // What is not found falls back to the first entry, as in GRUB.
    let place = number.or_else(|| by_name(first)).or(if items.is_empty() { None } else { Some(0) })?;
    let mut way = vec![place];
    if let Item::Submenu { items, .. } = &items[place] {
        way.extend(choose(items, rest)?);
    }
    Some(way)
}

fn flatten(items: &[Item], above: &str, chosen: &[usize], config: &mut LoaderConfig) {
    for (place, item) in items.iter().enumerate() {
        let title =
            if above.is_empty() { item.title().to_owned() } else { format!("{above} > {}", item.title()) };
        let rest = chosen.split_first().filter(|(first, _)| **first == place).map(|(_, rest)| rest);
        match item {
            Item::Entry { entry, .. } => {
                if rest.is_some() {
                    config.default = Some(config.entries.len());
                }
                config.entries.push(MenuEntry { title, ..entry.clone() });
            }
            Item::Submenu { items, .. } => flatten(items, &title, rest.unwrap_or_default(), config),
        }
    }
}

/// Variables and what the menu holds so far.
#[derive(Debug, Clone, Default)]
struct Variables(HashMap<String, String>);

#[derive(Debug, Default)]
struct Scope {
    variables: Variables,
    items: Vec<Item>,
    entry: MenuEntry,
    /// A `configfile` has replaced this menu; what follows is not run.
    done: bool,
}

impl Scope {
    fn get(&self, name: &str) -> Option<&str> {
        self.variables.0.get(name).map(String::as_str)
    }

    fn set(&mut self, name: &str, value: &str) {
        self.variables.0.insert(name.to_owned(), value.to_owned());
    }

    /// A path as a path on the ISO, or with its disk before it where that is another one.
    fn path(&self, word: &str, beside: &str) -> String {
        let (device, path) = match word.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            Some((device, path)) => (device.to_owned(), path),
            None => (self.get("root").unwrap_or_default().trim_matches(['(', ')']).to_owned(), word),
        };
        let elsewhere = ["hd", "fd", "loop", "tftp", "http", "pxe", "lvm"];
        if elsewhere.iter().any(|start| device.starts_with(start)) {
            return format!("({device}){path}");
        }
        absolute(path, beside)
    }
}

/// Whether GRUB sets a variable by what it finds on the machine.
fn by_machine(name: &str) -> bool {
    let starts = ["grub_", "net_", "pxe_", "smbios", "iso_path", "cmdpath", "root"];
    starts.iter().any(|start| name.starts_with(start))
}

struct Script<'r, 'f> {
    reader: &'r mut Reader<'f>,
    steps: usize,
    /// Entries so far.
    count: usize,
    /// Bytes that words may still have.
    room: usize,
}

impl Script<'_, '_> {
    fn file(&mut self, path: &str, scope: &mut Scope, depth: usize) {
        if let Some(text) = self.reader.open(path) {
            self.run(&statements(&text), path, scope, depth);
        }
    }

    /// Runs statements; gives how the last one ended, where that can be told.
    fn run(&mut self, block: &[Statement], path: &str, scope: &mut Scope, depth: usize) -> Option<bool> {
        let mut last = Some(true);
        if depth > MAX_DEPTH {
            return None;
        }
        for statement in block {
            self.steps += 1;
            if scope.done || self.steps > MAX_STEPS {
                return None;
            }
            last = match statement {
                Statement::Command(words, block) => self.command(words, block.as_deref(), path, scope, depth),
                Statement::If(branches, otherwise) => {
                    self.conditional(branches, otherwise, path, scope, depth);
                    None
                }
            };
        }
        last
    }

    fn conditional(
        &mut self,
        branches: &[(Vec<Statement>, Vec<Statement>)],
        otherwise: &[Statement],
        path: &str,
        scope: &mut Scope,
        depth: usize,
    ) {
        for (condition, body) in branches {
            match self.run(condition, path, scope, depth + 1) {
                Some(false) => continue,
                Some(true) => {
                    self.run(body, path, scope, depth + 1);
                    return;
                }
                None => {
                    self.run(body, path, scope, depth + 1);
                }
            }
        }
        self.run(otherwise, path, scope, depth + 1);
    }

    /// A word's text, and whether a machine could make it another one.
    fn expand(&mut self, word: &Word, path: &str, scope: &Scope) -> (String, bool) {
        let (mut text, mut sure, mut whole) = (String::new(), true, true);
        let most = MAX_WORD.min(self.room);
        for part in word {
            let part = match part {
                Part::Text(part) => part,
                Part::Variable(name) if name == "menuentry_id_option" => "--id",
                Part::Variable(name) => match scope.get(name) {
                    Some(value) => value,
                    // Every GRUB of today says so.
                    None if name.starts_with("feature_") => "y",
                    None => {
                        sure &= !by_machine(name);
                        ""
                    }
                },
            };
            whole &= push_within(&mut text, part, most);
        }
        self.room -= text.len();
        if !whole {
            let problem = format!("{path} has words that are too long; they are cut");
            if !self.reader.problems.contains(&problem) {
                self.reader.problems.push(problem);
            }
        }
        (text, sure)
    }

    fn command(
        &mut self,
        words: &[Word],
        block: Option<&[Statement]>,
        path: &str,
        scope: &mut Scope,
        depth: usize,
    ) -> Option<bool> {
        let expanded: Vec<_> = words.iter().map(|word| self.expand(word, path, scope)).collect();
        let sure = expanded.iter().all(|(_, sure)| *sure);
        let text: Vec<&str> = expanded.iter().map(|(text, _)| text.as_str()).collect();
        let (name, arguments) = text.split_first()?;
        match *name {
            "set" => {
                if let Some((variable, value)) = arguments.first().and_then(|text| text.split_once('=')) {
                    scope.set(variable, value);
                }
                Some(true)
            }
            "search" | "search.fs_label" | "search.file" | "search.fs_uuid" => {
                // What it finds is this ISO, or nothing.
                if arguments.iter().any(|word| word.starts_with("--set") || *word == "-s") {
                    scope.variables.0.remove("root");
                }
                None
            }
            "source" | "." => {
                let file = scope.path(arguments.first()?, path);
                let text = self.reader.include(&file, path)?;
                self.run(&statements(&text), &file, scope, depth + 1)
            }
            "configfile" => {
                let file = scope.path(arguments.first()?, path);
                let text = self.reader.include(&file, path)?;
                self.run(&statements(&text), &file, scope, depth + 1);
                scope.done = true;
                Some(true)
            }
            "menuentry" | "submenu" => {
                self.item(arguments, block?, path, scope, depth);
                Some(true)
            }
            "linux" | "linuxefi" | "linux16" | "multiboot" | "multiboot2" | "chainloader" => {
                let (kernel, rest) = arguments.split_first()?;
                scope.entry.kernel = Some(scope.path(kernel, path));
                scope.entry.arguments = rest.join(" ");
                Some(true)
            }
            "initrd" | "initrdefi" | "initrd16" => {
                scope.entry.initrds =
                    arguments.iter().take(MAX_INITRDS).map(|file| scope.path(file, path)).collect();
                Some(true)
            }
            "true" => Some(true),
            "false" => Some(false),
            "[" | "test" if sure => self.test(arguments, path, scope),
            _ => None,
        }
    }

    fn test(&mut self, arguments: &[&str], path: &str, scope: &Scope) -> Option<bool> {
        let arguments = arguments.strip_suffix(&["]"]).unwrap_or(arguments);
        let negations = arguments.iter().take_while(|word| **word == "!").count();
        let result = match arguments[negations..] {
            ["-z", text] => Some(text.is_empty()),
            ["-n", text] => Some(!text.is_empty()),
            [text] => Some(!text.is_empty()),
            [] => Some(false),
            ["-e" | "-f" | "-s", file] => {
                let file = scope.path(file, path);
                if file.starts_with('(') { None } else { Some(self.reader.exists(&file)) }
            }
            [a, "=" | "==", b] => Some(a == b),
            [a, "!=", b] => Some(a != b),
            _ => None,
        };
        result.map(|result| result ^ (negations % 2 == 1))
    }

    fn item(&mut self, arguments: &[&str], block: &[Statement], path: &str, scope: &mut Scope, depth: usize) {
        self.count += 1;
        if self.count > MAX_ENTRIES {
            return;
        }
        let mut title = None;
        let mut id = None;
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match *word {
                "--id" => id = words.next().map(|id| (*id).to_owned()),
                "--class" | "--users" | "--hotkey" | "--source" => drop(words.next()),
                word if word.starts_with("--id=") => id = Some(word["--id=".len()..].to_owned()),
                word if word.starts_with("--") => {}
                word => {
                    title.get_or_insert_with(|| word.to_owned());
                }
            }
        }
        let title = shown(&title.unwrap_or_default());
        let mut inner = Scope { variables: scope.variables.clone(), ..Scope::default() };
        self.run(block, path, &mut inner, depth + 1);
        scope.items.push(if inner.items.is_empty() {
            Item::Entry { id, entry: MenuEntry { title, ..inner.entry } }
        } else {
            Item::Submenu { id, title, items: inner.items }
        });
    }
}
