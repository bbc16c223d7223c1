//! `os/arch[/variant]`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What an image runs on, in Go's names (`linux`, `amd64`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture: `amd64`, `arm64`, `arm`, …
    pub architecture: String,
    /// Operating system: `linux`.
    pub os: String,
    /// CPU variant: `v8`, `v7`; none where the architecture has only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Windows' build number; kept, never looked at.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Windows' features; kept, never looked at.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

/// Why a text is no platform.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid platform {0:?}: expected OS/ARCH or OS/ARCH/VARIANT, as in linux/amd64, or one of OS and ARCH")]
pub struct PlatformError(String);

impl Platform {
    /// The platform this binary was compiled for.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        Platform { architecture: architecture.to_owned(), os: std::env::consts::OS.to_owned(), ..Platform::default() }
    }

    /// How well an image for `other` serves who wants `self`: `None` not at all, else lower is better.
    /// An arm machine runs lower variants; amd64 levels v1–v4 run everything below them.
    pub fn rank(&self, other: &Platform) -> Option<u32> {
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        let (want, have) = (self.level()?, other.level()?);
        want.checked_sub(have)
    }

    /// The variant as a number, with each architecture's default filled in; `None` for a strange one.
    fn level(&self) -> Option<u32> {
        let default = match self.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            "amd64" => 1,
            _ => 0,
        };
        match self.variant.as_deref() {
            None | Some("") => Some(default),
            Some(v) => v.strip_prefix('v').and_then(|n| n.parse().ok()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fine = |part: &&str| {
            !part.is_empty()
                && part.len() <= 64
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        let error = || PlatformError(text.chars().take(200).collect());
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        if !parts.iter().all(fine) {
            return Err(error());
        }
        let host = Platform::host();
        let (os, architecture, variant) = match parts.as_slice() {
            [os] if SYSTEMS.contains(os) => (*os, host.architecture.as_str(), None),
            [architecture] if ARCHITECTURES.contains(architecture) => (host.os.as_str(), *architecture, None),
            [os, architecture] => (*os, *architecture, None),
            [os, architecture, variant] => (*os, *architecture, Some(*variant)),
            _ => return Err(error()),
        };
        let (architecture, variant) = usual(architecture, variant);
        let variant = variant.map(str::to_owned);
        Ok(Platform { os: os.to_owned(), architecture: architecture.to_owned(), variant, ..Platform::default() })
    }
}

/// What may stand alone: `linux` is this machine's processor's, `arm64` its system's.
const SYSTEMS: [&str; 4] = ["linux", "windows", "darwin", "freebsd"];
const ARCHITECTURES: [&str; 18] = [
    "amd64", "x86_64", "x86-64", "arm64", "aarch64", "arm", "armhf", "armel", "386", "i386", "ppc64le", "ppc64",
    "s390x", "riscv64", "mips64le", "mips64", "loong64", "wasm",
];

/// An architecture and variant as everybody writes them: arm has one, what the others have anyhow is not said.
fn usual<'a>(architecture: &'a str, variant: Option<&'a str>) -> (&'a str, Option<&'a str>) {
    match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", Some("v1")) => ("amd64", None),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("i386", _) => ("386", None),
        ("aarch64" | "arm64", Some("8" | "v8")) => ("arm64", None),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", None | Some("7")) => ("arm", Some("v7")),
        ("armel", _) | ("arm", Some("6")) => ("arm", Some("v6")),
        ("arm", Some("5")) => ("arm", Some("v5")),
        ("arm", Some("8")) => ("arm", Some("v8")),
        other => other,
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_as_they_are_written() {
        let read = |text: &str| text.parse::<Platform>().map(|platform| platform.to_string()).ok();
        let host = Platform::host();
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("LINUX/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("windows/amd64", "windows/amd64"),
            ("other/strange", "other/strange"),
        ] {
            assert_eq!(read(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(read("arm64"), Some(format!("{}/arm64", host.os)));
        assert_eq!(read("linux"), Some(format!("linux/{}", host.architecture)));
        for bad in ["", "strange", "linux/", "/amd64", "a/b/c/d", "linux/a b"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
