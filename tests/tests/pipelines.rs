//! Pipeline files, right and wrong; plans and why they say so; kinds; JSON of every command.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use isokiln_tests::{Finished, Project, TINY, repository};
use serde_json::Value;

/// A mistake: what is added to [`TINY`], where the caret must point, and what must be said.
struct Mistake {
    added: &'static str,
    at: &'static str,
    says: &'static [&'static str],
}

/// `file:line:column` of the first `at` in `text`.
fn place(text: &str, at: &str) -> String {
    let start = text.find(at).unwrap_or_else(|| panic!("{at:?} is not in the file"));
    let line = text[..start].matches('\n').count() + 1;
    let column = text[..start].rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("pipeline.toml:{line}:{column}")
}

#[track_caller]
fn expect_nothing_started(project: &Project) {
    assert!(!project.home().exists(), "a wrong file has made isokiln's folder");
}

/// Plans and builds the project's wrong file; gives what `plan` said.
#[track_caller]
fn refused(project: &Project) -> Finished {
    let built = project.build(&[]).expect_code(2);
    let planned = project.isokiln(&["plan", "pipeline.toml"]).expect_code(2);
    assert_eq!(built.stderr, planned.stderr, "plan and build tell the same");
    expect_nothing_started(project);
    planned
}

const MISTAKES: &[Mistake] = &[
    Mistake {
        added: "[[stage]]\nname = \"x\"\nuses = \"pakages\"\n",
        at: "\"pakages\"",
        says: &["unknown stage kind \"pakages\"", "did you mean \"packages\"?", "valid: bootstrap, "],
    },
    Mistake {
        added: "[[stage]]\nname = \"x\"\nuses = \"packages\"\nwith = { instal = [\"vim\"] }\n",
        at: "instal =",
        says: &["unknown option \"instal\" of kind packages", "did you mean \"install\"?"],
    },
    Mistake {
        added: "[[stage]]\nname = \"x\"\nuses = \"packages\"\nwith = { install = \"vim\" }\n",
        at: "\"vim\"",
        says: &["option \"install\" must be a list of strings, not a string"],
    },
    Mistake {
        added: "[[stage]]\nname = \"x\"\nrunn = \"true\"\n",
        at: "runn",
        says: &["unknown key \"runn\"", "did you mean \"run\"?", "stage \"x\" does nothing"],
    },
    Mistake {
        added: "[[stage]]\nname = \"x\"\nrun = \"true\"\nfrom = \"bsae\"\n",
        at: "\"bsae\"",
        says: &["unknown stage \"bsae\"", "did you mean \"base\"?"],
    },
    Mistake {
        added: "[[stage]]\nname = \"base\" # again\nrun = \"true\"\n",
        at: "\"base\" # again",
        says: &["two stages are named \"base\"", "give this one another"],
    },
    Mistake {
        added: "[[stage]]\nname = \"a\"\nrun = \"true\"\nfrom = \"b\"\n\
                [[stage]]\nname = \"b\"\nrun = \"true\"\nfrom = \"a\"\n",
        at: "\"a\"\n<end>",
        says: &["in a circle: b from a from b", "outside the circle"],
    },
    Mistake {
        added: "[[stage]]\nname = \"Two Words\"\nrun = \"true\"\n",
        at: "\"Two Words\"",
        says: &["stage name \"Two Words\" is not valid", "lower-case letters"],
    },
    Mistake {
        added: "[[stage]]\nname = \"../x\"\nrun = \"true\"\n",
        at: "\"../x\"",
        says: &["stage name \"../x\" is not valid"],
    },
    Mistake {
        added: "[[stage]]\nname = 5\nrun = \"true\"\n",
        at: "5\n",
        says: &["name in stage 2 must be a string, not an integer"],
    },
    Mistake {
        added: "[[stage]]\nname = \"x\"\nuses = \"files\"\nwith = { source = \"brandng/theme\" }\n",
        at: "\"brandng/theme\"",
        says: &[
            "stage x needs \"brandng/theme\", which is not there",
            "relative to the pipeline file's folder",
        ],
    },
    Mistake {
        added: "[[stage]]\nname = \"x\"\nuses = \"files\"\nwith = { source = \"stage\" }\n",
        at: "\"stage\"",
        says: &["which is not there", "did you mean \"stages\"?"],
    },
    Mistake {
        added: "[[stage]]\nname = \"x\"\nuses = \"files\"\nwith = { source = \"/etc\" }\n",
        at: "\"/etc\"",
        says: &["must be a path from the pipeline file's folder", "cannot be built on another"],
    },
    Mistake {
        added: "[[stage]]\nname = \"x\"\nrun = \"true\"\nlimits = { cpus = 99999 }\n",
        at: "99999",
        says: &["cpus must be from 0.1 to 4096"],
    },
    Mistake {
        added: "[[stage]]\nname = \"x\"\nrun = \"true\"\nlimits = { memory = \"1MiB\" }\n",
        at: "\"1MiB\"",
        says: &["memory must be at least 16MiB"],
    },
    Mistake {
        added: "[[stage]]\nname = \"i\"\nuses = \"iso\"\n[boot-test]\nprofiles = [\"bios\"]\n",
        at: "\"bios\"",
        says: &["unknown machine profile \"bios\"", "did you mean \"bios-cd\"?"],
    },
    Mistake {
        added: "[[stage]]\nname = \"i\"\nuses = \"iso\"\n[boot-test]\nprofiles = [\"bios-cd\"]\nchecks = [\"bot\"]\n",
        at: "\"bot\"",
        says: &["unknown check \"bot\"", "did you mean \"boot\"?"],
    },
    Mistake {
        added: "[[stage]]\nname = \"i\"\nuses = \"iso\"\n[boot-test]\nprofiles = [\"bios-cd\"]\n\
                checks = [{ picture = \"login.png\", masks = [[1, 2]] }]\n",
        at: "[[1, 2]]",
        says: &["masks must be a list of areas"],
    },
    Mistake {
        added: "[[stage]]\nname = \"i\"\nuses = \"iso\"\n[boot-test]\nprofiles = [\"bios-cd\"]\ncpus = 0\n",
        at: "0\n",
        says: &["cpus must be from 1 to 256"],
    },
    Mistake {
        added: "[boot-test]\nprofiles = [\"bios-cd\"]\n",
        at: "boot-test",
        says: &["nothing to boot", "uses = \"iso\""],
    },
    Mistake {
        added: "[[stage]]\nname = \"small\"\nuses = \"iso\"\n[[stage]]\nname = \"large\"\nfrom = \"base\"\nuses = \"iso\"\n",
        at: "\"large\"",
        says: &["stages \"small\" and \"large\" of kind iso", "with = { name = \"large\" }"],
    },
    Mistake { added: "[stag]\n", at: "stag]", says: &["unknown key \"stag\"", "did you mean \"stage\"?"] },
];

#[test]
fn every_mistake_is_shown_where_it_is_with_the_nearest_name() {
    let project = Project::tiny("");
    for mistake in MISTAKES {
        let text = format!("{TINY}{}<end>", mistake.added);
        project.write("pipeline.toml", text.replace("<end>", ""));
        let mut told = refused(&project).says(&place(&text, mistake.at)).says("^");
        for words in mistake.says {
            told = told.says(words);
        }
    }
}

#[test]
fn a_file_that_is_not_toml_not_utf8_or_not_there_is_told_so() {
    let project = Project::tiny("broken = \n");
    let line = TINY.matches('\n').count() + 1;
    refused(&project).says("not TOML as it stands").says(&format!("pipeline.toml:{line}:10")).says("^");

    let mut bytes = TINY.as_bytes().to_vec();
    bytes.extend(b"# gr\xfc\xdfe\n");
    project.write("pipeline.toml", bytes);
    refused(&project)
        .says("this is not UTF-8")
        .says(&format!("pipeline.toml:{line}:5"))
        .says("save the file as UTF-8");

    project.write("pipeline.toml", "");
    refused(&project).says("has no name").says("has no [system]").says("has no [[stage]]");

    project.write("pipeline.toml", TINY);
    project
        .isokiln(&["build", "pipline.toml"])
        .expect_code(2)
        .says("cannot read the pipeline file pipline.toml")
        .says("No such file or directory")
        .says("did you mean \"pipeline.toml\"?");
    expect_nothing_started(&project);
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once_in_order() {
    let text = "nam = \"x\"\n[system]\ndistribution = \"debain\"\nsuite = 5\n\
                [[stage]]\nname = \"a\"\nuses = \"nope\"\n[[stage]]\nname = \"a\"\nrun = \"\"\n";
    let project = Project::new(text);
    let told = refused(&project);
    let mut rest = told.stderr.as_str();
    for words in [
        "unknown key \"nam\"",
        "unknown distribution \"debain\"",
        "suite in [system] must be a string, not an integer",
        "unknown stage kind \"nope\"",
        "stage \"a\" runs nothing",
    ] {
        let at = rest.find(words).unwrap_or_else(|| panic!("{words:?} is missing or too early\n{told}"));
        rest = &rest[at + words.len()..];
    }
    let json = project.isokiln(&["plan", "pipeline.toml", "--format", "json"]).expect_code(2).json();
    let mistakes = json["error"]["diagnostics"].as_array().expect("mistakes");
    assert_eq!(mistakes.len(), 6, "{json:#}");
    let near = mistakes.iter().find(|mistake| mistake["line"] == 3).expect("one in line 3");
    assert_eq!(
        (&near["column"], &near["label"]),
        (&Value::from(16), &Value::from("did you mean \"debian\"?"))
    );
}

/// A screen that was taken of a machine.
const PICTURE: &[u8] = include_bytes!("../../runner/core/src/boot/screen/fixtures/memtest.png");

#[test]
fn pictures_to_compare_with_lie_beside_the_pipeline_file() {
    let wanted = "[[stage]]\nname = \"i\"\nuses = \"iso\"\n\
                  [boot-test]\nprofiles = [\"bios-cd\"]\nchecks = [\"picture:login.png\"]\n";
    let project = Project::tiny(wanted);
    let file = project.path("pipeline.toml");
    let plan = || {
        let arguments = ["plan", file.to_str().expect("text")];
        Finished::of(project.command(&arguments).current_dir("/"))
    };
    plan().expect_code(2).says("/login.png: No such file").says("starts at its folder");
    project.write("login.png", "GIF89a");
    plan().expect_code(2).says("cannot compare the screen with ").says("/login.png: ");
    project.write("login.png", PICTURE);
    plan().expect_code(0);
}

/// A project with a stage of every sort of input, built once.
fn built_project() -> Project {
    let project = Project::tiny(
        r#"
[[stage]]
name = "conf"
uses = "files"
with = { source = "conf", target = "/etc" }

[[stage]]
name = "label"
run = "echo ${BUILD_LABEL:-none} >/etc/label"
environment = ["BUILD_LABEL"]

[[stage]]
name = "note"
uses = "note"
with = { text = "hello" }
"#,
    );
    project.write("conf/motd", "welcome\n");
    own_kind(&project, "note", "[options.text]\ntype = \"string\"\nhelp = \"h\"\n", NOTE);
    project.build(&[]).expect_code(0).says("4 stages run, 0 from checkpoints");
    project
}

const NOTE: &str = "printf '%s\\n' \"$(option text)\" >\"$ROOTFS/etc/note\"\n";

fn own_kind(project: &Project, name: &str, manifest: &str, script: &str) {
    project
        .write(&format!("stages/{name}/kind.toml"), format!("summary = \"One of the project\"\n{manifest}"));
    project.write(&format!("stages/{name}/run.sh"), script);
}

/// Names of the inputs that `plan --explain` says have changed, for a stage.
#[track_caller]
fn changes(project: &Project, stage: &str) -> Vec<String> {
    let plan =
        project.isokiln(&["plan", "pipeline.toml", "--explain", "--format", "json"]).expect_code(0).json();
    let planned = plan["stages"].as_array().expect("stages").iter().find(|planned| planned["stage"] == stage);
    let planned = planned.unwrap_or_else(|| panic!("{stage} is not in {plan:#}"));
    assert_eq!(planned["state"], "miss", "{plan:#}");
    let changes = planned["changes"].as_array().unwrap_or_else(|| panic!("no changes in {plan:#}"));
    changes.iter().map(|change| change["input"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_plan_tells_hit_from_miss_and_names_the_changed_input() {
    let project = built_project();
    let all_hit = project.isokiln(&["plan", "pipeline.toml"]).expect_code(0);
    assert_eq!(all_hit.stdout.lines().filter(|line| line.starts_with("hit ")).count(), 4, "{all_hit}");
    assert!(all_hit.time < Duration::from_secs(2), "{all_hit}");
    let json = project.isokiln(&["plan", "pipeline.toml", "--format", "json"]).expect_code(0).json();
    assert!(
        json["stages"].as_array().expect("stages").iter().all(|stage| stage["state"] == "hit"),
        "{json:#}"
    );
    let runs = project.runs().len();

    project.edit("pipeline.toml", "echo ${BUILD", "echo  ${BUILD");
    assert_eq!(changes(&project, "label"), ["option run"]);
    project
        .isokiln(&["plan", "pipeline.toml", "--explain"])
        .expect_code(0)
        .prints("hit   conf")
        .prints("miss  label")
        .prints("changed: option run")
        .prints("- \"echo ${BUILD")
        .prints("+ \"echo  ${BUILD")
        .prints("label runs first; if its result is as before, this is a hit");
    project.edit("pipeline.toml", "echo  ${BUILD", "echo ${BUILD");

    project.edit("pipeline.toml", "hello", "bye");
    assert_eq!(changes(&project, "note"), ["option text"]);
    project.edit("pipeline.toml", "bye", "hello");

    project.write("conf/motd", "farewell\n");
    assert_eq!(changes(&project, "conf"), ["file conf"]);
    project.write("conf/motd", "welcome\n");

    let mode = |mode| {
        fs::set_permissions(project.path("conf/motd"), fs::Permissions::from_mode(mode)).expect("a mode")
    };
    mode(0o755);
    assert_eq!(changes(&project, "conf"), ["file conf"]);
    mode(0o644);

    project.write("stages/note/run.sh", format!("{NOTE}true\n"));
    assert_eq!(changes(&project, "note"), ["kind"]);
    project.write("stages/note/run.sh", NOTE);

    let mut with_label = project.command(&["plan", "pipeline.toml", "--explain"]);
    Finished::of(with_label.env("BUILD_LABEL", "secret"))
        .expect_code(0)
        .prints("changed: environment BUILD_LABEL")
        .prints("- not set");

    project.edit("pipeline.toml", "suite = \"trixie\"", "suite = \"forky\"");
    assert_eq!(changes(&project, "base"), ["suite"]);
    project.edit("pipeline.toml", "suite = \"forky\"", "suite = \"trixie\"");

    assert_eq!(project.runs().len(), runs, "a plan starts nothing");
    let again = project.isokiln(&["plan", "pipeline.toml"]).expect_code(0);
    assert_eq!(again.stdout, all_hit.stdout, "every change was taken back");

    project.write("conf/motd", "farewell\n");
    project.build(&["--until", "conf"]).expect_code(0);
    assert_eq!(changes(&project, "label"), ["parent"]);
}

#[test]
fn branches_share_their_prefix_and_leave_each_their_own_files() {
    let project = Project::tiny(
        r#"
[[stage]]
name = "small"
uses = "box"
with = { file = "small.iso" }

[[stage]]
name = "more"
from = "base"
run = "echo more >/etc/more"

[[stage]]
name = "large"
uses = "box"
with = { file = "same.iso" }
"#,
    );
    // A volume without a boot record: it is tested without being booted.
    let script = "mkdir /isokiln/tree\ncp \"$ROOTFS\"/etc/* /isokiln/tree/\n\
                  xorriso -as mkisofs -quiet -o \"$ARTIFACTS/$(option file)\" /isokiln/tree\n";
    let manifest = "rootfs = \"read\"\nprivilege = \"none\"\n[options.file]\ntype = \"string\"\nrequired = true\nhelp = \"h\"\n";
    own_kind(&project, "box", manifest, script);
    project.edit("pipeline.toml", "small.iso", "same.iso");
    let told =
        project.build(&[]).expect_code(2).says("stages small and large both leave a file \"same.iso\"");
    told.says("give one of them another name");
    project.isokiln(&["verify"]).expect_code(0);

    project.edit(
        "pipeline.toml",
        "{ file = \"same.iso\" }\n\n[[stage]]\nname = \"more\"",
        "{ file = \"small.iso\" }\n\n[[stage]]\nname = \"more\"",
    );
    project.build(&[]).expect_code(0);
    // Branches are independent, so that their order is not given.
    let outcome = project.outcome();
    for part in ["base hit", "small done", "more hit", "large hit"] {
        assert!(outcome.contains(part), "{outcome}");
    }
    let (small, large) = (project.artifact("small.iso"), project.artifact("same.iso"));
    assert_ne!(fs::read(small).expect("one ISO"), fs::read(large).expect("the other ISO"));

    // Each is tested, and each test has evidence of its own.
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("the pipeline");
    project.write("pipeline.toml", format!("{text}\n[boot-test]\nprofiles = [\"bios-cd\"]\n"));
    project.isokiln(&["build", "pipeline.toml"]).expect_code(4);
    for name in ["small", "same"] {
        let path = project.home().join(format!("latest/boot/{name}/bios-cd/report.json"));
        let report = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let report: Value = serde_json::from_str(&report).expect("a report");
        assert_eq!(report["iso"], format!("{name}.iso"));
        assert_eq!(report["verdict"], "FAIL");
    }
    project.expect_no_residue();
}

#[test]
fn a_boot_test_that_has_nothing_to_boot_is_not_a_success() {
    let project = Project::tiny(
        "[[stage]]\nname = \"list\"\nuses = \"list\"\n\n[boot-test]\nprofiles = [\"bios-cd\"]\n",
    );
    own_kind(&project, "list", "rootfs = \"read\"\n", "ls \"$ROOTFS\" >\"$ARTIFACTS/a list.txt\"\n");
    project
        .isokiln(&["build", "pipeline.toml"])
        .expect_code(5)
        .says("[boot-test] has tested nothing")
        .says(".iso");
    assert!(fs::read_to_string(project.artifact("a list.txt")).expect("a name with a space").contains("etc"));
    project
        .isokiln(&["build", "pipeline.toml", "--until", "base"])
        .expect_code(0)
        .never_says("tested nothing");

    project.write("stages/list/run.sh", "mkdir \"$ARTIFACTS/folder\"\n");
    let told = project.build(&[]).expect_code(1);
    told.says("list: the stage leaves \"folder\" in ARTIFACTS, which is not a file").says("hint");
    project.isokiln(&["verify"]).expect_code(0);
}

#[test]
fn kinds_explain_themselves_and_broken_ones_are_shown() {
    let project = Project::tiny("");
    project.isokiln(&["kinds"]).expect_code(0).prints("bootstrap").prints("hybrid ISO").never_says("error");
    project
        .isokiln(&["kinds", "iso"])
        .expect_code(0)
        .prints("compression")
        .prints("one of zstd, xz, lz4, gzip");
    project
        .isokiln(&["kinds", "isso"])
        .expect_code(2)
        .says("there is no stage kind \"isso\"")
        .says("did you mean \"iso\"?");
    project.isokiln(&["kinds", "tiny"]).expect_code(2).says("valid: bootstrap");
    project
        .isokiln(&["kinds", "tiny", "--pipeline", "pipeline.toml"])
        .expect_code(0)
        .prints("makes a new one");

    own_kind(
        &project,
        "broken",
        "rootfs = \"chnage\"\n[options.a]\ntype = \"text\"\nhelp = \"h\"\n",
        "true\n",
    );
    refused(&project)
        .says("stages/broken/kind.toml:2:10")
        .says("did you mean \"change\"?")
        .says("stages/broken/kind.toml:4:8")
        .says("unknown type \"text\"");
    fs::remove_file(project.path("stages/broken/run.sh")).expect("a script");
    refused(&project).says("has no run.sh");
}

#[test]
fn every_command_says_in_json_what_is_wrong() {
    let project = Project::tiny("oops = 1\n");
    let commands: [&[&str]; 14] = [
        &["build", "pipeline.toml"],
        &["build", "nosuch.toml"],
        &["build"],
        &["plan", "pipeline.toml"],
        &["plan", "--exlpain", "pipeline.toml"],
        &["kinds", "nosuch"],
        &["kinds", "--pipeline", "nosuch/x.toml", "nosuch"],
        &["test", "nosuch.iso"],
        &["test", "pipeline.toml", "--profile", "nosuch"],
        &["checkpoint", "show", "nosuch"],
        &["checkpoint", "rollback", "nosuch"],
        &["checkpoint", "rm", "nosuch"],
        &["checkpoint", "export", "nosuch", "oci-archive:x.tar"],
        &["gc", "--keep", "0"],
    ];
    for command in commands {
        let told = project.isokiln(&[command, &["--format", "json"]].concat());
        let code = told.code.expect("an exit code");
        assert!(matches!(code, 2 | 3), "{told}");
        let last: Value = serde_json::from_str(told.stdout.lines().last().unwrap_or_default())
            .unwrap_or_else(|error| panic!("{error}\n{told}"));
        assert_eq!(last["error"]["exit_code"], code, "{told}");
        let message = last["error"]["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty() && !message.starts_with("error"), "{told}");
        assert!(!told.stderr.trim().is_empty(), "people are told too\n{told}");
    }
    for command in [
        &["kinds"][..],
        &["kinds", "iso"],
        &["checkpoint", "list"],
        &["verify"],
        &["gc"],
        &["doctor", "--residue"],
    ] {
        let told = project.isokiln(&[command, &["--format", "json"]].concat()).expect_code(0);
        assert!(!told.json().is_null(), "{told}");
    }
}

#[test]
fn editions_of_ailinux_share_their_first_stages() {
    let stages = |edition: &str| {
        let path = repository().join("pipelines").join(edition);
        let text = fs::read_to_string(path).expect("a pipeline");
        let (_, stages) = text.split_once("\n[[stage]]\n").expect("stages");
        let words = |stage: &str| stage.lines().filter(|line| !line.starts_with('#')).collect::<String>();
        stages.split("\n[[stage]]\n").map(words).collect::<Vec<_>>()
    };
    let (whole, installer) = (stages("ailinux.toml"), stages("ailinux-installer-only.toml"));
    assert_eq!(whole[..5], installer[..5], "what is written alike has the same key");
    assert!(whole[4].contains("uses = \"branding\""), "{}", whole[4]);
}
