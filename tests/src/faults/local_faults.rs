//! Faults in the container: what a stage's own script breaks, mostly on its first attempt only.

use super::table::{Expected, Fault, World};

const BREAKS: &str = "\n[[stage]]\nname = \"fault\"\nuses = \"breaks\"\n";

/// What an earlier stage has left breaks one that is all right itself.
const AFTER_POISON: &str = r#"
[[stage]]
name = "poison"
uses = "poisons"

[[stage]]
name = "fault"
uses = "packages"
with = { install = ["hello"] }
"#;

const FIVE: &str = r#"
[[stage]]
name = "one"
uses = "fails-twice"

[[stage]]
name = "two"
uses = "fails-twice"

[[stage]]
name = "three"
uses = "fails-twice"

[[stage]]
name = "four"
uses = "fails-twice"

[[stage]]
name = "fault"
uses = "fails-twice"
"#;

/// Kinds: what `kind.toml` says besides what all have.
pub(super) const PLAIN: &str = "privilege = \"chroot\"\n";
pub(super) const ARCHIVE: &str = "privilege = \"chroot\"\nnetwork = true\narchive = true\n";
const FULL: &str = "privilege = \"full\"\n";
const WITH_OPTIONAL: &str = "privilege = \"chroot\"\nnetwork = true\narchive = true\n\
    [options.optional]\ntype = \"list\"\ndefault = []\nhelp = \"What can be done without.\"\n";

fn green(name: &'static str, what: &'static str, world: World) -> Fault {
    Fault::new(name, what, world, Expected::Green).stages(BREAKS)
}

fn stops(name: &'static str, what: &'static str, world: World, rules: &'static [&'static str]) -> Fault {
    Fault::new(name, what, world, Expected::Stops(rules)).stages(BREAKS)
}

pub(super) fn all() -> Vec<Fault> {
    let mut faults = packages();
    faults.extend(caches());
    faults.extend(parents());
    faults.extend(processes());
    faults.extend(resolver());
    faults.extend(mistakes());
    faults.extend(bounds());
    faults
}

/// dpkg and its maintainer scripts.
fn packages() -> Vec<Fault> {
    use World::Archive;
    vec![
        green("postinst-fails-once", "a package's postinst fails, once", Archive)
            .kind(
                "breaks",
                ARCHIVE,
                "if first; then touch \"$ROOTFS/run/fails\"; fi\nmake_deb fault '' '[ ! -e /run/fails ]'\ninstall_deb fault\n",
            )
            .quick(),
        stops("postinst-fails-always", "a package's postinst fails for good", Archive, &["unknown"]).kind(
            "breaks",
            ARCHIVE,
            "make_deb fault '' 'exit 1'\ninstall_deb fault\n",
        ),
        green("dpkg-lock-held-once", "another process holds dpkg's lock on the first attempt", Archive).kind(
            "breaks",
            ARCHIVE,
            "apt_update\nif first; then hold_lock; fi\napt_install hello\n",
        ),
        stops(
            "dpkg-lock-held-always",
            "another process holds dpkg's lock on every attempt",
            Archive,
            &["apt-lock-held", "apt-frontend-lock-in-use"],
        )
        .kind("breaks", ARCHIVE, "apt_update\nhold_lock\napt_install hello\n"),
        stops("no-such-package", "a package that does not exist", Archive, &["isokiln-no-such-package"])
            .stages(
                "\n[[stage]]\nname = \"fault\"\nuses = \"packages\"\nwith = { install = [\"no-such-package\"] }\n",
            )
            .quick(),
        stops(
            "unmet-dependency",
            "a package that needs one that does not exist",
            Archive,
            &["apt-unmet-dependencies", "apt-solver-unsatisfiable"],
        )
        .kind(
            "breaks",
            ARCHIVE,
            "apt_update\nmake_deb fault 'Depends: no-such-package (>= 3)' true\ninstall_deb fault\n",
        ),
        stops(
            "file-of-another-package",
            "a package that brings a file of another one",
            Archive,
            &["dpkg-overwrite-other-package"],
        )
        .kind(
            "breaks",
            ARCHIVE,
            "mkdir -p /tmp/fault/usr/bin\necho x >/tmp/fault/usr/bin/apt-get\nmake_deb fault '' true\ninstall_deb fault\n",
        ),
        Fault::new("optional-missing", "an optional package does not exist", Archive, Expected::GreenWithout)
            .stages(
                "\n[[stage]]\nname = \"fault\"\nuses = \"packages\"\nwith = { install = [\"hello\"], optional = [\"no-such-package\"] }\n",
            ),
        Fault::new(
            "optional-missing-among-others",
            "an optional package that is installed with others does not exist",
            Archive,
            Expected::GreenWithout,
        )
        .stages(
            "\n[[stage]]\nname = \"fault\"\nuses = \"breaks\"\nwith = { optional = [\"no-such-package\", \"hello\"] }\n",
        )
        .kind(
            "breaks",
            WITH_OPTIONAL,
            "option_list optional optional\napt_update\napt install \"${optional[@]}\" 2>&1 | tee \"$_isokiln_log\" || _explain_apt failed\n",
        ),
    ]
}

/// What lies in the caches from before.
fn caches() -> Vec<Fault> {
    use World::Archive;
    let after_poison = |name, what| Fault::new(name, what, Archive, Expected::Green).stages(AFTER_POISON);
    vec![
        after_poison("cached-deb-is-garbage", "a package in the cache is nothing but zeros").kind(
            "poisons",
            ARCHIVE,
            "apt_update\napt install --download-only hello\nif first; then for deb in \"$ISOKILN_DEBS\"/hello_*.deb; do \
             size=$(stat --format=%s \"$deb\"); rm \"$deb\"; head -c \"$size\" /dev/zero >\"$deb\"; done; fi\n",
        ),
        after_poison("cached-deb-is-damaged", "a package in the cache has some wrong bytes").kind(
            "poisons",
            ARCHIVE,
            "apt_update\napt install --download-only hello\nif first; then for deb in \"$ISOKILN_DEBS\"/hello_*.deb; do \
             cp \"$deb\" /tmp/deb; rm \"$deb\"; head -c 4000 /dev/zero | dd of=/tmp/deb bs=1 seek=20000 conv=notrunc status=none; \
             cp /tmp/deb \"$deb\"; done; fi\n",
        ),
        after_poison("cached-deb-is-cut-off", "a package in the cache is half there, and its size is right").kind(
            "poisons",
            ARCHIVE,
            "apt_update\napt install --download-only hello\nif first; then for deb in \"$ISOKILN_DEBS\"/hello_*.deb; do \
             size=$(stat --format=%s \"$deb\"); cp \"$deb\" /tmp/deb; rm \"$deb\"; truncate -s $((size / 2)) /tmp/deb; \
             truncate -s \"$size\" /tmp/deb; cp /tmp/deb \"$deb\"; done; fi\n",
        ),
        after_poison("cached-lists-are-stale", "the package lists in the cache name a file that the archive no longer has")
            .kind(
                "poisons",
                ARCHIVE,
                "apt_update\nif first; then sed -i '/^Package: hello$/,/^$/ s|^Filename: .*|Filename: pool/main/h/hello/hello_0.1-1_amd64.deb|' \
                 \"$ROOTFS\"/var/lib/apt/lists/*_trixie_main_*Packages; fi\n",
            ),
        after_poison("cached-lists-are-garbage", "the package lists in the cache are no lists").kind(
            "poisons",
            ARCHIVE,
            "apt_update\nif first; then for list in \"$ROOTFS\"/var/lib/apt/lists/*_trixie_main_*Packages; do \
             head -c 5000 /dev/urandom | base64 >\"$list\"; done; fi\n",
        ),
    ]
}

/// What the stage before has left in the root file system.
fn parents() -> Vec<Fault> {
    use World::Archive;
    vec![
        Fault::new(
            "parent-left-dpkg-interrupted-once",
            "the stage before ended in the middle of dpkg's work, once",
            Archive,
            Expected::Green,
        )
        .stages(AFTER_POISON)
        .kind(
            "poisons",
            ARCHIVE,
            "if first; then sed -n '/^Package: dash$/,/^$/p' \"$ROOTFS/var/lib/dpkg/status\" >\"$ROOTFS/var/lib/dpkg/updates/0001\"; fi\n\
             echo parent >\"$ROOTFS/etc/parent\"\n",
        ),
        Fault::new(
            "parent-leaves-dpkg-interrupted",
            "the stage before ends in the middle of dpkg's work each time",
            Archive,
            Expected::Stops(&["apt-dpkg-interrupted"]),
        )
        .stages(AFTER_POISON)
        .kind(
            "poisons",
            ARCHIVE,
            "sed -n '/^Package: dash$/,/^$/p' \"$ROOTFS/var/lib/dpkg/status\" >\"$ROOTFS/var/lib/dpkg/updates/0001\"\n",
        ),
        Fault::new(
            "parent-damaged-the-status-file-once",
            "the stage before left a damaged list of installed packages, once",
            Archive,
            Expected::Green,
        )
        .stages(AFTER_POISON)
        .kind(
            "poisons",
            ARCHIVE,
            "if first; then printf 'Package: half\\nStatus: install ok inst' >>\"$ROOTFS/var/lib/dpkg/status\"; fi\n\
             echo parent >\"$ROOTFS/etc/parent\"\n",
        ),
    ]
}

/// Processes, memory, time, disks.
fn processes() -> Vec<Fault> {
    use World::Tiny;
    const DONE: &str =
        "\n[[stage]]\nname = \"fault\"\nrun = \"sort /dev/zero\"\nlimits = { memory = \"64MiB\" }\n";
    vec![
        green("script-killed-once", "the stage's shell is killed, once", Tiny)
            .kind("breaks", PLAIN, "if first; then kill -KILL $$; fi\necho done >\"$ROOTFS/etc/done\"\n")
            .quick(),
        stops(
            "script-killed-always",
            "the stage's shell is killed each time",
            Tiny,
            &["machine-process-killed", "memory-killed"],
        )
        .kind("breaks", PLAIN, "kill -KILL $$\n"),
        green("program-crashes-once", "a program of the stage crashes, once", Tiny)
            .kind(
                "breaks",
                PLAIN,
                "if first; then bash -c 'kill -SEGV $$'; fi\necho done >\"$ROOTFS/etc/done\"\n",
            )
            .quick(),
        green("tmp-full-once", "the stage's /tmp is full, once", Tiny).kind(
            "breaks",
            FULL,
            "if first; then mount -t tmpfs -o size=40m tmpfs \"$ROOTFS/tmp\"; fi\n\
             head -c 50M /dev/zero >\"$ROOTFS/tmp/big\"\necho done >\"$ROOTFS/etc/done\"\n",
        ),
        stops(
            "tmp-full-always",
            "the stage's /tmp is full each time",
            Tiny,
            &["machine-disk-full", "disk-no-space"],
        )
        .kind(
            "breaks",
            FULL,
            "mount -t tmpfs -o size=40m tmpfs \"$ROOTFS/tmp\"\nhead -c 50M /dev/zero >\"$ROOTFS/tmp/big\"\n",
        ),
        stops("memory-over", "the stage needs more memory than its limit", Tiny, &["machine-out-of-memory"])
            .stages(DONE),
        stops("time-over", "the stage takes longer than its limit", Tiny, &["machine-timed-out"])
            .stages("\n[[stage]]\nname = \"fault\"\nrun = \"sleep 1000\"\nlimits = { time = \"5s\" }\n"),
    ]
}

/// Names of hosts.
fn resolver() -> Vec<Fault> {
    use World::Named;
    vec![
        green("resolver-gone-once", "no name server answers, on the first attempt", Named).kind(
            "breaks",
            ARCHIVE,
            "if first; then echo 'nameserver 127.0.0.1' >/etc/resolv.conf; fi\napt_update\napt_install hello\n",
        ),
        stops(
            "resolver-gone",
            "no name server answers, for good",
            Named,
            &["machine-no-resolver", "apt-temporary-failure-resolving", "apt-could-not-resolve"],
        )
        .kind("breaks", ARCHIVE, "echo 'nameserver 127.0.0.1' >/etc/resolv.conf\napt_update\napt_install hello\n"),
        stops(
            "third-partys-host-does-not-exist",
            "a source of a third party names a host that does not exist",
            World::Archive,
            &["apt-could-not-resolve", "apt-temporary-failure-resolving"],
        )
        .stages(
            "\n[[stage]]\nname = \"fault\"\nnetwork = true\nrun = \"\"\"\n\
             echo 'deb http://archive.nosuch.invalid/debian stable main' >/etc/apt/sources.list.d/third.list\n\
             apt-get update --error-on=any\n\"\"\"\n",
        ),
        stops("no-network", "a script without a network asks an archive by name", World::Named, &["stage-has-no-network"])
            .stages("\n[[stage]]\nname = \"fault\"\nrun = \"apt-get update --error-on=any\"\n"),
    ]
}

/// Mistakes in the user's own scripts.
fn mistakes() -> Vec<Fault> {
    use World::Tiny;
    vec![
        stops(
            "command-not-found",
            "the script calls a program that is not there",
            Tiny,
            &["hook-command-not-found"],
        )
        .stages("\n[[stage]]\nname = \"fault\"\nrun = \"no-such-program --now\"\n"),
        stops("script-gives-up", "the script ends with status 3 and says nothing", Tiny, &["unknown"])
            .stages("\n[[stage]]\nname = \"fault\"\nrun = \"exit 3\"\n"),
    ]
}

/// The bounds of recovery.
fn bounds() -> Vec<Fault> {
    use World::Tiny;
    vec![
        stops(
            "another-cause-each-time",
            "the stage fails each time, of something else each time",
            Tiny,
            &["apt-lock-held"],
        )
        .kind(
            "breaks",
            PLAIN,
            "count=$(cat \"$CACHE/count\" 2>/dev/null || echo 0)\necho $((count + 1)) >\"$CACHE/count\"\n\
             case $count in 0) kill -KILL $$ ;; 1) bash -c 'kill -SEGV $$' ;; \
             2) echo 'E: dpkg was interrupted, you must manually run it'; exit 100 ;; esac\n\
             echo 'E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 77 (apt-get)'\nexit 100\n",
        ),
        stops(
            "five-stages-fail-twice-each",
            "each of five stages fails twice: more than a build may make up for",
            Tiny,
            &["machine-process-killed", "memory-killed"],
        )
        .stages(FIVE)
        .kind(
            "fails-twice",
            PLAIN,
            "count=$(cat \"$CACHE/count-$STAGE\" 2>/dev/null || echo 0)\necho $((count + 1)) >\"$CACHE/count-$STAGE\"\n\
             case $count in 0) kill -KILL $$ ;; 1) echo 'E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 77 (apt-get)'; exit 100 ;; esac\n\
             echo \"$STAGE\" >\"$ROOTFS/etc/$STAGE\"\n",
        ),
        Fault::new(
            "three-stages-fail-once-each",
            "three stages in a row fail, once each",
            Tiny,
            Expected::Green,
        )
        .stages(
            "\n[[stage]]\nname = \"one\"\nuses = \"fails-once\"\n\n[[stage]]\nname = \"two\"\nuses = \"fails-once\"\n\n[[stage]]\nname = \"fault\"\nuses = \"fails-once\"\n",
        )
        .kind(
            "fails-once",
            PLAIN,
            "if [[ ! -e $CACHE/$STAGE ]]; then : >\"$CACHE/$STAGE\"; kill -KILL $$; fi\necho \"$STAGE\" >\"$ROOTFS/etc/$STAGE\"\n",
        ),
    ]
}
