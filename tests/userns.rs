//! `--userns`: containers whose users are others outside.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::MetadataExt;
use test_support::{TestEnv, eventually, http_try};

/// Inside, outside and count of the first line of a container's map.
fn map(env: &TestEnv, options: &str) -> [u32; 3] {
    let text = env.ctr(format!("run --rm --network none {options} busybox head -n 1 /proc/self/uid_map")).ok().text();
    let numbers: Vec<u32> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

#[test]
fn each_container_has_ids_of_its_own() {
    let env = TestEnv::new();
    env.ctr("run -d --name one --userns auto busybox sleep 1000").ok();
    env.ctr("create --name two --userns auto:size=1000 busybox true").ok();
    let outside = |name: &str| -> u32 {
        let pid = env.pid_of(name);
        let text = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
        text.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let first = outside("one");
    assert!(first >= 1 << 30, "{first}");
    assert_eq!(std::fs::metadata(format!("/proc/{}", env.pid_of("one"))).unwrap().uid(), first);
    // What is only made has its ids already; the next one gets the next.
    assert_eq!(map(&env, "--userns auto"), [0, first + 65_536 + 1000, 65_536]);
    env.ctr("rm two").ok();
    assert_eq!(map(&env, "--userns auto:size=1000"), [0, first + 65_536, 1000]);
    assert_eq!(map(&env, "--userns keep-id"), [0, 0, u32::MAX]);
    assert_eq!(map(&env, "--userns host"), map(&env, ""));
    env.ctr("inspect one --format {{.HostConfig.UsernsMode}}").ok().prints("auto");
}

#[test]
fn files_belong_to_whom_they_belong_in_the_image() {
    let env = TestEnv::new();
    let file = "FROM busybox\nRUN mkdir -p /site && echo page > /site/index.html && chown -R 33:34 /site\n\
                RUN chmod 750 /site && rm /bin/vi\n";
    env.build("site", "ctx", file).ok();
    let script = "stat -c %u:%g:%a /site /site/index.html / && echo more >> /site/index.html && cat /site/index.html && \
                  touch /new && chown 5:6 /new && test ! -e /bin/vi && grep -q $(hostname) /etc/hosts && \
                  echo x >> /etc/hosts";
    let expected = "33:34:750\n33:34:644\n0:0:755\npage\nmore";
    env.ctr(["run", "--name", "site", "--userns", "auto", "site", "sh", "-c", script]).ok().prints(expected);
    let id = env.inspect("site", "/Id").as_str().unwrap().to_owned();
    let made = env.root().join("containers").join(&id).join("upper/new").metadata().unwrap();
    assert!(made.uid() > 1 << 30 && made.uid() % 65_536 == 5 && made.gid() % 65_536 == 6, "{made:?}");
    // Its writable layer is as it was at the next start, and the image as it was for others.
    env.ctr("rm site").ok();
    env.ctr("run --rm site stat -c %u:%g /site").ok().prints("33:34");
}

#[test]
fn volumes_are_shared_across_ids_and_the_hosts_files_are_nobodys() {
    let env = TestEnv::new();
    env.ctr("run --rm --userns auto -v data:/data busybox sh -c 'echo kept > /data/f; chown 7:8 /data/f'").ok();
    env.ctr("run -d --name other --userns auto -v data:/data busybox sleep 1000").ok();
    env.ctr("run --rm --userns auto -v data:/data busybox stat -c %u:%g /data/f").ok().prints("7:8");
    env.ctr("run --rm -v data:/data busybox stat -c %u:%g /data/f").ok().prints("7:8");
    env.write("dir/file", "from the host\n");
    let bind = format!("{}:/dir", env.path("dir").display());
    let script = "stat -c %u /dir/file; cat /dir/file; touch /dir/x";
    let refused = env.ctr(["run", "--rm", "--userns", "auto", "-v", &bind, "busybox", "sh", "-c", script]).fails(1);
    refused.prints("65534\nfrom the host").says("Permission denied");
}

#[test]
fn all_else_works_as_ever() {
    let env = TestEnv::new();
    let serve = "mkdir -p www && echo hello > www/index.html && exec httpd -f -p 80 -h www";
    let words = ["run", "-d", "--name", "web", "--userns", "auto", "-w", "/made/here", "-p", "127.0.0.1::80"];
    env.ctr([&words[..], &["busybox", "sh", "-c", serve]].concat()).ok();
    let answer = || http_try(&env.published("web", "80"), "/").ok();
    let answers = || eventually("an answer", || answer().filter(|text| text.contains("hello")));
    answers();
    env.ctr("exec web sh -c 'id -u; pwd; stat -c %u .'").ok().prints("0\n/made/here\n0");
    env.ctr("exec -u 33 web id -u").ok().prints("33");
    // Root of the container alone, but of all that is its own, its network too.
    env.ctr("exec --privileged web ip link set lo mtu 1400").ok();
    env.ctr("exec --privileged web mknod /x b 8 0").fails(1);
    env.ctr("restart -t 0 web").ok();
    answers();
    env.ctr("rm -f web").ok();
    env.ctr("run --rm --userns auto --network host busybox true").ok();
    env.ctr("run --rm --userns auto --read-only --privileged busybox sh -c 'mount -t tmpfs x /mnt && echo mounted'")
        .ok();
}

#[test]
fn what_cannot_be_is_said_plainly() {
    let env = TestEnv::new();
    for wrong in ["foo", "auto:size=0", "auto:size=x", "keep-id:size=3", "auto:size=4294967295"] {
        env.ctr(format!("run --rm --userns {wrong} busybox true")).fails(125).says(wrong).says_it_plainly();
    }
    env.ctr("run --rm --userns auto:size=1000000000 busybox true").fails(125).says("no 1000000000 ids in a row");
    env.ctr("run --rm --userns keep-id:uid=3 busybox true").fails(125).says("ordinary users").says_it_plainly();
    env.ctr("run -d --name one busybox sleep 1000").ok();
    let joins = "run --rm --userns auto --network container:one busybox true";
    env.ctr(joins).fails(125).says("conflicting options").says_it_plainly();
}
