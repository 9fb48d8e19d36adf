//! A boot in pictures: those that differ, with their times and names.

mod caption;
#[cfg(test)]
mod tests;

use super::{Frame, FrameError};
use caption::{BACKGROUND, captioned};

/// All kept pictures together, in bytes.
const MAX_BYTES: usize = 18 << 20;
/// Pictures beside each other on a contact sheet.
const COLUMNS: usize = 4;
/// Space between and around them, in pixels.
const GAP: u32 = 12;
/// Width of an animation, in pixels.
const ANIMATION_WIDTH: u32 = 480;
/// Longest time for one picture of an animation, and for all, in seconds.
const LONGEST: f64 = 1.5;
const ALL: f64 = 15.0;
/// Shortest time for one picture, which a person can still see.
const SHORTEST: f64 = 0.1;
/// How hard the palette's quantisation looks, 1 (best) to 30 (fastest).
const QUANTISATION: i32 = 10;

struct Picture {
    seconds: f64,
    frame: Frame,
    label: Option<String>,
}

/// Keeps the pictures of a boot that differ from the one before, scaled down, in less than 20 MB.
pub struct Filmstrip {
    max_frames: usize,
    frame_width: u32,
    pictures: Vec<Picture>,
}

impl Filmstrip {
    /// Keeps up to `max_frames` pictures (at least 2), scaled down to `frame_width` pixels.
    pub fn new(max_frames: usize, frame_width: u32) -> Self {
        Self { max_frames: max_frames.max(2), frame_width: frame_width.max(16), pictures: Vec::new() }
    }

    /// Takes the picture of a moment. It is kept if it has a label or shows something else than the last one;
    /// when there are too many, those go first that have no label and are closest in time to their neighbours.
    /// The first and the last stay.
    pub fn push(&mut self, seconds: f64, frame: &Frame, label: Option<&str>) {
        let original = frame.width();
        let frame = frame.scaled(self.frame_width);
        // A cursor is smaller on a picture that is scaled down, but may touch one more pixel at each side.
        let scaled = |pixels: u32| pixels * frame.width() / original.max(1) + 2;
        let as_before = |last: &Picture| {
            frame
                .changed_area(&last.frame)
                .is_none_or(|area| area.is_cursor() && area.width <= scaled(16) && area.height <= scaled(32))
        };
        if label.is_none() && self.pictures.last().is_some_and(as_before) {
            return;
        }
        self.pictures.push(Picture { seconds, frame, label: label.map(str::to_owned) });
        while self.pictures.len() > 2 && (self.pictures.len() > self.max_frames || self.bytes() > MAX_BYTES) {
            self.thin();
        }
    }

    /// How many pictures are kept.
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }

    /// All pictures on one sheet, as a PNG: row by row, under each its time and label.
    ///
    /// # Errors
    ///
    /// The sheet cannot be encoded: there is no picture.
    pub fn contact_sheet(&self) -> Result<Vec<u8>, FrameError> {
        let frames: Vec<_> = self.pictures.iter().map(|picture| captioned(&picture.frame, picture)).collect();
        // As square as it gets with no more than four in a row.
        let columns = (1..=COLUMNS).find(|columns| columns * columns >= frames.len()).unwrap_or(COLUMNS);
        let width = frames.iter().map(Frame::width).max().unwrap_or(0);
        let rows: Vec<_> = frames.chunks(columns).collect();
        let height = |row: &&[Frame]| row.iter().map(Frame::height).max().unwrap_or(0) + GAP;
        let total = rows.iter().map(height).sum::<u32>() + GAP;
        let columns = columns.min(frames.len()) as u32;
        let mut sheet = Frame::filled(columns * (width + GAP) + GAP, total, BACKGROUND);
        let mut y = GAP;
        for row in &rows {
            for (column, frame) in (0..).zip(*row) {
                sheet.paste(frame, GAP + column * (width + GAP), y);
            }
            y += height(row);
        }
        sheet.to_png()
    }

    /// All pictures one after the other, as a GIF that repeats: each for a time in proportion to the real one,
    /// but no longer than 1.5 s, and all together in less than 20 s.
    ///
    /// # Errors
    ///
    /// The animation cannot be encoded.
    pub fn animation(&self) -> Result<Vec<u8>, FrameError> {
        let frames: Vec<_> = self
            .pictures
            .iter()
            .map(|picture| captioned(&picture.frame.scaled(ANIMATION_WIDTH), picture))
            .collect();
        let width = frames.iter().map(Frame::width).max().unwrap_or(1);
        let height = frames.iter().map(Frame::height).max().unwrap_or(1);
        let mut bytes = Vec::new();
        let mut encoder = gif::Encoder::new(&mut bytes, width as u16, height as u16, &[])?;
        encoder.set_repeat(gif::Repeat::Infinite)?;
        for (frame, delay) in frames.iter().zip(self.delays()) {
            let mut canvas = Frame::filled(width, height, BACKGROUND);
            canvas.paste(frame, 0, 0);
            let mut picture =
                gif::Frame::from_rgb_speed(width as u16, height as u16, canvas.pixels(), QUANTISATION);
            picture.delay = (delay * 100.0) as u16;
            encoder.write_frame(&picture)?;
        }
        drop(encoder);
        Ok(bytes)
    }

    /// For how many seconds an animation shows each picture.
    fn delays(&self) -> impl Iterator<Item = f64> {
        let start = self.pictures.first().map_or(0.0, |first| first.seconds);
        let length = self.pictures.last().map_or(0.0, |last| last.seconds) - start;
        let most = ALL / self.pictures.len().max(1) as f64;
        let speed = if length > ALL { ALL / length } else { 1.0 };
        let next = self.pictures.iter().skip(1).map(|picture| Some(picture.seconds)).chain([None]);
        self.pictures.iter().zip(next).map(move |(picture, next)| {
            let shown = next.map_or(LONGEST, |next| (next - picture.seconds) * speed);
            shown.clamp(SHORTEST.min(most), LONGEST)
        })
    }

    fn bytes(&self) -> usize {
        self.pictures.iter().map(|picture| picture.frame.pixels().len()).sum()
    }

    /// Removes the picture that is missed least: labelled ones last.
    fn thin(&mut self) {
        let gap = |at: &usize| self.pictures[at + 1].seconds - self.pictures[at - 1].seconds;
        let key = |at: &usize| (self.pictures[*at].label.is_some(), gap(at));
        let least = (1..self.pictures.len() - 1)
            .min_by(|a, b| key(a).partial_cmp(&key(b)).unwrap_or(std::cmp::Ordering::Equal));
        if let Some(least) = least {
            self.pictures.remove(least);
        }
    }
}
