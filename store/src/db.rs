//! The database: names, references and look-ups that need transactions.
//!
//! One connection a process. Write transactions are BEGIN IMMEDIATE and short. The write-ahead log is
//! switched on once, at creation; a closing process neither checkpoints nor unlinks it (that alone would cost
//! 3 ms a command), and both its files are given a megabyte at creation, so that reading works on a full disk.

use crate::layout::{FORMAT, Layout};
use crate::migrate::TABLES_OF_2;
use crate::{Result, StoreError};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a writer waits for another one; transactions take well under a millisecond each.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);
/// Pages in the log (4 KiB each) after which a commit moves them to the database: the megabyte set aside.
const CHECKPOINT_PAGES: u32 = 250;
/// What the log's files are grown to, in bytes.
const LOG_BYTES: u64 = 1 << 20;

/// The tables of format 1; [`crate::migrate`] has what came later.
const SCHEMA: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE image (
  id TEXT PRIMARY KEY, built INTEGER NOT NULL, size INTEGER NOT NULL, diff_ids TEXT NOT NULL, layers TEXT NOT NULL,
  manifest_type TEXT, manifest_digest TEXT, manifest_size INTEGER, added INTEGER NOT NULL, boot TEXT) WITHOUT ROWID;
CREATE TABLE reference (name TEXT PRIMARY KEY, image TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX reference_image ON reference(image);
CREATE TABLE repo_digest (name TEXT, image TEXT, PRIMARY KEY (name, image)) WITHOUT ROWID;
CREATE INDEX repo_digest_image ON repo_digest(image);
CREATE TABLE layer (name TEXT PRIMARY KEY, diff_id TEXT NOT NULL, size INTEGER NOT NULL, boot TEXT) WITHOUT ROWID;
CREATE TABLE layer_blob (
  blob TEXT PRIMARY KEY, diff_id TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX layer_blob_diff ON layer_blob(diff_id);
CREATE TABLE container (
  id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, image TEXT, created INTEGER NOT NULL, layers TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX container_image ON container(image);
CREATE TABLE network (
  name TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, config TEXT NOT NULL,
  last INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE address (
  network TEXT NOT NULL, address INTEGER NOT NULL, container TEXT NOT NULL, PRIMARY KEY (network, address)) WITHOUT ROWID;
CREATE INDEX address_container ON address(container);
CREATE TABLE volume (
  name TEXT PRIMARY KEY, created INTEGER NOT NULL, anonymous INTEGER NOT NULL, detail TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE volume_use (volume TEXT, container TEXT, PRIMARY KEY (volume, container)) WITHOUT ROWID;
CREATE INDEX volume_use_container ON volume_use(container);
CREATE TABLE cache (
  key TEXT PRIMARY KEY, value TEXT NOT NULL, diff_ids TEXT NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
";

/// The connection.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Database {
    /// Opens the existing database.
    pub(crate) fn open(layout: &Layout) -> Result<Database> {
        let path = layout.database();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = connect(&path, flags)?;
        Ok(Database { path, connection: Mutex::new(connection) })
    }

    /// Makes the database; the caller holds the creation lock.
    pub(crate) fn create(layout: &Layout) -> Result<()> {
        let path = layout.database();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = connect(&path, flags)?;
        let error = |source| StoreError::Database { operation: "make tables", path: path.clone(), source };
        connection.pragma_update(None, "journal_mode", "wal").map_err(error)?;
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(error)?;
        let made: u32 = tx.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0)).map_err(error)?;
        if made == 0 {
            tx.execute_batch(SCHEMA).map_err(error)?;
            tx.execute_batch(TABLES_OF_2).map_err(error)?;
            tx.pragma_update(None, "user_version", FORMAT).map_err(error)?;
        }
        tx.commit().map_err(error)?;
        for suffix in ["-wal", "-shm"] {
            let path = PathBuf::from(format!("{}{suffix}", path.display()));
            let file = std::fs::OpenOptions::new().write(true).open(&path).map_err(StoreError::io("open", &path))?;
            let mode = rustix::fs::FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(&file, mode, 0, LOG_BYTES) {
                // A filesystem without fallocate gets no reserve.
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(e) => return Err(StoreError::io("set space aside for", &path)(e)),
            }
        }
        Ok(())
    }

    /// Changes an older database in one transaction, which is on the disk when this returns. The caller holds the creation lock.
    pub(crate) fn migrate(layout: &Layout, steps: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>) -> Result<()> {
        let path = layout.database();
        let mut connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        let error = |source| StoreError::Database { operation: "migrate", path: path.clone(), source };
        connection.pragma_update(None, "synchronous", "full").map_err(error)?;
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(error)?;
        steps(&tx).map_err(error)?;
        tx.commit().map_err(error)
    }

    /// For `map_err`.
    pub(crate) fn error(&self, operation: &'static str) -> impl Fn(rusqlite::Error) -> StoreError + Copy + '_ {
        move |source| StoreError::Database { operation, path: self.path.clone(), source }
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `body` in one write transaction, committed if it succeeds. `body` is quick and calls nothing that
    /// opens another one.
    pub(crate) fn write<T>(
        &self,
        operation: &'static str,
        body: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut connection = self.lock();
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(self.error(operation))?;
        let value = body(&tx)?;
        tx.commit().map_err(self.error(operation))?;
        Ok(value)
    }

    /// Runs `body` on one consistent view.
    pub(crate) fn read<T>(
        &self,
        operation: &'static str,
        body: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut connection = self.lock();
        let tx = connection.transaction().map_err(self.error(operation))?;
        body(&tx)
    }
}

fn connect(path: &std::path::Path, flags: OpenFlags) -> Result<Connection> {
    let error = |source| StoreError::Database { operation: "open", path: path.to_owned(), source };
    let connection = Connection::open_with_flags(path, flags).map_err(error)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(error)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(error)?;
    connection.pragma_update(None, "synchronous", "normal").map_err(error)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(error)?;
    Ok(connection)
}

/// Rows as a list. A row of the wrong shape is an error, never skipped.
pub(crate) fn rows<T>(
    tx: &Transaction<'_>,
    sql: &str,
    params: impl rusqlite::Params,
    map: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    tx.prepare(sql)?.query_map(params, map)?.collect()
}

/// The row, if there is one.
pub(crate) fn row<T>(
    tx: &Transaction<'_>,
    sql: &str,
    params: impl rusqlite::Params,
    map: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    use rusqlite::OptionalExtension as _;
    tx.prepare(sql)?.query_row(params, map).optional()
}

/// A change by one statement; tells how many rows it met.
pub(crate) fn change(tx: &Transaction<'_>, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<usize> {
    tx.prepare(sql)?.execute(params)
}
