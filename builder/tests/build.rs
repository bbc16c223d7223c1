//! Real builds against a real store, without RUN: what files and which config come out.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use builder::BuildRequest;
use common::{Home, mode, read};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

#[test]
fn an_image_from_nothing_has_its_files_and_config() {
    let home = Home::new();
    home.file("app/run.sh", "#!/bin/sh\n");
    let outcome = home.build(
        "FROM scratch\nARG V=1\nENV A=$V B=\"x y\"\nWORKDIR /srv\nCOPY app/ ./\nUSER 7:8\nEXPOSE 80 53/udp\nVOLUME /data\nLABEL k=$A\nSTOPSIGNAL SIGINT\nENTRYPOINT [\"/srv/run.sh\"]\nCMD [\"x\"]\nHEALTHCHECK --retries=2 CMD true\n",
    );
    let config = home.config(&outcome);
    let c = &config.config;
    assert_eq!(&c.env[1..], ["A=1", "B=x y"]);
    assert_eq!((c.working_dir.as_str(), c.user.as_str(), c.stop_signal.as_deref()), ("/srv", "7:8", Some("SIGINT")));
    assert_eq!(c.exposed_ports.keys().map(String::as_str).collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
    assert_eq!(c.labels["k"], "1");
    assert_eq!(c.cmd.as_deref(), Some(&["x".to_owned()][..]));
    assert_eq!(c.healthcheck.as_ref().unwrap().test, ["CMD-SHELL", "true"]);
    assert_eq!(config.rootfs.diff_ids.len(), 2);
    let layers = config.history.iter().filter(|entry| !entry.empty_layer).count();
    assert_eq!((config.history.len(), layers), (12, 2));
    assert!(config.history.iter().all(|entry| entry.created.is_some()));
    assert_eq!(read(&home.top(&outcome), "srv/run.sh"), "#!/bin/sh\n");
    assert_eq!(
        outcome.steps,
        ["[1/3] FROM scratch", "[2/3] WORKDIR /srv", "[3/3] COPY app/ ./"]
            .map(|s| { if s.contains("FROM") { format!("{s} CACHED") } else { s.to_owned() } })
    );
}

#[test]
fn what_has_not_changed_is_cached_and_a_miss_says_why() {
    let home = Home::new();
    home.file("a/one", "1");
    home.file("b", "2");
    let text = "FROM scratch\nCOPY a /a\nCOPY b /b\n";
    let first = home.build(text);
    let second = home.build(text);
    assert!(second.steps.iter().all(|step| step.ends_with("CACHED")), "{:?}", second.steps);
    assert_eq!(second.built.image_id, first.built.image_id);
    fs::File::open(home.file("b", "2")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(home.build(text).built.image_id, first.built.image_id);
    home.file("b", "changed");
    let third = home.build(text);
    assert!(third.steps[1].ends_with("CACHED") && !third.steps[2].ends_with("CACHED"), "{:?}", third.steps);
    assert_eq!(third.misses, ["b changed"]);
    let anew = home.try_build(text, |request| request.no_cache = true).unwrap();
    assert!(!anew.steps[1].ends_with("CACHED"));
    assert_eq!(home.config(&anew).rootfs, home.config(&third).rootfs);
}

#[test]
fn stages_copy_from_each_other_and_unneeded_ones_are_never_touched() {
    let home = Home::new();
    home.file("x", "hello");
    let text = "FROM nowhere.invalid/none AS unused\nFROM scratch AS one\nCOPY --chown=5:6 --chmod=640 x /d/x\nFROM scratch\nCOPY --from=one /d /e\nCOPY --from=1 /d/x /f/\n";
    let outcome = home.build(text);
    let image = home.engine.store().image(outcome.built.image_id.as_str()).unwrap();
    let layers = home.engine.store().image_layers(&image).unwrap();
    assert_eq!(read(&layers[0], "e/x"), "hello");
    let copied = fs::metadata(layers[1].join("f/x")).unwrap();
    assert_eq!((copied.uid(), copied.gid(), copied.mode() & 0o7777), (5, 6, 0o640));
    let again = home.build(text);
    assert!(again.steps.iter().all(|step| step.ends_with("CACHED")), "{:?}", again.steps);
}

#[test]
fn destinations_follow_dockers_rules() {
    let home = Home::new();
    home.file("f", "f");
    home.file("g", "g");
    home.file("d/in", "in");
    for (copy, expected) in [
        ("COPY f /x", "x"),
        ("COPY f /x/", "x/f"),
        ("COPY f .", "w/f"),
        ("COPY f ./", "w/f"),
        ("COPY f x", "w/x"),
        ("COPY f g /x/", "x/g"),
        ("COPY d /x", "x/in"),
        ("COPY d/ /x/", "x/in"),
        ("COPY d/* /x/", "x/in"),
        ("COPY [fg] /x/", "x/g"),
        ("COPY f /w", "w/f"),
        ("COPY --parents d/in /x/", "x/d/in"),
        ("COPY [\"f\", \"/y z\"]", "y z"),
        ("COPY <<EOF /x\nhello\nEOF", "x"),
    ] {
        let outcome = home.build(&format!("FROM scratch\nWORKDIR /w\n{copy}\n"));
        assert!(home.top(&outcome).join(expected).exists(), "{copy}");
    }
    let error = home.error("FROM scratch\nCOPY f g /x\n");
    assert!(error.contains("Containerfile:2: When using COPY with more than one source file"), "{error}");
    let error = home.error("FROM scratch\nCOPY [fg] /x\n");
    assert!(error.contains("more than one source file"), "{error}");
}

#[test]
fn heredocs_become_files_with_their_variables_expanded() {
    let home = Home::new();
    let outcome = home.build("FROM scratch\nENV V=1\nCOPY <<a <<'b' /\n$V \"q\"\na\n$V\nb\n");
    let top = home.top(&outcome);
    assert_eq!((read(&top, "a"), read(&top, "b")), ("1 \"q\"\n".to_owned(), "$V\n".to_owned()));
    assert_eq!(mode(&top, "a"), 0o644);
}

#[test]
fn ignored_files_are_missing_with_a_hint() {
    let home = Home::new();
    home.file(".dockerignore", "*.secret\n");
    home.file("a.secret", "");
    home.file("b.txt", "b");
    let error = home.error("FROM scratch\nCOPY a.secret /\n");
    assert_eq!(error, "Containerfile:2: \"/a.secret\": not found in the build context | the ignore file excludes it");
    let outcome = home.build("FROM scratch\nCOPY . /\n");
    assert!(!home.top(&outcome).join("a.secret").exists());
    assert_eq!(read(&home.top(&outcome), "b.txt"), "b");
}

#[test]
fn onbuild_triggers_run_in_the_child_and_are_gone_then() {
    let home = Home::new();
    home.file("f", "f");
    let name = "parent:1".parse::<oci::Reference>().unwrap();
    home.try_build("FROM scratch\nONBUILD COPY f /from-trigger\nONBUILD ENV X=1\n", |request| {
        request.tags = vec![name.clone()];
    })
    .unwrap();
    let outcome = home.build("FROM parent:1\n");
    assert_eq!(read(&home.top(&outcome), "from-trigger"), "f");
    let config = home.config(&outcome);
    assert!(config.config.on_build.is_empty() && config.config.env.contains(&"X=1".to_owned()));
}

#[test]
fn an_entrypoint_clears_an_inherited_cmd_but_not_ones_own() {
    let home = Home::new();
    let base = "FROM scratch AS base\nCMD [\"old\"]\n";
    let cmd = |rest: &str| home.config(&home.build(&format!("{base}FROM base\n{rest}"))).config.cmd;
    assert_eq!(cmd(""), Some(vec!["old".to_owned()]));
    assert_eq!(cmd("ENTRYPOINT [\"e\"]\n"), None);
    assert_eq!(cmd("CMD [\"new\"]\nENTRYPOINT [\"e\"]\n"), Some(vec!["new".to_owned()]));
}

#[test]
fn variables_have_dockers_scopes() {
    let home = Home::new();
    let env = |text: &str, edit: &dyn Fn(&mut BuildRequest)| {
        let outcome = home.try_build(text, edit).unwrap();
        home.config(&outcome).config.env[1..].join(" ")
    };
    let none = |_: &mut BuildRequest| {};
    assert_eq!(env("ARG G=g\nFROM scratch\nENV A=${G:-none}\n", &none), "A=none");
    assert_eq!(env("ARG G=g\nFROM scratch\nARG G\nENV A=$G\n", &none), "A=g");
    assert_eq!(env("FROM scratch\nARG V=1\nENV V=2\nENV A=$V\n", &none), "V=2 A=2");
    assert_eq!(env("FROM scratch\nENV a=1\nENV a=2 b=$a\n", &none), "a=2 b=1");
    assert_eq!(env("FROM scratch\nARG TARGETOS\nENV A=$TARGETOS\n", &none), "A=linux");
    let given = |request: &mut BuildRequest| request.build_args = vec![("V".to_owned(), "9".to_owned())];
    assert_eq!(env("FROM scratch\nARG V=1\nENV A=$V\n", &given), "A=9");
    assert_eq!(env("FROM scratch AS x\nENV A=1\nFROM x\nENV B=$A\n", &none), "A=1 B=1");
}

#[test]
fn nothing_leads_out_of_the_context_a_stage_or_the_root() {
    let home = Home::new();
    let host = home.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("secret"), "s").unwrap();
    let context = home.dir.path().join("context");
    home.file("f", "payload");
    symlink(host.join("secret"), context.join("leak")).unwrap();
    symlink("../host", context.join("up")).unwrap();
    symlink(&host, context.join("etc")).unwrap();
    for source in ["leak", "up/secret", "../host/secret", "etc/secret"] {
        let error = home.error(&format!("FROM scratch\nCOPY {source} /x\n"));
        assert!(error.contains("not found in the build context"), "{source}: {error}");
    }
    // Links inside a copied folder stay links; as a destination or a stage's source they are followed inside the root.
    let outcome = home.build("FROM scratch AS a\nCOPY . /all/\nFROM a\nCOPY f /all/etc/f\n");
    assert!(!host.join("f").exists());
    assert_eq!(read(&home.top(&outcome), host.join("f").strip_prefix("/").unwrap().to_str().unwrap()), "payload");
    let error = home.error("FROM scratch AS a\nCOPY . /all/\nFROM scratch\nCOPY --from=a /all/leak /x\n");
    assert!(error.contains("not found in the stage a"), "{error}");
}

#[test]
fn a_failed_build_leaves_no_scratch_behind() {
    let home = Home::new();
    home.file("f", "f");
    home.error("FROM scratch\nCOPY f /\nCOPY nothing /\n");
    let left = fs::read_dir(home.dir.path().join("root/ingest")).unwrap();
    let names: Vec<String> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| name.ends_with(".work")), "{names:?}");
    assert!(home.engine.store().images().unwrap().is_empty());
}

#[test]
fn source_date_epoch_makes_builds_equal() {
    let ids: Vec<_> = (0..2)
        .map(|_| {
            let home = Home::new();
            home.file("f", "f");
            let edit = |request: &mut BuildRequest| request.source_date_epoch = Some(1_000_000_000);
            let outcome = home.try_build("FROM scratch\nWORKDIR /w\nCOPY f .\nENV A=1\n", edit).unwrap();
            let config = home.config(&outcome);
            assert_eq!(config.created.as_deref(), Some("2001-09-09T01:46:40Z"));
            assert_eq!(fs::metadata(home.top(&outcome).join("w/f")).unwrap().mtime(), 1_000_000_000);
            outcome.built.image_id
        })
        .collect();
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn bad_recipes_name_their_line() {
    let home = Home::new();
    home.file("f", "");
    for (text, expected) in [
        ("FROM scratch\nCOPPY f /\n", "Containerfile:2: unknown instruction: COPPY | did you mean COPY?"),
        ("FROM scratch\nCOPY --chown=nobody f /\n", "unable to find user nobody"),
        ("FROM scratch\nCOPY --chmod=9 f /\n", "invalid chmod parameter"),
        ("FROM scratch\nEXPOSE x\n", "invalid containerPort: x"),
        ("FROM scratch\nENV A=\"${B:?must be set}\"\n", "Containerfile:2: B: must be set"),
        ("FROM scratch\nCOPY ff /\n", "it holds f"),
        ("FROM scratch\nSTOPSIGNAL 99\n", "invalid signal: 99"),
        ("FROM scratch\nSTOPSIGNAL SIGTREM\n", "invalid signal: SIGTREM"),
        ("FROM scratch\nCOPY f /f\nWORKDIR /f\n", "not a directory"),
        ("FROM scratch\nCOPY f /f\nCOPY f /f/x\n", "not a directory"),
    ] {
        let error = home.error(text);
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}

#[test]
fn archives_are_unpacked_beneath_the_root() {
    let home = Home::new();
    let context = home.dir.path().join("context");
    let host = home.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut add = |kind: tar::EntryType, name: &str, link: &Path, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o755);
        header.set_uid(3);
        header.set_gid(4);
        if !link.as_os_str().is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, data).unwrap();
    };
    add(tar::EntryType::Directory, "d", Path::new(""), b"");
    add(tar::EntryType::Regular, "d/f", Path::new(""), b"data");
    add(tar::EntryType::Link, "d/g", Path::new("d/f"), b"");
    add(tar::EntryType::Symlink, "out", &host, b"");
    add(tar::EntryType::Regular, "out/evil", Path::new(""), b"evil");
    add(tar::EntryType::Regular, "/abs", Path::new(""), b"abs");
    fs::write(context.join("a.tar.gz"), tar.into_inner().unwrap().finish().unwrap()).unwrap();
    let outcome = home.build("FROM scratch\nADD a.tar.gz /x/\n");
    let top = home.top(&outcome);
    assert_eq!((read(&top, "x/d/g"), read(&top, "x/abs")), ("data".to_owned(), "abs".to_owned()));
    assert_eq!(fs::metadata(top.join("x/d/f")).unwrap().uid(), 3);
    assert!(fs::read_dir(&host).unwrap().next().is_none());
    let kept = home.build("FROM scratch\nCOPY a.tar.gz /x/\n");
    assert!(home.top(&kept).join("x/a.tar.gz").exists());

    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.as_mut_bytes()[..8].copy_from_slice(b"../../up");
    header.set_cksum();
    tar.append(&header, &b""[..]).unwrap();
    fs::write(context.join("b.tar"), tar.into_inner().unwrap()).unwrap();
    assert!(home.error("FROM scratch\nADD b.tar /\n").contains("leads out of it"));
}

#[test]
fn modes_survive_and_special_bits_too() {
    let home = Home::new();
    let path = home.file("tool", "x");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    let outcome = home.build("FROM scratch\nCOPY tool /a\nCOPY --chmod=u-s,go-rx tool /b\n");
    let image = home.engine.store().image(outcome.built.image_id.as_str()).unwrap();
    let layers = home.engine.store().image_layers(&image).unwrap();
    assert_eq!((mode(&layers[0], "a"), mode(&layers[1], "b")), (0o4755, 0o700));
}

/// Seen to fail with names taken as text: both files became one.
#[test]
fn names_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let home = Home::new();
    let names = [b"\xfe", b"\xff"].map(|name| std::ffi::OsStr::from_bytes(name));
    for name in names {
        fs::write(home.dir.path().join("context").join(name), name.as_bytes()).unwrap();
    }
    let top = home.top(&home.build("FROM scratch\nCOPY * /d/\n"));
    for name in names {
        assert_eq!(fs::read(top.join("d").join(name)).unwrap(), name.as_bytes());
    }
}

/// Seen to fail with a file's digest and a link's target told by nothing but their texts.
#[test]
fn a_link_is_not_taken_for_the_file_it_names() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let home = Home::new();
    let file = home.file("d/x", "bytes");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o777)).unwrap();
    let top = |home: &Home| home.top(&home.build("FROM scratch\nCOPY d /d\n"));
    assert!(top(&home).join("d/x").is_file());
    fs::remove_file(&file).unwrap();
    symlink(oci::Digest::sha256("bytes").as_str(), &file).unwrap();
    assert!(top(&home).join("d/x").is_symlink());
    fs::remove_file(&file).unwrap();
    symlink("folder", &file).unwrap();
    assert!(top(&home).join("d/x").is_symlink());
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(top(&home).join("d/x").is_dir());
}
