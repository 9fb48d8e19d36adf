//! Reading the text of a picture exactly, where it is drawn with the PC's own font.

mod linux;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use super::{Frame, TextScreen, cp437};

/// Rows of a glyph, a byte each, its highest bit the leftmost pixel.
const ROWS: usize = 16;
/// Bytes of a font of 256 glyphs.
const FONT: usize = 256 * ROWS;
/// Ink is at least this much brighter or darker than the paper, of 255.
const CONTRAST: u8 = 24;
/// So many letters in a row, each exactly at its place, are no accident.
const WORD: usize = 4;
/// The glyphs by which a font is found: they are the same in every VGA BIOS.
const KNOWN: [(u8, [u8; ROWS]); 3] = [
    (b'A', [0, 0, 0x10, 0x38, 0x6c, 0xc6, 0xc6, 0xfe, 0xc6, 0xc6, 0xc6, 0xc6, 0, 0, 0, 0]),
    (b'H', [0, 0, 0xc6, 0xc6, 0xc6, 0xc6, 0xfe, 0xc6, 0xc6, 0xc6, 0xc6, 0xc6, 0, 0, 0, 0]),
    (b' ', [0; ROWS]),
];

/// Reads pictures of text that is drawn in cells with the VGA's font of 8x16 pixels, as the text mode (in
/// 9x16), Linux's framebuffer console and isolinux' graphical menu draw it.
#[derive(Debug, Clone)]
pub struct FontReader {
    glyphs: HashMap<[u8; ROWS], char>,
}

impl FontReader {
    /// Takes a font's 256 glyphs in the order of code page 437, 16 bytes each.
    pub fn new(font: &[u8; FONT]) -> Self {
        let shapes = font.as_chunks::<ROWS>().0;
        let mut glyphs: HashMap<_, _> =
            linux::GLYPHS.iter().map(|(code, shape)| (*shape, char::from(*code))).collect();
        // Of glyphs with the same shape, ASCII comes before lines, and these before all others.
        for (shape, character) in shapes.iter().zip(cp437::table()) {
            let known = glyphs.entry(*shape).or_insert(character);
            if rank(character) < rank(*known) {
                *known = character;
            }
        }
        Self { glyphs }
    }

    /// Finds the font in the ROM of a VGA BIOS, such as QEMU's `vgabios-stdvga.bin`, by glyphs that all have.
    pub fn find_in(rom: &[u8]) -> Option<Self> {
        rom.windows(FONT)
            .find(|font| {
                KNOWN.iter().all(|(code, shape)| font[usize::from(*code) * ROWS..].starts_with(shape))
            })
            .and_then(|font| font.try_into().ok())
            .map(Self::new)
    }

    /// The text of a picture; `None` if there is no word in it that is drawn with this font. Characters that
    /// are not in the font are left blank, as are a cursor and a cell full of ink.
    pub fn read(&self, frame: &Frame) -> Option<TextScreen> {
        // The text mode's cells have a ninth column, blank or the eighth's again.
        let width = if (frame.width(), frame.height()) == (720, 400) { 9 } else { 8 };
        // isolinux' graphical menu begins half a row down.
        [0, 8].into_iter().find_map(|top| {
            let rows: Vec<Vec<char>> = (top..(frame.height() + 1).saturating_sub(16))
                .step_by(ROWS)
                .map(|y| {
                    (0..frame.width() / width).map(|column| self.cell(frame, column * width, y)).collect()
                })
                .collect();
            let words = |row: &Vec<char>| {
                row.split(|character| !character.is_alphanumeric()).any(|word| word.len() >= WORD)
            };
            rows.iter().any(words).then(|| TextScreen::from_rows(&rows))
        })
    }

    /// The character in a cell: what is brighter, or else darker, than the paper has a glyph's shape.
    fn cell(&self, frame: &Frame, x: u32, y: u32) -> char {
        let mut grey = [[0_u8; 8]; ROWS];
        for (row, y) in grey.iter_mut().zip(y..) {
            for (value, x) in row.iter_mut().zip(x..) {
                let [red, green, blue] = frame.pixel(x, y).unwrap_or_default().map(u32::from);
                *value = ((77 * red + 150 * green + 29 * blue) / 256) as u8;
            }
        }
        let mut sorted = grey.as_flattened().to_vec();
        sorted.sort_unstable();
        let (darkest, paper, brightest) = (sorted[0], sorted[sorted.len() / 2 - 1], sorted[sorted.len() - 1]);
        let shape = |ink: &dyn Fn(u8) -> bool| {
            grey.map(|row| row.iter().fold(0, |bits, value| bits << 1 | u8::from(ink(*value))))
        };
        let bright =
            (brightest - paper >= CONTRAST).then(|| shape(&|value| value > paper + (brightest - paper) / 2));
        let dark =
            (paper - darkest >= CONTRAST).then(|| shape(&|value| value < paper - (paper - darkest) / 2));
        // Light on dark comes before dark on light. Where a glyph covers more than half of its cell, what
        // seems to be the paper is the ink.
        let inverse = |shape: [u8; ROWS]| shape.map(|row| !row);
        [bright, dark.map(inverse), dark, bright.map(inverse)]
            .into_iter()
            .flatten()
            .find_map(|shape| self.glyphs.get(&shape).copied())
            .unwrap_or(' ')
    }
}

fn rank(character: char) -> u8 {
    match character {
        ' '..='~' => 0,
        '\u{2500}'..='\u{259f}' => 1,
        _ => 2,
    }
}
