//! Taking out what must not leave the machine, and nothing that a diagnosis needs.
//!
//! Digests, versions, key ids and fingerprints stay: they are public and often the cause.

mod rules;

use std::borrow::Cow;

use rules::RULES;

/// Most passes over a text. One is enough for nearly all; what a replacement uncovers needs another.
const PASSES: usize = 8;

/// The text without credentials in URLs, tokens, keys, passwords, e-mail addresses and names of home folders.
/// Redacting twice changes nothing more.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut out = Cow::Borrowed(text);
    for _ in 0..PASSES {
        match pass(&out) {
            Some(changed) => out = Cow::Owned(changed),
            None => break,
        }
    }
    out
}

/// One pass of all rules; `None` if nothing changed.
fn pass(text: &str) -> Option<String> {
    let mut out = Cow::Borrowed(text);
    for rule in RULES.iter() {
        if rule.form.is_match(&out) {
            let put = |found: &regex::Captures<'_>| (rule.put)(found).unwrap_or_else(|| found[0].to_owned());
            out = Cow::Owned(rule.form.replace_all(&out, put).into_owned());
        }
    }
    (out != text).then(|| out.into_owned())
}

/// Follows a private key over the lines of a log.
#[derive(Debug, Default)]
pub(super) struct KeyBlock {
    inside: bool,
}

impl KeyBlock {
    /// What stands for a line that belongs to a private key.
    pub(super) fn hides(&mut self, line: &str) -> Option<&'static str> {
        let is = |edge: &str| line.contains(edge) && line.contains("PRIVATE KEY");
        if is("-----BEGIN ") {
            self.inside = !is("-----END ");
            return Some(rules::PRIVATE_KEY);
        }
        if !self.inside {
            return None;
        }
        // The end may be among the lines that were left out.
        let text = line.trim();
        let belongs = text.is_empty()
            || ["Proc-Type:", "DEK-Info:", "Version:", "Comment:"]
                .iter()
                .any(|field| text.starts_with(field))
            || text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        self.inside = belongs && !is("-----END ");
        (belongs || is("-----END ")).then_some(rules::PRIVATE_KEY)
    }
}

#[cfg(test)]
mod tests;
