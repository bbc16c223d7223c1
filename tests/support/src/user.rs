//! An ordinary user of the machine, made for a test.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Changes of /etc/passwd are made one after the other.
const LOCK: &str = "/run/lock/ctr-test-users";

/// A user with a name of his own. Dropped, he is gone from the machine again.
pub struct TestUser {
    /// His login name.
    pub name: String,
    /// His id.
    pub uid: u32,
    /// His group's id.
    pub gid: u32,
}

impl TestUser {
    /// `ids` is whether /etc/subuid and /etc/subgid give him any.
    #[track_caller]
    pub fn new(home: &Path, ids: bool) -> TestUser {
        let unique = home.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().to_lowercase();
        let name: String = unique.chars().filter(char::is_ascii_alphanumeric).collect();
        let _lock = lock();
        let count = if ids { "65536" } else { "0" };
        let counts = [format!("SUB_UID_COUNT={count}"), format!("SUB_GID_COUNT={count}")];
        let mut words = vec!["--no-create-home", "--home-dir", home.to_str().expect("our own name")];
        words.extend(["--user-group", "--shell", "/bin/sh", "-K", &counts[0], "-K", &counts[1], &name]);
        let made = Command::new("useradd").args(&words).stdin(Stdio::null()).output().expect("useradd runs");
        assert!(made.status.success(), "useradd: {}", String::from_utf8_lossy(&made.stderr));
        let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd can be read");
        let line = passwd.lines().find(|line| line.split(':').next() == Some(&name)).expect("the user was made");
        let number = |field: usize| line.split(':').nth(field).and_then(|text| text.parse().ok()).expect("a number");
        TestUser { uid: number(2), gid: number(3), name }
    }

    /// What `setpriv` makes a command his with.
    pub fn words(&self) -> [String; 5] {
        let (uid, gid) = (self.uid.to_string(), self.gid.to_string());
        ["--reuid".to_owned(), uid, "--regid".to_owned(), gid, "--init-groups".to_owned()]
    }

    /// The first of his further ids of users, outside; None: he has none.
    pub fn first_sub_id(&self) -> Option<u32> {
        let text = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{}:", self.name)).map(str::to_owned))?;
        line.split(':').next()?.parse().ok()
    }

    /// His processes, those of his containers' other users included: pid and command line.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let first = self.first_sub_id();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let Ok(meta) = entry.metadata() else { continue };
            let sub = first.is_some_and(|first| (first..first + 65_536).contains(&meta.uid()));
            let state = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let is_zombie = state.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'));
            if (meta.uid() == self.uid || sub) && !is_zombie {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        found
    }
}

impl Drop for TestUser {
    fn drop(&mut self) {
        let _lock = lock();
        // Forced: a process on its way out may still be his.
        let words = ["--force", &self.name];
        let _ = Command::new("userdel").args(words).stdin(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn lock() -> Option<File> {
    let file = File::options().write(true).create(true).truncate(false).open(LOCK).ok()?;
    file.lock().ok()?;
    Some(file)
}
