//! Which machines a boot test starts.

use super::channel::Channel;
use super::iso::{Expectations, Inspection, Outlook};
use super::probe::Credentials;
use super::qemu::{DirectKernel, Start};

/// How one machine is started, and how the probe may come into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ride {
    /// What it starts from.
    pub start: Start,
    /// Ways for the probe, strongest first; none where the machine is only watched.
    pub channels: Vec<Channel>,
}

impl Ride {
    /// A machine that is started as a person would.
    pub fn of_medium(channels: Vec<Channel>) -> Self {
        let credentials = if channels.contains(&Channel::Credentials) {
            Credentials::ExtraUnit
        } else if channels.contains(&Channel::SerialGetty) {
            Credentials::SerialGetty
        } else {
            Credentials::None
        };
        Self { start: Start::Medium { credentials }, channels }
    }

    /// A machine on which QEMU starts the ISO's kernel.
    pub fn of_kernel(kernel: DirectKernel) -> Self {
        Self { start: Start::Kernel(kernel), channels: vec![Channel::InitramfsHook] }
    }

    /// The way by which a probe has come that nothing was done for in this boot.
    pub fn passive_channel(&self) -> Channel {
        match &self.start {
            Start::Kernel(_) => Channel::InitramfsHook,
            Start::Medium { .. } => self.channels.first().copied().unwrap_or(Channel::Credentials),
        }
    }
}

/// The machines to start for an ISO, one after the other, until the probe came in: first the one that a person would
/// have, with the strongest way in that does not change its boot; then the others that the ISO allows. With `only`,
/// none but that way is tried.
pub fn plan_rides(inspection: &Inspection, expectations: &Expectations, only: Option<Channel>) -> Vec<Ride> {
    let outlook = |channel| expectations.channel(channel).map_or(Outlook::Unknown, |found| found.outlook);
    let wanted = |channel| match only {
        Some(only) => only == channel,
        None => outlook(channel) != Outlook::No,
    };
    let mut along: Vec<_> =
        [Channel::Credentials, Channel::GuestAgent].into_iter().filter(|channel| wanted(*channel)).collect();
    // Credentials for a console change who is logged in where: only where units cannot be handed over.
    if !along.contains(&Channel::Credentials)
        && wanted(Channel::SerialGetty)
        && (only.is_some() || outlook(Channel::SerialGetty) == Outlook::Yes)
    {
        along.push(Channel::SerialGetty);
    }
    let mut rides = vec![Ride::of_medium(along)];
    if wanted(Channel::InitramfsHook)
        && let Some(kernel) = direct_kernel(inspection)
    {
        rides.push(Ride::of_kernel(kernel));
    }
    let typed = [Channel::BootMenu, Channel::Console].into_iter().filter(|channel| wanted(*channel));
    rides.extend(typed.map(|channel| Ride::of_medium(vec![channel])));
    // A console is logged in to after the boot, which stays as it is for a person.
    if only == Some(Channel::Console) {
        rides.remove(0);
    }
    rides
}

/// The kernel that boots by itself.
fn direct_kernel(inspection: &Inspection) -> Option<DirectKernel> {
    let entry = inspection.any_default()?;
    let on_iso = |path: &String| path.starts_with('/');
    let kernel = entry.kernel.clone().filter(on_iso)?;
    if entry.initrds.is_empty() || !entry.initrds.iter().all(on_iso) {
        return None;
    }
    Some(DirectKernel { kernel, initrds: entry.initrds.clone(), arguments: entry.arguments.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::iso::{Expectation, IsoFacts, Loader, LoaderConfig, MenuEntry};

    fn inspection() -> Inspection {
        let entry = MenuEntry {
            title: "Live".into(),
            kernel: Some("/live/vmlinuz".into()),
            initrds: vec!["/live/initrd.img".into()],
            arguments: "boot=live".into(),
        };
        Inspection {
            facts: IsoFacts::default(),
            esp: None,
            loader_configs: vec![LoaderConfig {
                path: "/isolinux/isolinux.cfg".into(),
                loader: Loader::Isolinux,
                entries: vec![entry],
                default: Some(0),
                timeout: Some(3),
                editable: true,
            }],
            kernels: Vec::new(),
            initrds: Vec::new(),
            system: None,
            problems: Vec::new(),
        }
    }

    fn expectations(outlooks: [Outlook; 6]) -> Expectations {
        let channels = Channel::ALL.into_iter().zip(outlooks).map(|(subject, outlook)| Expectation {
            subject,
            outlook,
            reason: String::new(),
        });
        Expectations { profiles: Vec::new(), checks: Vec::new(), channels: channels.collect() }
    }

    fn channels(outlooks: [Outlook; 6], only: Option<Channel>) -> Vec<Vec<Channel>> {
        let rides = plan_rides(&inspection(), &expectations(outlooks), only);
        rides.into_iter().map(|ride| ride.channels).collect()
    }

    #[test]
    fn the_strongest_comes_first_and_what_cannot_be_is_left_out() {
        use Channel::*;
        use Outlook::*;
        assert_eq!(
            channels([Yes, No, Yes, Yes, Yes, Yes], None),
            [vec![Credentials], vec![InitramfsHook], vec![BootMenu], vec![Console]]
        );
        assert_eq!(channels([No, No, Yes, No, No, Yes], None), [vec![SerialGetty], vec![Console]]);
        assert_eq!(channels([No, No, No, Yes, No, No], None), [vec![], vec![InitramfsHook]]);
        let unknown = channels([Unknown; 6], None);
        assert_eq!(
            unknown[0],
            [Credentials, GuestAgent],
            "a console for root is not tried on the off-chance"
        );
    }

    #[test]
    fn one_way_alone() {
        use Channel::*;
        let yes = [Outlook::Yes; 6];
        assert_eq!(channels(yes, Some(SerialGetty)), [vec![SerialGetty]]);
        assert_eq!(channels(yes, Some(InitramfsHook)), [vec![], vec![InitramfsHook]]);
        assert_eq!(channels([Outlook::No; 6], Some(BootMenu)), [vec![], vec![BootMenu]]);
        assert_eq!(channels([Outlook::No; 6], Some(Console)), [vec![Console]]);
    }
}
