//! `--chown` and WORKDIR's owner: names looked up in the image's own files, never the host's.

use crate::step_error::{StepError, StepResult};
use oci::{NameOrId, UserSpec};
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// The largest passwd or group file read, in bytes.
const MAX_FILE_BYTES: u64 = 10 << 20;

/// The (uid, gid) of `user[:group]` in the root; without a group, that of a user's passwd entry, else a number's own.
pub(super) fn owner(text: &str, root: Option<BorrowedFd<'_>>) -> StepResult<(u32, u32)> {
    let spec: UserSpec = text.parse().map_err(|error: oci::UserSpecError| StepError::wrong(error.to_string()))?;
    let passwd = || read(root, "etc/passwd");
    let (uid, own_group) = match &spec.user {
        None => (0, None),
        // As docker: a bare number is the group's too.
        Some(NameOrId::Id(uid)) => (*uid, Some(*uid)),
        Some(NameOrId::Name(name)) => {
            let text = passwd()?;
            let ids = entry(&text, name).and_then(|fields| Some((number(&fields, 2)?, number(&fields, 3)?)));
            let (uid, gid) = ids.ok_or_else(|| {
                let hint = "make it first: RUN adduser …";
                let message = format!("unable to find user {name}: no matching entries in passwd file");
                StepError::with_hint(message, hint)
            })?;
            (uid, Some(gid))
        }
    };
    let gid = match &spec.group {
        None => own_group.unwrap_or(0),
        Some(NameOrId::Id(gid)) => *gid,
        Some(NameOrId::Name(name)) => {
            let text = read(root, "etc/group")?;
            let gid = entry(&text, name).and_then(|fields| number(&fields, 2));
            gid.ok_or_else(|| {
                StepError::wrong(format!("unable to find group {name}: no matching entries in group file"))
            })?
        }
    };
    Ok((uid, gid))
}

fn entry<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let fields = |line: &'a str| line.split(':').collect::<Vec<_>>();
    text.lines().map(fields).find(|fields| fields.first() == Some(&name))
}

fn number(fields: &[&str], index: usize) -> Option<u32> {
    fields.get(index)?.parse().ok()
}

/// A file of the root; empty where there is none.
fn read(root: Option<BorrowedFd<'_>>, path: &str) -> StepResult<String> {
    let Some(root) = root else { return Ok(String::new()) };
    let Ok(file) = linux::resolve::open_regular(root, Path::new(path)) else {
        return Ok(String::new());
    };
    let mut bytes = Vec::new();
    let file = File::from(file);
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|e| StepError::io("read", Path::new("/").join(path), e))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn names_come_from_the_images_files() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:\napp:x:1000:1001:App:/app:/bin/sh\n").unwrap();
        std::fs::write(root.path().join("etc/group"), "root:x:0:\nweb:x:33:app\n").unwrap();
        let fd = linux::resolve::open_root(root.path()).unwrap();
        let ids = |text: &str| owner(text, Some(fd.as_fd())).unwrap();
        assert_eq!(ids("app"), (1000, 1001));
        assert_eq!(ids("app:web"), (1000, 33));
        assert_eq!(ids("5:web"), (5, 33));
        assert_eq!(ids("5"), (5, 5));
        assert_eq!(ids("5:6"), (5, 6));
        assert_eq!(ids(":web"), (0, 33));
        let error = owner("nobody", Some(fd.as_fd())).unwrap_err().to_string();
        assert_eq!(error, "unable to find user nobody: no matching entries in passwd file");
        assert!(owner("app:nope", None).is_err());
    }
}
