//! Layers: whatever a stage leaves in its tree is there again after capture and restore, here and in other
//! tools. The trees are those of the fixture kind `hostile`.

use std::fs;
use std::path::Path;
use std::process::Command;

use isokiln_tests::{Finished, LISTER, Project, repository};

/// A tree, a list of it, the same tree changed, and a list of that.
fn hostile(sparse: &str) -> Project {
    Project::tiny(&format!(
        r#"
[[stage]]
name = "made"
uses = "hostile"
with = {{ sparse = "{sparse}" }}

[[stage]]
name = "list-made"
uses = "listing"

[[stage]]
name = "changed"
from = "made"
uses = "hostile"
with = {{ step = "change" }}

[[stage]]
name = "list-changed"
uses = "listing"
"#
    ))
}

const STEPS: [&str; 2] = ["made", "changed"];

/// A listing that a stage has left.
#[track_caller]
fn listing(project: &Project, stage: &str) -> Vec<String> {
    let path = project.artifact(&format!("{stage}.txt"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(str::to_owned).collect()
}

/// The part of a whole root file system's listing that is about the hostile tree, as the tree's own maker
/// lists it.
fn hostile_part(whole: &[String]) -> Vec<String> {
    let part = whole.iter().filter(|line| line.starts_with("./hostile/"));
    part.map(|line| line.replace("./hostile/", "./")).collect()
}

#[track_caller]
fn expect_same(what: &str, before: &[String], after: &[String]) {
    let missing: Vec<_> = before.iter().filter(|line| !after.contains(line)).take(10).collect();
    let surplus: Vec<_> = after.iter().filter(|line| !before.contains(line)).take(10).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "{what}:\n- {missing:#?}\n+ {surplus:#?}");
    assert_eq!(before.len(), after.len(), "{what}");
}

/// Fails the test unless the listing has a line that begins and goes on like this.
#[track_caller]
fn expect_line(lines: &[String], start: &str, parts: &[&str]) {
    let line = lines.iter().find(|line| line.starts_with(&format!("{start} ")));
    let line = line.unwrap_or_else(|| panic!("{start} is not listed"));
    for part in parts {
        assert!(line.split(' ').any(|word| word.starts_with(part)), "no {part} in {line}");
    }
}

/// That the fixture has made what this test is about.
fn expect_hostile(lines: &[String], sparse: u64) {
    let size = format!("size={sparse}");
    for (start, parts) in [
        ("./links/a/two", &["f", "same-as=./links/a/one"][..]),
        ("./links/b/three", &["same-as=./links/a/one"]),
        ("./links/odd", &["l", "to=tab%09new%0aline%ff"]),
        ("./nodes/char", &["c", "640", "rdev=1281"]),
        ("./nodes/block", &["b", "rdev=1992"]),
        ("./nodes/fifo", &["p"]),
        ("./owners/4294967294", &["4294967294:4294967294"]),
        ("./owners/2097152", &["2097152:2097153"]),
        ("./owners/symlink", &["3000000:3000001"]),
        ("./modes/7777", &["7777"]),
        ("./modes/sticky", &["d", "1777"]),
        ("./attributes/capable", &["security.capability="]),
        ("./attributes/acl", &["system.posix_acl_access="]),
        ("./attributes/default-acl", &["system.posix_acl_default="]),
        ("./attributes/file", &["user.binary=000102", "user.empty=", "user.sp%20ace.%c3%a4=610a623d63"]),
        ("./attributes/node", &["trusted.binary=000102"]),
        ("./attributes/symlink", &["trusted.binary=000102"]),
        ("./contents/sparse", &[&size, "sparse"]),
        ("./contents/hole", &[&size, "sparse"]),
        ("./contents/nothing", &["size=0"]),
        ("./names/new%0aline", &["f"]),
        ("./names/%ff%fe", &["f"]),
        ("./times/-1.999999999", &["-1.999999999"]),
        ("./times/-2000000000.5", &["-2000000000.000000005"]),
        ("./times/0.0", &["0.000000000"]),
        ("./times/folder", &["d", "-5.000000005"]),
    ] {
        expect_line(lines, start, parts);
    }
    let longest = lines.iter().filter_map(|line| line.split(' ').next()).map(str::len).max();
    assert!(longest > Some(3700), "the longest path has {longest:?} characters");
}

/// Builds, and fails the test unless trees are the same while their stage runs, afterwards, and after
/// they were restored from the store.
fn expect_survival(project: &Project, compression: &str, sparse: u64) {
    let arguments = ["--compression", compression];
    project.build(&arguments).expect_code(0).says("5 stages run");
    let made = listing(project, "made");
    expect_hostile(&made, sparse);
    let live = STEPS.map(|step| listing(project, &format!("list-{step}")));
    for (step, live) in STEPS.iter().zip(&live) {
        let mut own = listing(project, step);
        // The folder's own place in the whole tree has another name.
        own.remove(0);
        let sockets = own.len();
        own.retain(|line| !line.starts_with("./sockets/"));
        // The one thing that a layer does not keep.
        assert_eq!(sockets - own.len(), usize::from(*step == "made"), "sockets in {step}");
        expect_same(&format!("{step}, in its stage and after it"), &own, &hostile_part(live));
    }
    let media_type = &project.checkpoint("made")["layers"][1]["media_type"];
    assert!(
        media_type.as_str().is_some_and(|text| text.ends_with(&format!("+{compression}"))),
        "{media_type}"
    );

    project.isokiln(&["clean"]).expect_code(0);
    for (step, live) in STEPS.iter().zip(&live) {
        let list = format!("list-{step}");
        project.build(&[&["--from", &list], &arguments[..]].concat()).expect_code(0).says("unpacking layer");
        assert!(project.outcome().contains(&format!("{list} done")), "{}", project.outcome());
        expect_same(&format!("{step}, restored"), live, &listing(project, &list));
    }
    project.isokiln(&["verify"]).expect_code(0);
    project.expect_no_residue();
}

/// A tool of this machine, run to its end.
#[track_caller]
fn tool(folder: &Path, package: &str, line: &[&str]) -> Finished {
    let found = Command::new("sh").args(["-c", "command -v \"$0\"", line[0]]).output();
    let found = found.expect("sh can be run").status.success();
    assert!(found, "{} is not installed: apt install {package} (./test.sh does)", line[0]);
    Finished::of(Command::new(line[0]).args(&line[1..]).current_dir(folder)).expect_code(0)
}

#[test]
fn a_hostile_tree_survives_with_zstd_and_a_file_of_9_gib_stays_sparse() {
    let project = hostile("9G");
    expect_survival(&project, "zstd", 9 << 30);
    // skopeo reads every blob against its digest, and every layer against its diff-id.
    project.isokiln(&["checkpoint", "export", "changed", "oci-archive:changed.tar"]).expect_code(0);
    let archive = "oci-archive:changed.tar:tiny-changed";
    let inspected = tool(&project.path(""), "skopeo", &["skopeo", "inspect", archive]).json();
    let checkpoint = project.checkpoint("changed");
    assert_eq!(inspected["Digest"], checkpoint["digest"]);
    assert_eq!(inspected["Layers"].as_array().map(Vec::len), Some(3));
    tool(&project.path(""), "skopeo", &["skopeo", "copy", archive, "oci:copied:changed"]);
    let copied = project.path("copied/blobs/sha256");
    for layer in checkpoint["layers"].as_array().expect("layers") {
        let blob = project.blob(&layer["digest"]);
        let name = blob.file_name().expect("a name");
        assert!(fs::read(copied.join(name)).ok() == fs::read(&blob).ok(), "{} is not copied", blob.display());
    }
}

#[test]
fn a_hostile_tree_survives_with_gzip_and_umoci_unpacks_the_same() {
    let sparse = 64 << 20;
    let project = hostile("64M");
    expect_survival(&project, "gzip", sparse);
    assert!(
        nix::unistd::geteuid().is_root(),
        "device nodes can only be unpacked by root: run the tests as root"
    );
    for step in STEPS {
        let archive = format!("oci-archive:{step}.tar");
        project.isokiln(&["checkpoint", "export", step, &archive]).expect_code(0);
        let folder = project.path("");
        tool(&folder, "skopeo", &["skopeo", "copy", &archive, &format!("oci:image:{step}")]);
        tool(&folder, "umoci", &["umoci", "unpack", "--image", &format!("image:{step}"), step]);
        let lister = repository().join(LISTER).display().to_string();
        let listed = tool(&folder, "perl", &["perl", &lister, &format!("{step}/rootfs")]);
        // umoci writes holes as zeros, and tools in Go take a pax record without a value for no record.
        let plain = |lines: Vec<String>| -> Vec<String> {
            lines.into_iter().map(|line| line.replace(" sparse", "").replace(" user.empty=", "")).collect()
        };
        let ours = plain(listing(&project, &format!("list-{step}")));
        let theirs = plain(listed.stdout.lines().map(str::to_owned).collect());
        expect_same(&format!("{step}, unpacked by umoci"), &ours, &theirs);
    }
}

#[test]
fn what_no_layer_can_hold_is_named_and_the_next_build_goes_on() {
    let project = Project::tiny(
        r#"
[[stage]]
name = "tree"
uses = "hostile"
with = { extra = "EXTRA" }
"#,
    );
    project.edit("stages/hostile/run.sh", "perl \"/isokiln/kind/$(option step).pl\"", ": #");
    let mut extra = "EXTRA".to_owned();
    for (next, words) in [
        // Such a name in a layer would delete the file "kept".
        (
            "mkdir 'd'; open my $f, '>', 'd/.wh.kept' or die",
            "./hostile/d/.wh.kept cannot be kept in an OCI layer",
        ),
        ("mkdir '.wh..wh..opq' or die", "./hostile/.wh..wh..opq/ cannot be kept in an OCI layer"),
        (
            "for (1 .. 20) { mkdir 'x' x 250; chdir 'x' x 250 or die }",
            "bytes cannot be kept in a layer: the limit is 4095",
        ),
    ] {
        project.edit("pipeline.toml", &extra, next);
        next.clone_into(&mut extra);
        let failed = project.build(&[]).expect_code(1).says("FAILED tree: ").says(words);
        failed.says("hint let the stage remove it or give it another name");
        let stages: Vec<_> = project.checkpoints().iter().map(|one| one["stage"].clone()).collect();
        assert_eq!(stages, ["base"], "the checkpoint before is intact and there is none of the stage");
        project.isokiln(&["verify"]).expect_code(0);
    }
    project.edit("pipeline.toml", &extra, "open my $f, '>', 'wh.kept' or die");
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, tree done");
    project.expect_no_residue();
}
