//! What a hostile tar may not do.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod kit;

use kit::{Tar, ingest, open, xattr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use store::Store;

#[test]
fn links_lead_nowhere_but_into_the_layer() {
    let f = open();
    let outside = f.path.join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "s").unwrap();
    let out = outside.to_str().unwrap();
    std::fs::set_permissions(&outside, std::fs::Permissions::from_mode(0o711)).unwrap();
    let mode = 0o711;
    let tars = [
        Tar::default().symlink("l", out).file("l/f", "x"),
        Tar::default().symlink("l", "../../../../../../../../../..").file(&format!("l{out}/f"), "x"),
        Tar::default().symlink("a", "b").symlink("b", out).file("a/f", "x"),
        Tar::default().symlink("l", &format!("{out}/secret")).file("l", "x"),
        Tar::default().symlink("l", out).file("l/.wh.secret", ""),
        Tar::default().symlink("l", out).entry(tar::EntryType::Fifo, "l/fifo", "", b""),
        Tar::default().symlink("l", out).dir("l/").file("l/f", "x"),
        Tar::default().symlink("l", out).pax(&[("SCHILY.xattr.user.x", "1")]).symlink("l", out),
        Tar::default().file("/absolute", "x").file("./a/../b", "x"),
    ];
    for (i, tar) in tars.into_iter().enumerate() {
        ingest(&f.store, &tar.end()).unwrap_or_else(|e| panic!("{i}: {e}"));
    }
    assert_eq!(std::fs::metadata(&outside).unwrap().mode() & 0o777, mode, "no chmod went through a link");
    let links =
        [Tar::default().symlink("l", out).link("h", "l/secret"), Tar::default().link("h", &format!("{out}/secret"))];
    for tar in links {
        let layer = ingest(&f.store, &tar.end()).unwrap();
        assert!(!layer.join("h").exists());
    }
    let entries: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(entries, ["secret"]);
    assert_eq!(std::fs::metadata(outside.join("secret")).unwrap().nlink(), 1);
    assert!(!Path::new("/absolute").exists());
}

#[test]
fn what_cannot_be_honest_is_refused() {
    let f = open();
    let long = "x/".repeat(3000);
    for (tar, why) in [
        (Tar::default().file("../x", ""), "out of the layer"),
        (Tar::default().file("a/../../x", ""), "out of the layer"),
        (Tar::default().link("h", "../../etc/passwd"), "out of the layer"),
        (Tar::default().file(".wh.", ""), "a whiteout of nothing"),
        (Tar::default().file("d/.wh...", ""), "a whiteout of nothing"),
        (Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", ""), "too many links"),
        (Tar::default().file("a", "").file("a/b", ""), "no folder"),
        (Tar::default().dir("d/").link("h", "d"), "a hard link to a folder"),
        (Tar::default().pax(&[("path", &long)]).file("x", ""), "4096"),
        (Tar::default().pax(&[("size", "99999999999999999999")]).file("x", ""), "number"),
        (Tar::default().pax(&[("size", "18446744073709551615")]).file("x", ""), ""),
        (Tar::default().file("x", "").pax(&[("path", "y")]), "without its entry"),
        (Tar { bytes: vec![1; 1024] }, "no tar"),
        (Tar::default().pax(&[("path", &"p".repeat(2 << 20))]).file("x", ""), "over the limit"),
    ] {
        let message = ingest(&f.store, &tar.end()).unwrap_err().to_string();
        assert!(message.contains(why), "{message}");
        assert!(!message.contains('\n'));
    }
    assert_eq!(std::fs::read_dir(f.store.root().join("layers")).unwrap().count(), 0);
}

#[test]
fn a_pax_size_counts_wherever_a_headers_would() {
    let f = open();
    // What reads the header's size 0 sees the inner header as an entry of its own.
    let inner = Tar::default().file("smuggled", "").bytes;
    let mut tar = Tar::default().pax(&[("size", &inner.len().to_string())]);
    let header_at = tar.bytes.len();
    tar = tar.file("outer", "");
    tar.bytes.truncate(header_at + 512);
    tar.bytes.extend_from_slice(&inner);
    let layer = ingest(&f.store, &tar.file("after", "x").end()).unwrap();
    assert!(!layer.join("smuggled").exists());
    assert_eq!(std::fs::read(layer.join("outer")).unwrap(), inner);
    assert!(layer.join("after").exists());
}

#[test]
fn overlays_own_attributes_are_not_taken_from_a_tar() {
    let f = open();
    let records = [
        ("SCHILY.xattr.trusted.overlay.redirect", "/etc"),
        ("SCHILY.xattr.user.overlay.opaque", "y"),
        ("SCHILY.xattr.user.fine", "1"),
    ];
    let layer = ingest(&f.store, &Tar::default().pax(&records).dir("d/").end()).unwrap();
    assert_eq!(xattr(&layer.join("d"), "trusted.overlay.redirect"), None);
    assert_eq!(xattr(&layer.join("d"), "user.overlay.opaque"), None);
}

#[test]
fn what_follows_the_archive_is_hashed_and_otherwise_ignored() {
    let f = open();
    let mut tar = Tar::default().file("x", "x").end();
    tar.extend_from_slice(&Tar::default().file("hidden", "").end());
    tar.extend_from_slice(b"and what is no tar at all");
    let layer = ingest(&f.store, &tar).unwrap();
    assert_eq!(std::fs::read_dir(layer).unwrap().count(), 1);
}

#[test]
fn a_sparse_bomb_costs_no_space_and_a_longer_one_is_refused() {
    let f = open();
    // A terabyte of hole is a file of no blocks; more is refused in layer::read's own tests.
    let records = [("GNU.sparse.major", "0"), ("GNU.sparse.size", "1099511627776"), ("GNU.sparse.map", "0,1")];
    let layer = ingest(&f.store, &Tar::default().pax(&records).file("hole", "x").end()).unwrap();
    assert!(std::fs::metadata(layer.join("hole")).unwrap().blocks() < 100);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]
    /// Entries of few names, so that they meet: links onto folders onto whiteouts onto files.
    #[test]
    fn no_order_of_entries_reaches_outside(
        entries in proptest::collection::vec((0..7_usize, 0..NAMES.len(), 0..NAMES.len()), 1..12),
    ) {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let outside = folder.path().join("outside");
        std::fs::create_dir_all(outside.join("d")).unwrap();
        std::fs::write(outside.join("f"), "untouched").unwrap();
        let away = outside.to_str().unwrap();
        let store = Store::open(&folder.path().join("root")).unwrap();
        let mut tar = Tar::default();
        for (kind, name, target) in entries {
            let (name, target) = (NAMES[name], NAMES[target]);
            tar = match kind {
                0 => tar.file(name, "data"),
                1 => tar.dir(name),
                2 => tar.symlink(name, target),
                3 => tar.symlink(name, away),
                4 => tar.link(name, target),
                5 => tar.file(&match name.rsplit_once('/') {
                    Some((folder, last)) => format!("{folder}/.wh.{last}"),
                    None => format!(".wh.{name}"),
                }, ""),
                _ => tar.file(&format!("{name}/.wh..wh..opq"), ""),
            };
        }
        let _ = ingest(&store, &tar.end());
        let left: std::collections::BTreeSet<_> = std::fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
        proptest::prop_assert_eq!(left, ["d".into(), "f".into()].into_iter().collect());
        proptest::prop_assert_eq!(std::fs::read_dir(outside.join("d")).unwrap().count(), 0);
        proptest::prop_assert_eq!(std::fs::read(outside.join("f")).unwrap(), b"untouched");
        proptest::prop_assert_eq!(std::fs::metadata(outside.join("f")).unwrap().nlink(), 1);
    }
}

const NAMES: [&str; 9] = ["a", "b", "a/b", "b/a", "a/f", "b/d/x", "a/a/f", "../a", "a/../b"];
