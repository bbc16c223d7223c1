//! From the formats of older programs to this one's.
//!
//! A store's FORMAT file says which programs may use it. An older format is brought up under the creation lock, so that other
//! commands wait; all that is done to the database is one transaction, and its `user_version` tells that it was done.
//! Only then FORMAT is written: whoever is killed anywhere in between leaves it to the next command to go on. A process of an
//! older program that is under way meanwhile must not be broken by a step, so steps add and never take away.

use crate::db::{Database, change, rows};
use crate::layout::{FORMAT, Layout};
use crate::{Result, StoreError};
use oci::{Digest, Document, MAX_MANIFEST_BYTES, Reference};
use rusqlite::Transaction;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

/// More than FORMAT ever says, in bytes.
const MAX_FORMAT_BYTES: u64 = 256;

/// What format 2 has beside format 1: where blobs that are not kept can be had again (certain: they came from there), and in which additional stores layers were seen.
pub(crate) const TABLES_OF_2: &str = "
CREATE TABLE blob_source (
  blob TEXT, repository TEXT, certain INTEGER NOT NULL, PRIMARY KEY (blob, repository)) WITHOUT ROWID;
CREATE TABLE shared_layer (name TEXT PRIMARY KEY, store TEXT NOT NULL) WITHOUT ROWID;
";

type Step = fn(&Layout, &Transaction<'_>) -> rusqlite::Result<()>;

/// The step from each format to the next one, beginning with 1.
const STEPS: [Step; 1] = [to_2];

/// The store's format, if there is a store; one that this program cannot use is an error.
pub(crate) fn format_of(layout: &Layout) -> Result<Option<u32>> {
    let path = layout.format();
    let mut text = String::new();
    match File::open(&path).and_then(|file| file.take(MAX_FORMAT_BYTES).read_to_string(&mut text)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(StoreError::io("read", &path))?,
    };
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().trim();
    match first.parse::<u32>() {
        Ok(format) if (1..=FORMAT).contains(&format) => Ok(Some(format)),
        Ok(format) if format > FORMAT => {
            let needs = lines.next().and_then(|line| line.strip_prefix("needs ")).unwrap_or("a newer ctr");
            let needs = needs.chars().filter(|c| !c.is_control()).collect();
            Err(StoreError::NewerFormat { path: layout.root.clone(), found: format, known: FORMAT, needs })
        }
        _ => Err(StoreError::Format { path: layout.root.clone(), found: first.to_owned() }),
    }
}

/// Says that the store is of this program's format. It reaches the disk before anything is done that relies on it.
pub(crate) fn write_format(layout: &Layout) -> Result<()> {
    let draft = layout.ingest(&format!("{}.draft", crate::id::random_hex(16)?));
    let text = format!("{FORMAT}\nneeds ctr {} or newer\n", env!("CARGO_PKG_VERSION"));
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, layout.format())
    };
    write().map_err(StoreError::io("write", layout.format()))
}

/// Brings an older store up to this format. The caller holds the creation lock.
pub(crate) fn migrate(layout: &Layout) -> Result<()> {
    Database::migrate(layout, |tx| {
        let version: u32 = tx.query_row("PRAGMA user_version", (), |row| row.get(0))?;
        // Format 1 did not set it.
        let done = usize::try_from(version.max(1) - 1).unwrap_or(usize::MAX);
        for step in STEPS.iter().skip(done) {
            step(layout, tx)?;
        }
        tx.pragma_update(None, "user_version", FORMAT.max(version))
    })?;
    write_format(layout)
}

/// Layers' blobs can probably be had again from the repositories in their images' names: format 1 does not tell an image
/// that was pulled or pushed from one that an archive named so.
fn to_2(layout: &Layout, tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute_batch(TABLES_OF_2)?;
    let sql = "SELECT manifest_digest, name FROM image JOIN repo_digest ON repo_digest.image = image.id
               WHERE manifest_digest IS NOT NULL";
    let known: Vec<(String, String)> = rows(tx, sql, (), |row| Ok((row.get(0)?, row.get(1)?)))?;
    for (manifest, name) in known {
        let Ok(repository) = name.parse::<Reference>().map(|name| name.repository()) else { continue };
        for blob in layer_blobs(layout, &manifest) {
            change(tx, "INSERT OR IGNORE INTO blob_source VALUES (?,?,0)", (blob.as_str(), &repository))?;
        }
    }
    Ok(())
}

/// The blobs that a manifest names. One that is lost or damaged names none: its image is healed by pulling it again.
fn layer_blobs(layout: &Layout, manifest: &str) -> Vec<Digest> {
    let read = || -> Option<Document> {
        let digest: Digest = manifest.parse().ok()?;
        let mut bytes = Vec::new();
        let file = File::open(layout.blob(&digest)).ok()?;
        file.take(MAX_MANIFEST_BYTES).read_to_end(&mut bytes).ok()?;
        if !digest.matches(&bytes) {
            return None;
        }
        Document::parse(&bytes, None).ok()
    };
    match read() {
        Some(Document::Manifest(manifest)) => manifest.layers.into_iter().map(|layer| layer.digest).collect(),
        _ => Vec::new(),
    }
}
