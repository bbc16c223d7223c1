#![allow(clippy::unwrap_used)]
use super::write::Placement;
use super::*;
use crate::ignore::IgnoreRules;
use crate::tree::{Manifest, Tree};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

/// A source tree, a layer below and an empty upper.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        for name in ["source", "below", "upper"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Place { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    /// Copies `source/<start>` to `to`.
    fn copy(&self, start: &str, to: &str) -> StepResult<bool> {
        let below = view(&[self.path("below")])?;
        let mut writer = LayerWriter::new(&self.path("upper"), below, (0, 0), 1000, None)?;
        let tree = Tree::context(&self.path("source"), IgnoreRules::default())?;
        let selected = tree.select(start)?;
        let manifest = Manifest::of(&tree, &selected[0].path, &IgnoreRules::default())?;
        let to = writer.resolve(Path::new(to))?;
        writer.copy(&tree, &selected[0].path, &manifest, &to.path, &Placement::default())?;
        writer.finish()
    }
}

#[test]
fn files_folders_and_links_arrive_with_their_attributes() {
    let place = Place::new();
    place.write("source/d/f", "hello");
    place.write("source/d/sub/x", "x");
    symlink("f", place.path("source/d/l")).unwrap();
    fs::hard_link(place.path("source/d/f"), place.path("source/d/g")).unwrap();
    fs::set_permissions(place.path("source/d/f"), fs::Permissions::from_mode(0o751)).unwrap();
    assert!(!place.copy("d", "/a/b").unwrap());
    let upper = place.path("upper/a/b");
    assert_eq!(fs::read_to_string(upper.join("f")).unwrap(), "hello");
    assert_eq!(fs::metadata(upper.join("f")).unwrap().mode() & 0o7777, 0o751);
    assert_eq!(fs::metadata(upper.join("f")).unwrap().ino(), fs::metadata(upper.join("g")).unwrap().ino());
    assert_eq!(fs::read_link(upper.join("l")).unwrap(), Path::new("f"));
    let source = fs::metadata(place.path("source/d/sub/x")).unwrap();
    let copy = fs::metadata(upper.join("sub/x")).unwrap();
    assert_eq!((copy.mtime(), copy.mtime_nsec()), (source.mtime(), 0));
    assert_eq!(fs::metadata(place.path("upper/a")).unwrap().mtime(), 1000);
}

#[test]
fn a_folder_of_the_layers_below_keeps_its_mode_and_time() {
    let place = Place::new();
    place.write("below/tmp/old", "");
    fs::set_permissions(place.path("below/tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    place.write("source/f", "x");
    place.copy("f", "/tmp/f").unwrap();
    assert_eq!(fs::metadata(place.path("upper/tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert!(!place.path("upper/tmp/old").exists());
}

#[test]
fn a_destination_link_is_followed_inside_the_root_only() {
    let place = Place::new();
    let host = place.path("host");
    fs::create_dir(&host).unwrap();
    symlink(&host, place.path("below/etc")).unwrap();
    symlink("../../../../../../../../tmp", place.path("below/up")).unwrap();
    fs::create_dir_all(place.path("below/usr/lib")).unwrap();
    symlink("usr/lib", place.path("below/lib")).unwrap();
    place.write("source/f", "x");
    place.copy("f", "/etc/f").unwrap();
    place.copy("f", "/up/f").unwrap();
    place.copy("f", "/lib/f").unwrap();
    assert!(fs::read_dir(&host).unwrap().next().is_none());
    assert!(place.path("upper").join(host.strip_prefix("/").unwrap()).join("f").exists());
    assert!(place.path("upper/tmp/f").exists());
    assert!(place.path("upper/usr/lib/f").exists());
}

#[test]
fn a_source_link_never_leads_out_of_the_context() {
    let place = Place::new();
    place.write("secret", "s");
    symlink(place.path("secret"), place.path("source/out")).unwrap();
    symlink("../secret", place.path("source/up")).unwrap();
    symlink("/", place.path("source/root")).unwrap();
    for source in ["out", "up", "root/etc/passwd", "../secret"] {
        let error = place.copy(source, "/x").unwrap_err().to_string();
        assert!(error.contains("not found in the build context"), "{source}: {error}");
    }
    place.write("source/d/f", "");
    symlink("/etc/passwd", place.path("source/d/inner")).unwrap();
    place.copy("d", "/y").unwrap();
    assert!(fs::symlink_metadata(place.path("upper/y/inner")).unwrap().is_symlink());
}

#[test]
fn files_and_folders_do_not_replace_each_other() {
    let place = Place::new();
    place.write("below/file", "");
    fs::create_dir(place.path("below/folder")).unwrap();
    fs::create_dir(place.path("below/target")).unwrap();
    symlink("target", place.path("below/link")).unwrap();
    place.write("source/d/file/x", "");
    place.write("source/e/folder", "");
    place.write("source/g/link/x", "");
    assert!(place.copy("d", "/").unwrap_err().to_string().contains("cannot copy to non-directory: /file"));
    assert!(place.copy("e", "/").unwrap_err().to_string().contains("cannot replace the directory \"/folder\""));
    assert!(place.copy("g", "/").unwrap_err().to_string().contains("cannot copy to non-directory: /link"));
}

#[test]
fn digests_see_content_and_modes_but_no_times() {
    let place = Place::new();
    place.write("source/d/f", "one");
    let digest = || {
        let tree = Tree::context(&place.path("source"), IgnoreRules::default()).unwrap();
        Manifest::of(&tree, Path::new("d"), &IgnoreRules::default()).unwrap().digest(None, None)
    };
    let first = digest();
    fs::File::open(place.path("source/d/f")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(digest(), first);
    fs::set_permissions(place.path("source/d/f"), fs::Permissions::from_mode(0o600)).unwrap();
    let second = digest();
    assert_ne!(second, first);
    place.write("source/d/f", "two");
    assert_ne!(digest(), second);
}

#[test]
fn ignored_files_are_not_there() {
    let place = Place::new();
    for name in ["source/a.md", "source/b.txt", "source/d/keep", "source/d/drop", "source/e/x"] {
        place.write(name, "");
    }
    let tree = |rules: &str| Tree::context(&place.path("source"), IgnoreRules::parse(rules).unwrap()).unwrap();
    let list = |rules: &str| {
        let tree = tree(rules);
        let manifest = Manifest::of(&tree, Path::new(""), &IgnoreRules::default()).unwrap();
        manifest.entries.iter().skip(1).map(|e| e.path.display().to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(list("*.md\ne"), "b.txt d d/drop d/keep");
    assert_eq!(list("d\n!d/keep"), "a.md b.txt d d/keep e e/x");
    assert_eq!(list("*\n!b.txt"), "b.txt");
    let names = |source: &str| {
        let found = tree("*.md").select(source).unwrap();
        found.iter().map(|s| s.named.display().to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("*"), "b.txt d e");
    assert_eq!(names("d/[k-z]*"), "d/keep");
    assert_eq!(names("d/none*"), "");
    assert!(tree("").select("none/x*").is_err());
    let error = tree("*.md").select("a.md").unwrap_err();
    assert!(matches!(error, StepError::Wrong { hint: Some(hint), .. } if hint.contains("ignore file")));
    let error = tree("").select("../x").unwrap_err();
    assert!(matches!(error, StepError::Wrong { hint: Some(hint), .. } if hint.contains("nothing outside")));
    let error = tree("").select("b.tyt").unwrap_err();
    assert!(matches!(error, StepError::Wrong { hint: Some(hint), .. } if hint.contains("did you mean \"b.txt\"")));
}
