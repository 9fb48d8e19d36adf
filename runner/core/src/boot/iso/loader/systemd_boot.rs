//! systemd-boot: `loader/loader.conf` and the entries of the Boot Loader Specification.

use super::{Loader, LoaderConfig, MAX_ENTRIES, MAX_INITRDS, MenuEntry, shown, text_of};
use crate::boot::iso::files::Files;

/// Reads the menu, if there is one; `prefix` marks its paths.
pub(super) fn read(files: &mut impl Files, prefix: &str, problems: &mut Vec<String>) -> Option<LoaderConfig> {
    let mut names: Vec<String> = match files.list_at("/loader/entries") {
        Ok(entries) => entries.into_iter().map(|entry| entry.name).collect(),
        Err(error) => {
            problems.push(format!("{prefix}/loader/entries cannot be read: {error}"));
            return None;
        }
    };
    names.retain(|name| name.ends_with(".conf"));
    names.sort();
    names.truncate(MAX_ENTRIES);
    if names.is_empty() {
        return None;
    }
    let mut config = LoaderConfig {
        path: format!("{prefix}/loader/loader.conf"),
        loader: Loader::SystemdBoot,
        entries: Vec::new(),
        default: Some(0),
        // Without a timeout the default entry boots at once.
        timeout: Some(0),
        editable: true,
    };
    for name in &names {
        let text = text_of(files, &format!("/loader/entries/{name}")).unwrap_or_default();
        config.entries.push(entry(name, &text));
    }
    let settings = text_of(files, "/loader/loader.conf").unwrap_or_default();
    for (key, value) in pairs(&settings) {
        match key {
            "timeout" => {
                config.timeout = if value == "menu-force" { None } else { Some(value.parse().unwrap_or(0)) };
            }
            "editor" => config.editable = !matches!(value, "no" | "false" | "off" | "0" | "n" | "f"),
            "default" => {
                let fits = |name: &String| match value.split_once('*') {
                    Some((start, end)) => name.starts_with(start) && name.ends_with(end),
                    None => name == value || name.strip_suffix(".conf") == Some(value),
                };
                config.default = names.iter().position(fits).or(config.default);
            }
            _ => {}
        }
    }
    Some(config)
}

fn entry(name: &str, text: &str) -> MenuEntry {
    let mut entry = MenuEntry { title: name.to_owned(), ..MenuEntry::default() };
    for (key, value) in pairs(text) {
        match key {
            "title" => entry.title = shown(value),
            "linux" | "efi" => entry.kernel = Some(value.to_owned()),
            "initrd" if entry.initrds.len() < MAX_INITRDS => entry.initrds.push(value.to_owned()),
            "options" if entry.arguments.is_empty() => entry.arguments = value.to_owned(),
            "options" => {
                entry.arguments.push(' ');
                entry.arguments.push_str(value);
            }
            _ => {}
        }
    }
    entry
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines()
        .filter_map(|line| line.trim().split_once(char::is_whitespace))
        .map(|(key, value)| (key, value.trim()))
}
