//! Where faults are tried: mirrors, projects with their first stage built, and an engine of one's own.

use std::any::Any;
use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::daemon::Daemon;
use super::judge::{Row, judge};
use super::mirror::{Mirror, host_archive};
use super::table::{Expected, Fault, Kind, World};
use super::upstream::Upstream;
use super::witness::Witness;
use crate::{Engine, Finished, Forwarder, Project, Running, TINY};

/// No fault may keep a build longer.
const LIMIT: Duration = Duration::from_secs(10 * 60);

const BASE: &str = r#"
[[stage]]
name = "base"
uses = "bootstrap"
with = { slim = true }
"#;

/// Everything that faults are tried with.
pub struct Bench {
    /// The mirror that the pipeline names first.
    pub first: Mirror,
    /// The one that can stand in for it.
    pub second: Mirror,
    host: String,
    engine: Engine,
    projects: BTreeMap<World, OnceCell<Project>>,
    daemon: OnceCell<Daemon>,
    /// What undisturbed builds of the same stages made.
    undisturbed: RefCell<HashMap<String, Value>>,
    /// Rules to try out in place of those in the binary.
    rules: Option<PathBuf>,
}

/// A build with a fault, while it runs.
pub struct Scene<'b> {
    /// Everything else.
    pub bench: &'b Bench,
    /// isokiln.
    pub running: Running,
    /// Where it builds.
    pub project: &'b Project,
    /// The way to the engine, where the fault is in that.
    pub way: Option<&'b Forwarder>,
}

impl Scene<'_> {
    /// Waits until isokiln says this.
    pub fn wait_for(&mut self, text: &str) {
        self.running.wait_until_it_says(text);
    }

    /// The engine that isokiln uses.
    pub fn engine(&self) -> &Engine {
        &self.bench.engine
    }

    /// The fault's own engine.
    pub fn daemon(&self) -> &Daemon {
        self.bench.daemon.get().expect("the fault is in an engine of its own")
    }
}

impl Bench {
    /// Opens the mirrors; everything else is made when it is needed. With a folder, its rules are tried out in place of
    /// those in the binary.
    pub fn open(rules: Option<PathBuf>) -> Result<Self, String> {
        let host = host_archive()?;
        let engine = Engine::connect();
        let gateway = engine.gateway().ok_or("the engine has no bridge with a gateway")?;
        let gateway = gateway.parse().map_err(|error| format!("{gateway}: {error}"))?;
        let upstream = Arc::new(Upstream::new(host.clone()));
        let worlds = [World::Archive, World::Named, World::Tiny, World::OwnEngine];
        Ok(Self {
            first: Mirror::open(gateway, upstream.clone())?,
            second: Mirror::open(gateway, upstream)?,
            host,
            engine,
            projects: worlds.into_iter().map(|world| (world, OnceCell::new())).collect(),
            daemon: OnceCell::new(),
            undisturbed: RefCell::default(),
            rules,
        })
    }

    /// Tries a fault.
    pub fn run(&self, fault: &Fault) -> Row {
        let started = Instant::now();
        let row = catch_unwind(AssertUnwindSafe(|| self.try_fault(fault)));
        self.first.reopen();
        for mirror in [&self.first, &self.second] {
            mirror.tamper(Vec::new());
        }
        let seconds = started.elapsed().as_secs_f64();
        row.unwrap_or_else(|panic| Row::broken(fault, seconds, words(&*panic)))
    }

    fn head(&self, world: World) -> String {
        let mirrors = match world {
            World::Archive => format!("{:?}, {:?}", self.first.uri(), self.second.uri()),
            World::Named => format!("\"http://{}/debian\"", self.host),
            World::Tiny | World::OwnEngine => return TINY.to_owned(),
        };
        format!(
            "name = \"faults\"\n[system]\ndistribution = \"debian\"\nsuite = \"trixie\"\nmirrors = [{mirrors}]\n{BASE}"
        )
    }

    /// The project of a world, with its base built by honest mirrors.
    fn project(&self, world: World) -> &Project {
        self.projects[&world].get_or_init(|| {
            let project = Project::new(&self.head(world));
            if let Some(rules) = &self.rules {
                let copied = Command::new("cp").arg("-r").arg(rules).arg(project.path("")).status();
                fs::create_dir_all(project.path("review")).expect("a folder");
                assert!(copied.is_ok_and(|status| status.success()), "the rules can be copied");
                fs::rename(project.path("rules"), project.path("review/rules")).expect("a folder");
            }
            if world == World::OwnEngine {
                self.daemon.get_or_init(|| Daemon::start(&self.engine));
            }
            self.finished(&project, world, &[]).expect_code(0);
            project
        })
    }

    fn command(&self, project: &Project, world: World, arguments: &[&str]) -> Command {
        let mut command = project.command(arguments);
        // Only the rules review, and nothing stands between a container and the mirrors.
        for (name, _) in std::env::vars() {
            let is_agent =
                name.ends_with("_API_KEY") || name.starts_with("AILINUX_") || name.starts_with("C1_");
            if is_agent || name.to_lowercase().ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        if world == World::OwnEngine {
            command.env("DOCKER_HOST", self.daemon.get().expect("the engine is there").address());
        }
        command
    }

    fn finished(&self, project: &Project, world: World, arguments: &[&str]) -> Finished {
        let arguments = [&["build", "pipeline.toml", "--no-test"], arguments].concat();
        Finished::of(&mut self.command(project, world, &arguments))
    }

    /// Forgets what was fetched, unpacked and learnt, and puts the fault's stages and kinds into the project.
    fn prepare(&self, project: &Project, fault: &Fault) {
        Finished::of(&mut self.command(project, fault.world, &["clean"])).expect_code(0);
        drop(fs::remove_dir_all(project.home().join("review")));
        project.write("pipeline.toml", format!("{}{}", self.head(fault.world), fault.stages));
        for kind in &fault.kinds {
            write_kind(project, fault.name, kind);
        }
    }

    fn try_fault(&self, fault: &Fault) -> Row {
        let project = self.project(fault.world);
        let key = format!("{:?}{}", fault.world, fault.stages);
        let has_reference = fault.expected == Expected::Green;
        // What is broken on a first attempt only is whole in a second build; everything else before.
        let is_first = fault.kinds.is_empty() && fault.meddle.is_none();
        if has_reference && is_first && !self.undisturbed.borrow().contains_key(&key) {
            self.prepare(project, fault);
            let layers = self.undisturbed_build(project, fault);
            self.undisturbed.borrow_mut().insert(key.clone(), layers);
        }
        self.prepare(project, fault);
        self.first.tamper(fault.first.clone());
        self.second.tamper(fault.second.clone());

        let way = fault.name.starts_with("connection-").then(Forwarder::open);
        let mut command = self.command(
            project,
            fault.world,
            &["build", "pipeline.toml", "--no-test", "--from", fault.begins()],
        );
        if let Some(way) = &way {
            command.env("DOCKER_HOST", way.address());
        }
        let witness = Witness::begin();
        let running = Running::start(&mut command);
        let mut scene = Scene { bench: self, running, project, way: way.as_ref() };
        if let Some(meddle) = fault.meddle {
            meddle(&mut scene);
        }
        let finished = scene.running.wait_at_most(LIMIT);
        let forbidden = witness.end();
        self.first.reopen();
        let spoilt = self.first.spoilt().len() + self.second.spoilt().len();
        for mirror in [&self.first, &self.second] {
            mirror.tamper(Vec::new());
        }
        let mut row = judge(fault, project, &finished, spoilt);
        row.unsafe_actions.extend(forbidden);
        if let Some(daemon) = self.daemon.get().filter(|_| fault.world == World::OwnEngine) {
            daemon.revive();
        }
        let verified = Finished::of(&mut self.command(project, fault.world, &["verify"]));
        if verified.code != Some(0) {
            row.differences.push(format!("the store is damaged: {}", verified.stderr));
        }
        if matches!(fault.expected, Expected::Ends(..)) {
            // What could not be removed without an engine is removed when it is there again.
            drop(Finished::of(&mut self.command(project, fault.world, &["clean"])));
        }
        row.differences.extend(self.residue(project, fault.world));
        if has_reference && row.differences.is_empty() {
            let made = self.layers(project, fault);
            let wanted = match self.undisturbed.borrow().get(&key).filter(|_| is_first) {
                Some(layers) => layers.clone(),
                None => self.undisturbed_build(project, fault),
            };
            if made != wanted {
                row.unsafe_actions
                    .push(format!("what was made differs from an undisturbed build: {made} {wanted}"));
            }
        }
        row
    }

    /// What a build has left in the engine.
    fn residue(&self, project: &Project, world: World) -> Option<String> {
        if world != World::OwnEngine {
            let checked = catch_unwind(AssertUnwindSafe(|| project.expect_no_residue()));
            return checked.err().map(|panic| words(&*panic));
        }
        let left = self.daemon.get()?.engine().containers();
        (!left.is_empty()).then(|| format!("containers are left: {left:?}"))
    }

    fn undisturbed_build(&self, project: &Project, fault: &Fault) -> Value {
        self.finished(project, fault.world, &["--from", fault.begins()]).expect_code(0);
        self.layers(project, fault)
    }

    /// Digests of the layers that the stage with the fault rests on, and its own.
    fn layers(&self, project: &Project, fault: &Fault) -> Value {
        let mut command =
            self.command(project, fault.world, &["checkpoint", "show", fault.at, "--format", "json"]);
        Finished::of(&mut command).expect_code(0).json()["diff_ids"].clone()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let (Some(project), Some(_)) = (self.projects[&World::OwnEngine].get(), self.daemon.get()) {
            drop(Finished::of(&mut self.command(project, World::OwnEngine, &["clean"])));
        }
    }
}

impl Fault {
    /// The first stage that is run though its checkpoint may be there.
    fn begins(&self) -> &'static str {
        let first = self.stages.split_once("name = \"").and_then(|(_, rest)| rest.split('"').next());
        first.unwrap_or(self.at)
    }
}

/// What scripts of faults can call.
const PRELUDE: &str = r#"
# Whether this is the first attempt; what lies in CACHE outlives attempts.
first() { [[ ! -e $CACHE/struck ]] && : >"$CACHE/struck"; }

# make_deb NAME FIELDS POSTINST: a package with what lies in /tmp/NAME.
make_deb() {
    mkdir -p "/tmp/$1/DEBIAN"
    printf 'Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n%sDescription: A fault\n' \
        "$1" "${2:+$2$'\n'}" >"/tmp/$1/DEBIAN/control"
    printf '#!/bin/sh\n%s\n' "$3" >"/tmp/$1/DEBIAN/postinst"
    chmod 755 "/tmp/$1/DEBIAN/postinst"
    dpkg-deb --build --root-owner-group "/tmp/$1" "$ROOTFS/tmp/$1.deb"
}

install_deb() {
    apt install "/tmp/$1.deb" 2>&1 | tee "$_isokiln_log" || _explain_apt "apt-get could not install the packages"
}

# Holds dpkg's lock, as another package manager does, and looks whether it is still there in the end.
hold_lock() {
    local lock=$ROOTFS/var/lib/dpkg/lock-frontend
    python3 -c 'import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(120)' "$lock" &
    while [[ ! -e $lock ]]; do sleep 0.1; done
    sleep 0.5
    held=$(stat --format=%i "$lock")
    trap '[[ $(stat --format=%i "$ROOTFS/var/lib/dpkg/lock-frontend") = "$held" ]] || echo "UNSAFE: the lock was removed"' EXIT
}
"#;

fn write_kind(project: &Project, fault: &str, kind: &Kind) {
    let Kind { name, run, facts } = kind;
    project.write(
        &format!("stages/{name}/kind.toml"),
        format!("summary = \"A fault\"\nrootfs = \"change\"\n{facts}"),
    );
    // Whatever another fault has left does not pass for what this one makes.
    let text = format!("# {fault}\n{PRELUDE}\n{run}");
    project.write(&format!("stages/{name}/run.sh"), text);
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
