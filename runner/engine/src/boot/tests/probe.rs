//! The probe in the guest misbehaves, or says that a check does not hold.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use isokiln_core::boot::{ProbeMessage, hello_reply, request};
use tempfile::TempDir;

use super::consoles::with_events;
use super::fake::{Act, probe};
use super::*;

fn with(probe: Actor) -> Machine {
    Machine { probe, ..good() }
}

/// A probe that behaves for so many questions and then does something else.
fn until(good: usize, mut then: impl FnMut(&Asked) -> Agenda + Send + 'static) -> Actor {
    let mut asked_before = 0;
    probe(40.0, move |asked| {
        asked_before += 1;
        if asked_before <= good { vec![(1.0, healthy(asked))] } else { then(asked) }
    })
}

#[tokio::test(start_paused = true)]
async fn a_check_that_fails_carries_the_guests_evidence() {
    let outcome = run(
        with(probe(40.0, |asked| {
            let act = if asked.is(&network_manager()) {
                asked.answer(0, "system running\nload loaded\nservice failed\nlog no such device\n")
            } else if asked.script == "exit 3" {
                asked.answer(3, "what it printed\n")
            } else {
                healthy(asked)
            };
            vec![(1.0, act)]
        })),
        &[CheckSpec::boot(), network_manager(), command("exit 3"), wlan()],
    )
    .await;
    use Verdict::*;
    assert_eq!(outcome.verdicts(), [Pass, Fail, Fail, Pass], "one failure does not end the test");
    assert_eq!(outcome.report().verdict, Fail);
    let network = outcome.check("network-manager");
    assert_eq!(network.summary, "NetworkManager is failed");
    assert!(network.evidence.contains(&"log no such device".to_owned()), "{:?}", network.evidence);
    let command = outcome.check("command: exit 3");
    assert_eq!(
        (command.summary.as_str(), &command.evidence[..]),
        ("exit status 3, expected 0", &["what it printed".to_owned()][..])
    );
}

#[tokio::test(start_paused = true)]
async fn a_boot_that_is_still_going_on_is_asked_again_until_it_is_over() {
    let mut times = 0;
    let machine = with(probe(40.0, move |asked| {
        times += 1;
        let starting = asked.answer(0, "state starting\njob slow.service\n");
        vec![(1.0, if times < 10 { starting } else { healthy(asked) })]
    }));
    let outcome = run(machine, &[CheckSpec::boot()]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass]);
    assert!((65.0..75.0).contains(&outcome.seconds), "ten times, 3 seconds each: {}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn patience_ends_with_what_was_seen_last() {
    let machine =
        with(probe(40.0, |asked| vec![(1.0, asked.answer(0, "state starting\njob slow.service\n"))]));
    let outcome = run(machine, &[CheckSpec::boot()]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Fail]);
    let summary = &outcome.check("boot").summary;
    let began = "the system is still starting, waiting for slow.service (asked ";
    assert!(summary.starts_with(began), "{summary}");
    assert_eq!(outcome.check("boot").evidence, ["state starting", "job slow.service"]);
    assert!((280.0..290.0).contains(&outcome.seconds), "{}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn garbage_on_the_port_is_passed_over() {
    let garbage = [
        &b"\xff\xfe\x00 not text \x80\n"[..],
        b"{\"ready\":1\n",
        b"{\"id\":1,\"status\":0,\"out\":\"\n",
        b"{\"id\":1,\"status\":0,\"out\":\"no base64!\"}\n",
        b"{\"id\":77,\"status\":0,\"out\":\"\"}\n",
        b"{\"ready\":2}\n[1, 2]\nnull\n\n",
    ]
    .concat();
    let early = garbage.clone();
    let guest = probe(40.0, move |asked| vec![(0.5, Act::Say(garbage.clone())), (1.0, healthy(asked))])
        .also(10.0, Act::Say(early));
    let outcome = run(with(guest), &[CheckSpec::boot(), wlan()]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass; 2], "{:?}", outcome.report().checks);
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_any_question_answers_none() {
    let forged = r#"{"id":0,"status":0,"out":"c3RhdGUgcnVubmluZwptdWx0aS11c2VyIHJlYWNoZWQK"}"#;
    // Right behind the agent's first word, before the first question can be there.
    let guest = Actor::stubborn(vec![(40.0, line(&format!("{{\"ready\":1}}\n{forged}")))]);
    let outcome = run(with(guest), &[CheckSpec::boot()]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Inconclusive], "{:?}", outcome.report().checks);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_twice_is_not_the_next_checks() {
    let machine = with(probe(40.0, |asked| match asked.script.as_str() {
        "first" => vec![(1.0, asked.answer(0, "")), (1.0, asked.answer(0, ""))],
        _ => vec![(1.0, asked.answer(1, "the real one"))],
    }));
    let outcome = run(machine, &[command("first"), command("second")]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass, Verdict::Fail]);
    assert_eq!(outcome.check("command: second").evidence, ["the real one"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_question_that_was_given_up_is_not_the_next_checks() {
    // Given up after 180 seconds; answered while the next question is open.
    let machine = with(probe(40.0, |asked| match asked.script.as_str() {
        "first" => vec![(182.0, asked.answer(0, ""))],
        _ => vec![(10.0, asked.answer(1, "the real one"))],
    }));
    let outcome = run(machine, &[command("first"), command("second")]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Inconclusive, Verdict::Fail]);
    assert_eq!(outcome.check("command: second").evidence, ["the real one"]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_up_leaves_the_rest_untested() {
    let machine = with(until(1, |_| vec![(0.5, Act::HangUp)]));
    let outcome = run(machine, &[CheckSpec::boot(), wlan(), network_manager()]).await;
    use Verdict::*;
    assert_eq!(outcome.verdicts(), [Pass, Inconclusive, Inconclusive]);
    assert_eq!(outcome.report().verdict, Inconclusive);
    for name in ["wlan", "network-manager"] {
        assert!(outcome.check(name).summary.contains("stopped answering"), "{:?}", outcome.check(name));
    }
    let told = outcome.news.iter().filter(|item| matches!(item, BootNews::Checked(_))).count();
    assert_eq!(told, 3);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_falls_silent_costs_a_limited_time_for_each_check() {
    let machine = with(until(1, |_| vec![]));
    let outcome = run(machine, &[CheckSpec::boot(), wlan(), command("true")]).await;
    use Verdict::*;
    assert_eq!(outcome.verdicts(), [Pass, Inconclusive, Inconclusive]);
    // The first question gets all its time, the others only enough to see whether the probe is back.
    assert!((340.0..350.0).contains(&outcome.seconds), "{}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_freezes_under_the_probe_hangs() {
    let freezes = |seconds: f64, _: &[Key]| match seconds {
        ..60.0 => healthy_body(seconds),
        _ => Pose::new(Processor::Waits, 60_000_000, Screen::Grey(200)),
    };
    let machine = Machine { body: Arc::new(freezes), ..with(until(1, |_| vec![])) };
    let outcome = run(machine, &[CheckSpec::boot(), wlan(), command("true")]).await;
    use Verdict::*;
    assert_eq!(outcome.verdicts(), [Fail, Inconclusive, Inconclusive]);
    assert_eq!(outcome.report().cause, Some(Cause::Hang));
    assert!((210.0..240.0).contains(&outcome.seconds), "{}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_restarts_is_asked_again() {
    // It goes before it answers, and its agent is there again later.
    let mut asked_before = false;
    let react = move |asked: &Asked| match std::mem::replace(&mut asked_before, true) {
        false => vec![],
        true => vec![(1.0, healthy(asked))],
    };
    let machine = with(probe(40.0, react).also(60.0, line("{\"ready\":1}")));
    let outcome = run(with_events(vec![(45.0, "RESET", true)], machine), &[CheckSpec::boot()]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass]);
    assert_eq!(outcome.report().notes, ["the guest restarted by itself after 45 s"]);
    assert!((61.0..65.0).contains(&outcome.seconds), "{}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_never_reads_does_not_hold_the_test_up() {
    let hellos = "hello\n".repeat(1000);
    let machine = with(Actor::deaf(vec![(40.0, Act::Say(hellos.into_bytes()))]));
    let outcome = run(machine, &[CheckSpec::boot(), wlan()]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Fail, Verdict::Inconclusive]);
    assert!((420.0..422.0).contains(&outcome.seconds), "the boot's own limit: {}", outcome.seconds);

    // The agent runs, but a long question fills the port and is never read.
    let machine = with(Actor::deaf(vec![(40.0, line("{\"ready\":1}"))]));
    let outcome = run(machine, &[command(&"x".repeat(100_000)), command("true")]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Inconclusive; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_line_without_end_is_cut_and_the_next_one_counts() {
    let endless = [vec![b'x'; 5 << 20], b"\n".to_vec()].concat();
    let guest = probe(40.0, |asked| vec![(1.0, healthy(asked))]).also(10.0, Act::Say(endless));
    let outcome = run(with(guest), &[CheckSpec::boot()]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass]);
}

/// The agent itself, run by this machine's shell.
#[test]
fn the_agent_runs_a_script_that_arrives_whole_and_no_other() {
    let folder = TempDir::new().unwrap();
    let source = String::from_utf8(STANDARD.decode(hello_reply().trim()).unwrap()).unwrap();
    let script = source.replace("/run/isokiln-probe", folder.path().to_str().unwrap());
    assert_ne!(script, source);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut agent = Command::new("sh")
        .args(["-c", &format!("exec 3<&0\n{script}")])
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(ours.try_clone().unwrap()).lines();
    let mut next = || ProbeMessage::parse(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next(), ProbeMessage::Ready);
    let whole = request(1, 5, "echo first; exit 3 # and more\n");
    // Eight digits less are still base64.
    let cut = request(2, 5, "echo second; exit 0 # and more\n").replace("b3JlCg==\n", "\n");
    let garbled = "3 5 4 ????\n".to_owned();
    for (line, status, output) in [(whole, 3, "first\n"), (cut, -1, ""), (garbled, -1, "")] {
        (&ours).write_all(line.as_bytes()).unwrap();
        let ProbeMessage::Answer { answer, .. } = next() else { panic!("no answer to {line}") };
        assert_eq!((answer.status, answer.output.as_str()), (status, output), "{line}");
    }
    ours.shutdown(std::net::Shutdown::Both).unwrap();
    agent.wait().unwrap();
}
