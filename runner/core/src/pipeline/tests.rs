//! Pipeline files, right and wrong.

use super::*;
use crate::boot::{Check, CheckCatalog};
use crate::digest::Digest;
use crate::kind::Kind;

/// Kinds in the shapes of the bundled ones.
fn kinds() -> KindCatalog {
    let declare = |name: &str, text: &str| {
        let name: crate::names::KindName = name.parse().unwrap();
        (name.clone(), Kind::parse(name, text, Digest::of(text)).unwrap())
    };
    KindCatalog(
        [
            declare(
                "bootstrap",
                "summary = \"s\"\nrootfs = \"new\"\nprivilege = \"full\"\nnetwork = true\narchive = true\n\
                 [options.variant]\ntype = \"string\"\ndefault = \"minbase\"\nchoices = [\"minbase\", \"buildd\"]\nhelp = \"h\"\n",
            ),
            declare(
                "packages",
                "summary = \"s\"\nnetwork = true\narchive = true\n\
                 [options.install]\ntype = \"list\"\ndefault = []\nhelp = \"h\"\n\
                 [options.optional]\ntype = \"list\"\ndefault = []\nhelp = \"h\"\n",
            ),
            declare(
                "files",
                "summary = \"s\"\nprivilege = \"none\"\n\
                 [options.source]\ntype = \"path\"\nrequired = true\nhelp = \"Folder to copy.\"\n\
                 [options.modes]\ntype = \"map\"\ndefault = {}\nhelp = \"h\"\n",
            ),
            declare("script", "summary = \"s\"\n[options.run]\ntype = \"string\"\nrequired = true\nhelp = \"h\"\n"),
            declare(
                "iso",
                "summary = \"s\"\nrootfs = \"read\"\n[options.level]\ntype = \"integer\"\ndefault = 15\nhelp = \"h\"\n\
                 [options.name]\ntype = \"string\"\ndefault = \"\"\nunique = true\nhelp = \"h\"\n",
            ),
        ]
        .into(),
    )
}

fn parse(text: &str) -> Result<Pipeline, Diagnostics> {
    let profiles = ["bios-cd", "uefi-cd"].map(|name| name.parse().unwrap());
    Pipeline::parse(
        text,
        Vocabulary { kinds: &kinds(), profiles: &profiles, checks: &CheckCatalog::default() },
    )
}

const HEAD: &str = "name = \"demo\"\n[system]\ndistribution = \"debian\"\nsuite = \"trixie\"\n";
const BASE: &str = "[[stage]]\nname = \"base\"\nuses = \"bootstrap\"\n";

fn stages(text: &str) -> Result<Pipeline, Diagnostics> {
    parse(&format!("{HEAD}{BASE}{text}"))
}

/// The first mistake, as `line:column message | label | help`.
fn mistake(text: &str) -> String {
    let text = format!("{HEAD}{BASE}{text}");
    let errors = parse(&text).expect_err("the file was accepted");
    let first = &errors.0[0];
    let (line, column) = first.position(&text);
    format!(
        "{line}:{column} {} | {} | {}",
        first.message,
        first.label,
        first.help.clone().unwrap_or_default()
    )
}

#[test]
fn the_design_pages_example_is_valid() {
    let pipeline = parse(
        r#"
        name = "ailinux"
        [system]
        distribution = "debian"            # debian | ubuntu
        suite        = "trixie"
        architecture = "amd64"
        components   = ["main", "contrib", "non-free", "non-free-firmware"]

        [[stage]]
        name = "base"
        uses = "bootstrap"
        with = { variant = "minbase" }

        [[stage]]
        name = "desktop"
        uses = "packages"
        with = { install = ["lxqt-core", "lightdm"], optional = ["falkon"] }

        [[stage]]
        name = "tweaks"
        run  = "echo ailinux > /etc/hostname"

        [[stage]]
        name = "iso"
        uses = "iso"

        [boot-test]
        profiles = ["bios-cd", "uefi-cd"]
        checks   = ["network-manager", "wlan", { command = "test -e /etc/hostname" }]
        "#,
    )
    .unwrap();
    let parents: Vec<_> =
        pipeline.stages.iter().map(|stage| stage.parent.as_ref().map_or("-", |p| p.as_str())).collect();
    assert_eq!(parents, ["-", "base", "desktop", "tweaks"]);
    assert_eq!(pipeline.stages[1].options.values["install"], serde_json::json!(["lxqt-core", "lightdm"]));
    assert_eq!(pipeline.stages[2].kind.as_str(), "script");
    assert!(pipeline.stages[1].archive && !pipeline.stages[2].archive);
    let boot_test = pipeline.boot_test.unwrap();
    assert_eq!(boot_test.checks[..2], [Check::NetworkManager.into(), Check::Wlan.into()]);
    assert_eq!(boot_test.checks[2].name(), "command: test -e /etc/hostname");
}

#[test]
fn branches_share_a_prefix_and_parents_come_first() {
    let pipeline = stages(
        "[[stage]]\nname = \"late\"\nrun = \"true\"\nfrom = \"early\"\n\
         [[stage]]\nname = \"early\"\nrun = \"true\"\nfrom = \"base\"\n",
    )
    .unwrap();
    let names: Vec<_> = pipeline.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["base", "early", "late"]);
    assert_eq!(pipeline.stage("late").unwrap().parent.as_ref().unwrap().as_str(), "early");
}

#[test]
fn limits_are_inherited_and_overridden() {
    let pipeline = parse(&format!(
        "{HEAD}[limits]\ncpus = 1.5\nmemory = \"2GiB\"\n{BASE}limits = {{ time = \"90s\" }}\n"
    ))
    .unwrap();
    let limits = pipeline.stages[0].limits;
    assert_eq!((limits.cpus, limits.memory, limits.time.as_secs()), (Some(1.5), Some(2 << 30), 90));
}

#[test]
fn every_mistake_is_named_with_its_place_and_the_nearest_name() {
    let cases = [
        "[[stage]]\nname = \"x\"\nuses = \"pakages\"\n",
        "[[stage]]\nname = \"x\"\nuses = \"packages\"\nwith = { instal = [] }\n",
        "[[stage]]\nname = \"x\"\nuses = \"packages\"\nwith = { install = \"vim\" }\n",
        "[[stage]]\nname = \"x\"\nrunn = \"true\"\n",
        "[[stage]]\nname = \"base\"\nrun = \"true\"\n",
        "[[stage]]\nname = \"x\"\nrun = \"true\"\nfrom = \"bse\"\n",
        "[[stage]]\nname = \"a\"\nrun = \"true\"\nfrom = \"b\"\n[[stage]]\nname = \"b\"\nrun = \"true\"\nfrom = \"a\"\n",
        "[[stage]]\nname = \"x\"\nrun = \"true\"\nfrom = \"x\"\n",
        "[[stage]]\nname = \"x\"\n",
        "[[stage]]\nname = \"x\"\nrun = \"\"\n",
        "[[stage]]\nname = \"x\"\nuses = \"files\"\n",
        "[[stage]]\nname = \"x\"\nuses = \"files\"\nwith = { source = \"/secret\" }\n",
        "[[stage]]\nname = \"x\"\nuses = \"bootstrap\"\nfrom = \"base\"\n",
        "[[stage]]\nname = \"x y\"\nrun = \"true\"\n",
        "[[stage]]\nname = \"x\"\nrun = \"true\"\nlimits = { memory = \"lots\" }\n",
        "[boot-test]\nprofiles = [\"bios-cd\"]\n",
        "[[stage]]\nname = \"i\"\nuses = \"iso\"\n[boot-test]\nprofiles = [\"bios\"]\n",
        "[[stage]]\nname = \"i\"\nuses = \"iso\"\n[boot-test]\nprofiles = [\"bios-cd\"]\nchecks = [\"wifi\"]\n",
        "[[stage]]\nname = \"i\"\nuses = \"iso\"\n[boot-test]\nprofiles = [\"bios-cd\"]\nchecks = [\"boot\", \"wlan\", \"boot\"]\n",
        "[[stage]]\nname = \"i\"\nuses = \"iso\"\n[boot-test]\nprofiles = [\"bios-cd\"]\n\
         checks = [{ screen = \"x\", name = \"a\" }, { picture = \"x.png\", name = \"a\" }]\n",
        "[[stage]]\nname = \"i\"\nuses = \"iso\"\n[boot-test]\nprofiles = []\n",
        "[[stage]]\nname = \"i\"\nuses = \"iso\"\n[[stage]]\nname = \"j\"\nuses = \"iso\"\n",
        "[[stage]]\nname = \"x\"\nrun = \"true\"\nlimits = { cpus = 99999 }\n",
        "[[stage]]\nname = \"x\"\nrun = \"true\"\nlimits = { memory = \"1MiB\" }\n",
        "[[stage]]\nname = \"i\"\nuses = \"iso\"\n[boot-test]\nprofiles = [\"bios-cd\"]\ncpus = 0\n",
        "[stag]\n",
        "x = \n",
    ];
    let report: Vec<_> = cases.iter().map(|case| mistake(case)).collect();
    insta::assert_snapshot!(report.join("\n"));
}

#[test]
fn all_mistakes_are_reported_at_once_in_order() {
    let text = "nam = \"x\"\n[system]\ndistribution = \"gentoo\"\n[[stage]]\nname = \"a\"\nuses = \"nope\"\n";
    let errors = parse(text).unwrap_err();
    let messages: Vec<_> = errors.0.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "the pipeline file has no name",
            "unknown key \"nam\" in the pipeline file",
            "[system] has no suite",
            "unknown distribution \"gentoo\"",
            "unknown stage kind \"nope\"",
        ]
    );
}

#[test]
fn an_empty_pipeline_is_refused() {
    assert!(parse(HEAD).unwrap_err().to_string().contains("has no [[stage]]"));
    assert!(parse(&format!("stage = []\n{HEAD}")).unwrap_err().to_string().contains("has no stages"));
    assert!(parse("").unwrap_err().to_string().contains("has no name"));
}

#[test]
fn the_first_stage_must_make_a_root_file_system() {
    let errors = parse(&format!("{HEAD}[[stage]]\nname = \"x\"\nrun = \"true\"\n")).unwrap_err();
    assert!(errors.0[0].help.as_ref().unwrap().contains("bootstrap"), "{errors}");
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_panic(text in "\\PC{0,200}") {
        drop(parse(&text));
    }

    #[test]
    fn any_mangled_pipeline_is_read_or_refused_without_panic(cut in 0usize..400, insert in "[\\[\\]{}=\"a-z \\n]{0,6}") {
        let mut text = format!("{HEAD}{BASE}[[stage]]\nname = \"x\"\nuses = \"files\"\nwith = {{ source = \"a\" }}\n");
        let cut = cut % text.len();
        text.insert_str(cut, &insert);
        drop(parse(&text));
    }
}
