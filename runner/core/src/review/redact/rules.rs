//! The forms in which something private shows up.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Stands for a secret.
const SECRET: &str = "[secret]";
/// Stands for a private key.
pub(super) const PRIVATE_KEY: &str = "[private key]";
/// Stands for an address.
const EMAIL: &str = "[e-mail]";

/// A form, and what is put in its place: `None` leaves it.
pub(super) struct Rule {
    pub(super) form: Regex,
    pub(super) put: fn(&Captures<'_>) -> Option<String>,
}

#[expect(clippy::expect_used, reason = "the forms are constants, and every test compiles them")]
fn rule(form: &str, put: fn(&Captures<'_>) -> Option<String>) -> Rule {
    Rule { form: Regex::new(form).expect("a form compiles"), put }
}

/// Names whose values are secret, whatever they look like.
const NAMES: &str = "(?:api|access|auth|private|secret|signing|encryption|deploy|storage|account)[_-]?key\
                     |[a-z0-9]+_key|secret|token|passw(?:or)?d|passwort|passphrase|credential";
/// A value: quoted, or up to white space.
const VALUE: &str = r#"("[^"\n]+"|'[^'\n]+'|[^\s"'&;,]+)"#;

pub(super) static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    vec![
        rule(
            r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)",
            |_| Some(PRIVATE_KEY.into()),
        ),
        // scheme://user:password@host
        rule(r#"\b([A-Za-z][A-Za-z0-9+.-]*://)[^\s/"'<>]+@"#, |found| {
            Some(format!("{}[credentials]@", &found[1]))
        }),
        // Headers, to the end of the line.
        rule(
            r"(?i)\b((?:proxy-)?authorization|x-api-key|x-goog-api-key|private-token|set-cookie|cookie)(\s*:\s*)[^\s][^\n]*",
            |found| Some(format!("{}{}{SECRET}", &found[1], &found[2])),
        ),
        rule(r"(?i)\b(bearer|basic|token)(\s+)([A-Za-z0-9._~+/=-]{8,})", |found| {
            is_random(&found[3]).then(|| format!("{}{}{SECRET}", &found[1], &found[2]))
        }),
        // Keys that tell by their beginning what they are.
        rule(
            concat!(
                r"\b(?:sk-[A-Za-z0-9_-]{16,}|gsk_[A-Za-z0-9]{16,}|xai-[A-Za-z0-9]{16,}|AIza[0-9A-Za-z_-]{20,}",
                r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}",
                r"|(?:AKIA|ASIA)[0-9A-Z]{12,}|xox[abprs]-[A-Za-z0-9-]{10,}|(?:npm|hf|dckr_pat)_[A-Za-z0-9_-]{20,}",
                r"|pypi-[A-Za-z0-9_-]{20,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?)",
            ),
            |found| found[0].bytes().any(|byte| byte.is_ascii_digit()).then(|| SECRET.into()),
        ),
        // The password field of /etc/shadow.
        rule(r"\$(?:1|2[abxy]?|5|6|7|y|gy)\$[A-Za-z0-9./$=,]{8,}", |_| Some(SECRET.into())),
        rule(r#"([A-Za-z0-9_-]+):[^\s:"']+(["']?\s*\|\s*(?:sudo\s+)?chpasswd)"#, |found| {
            Some(format!("{}:{SECRET}{}", &found[1], &found[2]))
        }),
        rule(r"((?:^|\s)-u\s+|--user[ =]|--proxy-user[ =])([^\s:]+):\S+", |found| {
            Some(format!("{}{}:{SECRET}", &found[1], &found[2]))
        }),
        // NAME=value, --name=value, ?name=value, "name": "value"
        rule(
            &format!(
                r#"(?i)([A-Za-z0-9_.-]*(?:{NAMES}|pass|pw)[A-Za-z0-9_]*|[?&](?:key|sig|signature))(["']?\s?:?=\s?|["']\s*:\s*){VALUE}"#
            ),
            |found| is_secret(&found[1], &found[3]).then(|| format!("{}{}{SECRET}", &found[1], &found[2])),
        ),
        // --name value
        rule(
            &format!(r#"(?i)(--(?:[a-z]+-)*(?:{NAMES}))(\s+)("[^"\n]+"|'[^'\n]+'|[^\s"'-][^\s"']*)"#),
            |found| is_secret(&found[1], &found[3]).then(|| format!("{}{}{SECRET}", &found[1], &found[2])),
        ),
        // name: value, where it is alone at the end of a line or looks like a secret
        rule(
            &format!(
                r#"(?im)\b([A-Za-z0-9_.-]*(?:{NAMES})[A-Za-z0-9_]*)(\s*:[ \t]+)([^\s"'&;,]+)([ \t]*$)?"#
            ),
            |found| {
                let is_password = PASSWORDS.iter().any(|word| found[1].to_ascii_lowercase().contains(word));
                // What `passwd` the program says is no password.
                let alone = found.get(4).is_some() && is_password && !found[1].eq_ignore_ascii_case("passwd");
                let tail = found.get(4).map_or("", |tail| tail.as_str());
                (alone || is_random(&found[3])).then(|| format!("{}{}{SECRET}{tail}", &found[1], &found[2]))
            },
        ),
        // Something long and mixed soon after a word for a secret.
        rule(
            r"(?i)\b(key|token|secret|password|passphrase)\b([^\n\w][^\n]{0,24}?[^\n\w./:+-])([A-Za-z0-9_+/=-]{32,})",
            |found| {
                let is_mixed =
                    is_random(&found[3]) && (!is_hex(&found[3]) || !found[1].eq_ignore_ascii_case("key"));
                is_mixed.then(|| format!("{}{}{SECRET}", &found[1], &found[2]))
            },
        ),
        rule(r"\b([A-Za-z0-9._%+-]+)@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.([A-Za-z]{2,})\b", |found| {
            (!UNITS.contains(&&found[2])).then(|| EMAIL.into())
        }),
        rule(r#"/(?:home|Users)/[^\s/:;,"'<>|&()]+"#, |_| Some("/home/[user]".into())),
        rule(r"(^|[^A-Za-z0-9_./\]-])/root(/|[^A-Za-z0-9_.-]|$)", |found| {
            Some(format!("{}/home/[user]{}", &found[1], &found[2]))
        }),
    ]
});

const PASSWORDS: [&str; 4] = ["passw", "passphrase", "secret", "credential"];

/// Ends of systemd units with an instance, which look like addresses.
const UNITS: [&str; 11] = [
    "service",
    "socket",
    "target",
    "mount",
    "automount",
    "slice",
    "timer",
    "device",
    "path",
    "scope",
    "swap",
];

/// Folders a value may point into instead of being a key itself.
const FOLDERS: [&str; 10] =
    ["/etc/", "/usr/", "/var/", "/run/", "/opt/", "/srv/", "/root/", "/home/", "/tmp/", "/dev/"];

/// Whether what is assigned to a name that speaks of secrets is one.
fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_public = name.contains("pubkey") || name.contains("public");
    let is_count = name.ends_with("tokens") && value.bytes().all(|byte| byte.is_ascii_digit());
    let is_file = FOLDERS.iter().any(|folder| value.trim_matches(['"', '\'']).starts_with(folder));
    // `bypass=` and `compass=` end like `pass`, but are none.
    let is_other = ["bypass", "compass"].iter().any(|word| name.ends_with(word));
    !(is_public || is_count || is_file || is_other)
}

/// Whether letters and digits are mixed as nobody writes words.
fn is_random(text: &str) -> bool {
    let has = |is: fn(&u8) -> bool| text.bytes().any(|byte| is(&byte));
    let is_path =
        text.contains('/') && !text.contains(['+', '=']) && text.split('/').all(|part| part.len() < 24);
    let is_version = text.starts_with(|c: char| c.is_ascii_digit()) && text.contains(['.', ':']);
    let cases = usize::from(has(u8::is_ascii_lowercase))
        + usize::from(has(u8::is_ascii_uppercase))
        + usize::from(has(u8::is_ascii_digit));
    let is_mixed = cases == 3 || (cases == 2 && text.len() >= 16 && !text.contains(['.', '-', '_']));
    text.len() >= 8 && !is_path && !is_version && is_mixed
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
