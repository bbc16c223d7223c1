//! docker's daemon: containerd's shim calls the runtime, reads its log in JSON and hands on its words.

use crate::sandbox::{Sandbox, WORK, files_limit, have, runtime};
use std::ffi::OsString;
use test_support::{IntoArgs, Invocation, Running, TestEnv, base_image, eventually};

struct Docker {
    sandbox: Sandbox,
    _daemon: Running,
}

/// Whether the daemon and its client are there.
fn installed() -> bool {
    have(&["dockerd", "containerd", "docker"])
}

fn client(sandbox: &Sandbox, args: impl IntoArgs) -> Invocation {
    let words = [OsString::from("docker")].into_iter().chain(args.into_args());
    let client = sandbox.program(words.collect::<Vec<_>>());
    client
        .env("DOCKER_HOST", format!("unix://{WORK}/docker.sock"))
        .env("DOCKER_BUILDKIT", "0")
        .env("DOCKER_CONFIG", WORK)
}

impl Docker {
    /// With the image `busybox`.
    #[track_caller]
    fn new() -> Docker {
        let sandbox = Sandbox::new(TestEnv::empty());
        sandbox.write("daemon.json", "{}");
        let (runtime, parent, files) = (runtime(), sandbox.cgroup_parent(), files_limit());
        let words = format!(
            "dockerd --config-file {WORK}/daemon.json --data-root {WORK}/data --exec-root {WORK}/exec --pidfile {WORK}/pid \
             -H unix://{WORK}/docker.sock --add-runtime ctr={runtime} --default-runtime ctr --cgroup-parent {parent} \
             --default-ulimit nofile={files}:{files}"
        );
        let daemon = sandbox
            .daemon(&words, || sandbox.path("docker.sock").exists() && client(&sandbox, "version").run().code() == 0);
        let tar = base_image("busybox");
        client(&sandbox, ["import".as_ref(), tar.as_os_str(), "busybox".as_ref()]).run().ok();
        Docker { sandbox, _daemon: daemon }
    }

    fn docker(&self, args: impl IntoArgs) -> Invocation {
        client(&self.sandbox, args)
    }

    #[track_caller]
    fn inspect(&self, name: &str, what: &str) -> String {
        self.docker(["inspect", "-f", what, name]).run().ok().text()
    }
}

#[test]
fn programs_run_and_say_how_they_ended() {
    if !installed() {
        return;
    }
    let docker = Docker::new();
    docker.docker("run --rm busybox sh -c 'echo out; echo err >&2'").run().ok().prints("out\n").says("err\n");
    docker.docker("run --rm busybox sh -c 'exit 7'").run().fails(7);
    docker.docker("run --rm busybox no-such-program").run().fails(127).says("executable file not found");
    docker.docker("run --rm busybox /etc/passwd").run().fails(126).says("permission denied");
    docker.docker("run --rm busybox /bin").run().fails(126).says("is a directory");
    docker
        .docker("run --rm -v /etc/hosts:/bin busybox true")
        .run()
        .fails(125)
        .says("Are you trying to mount a directory onto a file");
    docker.docker("run --rm -i busybox cat").stdin("from outside").run().ok().prints("from outside");
    let mut terminal = docker.docker("run --rm -it busybox sh").terminal(30, 100);
    // The client tells the daemon of a size when it comes to it.
    terminal.send("until [ \"$(stty size)\" = '30 100' ]; do sleep 0.05; done; echo fi''rst\n");
    terminal.expect("first");
    terminal.resize(31, 101);
    terminal.send("until [ \"$(stty size)\" = '31 101' ]; do sleep 0.05; done; echo resi''zed; exit 9\n");
    terminal.expect("resized");
    terminal.wait().fails(9);
    let options = "--init --user nobody --workdir /tmp --read-only --cap-drop all --security-opt no-new-privileges --hostname here";
    let out =
        docker.docker(format!("run --rm {options} busybox sh -c 'id -un; pwd; hostname; ps; touch /x'")).run().fails(1);
    out.prints("nobody\n/tmp\nhere\n").prints("docker-init").says("Read-only file system");
    docker
        .docker("run --rm --privileged busybox sh -c 'mount -t tmpfs x /mnt && echo mounted'")
        .run()
        .ok()
        .prints("mounted");
    // Not at once: the shim begins to watch for it after the start.
    let script = "until [ -e /go ]; do sleep 0.05; done; exec tail /dev/zero";
    docker.docker(format!("run -d --name oom --memory 20m busybox sh -c '{script}'")).run().ok();
    docker.docker("exec oom touch /go").run().ok();
    docker.docker("wait oom").run().ok().prints("137");
    assert_eq!(docker.inspect("oom", "{{.State.OOMKilled}}"), "true");
    docker.docker("rm oom").run().ok();
    assert_eq!(docker.docker("ps -aq").run().ok().text(), "");
}

#[test]
fn a_container_s_life() {
    if !installed() {
        return;
    }
    let docker = Docker::new();
    let script = "trap 'echo got TERM; exit 3' TERM; echo up; while true; do sleep 0.05; done";
    let run = format!("run -d --name box --memory 64m --pids-limit 50 -p 8080:80 busybox sh -c \"{script}\"");
    let id = docker.docker(run).run().ok().text();
    assert_eq!(docker.sandbox.limit(&id, "memory.limit_in_bytes", "memory.max"), "67108864");

    docker.docker("exec box sh -c 'echo inside; exit 5'").run().fails(5).prints("inside");
    // 126 is what docker makes of runc's own words, too.
    docker.docker("exec box no-such-program").run().either(&[126, 127]).prints("executable file not found");
    docker
        .docker("exec -u nobody -w /tmp -e A=b box sh -c 'id -un; pwd; echo $A'")
        .run()
        .ok()
        .prints("nobody\n/tmp\nb\n");
    let mut terminal = docker.docker("exec -it box sh").terminal(20, 70);
    terminal.send("tty; exit 6\n");
    terminal.expect("/dev/pts/");
    terminal.wait().fails(6);
    docker.docker("exec -d box httpd -f -h /etc").run().ok();
    let get = || docker.sandbox.program("curl -s http://127.0.0.1:8080/hostname").run();
    eventually("the published port answers", || get().stdout().starts_with(&id[..12]).then_some(()));

    docker.docker("update --memory 80m --memory-swap 90m --cpus 0.5 --cpu-shares 512 --pids-limit 40 box").run().ok();
    assert_eq!(docker.sandbox.limit(&id, "memory.limit_in_bytes", "memory.max"), "83886080");
    assert_eq!(docker.sandbox.limit(&id, "pids.max", "pids.max"), "40");
    docker.docker("pause box").run().ok();
    assert_eq!(docker.inspect("box", "{{.State.Status}}"), "paused");
    docker.docker("unpause box").run().ok();
    docker.docker("top box").run().ok().prints("got TERM").prints("httpd");
    docker.docker(["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "box"]).run().ok().prints("80MiB 3");

    docker.docker("kill -s TERM box").run().ok();
    docker.docker("wait box").run().ok().prints("3");
    docker.docker("logs box").run().ok().prints("up\ngot TERM\n");
    docker.docker("start box").run().ok();
    docker.docker("restart -t 0 box").run().ok();
    docker.docker("stop -t 10 box").run().ok();
    assert_eq!(docker.inspect("box", "{{.State.ExitCode}}"), "3");
    assert_eq!(docker.sandbox.cgroups_of(&id), Vec::<std::path::PathBuf>::new());
    docker.docker("start box").run().ok();
    docker.docker("rm -f box").run().ok();
    assert_eq!(docker.sandbox.cgroups_of(&id), Vec::<std::path::PathBuf>::new());
    let states = docker.sandbox.path("exec/runtime-runc/moby").read_dir().map(Iterator::count);
    assert!(!states.is_ok_and(|count| count > 0), "the runtime's state folder is empty again");
}

#[test]
fn images_are_built_and_health_is_watched() {
    if !installed() {
        return;
    }
    let docker = Docker::new();
    docker.sandbox.write(
        "context/Dockerfile",
        "FROM busybox\nRUN echo built > /built && id -u\nUSER nobody\nRUN id -un\nHEALTHCHECK --interval=1s CMD test -e /built\nCMD [\"cat\", \"/built\"]\n",
    );
    docker.docker("build -t image context").run().ok().prints("nobody\n").prints("Successfully tagged");
    docker.docker("run --rm image").run().ok().prints("built\n");
    docker.docker("run -d --name box image sleep 1000").run().ok();
    eventually("it is healthy", || (docker.inspect("box", "{{.State.Health.Status}}") == "healthy").then_some(()));
    docker
        .docker("run --rm --network container:box --pid container:box --ipc container:box busybox ps")
        .run()
        .fails(125);
    docker.docker("run --rm --network container:box --pid container:box busybox ps").run().ok().prints("sleep 1000");
    docker.docker("rm -f box").run().ok();
    docker.sandbox.write("broken/Dockerfile", "FROM busybox\nRUN exit 9\n");
    docker.docker("build broken").run().fails(9).says("returned a non-zero code: 9");
}
