//! The builder's cache: what a step with given inputs made.

use crate::containers::{nanoseconds, timestamp};
use crate::db::{change, row, rows};
use crate::layout::Layout;
use crate::{CacheEntry, Result, Store};
use jiff::Timestamp;
use oci::Digest;

/// An entry's last use is noted to the minute.
const USE_NOTED_AFTER_NS: i64 = 60_000_000_000;

impl Store {
    /// What was put under `key`, if its layers are still there.
    pub fn cache_get(&self, key: &str) -> Result<Option<String>> {
        let error = self.db.error("look into the build cache");
        let found: Option<(String, String, i64)> = self.db.read("look into the build cache", |tx| {
            let sql = "SELECT value, diff_ids, used FROM cache WHERE key = ?";
            row(tx, sql, [key], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).map_err(error)
        })?;
        let Some((value, diff_ids, used)) = found else { return Ok(None) };
        let diff_ids: Vec<Digest> = serde_json::from_str(&diff_ids).unwrap_or_default();
        let is_there = |id: &Digest| {
            // One that a power cut may have damaged is made whole first.
            self.has_layer(id) || (self.layer_folders(&[Layout::layer_name(id)]).is_ok() && self.has_layer(id))
        };
        if !diff_ids.iter().all(is_there) {
            return Ok(None);
        }
        let now = nanoseconds(Timestamp::now());
        // A build of forty steps would otherwise write forty times to say nothing new.
        if now.saturating_sub(used) > USE_NOTED_AFTER_NS {
            self.db.write("note a use of the build cache", |tx| {
                change(tx, "UPDATE cache SET used = ? WHERE key = ?", (now, key)).map_err(error)
            })?;
        }
        Ok(Some(value))
    }

    /// Puts `value` under `key`; the layers stay until the entry is removed.
    pub fn cache_put(&self, key: &str, value: &str, diff_ids: &[Digest]) -> Result<()> {
        let diff_ids = serde_json::json!(diff_ids).to_string();
        self.db.write("put into the build cache", |tx| {
            let sql = "INSERT OR REPLACE INTO cache VALUES (?,?,?,?)";
            change(tx, sql, (key, value, &diff_ids, nanoseconds(Timestamp::now())))
                .map_err(self.db.error("put into the build cache"))?;
            Ok(())
        })
    }

    /// All entries, least recently used first.
    pub fn cache_entries(&self) -> Result<Vec<CacheEntry>> {
        self.db.read("list the build cache", |tx| {
            rows(tx, "SELECT key, value, diff_ids, used FROM cache ORDER BY used", (), |r| {
                Ok(CacheEntry {
                    key: r.get(0)?,
                    value: r.get(1)?,
                    diff_ids: serde_json::from_str(&r.get::<_, String>(2)?).unwrap_or_default(),
                    used: timestamp(r.get(3)?),
                })
            })
            .map_err(self.db.error("list the build cache"))
        })
    }

    /// Removes entries; their layers go with the next collection.
    pub fn cache_remove(&self, keys: &[&str]) -> Result<()> {
        self.db.write("remove from the build cache", |tx| {
            for key in keys {
                change(tx, "DELETE FROM cache WHERE key = ?", [key])
                    .map_err(self.db.error("remove from the build cache"))?;
            }
            Ok(())
        })
    }
}
