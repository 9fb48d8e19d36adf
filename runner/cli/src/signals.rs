//! Ctrl-C and its kin: the first asks a run to stop when its stage is done, the second stops it now.

use std::sync::Arc;

use isokiln_core::event::Event;
use isokiln_engine::run::Events;
use isokiln_engine::sandbox::{Cancel, CancelWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Listens for signals as long as the program runs.
pub(crate) fn listen(events: Arc<Events>) -> std::io::Result<CancelWatch> {
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
                Some(()) = either(&mut terminate, &mut hang_up) => Cancel::Now,
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

async fn either(one: &mut Signal, other: &mut Signal) -> Option<()> {
    tokio::select! {
        signal = one.recv() => signal,
        signal = other.recv() => signal,
    }
}
