//! Containers' rows, folders and locks.

use crate::db::{change, row, rows};
use crate::id::{is_id, is_id_prefix, is_name};
use crate::layout::{make_dir, write_atomically};
use crate::lock::{Lock, Wait};
use crate::{ContainerRow, NewContainer, Result, Store, StoreError, names};
use jiff::Timestamp;
use oci::Digest;
use rusqlite::Transaction;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// How many made-up names are tried before a number is added.
const NAME_TRIES: usize = 20;
const COLUMNS: &str = "id, name, image, created, layers";

impl Store {
    /// Makes the row, the folder and its config.json. A conflicting row whose folder is gone is replaced.
    pub fn create_container(&self, new: &NewContainer<'_>) -> Result<ContainerRow> {
        if !is_id(new.id) {
            return Err(StoreError::InvalidName { kind: "container", name: new.id.to_owned() });
        }
        let name = new.name.map(|n| n.strip_prefix('/').unwrap_or(n));
        if let Some(name) = name.filter(|n| !is_name(n)) {
            return Err(StoreError::InvalidName { kind: "container", name: name.to_owned() });
        }
        let shared = match new.image {
            // Asked outside of the transaction: it reads files.
            Some(id) if !self.shared.is_empty() => {
                self.shared_image(id.as_str()).ok().flatten().map(|image| image.row.layers)
            }
            _ => None,
        };
        let scratch = self.new_scratch()?;
        let dir = scratch.path().join("container");
        make_dir(&dir, 0o700)?;
        fs::write(dir.join("config.json"), new.config_json)
            .map_err(StoreError::io("write", dir.join("config.json")))?;
        let mut made = ContainerRow {
            id: new.id.to_owned(),
            name: String::new(),
            image: new.image.cloned(),
            created: Timestamp::now(),
            layers: Vec::new(),
            volumes: new.volumes.to_vec(),
        };
        self.db.write("create a container", |tx| {
            self.forget_vanished(tx)?;
            made.layers = self.layers_for(tx, new.image, shared)?;
            self.note_shared(tx, &made.layers)?;
            made.name = match name {
                Some(name) => self.claim_name(tx, name)?,
                None => self.make_up_name(tx)?,
            };
            self.insert_container(tx, &made)?;
            write_row_file(&dir, &made)?;
            let target = self.layout.container(new.id);
            fs::rename(&dir, &target).map_err(StoreError::io("create", &target))
        })?;
        Ok(made)
    }

    pub(crate) fn insert_container(&self, tx: &Transaction<'_>, new: &ContainerRow) -> Result<()> {
        let error = self.db.error("create a container");
        let layers = serde_json::json!(new.layers).to_string();
        let image = new.image.as_ref().map(Digest::as_str);
        let created = nanoseconds(new.created);
        change(
            tx,
            "INSERT INTO container (id, name, image, created, layers) VALUES (?,?,?,?,?)",
            (&new.id, &new.name, image, created, layers),
        )
        .map_err(error)?;
        for volume in &new.volumes {
            change(tx, "INSERT OR IGNORE INTO volume_use VALUES (?,?)", (volume, &new.id)).map_err(error)?;
        }
        Ok(())
    }

    /// The layers of an image here or, where there is none, of the additional store's (`shared`).
    fn layers_for(
        &self,
        tx: &Transaction<'_>,
        image: Option<&Digest>,
        shared: Option<Vec<String>>,
    ) -> Result<Vec<String>> {
        let Some(id) = image else { return Ok(Vec::new()) };
        let text: Option<String> = row(tx, "SELECT layers FROM image WHERE id = ?", [id.as_str()], |r| r.get(0))
            .map_err(self.db.error("look up an image"))?;
        match (text, shared) {
            (Some(text), _) => Ok(serde_json::from_str(&text).unwrap_or_default()),
            (None, Some(layers)) => Ok(layers),
            (None, None) => Err(StoreError::NoSuchImage(id.to_string())),
        }
    }

    /// The name, if it is free or its holder is gone.
    fn claim_name(&self, tx: &Transaction<'_>, name: &str) -> Result<String> {
        let holder: Option<String> = row(tx, "SELECT id FROM container WHERE name = ?", [name], |r| r.get(0))
            .map_err(self.db.error("look up a container"))?;
        match holder {
            Some(id) if self.layout.container(&id).exists() => {
                Err(StoreError::NameConflict { name: name.to_owned(), id })
            }
            Some(id) => self.forget_container(tx, &id).map(|()| name.to_owned()),
            None => Ok(name.to_owned()),
        }
    }

    fn make_up_name(&self, tx: &Transaction<'_>) -> Result<String> {
        for attempt in 0.. {
            let mut name = names::make_up()?;
            if attempt >= NAME_TRIES {
                name.push_str(&crate::id::random_hex(2)?);
            }
            match self.claim_name(tx, &name) {
                Err(StoreError::NameConflict { .. }) => {}
                other => return other,
            }
        }
        Err(StoreError::InvalidName { kind: "container", name: String::new() })
    }

    /// Deletes a container's rows.
    fn forget_container(&self, tx: &Transaction<'_>, id: &str) -> Result<()> {
        for sql in [
            "DELETE FROM container WHERE id = ?",
            "DELETE FROM address WHERE container = ?",
            "DELETE FROM volume_use WHERE container = ?",
        ] {
            change(tx, sql, [id]).map_err(self.db.error("forget a container"))?;
        }
        Ok(())
    }

    /// Deletes the rows of what monitors have moved away after `--rm`, so that they don't pile up.
    fn forget_vanished(&self, tx: &Transaction<'_>) -> Result<()> {
        let error = self.db.error("forget what is gone");
        let ids: Vec<String> = rows(tx, "SELECT id FROM container", (), |r| r.get(0)).map_err(error)?;
        for id in ids.iter().filter(|id| !self.layout.container(id).exists()) {
            self.forget_container(tx, id)?;
        }
        let sql = "SELECT name FROM volume WHERE anonymous";
        let volumes: Vec<String> = rows(tx, sql, (), |r| r.get(0)).map_err(error)?;
        for name in volumes.iter().filter(|name| !self.layout.volume(name).exists()) {
            change(tx, "DELETE FROM volume WHERE name = ?", [name]).map_err(error)?;
        }
        Ok(())
    }

    /// By id, name or unique id prefix.
    pub fn container(&self, name: &str) -> Result<ContainerRow> {
        let wanted = name.strip_prefix('/').unwrap_or(name);
        let found = self.db.read("look up a container", |tx| {
            for condition in ["id = ?", "name = ?"] {
                let sql = format!("SELECT {COLUMNS} FROM container WHERE {condition}");
                let found = self.container_rows(tx, &sql, wanted)?;
                if !found.is_empty() {
                    return Ok(found);
                }
            }
            if !is_id_prefix(wanted) {
                return Ok(Vec::new());
            }
            let sql = format!("SELECT {COLUMNS} FROM container WHERE id GLOB ? || '*'");
            self.container_rows(tx, &sql, wanted)
        })?;
        match <[ContainerRow; 1]>::try_from(found) {
            Ok([only]) => Ok(only),
            Err(none) if none.is_empty() => Err(StoreError::NoSuchContainer(name.to_owned())),
            Err(many) => Err(StoreError::Ambiguous { kind: "container", prefix: name.to_owned(), count: many.len() }),
        }
    }

    /// All containers, newest first. Rows whose folder is gone (`--rm`) are left out.
    pub fn containers(&self) -> Result<Vec<ContainerRow>> {
        self.db.read("list the containers", |tx| {
            let sql = format!("SELECT {COLUMNS} FROM container WHERE '' = ? ORDER BY created DESC");
            self.container_rows(tx, &sql, "")
        })
    }

    /// The containers made from an image.
    pub fn containers_using(&self, image: &Digest) -> Result<Vec<ContainerRow>> {
        self.db.read("list an image's containers", |tx| self.containers_of(tx, image))
    }

    pub(crate) fn containers_of(&self, tx: &Transaction<'_>, image: &Digest) -> Result<Vec<ContainerRow>> {
        self.container_rows(tx, &format!("SELECT {COLUMNS} FROM container WHERE image = ?"), image.as_str())
    }

    fn container_rows(&self, tx: &Transaction<'_>, sql: &str, param: &str) -> Result<Vec<ContainerRow>> {
        let error = self.db.error("read a container's row");
        let mut found = rows(tx, sql, [param], |r| {
            Ok(ContainerRow {
                id: r.get(0)?,
                name: r.get(1)?,
                image: r.get::<_, Option<String>>(2)?.and_then(|text| text.parse().ok()),
                created: timestamp(r.get(3)?),
                layers: serde_json::from_str(&r.get::<_, String>(4)?).unwrap_or_default(),
                volumes: Vec::new(),
            })
        })
        .map_err(error)?;
        found.retain(|container| self.layout.container(&container.id).exists());
        for container in &mut found {
            let sql = "SELECT volume FROM volume_use WHERE container = ? ORDER BY volume";
            container.volumes = rows(tx, sql, [&container.id], |r| r.get(0)).map_err(error)?;
        }
        Ok(found)
    }

    /// Moves the folder to the trash and forgets row and addresses; unlinks it then. Callers hold the lock.
    pub fn remove_container(&self, id: &str) -> Result<()> {
        if !is_id(id) {
            return Err(StoreError::NoSuchContainer(id.to_owned()));
        }
        let forget = |grave: &mut Option<PathBuf>| {
            self.db.write("remove a container", |tx| {
                *grave = self.layout.discard(&self.layout.container(id))?;
                self.forget_container(tx, id)
            })
        };
        let mut grave = None;
        let forgotten = forget(&mut grave);
        if let Some(grave) = &grave {
            // The container is gone; what cannot be unlinked now the next sweep tries again.
            let _ = crate::layout::remove_tree(grave);
            let _ = self.sweep();
        }
        // On a full disk the rows can go only once the folder's space is free.
        if forgotten.is_err() { forget(&mut grave) } else { forgotten }
    }

    /// Gives a container another name.
    pub fn rename_container(&self, id: &str, name: &str) -> Result<()> {
        let name = name.strip_prefix('/').unwrap_or(name);
        if !is_name(name) {
            return Err(StoreError::InvalidName { kind: "container", name: name.to_owned() });
        }
        let mut container = self.container(id)?;
        self.db.write("rename a container", |tx| {
            container.name = self.claim_name(tx, name)?;
            change(tx, "UPDATE container SET name = ? WHERE id = ?", (name, &container.id))
                .map_err(self.db.error("rename a container"))?;
            let path = self.layout.container(&container.id).join("row.json");
            write_atomically(&self.layout, &path, serde_json::json!(container).to_string().as_bytes())
        })
    }

    /// Notes further volumes a container uses.
    pub fn use_volumes(&self, id: &str, volumes: &[String]) -> Result<()> {
        self.db.write("note a container's volumes", |tx| {
            for volume in volumes {
                change(tx, "INSERT OR IGNORE INTO volume_use VALUES (?,?)", (volume, id))
                    .map_err(self.db.error("note a container's volumes"))?;
            }
            Ok(())
        })
    }

    /// The container's folder.
    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.layout.container(id)
    }

    /// The `fs/` folders under a container's root, lowest first; there even if its image is gone.
    pub fn container_layers(&self, row: &ContainerRow) -> Result<Vec<PathBuf>> {
        self.layer_folders(&row.layers)
    }

    /// Waits for the container's lock.
    pub fn lock_container(&self, id: &str) -> Result<Lock> {
        let lock = self.lock_container_with(id, Wait::Block)?;
        lock.ok_or_else(|| StoreError::Busy(format!("container {id}")))
    }

    /// The container's lock, or `None` where another has it.
    pub fn try_lock_container(&self, id: &str) -> Result<Option<Lock>> {
        self.lock_container_with(id, Wait::Try)
    }

    /// The lock is on the folder itself: no file to clean up, and it goes with the container.
    fn lock_container_with(&self, id: &str, wait: Wait) -> Result<Option<Lock>> {
        let path = self.layout.container(id);
        let gone = || StoreError::NoSuchContainer(id.to_owned());
        let lock = match Lock::take_dir(&path, wait) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Err(gone()),
            other => other?,
        };
        let Some(lock) = lock else { return Ok(None) };
        let ours = lock.file.metadata().map_err(StoreError::io("inspect", &path))?;
        match fs::metadata(&path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => Ok(Some(lock)),
            _ => Err(gone()),
        }
    }
}

/// The copy of the row that lets a lost database be rebuilt.
fn write_row_file(dir: &std::path::Path, row: &ContainerRow) -> Result<()> {
    let path = dir.join("row.json");
    fs::write(&path, serde_json::json!(row).to_string()).map_err(StoreError::io("write", &path))
}

/// As the database keeps times: nanoseconds since 1970 (until 2262).
pub(crate) fn nanoseconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

/// The reverse of [`nanoseconds`].
pub(crate) fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}
