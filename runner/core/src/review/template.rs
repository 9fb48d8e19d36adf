//! What lines have in common that only differ in names and numbers.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Lines that begin like this report progress; what they name does not matter.
const PROGRESS: [&str; 16] = [
    "Get:",
    "Hit:",
    "Ign:",
    "Fetched ",
    "Unpacking ",
    "Setting up ",
    "Selecting ",
    "Preparing ",
    "Processing ",
    "Adding ",
    "Removing ",
    "(Reading ",
    "I: Retrieving ",
    "I: Validating ",
    "I: Extracting ",
    "I: Unpacking ",
];

/// The line with everything variable masked: words that hold digits, slashes or quotes become `#`.
pub fn template(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    parts(line, |part| {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(part);
    });
    out
}

/// A number that lines of the same template share, within this process.
pub fn template_id(line: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts(line, |part| part.hash(&mut hasher));
    hasher.finish()
}

fn parts<'l>(line: &'l str, mut take: impl FnMut(&'l str)) {
    if let Some(progress) = PROGRESS.iter().find(|start| line.starts_with(**start)) {
        return take(progress);
    }
    let mut was_masked = false;
    for word in line.split_ascii_whitespace() {
        let is_variable =
            word.bytes().any(|byte| byte.is_ascii_digit() || matches!(byte, b'/' | b'\'' | b'"' | b'`'));
        // However many variable words follow one another, they stand for one thing.
        if !is_variable || !was_masked {
            take(if is_variable { "#" } else { word });
        }
        was_masked = is_variable;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_kind_have_one_template() {
        for (one, other) in [
            ("Get:1 http://a b 1 [3 kB]", "Get:22 http://c d amd64 2 [4 MB]"),
            ("Setting up a (1) ...", "Setting up libb:amd64 (2:3-4) ..."),
            ("cp: cannot stat '/a/b'", "cp: cannot stat '/c'"),
            ("took 12 s", "took 3.5 s"),
        ] {
            assert_eq!(template(one), template(other));
            assert_eq!(template_id(one), template_id(other));
        }
        assert_eq!(template("cp: cannot stat '/a b/c': gone"), "cp: cannot stat # gone");
        assert_ne!(template_id("E: no"), template_id("E: yes"));
    }
}
