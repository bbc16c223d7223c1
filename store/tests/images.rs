//! Images: names, removal, collection, archives – with skopeo and umoci as judges.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use oci::{Digest, ImageConfig, Reference};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use store::{ArchiveFormat, ImportOptions, NewContainer, Removed, Store, StoreError, StoreOptions};

struct Fixture {
    _folder: tempfile::TempDir,
    path: PathBuf,
    store: Store,
}

fn open() -> Fixture {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = Store::open(&folder.path().join("root")).unwrap();
    Fixture { path: folder.path().to_owned(), _folder: folder, store }
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A layer whose only file holds `content`.
fn layer(store: &Store, content: &str) -> Digest {
    let scratch = store.new_scratch().unwrap();
    let upper = scratch.path().join("upper");
    std::fs::create_dir(&upper).unwrap();
    std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(upper.join(format!("file-{content}")), content).unwrap();
    store.commit_upper(&upper).unwrap().diff_id
}

fn image(store: &Store, contents: &[&str], names: &[&str]) -> Digest {
    let mut config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
    config.created = Some("2024-01-01T00:00:00Z".into());
    config.config.cmd = Some(vec![format!("/{}", contents.join("-"))]);
    config.rootfs.diff_ids = contents.iter().map(|c| layer(store, c)).collect();
    let names: Vec<Reference> = names.iter().map(|n| name(n)).collect();
    store.put_built_image(&config, &names).unwrap()
}

fn container(store: &Store, image: &Digest) -> String {
    let id = store::new_id().unwrap();
    let new = NewContainer { id: &id, name: None, image: Some(image), config_json: b"{}", volumes: &[] };
    store.create_container(&new).unwrap().id
}

fn count(store: &Store, folder: &str) -> usize {
    std::fs::read_dir(store.root().join(folder)).unwrap().count()
}

fn remove(store: &Store, name: &str, force: bool) -> Result<Vec<Removed>, String> {
    store.remove_image(name, force, &|_| false).map_err(|e| e.to_string())
}

#[test]
fn an_image_is_found_by_every_name_it_has() {
    let f = open();
    let id = image(&f.store, &["a", "b"], &["busybox", "localhost:5000/x:1"]);
    for wanted in ["busybox", "busybox:latest", "docker.io/library/busybox", "localhost:5000/x:1"] {
        assert_eq!(f.store.image(wanted).unwrap().id, id, "{wanted}");
    }
    for wanted in [id.as_str(), id.hex(), id.short(), &id.as_str()[..14]] {
        assert_eq!(f.store.image(wanted).unwrap().id, id, "{wanted}");
    }
    let found = f.store.image("busybox").unwrap();
    assert_eq!(found.size, 2);
    assert_eq!(f.store.image_layers(&found).unwrap().len(), 2);
    assert_eq!(f.store.image("nope:1").unwrap_err().to_string(), "No such image: nope:1");
    let listed = f.store.images().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].names, [name("busybox"), name("localhost:5000/x:1")]);
    // The name moves to another image.
    let other = image(&f.store, &["c"], &[]);
    f.store.tag(&other, &name("busybox")).unwrap();
    assert_eq!(f.store.image("busybox").unwrap().id, other);
    assert_eq!(f.store.image(id.as_str()).unwrap().names, [name("localhost:5000/x:1")]);
    for i in 0..40 {
        image(&f.store, &[&format!("n{i}")], &[]);
    }
    let all = f.store.images().unwrap();
    let twice =
        all.iter().map(|i| &i.id.hex()[..1]).find(|d| all.iter().filter(|i| i.id.hex().starts_with(*d)).count() > 1);
    let prefix = format!("sha256:{}", twice.unwrap());
    assert!(matches!(f.store.image(&prefix), Err(StoreError::Ambiguous { .. })));
}

#[test]
fn the_last_name_takes_the_image_with_it_but_not_what_others_share() {
    let mut f = open();
    let first = image(&f.store, &["a", "b"], &["one", "two"]);
    image(&f.store, &["a", "c"], &["three"]);
    let second_layer = f.store.image("one").unwrap().config.rootfs.diff_ids[1].clone();
    // As another command would: what its maker leased it would keep.
    f.store = Store::open(&f.path.join("root")).unwrap();
    assert_eq!(remove(&f.store, "one", false).unwrap(), [Removed::Untagged("one:latest".into())]);
    assert_eq!(
        remove(&f.store, first.short(), false).unwrap(),
        [Removed::Untagged("two:latest".into()), Removed::Deleted(first), Removed::Deleted(second_layer)]
    );
    assert_eq!(remove(&f.store, "one", false).unwrap_err(), "No such image: one");
    assert!(f.store.image("three").is_ok());
}

#[test]
fn conflicts_are_told_in_dockers_words() {
    let f = open();
    let id = image(&f.store, &["a"], &["app", "app:2"]);
    let made = container(&f.store, &id);
    let (short, image_short) = (&made[..12], id.short());
    assert_eq!(remove(&f.store, "app:2", false).unwrap(), [Removed::Untagged("app:2".into())]);
    assert_eq!(
        remove(&f.store, "app", false).unwrap_err(),
        format!(
            "conflict: unable to remove repository reference \"app\" (must force) - container {short} is using its referenced image {image_short}"
        )
    );
    assert_eq!(
        remove(&f.store, id.as_str(), false).unwrap_err(),
        format!(
            "conflict: unable to delete {image_short} (must be forced) - image is being used by stopped container {short}"
        )
    );
    let error = f.store.remove_image(id.short(), true, &|_| true).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "conflict: unable to delete {image_short} (cannot be forced) - image is being used by running container {short}"
        )
    );
    // By name and with force it is only untagged while the container runs, and gone once it is stopped.
    assert_eq!(f.store.remove_image("app", true, &|_| true).unwrap(), [Removed::Untagged("app:latest".into())]);
    assert!(f.store.images().unwrap()[0].is_dangling());
    assert!(remove(&f.store, id.as_str(), true).unwrap().contains(&Removed::Deleted(id.clone())));
    // The container still has its root.
    let row = f.store.container(&made).unwrap();
    assert!(f.store.container_layers(&row).unwrap()[0].join("file-a").exists());
    let two = image(&f.store, &["z"], &["p", "q"]);
    assert_eq!(
        remove(&f.store, two.short(), false).unwrap_err(),
        format!(
            "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
            two.short()
        )
    );
}

#[test]
fn what_nobody_refers_to_is_collected_and_nothing_else() {
    let f = open();
    let root = f.store.root().to_owned();
    let id = image(&f.store, &["a", "b"], &["x"]);
    let made = container(&f.store, &id);
    let cached = layer(&f.store, "cached");
    f.store.cache_put("key", "value", std::slice::from_ref(&cached)).unwrap();
    let loose = layer(&f.store, "loose");
    f.store.manifest_of(&f.store.image("x").unwrap()).unwrap();
    // While the maker lives, what it made stays.
    let other = Store::open(&root).unwrap();
    assert!(other.collect_garbage().unwrap().layers.is_empty());
    drop(f.store);
    let collected = other.collect_garbage().unwrap();
    assert_eq!(collected.layers, [loose]);
    assert_eq!(count(&other, "layers"), 3);
    assert_eq!(count(&other, "blobs/sha256"), 4);
    remove(&other, "x", true).unwrap();
    assert_eq!((count(&other, "layers"), count(&other, "blobs/sha256")), (3, 2));
    other.remove_container(&made).unwrap();
    drop(other);
    let store = Store::open(&root).unwrap();
    store.collect_garbage().unwrap();
    assert_eq!((count(&store, "layers"), count(&store, "blobs/sha256")), (1, 0));
    assert_eq!(store.cache_get("key").unwrap().as_deref(), Some("value"));
    drop(store);
    let store = Store::open(&root).unwrap();
    store.cache_remove(&["key"]).unwrap();
    store.collect_garbage().unwrap();
    assert_eq!((count(&store, "layers"), count(&store, "trash"), count(&store, "ingest")), (0, 0, 0));
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn save(store: &Store, names: &[&str], format: ArchiveFormat, path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    store.save(names, format, &mut file).unwrap();
}

#[test]
fn archives_come_back_as_the_images_they_were() {
    let f = open();
    let one = image(&f.store, &["a", "b"], &["one:1", "other:2"]);
    let two = image(&f.store, &["a", "c"], &["two"]);
    for format in [ArchiveFormat::Docker, ArchiveFormat::Oci] {
        let path = f.path.join("archive.tar");
        save(&f.store, &[one.short(), "two"], format, &path);
        let again = open();
        let loaded = again.store.load(&mut std::fs::File::open(&path).unwrap()).unwrap();
        let ids: Vec<&Digest> = loaded.iter().map(|l| &l.id).collect();
        assert_eq!(ids, [&one, &two]);
        assert_eq!(loaded[0].names, [name("one:1"), name("other:2")]);
        assert!(again.store.image("two").is_ok());
        let found = again.store.image("one:1").unwrap();
        assert!(again.store.image_layers(&found).unwrap()[1].join("file-b").exists());
        // Saved again it is the same to the byte.
        let second = f.path.join("again.tar");
        save(&again.store, &[one.short(), "two"], format, &second);
        assert!(std::fs::read(&path).unwrap() == std::fs::read(&second).unwrap());
    }
}

#[test]
fn skopeo_and_umoci_read_what_is_saved() {
    let f = open();
    let id = image(&f.store, &["a", "b"], &["app:1"]);
    let docker = f.path.join("docker.tar");
    save(&f.store, &["app:1"], ArchiveFormat::Docker, &docker);
    let inspected = run("skopeo", &["inspect", "--raw", "--config", &format!("docker-archive:{}", docker.display())]);
    assert_eq!(Digest::sha256(&inspected), id);
    let oci = f.path.join("oci.tar");
    save(&f.store, &["app:1"], ArchiveFormat::Oci, &oci);
    let layout = f.path.join("layout");
    run("skopeo", &["copy", &format!("oci-archive:{}", oci.display()), &format!("oci:{}:app", layout.display())]);
    let bundle = f.path.join("bundle");
    run("umoci", &["unpack", "--image", &format!("{}:app", layout.display()), bundle.to_str().unwrap()]);
    assert_eq!(std::fs::read(bundle.join("rootfs/file-b")).unwrap(), b"b");
}

#[test]
fn what_skopeo_writes_is_loaded() {
    let f = open();
    let id = image(&f.store, &["a", "b"], &["app:1"]);
    let oci = f.path.join("oci.tar");
    save(&f.store, &["app:1"], ArchiveFormat::Oci, &oci);
    let source = format!("oci-archive:{}", oci.display());
    let (plain, other) = (f.path.join("plain.tar"), f.path.join("other.tar"));
    run("skopeo", &["copy", &source, &format!("docker-archive:{}:app:2", plain.display())]);
    run("skopeo", &["copy", &source, &format!("oci-archive:{}:localhost/app:3", other.display())]);
    run("gzip", &["-k", plain.to_str().unwrap()]);
    for (path, tag) in [(plain.clone(), "app:2"), (plain.with_extension("tar.gz"), "app:2"), (other, "localhost/app:3")]
    {
        let again = open();
        let loaded = again.store.load(&mut std::fs::File::open(&path).unwrap()).unwrap();
        assert_eq!(loaded.len(), 1);
        let found = again.store.image(tag).unwrap();
        assert_eq!(found.config.rootfs.diff_ids, f.store.image(id.as_str()).unwrap().config.rootfs.diff_ids);
        assert_eq!(again.store.image_layers(&found).unwrap().len(), 2);
    }
}

#[test]
fn a_root_file_system_is_imported() {
    let f = open();
    let source = f.path.join("source");
    std::fs::create_dir_all(source.join("etc")).unwrap();
    std::fs::write(source.join("etc/motd"), "hi").unwrap();
    let tar = f.path.join("root.tar.gz");
    run("tar", &["-czf", tar.to_str().unwrap(), "-C", source.to_str().unwrap(), "."]);
    let mut options = ImportOptions::default();
    options.config.config.cmd = Some(vec!["sh".into()]);
    let id = f.store.import_tar(&mut std::fs::File::open(&tar).unwrap(), &[name("root")], &options).unwrap();
    let found = f.store.image("root").unwrap();
    assert_eq!((&found.id, found.config.config.cmd.clone()), (&id, Some(vec!["sh".to_owned()])));
    let layers = f.store.image_layers(&found).unwrap();
    assert_eq!(std::fs::read(layers[0].join("etc/motd")).unwrap(), b"hi");
    let error = f.store.load(&mut std::fs::File::open(&tar).unwrap()).unwrap_err().to_string();
    assert!(error.contains("neither manifest.json"), "{error}");
}

#[test]
fn a_lost_layer_is_unpacked_again_from_its_blob() {
    let f = open();
    image(&f.store, &["a"], &["x"]);
    let found = f.store.image("x").unwrap();
    f.store.manifest_of(&found).unwrap();
    let layers = f.store.image_layers(&found).unwrap();
    std::fs::remove_dir_all(&layers[0]).unwrap();
    assert_eq!(f.store.image_layers(&found).unwrap(), layers);
    assert!(layers[0].join("file-a").exists());
}

#[test]
fn syncing_marks_everything() {
    let f = open();
    image(&f.store, &["a"], &["x"]);
    f.store.sync().unwrap();
    f.store.sync().unwrap();
    assert!(f.store.image("x").is_ok());
}

/// As if everything were from before the last boot, and perhaps lost in a power cut.
fn reboot(f: &mut Fixture) {
    let db = rusqlite::Connection::open(f.path.join("root/db.sqlite")).unwrap();
    db.execute_batch("UPDATE layer SET boot = 'before'; UPDATE image SET boot = 'before'").unwrap();
    f.store = Store::open(&f.path.join("root")).unwrap();
}

#[test]
fn what_a_power_cut_damaged_is_noticed_and_mended_where_it_can_be() {
    let mut f = open();
    image(&f.store, &["built"], &["built"]);
    image(&f.store, &["pushed"], &["pushed"]);
    f.store.manifest_of(&f.store.image("pushed").unwrap()).unwrap();
    let cached = layer(&f.store, "cached");
    f.store.cache_put("key", "value", &[cached]).unwrap();
    reboot(&mut f);
    let layers = |f: &Fixture, name: &str| f.store.image_layers(&f.store.image(name).unwrap());
    // Unharmed: a built layer is hashed anew, one with a blob unpacked again.
    assert!(layers(&f, "built").is_ok() && layers(&f, "pushed").is_ok());
    assert!(f.store.cache_get("key").unwrap().is_some());
    reboot(&mut f);
    let diff_id = |name: &str| f.store.image(name).unwrap().config.rootfs.diff_ids[0].clone();
    for name in ["built", "pushed"] {
        std::fs::write(f.store.layer_dir(&diff_id(name)).join(format!("file-{name}")), "").unwrap();
    }
    assert!(matches!(layers(&f, "built"), Err(StoreError::NoSuchLayer(_))));
    assert_eq!(std::fs::read(layers(&f, "pushed").unwrap()[0].join("file-pushed")).unwrap(), b"pushed");
    // A config that is not what its digest says.
    let id = f.store.image("pushed").unwrap().id;
    std::fs::write(f.store.root().join("blobs/sha256").join(id.hex()), "").unwrap();
    reboot(&mut f);
    assert!(f.store.image("pushed").is_err());
    assert_eq!(f.store.images().unwrap().len(), 1);
    // What is synced is trusted.
    image(&f.store, &["third"], &["third"]);
    f.store.sync().unwrap();
    let kept = f.store.layer_dir(&f.store.image("third").unwrap().config.rootfs.diff_ids[0]);
    assert_eq!(layers(&f, "third").unwrap(), [kept]);
}

#[test]
fn a_damaged_blob_is_not_saved() {
    let f = open();
    image(&f.store, &["a"], &["x"]);
    let found = f.store.image("x").unwrap();
    f.store.manifest_of(&found).unwrap();
    let blob = f.store.layer_blob(&found.config.rootfs.diff_ids[0]).unwrap();
    let path = f.store.root().join("blobs/sha256").join(blob.digest.hex());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.fill(0);
    std::fs::write(&path, bytes).unwrap();
    let error = f.store.save(&["x"], ArchiveFormat::Oci, &mut std::io::sink()).unwrap_err();
    assert!(matches!(error, StoreError::DigestMismatch { .. }), "{error}");
}

#[test]
fn a_lost_database_is_made_anew_from_the_files() {
    let mut f = open();
    let id = image(&f.store, &["a", "b"], &["x", "y:2"]);
    let pushed = image(&f.store, &["c"], &["z"]);
    let manifest = f.store.manifest_of(&f.store.image("z").unwrap()).unwrap();
    let made = container(&f.store, &id);
    f.store.rename_container(&made, "renamed").unwrap();
    let network = f.store.create_network("net", serde_json::json!({"subnet": "10.0.0.0/8"})).unwrap();
    let volume = f.store.create_volume(Some("vol"), &Default::default(), &Default::default()).unwrap();
    let (images, row) = (f.store.images().unwrap(), f.store.container(&made).unwrap());
    let root = f.path.join("root");
    std::fs::write(root.join("db.sqlite"), "rubbish").unwrap();
    std::fs::write(root.join("networks/broken.json"), "{").unwrap();
    let (store, unreadable) = Store::rebuild(&root, &StoreOptions::default()).unwrap();
    assert_eq!(unreadable, [root.join("networks/broken.json")]);
    f.store = store;
    assert_eq!(f.store.images().unwrap(), images);
    assert_eq!(f.store.container("renamed").unwrap(), row);
    assert_eq!(f.store.network("net").unwrap(), network);
    assert_eq!(f.store.volume("vol").unwrap(), volume);
    let again = f.store.image(pushed.as_str()).unwrap();
    assert_eq!(f.store.manifest_of(&again).unwrap(), manifest);
    assert_eq!(f.store.container_layers(&row).unwrap().len(), 2);
    // Nothing of it is garbage.
    assert_eq!(f.store.collect_garbage().unwrap(), store::Collected::default());
}
