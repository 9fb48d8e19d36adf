//! The nearest valid name, for errors about names that do not exist.

/// The candidate that `given` was most likely meant to be, if one is near enough to say so.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this Jaro–Winkler similarity a suggestion confuses more than it helps.
    const NEAR_ENOUGH: f64 = 0.75;

    let given = given.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&given, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= NEAR_ENOUGH)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_slip() {
        let kinds = ["bootstrap", "packages", "files", "script", "live", "iso"];
        assert_eq!(nearest("package", kinds), Some("packages"));
        assert_eq!(nearest("Bootstrp", kinds), Some("bootstrap"));
    }

    #[test]
    fn stays_silent_when_nothing_is_near() {
        assert_eq!(nearest("zzz", ["bootstrap", "iso"]), None);
        assert_eq!(nearest("x", []), None);
    }
}
