//! `isokiln doctor`, `isokiln clean` and `isokiln image build`: the machine rather than a pipeline.

use isokiln_core::exit;
use isokiln_core::units::show_size;
use isokiln_engine::run::{Health, RunError};
use isokiln_engine::sandbox::docker::{Fate, Route};
use serde_json::json;

use crate::args::{Clean, Doctor, Format, Global, ImageBuild, ImageRoute};
use crate::{output, words};

pub(super) async fn run(global: &Global, args: &Doctor) -> Result<u8, RunError> {
    let session = super::session(Format::Text, None)?;
    if args.residue {
        let residue = session.residue().await?;
        output::result(global.format, &residue, |residue| {
            if residue.is_empty() {
                return "nothing is left of any run\n".to_owned();
            }
            let rows: Vec<_> = residue
                .iter()
                .map(|leftover| {
                    let fate = match leftover.fate {
                        Fate::Swept => "the next command removes it",
                        Fate::Cleaned => "isokiln clean --all removes it",
                        Fate::Unknown => "its maker cannot be judged from here",
                    };
                    vec![
                        leftover.kind.to_owned(),
                        leftover.name.clone(),
                        leftover.purpose.clone(),
                        fate.to_owned(),
                    ]
                })
                .collect();
            words::table(&rows)
        });
        return Ok(exit::OK);
    }
    let findings = session.doctor(&global.dir).await?;
    output::result(global.format, &findings, |findings| {
        findings
            .iter()
            .map(|finding| {
                let (word, style) = match finding.state {
                    Health::Good => ("good", words::good()),
                    Health::Fair => ("fair", words::fair()),
                    Health::Bad => ("BAD", words::bad()),
                };
                let mut text =
                    words::line(word, &style, &format!("{}: {}", finding.subject, finding.finding));
                if let Some(cure) = &finding.cure {
                    text = format!("{text}\n{}", words::line("cure", &words::calm(), cure));
                }
                text + "\n"
            })
            .collect()
    });
    let worst = findings.iter().map(|finding| finding.state).max().unwrap_or(Health::Good);
    Ok(if worst == Health::Bad { exit::NOT_READY } else { exit::OK })
}

pub(super) async fn clean(global: &Global, args: &Clean) -> Result<u8, RunError> {
    let session = super::session(Format::Text, None)?;
    let report = session.clean(&global.dir, args.all).await?;
    output::result(global.format, &report, |report| {
        let mut rows: Vec<Vec<String>> = Vec::new();
        for (kind, names) in
            [("leftover", &report.leftovers), ("volume", &report.volumes), ("folder", &report.folders)]
        {
            rows.extend(names.iter().map(|name| vec!["removed".to_owned(), kind.to_owned(), name.clone()]));
        }
        if rows.is_empty() { "nothing to remove\n".to_owned() } else { words::table(&rows) }
    });
    Ok(exit::OK)
}

pub(super) async fn remove_images(global: &Global) -> Result<u8, RunError> {
    let session = super::session(Format::Text, None)?;
    let images = session.remove_images().await?;
    output::result(global.format, &json!({"images": images}), |_| {
        let rows: Vec<_> =
            images.iter().map(|name| vec!["removed".to_owned(), "image".to_owned(), name.clone()]).collect();
        if rows.is_empty() { "nothing to remove\n".to_owned() } else { words::table(&rows) }
    });
    Ok(exit::OK)
}

pub(super) async fn image(global: &Global, args: &ImageBuild) -> Result<u8, RunError> {
    let session = super::session(Format::Text, None)?;
    let route = args.route.map(|route| match route {
        ImageRoute::Mirror => Route::Mirror,
        ImageRoute::Container => Route::Container,
        ImageRoute::Dockerfile => Route::Dockerfile,
    });
    let image = session.image(route, args.rebuild).await?;
    let document = json!({"image": image.name, "contents": image.contents, "size_bytes": image.size});
    output::result(global.format, &document, |_| format!("{} ({})\n", image.name, show_size(image.size)));
    Ok(exit::OK)
}
