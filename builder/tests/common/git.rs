//! Git repositories, served by git's own daemon.

use super::run;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Runs git in a folder.
pub fn git(folder: &Path, arguments: &[&str]) {
    let user = ["-c", "user.name=a", "-c", "user.email=a@b"];
    run(folder, "git", &user.iter().chain(arguments).copied().collect::<Vec<_>>());
}

/// What git prints.
pub fn git_says(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).current_dir(folder).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// An empty repository.
pub fn new_repository(folder: PathBuf) -> PathBuf {
    std::fs::create_dir_all(&folder).unwrap();
    git(&folder, &["init", "-q", "-b", "main"]);
    folder
}

/// Commits all there is.
pub fn commit(folder: &Path) {
    git(folder, &["add", "."]);
    git(folder, &["commit", "-q", "-m", "note"]);
}

/// A server of all repositories in a folder; dropped it ends.
pub struct GitServer {
    pub address: String,
    daemon: Child,
}

impl GitServer {
    pub fn start(folder: &Path) -> GitServer {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // The program itself: `git daemon` would be its parent, and leave it behind.
        let daemon = Command::new(format!("{}/git-daemon", git_says(folder, &["--exec-path"])))
            .args(["--export-all", "--reuseaddr", "--listen=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", folder.display()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        GitServer { address: format!("git://127.0.0.1:{port}"), daemon }
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        let _gone = self.daemon.kill();
        let _gone = self.daemon.wait();
    }
}
