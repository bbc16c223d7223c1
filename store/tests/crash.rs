//! kill -9, a full disk and many at once: whatever happens, the next command works.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use oci::{Descriptor, Digest, ImageConfig, MediaType, Reference};
use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use store::{NewContainer, Store, StoreError};

/// Set for the child processes these tests start of themselves.
const CHILD_ROOT: &str = "CTR_STORE_TEST_ROOT";

fn tar_of(files: usize, seed: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for i in 0..files {
        let data = format!("{seed}-{i}").repeat(500);
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        builder.append_data(&mut header, format!("dir{}/file{i}", i % 7), data.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Pulls an image of two layers, as far as the store is concerned.
fn pull(store: &Store, seed: &str) -> Result<Digest, StoreError> {
    let mut config = ImageConfig::default();
    let mut layers = Vec::new();
    for part in ["base", seed] {
        let tar = tar_of(120, part);
        let blob = gzip(&tar);
        let descriptor = Descriptor::of(MediaType::OCI_LAYER_GZIP, &blob);
        let diff_id = Digest::sha256(&tar);
        let mut open = |at: u64| -> std::io::Result<Box<dyn Read>> {
            Ok(Box::new(Cursor::new(blob[usize::try_from(at).unwrap()..].to_vec())))
        };
        store.ingest_layer(&descriptor, &diff_id, &mut open, &|_| ())?;
        config.rootfs.diff_ids.push(diff_id);
        layers.push(descriptor);
    }
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = oci::Manifest::oci(Descriptor::of(MediaType::OCI_CONFIG, &config), layers);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, &manifest);
    let name: Reference = format!("image-{seed}").parse().unwrap();
    store.put_pulled_image(&[name], &descriptor, &manifest, &config)
}

fn commit(store: &Store, seed: &str) -> Result<(), StoreError> {
    let scratch = store.new_scratch()?;
    let upper = scratch.path().join("upper");
    std::fs::create_dir_all(upper.join("d")).map_err(|source| full(&upper, source))?;
    for i in 0..50 {
        let path = upper.join(format!("d/{seed}{i}"));
        std::fs::write(&path, seed.repeat(100)).map_err(|source| full(&path, source))?;
    }
    let layer = store.commit_upper(&upper)?;
    let mut config = ImageConfig::default();
    config.rootfs.diff_ids.push(layer.diff_id);
    let id = store.put_built_image(&config, &[format!("built-{seed}").parse().unwrap()])?;
    match store.image(id.as_str()) {
        // Another process removed it just now.
        Err(StoreError::NoSuchImage(_)) => Ok(()),
        other => store.manifest_of(&other?).map(drop),
    }
}

fn full(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Io { operation: "write", path: path.to_owned(), source }
}

fn run(store: &Store) -> Result<(), StoreError> {
    let id = store::new_id()?;
    let images = store.images()?;
    let image = images.first().map(|image| &image.id);
    let volume = store.create_volume(None, &Default::default(), &Default::default())?;
    let volumes = [volume.name.clone()];
    match store.create_container(&NewContainer { id: &id, name: None, image, config_json: b"{}", volumes: &volumes }) {
        // Another process removed the image just now.
        Err(StoreError::NoSuchImage(_)) => return store.remove_volume(&volume.name),
        other => other.map(drop)?,
    }
    let subnet = (std::net::Ipv4Addr::new(10, 9, 0, 0), 24);
    store.allocate_address("net", subnet, std::net::Ipv4Addr::new(10, 9, 0, 1), &id, None)?;
    store.remove_container(&id)?;
    store.remove_volume(&volume.name)
}

fn remove(store: &Store, name: &str) -> Result<(), StoreError> {
    match store.remove_image(name, true, &|_| false) {
        Err(StoreError::NoSuchImage(_)) => Ok(()),
        other => other.map(drop),
    }
}

/// What a child does until it is killed: everything, again and again.
#[test]
fn child() {
    let Some(root) = std::env::var_os(CHILD_ROOT) else { return };
    let rounds: usize = std::env::var("ROUNDS").map_or(usize::MAX, |n| n.parse().unwrap());
    println!("ready");
    for i in 0..rounds {
        let store = Store::open(Path::new(&root)).unwrap();
        let seed = (i % 3).to_string();
        pull(&store, &seed).unwrap();
        commit(&store, &seed).unwrap();
        run(&store).unwrap();
        drop(store);
        let store = Store::open(Path::new(&root)).unwrap();
        remove(&store, &format!("image-{seed}")).unwrap();
        remove(&store, &format!("built-{seed}")).unwrap();
        store.sweep().unwrap();
    }
}

fn start_child(root: &Path, rounds: Option<usize>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(CHILD_ROOT, root).stdout(Stdio::piped());
    if let Some(rounds) = rounds {
        command.env("ROUNDS", rounds.to_string());
    }
    let mut child = command.spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0);
    }
    // Kept open: the harness writes to it still.
    child.stdout = Some(reader.into_inner());
    child
}

/// The store works, and holds nothing that nobody refers to.
fn check(root: &Path) {
    let store = Store::open(root).unwrap();
    for image in store.images().unwrap() {
        let image = store.image(image.id.as_str()).unwrap();
        for layer in store.image_layers(&image).unwrap() {
            assert!(std::fs::read_dir(layer).unwrap().count() > 0);
        }
    }
    assert!(store.containers().unwrap().len() <= 1);
    pull(&store, "check").unwrap();
    commit(&store, "check").unwrap();
    run(&store).unwrap();
    drop(store);
    let store = Store::open(root).unwrap();
    for image in store.images().unwrap() {
        store.remove_image(image.id.as_str(), true, &|_| false).unwrap();
    }
    for container in store.containers().unwrap() {
        store.remove_container(&container.id).unwrap();
    }
    for volume in store.volumes().unwrap() {
        store.remove_volume(&volume.name).unwrap();
    }
    store.collect_garbage().unwrap();
    store.sweep().unwrap();
    drop(store);
    for folder in ["layers", "blobs/sha256", "trash", "containers", "volumes", "images"] {
        let left: Vec<PathBuf> = std::fs::read_dir(root.join(folder)).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
    let ingest = std::fs::read_dir(root.join("ingest")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    // Partial downloads are kept for a while, and drafts too young to be judged.
    let left: Vec<String> = ingest.filter(|n| !n.ends_with(".partial") && !n.ends_with(".draft")).collect();
    assert!(left.is_empty(), "ingest: {left:?}");
}

fn new_root() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let root = folder.path().join("root");
    let store = Store::open(&root).unwrap();
    store.create_network("net", serde_json::Value::Null).unwrap();
    (folder, root)
}

#[test]
fn a_kill_at_any_moment_costs_only_what_was_under_way() {
    let (_folder, root) = new_root();
    for i in 0..25_u64 {
        let mut child = start_child(&root, None);
        // The one thing waited for is the passing of an arbitrary time.
        std::thread::sleep(Duration::from_millis(3 + i * 17 % 190));
        child.kill().unwrap();
        child.wait().unwrap();
        if i % 5 == 4 {
            check(&root);
        }
    }
}

#[test]
fn eight_at_once_do_not_disturb_one_another() {
    let (_folder, root) = new_root();
    let children: Vec<Child> = (0..8).map(|_| start_child(&root, Some(3))).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    check(&root);
}

struct SmallDisk(PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l".as_ref(), self.0.as_os_str()]).status();
    }
}

#[test]
fn a_full_disk_is_an_error_and_reading_goes_on() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let disk = SmallDisk(folder.path().join("disk"));
    std::fs::create_dir(&disk.0).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m", "small"]).arg(&disk.0).status().unwrap();
    assert!(mounted.success());
    let root = disk.0.join("root");
    let store = Store::open(&root).unwrap();
    store.create_network("net", serde_json::Value::Null).unwrap();
    commit(&store, "small").unwrap();
    drop(store);
    let filler = disk.0.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let store = Store::open(&root).unwrap();
    assert_eq!(store.images().unwrap().len(), 1);
    assert!(store.image("built-small").is_ok());
    for error in [pull(&store, "x").unwrap_err(), commit(&store, "y").unwrap_err()] {
        let message = error.to_string();
        assert!(
            message.contains("No space left on device") || message.contains("database or disk is full"),
            "{message}"
        );
        assert!(!message.contains('\n'));
    }
    // Nothing half-made takes up what space there is.
    assert_eq!(
        std::fs::read_dir(root.join("ingest"))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "partial"))
            .count(),
        0
    );
    // A child of another test may hold the file open between its fork and its exec.
    file.set_len(0).unwrap();
    drop(store);
    std::fs::remove_file(&filler).unwrap();
    let store = Store::open(&root).unwrap();
    store.sweep().unwrap();
    commit(&store, "y").unwrap();
    assert_eq!(store.images().unwrap().len(), 2);
}
