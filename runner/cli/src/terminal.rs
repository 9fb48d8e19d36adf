//! The terminal handed over to a shell in a container: every key goes there, and it learns of the window's size.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use console::Term;
use isokiln_engine::sandbox::docker::{Console, Size};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::fs::File;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Where a terminal has no size.
const USUAL: Size = Size { rows: 24, columns: 80 };

/// A terminal that passes on every key as it is, until this is dropped.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

/// Whether a person sits at both ends.
pub(crate) fn is_one() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Hands over standard input and output; as a terminal, if they are one.
pub(crate) fn hand_over() -> io::Result<(Console, Option<Raw>)> {
    let (size, raw) = if is_one() { (Some(follow_size()?), Some(Raw::enter()?)) } else { (None, None) };
    let console = Console {
        input: Box::new(file(io::stdin())?),
        output: Box::new(file(io::stdout())?),
        errors: Box::new(file(io::stderr())?),
        size,
    };
    Ok((console, raw))
}

fn file(stream: impl AsFd) -> io::Result<File> {
    Ok(File::from_std(stream.as_fd().try_clone_to_owned()?.into()))
}

/// The terminal's size, as it changes.
fn follow_size() -> io::Result<watch::Receiver<Size>> {
    let mut changes = signal(SignalKind::window_change())?;
    let (sender, receiver) = watch::channel(size());
    tokio::spawn(async move { while changes.recv().await.is_some() && sender.send(size()).is_ok() {} });
    Ok(receiver)
}

fn size() -> Size {
    Term::stdout().size_checked().map_or(USUAL, |(rows, columns)| Size { rows, columns })
}
