//! buildah: each RUN is a create, a start, states asked for, and a delete.

use crate::sandbox::{Sandbox, WORK, have, runtime};
use test_support::{IntoArgs, Invocation, TestEnv, base_image};

struct Buildah {
    sandbox: Sandbox,
}

impl Buildah {
    /// With a working container `box` of busybox.
    #[track_caller]
    fn new() -> Buildah {
        let buildah = Buildah { sandbox: Sandbox::new(TestEnv::empty()) };
        buildah.buildah("from --name box scratch").run().ok();
        let tar = base_image("busybox");
        buildah.buildah(["add".as_ref(), "box".as_ref(), tar.as_os_str(), "/".as_ref()]).run().ok();
        buildah.buildah("config --env PATH=/bin --cmd sh box").run().ok();
        buildah
    }

    fn buildah(&self, args: impl IntoArgs) -> Invocation {
        let words = format!("buildah --root {WORK}/root --runroot {WORK}/run").into_args();
        let words: Vec<_> = words.into_iter().chain(args.into_args()).collect();
        self.sandbox.program(words).env("BUILDAH_ISOLATION", "oci").env("BUILDAH_RUNTIME", runtime())
    }

    /// `buildah run --runtime` in the working container.
    fn run(&self, args: &str) -> Invocation {
        self.buildah(format!("run --runtime {} {args}", runtime()))
    }
}

#[test]
fn programs_run_in_a_working_container() {
    if !have(&["buildah"]) {
        return;
    }
    let buildah = Buildah::new();
    buildah.run("box sh -c 'echo out; echo made > /made'").run().ok().prints("out\n");
    buildah.run("box cat /made").run().ok().prints("made\n");
    buildah.run("box sh -c 'exit 5'").run().fails(5);
    buildah.run("box no-such-program").run().fails(1).says("executable file not found");
    buildah
        .run("--user nobody --workingdir /tmp --cap-drop CAP_CHOWN box sh -c 'id -un; pwd'")
        .run()
        .ok()
        .prints("nobody\n/tmp\n");
    let mut terminal = buildah.run("-t box sh").terminal(30, 100);
    terminal.send("tty; exit 6\n");
    terminal.expect("/dev/pts/");
    terminal.wait().fails(6);
    assert!(!buildah.sandbox.path("../ctr-runtime").read_dir().is_ok_and(|mut left| left.next().is_some()));
}

#[test]
fn images_are_built() {
    if !have(&["buildah"]) {
        return;
    }
    let buildah = Buildah::new();
    buildah.buildah("commit box localhost/base").run().ok();
    buildah.sandbox.write(
        "context/Containerfile",
        "FROM localhost/base AS made\nRUN echo built > /built && mkdir /d\nUSER 1000:1000\nRUN id -u > /tmp/id && cat /built\n\
         FROM localhost/base\nCOPY --from=made /built /tmp/id /\nRUN --mount=type=tmpfs,target=/t touch /t/x && cat /id\nCMD [\"cat\", \"/built\"]\n",
    );
    let build = format!("bud --runtime {} --network none --memory 100m -t image context", runtime());
    buildah.buildah(build).run().ok().prints("built\n").prints("1000\n");
    buildah.buildah("from --name second localhost/image").run().ok();
    buildah.run("second cat /built /id").run().ok().prints("built\n1000\n");
    buildah.sandbox.write("broken/Containerfile", "FROM localhost/base\nRUN exit 9\n");
    buildah.buildah(format!("bud --runtime {} -t broken broken", runtime())).run().fails(9).says("exit status 9");
}
