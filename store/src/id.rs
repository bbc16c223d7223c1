//! Random ids.

use crate::{Result, StoreError};
use rustix::rand::{GetRandomFlags, getrandom};

/// A fresh random id: 64 lower-case hex digits.
pub fn new_id() -> Result<String> {
    random_hex(32)
}

/// `bytes` random bytes as hex.
pub(crate) fn random_hex(bytes: usize) -> Result<String> {
    let mut text = String::with_capacity(bytes * 2);
    for byte in random_bytes(bytes)? {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    Ok(text)
}

/// `count` random bytes from the kernel.
pub(crate) fn random_bytes(count: usize) -> Result<Vec<u8>> {
    let mut buffer = vec![0_u8; count];
    let mut have = 0;
    while have < count {
        have += getrandom(&mut buffer[have..], GetRandomFlags::empty())
            .map_err(StoreError::io("read random bytes from", "getrandom"))?;
    }
    Ok(buffer)
}

/// Whether `text` may name a container, a volume or a network.
pub(crate) fn is_name(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric();
    (2..=255).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b"_.-".contains(&b))
}

/// Whether `text` is a container's or network's full id.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 64 && is_id_prefix(text)
}

/// Whether `text` may begin an id.
pub(crate) fn is_id_prefix(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
