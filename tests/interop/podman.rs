//! podman: conmon calls the runtime for each container and each exec.

use crate::sandbox::{Sandbox, WORK, files_limit, have, runtime};
use test_support::{IntoArgs, Invocation, TestEnv, base_image, eventually};

struct Podman {
    sandbox: Sandbox,
    _own_groups: OwnGroups,
}

/// A pod's conmons are in a group of podman's own, whatever it is told. Taken away when all in the sandbox have ended;
/// another podman's is not let go by the kernel.
struct OwnGroups;

impl Drop for OwnGroups {
    fn drop(&mut self) {
        for mount in test_support::cgroup_mounts() {
            for group in ["libpod_parent/conmon", "libpod_parent"] {
                let _none_or_used = std::fs::remove_dir(mount.join(group));
            }
        }
    }
}

impl Podman {
    /// With the image `busybox`.
    #[track_caller]
    fn new() -> Podman {
        let sandbox = Sandbox::new(TestEnv::empty());
        // Locks in files: those in shared memory would be every podman's of this machine.
        let files = files_limit();
        sandbox.write(
            "containers.conf",
            &format!(
                "[engine]\nlock_type = \"file\"\nevents_logger = \"file\"\ncgroup_manager = \"cgroupfs\"\n\
                 [containers]\ndefault_ulimits = [\"nofile={files}:{files}\", \"nproc=4096:4096\"]\nlog_driver = \"k8s-file\"\n"
            ),
        );
        let podman = Podman { sandbox, _own_groups: OwnGroups };
        podman.podman(["import".as_ref(), base_image("busybox").as_os_str(), "busybox".as_ref()]).run().ok();
        podman
    }

    fn podman(&self, args: impl IntoArgs) -> Invocation {
        // Absolute: conmon calls podman again from another folder.
        let words =
            format!("podman --root {WORK}/root --runroot {WORK}/run --tmpdir {WORK}/tmp --runtime {}", runtime());
        let words: Vec<_> = words.into_args().into_iter().chain(args.into_args()).collect();
        let podman = self.sandbox.program(words);
        podman.env("CONTAINERS_CONF", format!("{WORK}/containers.conf"))
    }

    /// `podman run` in the test's control group, without a network.
    fn run(&self, args: &str) -> Invocation {
        self.podman(format!("run --network none --cgroup-parent {} {args}", self.sandbox.cgroup_parent()))
    }
}

#[test]
fn programs_run_and_say_how_they_ended() {
    if !have(&["podman", "conmon"]) {
        return;
    }
    let podman = Podman::new();
    podman.run("--rm busybox sh -c 'echo out; echo err >&2'").run().ok().prints("out\n").says("err\n");
    podman.run("--rm busybox sh -c 'exit 7'").run().fails(7);
    podman.run("--rm busybox no-such-program").run().fails(127).says("executable file not found");
    podman.run("--rm busybox /etc/passwd").run().fails(126).says("permission denied");
    podman.run("--rm -i busybox cat").stdin("from outside").run().ok().prints("from outside");
    let mut terminal = podman.run("--rm -it --tz=local busybox sh").terminal(30, 100);
    terminal.send("stty size; exit 9\n");
    terminal.expect("30 100");
    terminal.wait().fails(9);
    podman
        .run("--rm -u nobody -w /tmp --read-only --cap-drop all busybox sh -c 'id -un; pwd; touch /x'")
        .run()
        .fails(1);
    podman.run("--rm --privileged busybox sh -c 'mount -t tmpfs x /mnt && echo mounted'").run().ok().prints("mounted");
    assert_eq!(podman.sandbox.cgroups_of("libpod-"), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_container_s_life() {
    if !have(&["podman", "conmon"]) {
        return;
    }
    let podman = Podman::new();
    let script = "trap 'echo got TERM; exit 3' TERM; echo up; while true; do sleep 0.05; done";
    let create = podman.run(&format!("-d --name box --memory 64m --pids-limit 50 busybox sh -c \"{script}\""));
    let id = create.run().ok().text();
    let cgroup = format!("libpod-{id}");
    assert_eq!(podman.sandbox.limit(&cgroup, "memory.limit_in_bytes", "memory.max"), "67108864");

    podman.podman("exec box sh -c 'echo inside; exit 5'").run().fails(5).prints("inside");
    podman.podman("exec box no-such-program").run().fails(127).says("executable file not found");
    podman
        .podman("exec -u nobody -w /tmp -e A=b box sh -c 'id -un; pwd; echo $A'")
        .run()
        .ok()
        .prints("nobody\n/tmp\nb\n");
    let mut terminal = podman.podman("exec -it box sh").terminal(20, 70);
    terminal.send("tty; stty size; exit 6\n");
    terminal.expect("/dev/pts/");
    terminal.expect("20 70");
    terminal.wait().fails(6);
    podman.podman("exec -d box touch /made").run().ok();
    eventually("the detached exec ran", || podman.podman("exec box test -e /made").run().code().eq(&0).then_some(()));

    podman.podman("update --memory 80m --cpus 0.5 box").run().ok();
    assert_eq!(podman.sandbox.limit(&cgroup, "memory.limit_in_bytes", "memory.max"), "83886080");
    podman.podman("pause box").run().ok();
    podman.podman("ps -a --format {{.Status}}").run().ok().prints("Paused");
    podman.podman("unpause box").run().ok();
    podman.podman("top box").run().ok().prints("got TERM");
    podman.podman("stats --no-stream --format {{.PIDs}} box").run().ok().prints("2");
    podman.podman("ps -a --format {{.Status}}").run().ok().prints("Up");

    podman.podman("kill -s TERM box").run().ok();
    podman.podman("wait box").run().ok().prints("3");
    podman.podman("logs box").run().ok().prints("up\ngot TERM\n");
    podman.podman("start box").run().ok();
    podman.podman("restart -t 0 box").run().ok();
    podman.podman("stop -t 10 box").run().ok();
    podman.podman("inspect -f {{.State.ExitCode}} box").run().ok().prints("3");
    podman.podman("start box").run().ok();
    podman.podman("rm -f -t 0 box").run().ok();
    podman.podman("ps -aq").run().ok().prints_nothing();
    assert_eq!(podman.sandbox.cgroups_of(&id), Vec::<std::path::PathBuf>::new());
}

#[test]
fn volumes_limits_and_pods() {
    if !have(&["podman", "conmon"]) {
        return;
    }
    let podman = Podman::new();
    podman.run("--rm -v data:/data busybox sh -c 'echo kept > /data/x'").run().ok();
    podman
        .run(
            "--rm -v data:/data:ro --tmpfs /scratch:size=1m busybox sh -c 'cat /data/x; df -m /scratch; touch /data/y'",
        )
        .run()
        .fails(1)
        .prints("kept\n");
    podman.run("--rm --tmpfs /new -u 1000 busybox touch /new/mine").run().ok();
    podman.run("--rm -u 1000 -w /root busybox pwd").run().ok().prints("/root");
    podman.run("--rm --uidmap 0:100000:5000 busybox sh -c 'id -u; cat /proc/self/uid_map'").run().ok().prints("100000");
    // A systemd inside wants its own hierarchy to write to, bound below the read-only /sys/fs/cgroup.
    podman.run("--rm --systemd always busybox sh -c 'echo $container; mkdir /run/lock/x'").run().ok().prints("podman");
    podman.run("--rm --memory 20m busybox tail /dev/zero").run().fails(137);
    podman
        .run("--rm --sysctl kernel.msgmax=5555 --hostname here busybox sh -c 'cat /proc/sys/kernel/msgmax; hostname'")
        .run()
        .ok()
        .prints("5555\nhere\n");
    podman.run("--rm --security-opt no-new-privileges --security-opt seccomp=unconfined busybox grep -E 'NoNewPrivs|Seccomp:' /proc/self/status").run().ok().prints("NoNewPrivs:\t1\nSeccomp:\t0\n");
    podman.run("--rm --shm-size 3m --ulimit core=0 --oom-score-adj 500 busybox sh -c 'df -m /dev/shm; cat /proc/self/oom_score_adj'").run().ok().prints("500");
    podman.run("-d --name one busybox sleep 1000").run().ok();
    let shared = "--pid container:one --ipc container:one --network container:one";
    podman.podman(format!("run --rm {shared} busybox ps")).run().ok().prints("sleep 1000");
    podman.podman("rm -f -t 0 one").run().ok();
    let parent = podman.sandbox.cgroup_parent();
    // Without a first container, which needs a program of its own.
    podman.podman(format!("pod create --name pod --infra=false --cgroup-parent {parent}")).run().ok();
    podman.podman("run -d --pod pod --name two --network none busybox sleep 1000").run().ok();
    podman.podman("run -d --pod pod --name three --network none busybox sleep 1000").run().ok();
    podman.podman("pod stop -t 0 pod").run().ok();
    podman.podman("pod start pod").run().ok();
    podman.podman("exec three hostname").run().ok();
    podman.podman("pod rm -f -t 0 pod").run().ok();
}

/// A user that only the sandbox's /etc knows, with ids to give to containers.
const USER: &str = "mkdir home runtime && chown 4242:4242 home runtime
for file in passwd group subuid subgid; do cp /etc/$file etc.$file; done
echo visitor:x:4242:4242::/run/w/home:/bin/sh >> etc.passwd
echo visitor:x:4242: >> etc.group
echo visitor:200000:65536 | tee -a etc.subuid >> etc.subgid
for file in passwd group subuid subgid; do mount --bind etc.$file /etc/$file; done";

#[test]
fn an_ordinary_user_s_containers() {
    if !have(&["podman", "conmon", "newuidmap", "setpriv"]) {
        return;
    }
    if !["/etc/subuid", "/etc/subgid"].iter().all(|file| std::path::Path::new(file).exists()) {
        eprintln!("SKIPPED: there is no /etc/subuid or /etc/subgid to put another in the place of");
        return;
    }
    let sandbox = Sandbox::new(TestEnv::empty());
    sandbox.program(["sh", "-ec", USER]).run().ok();
    sandbox.write(
        "containers.conf",
        "[engine]\nlock_type = \"file\"\nevents_logger = \"file\"\ncgroup_manager = \"cgroupfs\"\n",
    );
    // To where the user can read them.
    std::fs::copy(runtime(), sandbox.path("ctr-runtime")).unwrap();
    std::fs::copy(base_image("busybox"), sandbox.path("busybox.tar")).unwrap();
    let podman = |args: &str| {
        let user = "setpriv --reuid 4242 --regid 4242 --init-groups --reset-env env";
        let variables = format!(
            "HOME={WORK}/home XDG_RUNTIME_DIR={WORK}/runtime TMPDIR={WORK}/home CONTAINERS_CONF={WORK}/containers.conf"
        );
        sandbox.program(format!("{user} {variables} podman --runtime {WORK}/ctr-runtime {args}"))
    };
    podman(&format!("import {WORK}/busybox.tar busybox")).run().ok();
    let files = files_limit();
    let run = |args: &str| {
        podman(&format!("run --network none --ulimit nofile={files}:{files} --ulimit nproc=4096:4096 {args}")).run()
    };
    run("--rm busybox sh -c 'id -u; cat /proc/self/uid_map; exit 4'").fails(4).prints("0\n").prints("200000");
    run("--rm --userns keep-id busybox id -u").ok().prints("4242");
    run("--rm -v data:/data busybox sh -c 'echo kept > /data/x'").ok();
    run("--rm -v data:/data:ro --read-only -u 1000 --cap-drop all busybox cat /data/x").ok().prints("kept");
    run("-d --name box busybox sleep 1000").ok();
    let mut terminal = podman("exec -it box sh").terminal(20, 70);
    terminal.send("tty; exit 6\n");
    terminal.expect("/dev/pts/");
    terminal.wait().fails(6);
    podman("kill -s KILL box").run().ok();
    podman("wait box").run().ok().prints("137");
    podman("rm box").run().ok();
}
