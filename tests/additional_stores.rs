//! `--additional-store`: base images that many machines share, from a store that is read and never written to.

#![allow(clippy::print_stderr, clippy::unwrap_used, clippy::expect_used)] // A test that cannot run says so, or panics.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use test_support::{Finished, Registry, RegistryKind, TestEnv};

/// A store mounted read-only somewhere else, as from a file server; unmounted at the end.
struct Mounted {
    at: PathBuf,
}

impl Mounted {
    fn new(of: &TestEnv, at: PathBuf) -> Mounted {
        fs::create_dir_all(&at).unwrap();
        let mounted = Mounted { at };
        mounted.mount(of);
        mounted
    }

    fn mount(&self, of: &TestEnv) {
        run(Command::new("mount").arg("--bind").arg(of.root()).arg(&self.at));
        run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&self.at));
    }

    fn unmount(&self) {
        run(Command::new("umount").arg("-l").arg(&self.at));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).stderr(std::process::Stdio::null()).status();
    }
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// `ctr` with that additional store.
fn with(env: &TestEnv, store: &Path, words: &[&str]) -> Finished {
    let mut all = vec!["--additional-store", store.to_str().unwrap()];
    all.extend(words);
    env.ctr(all)
}

/// Everything in a folder, with what any write would change.
fn state(root: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, u64)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let meta = entry.metadata().unwrap();
            found.insert(entry.path(), (meta.size(), meta.ctime(), meta.ctime_nsec(), meta.nlink()));
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found
}

fn folders(env: &TestEnv, name: &str) -> usize {
    fs::read_dir(env.root().join(name)).map_or(0, Iterator::count)
}

#[test]
fn its_images_are_seen_run_built_from_saved_and_pushed_and_it_stays_as_it_is() {
    let (base, env, third) = (TestEnv::new(), TestEnv::empty(), TestEnv::empty());
    let registry = Registry::start(RegistryKind::Plain);
    base.build("team/app:1", "app", "FROM busybox\nRUN echo shared > /file\nCMD cat /file\n").ok();
    let before = state(&base.root());
    let shared = Mounted::new(&base, env.path("shared"));
    let ctr = |words: &[&str]| with(&env, &shared.at, words);

    let listed = ctr(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ReadOnly}}"]).ok().lines();
    assert_eq!(listed, ["team/app:1 true", "busybox:latest true"]);
    ctr(&["image", "ls"]).ok().prints("R/O");
    ctr(&["run", "--rm", "team/app:1"]).ok().prints("shared");
    ctr(&["run", "--name", "kept", "team/app:1", "sh", "-c", "echo own > /file; cat /file"]).ok().prints("own");
    ctr(&["start", "-a", "kept"]).ok().prints("own");
    assert_eq!(folders(&env, "layers"), 0, "nothing was copied");

    env.write("derived/Containerfile", "FROM team/app:1\nRUN echo more >> /file\n");
    ctr(&["build", "-t", "derived", "derived"]).ok();
    ctr(&["run", "--rm", "derived"]).ok().prints("shared\nmore");
    assert_eq!(folders(&env, "layers"), 1, "its own layer alone");
    ctr(&["image", "diff", "derived"]).ok().prints("/file");
    let listed = ctr(&["image", "ls", "--format", "{{.Repository}} {{.ReadOnly}}"]).ok().lines();
    assert_eq!(listed, ["derived false", "team/app true", "busybox true"]);
    assert_eq!(env.ctr("image ls -q").ok().lines().len(), 1, "without it only what is here");

    // What leaves here is whole elsewhere.
    ctr(&["save", "-o", "both.tar", "team/app:1", "derived"]).ok();
    third.ctr(["load", "-i", env.path("both.tar").to_str().unwrap()]).ok();
    third.ctr("run --rm derived").ok().prints("shared\nmore");
    let remote = format!("{}/app:1", registry.address());
    ctr(&["tag", "team/app:1", &remote]).ok();
    ctr(&["push", &remote]).ok();
    third.ctr("rmi -f derived team/app:1").ok();
    third.ctr(["run", "--rm", &remote]).ok().prints("shared");

    // It cannot be removed from here; what it was named here can.
    ctr(&["rmi", "team/app:1"]).fails(1).says("read-only additional store").says(shared.at.to_str().unwrap());
    ctr(&["rmi", "-f", "busybox"]).fails(1).says("read-only additional store").says_it_plainly();
    ctr(&["rm", "kept"]).ok();
    ctr(&["rmi", &remote]).ok().prints("Untagged");
    ctr(&["system", "prune", "-af"]).ok();
    ctr(&["run", "--rm", "team/app:1"]).ok().prints("shared");
    ctr(&["run", "--rm", "derived"]).fails(125);
    for folder in ["layers", "blobs/sha256", "images", "containers"] {
        assert_eq!(folders(&env, folder), 0, "{folder}");
    }
    ctr(&["system", "df"]).ok().prints("0B");
    ctr(&["system", "check"]).ok().prints("Nothing is wrong.");
    assert_eq!(state(&base.root()), before, "nothing of it was written to");
}

#[test]
fn where_it_may_be_written_to_it_is_not() {
    let (base, env) = (TestEnv::new(), TestEnv::empty());
    let before = state(&base.root());
    let stores = format!("{}:{}", env.path("none").display(), base.root().display());
    let ctr = |words: &str| env.invoke(words).env("CTR_ADDITIONAL_STORES", &stores).run();
    ctr("run --rm busybox echo here").ok().prints("here").says("WARNING: the additional store").says("is it mounted?");
    ctr("tag busybox mine").ok();
    ctr("run --rm mine echo here").ok().prints("here");
    ctr("system prune -af").ok();
    ctr("system check --repair").fails(1).prints("is it mounted?");
    assert_eq!(state(&base.root()), before);
}

#[test]
fn it_may_be_a_file_system_that_nobody_can_write_to() {
    if !fs::read_to_string("/proc/filesystems").unwrap().contains("squashfs") {
        eprintln!("SKIPPED: this kernel has no squashfs");
        return;
    }
    let (base, env) = (TestEnv::new(), TestEnv::empty());
    base.build("app", "app", "FROM busybox\nRUN echo shared > /file && chown 3:4 /file && rm /bin/vi\n").ok();
    let (file, at) = (env.path("store.squashfs"), env.path("shared"));
    run(Command::new("mksquashfs").arg(base.root()).arg(&file).args(["-quiet", "-no-progress"]));
    fs::create_dir(&at).unwrap();
    run(Command::new("mount").args(["-t", "squashfs", "-o", "loop,ro"]).arg(&file).arg(&at));
    let shared = Mounted { at };
    let ctr = |words: &[&str]| with(&env, &shared.at, words);
    let look = "cat /file; stat -c %u:%g /file; test -e /bin/vi || echo gone; echo own > /file && cat /file";
    ctr(&["run", "--rm", "app", "sh", "-c", look]).ok().prints("shared\n3:4\ngone\nown");
    env.write("derived/Containerfile", "FROM app\nRUN echo more >> /file\n");
    ctr(&["build", "-t", "derived", "derived"]).ok();
    ctr(&["run", "--rm", "derived", "cat", "/file"]).ok().prints("shared\nmore");
    ctr(&["save", "-o", "app.tar", "app"]).ok();
    ctr(&["system", "check"]).ok().prints("Nothing is wrong.");
}

#[test]
fn a_pull_skips_what_it_has_and_its_loss_is_told() {
    let (base, env, maker) = (TestEnv::empty(), TestEnv::empty(), TestEnv::new());
    let registry = Registry::start(RegistryKind::Plain);
    let (lower, upper) = (format!("{}/lower:1", registry.address()), format!("{}/upper:1", registry.address()));
    maker.build(&lower, "lower", "FROM busybox\nRUN echo lower > /lower\n").ok();
    maker.build(&upper, "upper", &format!("FROM {lower}\nRUN echo upper > /upper\nCMD cat /lower /upper\n")).ok();
    maker.ctr(["push", &lower]).ok();
    maker.ctr(["push", &upper]).ok();
    base.ctr(["pull", &lower]).ok();

    let shared = Mounted::new(&base, env.path("shared"));
    let ctr = |words: &[&str]| with(&env, &shared.at, words);
    let out = ctr(&["pull", &upper]).ok().stdout();
    assert_eq!((out.matches("Already exists").count(), out.matches("Pull complete").count()), (2, 1), "{out}");
    assert_eq!(folders(&env, "layers"), 1);
    ctr(&["run", "--name", "one", &upper]).ok().prints("lower\nupper");
    ctr(&["run", "-d", "--name", "live", &upper, "sleep", "1000"]).ok();
    // By its own name it is taken over without a byte.
    ctr(&["pull", &lower]).ok().prints("Image is up to date");

    shared.unmount();
    // Commands that need nothing of it go on, and say what is wrong.
    ctr(&["ps", "-a"]).ok().prints("one").says("WARNING: the additional store").says("is it mounted?");
    ctr(&["exec", "live", "cat", "/lower"]).ok().prints("lower");
    ctr(&["rm", "-f", "live"]).ok();
    ctr(&["start", "one"]).fails(1).says("it was in the additional store").says("mount it again").says_it_plainly();
    env.ctr(["run", "--rm", &upper]).fails(125).says("it was in the additional store");
    // Nothing of that is a reason to throw the image away, though no container holds it.
    ctr(&["rm", "one"]).ok();
    env.ctr("system check --repair").fails(1).prints("it was in the additional store");
    env.ctr("system prune -f").ok();
    shared.mount(&base);
    ctr(&["run", "--rm", &upper]).ok().prints("lower\nupper");
    ctr(&["system", "check"]).ok();

    // And without it what is missing is fetched.
    shared.unmount();
    env.ctr(["pull", &upper]).ok().prints("Pull complete");
    env.ctr(["run", "--rm", &upper]).ok().prints("lower\nupper");
    env.ctr("system check").ok().prints("Nothing is wrong.");
}

#[test]
fn an_ordinary_users_store_serves_his_other_one_and_nobody_else() {
    let (env, root) = (TestEnv::of_user_with_busybox(true), TestEnv::new());
    let store = env.root();
    let second = env.path("home/second");
    let ctr = |words: &[&str]| {
        let mut all = vec!["--root", second.to_str().unwrap(), "--additional-store", store.to_str().unwrap()];
        all.extend(words);
        env.ctr(all)
    };
    ctr(&["run", "--rm", "--network", "none", "busybox", "echo", "shared"]).ok().prints("shared");
    ctr(&["rmi", "busybox"]).fails(1).says("read-only additional store");
    // Others' ids would be read as his.
    with(&root, &store, &["images"]).ok().says("it is another user's");
    let roots = root.root();
    let words = ["--additional-store", roots.to_str().unwrap(), "images"];
    env.ctr(words).ok().says("cannot be used");
}
