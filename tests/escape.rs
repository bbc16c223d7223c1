//! Images and containers that try to get at the host through `ctr`: by the names in an image, by what a container does while
//! somebody enters it, by what it is called. runtime/tests has the same for the runtime alone.
#![allow(clippy::unwrap_used)] // Also in what the tests share.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use test_support::{TestEnv, ctr_binary, eventually};

/// A folder of the host with one file, which must stay as it is.
fn victim(env: &TestEnv) -> PathBuf {
    let file = env.write("victim/secret", "HOST SECRET\n");
    file.parent().unwrap().to_owned()
}

#[track_caller]
fn is_untouched(victim: &Path) {
    let names: Vec<_> = fs::read_dir(victim).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["secret"]);
    assert_eq!(fs::read_to_string(victim.join("secret")).unwrap(), "HOST SECRET\n");
}

/// Every name that the engine writes to, reads or mounts on is a link to the host in this image.
///
/// Seen to succeed with names looked up as the host sees them.
#[test]
fn links_of_an_image_stay_in_it() {
    let env = TestEnv::new();
    let host = victim(&env);
    let (dir, up) = (host.display(), "../".repeat(12));
    let file = format!(
        "FROM busybox\n\
         COPY etc /etc\n\
         RUN rm -rf /work /data; ln -s {dir}/made /work; ln -s {dir} /data; ln -s {up}{dir} /up; mkdir /vol; ln -s {dir}/vol /vol/link\n\
         WORKDIR /work\n\
         RUN pwd -P > from-run; cat /data/* /up/* > /seen 2>&1 || true\n\
         COPY Containerfile /data/copied\n\
         COPY Containerfile /up/other\n\
         VOLUME /data\n"
    );
    // A container's own files are mounted over these names, so that only a copy can put links there.
    fs::create_dir_all(env.path("context/etc")).unwrap();
    for (name, target) in [("hostname", "hostname"), ("hosts", "secret")] {
        symlink(host.join(target), env.path("context/etc").join(name)).unwrap();
    }
    symlink(format!("{up}{dir}/resolv"), env.path("context/etc/resolv.conf")).unwrap();
    let built = env.build("hostile", "context", &file);
    is_untouched(&host);
    built.ok();
    env.write("mine/file", "mine\n");
    let mine = env.path("mine").display().to_string();
    let binds = [format!("{mine}:/up/deep/er"), format!("{mine}/file:/data/one"), format!("{mine}:/vol/link/x:ro")];
    let script = "cat /seen /up/* /data/* /etc/hosts; touch /data/new here; cat /up/deep/er/file";
    let mut words = vec!["run".to_owned(), "--name".into(), "box".into(), "--tmpfs".into(), "/up/tmp".into()];
    binds.iter().for_each(|bind| words.extend(["-v".to_owned(), bind.clone()]));
    words.extend(["-w", "/up/workdir", "hostile", "sh", "-c", script].map(str::to_owned));
    let ran = env.ctr(words.as_slice());
    let all = ran.stdout() + &ran.stderr();
    assert!(!all.contains("HOST SECRET") && all.contains("mine\n"), "{all}");
    is_untouched(&host);
    for words in ["commit box again", "export -o out.tar box", "cp box:/up/secret copied", "diff box"] {
        let _whether_or_not_there_is_such_a_command = env.ctr(words);
        is_untouched(&host);
    }
    assert!(!fs::read_to_string(env.path("copied")).is_ok_and(|text| text.contains("HOST SECRET")));
}

/// Users come from the image's files, whatever these are; a number is that number.
///
/// Seen to succeed with numbers cut to 32 bits (`-u 4294967296` was root), with passwd looked up as the host sees it (the uid was
/// the host's), and with it opened whatever it is (nobody returned from the fifo).
#[test]
fn no_image_or_option_makes_root_of_a_user() {
    let env = TestEnv::new();
    let host = env.write("users/passwd", "daemon:x:4242:4242::/:/bin/sh\n");
    for (user, expected) in [("1", "1\n"), ("1:1", "1\n"), ("65534", "65534\n")] {
        env.ctr(["run", "--rm", "--network", "none", "-u", user, "busybox", "id", "-u"]).ok().prints(expected);
    }
    env.ctr("run -d --name box --network none busybox sleep 1000").ok();
    for user in ["4294967296", "4294967295", "2147483648", "18446744073709551617", "-1", "1:4294967296", "0x0", "+0"] {
        let user = format!("--user={user}");
        env.ctr(["run", "--rm", "--network", "none", &user, "busybox", "id"]).either(&[1, 125, 126]).prints_nothing();
        env.ctr(["exec", &user, "box", "id"]).either(&[1, 125, 126]).prints_nothing();
        let file = format!("FROM busybox\nUSER {}\nRUN id -u | grep -v '^0$'\n", &user[7..]);
        env.write("context/Containerfile", file);
        assert_ne!(env.ctr("build --network none -t never context").code(), 0, "{user}");
    }
    env.ctr("exec -u 1 box id -u").ok().prints("1\n");

    // The host's users through a link, a fifo nobody writes to, and a device: opening that already does something.
    let attacks = [
        format!("ln -sf {} /etc/passwd", host.display()),
        "rm /etc/passwd; mkfifo /etc/passwd".to_owned(),
        "rm /etc/passwd; mknod /etc/passwd c 1 7".to_owned(),
    ];
    for (index, attack) in attacks.iter().enumerate() {
        let name = format!("box{index}");
        env.ctr(["run", "-d", "--name", &name, "--network", "none", "busybox", "sleep", "1000"]).ok();
        env.ctr(["exec", &name, "sh", "-c", attack]).ok();
        let ran = env.ctr(["exec", "-u", "daemon", &name, "id"]).either(&[1, 125, 126]).prints_nothing();
        let said = ran.stderr();
        assert!(said.contains("passwd"), "{attack}: {said}");
    }
    env.ctr("run --rm --network none -u 1 busybox id -u").ok().prints("1\n");
}

/// CVE-2022-29162: no process of any kind begins with inheritable capabilities. What they are good for, runtime/tests tries.
///
/// Seen to succeed with the inheritable set made as the others are: it was full.
#[test]
fn the_inheritable_set_is_empty_everywhere() {
    let env = TestEnv::new();
    let empty = "CapInh:\t0000000000000000";
    env.ctr("run -d --name box --network none --cap-add NET_ADMIN busybox sleep 1000").ok();
    for words in [
        "exec box",
        "exec --privileged box",
        "exec -u 1 box",
        "run --rm --network none busybox",
        "run --rm --network none --privileged busybox",
        "run --rm --network none --init busybox",
    ] {
        env.ctr(format!("{words} grep Cap /proc/self/status")).ok().prints(empty);
    }
    env.ctr("rm -f box").ok();
    env.write("context/Containerfile", "FROM busybox\nRUN grep CapInh /proc/self/status | grep -q 0000000000000000\n");
    env.ctr("build --network none -t step context").ok();
    env.ctr("run --rm --network none step grep Cap /proc/self/status").ok().prints(empty);
}

/// CVE-2019-5736 for the engine: `ctr exec` of /proc/self/exe is the engine once more, inside; an accomplice takes what it can
/// of its file.
///
/// Seen to succeed without the read-only clone: the copy's mode was 4777 and its date 1970.
#[test]
fn the_engine_s_file_is_read_only_inside() {
    let env = TestEnv::new();
    let copy = env.path("ctr-copy");
    fs::copy(ctr_binary(), &copy).unwrap();
    fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
    let script = "mkfifo /go; echo up; \
        while :; do for p in /proc/[0-9]*; do case $(tr '\\0' ' ' < $p/cmdline) in /proc/self/exe*) break 2;; esac; done; done; \
        chmod 4777 $p/exe 2>&1; touch -d @1 $p/exe 2>&1; (echo x >> $p/exe) 2>&1; echo go > /go; echo tried; sleep 1000";
    env.invoke(["run", "-d", "--name", "box", "--network", "none", "busybox", "sh", "-c", script])
        .program(&copy)
        .run()
        .ok();
    eventually("it is up", || env.ctr("logs box").stdout().contains("up").then_some(()));
    let before = fs::metadata(&copy).unwrap();
    env.invoke("exec box /proc/self/exe load -i /go").program(&copy).run();
    eventually("it has tried", || env.ctr("logs box").stdout().contains("tried").then_some(()));
    let said = env.ctr("logs box").ok().stdout();
    let after = fs::metadata(&copy).unwrap();
    assert_eq!((after.mode(), after.mtime(), after.len()), (before.mode(), before.mtime(), before.len()), "{said}");
    assert!(said.matches("Read-only file system").count() >= 2, "{said}");
}

/// A process that enters shows nothing of the host to a container that may trace it.
///
/// Seen to succeed with the namespaces joined after the birth in the container's pid namespace.
#[test]
fn exec_shows_nothing_of_the_host() {
    let env = TestEnv::new();
    let secret = victim(&env).join("secret");
    let watch = format!(
        "echo up; for i in 1 2; do (while :; do cat /proc/[0-9]*/root{0} /proc/[0-9]*/cwd{0} /proc/[0-9]*/fd/*{0}; done) & done; wait",
        secret.display()
    );
    let quiet = format!("({watch}) 2>/dev/null");
    env.ctr([
        "run",
        "-d",
        "--name",
        "box",
        "--network",
        "none",
        "--cap-add",
        "SYS_PTRACE",
        "busybox",
        "sh",
        "-c",
        &quiet,
    ])
    .ok();
    eventually("it watches", || env.ctr("logs box").stdout().contains("up").then_some(()));
    for _ in 0..40 {
        env.ctr("exec box true").ok();
    }
    assert_eq!(env.ctr("logs box").ok().stdout(), "up\n");
}

/// The monitor is outside of the container's pid namespace: nothing inside reaches it, and what is called like a terminal's
/// commands does not move the user's cursor.
///
/// Seen to succeed with cells printed as they are: the terminal was cleared. The signals were never sent without a pid namespace:
/// they would reach the machine.
#[test]
fn names_move_no_cursor_and_signals_reach_no_monitor() {
    let env = TestEnv::new();
    env.ctr([
        "run",
        "-d",
        "--name",
        "box",
        "--network",
        "none",
        "--label",
        "l=\u{1b}]0;owned\u{7}",
        "busybox",
        "sh",
        "-c",
        "trap '' TERM; kill -TERM -1; kill -KILL -1; echo \u{1b}[2J > /dev/null; while :; do sleep 1; done",
    ])
    .ok();
    let monitor = env.monitor_of("box");
    env.ctr([
        "exec",
        "box",
        "sh",
        "-c",
        "for p in $(seq 2 5000); do [ $p = $$ ] || kill -9 $p; done 2>/dev/null; true",
    ])
    .either(&[0, 137]);
    assert!(Path::new(&format!("/proc/{monitor}")).exists());
    let listed = env.ctr("ps --no-trunc").ok().stdout();
    assert!(!listed.contains('\u{1b}'), "{listed:?}");
    let template = ["ps", "--format", "{{.Labels}} {{.Command}}"];
    // As it is for a program, made harmless for a terminal.
    assert!(env.ctr(template).ok().stdout().contains('\u{1b}'));
    let shown = env.invoke(template).terminal(24, 80).wait().stdout();
    assert!(shown.contains("owned") && !shown.contains("\u{1b}]0;") && !shown.contains("\u{1b}[2J"), "{shown:?}");
    let failed = env.ctr(["exec", "box", "no\u{1b}[2Jsuch"]).fails(127).stderr();
    assert!(!failed.contains('\u{1b}'), "{failed:?}");
}
