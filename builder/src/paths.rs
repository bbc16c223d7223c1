//! Resolving a path the way it would resolve inside a container: links are followed, but `/` is the tree's own root
//! and `..` stops there. The result names real folders only, so that whoever opens it can demand "no links".

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Folder,
    Link(PathBuf),
    Other,
}

/// A tree that can say what stands at a path none of whose parents is a link. The root is the empty path.
pub(crate) trait Lookup {
    /// None: nothing is there.
    fn look_up(&self, path: &Path) -> io::Result<Option<Found>>;
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Relative to the root, without links, `.` and `..`; empty for the root.
    pub(crate) path: PathBuf,
    /// What stands there; never a link if the last component was to be followed.
    pub(crate) found: Option<Found>,
}

/// Resolves `path` beneath the tree's root, its last component too where `follow_last`. What is missing is taken as
/// it is written.
pub(crate) fn resolve(tree: &dyn Lookup, path: &Path, follow_last: bool) -> io::Result<Resolved> {
    let mut pending: VecDeque<OsString> = components(path);
    let mut done = PathBuf::new();
    let mut found = Some(Found::Folder);
    let mut links = 0;
    while let Some(name) = pending.pop_front() {
        if name == ".." {
            done.pop();
            found = tree.look_up(&done)?;
            continue;
        }
        match found {
            Some(Found::Other | Found::Link(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            Some(Found::Folder) => {}
            None => {
                done.push(name);
                continue;
            }
        }
        done.push(name);
        found = tree.look_up(&done)?;
        if let Some(Found::Link(target)) = &found
            && (follow_last || !pending.is_empty())
        {
            links += 1;
            if links > MAX_LINKS {
                return Err(io::Error::other("too many levels of symbolic links"));
            }
            done.pop();
            if target.is_absolute() {
                done.clear();
            }
            for component in components(target).into_iter().rev() {
                pending.push_front(component);
            }
            found = Some(Found::Folder);
        }
    }
    Ok(Resolved { path: done, found })
}

fn components(path: &Path) -> VecDeque<OsString> {
    let kept = path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
    kept.map(|component| component.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;

    struct Fake(BTreeMap<&'static str, Found>);

    impl Lookup for Fake {
        fn look_up(&self, path: &Path) -> io::Result<Option<Found>> {
            Ok(match path.to_str() {
                Some("") => Some(Found::Folder),
                Some(path) => self.0.get(path).cloned(),
                None => None,
            })
        }
    }

    #[test]
    fn links_stay_beneath_the_root() {
        let link = |to: &str| Found::Link(PathBuf::from(to));
        let tree = Fake(BTreeMap::from([
            ("usr", Found::Folder),
            ("usr/lib", Found::Folder),
            ("lib", link("usr/lib")),
            ("etc", link("/host/etc")),
            ("up", link("../../../usr")),
            ("loop", link("loop")),
            ("file", Found::Other),
            ("last", link("usr/lib")),
        ]));
        let path = |text: &str, follow| resolve(&tree, Path::new(text), follow).map(|r| r.path.display().to_string());
        for (text, expected) in [
            ("", ""),
            ("/", ""),
            ("/lib/x", "usr/lib/x"),
            ("lib/../x", "usr/x"),
            ("../../x", "x"),
            ("/etc/passwd", "host/etc/passwd"),
            ("up/lib", "usr/lib"),
            ("new/a/../b", "new/b"),
            ("last", "usr/lib"),
        ] {
            assert_eq!(path(text, true).unwrap(), expected, "{text}");
        }
        assert_eq!(path("last", false).unwrap(), "last");
        assert!(path("loop", true).is_err());
        assert!(path("file/x", true).is_err());
        assert_eq!(resolve(&tree, Path::new("nothing"), true).unwrap().found, None);
    }
}
