//! Ways for the probe that something has to be done for: guest agent, root's shell, typing at the boot menu.

use std::sync::Mutex;

use isokiln_core::boot::hello_command;
use serde_json::{Value, json};

use super::body::typed;
use super::fake::{Act, End};
use super::*;

/// What a made-up part of the machine was told.
type Told = Arc<Mutex<Vec<String>>>;

fn login_at(seconds: f64) -> Agenda {
    let mut serial = good_serial();
    serial.push((seconds, Act::Say(b"live login: ".to_vec())));
    serial
}

/// Boots a machine into which the probe may come these ways.
async fn come(channels: &[Channel], machine: Machine) -> Outcome {
    run_rides(vec![Ride::of_medium(channels.to_vec())], vec![machine], &[CheckSpec::boot()]).await
}

fn came_by(outcome: &Outcome) -> Option<Channel> {
    outcome.report().lanes.iter().find_map(|lane| lane.channel)
}

/// A guest agent that takes so long for each answer, and notes what it is asked for.
fn agent(told: &Told, seconds: f64) -> Actor {
    let told = told.clone();
    Actor::new(vec![], move |said| {
        let asked: Value = serde_json::from_str(said).expect("isokiln speaks JSON");
        told.lock().unwrap().push(said.to_owned());
        let answer = match asked["execute"].as_str() {
            Some("guest-sync") => json!({"return": asked["arguments"]["id"]}),
            Some("guest-exec") => json!({"return": {"pid": 77}}),
            other => panic!("{other:?}"),
        };
        vec![(seconds, line(&answer.to_string()))]
    })
}

/// A probe that somebody has to start.
fn started() -> Actor {
    fake::probe(80.0, |asked| vec![(1.0, healthy(asked))])
}

#[tokio::test(start_paused = true)]
async fn a_guest_agent_that_takes_its_time_starts_the_probe() {
    let told = Told::default();
    let asked = told.clone();
    let machine = Machine { agent: Box::new(move |_| agent(&asked, 3.0)), probe: started(), ..good() };
    let outcome = come(&[Channel::Credentials, Channel::GuestAgent], machine).await;
    assert_eq!((came_by(&outcome), outcome.verdicts()), (Some(Channel::GuestAgent), vec![Verdict::Pass]));
    let told = told.lock().unwrap();
    let [_, exec] = &told[..] else { panic!("asked once: {told:?}") };
    let exec: Value = serde_json::from_str(exec).unwrap();
    assert_eq!(exec["arguments"]["arg"], json!(["-c", hello_command()]));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_answer_as_one_is_asked_again_on_a_new_connection() {
    type First = fn() -> Actor;
    let firsts: [(&str, First); 4] = [
        ("leaves it unanswered", || Actor::stubborn(vec![])),
        ("hangs up", || Actor::stubborn(vec![(0.5, Act::HangUp)])),
        ("talks nonsense", || Actor::new(vec![], |_| vec![(0.1, line("\u{1}login: nonsense {"))])),
        ("answers another request", || Actor::new(vec![], |_| vec![(0.1, line(r#"{"return": 1}"#))])),
    ];
    for (what, first) in firsts {
        let told = Told::default();
        let asked = told.clone();
        let agent = move |number| if number == 1 { first() } else { agent(&asked, 0.1) };
        let machine = Machine { agent: Box::new(agent), probe: started(), ..good() };
        let outcome = come(&[Channel::Credentials, Channel::GuestAgent], machine).await;
        assert_eq!(came_by(&outcome), Some(Channel::GuestAgent), "{what}");
        assert_eq!(outcome.host.ledger.agent_connections.load(Ordering::SeqCst), 2, "{what}");
        assert_eq!(told.lock().unwrap().len(), 2, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_never_makes_sense_costs_no_more_than_the_probe_does() {
    let noise = || Actor::new(vec![(0.0, line("{{{{"))], |_| vec![(0.0, line("null")), (0.0, Act::HangUp)]);
    let machine = Machine {
        agent: Box::new(move |_| noise()),
        probe: Actor::stubborn(vec![]),
        serial: Box::new(login_at(50.0)),
        ..good()
    };
    let outcome = come(&[Channel::GuestAgent], machine).await;
    assert_eq!(outcome.report().cause, Some(Cause::NoProbe));
    assert!((94.0..97.0).contains(&outcome.seconds), "{}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_may_not_run_programs_says_so_in_the_report() {
    let refuses = |_| {
        Actor::new(vec![], |said| {
            let asked: Value = serde_json::from_str(said).unwrap();
            let answer = match asked["execute"].as_str() {
                Some("guest-sync") => json!({"return": asked["arguments"]["id"]}),
                _ => json!({"error": {"class": "CommandNotFound", "desc": "guest-exec has been disabled"}}),
            };
            vec![(0.1, line(&answer.to_string()))]
        })
    };
    let machine = Machine {
        agent: Box::new(refuses),
        probe: Actor::stubborn(vec![]),
        serial: Box::new(login_at(50.0)),
        ..good()
    };
    let outcome = come(&[Channel::GuestAgent], machine).await;
    assert_eq!((came_by(&outcome), outcome.verdicts()), (None, vec![Verdict::Inconclusive]));
    let notes = outcome.report().notes.join("\n");
    assert!(notes.contains("guest-exec has been disabled"), "{notes}");
    assert_eq!(outcome.host.ledger.agent_connections.load(Ordering::SeqCst), 1, "a refusal is an answer");
}

#[tokio::test(start_paused = true)]
async fn no_agent_is_asked_once_the_probe_is_there() {
    let probe = fake::probe(40.0, |asked| vec![(100.0, healthy(asked))]);
    let outcome = come(&[Channel::Credentials, Channel::GuestAgent], Machine { probe, ..good() }).await;
    assert_eq!(came_by(&outcome), Some(Channel::Credentials));
    let connections = outcome.host.ledger.agent_connections.load(Ordering::SeqCst);
    assert!((1..=3).contains(&connections), "from the initramfs on, every 12 seconds: {connections}");
}

#[tokio::test(start_paused = true)]
async fn qemu_that_ends_while_the_agent_is_asked_leaves_its_last_words() {
    // The agent's connection is lost a moment before the end is known.
    let end = End { known: 21.0, closed: 19.5, status: 1, words: "no memory" };
    let machine = Machine { end: Some(end), agent: Box::new(|_| Actor::stubborn(vec![])), ..good() };
    let outcome = come(&[Channel::GuestAgent], machine).await;
    assert_eq!(outcome.error().to_string(), "QEMU ended with status 1: no memory");
}

/// A getty on the second serial port that lets these users in, with the prompt of their shell.
fn getty(told: &Told, known: &'static [(&'static str, &'static str)], prompt: &'static str) -> Actor {
    let told = told.clone();
    let mut user: Option<String> = None;
    let mut inside = false;
    Actor::new(vec![(50.0, Act::Say(b"\r\nDebian GNU/Linux\r\n\r\nlive login: ".to_vec()))], move |said| {
        told.lock().unwrap().push(said.to_owned());
        let answer = match user.take() {
            _ if inside => String::new(),
            None => {
                user = Some(said.to_owned());
                format!("{said}\r\nPassword: ")
            }
            Some(user) if known.contains(&(user.as_str(), said)) => {
                inside = true;
                format!("\r\nLinux live 6.12 #1 SMP\r\n{prompt}")
            }
            Some(_) => "\r\n\r\nLogin incorrect\r\nlive login: ".to_owned(),
        };
        vec![(0.5, Act::Say(answer.into_bytes()))]
    })
}

#[tokio::test(start_paused = true)]
async fn a_getty_is_tried_with_known_users_until_one_fits() {
    let told = Told::default();
    let shell = getty(&told, &[("root", "")], "root@live:~# ");
    let outcome = come(&[Channel::SerialGetty], Machine { shell, probe: started(), ..good() }).await;
    assert_eq!((came_by(&outcome), outcome.verdicts()), (Some(Channel::SerialGetty), vec![Verdict::Pass]));
    assert_eq!(*told.lock().unwrap(), ["user", "live", "root", "", hello_command()]);
    assert!(outcome.file("shell.log").contains("Login incorrect"));
}

#[tokio::test(start_paused = true)]
async fn a_users_shell_needs_sudo_and_roots_does_not() {
    let told = Told::default();
    let shell = getty(&told, &[("user", "live")], "user@live:~$ ");
    let outcome = come(&[Channel::SerialGetty], Machine { shell, probe: started(), ..good() }).await;
    assert_eq!(came_by(&outcome), Some(Channel::SerialGetty));
    let last = told.lock().unwrap().last().cloned();
    assert_eq!(last, Some(format!("sudo sh -c '{}'", hello_command())));

    let told = Told::default();
    let heard = told.clone();
    let prompt = vec![(50.0, Act::Say(b"root@(none):/".to_vec())), (50.5, Act::Say(b"# ".to_vec()))];
    let shell = Actor::new(prompt, move |said| {
        heard.lock().unwrap().push(said.to_owned());
        vec![(0.1, Act::Say(b"root@(none):/# ".to_vec()))]
    });
    let outcome = come(&[Channel::SerialGetty], Machine { shell, probe: started(), ..good() }).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass]);
    assert_eq!(*told.lock().unwrap(), [hello_command()], "once, whatever comes after it");
}

#[tokio::test(start_paused = true)]
async fn a_getty_that_lets_nobody_in_is_left_alone_after_some_tries() {
    let told = Told::default();
    let machine = Machine {
        shell: getty(&told, &[], ""),
        probe: Actor::stubborn(vec![]),
        serial: Box::new(login_at(60.0)),
        ..good()
    };
    let outcome = come(&[Channel::SerialGetty], machine).await;
    assert_eq!(outcome.report().cause, Some(Cause::NoProbe));
    let tries = told.lock().unwrap().len();
    assert!((10..=20).contains(&tries), "{tries}");
}

#[tokio::test(start_paused = true)]
async fn a_probe_without_a_driver_for_its_port_speaks_on_the_second_serial_port() {
    let shell = fake::probe(40.0, |asked| vec![(1.0, healthy(asked))]);
    let machine = Machine { shell, probe: Actor::stubborn(vec![]), ..good() };
    let outcome = come(&[Channel::Credentials], machine).await;
    assert_eq!((came_by(&outcome), outcome.verdicts()), (Some(Channel::Credentials), vec![Verdict::Pass]));
    assert!(outcome.report().inventory.is_some());
}

/// The isolinux menu with its editor, which may mistype; starts at Enter, and forgets an edit at Escape.
fn editor(mistypes: bool) -> impl Fn(f64, &[Key]) -> Pose {
    move |seconds, keys| {
        let waits = |memory: Vec<u8>| Pose::new(Processor::Waits, 0, Screen::Vga(memory));
        if keys.iter().any(|(_, name)| name == "ret") {
            return healthy_body(seconds);
        }
        let edits = keys
            .iter()
            .position(|(_, name)| name == "tab")
            .filter(|_| keys.iter().all(|(_, name)| name != "esc"));
        let Some(tab) = edits else { return waits(WAITING.to_vec()) };
        let mut text = typed(&keys[tab + 1..]);
        if mistypes {
            text = text.replacen("debug", "deug", 1);
        }
        let mut memory = EDITOR.to_vec();
        // The line is on rows 17 and 18, and goes on from there.
        let end = (17 * 80..19 * 80).rev().find(|cell| memory[cell * 2] != b' ').unwrap() + 1;
        for (index, byte) in text.bytes().enumerate() {
            memory[(end + index) * 2] = byte;
        }
        waits(memory)
    }
}

#[tokio::test(start_paused = true)]
async fn a_menu_entry_is_started_when_it_shows_what_was_typed() {
    let told = Told::default();
    let heard = told.clone();
    let shell = Actor::new(vec![(60.0, Act::Say(b"sh-5.2# ".to_vec()))], move |said| {
        heard.lock().unwrap().push(said.to_owned());
        vec![]
    });
    let machine = Machine { shell, probe: started(), ..dark(editor(false)) };
    let outcome = come(&[Channel::BootMenu], machine).await;
    assert_eq!((came_by(&outcome), outcome.verdicts()), (Some(Channel::BootMenu), vec![Verdict::Pass]));
    let keys = outcome.keys(0);
    assert_eq!((keys.first().unwrap().as_str(), keys.last().unwrap().as_str()), ("tab", "ret"));
    assert_eq!(keys.iter().filter(|key| *key == "ret").count(), 1);
    assert_eq!(*told.lock().unwrap(), [hello_command()]);
}

#[tokio::test(start_paused = true)]
async fn a_mistyped_entry_is_left_and_the_menu_started_as_it_is() {
    for unattended in [false, true] {
        let machine = Machine {
            serial: Box::new(vec![(200.0, Act::Say(b"live login: ".to_vec()))]),
            ..dark(editor(true))
        };
        let folder = TempDir::new().unwrap();
        let rides = vec![Ride::of_medium(vec![Channel::BootMenu])];
        let request = BootRequest { rides, unattended, ..request(&folder, &[CheckSpec::boot()]) };
        let outcome =
            run_request(FakeHost::new([Ok(machine)]), folder, &request, std::future::pending()).await;
        let keys = outcome.keys(0);
        assert_eq!(keys[keys.len() - 2..], ["esc", "ret"], "Enter comes after the edit was left");
        assert_eq!(outcome.report().cause, Some(Cause::NoProbe), "the menu waited because of the edit");
        assert!(outcome.report().notes[0].contains("does not show what was typed"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_menu_that_cannot_be_read_is_started_as_it_is() {
    let body = |seconds: f64, keys: &[Key]| match keys {
        [] => Pose::new(Processor::Waits, 0, Screen::Grey(99)),
        _ => healthy_body(seconds),
    };
    let firmware = vec![(0.5, line("SeaBIOS (version 1.16)"))];
    let machine = Machine { firmware, probe: started(), ..dark(body) };
    let outcome = come(&[Channel::BootMenu], machine).await;
    assert_eq!((outcome.keys(0), outcome.verdicts()), (vec!["ret".to_owned()], vec![Verdict::Pass]));
}

/// A console on the screen from 50 seconds on, which lets one user in; keys show what they type, but for passwords.
fn console(user: &'static str, password: &'static str, prompt: &'static str) -> impl Fn(f64, &[Key]) -> Pose {
    move |seconds, keys| {
        if seconds < 50.0 {
            return healthy_body(seconds);
        }
        let mut rows = "Debian GNU/Linux live tty1\n\nlive login: ".to_owned();
        let said: Vec<_> = keys.split(|(_, name)| name == "ret").map(typed).collect();
        let (open, lines) = said.split_last().unwrap();
        let mut asked: Option<&str> = None;
        let mut inside = false;
        for line in lines {
            rows += &match asked.take() {
                _ if inside => format!("{line}\n"),
                None => {
                    asked = Some(line);
                    format!("{line}\nPassword: ")
                }
                Some(name) if name == user && line == password => {
                    inside = true;
                    format!("\n{prompt}")
                }
                Some(_) => "\n\nLogin incorrect\nlive login: ".to_owned(),
            };
        }
        if asked.is_none() {
            rows += open;
        }
        Pose::text(Processor::Halted, rows)
    }
}

#[tokio::test(start_paused = true)]
async fn a_console_is_logged_in_to_and_the_probe_started_there() {
    for (user, password, prompt) in [("user", "live", "user@live:~$ "), ("root", "", "root@live:~# ")] {
        let machine = Machine { body: Arc::new(console(user, password, prompt)), probe: started(), ..good() };
        let outcome = come(&[Channel::Console], machine).await;
        assert_eq!(
            (came_by(&outcome), outcome.verdicts()),
            (Some(Channel::Console), vec![Verdict::Pass]),
            "{user}"
        );
        let ends = outcome.keys(0).iter().filter(|key| *key == "ret").count();
        // Each pair that is tried has two, and the command one.
        assert_eq!(ends, if user == "user" { 3 } else { 5 });
    }
}
