//! Additional stores below a store: what the command line's own tests cannot see.
#![allow(clippy::unwrap_used)]

mod kit;

use kit::{Tar, from, gzip};
use oci::{Descriptor, Digest, ImageConfig, Manifest, MediaType, Reference};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use store::{Store, StoreError, StoreOptions};

/// Puts an image of these layers; those that are there already are not read again.
fn put(store: &Store, name: &str, tars: &[&[u8]]) -> Digest {
    let mut config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
    let mut layers = Vec::new();
    for tar in tars {
        let (blob, diff_id) = (gzip(tar), Digest::sha256(tar));
        let descriptor = Descriptor::of(MediaType::OCI_LAYER_GZIP, &blob);
        store.ingest_layer(&descriptor, &diff_id, &mut |at| from(&blob, at), &|_| {}).unwrap();
        config.rootfs.diff_ids.push(diff_id);
        layers.push(descriptor);
    }
    let bytes = serde_json::to_vec(&config).unwrap();
    let manifest = Manifest::oci(Descriptor::of(MediaType::OCI_CONFIG, &bytes), layers);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, &manifest);
    let name: Reference = name.parse().unwrap();
    store.put_pulled_image(&[name], &descriptor, &manifest, &bytes).unwrap()
}

fn over(root: &Path, below: &Path) -> Store {
    Store::open_with(root, &StoreOptions { additional: vec![below.to_owned()], ..StoreOptions::default() }).unwrap()
}

#[test]
fn layers_that_depend_on_those_below_are_found_or_copied_never_linked() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let (below, root) = (folder.path().join("below"), folder.path().join("root"));
    let base = Tar::default().dir("usr/").dir("usr/lib/").symlink("lib", "usr/lib").end();
    let other = Tar::default().dir("opt/").dir("opt/lib/").symlink("lib", "opt/lib").end();
    // Without a header for `lib`, which is a link below.
    let app = Tar::default().file("lib/one", "1").link("lib/two", "lib/one").end();
    put(&Store::open(&below).unwrap(), "app", &[&base, &app]);

    // The same chain: the form that it has there serves here.
    let store = over(&root, &below);
    let image = store.image("app").unwrap();
    assert!(image.read_only);
    let folders = store.image_layers(&image).unwrap();
    assert!(folders.iter().all(|folder| folder.starts_with(&below)), "{folders:?}");
    assert_eq!(std::fs::read_to_string(folders[1].join("usr/lib/one")).unwrap(), "1");

    // Another chain: a form of our own.
    let inode = std::fs::metadata(below.join("layers").join(Digest::sha256(&app).hex()).join("fs/lib/one")).unwrap();
    put(&store, "mine", &[&other, &app]);
    let folders = store.image_layers(&store.image("mine").unwrap()).unwrap();
    assert!(folders.iter().all(|folder| folder.starts_with(&root)), "{folders:?}");
    let (one, two) = (folders[1].join("opt/lib/one"), folders[1].join("opt/lib/two"));
    assert_eq!(std::fs::read_to_string(&one).unwrap(), "1");
    let (one, two) = (std::fs::metadata(one).unwrap(), std::fs::metadata(two).unwrap());
    assert_eq!((one.ino(), one.nlink()), (two.ino(), 2), "two names of one file, as in the tar");
    let now = std::fs::metadata(below.join("layers").join(Digest::sha256(&app).hex()).join("fs/lib/one")).unwrap();
    assert_eq!(now.nlink(), inode.nlink());
    assert_eq!(now.ctime_nsec(), inode.ctime_nsec());

    // A name of one's own comes first; what it stands for below shows again when it goes.
    put(&store, "app", &[&other]);
    assert!(!store.image("app").unwrap().read_only);
    assert_eq!(store.images().unwrap().iter().filter(|image| !image.names.is_empty()).count(), 2);
    drop(store);
    let store = over(&root, &below);
    store.remove_image("app", false, &|_| false).unwrap();
    assert!(store.image("app").unwrap().read_only);
    let refused = store.remove_image("app", true, &|_| false);
    assert!(matches!(refused, Err(StoreError::ReadOnlyImage { .. })), "{refused:?}");
    assert!(Store::open(&root).unwrap().image("app").is_err());
}

#[test]
fn a_lost_database_is_made_anew_over_an_additional_store() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let (below, root) = (folder.path().join("below"), folder.path().join("root"));
    let base = Tar::default().file("base", "b").end();
    put(&Store::open(&below).unwrap(), "base", &[&base]);
    let store = over(&root, &below);
    put(&store, "mine", &[&base, &Tar::default().file("top", "t").end()]);
    drop(store);
    let options = StoreOptions { additional: vec![below.clone()], ..StoreOptions::default() };
    let (store, unreadable) = Store::rebuild(&root, &options).unwrap();
    assert!(unreadable.is_empty(), "{unreadable:?}");
    let folders = store.image_layers(&store.image("mine").unwrap()).unwrap();
    assert_eq!(folders.iter().filter(|folder| folder.starts_with(&below)).count(), 1);
    // What is below is known to be needed even when it is not there.
    drop(store);
    let alone = Store::open(&root).unwrap();
    let missing = alone.image_layers(&alone.image("mine").unwrap()).unwrap_err();
    assert!(missing.to_string().contains(&format!("--additional-store {}", below.display())), "{missing}");
}
