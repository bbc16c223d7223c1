//! A full disk: each command says so in one line, leaves nothing half-made, and the way back to free space is open.

use std::fs::{self, File};
use std::io::Write;
use test_support::{Finished, TestEnv, eventually};

/// Room for busybox and some more.
const DISK_KIB: u32 = 12 << 10;
/// What fills the rest of the disk.
const BALLAST: &str = "root/ballast";

/// Takes what is left of the disk, to the last block.
fn fill(env: &TestEnv) {
    let Ok(mut file) = File::create(env.path(BALLAST)) else { return };
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

/// The entries below `root/NAME`.
fn entries(env: &TestEnv, name: &str) -> usize {
    fs::read_dir(env.root().join(name)).map_or(0, Iterator::count)
}

#[track_caller]
fn says_what_to_do(out: Finished) {
    out.says("No space left on device").says("free some space").says_it_plainly();
}

#[test]
fn commands_that_need_space_say_so_and_leave_nothing() {
    let env = TestEnv::on_a_small_disk(DISK_KIB);
    env.write("context/blob", vec![7; 20 << 20]);
    let layers = entries(&env, "layers");
    env.build("big", "context", "FROM busybox\nCOPY blob /blob\n")
        .fails(1)
        .says("Containerfile:2")
        .says("free some space");
    let out = env.build("big", "context", "FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=20\n").fails(1);
    out.says("dd: error writing '/big': No space left on device").says("exit code: 1");
    env.ctr("save -o image.tar busybox").ok();
    fill(&env);
    says_what_to_do(env.ctr("run --rm busybox true").fails(125));
    says_what_to_do(env.ctr("create --name one busybox true").fails(125));
    says_what_to_do(env.ctr("tag busybox other:1").fails(1));
    env.ctr("load -i image.tar").either(&[0, 1]);
    env.ctr("ps -aq").ok().prints_nothing();
    assert!(!env.ctr("images").ok().stdout().contains("other"));
    fs::remove_file(env.path(BALLAST)).unwrap();
    env.ctr("run --rm busybox echo whole").ok().prints("whole");
    assert_eq!(entries(&env, "layers"), layers);
    for name in ["ingest", "trash", "containers"] {
        assert_eq!(entries(&env, name), 0, "{name} is empty");
    }
}

#[test]
fn a_container_that_fills_the_disk_is_seen_to_end_and_can_be_removed() {
    let env = TestEnv::on_a_small_disk(DISK_KIB);
    env.ctr("run --name hog busybox dd if=/dev/zero of=/big bs=1M count=20").fails(1).says("No space left on device");
    fill(&env);
    env.ctr("ps -a").ok().prints("Exited (1)");
    env.ctr("ps -q").ok().prints_nothing();
    says_what_to_do(env.ctr("run --rm busybox true").fails(125));
    env.ctr("rm hog").ok();
    env.ctr("ps -aq").ok().prints_nothing();
    env.ctr("run --rm busybox echo room").ok().prints("room");
}

#[test]
fn a_lost_monitor_on_a_full_disk_is_seen() {
    let env = TestEnv::on_a_small_disk(DISK_KIB);
    env.ctr("run -d --name lost busybox sleep 1000").ok();
    let monitor = env.monitor_of("lost");
    fill(&env);
    rustix::process::kill_process(rustix::process::Pid::from_raw(monitor).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    eventually("the loss is seen", || env.ctr("ps -a").ok().stdout().contains("Exited (137)").then_some(()));
    env.ctr("rm lost").ok();
    env.ctr("ps -aq").ok().prints_nothing();
}
