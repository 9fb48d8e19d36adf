//! The probe: a few lines of shell that systemd starts in the guest, given to it by the machine.
//!
//! systemd reads credentials from SMBIOS type 11 strings (systemd-creds(1), "System and Service
//! Credentials"); since version 256 `systemd.extra-unit.*` adds a unit and `systemd.unit-dropin.*`
//! hooks it into a target (systemd-debug-generator(8)). The ISO itself is not touched. SMBIOS strings
//! are small, so the unit only opens its virtio-serial port and runs the agent that the host sends.
//!
//! Afterwards each side writes lines: the host `ID SECONDS BASE64-SCRIPT`, the guest JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::check::Answer;

/// Name of the virtio-serial port between probe and host.
pub const PROBE_PORT: &str = "org.isokiln.probe";

/// The agent's source.
const AGENT: &str = include_str!("../../../../qemu/probe/agent.sh");
/// The unit's source.
const UNIT: &str = include_str!("../../../../qemu/probe/isokiln-probe.service");

/// Targets that pull the probe in: whichever of them a boot reaches first.
const TARGETS: [&str; 3] = ["sysinit.target", "emergency.target", "rescue.target"];

/// SMBIOS type 11 strings that put the probe into the guest.
pub fn probe_credentials() -> Vec<String> {
    let mut strings = vec![format!(
        "io.systemd.credential.binary:systemd.extra-unit.isokiln-probe.service={}",
        STANDARD.encode(UNIT)
    )];
    for target in TARGETS {
        let dropin = "[Unit]\nWants=isokiln-probe.service\n";
        strings.push(format!(
            "io.systemd.credential.binary:systemd.unit-dropin.{target}={}",
            STANDARD.encode(dropin)
        ));
    }
    strings
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
    format!("{id} {seconds} {}\n", STANDARD.encode(script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_small_and_hook_every_way_to_boot() {
        let strings = probe_credentials();
        assert_eq!(strings.len(), 1 + TARGETS.len());
        for string in &strings {
            assert!(string.len() < 1500, "{} bytes may not fit an SMBIOS string", string.len());
        }
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
