//! What hostile contexts, stages and archives try: to make a build read or write the host's files.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use builder::{BuildRequest, NamedContext};
use common::{Home, Web};
use std::fs;
use std::os::unix::fs::symlink;
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
    fn spring(&self, text: &str, edit: impl Fn(&mut BuildRequest)) {
        let _refused = self.home.try_build(text, edit);
        let layers = self.home.dir.path().join("root/layers");
        let caches = self.home.dir.path().join("root/build-cache");
        for folder in [layers, caches] {
            assert!(!holds_secret(&folder), "{text}");
        }
        let kept: Vec<_> = fs::read_dir(&self.outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(kept, ["secret"], "{text}");
        assert_eq!(fs::read_to_string(self.outside.join("secret")).unwrap(), SECRET, "{text}");
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

#[test]
fn a_destination_cannot_leave_the_root() {
    let trap = Trap::new();
    let outside = trap.outside.display();
    // Links first, then something is written through them: it lands inside the image, or nowhere.
    for line in [
        "COPY f /l/folder/secret".to_owned(),
        "COPY f /l/absolute".to_owned(),
        "COPY f /l/up/up/up/up/x".to_owned(),
        "COPY f ../../../../../../x".to_owned(),
        "COPY f /l/proc/tmp/x".to_owned(),
        "WORKDIR /l/folder/made".to_owned(),
        "WORKDIR ../../../../made".to_owned(),
        format!("COPY <<EOF /l/folder/new\ntext\nEOF\nCOPY f {outside}/new2"),
        "COPY --link f /l/folder/linked".to_owned(),
    ] {
        trap.spring(&format!("FROM scratch\nCOPY . /l/\n{line}\n"), |_| {});
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
        if matches!(kind, tar::EntryType::Char | tar::EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        tar.append(&header, *data).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn archives_cannot_leave_the_root() {
    use tar::EntryType::{Block, Char, Directory, Link, Regular, Symlink};
    let trap = Trap::new();
    let outside = trap.outside.display().to_string();
    let secret = format!("{outside}/secret");
    let through = format!("l{secret}");
    for entries in [
        vec![Evil(Regular, "../../../../../../../../tmp/ctr-evil", "", b"x")],
        vec![Evil(Regular, &secret, "", b"x")],
        vec![Evil(Symlink, "l", &outside, b""), Evil(Regular, "l/secret", "", b"x"), Evil(Regular, "l/new", "", b"x")],
        vec![Evil(Symlink, "l", "/", b""), Evil(Regular, &through, "", b"x")],
        vec![Evil(Symlink, "l", "../../../../../../../..", b""), Evil(Regular, &through, "", b"x")],
        vec![Evil(Link, "l", &secret, b"")],
        vec![Evil(Symlink, "s", &secret, b""), Evil(Link, "l", "s", b""), Evil(Regular, "l", "", b"x")],
        vec![Evil(Symlink, "l", &outside, b""), Evil(Directory, "l", "", b""), Evil(Regular, "l/new", "", b"x")],
        vec![Evil(Symlink, "l", &outside, b""), Evil(Link, "l/new", "l/secret", b"")],
        vec![Evil(Symlink, "l", &secret, b""), Evil(Regular, "l", "", b"x")],
        vec![Evil(Char, "null", "", b""), Evil(Block, "disk", "", b"")],
    ] {
        fs::write(trap.home.dir.path().join("context/evil.tar"), tar_of(&entries)).unwrap();
        trap.spring("FROM scratch\nADD evil.tar /\n", |_| {});
        trap.spring("FROM scratch\nCOPY . /have/\nADD evil.tar /have/folder/\n", |_| {});
        let bytes = tar_of(&entries);
        if let Ok(context) = builder::fetch_stream(&trap.home.engine, "-", bytes.as_slice()) {
            assert!(!holds_secret(context.folder()));
        }
        trap.spring("FROM scratch\n", |_| {});
    }
    assert!(!Path::new("/tmp/ctr-evil").exists());
}

#[test]
fn what_an_archive_claims_costs_no_memory() {
    let trap = Trap::new();
    // A name of 4 GiB, a PAX header as long, a sparse file of an exabyte: each one an error, at once.
    let claim = |kind: tar::EntryType| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(4 << 30);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend([b'a'; 1024]);
        bytes
    };
    for kind in [tar::EntryType::GNULongName, tar::EntryType::XHeader, tar::EntryType::GNULongLink] {
        // Something small goes before it, so that it is taken for an archive.
        let mut bytes = tar_of(&[Evil(tar::EntryType::Regular, "first", "", b"x")]);
        bytes.truncate(1024);
        bytes.extend(claim(kind));
        fs::write(trap.home.dir.path().join("context/evil.tar"), bytes).unwrap();
        let error = trap.home.error("FROM scratch\nADD evil.tar /\n");
        assert!(error.contains("over the limit"), "{error}");
    }
}

#[test]
fn a_web_server_cannot_send_a_build_to_files() {
    let trap = Trap::new();
    let secret = trap.outside.join("secret").display().to_string();
    let web = Web::start(move |path, _| {
        let target = match path {
            "/absolute" => format!("file://{secret}"),
            "/host" => format!("file://localhost{secret}"),
            "/relative" => format!("file:{secret}"),
            "/upper" => format!("FILE://{secret}"),
            _ => return ("200 OK\r\nContent-Disposition: attachment; filename=\"../../evil\"".into(), b"x".to_vec()),
        };
        (format!("302 Found\r\nLocation: {target}"), Vec::new())
    });
    for path in ["absolute", "host", "relative", "upper", "name"] {
        trap.spring(&format!("FROM scratch\nADD {}/{path} /x/\n", web.address), |_| {});
    }
    for address in ["file:///etc/passwd", "FILE:///etc/passwd", "ftp://h/x"] {
        trap.spring(&format!("FROM scratch\nADD {address} /x/\n"), |_| {});
    }
    // Git neither: not by its own scheme, nor by a helper program, nor an option in disguise.
    for address in [
        "ext::sh -c touch% /tmp/ctr-evil",
        "--upload-pack=touch /tmp/ctr-evil",
        "file:///x.git",
        "git@-oProxyCommand=x:y",
    ] {
        assert!(
            builder::GitContext::parse(address).is_none_or(|git| git.fetch(&trap.home.engine, false).is_err()),
            "{address}"
        );
    }
    assert!(!Path::new("/tmp/ctr-evil").exists());
}
