//! `isokiln test`.

use std::path::Path;

use isokiln_engine::run::{RunError, TestRequest};
use isokiln_engine::testbed::Testbed;
use serde_json::json;

use crate::args::{Format, Global, Test};
use crate::{output, words};

/// What asks for the list of checks instead of a test.
const HELP: &str = "help";

pub(super) async fn run(global: &Global, args: Test) -> Result<u8, RunError> {
    let testbed = Testbed::beside(Path::new(""))?;
    if args.check.iter().any(|check| check == HELP) {
        return Ok(list_checks(global.format, &testbed));
    }
    let request = |iso| {
        Ok::<_, RunError>(TestRequest {
            memory: args.memory,
            cpus: args.cpus,
            unattended: args.unattended,
            accelerator: args.accel.0,
            channel: args.channel,
            ..TestRequest::new(iso, &testbed, &args.profile, &args.check)?
        })
    };
    let (wanted, baseline) = (request(args.iso.clone())?, args.baseline.clone().map(request).transpose()?);
    let session = super::session(global.format, args.junit.as_deref())?;
    let tested = session.test(&global.dir, wanted, baseline).await;
    let tested = super::conclude(&session.hub, |tested| tested.exit_code, tested).await?;
    if global.format == Format::Json {
        output::json_line(&tested);
    }
    Ok(tested.exit_code)
}

fn list_checks(format: Format, testbed: &Testbed) -> u8 {
    let forms = testbed.checks.forms();
    let document: Vec<_> =
        forms.iter().map(|(form, summary)| json!({"check": form, "summary": summary})).collect();
    output::result(format, &document, |_| {
        let rows: Vec<_> = forms.iter().map(|(form, summary)| vec![form.clone(), summary.clone()]).collect();
        words::table(&rows)
    });
    isokiln_core::exit::OK
}
