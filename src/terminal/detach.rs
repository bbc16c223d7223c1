//! The keys that leave a container running: ctrl-p ctrl-q, or `--detach-keys`.

/// A sequence of keys, and how much of it was typed so far.
#[derive(Debug)]
pub(crate) struct DetachKeys {
    sequence: Vec<u8>,
    typed: usize,
}

impl Default for DetachKeys {
    fn default() -> Self {
        DetachKeys { sequence: vec![0x10, 0x11], typed: 0 }
    }
}

impl DetachKeys {
    /// Parses `ctrl-p,ctrl-q`, `ctrl-@`, `a,b,c`. Nothing at all means that no keys detach.
    pub(crate) fn parse(text: Option<&str>) -> Result<DetachKeys, String> {
        let Some(text) = text else { return Ok(DetachKeys::default()) };
        if text.is_empty() {
            return Ok(DetachKeys { sequence: Vec::new(), typed: 0 });
        }
        let wrong = |key: &str| format!("invalid detach keys ({text}): unknown character: '{key}'");
        let key = |key: &str| match (key.strip_prefix("ctrl-"), key.as_bytes()) {
            (Some(letter), _) => match letter.as_bytes() {
                [c @ b'a'..=b'z'] => Ok(c - b'a' + 1),
                [c @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => Ok(c - b'@'),
                _ => Err(wrong(key)),
            },
            (None, [c]) if c.is_ascii() => Ok(*c),
            _ => Err(wrong(key)),
        };
        Ok(DetachKeys { sequence: text.split(',').map(key).collect::<Result<_, _>>()?, typed: 0 })
    }

    /// What of `bytes` is to be sent on (keys that may be the sequence's beginning are held back), and whether
    /// the sequence is complete.
    pub(crate) fn filter(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.sequence.get(self.typed) == Some(byte) {
                self.typed += 1;
                if self.typed == self.sequence.len() {
                    self.typed = 0;
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.sequence[..self.typed]);
            self.typed = 0;
            // The key that broke the sequence may begin it anew.
            if self.sequence.first() == Some(byte) { self.typed = 1 } else { passed.push(*byte) }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: Option<&str>, typed: &[&[u8]], expected: &[u8], detached: bool) {
        let mut keys = DetachKeys::parse(keys).unwrap_or_default();
        let (mut passed, mut left) = (Vec::new(), false);
        for bytes in typed {
            let (more, now) = keys.filter(bytes);
            passed.extend(more);
            left |= now;
        }
        assert_eq!((passed.as_slice(), left), (expected, detached), "{typed:?}");
    }

    #[test]
    fn the_sequence_is_found_across_reads() {
        check(None, &[b"ab"], b"ab", false);
        check(None, &[b"a\x10\x11b"], b"a", true);
        check(None, &[b"\x10", b"\x11"], b"", true);
        check(None, &[b"\x10", b"x"], b"\x10x", false);
        check(None, &[b"\x10\x10\x11"], b"\x10", true);
        check(Some("ctrl-],q"), &[b"\x1d", b"q"], b"", true);
        check(Some(""), &[b"\x10\x11"], b"\x10\x11", false);
    }

    #[test]
    fn keys_have_names() {
        for bad in ["ctrl-P", "ctrl-", "ab", "a,,b", "ctrl-1", "ü"] {
            assert!(DetachKeys::parse(Some(bad)).is_err(), "{bad}");
        }
        assert!(DetachKeys::parse(Some("ctrl-@,a,ctrl-_")).is_ok());
    }
}
