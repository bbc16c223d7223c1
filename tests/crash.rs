//! kill -9 of anything at any time: every later command works.
#![allow(clippy::unwrap_used)]

use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;
use test_support::{TestEnv, eventually, http_get, wait_for_exit};

fn kill9(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn of_the_monitor() {
    let env = TestEnv::new();
    env.ctr("run -d --name cc -p 127.0.0.1::80 busybox httpd -f -p 80 -h /etc").ok();
    let address = env.published("cc", "80");
    http_get(&address, "/passwd");
    let (monitor, init) = (env.monitor_of("cc"), env.pid_of("cc"));
    kill9(monitor);
    assert!(wait_for_exit(init, Duration::from_secs(10)), "the container shares its monitor's fate");
    // The next command sees it and says so.
    eventually("told as ended", || (env.inspect("cc", "/State/Status") == "exited").then_some(()));
    assert_eq!(env.inspect("cc", "/State/ExitCode"), 137);
    assert!(env.inspect("cc", "/State/Error").as_str().unwrap().contains("monitor"));
    env.ctr("ps -a").ok().prints("Exited (137)");
    // The port is free, the container starts again.
    std::net::TcpListener::bind(&address).expect("the kernel freed the port");
    env.ctr("start cc").ok();
    http_get(&env.published("cc", "80"), "/passwd");
    env.ctr("rm -f cc").ok();
}

#[test]
fn of_the_monitor_and_then_only_rm() {
    let env = TestEnv::new();
    env.ctr("run -d --rm --name cc busybox sh -c 'sleep 1000 & sleep 1000'").ok();
    kill9(env.monitor_of("cc"));
    env.ctr("rm -f cc").ok();
    env.ctr("run --rm --name cc busybox true").ok();
}

#[test]
fn of_the_init() {
    let env = TestEnv::new();
    env.ctr("run -d --name cc busybox sh -c 'sleep 1000 & sleep 1000'").ok();
    kill9(env.pid_of("cc"));
    env.ctr("wait cc").ok().prints("137");
    env.ctr("start cc").ok();
}

#[test]
fn of_the_command_at_random_moments() {
    let env = TestEnv::new();
    for round in 0..40_u64 {
        let running = env.spawn(["run", "--name", &format!("c{round}"), "busybox", "sleep", "0"]);
        // From before its first system call to after its end: a run takes some tens of milliseconds.
        wait_for_exit(running.pid(), Duration::from_micros(700 * round));
        running.kill();
    }
    for round in 0..40 {
        env.ctr(["rm", "-f", &format!("c{round}")]).ok();
    }
    env.ctr("ps -aq").ok().prints_nothing();
    env.ctr("run --rm --name c0 -p 127.0.0.1::80 busybox echo fine").ok().prints("fine");
}

#[test]
fn of_the_foreground_command_leaves_the_container() {
    let env = TestEnv::new();
    let mut running = env.spawn("run --name cc busybox sh -c 'echo up; sleep 1000'");
    running.line_with("up");
    running.kill();
    assert_eq!(env.inspect("cc", "/State/Status"), "running");
    env.ctr("rm -f cc").ok();
}

#[test]
fn of_a_build_at_random_moments() {
    let env = TestEnv::new();
    env.write("ctx/f", vec![b'x'; 1 << 20]);
    let file = "FROM busybox\nCOPY f /f\nRUN cat /f /f > /g\nRUN rm /f\n";
    env.write("ctx/Containerfile", file);
    for round in 0..25_u64 {
        let running = env.spawn("build --no-cache -t app ctx");
        wait_for_exit(running.pid(), Duration::from_millis(6 * round));
        running.kill();
    }
    env.ctr("build -t app ctx").ok();
    env.ctr("run --rm app sh -c 'test ! -e /f && wc -c < /g'").ok().prints("2097152");
    // What the killed ones had begun is swept by any later command, once the last killed step has let go of it.
    eventually("unfinished work is swept", || {
        env.ctr("run --rm busybox true").ok();
        let ingest = std::fs::read_dir(env.root().join("ingest")).map(Iterator::count).unwrap_or(0);
        (ingest == 0).then_some(())
    });
    env.ctr("system check --repair").ok();
    env.ctr("system check").ok().prints("Nothing is wrong.");
}

#[test]
fn of_an_import_at_random_moments() {
    let env = TestEnv::new();
    env.ctr("save -o image.tar busybox").ok();
    env.ctr("rmi busybox").ok();
    for round in 0..25_u64 {
        let running = env.spawn("load -i image.tar");
        wait_for_exit(running.pid(), Duration::from_millis(2 * round));
        running.kill();
        env.ctr("images").ok();
    }
    env.ctr("system check --repair").ok();
    env.ctr("load -i image.tar").ok();
    env.ctr("run --rm busybox echo whole").ok().prints("whole");
    env.ctr("system check").ok().prints("Nothing is wrong.");
}

#[test]
fn of_an_exec() {
    let env = TestEnv::new();
    env.ctr("run -d --name cc busybox sleep 1000").ok();
    let mut inside = env.spawn("exec cc sh -c 'echo up; sleep 1000'");
    inside.line_with("up");
    inside.kill();
    env.ctr("exec cc true").ok();
    env.ctr("stop -t 0 cc").ok();
    env.ctr("rm cc").ok();
}
