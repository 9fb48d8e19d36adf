//! A US keyboard: which keys type a text.

/// Keys that are pressed together, by QEMU's names (QKeyCode).
pub type Chord = Vec<&'static str>;

/// The chords that type a text on a US keyboard; `None` where it holds a character that has no key.
pub fn chords(text: &str) -> Option<Vec<Chord>> {
    text.chars().map(chord).collect()
}

fn chord(character: char) -> Option<Chord> {
    let plain = |character: char| {
        let index = match character {
            'a'..='z' => character as usize - 'a' as usize,
            '0'..='9' => 26 + character as usize - '0' as usize,
            _ => return SIGNS.iter().find(|(sign, ..)| *sign == character).map(|(.., name)| *name),
        };
        Some(LETTERS[index])
    };
    if let Some(key) = plain(character) {
        return Some(vec![key]);
    }
    if character.is_ascii_uppercase() {
        return plain(character.to_ascii_lowercase()).map(|key| vec!["shift", key]);
    }
    let (_, below) = SHIFTED.iter().find(|(sign, _)| *sign == character)?;
    plain(*below).map(|key| vec!["shift", key])
}

const LETTERS: [&str; 36] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t", "u",
    "v", "w", "x", "y", "z", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9",
];

const SIGNS: [(char, &str); 14] = [
    (' ', "spc"),
    ('\n', "ret"),
    ('\t', "tab"),
    ('-', "minus"),
    ('=', "equal"),
    ('[', "bracket_left"),
    (']', "bracket_right"),
    ('\\', "backslash"),
    (';', "semicolon"),
    ('\'', "apostrophe"),
    ('`', "grave_accent"),
    (',', "comma"),
    ('.', "dot"),
    ('/', "slash"),
];

/// What a key types with Shift, and without.
const SHIFTED: [(char, char); 21] = [
    ('!', '1'),
    ('@', '2'),
    ('#', '3'),
    ('$', '4'),
    ('%', '5'),
    ('^', '6'),
    ('&', '7'),
    ('*', '8'),
    ('(', '9'),
    (')', '0'),
    ('_', '-'),
    ('+', '='),
    ('{', '['),
    ('}', ']'),
    ('|', '\\'),
    (':', ';'),
    ('"', '\''),
    ('~', '`'),
    ('<', ','),
    ('>', '.'),
    ('?', '/'),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printable_character_has_a_key_and_no_two_share_one() {
        let all: Vec<_> = (' '..='~').map(|character| chord(character).unwrap()).collect();
        let mut sorted = all.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), all.len());
        assert_eq!(
            chords("aA1!|"),
            Some(vec![
                vec!["a"],
                vec!["shift", "a"],
                vec!["1"],
                vec!["shift", "1"],
                vec!["shift", "backslash"],
            ])
        );
        assert_eq!(chords("ü"), None);
    }
}
