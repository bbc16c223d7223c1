//! The same layers, unpacked by us and mounted as overlay, and unpacked by umoci: the same files.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod kit;

use kit::{Tar, ingest, listing, open};
use oci::Digest;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use store::{ArchiveFormat, Store};

/// Set for the copy of these tests that runs in a user namespace.
const UNPRIVILEGED: &str = "CTR_STORE_TEST_UNPRIVILEGED";

#[track_caller]
fn sh(script: &str) -> Vec<u8> {
    let out = Command::new("bash").args(["-ec", script]).output().unwrap();
    assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// A layer's tar, made by GNU tar of what `script` makes.
fn layer(folder: &Path, script: &str, format: &str) -> Vec<u8> {
    let source = folder.join("source");
    // umoci does not know GNU's own sparse files.
    let more = if format == "pax" { "-S --xattrs --xattrs-include='*'" } else { "" };
    sh(&format!(
        "rm -rf '{0}'; mkdir '{0}'; cd '{0}'; {script}\ntar -c --format {format} {more} --sort=name -C '{0}' .",
        source.display()
    ))
}

struct Overlay(PathBuf);

impl Overlay {
    /// `layers` lowest first.
    fn mount(at: &Path, layers: &[PathBuf]) -> Overlay {
        std::fs::create_dir(at).unwrap();
        // An empty one on top: overlay wants two.
        let empty = at.with_extension("empty");
        std::fs::create_dir(&empty).unwrap();
        let lower: Vec<String> =
            [&empty].into_iter().chain(layers.iter().rev()).map(|path| path.display().to_string()).collect();
        sh(&format!("mount -t overlay overlay -o 'lowerdir={}' '{}'", lower.join(":"), at.display()));
        Overlay(at.to_owned())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn umoci_unpacks_the_same() {
    let f = open();
    let long = format!("{}/{}", "l".repeat(220), "m".repeat(220));
    let base = format!(
        "mkdir -p etc usr/lib var/cache/a var/cache/b gone opaque/sub {long}; echo 1 > etc/kept; echo 2 > etc/replaced
         echo 3 > gone/f; echo 4 > opaque/sub/f; echo 5 > opaque/g; ln -s usr/lib lib; ln -s usr/lib folder-to-be
         echo 6 > usr/lib/so; ln usr/lib/so usr/lib/so.1; ln usr/lib/so etc/so; echo deep > {long}/f
         cp /bin/true etc/cap; setcap cap_net_raw+ep etc/cap; setfattr -n user.own -v mine etc/kept
         chown 4000000000:3000000000 etc/kept; chmod 4711 etc/replaced; chmod 1777 var/cache
         mkfifo var/fifo; mknod var/null c 1 3; mknod var/disk b 7 200; truncate -s 3M var/sparse; echo end >> var/sparse
         echo x > $'non-utf8-\\xff\\xfe'; touch -d @1234567890.123456789 etc var usr/lib/so; touch -d @-100 var/sparse"
    );
    let over = "mkdir -p etc opaque folder-to-be usr/lib var; touch etc/.wh.replaced .wh.gone opaque/.wh..wh..opq usr/lib/.wh.so.1
         echo new > opaque/new; echo inside > folder-to-be/f; echo again > etc/kept; chmod 600 etc/kept; ln etc/kept usr/lib/kept
         touch -d @1000000000 usr/lib var";
    for format in ["pax", "gnu"] {
        let tars = [layer(&f.path, &base, format), layer(&f.path, over, format)];
        let folders = kit::chain(&f, &tars).unwrap();
        let merged = f.path.join(format!("merged-{format}"));
        let _overlay = Overlay::mount(&merged, &folders);
        let image = f.store.images().unwrap().into_iter().next().unwrap();
        let name: oci::Reference = format!("witness:{format}").parse().unwrap();
        f.store.tag(&image.id, &name).unwrap();
        let archive = f.path.join(format!("{format}.tar"));
        let mut out = std::fs::File::create(&archive).unwrap();
        f.store.save(&[&name.to_string()], ArchiveFormat::Oci, &mut out).unwrap();
        let layout = f.path.join(format!("layout-{format}"));
        let bundle = f.path.join(format!("bundle-{format}"));
        sh(&format!(
            "skopeo copy -q 'oci-archive:{0}' 'oci:{1}:x' && umoci unpack --image '{1}:x' '{2}'",
            archive.display(),
            layout.display(),
            bundle.display()
        ));
        let (theirs, ours) = (listing(&bundle.join("rootfs")), listing(&merged));
        assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>(), "{format}");
        for (path, line) in &theirs {
            assert_eq!(&ours[path], line, "{format}: {path:?}");
        }
        f.store.remove_image(&name.to_string(), true, &|_| false).unwrap();
    }
}

/// Runs this file's `inside` in a user namespace, where nothing of the machine may be touched.
#[test]
fn without_privilege_devices_are_left_out_and_the_rest_is_there() {
    let out = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "inside", "--nocapture"])
        .env(UNPRIVILEGED, "yes")
        .output()
        .unwrap();
    if String::from_utf8_lossy(&out.stderr).contains("unshare failed") {
        eprintln!("SKIPPED: no user namespaces here");
        return;
    }
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn inside() {
    if std::env::var_os(UNPRIVILEGED).is_none() {
        return;
    }
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = Store::open(&folder.path().join("root")).unwrap();
    let tar = Tar::default()
        .dir("dev/")
        .entry(tar::EntryType::Char, "dev/null", "", b"")
        .entry(tar::EntryType::Block, "dev/disk", "", b"")
        .entry(tar::EntryType::Fifo, "dev/fifo", "", b"")
        .file("dev/after", "x")
        .file(".wh.gone", "")
        .dir("opaque/")
        .file("opaque/.wh..wh..opq", "")
        .pax(&[("SCHILY.xattr.trusted.x", "1"), ("SCHILY.xattr.user.own", "mine")])
        .file("attributes", "y")
        .end();
    // A character device 0:0 is a whiteout, which anyone may make; the header's numbers are other ones.
    let mut tar = tar;
    for (at, field) in [(512 + 329, b"0000001\0"), (2 * 512 + 329, b"0000007\0")] {
        tar[at..at + 8].copy_from_slice(field);
        let start = at - 329;
        tar[start + 148..start + 156].fill(b' ');
        let sum: u32 = tar[start..start + 512].iter().map(|&b| u32::from(b)).sum();
        tar[start + 148..start + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let layer = ingest(&store, &tar).unwrap();
    assert!(!layer.join("dev/null").exists() && !layer.join("dev/disk").exists());
    assert!(std::fs::metadata(layer.join("dev/fifo")).unwrap().file_type().is_fifo());
    assert_eq!(std::fs::read(layer.join("dev/after")).unwrap(), b"x");
    assert!(kit::is_whiteout(&layer.join("gone")));
    assert_eq!(kit::xattr(&layer.join("opaque"), "user.overlay.opaque").unwrap(), b"y");
    assert_eq!(kit::xattr(&layer.join("attributes"), "trusted.x"), None);
    assert_eq!(store.layer_dir(&Digest::sha256(&tar)), layer);
    assert_eq!(std::fs::metadata(layer.join("attributes")).unwrap().uid(), 0);
}
