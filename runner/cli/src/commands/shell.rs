//! `isokiln shell`.

use isokiln_engine::run::{Place, PlaceState, RunError, ShellRequest};
use isokiln_engine::sandbox::docker::ShellCommand;

use super::checkpoint::show_time;
use crate::args::{Format, Global, Shell};
use crate::words::printable;
use crate::{output, terminal};

pub(super) async fn run(global: &Global, args: Shell) -> Result<u8, RunError> {
    // Standard output is the command's.
    let session = super::session(Format::Text, None)?;
    let is_interactive = args.command.is_empty() && terminal::is_one();
    let request = ShellRequest {
        which: (&args.which).into(),
        command: ShellCommand {
            words: args.command,
            in_rootfs: args.chroot,
            terminal: std::env::var("TERM").ok(),
        },
    };
    let mut raw = None;
    let open = |place: &Place| {
        if is_interactive {
            output::tell(&greeting(place, args.chroot));
        }
        for missing in &place.missing {
            output::tell(&format!("the stage had what is not here: {missing}"));
        }
        let (console, guard) = terminal::hand_over()?;
        raw = guard;
        Ok(console)
    };
    let status = session.shell(&global.dir, request, open).await;
    // Whatever is still told is told to a terminal as it was.
    drop(raw);
    status
}

/// Where somebody finds themself.
fn greeting(place: &Place, in_rootfs: bool) -> String {
    let Place { pipeline, stage, run, state, .. } = place;
    let what = match state {
        PlaceState::Unfinished { failed, has_checkpoint } => {
            let how = match failed {
                Some(cause) => format!("failed: {}", printable(cause)),
                None => "was broken off".to_owned(),
            };
            let other = match has_checkpoint {
                true => "; its checkpoint is another: --digest",
                false => "",
            };
            format!("{stage} of {pipeline}, which {how} (run {run}{other})")
        }
        PlaceState::Checkpoint { digest, created } => {
            format!("checkpoint {digest} of {stage} of {pipeline}, made {} (run {run})", show_time(*created))
        }
    };
    let root = if in_rootfs { "" } else { "$ROOTFS is its root file system. " };
    format!("{what}\n{root}What you change is thrown away when you leave.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(state: PlaceState) -> Place {
        let (pipeline, stage) = ("tiny".parse().unwrap(), "tweaks".parse().unwrap());
        Place { pipeline, stage, run: "r1".parse().unwrap(), state, missing: Vec::new() }
    }

    #[test]
    fn a_greeting_says_where_and_that_nothing_stays() {
        let failed = Some("no\u{1b}[2J such package".to_owned());
        let told = greeting(&place(PlaceState::Unfinished { failed, has_checkpoint: true }), false);
        assert!(told.starts_with("tweaks of tiny, which failed: no such package (run r1; "), "{told}");
        assert!(told.ends_with("thrown away when you leave."), "{told}");
        let told = greeting(&place(PlaceState::Unfinished { failed: None, has_checkpoint: false }), true);
        assert!(told.starts_with("tweaks of tiny, which was broken off (run r1)\n"), "{told}");
        let told = greeting(&place(PlaceState::Checkpoint { digest: "abc".into(), created: 0 }), true);
        assert!(told.starts_with("checkpoint abc of tweaks of tiny, made 1970-01-01T00:00:00Z "), "{told}");
    }
}
