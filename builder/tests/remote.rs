//! What does not come out of the context: files at URLs, git repositories, named contexts; archives of every packing.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use builder::NamedContext;
use common::git::{GitServer, commit, git, git_says, new_repository};
use common::{Home, Web, mode, read, run};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

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

/// Seen to fail with another mode, without the server's date, without the validators of an earlier answer, without the name in
/// `Content-Disposition`, without redirects.
#[test]
fn add_fetches_a_url() {
    let (home, web) = (Home::new(), files());
    let url = format!("{}/a/data.txt", web.address);
    let text = format!("FROM scratch\nADD {url} /d/\nADD --chmod=755 --chown=7:8 {url} /renamed\n");
    let first = home.build(&text);
    let fetched = web.sent();
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
    assert_eq!(web.sent(), fetched, "what has not changed is not sent again");
    let other = home.build(&format!("FROM scratch\nADD {}/moved {}/named /x/\n", web.address, web.address));
    let top = home.top(&other);
    assert_eq!((read(&top, "x/moved"), read(&top, "x/n.txt")), ("hello".into(), "n".into()));
}

/// Seen to fail without either comparison of digests, with a request for what is known, and with a sha512 taken for known
/// because the sha256 is.
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
    // What an earlier build knows of the file is its sha256; the server says that it has not changed.
    let long = |text: &str| {
        let mut hasher = oci::Hasher::sha512();
        hasher.update(text.as_bytes());
        hasher.finish()
    };
    let error = home.error(&format!("FROM scratch\nADD --checksum={} {url} /f\n", long("other")));
    assert!(error.contains("digest mismatch"), "{error}");
    home.build(&format!("FROM scratch\nADD --checksum={} {url} /f\n", long("hello")));
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

/// Seen to fail without each packing, with every compressed file taken for an archive, with URLs' archives unpacked, and
/// with `--unpack=false` unheard.
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

/// Seen to fail with the layers below in the key, and with them below the copy.
#[test]
fn a_linked_copy_does_not_depend_on_what_is_below() {
    let home = Home::new();
    home.file("f", "f");
    home.file("d/inner", "");
    let linked = |base: &str, no_cache| {
        let text = format!("FROM scratch\nCOPY {base}\nCOPY --link f /l/\n");
        home.try_build(&text, |request| request.no_cache = no_cache).unwrap_or_else(|error| panic!("{error}"))
    };
    let one = linked("<<EOF /base\none\nEOF", false);
    for two in ["<<EOF /base\ntwo\nEOF", "--chown=7:8 --chmod=700 d /l"] {
        let found = linked(two, false);
        assert!(
            found.steps.iter().any(|step| step.contains("--link") && step.ends_with("CACHED")),
            "{:?}",
            found.steps
        );
        // Made anew it is the same too, whatever its folder is below.
        for two in [found, linked(two, true)] {
            assert_eq!(home.config(&one).rootfs.diff_ids[1], home.config(&two).rootfs.diff_ids[1]);
        }
    }
}

/// A repository with two commits; the first one's name.
fn two_commits(app: PathBuf) -> String {
    let app = new_repository(app);
    fs::create_dir(app.join("sub")).unwrap();
    fs::write(app.join("sub/f"), "first").unwrap();
    commit(&app);
    git(&app, &["tag", "-a", "-m", "note", "v1"]);
    fs::write(app.join("sub/f"), "second").unwrap();
    commit(&app);
    git_says(&app, &["rev-parse", "v1^{commit}"])
}

/// Seen to fail with `.git` kept, with a tag's note taken for its commit, without the beginnings of commits' names, without
/// `subdir`, without either comparison of commits, with `--exclude` not in the key, and without the look in `beneath`.
#[test]
fn add_fetches_a_repository() {
    let home = Home::new();
    let repositories = home.dir.path().join("repositories");
    let first = two_commits(repositories.join("app"));
    let server = GitServer::start(&repositories);
    let url = &format!("{}/app", server.address);
    let add = |what: &str| home.build(&format!("FROM scratch\nADD {what} /src\n"));
    let made = add(url);
    assert_eq!(read(&home.top(&made), "src/sub/f"), "second");
    assert!(!home.top(&made).join("src/.git").exists());
    // Without some of it it is another step.
    assert_eq!(fs::read_dir(home.top(&add(&format!("--exclude=sub {url}"))).join("src")).unwrap().count(), 0);
    assert!(add(url).steps.iter().any(|step| step.contains("ADD") && step.ends_with("CACHED")));
    assert_eq!(read(&home.top(&add(&format!("{url}#v1:sub"))), "src/f"), "first");
    assert_eq!(read(&home.top(&add(&format!("{url}?tag=v1&subdir=sub"))), "src/f"), "first");
    assert_eq!(read(&home.top(&add(&format!("{url}#{}", first))), "src/sub/f"), "first");
    assert_eq!(read(&home.top(&add(&format!("{url}#{}", &first[..10]))), "src/sub/f"), "first");
    assert!(home.top(&add(&format!("--keep-git-dir=true {url}"))).join("src/.git/HEAD").exists());
    add(&format!("--checksum={} {url}#v1", first));
    let error = home.error(&format!("FROM scratch\nADD --checksum={} {url} /src\n", first));
    assert!(error.contains("digest mismatch"), "{error}");
    // What the one commit is said to be is looked at, though its files are here.
    let error = home.error(&format!("FROM scratch\nADD --checksum=0123456 {url}#{first} /src\n"));
    assert!(error.contains("digest mismatch"), "{error}");
    let short = &first[..10];
    add(&format!("--checksum={first} {url}#{short}"));
    let error = home.error(&format!("FROM scratch\nADD --checksum=0123456 {url}#{short} /src\n"));
    assert!(error.contains("digest mismatch"), "{error}");
    let error = home.error(&format!("FROM scratch\nADD {url}#:../.. /src\n"));
    assert!(error.contains("no folder"), "{error}");
    let error = home.error(&format!("FROM scratch\nADD {url}#nope /src\n"));
    assert!(error.contains("git fetch failed"), "{error}");
}

/// Seen to fail with contexts that stand for no stage, no `--from` or no FROM, with names compared to the letter, with the
/// context's ignore file unread, and with a layout's reference unheard or wanted.
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
    let stage = "FROM nowhere AS src\nRUN exit 1\n";
    assert_eq!(read(&home.top(&with(stage, "src", folder()).unwrap()), "d/f"), "other");
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
