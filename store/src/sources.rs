//! Compressed blobs that are not kept: where they can be had again.
//!
//! A pulled layer's tar cannot be made again to the byte, so what was dropped (`keep-blobs=false`) is fetched from a repository
//! that is known to have it, at the moment somebody reads it. How, the caller of the store says: it speaks to no registry.

use crate::db::{change, row, rows};
use crate::lease::{self, lock_name};
use crate::lock::Wait;
use crate::{Collected, Result, Store, StoreError};
use oci::{Descriptor, Digest, Reference};
use rusqlite::Transaction;
use std::fmt::Debug;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};

/// Reads blobs from where they came from.
pub trait Refetch: Debug + Send + Sync {
    /// The blob's bytes from `offset` on, out of a repository (`registry/path`). Whoever reads them checks the digest.
    fn open(&self, repository: &str, blob: &Descriptor, offset: u64) -> io::Result<Box<dyn Read>>;
}

impl Store {
    /// A blob's bytes from `offset` on: from here, or, where it is not kept, from where it came from. Whoever reads them
    /// checks the digest.
    pub fn open_blob(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read>> {
        match self.blob(&blob.digest) {
            Ok(mut file) => {
                let path = self.layout.blob(&blob.digest);
                file.seek(SeekFrom::Start(offset)).map_err(StoreError::io("read", path))?;
                Ok(Box::new(file))
            }
            Err(StoreError::NoSuchBlob(_)) => self.refetch(blob, offset),
            Err(error) => Err(error),
        }
    }

    fn refetch(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read>> {
        let mut failed = None;
        for repository in self.blob_sources(&blob.digest)? {
            let Some(refetch) = &self.refetch else { break };
            match refetch.open(&repository, blob, offset) {
                Ok(reader) => return Ok(reader),
                Err(error) => failed = failed.or(Some(format!("{repository}: {error}"))),
            }
        }
        match failed {
            Some(why) => Err(StoreError::NotKept { digest: blob.digest.clone(), why }),
            None => Err(StoreError::NoSuchBlob(blob.digest.clone())),
        }
    }

    /// The repositories (`registry/path`) that a layer's blob can be had from, the most certain first.
    pub fn blob_sources(&self, digest: &Digest) -> Result<Vec<String>> {
        let sql = "SELECT repository FROM blob_source WHERE blob = ? ORDER BY certain DESC, repository";
        self.db.read("look up where a blob is from", |tx| {
            rows(tx, sql, [digest.as_str()], |r| r.get(0)).map_err(self.db.error("look up where a blob is from"))
        })
    }

    /// Notes that a repository has these blobs: they came from there.
    pub fn note_sources<'b>(
        &self,
        repository: &Reference,
        blobs: impl IntoIterator<Item = &'b Descriptor>,
    ) -> Result<()> {
        let repository = repository.repository();
        self.db.write("note where blobs are from", |tx| {
            for blob in blobs {
                self.note_source(tx, &blob.digest, &repository)?;
            }
            Ok(())
        })
    }

    /// Of a blob that no layer here is known by nothing is noted.
    pub(crate) fn note_source(&self, tx: &Transaction<'_>, blob: &Digest, repository: &str) -> Result<()> {
        let sql = "INSERT INTO blob_source SELECT blob, ?2, 1 FROM layer_blob WHERE blob = ?1
                   ON CONFLICT (blob, repository) DO UPDATE SET certain = 1";
        change(tx, sql, (blob.as_str(), repository)).map_err(self.db.error("note where a blob is from"))?;
        Ok(())
    }

    /// A layer's blob that is not here, but can be had again.
    pub(crate) fn dropped_blob(&self, diff_id: &Digest) -> Result<Option<Descriptor>> {
        let sql = "SELECT blob, size, media_type FROM layer_blob
                   WHERE diff_id = ? AND blob IN (SELECT blob FROM blob_source) ORDER BY blob LIMIT 1";
        let found: Option<(String, i64, String)> = self.db.read("look up a layer's blob", |tx| {
            row(tx, sql, [diff_id.as_str()], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
                .map_err(self.db.error("look up a layer's blob"))
        })?;
        Ok(found.and_then(|(blob, size, media_type)| {
            Some(Descriptor::new(&media_type, blob.parse().ok()?, u64::try_from(size).unwrap_or(0)))
        }))
    }

    /// Whether the blob is here, or can be had again.
    pub(crate) fn can_have_blob(&self, digest: &Digest) -> bool {
        self.has_blob(digest) || self.blob_sources(digest).is_ok_and(|sources| !sources.is_empty())
    }

    /// Whether the layer came with a blob, kept or not.
    pub(crate) fn has_known_blob(&self, diff_id: &Digest) -> Result<bool> {
        self.db.read("look up a layer's blob", |tx| {
            let found = row(tx, "SELECT 1 FROM layer_blob WHERE diff_id = ? LIMIT 1", [diff_id.as_str()], |_| Ok(()));
            Ok(found.map_err(self.db.error("look up a layer's blob"))?.is_some())
        })
    }

    /// Where blobs are not to be kept: drops those that certainly can be had again and that nobody is using.
    pub(crate) fn drop_blobs(&self, collected: &mut Collected) -> Result<()> {
        if !self.drops_blobs {
            return Ok(());
        }
        let sql = "SELECT DISTINCT blob FROM blob_source WHERE certain AND blob IN (SELECT blob FROM layer_blob)";
        let blobs: Vec<String> = self.db.read("list blobs to drop", |tx| {
            rows(tx, sql, (), |r| r.get(0)).map_err(self.db.error("list blobs to drop"))
        })?;
        for digest in blobs.iter().filter_map(|blob| blob.parse::<Digest>().ok()) {
            let path = self.layout.blob(&digest);
            let Ok(meta) = fs::metadata(&path) else { continue };
            let Some(_lock) = lock_name(&self.layout, digest.as_str(), Wait::Try)? else { continue };
            if !lease::all(&self.layout)?.contains(digest.as_str()) && fs::remove_file(&path).is_ok() {
                collected.bytes += meta.len();
                collected.blobs.push(digest);
            }
        }
        Ok(())
    }
}
