//! Bad input: one clear line, the right exit code, nothing half-made.

use test_support::TestEnv;

#[test]
fn unknown_commands_and_flags() {
    let env = TestEnv::empty();
    env.ctr("nonsense").either(&[1, 125]).says("nonsense").says_it_plainly();
    env.ctr("rnu busybox").either(&[1, 125]).says("run");
    for command in ["run", "ps", "images", "logs", "stop", "build", "pull", "inspect", "exec", "rm"] {
        let out = env.ctr([command, "--no-such-flag"]).fails(125);
        out.says("--no-such-flag");
    }
    for command in ["logs", "stop", "pull", "inspect", "rm", "rmi", "kill", "wait", "start", "tag", "attach"] {
        env.ctr([command]).fails(1).says(command);
    }
    env.ctr("run").either(&[1, 125]);
}

#[test]
fn help_is_on_stdout() {
    let env = TestEnv::empty();
    env.ctr("--help").ok().prints("run").prints("build");
    for command in ["run --help", "ps --help", "help run", "container --help", "image ls --help"] {
        assert!(!env.ctr(command).ok().stdout().is_empty());
    }
    env.ctr("version").ok().prints(env!("CARGO_PKG_VERSION"));
    env.ctr("--version").ok().prints(env!("CARGO_PKG_VERSION"));
    env.ctr("info").ok().prints(env.root().to_str().unwrap());
}

#[test]
fn an_image_from_nowhere() {
    let env = TestEnv::empty();
    // Nothing listens on that port: the registry cannot be reached.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let out = env.ctr(format!("run --rm {free}/none:1 true")).fails(125);
    out.says(&format!("Unable to find image '{free}/none:1' locally")).says("refused");
    env.ctr(format!("pull {free}/none:1")).fails(1).says(&free.to_string()).says_it_plainly();
    env.ctr("ps -aq").ok().prints_nothing();
}

#[test]
fn a_root_that_cannot_be() {
    let env = TestEnv::empty();
    let file = env.write("file", "");
    env.invoke("ps").env("CTR_ROOT", file.join("root")).run().fails(1).says("file").says_it_plainly();
    env.invoke(["--root", "/proc/nowhere", "images"]).run().fails(1).says("/proc/nowhere").says_it_plainly();
}

#[test]
fn broken_state_is_told_not_trusted() {
    let env = TestEnv::new();
    let id = env.ctr("create --name cc busybox true").ok().text();
    let folder = env.root().join("containers").join(&id);
    assert!(folder.is_dir());
    std::fs::write(folder.join("state.json"), b"{ not json").unwrap();
    let out = env.ctr("ps -a");
    assert!(!out.stderr().contains("panicked"), "{out}");
    let out = env.ctr("start cc");
    assert!(!out.stderr().contains("panicked"), "{out}");
    env.ctr("rm -f cc").ok();
    // A folder that somebody else removed.
    let id = env.ctr("create --name dd busybox true").ok().text();
    std::fs::remove_dir_all(env.root().join("containers").join(&id)).unwrap();
    env.ctr("create --name dd busybox true").ok();
    env.ctr("rm -f dd").ok();
}

#[test]
fn odd_words_make_no_panic() {
    let env = TestEnv::new();
    let words = [
        "",
        " ",
        "-",
        "--",
        "/",
        "..",
        "a\u{0301}",
        "\u{202e}x",
        "%s%n",
        "{{",
        "sha256:",
        "@",
        ":",
        "a@b",
        "💥",
        "'",
        "\"",
        "\\",
        "\n",
    ];
    for word in words {
        for command in ["inspect", "logs", "stop", "rmi", "run", "start", "kill", "tag", "volume inspect"] {
            let mut args: Vec<&str> = command.split(' ').collect();
            args.push(word);
            let out = env.invoke(args).run();
            assert!(!out.stderr().contains("panicked") && out.code() < 128, "{out}");
        }
        for flag in [
            "-e",
            "-p",
            "-v",
            "--mount",
            "-u",
            "-w",
            "--name",
            "-m",
            "--cpus",
            "--ulimit",
            "--add-host",
            "--network",
            "-l",
            "--restart",
        ] {
            let out = env.ctr(["create", flag, word, "busybox", "true"]);
            assert!(!out.stderr().contains("panicked") && out.code() < 126, "{flag} {out}");
        }
    }
}
