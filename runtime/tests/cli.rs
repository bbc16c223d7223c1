//! The command line as runc's clients use it: options, logs, output formats, descriptors.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use serde_json::Value;
use std::fs;
use std::io::Read;
use std::process::Stdio;
use support::{Bundle, eventually, ran};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn errors_and_warnings_are_logged_as_clients_parse_them() {
    let mut bundle = Bundle::sh("true");
    bundle.json(|spec| {
        spec["process"]["rlimits"] =
            serde_json::json!([{"type": "RLIMIT_NOFILE", "soft": 1u64 << 31, "hard": 1u64 << 31}]);
    });
    let log = bundle.path().join("log.json");
    let lines = |options: &[&str]| {
        let _written = fs::remove_file(&log);
        let options = [&["--log", "log.json", "--log-format", "json"], options].concat();
        let code = bundle.runtime(&options).code;
        let text = fs::read_to_string(&log).unwrap_or_default();
        (code, text.lines().map(json).collect::<Vec<_>>())
    };
    let (code, logged) = lines(&["state", "nobody"]);
    assert_eq!((code, logged.len(), logged[0]["level"].as_str()), (1, 1, Some("error")));
    assert_eq!(logged[0]["msg"], "container \"nobody\" does not exist");
    let time = logged[0]["time"].as_str().unwrap();
    assert!(time.len() > 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
    let (code, logged) = lines(&["run", &bundle.id]);
    assert_eq!((code, logged[0]["level"].as_str()), (0, Some("warning")), "{logged:?}");

    fs::remove_file(&log).unwrap();
    assert_eq!(bundle.runtime(&["--log", "log.json", "state", "nobody"]).code, 1);
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("time=\"") && text.contains("level=error msg=\"container"), "{text}");
    assert!(bundle.runtime(&["--log-format", "xml", "list"]).err.contains("invalid log-format"));
}

#[test]
fn what_is_not_supported_says_so() {
    let bundle = Bundle::sh("true");
    for (args, message) in [
        (&["checkpoint", "x"][..], "checkpoint is not supported: it needs criu"),
        (&["restore", "x"], "restore is not supported"),
        (&["--systemd-cgroup", "run", "x"], "--systemd-cgroup: systemd is not running on this machine"),
    ] {
        let ran = bundle.runtime(args);
        assert!(ran.code == 1 && ran.err.contains(message) && ran.err.lines().count() == 1, "{args:?}: {}", ran.err);
    }
    // What makes no control group does not care.
    assert_eq!(bundle.runtime(&["--systemd-cgroup", "list"]).code, 0);
    for args in [&["--help"][..], &["create", "--help"], &["exec", "-h"]] {
        assert!(bundle.runtime(args).out.starts_with("usage: ctr-runtime"), "{args:?}");
    }
}

#[test]
fn options_stand_anywhere_and_arguments_of_the_program_stay_its_own() {
    let bundle = Bundle::sh("echo up; sleep 60");
    let mut child = bundle.spawn();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    let id = bundle.id.as_str();
    for args in [
        &["exec", "--cwd", "/tmp", id, "sh", "-c", "pwd"][..],
        &["exec", id, "--cwd=/tmp", "sh", "-c", "pwd"],
        &["exec", id, "--cwd=/tmp", "--", "sh", "-c", "pwd"],
    ] {
        assert_eq!(bundle.runtime(args).out, "/tmp\n", "{args:?}");
    }
    assert_eq!(bundle.runtime(&["exec", id, "echo", "--cwd", "-t", "--"]).out, "--cwd -t --\n");
    assert_eq!(bundle.runtime(&["kill", id, "--signal", "KILL"]).code, 0);
    child.wait().unwrap();
}

#[test]
fn nothing_of_the_caller_s_is_held_while_a_container_waits() {
    let bundle = Bundle::sh("true");
    let own = bundle.command(&["create", &bundle.id]);
    // The shell leaves descriptor 7, a pipe, open for the runtime; its end is seen although the init waits.
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "exec \"$@\" 7>&1 >/dev/null 2>&1", "sh"]).arg(own.get_program()).args(own.get_args());
    command.current_dir(bundle.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut rest = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), bundle.status().as_str()), (Some(0), "created"));
}

#[test]
fn sockets_of_a_supervisor_are_handed_on_first() {
    let bundle = Bundle::sh("echo $LISTEN_FDS $LISTEN_PID; cat <&3; cat <&4");
    for name in ["a", "b"] {
        fs::write(bundle.path().join(name), name).unwrap();
    }
    let own = bundle.command(&["run", "--preserve-fds", "1", &bundle.id]);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "exec 3<a 4<b 5<a; exec \"$@\"", "sh"]).arg(own.get_program()).args(own.get_args());
    let ran = ran(command.current_dir(bundle.path()).env("LISTEN_FDS", "1").output().unwrap());
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("1 1\nab", ""));
    let bundle = Bundle::sh("true");
    let ran = bundle.runtime(&["run", "--preserve-fds", "3", &bundle.id]);
    assert!(ran.code == 1 && ran.err.contains("--preserve-fds"), "{}", ran.err);
}

#[test]
fn events_ps_and_update_are_runc_s() {
    let mut bundle = Bundle::sh("echo up; sleep 60");
    bundle.json(|spec| spec["linux"]["resources"]["memory"] = serde_json::json!({"limit": 64 << 20}));
    let mut child = bundle.spawn();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    let id = bundle.id.as_str();

    let shown = json(&bundle.runtime(&["events", "--stats", id]).out);
    assert_eq!((&shown["type"], &shown["id"]), (&"stats".into(), &id.into()));
    assert_eq!(shown["data"]["memory"]["usage"]["limit"], 64 << 20);
    for number in ["/cpu/usage/total", "/memory/usage/usage", "/pids/current"] {
        assert!(shown["data"].pointer(number).unwrap().as_u64().unwrap() > 0, "{number}: {shown}");
    }
    assert!(shown["data"]["memory"]["raw"].as_object().unwrap().len() > 10);

    let pids = json(&bundle.runtime(&["ps", "--format", "json", id]).out);
    assert_eq!(pids, json(&bundle.runtime(&["ps", id, "-f", "json"]).out));
    assert!(pids.as_array().unwrap().contains(&bundle.state()["pid"]));
    let table = bundle.runtime(&["ps", id]).out;
    assert!(table.contains("PID") && table.contains("sleep 60"), "{table}");
    assert!(bundle.runtime(&["ps", id, "-o", "pid,comm"]).out.lines().count() >= 2);

    let args = ["update", "--memory", "134217728", "--pids-limit=9", "--cpu-share", "512", "--cpuset-cpus", "0", id];
    assert_eq!(bundle.runtime(&args).code, 0);
    let cgroup = runtime::Cgroup::open(&format!("/{id}/group")).unwrap();
    let stats = cgroup.stats().unwrap();
    assert_eq!((stats.memory_limit_bytes, stats.pids_limit), (Some(128 << 20), Some(9)));
    assert_eq!(bundle.exec(&["nproc"]).out, "1\n");
    let saved = json(&fs::read_to_string(bundle.path().join("state").join(id).join("state.json")).unwrap());
    assert_eq!(saved["config"]["linux"]["resources"]["memory"]["limit"], 128 << 20);
    assert!(saved["config"]["linux"]["resources"]["devices"].is_array());
    assert!(bundle.runtime(&["update", "--memory", "lots", id]).err.contains("a number is expected"));

    let mut events = bundle.command(&["events", "--interval", "50ms", id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 8];
    events.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(bundle.runtime(&["kill", id, "KILL"]).code, 0);
    assert_eq!(events.wait().unwrap().code(), Some(0), "events end with the container");
    child.wait().unwrap();
}

#[test]
fn features_are_those_of_the_spec() {
    let bundle = Bundle::sh("true");
    let features: oci_spec::runtime::Features = serde_json::from_str(&bundle.runtime(&["features"]).out).unwrap();
    assert_eq!((features.oci_version_min().as_str(), features.oci_version_max().as_str()), ("1.0.0", "1.3.0"));
    assert!(features.hooks().as_ref().unwrap().contains(&"createContainer".to_owned()));
    let linux = features.linux().as_ref().unwrap();
    assert_eq!(linux.namespaces().as_ref().unwrap().len(), 8);
    assert_eq!(linux.capabilities().as_ref().unwrap().len(), 41);
    assert_eq!(linux.mount_extensions().as_ref().unwrap().idmap().as_ref().unwrap().enabled(), &Some(true));
}

#[test]
fn state_list_and_spec_have_the_fields_of_runc() {
    let mut bundle = Bundle::sh("true");
    bundle.json(|spec| spec["annotations"] = serde_json::json!({"a": "b"}));
    assert_eq!(bundle.create(&["--pid-file", "pid", &bundle.id]).code, 0);
    let state = bundle.state();
    assert_eq!((&state["ociVersion"], &state["status"]), (&"1.3.0".into(), &"created".into()));
    assert_eq!((&state["annotations"]["a"], &state["owner"]), (&"b".into(), &"root".into()));
    assert_eq!(state["bundle"], bundle.path().to_str().unwrap());
    let list = json(&bundle.runtime(&["list", "--format=json"]).out);
    assert_eq!((list.as_array().unwrap().len(), &list[0]["id"]), (1, &bundle.id.as_str().into()));
    assert_eq!(bundle.runtime(&["list", "-q"]).out, format!("{}\n", bundle.id));
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    eventually("it stopped", || bundle.status() == "stopped");
    assert_eq!(bundle.state()["pid"], 0);
    let again = bundle.create(&[&bundle.id]);
    assert!(again.code == 1 && again.err.contains("already exists"), "{}", again.err);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert_eq!(bundle.runtime(&["spec", "--bundle", path]).code, 0);
    let spec = json(&fs::read_to_string(folder.path().join("config.json")).unwrap());
    assert_eq!(spec["root"]["path"], "rootfs");
    assert!(bundle.runtime(&["spec", "-b", path]).err.contains("exists"));
}

#[test]
fn a_capability_of_the_future_and_a_spec_of_the_past_are_told_apart() {
    let bundle = Bundle::sh("grep CapBnd /proc/self/status");
    let _written = bundle.command(&["list"]);
    let file = bundle.path().join("config.json");
    let edit = |edit: &dyn Fn(&mut Value)| {
        let mut config = json(&fs::read_to_string(&file).unwrap());
        edit(&mut config);
        fs::write(&file, config.to_string()).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ctr-runtime"));
        command.arg("--root").arg(bundle.path().join("state")).args(["run", &bundle.id]).current_dir(bundle.path());
        ran(command.output().unwrap())
    };
    let ran = edit(&|config| {
        config["process"]["capabilities"]["bounding"] = serde_json::json!(["CAP_KILL", "CAP_OF_TOMORROW"]);
    });
    assert_eq!((ran.code, ran.out.as_str()), (0, "CapBnd:\t0000000000000020\n"), "{}", ran.err);
    let ran = edit(&|config| config["ociVersion"] = "0.2.0".into());
    assert!(ran.code == 1 && ran.err.contains("ociVersion"), "{}", ran.err);
}
