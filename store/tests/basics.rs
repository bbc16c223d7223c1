//! Rows: containers, networks, addresses, volumes, the build cache.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use store::{NewContainer, Store, StoreError};

fn open() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = Store::open(&folder.path().join("root")).unwrap();
    (folder, store)
}

fn container(store: &Store, name: Option<&str>) -> Result<store::ContainerRow, StoreError> {
    let id = store::new_id()?;
    store.create_container(&NewContainer { id: &id, name, image: None, config_json: b"{}", volumes: &[] })
}

#[test]
fn a_container_is_found_by_id_name_and_unique_prefix() {
    let (_folder, store) = open();
    let row = container(&store, Some("web")).unwrap();
    for name in [row.id.as_str(), "web", "/web", &row.id[..6]] {
        assert_eq!(store.container(name).unwrap().id, row.id);
    }
    assert_eq!(store.container("nope").unwrap_err().to_string(), "No such container: nope");
    assert!(store.container_dir(&row.id).join("config.json").exists());
    for _ in 0..40 {
        container(&store, None).unwrap();
    }
    let all = store.containers().unwrap();
    let digits = all.iter().map(|c| &c.id[..1]).find(|d| all.iter().filter(|c| c.id.starts_with(*d)).count() > 1);
    assert!(store.container(digits.unwrap()).unwrap_err().to_string().starts_with("ambiguous container id prefix"));
}

#[test]
fn a_taken_name_is_a_conflict_until_its_holders_folder_is_gone() {
    let (_folder, store) = open();
    let row = container(&store, Some("web")).unwrap();
    let message = container(&store, Some("web")).unwrap_err().to_string();
    assert_eq!(
        message,
        format!(
            "Conflict. The container name \"/web\" is already in use by container \"{}\". You have to remove (or rename) that container to be able to reuse that name.",
            row.id
        )
    );
    std::fs::remove_dir_all(store.container_dir(&row.id)).unwrap();
    assert!(store.containers().unwrap().is_empty());
    container(&store, Some("web")).unwrap();
    let other = container(&store, Some("other")).unwrap();
    assert!(matches!(store.rename_container(&other.id, "web"), Err(StoreError::NameConflict { .. })));
    store.rename_container(&other.id, "third").unwrap();
    assert_eq!(store.container("third").unwrap().id, other.id);
    assert!(container(&store, Some("../x")).unwrap_err().to_string().starts_with("Invalid container name (../x)"));
}

#[test]
fn a_removed_container_leaves_nothing() {
    let (_folder, store) = open();
    let row = container(&store, None).unwrap();
    let lock = store.lock_container(&row.id).unwrap();
    assert!(store.try_lock_container(&row.id).unwrap().is_none());
    store.remove_container(&row.id).unwrap();
    drop(lock);
    assert!(matches!(store.lock_container(&row.id), Err(StoreError::NoSuchContainer(_))));
    assert!(!store.container_dir(&row.id).exists());
    assert_eq!(std::fs::read_dir(store.root().join("trash")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(store.root().join("ingest")).unwrap().count(), 0);
}

#[test]
fn addresses_rotate_and_are_free_again_when_their_container_is_gone() {
    let (_folder, store) = open();
    store.create_network("net", serde_json::json!({"subnet": "10.1.0.0/29"})).unwrap();
    assert_eq!(
        store.create_network("net", serde_json::Value::Null).unwrap_err().to_string(),
        "network with name net already exists"
    );
    let subnet = (Ipv4Addr::new(10, 1, 0, 0), 29);
    let gateway = Ipv4Addr::new(10, 1, 0, 1);
    let take = |c: &str, wanted| store.allocate_address("net", subnet, gateway, c, wanted);
    let ids: Vec<String> = (0..6).map(|_| container(&store, None).unwrap().id).collect();
    let first = take(&ids[0], None).unwrap();
    assert_eq!(first, Ipv4Addr::new(10, 1, 0, 2));
    assert_eq!(take(&ids[0], None).unwrap(), first);
    store.release_addresses(&ids[0], None).unwrap();
    assert_eq!(take(&ids[0], None).unwrap(), Ipv4Addr::new(10, 1, 0, 3));
    let taken: BTreeSet<Ipv4Addr> = ids[1..5].iter().map(|c| take(c, None).unwrap()).collect();
    assert_eq!(taken.len(), 4);
    assert!(take(&ids[5], None).unwrap_err().to_string().contains("no free address"));
    assert!(matches!(store.remove_network("net"), Err(StoreError::NetworkInUse { .. })));
    std::fs::remove_dir_all(store.container_dir(&ids[2])).unwrap();
    take(&ids[5], None).unwrap();
    for id in &ids {
        store.remove_container(id).unwrap();
    }
    store.remove_network("net").unwrap();
    assert_eq!(store.network("net").unwrap_err().to_string(), "network net not found");
}

#[test]
fn a_hundred_threads_with_their_own_connections_get_a_hundred_addresses() {
    let (folder, store) = open();
    store.create_network("net", serde_json::Value::Null).unwrap();
    let root = folder.path().join("root");
    let ids: Vec<String> = (0..100).map(|_| container(&store, None).unwrap().id).collect();
    let mut got = BTreeSet::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = ids
            .iter()
            .map(|id| {
                scope.spawn(|| {
                    let store = Store::open(&root).unwrap();
                    store
                        .allocate_address("net", (Ipv4Addr::new(10, 1, 0, 0), 16), Ipv4Addr::new(10, 1, 0, 1), id, None)
                        .unwrap()
                })
            })
            .collect();
        for thread in threads {
            got.insert(thread.join().unwrap());
        }
    });
    assert_eq!(got.len(), 100);
}

#[test]
fn the_default_network_is_made_once() {
    let (folder, _store) = open();
    let root = folder.path().join("root");
    let ids: BTreeSet<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let store = Store::open(&root).unwrap();
                    store.network_or_create("bridge", &mut |_| serde_json::json!({})).unwrap().id
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(ids.len(), 1);
}

#[test]
fn a_volume_in_use_stays() {
    let (_folder, store) = open();
    let volume = store.create_volume(Some("data"), &BTreeMap::new(), &BTreeMap::new()).unwrap();
    assert!(!volume.anonymous);
    assert!(store.volume_data("data").is_dir());
    let id = store::new_id().unwrap();
    let volumes = ["data".to_owned()];
    store
        .create_container(&NewContainer { id: &id, name: None, image: None, config_json: b"", volumes: &volumes })
        .unwrap();
    assert_eq!(store.remove_volume("data").unwrap_err().to_string(), format!("remove data: volume is in use - [{id}]"));
    store.remove_container(&id).unwrap();
    store.remove_volume("data").unwrap();
    assert_eq!(store.remove_volume("data").unwrap_err().to_string(), "no such volume: data");
    let anonymous = store.create_volume(None, &BTreeMap::new(), &BTreeMap::new()).unwrap();
    assert!(anonymous.anonymous && anonymous.name.len() == 64);
    assert_eq!(store.volumes().unwrap(), std::slice::from_ref(&anonymous));
    // As a monitor does for --rm.
    std::fs::rename(store.root().join("volumes").join(&anonymous.name), store.root().join("trash/x")).unwrap();
    assert!(store.volumes().unwrap().is_empty() && store.volume(&anonymous.name).is_err());
}

#[test]
fn an_empty_volume_is_filled_and_a_full_one_is_left() {
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
    let (folder, store) = open();
    let source = folder.path().join("source");
    std::fs::create_dir_all(source.join("a/b")).unwrap();
    std::fs::write(source.join("a/f"), b"hello").unwrap();
    chown(source.join("a/f"), Some(7), Some(8)).unwrap();
    std::fs::hard_link(source.join("a/f"), source.join("a/g")).unwrap();
    symlink("/nowhere", source.join("l")).unwrap();
    std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o1777)).unwrap();
    store.create_volume(Some("vol"), &BTreeMap::new(), &BTreeMap::new()).unwrap();
    let fd = std::fs::File::open(&source).unwrap();
    store.fill_volume("vol", fd.as_fd()).unwrap();
    let data = store.volume_data("vol");
    assert_eq!(std::fs::metadata(&data).unwrap().mode() & 0o7777, 0o1777);
    let file = std::fs::metadata(data.join("a/f")).unwrap();
    assert_eq!((file.uid(), file.gid(), file.nlink(), file.len()), (7, 8, 2, 5));
    assert!(std::fs::read_link(data.join("l")).is_ok());
    std::fs::write(source.join("new"), b"").unwrap();
    store.fill_volume("vol", fd.as_fd()).unwrap();
    assert!(!data.join("new").exists());
    // A fill that was killed begins anew, and of several at once one fills.
    std::fs::write(data.parent().unwrap().join("filling"), "").unwrap();
    let root = store.root().to_owned();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| Store::open(&root).unwrap().fill_volume("vol", fd.as_fd()).unwrap());
        }
    });
    assert!(data.join("new").exists() && data.join("a/g").exists());
}

#[test]
fn the_log_of_the_database_does_not_grow_without_end() {
    let (_folder, store) = open();
    for i in 0..3000 {
        store.cache_put(&format!("key{i}"), &"x".repeat(500), &[]).unwrap();
    }
    let size = std::fs::metadata(store.root().join("db.sqlite-wal")).unwrap().len();
    assert!(size < 3 << 20, "{size}");
    assert_eq!(store.cache_entries().unwrap().len(), 3000);
}

#[test]
fn the_cache_knows_what_was_used_last() {
    let (_folder, store) = open();
    for key in ["old", "older"] {
        store.cache_put(key, "value", &[]).unwrap();
    }
    let db = rusqlite::Connection::open(store.root().join("db.sqlite")).unwrap();
    db.execute_batch(
        "UPDATE cache SET used = used - 7200000000000; UPDATE cache SET used = used - 3600000000000 WHERE key = 'older'",
    )
    .unwrap();
    let keys = || store.cache_entries().unwrap().into_iter().map(|entry| entry.key).collect::<Vec<_>>();
    assert_eq!(keys(), ["older", "old"]);
    assert_eq!(store.cache_get("older").unwrap().as_deref(), Some("value"));
    assert_eq!(keys(), ["old", "older"]);
    // Within the minute nothing is written: a build that finds all in the cache leaves the disk alone.
    let used = || store.cache_entries().unwrap()[1].used;
    let before = used();
    store.cache_get("older").unwrap();
    assert_eq!(used(), before);
}

#[test]
fn a_strange_store_is_refused() {
    let (folder, store) = open();
    drop(store);
    let root = folder.path().join("root");
    assert!(root.join("db.sqlite-wal").exists());
    std::fs::write(root.join("FORMAT"), "99\n").unwrap();
    assert!(Store::open(&root).unwrap_err().to_string().contains("knows formats up to 2: use a newer ctr"));
}
