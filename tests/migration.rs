//! A store of an older format is brought up to today's by the first command that uses it, whatever happens on the way.

#![allow(clippy::unwrap_used)]

use rusqlite::Connection;
use std::fs::{self, File};
use std::time::Duration;
use test_support::{TestEnv, eventually};

/// More than a moment's work for a migration, so that it can be interrupted.
const NAMES: u32 = 2000;

fn database(env: &TestEnv) -> Connection {
    Connection::open(env.root().join("db.sqlite")).unwrap()
}

/// The store as the program of format 1 left it, with so many repositories that one image is known by.
fn make_old(env: &TestEnv, names: u32) {
    let db = database(env);
    db.execute_batch("DROP TABLE blob_source; DROP TABLE shared_layer; PRAGMA user_version = 0; BEGIN").unwrap();
    let (image, digest): (String, String) = db
        .query_row("SELECT id, manifest_digest FROM image WHERE manifest_digest IS NOT NULL", (), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    for number in 0..names {
        let name = format!("registry.example/team/app-{number}@{digest}");
        db.execute("INSERT OR IGNORE INTO repo_digest VALUES (?,?)", (name, &image)).unwrap();
    }
    db.execute_batch("COMMIT").unwrap();
    fs::write(env.root().join("FORMAT"), "1\n").unwrap();
}

fn format(env: &TestEnv) -> String {
    fs::read_to_string(env.root().join("FORMAT")).unwrap().lines().next().unwrap().to_owned()
}

fn sources(env: &TestEnv) -> u32 {
    database(env).query_row("SELECT count(*) FROM blob_source", (), |row| row.get(0)).unwrap()
}

/// With an image that has a manifest: one that was saved.
fn env_with_manifest() -> TestEnv {
    let env = TestEnv::new();
    env.ctr("save -o busybox.tar busybox").ok();
    env
}

/// Whether the kernel lists a process among those that wait for a file's lock.
fn waits_for_a_lock(pid: i32) -> bool {
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| line.contains("-> FLOCK") && line.split_whitespace().any(|word| word == pid.to_string()))
}

#[test]
fn what_was_there_is_there_and_runs() {
    let env = env_with_manifest();
    env.ctr("run --name old busybox sh -c 'echo kept > /file'").ok();
    make_old(&env, 3);
    env.ctr("images -q").ok();
    assert_eq!((format(&env).as_str(), sources(&env)), ("2", 3));
    env.ctr("start -a old").ok();
    env.ctr("run --rm busybox true").ok();
    env.ctr("system check").ok().prints("Nothing is wrong.");
    // A damaged database of an older format too is made anew.
    make_old(&env, 0);
    fs::write(env.root().join("db.sqlite"), "no database").unwrap();
    env.ctr("system check --repair").ok().prints("All of it was repaired.");
    env.ctr("run --rm busybox true").ok();
    assert_eq!(format(&env), "2");
}

#[test]
fn a_kill_in_the_middle_leaves_it_to_the_next_command() {
    let env = env_with_manifest();
    make_old(&env, NAMES);
    let images = env.ctr("images -q").ok().stdout();
    let mut interrupted = 0;
    for round in 0..40_u64 {
        make_old(&env, NAMES);
        let command = env.invoke("images -q").spawn();
        // The one thing waited for is the passing of an arbitrary time.
        std::thread::sleep(Duration::from_millis(round * 7 % 40));
        command.kill();
        interrupted += u32::from(format(&env) == "1");
        let together: Vec<_> = (0..4).map(|_| env.invoke("images -q").spawn()).collect();
        for command in together {
            assert_eq!(command.wait().ok().stdout(), images);
        }
        assert_eq!((format(&env).as_str(), sources(&env)), ("2", NAMES), "round {round}");
    }
    assert!(interrupted > 0, "no kill came before the end");
    // Between the two steps: the database is done, and FORMAT does not say so yet.
    fs::write(env.root().join("FORMAT"), "1\n").unwrap();
    env.ctr("images -q").ok();
    assert_eq!((format(&env).as_str(), sources(&env)), ("2", NAMES));
}

#[test]
fn others_wait_while_it_goes_on_and_a_newer_one_is_refused() {
    let env = env_with_manifest();
    make_old(&env, 0);
    let lock = File::open(env.root().join(".creation.lock")).unwrap();
    lock.lock().unwrap();
    let waiting = env.invoke("images -q").spawn();
    eventually("a command that waits for the lock", || waits_for_a_lock(waiting.pid()).then_some(()));
    assert_eq!(format(&env), "1");
    drop(lock);
    waiting.wait().ok();
    assert_eq!(format(&env), "2");

    fs::write(env.root().join("FORMAT"), "3\nneeds ctr 9.1.0 or newer\n").unwrap();
    let out = env.ctr("images").fails(1).says_it_plainly();
    out.says("holds a store of format 3").says("knows formats up to 2").says("use ctr 9.1.0 or newer");
    env.ctr("run busybox true").fails(125).says("use ctr 9.1.0 or newer");
    fs::write(env.root().join("FORMAT"), "something else\n").unwrap();
    env.ctr("images").fails(1).says("which no ctr has made").says_it_plainly();
    fs::write(env.root().join("FORMAT"), "2\n").unwrap();
}
