//! Recognising a boot menu by its looks.

mod grub;
mod isolinux;
mod systemd_boot;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use super::TextScreen;

/// A boot loader that draws menus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    /// isolinux, syslinux, extlinux or pxelinux: `menu.c32`, or the plain prompt `boot:`.
    Isolinux,
    /// GRUB 2, in text mode or on a serial port.
    Grub,
    /// systemd-boot, as the firmware draws it on a serial port.
    SystemdBoot,
}

impl fmt::Display for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Isolinux => "isolinux",
            Self::Grub => "GRUB",
            Self::SystemdBoot => "systemd-boot",
        })
    }
}

/// What a boot loader waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MenuState {
    /// For a choice among the entries.
    Menu,
    /// An entry is open for editing.
    Editing {
        /// The text as far as it is on the screen, its wrapped lines joined; GRUB's lines end with `\n`.
        line: String,
    },
    /// For a command.
    Prompt {
        /// What was typed after the prompt, without spaces at the end.
        line: String,
    },
}

/// A boot menu, or a boot loader's prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootMenu {
    /// Who draws it.
    pub loader: Loader,
    /// The names of the entries that are on the screen, from top to bottom.
    pub entries: Vec<String>,
    /// Which of them would be started.
    pub selected: Option<usize>,
    /// Seconds until that happens by itself; `None` if the menu waits for ever.
    pub countdown: Option<u32>,
    /// What it waits for.
    pub state: MenuState,
}

impl BootMenu {
    /// Recognises the boot menu on a screen; `None` if there is none, or it is not drawn to its end yet.
    pub fn read(screen: &TextScreen) -> Option<Self> {
        let is_grub = screen.rows().any(|row| row.contains(grub::TITLE));
        let others = || isolinux::read(screen).or_else(|| systemd_boot::read(screen));
        grub::read(screen).or_else(|| others().filter(|_| !is_grub))
    }

    fn prompt(loader: Loader, line: &str) -> Self {
        let state = MenuState::Prompt { line: line.to_owned() };
        Self { loader, entries: Vec::new(), selected: None, countdown: None, state }
    }
}

/// A drawn frame around text.
struct Outline {
    /// The rows inside, without the borders.
    rows: Range<usize>,
    /// The columns inside.
    columns: Range<usize>,
}

impl Outline {
    /// The first frame on the screen: between corners, of lines or of `+`, `-` and `|`. Of its walls, most must
    /// stand: GRUB and the firmware may both draw on the same serial port, for screens of different sizes.
    fn find(screen: &TextScreen) -> Option<Self> {
        let (top, left, right) = (0..screen.height()).find_map(|row| {
            let (left, right) = edge(screen, row, "┌+", "┐+")?;
            Some((row, left, right))
        })?;
        let bottom =
            (top + 1..screen.height()).find(|row| edge(screen, *row, "└+", "┘+") == Some((left, right)))?;
        let outline = Self { rows: top + 1..bottom, columns: left + 1..right };
        let walls = outline.rows.clone().filter(|row| outline.has_wall(screen, *row)).count();
        (walls * 4 >= outline.rows.len() * 3).then_some(outline)
    }

    /// Whether the frame's left wall is seen in this row.
    fn has_wall(&self, screen: &TextScreen, row: usize) -> bool {
        "│├|+".contains(screen.character(row, self.columns.start - 1))
    }
}

/// The first and last column of a row that holds nothing but a horizontal line between two corners.
fn edge(screen: &TextScreen, row: usize, left: &str, right: &str) -> Option<(usize, usize)> {
    let text = screen.part(row, 0..screen.columns());
    let line = text.trim();
    let inner = line.strip_prefix(|first| left.contains(first))?.strip_suffix(|last| right.contains(last))?;
    let start = text.chars().take_while(|character| character.is_whitespace()).count();
    let width = inner.chars().count();
    (width >= 10 && inner.chars().all(|character| "─-".contains(character)))
        .then_some((start, start + width + 1))
}

/// The seconds that a line counts, in any language: its only number, followed by a word that begins with s
/// ("in 5s", "in 60 seconds", "in 60 Sekunden").
fn seconds(line: &str) -> Option<u32> {
    let mut numbers = line.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let digits = numbers.next().filter(|_| numbers.next().is_none())?;
    let (before, after) = line.split_once(digits)?;
    let alone = !before.ends_with(char::is_alphanumeric);
    (alone && after.trim_start().starts_with(['s', 'S'])).then(|| digits.parse().ok()).flatten()
}

/// The first line that counts seconds among these rows.
fn countdown(screen: &TextScreen, rows: Range<usize>) -> Option<u32> {
    rows.map(|row| screen.part(row, 0..screen.columns())).find_map(|line| seconds(&line))
}
