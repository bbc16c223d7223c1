//! The end of a container: `stop`, `kill`, `wait`, `rm`, and its beginning again: `start`, `restart`.

use std::time::{Duration, Instant};
use test_support::TestEnv;

/// A container that leaves at once when asked to, saying so.
const POLITE: &str = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 1 & wait $!; done";

fn start_polite(env: &TestEnv, name: &str) {
    env.ctr(["run", "-d", "--name", name, "busybox", "sh", "-c", POLITE]).ok();
    env.spawn(["logs", "-f", name]).line_with("ready");
}

#[test]
fn stop_asks_first() {
    let env = TestEnv::new();
    start_polite(&env, "polite");
    let start = Instant::now();
    assert_eq!(env.ctr("stop polite").ok().text(), "polite");
    assert!(start.elapsed() < Duration::from_secs(5));
    env.ctr("logs polite").ok().prints("bye");
    assert_eq!(env.inspect("polite", "/State/ExitCode"), 0);
    // Stopping what is stopped is no error.
    env.ctr("stop polite").ok();
}

#[test]
fn stop_insists_after_the_time_given() {
    let env = TestEnv::new();
    env.ctr("run -d --name deaf busybox sleep 1000").ok();
    let start = Instant::now();
    env.ctr("container stop -t 1 deaf").ok();
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(6), "{took:?}");
    assert_eq!(env.inspect("deaf", "/State/ExitCode"), 137);
}

#[test]
fn several_stop_side_by_side_and_are_named_in_order() {
    let env = TestEnv::new();
    for name in ["a", "b", "c", "d"] {
        env.ctr(["run", "-d", "--name", &format!("deaf-{name}"), "busybox", "sleep", "1000"]).ok();
    }
    let start = Instant::now();
    let out = env.ctr("stop -t 2 deaf-d deaf-a deaf-b deaf-c").ok();
    assert_eq!(out.lines(), ["deaf-d", "deaf-a", "deaf-b", "deaf-c"]);
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
}

#[test]
fn good_names_are_done_bad_ones_told() {
    let env = TestEnv::new();
    start_polite(&env, "polite");
    let out = env.ctr("stop missing polite").fails(1);
    assert_eq!(out.text(), "polite");
    out.says("No such container: missing");
}

#[test]
fn stop_signal() {
    let env = TestEnv::new();
    let script = "trap 'echo usr1; exit 11' USR1; echo ready; while :; do sleep 1 & wait $!; done";
    env.ctr(["run", "-d", "--name", "ss", "--stop-signal", "SIGUSR1", "busybox", "sh", "-c", script]).ok();
    env.spawn("logs -f ss").line_with("ready");
    env.ctr("stop ss").ok();
    assert_eq!(env.inspect("ss", "/State/ExitCode"), 11);
}

#[test]
fn kill() {
    let env = TestEnv::new();
    env.ctr("run -d --name kk busybox sleep 1000").ok();
    assert_eq!(env.ctr("kill kk").ok().text(), "kk");
    env.ctr("wait kk").ok().prints("137");
    env.ctr("kill kk").fails(1).says("is not running").says_it_plainly();
    start_polite(&env, "polite");
    env.ctr("kill -s TERM polite").ok();
    env.ctr("wait polite").ok().prints("0\n");
    env.ctr("kill -s NOPE polite").fails(1).says("NOPE").says_it_plainly();
}

#[test]
fn wait_prints_each_code() {
    let env = TestEnv::new();
    env.ctr("run -d --name seven busybox sh -c 'exit 7'").ok();
    env.ctr("run -d --name zero busybox true").ok();
    assert_eq!(env.ctr("wait seven zero").ok().lines(), ["7", "0"]);
    env.ctr("wait missing").fails(1).says("No such container: missing");
}

#[test]
fn wait_waits() {
    let env = TestEnv::new();
    env.ctr("run -d --name long busybox sleep 1000").ok();
    let waiting = env.spawn("wait long");
    env.ctr("kill long").ok();
    waiting.wait().ok().prints("137");
}

#[test]
fn start_again() {
    let env = TestEnv::new();
    env.ctr("run --name counter busybox sh -c 'echo x >> /count; wc -l < /count'").ok().prints("1");
    env.ctr("start -a counter").ok().prints("2");
    assert_eq!(env.ctr("start counter").ok().text(), "counter");
    env.ctr("wait counter").ok();
    assert_eq!(env.ctr("logs counter").ok().lines(), ["1", "2", "3"]);
    env.ctr("start missing").fails(1).says("No such container: missing");
}

#[test]
fn create_then_start() {
    let env = TestEnv::new();
    let id = env.ctr("create --name later busybox sh -c 'echo now; exit 6'").ok().text();
    assert_eq!(id.len(), 64);
    assert_eq!(env.inspect("later", "/State/Status"), "created");
    env.ctr("start -a later").fails(6).prints("now");
}

#[test]
fn rm() {
    let env = TestEnv::new();
    env.ctr("run -d --name rr busybox sleep 1000").ok();
    let refused = env.ctr("rm rr").fails(1).says_it_plainly();
    refused.says(
        "cannot remove container \"rr\": container is running: stop the container before removing or force remove",
    );
    assert_eq!(env.ctr("rm -f rr").ok().text(), "rr");
    env.ctr("rm rr").fails(1).says("No such container: rr");
    env.ctr("rm -f rr").ok();
    env.ctr("create --name cc busybox true").ok();
    env.ctr("container rm cc").ok();
    env.ctr("ps -aq").ok().prints_nothing();
}

#[test]
fn a_stop_suppresses_the_restart_policy() {
    let env = TestEnv::new();
    env.ctr(["run", "-d", "--name", "always", "--restart", "always", "busybox", "sh", "-c", POLITE]).ok();
    env.ctr("stop always").ok();
    assert_eq!(env.inspect("always", "/State/Status"), "exited");
    env.ctr("start always").ok();
    assert_eq!(env.inspect("always", "/State/Running"), true);
}

#[test]
fn attach_sees_what_comes() {
    let env = TestEnv::new();
    env.ctr("run -di --name cat busybox cat").ok();
    let mut attached = env.spawn("attach cat");
    attached.write("hello\n");
    attached.line_with("hello");
    // The container's stdin outlives this client's: others may attach.
    attached.close_stdin();
    let mut other = env.spawn("attach cat");
    other.write("again\n");
    other.line_with("again");
    env.ctr("kill cat").ok();
    attached.wait().fails(137);
    other.wait().fails(137);
    env.ctr("attach cat").fails(1).says_it_plainly();
}
