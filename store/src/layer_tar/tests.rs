#![allow(clippy::unwrap_used)]

use super::*;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Stdio};

fn tar_of(folder: &std::path::Path, purpose: Purpose<'_>) -> (Vec<u8>, Written) {
    let mut bytes = Vec::new();
    let written = write_layer(File::open(folder).unwrap().as_fd(), purpose, "trusted.overlay.", &mut bytes).unwrap();
    (bytes, written)
}

fn listed(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect()
}

const NORMALISE: Purpose<'_> = Purpose::Normalise { clamp: None };

#[test]
fn entries_are_sorted_and_overlays_marks_become_whiteouts() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    std::fs::create_dir(root.join("b")).unwrap();
    std::fs::write(root.join("b/z"), "z").unwrap();
    std::fs::write(root.join("a"), "a").unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    rustix::fs::setxattr(root.join("b"), "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(root.join("b"), "trusted.overlay.impure", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    let (tar, written) = tar_of(root, NORMALISE);
    assert_eq!(listed(&tar), ["a", "b/", "b/.wh..wh..opq", "b/z", ".wh.gone"]);
    assert_eq!(written, Written { entries: 5, bytes: 2 });
    let mut left = [0u8; 256];
    let length = rustix::fs::listxattr(root.join("b"), &mut left[..]).unwrap();
    assert_eq!(&left[..length], b"trusted.overlay.opaque\0");
}

/// Runs something as soon as the header of an entry was written.
struct At<'a> {
    bytes: Vec<u8>,
    entry: &'static [u8],
    then: &'a dyn Fn(),
}

impl Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        if bytes.starts_with(self.entry) {
            (self.then)();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_changes_meanwhile_spoils_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let block = vec![b'x'; 3 * (128 << 10) + 5];
    std::fs::write(root.join("a"), &block).unwrap();
    std::fs::write(root.join("b"), "b").unwrap();
    std::fs::create_dir_all(root.join("c/d")).unwrap();
    std::fs::write(root.join("z"), "z").unwrap();
    let meanwhile = || {
        File::options().write(true).open(root.join("a")).unwrap().set_len(7).unwrap();
        std::fs::remove_file(root.join("b")).unwrap();
        std::fs::remove_dir_all(root.join("c")).unwrap();
    };
    let mut out = At { bytes: Vec::new(), entry: b"a\0", then: &meanwhile };
    let owner = |uid, gid| (uid + 1000, gid + 2000);
    let folder = File::open(root).unwrap();
    write_layer(folder.as_fd(), Purpose::Live { owner: &owner }, "trusted.overlay.", &mut out).unwrap();
    assert_eq!(listed(&out.bytes), ["a", "z"]);
    let mut archive = tar::Archive::new(out.bytes.as_slice());
    let mut first = archive.entries().unwrap().next().unwrap().unwrap();
    let meta = std::fs::metadata(root).unwrap();
    let (uid, gid) = (u64::from(meta.uid()) + 1000, u64::from(meta.gid()) + 2000);
    assert_eq!((first.header().uid().unwrap(), first.header().gid().unwrap()), (uid, gid));
    let mut content = Vec::new();
    first.read_to_end(&mut content).unwrap();
    assert_eq!(content.len(), block.len());
    assert!(content.starts_with(b"xxxxxxx\0") && content[7..].iter().all(|byte| *byte == 0));
}

#[test]
fn the_layer_reads_back_to_the_bytes_it_was_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    std::fs::create_dir_all(root.join("d/e")).unwrap();
    std::fs::write(root.join("d/f"), vec![7; 100_000]).unwrap();
    std::fs::hard_link(root.join("d/f"), root.join("link")).unwrap();
    symlink("../x", root.join("d/s")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("sock")).unwrap();
    let (first, _) = tar_of(root, NORMALISE);
    assert_eq!(first, tar_of(root, Purpose::Read).0);
    assert_eq!(std::fs::metadata(root.join("d/f")).unwrap().mtime_nsec(), 0);
    assert!(!root.join("sock").exists());
}

#[test]
fn gnu_tar_unpacks_long_names_big_ids_and_attributes() {
    let dir = tempfile::tempdir().unwrap();
    let (root, out) = (dir.path().join("in"), dir.path().join("out"));
    let long = "n".repeat(200);
    std::fs::create_dir_all(root.join(&long)).unwrap();
    std::fs::create_dir(&out).unwrap();
    let file = root.join(&long).join("file");
    std::fs::write(&file, "text").unwrap();
    std::os::unix::fs::chown(&file, Some(3_000_000), Some(4_000_000)).unwrap();
    symlink("t".repeat(150), root.join("link")).unwrap();
    let (tar, _) = tar_of(&root, NORMALISE);
    let mut child =
        Command::new("tar").args(["-x", "--numeric-owner", "-C"]).arg(&out).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&tar).unwrap();
    assert!(child.wait().unwrap().success());
    let unpacked = std::fs::metadata(out.join(&long).join("file")).unwrap();
    assert_eq!((unpacked.uid(), unpacked.gid(), unpacked.size()), (3_000_000, 4_000_000, 4));
    assert_eq!(std::fs::read_link(out.join("link")).unwrap().as_os_str().len(), 150);
}

#[test]
fn a_name_that_would_be_a_whiteout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".wh.x"), "").unwrap();
    let error = write_layer(File::open(dir.path()).unwrap().as_fd(), NORMALISE, "trusted.overlay.", &mut Vec::new())
        .unwrap_err();
    assert!(error.to_string().contains("reserved for whiteouts"), "{error}");
}

#[test]
fn times_after_the_clamp_become_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "").unwrap();
    tar_of(dir.path(), Purpose::Normalise { clamp: Some(1000) });
    assert_eq!(std::fs::metadata(dir.path().join("f")).unwrap().mtime(), 1000);
}
