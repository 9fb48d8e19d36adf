//! systemd-boot's menu: nothing but names, one below the other, and one of them inverse.

use std::ops::Range;

use super::{BootMenu, Loader, MenuState, countdown};
use crate::boot::screen::TextScreen;

/// Cells with this background are inverse.
const INVERSE: u8 = 7;

pub(super) fn read(screen: &TextScreen) -> Option<BootMenu> {
    let mut bars = (0..screen.height()).filter_map(|row| Some((row, bar(screen, row)?)));
    let (bar, columns) = bars.next()?;
    // The names stand in the middle; a status line or a selection starts at the edge.
    if columns.start < 2 || columns.end + 2 > screen.columns() {
        return None;
    }
    let is_entry = |row: &usize| {
        let inside = screen.part(*row, columns.clone());
        let whole = screen.part(*row, 0..screen.columns());
        !inside.trim().is_empty() && inside.trim() == whole.trim()
    };
    let above = (0..bar).rev().take_while(is_entry).count();
    let below = (bar + 1..screen.height()).take_while(is_entry).count();
    let rows = bar - above..bar + 1 + below;
    let entries: Vec<String> =
        rows.clone().map(|row| screen.part(row, columns.clone()).trim().to_owned()).collect();
    let seconds = countdown(screen, rows.end..screen.height());
    let edit = bars.next().map(|(row, _)| row);
    // In a list, only one row is inverse; a dialog is so as a whole.
    if edit.is_some_and(|row| rows.contains(&row))
        || entries.len() < 2 && seconds.is_none()
        || entries.iter().any(String::is_empty)
    {
        return None;
    }
    let edit = edit.map(|row| screen.part(row, 0..screen.columns()).trim().to_owned());
    Some(BootMenu {
        loader: Loader::SystemdBoot,
        entries,
        selected: Some(above),
        countdown: seconds,
        state: edit.map_or(MenuState::Menu, |line| MenuState::Editing { line }),
    })
}

/// The columns of a row that are inverse, if they are one run; the editor's cursor may be a gap in it.
fn bar(screen: &TextScreen, row: usize) -> Option<Range<usize>> {
    let inverse =
        |column: &usize| screen.attribute(row, *column).is_some_and(|it| it.background() == INVERSE);
    let start = (0..screen.columns()).find(inverse)?;
    let end = (start..screen.columns()).rfind(inverse)? + 1;
    let gaps = (start..end).filter(|column| !inverse(column)).count();
    (end - start >= 4 && gaps <= 1).then_some(start..end)
}
