//! `ctr build`: a Containerfile becomes an image.

use test_support::TestEnv;

#[test]
fn from_run_cmd() {
    let env = TestEnv::new();
    env.build("app", "ctx", "FROM busybox\nRUN echo built > /made\nCMD [\"cat\", \"/made\"]\n").ok();
    assert_eq!(env.ctr("run --rm app").ok().stdout(), "built\n");
    env.ctr("images app").ok().prints("latest");
}

#[test]
fn both_forms_and_continuations() {
    let env = TestEnv::new();
    let file = "# a comment\nfrom busybox\nRUN echo one \\\n  # in between\n  && echo two > /a\nRUN [\"sh\", \"-c\", \"echo $HOME > /b\"]\n\
                RUN <<EOF\necho three > /c\necho four >> /c\nEOF\n";
    env.build("app", "ctx", file).ok();
    env.ctr("run --rm app cat /a /b /c").ok().prints("two\n/root\nthree\nfour\n");
}

#[test]
fn copy_rules() {
    let env = TestEnv::new();
    env.write("ctx/a.txt", "a");
    env.write("ctx/dir/b.txt", "b");
    env.write("ctx/dir/deep/c.txt", "c");
    std::os::unix::fs::symlink("a.txt", env.path("ctx/link")).unwrap();
    let file = "FROM busybox\nWORKDIR /w\nCOPY a.txt renamed.txt\nCOPY a.txt into/\nCOPY dir .\nCOPY dir /all/\nCOPY *.txt dir/b.txt /many/\n\
                COPY --chown=33:nogroup --chmod=640 a.txt /owned\nCOPY link /linked\n";
    env.build("app", "ctx", file).ok();
    let list = env.ctr("run --rm app find /w /all /many -type f").ok().stdout();
    for path in [
        "/w/renamed.txt",
        "/w/into/a.txt",
        "/w/b.txt",
        "/w/deep/c.txt",
        "/all/deep/c.txt",
        "/many/a.txt",
        "/many/b.txt",
    ] {
        assert!(list.lines().any(|line| line == path), "{path} in {list}");
    }
    env.ctr("run --rm app stat -c '%u:%g %a' /owned").ok().prints("33:65534 640");
    env.ctr("run --rm app stat -c '%u:%g' /w/b.txt").ok().prints("0:0");
}

#[test]
fn add_unpacks_archives() {
    let env = TestEnv::new();
    env.write("ctx/t/x/f", "inside");
    let tar =
        std::process::Command::new("tar").args(["-C", "t", "-czf", "t.tgz", "."]).current_dir(env.path("ctx")).status();
    assert!(tar.unwrap().success());
    env.build("app", "ctx", "FROM busybox\nADD t.tgz /un/\nCOPY t.tgz /kept/\n").ok();
    env.ctr("run --rm app sh -c 'cat /un/x/f; ls /kept'").ok().prints("inside").prints("t.tgz");
}

#[test]
fn env_arg_workdir_user() {
    let env = TestEnv::new();
    let file = "ARG BASE=nothing\nFROM ${BASE}\nARG VERSION=1\nENV A=x B=${VERSION:-none} C=\"a b\"\nENV D=$A\nWORKDIR /made\nWORKDIR deeper\n\
                USER nobody\nRUN echo $VERSION-$B-$D-$(id -un)-$PWD > /tmp/out\nCMD cat /tmp/out\n";
    env.write("ctx/Containerfile", file);
    env.ctr("build -t app --build-arg BASE=busybox --build-arg VERSION=7 ctx").ok();
    env.ctr("run --rm app").ok().prints("7-7-x-nobody-/made/deeper");
    env.ctr("run --rm app sh -c 'echo ${VERSION:-unset} $C'").ok().prints("unset a b");
}

#[test]
fn the_config_it_writes() {
    let env = TestEnv::new();
    let file = "FROM busybox\nLABEL a=b \"c d\"='e f'\nEXPOSE 80 53/udp\nVOLUME [\"/v1\", \"/v2\"]\nSTOPSIGNAL SIGINT\nENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"cmd\"]\n";
    env.build("app", "ctx", file).ok();
    let config = env.ctr("image inspect app").ok().json()[0]["Config"].clone();
    assert_eq!((&config["Labels"]["a"], &config["Labels"]["c d"]), (&"b".into(), &"e f".into()));
    assert!(config["ExposedPorts"]["80/tcp"].is_object() && config["ExposedPorts"]["53/udp"].is_object());
    assert!(config["Volumes"]["/v1"].is_object());
    assert_eq!(config["StopSignal"], "SIGINT");
    env.ctr("run --rm app").ok().prints("entry cmd");
    env.ctr("run --rm app other").ok().prints("entry other");
}

#[test]
fn stages() {
    let env = TestEnv::new();
    let file = "FROM busybox AS build\nRUN echo heavy > /artefact\n\nFROM busybox AS unused\nRUN exit 9\n\nFROM scratch\n\
                COPY --from=build /artefact /artefact\nCOPY --from=busybox /bin/busybox /cat\nENTRYPOINT [\"/cat\", \"cat\", \"/artefact\"]\n";
    env.build("app", "ctx", file).ok();
    env.ctr("run --rm app").ok().prints("heavy");
    // Only what was copied is in it.
    let size = env.ctr("image inspect -f '{{len .RootFS.Layers}}' app").ok().text();
    assert_eq!(size, "2");
    env.ctr("build -t middle --target build ctx").ok();
    env.ctr("run --rm middle cat /artefact").ok().prints("heavy");
    env.ctr("build --target nope ctx").fails(1).says("nope").says_it_plainly();
}

#[test]
fn the_ignore_file() {
    let env = TestEnv::new();
    for name in ["keep.txt", "drop.log", "sub/drop.log", "sub/keep.log", "secret/key"] {
        env.write(&format!("ctx/{name}"), "x");
    }
    env.write("ctx/.dockerignore", "# comment\n**/*.log\n!sub/keep.log\nsecret\n");
    env.build("app", "ctx", "FROM busybox\nCOPY . /c/\n").ok();
    let list = env.ctr("run --rm app find /c -type f").ok().stdout();
    assert!(list.contains("/c/keep.txt") && list.contains("/c/sub/keep.log"), "{list}");
    assert!(!list.contains("drop.log") && !list.contains("secret"), "{list}");
}

#[test]
fn the_cache() {
    let env = TestEnv::new();
    env.write("ctx/f", "one");
    let file = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /first\nCOPY f /f\nRUN cat /proc/sys/kernel/random/uuid > /second\n";
    env.build("a", "ctx", file).ok();
    let read = |tag: &str| env.ctr(format!("run --rm {tag} cat /first /second /f")).ok().lines();
    let first = read("a");
    let again = env.build("b", "ctx", file).ok();
    assert_eq!(first, read("b"), "nothing changed, nothing ran");
    assert!(again.stderr().contains("CACHED"), "{again}");
    // A touched file is the same file; a changed one is not.
    let touched = std::process::Command::new("touch").arg(env.path("ctx/f")).status();
    assert!(touched.unwrap().success());
    env.build("c", "ctx", file).ok();
    assert_eq!(first, read("c"));
    env.write("ctx/f", "two");
    env.build("d", "ctx", file).ok();
    let changed = read("d");
    assert_eq!(first[0], changed[0], "what comes before is kept");
    assert_ne!(first[1], changed[1], "what comes after is not");
    env.ctr("build --no-cache -t e ctx").ok();
    assert_ne!(read("e")[0], first[0]);
}

#[test]
fn deletions_and_replacements_reach_the_image() {
    let env = TestEnv::new();
    let file = "FROM busybox\nRUN mkdir -p /d/e && touch /d/e/f /d/g && ln -s g /d/l\nRUN rm -r /d/e && rm /d/g && mkdir /d/g && touch /d/g/h\n\
                RUN rm -r /d && mkdir /d && touch /d/only\n";
    env.build("app", "ctx", file).ok();
    assert_eq!(env.ctr("run --rm app find /d").ok().lines(), ["/d", "/d/only"]);
}

#[test]
fn the_same_context_gives_the_same_image() {
    let env = TestEnv::new();
    env.write("ctx/f", "content");
    let file = "FROM busybox\nCOPY f /f\nRUN echo x > /g\n";
    env.write("ctx/Containerfile", file);
    let mut ids = Vec::new();
    for _ in 0..2 {
        env.invoke("build --no-cache -q -t app ctx").env("SOURCE_DATE_EPOCH", "1700000000").run().ok();
        ids.push(env.ctr("images -q --no-trunc app").ok().text());
    }
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn secrets_stay_out() {
    let env = TestEnv::new();
    env.write("token", "hunter2");
    let file =
        "FROM busybox\nRUN --mount=type=secret,id=t,target=/run/t cat /run/t | wc -c > /length\nRUN test ! -e /run/t\n";
    env.write("ctx/Containerfile", file);
    env.ctr("build --secret id=t,src=token -t app ctx").ok();
    env.ctr("run --rm app cat /length").ok().prints("7");
    env.ctr("run --rm app ls -A /run").ok().prints_nothing();
    env.ctr("save -o app.tar app").ok();
    let bytes = std::fs::read(env.path("app.tar")).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
}

#[test]
fn names_of_files_and_contexts() {
    let env = TestEnv::new();
    env.write("ctx/Dockerfile", "FROM busybox\nRUN echo docker > /which\n");
    env.ctr("build -t app ctx").ok();
    env.ctr("run --rm app cat /which").ok().prints("docker");
    env.write("ctx/Containerfile", "FROM busybox\nRUN echo container > /which\n");
    env.ctr("build -t app ctx").ok();
    env.ctr("run --rm app cat /which").ok().prints("container");
    env.write("other/my.file", "FROM busybox\nCOPY Dockerfile /\n");
    env.ctr("build -t app -t app:2 -f other/my.file ctx").ok();
    env.ctr("run --rm app:2 ls /Dockerfile").ok();
    env.invoke("build -t fromstdin -f - ctx").stdin("FROM busybox\nCOPY Dockerfile /x\n").run().ok();
    let id = env.ctr("build -q ctx").ok().text();
    assert!(id.starts_with("sha256:"), "{id}");
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let env = TestEnv::new();
    for (file, words) in [
        ("FROM busybox\nCOPPY a b\n", &["COPPY", "COPY", "2"][..]),
        ("FROM busybox\nRUN exit 3\n", &["exit 3", "3"]),
        ("FROM busybox\nCOPY missing /x\n", &["missing"]),
        ("FROM busybox\nCOPY ../outside /x\n", &["outside"]),
        ("FROM nothing-of-the-kind:0\n", &["nothing-of-the-kind:0"]),
        ("RUN true\n", &["FROM"]),
        ("", &["no instructions"]),
        ("FROM busybox\nEXPOSE x\n", &["x", "2"]),
        ("FROM busybox\nCOPY --from=nope /a /b\n", &["nope"]),
        ("FROM busybox\nUSER ghost\nRUN true\n", &["ghost"]),
        ("FROM busybox\nENV\n", &["ENV", "2"]),
        ("FROM busybox\nCOPY --colour=red a b\n", &["colour"]),
    ] {
        let failed = env.build("bad", "ctx", file).fails(1);
        for word in words {
            assert!(failed.stderr().contains(word), "{word:?} for {file:?} in {failed}");
        }
        assert!(!failed.stderr().contains("panicked"), "{failed}");
    }
    env.ctr("images bad -q").ok().prints_nothing();
    env.ctr("build -t x missing-folder").fails(1).says("missing-folder").says_it_plainly();
    env.ctr("build -t x -f nope ctx").fails(1).says("nope").says_it_plainly();
    env.ctr("build -t UPPER ctx").either(&[1, 125]).says("lowercase").says_it_plainly();
    env.ctr("build").fails(1);
}

#[test]
fn a_context_with_a_link_out_of_it_stays_inside() {
    let env = TestEnv::new();
    std::fs::create_dir_all(env.path("ctx")).unwrap();
    env.write("outside", "not for the image");
    std::os::unix::fs::symlink("../outside", env.path("ctx/link")).unwrap();
    std::os::unix::fs::symlink("..", env.path("ctx/up")).unwrap();
    for line in ["COPY link /x", "COPY up/outside /x"] {
        let out = env.build("app", "ctx", &format!("FROM busybox\n{line}\n"));
        if out.code() == 0 {
            let text = env.ctr("run --rm app cat /x").stdout();
            assert!(!text.contains("not for the image"), "{line}");
        }
    }
}

#[test]
fn run_steps_have_the_network() {
    let env = TestEnv::new();
    env.build("app", "ctx", "FROM busybox\nRUN ip route | grep default && grep -q nameserver /etc/resolv.conf\n").ok();
    env.build("app", "ctx", "FROM busybox\nRUN --network=none ! ip route | grep default\n").ok();
    // Neither of these files is left in the image by the step.
    env.ctr("run --rm --network none app true").ok();
}

#[test]
fn progress_in_a_pipe_is_lines() {
    let env = TestEnv::new();
    let out = env.build("app", "ctx", "FROM busybox\nRUN echo visible-output\n").ok();
    let text = out.stderr();
    assert!(text.contains("RUN echo visible-output") && !text.contains('\u{1b}') && !text.contains('\r'), "{out}");
}

#[test]
fn a_recipe_is_checked_and_listed_without_a_build() {
    let env = TestEnv::empty();
    env.write("good/Containerfile", "FROM busybox AS base\nRUN true\nFROM base AS last\nCMD [\"sh\"]\n");
    env.ctr("build --check good").ok().prints("Check complete, no warnings found.");
    env.ctr("build --call=targets good").ok().prints("base\nlast (default)");
    env.ctr("build --call=targets --target base good").ok().prints("base (default)");
    env.write("bad/Containerfile", "FROM busybox\nMAINTAINER me\nCMD echo hi\n");
    let out = env.ctr("build --check bad").fails(1);
    out.prints("2 warnings have been found!").prints("MaintainerDeprecated").prints("(Containerfile:3)");
    env.write("worse/Containerfile", "FROM busybox\nRNU true\n");
    env.ctr("build --check worse").fails(1).says("RUN");
}

#[test]
fn contexts_come_from_standard_input() {
    let env = TestEnv::new();
    env.invoke("build -t text -").stdin("FROM busybox\nRUN echo from-text > /f\n").run().ok();
    env.ctr("run --rm text cat /f").ok().prints("from-text");
    env.write("context/Containerfile", "FROM busybox\nCOPY sub/f /f\n");
    env.write("context/other", "FROM busybox\nCOPY sub /sub\n");
    env.write("context/sub/f", "from-tar");
    for (flag, name) in [("-cf", "plain.tar"), ("-czf", "gzip.tar")] {
        let tar = env.path(name);
        let packed =
            std::process::Command::new("tar").arg("-C").arg(env.path("context")).arg(flag).arg(&tar).arg(".").status();
        assert!(packed.unwrap().success());
        env.invoke("build -t tarred -").stdin(std::fs::read(&tar).unwrap()).run().ok();
        env.ctr("run --rm tarred cat /f").ok().prints("from-tar");
        env.invoke("build -t tarred -f other -").stdin(std::fs::read(&tar).unwrap()).run().ok();
        env.ctr("run --rm tarred cat /sub/f").ok().prints("from-tar");
    }
    env.invoke("build -").stdin("").run().fails(1).says_it_plainly();
    env.ctr("build -f - -").fails(125).says("standard input");
    let ingest = std::fs::read_dir(env.root().join("ingest")).unwrap().count();
    assert_eq!(ingest, 0, "what was fetched is gone");
}

#[test]
fn a_repository_is_a_context() {
    let env = TestEnv::new();
    env.write("repos/app/sub/Containerfile", "FROM busybox\nCOPY f /f\n");
    env.write("repos/app/sub/f", "first");
    let git = |arguments: &[&str]| {
        let mut command = std::process::Command::new("git");
        command
            .arg("-C")
            .arg(env.path("repos/app"))
            .args(["-c", "user.name=a", "-c", "user.email=a@b"])
            .args(arguments);
        assert!(command.output().unwrap().status.success(), "{arguments:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "one"]);
    git(&["tag", "v1"]);
    env.write("repos/app/sub/f", "second");
    git(&["commit", "-q", "-a", "-m", "two"]);
    // A port that is free now; the daemon takes it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // The program itself: `git daemon` would be its parent, and leave it behind.
    let programs = std::process::Command::new("git").arg("--exec-path").output().unwrap().stdout;
    let mut daemon = std::process::Command::new(format!("{}/git-daemon", String::from_utf8(programs).unwrap().trim()))
        .args(["--export-all", "--reuseaddr", "--listen=127.0.0.1"])
        .arg(format!("--port={port}"))
        .arg(format!("--base-path={}", env.path("repos").display()))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    test_support::eventually("git serves", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let url = format!("git://127.0.0.1:{port}/app");
    env.ctr(["build", "-t", "new", &format!("{url}#:sub")]).ok();
    env.ctr("run --rm new cat /f").ok().prints("second");
    env.ctr(["build", "-t", "old", &format!("{url}#v1:sub")]).ok();
    env.ctr("run --rm old cat /f").ok().prints("first");
    env.ctr(["build", &format!("{url}#nope:sub")]).fails(1).says("git fetch").says_it_plainly();
    env.ctr(["build", &format!("{url}#:../..")]).fails(1).says("no folder").says_it_plainly();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// The capabilities a process has, and whether its system calls are filtered.
const PRIVILEGES: &str = "grep -E 'CapEff|Seccomp:' /proc/self/status";

#[test]
fn an_insecure_step_is_privileged_where_that_is_allowed() {
    let env = TestEnv::new();
    let file = format!("FROM busybox\nRUN {PRIVILEGES} > /plain\nRUN --security=insecure {PRIVILEGES} > /insecure\n");
    env.write("app/Containerfile", &file);
    env.ctr("build -t app app").fails(1).says("security.insecure is not allowed").says("--allow security.insecure");
    env.ctr("build -t app --allow nonsense app").fails(125).says("nonsense");
    env.ctr("build -t app --allow network.host,security.insecure app").ok();
    let inside = |flags: &str, command: &str| env.ctr(format!("run --rm {flags} app {command}")).ok().stdout();
    let ask = |flags: &str| env.ctr(["run", "--rm", flags, "app", "sh", "-c", PRIVILEGES]).ok().stdout();
    assert_eq!(inside("", "cat /insecure"), ask("--privileged"));
    assert_eq!(inside("", "cat /plain"), ask("--privileged=false"));
    assert_ne!(inside("", "cat /plain"), inside("", "cat /insecure"));
    // What was made so is not had without asking again.
    env.ctr("build app").fails(1).says("security.insecure is not allowed");
}

#[test]
fn a_squashed_build_is_one_layer_on_its_base() {
    let env = TestEnv::new();
    let file = "FROM busybox\n\
        RUN mkdir -p /d/below /opt/deep && echo 1 > /d/one && echo 2 > /two && ln /two /twin && chmod 600 /two && rm /bin/ls\n\
        RUN rm -r /two /d && mkdir /d && echo 3 > /d/three && chown 5:6 /d/three && ln -s /d /link && touch /bin/ls\n\
        ENV A=1\n\
        RUN rm -r /root && mkdir /root && echo new > /root/only && mkfifo /pipe && rm /bin/cp && rm -r /opt && echo f > /opt\n";
    env.build("whole", "app", file).ok();
    env.ctr("build --squash -t squashed app").ok();
    let look = "find / -xdev -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o -path /etc -prune -o \
                -exec stat -c '%A %u %g %Y %N' {} + | sort -k 5; cat /d/three /root/only /twin /opt";
    let seen = |image: &str| env.ctr(["run", "--rm", image, "sh", "-c", look]).ok().lines();
    let (of_squashed, of_whole) = (seen("squashed"), seen("whole"));
    let first = of_squashed.iter().zip(&of_whole).find(|(squashed, whole)| squashed != whole);
    assert_eq!((first, of_squashed.len()), (None, of_whole.len()));
    let layers = |image: &str| env.inspect(image, "/RootFS/Layers").as_array().cloned().unwrap_or_default();
    let (base, whole, squashed) = (layers("busybox"), layers("whole"), layers("squashed"));
    assert_eq!((whole.len(), squashed.len()), (base.len() + 3, base.len() + 1));
    assert_eq!(squashed[..base.len()], base[..]);
    assert_eq!(env.inspect("squashed", "/Config/Env"), env.inspect("whole", "/Config/Env"));

    // What came and went leaves no trace, what the base has a mark.
    let name = squashed[base.len()].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let layer = env.root().join("layers").join(name).join("fs");
    let is_there = |name: &str| layer.join(name).symlink_metadata().is_ok();
    assert!(!is_there("two") && !is_there("d/one") && is_there("twin") && is_there("bin/cp"));

    let history =
        env.ctr(["history", "--no-trunc", "--format", "{{.Comment}}|{{.CreatedBy}}", "squashed"]).ok().lines();
    assert!(history[0].starts_with("merge sha256:"), "{history:?}");
    assert!(history[1].starts_with("|RUN"), "{history:?}");
    // A step of it is cached, and so is the merging.
    let id = env.ctr("build -q --squash app").ok().stdout();
    assert_eq!(id.trim(), env.inspect("squashed", "/Id"));
    env.write("nothing/Containerfile", "FROM scratch\nCOPY Containerfile /a\nCOPY Containerfile /b\n");
    env.ctr("build --squash -t from-nothing nothing").ok();
    assert_eq!(layers("from-nothing").len(), 1);
    env.ctr(["history", "--format", "{{.Comment}}", "from-nothing"]).ok().prints("create new from sha256:");
}

/// Seen to fail with the view's text written as it is, and with that of `--call`.
#[test]
fn a_recipe_cannot_move_the_cursor() {
    let env = TestEnv::new();
    env.write("ctx/a\u{1b}[2Jb", "1");
    let recipe = |last: &str| {
        format!("FROM busybox\nCOPY . /x\nENV A=\u{1b}]0;title\u{7} A=$\u{1b}[1A\nRUN true \u{1b}[2J\n{last}")
    };
    let shown = |out: test_support::Finished| {
        let text = out.stdout() + &out.stderr();
        assert!(!text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')), "{text:?}");
        text
    };
    assert!(shown(env.build("app", "ctx", &recipe("")).ok()).contains("RUN true"));
    env.write("ctx/a\u{1b}[2Jb", "2");
    assert!(shown(env.build("app", "ctx", &recipe("")).ok()).contains("not cached: a"));
    assert!(shown(env.build("app", "ctx", &recipe("RUN \u{1b}[1A false\n")).fails(1)).contains(">>> RUN"));
    env.write("ctx/Containerfile", "# web is \u{1b}[1A\nFROM busybox AS web\n");
    assert!(shown(env.ctr("build --call=targets ctx").ok()).contains(" is "));
}
