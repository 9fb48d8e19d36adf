use proptest::prelude::*;

use super::*;
use crate::boot::screen::fixtures;

fn picture(name: &str) -> Frame {
    Frame::from_png(&fixtures::bytes(&format!("{name}.png"))).expect("picture")
}

/// A dark screen of 200x100 with a light rectangle.
fn with_box(area: Area) -> Frame {
    let mut frame = Frame::filled(200, 100, [20, 20, 30]);
    frame.paste(&Frame::filled(area.width, area.height, [200, 210, 220]), area.x, area.y);
    frame
}

const BOX: Area = Area { x: 40, y: 16, width: 60, height: 40 };

#[test]
fn a_picture_is_decoded_and_encoded() {
    let frame = picture("panic-framebuffer");
    assert_eq!((frame.width(), frame.height()), (1024, 768));
    // The cursor stands at the start of the last line.
    assert_ne!(frame.pixel(0, 767), Some([0, 0, 0]));
    assert_eq!((frame.pixel(1023, 0), frame.pixel(1024, 0)), (Some([0, 0, 0]), None));
    assert_eq!(Frame::from_png(&frame.to_png().expect("encoded")).expect("decoded"), frame);
}

#[test]
fn a_screendump_is_taken_in() {
    let frame = Frame::from_ppm(b"P6\n2 1\n255\n\x01\x02\x03 \n\xff").expect("a picture");
    assert_eq!((frame.width(), frame.height()), (2, 1));
    assert_eq!((frame.pixel(0, 0), frame.pixel(1, 0)), (Some([1, 2, 3]), Some([b' ', b'\n', 255])));
}

#[test]
fn what_is_no_screendump_is_an_error() {
    for (bytes, reason) in [
        (&b""[..], "P6"),
        (b"P5\n1 1\n255\nabc", "P6"),
        (b"P6\n1 1", "a width"),
        (b"P6\n1 -1\n255\nabc", "a width"),
        (b"P6\n1 1\n65535\nabcdef", "and 255"),
        (b"P6\n0 4294967295\n255\n", "empty"),
        (b"P6\n2 1\n255\nabc", "too early"),
        (b"P6\n65536 65536\n255\nabc", "too large"),
    ] {
        let error = Frame::from_ppm(bytes).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn grey_and_transparent_pictures_become_colours() {
    for (colour, data, expected) in [
        (png::ColorType::Grayscale, &[7_u8][..], [7, 7, 7]),
        (png::ColorType::GrayscaleAlpha, &[7, 255], [7, 7, 7]),
        (png::ColorType::Rgba, &[1, 2, 3, 255], [1, 2, 3]),
    ] {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
        encoder.set_color(colour);
        encoder.write_header().expect("header").write_image_data(data).expect("data");
        assert_eq!(Frame::from_png(&bytes).expect("decoded").pixel(0, 0), Some(expected));
    }
}

#[test]
fn what_is_no_picture_is_an_error() {
    let png = fixtures::bytes("panic.png");
    for bytes in [&b""[..], b"P6 1 1 255 abc", &png[..png.len() / 2]] {
        assert!(matches!(Frame::from_png(bytes), Err(FrameError::Decode(_))));
    }
    assert!(Frame::filled(0, 0, [0; 3]).to_png().is_err());
}

#[test]
fn the_difference_is_the_share_of_pixels() {
    let (plain, drawn) = (with_box(Area { width: 0, height: 0, ..BOX }), with_box(BOX));
    assert_eq!(drawn.difference(&drawn, &[]), 0.0);
    assert_eq!(plain.difference(&drawn, &[]), 60.0 * 40.0 / 20_000.0);
    assert_eq!(plain.difference(&drawn, &[BOX]), 0.0);
    let half = Area { width: 30, ..BOX };
    assert_eq!(plain.difference(&drawn, &[half]), 30.0 * 40.0 / (20_000.0 - 30.0 * 40.0));
    assert_eq!(plain.difference(&Frame::filled(200, 99, [20, 20, 30]), &[]), 1.0);
    assert_eq!(plain.difference(&Frame::filled(200, 100, [30, 36, 20]), &[]), 0.0, "within the tolerance");
    assert_eq!(plain.difference(&Frame::filled(200, 100, [37, 20, 30]), &[]), 1.0, "beyond it");
}

#[test]
fn a_change_has_its_area() {
    let (plain, drawn) = (with_box(Area { width: 0, height: 0, ..BOX }), with_box(BOX));
    assert_eq!(plain.changed_area(&drawn), Some(BOX));
    assert_eq!(drawn.changed_area(&drawn), None);
    let smaller = Frame::filled(10, 300, [0; 3]);
    assert_eq!(plain.changed_area(&smaller), Some(Area { x: 0, y: 0, width: 200, height: 300 }));
}

#[test]
fn a_cursor_is_no_change() {
    let cursor = Area { x: 8, y: 30, width: 8, height: 2 };
    let (off, on) = (Frame::filled(200, 100, [20, 20, 30]), with_box(cursor));
    assert!(on.same_but_cursor(&off) && off.same_but_cursor(&on) && off.same_but_cursor(&off));
    assert!(!with_box(Area { width: 17, ..cursor }).same_but_cursor(&off));
    assert!(!with_box(Area { height: 33, ..cursor }).same_but_cursor(&off));
    assert!(on.is_blank() && off.is_blank());
    assert!(!with_box(BOX).is_blank() && !picture("panic-framebuffer").is_blank());
    assert_ne!(on.fingerprint(), off.fingerprint());
    assert_eq!(on.fingerprint(), with_box(cursor).fingerprint());
}

#[test]
fn the_same_screen_is_similar_and_another_is_not() {
    let menu = picture("vesamenu");
    assert_eq!(menu.similarity(&menu, &[]), 1.0);
    // Smoothed as another font's rendering would be, and a little brighter.
    let mut smooth = menu.clone();
    for y in 0..menu.height() {
        for x in 1..menu.width() {
            let (here, left) = (menu.pixel(x, y).expect("inside"), menu.pixel(x - 1, y).expect("inside"));
            let mean = [0, 1, 2].map(|i| ((u16::from(here[i]) + u16::from(left[i])) / 2 + 6).min(255) as u8);
            smooth.set(x, y, mean);
        }
    }
    let alike = menu.similarity(&smooth, &[]);
    assert!(alike > 0.9, "{alike}");
    // The same text drawn one character further, and a screen of other text.
    let mut moved = Frame::filled(1024, 768, [0; 3]);
    let panic = picture("panic-framebuffer");
    moved.paste(&panic, 200, 160);
    let unlike = panic.similarity(&moved, &[]);
    assert!(unlike < 0.6, "{unlike}");
    let blank = panic.similarity(&Frame::filled(1024, 768, [0; 3]), &[]);
    assert!(blank < 0.3, "{blank}");
    assert_eq!(menu.similarity(&panic, &[]), 0.0, "other size");
}

#[test]
fn masks_hide_differences() {
    let (plain, drawn) = (with_box(Area { width: 0, height: 0, ..BOX }), with_box(BOX));
    assert!(plain.similarity(&drawn, &[]) < 0.5);
    assert_eq!(plain.similarity(&drawn, &[BOX]), 1.0);
    let endless = Area { width: u32::MAX, height: u32::MAX, ..BOX };
    assert_eq!(plain.similarity(&drawn, &[endless]), 1.0, "what is left is the same");
    assert_eq!(
        drawn.similarity(&drawn, &[Area { x: 0, y: 0, ..endless }]),
        0.0,
        "nothing is left to compare"
    );
}

proptest! {
    #[test]
    fn comparing_is_symmetric_and_within_bounds(
        (width, height) in (1..40_u32, 1..40_u32),
        seed in any::<u32>(),
        (x, y) in (0..40_u32, 0..40_u32),
    ) {
        let mut frames = [Frame::filled(width, height, [0; 3]), Frame::filled(width, height, [90; 3])];
        let mut state = seed | 1;
        for frame in &mut frames {
            for at in 0..width * height {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                frame.set(at % width, at / width, [(state >> 24) as u8, (state >> 16) as u8, (state >> 8) as u8]);
            }
        }
        let [a, b] = frames;
        let masks = [Area { x, y, width: 5, height: 5 }];
        prop_assert_eq!(a.difference(&b, &masks), b.difference(&a, &masks));
        prop_assert!((0.0..=1.0).contains(&a.difference(&b, &masks)));
        prop_assert!((a.similarity(&b, &masks) - b.similarity(&a, &masks)).abs() < 1e-9);
        prop_assert!((0.0..=1.0).contains(&a.similarity(&b, &masks)));
        prop_assert_eq!(a.changed_area(&b), b.changed_area(&a));
        prop_assert!(a.scaled(seed % 50).width() <= width);
    }
}

#[test]
fn an_area_is_plain_unless_something_is_drawn_there() {
    let mut frame = Frame::filled(100, 100, [9, 9, 9]);
    assert!(frame.is_plain(frame.area()));
    for x in 20..60 {
        frame.set(x, 30, [200, 200, 200]);
    }
    assert!(!frame.is_plain(frame.area()));
    assert!(!frame.is_plain(Area { x: 10, y: 20, width: 60, height: 60 }));
    assert!(frame.is_plain(Area { x: 10, y: 40, width: 500, height: 500 }));
    assert!(frame.is_plain(Area { x: 100, y: 0, width: 10, height: 10 }), "beyond the picture");
}
