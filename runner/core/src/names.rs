//! Validated names: parsed once, never handled as raw strings afterwards.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name that breaks the rule for names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not valid: {rule}")]
pub struct InvalidName {
    what: &'static str,
    given: String,
    rule: &'static str,
}

/// Longest name accepted, in bytes: names become folder names, labels and image tags.
const MAX_LENGTH: usize = 64;

const RULE: &str =
    "use 1 to 64 lower-case letters, digits, '-', '_' or '.', beginning and ending with a letter or digit";

fn is_valid(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= MAX_LENGTH
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(b))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(given: &str) -> Result<Self, InvalidName> {
                if is_valid(given) {
                    Ok(Self(given.to_owned()))
                } else {
                    Err(InvalidName { what: $what, given: given.to_owned(), rule: RULE })
                }
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;

            fn try_from(given: String) -> Result<Self, InvalidName> {
                given.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// Name of a pipeline; also the base name of its ISO.
    PipelineName,
    "pipeline name"
);
name!(
    /// Name of a stage, unique within its pipeline.
    StageName,
    "stage name"
);
name!(
    /// Name of a stage kind: the folder that holds its `kind.toml`.
    KindName,
    "stage kind"
);
name!(
    /// Name of a machine profile such as `bios-cd`.
    ProfileName,
    "machine profile"
);
name!(
    /// Identity of one run: its UTC start time down to 1/65536 of a second, so that names sort by time.
    RunId,
    "run id"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_folders_labels_and_tags_accept() {
        for good in ["a", "base", "live-desktop", "x86_64", "1.2"] {
            assert_eq!(good.parse::<StageName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn refuses_paths_spaces_and_odd_edges() {
        for bad in ["", "..", "a/b", "-a", "a-", "Big", "ü", "a b", &"x".repeat(65)] {
            assert!(bad.parse::<StageName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_error_says_what_and_the_rule() {
        let error = "../x".parse::<StageName>().unwrap_err().to_string();
        assert!(error.starts_with("stage name \"../x\" is not valid"), "{error}");
    }
}
