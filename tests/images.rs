//! Images on disk: `import`, `images`, `tag`, `rmi`, `save`, `load`, `history`.

use std::process::Command;
use test_support::TestEnv;

#[test]
fn import_and_list() {
    let env = TestEnv::new();
    let lines = env.ctr("images").ok().lines();
    let titles: Vec<_> = lines[0].split("   ").map(str::trim).filter(|word| !word.is_empty()).collect();
    assert_eq!(titles, ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    assert!(lines[1].starts_with("busybox") && lines[1].contains("latest") && lines[1].contains("MB"), "{}", lines[1]);
    assert_eq!(env.ctr("image ls -q").ok().text().len(), 12);
    let id = env.ctr("images -q --no-trunc").ok().text();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    env.ctr("run --rm busybox echo works").ok().prints("works");
    env.ctr(["run", "--rm", &id[7..19], "echo", "by id"]).ok().prints("by id");
}

#[test]
fn import_takes_changes_and_stdin() {
    let env = TestEnv::empty();
    let script =
        "mkdir -p r/bin && cp /bin/busybox r/bin/ 2>/dev/null || cp /usr/bin/busybox r/bin/; tar -C r -czf r.tar.gz .";
    let made = Command::new("sh").args(["-c", script]).current_dir(env.path("")).status().unwrap();
    if !made.success() {
        return; // No busybox on this machine: the other tests import one all the same.
    }
    let tar = std::fs::read(env.path("r.tar.gz")).unwrap();
    let change = [r#"ENTRYPOINT ["/bin/busybox"]"#, "ENV A=b", "WORKDIR /w"];
    env.invoke(["import", "-c", change[0], "-c", change[1], "-c", change[2], "-", "tiny:1"]).stdin(tar).run().ok();
    env.ctr("run --rm tiny:1 env").ok().prints("A=b");
    env.ctr("run --rm tiny:1 pwd").ok().prints("/w");
    env.ctr("import missing.tar x").fails(1).says("missing.tar").says_it_plainly();
    env.write("not.tar", "this is no archive at all");
    env.ctr("import not.tar x").fails(1).says_it_plainly();
    env.ctr("import -c 'RUN x' r.tar.gz x").either(&[1, 125]).says("RUN").says_it_plainly();
}

#[test]
fn tag_and_remove() {
    let env = TestEnv::new();
    env.ctr("tag busybox mine:1").ok();
    env.ctr("image tag mine:1 example.com:5000/group/mine").ok();
    // One image under three names.
    assert_eq!(env.ctr("images -q").ok().lines().len(), 1);
    assert_eq!(env.ctr("images --format '{{.Repository}}:{{.Tag}}'").ok().lines().len(), 3);
    env.ctr("images mine").ok().prints("mine");
    env.ctr("rmi mine:1").ok().prints("Untagged: mine:1");
    env.ctr("run --rm busybox true").ok();
    let out = env.ctr("rmi busybox example.com:5000/group/mine").ok();
    out.prints("Untagged: busybox:latest").prints("Deleted: sha256:");
    env.ctr("images -aq").ok().prints_nothing();
    // The disk is free again.
    assert_eq!(std::fs::read_dir(env.root().join("layers")).map(Iterator::count).unwrap_or(0), 0);
}

#[test]
fn an_image_in_use_stays() {
    let env = TestEnv::new();
    env.ctr("run -d --name user busybox sleep 1000").ok();
    let message = env.ctr("rmi busybox").fails(1).says_it_plainly();
    message.says("conflict").says("container");
    env.ctr("rm -f user").ok();
    env.ctr("image rm busybox").ok();
}

#[test]
fn errors() {
    let env = TestEnv::new();
    env.ctr("rmi missing").fails(1).says("No such image: missing").says_it_plainly();
    env.ctr("rmi -f missing").either(&[0, 1]);
    env.ctr("tag missing x").fails(1).says("No such image: missing").says_it_plainly();
    env.ctr("tag busybox UPPER").fails(1).says("must be lowercase").says_it_plainly();
    env.ctr("tag busybox 'a b'").fails(1).says("invalid reference format").says_it_plainly();
    env.ctr("run --rm UPPER true").fails(125).says("must be lowercase").says_it_plainly();
}

#[test]
fn save_and_load_round_trip() {
    let env = TestEnv::new();
    env.ctr("tag busybox second:2").ok();
    let id = env.ctr("images -q --no-trunc busybox").ok().text();
    env.ctr("save -o both.tar busybox second:2").ok();
    env.ctr("rmi busybox second:2").ok();
    let out = env.ctr("load -i both.tar").ok();
    out.prints("Loaded image: busybox:latest").prints("Loaded image: second:2");
    assert_eq!(env.ctr("images -q --no-trunc busybox").ok().text(), id, "the same image, the same id");
    env.ctr("run --rm second:2 echo again").ok().prints("again");
    // In a pipe.
    let tar = env.ctr("save busybox").ok().bytes().to_vec();
    env.ctr("rmi -f busybox").ok();
    env.invoke("load").stdin(tar).run().ok().prints("busybox:latest");
}

#[test]
fn a_containers_files_are_exported() {
    let env = TestEnv::new();
    let script = "echo made > /f && ln /f /g && chown 7:8 /f && chmod 4751 /f && rm /bin/vi && echo kept > /data/x && \
                  rm -r /var/www && mkdir /var/www && mkfifo /var/www/p";
    env.ctr(["run", "--name", "one", "-v", "data:/data", "busybox", "sh", "-c", script]).ok();
    let running = "echo begun; while :; do echo x > /tmp/f; rm /tmp/f; done";
    env.ctr(["run", "-d", "--name", "two", "--userns", "auto", "busybox", "sh", "-c", running]).ok();
    env.ctr("exec two sh -c 'echo own > /f && chown 7:8 /f'").ok();
    env.ctr("export -o one.tar one").ok();
    let tar = env.ctr("container export two").ok().bytes().to_vec();
    std::fs::write(env.path("two.tar"), tar).expect("there is room");
    for name in ["one", "two"] {
        let file = env.path(&format!("{name}.tar"));
        let listed = Command::new("tar").arg("-tf").arg(&file).output().expect("tar runs");
        assert!(listed.status.success() && listed.stderr.is_empty(), "{name}: {listed:?}");
        let bytes = std::fs::read(&file).expect("it was written");
        env.invoke("import - copy").stdin(bytes).run().ok();
        let look = "stat -c %u:%g:%a:%h /f; cat /f; ls /data /var/www; ls /bin/vi 2>&1; stat -c %u /bin/sh";
        let out = env.ctr(["run", "--rm", "copy", "sh", "-c", look]).ok().stdout();
        match name {
            "one" => {
                assert_eq!(out, "7:8:4751:2\nmade\n/data:\n\n/var/www:\np\nls: /bin/vi: No such file or directory\n0\n")
            }
            _ => assert!(out.starts_with("7:8:644:1\nown\n") && out.ends_with("\n/bin/vi\n0\n"), "{out}"),
        }
    }
    env.ctr("export nobody").fails(1).says("No such container: nobody").says_it_plainly();
    env.ctr("export -o /nowhere/x one").fails(1).says("/nowhere/x").says_it_plainly();
    env.ctr("create --name new busybox true").ok();
    env.ctr("export -o new.tar new").ok();
    env.ctr("import new.tar new").ok();
    env.ctr("run --rm new echo alive").ok().prints("alive");
}

#[test]
fn other_programs_read_what_is_saved() {
    let env = TestEnv::new();
    for (format, transport) in [("docker", "docker-archive"), ("oci", "oci-archive")] {
        let file = format!("{format}.tar");
        env.ctr(["save", "--format", format, "-o", &file, "busybox"]).ok();
        let from = format!("{transport}:{}", env.path(&file).display());
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--quiet", &from]).arg(format!("dir:{}", env.path(format).display()));
        let out = skopeo.output().expect("skopeo runs: see scripts/test-deps");
        assert!(out.status.success(), "{format}: {}", String::from_utf8_lossy(&out.stderr));
        assert!(env.path(format).join("manifest.json").exists());
    }
}

#[test]
fn what_other_programs_write_is_loaded() {
    let env = TestEnv::new();
    env.ctr("save -o docker.tar busybox").ok();
    let copy = |to: &str| {
        let from = format!("docker-archive:{}", env.path("docker.tar").display());
        let out = Command::new("skopeo").args(["--insecure-policy", "copy", "--quiet", &from, to]).output();
        let out = out.expect("skopeo runs: see scripts/test-deps");
        assert!(out.status.success(), "{to}: {}", String::from_utf8_lossy(&out.stderr));
    };
    copy(&format!("oci-archive:{}:fromoci:1", env.path("o.tar").display()));
    copy(&format!("docker-archive:{}:fromdocker:1", env.path("d.tar").display()));
    for file in ["o.tar", "d.tar"] {
        let loaded = env.ctr(["load", "-i", file]).ok().stdout();
        let name =
            loaded.lines().find_map(|line| line.split_once(": ")).expect("a line `Loaded image: …`").1.to_owned();
        env.ctr(["run", "--rm", &name, "echo", "alive"]).ok().prints("alive");
    }
}

#[test]
fn hostile_archives_are_refused() {
    let env = TestEnv::empty();
    // Names that lead out of the layer must end inside it or be refused – and never on the host.
    let script = r#"
import io, tarfile
def add(t, name, **kw):
    i = tarfile.TarInfo(name)
    for k, v in kw.items(): setattr(i, k, v)
    t.addfile(i, io.BytesIO(b"x" * i.size))
for case in ("dotdot", "absolute", "symlink", "hardlink"):
    with tarfile.open(case + ".tar", "w") as t:
        if case == "dotdot": add(t, "../../../../../../../../../../tmp/CTR_ESCAPE", size=1)
        if case == "absolute": add(t, "/tmp/CTR_ESCAPE", size=1)
        if case == "symlink":
            add(t, "out", type=tarfile.SYMTYPE, linkname="/tmp")
            add(t, "out/CTR_ESCAPE", size=1)
        if case == "hardlink":
            add(t, "passwd", type=tarfile.LNKTYPE, linkname="/etc/hostname")
            add(t, "passwd", size=1)
"#;
    let before = std::fs::read("/etc/hostname").ok();
    let made = Command::new("python3").args(["-c", script]).current_dir(env.path("")).status();
    if !made.is_ok_and(|status| status.success()) {
        return; // Without python there is nothing to make the archives with.
    }
    for case in ["dotdot", "absolute", "symlink", "hardlink"] {
        env.ctr(["import", &format!("{case}.tar"), case]).either(&[0, 1]);
        assert!(!std::path::Path::new("/tmp/CTR_ESCAPE").exists(), "{case} escaped");
    }
    assert_eq!(std::fs::read("/etc/hostname").ok(), before);
}

#[test]
fn inspect_and_history() {
    let env = TestEnv::new();
    let all = env.ctr("image inspect busybox").ok().json();
    assert_eq!(all[0]["RepoTags"][0], "busybox:latest");
    assert_eq!(all[0]["Config"]["Cmd"][0], "sh");
    assert_eq!(all[0]["Os"], "linux");
    env.ctr("inspect busybox").ok().prints("RootFS");
    env.write("app/big", vec![1; 30_000]);
    env.build("app", "app", "FROM busybox\nENV A=1\nCOPY big /\nCMD [\"sh\"]\nRUN echo 123 > /small\n").ok();
    let history = env.ctr(["history", "--human=false", "--format", "{{.Size}}|{{.CreatedBy}}", "app"]).ok().lines();
    let expected = ["4|RUN /bin/sh -c echo 123 > /small", "0|CMD [\"sh\"]", "30000|COPY big /", "0|ENV A=1"];
    assert_eq!(history[..4], expected);
    env.ctr("history app").ok().prints("CREATED BY").prints("30kB");
}

#[test]
fn what_each_layer_did() {
    let env = TestEnv::new();
    env.write("app/big", vec![1; 30_000]);
    let file = "FROM busybox\nCOPY big /d/big\nCOPY big /d/other\nRUN rm /d/other && echo new > /d/big && mkdir /e && ln /d/big /e/hard\n\
                RUN rm -r /d && mkdir /d && echo anew > /d/big && rm /bin/ls\n";
    env.build("app", "app", file).ok();
    let out = env.ctr("image diff --format json app").ok().stdout();
    let layers: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(layers.len(), 5);
    let changes = |layer: usize| -> Vec<String> {
        let all = layers[layer]["Changes"].as_array().unwrap();
        all.iter()
            .map(|c| format!("{} {} {}", c["Kind"].as_str().unwrap(), c["Path"].as_str().unwrap(), c["Size"]))
            .collect()
    };
    assert_eq!(changes(1), ["A /d 0", "A /d/big 30000"]);
    assert_eq!(changes(2), ["A /d/other 30000"]);
    let third = changes(3);
    assert!(third.contains(&"D /d/other 30000".to_owned()) && third.contains(&"A /e 0".to_owned()), "{third:?}");
    assert!(third.iter().any(|line| line.starts_with("C /d/big")), "{third:?}");
    assert!(third.iter().any(|line| line.starts_with("A /e/hard")), "{third:?}");
    assert_eq!(layers[3]["Hidden"], 60_000);
    let fourth = changes(4);
    assert!(fourth.contains(&"C /d/big 5".to_owned()), "{fourth:?}");
    assert!(fourth.iter().any(|line| line.starts_with("D /bin/ls")), "{fourth:?}");
    let hostile = "FROM busybox\nRUN touch \"$(printf 'x\\nD 1B  etc\\033[2J')\"\n";
    env.build("hostile", "app", hostile).ok();
    let out = env.ctr("image diff hostile").ok().stdout();
    assert!(!out.contains('\x1b') && !out.lines().any(|line| line.starts_with("D 1B")), "{out}");
    let out = env.ctr("image diff --summary app").ok();
    out.prints(": 2 added, 0 changed, 0 removed  COPY")
        .prints("hides 60kB")
        .prints("are changed or removed again by later layers");
    env.ctr("image diff app").ok().prints("D     30kB  /d/other\n");
    env.ctr("image diff nothing").fails(1).says("No such image: nothing");
    let out = env.ctr("image tree app").ok();
    out.prints("Tags:     [app:latest]")
        .prints("Top Layer of: [busybox:latest]\n")
        .prints("└── ID: ")
        .prints("Top Layer of: [app:latest]\n");
}
