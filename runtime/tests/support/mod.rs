//! A bundle made of busybox, and the binary run on it. Everything it makes is its own: id, state folder, control group;
//! all of it is gone with it, also when a test fails.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, missing_docs)]

use oci_spec::runtime::{Mount, Process, Spec};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct Bundle {
    dir: tempfile::TempDir,
    pub id: String,
    pub spec: Spec,
    /// A value for a place in the config that the types of `spec` can't hold.
    pub raw: Option<(String, serde_json::Value)>,
}

pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Bundle {
    /// A container that runs a shell script.
    pub fn sh(script: &str) -> Bundle {
        Bundle::new(&["sh", "-c", script])
    }

    pub fn new(args: &[&str]) -> Bundle {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("rootfs");
        for folder in ["bin", "etc", "tmp", "root"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
        for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|name| *name != "busybox") {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
        let mut spec = runtime::default_spec();
        let id = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut process = spec.process().clone().unwrap();
        process.set_args(Some(args.iter().map(|arg| (*arg).to_owned()).collect()));
        spec.set_process(Some(process));
        let mut linux = spec.linux().clone().unwrap();
        linux.set_cgroups_path(Some(format!("/{id}/group").into()));
        spec.set_linux(Some(linux));
        Bundle { dir, id, spec, raw: None }
    }

    /// A container that runs the prober (examples/prober.rs), which also reports about these paths.
    pub fn prober(paths: &[&str]) -> Bundle {
        let bundle = Bundle::new(&[&["/prober"], paths].concat());
        let test = std::env::current_exe().unwrap();
        let built = test.parent().unwrap().parent().unwrap().join("examples/prober");
        fs::copy(&built, bundle.rootfs().join("prober")).unwrap_or_else(|e| panic!("{}: {e}", built.display()));
        bundle
    }

    /// Runs the prober: what it found.
    #[track_caller]
    pub fn probe(&self) -> serde_json::Value {
        let ran = self.run();
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
        serde_json::from_str(&ran.out).unwrap()
    }

    /// Runs the prober in the running container.
    #[track_caller]
    pub fn probe_exec(&self, args: &[&str]) -> serde_json::Value {
        let ran = self.exec(&[args, &["/prober"]].concat());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
        serde_json::from_str(&ran.out).unwrap()
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub fn process(&mut self, edit: impl FnOnce(&mut Process)) -> &mut Bundle {
        let mut process = self.spec.process().clone().unwrap();
        edit(&mut process);
        self.spec.set_process(Some(process));
        self
    }

    /// Edits the config as JSON: for what has no setter.
    pub fn json(&mut self, edit: impl FnOnce(&mut serde_json::Value)) -> &mut Bundle {
        let mut value = serde_json::to_value(&self.spec).unwrap();
        edit(&mut value);
        self.spec = serde_json::from_value(value).unwrap();
        self
    }

    pub fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) -> &mut Bundle {
        let mut mount = Mount::default();
        mount
            .set_destination(destination.into())
            .set_typ(Some(kind.into()))
            .set_source(Some(source.into()))
            .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
        let mut mounts = self.spec.mounts().clone().unwrap();
        mounts.push(mount);
        self.spec.set_mounts(Some(mounts));
        self
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut config = serde_json::to_value(&self.spec).unwrap();
        if let Some((place, value)) = &self.raw {
            let (above, name) = place.rsplit_once('/').unwrap();
            config.pointer_mut(above).unwrap()[name] = value.clone();
        }
        fs::write(self.path().join("config.json"), config.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-runtime"));
        command.arg("--root").arg(self.path().join("state")).args(args).current_dir(self.path()).stdin(Stdio::null());
        command
    }

    /// Runs a command of the runtime to its end.
    pub fn runtime(&self, args: &[&str]) -> Ran {
        ran(self.command(args).output().unwrap())
    }

    /// Creates the container. What is created keeps the streams of its maker, so they are no pipes: their end would be that of
    /// the container.
    pub fn create(&self, args: &[&str]) -> Ran {
        let file = self.path().join("create.err");
        let mut command = self.command(&[&["create"], args].concat());
        command.stdout(Stdio::null()).stderr(fs::File::create(&file).unwrap());
        let code = command.status().unwrap().code().unwrap_or(-1);
        Ran { code, out: String::new(), err: fs::read_to_string(file).unwrap() }
    }

    /// create, start and wait.
    pub fn run(&self) -> Ran {
        self.runtime(&["run", &self.id])
    }

    /// Runs the container in the background.
    pub fn spawn(&self) -> Child {
        self.command(&["run", &self.id]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub fn exec(&self, args: &[&str]) -> Ran {
        self.runtime(&[&["exec", self.id.as_str()], args].concat())
    }

    pub fn state(&self) -> serde_json::Value {
        let shown = self.runtime(&["state", &self.id]);
        assert_eq!(shown.code, 0, "{}", shown.err);
        serde_json::from_str(&shown.out).unwrap()
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// Folders of this test's control group that are still there, in any hierarchy.
    pub fn cgroups_left(&self) -> Vec<PathBuf> {
        let roots = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        roots
            .chain([PathBuf::from("/sys/fs/cgroup")])
            .map(|root| root.join(&self.id))
            .filter(|path| path.exists())
            .collect()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ended = self.runtime(&["delete", "--force", &self.id]);
    }
}

pub fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a script in a default container: its output; it must succeed.
#[track_caller]
pub fn inside(script: &str) -> String {
    let ran = Bundle::sh(script).run();
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    ran.out
}

/// Waits until a condition holds (10 s): for what no descriptor announces.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !holds() {
        assert!(std::time::Instant::now() < end, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
