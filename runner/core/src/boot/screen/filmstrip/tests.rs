use proptest::prelude::*;

use super::*;
use crate::boot::screen::fixtures;

fn picture(name: &str) -> Frame {
    Frame::from_png(&fixtures::bytes(&format!("{name}.png"))).expect("picture")
}

fn plain(shade: u8) -> Frame {
    Frame::filled(160, 100, [shade, 0, 0])
}

fn times(strip: &Filmstrip) -> Vec<f64> {
    strip.pictures.iter().map(|picture| picture.seconds).collect()
}

/// The delays of an animation's pictures in seconds, and its size.
fn played(gif: &[u8]) -> (Vec<f64>, (u16, u16)) {
    let mut decoder = gif::DecodeOptions::new().read_info(gif).expect("GIF");
    let mut delays = Vec::new();
    while let Some(frame) = decoder.read_next_frame().expect("frame") {
        delays.push(f64::from(frame.delay) / 100.0);
    }
    (delays, (decoder.width(), decoder.height()))
}

/// A boot as a person would see it.
fn boot() -> Filmstrip {
    let mut strip = Filmstrip::new(24, 480);
    strip.push(0.0, &Frame::filled(720, 400, [0; 3]), None);
    strip.push(3.0, &picture("memtest"), Some("firmware"));
    strip.push(8.0, &picture("vesamenu"), Some("boot menu"));
    strip.push(31.0, &picture("panic"), Some("kernel"));
    strip.push(95.0, &picture("panic-framebuffer"), Some("kernel panic"));
    strip
}

#[test]
fn only_pictures_that_differ_are_kept() {
    let mut strip = Filmstrip::new(10, 480);
    assert!(strip.is_empty());
    strip.push(0.0, &plain(10), None);
    strip.push(1.0, &plain(10), None);
    let mut cursor = plain(10);
    cursor.paste(&Frame::filled(8, 2, [255; 3]), 20, 20);
    strip.push(2.0, &cursor, None);
    strip.push(3.0, &plain(90), None);
    strip.push(4.0, &plain(90), Some("named"));
    assert_eq!(times(&strip), [0.0, 3.0, 4.0]);
    assert_eq!(strip.len(), 3);
}

#[test]
fn too_many_are_thinned_evenly() {
    let mut strip = Filmstrip::new(11, 160);
    for second in 0..=100_u8 {
        strip.push(second.into(), &plain(second), (second == 37).then_some("named"));
    }
    let times = times(&strip);
    assert_eq!(times.len(), 11);
    assert_eq!((times[0], times[10]), (0.0, 100.0));
    assert!(times.contains(&37.0));
    let widest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    assert!(widest <= 30.0, "{times:?}");
}

#[test]
fn the_memory_is_bounded() {
    let mut strip = Filmstrip::new(1000, 1024);
    for second in 0..20_u8 {
        strip.push(second.into(), &Frame::filled(1024, 768, [second * 6, 0, 0]), Some("all named"));
    }
    assert!(strip.bytes() <= MAX_BYTES && strip.len() >= 7, "{} bytes", strip.bytes());
}

#[test]
fn the_contact_sheet_shows_every_picture() {
    let sheet = Frame::from_png(&boot().contact_sheet().expect("sheet")).expect("PNG");
    // Five pictures: three beside each other, two below.
    assert_eq!(sheet.width(), 3 * (480 + GAP) + GAP);
    let place = |column: u32| sheet.pixel(GAP + column * (480 + GAP) + 240, GAP + 4);
    assert_eq!(place(0), Some([0, 0, 0]), "the black screen");
    assert_ne!(place(2), Some(BACKGROUND), "the menu");
    let caption = |x: u32| (0..26).any(|y| sheet.pixel(x, GAP + 266 + y).is_some_and(|it| it[0] > 0x80));
    assert!((GAP..GAP + 40).any(caption), "the time");
    assert!(!(GAP + 100..GAP + 480).any(caption), "no label");
    assert!(Filmstrip::new(5, 480).contact_sheet().is_ok(), "an empty sheet");
}

#[test]
fn the_animation_plays_in_proportion() {
    let (delays, size) = played(&boot().animation().expect("animation"));
    assert_eq!(size.0, 480);
    // 95 seconds in 15: 3 and 5 seconds are short, 23 and 64 long, and the last stands.
    assert_eq!(delays, [0.47, 0.78, 1.5, 1.5, 1.5]);
    let (delays, _) = played(&Filmstrip::new(2, 16).animation().expect("animation"));
    assert!(delays.is_empty());
}

proptest! {
    #[test]
    fn an_animation_is_always_short(gaps in prop::collection::vec(0.0..200.0_f64, 0..80), max in 2..60_usize) {
        let mut strip = Filmstrip::new(max, 16);
        let mut now = 0.0;
        for (at, gap) in gaps.iter().enumerate() {
            now += gap;
            strip.push(now, &Frame::filled(20, 10, [at as u8 * 3, 0, 0]), None);
        }
        prop_assert!(strip.len() <= max);
        prop_assert!(strip.delays().sum::<f64>() < 20.0 + 1e-9);
        prop_assert!(strip.delays().all(|delay| (0.0..=LONGEST).contains(&delay)));
        if let (Some(first), Some(last)) = (times(&strip).first(), times(&strip).last()) {
            prop_assert_eq!((*first, *last), (gaps[0], now));
        }
    }
}
