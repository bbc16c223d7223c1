//! `ctr` as an ordinary user, who is made for each test.

#![allow(clippy::print_stderr)] // A test that cannot run says so.

use std::os::unix::fs::MetadataExt;
use test_support::TestEnv;

/// Containers need a program with root's powers to have more than one id; says so where it is missing.
fn has_newuidmap() -> bool {
    let found = ["/usr/bin/newuidmap", "/bin/newuidmap"].iter().any(|path| std::path::Path::new(path).exists());
    if !found {
        eprintln!("SKIPPED: newuidmap is not installed (Debian: uidmap)");
    }
    found
}

#[test]
fn root_inside_is_the_user_outside_and_the_others_are_his_further_ids() {
    if !has_newuidmap() {
        return;
    }
    let env = TestEnv::of_user_with_busybox(true);
    let user = env.user();
    let first = user.first_sub_id().expect("useradd gave him some");
    let map = env.ctr("run --rm --network none busybox cat /proc/self/uid_map").ok().text();
    let numbers: Vec<u32> = map.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!(numbers, [0, user.uid, 1, 1, first, 65_536]);

    let shared = env.path("home/shared");
    std::fs::create_dir(&shared).unwrap();
    std::os::unix::fs::chown(&shared, Some(user.uid), Some(user.gid)).unwrap();
    let mount = format!("{}:/shared", shared.display());
    let script = "touch /shared/root /shared/other && chown 33:44 /shared/other && stat -c %u:%g /shared/other";
    env.ctr(["run", "--rm", "--network", "none", "-v", &mount, "busybox", "sh", "-c", script]).ok().prints("33:44");
    let owner = |name: &str| std::fs::metadata(shared.join(name)).map(|meta| (meta.uid(), meta.gid())).unwrap();
    assert_eq!(owner("root"), (user.uid, user.gid));
    assert_eq!(owner("other"), (first + 32, first + 43));

    // What it is root of is its own.
    env.ctr("run --rm --network none busybox mknod /x b 8 0").fails(1);
    env.ctr("run --rm --network none --privileged busybox sh -c 'mount -t tmpfs x /mnt && echo mounted'")
        .ok()
        .prints("mounted");
}

#[test]
fn a_container_lives_through_many_commands() {
    if !has_newuidmap() {
        return;
    }
    let env = TestEnv::of_user_with_busybox(true);
    env.ctr("run -d --name web --network none busybox sh -c 'echo begun; exec sleep 1000'").ok();
    env.ctr("logs web").ok().prints("begun");
    env.ctr("ps --format {{.Names}}").ok().prints("web");
    env.ctr("exec web sh -c 'id -u; hostname'").ok();
    env.ctr("exec -u 33 web id -u").ok().prints("33");
    let processes = env.ctr("top web").ok().stdout();
    assert!(processes.contains("sleep 1000"), "{processes}");
    env.ctr("restart -t 0 web").ok();
    env.ctr("exec web true").ok();
    env.ctr("stop -t 0 web").ok();
    env.ctr("start web").ok();
    env.ctr("kill web").ok();
    env.until_status("web", "exited");
    env.ctr("rm web").ok();
    env.ctr("ps -aq").ok().prints_nothing();
}

#[test]
fn containers_of_commands_that_began_at_once_are_in_one_namespace() {
    if !has_newuidmap() {
        return;
    }
    let env = TestEnv::of_user_with_busybox(true);
    let names: Vec<String> = (0..4).map(|number| format!("box{number}")).collect();
    let run = |name: &String| env.invoke(format!("run -d --name {name} --network none busybox sleep 1000")).spawn();
    let started: Vec<_> = names.iter().map(run).collect();
    started.into_iter().for_each(|running| drop(running.wait().ok()));
    let namespace = |name: &String| std::fs::read_link(format!("/proc/{}/ns/user", env.pid_of(name))).unwrap();
    assert!(names.iter().all(|name| namespace(name) == namespace(&names[0])));
    // The last to leave does not take it along.
    for name in &names {
        env.ctr(["exec", name, "true"]).ok();
        env.ctr(["rm", "-f", name]).ok();
    }
}

#[test]
fn a_lost_monitor_takes_its_container_along_and_the_next_command_sees_it() {
    if !has_newuidmap() {
        return;
    }
    let env = TestEnv::of_user_with_busybox(true);
    env.ctr("run -d --name lost --network none busybox sleep 1000").ok();
    let (monitor, init) = (env.monitor_of("lost"), env.pid_of("lost"));
    let pid = rustix::process::Pid::from_raw(monitor).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    test_support::wait_for_exit(init, test_support::PATIENCE);
    env.until_status("lost", "exited");
    env.ctr("start lost").ok();
    env.ctr("exec lost true").ok();
}

#[test]
fn the_hosts_network_and_processes_can_be_shared() {
    if !has_newuidmap() {
        return;
    }
    let env = TestEnv::of_user_with_busybox(true);
    let links = env.ctr("run --rm --network host busybox ls /sys/class/net").ok().lines();
    assert!(links.contains(&"lo".to_owned()), "{links:?}");
    env.ctr("run --rm --network host busybox touch /sys/kernel/x").fails(1);
    env.ctr("run --rm --network none --pid host busybox cat /proc/1/status").ok();
}

#[test]
fn without_further_ids_there_is_one() {
    let env = TestEnv::of_user_with_busybox(false);
    let user = env.user();
    assert_eq!(user.first_sub_id(), None);
    let map = env.ctr("run --rm --network none busybox cat /proc/self/uid_map").ok().text();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", &user.uid.to_string(), "1"]);
    env.ctr("run --rm --network none -t busybox id -u").ok();
    env.ctr("run --rm --network none -u 33 busybox true").fails(125).says("/etc/subuid");
    env.ctr("run -d --name one --network none busybox sleep 1000").ok();
    env.ctr("exec one id -u").ok().prints("0");
}
