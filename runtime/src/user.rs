//! Users and groups out of the container's own /etc/passwd and /etc/group. The files are the image's: opened beneath the
//! root, never through a link out of it, and read within bounds.

use linux::resolve;
use oci::{NameOrId, UserSpec};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// The most read of passwd or group, in bytes.
const MAX_FILE_BYTES: u64 = 8 << 20;
/// The kernel's limit on supplementary groups (NGROUPS_MAX).
const MAX_GROUPS: usize = 65_536;

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// The groups that list the user as a member (none where the group was given).
    pub additional_gids: Vec<u32>,
    /// Home from passwd; `/` if the user has no line there.
    pub home: String,
}

/// Why a user could not be resolved.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UserError {
    /// A name without a line in passwd.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// A name without a line in group.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A file is there but can't be read.
    #[error("read {path} in the container: {reason}")]
    Unreadable {
        /// The file in the container.
        path: &'static str,
        /// Why.
        reason: String,
    },
    /// A group number that is none.
    #[error("group {0:?}: ids must be in range 0-2147483647")]
    Range(String),
}

/// Resolves `user[:group]` with the files beneath `root`.
pub fn resolve_user(root: BorrowedFd<'_>, user: &UserSpec) -> Result<ResolvedUser, UserError> {
    resolve_user_in(user, &read(root, "/etc/passwd")?, &read(root, "/etc/group")?)
}

/// Resolves `--group-add` values: numbers, or names in the container's /etc/group.
pub fn resolve_groups(root: BorrowedFd<'_>, groups: &[String]) -> Result<Vec<u32>, UserError> {
    let file = if groups.iter().all(|name| is_number(name)) { String::new() } else { read(root, "/etc/group")? };
    let gid = |name: &String| {
        if is_number(name) {
            return id(name).ok_or_else(|| UserError::Range(name.clone()));
        }
        find_group(&file, name).ok_or_else(|| UserError::NoGroup(name.clone()))
    };
    groups.iter().map(gid).collect()
}

/// The texts of a root's passwd and group with one more user and, where that is missing, his group. None where the root knows
/// the user already, by number. A name that is somebody else's gives way to the number.
pub fn files_with_user(
    root: BorrowedFd<'_>,
    name: &str,
    (uid, gid): (u32, u32),
    home: &str,
) -> Result<Option<(String, String)>, UserError> {
    let (passwd_file, group_file) = (read(root, "/etc/passwd")?, read(root, "/etc/group")?);
    if passwd(&passwd_file).any(|line| line.uid == uid) {
        return Ok(None);
    }
    let plain = |text: &str| !text.is_empty() && !text.contains([':', '\n', '#']);
    let free = |name: &str, taken: bool, id: u32| if plain(name) && !taken { name.to_owned() } else { id.to_string() };
    let user = free(name, passwd(&passwd_file).any(|line| line.name == name), uid);
    let home = if plain(home) { home } else { "/" };
    let with_line = |file: &str, line: String| {
        let end = if file.is_empty() || file.ends_with('\n') { "" } else { "\n" };
        format!("{file}{end}{line}\n")
    };
    let group = match groups(&group_file).any(|(_, known, _)| known == gid) {
        true => group_file.clone(),
        false => {
            let name = free(name, find_group(&group_file, name).is_some(), gid);
            with_line(&group_file, format!("{name}:x:{gid}:"))
        }
    };
    Ok(Some((with_line(&passwd_file, format!("{user}:*:{uid}:{gid}::{home}:/bin/sh")), group)))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A uid or gid as these files and options may hold it: never rounded, never wrapped.
fn id(text: &str) -> Option<u32> {
    if !is_number(text) {
        return None;
    }
    text.parse::<u32>().ok().filter(|id| i32::try_from(*id).is_ok())
}

/// A file's text; a root without it has an empty one.
fn read(root: BorrowedFd<'_>, path: &'static str) -> Result<String, UserError> {
    let unreadable = |reason: String| UserError::Unreadable { path, reason };
    let fd = match resolve::open_regular(root, Path::new(path)) {
        Ok(fd) => fd,
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(error) if error.errno == Errno::INVAL => return Err(unreadable("it is not a regular file".to_owned())),
        Err(error) => return Err(unreadable(error.errno.to_string())),
    };
    let mut bytes = Vec::new();
    File::from(fd).take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| unreadable(e.to_string()))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE_BYTES) {
        return Err(unreadable(format!("it is larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// The well-formed lines of a passwd file; others are skipped, as libc does.
fn passwd(file: &str) -> impl Iterator<Item = PasswdLine<'_>> {
    file.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let (_password, uid, gid) = (fields.next()?, id(fields.next()?)?, id(fields.next()?)?);
        let home = fields.nth(1).unwrap_or_default();
        Some(PasswdLine { name, uid, gid, home })
    })
}

/// The well-formed lines of a group file: name, gid, members.
fn groups(file: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    file.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = id(fields.nth(1)?)?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn find_group(file: &str, wanted: &str) -> Option<u32> {
    groups(file).find(|(name, ..)| *name == wanted).map(|(_, gid, _)| gid)
}

/// Resolves `user[:group]` with the text of these files.
pub fn resolve_user_in(user: &UserSpec, passwd_file: &str, group_file: &str) -> Result<ResolvedUser, UserError> {
    let line = match &user.user {
        None => passwd(passwd_file).find(|line| line.uid == 0),
        Some(NameOrId::Id(uid)) => passwd(passwd_file).find(|line| line.uid == *uid),
        Some(NameOrId::Name(name)) => {
            let found = passwd(passwd_file).find(|line| line.name == name);
            Some(found.ok_or_else(|| UserError::NoUser(name.clone()))?)
        }
    };
    let uid = match (&user.user, &line) {
        (Some(NameOrId::Id(uid)), _) => *uid,
        (_, Some(line)) => line.uid,
        (_, None) => 0,
    };
    let home = line.as_ref().map(|line| line.home).filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
    let gid = match &user.group {
        Some(NameOrId::Id(gid)) => *gid,
        Some(NameOrId::Name(name)) => find_group(group_file, name).ok_or_else(|| UserError::NoGroup(name.clone()))?,
        None => line.as_ref().map_or(0, |line| line.gid),
    };
    let mut additional_gids = Vec::new();
    if let (None, Some(line)) = (&user.group, &line) {
        let member = |members: &str| members.split(',').any(|member| member == line.name);
        let of_user = groups(group_file).filter(|(_, _, members)| member(members)).map(|(_, gid, _)| gid);
        additional_gids.extend(of_user.take(MAX_GROUPS));
        additional_gids.sort_unstable();
        additional_gids.dedup();
    }
    Ok(ResolvedUser { uid, gid, additional_gids, home })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::fs::FileType;
    use std::os::fd::AsFd as _;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\n# c:x:1:1::/:\nweb:x:33:33:w:/var/www:/bin/sh\nodd:x:4294967296:0::/:\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nlogs:x:4:root,web\nmore:x:50:web\n";

    fn resolve(text: &str) -> Result<ResolvedUser, UserError> {
        resolve_user_in(&text.parse().unwrap(), PASSWD, GROUP)
    }

    fn user(uid: u32, gid: u32, additional_gids: &[u32], home: &str) -> ResolvedUser {
        ResolvedUser { uid, gid, additional_gids: additional_gids.to_vec(), home: home.to_owned() }
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(resolve(""), Ok(user(0, 0, &[4], "/root")));
        assert_eq!(resolve("web"), Ok(user(33, 33, &[4, 50], "/var/www")));
        assert_eq!(resolve("33"), Ok(user(33, 33, &[4, 50], "/var/www")));
        assert_eq!(resolve("web:logs"), Ok(user(33, 4, &[], "/var/www")));
        assert_eq!(resolve("1000"), Ok(user(1000, 0, &[], "/")));
        assert_eq!(resolve("1000:1001"), Ok(user(1000, 1001, &[], "/")));
        assert_eq!(
            resolve("nobody").unwrap_err().to_string(),
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert_eq!(
            resolve("web:none").unwrap_err().to_string(),
            "unable to find group none: no matching entries in group file"
        );
        assert!(resolve("odd").is_err(), "an id that overflows is no id");
    }

    #[test]
    fn the_files_of_the_root_are_read_not_those_of_the_host() {
        use std::os::fd::AsFd;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("etc/passwd")).unwrap();
        let root = resolve::open_root(dir.path()).unwrap();
        let root_user = "root".parse().unwrap();
        assert!(resolve_user(root.as_fd(), &root_user).is_err(), "the link leads to itself, in the root");
        std::fs::remove_file(dir.path().join("etc/passwd")).unwrap();
        assert_eq!(resolve_user(root.as_fd(), &root_user), Err(UserError::NoUser("root".into())));
        assert_eq!(resolve_groups(root.as_fd(), &["7".into()]), Ok(vec![7]));
        assert!(resolve_groups(root.as_fd(), &["4294967296".into()]).is_err());
    }

    /// Opening a device is more than reading a file: some of the host's do things to it.
    #[test]
    fn a_user_is_added_where_nobody_has_his_number() {
        let dir = tempfile::tempdir().unwrap();
        let root = linux::resolve::open_root(dir.path()).unwrap();
        let with = |name: &str, ids| files_with_user(root.as_fd(), name, ids, "/work").unwrap();
        let lines = |passwd: &str, group: &str| Some((passwd.to_owned(), group.to_owned()));
        assert_eq!(with("me", (7, 8)), lines("me:*:7:8::/work:/bin/sh\n", "me:x:8:\n"));
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "me:x:5:5::/:/bin/sh").unwrap();
        std::fs::write(dir.path().join("etc/group"), "eight:x:8:\n").unwrap();
        assert_eq!(with("me", (5, 5)), None);
        assert_eq!(with("me", (7, 8)), lines("me:x:5:5::/:/bin/sh\n7:*:7:8::/work:/bin/sh\n", "eight:x:8:\n"));
    }

    #[test]
    fn only_regular_files_are_opened() {
        use std::os::fd::AsFd;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let root = resolve::open_root(dir.path()).unwrap();
        let etc = resolve::open_root(&dir.path().join("etc")).unwrap();
        // /dev/full, a fifo; nobody has ever the other end open.
        for (kind, major, minor) in
            [(FileType::CharacterDevice, 1, 7), (FileType::Fifo, 0, 0), (FileType::Socket, 0, 0)]
        {
            linux::file::make_node(etc.as_fd(), "passwd".as_ref(), kind, 0o666, major, minor).unwrap();
            let error = resolve_user(root.as_fd(), &"root".parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{error}");
            std::fs::remove_file(dir.path().join("etc/passwd")).unwrap();
        }
        let sparse = std::fs::File::create(dir.path().join("etc/passwd")).unwrap();
        sparse.set_len(MAX_FILE_BYTES + 1).unwrap();
        let error = resolve_user(root.as_fd(), &"root".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("larger than"), "{error}");
    }

    proptest! {
        #[test]
        fn no_file_makes_a_user_root_who_is_not(name in "[a-z]{1,8}", file in "([a-z]{0,4}[:x]{0,3}[0-9]{0,12}[:]{0,2}[0-9]{0,12}\n){0,8}") {
            let spec = UserSpec { user: Some(NameOrId::Name(name.clone())), group: None };
            if let Ok(found) = resolve_user_in(&spec, &file, "") {
                let line = file.lines().find(|l| l.trim().split(':').next() == Some(name.as_str()) && l.contains(&format!(":{}:", found.uid)));
                prop_assert!(line.is_some());
            }
        }

        #[test]
        fn nothing_panics(file in ".{0,200}", group in ".{0,200}", text in "[a-z0-9:]{0,12}") {
            if let Ok(spec) = text.parse::<UserSpec>() {
                let _any = resolve_user_in(&spec, &file, &group);
            }
        }
    }
}
