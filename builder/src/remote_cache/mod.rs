//! `--cache-to` and `--cache-from`: what steps made, kept where another machine finds it.
//!
//! A cache is a manifest whose layers are those of the steps, and whose config is a list: key → result. It lies in a
//! folder of OCI's layout or under a name in a registry; inline, the list is an annotation of the image itself. What a layer is
//! is enough to find what the steps after it made; it comes only when a file of it is asked for.

mod export;
mod import;

pub use export::export_cache;
pub(crate) use import::Imports;

use crate::cache::Record;
use oci::{Digest, Reference};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The config's type.
const MEDIA_TYPE: &str = "application/vnd.ctr.buildcache.config.v1+json";
/// The annotation of an image that holds its own cache.
pub(crate) const INLINE: &str = "dev.ctr.buildcache.v1";
/// The name a folder keeps its cache by.
const LOCAL_NAME: &str = "buildcache";
/// More entries than any build has steps.
const MAX_ENTRIES: usize = 100_000;

/// The list.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Table {
    entries: Vec<CacheRecord>,
    /// The diff ids of the manifest's layers, in its order.
    #[serde(default)]
    layers: Vec<Digest>,
}

/// What one step made, by its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRecord {
    key: String,
    #[serde(flatten)]
    record: Record,
    /// The step is one of the image's own, not of a stage it only copies from.
    #[serde(skip)]
    pub(crate) is_of_image: bool,
}

impl CacheRecord {
    pub(crate) fn new(key: String, record: Record, is_of_image: bool) -> CacheRecord {
        CacheRecord { key, record, is_of_image }
    }
}

/// `--cache-to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheTarget {
    /// A folder.
    Local {
        /// Made where missing.
        folder: PathBuf,
        /// `mode=max`: the layers of stages that are only copied from, too; else what they are.
        all: bool,
    },
    /// A name in a registry.
    Registry {
        /// The name.
        reference: Reference,
        /// `mode=max`.
        all: bool,
    },
    /// The image's own manifest.
    Inline,
}

/// `--cache-from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheOrigin {
    /// A folder.
    Local(PathBuf),
    /// A name in a registry: of a cache, or of an image with an inline one.
    Registry(Reference),
}

/// Why a `--cache-to` or `--cache-from` text is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid --{flag} {text:?}: {reason}")]
pub struct CacheParseError {
    flag: &'static str,
    text: String,
    reason: String,
}

/// The fields of `type=…,key=value`, or a lone reference.
struct Fields {
    kind: String,
    place: Option<String>,
    all: bool,
}

fn fields(flag: &'static str, text: &str) -> Result<Fields, CacheParseError> {
    let error = |reason: String| CacheParseError { flag, text: text.to_owned(), reason };
    if !text.contains('=') {
        let (kind, place) = if text == "inline" { ("inline", None) } else { ("registry", Some(text.to_owned())) };
        return Ok(Fields { kind: kind.to_owned(), place, all: false });
    }
    let mut fields = Fields { kind: String::new(), place: None, all: false };
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| error(format!("{field:?} is not key=value")))?;
        match key {
            "type" => fields.kind = value.to_owned(),
            "src" | "dest" | "ref" => fields.place = Some(value.to_owned()),
            "mode" if matches!(value, "min" | "max") => fields.all = value == "max",
            "mode" => return Err(error(format!("unknown mode {value:?}: expected min or max"))),
            // How layers are packed is settled here.
            "compression" | "compression-level" | "force-compression" | "oci-mediatypes" | "image-manifest"
            | "ignore-error" | "tag" => {}
            _ => return Err(error(format!("unknown key {key:?}: expected type, src, dest, ref or mode"))),
        }
    }
    Ok(fields)
}

fn reference(flag: &'static str, text: &str, place: Option<String>) -> Result<Reference, CacheParseError> {
    let error = |reason: String| CacheParseError { flag, text: text.to_owned(), reason };
    let place = place.ok_or_else(|| error("no ref".to_owned()))?;
    place.parse().map_err(|e: oci::ReferenceError| error(e.to_string()))
}

fn folder(flag: &'static str, text: &str, key: &str, place: Option<String>) -> Result<PathBuf, CacheParseError> {
    let reason = format!("no {key}");
    place.map(PathBuf::from).ok_or_else(|| CacheParseError { flag, text: text.to_owned(), reason })
}

fn unknown(flag: &'static str, text: &str, kind: &str) -> CacheParseError {
    let reason = format!("unknown type {kind:?}: expected local, registry or inline");
    CacheParseError { flag, text: text.to_owned(), reason }
}

impl CacheTarget {
    /// Parses `type=local,dest=FOLDER[,mode=max]`, `type=registry,ref=NAME[,mode=max]`, `type=inline`, or a name alone.
    pub fn parse(text: &str) -> Result<CacheTarget, CacheParseError> {
        let flag = "cache-to";
        let Fields { kind, place, all } = fields(flag, text)?;
        match kind.as_str() {
            "local" => Ok(CacheTarget::Local { folder: folder(flag, text, "dest", place)?, all }),
            "registry" => Ok(CacheTarget::Registry { reference: reference(flag, text, place)?, all }),
            "inline" => Ok(CacheTarget::Inline),
            other => Err(unknown(flag, text, other)),
        }
    }
}

impl CacheOrigin {
    /// Parses `type=local,src=FOLDER`, `type=registry,ref=NAME`, or a name alone.
    pub fn parse(text: &str) -> Result<CacheOrigin, CacheParseError> {
        let flag = "cache-from";
        let Fields { kind, place, .. } = fields(flag, text)?;
        match kind.as_str() {
            "local" => Ok(CacheOrigin::Local(folder(flag, text, "src", place)?)),
            "registry" | "inline" => Ok(CacheOrigin::Registry(reference(flag, text, place)?)),
            other => Err(unknown(flag, text, other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_caches_are_parsed() {
        let local = |folder: &str, all| Ok(CacheTarget::Local { folder: folder.into(), all });
        assert_eq!(CacheTarget::parse("type=local,dest=/c"), local("/c", false));
        assert_eq!(CacheTarget::parse("type=local,mode=max,dest=c"), local("c", true));
        assert_eq!(CacheTarget::parse("type=inline"), Ok(CacheTarget::Inline));
        assert_eq!(CacheOrigin::parse("type=local,src=/c"), Ok(CacheOrigin::Local("/c".into())));
        assert!(matches!(CacheOrigin::parse("h:5000/app:cache"), Ok(CacheOrigin::Registry(_))));
        assert!(matches!(CacheTarget::parse("type=registry,ref=h/app"), Ok(CacheTarget::Registry { all: false, .. })));
        for bad in ["type=gha", "type=local", "type=registry", "type=local,dest=x,mode=y", "type=local,x", "a=b"] {
            assert!(CacheTarget::parse(bad).is_err(), "{bad}");
        }
    }
}
