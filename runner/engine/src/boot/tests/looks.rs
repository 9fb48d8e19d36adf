//! What is known of a machine that nobody speaks for: hangs, memory tests, countdowns, menus, silence.

use super::fake::Act;
use super::*;

const LINUX: &str = "[    0.000000] Linux version 6.12.1";

async fn alone(machine: Machine) -> Outcome {
    run(machine, &[CheckSpec::boot()]).await
}

/// A kernel that stops after ten seconds.
fn stops(processor: Processor) -> Machine {
    let body = move |seconds: f64, _: &[Key]| match seconds {
        ..5.0 => Pose::new(Processor::Waits, 0, Screen::Grey(0)),
        ..10.0 => Pose::new(Processor::Kernel, (seconds * 1e6) as u64, Screen::Grey(1)),
        _ => Pose::new(processor, 10_000_000, Screen::Grey(2)),
    };
    Machine { serial: Box::new(vec![(5.0, line(LINUX))]), ..dark(body) }
}

#[tokio::test(start_paused = true)]
async fn a_machine_on_which_nothing_moves_hangs_and_is_called_dead_within_a_minute() {
    for processor in [Processor::Halted, Processor::Loops] {
        let outcome = alone(stops(processor)).await;
        assert_eq!(outcome.report().cause, Some(Cause::Hang), "{processor:?}");
        assert_eq!(outcome.verdicts(), [Verdict::Fail]);
        assert_eq!(outcome.check("boot").evidence, [LINUX], "what was said last");
        assert!((50.0..70.0).contains(&outcome.seconds), "{processor:?}: {}", outcome.seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_of_which_one_thing_moves_does_not_hang() {
    let halted = |seconds: f64| stops(Processor::Halted).body.as_ref()(seconds, &[]);
    let disk = move |seconds: f64, _: &[Key]| Pose { disk: (seconds * 1e5) as u64, ..halted(seconds) };
    let screen = move |seconds: f64, _: &[Key]| Pose {
        screen: Screen::Grey((seconds as u64 % 250) as u8),
        ..halted(seconds)
    };
    let linux = || -> Agenda { vec![(5.0, line(LINUX))] };
    let mut chatter = linux();
    chatter.extend((1..50).map(|step| (f64::from(step) * 10.0, line("still here"))));
    for (what, machine) in [
        ("serial port", Machine { serial: Box::new(chatter), ..stops(Processor::Halted) }),
        ("disk", Machine { serial: Box::new(linux()), ..dark(disk) }),
        ("screen", Machine { serial: Box::new(linux()), ..dark(screen) }),
        ("processor", stops(Processor::Kernel)),
    ] {
        let outcome = alone(machine).await;
        assert_eq!(outcome.report().cause, Some(Cause::TooSlow), "{what}");
        assert!(outcome.seconds > 400.0, "{what}: {}", outcome.seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn a_blinking_cursor_is_no_sign_of_life() {
    let body = |seconds: f64, _: &[Key]| {
        let screen = Screen::Grey(if (seconds as u64).is_multiple_of(2) { 7 } else { 8 });
        Pose { screen, ..stops(Processor::Halted).body.as_ref()(seconds, &[]) }
    };
    let outcome = alone(Machine { serial: Box::new(vec![(5.0, line(LINUX))]), ..dark(body) }).await;
    assert_eq!(outcome.report().cause, Some(Cause::Hang));
    assert!(outcome.seconds < 70.0, "{}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn a_memory_test_is_neither_a_boot_nor_a_hang() {
    let tests = |seconds: f64, _: &[Key]| {
        let mut memory = MEMTEST.to_vec();
        // The clock and the progress of the test.
        for (at, number) in [(7 * 160 + 116, seconds as u64 % 10), (7 * 160 + 114, seconds as u64 / 10 % 6)] {
            memory[at] = b'0' + number as u8;
        }
        memory[2 * 160 + 80] = b'0' + (seconds * 7.0) as u8 % 10;
        Pose::new(Processor::Tests, 500_000, Screen::Vga(memory))
    };
    // Of an ISO with Linux, it might be a menu that moves.
    for (holds_linux, seconds) in [(false, 90.0..130.0), (true, 330.0..370.0)] {
        let outcome = of_iso(dark(tests), |request| request.iso.holds_linux = holds_linux).await;
        assert_eq!(outcome.report().cause, Some(Cause::NotLinux), "{holds_linux}");
        assert_eq!(outcome.verdicts(), [Verdict::Inconclusive]);
        assert_eq!(outcome.keys(0), Vec::<String>::new());
        let evidence = outcome.check("boot").evidence.join("\n");
        assert!(evidence.contains("Scroll Lock"), "what the screen says: {evidence}");
        assert!(seconds.contains(&outcome.seconds), "{}", outcome.seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn a_countdown_is_waited_for() {
    let counts = |seconds: f64, _: &[Key]| {
        if seconds >= 90.0 {
            return healthy_body(seconds);
        }
        let mut memory = COUNTDOWN.to_vec();
        let number =
            memory.windows(5).position(|cells| *cells == [b'6', cells[1], b'0', cells[1], b'0']).unwrap();
        for (index, digit) in format!("{:03}", 600 - seconds as u64).bytes().enumerate() {
            memory[number + 2 * index] = digit;
        }
        Pose::new(Processor::Waits, 0, Screen::Vga(memory))
    };
    let probe = fake::probe(130.0, |asked| vec![(1.0, healthy(asked))]);
    let outcome = alone(Machine { probe, ..dark(counts) }).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass], "{:?}", outcome.report());
    assert_eq!(outcome.keys(0), Vec::<String>::new());
    assert_eq!(outcome.report().menu.len(), 3);
}

/// A boot menu that waits until Enter is pressed.
fn menu() -> Machine {
    let body = |seconds: f64, keys: &[Key]| match keys {
        [] => Pose::new(Processor::Waits, 0, Screen::Vga(WAITING.to_vec())),
        _ => healthy_body(seconds),
    };
    Machine { probe: good().probe, ..dark(body) }
}

#[tokio::test(start_paused = true)]
async fn enter_is_pressed_once_at_a_menu_that_waits_and_told() {
    let outcome = alone(menu()).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass]);
    assert_eq!(outcome.keys(0), ["ret"]);
    let [note] = &outcome.report().notes[..] else { panic!("{:?}", outcome.report().notes) };
    assert!(note.contains("pressed Enter at the boot menu"), "{note}");
    assert_eq!(outcome.report().menu[0], "Live system (amd64)");

    // A menu that does not care.
    let deaf = dark(|_, _| Pose::new(Processor::Waits, 0, Screen::Vga(WAITING.to_vec())));
    let outcome = alone(deaf).await;
    assert_eq!((outcome.report().cause, outcome.keys(0)), (Some(Cause::MenuWaits), vec!["ret".to_owned()]));
    assert_eq!(outcome.verdicts(), [Verdict::Fail]);
    assert!(outcome.seconds < 70.0, "{}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn a_menu_that_waits_fails_where_nobody_is_there() {
    let outcome = of_iso(menu(), |request| request.unattended = true).await;
    assert_eq!(outcome.report().cause, Some(Cause::MenuWaits));
    assert_eq!(outcome.verdicts(), [Verdict::Fail]);
    assert_eq!(outcome.keys(0), Vec::<String>::new());
    assert_eq!(outcome.phases(), [Phase::BootMenu]);
    assert!(outcome.check("boot").evidence.concat().contains("Press [Tab]"), "the screen says so");
}

#[tokio::test(start_paused = true)]
async fn a_system_that_says_nothing_is_judged_by_what_it_draws_and_what_it_holds() {
    // Comes up within twenty seconds and then waits.
    let body = |desktop: bool| {
        move |seconds: f64, _: &[Key]| match seconds {
            ..5.0 => Pose::new(Processor::Waits, 0, Screen::Grey(0)),
            ..9.0 => Pose::new(Processor::Kernel, (seconds * 1e6) as u64, Screen::Grey(1)),
            ..20.0 => Pose::new(Processor::Program, (seconds * 1e6) as u64, Screen::Grey(1)),
            _ => Pose::new(Processor::Halted, 20_000_000, Screen::Grey(if desktop { 200 } else { 1 })),
        }
    };
    for (desktop, takes_credentials, cause, verdict) in [
        (false, true, Cause::Hang, Verdict::Fail),
        (false, false, Cause::Silent, Verdict::Inconclusive),
        (true, true, Cause::NoProbe, Verdict::Inconclusive),
        (true, false, Cause::NoProbe, Verdict::Inconclusive),
    ] {
        let iso = |request: &mut BootRequest| request.iso.takes_credentials = takes_credentials;
        let outcome = of_iso(dark(body(desktop)), iso).await;
        let what = format!("desktop: {desktop}, credentials: {takes_credentials}");
        assert_eq!((outcome.report().cause, outcome.report().verdict), (Some(cause), verdict), "{what}");
        assert_eq!(outcome.phases(), [Phase::Kernel, Phase::Initramfs], "{what}");
        assert!(outcome.seconds < 80.0, "{what}: {}", outcome.seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_on_the_screen_stays_one_though_a_program_ran_a_moment_before() {
    let panic = "[    7.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100";
    let panic_row = &panic[..78];
    let body = move |seconds: f64, _: &[Key]| match seconds {
        ..5.0 => Pose::text(Processor::Waits, "ISOLINUX 6.04"),
        ..12.0 => Pose::text(Processor::Kernel, "[    0.000000] Linux version 6.12.1"),
        // Processors are looked at before the screen.
        ..13.0 => Pose::text(Processor::Program, panic_row),
        _ => Pose::text(Processor::Halted, panic_row),
    };
    let outcome = alone(dark(body)).await;
    assert_eq!(outcome.report().cause, Some(Cause::KernelPanic));
    assert_eq!(outcome.check("boot").evidence, [panic_row]);
    assert_eq!(outcome.report().reached, Some(Phase::Initramfs));
    assert!(outcome.seconds < 20.0, "{}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn a_serial_port_that_chatters_drowns_neither_looks_nor_probe() {
    let mut serial: Agenda = (0..4000).map(|step| (f64::from(step) * 0.02, line("chatter"))).collect();
    serial.extend(good_serial());
    let bell = Act::Say(vec![7; 200_000]);
    serial.push((12.0, bell));
    let outcome = alone(Machine { serial: Box::new(serial), ..good() }).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass]);
    assert!(outcome.seconds < 50.0, "{}", outcome.seconds);
    assert!(outcome.pictures().len() >= 5, "{:?}", outcome.pictures());
}

#[tokio::test(start_paused = true)]
async fn a_menu_that_stays_on_the_screen_is_no_dialog_of_what_was_started() {
    for (later, cause) in [(WAITING, Cause::Hang), (COUNTDOWN, Cause::NoProbe)] {
        let machine = dark(move |seconds, _| {
            let (processor, memory) = match seconds {
                ..3.0 => (Processor::Waits, WAITING),
                ..7.0 => (Processor::Kernel, WAITING),
                ..9.0 => (Processor::Program, WAITING),
                _ => (Processor::Halted, later),
            };
            Pose::new(processor, 0, Screen::Vga(memory.to_vec()))
        });
        // Whether the probe would come in is not known.
        let outcome = of_iso(machine, |request| request.iso.takes_credentials = false).await;
        assert_eq!(outcome.report().cause, Some(cause));
    }
}
