//! `ctr` as an ordinary user, who is made for each test.

#![allow(clippy::print_stderr, clippy::unwrap_used, clippy::expect_used)] // A test that cannot run says so, or panics.

use std::os::unix::fs::MetadataExt;
use test_support::{OpenTun, PATIENCE, Registry, RegistryKind, TestEnv, eventually, http_get, udp_ask, wait_for_exit};

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
    eventually("its output", || (env.ctr("logs web").ok().stdout() == "begun\n").then_some(()));
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
    wait_for_exit(init, PATIENCE);
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
    for mode in ["keep-id", "auto"] {
        let refused = env.ctr(["run", "--rm", "--network", "none", "--userns", mode, "busybox", "true"]);
        refused.fails(125).says("one id only").says_it_plainly();
    }
}

/// With `keep-id` a user is himself: his files are his inside as outside.
#[test]
fn a_user_keeps_his_id() {
    if !has_newuidmap() {
        return;
    }
    let env = TestEnv::of_user_with_busybox(true);
    let user = env.user();
    let own = format!("{}:{}", user.uid, user.gid);
    let file =
        "FROM busybox\nRUN mkdir -p /site && echo page > /site/index.html && chown -R 33:34 /site && rm /bin/vi\n";
    env.write("home/ctx/Containerfile", file);
    env.ctr("build --network none -t site home/ctx").ok();
    let shared = env.path("home/shared");
    std::fs::create_dir(&shared).unwrap();
    std::os::unix::fs::chown(&shared, Some(user.uid), Some(user.gid)).unwrap();
    let bind = format!("{}:/shared", shared.display());
    let script = "echo $(id -u):$(id -g); stat -c %u:%g /shared /site /site/index.html /bin; test ! -e /bin/vi && \
                  touch /shared/made && cat /site/index.html";
    let words = ["run", "--rm", "--network", "none", "--userns", "keep-id", "-v", &bind, "site", "sh", "-c", script];
    let first = env.ctr(words).ok();
    first.prints(&format!("{own}\n{own}\n33:34\n33:34\n0:0\npage")).says("copied");
    let made = std::fs::metadata(shared.join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (user.uid, user.gid));
    // Once.
    let second = env.ctr(words).ok();
    assert!(!second.stderr().contains("copied"), "{}", second.stderr());
    env.ctr("run --rm --network none --userns keep-id -u 0 site sh -c 'id -u; touch /root/x; stat -c %u /root/x'")
        .ok()
        .prints("0\n0");
    let named = "run --rm --network none --userns keep-id:uid=500,gid=600 busybox sh -c 'echo $(id -u):$(id -g)'";
    env.ctr(named).ok().prints("500:600");
    env.ctr("run --rm --network none --userns auto busybox cat /proc/self/uid_map").ok().prints("1024");
    // An image that does not know him learns his name, for this container.
    let who = "id -un; id -gn; echo $HOME; tail -n 1 /etc/passwd";
    let line = |name: &str, home: &str| {
        format!("{name}\n{name}\n{home}\n{name}:*:{}:{}::{home}:/bin/sh\n", user.uid, user.gid)
    };
    let words = ["run", "--rm", "--network", "none", "--userns", "keep-id", "-w", "/tmp", "busybox", "sh", "-c", who];
    assert_eq!(env.ctr(words).ok().stdout(), line(&user.name, "/tmp"));
    env.ctr("run --rm --network none --userns keep-id:uid=33,gid=33 busybox id -un").ok().prints("www-data");
    env.ctr("run --rm --network none --userns auto busybox tail -n 1 /etc/passwd").ok().prints("nobody");
    env.ctr("run -d --name kept --network none --userns keep-id busybox sleep 1000").ok();
    env.ctr("exec kept id -u").ok().prints(&user.uid.to_string());
    assert_eq!(env.ctr(["exec", "kept", "sh", "-c", who]).ok().stdout(), line(&user.name, "/"));
    // An export has the owners that the container sees, his own and the image's.
    env.ctr("exec kept touch /tmp/own").ok();
    let tar = env.ctr("export kept").ok().bytes().to_vec();
    env.invoke("import - exported").stdin(tar).run().ok();
    env.ctr("run --rm --network none exported stat -c %u:%g /tmp/own /bin").ok().prints(&format!("{own}\n0:0"));
    env.ctr("rm -f kept").ok();
    // The copies go with the image.
    env.ctr("rmi -f site").ok();
    env.ctr("system check").ok();
}

/// Whether a program that connects containers is there, and the device it needs.
fn has_network(program: &str) -> Option<OpenTun> {
    let tun = OpenTun::new();
    let found = std::path::Path::new("/usr/bin").join(program).exists();
    if tun.is_none() || !found {
        eprintln!("SKIPPED: {program} or /dev/net/tun is missing");
    }
    tun.filter(|_| found)
}

/// A PATH in which this program is the only one of its kind.
fn path_with(env: &TestEnv, program: &str) -> std::path::PathBuf {
    let folder = env.path("programs");
    std::fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(format!("/usr/bin/{program}"), folder.join(program)).unwrap();
    folder
}

#[test]
fn ports_are_published_and_names_resolved() {
    let Some(_tun) = has_network("pasta") else { return };
    let env = TestEnv::of_user_with_busybox(true);
    let serve = "echo page > /index.html && exec httpd -f -p 80 -h /";
    env.ctr(["run", "-d", "--name", "web", "-p", "80", "busybox", "sh", "-c", serve]).ok();
    assert_eq!(http_get(&env.published("web", "80"), "/index.html"), "page\n");
    // A restart is another monitor, and another free port.
    env.ctr("restart -t 0 web").ok();
    assert_eq!(http_get(&env.published("web", "80"), "/index.html"), "page\n");
    let published = format!("{}:80", env.published("web", "80"));
    env.ctr(["run", "--rm", "-p", &published, "busybox", "true"]).fails(125).says("port is already allocated");
    env.ctr("run --rm -p 1:80 busybox true").fails(125).says("ip_unprivileged_port_start");
    env.ctr("run --rm busybox sh -c 'ip route; cat /etc/hosts'")
        .ok()
        .prints("default via 10.0.2.2")
        .prints("10.0.2.100");
    env.ctr("rm -f web").ok();
    env.ctr(["run", "--rm", "-p", &published, "busybox", "true"]).ok();
}

#[test]
fn datagrams_come_and_go() {
    let Some(_tun) = has_network("pasta") else { return };
    let env = TestEnv::of_user_with_debian(true);
    let script = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"\", 9))\nwhile True: s.sendto(*s.recvfrom(9000))";
    env.ctr(["run", "-d", "--name", "echo", "-p", "127.0.0.1::9/udp", "debian:bookworm", "python3", "-c", script]).ok();
    assert_eq!(udp_ask(&env.published("echo", "9/udp"), "ping"), "ping");
}

#[test]
fn an_image_of_many_owners_runs_with_one_id() {
    let env = TestEnv::of_user_with_debian(false);
    env.ctr("run --rm --network none debian:bookworm stat -c %u:%g /etc/shadow /usr/bin/wall").ok().prints("0:0");
    env.build("app", "ctx", "FROM debian:bookworm\nCOPY --chown=33:33 Containerfile /x\nRUN --network=none touch /y\n")
        .ok();
}

#[test]
fn slirp4netns_serves_where_pasta_is_missing() {
    let Some(_tun) = has_network("slirp4netns") else { return };
    let env = TestEnv::of_user_with_busybox(true);
    // pasta is found in /usr/bin all the same, so one that fails stands in its place.
    let folder = path_with(&env, "slirp4netns");
    std::os::unix::fs::symlink("/bin/false", folder.join("pasta")).unwrap();
    let serve = "echo page > /index.html && exec httpd -f -p 80 -h /";
    let run = env.invoke(["run", "-d", "--name", "web", "-p", "80", "busybox", "sh", "-c", serve]);
    run.env("PATH", format!("{}:/usr/bin:/bin", folder.display())).run().ok();
    assert_eq!(http_get(&env.published("web", "80"), "/index.html"), "page\n");
    env.ctr("exec web ip route").ok().prints("default via 10.0.2.2");
}

#[test]
fn a_lost_monitors_network_goes_with_it() {
    let Some(_tun) = has_network("pasta") else { return };
    let env = TestEnv::of_user_with_busybox(true);
    env.ctr("run -d --name lost busybox sleep 1000").ok();
    let is_pasta = |(_, line): &(i32, String)| line.contains("pasta");
    let (pasta, _) = env.user().processes().into_iter().find(is_pasta).expect("pasta runs");
    let monitor = rustix::process::Pid::from_raw(env.monitor_of("lost")).unwrap();
    rustix::process::kill_process(monitor, rustix::process::Signal::KILL).unwrap();
    assert!(wait_for_exit(pasta, PATIENCE));
}

#[test]
fn images_are_built_pushed_pulled_and_saved() {
    let Some(_tun) = has_network("pasta") else { return };
    let env = TestEnv::of_user_with_busybox(true);
    let registry = Registry::start(RegistryKind::Plain);
    let name = format!("{}/team/app:1", registry.address());
    env.write("app/hello.txt", "hello\n");
    let file = "FROM busybox\nRUN echo made > /made && rm -r /usr && mkdir /usr && chown 33:44 /made && mknod /pipe p\n\
                COPY --chown=12:13 hello.txt /hello.txt\nRUN rm /etc/group && ip route > /route\n\
                USER 33\nCMD cat /made /hello.txt\n";
    env.build(&name, "app", file).ok();
    let script = "stat -c %u:%g /made /hello.txt; ls /usr /etc/group; cat /route";
    let seen = env.ctr(["run", "--rm", "--network", "none", &name, "sh", "-c", script]).either(&[1, 0]).stdout();
    assert!(seen.starts_with("33:44\n12:13\n/usr:\n") || seen.starts_with("33:44\n12:13\n"), "{seen}");
    assert!(!seen.contains("/etc/group") && seen.contains("10.0.2.2") && !seen.contains("bin"), "{seen}");

    env.ctr(["push", "--tls-verify=false", &name]).ok();
    env.ctr(["rmi", "-f", &name]).ok();
    env.ctr(["pull", "--tls-verify=false", &name]).ok();
    let pulled = env.ctr(["run", "--rm", "--network", "none", &name, "sh", "-c", script]).either(&[1, 0]).stdout();
    assert_eq!(pulled, seen);

    // Root makes the same of it: the marks of one kind of store do not get into the image.
    let roots = TestEnv::new();
    roots.ctr(["pull", "--tls-verify=false", &name]).ok();
    assert_eq!(
        roots.ctr(["run", "--rm", "--network", "none", &name, "sh", "-c", script]).either(&[1, 0]).stdout(),
        seen
    );
    assert_eq!(roots.inspect(&name, "/Id"), env.inspect(&name, "/Id"));
}

#[test]
fn volumes_are_filled_and_kept() {
    if !has_newuidmap() {
        return;
    }
    let env = TestEnv::of_user_with_busybox(true);
    env.build("app", "ctx", "FROM busybox\nCOPY --chown=33:33 Containerfile /data/file\nRUN --network=none true\n")
        .ok();
    env.ctr("run --rm --network none -v kept:/data app sh -c 'stat -c %u /data/file; echo more > /data/more'")
        .ok()
        .prints("33");
    env.ctr("run --rm --network none -v kept:/data busybox cat /data/more").ok().prints("more");
    env.ctr("volume rm kept").ok();
    env.ctr("run --rm --network none --tmpfs /scratch busybox touch /scratch/x").ok();
}

#[test]
fn info_tells_what_a_users_engine_lacks() {
    if !has_newuidmap() {
        return;
    }
    let env = TestEnv::of_user(true);
    let info = env.ctr("info").ok();
    info.prints("Rootless: true").prints("User Ids: 65537");
    let json = env.ctr("info --format json").ok().json();
    assert_eq!(json["RootlessLimits"]["UserIds"], 65_537);
    assert!(json["SecurityOptions"].as_array().unwrap().contains(&"name=rootless".into()));

    // A program that is not installed is named once, and how to get it; a single id does meanwhile.
    let other = TestEnv::of_user(true);
    let hide = r#"exec unshare --mount sh -c 'mount --bind /dev/null /usr/bin/newuidmap && exec "$@"' sh "$@""#;
    let hidden = |args: &str| other.invoke(args).through_shell(hide).run().ok();
    hidden("images").says("newuidmap is not installed").says("uidmap");
    assert_eq!(hidden("images").stderr(), "");
    hidden("info").prints("User Ids: 1").says("newuidmap is not installed");
    // Nobody is left in the namespace with the single id: the next one has them all.
    other.ctr("info").ok().prints("User Ids: 65537");
}

#[test]
fn a_user_without_ids_learns_how_to_get_them() {
    let env = TestEnv::of_user(false);
    env.ctr("images").ok().says("/etc/subuid has no line for").says("usermod --add-subuids");
    assert_eq!(env.ctr("images").ok().stderr(), "");
    env.ctr("info").ok().prints("User Ids: 1").says("usermod --add-subuids");
}

#[test]
fn a_state_folder_of_somebody_else_is_refused_in_words() {
    let env = TestEnv::of_user(true);
    std::fs::create_dir(env.path("roots")).unwrap();
    let refused = env.invoke("images").env("XDG_RUNTIME_DIR", env.path("roots")).run();
    refused.fails(1).says("XDG_RUNTIME_DIR").says_it_plainly();
}

#[test]
fn limits_without_a_control_group_are_discarded_aloud() {
    if !has_newuidmap() {
        return;
    }
    let env = TestEnv::of_user_with_busybox(true);
    let out = env.ctr("run -d --name free --network none -m 64m --cpus 1 busybox sleep 1000").ok();
    out.says("memory limit").says("cpu limit").says("Limitation discarded.");
    env.ctr("pause free").fails(1).says("no control group");
}

#[test]
fn a_delegated_control_group_is_used() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let v2 =
        mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).and_then(|line| line.split(' ').nth(1));
    let Some(v2) = v2.filter(|_| has_newuidmap()) else {
        eprintln!("SKIPPED: no cgroup v2 is mounted");
        return;
    };
    let env = TestEnv::of_user_with_busybox(true);
    let user = env.user();
    let group = std::path::Path::new(v2).join(&user.name);
    let session = group.join("session");
    std::fs::create_dir_all(&session).unwrap();
    for path in [&group, &session] {
        for file in ["", "cgroup.procs", "cgroup.subtree_control"] {
            std::os::unix::fs::chown(path.join(file), Some(user.uid), Some(user.gid)).unwrap();
        }
    }
    let enter = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", session.display());
    let inside = |args: &str| env.invoke(args).through_shell(&enter).run();
    inside("info").ok().prints(&format!("Cgroup: /{}", user.name));
    inside("run -d --name held --network none busybox sleep 1000").ok();
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", env.pid_of("held"))).unwrap();
    let id = env.ctr("ps -q --no-trunc").ok().text();
    assert!(own.contains(&format!("0::/{}/ctr-{}/{id}", user.name, env.tag())), "{own}");
    assert!(inside("top held").ok().stdout().contains("sleep 1000"));
    inside("exec held true").ok();
    // From elsewhere its record leads there.
    env.ctr("pause held").ok();
    env.until_status("held", "paused");
    env.ctr("unpause held").ok();
    env.ctr("exec held true").ok();
    inside("rm -f held").ok();
    eventually("the groups' removal", || {
        let gone = std::fs::remove_dir(&session).is_ok() || !session.exists();
        (gone && std::fs::remove_dir(&group).is_ok()).then_some(())
    });
}
