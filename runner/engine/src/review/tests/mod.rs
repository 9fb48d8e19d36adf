//! The seats against providers on the loopback.

mod behaviour;
mod evaluation;
mod fallback;
mod log;
mod once;
mod server;

use std::sync::Arc;
use std::time::Duration;

use isokiln_core::review::wire::Protocol;
use isokiln_core::review::{Limits, Seat};

use super::{Ask, Council, HttpAsk, SeatSetting, Seats};
use behaviour::Behaviour;
use server::Server;

const DEADLINE: Duration = Duration::from_millis(1_500);

/// Providers by name, protocol and what they do; the first three hold C1, C2 and C3, the others stand by.
async fn servers(scripts: Vec<(&str, Protocol, Vec<Behaviour>)>) -> Vec<Server> {
    let mut servers = Vec::new();
    for (name, protocol, script) in scripts {
        servers.push(Server::start(name, protocol, script).await);
    }
    servers
}

fn seats(servers: &[Server]) -> Seats {
    let own = |index: usize| (index < servers.len()).then_some(index);
    let setting = |(index, seat)| SeatSetting { seat, open: true, own: own(index) };
    Seats {
        providers: servers.iter().map(|server| server.provider.clone()).collect(),
        seats: Seat::ALL.into_iter().enumerate().map(setting).collect(),
        parallel: true,
        session_safe: true,
        limits: Limits::default(),
    }
}

fn asker() -> Arc<dyn Ask> {
    Arc::new(HttpAsk::new().unwrap())
}

fn council(servers: &[Server]) -> Council {
    Council::new(seats(servers), asker(), None, None)
}

/// The same where many are made at once: to make a client takes longer than some deadlines here allow.
fn council_with(ask: &Arc<dyn Ask>, servers: &[Server]) -> Council {
    Council::new(seats(servers), Arc::clone(ask), None, None)
}
