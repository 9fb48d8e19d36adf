//! pax extended header records (POSIX.1-2017, `pax`, "pax Extended Header"): `LENGTH KEY=VALUE\n`.
//!
//! Values are bytes: extended attributes may hold newlines and zeros, and file names need not be UTF-8.

/// The records of one extended header, in the order in which they stood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

/// A record that does not follow the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed pax extended header")]
pub(super) struct Malformed;

impl Records {
    /// Reads the payload of an `x` member.
    pub(super) fn parse(mut payload: &[u8]) -> Result<Self, Malformed> {
        let mut records = Vec::new();
        while payload.first().is_some_and(|byte| *byte != 0) {
            let space = payload.iter().position(|byte| *byte == b' ').ok_or(Malformed)?;
            let length: usize =
                std::str::from_utf8(&payload[..space]).ok().and_then(|n| n.parse().ok()).ok_or(Malformed)?;
            let record = payload.get(space + 1..length).ok_or(Malformed)?;
            let record = record.strip_suffix(b"\n").ok_or(Malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(Malformed)?;
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            payload = &payload[length..];
        }
        Ok(Self(records))
    }

    /// Writes the payload of an `x` member; empty where there are no records.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        for (key, value) in &self.0 {
            let rest = key.len() + value.len() + 3;
            // The length counts its own digits: adding them may add one more.
            let mut length = rest + decimal_digits(rest);
            if decimal_digits(length) > decimal_digits(rest) {
                length = rest + decimal_digits(length);
            }
            payload.extend_from_slice(length.to_string().as_bytes());
            payload.push(b' ');
            payload.extend_from_slice(key);
            payload.push(b'=');
            payload.extend_from_slice(value);
            payload.push(b'\n');
        }
        payload
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that counts for a key: the last one.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.iter().rev().find(|(k, _)| k == key.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// Replaces a key's value, or adds it.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Vec<u8>>) {
        self.retain(|k| k != key.as_bytes());
        self.0.push((key.as_bytes().to_vec(), value.into()));
    }

    /// Drops the records whose key does not pass.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&[u8]) -> bool) {
        self.0.retain(|(key, _)| keep(key));
    }

    /// Puts extended attributes last and in order of name: the kernel lists them in any order.
    pub(super) fn sort_attributes(&mut self) {
        self.0.sort_by(|(a, _), (b, _)| attribute(a).cmp(&attribute(b)));
    }
}

fn attribute(key: &[u8]) -> Option<&[u8]> {
    key.starts_with(b"SCHILY.").then_some(key)
}

fn decimal_digits(n: usize) -> usize {
    n.to_string().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_values_with_newlines_equals_and_zeros() {
        let payload = b"31 SCHILY.xattr.user.t=a\nb=c\0d\n12 path=ab\xff\n";
        let records = Records::parse(payload).unwrap();
        assert_eq!(records.get("SCHILY.xattr.user.t"), Some(b"a\nb=c\0d".as_slice()));
        assert_eq!(records.get("path"), Some(b"ab\xff".as_slice()));
        assert_eq!(records.encode(), payload);
    }

    #[test]
    fn the_length_counts_its_own_digits() {
        for size in [1, 88, 89, 90, 91, 985, 986, 987, 988, 989, 9979, 9980, 9990] {
            let mut records = Records::default();
            records.set("path", vec![b'x'; size]);
            let payload = records.encode();
            assert_eq!(Records::parse(&payload).unwrap(), records, "value of {size} bytes");
        }
    }

    #[test]
    fn refuses_what_does_not_add_up() {
        for bad in ["x", "5 a", "99 a=b\n", "6 ab\n\n", "7 a=b\nx", "-3 a=b\n", "2 a=b\n"] {
            assert_eq!(Records::parse(bad.as_bytes()), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn sparse_maps_keep_their_order_and_attributes_get_one() {
        let mut records = Records::default();
        for (key, value) in
            [("SCHILY.xattr.b", "2"), ("GNU.sparse.z", "1"), ("SCHILY.xattr.a", "1"), ("mtime", "0")]
        {
            records.set(key, value);
        }
        records.sort_attributes();
        let keys: Vec<_> = records.0.iter().map(|(k, _)| String::from_utf8_lossy(k).into_owned()).collect();
        assert_eq!(keys, ["GNU.sparse.z", "mtime", "SCHILY.xattr.a", "SCHILY.xattr.b"]);
    }
}
