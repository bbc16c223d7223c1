//! `ctr system df`, `prune` and `check`, `ctr builder du` and `prune`: what is kept, how much it takes, whether it is whole.

use std::fs;
use std::path::PathBuf;
use test_support::{TestEnv, eventually, wait_for_exit};

/// A row of `system df`, as JSON.
fn usage(env: &TestEnv, kind: &str) -> serde_json::Value {
    let out = env.ctr("system df --format json").ok().stdout();
    let rows = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap_or_default());
    rows.into_iter().find(|row| row["Type"] == kind).unwrap_or_default()
}

fn folders(env: &TestEnv, name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(env.root().join(name)).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[test]
fn df_tells_what_is_used_and_prune_removes_the_rest() {
    let env = TestEnv::new();
    env.build("app", "app", "FROM busybox\nRUN echo 1 > /one\nRUN dd if=/dev/zero of=/two bs=1000 count=50\n").ok();
    env.ctr("run --name old app dd if=/dev/zero of=/written bs=1000 count=7").ok();
    env.ctr("run -d --name live busybox sleep 1000").ok();
    env.ctr("run --rm -v named:/data busybox dd if=/dev/zero of=/data/file bs=1000 count=3").ok();
    env.ctr("system df").ok().prints("TYPE").prints("RECLAIMABLE").prints("Local Volumes");
    let images = usage(&env, "Images");
    assert_eq!((&images["TotalCount"], &images["Active"]), (&"2".into(), &"2".into()));
    let containers = usage(&env, "Containers");
    assert_eq!((&containers["TotalCount"], &containers["Active"]), (&"2".into(), &"1".into()));
    assert_eq!(containers["Reclaimable"], "7kB (100%)");
    assert_eq!(usage(&env, "Local Volumes")["Reclaimable"], "3kB (100%)");

    env.invoke("system prune")
        .stdin("n\n")
        .run()
        .ok()
        .says("WARNING! This will remove:")
        .says("- all stopped containers");
    env.ctr("inspect old").ok();
    let out = env.ctr("system prune -f").ok();
    out.prints("Deleted Containers:").prints("Total reclaimed space: 7kB");
    env.ctr("inspect old").fails(1);
    env.ctr("inspect app live").ok();
    // The cache goes only with its image.
    env.ctr("rmi app").ok();
    assert_eq!(usage(&env, "Build Cache")["Active"], "1", "busybox's layer");
    env.ctr("builder du").ok().prints("RECLAIMABLE").prints("50kB");
    env.ctr("builder prune -f --keep-storage 1MB").ok().prints("Total reclaimed space: 0B");
    env.ctr("builder prune -f").ok().prints("Deleted: sha256:");
    assert_eq!(usage(&env, "Build Cache")["TotalCount"], "0");
    env.ctr("system prune -af --volumes").ok();
    env.ctr("volume inspect named").ok();
    assert_eq!(env.ctr("images -q").ok().lines().len(), 1, "the image of what runs stays");
    assert_eq!(folders(&env, "layers").len(), 1);
    env.ctr("volume prune -af").ok().prints("named").prints("Total reclaimed space: 3kB");
}

#[test]
fn the_least_recently_used_cache_goes_first() {
    let env = TestEnv::new();
    for name in ["aa", "bb"] {
        let file = format!("FROM busybox\nRUN echo {name} && dd if=/dev/zero of=/{name} bs=1000 count=50\n");
        env.build(name, name, &file).ok();
        env.ctr(["rmi", name]).ok();
    }
    env.ctr("build -t aa aa").ok();
    env.ctr("rmi aa").ok();
    env.ctr("builder prune -f --keep-storage 60kB").ok().prints("Total reclaimed space: 50kB");
    env.ctr("build aa").ok().says("CACHED");
    env.ctr("build bb").ok().says("not cached").says("DONE");
}

/// The rows of `builder du`, as JSON.
fn cache_rows(env: &TestEnv, filter: &str) -> Vec<serde_json::Value> {
    let out = env.ctr(["builder", "du", "--format", "json", "--filter", filter]).ok().stdout();
    out.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect()
}

#[test]
fn cache_mounts_are_counted_and_pruned() {
    let env = TestEnv::new();
    let step = |id: &str| {
        format!(
            "FROM busybox\nRUN --mount=type=cache,id={id},target=/c \
             ls /c > /seen && dd if=/dev/zero of=/c/{id} bs=1000 count=40\n"
        )
    };
    for id in ["old", "new"] {
        env.build(id, id, &step(id)).ok();
    }
    env.ctr("build -q --no-cache -t old old").ok();
    let rows = cache_rows(&env, "type=exec.cachemount");
    let shown = |row: &serde_json::Value| format!("{} {} {}", row["Description"], row["Size"], row["Reclaimable"]);
    assert_eq!(
        rows.iter().map(shown).collect::<Vec<_>>(),
        [r#""cached mount old" "40kB" true"#, r#""cached mount new" "40kB" true"#]
    );
    assert_eq!(usage(&env, "Build Cache")["Reclaimable"], "80kB (100%)");
    env.ctr("builder du").ok().prints("exec.cachemount");
    env.ctr("builder du --verbose").ok().prints("Type:           exec.cachemount").prints("Reclaimable:    80kB");
    env.ctr("builder du --filter nonsense=1").fails(125).says("invalid filter 'nonsense'");

    // What a filter or the bytes to keep spare stays; of two the one used last.
    env.ctr("builder prune -f --filter type=regular").ok().prints("Total reclaimed space: 0B");
    env.ctr("builder prune -f --filter until=1h").ok().prints("Total reclaimed space: 0B");
    assert_eq!(cache_rows(&env, "type=exec.cachemount").len(), 2);
    env.ctr("builder prune -f --keep-storage 50kB").ok().prints("Total reclaimed space: 40kB");
    let left = cache_rows(&env, "type=exec.cachemount");
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["Description"], "cached mount old");
    env.ctr("system prune -f").ok().prints("Total reclaimed space: 40kB");
    assert!(cache_rows(&env, "mutable").is_empty());
    // It begins anew.
    env.ctr("build -q --no-cache -t old old").ok();
    env.ctr("run --rm old cat /seen").ok().prints_nothing();
    let filter = format!("id={}", cache_rows(&env, "mutable")[0]["ID"].as_str().unwrap());
    env.ctr(["builder", "prune", "-f", "--filter", &filter]).ok().prints("Total reclaimed space: 40kB");
}

#[test]
fn a_cache_mount_in_use_is_not_pruned() {
    let env = TestEnv::new();
    env.write(
        "app/Containerfile",
        "FROM busybox\nRUN --mount=type=cache,target=/c mkfifo /c/gate && cat /c/gate && touch /c/done\n",
    );
    let build = env.spawn("build -q app");
    let data = || folders(&env, "build-cache").into_iter().map(|path| path.join("data")).find(|path| path.exists());
    let data = eventually("the step runs", || data().filter(|data| data.join("gate").exists()));
    for command in ["builder prune -af", "system prune -af"] {
        env.ctr(command).ok();
        let row = &cache_rows(&env, "inuse=true")[0];
        assert_eq!([&row["Type"], &row["Reclaimable"]], [&"exec.cachemount".into(), &serde_json::Value::from(false)]);
    }
    fs::write(data.join("gate"), "go").unwrap();
    build.wait().ok();
    assert!(data.join("done").exists());
    env.ctr("builder prune -f").ok();
    assert!(!data.exists());
}

#[test]
fn nothing_is_wrong_with_a_store_in_use() {
    let env = TestEnv::new();
    env.build("app", "app", "FROM busybox\nRUN echo 1 > /one\n").ok();
    env.ctr("run -d --name live -v data:/data app sleep 1000").ok();
    env.ctr("save -o image.tar app").ok();
    env.ctr("system check").ok().prints("Nothing is wrong.");
    let monitor = env.monitor_of("live");
    rustix::process::kill_process(rustix::process::Pid::from_raw(monitor).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    assert!(wait_for_exit(monitor, std::time::Duration::from_secs(10)));
    env.ctr("system check").ok().prints("Nothing is wrong.");
    env.ctr("ps -a").ok().prints("Exited (137)");
}

#[test]
fn damage_is_found_and_mended() {
    let env = TestEnv::new();
    env.ctr("save -o busybox.tar busybox").ok();
    env.ctr("rmi busybox").ok();
    env.ctr("load -i busybox.tar").ok();
    env.build("app", "app", "FROM busybox\nRUN echo 1 > /one\n").ok();
    env.ctr("create --name kept -v data:/data busybox echo kept").ok();
    let base: Vec<PathBuf> =
        folders(&env, "layers").into_iter().filter(|path| path.join("fs/bin/busybox").exists()).collect();
    let built = folders(&env, "layers").into_iter().find(|path| path.join("fs/one").exists()).unwrap();

    // A layer that has a blob is unpacked again; one built here is gone, and its image with it.
    fs::remove_file(base[0].join("layer.json")).unwrap();
    fs::write(built.join("fs/one"), "tampered").unwrap();
    let out = env.ctr("system check").fails(1).says("--repair");
    out.prints("is damaged");
    env.ctr("system check --repair").ok().prints("(repaired)");
    env.ctr("inspect app").fails(1);
    env.ctr("start -a kept").ok().prints("kept");
    env.ctr("system check").ok().prints("Nothing is wrong.");

    // A lost database is made anew of the files.
    for name in ["db.sqlite", "db.sqlite-wal"] {
        fs::write(env.root().join(name), "no database").unwrap();
    }
    env.ctr("images").fails(1).says("database").says_it_plainly();
    env.ctr("system check").fails(1);
    env.ctr("system check --repair").ok();
    env.ctr("start -a kept").ok().prints("kept");
    env.ctr("volume inspect data").ok();
    env.ctr("run --rm busybox echo whole").ok().prints("whole");
    env.ctr("system check").ok().prints("Nothing is wrong.");

    // Leavings without a row.
    fs::create_dir_all(env.root().join("layers").join("0".repeat(64)).join("fs")).unwrap();
    fs::write(env.root().join("blobs/sha256").join("1".repeat(64)), "not that").unwrap();
    env.ctr("system check").fails(1);
    env.ctr("system check --repair").ok().prints("All of it was repaired.");
    env.ctr("system check").ok().prints("Nothing is wrong.");
    assert!(!env.root().join("blobs/sha256").join("1".repeat(64)).exists());
}
