//! InRelease files: an archive suite's signed table of contents (Debian repository format).

use jiff::fmt::rfc2822;

/// The fields of a Release file that isokiln uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Who publishes it.
    pub origin: String,
    /// For example `stable`.
    pub suite: String,
    /// For example `trixie`.
    pub codename: String,
    /// Components on offer.
    pub components: Vec<String>,
    /// When it was published, in seconds since 1970.
    pub date: i64,
}

/// Text that is no Release file, such as a captive portal's page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a Release file: {0}")]
pub struct InvalidRelease(&'static str);

impl Release {
    /// Reads an InRelease file. The signature is apt's to check, with the distribution's keys, when
    /// it fetches the same file; isokiln uses the contents to recognise a state of the archive.
    pub fn parse(text: &str) -> Result<Self, InvalidRelease> {
        let body = match text.strip_prefix("-----BEGIN PGP SIGNED MESSAGE-----") {
            Some(signed) => signed.split_once("\n\n").map_or("", |(_, body)| body),
            None => text,
        };
        let date = field(body, "Date").replace("UTC", "+0000");
        let date = rfc2822::parse(date.trim()).map_err(|_| InvalidRelease("it has no date"))?;
        let release = Self {
            origin: field(body, "Origin"),
            suite: field(body, "Suite"),
            codename: field(body, "Codename"),
            components: field(body, "Components").split_whitespace().map(str::to_owned).collect(),
            date: date.timestamp().as_second(),
        };
        if release.suite.is_empty() && release.codename.is_empty() {
            return Err(InvalidRelease("it names no suite"));
        }
        Ok(release)
    }
}

/// A field's value in a deb822 paragraph, with folded lines joined; empty where there is none.
pub(super) fn field(paragraph: &str, name: &str) -> String {
    let mut value: Option<String> = None;
    for line in paragraph.lines().filter(|line| !line.starts_with('#')) {
        match (&mut value, line.split_once(':')) {
            (Some(value), _) if line.starts_with([' ', '\t']) => {
                value.push(' ');
                value.push_str(line.trim());
            }
            (Some(_), _) => break,
            (None, Some((key, rest))) if key.eq_ignore_ascii_case(name) => {
                value = Some(rest.trim().to_owned())
            }
            _ => {}
        }
    }
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n\
        Origin: Debian\nSuite: stable\nCodename: trixie\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n\
        Components: main contrib\nMD5Sum:\n 0 1 main/x\n-----BEGIN PGP SIGNATURE-----\n";

    #[test]
    fn reads_a_signed_release() {
        let release = Release::parse(SIGNED).unwrap();
        assert_eq!((release.origin.as_str(), release.codename.as_str()), ("Debian", "trixie"));
        assert_eq!(release.date, 1_789_199_741);
        assert_eq!(release.components, ["main", "contrib"]);
    }

    #[test]
    fn refuses_other_texts() {
        for text in ["", "<html>Please log in</html>", "Date: yesterday\nSuite: x\n"] {
            assert!(Release::parse(text).is_err(), "{text:?}");
        }
    }
}
