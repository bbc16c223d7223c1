//! Content digests: `sha256:<64 hex>` and `sha512:<128 hex>`.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};
use std::fmt;
use std::str::FromStr;

/// The longest text a valid [`Digest`] has, in bytes.
pub const MAX_DIGEST_LEN: usize = "sha512:".len() + 128;

/// The name of some content: an algorithm and the lower-case hex of its hash.
///
/// A value of this type is always well-formed, so its parts may be used in a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    text: String,
}

/// Why a text is not a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DigestError {
    /// No `algorithm:` in front.
    #[error("invalid digest {0:?}: expected ALGORITHM:HEX")]
    Format(String),
    /// An algorithm other than sha256 and sha512.
    #[error("unsupported digest algorithm {0:?}: only sha256 and sha512 are known")]
    Algorithm(String),
    /// Not the algorithm's number of lower-case hex digits.
    #[error("invalid digest {0:?}: expected {1} lower-case hex digits")]
    Hex(String, usize),
}

impl Digest {
    /// The sha256 digest of `bytes`.
    pub fn sha256(bytes: impl AsRef<[u8]>) -> Digest {
        let mut hasher = Hasher::sha256();
        hasher.update(bytes.as_ref());
        hasher.finish()
    }

    /// `sha256` or `sha512`.
    pub fn algorithm(&self) -> &str {
        self.text.split_once(':').map_or("", |(algorithm, _)| algorithm)
    }

    /// The lower-case hex digits alone.
    pub fn hex(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// The first 12 hex digits: how tables show an id.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// The whole text, `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// A hasher of this digest's algorithm, to verify content against it while it streams by.
    pub fn hasher(&self) -> Hasher {
        match self.algorithm() {
            "sha512" => Hasher::sha512(),
            _ => Hasher::sha256(),
        }
    }

    /// Whether this is the digest of `bytes`.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish() == *self
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || text.chars().take(MAX_DIGEST_LEN).collect::<String>();
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| DigestError::Format(shown()))?;
        let digits = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return Err(DigestError::Algorithm(shown())),
        };
        let lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if hex.len() != digits || !hex.bytes().all(lower_hex) {
            return Err(DigestError::Hex(shown(), digits));
        }
        Ok(Digest { text: text.to_owned() })
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A running hash; feed it with [`Hasher::update`] or as an [`std::io::Write`] that never fails.
#[derive(Clone)]
#[allow(clippy::large_enum_variant)] // A hasher lives on the stack of the stream it watches; a box would buy nothing.
pub enum Hasher {
    /// sha256
    Sha256(Sha256),
    /// sha512
    Sha512(Sha512),
}

impl Hasher {
    /// A fresh sha256.
    pub fn sha256() -> Hasher {
        Hasher::Sha256(Sha256::new())
    }

    /// A fresh sha512.
    pub fn sha512() -> Hasher {
        Hasher::Sha512(Sha512::new())
    }

    /// Takes in more content.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(h) => h.update(bytes),
            Hasher::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of all content taken in.
    pub fn finish(self) -> Digest {
        let (algorithm, bytes) = match self {
            Hasher::Sha256(h) => ("sha256", h.finalize().to_vec()),
            Hasher::Sha512(h) => ("sha512", h.finalize().to_vec()),
        };
        let mut text = String::with_capacity(MAX_DIGEST_LEN);
        text.push_str(algorithm);
        text.push(':');
        for byte in bytes {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        Digest { text }
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_empty_content_has_its_known_digest() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
        assert!(EMPTY.parse::<Digest>().is_ok_and(|d| d.matches(b"") && !d.matches(b"x")));
    }

    #[test]
    fn nothing_that_could_leave_a_folder_is_a_digest() {
        for bad in [
            "",
            "sha256",
            "sha256:",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "sha256:../../etc/passwd",
            &EMPTY.to_uppercase(),
            &format!("{EMPTY}0"),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
