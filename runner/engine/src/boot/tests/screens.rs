//! Checks that look at the screen.

use isokiln_core::boot::screen::Frame;
use isokiln_core::boot::{CheckDefinition, Lane, OnScreen, Reference};

use super::fake::Act;
use super::*;

const CAPTURED: &[u8] = include_bytes!("../../../../core/src/boot/screen/fixtures/memtest.png");

fn within(seconds: u64, check: CheckSpec) -> CheckSpec {
    CheckSpec { within: Some(Duration::from_secs(seconds)), ..check }
}

/// What was captured as a PPM, with a rectangle (left, top, width, height) painted over.
fn painted(area: [u32; 4]) -> Vec<u8> {
    let captured = Frame::from_png(CAPTURED).unwrap();
    let [left, top, width, height] = area;
    let mut ppm = format!("P6\n{} {}\n255\n", captured.width(), captured.height()).into_bytes();
    for y in 0..captured.height() {
        for x in 0..captured.width() {
            let is_painted = (left..left + width).contains(&x) && (top..top + height).contains(&y);
            let stripe = if (x + y) % 16 < 8 { [255; 3] } else { [0; 3] };
            ppm.extend(if is_painted { stripe } else { captured.pixel(x, y).unwrap() });
        }
    }
    ppm
}

/// A machine on whose screen something is shown from the tenth second on.
fn shows(screen: Screen) -> Machine {
    let body = move |seconds: f64, _: &[Key]| {
        let healthy = healthy_body(seconds);
        if seconds < 10.0 { healthy } else { Pose { screen: screen.clone(), ..healthy } }
    };
    Machine { body: Arc::new(body), ..good() }
}

#[tokio::test(start_paused = true)]
async fn words_that_are_read_on_the_screen_are_enough() {
    let text = Screen::Text("\n  Welcome to the demo\n".to_owned());
    let outcome = run(shows(text), &[check("screen:Welcome to"), check("screen:Goodbye")]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass, Verdict::Fail]);
    let welcome = outcome.check("screen: Welcome to");
    assert_eq!(
        (welcome.lane, &welcome.evidence[..]),
        (Lane::Faithful, &["  Welcome to the demo".to_owned()][..])
    );
    assert!((10.0..12.0).contains(&welcome.seconds), "{}", welcome.seconds);
    assert_eq!(outcome.check("screen: Goodbye").summary, "never read on the screen");
    assert!((299.0..302.0).contains(&outcome.seconds), "the check's own patience: {}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn words_on_a_screen_that_shows_no_text_cannot_be_tested() {
    let outcome =
        run(shows(Screen::Grey(3)), &[CheckSpec::boot(), within(60, check("screen:Welcome"))]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass, Verdict::Inconclusive]);
    let summary = &outcome.check("screen: Welcome").summary;
    assert!(summary.contains("no text could be read"), "{summary}");
    assert!((60.0..62.0).contains(&outcome.seconds), "{}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn a_picture_is_compared_outside_its_masks() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("wanted.png");
    fs::write(&path, CAPTURED).unwrap();
    let area = [200, 100, 320, 200];
    let picture = |name: &str, masks: Vec<[u32; 4]>| {
        let path = path.to_str().unwrap().to_owned();
        let what = Check::Screen(OnScreen::Picture(Reference { path, similarity: 0.95, masks }));
        CheckSpec { what, label: Some(name.to_owned()), within: Some(Duration::from_secs(50)) }
    };
    let checks = [picture("whole", vec![]), picture("masked", vec![area])];
    let outcome = run(shows(Screen::Ppm(painted(area))), &checks).await;
    assert_eq!(outcome.check("screen: masked").verdict, Verdict::Pass);
    let whole = outcome.check("screen: whole");
    assert_eq!(whole.verdict, Verdict::Fail);
    assert!(whole.summary.contains("never like the picture: ") && whole.summary.contains("95 % wanted"));

    let outcome = run(shows(Screen::Ppm(painted([0; 4]))), &checks).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass; 2]);
    assert!(outcome.check("screen: whole").summary.contains("100 %"));
}

#[tokio::test(start_paused = true)]
async fn a_reference_that_is_no_picture_is_told_before_a_machine_is_watched() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("wanted.png");
    let wanted = check(&format!("picture:{}", path.display()));
    let outcome = run(good(), std::slice::from_ref(&wanted)).await;
    assert!(outcome.error().to_string().contains("wanted.png: "), "{}", outcome.error());
    fs::write(&path, "GIF89a").unwrap();
    let outcome = run(good(), &[wanted]).await;
    assert!(matches!(outcome.error(), BootError::Reference { .. }), "{}", outcome.error());
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_the_login_prompt_is_waited_for() {
    let body = |seconds: f64, _: &[Key]| match seconds {
        ..150.0 => healthy_body(seconds),
        _ => Pose { screen: Screen::Text("Welcome".to_owned()), ..healthy_body(seconds) },
    };
    let mut serial = good_serial();
    serial.push((40.0, Act::Say(b"live login: ".to_vec())));
    let machine = Machine { serial: Box::new(serial), ..dark(body) };
    let rides = vec![Ride::of_medium(vec![])];
    let checks = [CheckSpec::boot(), check("screen:Welcome")];
    let outcome = run_rides(rides, vec![machine], &checks).await;
    assert_eq!(outcome.verdicts(), [Verdict::Inconclusive, Verdict::Pass]);
    assert_eq!(outcome.report().cause, Some(Cause::NoProbe));
}

#[tokio::test(start_paused = true)]
async fn a_boot_that_fails_fails_what_was_to_be_seen() {
    let mut serial = good_serial();
    serial.push((32.0, line("[   27.0] Kernel panic - not syncing: Fatal exception")));
    let body = |seconds: f64, _: &[Key]| Pose::text(Processor::Kernel, format!("at work {seconds:.0}"));
    let machine = Machine { serial: Box::new(serial), probe: Actor::stubborn(vec![]), ..dark(body) };
    let outcome = run(machine, &[CheckSpec::boot(), check("screen:Welcome")]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Fail; 2]);
    assert!(outcome.seconds < 40.0, "{}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn a_command_with_a_time_is_asked_until_it_holds_and_no_longer() {
    let probe = |good: usize| {
        let mut times = 0;
        fake::probe(40.0, move |asked| {
            times += usize::from(asked.script == "test");
            vec![(1.0, if times < good { asked.answer(1, "not yet\n") } else { asked.answer(0, "there\n") })]
        })
    };
    let wanted = within(30, command("test"));
    let outcome = run(Machine { probe: probe(5), ..good() }, std::slice::from_ref(&wanted)).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass]);
    assert!((52.0..58.0).contains(&outcome.check("command: test").seconds));

    let outcome = run(Machine { probe: probe(50), ..good() }, &[wanted]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Fail]);
    let result = outcome.check("command: test");
    assert!(result.summary.starts_with("exit status 1, expected 0 (asked "), "{}", result.summary);
    assert!((70.0..75.0).contains(&result.seconds), "{}", result.seconds);
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_open_must_also_be_seen() {
    let definition = "summary = \"x\"\npatience = 20\ngraphical = true\nscript = 'true'\n";
    let definition = CheckDefinition::parse("installer", definition).unwrap();
    let installer = CheckCatalog::new([definition]).parse("installer").unwrap();
    let open = |screen: Screen| {
        let installer = installer.clone();
        let answers = move |asked: &fake::Asked| {
            let answer = if asked.is(&installer) {
                asked.answer(0, "session 7 of 1000\nlook at 100,100 200x50\nthe window is open\n")
            } else {
                healthy(asked)
            };
            vec![(1.0, answer)]
        };
        Machine { probe: fake::probe(40.0, answers), ..shows(screen) }
    };
    let seen =
        run(open(Screen::Ppm(painted([120, 110, 40, 20]))), &[CheckSpec::boot(), installer.clone()]).await;
    assert_eq!(seen.verdicts(), [Verdict::Pass, Verdict::Pass]);
    assert_eq!(seen.report().reached, Some(Phase::Desktop));
    assert_eq!(seen.check("installer").picture.as_deref(), Some("screens/installer.png"));
    assert!(seen.folder.path().join("screens/installer.png").exists());
    let black = run(open(Screen::Grey(0)), &[CheckSpec::boot(), installer.clone()]).await;
    assert_eq!(black.verdicts(), [Verdict::Pass, Verdict::Fail]);
    let summary = &black.check("installer").summary;
    assert_eq!(summary, "the window is open, but the screen shows nothing there");
}
