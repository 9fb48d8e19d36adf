//! `[system]`: which distribution is built, and from where.

use serde::Serialize;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::table::Table;

/// `[system]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct System {
    /// Family of package archive, keyring and live boot scripts.
    pub distribution: Distribution,
    /// Code name such as `trixie`.
    pub suite: String,
    /// Processor architecture of the packages.
    pub architecture: Architecture,
    /// Archive addresses to try before the host's own.
    pub mirrors: Vec<String>,
    /// Archive components, in order.
    pub components: Vec<String>,
}

/// A family of distributions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Debian and what keeps to its archive layout.
    Debian,
    /// Ubuntu.
    Ubuntu,
}

impl Distribution {
    /// As in the pipeline file, and as `ID` in os-release.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Ubuntu => "ubuntu",
        }
    }

    /// The `Origin:` that its archive's Release files state.
    pub fn origin(self) -> &'static str {
        match self {
            Self::Debian => "Debian",
            Self::Ubuntu => "Ubuntu",
        }
    }
}

/// A processor architecture, by its Debian name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// 64-bit PC.
    Amd64,
}

impl Architecture {
    /// Debian's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
        }
    }
}

impl System {
    pub(super) fn read(mut table: Table<'_>, out: &mut Diagnostics) -> Option<Self> {
        let distribution = table.choice(
            "distribution",
            &[("debian", Distribution::Debian), ("ubuntu", Distribution::Ubuntu)],
            out,
        );
        if distribution.is_none() && table.key_span("distribution").is_none() {
            table.missing("distribution", "distribution = \"debian\"", out);
        }
        let suite = table.read("suite", out, parse_suite);
        if suite.is_none() && table.key_span("suite").is_none() {
            table.missing("suite", "suite = \"trixie\"", out);
        }
        let architecture = match table.any("architecture") {
            Some(_) => table.choice("architecture", &[("amd64", Architecture::Amd64)], out),
            None => Some(Architecture::Amd64),
        };
        let mut mirrors = Vec::new();
        for mirror in table.strings("mirrors", out).unwrap_or_default() {
            let host = mirror.value.strip_prefix("http://").or_else(|| mirror.value.strip_prefix("https://"));
            match host {
                Some(host) if !host.is_empty() && !mirror.value.contains(char::is_whitespace) => {
                    mirrors.push(mirror.value.trim_end_matches('/').to_owned());
                }
                _ => out.push(
                    Diagnostic::new(format!("mirror {:?} is not an address", mirror.value), mirror.span)
                        .help("write for example \"http://mirror.example.org/debian\""),
                ),
            }
        }
        let mut components = Vec::new();
        for component in table.strings("components", out).unwrap_or_default() {
            let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-/".contains(c);
            if component.value.is_empty() || !component.value.chars().all(valid) {
                let message = format!("{:?} is not an archive component", component.value);
                out.push(
                    Diagnostic::new(message, component.span).help("for example \"main\" or \"non-free\""),
                );
            }
            components.push(component.value);
        }
        if components.is_empty() {
            components.push("main".to_owned());
        }
        table.finish(out);
        Some(Self {
            distribution: distribution?,
            suite: suite?,
            architecture: architecture?,
            mirrors,
            components,
        })
    }
}

fn parse_suite(suite: &str) -> Result<String, String> {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if suite.is_empty() || !suite.chars().all(valid) {
        return Err(format!("suite {suite:?} is not a code name such as \"trixie\" or \"noble\""));
    }
    Ok(suite.to_owned())
}
