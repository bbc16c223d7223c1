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
#[error("invalid platform {0:?}: expected OS/ARCH or OS/ARCH/VARIANT, as in linux/amd64")]
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
        let parts: Vec<&str> = text.split('/').collect();
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(fine) {
            return Err(error());
        }
        let architecture = match parts[1] {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Ok(Platform {
            os: parts[0].to_owned(),
            architecture: architecture.to_owned(),
            variant: parts.get(2).map(|v| (*v).to_owned()),
            ..Platform::default()
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}
