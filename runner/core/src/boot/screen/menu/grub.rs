//! GRUB 2's menu, editor and prompts.

use super::{BootMenu, Loader, MenuState, Outline, countdown};
use crate::boot::screen::TextScreen;

/// What stands above the menu and the editor.
pub(super) const TITLE: &str = "GNU GRUB";
/// The prompts, the longer one of the rescue shell too.
const PROMPTS: [&str; 2] = ["grub>", "grub rescue>"];

pub(super) fn read(screen: &TextScreen) -> Option<BootMenu> {
    if let Some(line) = prompt(screen) {
        return Some(BootMenu::prompt(Loader::Grub, &line));
    }
    let frame = Outline::find(screen)?;
    let title = (0..frame.rows.start).any(|row| screen.part(row, 0..screen.columns()).contains(TITLE));
    if !title {
        return None;
    }
    // The first column inside is the mark's; the last one shows where an editor's line goes on.
    let mark = frame.columns.start;
    let filled: Vec<usize> = frame
        .rows
        .clone()
        .filter(|row| !screen.part(*row, frame.columns.clone()).trim().is_empty())
        .filter(|row| frame.has_wall(screen, *row))
        .collect();
    let Some(selected) = filled.iter().position(|row| screen.character(*row, mark) == '*') else {
        let line = edited(screen, &frame)?;
        let state = MenuState::Editing { line };
        return Some(BootMenu {
            loader: Loader::Grub,
            entries: Vec::new(),
            selected: None,
            countdown: None,
            state,
        });
    };
    let entry = |row: &usize| screen.part(*row, mark + 1..frame.columns.end).trim().to_owned();
    Some(BootMenu {
        loader: Loader::Grub,
        entries: filled.iter().map(entry).collect(),
        selected: Some(selected),
        countdown: countdown(screen, frame.rows.end + 1..screen.height()),
        state: MenuState::Menu,
    })
}

/// What stands after a prompt on the screen's last line.
fn prompt(screen: &TextScreen) -> Option<String> {
    let last = screen.last_row()?;
    let (line, after) = (0..=last)
        .rev()
        .filter(|row| PROMPTS.iter().any(|prompt| screen.part(*row, 0..prompt.len()) == *prompt))
        .map(|row| screen.wrapped_line(row))
        .next()?;
    let typed = PROMPTS.iter().find_map(|prompt| line.strip_prefix(prompt))?;
    (after > last).then(|| typed.trim().to_owned())
}

/// The editor's lines; one that goes on in the next row ends with a backslash in the last column.
fn edited(screen: &TextScreen, frame: &Outline) -> Option<String> {
    let mut text = String::new();
    for row in frame.rows.clone() {
        let part = screen.part(row, frame.columns.clone());
        match part.strip_suffix('\\') {
            Some(part) => text.push_str(part),
            None => text.extend([part.trim_end(), "\n"]),
        }
    }
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}
