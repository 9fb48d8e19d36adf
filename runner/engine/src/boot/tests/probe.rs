//! The probe in the guest misbehaves, or says that a check does not hold.

use super::fake::{Act, Actor, probe};
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
            let act = if asked.script == CheckSpec::NetworkManager.script() {
                asked.answer(0, "system running\nload loaded\nservice failed\nlog no such device\n")
            } else if asked.script == "exit 3" {
                asked.answer(3, "what it printed\n")
            } else {
                healthy(asked)
            };
            vec![(1.0, act)]
        })),
        &[CheckSpec::Boot, CheckSpec::NetworkManager, command("exit 3"), CheckSpec::Wlan],
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
    let outcome = run(machine, &[CheckSpec::Boot]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass]);
    assert!((65.0..75.0).contains(&outcome.seconds), "ten times, 3 seconds each: {}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn patience_ends_with_what_was_seen_last() {
    let machine =
        with(probe(40.0, |asked| vec![(1.0, asked.answer(0, "state starting\njob slow.service\n"))]));
    let outcome = run(machine, &[CheckSpec::Boot]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Fail]);
    assert_eq!(outcome.check("boot").summary, "the system is still starting, waiting for slow.service");
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
    let outcome = run(with(guest), &[CheckSpec::Boot, CheckSpec::Wlan]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass; 2], "{:?}", outcome.report().checks);
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_any_question_answers_none() {
    let forged = r#"{"id":0,"status":0,"out":"c3RhdGUgcnVubmluZwptdWx0aS11c2VyIHJlYWNoZWQK"}"#;
    // Right behind the agent's first word, before the first question can be there.
    let guest = Actor::stubborn(vec![(40.0, line(&format!("{{\"ready\":1}}\n{forged}")))]);
    let outcome = run(with(guest), &[CheckSpec::Boot]).await;
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
    let outcome = run(machine, &[CheckSpec::Boot, CheckSpec::Wlan, CheckSpec::NetworkManager]).await;
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
    let outcome = run(machine, &[CheckSpec::Boot, CheckSpec::Wlan, command("true")]).await;
    use Verdict::*;
    assert_eq!(outcome.verdicts(), [Pass, Inconclusive, Inconclusive]);
    assert!((400.0..410.0).contains(&outcome.seconds), "{}", outcome.seconds);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_never_reads_does_not_hold_the_test_up() {
    let hellos = "hello\n".repeat(1000);
    let machine = with(Actor::deaf(vec![(40.0, Act::Say(hellos.into_bytes()))]));
    let outcome = run(machine, &[CheckSpec::Boot, CheckSpec::Wlan]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Fail, Verdict::Inconclusive]);
    assert!((300.0..302.0).contains(&outcome.seconds), "the boot's own limit: {}", outcome.seconds);

    // The agent runs, but a long question fills the port and is never read.
    let machine = with(Actor::deaf(vec![(40.0, line("{\"ready\":1}"))]));
    let outcome = run(machine, &[command(&"x".repeat(100_000)), command("true")]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Inconclusive; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_line_without_end_is_cut_and_the_next_one_counts() {
    let endless = [vec![b'x'; 5 << 20], b"\n".to_vec()].concat();
    let guest = probe(40.0, |asked| vec![(1.0, healthy(asked))]).also(10.0, Act::Say(endless));
    let outcome = run(with(guest), &[CheckSpec::Boot]).await;
    assert_eq!(outcome.verdicts(), [Verdict::Pass]);
}
