//! Reviews from outside: any log, the rules' proof, agents behind a loopback server, hooks.

use std::fs;
use std::process::Command;

use isokiln_tests::{Finished, Guard, Project, StandIn, binary, repository};
use serde_json::{Value, json};

/// isokiln in a folder of its own, without anything that the caller's environment says of agents.
fn isokiln(guard: &Guard, arguments: &[&str]) -> Finished {
    let mut command = Command::new(binary());
    Finished::of(without_agents(guard.mark(command.args(arguments))))
}

fn without_agents(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars() {
        if name.ends_with("_API_KEY") || name.starts_with("AILINUX_") || name.starts_with("C1_") {
            command.env_remove(name);
        }
    }
    command
}

#[test]
fn any_log_is_reviewed_and_nothing_is_left() {
    let guard = Guard::new();
    let log = "Get:1 http://mirror.example.org/debian trixie InRelease\n\
               E: Failed to fetch http://me:secret@mirror.example.org/x.deb  Hash Sum mismatch\n\
               E: Unable to fetch some archives, maybe run apt update or try with --fix-missing?\n";
    fs::write(guard.path("build.log"), log).expect("a log");
    let review =
        isokiln(&guard, &["review", "build.log", "--exit-code", "100", "--format", "json"]).expect_code(0);
    let text = "E: Failed to fetch http://[credentials]@mirror.example.org/x.deb  Hash Sum mismatch";
    let review = review.json();
    assert_eq!(review["cause"], json!({"rule": "apt-hash-sum-mismatch", "line": 2, "text": text}));
    let told = (&review["verdict"], &review["action"], &review["retry_helps"], &review["votes"]);
    assert_eq!(told, (&json!("known"), &json!("clean-cache"), &json!(true), &json!([])));

    fs::write(guard.path("good.log"), "all is well\n").expect("a log");
    let review = |status: &[&str]| {
        isokiln(&guard, &[&["review", "good.log", "--format", "json"], status].concat()).expect_code(0).json()
    };
    assert_eq!(review(&["--exit-code", "0"])["verdict"], "clean");
    assert_eq!(review(&["--exit-code", "1"])["verdict"], "unknown");
    assert_eq!(review(&["--exit-code", "137"])["cause"]["rule"], "machine-process-killed");
    assert_eq!(review(&[])["cause"], Value::Null);
    isokiln(&guard, &["review", "nosuch.log"]).expect_code(2).says("error: cannot read the log nosuch.log");
    let left: Vec<_> = fs::read_dir(guard.work()).expect("the folder").collect();
    assert_eq!(left.len(), 2, "only the logs are there: {left:?}");
}

#[test]
fn rules_are_proved_and_a_projects_own_are_told_apart() {
    let guard = Guard::new();
    let proof = isokiln(&guard, &["rules", "test", "--format", "json"]).expect_code(0).json();
    assert_eq!(proof["faults"], json!([]));
    assert!(proof["rules"].as_u64() > Some(200), "{proof}");
    let own = guard.path("review/rules");
    fs::create_dir_all(&own).expect("a folder");
    let rule = "[[rule]]\nid = \"ours\"\nclass = \"cause\"\npattern = '^ours: broken'\nexplanation = \"It is broken.\"\n\
                source = [\"us\"]\nexample = \"ours: whole\"\n";
    fs::write(own.join("ours.toml"), rule).expect("a file");
    isokiln(&guard, &["rules", "test", "--pipeline", "p.toml", "--format", "json"])
        .expect_code(2)
        .prints("is not known to any rule");
    fs::write(own.join("ours.toml"), rule.replace("whole", "broken")).expect("a file");
    isokiln(&guard, &["rules", "test", "--pipeline", "p.toml"]).expect_code(0);
    fs::write(guard.path("log"), "x\nours: broken\n").expect("a file");
    let review = isokiln(&guard, &["review", "log", "--pipeline", "p.toml", "--format", "json"]);
    assert_eq!(review.expect_code(0).json()["cause"]["rule"], "ours");
    fs::write(own.join("ours.toml"), rule.replace("class", "clas")).expect("a file");
    isokiln(&guard, &["rules", "list", "--pipeline", "p.toml"])
        .expect_code(2)
        .says("ours.toml:3:1")
        .says("did you mean \"class\"?");
}

/// A server that answers like a provider; it always votes to stop, on a line of the log.
fn provider() -> StandIn {
    StandIn::open(|request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let asked = body["messages"].to_string();
        let quote = if asked.contains("ours is odd") { "ours is odd" } else { "" };
        let action = if quote.is_empty() { "none" } else { "stop" };
        let vote = json!({"action": action, "quote": quote, "cause": "it is odd", "cure": "look at it"});
        let answer = json!({
            "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": vote.to_string()}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10},
        });
        (200, answer.to_string())
    })
}

#[test]
fn agents_review_a_build_and_stages_do_not_see_their_keys() {
    let server = provider();
    let address = server.address().replace("tcp://", "http://");
    let project = Project::tiny(
        "\n[[stage]]\nname = \"look\"\nrun = \"[ -z \\\"$C3_API_KEY\\\" ] && echo ours is odd; echo token=abcdefgh12345678ijklmnop\"\n\
         environment = [\"C3_API_KEY\"]\n",
    );
    project.write(".env", format!("C3_ENDPOINT={address}/v1\nC3_MODEL=m\nC3_API_KEY=key-of-the-server\n"));
    let mut build = project.command(&["build", "pipeline.toml", "--no-test"]);
    // Only a suspicion: the gate advises.
    Finished::of(without_agents(&mut build)).expect_code(0);
    let latest = project.home().join("latest/coordination");
    let conversation =
        fs::read_to_string(latest.join("ai_memory/conversations/look-1.json")).expect("a conversation");
    assert!(
        !conversation.contains("key-of-the-server") && !conversation.contains("abcdefgh12345678"),
        "{conversation}"
    );
    let conversation: Value = serde_json::from_str(&conversation).expect("JSON");
    assert_eq!(conversation["consensus"]["action"], "stop", "{conversation}");
    let decision = fs::read_to_string(latest.join("ai_memory/decisions/look-1.json")).expect("a decision");
    let decision: Value = serde_json::from_str(&decision).expect("JSON");
    assert_eq!((&decision["review"]["verdict"], &decision["outcome"]), (&json!("suspect"), &json!("told")));
    let asked = server.requests("POST", "/chat/completions");
    assert!(asked.len() >= 2, "{asked:?}");
    for request in &asked {
        let body = String::from_utf8_lossy(&request.body);
        assert!(!body.contains("abcdefgh12345678") && !body.contains("key-of-the-server"), "{body}");
    }

    let mut agents = project.command(&["agents", "--format", "json"]);
    let seats = Finished::of(without_agents(&mut agents)).expect_code(0).json();
    assert_eq!(
        (&seats[2]["seat"], &seats[2]["answers"], &seats[2]["model"]),
        (&json!("C3"), &json!(true), &json!("m"))
    );
    assert!(seats[2]["spent"]["calls"].as_u64() >= Some(2), "{seats}");

    project.write(".env", "C3_PROTOCOL=smtp\n");
    let mut wrong = project.command(&["agents"]);
    Finished::of(without_agents(&mut wrong))
        .expect_code(2)
        .says("C3_PROTOCOL")
        .says(".env.example explains each");
    project.expect_no_residue();
}

#[test]
fn hooks_run_around_stages_of_a_real_build() {
    let project = Project::tiny("\n[hooks]\nrequired = [\"pre-phase\"]\n");
    project.build(&[]).expect_code(1).says("there is no hooks/pre-phase.sh beside the pipeline file");
    project.write("hooks/pre-phase.sh", "echo \"before $1: $2\"; pwd\n");
    project.write("hooks/post-phase.sh", "echo \"after $1: $2\"; exit 4\n");
    project.build(&[]).expect_code(0).says("post-phase.sh ended with exit status: 4; its output is in");
    let hooks = project.home().join("latest/coordination/hooks");
    let log = fs::read_to_string(hooks.join("pre-phase.log")).expect("a log");
    let folder = fs::canonicalize(project.path("")).expect("the project");
    assert!(
        log.starts_with("before base: ") && log.trim_end().ends_with(&folder.display().to_string()),
        "{log}"
    );
    assert_eq!(fs::read_to_string(hooks.join("post-phase.log")).expect("a log"), "after base: success\n");
    project.expect_no_residue();
}

#[test]
fn the_example_of_the_readme_is_what_is_printed() {
    let readme = fs::read_to_string(repository().join("README.md")).expect("README.md");
    let guard = Guard::new();
    let log = "x\n".repeat(30) + "E: Failed to fetch http://mirror.example.org/… Hash Sum mismatch\n";
    fs::write(guard.path("build.log"), log).expect("a log");
    let told = isokiln(&guard, &["review", "build.log"]).expect_code(0).stdout;
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&readme).contains(&words(&told)), "{told}");
}
