//! Cutting a stream of bytes into lines, in bounded memory.

/// Cuts bytes into lines as they come.
#[derive(Debug)]
pub struct Lines {
    unfinished: Vec<u8>,
    longest: usize,
}

impl Lines {
    /// Lines of which at most `longest` bytes are given.
    pub fn new(longest: usize) -> Self {
        Self { unfinished: Vec::new(), longest }
    }

    /// Takes the next bytes, and gives each line that they end, with its end.
    pub fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8])) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if self.unfinished.is_empty() && line.len() <= self.longest {
                take(line);
            } else {
                self.keep(line);
                take(&self.unfinished);
                self.unfinished.clear();
            }
        }
        self.keep(bytes);
    }

    /// Gives what is left when the stream ends.
    pub fn finish(&mut self, take: impl FnOnce(&[u8])) {
        if !self.unfinished.is_empty() {
            take(&self.unfinished);
            self.unfinished.clear();
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        // A progress display draws one line again and again: what it drew before does not count.
        let end = bytes.len() - bytes.iter().rev().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let bytes = match memchr::memrchr(b'\r', &bytes[..end]) {
            Some(redraw) => {
                self.unfinished.clear();
                &bytes[redraw + 1..]
            }
            None => {
                if self.unfinished.ends_with(b"\r") && end > 0 {
                    self.unfinished.clear();
                }
                bytes
            }
        };
        let room = self.longest.saturating_sub(self.unfinished.len());
        self.unfinished.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(longest: usize, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut lines = Lines::new(longest);
        for piece in pieces {
            lines.feed(piece, |line| all.push(line.to_vec()));
        }
        lines.finish(|line| all.push(line.to_vec()));
        all
    }

    #[test]
    fn lines_are_joined_and_cut() {
        assert_eq!(lines(100, &[b"one\ntw", b"o\n", b"end"]), [&b"one\n"[..], b"two\n", b"end"]);
        assert_eq!(lines(4, &[b"123456789\nab", b"cdef\n\n"]), [&b"1234"[..], b"abcd", b"\n"]);
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let mut lines = Lines::new(1000);
        for _ in 0..20 {
            lines.feed(&vec![b'x'; 1 << 20], |_| panic!("no line has ended"));
        }
        assert!(lines.unfinished.capacity() < 1 << 20);
        // One that is drawn again and again shows what was drawn last.
        let mut lines = Lines::new(1000);
        let drawn: Vec<_> = (0..5000).map(|percent| format!("{percent}%\r")).collect();
        let mut shown = Vec::new();
        drawn.iter().for_each(|piece| lines.feed(piece.as_bytes(), |_| panic!("no line has ended")));
        lines.feed(b"\n", |line| shown = line.to_vec());
        assert_eq!(shown, b"4999%\r\n");
    }

    proptest::proptest! {
        #[test]
        fn cuts_do_not_matter(text in "[a-c\n]{0,80}", cut in 0usize..80) {
            let cut = cut.min(text.len());
            let (one, other) = text.as_bytes().split_at(cut);
            proptest::prop_assert_eq!(lines(100, &[one, other]), lines(100, &[text.as_bytes()]));
        }
    }
}
