//! What does not come out of the context: files at URLs, git repositories, named contexts; archives of every packing.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use builder::NamedContext;
use common::{Home, Web, mode, read, run};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

fn files() -> Web {
    Web::start(|path, headers| match path {
        "/a/data.txt" if headers.contains("if-none-match: \"v1\"") => ("304 Not Modified".into(), Vec::new()),
        "/a/data.txt" => {
            ("200 OK\r\nETag: \"v1\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT".into(), b"hello".to_vec())
        }
        "/moved" => ("302 Found\r\nLocation: /a/data.txt".into(), Vec::new()),
        "/to-file" => ("302 Found\r\nLocation: file:///etc/passwd".into(), Vec::new()),
        "/named" => ("200 OK\r\nContent-Disposition: attachment; filename=\"../n.txt\"".into(), b"n".to_vec()),
        _ => ("404 Not Found".into(), Vec::new()),
    })
}

#[test]
fn add_fetches_a_url() {
    let (home, web) = (Home::new(), files());
    let url = format!("{}/a/data.txt", web.address);
    let text = format!("FROM scratch\nADD {url} /d/\nADD --chmod=755 --chown=7:8 {url} /renamed\n");
    let first = home.build(&text);
    let image = home.engine.store().image(first.built.image_id.as_str()).unwrap();
    let layers = home.engine.store().image_layers(&image).unwrap();
    assert_eq!((read(&layers[0], "d/data.txt").as_str(), mode(&layers[0], "d/data.txt")), ("hello", 0o600));
    let meta = fs::metadata(layers[0].join("d/data.txt")).unwrap();
    assert_eq!((meta.mtime(), meta.uid()), (784_111_777, 0));
    let meta = fs::metadata(layers[1].join("renamed")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o755, 7, 8));
    let again = home.build(&text);
    assert!(again.steps.iter().all(|step| step.contains("FROM") || step.ends_with("CACHED")), "{:?}", again.steps);
    assert_eq!(again.built.image_id, first.built.image_id);
    let other = home.build(&format!("FROM scratch\nADD {}/moved {}/named /x/\n", web.address, web.address));
    let top = home.top(&other);
    assert_eq!((read(&top, "x/moved"), read(&top, "x/n.txt")), ("hello".into(), "n".into()));
}

#[test]
fn a_url_may_be_held_to_a_checksum() {
    let (home, web) = (Home::new(), files());
    let url = format!("{}/a/data.txt", web.address);
    let sum = oci::Digest::sha256("hello");
    let text = format!("FROM scratch\nADD --checksum={sum} {url} /f\n");
    home.build(&text);
    let asked = web.seen().len();
    home.build(&text);
    assert_eq!(web.seen().len(), asked, "what is known by its digest need not be asked for");
    let wrong = oci::Digest::sha256("other");
    let error = home.error(&format!("FROM scratch\nADD --checksum={wrong} {url} /f\n"));
    assert!(error.contains("digest mismatch"), "{error}");
    home.file("local", "");
    for (line, words) in [
        (format!("ADD --checksum={sum} local /f"), "checksum can't be specified"),
        (format!("ADD --checksum={sum} {url} {url} /f/"), "several sources"),
        (format!("ADD --checksum=md5:00 {url} /f"), "--checksum"),
        (format!("COPY {url} /f"), "source can't be a URL for COPY"),
        (format!("ADD {} /d/", web.address), "cannot"),
        (format!("ADD {}/nope /d/", web.address), "not found (404)"),
        (format!("ADD {}/to-file /d/", web.address), "a redirect (302"),
    ] {
        let error = home.error(&format!("FROM scratch\n{line}\n"));
        assert!(error.contains(words), "{line}: {error}");
    }
}

#[test]
fn archives_of_every_packing_are_unpacked() {
    let home = Home::new();
    home.file("t/x/f", "inside");
    let context = home.dir.path().join("context");
    for (name, flag) in [("a.tar", "-c"), ("a.tgz", "-cz"), ("a.tbz", "-cj"), ("a.txz", "-cJ"), ("a.tzst", "--zstd -c")]
    {
        let arguments: Vec<&str> = flag.split(' ').chain(["-f", name, "-C", "t", "."]).collect();
        run(&context, "tar", &arguments);
        let top = home.top(&home.build(&format!("FROM scratch\nADD {name} /un/\n")));
        assert_eq!(read(&top, "un/x/f"), "inside", "{name}");
        let top = home.top(&home.build(&format!("FROM scratch\nADD --unpack=false {name} /un/\n")));
        assert!(top.join("un").join(name).is_file());
    }
    // What is compressed but no tar is a file like any other.
    run(&context, "sh", &["-c", "echo text | gzip > plain.gz"]);
    assert!(home.top(&home.build("FROM scratch\nADD plain.gz /x/\n")).join("x/plain.gz").is_file());
    let packed = fs::read(context.join("a.tgz")).unwrap();
    let web = Web::start(move |_, _| ("200 OK".into(), packed.clone()));
    let top = home.top(&home.build(&format!("FROM scratch\nADD {}/a.tgz /kept/\n", web.address)));
    assert!(top.join("kept/a.tgz").is_file(), "a URL's archive stays one");
    let top = home.top(&home.build(&format!("FROM scratch\nADD --unpack {}/a.tgz /un/\n", web.address)));
    assert_eq!(read(&top, "un/x/f"), "inside");
}

#[test]
fn a_linked_copy_does_not_depend_on_what_is_below() {
    let home = Home::new();
    home.file("f", "f");
    let build = |base: &str| home.build(&format!("FROM scratch\nCOPY <<EOF /base\n{base}\nEOF\nCOPY --link f /l/\n"));
    let (one, two) = (build("one"), build("two"));
    assert!(two.steps.iter().any(|step| step.contains("--link") && step.ends_with("CACHED")), "{:?}", two.steps);
    assert_eq!(home.config(&one).rootfs.diff_ids[1], home.config(&two).rootfs.diff_ids[1]);
}

/// A repository with two commits, served by git's own daemon; dropped it ends.
struct Repository {
    url: String,
    first: String,
    daemon: std::process::Child,
}

impl Repository {
    fn serve(folder: &Path) -> Repository {
        let app = folder.join("repos/app");
        fs::create_dir_all(app.join("sub")).unwrap();
        fs::write(app.join("sub/f"), "first").unwrap();
        let git = |arguments: &[&str]| {
            let user = ["-c", "user.name=a", "-c", "user.email=a@b"];
            run(&app, "git", &user.iter().chain(arguments).copied().collect::<Vec<_>>());
        };
        git(&["init", "-q", "-b", "main"]);
        git(&["add", "."]);
        git(&["commit", "-q", "-m", "one"]);
        git(&["tag", "-a", "-m", "note", "v1"]);
        fs::write(app.join("sub/f"), "second").unwrap();
        git(&["commit", "-q", "-a", "-m", "two"]);
        let output = |program: &str, arguments: &[&str]| {
            let output = std::process::Command::new(program).args(arguments).current_dir(&app).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let first = output("git", &["rev-parse", "v1^{commit}"]);
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // The program itself: `git daemon` would be its parent, and leave it behind.
        let daemon = std::process::Command::new(format!("{}/git-daemon", output("git", &["--exec-path"])))
            .args(["--export-all", "--reuseaddr", "--listen=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", folder.join("repos").display()))
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        Repository { url: format!("git://127.0.0.1:{port}/app"), first, daemon }
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        let _gone = self.daemon.kill();
        let _gone = self.daemon.wait();
    }
}

#[test]
fn add_fetches_a_repository() {
    let home = Home::new();
    let repository = Repository::serve(home.dir.path());
    let url = &repository.url;
    let add = |what: &str| home.build(&format!("FROM scratch\nADD {what} /src\n"));
    let made = add(url);
    assert_eq!(read(&home.top(&made), "src/sub/f"), "second");
    assert!(!home.top(&made).join("src/.git").exists());
    assert!(add(url).steps.iter().any(|step| step.contains("ADD") && step.ends_with("CACHED")));
    assert_eq!(read(&home.top(&add(&format!("{url}#v1:sub"))), "src/f"), "first");
    assert_eq!(read(&home.top(&add(&format!("{url}?tag=v1&subdir=sub"))), "src/f"), "first");
    assert_eq!(read(&home.top(&add(&format!("{url}#{}", repository.first))), "src/sub/f"), "first");
    assert_eq!(read(&home.top(&add(&format!("{url}#{}", &repository.first[..10]))), "src/sub/f"), "first");
    assert!(home.top(&add(&format!("--keep-git-dir=true {url}"))).join("src/.git/HEAD").exists());
    add(&format!("--checksum={} {url}#v1", repository.first));
    let error = home.error(&format!("FROM scratch\nADD --checksum={} {url} /src\n", repository.first));
    assert!(error.contains("digest mismatch"), "{error}");
    let error = home.error(&format!("FROM scratch\nADD {url}#:../.. /src\n"));
    assert!(error.contains("no folder"), "{error}");
    let error = home.error(&format!("FROM scratch\nADD {url}#nope /src\n"));
    assert!(error.contains("git fetch failed"), "{error}");
}

#[test]
fn named_contexts_stand_for_stages_and_images() {
    let home = Home::new();
    home.build("FROM scratch\nCOPY <<EOF /of-image\nimage\nEOF\n");
    let other = home.dir.path().join("other");
    fs::create_dir_all(other.join("d")).unwrap();
    fs::write(other.join("d/f"), "other").unwrap();
    fs::write(other.join("hidden"), "").unwrap();
    fs::write(other.join(".dockerignore"), "hidden\n").unwrap();
    let with = |text: &str, name: &str, context: NamedContext| {
        home.try_build(text, |request| request.contexts = vec![(name.to_owned(), context.clone())])
    };
    let folder = || NamedContext::Folder(other.clone());
    // A stage's place, an image's, a FROM's.
    let copy = "FROM nowhere AS src\nRUN exit 1\nFROM scratch\nCOPY --from=src d /x\n";
    assert_eq!(read(&home.top(&with(copy, "SRC", folder()).unwrap()), "x/f"), "other");
    let copy = "FROM scratch\nCOPY --from=docker.io/library/tool:latest d /x\n";
    assert_eq!(read(&home.top(&with(copy, "tool", folder()).unwrap()), "x/f"), "other");
    let from = with("FROM base\nLABEL a=b\n", "base", folder()).unwrap();
    assert_eq!((read(&home.top(&from), "d/f"), home.top(&from).join("hidden").exists()), ("other".into(), false));
    let again = with("FROM base\nLABEL a=b\n", "base", folder()).unwrap();
    assert_eq!(from.built.image_id, again.built.image_id);
    // An image by another name, and one in OCI's layout.
    home.try_build("FROM scratch\nCOPY <<EOF /of-image\nimage\nEOF\n", |request| {
        request.tags = vec!["made:1".parse().unwrap()];
    })
    .unwrap();
    let built = with("FROM alpine\n", "alpine", NamedContext::Image("made:1".into())).unwrap();
    assert_eq!(read(&home.top(&built), "of-image"), "image\n");
    let layout = home.dir.path().join("layout");
    fs::create_dir(&layout).unwrap();
    let archive = home.dir.path().join("made.tar");
    let mut out = fs::File::create(&archive).unwrap();
    home.engine.store().save(&["made:1"], store::ArchiveFormat::Oci, &mut out).unwrap();
    run(&layout, "tar", &["-xf", archive.to_str().unwrap()]);
    for reference in ["", "1"] {
        let context = NamedContext::Layout { folder: layout.clone(), reference: reference.into() };
        let built = with("FROM alpine\n", "alpine", context).unwrap();
        assert_eq!(read(&home.top(&built), "of-image"), "image\n");
    }
    let missing = NamedContext::Layout { folder: layout, reference: "7".into() };
    let Err(error) = with("FROM alpine\n", "alpine", missing) else { panic!("it built") };
    assert!(error.to_string().contains("no image \"7\""), "{error}");
}
