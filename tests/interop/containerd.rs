//! containerd: tasks by its own client, and a pod through the CRI plugin as a kubelet asks for it.

use crate::cri::{Cri, Message};
use crate::sandbox::{Sandbox, WORK, have, runtime};
use std::ffi::OsString;
use test_support::{IntoArgs, Invocation, Running, TestEnv, eventually};

const IMAGE: &str = "docker.io/library/busybox:latest";
/// A CRI namespace mode: that of the machine (a pod of its own network would need CNI plugins).
const NODE: u64 = 2;
/// CRI container states.
const RUNNING: u64 = 1;
const EXITED: u64 = 2;

struct Containerd {
    sandbox: Sandbox,
    _daemon: Running,
}

fn installed() -> bool {
    have(&["containerd", "containerd-shim-runc-v2"])
}

/// containerd's client, in the namespace of its CRI plugin. By its path: another `ctr` is what is tested here.
fn client(sandbox: &Sandbox, args: impl IntoArgs) -> Invocation {
    let socket = format!("{WORK}/containerd.sock");
    let words = ["/usr/bin/ctr", "-a", &socket, "-n", "k8s.io"].map(OsString::from);
    sandbox.program(words.into_iter().chain(args.into_args()).collect::<Vec<_>>())
}

impl Containerd {
    /// With the images `busybox` and, for the sandboxes of pods, `pause:test`.
    #[track_caller]
    fn new() -> Containerd {
        let sandbox = Sandbox::new(TestEnv::new());
        sandbox.env.build("pause:test", "pause", "FROM busybox\nCMD [\"sleep\", \"1000000\"]\n").ok();
        sandbox.env.ctr("save -o images.tar busybox pause:test").ok();
        sandbox.write("config.toml", &config());
        sandbox.write("logs/README", "where a kubelet has the logs of pods");
        let words = format!("containerd -c {WORK}/config.toml");
        let daemon = sandbox.daemon(&words, || client(&sandbox, "version").run().code() == 0);
        let tar = sandbox.env.path("images.tar");
        client(&sandbox, ["images".as_ref(), "import".as_ref(), tar.as_os_str()]).run().ok();
        Containerd { sandbox, _daemon: daemon }
    }

    fn ctr(&self, args: impl IntoArgs) -> Invocation {
        client(&self.sandbox, args)
    }

    fn cri(&self) -> Cri {
        Cri { socket: self.sandbox.path("containerd.sock") }
    }
}

fn config() -> String {
    let runtime = runtime();
    let unused = ["zfs", "btrfs", "devmapper", "aufs"].map(|name| format!("\"io.containerd.snapshotter.v1.{name}\""));
    format!(
        r#"version = 2
root = "{WORK}/root"
state = "{WORK}/state"
disabled_plugins = [{}]
[grpc]
  address = "{WORK}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/library/pause:test"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{WORK}/none"
    conf_dir = "{WORK}/none"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "ctr"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ctr]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ctr.options]
      BinaryName = "{runtime}"
"#,
        unused.join(", ")
    )
}

#[test]
fn tasks() {
    if !installed() {
        return;
    }
    let containerd = Containerd::new();
    let run = |args: &str| containerd.ctr(format!("run --runc-binary {} {args}", runtime()));
    run(&format!("--rm {IMAGE} short sh -c 'echo out; exit 4'")).run().fails(4).prints("out\n");
    run(&format!("--rm {IMAGE} wrong no-such-program")).run().fails(1).says("executable file not found");
    let group = format!("{}/box", containerd.sandbox.cgroup_parent());
    let script = "trap 'exit 3' TERM; while true; do sleep 0.05; done";
    run(&format!("-d --cgroup {group} --memory-limit 64000000 {IMAGE} box sh -c \"{script}\"")).run().ok();
    containerd.ctr("task exec --exec-id e1 box sh -c 'echo inside; exit 5'").run().fails(5).prints("inside");
    let mut terminal = containerd.ctr("task exec -t --exec-id e2 box sh").terminal(20, 70);
    terminal.send("tty; exit 6\n");
    terminal.expect("/dev/pts/");
    terminal.wait().fails(6);
    containerd.ctr("task exec --exec-id e3 box no-such-program").run().fails(1).says("executable file not found");
    containerd.ctr("task pause box").run().ok();
    containerd.ctr("task ls").run().ok().prints("PAUSED");
    containerd.ctr("task resume box").run().ok();
    containerd.ctr("task metrics box").run().ok().prints("pids.current");
    assert!(containerd.ctr("task ps box").run().ok().lines().len() >= 2);
    containerd.ctr("task kill -s SIGTERM box").run().ok();
    eventually("it stopped", || containerd.ctr("task ls").run().ok().stdout().contains("STOPPED").then_some(()));
    containerd.ctr("task delete box").run().says("exit code 3");
    containerd.ctr("container rm box").run().ok();
    assert_eq!(containerd.sandbox.cgroups_of("box"), Vec::<std::path::PathBuf>::new());
}

/// A pod of one test: two containers that share what a pod shares.
struct Pod {
    cri: Cri,
    config: Message,
    id: String,
}

impl Pod {
    #[track_caller]
    fn run(containerd: &Containerd) -> Pod {
        let metadata = Message::default().text(1, "pod").text(2, "uid-1").text(3, "default");
        let security = Message::default().message(1, &Message::default().number(1, NODE));
        let linux = Message::default().text(1, &containerd.sandbox.cgroup_parent()).message(2, &security);
        let logs = format!("{WORK}/logs");
        let config = Message::default().message(1, &metadata).text(3, &logs).message(8, &linux);
        let request = Message::default().message(1, &config).text(2, "ctr");
        // The plugin hears of an imported image a moment later.
        let cri = containerd.cri();
        let answer = eventually("the pod's sandbox runs", || cri.call("RunPodSandbox", &request));
        Pod { cri, config, id: answer.text(1) }
    }

    /// Creates and starts a container: its id.
    #[track_caller]
    fn container(&self, name: &str, script: &str) -> String {
        let resources = Message::default().number(3, 512).number(4, 64 << 20);
        // Its own seccomp profile is the daemon's default (an empty message says so); pids are shared in the pod (the zero).
        let security =
            Message::default().message(3, &Message::default().number(1, NODE)).message(15, &Message::default());
        let linux = Message::default().message(1, &resources).message(2, &security);
        let container = Message::default()
            .message(1, &Message::default().text(1, name))
            .message(2, &Message::default().text(1, IMAGE))
            .texts(3, &["sh", "-c", script])
            .text(11, &format!("{name}.log"))
            .message(15, &linux);
        let request = Message::default().text(1, &self.id).message(2, &container).message(3, &self.config);
        let id = self.cri.call("CreateContainer", &request).expect("it is created").text(1);
        self.cri.call("StartContainer", &Message::default().text(1, &id)).expect("it starts");
        id
    }

    /// stdout and exit code of a program in a container.
    #[track_caller]
    fn exec(&self, id: &str, words: &[&str]) -> (String, u64) {
        let request = Message::default().text(1, id).texts(2, words).number(3, 20);
        let answer = self.cri.call("ExecSync", &request).expect("it is executed");
        (answer.text(1), answer.number(3))
    }

    /// State and exit code.
    #[track_caller]
    fn status(&self, id: &str) -> (u64, u64) {
        let answer = self.cri.call("ContainerStatus", &Message::default().text(1, id)).expect("it is known");
        (answer.message(1).number(3), answer.message(1).number(7))
    }

    #[track_caller]
    fn end(&self, method: &str, id: &str) {
        self.cri.call(method, &Message::default().text(1, id).number(2, 10)).unwrap_or_else(|| panic!("{method} {id}"));
    }
}

#[test]
fn a_pod_through_the_kubernetes_interface() {
    if !installed() {
        return;
    }
    let containerd = Containerd::new();
    let pod = Pod::run(&containerd);
    let one = pod.container("one", "trap 'echo got TERM; exit 3' TERM; echo up; while true; do sleep 0.05; done");
    let two = pod.container("two", "httpd -f -p 127.0.0.1:8080 -h /etc");
    assert_eq!((pod.status(&one).0, pod.status(&two).0), (RUNNING, RUNNING));

    assert_eq!(pod.exec(&one, &["sh", "-c", "echo inside; exit 5"]), ("inside\n".to_owned(), 5));
    // One network for both: the machine's, which here is the test's own.
    let get = || pod.exec(&one, &["wget", "-qO-", "http://127.0.0.1:8080/group"]);
    eventually("the neighbour answers", || get().0.contains("root:x:0:").then_some(()));
    let ipc = |id: &str| pod.exec(id, &["readlink", "/proc/self/ns/ipc"]).0;
    assert_eq!(ipc(&one), ipc(&two));
    assert!(pod.exec(&one, &["ps"]).0.contains("httpd"), "pids are the pod's");
    assert!(pod.exec(&two, &["grep", "Seccomp:", "/proc/self/status"]).0.contains('2'), "the filter holds for exec");
    let mut terminal = containerd.ctr(format!("task exec -t --exec-id e {one} sh")).terminal(20, 70);
    terminal.send("tty; exit 6\n");
    terminal.expect("/dev/pts/");
    terminal.wait().fails(6);

    assert_eq!(containerd.sandbox.limit(&one, "memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    let update = Message::default().text(1, &one).message(2, &Message::default().number(3, 256).number(4, 80 << 20));
    pod.cri.call("UpdateContainerResources", &update).expect("limits can be changed");
    assert_eq!(containerd.sandbox.limit(&one, "memory.limit_in_bytes", "memory.max"), (80 << 20).to_string());
    let stats = pod.cri.call("ContainerStats", &Message::default().text(1, &one)).expect("it has figures");
    assert!(stats.message(1).message(3).message(2).number(1) > 0, "the working set is counted");

    pod.end("StopContainer", &one);
    assert_eq!(pod.status(&one), (EXITED, 3));
    let log = std::fs::read_to_string(containerd.sandbox.path("logs/one.log")).unwrap();
    assert!(log.contains("stdout F up\n") && log.contains("stdout F got TERM\n"), "{log}");
    pod.end("RemoveContainer", &one);
    pod.end("StopPodSandbox", &pod.id);
    assert_eq!(pod.status(&two).0, EXITED);
    pod.end("RemovePodSandbox", &pod.id);
    let groups = [&one, &two, &pod.id].map(|id| containerd.sandbox.cgroups_of(id));
    assert!(groups.iter().all(Vec::is_empty), "{groups:?}");
    let states = containerd.sandbox.path("../containerd/runc/k8s.io").read_dir().map(Iterator::count);
    assert!(!states.is_ok_and(|count| count > 0), "the runtime's state folder is empty again");
}
