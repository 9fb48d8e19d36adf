//! Real packages: Debian trixie from the archive that this machine's apt sources name.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;

use isokiln_tests::{Project, TINY, builder_image, repository};

const HEAD: &str = "name = \"packages\"\n\n[system]\ndistribution = \"debian\"\nsuite = \"trixie\"\n";
const BASE: &str = "\n[[stage]]\nname = \"base\"\nuses = \"bootstrap\"\nwith = { slim = true }\n";

fn log(project: &Project, stage: &str) -> String {
    let path = project.home().join("latest/stages").join(stage).join("log");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails the test unless the log of the stage has all of these lines.
#[track_caller]
fn expect_lines(project: &Project, stage: &str, lines: &[&str]) {
    let seen = log(project, stage);
    for line in lines {
        assert!(seen.lines().any(|other| other == *line), "{line:?} is not in\n{seen}");
    }
}

fn stage(name: &str, with: &str) -> String {
    format!("\n[[stage]]\nname = {name:?}\nuses = \"packages\"\nwith = {{ {with} }}\n")
}

fn script(name: &str, text: &str) -> String {
    format!("\n[[stage]]\nname = {name:?}\nrun = '''\n{text}\n'''\n")
}

/// Adds a last stage that looks at the root file system as it lies in the layers, with nothing mounted
/// or lent.
fn with_peek(project: &Project) {
    project.write("stages/peek/kind.toml", "summary = \"Look\"\nrootfs = \"read\"\nprivilege = \"none\"\n");
    project.write(
        "stages/peek/run.sh",
        "cd \"$ROOTFS\"\nfor path in var/lib/apt/lists var/cache/apt var/log/apt var/log/dpkg.log usr/sbin/policy-rc.d \\\n\
         etc/apt/apt.conf.d/99mmdebstrap etc/resolv.conf var/log/bootstrap.log debootstrap; do\n\
         [[ ! -e $path ]] || find \"$path\" -type f -printf 'left: %p\\n'\ndone\n\
         echo man $(find usr/share/man -type f | wc -l)\n\
         echo docs $(find usr/share/doc -type f ! -name copyright | wc -l)\n",
    );
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("the pipeline");
    project.write("pipeline.toml", format!("{text}\n[[stage]]\nname = \"peek\"\nuses = \"peek\"\n"));
}

#[track_caller]
fn expect_clean(project: &Project) {
    expect_lines(project, "peek", &["man 0", "docs 0"]);
    let seen = log(project, "peek");
    assert!(!seen.contains("left: "), "{seen}");
}

#[test]
fn packages_are_installed_removed_held_and_recorded() {
    let look = "for p in wget ca-certificates nano tree; do
        [ \"$(dpkg-query -W -f '${db:Status-Status}' $p 2>/dev/null)\" = installed ] && echo $p yes || echo $p no; done
        echo held $(apt-mark showhold); debconf-show tzdata | grep Areas
        cat /etc/hostname; wc -c </etc/machine-id";
    let tools = stage(
        "tools",
        "install = [\"wget\", \"nano\"], optional = [\"nosuch-thing\", \"tree\"], hold = [\"wget\"], \
         debconf = [\"tzdata tzdata/Areas select Europe\"]",
    );
    let text =
        format!("{HEAD}{BASE}{tools}{}{}", stage("fewer", "remove = [\"nano\"]"), script("look", look));
    let project = Project::new(&text);
    with_peek(&project);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("the pipeline");
    let first = project
        .build(&["--format", "json"])
        .expect_code(0)
        .says("optional package nosuch-thing could not be installed");
    expect_lines(
        &project,
        "look",
        &["wget yes", "ca-certificates no", "nano no", "tree yes", "held wget", "localhost", "0"],
    );
    let seen = log(&project, "look");
    assert!(seen.contains("tzdata/Areas: Europe"), "{seen}");
    expect_clean(&project);
    let base = fs::read_to_string(project.artifact("base.packages.tsv")).expect("a list");
    assert!(base.lines().any(|line| line.starts_with("dpkg\t")) && base.lines().count() > 50, "{base}");
    let added = fs::read_to_string(project.artifact("tools.packages.tsv")).expect("a list");
    assert!(added.lines().any(|line| line.starts_with("nano\t")), "{added}");
    assert!(!added.lines().any(|line| line.starts_with("dpkg\t")), "{added}");

    // What was downloaded once is not downloaded again.
    let second = project.build(&["--format", "json", "--from", "base"]).expect_code(0);
    let received = |told: &isokiln_tests::Finished| -> u64 {
        let ended = told.events().into_iter().filter(|event| event["event"] == "checkpoint-stored");
        ended.filter_map(|event| event["usage"]["network_received"].as_u64()).sum()
    };
    let (cold, warm) = (received(&first), received(&second));
    assert!(cold > 20 << 20 && warm < cold / 4, "{cold} bytes received, then {warm}");
    assert_eq!(first_layers(&first), first_layers(&second), "the same packages give the same layers");

    wrong_packages(&project, &text);
    recommended(&project);
    project.expect_no_residue();
}

fn first_layers(told: &isokiln_tests::Finished) -> Vec<String> {
    let stored = told.events().into_iter().filter(|event| event["event"] == "layer-stored");
    stored.map(|event| event["diff_id"].to_string()).collect()
}

fn wrong_packages(project: &Project, text: &str) {
    let kept = project.checkpoints().len();
    project.write("pipeline.toml", format!("{HEAD}{BASE}{}", stage("typo", "install = [\"nanoo\"]")));
    let told = project
        .build(&[])
        .expect_code(1)
        .says("typo: no such package in debian trixie: nanoo (did you mean nano?)");
    told.says("[system] components");
    assert_eq!(project.outcome(), "base hit, typo failed");
    project.write("pipeline.toml", format!("{HEAD}{BASE}{}", stage("hold", "hold = [\"nosuch-thing\"]")));
    project.build(&[]).expect_code(1).says("hold: apt-mark could not hold").says("install them first");
    project.write("pipeline.toml", format!("{HEAD}{BASE}{}", stage("remove", "remove = [\"nosuch-thing\"]")));
    project.build(&[]).expect_code(1).says("remove: apt-get could not remove");
    project.write("pipeline.toml", format!("{HEAD}{BASE}{}", stage("answer", "debconf = [\"nonsense\"]")));
    project
        .build(&[])
        .expect_code(1)
        .says("answer: debconf does not take the answers")
        .says("package question type value");
    project.isokiln(&["verify"]).expect_code(0);
    assert_eq!(project.checkpoints().len(), kept);
    project.write("pipeline.toml", text);
    project.build(&[]).expect_code(0).says("0 stages run, 5 from checkpoints");
}

fn recommended(project: &Project) {
    // The project's own policy stays, though isokiln lends one where there is none.
    let own = script(
        "own",
        "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d",
    );
    let more = stage("more", "install = [\"wget\"], recommends = true");
    let look = script(
        "look",
        "dpkg-query -W -f '${db:Status-Status}\\n' ca-certificates; cat /usr/sbin/policy-rc.d",
    );
    project.write("pipeline.toml", format!("{HEAD}{BASE}{own}{more}{look}"));
    project.build(&[]).expect_code(0);
    expect_lines(project, "look", &["installed", "exit 101"]);
}

#[test]
fn debootstrap_makes_one_too_and_live_settles_in() {
    let base = "\n[[stage]]\nname = \"base\"\nuses = \"bootstrap\"\nwith = { tool = \"debootstrap\", slim = true, include = [\"nosuch-thing\"] }\n";
    let live = "\n[[stage]]\nname = \"live\"\nuses = \"live\"\nwith = { hostname = \"bad host\" }\n";
    let look = "cat /etc/hostname /etc/timezone /etc/locale.conf; locale -a | grep de_DE; grep -h LAYOUT= /etc/default/keyboard
        ls /boot | sed 's/-[0-9].*//'; cat /etc/live/config.conf.d/isokiln.conf";
    let project = Project::new(&format!("{HEAD}{base}{live}{}", script("look", look)));
    with_peek(&project);
    let told =
        project.build(&[]).expect_code(1).says("base: debootstrap could not make the root file system");
    told.says("nosuch-thing").says("hint");
    assert!(project.checkpoints().is_empty(), "half a root file system was kept");

    project.edit("pipeline.toml", ", include = [\"nosuch-thing\"]", "");
    project.build(&[]).expect_code(1).says("live: hostname \"bad host\" is not valid").says("use letters");
    assert_eq!(project.outcome(), "base done, live failed");
    project.edit(
        "pipeline.toml",
        "hostname = \"bad host\"",
        "hostname = \"kiosk\", user = \"guest\", kernel = \"linux-image-cloud-amd64\", locale = \"de_DE.UTF-8\", \
         keyboard = \"de\", timezone = \"Europe/Berlin\"",
    );
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, live done, look done, peek done");
    expect_lines(
        &project,
        "look",
        &[
            "kiosk",
            "Europe/Berlin",
            "LANG=de_DE.UTF-8",
            "de_DE.utf8",
            "XKBLAYOUT=\"de\"",
            "initrd.img",
            "vmlinuz",
            "LIVE_USERNAME=\"guest\"",
        ],
    );
    expect_clean(&project);
}

/// A web server of this machine that containers reach too. It has what `files` says, and nothing else.
fn serve(files: &'static [(&'static str, &'static str)]) -> SocketAddr {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let (mut request, mut piece) = (Vec::new(), [0; 4096]);
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(size) if size > 0 => request.extend_from_slice(&piece[..size]),
                    _ => break,
                }
            }
            let request = String::from_utf8_lossy(&request);
            let path = request.split(' ').nth(1).unwrap_or_default();
            let found = files.iter().find(|(name, _)| *name == path);
            let (status, body) = found.map_or(("404 Not Found", "gone"), |(_, body)| ("200 OK", body));
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            // A client that has left has what it wanted.
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    // The address from which this machine speaks to others; nothing is sent.
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let outside = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    SocketAddr::new(outside.expect("this machine has an address that containers reach").ip(), port)
}

const RELEASE: &str = "Origin: Debian\nSuite: stable\nCodename: trixie\nDate: Sat, 12 Sep 2026 07:55:41 UTC\nComponents: main\n";
const UBUNTU: &str = "Origin: Ubuntu\nSuite: noble\nCodename: noble\nDate: Sat, 12 Sep 2026 07:55:41 UTC\nComponents: main restricted universe multiverse\n";

#[test]
fn archives_that_lack_something_are_told() {
    let pipeline = |changes: &str| format!("name = \"p\"\n\n[system]\n{changes}\n{BASE}");
    let project = Project::new(&pipeline(
        "distribution = \"debian\"\nsuite = \"trixie\"\ncomponents = [\"main\", \"nonfree\"]",
    ));
    let plan = || project.isokiln(&["plan", "pipeline.toml"]);
    plan()
        .expect_code(2)
        .says("stage base cannot be planned")
        .says("trixie has no component \"nonfree\"")
        .says("did you mean \"non-free\"?");

    project.write("pipeline.toml", pipeline("distribution = \"debian\"\nsuite = \"trixi\""));
    let told = plan().expect_code(2).says("no archive has debian trixi; asked: http");
    told.says("check the suite's name");

    let nobody = "mirrors = [\"http://127.0.0.1:9/debian\"]";
    project.write(
        "pipeline.toml",
        pipeline(&format!("distribution = \"debian\"\nsuite = \"nosuch\"\n{nobody}")),
    );
    let told = plan().expect_code(3).says("the archive at http://127.0.0.1:9/debian cannot be reached");
    told.says("Connection refused").says("name another archive: mirrors");
    project.write(
        "pipeline.toml",
        pipeline(&format!("distribution = \"debian\"\nsuite = \"trixie\"\n{nobody}")),
    );
    plan()
        .expect_code(0)
        .says("http://127.0.0.1:9/debian cannot be reached")
        .says("going on without it")
        .prints("miss  base");

    let empty = serve(&[]);
    let mirrors = format!("mirrors = [\"http://{empty}/debian\"]");
    project.write(
        "pipeline.toml",
        pipeline(&format!("distribution = \"debian\"\nsuite = \"nosuch\"\n{mirrors}")),
    );
    plan().expect_code(2).says(&format!("no archive has debian nosuch; asked: http://{empty}/debian"));
    assert!(project.runs().is_empty(), "a plan has started a run");

    // A mirror that promises the suite and does not hold it.
    let liar = serve(&[("/debian/dists/trixie/InRelease", RELEASE)]);
    let mirrors = format!("mirrors = [\"http://{liar}/debian\"]");
    project.write(
        "pipeline.toml",
        pipeline(&format!("distribution = \"debian\"\nsuite = \"trixie\"\n{mirrors}")),
    );
    let told =
        project.build(&[]).expect_code(1).says("base: mmdebstrap could not make the root file system: ");
    told.says("check that the mirror serves trixie for amd64").says("stages/base/log");
    project.isokiln(&["verify"]).expect_code(0);
    project.expect_no_residue();
}

#[test]
fn ubuntu_is_planned_from_its_own_archive_and_an_unsigned_one_is_refused() {
    let archive =
        serve(&[("/ubuntu/dists/noble/InRelease", UBUNTU), ("/debian/dists/noble/InRelease", RELEASE)]);
    let text = format!(
        "name = \"u\"\n\n[system]\ndistribution = \"ubuntu\"\nsuite = \"noble\"\ncomponents = [\"main\", \"universe\"]\n\
         mirrors = [\"http://{archive}/ubuntu\"]\n{BASE}"
    );
    let project = Project::new(&text);
    project.isokiln(&["plan", "pipeline.toml"]).expect_code(0).prints("miss  base");
    let told =
        project.build(&[]).expect_code(1).says("base: mmdebstrap could not make the root file system: ");
    told.says("noble").says("is not signed");

    let tiny = TINY.replace("debian", "ubuntu").replace("trixie", "noble");
    let tiny = tiny.replace("\"noble\"", &format!("\"noble\"\nmirrors = [\"http://{archive}/ubuntu\"]"));
    project.write(
        "pipeline.toml",
        format!("{tiny}\n[[stage]]\nname = \"live\"\nuses = \"live\"\nwith = {{ user = \"\" }}\n"),
    );
    project
        .build(&[])
        .expect_code(1)
        .says("live: casper always makes a user")
        .says("give the option user a name");

    // An archive of Debian's is none of Ubuntu's, whatever the suite is called.
    project.write("pipeline.toml", text.replace("/ubuntu\"", "/debian\"").replace("noble", "nosuch"));
    let told = project.isokiln(&["plan", "pipeline.toml"]);
    assert!(matches!(told.code, Some(2 | 3)), "{told}");
    told.says("stage base cannot be planned").says("mirrors = [\"http://");
}

/// `pipelines/ailinux-ubuntu.toml`, where no archive of Ubuntu can be reached: every kind of it does its work on a root file
/// system of stand-ins.
#[test]
fn every_kind_of_the_ubuntu_edition_does_its_work() {
    let archive = serve(&[("/ubuntu/dists/noble/InRelease", UBUNTU)]);
    let pipeline =
        fs::read_to_string(repository().join("pipelines/ailinux-ubuntu.toml")).expect("the pipeline");
    let suite = "suite = \"noble\"\n";
    assert!(pipeline.contains(suite), "{pipeline}");
    let mirrors = format!("{suite}mirrors = [\"http://{archive}/ubuntu\"]\n");
    let brand = repository().join("branding/ailinux");
    let project =
        Project::new(&pipeline.replace(suite, &mirrors).replace("\"../branding/ailinux\"", "\"brand\""));
    std::os::unix::fs::symlink(brand, project.path("brand")).expect("a link");
    for file in ["kind.toml", "run.sh"] {
        let text =
            fs::read(repository().join("tests/fixtures/ubuntu/bootstrap").join(file)).expect("a fixture");
        project.write(&format!("stages/bootstrap/{file}"), text);
    }
    project
        .build(&[])
        .expect_code(0)
        .says("driver bcmwl-kernel-source could not be built for 6.8.0-31-generic")
        .says("the system is AILinux 1.0 now")
        .says("9 stages run");
    let log = |stage: &str| {
        let artifact = project.artifact("ailinux-ubuntu.iso");
        fs::read_to_string(artifact.with_file_name("../stages").join(stage).join("log")).expect("a log")
    };
    for stage in ["live", "branding", "calamares"] {
        assert!(!log(stage).contains("update-initramfs: Generating"), "{}", log(stage));
    }
    assert_eq!(log("initramfs").matches("update-initramfs: Generating").count(), 1, "{}", log("initramfs"));

    // What the ISO holds, listed and read by the builder image.
    let look = r#"
        set -e
        cd /tmp
        xorriso -osirrox on -indev /iso -extract / iso 2>/dev/null
        find iso -type f | sort
        cat iso/isolinux/isolinux.cfg iso/boot/grub/grub.cfg
        mdir -b -/ -i iso/boot/grub/efi.img ::/EFI
        mtype -i iso/boot/grub/efi.img ::/EFI/ubuntu/grub.cfg ::/EFI/BOOT/BOOTX64.EFI ::/EFI/BOOT/mmx64.efi
        unsquashfs -no-progress -d root iso/casper/filesystem.squashfs >/dev/null
        cat root/etc/casper.conf root/etc/os-release root/etc/calamares/modules/unpackfs.conf root/etc/calamares/modules/packages.conf
        ls root/lib/firmware root/usr/share/isokiln/boot-loaders/*
        readlink root/etc/alternatives/x-session-manager
        cat root/etc/X11/default-display-manager
        test ! -e root/usr/sbin/dkms
    "#;
    let iso = project.artifact("ailinux-ubuntu.iso");
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--network=none", "--volume"]).arg(format!("{}:/iso:ro", iso.display()));
    let looked = command.args([builder_image(), "bash", "-c", look]).output().expect("docker runs");
    let found = String::from_utf8_lossy(&looked.stdout);
    assert!(looked.status.success(), "{found}{}", String::from_utf8_lossy(&looked.stderr));
    for wanted in [
        "iso/casper/vmlinuz",
        "iso/casper/initrd.img",
        "iso/casper/filesystem.size",
        "iso/isolinux/splash.png",
        "iso/boot/grub/theme/theme.txt",
        "append initrd=/casper/initrd.img boot=casper",
        "linux /casper/vmlinuz boot=casper",
        "::/EFI/ubuntu/grub.cfg",
        "configfile ($root)/boot/grub/grub.cfg",
        "a shim",
        "a key manager",
        "export USERNAME=\"ailinux\"",
        "export HOST=\"ailinux\"",
        "PRETTY_NAME=\"AILinux 1.0\"",
        "ID_LIKE=\"ubuntu debian\"",
        "/cdrom/casper/filesystem.squashfs",
        "try_remove: [ \"casper\" ]",
        "stand-in",
        "grub-efi-amd64_9999_all.deb",
        "grub-pc_9999_all.deb",
        "/usr/bin/startlxqt",
        "/usr/bin/sddm",
    ] {
        assert!(found.contains(wanted), "{wanted:?} is missing in\n{found}");
    }
    assert!(!found.contains("bcmwl") && !found.contains("boot=live"), "{found}");
    project.expect_no_residue();
}
