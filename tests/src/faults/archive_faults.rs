//! Faults of the archive's mirrors, in a stage that installs a package.

use super::bench::Scene;
use super::local_faults::ARCHIVE;
use super::mirror::How::*;
use super::mirror::Tamper;
use super::table::{Expected, Fault, World};

/// What every one of them does.
pub(super) const INSTALL: &str = r#"
[[stage]]
name = "fault"
uses = "packages"
with = { install = ["hello"] }
"#;

const LIMITED: &str = r#"
[[stage]]
name = "fault"
uses = "packages"
limits = { time = "25s" }
with = { install = ["hello"] }
"#;

const OPTIONAL: &str = r#"
[[stage]]
name = "fault"
uses = "packages"
with = { install = ["hello"], optional = ["tree"] }
"#;

const WAITS: &str = r#"
[[stage]]
name = "fault"
uses = "waits"
"#;

const WAITING: &str = "note waiting\nsleep 1\napt_update\napt_install hello\n";

/// The suite's own signed table of contents, the package lists, the package.
const RELEASE: &str = "/trixie/InRelease";
const LISTS: &str = "/trixie/main/binary-";
const DEB: &str = "/hello_";
/// apt asks three times more by itself.
const ALL_OF_APTS: usize = 4;

fn got_over(name: &'static str, what: &'static str) -> Fault {
    Fault::new(name, what, World::Archive, Expected::Green).stages(INSTALL)
}

fn stops(name: &'static str, what: &'static str, rules: &'static [&'static str]) -> Fault {
    Fault::new(name, what, World::Archive, Expected::Stops(rules)).stages(INSTALL)
}

fn shut(scene: &mut Scene<'_>) {
    scene.wait_for("fault: waiting");
    scene.bench.first.shut();
}

fn shut_for_a_moment(scene: &mut Scene<'_>) {
    shut(scene);
    // Until apt has given up once.
    scene.wait_for("again");
    scene.bench.first.reopen();
}

pub(super) fn all() -> Vec<Fault> {
    let mut faults = busy();
    faults.extend(missing());
    faults.extend(damaged());
    faults.extend(slow());
    faults.extend(refused());
    faults
}

/// Mirrors in trouble.
fn busy() -> Vec<Fault> {
    vec![
        got_over("release-503-twice", "503 for InRelease twice: apt's own retries do").first(Tamper::first(
            2,
            RELEASE,
            Status(503),
        )),
        got_over("release-503-for-a-moment", "503 for InRelease until apt gives up once")
            .first(Tamper::first(ALL_OF_APTS, RELEASE, Status(503))),
        got_over("mirror-503-for-good", "503 for all lists of one mirror")
            .first(Tamper::all("/dists/", Status(503))),
        got_over("deb-500-for-a-moment", "500 for the package until apt gives up once").first(Tamper::first(
            ALL_OF_APTS,
            DEB,
            Status(500),
        )),
        got_over("deb-502-for-good", "502 for the packages of one mirror")
            .first(Tamper::all("/pool/", Status(502))),
        got_over("release-429-for-a-moment", "429 for InRelease until apt gives up once")
            .first(Tamper::first(ALL_OF_APTS, RELEASE, Status(429))),
        got_over(
            "clock-lies-and-503",
            "the mirror's clock is two hours behind, and it answers 503 for a moment",
        )
        .first(Tamper::first(ALL_OF_APTS, DEB, Status(503)))
        .first(Tamper::all("/", Clock(-7200)).of_planning_too()),
        got_over("two-causes-in-turn", "503 for InRelease, then wrong bytes in the package")
            .first(Tamper::first(ALL_OF_APTS, RELEASE, Status(503)))
            .first(Tamper::first(1, DEB, WrongBytes)),
        got_over("mirror-down", "nothing listens at the first mirror's port any more")
            .stages(WAITS)
            .kind("waits", ARCHIVE, WAITING)
            .meddle(shut),
        got_over("mirror-down-for-a-moment", "nothing listens there for some seconds")
            .stages(WAITS)
            .kind("waits", ARCHIVE, WAITING)
            .meddle(shut_for_a_moment),
        stops("lists-503-everywhere", "503 for all lists of both mirrors", &["apt-http-5xx"])
            .both(Tamper::all("/dists/", Status(503))),
    ]
}

/// Files that mirrors do not have.
fn missing() -> Vec<Fault> {
    vec![
        got_over("deb-404-once", "404 for the package, as after stale lists").first(Tamper::first(
            1,
            DEB,
            Status(404),
        )),
        got_over("deb-404-on-one-mirror", "one mirror does not have the package at all")
            .first(Tamper::all(DEB, Status(404))),
        got_over("lists-404-on-one-mirror", "one mirror has InRelease, but no package lists")
            .first(Tamper::all(LISTS, Status(404))),
        got_over("release-404-on-one-mirror", "one mirror does not have the suite any more")
            .first(Tamper::all(RELEASE, Status(404)))
            .first(Tamper::all("/trixie/Release", Status(404))),
        Fault::new(
            "optional-404-everywhere",
            "no mirror has an optional package's file",
            World::Archive,
            Expected::GreenWithout,
        )
        .stages(OPTIONAL)
        .both(Tamper::all("/tree_", Status(404))),
        stops(
            "deb-404-everywhere",
            "no mirror has the package's file",
            &["apt-package-404", "apt-404-after-err"],
        )
        .both(Tamper::all(DEB, Status(404))),
    ]
}

/// Files that are not what the archive announced.
fn damaged() -> Vec<Fault> {
    vec![
        got_over("deb-wrong-bytes-once", "the package has wrong bytes, once")
            .first(Tamper::first(1, DEB, WrongBytes))
            .quick(),
        got_over("deb-wrong-bytes-on-one-mirror", "one mirror's package has wrong bytes")
            .first(Tamper::all(DEB, WrongBytes)),
        got_over("lists-wrong-bytes-on-one-mirror", "one mirror's package lists have wrong bytes")
            .first(Tamper::all(LISTS, WrongBytes)),
        got_over("lists-half-on-one-mirror", "one mirror's package lists are half as long")
            .first(Tamper::all(LISTS, HalfFile)),
        got_over("deb-half-once", "the package is half as long, once").first(Tamper::first(1, DEB, HalfFile)),
        got_over("deb-portal-once", "a portal's page in place of the package, once")
            .first(Tamper::first(1, DEB, Portal)),
        stops(
            "mirror-behind-portal",
            "a portal's page in place of everything: somebody has to log in",
            &["apt-clearsigned-not-valid"],
        )
        .both(Tamper::all("/", Portal)),
        stops(
            "deb-wrong-bytes-everywhere",
            "the package has wrong bytes on both mirrors",
            &["apt-hash-sum-mismatch"],
        )
        .both(Tamper::all(DEB, WrongBytes)),
        stops(
            "signature-broken-everywhere",
            "InRelease was changed, so that its signature is wrong",
            &["apt-sqv-signature-invalid", "apt-badsig", "apt-sqv-failed", "apt-signature-check-failed"],
        )
        .both(Tamper::all(RELEASE, WrongBytes)),
    ]
}

/// Connections that break off or stall.
fn slow() -> Vec<Fault> {
    vec![
        got_over(
            "deb-cut-off-for-a-moment",
            "half of the package, then the connection is closed, until apt gives up once",
        )
        .first(Tamper::first(ALL_OF_APTS, DEB, CutOff)),
        got_over("deb-cut-off-on-one-mirror", "the same from one mirror for good")
            .first(Tamper::all(DEB, CutOff)),
        got_over("lists-cut-off-on-one-mirror", "the same with the package lists")
            .first(Tamper::all(LISTS, CutOff)),
        stops(
            "lists-cut-off-everywhere",
            "the same with the package lists of both mirrors",
            &["apt-list-broke-off", "apt-read-error-from-server"],
        )
        .both(Tamper::all(LISTS, CutOff)),
        got_over("mirror-hangs-up", "one mirror closes every connection").first(Tamper::all("/", HangUp)),
        got_over("mirror-talks-garbage", "one mirror's answers are no HTTP").first(Tamper::all("/", Garbage)),
        got_over("mirror-redirects-in-circles", "one mirror sends apt round in circles")
            .first(Tamper::all("/dists/", Loop)),
        got_over("deb-drips-for-a-while", "slow-loris: the package comes byte for byte")
            .first(Tamper::first(1, DEB, Drip(200))),
        got_over(
            "release-stalls-for-a-moment",
            "InRelease begins and never ends, once: apt's own time limit does",
        )
        .first(Tamper::first(1, RELEASE, Stall)),
        got_over(
            "deb-never-comes-for-a-moment",
            "nothing is answered for the package for a while; apt asks again by itself",
        )
        .first(Tamper::first(ALL_OF_APTS, DEB, Silence)),
        stops("deb-drips-for-good", "slow-loris until the stage's time is over", &["machine-timed-out"])
            .stages(LIMITED)
            .both(Tamper::all(DEB, Drip(2_000_000))),
    ]
}

/// Requests that are refused on purpose.
fn refused() -> Vec<Fault> {
    vec![
        got_over("mirror-403", "one mirror refuses everything").first(Tamper::all("/", Status(403))),
        got_over("release-410-on-one-mirror", "one mirror says that the suite is gone")
            .first(Tamper::all("/dists/", Status(410))),
        got_over("deb-403-on-one-mirror", "one mirror refuses the package")
            .first(Tamper::all(DEB, Status(403))),
        stops("proxy-407", "a proxy on the way wants a password", &["apt-proxy-authentication"])
            .both(Tamper::all("/", Status(407))),
    ]
}
