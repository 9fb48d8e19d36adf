use std::hash::{DefaultHasher, Hash, Hasher};

use crate::boot::screen::TextScreen;

/// What a screen shows, small enough to keep and to compare with later ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScreenId {
    /// A picture's fingerprint, or a text's without its numbers.
    shape: u64,
    /// A text's numbers in the order in which they stand there.
    numbers: Vec<u64>,
}

impl ScreenId {
    /// Of a picture with this fingerprint; the same for the same fingerprint.
    pub fn of_picture(fingerprint: u64) -> Self {
        Self { shape: fingerprint, numbers: Vec::new() }
    }

    /// Of a text screen, whatever its colours. Only these can be seen to count down.
    pub fn of_text(screen: &TextScreen) -> Self {
        let mut hasher = DefaultHasher::new();
        let mut numbers = Vec::new();
        for row in screen.rows() {
            // A number that loses a digit moves what stands beside it: how many spaces there are says nothing.
            for word in row.split_whitespace() {
                let mut rest = word;
                while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
                    let (before, digits) = rest.split_at(start);
                    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
                    before.hash(&mut hasher);
                    numbers.push(digits[..end].parse().unwrap_or(u64::MAX));
                    rest = &digits[end..];
                }
                rest.hash(&mut hasher);
            }
            '\n'.hash(&mut hasher);
        }
        Self { shape: hasher.finish(), numbers }
    }

    /// Whether this is the screen of before but for one number, which is smaller now.
    pub(super) fn follows_in_countdown(&self, before: &Self) -> bool {
        if self.shape != before.shape || self.numbers.len() != before.numbers.len() {
            return false;
        }
        let mut changes = self.numbers.iter().zip(&before.numbers).filter(|(now, before)| now != before);
        changes.next().is_some_and(|(now, before)| now < before) && changes.next().is_none()
    }
}
