//! Pictures of a screen, and how much two of them differ.

mod similarity;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Cursor;

use thiserror::Error;

/// Channel differences up to this are the same colour: conversions between colour depths round.
const TOLERANCE: u8 = 16;
/// Share of one colour from which on there is nothing to see: a line of text in a window takes more than the rest.
const PLAIN: f64 = 0.998;
/// No screen of a machine under test is larger; a picture that says so is not decoded.
const MAX_BYTES: usize = 256 << 20;

/// A picture cannot be read or written.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The bytes are no picture.
    #[error("cannot read the picture")]
    Decode(#[from] png::DecodingError),
    /// The bytes are no picture as QEMU writes it.
    #[error("cannot read the picture of the screen: {0}")]
    Ppm(&'static str),
    /// The picture cannot be written.
    #[error("cannot write the picture")]
    Encode(#[from] png::EncodingError),
    /// The animation cannot be written.
    #[error("cannot write the animation")]
    Animate(#[from] gif::EncodingError),
}

/// A rectangle of a picture, in pixels from its top left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Pixels from the left.
    pub x: u32,
    /// Pixels from the top.
    pub y: u32,
    /// Pixels to the right.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

impl Area {
    /// Whether a change within this area can be a text cursor that blinks: no larger than a character's cell.
    pub fn is_cursor(self) -> bool {
        self.width <= 16 && self.height <= 32
    }

    fn contains(self, x: u32, y: u32) -> bool {
        x.checked_sub(self.x).is_some_and(|x| x < self.width)
            && y.checked_sub(self.y).is_some_and(|y| y < self.height)
    }
}

/// A picture of a screen: rows of pixels from the top, three bytes (red, green, blue) each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Frame {
    /// Decodes a PNG.
    ///
    /// # Errors
    ///
    /// The bytes are no PNG, or one of more than 256 MiB.
    pub fn from_png(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: MAX_BYTES });
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info()?;
        let size = reader.output_buffer_size().filter(|size| *size <= MAX_BYTES);
        let mut data = vec![0; size.ok_or(png::DecodingError::LimitsExceeded)?];
        let info = reader.next_frame(&mut data)?;
        data.truncate(info.buffer_size());
        let pixels = match info.color_type.samples() {
            3 => data,
            samples => {
                let colour =
                    |pixel: &[u8]| if samples == 4 { [pixel[0], pixel[1], pixel[2]] } else { [pixel[0]; 3] };
                data.chunks_exact(samples).flat_map(colour).collect()
            }
        };
        Ok(Self { width: info.width, height: info.height, pixels })
    }

    /// Takes in a PPM, as QEMU's `screendump` writes it: `P6`, width, height and 255, each set off by white space, and
    /// the pixels. See ppm(5).
    ///
    /// # Errors
    ///
    /// The bytes are no such PPM, have no pixels or fewer than it says, or make up more than 256 MiB.
    pub fn from_ppm(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut rest = bytes.strip_prefix(b"P6").ok_or(FrameError::Ppm("it does not begin with P6"))?;
        let mut number = || {
            let digits = rest.trim_ascii_start();
            let end = digits.iter().position(u8::is_ascii_whitespace)?;
            rest = &digits[end + 1..];
            str::from_utf8(&digits[..end]).ok()?.parse::<u32>().ok()
        };
        let (Some(width), Some(height), Some(255)) = (number(), number(), number()) else {
            return Err(FrameError::Ppm("it needs a width, a height and 255"));
        };
        if width == 0 || height == 0 {
            return Err(FrameError::Ppm("it is empty"));
        }
        let size = (width as usize).checked_mul(height as usize).and_then(|pixels| pixels.checked_mul(3));
        let size = size.filter(|size| *size <= MAX_BYTES).ok_or(FrameError::Ppm("it is too large"))?;
        let pixels = rest.get(..size).ok_or(FrameError::Ppm("it ends too early"))?.to_vec();
        Ok(Self { width, height, pixels })
    }

    /// Encodes it as a PNG.
    ///
    /// # Errors
    ///
    /// The picture has no pixels.
    pub fn to_png(&self) -> Result<Vec<u8>, FrameError> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()?;
        Ok(bytes)
    }

    /// A picture of one colour.
    pub(super) fn filled(width: u32, height: u32, colour: [u8; 3]) -> Self {
        Self { width, height, pixels: colour.repeat(width as usize * height as usize) }
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// All of it.
    pub fn area(&self) -> Area {
        Area { x: 0, y: 0, width: self.width, height: self.height }
    }

    /// Rows of pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Red, green and blue of a pixel; `None` outside the picture.
    pub fn pixel(&self, x: u32, y: u32) -> Option<[u8; 3]> {
        let row = self.row(y)?.as_chunks::<3>().0;
        row.get(x as usize).copied()
    }

    /// The share of the pixels outside `masks` that show another colour, 0.0 to 1.0; 1.0 if the sizes differ.
    pub fn difference(&self, other: &Self, masks: &[Area]) -> f64 {
        if (self.width, self.height) != (other.width, other.height) {
            return 1.0;
        }
        let (mut counted, mut different) = (0_u64, 0_u64);
        for (y, (row, others)) in (0..).zip(self.rows().zip(other.rows())) {
            let masks: Vec<_> = masks.iter().filter(|mask| mask.contains(mask.x, y)).collect();
            if masks.is_empty() && row == others {
                counted += u64::from(self.width);
                continue;
            }
            for (x, (pixel, other)) in (0..).zip(row.as_chunks::<3>().0.iter().zip(others.as_chunks::<3>().0))
            {
                if !masks.iter().any(|mask| mask.contains(x, y)) {
                    counted += 1;
                    different += u64::from(differ(pixel, other));
                }
            }
        }
        if counted == 0 { 0.0 } else { different as f64 / counted as f64 }
    }

    /// How much this looks like `other` to a person, 0.0 to 1.0, outside `masks`: the same picture with other
    /// fonts or slightly other colours is near 1. 0.0 if the sizes differ or the masks cover everything.
    ///
    /// Both are reduced to grey samples of 4x4 pixels and compared by the structural similarity index over
    /// blocks of 8x8 samples, each block weighted by what there is to see in it. Sources: Wang, Bovik, Sheikh
    /// and Simoncelli, "Image quality assessment: from error visibility to structural similarity", 2004; the
    /// weights after Wang and Li, "Information content weighting for perceptual image quality assessment", 2011.
    pub fn similarity(&self, other: &Self, masks: &[Area]) -> f64 {
        similarity::similarity(self, other, masks)
    }

    /// The smallest area with all pixels that differ at all; `None` if there are none. All of the larger picture
    /// if the sizes differ.
    pub fn changed_area(&self, other: &Self) -> Option<Area> {
        if (self.width, self.height) != (other.width, other.height) {
            let (width, height) = (self.width.max(other.width), self.height.max(other.height));
            return Some(Area { x: 0, y: 0, width, height });
        }
        enclosing(self.rows().zip(other.rows()), |row, other| row == other)
    }

    /// Whether it is of one colour, but for what can be a cursor.
    pub fn is_blank(&self) -> bool {
        // A cursor stands anywhere but in the last corner.
        let Some(&colour) = self.pixels.as_chunks::<3>().0.last() else { return true };
        let plain = colour.repeat(self.width as usize);
        let rows = self.rows().map(|row| (row, plain.as_slice()));
        enclosing(rows, |row, plain| row == plain).is_none_or(Area::is_cursor)
    }

    /// Whether nearly all of an area is of one colour: nothing is drawn there that a person could read. What lies beyond
    /// the picture does not count; an area wholly beyond it is plain.
    pub fn is_plain(&self, area: Area) -> bool {
        let mut colours: HashMap<[u8; 3], usize> = HashMap::new();
        let columns = area.x.min(self.width)..area.x.saturating_add(area.width).min(self.width);
        let mut counted = 0;
        for y in area.y..area.y.saturating_add(area.height).min(self.height) {
            for x in columns.clone() {
                *colours.entry(self.pixel(x, y).unwrap_or_default()).or_default() += 1;
                counted += 1;
            }
        }
        let most = colours.values().copied().max().unwrap_or(0);
        most as f64 >= counted as f64 * PLAIN
    }

    /// Whether nothing has changed since `previous` but, at most, one cursor.
    pub fn same_but_cursor(&self, previous: &Self) -> bool {
        self.changed_area(previous).is_none_or(Area::is_cursor)
    }

    /// A number for the picture: the same for the same pixels, within this process. For
    /// [`ScreenId::of_picture`](super::ScreenId::of_picture), keep the last picture and its number as long as
    /// [`Frame::same_but_cursor`] holds.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.width, self.height, &self.pixels).hash(&mut hasher);
        hasher.finish()
    }

    /// A copy of this width, its proportions kept, each pixel the mean of those that it stands for.
    pub(super) fn scaled(&self, width: u32) -> Self {
        let width = width.clamp(1, self.width.max(1));
        if width == self.width {
            return self.clone();
        }
        let height = (u64::from(self.height) * u64::from(width) / u64::from(self.width.max(1))).max(1) as u32;
        let span = |at: u32, of: u32, from: u32| {
            let start = u64::from(at) * u64::from(from) / u64::from(of);
            let end = u64::from(at + 1) * u64::from(from) / u64::from(of);
            start as u32..(end as u32).max(start as u32 + 1).min(from)
        };
        let mut pixels = Vec::with_capacity(width as usize * height as usize * 3);
        let columns: Vec<_> = (0..width).map(|x| span(x, width, self.width)).collect();
        for y in 0..height {
            let rows = span(y, height, self.height);
            for columns in &columns {
                let mut sum = [0_u32; 3];
                for row in rows.clone().filter_map(|row| self.row(row)) {
                    for pixel in row[columns.start as usize * 3..columns.end as usize * 3].as_chunks::<3>().0
                    {
                        sum.iter_mut().zip(pixel).for_each(|(sum, channel)| *sum += u32::from(*channel));
                    }
                }
                let count = (rows.len() * columns.len()).max(1) as u32;
                pixels.extend(sum.map(|sum| (sum / count) as u8));
            }
        }
        Self { width, height, pixels }
    }

    /// Copies `other` into this picture, its top left corner at `x`, `y`; what does not fit is left out.
    pub(super) fn paste(&mut self, other: &Self, x: u32, y: u32) {
        let columns = other.width.min(self.width.saturating_sub(x)) as usize * 3;
        for (row, source) in (y..self.height).zip(other.rows()) {
            let start = (row as usize * self.width as usize + x as usize) * 3;
            self.pixels[start..start + columns].copy_from_slice(&source[..columns]);
        }
    }

    /// Sets a pixel, if it is inside.
    pub(super) fn set(&mut self, x: u32, y: u32, colour: [u8; 3]) {
        if x < self.width && y < self.height {
            let start = (y as usize * self.width as usize + x as usize) * 3;
            self.pixels[start..start + 3].copy_from_slice(&colour);
        }
    }

    /// All bytes.
    pub(super) fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.pixels.chunks_exact(self.width.max(1) as usize * 3)
    }

    fn row(&self, y: u32) -> Option<&[u8]> {
        let length = self.width as usize * 3;
        self.pixels.get(y as usize * length..(y as usize + 1) * length)
    }
}

fn differ(pixel: &[u8; 3], other: &[u8; 3]) -> bool {
    pixel.iter().zip(other).any(|(a, b)| a.abs_diff(*b) > TOLERANCE)
}

/// The area around all pixels in which pairs of rows differ.
fn enclosing<'a>(
    rows: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    same: impl Fn(&[u8], &[u8]) -> bool,
) -> Option<Area> {
    let mut area: Option<(u32, u32, u32, u32)> = None;
    for (y, (row, other)) in (0..).zip(rows) {
        if same(row, other) {
            continue;
        }
        let differs = |(a, b): (&u8, &u8)| a != b;
        let first = row.iter().zip(other).position(differs)?;
        let last = row.iter().zip(other).rposition(differs)?;
        let (first, last) = ((first / 3) as u32, (last / 3) as u32);
        let (left, right, top, _) = area.unwrap_or((first, last, y, y));
        area = Some((left.min(first), right.max(last), top, y));
    }
    area.map(|(left, right, top, bottom)| Area {
        x: left,
        y: top,
        width: right - left + 1,
        height: bottom - top + 1,
    })
}
