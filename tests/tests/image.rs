//! Making the builder image, in every way that there is.

use isokiln_tests::{Engine, Finished, Project, builder_image};
use serde_json::Value;

/// What `Dockerfile.builder` starts from.
const BASE: &str = "debian:trixie-slim";

#[test]
fn every_route_makes_an_image_that_stages_run_in() {
    let (repository, tag) = builder_image().split_once(':').expect("a tag");
    let engine = Engine::connect();
    let project = Project::tiny("");
    let image = |arguments: &[&str]| -> Value {
        let command = [&["image", "build", "--format", "json"], arguments].concat();
        project.isokiln(&command).expect_code(0).json()
    };
    let before = image(&[]);
    let nameless = engine.nameless_images();
    engine.tag_image(builder_image(), repository, "older");

    // The image that is there may have been made in another way, so two are made.
    let mirror =
        || project.command(&["image", "build", "--format", "json", "--rebuild", "--route", "mirror"]);
    // Read by every Python that maintainer scripts run.
    let python = "PYTHONDONTWRITEBYTECODE";
    let made = Finished::of(mirror().env_remove(python)).expect_code(0).json();
    let again = Finished::of(mirror().env(python, "1")).expect_code(0).json();
    assert_eq!(again["contents"], made["contents"], "an image does not depend on who makes it");
    project.build(&[]).expect_code(0).says("1 stages run, 0 from checkpoints");

    image(&["--rebuild", "--route", "container"]);
    project.build(&["--from=base"]).expect_code(0).says("1 stages run, 0 from checkpoints");

    // Where no registry has given the Dockerfile's base, an older image stands in for it.
    let stands_in = !engine.has_image(BASE);
    if stands_in {
        engine.tag_image(&format!("{repository}:older"), "debian", "trixie-slim");
    }
    image(&["--rebuild", "--route", "dockerfile"]);
    project.build(&["--from=base"]).expect_code(0).says("1 stages run, 0 from checkpoints");

    // Everything as it was.
    let last = engine.image_id(builder_image());
    engine.tag_image(&format!("{repository}:older"), repository, tag);
    engine.remove_image(&format!("{repository}:older"));
    engine.remove_image(&last);
    if stands_in {
        engine.remove_image(BASE);
    }
    assert_eq!(image(&[])["contents"], before["contents"]);
    assert_eq!(engine.nameless_images(), nameless, "images that were replaced are removed");
    project.expect_no_residue();
}
