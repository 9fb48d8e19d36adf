//! A screen of character cells, wherever it was read from.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZero;
use std::ops::Range;

use super::cp437;

/// Bytes of a row in the text mode's memory: 80 cells of a character and its attribute.
const VGA_ROW: usize = 160;
/// Rows of the text mode that every boot loader uses.
const VGA_ROWS: usize = 25;
/// Drawing a screen takes a few kilobytes; what came long before has been drawn over.
const VT100_RECENT: usize = 64 << 10;

/// Colours of a cell as the VGA has them: bits 0 to 3 the foreground, bits 4 to 6 the background (blue 1, green
/// 2, red 4), bit 7 blinking or a bright background.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attribute(pub u8);

impl Attribute {
    /// Light grey on black.
    pub const NORMAL: Self = Self(0x07);

    /// The background, 0 to 7.
    pub fn background(self) -> u8 {
        self.0 >> 4 & 7
    }

    /// The foreground, 0 to 15.
    pub fn foreground(self) -> u8 {
        self.0 & 15
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    character: char,
    attribute: Attribute,
}

/// What a text screen shows: rows of characters with their attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextScreen {
    columns: usize,
    cells: Vec<Cell>,
}

impl TextScreen {
    /// Reads the text mode's memory: the 4,000 bytes at physical 0xb8000, or more of the 32 KiB from there.
    ///
    /// `None` if this is no text: wrong length, or bytes that some other use has left there. Memory that holds
    /// text is no proof that text is shown: in a graphics mode the text of before may still be there, and a
    /// Linux console moves its origin through the 32 KiB as it scrolls. A picture of 720x400 tells that text
    /// is shown, and [`FontReader`](super::FontReader) which.
    pub fn from_vga(memory: &[u8]) -> Option<Self> {
        let rows = memory.len() / VGA_ROW;
        if rows < VGA_ROWS {
            return None;
        }
        let table = cp437::table();
        let (cells, _) = memory[..rows * VGA_ROW].as_chunks::<2>();
        if !looks_like_text(cells) {
            return None;
        }
        let cells = cells
            .iter()
            .map(|&[code, colours]| Cell {
                character: table[usize::from(code)],
                attribute: Attribute(colours),
            })
            .collect();
        Some(Self { columns: VGA_ROW / 2, cells })
    }

    /// What a terminal shows that has received these bytes, of which the last 64 KiB count: a boot loader or
    /// a firmware on a serial port. The size is 80x25, or the 100x31 of EDK II where the bytes draw beyond that.
    pub fn from_vt100(bytes: &[u8]) -> Self {
        let bytes = &bytes[bytes.len().saturating_sub(VT100_RECENT)..];
        let (rows, columns) = if draws_beyond_80_columns(bytes) { (31, 100) } else { (25, 80) };
        let mut parser = vt100::Parser::new(at_least_one(rows), at_least_one(columns), 0);
        parser.process(bytes);
        let screen = parser.screen();
        let cells = (0..rows)
            .flat_map(|row| (0..columns).map(move |column| (row, column)))
            .map(|(row, column)| {
                let cell = screen.cell(row, column);
                let character = cell.and_then(|cell| cell.contents().chars().next()).unwrap_or(' ');
                Cell { character, attribute: cell.map_or(Attribute::NORMAL, attribute) }
            })
            .collect();
        Self { columns: columns.into(), cells }
    }

    /// A screen of these characters, all [`Attribute::NORMAL`]; shorter rows are filled with spaces.
    pub(super) fn from_rows(rows: &[Vec<char>]) -> Self {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = rows
            .iter()
            .flat_map(|row| row.iter().copied().chain(std::iter::repeat(' ')).take(columns))
            .map(|character| Cell { character, attribute: Attribute::NORMAL })
            .collect();
        Self { columns, cells }
    }

    /// Cells in a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The rows from top to bottom, without spaces at their right ends.
    pub fn rows(&self) -> impl Iterator<Item = String> {
        (0..self.height()).map(|row| self.part(row, 0..self.columns).trim_end().to_owned())
    }

    /// All rows, a line each.
    pub fn text(&self) -> String {
        self.rows().map(|row| row + "\n").collect()
    }

    /// A copy without the rows that read the same on `other`.
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        let columns = self.columns.max(1);
        for (cells, others) in rest.cells.chunks_mut(columns).zip(other.cells.chunks(columns)) {
            let characters = |cell: &Cell| cell.character;
            if cells.iter().map(characters).eq(others.iter().map(characters)) {
                cells.fill(Cell { character: ' ', attribute: Attribute::NORMAL });
            }
        }
        rest
    }

    /// Whether a box with text is drawn on it, as dialogs are.
    pub fn shows_dialog(&self) -> bool {
        let cells = (0..self.height()).flat_map(|row| (0..self.columns).map(move |column| (row, column)));
        let mut corners = cells.filter(|(row, column)| "┌╔".contains(self.character(*row, *column)));
        corners.any(|(top, column)| {
            let walls = (top + 1..self.height())
                .take_while(|row| "│║├╠┤".contains(self.character(*row, column)))
                .count();
            let bottom = top + 1 + walls;
            walls >= 3 && bottom < self.height() && "└╚".contains(self.character(bottom, column))
        })
    }

    /// Whether a row contains these words.
    pub fn contains(&self, words: &str) -> bool {
        self.find(words).is_some()
    }

    /// The first row that contains these words, counted from 0.
    pub fn find(&self, words: &str) -> Option<usize> {
        self.rows().position(|row| row.contains(words))
    }

    /// The attribute of a cell; `None` outside the screen.
    pub fn attribute(&self, row: usize, column: usize) -> Option<Attribute> {
        self.cell(row, column).map(|cell| cell.attribute)
    }

    /// Whether nothing is to be read.
    pub fn is_blank(&self) -> bool {
        self.cells.iter().all(|cell| cell.character.is_whitespace())
    }

    /// A number for the characters, whatever their colours: the same for the same text, within this process.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.columns.hash(&mut hasher);
        self.cells.iter().for_each(|cell| cell.character.hash(&mut hasher));
        hasher.finish()
    }

    /// How many rows there are.
    pub(super) fn height(&self) -> usize {
        self.cells.len().checked_div(self.columns).unwrap_or(0)
    }

    /// The character of a cell; a space outside the screen.
    pub(super) fn character(&self, row: usize, column: usize) -> char {
        self.cell(row, column).map_or(' ', |cell| cell.character)
    }

    /// The characters of a part of a row, spaces included.
    pub(super) fn part(&self, row: usize, columns: Range<usize>) -> String {
        columns.map(|column| self.character(row, column)).collect()
    }

    /// The last row with something on it.
    pub(super) fn last_row(&self) -> Option<usize> {
        let last = self.cells.iter().rposition(|cell| !cell.character.is_whitespace())?;
        Some(last / self.columns)
    }

    /// The line that starts on `row`, joined with the rows on which it goes on because it did not fit; and
    /// the row after it. A row that is full, or full but for one space, goes on.
    pub(super) fn wrapped_line(&self, row: usize) -> (String, usize) {
        let mut line = String::new();
        for next in row..self.height() {
            let part = self.part(next, 0..self.columns);
            let full = part.trim_end().chars().count() + 1 >= self.columns;
            line.push_str(&part);
            if !full {
                return (line.trim_end().to_owned(), next + 1);
            }
        }
        (line.trim_end().to_owned(), self.height())
    }

    fn cell(&self, row: usize, column: usize) -> Option<&Cell> {
        (column < self.columns).then(|| self.cells.get(row * self.columns + column)).flatten()
    }
}

/// Whether these codes and attributes were written as text. Text is mostly ASCII, spaces and lines, in a few
/// colours; of random bytes hardly more than half are such codes, and their attributes are all different.
fn looks_like_text(cells: &[[u8; 2]]) -> bool {
    let ordinary =
        cells.iter().filter(|cell| matches!(cell[0], 0 | 0x18..=0x1b | b' '..=b'~' | 0xb0..=0xdf)).count();
    let mut attributes = [false; 256];
    cells.iter().for_each(|cell| attributes[usize::from(cell[1])] = true);
    let colours = attributes.iter().filter(|seen| **seen).count();
    ordinary * 10 >= cells.len() * 8 && colours <= 32
}

/// Whether something is drawn outside 80x25 by bytes that place the cursor (`ESC [ row ; column H`). Lines
/// that only flow, as a kernel's log does, say nothing about the size of the screen.
fn draws_beyond_80_columns(bytes: &[u8]) -> bool {
    let mut column = None;
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            0x1b if rest.first() == Some(&b'[') => {
                let length = rest[1..].iter().position(|byte| matches!(byte, 0x40..=0x7e));
                let Some(length) = length else { return false };
                let (sequence, after) = rest[1..].split_at(length + 1);
                rest = after;
                if sequence.ends_with(b"H") {
                    let place = String::from_utf8_lossy(&sequence[..length]);
                    let mut numbers = place.split(';').map(|number| number.parse::<usize>().unwrap_or(1));
                    let (row, at) = (numbers.next().unwrap_or(1), numbers.next().unwrap_or(1));
                    if row > 25 || at > 80 {
                        return true;
                    }
                    column = Some(at);
                }
            }
            b'\r' | b'\n' => column = None,
            // Bytes inside a UTF-8 character take no column of their own.
            0x20..=0x7f | 0xc0.. => {
                column = column.map(|column| column + 1);
                if column > Some(81) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// A size that is not zero.
fn at_least_one(size: u16) -> NonZero<u16> {
    NonZero::new(size).unwrap_or(NonZero::<u16>::MIN)
}

/// A terminal's colours as the VGA has them.
fn attribute(cell: &vt100::Cell) -> Attribute {
    // The terminal counts red 1, green 2, blue 4; the VGA blue 1, green 2, red 4.
    let colour = |colour: vt100::Color, default: u8| match colour {
        vt100::Color::Idx(index @ 0..16) => index & 0b1010 | (index & 1) << 2 | (index & 4) >> 2,
        _ => default,
    };
    let (mut front, mut back) = (colour(cell.fgcolor(), 7), colour(cell.bgcolor(), 0));
    if cell.inverse() {
        (front, back) = (back, front);
    }
    Attribute((back & 7) << 4 | front)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::boot::screen::fixtures;

    #[test]
    fn reads_characters_lines_and_colours() {
        let screen = fixtures::vga("isolinux-waiting");
        let rows: Vec<_> = screen.rows().collect();
        assert_eq!(rows.len(), 25);
        assert_eq!(rows[15], format!("          └{}┘", "─".repeat(58)));
        assert_eq!(rows[17], "                          Press [Tab] to edit options");
        assert_eq!(screen.find("fail-safe"), Some(4));
        assert!(screen.contains("Example Live") && !screen.contains("example live"));
        assert_eq!(screen.attribute(4, 20), Some(Attribute(0x70)));
        assert_eq!(screen.attribute(3, 20), Some(Attribute(0x17)));
        assert_eq!((screen.attribute(25, 0), screen.attribute(0, 80)), (None, None));
        assert!(!screen.is_blank());
    }

    #[test]
    fn the_fingerprint_is_of_the_text_alone() {
        let mut memory = fixtures::bytes("isolinux-waiting.vga");
        let screen = fixtures::vga("isolinux-waiting");
        memory[2 * 80 * 4 + 41] ^= 0x07;
        let recoloured = TextScreen::from_vga(&memory).expect("text");
        assert_ne!(recoloured, screen);
        assert_eq!(recoloured.fingerprint(), screen.fingerprint());
        assert_ne!(fixtures::vga("isolinux-countdown").fingerprint(), screen.fingerprint());
    }

    #[test]
    fn all_of_the_text_memory_is_read_where_a_console_has_moved_its_origin() {
        let memory = fixtures::bytes("panic.vga");
        let words = "Kernel panic - not syncing: VFS: Unable to mount root fs";
        assert!(TextScreen::from_vga(&memory).expect("text").contains(words));
        assert!(!TextScreen::from_vga(&memory[..4000]).expect("text").contains(words));
    }

    #[test]
    fn what_is_no_text_is_not_read_as_text() {
        assert_eq!(TextScreen::from_vga(&[0xff; 4000]), None, "a graphics mode");
        assert_eq!(TextScreen::from_vga(&[b' '; 3999]), None, "too short");
        let noise: Vec<u8> = (0..4000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert_eq!(TextScreen::from_vga(&noise), None, "noise");
        assert!(TextScreen::from_vga(&[0; 4000]).is_some_and(|screen| screen.is_blank()));
        assert!(TextScreen::from_vga(&[b' ', 7].repeat(2000)).is_some_and(|screen| screen.is_blank()));
    }

    #[test]
    fn a_long_line_goes_on_below() {
        let (line, next) = fixtures::vga("isolinux-edit-typed").wrapped_line(17);
        assert_eq!(
            line,
            "> .linux /live/vmlinuz boot=live components quiet splash locales=de_DE.UTF-8 keyboard-layouts=de \
             timezone=Europe/Vienna findiso= initrd=/live/initrd.img console=ttyS0"
        );
        assert_eq!(next, 20);
    }

    #[test]
    fn a_terminal_shows_what_was_drawn_last() {
        let screen = TextScreen::from_vt100(b"\x1b[2Jold\x1b[H\x1b[2J\x1b[2;3H\x1b[7mnew\x1b[m text\r\nline");
        assert_eq!(screen.rows().take(4).collect::<Vec<_>>(), ["", "  new text", "line", ""]);
        assert_eq!(screen.attribute(1, 2), Some(Attribute(0x70)));
        assert_eq!(TextScreen::from_vt100(b"\x1b[34;41mx").attribute(0, 0), Some(Attribute(0x41)));
        assert_eq!(screen.columns(), 80);
        assert_eq!(fixtures::serial("systemd-boot-countdown").columns(), 100);
        assert_eq!(fixtures::serial("grub-serial-edit").columns(), 80);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            if let Some(screen) = TextScreen::from_vga(&bytes) {
                prop_assert_eq!(screen.rows().count(), bytes.len() / 160);
            }
            let screen = TextScreen::from_vt100(&bytes);
            prop_assert!(screen.rows().all(|row| row.chars().count() <= screen.columns()));
        }

        #[test]
        fn written_text_is_read_back(lines in prop::collection::vec("[ -~]{0,80}", 25)) {
            let mut memory = [b' ', 7].repeat(2000);
            for (row, line) in lines.iter().enumerate() {
                line.bytes().enumerate().for_each(|(column, byte)| memory[row * 160 + column * 2] = byte);
            }
            let screen = TextScreen::from_vga(&memory).expect("text");
            let read: Vec<_> = screen.rows().collect();
            let written: Vec<_> = lines.iter().map(|line| line.trim_end()).collect();
            prop_assert_eq!(read, written);
        }
    }
}
