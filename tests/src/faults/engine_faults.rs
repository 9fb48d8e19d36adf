//! Faults of the container engine.

use super::bench::Scene;
use super::local_faults::PLAIN;
use super::table::{Expected, Fault, World};
use crate::wait_until;

const BREAKS: &str = "\n[[stage]]\nname = \"fault\"\nuses = \"breaks\"\n";
/// Waits on its first attempt, until something happens to it.
const WAITS: &str = "note waiting\nif first; then sleep 60; fi\necho done >\"$ROOTFS/etc/done\"\n";
const WITHOUT_NETWORK: &str = "privilege = \"chroot\"\nnetwork = false\narchive = true\n";

fn green(name: &'static str, what: &'static str, world: World) -> Fault {
    Fault::new(name, what, world, Expected::Green).stages(BREAKS).kind("breaks", PLAIN, WAITS)
}

/// Waits until the stage runs, and gives the name of its container.
fn container(scene: &mut Scene<'_>) -> String {
    scene.wait_for("fault: waiting");
    scene.project.container("fault").expect("the stage's container")
}

fn kill_container(scene: &mut Scene<'_>) {
    let name = container(scene);
    scene.engine().kill_container(&name);
}

fn remove_container(scene: &mut Scene<'_>) {
    let name = container(scene);
    scene.engine().remove_container(&name);
}

fn remove_porter(scene: &mut Scene<'_>) {
    container(scene);
    wait_until("the porter is there", || scene.project.container("porter").is_some());
    let name = scene.project.container("porter").expect("the porter");
    scene.engine().remove_container(&name);
}

fn cut_connection(scene: &mut Scene<'_>) {
    container(scene);
    scene.way.expect("a way to the engine").hiccup();
}

fn cut_connection_for_good(scene: &mut Scene<'_>) {
    container(scene);
    scene.way.expect("a way to the engine").hang_up();
}

fn restart_engine(scene: &mut Scene<'_>) {
    scene.wait_for("fault: waiting");
    scene.daemon().stop();
    scene.daemon().revive();
}

fn crash_engine(scene: &mut Scene<'_>) {
    scene.wait_for("fault: waiting");
    scene.daemon().crash();
    scene.daemon().revive();
}

fn stop_engine(scene: &mut Scene<'_>) {
    scene.wait_for("fault: waiting");
    scene.daemon().stop();
}

pub(super) fn all() -> Vec<Fault> {
    use World::{OwnEngine, Tiny};
    vec![
        green("container-killed", "the stage's container is killed while it runs", Tiny)
            .meddle(kill_container)
            .quick(),
        green("container-removed", "the stage's container is removed while it runs", Tiny)
            .meddle(remove_container),
        green("porter-removed", "the container that saves layers is removed while a stage runs", Tiny)
            .meddle(remove_porter),
        green("connection-cut", "the connection to the engine is cut for a moment", Tiny)
            .meddle(cut_connection),
        Fault {
            expected: Expected::Ends(3, "the connection to the container engine broke off"),
            ..green("connection-cut-for-good", "the connection to the engine is cut for good", Tiny)
        }
        .meddle(cut_connection_for_good),
        green("engine-restarted", "the engine is restarted while a stage runs", OwnEngine)
            .meddle(restart_engine),
        green("engine-crashed", "the engine is killed while a stage runs, and started again", OwnEngine)
            .meddle(crash_engine),
        Fault {
            expected: Expected::Ends(3, "the connection to the container engine broke off"),
            ..green("engine-stopped", "the engine is stopped while a stage runs", OwnEngine)
        }
        .meddle(stop_engine),
        Fault::new(
            "disk-full-of-debs",
            "the engine's disk is full of packages that were fetched before",
            OwnEngine,
            Expected::Green,
        )
        .stages(BREAKS)
        .kind(
            "breaks",
            WITHOUT_NETWORK,
            "if first; then room=$(df --output=avail -B1 \"$CACHE\" | tail -1); mkdir -p \"$CACHE/debs\"; \
             head -c $((room - (60 << 20))) /dev/zero >\"$CACHE/debs/old_1_all.deb\"; fi\n\
             head -c 100M /dev/zero >\"$ROOTFS/etc/big\"\necho done >\"$ROOTFS/etc/done\"\n",
        ),
        Fault::new(
            "disk-full",
            "the stage fills the engine's disk",
            OwnEngine,
            Expected::Stops(&["machine-disk-full", "disk-no-space"]),
        )
        .stages(BREAKS)
        .kind("breaks", PLAIN, "head -c 10G /dev/zero >\"$ROOTFS/etc/big\"\n"),
    ]
}
