use proptest::prelude::*;

use super::*;
use crate::boot::screen::{TextScreen, fixtures};

const WINDOW: f64 = 30.0;

/// A machine watched once a second.
struct Story {
    pulse: Pulse,
    now: Vitals,
}

impl Story {
    fn new() -> Self {
        let now = Vitals {
            seconds: 0.0,
            serial_bytes: 0,
            disk_bytes: 0,
            screen: picture(0),
            program_counters: vec![0x7c00],
            halted: false,
        };
        Self { pulse: Pulse::new(WINDOW), now }
    }

    /// Lets seconds pass in which `change` happens (it gets the second's number), and gives all conditions.
    fn watch(&mut self, seconds: u64, mut change: impl FnMut(u64, &mut Vitals)) -> Vec<Condition> {
        (0..seconds)
            .map(|second| {
                self.now.seconds += 1.0;
                change(second, &mut self.now);
                self.pulse.push(self.now.clone())
            })
            .collect()
    }

    /// A minute's work, as at the start of every boot.
    fn boot(mut self) -> Self {
        let conditions = self.watch(60, |second, now| {
            now.serial_bytes += 500;
            now.disk_bytes += 1 << 20;
            now.screen = picture(1000 + second);
            now.program_counters = vec![0xffff_ffff_8100_0000 + second * 0x5000];
        });
        assert!(conditions.iter().all(|condition| *condition == Condition::Working));
        self
    }
}

fn picture(fingerprint: u64) -> ScreenId {
    ScreenId::of_picture(fingerprint)
}

fn text(words: &str) -> ScreenId {
    ScreenId::of_text(&TextScreen::from_vt100(words.as_bytes()))
}

fn still(condition: &Condition) -> bool {
    matches!(condition, Condition::Still { .. })
}

#[test]
fn an_idle_login_prompt_is_still_when_the_window_is_over() {
    let conditions = Story::new().boot().watch(90, |second, now| {
        now.screen = picture(7 + second % 2);
        now.halted = second % 10 != 3;
        now.program_counters = vec![0xffff_ffff_8170_0000, 0xffff_ffff_8180_0000 + second / 10 * 0x1000];
        now.disk_bytes += 512;
    });
    let first = conditions.iter().position(still).expect("still");
    // The cursor's second picture came at 62, the wide window of the boot ended a window after it.
    assert!((30..=62).contains(&first), "{first}");
    assert!(conditions[first..].iter().all(still), "{conditions:?}");
}

#[test]
fn a_panic_that_spins_is_still_since_its_last_line() {
    let conditions = Story::new().boot().watch(60, |second, now| {
        if second < 3 {
            now.serial_bytes += 2000;
        }
        now.screen = picture(9);
        now.program_counters = vec![0xffff_ffff_8151_2000 + second % 3 * 0x1000, 0xffff_ffff_8100_0010];
    });
    assert_eq!(conditions[20], Condition::Working);
    let Some(Condition::Still { since }) = conditions.last() else { panic!("{conditions:?}") };
    assert!((62.0..=64.0).contains(since), "{since}");
}

#[test]
fn a_processor_that_halts_is_still() {
    let id = ScreenId::of_text(&fixtures::vga("nothing-bootable"));
    let conditions = Story::new().watch(45, |second, now| {
        now.screen = id.clone();
        now.halted = true;
        now.program_counters = vec![0xf_0000 + second * 0x7777];
    });
    assert_eq!(conditions[29], Condition::Working);
    assert_eq!(conditions[44], Condition::Still { since: 1.0 });
}

#[test]
fn a_menu_that_waits_is_still() {
    let id = ScreenId::of_text(&fixtures::vga("grub-waiting"));
    // Measured: GRUB's kernel, its step down to real mode, and the BIOS; 13 addresses in 30 samples.
    let pages = [0x8_u64, 0x9, 0xa, 0xf7, 0xf8, 0xfb, 0xfd, 0xfe, 0xff, 0xf8, 0xfb, 0xfd, 0xfe];
    let conditions = Story::new().watch(45, |second, now| {
        now.screen = id.clone();
        now.program_counters = vec![(pages[second as usize % 13] << 12) + second % 13];
    });
    assert_eq!(conditions[44], Condition::Still { since: 1.0 });
}

#[test]
fn firmware_that_polls_many_devices_is_still_and_linux_at_as_many_places_works() {
    for (base, expected) in [(0x7e00_0000, true), (0xffff_ffff_8100_0000, false)] {
        let conditions = Story::new().watch(60, |second, now| {
            now.program_counters = vec![base + second % 21 * 0x900, 0x7c00];
        });
        assert_eq!(still(&conditions[59]), expected, "{base:#x}");
    }
    let conditions = Story::new().watch(60, |second, now| {
        now.program_counters = [0, 0x8000].map(|half| 0x10_0000 + half + second * 7 % 53 * 0x10).to_vec();
    });
    assert!(!still(&conditions[59]), "a boot loader that computes");
}

#[test]
fn a_countdown_is_a_countdown_also_over_serial() {
    let start = fixtures::vga("grub-countdown").text();
    let conditions = Story::new().watch(100, |second, now| {
        now.screen = text(&start.replace("600s", &format!("{}s", 100 - second)).replace('\n', "\r\n"));
        now.serial_bytes += 90;
        now.program_counters = vec![0xf_7000];
    });
    // The first samples still show a step each; from the second step on it is known.
    assert!(conditions[2..].iter().all(|condition| *condition == Condition::Countdown), "{conditions:?}");
}

#[test]
fn captured_countdowns_follow_each_other() {
    for name in ["grub-countdown", "isolinux-countdown"] {
        let before = ScreenId::of_text(&fixtures::vga(name));
        let later = ScreenId::of_text(&fixtures::vga(&format!("{name}-later")));
        assert!(later.follows_in_countdown(&before) && !before.follows_in_countdown(&later), "{name}");
    }
    assert!(text("boot in 9 s   ok").follows_in_countdown(&text("boot in 10 s  ok")));
    assert!(!text("12:34").follows_in_countdown(&text("13:35")), "two numbers");
    assert!(!text("boot in 9 s").follows_in_countdown(&text("start in 10 s")), "other words");
}

#[test]
fn a_countdown_that_stops_becomes_still() {
    let conditions = Story::new().watch(80, |second, now| {
        now.screen = text(&format!("boot in {} s", 9 - second.min(4)));
        now.halted = true;
    });
    assert_eq!(conditions[10], Condition::Countdown);
    assert_eq!(conditions[79], Condition::Still { since: 5.0 });
}

#[test]
fn a_memory_test_is_changing() {
    let conditions = Story::new().boot().watch(120, |second, now| {
        now.screen = picture(5000 + second);
        now.program_counters = vec![0x10_2000 + second % 12 * 0x1000];
    });
    assert_eq!(conditions[10], Condition::Working);
    assert!(conditions[65..].iter().all(|condition| *condition == Condition::Changing), "{conditions:?}");
}

#[test]
fn slow_work_behind_a_black_screen_is_work() {
    // Decompressing runs all over kernel and programs, with hours between the reads.
    let conditions = Story::new().watch(300, |second, now| {
        now.program_counters = vec![0xffff_ffff_8100_0000 + second * 7 % 61 * 0x1000];
    });
    assert!(conditions.iter().all(|condition| *condition == Condition::Working));
    // Unpacking an initramfs: four pages of code, but another place in them nearly every time.
    let conditions = Story::new().watch(300, |second, now| {
        now.program_counters = vec![0xffff_ffff_8834_9000 + second % 4 * 0x1000 + second * 7 % 22 * 0x10];
    });
    assert!(conditions.iter().all(|condition| *condition == Condition::Working));
    // In one tight loop, but it reads.
    let conditions = Story::new().watch(300, |_, now| now.disk_bytes += 64 << 10);
    assert!(conditions.iter().all(|condition| *condition == Condition::Working));
}

#[test]
fn a_screen_that_slowly_goes_on_is_not_still() {
    let conditions = Story::new().watch(200, |second, now| now.screen = picture(second / 20));
    assert!(!conditions.iter().any(still), "{conditions:?}");
}

#[test]
fn it_wakes_up_again() {
    let mut story = Story::new();
    let quiet = story.watch(40, |_, _| {});
    assert!(quiet.last().is_some_and(still));
    assert_eq!(story.watch(1, |_, now| now.serial_bytes += 1), [Condition::Working]);
    assert!(story.watch(31, |_, _| {}).last().is_some_and(still));
}

proptest! {
    #[test]
    fn one_live_signal_is_enough_against_still(
        which in 0..3_usize,
        every in 1..15_u64,
        length in 40..120_u64,
    ) {
        let conditions = Story::new().watch(length, |second, now| {
            if second % every == 0 {
                match which {
                    0 => now.serial_bytes += 1,
                    1 => now.disk_bytes += 10_000,
                    _ => now.screen = picture(second + 1),
                }
            }
        });
        prop_assert!(!conditions.iter().any(still));
    }

    #[test]
    fn still_is_never_said_early_and_always_in_the_end(
        busy in 0..50_u64,
        screens in 1..=4_u64,
        pages in 1..=16_u64,
    ) {
        let mut story = Story::new();
        story.watch(busy, |_, now| now.serial_bytes += 3);
        let conditions = story.watch(100, |second, now| {
            now.screen = picture(second % screens);
            now.program_counters = vec![(second % pages) << 12];
        });
        let first = conditions.iter().position(still);
        prop_assert!(first.is_some_and(|first| first >= 29), "{first:?}");
        for (second, condition) in conditions.iter().enumerate() {
            if let Condition::Still { since } = condition {
                let now = (busy + second as u64 + 1) as f64;
                prop_assert!(now - since >= WINDOW);
            }
        }
    }

    #[test]
    fn more_screens_than_a_cycle_are_never_still(screens in 5..40_u64) {
        let conditions = Story::new().watch(100, |second, now| now.screen = picture(second % screens));
        prop_assert!(!conditions.iter().any(still));
    }
}
