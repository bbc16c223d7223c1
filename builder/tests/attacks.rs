//! What hostile contexts, stages and archives try: to make a build read or write the host's files.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use builder::{BuildError, BuildRequest, CacheOrigin, Containerfile, FetchedContext, GitContext, NamedContext};
use common::git::{GitServer, commit, git, git_says, new_repository};
use common::{Home, Outcome, Web, read, run};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};

const SECRET: &str = "of the host";

/// A context with every link that leads out of it to a secret beside it.
struct Trap {
    home: Home,
    outside: PathBuf,
}

impl Trap {
    fn new() -> Trap {
        let home = Home::new();
        let outside = home.dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), SECRET).unwrap();
        home.file("f", "f");
        let context = home.dir.path().join("context");
        for (name, target) in [
            ("absolute", outside.join("secret")),
            ("folder", outside.clone()),
            ("up", PathBuf::from("..")),
            ("far", PathBuf::from("../../../../../../../../../../etc/passwd")),
            ("proc", PathBuf::from("/proc/self/root")),
            ("cwd", PathBuf::from("/proc/self/cwd")),
            ("loop", PathBuf::from("loop")),
        ] {
            symlink(target, context.join(name)).unwrap();
        }
        Trap { home, outside }
    }

    /// Builds, whatever comes of it; nothing of the host may be in any layer.
    fn spring(&self, text: &str, edit: impl Fn(&mut BuildRequest)) -> Option<Outcome> {
        let outcome = self.home.try_build(text, edit).ok();
        let layers = self.home.dir.path().join("root/layers");
        let caches = self.home.dir.path().join("root/build-cache");
        for folder in [layers, caches] {
            assert!(!holds_secret(&folder), "{text}");
        }
        let kept: Vec<_> = fs::read_dir(&self.outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(kept, ["secret"], "{text}");
        assert_eq!(fs::read_to_string(self.outside.join("secret")).unwrap(), SECRET, "{text}");
        outcome
    }
}

/// Whether a regular file below holds the secret or the host's users; links are not followed.
fn holds_secret(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    let users = fs::read("/etc/passwd").unwrap();
    entries.flatten().any(|entry| {
        let kind = entry.file_type().unwrap();
        let bytes = if kind.is_file() { fs::read(entry.path()).unwrap_or_default() } else { Vec::new() };
        (kind.is_dir() && holds_secret(&entry.path()))
            || bytes == SECRET.as_bytes()
            || (kind.is_file() && bytes == users)
    })
}

/// Seen to succeed with an openat that follows links in the place of `linux::resolve`'s openat2, and `paths::resolve`
/// handing paths on as they are; either alone holds.
#[test]
fn links_of_a_context_lead_to_nothing_outside() {
    let trap = Trap::new();
    for source in [
        "absolute",
        "folder/secret",
        "folder",
        "up/outside/secret",
        "up/outside",
        "up",
        "far",
        "proc/etc/passwd",
        "proc",
        "cwd/x",
        "loop",
        "loop/x",
        "../outside/secret",
        "/../outside/secret",
        "./up/../outside/secret",
        "fold*/secr*",
        "*/secret",
        "*/*/secret",
        "up/outside/*",
    ] {
        for line in [
            format!("COPY {source} /x"),
            format!("ADD {source} /x/"),
            format!("COPY --parents {source} /x/"),
            format!("COPY --link {source} /x"),
        ] {
            trap.spring(&format!("FROM scratch\n{line}\n"), |_| {});
        }
        let named = NamedContext::Folder(trap.home.dir.path().join("context"));
        trap.spring(&format!("FROM scratch\nCOPY --from=other {source} /x\n"), |request| {
            request.contexts = vec![("other".to_owned(), named.clone())];
        });
    }
}

/// Seen to succeed as the one before.
#[test]
fn links_of_a_stage_lead_to_nothing_outside() {
    let trap = Trap::new();
    let stage = "FROM scratch AS a\nCOPY absolute folder up far proc /l/\nCOPY f /d/f\n";
    // The links themselves are copied as what they are: from a stage they are resolved inside it.
    let stage = stage.replace("COPY absolute folder up far proc /l/", "COPY . /l/");
    for source in
        ["/l/absolute", "/l/folder/secret", "/l/up/outside", "/l/far", "/l/proc/etc/passwd", "/l/../../../etc/passwd"]
    {
        trap.spring(&format!("{stage}FROM scratch\nCOPY --from=a {source} /x\n"), |_| {});
    }
}

/// Seen to fail with `paths::resolve` handing paths on as they are, the one of `--link` with the layers below it.
#[test]
fn a_destination_lands_inside() {
    let trap = Trap::new();
    let outside = trap.outside.display();
    for (line, lands) in [
        ("COPY f /l/folder/secret".to_owned(), format!("{outside}/secret")),
        ("COPY f /l/absolute".to_owned(), format!("{outside}/secret")),
        ("COPY f /l/up/up/x".to_owned(), "up/x".to_owned()),
        ("COPY f ../../../../../../x".to_owned(), "x".to_owned()),
        ("COPY f /l/proc/tmp/x".to_owned(), "proc/self/root/tmp/x".to_owned()),
        (format!("COPY f {outside}/new"), format!("{outside}/new")),
        ("COPY <<f /l/folder/new\ntext\nf".to_owned(), format!("{outside}/new")),
        ("COPY --link f /l/folder/linked".to_owned(), "l/folder/linked".to_owned()),
        ("WORKDIR /l/folder/made".to_owned(), format!("{outside}/made")),
        ("WORKDIR ../../../../made".to_owned(), "made".to_owned()),
    ] {
        let built = trap.spring(&format!("FROM scratch\nCOPY . /l/\n{line}\n"), |_| {});
        let top = trap.home.top(&built.unwrap_or_else(|| panic!("{line}: refused")));
        assert!(top.join(lands.trim_start_matches('/')).exists(), "{line}");
    }
}

/// What one source of an instruction puts into a layer the next one may lead through.
///
/// Seen to succeed, each line, with `paths::resolve` handing paths on as they are and either `create` writing to what is
/// there, or – for folders – `open_folder` following links and `linux::resolve` too.
#[test]
fn a_copy_is_not_led_out_by_its_own_links() {
    let trap = Trap::new();
    let context = trap.home.dir.path().join("context");
    trap.home.file("one/g", "g");
    for (name, target) in [("x", trap.outside.clone()), ("f", trap.outside.join("secret"))] {
        symlink(target, context.join("one").join(name)).unwrap();
    }
    for name in ["two/x/secret", "two/x/new/f", "two/f"] {
        trap.home.file(name, "f");
    }
    fs::write(context.join("x.tar"), tar_of(&[Evil(tar::EntryType::Regular, "x/new", "", b"x")])).unwrap();
    for line in [
        "COPY one f /d/",
        "COPY one two /d/",
        "COPY one <<f /d/\ntext\nf",
        "COPY --parents one/./ two/./x/secret /d/",
        "COPY --parents one/./ two/./x/new /d/",
        "COPY --parents one/./ two/./f /d/",
        "ADD one x.tar /d/",
    ] {
        trap.spring(&format!("FROM scratch\n{line}\n"), |_| {});
    }
}

/// Seen to succeed, each line, with `create` writing to what is there, `open_folder` following links, and an openat that
/// follows them in the place of `linux::resolve`'s openat2.
#[test]
fn files_of_a_result_stay_in_their_folder() {
    let trap = Trap::new();
    let (outside, folder) = (trap.outside.display(), trap.home.dir.path().join("out"));
    let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let context = trap.home.dir.path().join("context");
    symlink(&trap.outside, context.join("l")).unwrap();
    symlink(trap.outside.join("secret"), context.join("s")).unwrap();
    trap.home.file("d/l", "");
    fs::remove_file(context.join("d/l")).unwrap();
    symlink(&trap.outside, context.join("d/l")).unwrap();
    // What an earlier result left is in the way of the next one's.
    for second in [
        "COPY f /l/secret",
        "COPY f /l/new",
        "COPY f /l/d/new",
        "COPY f /s",
        "COPY d /l/",
        "WORKDIR /l/new",
        "WORKDIR /s",
    ] {
        for text in ["FROM scratch\nCOPY . /\n".to_owned(), format!("FROM scratch\n{second}\n")] {
            let built = trap.home.build(&text).built;
            let _refused = builder::export_files(&built, &folder, owner);
            trap.spring(&format!("FROM scratch\n# {second}, to {outside}\n"), |_| {});
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}

/// An entry of a hand-made tar.
struct Evil<'a>(tar::EntryType, &'a str, &'a str, &'a [u8]);

fn tar_of(entries: &[Evil<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for Evil(kind, name, link, data) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        tar.append(&header, *data).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Seen to succeed, each one, without `unpack::beneath`, with `paths::resolve` handing paths on as they are, `create`
/// writing to what is there, `open_folder` following links, and an openat that follows them in the place of
/// `linux::resolve`'s openat2. No one of these alone lets anything out.
#[test]
fn archives_cannot_leave_the_root() {
    use tar::EntryType::{Directory, Fifo, Link, Regular, Symlink};
    let trap = Trap::new();
    let outside = trap.outside.display().to_string();
    let secret = format!("{outside}/secret");
    let far = "../".repeat(13);
    let (through, up) = (format!("l{secret}"), format!("{far}{}/new", &outside[1..]));
    for (what, entries) in [
        ("a name that goes up", vec![Evil(Regular, &up, "", b"x")]),
        ("an absolute name", vec![Evil(Regular, &secret, "", b"x")]),
        ("a file through a link", vec![Evil(Symlink, "l", &outside, b""), Evil(Regular, "l/new", "", b"x")]),
        ("a folder through a link", vec![Evil(Symlink, "l", &outside, b""), Evil(Directory, "l/new", "", b"")]),
        ("a link through a link", vec![Evil(Symlink, "l", &outside, b""), Evil(Symlink, "l/new", "x", b"")]),
        ("a fifo through a link", vec![Evil(Symlink, "l", &outside, b""), Evil(Fifo, "l/new", "", b"")]),
        ("through the root", vec![Evil(Symlink, "l", "/", b""), Evil(Regular, &through, "", b"x")]),
        ("through far up", vec![Evil(Symlink, "l", &far, b""), Evil(Regular, &through, "", b"x")]),
        ("a hard link to the host's", vec![Evil(Link, "l", &secret, b"")]),
        ("a hard link through a link", vec![Evil(Symlink, "s", &outside, b""), Evil(Link, "l", "s/secret", b"")]),
        ("a hard link there", vec![Evil(Symlink, "l", &outside, b""), Evil(Link, "l/new", "l/secret", b"")]),
        (
            "over a hard link to a link",
            vec![Evil(Symlink, "s", &secret, b""), Evil(Link, "l", "s", b""), Evil(Regular, "l", "", b"x")],
        ),
        (
            "a folder where a link is",
            vec![Evil(Symlink, "l", &outside, b""), Evil(Directory, "l", "", b""), Evil(Regular, "l/new", "", b"x")],
        ),
        ("over a link", vec![Evil(Symlink, "l", &secret, b""), Evil(Regular, "l", "", b"x")]),
    ] {
        let bytes = tar_of(&entries);
        fs::write(trap.home.dir.path().join("context/evil.tar"), &bytes).unwrap();
        trap.spring(&format!("FROM scratch\n# {what}\nADD evil.tar /\n"), |_| {});
        if let Ok(context) = builder::fetch_stream(&trap.home.engine, "-", bytes.as_slice()) {
            assert!(!holds_secret(context.folder()), "{what}");
        }
        trap.spring(&format!("FROM scratch\n# {what}, as a context\n"), |_| {});
    }
}

/// A window of 4 GiB, for 512 bytes of an archive.
fn xz_of_a_large_window(tar: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    liblzma::read::XzEncoder::new(tar, 0).read_to_end(&mut packed).unwrap();
    // The block's header follows that of 12 bytes: its filter's only property is the window, its end a checksum.
    assert_eq!(packed[12..16], [2, 0, 0x21, 1]);
    packed[16] = 40;
    let mut sum = flate2::Crc::new();
    sum.update(&packed[12..20]);
    packed[20..24].copy_from_slice(&sum.sum().to_le_bytes());
    packed
}

/// A window of 2 GiB.
fn zstd_of_a_large_window(tar: &[u8]) -> Vec<u8> {
    let length = u32::try_from(tar.len()).unwrap();
    let block = (length << 3 | 1).to_le_bytes();
    [&[0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3][..], &block[..3], tar].concat()
}

/// Seen to fail without the store's limits of extensions and sparse files (it read on), and without those of xz's and
/// zstd's windows (the archives were unpacked).
#[test]
fn what_an_archive_claims_costs_no_memory() {
    let trap = Trap::new();
    let evil = trap.home.dir.path().join("context/evil.tar");
    // A name of 4 GiB, a PAX header as long, a sparse file of an exabyte: each one an error, at once.
    let claim = |kind: tar::EntryType| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(if kind == tar::EntryType::GNUSparse { 0 } else { 4 << 30 });
        if kind == tar::EntryType::GNUSparse {
            header.as_mut_bytes()[483..488].copy_from_slice(&[0x80, 0, 0, 0, 0x10]);
        }
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend([b'a'; 1024]);
        bytes
    };
    let small = tar_of(&[Evil(tar::EntryType::Regular, "first", "", b"x")]);
    use tar::EntryType::{GNULongLink, GNULongName, GNUSparse, XHeader};
    for kind in [GNULongName, XHeader, GNULongLink, GNUSparse] {
        // Something small goes before it, so that it is taken for an archive.
        fs::write(&evil, [&small[..1024], &claim(kind)].concat()).unwrap();
        let error = trap.home.error("FROM scratch\nADD evil.tar /\n");
        assert!(error.contains("over the limit"), "{kind:?}: {error}");
    }
    // What asks for too much memory is no archive.
    for packed in [xz_of_a_large_window(&small), zstd_of_a_large_window(&small)] {
        fs::write(&evil, packed).unwrap();
        let top = trap.home.top(&trap.home.build("FROM scratch\nADD evil.tar /\n"));
        assert!(top.join("evil.tar").exists() && !top.join("first").exists());
    }
}

/// Seen to succeed, each one, with a client that follows `file:` as curl does; the last with a name taken as it is sent.
#[test]
fn a_web_server_cannot_send_a_build_to_files() {
    let trap = Trap::new();
    let secret = trap.outside.join("secret").display().to_string();
    let there = secret.clone();
    let web = Web::start(move |path, _| {
        let target = match path {
            "/absolute" => format!("file://{there}"),
            "/host" => format!("file://localhost{there}"),
            "/relative" => format!("file:{there}"),
            "/upper" => format!("FILE://{there}"),
            _ => return ("200 OK\r\nContent-Disposition: attachment; filename=\"../../evil\"".into(), b"x".to_vec()),
        };
        (format!("302 Found\r\nLocation: {target}"), Vec::new())
    });
    for path in ["absolute", "host", "relative", "upper"] {
        let address = format!("{}/{path}", web.address);
        trap.spring(&format!("FROM scratch\nADD {address} /x/\n"), |_| {});
        assert!(builder::fetch_url(&trap.home.engine, &address).is_err(), "{path}");
    }
    for address in [format!("file://{secret}"), format!("FILE://{secret}"), format!("file:{secret}")] {
        trap.spring(&format!("FROM scratch\nADD {address} /x/\n"), |_| {});
        assert!(builder::fetch_url(&trap.home.engine, &address).is_err(), "{address}");
    }
    let named = trap.spring(&format!("FROM scratch\nADD {}/name /x/y/\n", web.address), |_| {});
    assert_eq!(read(&trap.home.top(&named.unwrap()), "x/y/evil"), "x");
}

/// What a context says of its recipe, its ignore file's rules among it.
fn said_of_recipe(trap: &Trap) -> Result<(), String> {
    let context = trap.home.dir.path().join("context");
    let say = |error: BuildError| format!("{error} {:?}", error.source_line());
    let recipe = Containerfile::find(&context, None).map_err(say)?;
    let request = BuildRequest::new(context, recipe);
    builder::build(&trap.home.engine, &request, &|_| {}).map(drop).map_err(say)
}

/// Seen to print the secret, and not to hide what it should, with `File::open` in the place of `read_in`; and not to end.
#[test]
fn a_recipe_and_its_ignore_file_are_the_contexts_own() {
    let trap = Trap::new();
    let context = trap.home.dir.path().join("context");
    let secret = trap.outside.join("secret");
    let up = PathBuf::from("../outside/secret");
    for target in [secret, up, PathBuf::from("folder/secret"), PathBuf::from("loop")] {
        for name in ["Containerfile", "Dockerfile"] {
            symlink(&target, context.join(name)).unwrap();
            let said = said_of_recipe(&trap).unwrap_err();
            assert!(said.contains(name) && !said.contains(SECRET), "{said}");
            fs::remove_file(context.join(name)).unwrap();
        }
        for name in [".containerignore", ".dockerignore", "Containerfile.dockerignore"] {
            trap.home.file("Containerfile", "FROM scratch\nCOPY . /\n");
            symlink(&target, context.join(name)).unwrap();
            let said = said_of_recipe(&trap).unwrap_err();
            assert!(said.contains(name) && !said.contains(SECRET), "{said}");
            fs::remove_file(context.join(name)).unwrap();
        }
        fs::remove_file(context.join("Containerfile")).unwrap();
    }
    // Whoever opens a pipe for reading waits for who writes.
    trap.home.file("Dockerfile", "FROM scratch\nCOPY . /\n");
    run(&context, "mkfifo", &[".dockerignore"]);
    assert!(said_of_recipe(&trap).unwrap_err().contains("not a regular file"));
    fs::remove_file(context.join("Dockerfile")).unwrap();
    run(&context, "mkfifo", &["Dockerfile"]);
    assert!(said_of_recipe(&trap).unwrap_err().contains("not a regular file"));
    // What stays inside is followed.
    fs::remove_file(context.join(".dockerignore")).unwrap();
    fs::remove_file(context.join("Dockerfile")).unwrap();
    trap.home.file("sub/recipe", "FROM scratch\nCOPY f /\n");
    symlink("/sub/recipe", context.join("Dockerfile")).unwrap();
    said_of_recipe(&trap).unwrap();
    // So is one that was named, in a context from elsewhere.
    let named = |name: &str| Containerfile::find_in(&context, Path::new(name));
    assert!(named("Dockerfile").is_ok() && named("/sub/recipe").is_ok() && named("nothing").is_err());
    for name in ["absolute", "folder/secret", "../outside/secret", "far"] {
        assert!(named(name).is_err(), "{name}");
    }
}

/// What an address leads to.
fn fetched(trap: &Trap, address: &str) -> Option<FetchedContext> {
    GitContext::parse(address).and_then(|git| git.fetch(&trap.home.engine, false).ok())
}

/// Seen to run `touch`, or to fetch, with every text taken for an address and git's protocols all allowed; the options in
/// disguise without the `--` before them.
#[test]
fn an_address_of_a_repository_runs_nothing() {
    let trap = Trap::new();
    let repositories = trap.home.dir.path().join("repositories");
    let app = new_repository(repositories.join("app"));
    fs::write(app.join("f"), "f").unwrap();
    commit(&app);
    let server = GitServer::start(&repositories);
    let markers = trap.home.dir.path().join("markers");
    fs::create_dir(&markers).unwrap();
    let touch = |what: &str| format!("touch {}/{what}", markers.display());
    for address in [
        format!("ext::sh -c {}", touch("ext").replace(' ', "% ")),
        format!("--upload-pack={};", touch("address")),
        format!("{}/app#--upload-pack={};", server.address, touch("fragment")),
        format!("{}/app#--server-option=x", server.address),
        format!("{}/app?ref=--server-option=x", server.address),
        format!("ssh://-oProxyCommand={};/x.git", touch("ssh")),
        format!("file://{}", app.display()),
        app.display().to_string(),
    ] {
        assert!(fetched(&trap, &address).is_none(), "{address}");
        assert!(fs::read_dir(&markers).unwrap().next().is_none(), "{address}");
    }
    assert!(fetched(&trap, &format!("{}/app", server.address)).is_some());
}

/// Seen to succeed: the submodules with git's protocols all allowed, the folders without the look in `GitContext::beneath`,
/// the recipe with `File::open` in the place of `read_in`.
#[test]
fn a_repository_leads_to_nothing_of_the_host() {
    let trap = Trap::new();
    let outside = trap.outside.display();
    // Another repository of this machine, whose server knows nothing of it.
    let private = new_repository(trap.home.dir.path().join("private"));
    fs::write(private.join("secret"), SECRET).unwrap();
    commit(&private);
    let head = git_says(&private, &["rev-parse", "HEAD"]);
    let repositories = trap.home.dir.path().join("repositories");
    for (name, url) in [
        ("path", private.display().to_string()),
        ("file", format!("file://{}", private.display())),
        ("ext", format!("ext::sh -c touch% {outside}/made")),
    ] {
        let app = new_repository(repositories.join(name));
        fs::write(app.join(".gitmodules"), format!("[submodule \"sub\"]\n\tpath = sub\n\turl = {url}\n")).unwrap();
        git(&app, &["add", "."]);
        git(&app, &["update-index", "--add", "--cacheinfo", &format!("160000,{head},sub")]);
        git(&app, &["commit", "-q", "-m", "note"]);
    }
    let links = new_repository(repositories.join("links"));
    symlink(&trap.outside, links.join("out")).unwrap();
    symlink(format!("{}{outside}", "../".repeat(20)), links.join("up")).unwrap();
    symlink(trap.outside.join("secret"), links.join("Containerfile")).unwrap();
    commit(&links);
    let server = GitServer::start(&repositories);
    for what in ["path", "file", "ext", "links#:out", "links#:up", "links#:../../../../outside", "links"] {
        let address = format!("{}/{what}", server.address);
        trap.spring(&format!("FROM scratch\nADD {address} /src/\n"), |_| {});
        if let Some(context) = fetched(&trap, &address) {
            assert!(!holds_secret(context.folder()), "{what}");
            assert!(Containerfile::find(context.folder(), None).is_err(), "{what}");
        }
    }
}

/// Seen not to end with `File::open` in the place of `open_regular`.
#[test]
fn layouts_are_made_of_files() {
    let trap = Trap::new();
    trap.home
        .try_build("FROM scratch\nCOPY f /\n", |request| request.tags = vec!["made:1".parse().unwrap()])
        .unwrap_or_else(|error| panic!("{error}"));
    let layout = trap.home.dir.path().join("layout");
    fs::create_dir(&layout).unwrap();
    let archive = layout.join("archive");
    let mut out = fs::File::create(&archive).unwrap();
    trap.home.engine.store().save(&["made:1"], store::ArchiveFormat::Oci, &mut out).unwrap();
    run(&layout, "tar", &["-xf", "archive"]);
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> = blobs.chain([layout.join("index.json")]).collect();
    assert_eq!(files.len(), 4);
    let with = |edit: &dyn Fn(&mut BuildRequest)| trap.home.try_build("FROM base\n", edit);
    let context = NamedContext::Layout { folder: layout.clone(), reference: String::new() };
    let of_layout = |request: &mut BuildRequest| request.contexts = vec![("base".to_owned(), context.clone())];
    for file in &files {
        let kept = fs::read(file).unwrap();
        for make in ["mkfifo", "ln -s /dev/zero"] {
            fs::remove_file(file).unwrap();
            run(&layout, "sh", &["-c", &format!("{make} {}", file.display())]);
            assert!(with(&of_layout).is_err(), "{make} {}", file.display());
        }
        fs::remove_file(file).unwrap();
        fs::write(file, kept).unwrap();
    }
    assert!(with(&of_layout).is_ok());
    // A cache that cannot be read is one that is not there.
    fs::remove_file(layout.join("index.json")).unwrap();
    run(&layout, "mkfifo", &["index.json"]);
    let of_cache = |request: &mut BuildRequest| request.cache_from = vec![CacheOrigin::Local(layout.clone())];
    assert!(trap.home.try_build("FROM scratch\nCOPY <<f /\nnew\nf\n", of_cache).is_ok());
}

/// An archive of the caller's context may hold any device; opening some does things to the machine.
///
/// Seen to fail (the kernel knows no such device) with ADD opening what it is to look into.
#[test]
fn a_device_is_copied_and_never_opened() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root, to make devices");
        return;
    }
    let trap = Trap::new();
    let context = trap.home.dir.path().join("context");
    // Of the numbers that are for experiments.
    run(&context, "mknod", &["device", "c", "240", "7"]);
    run(&context, "mkfifo", &["pipe"]);
    symlink("device", context.join("to-device")).unwrap();
    for keyword in ["ADD", "COPY"] {
        for (source, name) in [("device", "device"), ("to-device", "to-device"), ("dev*", "device"), ("pipe", "pipe")] {
            let built = trap.spring(&format!("FROM scratch\n{keyword} {source} /x/\n"), |_| {});
            let top = trap.home.top(&built.unwrap_or_else(|| panic!("{keyword} {source}")));
            let kind = fs::symlink_metadata(top.join("x").join(name)).unwrap().file_type();
            assert!(if source == "pipe" { kind.is_fifo() } else { kind.is_char_device() }, "{keyword} {source}");
        }
    }
    for name in [".dockerignore", "Dockerfile"] {
        trap.home.file("Dockerfile", "FROM scratch\nCOPY f /\n");
        let _there = fs::remove_file(context.join(name));
        run(&context, "mknod", &[name, "c", "240", "7"]);
        assert!(said_of_recipe(&trap).unwrap_err().contains("not a regular file"), "{name}");
        fs::remove_file(context.join(name)).unwrap();
    }
}

/// Seen to fail without the limit of all texts, and without that of the config: an image was made that no command could read.
#[test]
fn a_recipe_costs_no_memory() {
    let trap = Trap::new();
    let doubled = "FROM scratch\nENV A=aaaaaaaaaaaaaaaa\n".to_owned() + &"ENV A=$A$A\n".repeat(15);
    let many = |line: &str| line.repeat(200);
    for (text, why) in [
        (many("ENV B=$A\n"), "all substituted texts"),
        (format!("ENV {}\n", many("B=$A ")), "all substituted texts"),
        (format!("ARG {}\n", many("B=$A ")), "all substituted texts"),
        (format!("COPY {} /x/\n", many("$A ")), "all substituted texts"),
        ("LABEL a=$A b=$A c=$A d=$A e=$A\n".to_owned(), "over 4194304 bytes"),
    ] {
        let error = trap.home.error(&format!("{doubled}{text}"));
        assert!(error.contains(why), "{error}");
    }
    let doubled = doubled.replace("ENV", "ARG").replace("FROM scratch\n", "");
    for text in [many("ARG B=$A\n"), format!("ARG {}\n", many("B=$A "))] {
        let error = trap.home.error(&format!("{doubled}{text}FROM scratch\n"));
        assert!(error.contains("all substituted texts"), "{error}");
    }
}
