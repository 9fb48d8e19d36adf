//! The probe: a few lines of shell that systemd starts in the guest, given to it by the machine.
//!
//! systemd reads credentials from SMBIOS type 11 strings (systemd-creds(1), "System and Service
//! Credentials"); since version 256 `systemd.extra-unit.*` adds a unit and `systemd.unit-dropin.*`
//! hooks it into a target (systemd-debug-generator(8)). The ISO itself is not touched. SMBIOS strings
//! are small, so the unit only opens its virtio-serial port and runs the agent that the host sends.
//!
//! Afterwards each side writes lines: the host `ID SECONDS BYTES BASE64-SCRIPT`, the guest JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::check::Answer;
use super::login::LOGINS;
use crate::digest::Digest;

/// Name of the virtio-serial port between probe and host.
pub const PROBE_PORT: &str = "org.isokiln.probe";
/// Name of the virtio-serial port at which QEMU's guest agent listens.
pub const AGENT_PORT: &str = "org.qemu.guest_agent.0";

/// The agent's source.
const AGENT: &str = include_str!("../../../../qemu/probe/agent.sh");
/// What opens the port and runs the agent that the host sends: one line for any shell of root's.
const HELLO: &str = include_str!("../../../../qemu/probe/hello.sh");
/// The unit that runs it; `@HELLO@` stands for the line.
const UNIT: &str = include_str!("../../../../qemu/probe/isokiln-probe.service");
/// What initramfs-tools and dracut run from an initrd that the unit was appended to.
const HOOK: &str = include_str!("../../../../qemu/probe/hook.sh");
/// What makes initramfs-tools run it.
const HOOK_ORDER: &str = include_str!("../../../../qemu/probe/hook-order.sh");

/// Targets that pull the probe in: whichever of them a boot reaches first.
const TARGETS: [&str; 3] = ["sysinit.target", "emergency.target", "rescue.target"];

/// System credentials that a machine carries for systemd, as SMBIOS type 11 strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// None.
    None,
    /// The probe's unit, for systemd 256 and later.
    ExtraUnit,
    /// A console on the second serial port on which root is logged in, for systemd 254 and later.
    SerialGetty,
}

impl Credentials {
    /// The strings.
    pub fn strings(self) -> Vec<String> {
        let binary = |name: String, value: &str| {
            format!("io.systemd.credential.binary:{name}={}", STANDARD.encode(value))
        };
        match self {
            Self::None => Vec::new(),
            Self::ExtraUnit => {
                let unit = binary("systemd.extra-unit.isokiln-probe.service".to_owned(), &probe_unit());
                let hooks = TARGETS.map(|target| {
                    binary(format!("systemd.unit-dropin.{target}"), "[Unit]\nWants=isokiln-probe.service\n")
                });
                [unit].into_iter().chain(hooks).collect()
            }
            // systemd-getty-generator(8), agetty(8), login(1).
            Self::SerialGetty => ["getty.ttys.serial=ttyS1", "agetty.autologin=root", "login.noauth=yes"]
                .map(|credential| format!("io.systemd.credential:{credential}"))
                .to_vec(),
        }
    }
}

/// The probe's unit.
fn probe_unit() -> String {
    // systemd takes a doubled dollar or percent sign for a single one.
    UNIT.replace("@HELLO@", &HELLO.trim_end().replace('$', "$$").replace('%', "%%"))
}

/// Files of the archive that is appended to an initrd: path and contents. They put the probe's unit into
/// `/run`, which is handed on to the live system.
pub fn initrd_hook() -> Vec<(String, String)> {
    let mut files = vec![
        ("isokiln-probe.service".to_owned(), probe_unit()),
        // initramfs-tools runs what its ORDER file names, and reads conf.d before that.
        ("scripts/init-bottom/isokiln".to_owned(), HOOK.to_owned()),
        ("conf/conf.d/isokiln".to_owned(), HOOK_ORDER.to_owned()),
    ];
    // dracut up to 104, and later.
    for folder in ["usr/lib/dracut/hooks", "var/lib/dracut/hooks"] {
        files.push((format!("{folder}/pre-pivot/99-isokiln.sh"), HOOK.to_owned()));
    }
    files
}

/// Digest of everything that is said to a guest to start the probe and to run it.
pub fn probe_digest() -> Digest {
    let texts = [AGENT, HELLO, UNIT, HOOK, HOOK_ORDER, LOGINS];
    Digest::of(format!("{texts:?} {:?}", Credentials::ExtraUnit.strings()))
}

/// The line that starts the probe when root's shell is given it.
pub fn hello_command() -> &'static str {
    HELLO.trim_end()
}

/// A line from the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeMessage {
    /// The unit has opened its port and waits for the agent.
    Hello,
    /// The agent runs.
    Ready,
    /// A script has ended.
    Answer {
        /// The request's number.
        id: u64,
        /// How it ended.
        answer: Answer,
    },
}

impl ProbeMessage {
    /// Reads a line; `None` where it is not one of the probe's.
    pub fn parse(line: &str) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Wire {
            Ready { ready: u32 },
            Answer { id: u64, status: i32, out: String },
        }
        // Said by the unit itself, where quoting is systemd's: no JSON there.
        if line.trim() == "hello" {
            return Some(Self::Hello);
        }
        match serde_json::from_str(line.trim()).ok()? {
            Wire::Ready { ready: 1 } => Some(Self::Ready),
            Wire::Answer { id, status, out } => {
                let output = String::from_utf8_lossy(&STANDARD.decode(out).ok()?).into_owned();
                Some(Self::Answer { id, answer: Answer { status, output } })
            }
            Wire::Ready { .. } => None,
        }
    }
}

/// The line that answers [`ProbeMessage::Hello`]: the agent.
pub fn hello_reply() -> String {
    format!("{}\n", STANDARD.encode(AGENT))
}

/// The line that asks the agent to run `script`, for at most `seconds`.
pub fn request(id: u64, seconds: u64, script: &str) -> String {
    format!("{id} {seconds} {} {}\n", script.len(), STANDARD.encode(script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_small_and_hook_every_way_to_boot() {
        let strings = Credentials::ExtraUnit.strings();
        assert_eq!(strings.len(), 1 + TARGETS.len());
        for string in &strings {
            assert!(string.len() < 1500, "{} bytes may not fit an SMBIOS string", string.len());
        }
        assert!(Credentials::None.strings().is_empty());
    }

    #[test]
    fn the_unit_runs_the_line_that_a_shell_would() {
        let unit = probe_unit();
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/bin/sh -c '")).unwrap();
        let line = start.strip_suffix('\'').unwrap();
        assert!(!line.contains('\''), "a quote would end the argument: {line}");
        assert_eq!(line.replace("$$", "$").replace("%%", "%"), hello_command());
        assert_eq!(hello_command().lines().count(), 1);
    }

    #[test]
    fn reads_the_guests_lines() {
        assert_eq!(ProbeMessage::parse("hello\r\n"), Some(ProbeMessage::Hello));
        assert_eq!(ProbeMessage::parse("{\"ready\":1}\n"), Some(ProbeMessage::Ready));
        let answer = Answer { status: 3, output: "hi\n".into() };
        assert_eq!(
            ProbeMessage::parse(r#"{"id":7,"status":3,"out":"aGkK"}"#),
            Some(ProbeMessage::Answer { id: 7, answer })
        );
        for noise in ["", "login:", "{\"ready\":2}", "{\"id\":1}", "{\"id\":1,\"status\":0,\"out\":\"?\"}"] {
            assert_eq!(ProbeMessage::parse(noise), None, "{noise:?}");
        }
    }
}
