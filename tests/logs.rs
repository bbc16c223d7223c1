//! `ctr logs`.

use test_support::{TestEnv, eventually};

#[test]
fn of_a_container_that_has_ended() {
    let env = TestEnv::new();
    env.ctr("run --name done busybox sh -c 'echo one; echo two >&2; echo three'").ok();
    let out = env.ctr("logs done").ok();
    assert_eq!((out.stdout(), out.stderr()), ("one\nthree\n".to_owned(), "two\n".to_owned()));
    assert_eq!(env.ctr("logs --tail 1 done").ok().stdout(), "three\n");
    assert_eq!(env.ctr("logs -n 0 done").ok().stdout(), "");
    env.ctr("logs -f done").ok().prints("three");
    env.ctr("container logs done").ok().prints("one");
}

#[test]
fn with_times() {
    let env = TestEnv::new();
    env.ctr("run --name done busybox echo hello").ok();
    let line = env.ctr("logs -t done").ok().text();
    let (time, text) = line.split_once(' ').unwrap();
    assert_eq!(text, "hello");
    assert!(time.len() >= 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "RFC 3339: {time}");
    env.ctr(["logs", "--since", time, "done"]).ok().prints("hello");
    env.ctr("logs --since 2100-01-01T00:00:00Z done").ok().prints_nothing();
    env.ctr("logs --until 2000-01-01T00:00:00Z done").ok().prints_nothing();
    env.ctr("logs --since 1h done").ok().prints("hello");
    env.ctr("logs --since yesterday done").either(&[1, 125]).says("yesterday").says_it_plainly();
}

#[test]
fn follows_to_the_end() {
    let env = TestEnv::new();
    let script = "mkfifo /gate; echo first; cat /gate; echo last";
    env.ctr(["run", "-d", "--name", "talker", "busybox", "sh", "-c", script]).ok();
    let mut followers: Vec<_> = (0..4).map(|_| env.spawn("logs -f talker")).collect();
    for follower in &mut followers {
        follower.line_with("first");
    }
    env.ctr("exec talker sh -c 'echo middle > /gate'").ok();
    for mut follower in followers {
        follower.line_with("middle");
        follower.line_with("last");
        follower.wait().ok();
    }
}

/// Four thousand lines, once somebody writes into /gate: half a megabyte of log.
const CHATTY: &str = "mkfifo /gate; cat /gate; i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo line-$i-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done";

fn start_chatty(env: &TestEnv, files: &str) {
    let opts = ["--log-opt", "max-size=64k", "--log-opt", files];
    let words = [&["run", "-d", "--name", "chatty"][..], &opts, &["busybox", "sh", "-c", CHATTY]].concat();
    env.ctr(words).ok();
}

#[test]
fn follows_across_rotation() {
    let env = TestEnv::new();
    start_chatty(&env, "max-file=20");
    let mut followers = [env.spawn("logs -f chatty"), env.spawn("logs -f chatty")];
    eventually("the gate", || (env.ctr("exec chatty test -p /gate").code() == 0).then_some(()));
    env.ctr("exec chatty sh -c 'echo go > /gate'").ok();
    for follower in &mut followers {
        follower.line_with("go");
        for i in 1..=4000 {
            let line = follower.line();
            assert!(line.starts_with(&format!("line-{i}-")), "line {i} is {line}");
        }
    }
    for follower in followers {
        follower.wait().ok();
    }
}

#[test]
fn rotation_bounds_the_disk() {
    let env = TestEnv::new();
    start_chatty(&env, "max-file=3");
    eventually("the gate", || (env.ctr("exec chatty test -p /gate").code() == 0).then_some(()));
    env.ctr("exec chatty sh -c 'echo go > /gate'").ok();
    env.ctr("wait chatty").ok();
    let folder = env.root().join("containers").join(env.inspect("chatty", "/Id").as_str().unwrap());
    let logs = std::fs::read_dir(folder).unwrap().flatten().filter(|e| e.file_name().to_string_lossy().contains("log"));
    let total: u64 = logs.map(|entry| entry.metadata().unwrap().len()).sum();
    assert!(total > 65_536 && total < 4 * 65_536, "{total}");
    assert_eq!(env.ctr("logs --tail 1 chatty").ok().text().split('-').nth(1), Some("4000"));
}

#[test]
fn of_a_terminal_are_one_stream() {
    let env = TestEnv::new();
    env.ctr("run -dt --name term busybox sh -c 'echo out; echo err >&2'").ok();
    env.ctr("wait term").ok();
    let out = env.ctr("logs term").ok();
    assert_eq!(out.stdout(), "out\r\nerr\r\n");
}

#[test]
fn long_lines_and_odd_bytes_survive() {
    let env = TestEnv::new();
    env.ctr("run --name long busybox sh -c 'head -c 100000 /dev/zero | tr \"\\0\" a; printf \"\\377\\001\\\\\"'").ok();
    let out = env.ctr("logs long").ok();
    // What is no UTF-8 is kept as U+FFFD, in the log of JSON lines.
    assert_eq!(out.stdout().chars().count(), 100_003);
    assert!(out.stdout().ends_with("\u{fffd}\u{1}\\"));
    let env2 = TestEnv::new();
    env2.ctr("run --name partial busybox printf no-newline").ok();
    assert_eq!(env2.ctr("logs partial").ok().stdout(), "no-newline");
}

#[test]
fn errors() {
    let env = TestEnv::new();
    env.ctr("logs missing").fails(1).says("No such container: missing").says_it_plainly();
    env.ctr("run --name done busybox true").ok();
    env.ctr("logs --tail many done").either(&[1, 125]).says("many").says_it_plainly();
    env.ctr("logs").fails(1);
}

#[test]
fn a_follower_ends_when_the_container_is_removed() {
    let env = TestEnv::new();
    env.ctr("run -d --name gone busybox sh -c 'echo up; sleep 1000'").ok();
    let mut follower = env.spawn("logs -f gone");
    follower.line_with("up");
    env.ctr("rm -f gone").ok();
    follower.wait();
    eventually("gone", || env.ctr("ps -aq").ok().text().is_empty().then_some(()));
}
