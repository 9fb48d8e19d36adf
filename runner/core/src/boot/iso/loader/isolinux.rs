//! isolinux and its menus: as in SYSLINUX' documentation, `syslinux.txt` and `menu.txt`.

use super::{Loader, LoaderConfig, MAX_DEPTH, MAX_ENTRIES, MAX_INITRDS, MenuEntry, Reader, absolute, shown};

pub(super) fn parse(path: &str, reader: &mut Reader<'_>) -> LoaderConfig {
    let mut menu = Menu { home: path.to_owned(), ..Menu::default() };
    if let Some(text) = reader.open(path) {
        menu.read(&text, path, reader, 0);
    }
    menu.finish()
}

/// What was read so far.
#[derive(Debug, Default)]
struct Menu {
    /// The first configuration; relative paths lie beside it, wherever they are written.
    home: String,
    labels: Vec<Label>,
    /// Label that `menu default` stands under.
    marked: Option<usize>,
    /// Name that `default` gives.
    default: Option<String>,
    /// Name that `ontimeout` gives.
    on_timeout: Option<String>,
    /// A program that shows a menu, where `ui` or `default` names one.
    has_menu: bool,
    /// Tenths of a second; 0 waits for ever.
    timeout: u32,
    prompt: bool,
    /// `allowoptions` is 0.
    is_locked: bool,
    /// Arguments for labels without their own.
    append: String,
    /// Titles of the menus that are open.
    titles: Vec<String>,
    /// No label has come since the last of them was opened: `menu label` is the menu's own.
    menu_is_new: bool,
    in_help: bool,
}

#[derive(Debug, Default)]
struct Label {
    name: String,
    entry: MenuEntry,
    append: Option<String>,
    /// Titles of the menus above it.
    above: Vec<String>,
    hidden: bool,
}

impl MenuEntry {
    /// Adds the initrds of a list with commas, as far as an entry can have them.
    fn add_initrds(&mut self, list: &str, home: &str) {
        let paths = list.split(',').filter(|path| !path.is_empty());
        let room = MAX_INITRDS.saturating_sub(self.initrds.len());
        self.initrds.extend(paths.take(room).map(|path| absolute(path.trim(), home)));
    }
}

impl Menu {
    fn read(&mut self, text: &str, path: &str, reader: &mut Reader<'_>, depth: usize) {
        for line in text.lines() {
            let (keyword, rest) = split(line);
            match keyword.as_str() {
                "endtext" => self.in_help = false,
                _ if self.in_help => {}
                "text" => self.in_help = true,
                "include" => self.include(rest, path, reader, depth),
                "label" if self.labels.len() < MAX_ENTRIES => {
                    let entry = MenuEntry { title: shown(rest), ..MenuEntry::default() };
                    let above = self.titles.clone();
                    self.menu_is_new = false;
                    self.labels.push(Label { name: rest.to_owned(), entry, above, ..Label::default() });
                }
                "kernel" | "linux" | "com32" | "boot" | "bss" | "fdimage" => {
                    let kernel = absolute(first_word(rest), &self.home);
                    if let Some(label) = self.labels.last_mut() {
                        label.entry.kernel = Some(kernel);
                    }
                }
                "initrd" => self.add_initrds(rest),
                "append" => match self.labels.last_mut() {
                    Some(label) => label.append = Some(rest.to_owned()),
                    None => self.append = rest.to_owned(),
                },
                "default" if is_menu(rest) => self.has_menu = true,
                "default" => self.default = Some(rest.to_owned()),
                "ui" => self.has_menu = true,
                "ontimeout" => self.on_timeout = Some(rest.to_owned()),
                "timeout" => self.timeout = first_word(rest).parse().unwrap_or(0),
                "allowoptions" => self.is_locked = first_word(rest) == "0",
                "prompt" => self.prompt = first_word(rest) != "0",
                "menu" => self.menu(rest, path, reader, depth),
                _ => {}
            }
        }
    }

    fn menu(&mut self, text: &str, path: &str, reader: &mut Reader<'_>, depth: usize) {
        let (keyword, rest) = split(text);
        match keyword.as_str() {
            "include" => self.include(rest, path, reader, depth),
            "begin" if self.titles.len() < MAX_DEPTH => {
                self.titles.push(shown(rest));
                self.menu_is_new = true;
            }
            "end" => drop(self.titles.pop()),
            "title" => self.rename_menu(rest),
            "label" if self.menu_is_new => self.rename_menu(rest),
            "default" => self.marked = self.labels.len().checked_sub(1),
            "hide" => {
                if let Some(label) = self.labels.last_mut() {
                    label.hidden = true;
                }
            }
            "label" => {
                if let Some(label) = self.labels.last_mut() {
                    label.entry.title = plain(rest);
                }
            }
            _ => {}
        }
    }

    fn rename_menu(&mut self, title: &str) {
        if let Some(last) = self.titles.last_mut() {
            *last = plain(title);
        }
    }

    fn include(&mut self, rest: &str, from: &str, reader: &mut Reader<'_>, depth: usize) {
        let file = absolute(first_word(rest), &self.home);
        if depth < MAX_DEPTH
            && let Some(text) = reader.include(&file, from)
        {
            self.read(&text, &file, reader, depth + 1);
        }
    }

    fn add_initrds(&mut self, list: &str) {
        if let Some(label) = self.labels.last_mut() {
            label.entry.add_initrds(list, &self.home);
        }
    }

    fn finish(mut self) -> LoaderConfig {
        for label in &mut self.labels {
            let append = match label.append.as_deref() {
                Some("-") => "",
                Some(own) => own,
                None => &self.append,
            };
            let (initrds, arguments): (Vec<&str>, Vec<&str>) =
                append.split_whitespace().partition(|word| word.starts_with("initrd="));
            for word in initrds {
                label.entry.add_initrds(&word["initrd=".len()..], &self.home);
            }
            label.entry.arguments = arguments.join(" ");
            let mut titles = std::mem::take(&mut label.above);
            titles.push(std::mem::take(&mut label.entry.title));
            label.entry.title = titles.join(" > ");
        }
        let named = |name: &Option<String>| {
            // Arguments may follow the label's name.
            let name = name.as_ref().map(|name| first_word(name).to_owned())?;
            self.labels.iter().position(|label| label.name.eq_ignore_ascii_case(&name))
        };
        let shown = self.labels.iter().position(|label| !label.hidden);
        let first = if self.has_menu { shown } else { None };
        let default = named(&self.on_timeout).or(self.marked).or_else(|| named(&self.default)).or(first);
        let at_once = !self.has_menu && !self.prompt && default.is_some();
        LoaderConfig {
            path: self.home,
            loader: Loader::Isolinux,
            default,
            timeout: if at_once { Some(0) } else { Some(self.timeout.div_ceil(10)).filter(|t| *t > 0) },
            entries: self.labels.into_iter().map(|label| label.entry).collect(),
            editable: !self.is_locked,
        }
    }
}

/// A line's keyword in lower case, and the rest of the line.
fn split(line: &str) -> (String, &str) {
    let line = line.trim();
    let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (keyword.to_ascii_lowercase(), rest.trim())
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// Whether `default` names a menu program rather than a label.
fn is_menu(default: &str) -> bool {
    first_word(default).rsplit('/').next().is_some_and(|name| matches!(name, "menu.c32" | "vesamenu.c32"))
}

/// A title without the mark of its hot key.
fn plain(title: &str) -> String {
    shown(&title.replacen('^', "", 1))
}
