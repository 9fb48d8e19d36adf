//! Faults while the first root file system is made.

use super::mirror::How::*;
use super::mirror::Tamper;
use super::table::{Expected, Fault, World};

/// The root file system's sources name the mirror that stood in, so its layer is not that of an undisturbed build.
const GREEN: Expected = Expected::GreenWithout;

fn base(name: &'static str, what: &'static str, expected: Expected) -> Fault {
    Fault { at: "base", ..Fault::new(name, what, World::Archive, expected) }
}

pub(super) fn all() -> Vec<Fault> {
    vec![
        base("bootstrap-release-503", "503 for all lists of one mirror while the base is made", GREEN)
            .first(Tamper::all("/dists/", Status(503))),
        base(
            "bootstrap-deb-wrong-bytes-once",
            "one of the base's packages has wrong bytes, once",
            Expected::Green,
        )
        .first(Tamper::first(1, "/dash_", WrongBytes)),
        base("bootstrap-deb-404-on-one-mirror", "one mirror lacks one of the base's packages", GREEN)
            .first(Tamper::all("/dash_", Status(404))),
        base("bootstrap-hung-up-on", "one mirror closes every connection while the base is made", GREEN)
            .first(Tamper::all("/pool/", HangUp)),
        base(
            "bootstrap-signature-broken",
            "InRelease was changed, so that its signature is wrong, before there is any root file system",
            Expected::Stops(&[
                "apt-sqv-signature-invalid",
                "apt-badsig",
                "apt-sqv-failed",
                "apt-signature-check-failed",
            ]),
        )
        .both(Tamper::all("/trixie/InRelease", WrongBytes)),
    ]
}
