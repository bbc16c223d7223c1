//! An engine of one's own for each test.

use crate::leaks::Leaks;
use crate::wait::{PATIENCE, eventually};
use crate::{Finished, IntoArgs, Running, Terminal, TestUser, ctr_binary, source_root};
use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A data root, a state folder and a home directory in a temporary folder (on tmpfs where there is
/// one: the tests then cost no disk). Dropped, it removes its containers and fails the test if
/// anything of it is left on the machine. `CTR_TEST_KEEP=1` keeps the folder of a failed test.
pub struct TestEnv {
    dir: TempDir,
    tag: String,
    /// Whose engine it is, if not root's.
    user: Option<TestUser>,
}

impl TestEnv {
    /// With the image `busybox`.
    #[track_caller]
    pub fn new() -> TestEnv {
        let env = TestEnv::empty();
        env.import("busybox", r#"CMD ["sh"]"#);
        env
    }

    /// With the images `busybox` and `debian:bookworm` (which has python3).
    #[track_caller]
    pub fn with_debian() -> TestEnv {
        let env = TestEnv::new();
        env.import("debian:bookworm", r#"CMD ["bash"]"#);
        env
    }

    /// Without any image.
    #[track_caller]
    pub fn empty() -> TestEnv {
        let base = Path::new("/dev/shm");
        let base = if base.is_dir() { base.to_owned() } else { std::env::temp_dir() };
        let dir =
            tempfile::Builder::new().prefix("ctr-test-").tempdir_in(base).expect("a temporary folder can be made");
        for name in ["home", "root", "state"] {
            std::fs::create_dir(dir.path().join(name)).expect("a new folder takes folders");
        }
        let root = dir.path().join("root");
        let tag = oci::Digest::sha256(root.to_str().expect("our own name")).hex()[..6].to_owned();
        TestEnv { dir, tag, user: None }
    }

    /// The engine of an ordinary user, who is made for it and goes with it. `ids` is whether he has any but his own.
    #[track_caller]
    pub fn of_user(ids: bool) -> TestEnv {
        let mut env = TestEnv::empty();
        let user = TestUser::new(&env.path("home"), ids);
        std::fs::set_permissions(env.dir.path(), Permissions::from_mode(0o755)).expect("it is our own folder");
        // Where it was built the user may not be able to look.
        std::fs::create_dir(env.path("bin")).expect("a new folder takes folders");
        std::fs::copy(ctr_binary(), env.path("bin/ctr")).expect("the binary can be copied");
        for name in ["data", "run"] {
            std::fs::create_dir(env.path(name)).expect("a new folder takes folders");
        }
        for name in ["home", "data", "run"] {
            chown(env.path(name), Some(user.uid), Some(user.gid)).expect("root may");
            std::fs::set_permissions(env.path(name), Permissions::from_mode(0o700)).expect("root may");
        }
        let root = env.path("data/ctr");
        env.tag = oci::Digest::sha256(root.to_str().expect("our own name")).hex()[..6].to_owned();
        env.user = Some(user);
        env
    }

    /// [`TestEnv::of_user`] with the image `busybox`.
    #[track_caller]
    pub fn of_user_with_busybox(ids: bool) -> TestEnv {
        let env = TestEnv::of_user(ids);
        env.import("busybox", r#"CMD ["sh"]"#);
        env
    }

    /// With the image `busybox`, and a data root that lies on a file system of its own of so many KiB.
    #[track_caller]
    pub fn on_a_small_disk(kib: u32) -> TestEnv {
        let env = TestEnv::empty();
        let size = format!("-osize={kib}k");
        let mount = Command::new("mount").args(["-t", "tmpfs", &size, "none"]).arg(env.root()).status();
        assert!(mount.expect("there is a mount program").success(), "a tmpfs can be mounted");
        env.import("busybox", r#"CMD ["sh"]"#);
        env
    }

    /// [`TestEnv::of_user`] with the image `debian:bookworm`.
    #[track_caller]
    pub fn of_user_with_debian(ids: bool) -> TestEnv {
        let env = TestEnv::of_user(ids);
        env.import("debian:bookworm", r#"CMD ["bash"]"#);
        env
    }

    /// The engine's data root.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join(if self.user.is_some() { "data/ctr" } else { "root" })
    }

    /// The engine's folder of run-time state.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join(if self.user.is_some() { "run/ctr" } else { "state" })
    }

    /// The ordinary user whose engine it is.
    #[track_caller]
    pub fn user(&self) -> &TestUser {
        self.user.as_ref().expect("an engine of TestEnv::of_user")
    }

    /// The six hex digits in the names of this engine's bridge, table and cgroups.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// A path in the test's folder, for its own files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file in the test's folder, with the folders on its way.
    #[track_caller]
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("the name is below the folder")).expect("folders can be made");
        std::fs::write(&path, content).unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
        path
    }

    /// Runs `ctr` to its end with an empty stdin.
    #[track_caller]
    pub fn ctr(&self, args: impl IntoArgs) -> Finished {
        self.invoke(args).run()
    }

    /// A `ctr` command about to be run: for an input, a variable, a folder, a longer limit.
    pub fn invoke(&self, args: impl IntoArgs) -> Invocation {
        self.program(ctr_binary(), args)
    }

    /// Another program about to be run in the same surroundings: the witness, or the neighbour.
    pub fn program(&self, program: impl Into<PathBuf>, args: impl IntoArgs) -> Invocation {
        let mut invocation = Invocation {
            program: program.into(),
            args: args.into_args(),
            variables: Vec::new(),
            cwd: self.dir.path().to_owned(),
            stdin: None,
            limit: PATIENCE,
        };
        let home = self.path("home");
        let folders = match &self.user {
            None => [("CTR_ROOT", self.root()), ("CTR_STATE", self.state())],
            Some(user) => {
                let mut words: Vec<OsString> = user.words().map(OsString::from).into();
                words.push(self.path("bin/ctr").into_os_string());
                invocation.program = "setpriv".into();
                words.append(&mut invocation.args);
                invocation.args = words;
                [("XDG_DATA_HOME", self.path("data")), ("XDG_RUNTIME_DIR", self.path("run"))]
            }
        };
        invocation.variables.extend(folders.map(|(name, path)| (name.into(), path.into_os_string())));
        for (name, value) in [
            ("PATH", OsStr::new("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")),
            ("HOME", home.as_os_str()),
            ("LANG", OsStr::new("C.UTF-8")),
        ] {
            invocation.variables.push((name.into(), value.into()));
        }
        invocation
    }

    /// Builds `containerfile` (with the files written below `folder`) as `tag`.
    #[track_caller]
    pub fn build(&self, tag: &str, folder: &str, containerfile: &str) -> Finished {
        self.write(&format!("{folder}/Containerfile"), containerfile);
        self.ctr(["build", "-t", tag, folder])
    }

    /// One value of `inspect`, by JSON pointer: `env.inspect("web", "/State/Pid")`.
    #[track_caller]
    pub fn inspect(&self, name: &str, pointer: &str) -> serde_json::Value {
        let all = self.ctr(["inspect", name]).ok().json();
        let value = all.pointer(&format!("/0{pointer}")).cloned();
        value.unwrap_or_else(|| panic!("no {pointer} in the inspection of {name}: {all:#}"))
    }

    /// The process id of a container's init, as the host sees it.
    #[track_caller]
    pub fn pid_of(&self, name: &str) -> i32 {
        let pid = self.inspect(name, "/State/Pid").as_i64().expect("a number");
        i32::try_from(pid).expect("a pid fits")
    }

    /// The monitor of a container: the parent of its init.
    #[track_caller]
    pub fn monitor_of(&self, name: &str) -> i32 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid_of(name))).expect("the init runs");
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("every process has a parent");
        parent.trim().parse().expect("a pid is a number")
    }

    /// The address of a container on the default bridge.
    #[track_caller]
    pub fn address_of(&self, name: &str) -> String {
        let address = self.inspect(name, "/NetworkSettings/IPAddress");
        address.as_str().expect("a text").to_owned()
    }

    /// `host:port` on this machine where a container's port is published.
    #[track_caller]
    pub fn published(&self, name: &str, port: &str) -> String {
        let lines = self.ctr(["port", name, port]).ok().lines();
        let first = lines.iter().find(|line| !line.starts_with('[')).expect("an IPv4 line").to_owned();
        first.replace("0.0.0.0:", "127.0.0.1:")
    }

    /// What this engine has on the machine at the moment: processes, mounts, cgroups, links, tables.
    pub fn leaks(&self) -> Leaks {
        let mut leaks = Leaks::of(&self.root(), &self.tag);
        leaks.processes.extend(self.user.iter().flat_map(TestUser::processes));
        leaks
    }

    #[track_caller]
    fn import(&self, name: &str, cmd: &str) {
        let tar = base_image(name);
        let cmd = format!("--change={cmd}");
        let path = "--change=ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        if self.user.is_some() {
            // He can't read where root keeps it.
            let words = [OsStr::new("import"), OsStr::new(&cmd), OsStr::new(path), OsStr::new("-"), OsStr::new(name)];
            let bytes = std::fs::read(&tar).expect("the tar is there");
            self.invoke(words).stdin(bytes).limit(Duration::from_secs(120)).run().ok();
            return;
        }
        let words = [OsStr::new("import"), OsStr::new(&cmd), OsStr::new(path), tar.as_os_str(), OsStr::new(name)];
        self.invoke(words).limit(Duration::from_secs(120)).run().ok();
    }

    fn remove_containers(&self) {
        let ids = self.invoke("ps -aq --no-trunc").run_quietly();
        let ids: Vec<String> = ids.map(|out| out.lines()).unwrap_or_default();
        if !ids.is_empty() {
            let words: Vec<String> = ["rm", "-f", "-v"].map(str::to_owned).into_iter().chain(ids).collect();
            self.invoke(words).limit(Duration::from_secs(60)).run_quietly();
        }
    }
}

impl Default for TestEnv {
    fn default() -> TestEnv {
        TestEnv::new()
    }
}

impl Drop for TestEnv {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if std::env::var_os("CTR_TEST_KEEP").is_some() {
                self.dir.disable_cleanup(true);
                eprintln!("kept: {}", self.dir.path().display());
                return;
            }
            self.remove_containers();
            self.leaks().sweep();
            return;
        }
        self.remove_containers();
        if self.leaks().mounts == [self.root().display().to_string()] {
            // The small disk.
            let _ = Command::new("umount").arg(self.root()).status();
        }
        // A namespace's death takes its veth along a little later, a monitor's last step likewise.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !self.leaks().is_empty() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let leaks = self.leaks();
        leaks.sweep();
        assert!(leaks.is_empty(), "left behind by the test: {leaks:#?}");
    }
}

/// One `ctr` command about to be run.
pub struct Invocation {
    program: PathBuf,
    args: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    cwd: PathBuf,
    stdin: Option<Vec<u8>>,
    limit: Duration,
}

impl Invocation {
    /// Feeds this to its stdin, then the end of file.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Invocation {
        self.stdin = Some(bytes.into());
        self
    }

    /// Sets a variable of its environment, which otherwise is nearly empty.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Invocation {
        self.variables.push((name.into(), value.as_ref().into()));
        self
    }

    /// Runs another copy of `ctr`.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Invocation {
        self.program = path.into();
        self
    }

    /// Runs it in a folder other than the test's own.
    pub fn cwd(mut self, path: impl AsRef<Path>) -> Invocation {
        self.cwd = path.as_ref().to_owned();
        self
    }

    /// Allows it more (or less) time than [`PATIENCE`].
    pub fn limit(mut self, limit: Duration) -> Invocation {
        self.limit = limit;
        self
    }

    /// Runs it through `sh -c`, as `"$@"` there: for `ulimit`s, pipes, namespaces around it.
    pub fn through_shell(mut self, script: &str) -> Invocation {
        let shell: [OsString; 4] = ["-c".into(), script.into(), "sh".into(), self.program.into()];
        self.args = shell.into_iter().chain(self.args).collect();
        self.program = "/bin/sh".into();
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(mut self) -> Finished {
        let input = self.stdin.take();
        let limit = self.limit;
        let mut running = self.start(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        if let Some(input) = input {
            running.feed(input);
        }
        running.wait_within(limit)
    }

    /// Starts it beside the test, its stdin held open.
    #[track_caller]
    pub fn spawn(self) -> Running {
        self.start(Stdio::piped())
    }

    /// Starts it on a terminal of its own, `rows` × `columns`.
    #[track_caller]
    pub fn terminal(self, rows: u16, columns: u16) -> Terminal {
        // setsid makes the terminal the controlling one, which std offers no way to do.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(&self.program);
        let text = self.text();
        self.prepare(&mut command);
        Terminal::start(text, command, rows, columns)
    }

    /// The words and the surroundings, as a plain [`Command`].
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        self.prepare(&mut command);
        command
    }

    fn prepare(&self, command: &mut Command) {
        command.args(&self.args).env_clear().envs(self.variables.iter().map(|(k, v)| (k, v))).current_dir(&self.cwd);
    }

    #[track_caller]
    fn start(self, stdin: Stdio) -> Running {
        let child = self.command().stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.unwrap_or_else(|error| panic!("starting {}: {error}", self.program.display()));
        Running::new(self.text(), child)
    }

    /// For the way out: no panic, whatever happens.
    fn run_quietly(self) -> Option<Finished> {
        let output = self.command().stdin(Stdio::null()).output().ok()?;
        let command = self.text();
        Some(Finished { command, status: output.status, stdout: output.stdout, stderr: output.stderr })
    }

    fn text(&self) -> String {
        let words: Vec<_> = self.args.iter().map(|word| word.to_string_lossy()).collect();
        format!("{} {}", self.program.file_name().unwrap_or_default().to_string_lossy(), words.join(" "))
    }
}

/// The tar of a base image, made by `scripts/base-images` at the first need and kept in the cache.
#[track_caller]
pub fn base_image(name: &str) -> PathBuf {
    let script = source_root().join("scripts/base-images");
    let file = format!("base/{}.tar", name.replace(':', "-"));
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    let tar = cache.unwrap_or_else(home).join("ctr").join(file);
    if !tar.exists() {
        let made = Command::new(&script).args(["--tar", name]).stdin(Stdio::null()).output();
        let made = made.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
        let why = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(made.status.success() && tar.exists(), "{} --tar {name} failed:\n{why}", script.display());
    }
    tar
}

impl Running {
    /// Writes all of `bytes` to the stdin from a thread and closes it: a command may print before it reads.
    fn feed(&mut self, bytes: Vec<u8>) {
        if let Some(mut pipe) = self.take_stdin() {
            std::thread::spawn(move || {
                let _ = pipe.write_all(&bytes);
            });
        }
    }
}

impl TestEnv {
    /// Waits until a container is in the given state (`running`, `exited`, …).
    #[track_caller]
    pub fn until_status(&self, name: &str, status: &str) {
        eventually(&format!("{name} {status}"), || (self.inspect(name, "/State/Status") == status).then_some(()));
    }
}
