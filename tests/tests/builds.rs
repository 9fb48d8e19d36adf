//! Builds: what runs, what is found again, what is said.

use isokiln_tests::Project;

#[test]
fn a_build_is_found_again_and_cut_off_early() {
    let project = Project::tiny(
        r#"
[[stage]]
name = "noise"
run = "echo one >/etc/noise"

[[stage]]
name = "last"
run = "cat /etc/noise >/etc/last"
"#,
    );
    project.build(&[]).expect_code(0).says("3 stages run, 0 from checkpoints");
    assert_eq!(project.outcome(), "base done, noise done, last done");

    project.build(&[]).expect_code(0).says("0 stages run, 3 from checkpoints");
    assert_eq!(project.outcome(), "base hit, noise hit, last hit");

    // Another script with the same result: what follows is not run again.
    project.edit("pipeline.toml", "echo one", "echo  one");
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, noise done, last hit");

    project.edit("pipeline.toml", "echo  one", "echo two");
    project.build(&[]).expect_code(0).says("changed: ");
    assert_eq!(project.outcome(), "base hit, noise done, last done");
    project.expect_no_residue();
}
