//! Where a command was started, as far as its environment tells.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a session is shown on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A job of continuous integration: nobody watches, and what outlives the job is killed.
    Ci,
    /// A remote login.
    Ssh,
    /// A terminal in a graphical session.
    Desktop,
    /// A terminal of the machine itself, or a serial one.
    Console,
    /// No terminal: a timer, a service, a script.
    None,
}

/// What keeps a terminal for a session that may come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Multiplexer {
    /// tmux.
    Tmux,
    /// GNU screen.
    Screen,
}

/// Where a command was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// What shows the session.
    pub kind: Kind,
    /// What runs in between.
    pub multiplexer: Option<Multiplexer>,
}

/// Variables that services of continuous integration set, besides `CI`, which nearly all do.
const CI: [&str; 7] =
    ["GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "TEAMCITY_VERSION", "BUILDKITE", "TF_BUILD", "DRONE"];

impl Place {
    /// Looks at the variables of the environment; `terminal` is the device that the command talks to, if it is one.
    pub fn detect(variable: impl Fn(&str) -> Option<String>, terminal: Option<&str>) -> Self {
        let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
        let is_on = |name: &str| {
            variable(name).is_some_and(|value| !["", "0", "false", "no"].contains(&&*value.to_lowercase()))
        };
        let multiplexer = if is_set("TMUX") {
            Some(Multiplexer::Tmux)
        } else if is_set("STY") {
            Some(Multiplexer::Screen)
        } else {
            None
        };
        let session = variable("XDG_SESSION_TYPE").unwrap_or_default();
        let is_own = |device: &str| {
            // /dev/tty1 and /dev/ttyS0, but not /dev/pts/0.
            device
                .strip_prefix("/dev/tty")
                .is_some_and(|rest| rest.ends_with(|end: char| end.is_ascii_digit()))
                || device == "/dev/console"
        };
        let kind = if is_on("CI") || CI.iter().any(|name| is_on(name)) {
            Kind::Ci
        } else if terminal.is_none() {
            Kind::None
        } else if ["SSH_CONNECTION", "SSH_TTY", "SSH_CLIENT"].iter().any(|name| is_set(name)) {
            Kind::Ssh
        } else if terminal.is_some_and(is_own) {
            Kind::Console
        } else if ["x11", "wayland", "mir"].contains(&&*session)
            || is_set("WAYLAND_DISPLAY")
            || is_set("DISPLAY")
        {
            Kind::Desktop
        } else {
            Kind::Console
        };
        Self { kind, multiplexer: multiplexer.filter(|_| !matches!(kind, Kind::Ci | Kind::None)) }
    }

    /// Whether a build stays in the process that was started: what outlives a job of continuous integration is killed,
    /// or worse, is not.
    pub fn stays_in_foreground(self) -> bool {
        self.kind == Kind::Ci
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Ci => "CI",
            Kind::Ssh => "ssh",
            Kind::Desktop => "desktop",
            Kind::Console => "console",
            Kind::None => "no terminal",
        };
        match self.multiplexer {
            None => f.write_str(kind),
            Some(Multiplexer::Tmux) => write!(f, "tmux, {kind}"),
            Some(Multiplexer::Screen) => write!(f, "screen, {kind}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(variables: &[(&str, &str)], terminal: Option<&str>) -> String {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Place::detect(variable, terminal).to_string()
    }

    #[test]
    fn every_kind_of_session_is_told_from_the_others() {
        let pty = Some("/dev/pts/3");
        let ssh = ("SSH_CONNECTION", "192.0.2.7 50522 192.0.2.1 22");
        for (expected, variables, terminal) in [
            ("console", &[][..], Some("/dev/tty1")),
            ("console", &[("XDG_SESSION_TYPE", "tty")], Some("/dev/ttyS0")),
            // A container's or a serial console's terminal.
            ("console", &[], pty),
            ("ssh", &[ssh], pty),
            // X forwarded by ssh is no desktop.
            ("ssh", &[ssh, ("DISPLAY", "localhost:10.0")], pty),
            ("desktop", &[("DISPLAY", ":0")], pty),
            ("desktop", &[("XDG_SESSION_TYPE", "wayland")], pty),
            // Another terminal than the desktop's.
            ("console", &[("DISPLAY", ":0")], Some("/dev/tty3")),
            ("tmux, ssh", &[ssh, ("TMUX", "/tmp/tmux-0/default,1,0")], pty),
            ("tmux, console", &[("TMUX", "/tmp/tmux-0/default,1,0")], pty),
            ("screen, desktop", &[("STY", "7.pts-0.host"), ("DISPLAY", ":0")], pty),
            ("CI", &[("CI", "true")], None),
            ("CI", &[("CI", "1"), ssh], pty),
            ("CI", &[("GITHUB_ACTIONS", "true"), ("TMUX", "x")], None),
            ("CI", &[("JENKINS_URL", "http://ci")], None),
            // Somebody who has switched it off.
            ("ssh", &[("CI", "false"), ssh], pty),
            ("console", &[("CI", "")], pty),
            ("no terminal", &[], None),
            ("no terminal", &[ssh, ("TMUX", "x")], None),
        ] {
            assert_eq!(place(variables, terminal), expected, "{variables:?} on {terminal:?}");
        }
    }

    #[test]
    fn only_ci_stays_in_the_foreground() {
        let stays = |variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            };
            Place::detect(variable, None).stays_in_foreground()
        };
        assert!(stays(&[("CI", "true")]));
        assert!(!stays(&[]));
    }
}
