//! Volumes: folders that outlive containers.

use crate::containers::{nanoseconds, timestamp};
use crate::db::{change, row, rows};
use crate::id::is_name;
use crate::layout::{make_dir, remove_tree};
use crate::lock::{Lock, Wait};
use crate::{Result, Store, StoreError, Volume};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

impl Store {
    /// Makes a volume (`None`: an anonymous one), or returns the one of that name.
    pub fn create_volume(
        &self,
        name: Option<&str>,
        labels: &BTreeMap<String, String>,
        options: &BTreeMap<String, String>,
    ) -> Result<Volume> {
        if let Some(name) = name {
            if !is_name(name) {
                return Err(StoreError::InvalidName { kind: "volume", name: name.to_owned() });
            }
            match self.volume(name) {
                Err(StoreError::NoSuchVolume(_)) => {}
                other => return other,
            }
        }
        let volume = Volume {
            name: name.map_or_else(crate::new_id, |n| Ok(n.to_owned()))?,
            created: Timestamp::now(),
            anonymous: name.is_none(),
            labels: labels.clone(),
            options: options.clone(),
        };
        let scratch = self.new_scratch()?;
        let draft = scratch.path().join("volume");
        let data = draft.join("_data");
        make_dir(&data, 0o755)?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).map_err(StoreError::io("chmod", &data))?;
        let detail = serde_json::json!(volume).to_string();
        fs::write(draft.join("volume.json"), &detail).map_err(StoreError::io("write", draft.join("volume.json")))?;
        self.db.write("create a volume", |tx| {
            if let Some(other) = self.volume_in(tx, &volume.name)? {
                return Ok(other);
            }
            let target = self.layout.volume(&volume.name);
            // A folder without a row is a volume whose database was lost: its content stays.
            if !target.exists() {
                fs::rename(&draft, &target).map_err(StoreError::io("create", &target))?;
            }
            let row = (&volume.name, nanoseconds(volume.created), volume.anonymous, &detail);
            change(tx, "INSERT OR REPLACE INTO volume VALUES (?,?,?,?)", row)
                .map_err(self.db.error("create a volume"))?;
            Ok(volume.clone())
        })
    }

    fn volume_in(&self, tx: &rusqlite::Transaction<'_>, name: &str) -> Result<Option<Volume>> {
        let sql = "SELECT name, created, anonymous, detail FROM volume WHERE name = ?";
        let found = row(tx, sql, [name], read_row).map_err(self.db.error("look up a volume"))?;
        // A monitor that cleans up after `--rm` moves folders away; the rows are for the commands to forget.
        Ok(found.filter(|volume| self.layout.volume(&volume.name).exists()))
    }

    /// The volume of that name.
    pub fn volume(&self, name: &str) -> Result<Volume> {
        let found = self.db.read("look up a volume", |tx| self.volume_in(tx, name))?;
        found.ok_or_else(|| StoreError::NoSuchVolume(name.to_owned()))
    }

    /// All volumes, by name.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        self.db.read("list the volumes", |tx| {
            let sql = "SELECT name, created, anonymous, detail FROM volume ORDER BY name";
            let mut found = rows(tx, sql, (), read_row).map_err(self.db.error("list the volumes"))?;
            found.retain(|volume| self.layout.volume(&volume.name).exists());
            Ok(found)
        })
    }

    /// The folder that containers see.
    pub fn volume_data(&self, name: &str) -> PathBuf {
        self.layout.volume(name).join("_data")
    }

    /// Ids of the containers that use the volume.
    pub fn volume_users(&self, name: &str) -> Result<Vec<String>> {
        self.db.read("list a volume's users", |tx| self.live_users(tx, name))
    }

    fn live_users(&self, tx: &rusqlite::Transaction<'_>, name: &str) -> Result<Vec<String>> {
        let sql = "SELECT container FROM volume_use WHERE volume = ? ORDER BY container";
        let mut users: Vec<String> =
            rows(tx, sql, [name], |r| r.get(0)).map_err(self.db.error("list a volume's users"))?;
        users.retain(|id| self.layout.container(id).exists());
        Ok(users)
    }

    /// Removes a volume that no container uses.
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        let grave = self.db.write("remove a volume", |tx| {
            if self.volume_in(tx, name)?.is_none() {
                return Err(StoreError::NoSuchVolume(name.to_owned()));
            }
            let containers = self.live_users(tx, name)?;
            if !containers.is_empty() {
                return Err(StoreError::VolumeInUse { name: name.to_owned(), containers });
            }
            for sql in ["DELETE FROM volume WHERE name = ?", "DELETE FROM volume_use WHERE volume = ?"] {
                change(tx, sql, [name]).map_err(self.db.error("remove a volume"))?;
            }
            self.layout.discard(&self.layout.volume(name))
        })?;
        if let Some(grave) = grave {
            // The volume is gone; what cannot be unlinked now the next sweep tries again.
            let _ = remove_tree(&grave);
        }
        Ok(())
    }

    /// Copies an image's folder (an open directory in the container's root) into an empty volume, with owner, mode and xattrs
    /// of the folder itself; does nothing to a volume that holds something.
    pub fn fill_volume(&self, name: &str, from: BorrowedFd<'_>) -> Result<()> {
        let folder = self.layout.volume(name);
        let data = self.volume_data(name);
        // Of several containers that start at once one fills it, the others wait.
        let lock = Lock::take_dir(&folder, Wait::Block)?;
        let marker = folder.join("filling");
        let broken_off = marker.exists();
        for entry in fs::read_dir(&data).map_err(StoreError::io("list", &data))? {
            if !broken_off {
                return Ok(());
            }
            remove_tree(&entry.map_err(StoreError::io("list", &data))?.path())?;
        }
        fs::write(&marker, b"").map_err(StoreError::io("write", &marker))?;
        crate::copy::copy_tree(from, &data, crate::copy::CONTENT)?;
        remove_tree(&marker)?;
        drop(lock);
        Ok(())
    }
}

fn read_row(r: &rusqlite::Row<'_>) -> rusqlite::Result<Volume> {
    let detail: String = r.get(3)?;
    let empty = Volume {
        name: r.get(0)?,
        created: timestamp(r.get(1)?),
        anonymous: r.get(2)?,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
    };
    Ok(serde_json::from_str(&detail).unwrap_or(empty))
}
