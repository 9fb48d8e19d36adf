//! The menu of isolinux and its relatives (`menu.c32`), its editor, and the prompt `boot:`.

use super::{BootMenu, Loader, MenuState, Outline, countdown};
use crate::boot::screen::TextScreen;

pub(super) fn read(screen: &TextScreen) -> Option<BootMenu> {
    if let Some(line) = prompt(screen) {
        return Some(BootMenu::prompt(Loader::Isolinux, &line));
    }
    let frame = Outline::find(screen)?;
    // A title and a line across the frame set this menu apart from other frames.
    let across = frame.rows.clone().find(|row| screen.character(*row, frame.columns.start - 1) == '├')?;
    let rows: Vec<usize> = (across + 1..frame.rows.end)
        .filter(|row| !screen.part(*row, frame.columns.clone()).trim().is_empty())
        .collect();
    let entries: Vec<String> =
        rows.iter().map(|row| screen.part(*row, frame.columns.clone()).trim().to_owned()).collect();
    if entries.is_empty() {
        return None;
    }
    let below = frame.rows.end + 1..screen.height();
    let menu = BootMenu {
        loader: Loader::Isolinux,
        entries,
        selected: selected(screen, &frame, &rows),
        countdown: None,
        state: MenuState::Menu,
    };
    let edit = below.clone().find(|row| screen.part(*row, 0..2) == "> ");
    Some(match edit {
        Some(row) => {
            let (line, _) = screen.wrapped_line(row);
            BootMenu {
                state: MenuState::Editing { line: line["> ".len().min(line.len())..].to_owned() },
                ..menu
            }
        }
        None => BootMenu { countdown: countdown(screen, below), ..menu },
    })
}

/// Which of these rows is the bar: the one whose background differs from that of the most rows in the frame.
fn selected(screen: &TextScreen, frame: &Outline, rows: &[usize]) -> Option<usize> {
    let background = |row: usize| screen.attribute(row, frame.columns.start).map(|it| it.background());
    let mut counts = [0_usize; 8];
    frame.rows.clone().filter_map(background).for_each(|colour| counts[usize::from(colour)] += 1);
    let usual = (0..8).max_by_key(|colour| counts[usize::from(*colour)])?;
    let mut bars = (0..rows.len()).filter(|at| background(rows[*at]) != Some(usual));
    bars.next().filter(|_| bars.next().is_none())
}

/// What stands after `boot:` on the screen's last line.
fn prompt(screen: &TextScreen) -> Option<String> {
    let last = screen.last_row()?;
    let row = (0..=last).rev().find(|row| screen.part(*row, 0..5) == "boot:")?;
    let width = screen.columns();
    let (line, after) = screen.wrapped_line(row);
    if after > last {
        return Some(line["boot:".len()..].trim().to_owned());
    }
    // isolinux 6 ends its line after every `width` characters typed, whatever the prompt before them and
    // the screen's own wrapping have done: the rest of the first row's on the next, then every second row.
    let overhang = "boot: ".len();
    let mut rows = vec![(row, overhang..width), (row + 1, 0..overhang)];
    rows.extend((row + 2..=last).step_by(2).map(|row| (row, 0..width)));
    let full = |(row, columns): &(usize, std::ops::Range<usize>)| {
        screen.part(*row, columns.clone()).trim_end().chars().count() + 1 >= columns.len()
    };
    let nothing_else = (row + 1..=last).all(|at| {
        let typed = rows.iter().find(|(row, _)| *row == at).map_or(0, |(_, columns)| columns.end);
        screen.part(at, typed..width).trim().is_empty()
    });
    let (_, before_last) = rows.split_last()?;
    let line: String = rows.iter().map(|(row, columns)| screen.part(*row, columns.clone())).collect();
    (nothing_else && before_last.iter().all(full)).then(|| line.trim().to_owned())
}
