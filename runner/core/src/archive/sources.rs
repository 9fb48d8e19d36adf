//! apt's sources, in both forms: one-line (sources.list(5)) and deb822 (`*.sources`).

/// One entry that is enabled and serves binary packages over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AptSource {
    /// Addresses without a final slash.
    pub uris: Vec<String>,
    /// Suites.
    pub suites: Vec<String>,
    /// Components.
    pub components: Vec<String>,
}

/// Reads a file of apt's sources. What is not understood is skipped: the file is the host's, not ours.
pub fn parse_sources(text: &str, deb822: bool) -> Vec<AptSource> {
    if deb822 {
        text.split("\n\n").flat_map(stanza).collect()
    } else {
        text.lines().filter_map(line).collect()
    }
}

fn line(line: &str) -> Option<AptSource> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let uris = http_only(vec![words.next()?]);
    let source = AptSource { uris, suites: vec![words.next()?], components: words.collect() };
    (!source.uris.is_empty()).then_some(source)
}

fn stanza(text: &str) -> Option<AptSource> {
    let words = |field: &str| -> Vec<String> {
        super::release::field(text, field).split_whitespace().map(str::to_owned).collect()
    };
    let disabled = words("Enabled").first().is_some_and(|word| word == "no" || word == "false");
    if disabled || !words("Types").contains(&"deb".to_owned()) {
        return None;
    }
    let uris = http_only(words("URIs"));
    (!uris.is_empty()).then(|| AptSource { uris, suites: words("Suites"), components: words("Components") })
}

/// Containers can reach these; `file:`, `cdrom:` and `mirror+file:` mean something on the host only.
fn http_only(uris: Vec<String>) -> Vec<String> {
    uris.into_iter()
        .filter(|uri| uri.starts_with("http://") || uri.starts_with("https://"))
        .map(|uri| uri.trim_end_matches('/').to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_line_sources() {
        let text = "# comment\n\
                    deb [arch=amd64 signed-by=/x.gpg] http://a.example.org/debian/ trixie main contrib # note\n\
                    deb-src http://a.example.org/debian trixie main\n\
                    deb cdrom:[Debian]/ trixie main\n\
                    deb mirror+file:/etc/apt/mirrors.txt noble main\n";
        let sources = parse_sources(text, false);
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].uris, ["http://a.example.org/debian"]);
        assert_eq!(sources[0].suites, ["trixie"]);
        assert_eq!(sources[0].components, ["main", "contrib"]);
    }

    #[test]
    fn reads_deb822_with_comments_folding_and_disabled_stanzas() {
        let text = "Types: deb deb-src\n# a comment\nURIs: http://a.example.org/debian\nSuites: trixie\n trixie-updates\n\
                    Components: main\nSigned-By: /k.gpg\n\n\
                    Types: deb\nURIs: http://b.example.org/x\nSuites: y\nComponents: main\nEnabled: no\n\n\
                    Types: deb-src\nURIs: http://c.example.org/x\nSuites: y\nComponents: main\n";
        let sources = parse_sources(text, true);
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].suites, ["trixie", "trixie-updates"]);
    }

    #[test]
    fn nonsense_is_skipped() {
        for text in
            ["", "deb", "deb http://x", "debian http://x y z", "Types deb\nURIs\n", "deb [a http://x y z"]
        {
            assert_eq!(parse_sources(text, false), [], "{text:?}");
            assert_eq!(parse_sources(text, true), [], "{text:?}");
        }
    }
}
