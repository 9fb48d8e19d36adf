//! The user's wish to stop, by Ctrl-C and its kin or by a viewer: the first asks a run to stop when its stage is done,
//! the second stops it now.

use isokiln_core::event::Event;
use isokiln_core::session::Wish;
use isokiln_engine::run::Events;
use isokiln_engine::sandbox::{Cancel, CancelWatch};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// Listens for signals, and for the wishes of viewers, as long as the program runs. A hang-up means nothing to a process
/// that has no terminal.
pub(crate) fn listen(
    events: Events,
    mut wishes: mpsc::UnboundedReceiver<Wish>,
    has_terminal: bool,
) -> std::io::Result<CancelWatch> {
    let (sender, receiver) = watch::channel(Cancel::No);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            let wish = tokio::select! {
                Some(()) = interrupt.recv() => match *sender.borrow() {
                    Cancel::No => Cancel::Gracefully,
                    Cancel::Gracefully | Cancel::Now => Cancel::Now,
                },
                Some(()) = terminate.recv() => Cancel::Now,
                Some(()) = hang_up.recv() => if has_terminal { Cancel::Now } else { Cancel::No },
                Some(wish) = wishes.recv() => match wish {
                    Wish::Stop => Cancel::Gracefully,
                    Wish::StopNow => Cancel::Now,
                    Wish::Present | Wish::Answer { .. } => Cancel::No,
                },
                else => return,
            };
            // Wishes only grow.
            let grew = sender.send_if_modified(|cancel| {
                let grows = wish > *cancel;
                *cancel = wish.max(*cancel);
                grows
            });
            if grew {
                events.emit(Event::Cancelling { gracefully: wish == Cancel::Gracefully });
            }
        }
    });
    Ok(receiver)
}
