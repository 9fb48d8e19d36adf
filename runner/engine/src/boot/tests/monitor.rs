//! QEMU's monitor misbehaves.

use serde_json::json;

use super::fake::{Act, GREETING, monitor, monitor_greeting};
use super::*;

/// A good machine with another monitor.
fn with(monitor: impl FnMut(usize) -> Actor + Send + 'static) -> Machine {
    Machine { monitor: Box::new(monitor), ..good() }
}

async fn passes(machine: Machine) -> Outcome {
    let outcome = run(machine, &[CheckSpec::boot(), wlan()]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass; 2], "{:?}", outcome.report().checks);
    outcome
}

/// The pictures of a good boot, by their labels.
const LABELS: [&str; 4] = ["boot-menu", "kernel", "initramfs", "userspace"];

fn labels(outcome: &Outcome) -> Vec<String> {
    let pictures = outcome.pictures();
    let labels = pictures.iter().filter_map(|name| name.strip_suffix(".png")?.split_once('-'));
    labels.map(|(_, label)| label.to_owned()).collect()
}

/// An answer that is sent after so many seconds.
fn late(agenda: Agenda, seconds: f64) -> Agenda {
    agenda.into_iter().map(|(at, act)| (at + seconds, act)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_cannot_be_worked_with_breaks_the_test() {
    type Case = (&'static str, &'static str, fn() -> Actor);
    let cases: [Case; 9] = [
        ("no greeting", "the greeting", || Actor::stubborn(vec![])),
        ("hangs up at once", "the greeting", || Actor::stubborn(vec![(0.0, Act::HangUp)])),
        ("greets in another language", "the greeting", || {
            Actor::stubborn(vec![(0.0, line("220 mail.example.org ESMTP"))])
        }),
        ("half a greeting", "the greeting", || {
            Actor::stubborn(vec![(0.0, Act::Say(GREETING.as_bytes()[..40].to_vec())), (1.0, Act::HangUp)])
        }),
        ("a line without end", "the greeting", || {
            Actor::stubborn(vec![(0.0, Act::Say(vec![b'x'; 5 << 20])), (0.0, line(""))])
        }),
        ("does not answer the handshake", "the greeting", || monitor(vec![], |_| vec![])),
        ("refuses the handshake", "the greeting", || monitor(vec![], |command| command.refuse("no"))),
        ("refuses to start the guest", "cont", || {
            monitor(vec![], |command| match command.name.as_str() {
                "cont" => command.refuse("no"),
                _ => command.obey(),
            })
        }),
        ("hangs up instead of starting the guest", "cont", || {
            monitor(vec![], |command| match command.name.as_str() {
                "cont" => vec![(0.0, Act::HangUp)],
                _ => command.obey(),
            })
        }),
    ];
    for (what, at, actor) in cases {
        let (error, _) = broken(with(move |_| actor())).await;
        assert!(matches!(&error, BootError::Monitor { command, .. } if *command == at), "{what}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_events_and_noise_between_answers_do_no_harm() {
    let outcome = passes(with(|_| {
        monitor(vec![], |command| {
            let mut agenda = vec![
                (0.0, line(r#"{"event": "FROM_THE_FUTURE", "data": {"x": [1]}}"#)),
                (0.0, line("not even JSON")),
                (0.0, line(r#"{"neither": "answer nor event"}"#)),
                (0.0, line("")),
            ];
            agenda.extend(command.obey());
            agenda.push((0.0, line(r#"{"event": "AFTER"}"#)));
            agenda
        })
    }))
    .await;
    let written = outcome.file("qmp.jsonl");
    assert!(written.lines().count() >= 8, "both events with each command: {written}");
    assert!(written.lines().all(|event| event.contains("FROM_THE_FUTURE") || event.contains("AFTER")));
    assert_eq!(labels(&outcome), LABELS);
}

#[tokio::test(start_paused = true)]
async fn answers_in_pieces_are_put_together() {
    let outcome = passes(with(|_| {
        monitor(vec![], |command| {
            let whole: Vec<u8> = command
                .obey()
                .into_iter()
                .flat_map(|(_, act)| match act {
                    Act::Say(bytes) => bytes,
                    Act::HangUp => vec![],
                })
                .collect();
            let (first, rest) = whole.split_at(7);
            let (second, third) = rest.split_at(rest.len() - 1);
            vec![
                (0.0, Act::Say(first.to_vec())),
                (0.3, Act::Say(second.to_vec())),
                (0.6, Act::Say(third.to_vec())),
            ]
        })
    }))
    .await;
    assert_eq!(outcome.host.ledger.connections.load(Ordering::SeqCst), 1);
    assert_eq!(labels(&outcome), LABELS);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_costs_the_connection_and_nothing_else() {
    let outcome = passes(with(|number| {
        monitor(vec![], move |command| match command.name.as_str() {
            "screendump" if number == 1 => late(command.obey(), 25.0),
            _ => command.obey(),
        })
    }))
    .await;
    // QEMU serves one connection at a time: the second is greeted only once the first is closed.
    assert_eq!(outcome.host.ledger.connections.load(Ordering::SeqCst), 2);
    assert_eq!(labels(&outcome), ["initramfs", "userspace"], "twenty seconds went by");
}

#[tokio::test(start_paused = true)]
async fn a_refused_picture_is_only_a_missing_picture() {
    let outcome = passes(with(|_| {
        monitor(vec![], |command| match command.name.as_str() {
            "screendump" => command.refuse("there is no screen"),
            _ => command.obey(),
        })
    }))
    .await;
    assert_eq!(outcome.pictures(), Vec::<String>::new());
    assert_eq!(outcome.host.ledger.connections.load(Ordering::SeqCst), 1, "a refusal breaks nothing");
}

#[tokio::test(start_paused = true)]
async fn after_a_hang_up_the_events_of_a_new_connection_count() {
    let machine = with(|number| {
        let agenda = match number {
            1 => vec![(32.5, Act::HangUp)],
            _ => vec![(1.0, line(r#"{"event": "SHUTDOWN", "data": {"guest": true}}"#))],
        };
        monitor(agenda, Command::obey)
    });
    let outcome = run(machine, &[CheckSpec::boot()]).await;
    assert_eq!(outcome.report().cause, Some(Cause::PoweredOff));
    assert!(outcome.seconds < 40.0, "{}", outcome.seconds);
    assert_eq!(labels(&outcome), LABELS);
}

#[tokio::test(start_paused = true)]
async fn a_hang_up_between_keys_loses_none() {
    // A menu that waits; the monitor is gone at the moment at which Enter is pressed.
    let machine = Machine {
        body: Arc::new(|seconds, keys| match keys {
            [] => Pose::new(Processor::Waits, 0, Screen::Vga(WAITING.to_vec())),
            _ => healthy_body(seconds),
        }),
        ..with(|number| {
            monitor(vec![], move |command| match command.name.as_str() {
                "send-key" if number == 1 => vec![(0.0, Act::HangUp)],
                _ => command.obey(),
            })
        })
    };
    let machine = Machine { serial: Box::new(Agenda::new()), ..machine };
    let outcome = run(machine, &[CheckSpec::boot()]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass], "{:?}", outcome.report());
    assert_eq!(outcome.keys(0), ["ret"]);
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_never_comes_back_breaks_the_test() {
    let (error, seconds) = broken(with(|number| match number {
        1 => monitor(vec![(3.0, Act::HangUp)], Command::obey),
        _ => Actor::stubborn(vec![]),
    }))
    .await;
    assert!(matches!(error, BootError::Monitor { .. }), "{error}");
    assert!(seconds < 30.0, "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_events_is_written_down_and_drowns_nothing() {
    const FLOOD: usize = 3000;
    let event = format!("{}\n", json!({"event": "RTC_CHANGE", "data": {"offset": 0}}));
    let outcome = passes(with(move |_| {
        monitor(vec![(6.0, Act::Say(event.repeat(FLOOD).into_bytes()))], Command::obey)
    }))
    .await;
    assert_eq!(outcome.file("qmp.jsonl").lines().count(), FLOOD);
    assert_eq!(labels(&outcome), LABELS);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_qemu_stops_is_the_testers_fault() {
    let outcome = run(
        with(|_| {
            monitor(vec![(8.0, line(r#"{"event": "STOP"}"#))], |command| match command.name.as_str() {
                "query-status" => {
                    let status = json!({"return": {"status": "internal-error", "running": false}});
                    vec![(0.0, line(&command.answer(status)))]
                }
                _ => command.obey(),
            })
        }),
        &[CheckSpec::boot(), wlan()],
    )
    .await;
    assert_eq!(outcome.verdicts(), [Verdict::Infra; 2]);
    let boot = outcome.check("boot");
    assert!(boot.summary.contains("QEMU stopped the machine: internal"), "{}", boot.summary);
    assert!(outcome.seconds < 14.0, "{}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn a_question_without_an_answer_spoils_none_that_follow() {
    // Without out-of-band commands answers carry no number, and `qapi` panics at a second question.
    let plain = GREETING.replace("\"oob\"", "");
    let outcome = passes(with(move |number| {
        let stops = vec![(8.0, line(r#"{"event": "STOP"}"#)), (9.0, line(r#"{"event": "STOP"}"#))];
        let agenda = if number == 1 { stops } else { vec![] };
        monitor_greeting(&plain, agenda, move |command| match command.name.as_str() {
            "query-status" if number == 1 => vec![],
            _ => command.obey(),
        })
    }))
    .await;
    assert_eq!(outcome.host.ledger.connections.load(Ordering::SeqCst), 2);
    assert_eq!(labels(&outcome), LABELS);
}
