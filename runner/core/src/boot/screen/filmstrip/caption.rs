use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use super::Picture;
use crate::boot::screen::Frame;

/// The colour around the pictures.
pub(super) const BACKGROUND: [u8; 3] = [0x1c, 0x1e, 0x24];
const TIME: [u8; 3] = [0x9a, 0xa4, 0xb4];
const LABEL: [u8; 3] = [0xff, 0xff, 0xff];
/// Height of the strip under a picture, in pixels.
const STRIP: u32 = 26;
const SIZE: RasterHeight = RasterHeight::Size16;

/// A picture with its time and label under it.
pub(super) fn captioned(frame: &Frame, picture: &Picture) -> Frame {
    let mut canvas = Frame::filled(frame.width(), frame.height() + STRIP, BACKGROUND);
    canvas.paste(frame, 0, 0);
    let seconds = picture.seconds.max(0.0) as u64;
    let y = frame.height() + 6;
    let end = write(&mut canvas, 2, y, &format!("{}:{:02}", seconds / 60, seconds % 60), TIME);
    write(&mut canvas, end + 12, y, picture.label.as_deref().unwrap_or_default(), LABEL);
    canvas
}

/// Writes a line of text and gives where it ends. Other characters than ASCII's are written as `?`.
fn write(canvas: &mut Frame, x: u32, y: u32, text: &str, colour: [u8; 3]) -> u32 {
    let advance = get_raster_width(FontWeight::Regular, SIZE) as u32;
    let mut x = x;
    for character in text.chars() {
        let raster = get_raster(character, FontWeight::Regular, SIZE)
            .or_else(|| get_raster('?', FontWeight::Regular, SIZE));
        for (y, row) in (y..).zip(raster.iter().flat_map(|raster| raster.rows())) {
            for (x, strength) in (x..).zip(row) {
                let blend = |front: u8, back: u8| {
                    let strength = u32::from(*strength);
                    ((u32::from(front) * strength + u32::from(back) * (255 - strength)) / 255) as u8
                };
                canvas.set(x, y, [0, 1, 2].map(|channel| blend(colour[channel], BACKGROUND[channel])));
            }
        }
        x += advance;
    }
    x
}
