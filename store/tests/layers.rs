//! Layers: tars in, tars out.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod kit;

use kit::{Fixture, Tar, chain, from, gzip, ingest, is_whiteout, listing, open, xattr};
use oci::{Descriptor, Digest, MediaType};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use store::{Store, StoreError};

#[test]
fn a_layer_arrives_with_all_its_attributes() {
    let f = open();
    let source = f.path.join("source");
    std::fs::create_dir_all(source.join("dir/sub")).unwrap();
    let script = format!(
        "cd '{}' && echo hi > file && ln file dir/hard && ln -s /etc/passwd link && mkfifo fifo && mknod null c 1 3 \
         && cp /bin/true cap && setcap cap_net_raw+ep cap && chown 1000:70000 cap && chmod 4755 file && chown 5:6 dir \
         && touch -d @1234567890.5 dir/sub && truncate -s 5M sparse && echo end >> sparse && touch $'non-utf8-\\xff' \
         && mkdir -p {long} && echo deep > {long}/f ",
        source.display(),
        long = format!("{}/{}", "l".repeat(200), "m".repeat(200)),
    );
    assert!(Command::new("bash").args(["-c", &script]).status().unwrap().success());
    for format in ["pax", "gnu"] {
        let mut args = vec!["-c", "-S", "--format", format];
        if format == "pax" {
            args.extend(["--xattrs", "--xattrs-include=*"]);
        }
        let tar = Command::new("tar").args(args).args(["-C", source.to_str().unwrap(), "."]).output().unwrap().stdout;
        let layer = ingest(&f.store, &tar).unwrap();
        let (mut expected, got) = (listing(&source), listing(&layer));
        if format == "gnu" {
            // GNU's format has no attributes.
            for line in expected.values_mut() {
                *line = line.split(" Some(").next().unwrap().trim_end_matches(" None").to_owned();
            }
        }
        assert_eq!(expected.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
        for (path, line) in &expected {
            assert!(got[path].starts_with(line), "{path:?}\n{line}\n{}", got[path]);
        }
        assert!(std::fs::metadata(layer.join("sparse")).unwrap().blocks() < 1000);
    }
}

#[test]
fn whiteouts_become_overlays_marks() {
    let f = open();
    let tar = Tar::default()
        .dir("etc/")
        .file("etc/.wh.gone", "")
        .file("etc/.wh.also", "")
        .dir("var/")
        .file("var/.wh..wh..opq", "")
        .file("var/new", "x")
        .file("etc/.wh..wh.plnk", "")
        .end();
    let layer = ingest(&f.store, &tar).unwrap();
    assert!(is_whiteout(&layer.join("etc/gone")) && is_whiteout(&layer.join("etc/also")));
    assert_eq!(std::fs::symlink_metadata(layer.join("etc/gone")).unwrap().nlink(), 2);
    assert_eq!(xattr(&layer.join("var"), "trusted.overlay.opaque").unwrap(), b"y");
    assert!(layer.join("var/new").exists());
    assert_eq!(std::fs::read_dir(layer.join("etc")).unwrap().count(), 2);
    let mut out = Vec::new();
    f.store.layer_tar(&Digest::sha256(&tar), &mut out).unwrap();
    let names: Vec<String> = tar::Archive::new(&out[..])
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["etc/", "etc/.wh.also", "etc/.wh.gone", "var/", "var/.wh..wh..opq", "var/new"]);
}

#[test]
fn a_folder_in_the_place_of_a_whiteout_hides_what_is_below() {
    let f = open();
    let tar = Tar::default().file(".wh.d", "").dir("d/").file("d/x", "").dir("e/").file(".wh.e", "").end();
    let layer = ingest(&f.store, &tar).unwrap();
    for name in ["d", "e"] {
        assert_eq!(xattr(&layer.join(name), "trusted.overlay.opaque").unwrap(), b"y");
    }
}

#[test]
fn wrong_digests_are_never_visible() {
    let f = open();
    let tar = Tar::default().file("f", "x").end();
    let blob = gzip(&tar);
    let good = Descriptor::of(MediaType::OCI_LAYER_GZIP, &blob);
    let other = Digest::sha256(b"other");
    let error = f.store.ingest_layer(&good, &other, &mut |at| from(&blob, at), &|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::DigestMismatch { .. }), "{error}");
    // A large one, too, whose gzip is cut short in the middle and filled up with other bytes.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    let noise: Vec<u8> = std::iter::repeat_with(&mut next).take(2_500_000).collect();
    let large = Tar::default().entry(tar::EntryType::Regular, "f", "", &noise).end();
    let mut broken = gzip(&large);
    let half = broken.len() / 2;
    assert!(half > 1 << 20);
    broken[half..].fill(0xaa);
    let descriptor = Descriptor::of(MediaType::OCI_LAYER_GZIP, &broken);
    let error = f.store.ingest_layer(&descriptor, &Digest::sha256(&large), &mut |at| from(&broken, at), &|_| ());
    assert!(matches!(error, Err(StoreError::BadLayer { .. } | StoreError::BadArchive(_))), "{error:?}");
    let wrong = Descriptor { digest: other.clone(), ..good.clone() };
    let error = f.store.ingest_layer(&wrong, &Digest::sha256(&tar), &mut |at| from(&blob, at), &|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::DigestMismatch { .. }), "{error}");
    assert!(!f.store.has_layer(&other) && !f.store.has_layer(&Digest::sha256(&tar)));
    assert!(!f.store.has_blob(&other));
    ingest(&f.store, &tar).unwrap();
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let f = open();
    // Large enough for two threads.
    let data: String = (0..900_000_u64).map(|i| format!("{} ", i * i % 1_000_003)).collect();
    let tar = Tar::default().file("f", &data).end();
    let blob = gzip(&tar);
    let descriptor = Descriptor::of(MediaType::OCI_LAYER_GZIP, &blob);
    let diff_id = Digest::sha256(&tar);
    // Within one call: the source breaks off again and again.
    let mut offsets = Vec::new();
    let mut pieces = |at: u64| -> std::io::Result<Box<dyn Read>> {
        offsets.push(at);
        Ok(Box::new(from(&blob, at)?.take(400_000)))
    };
    f.store.ingest_layer(&descriptor, &diff_id, &mut pieces, &|_| ()).unwrap();
    assert!(offsets.len() > 3 && offsets[0] == 0 && offsets[1] == 400_000, "{offsets:?}");
    // Over two processes' lives: the first fails for good, the partial file stays.
    let f = open();
    let mut once = true;
    let mut dies = |at: u64| -> std::io::Result<Box<dyn Read>> {
        if !std::mem::take(&mut once) {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        Ok(Box::new(from(&blob, at)?.take(950_000)))
    };
    let error = f.store.ingest_layer(&descriptor, &diff_id, &mut dies, &|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::LayerRead { .. }), "{error}");
    let mut first = None;
    let mut resumes = |at: u64| {
        first.get_or_insert(at);
        from(&blob, at)
    };
    let most = std::cell::Cell::new(0);
    f.store.ingest_layer(&descriptor, &diff_id, &mut resumes, &|n| most.set(n)).unwrap();
    assert_eq!((first, most.get()), (Some(950_000), descriptor.size));
    // A partial file that is damaged costs a fresh download, no more.
    let f = open();
    let partial = f.store.root().join("ingest").join(format!("sha256-{}.partial", descriptor.digest.hex()));
    std::fs::write(partial, vec![7_u8; 5000]).unwrap();
    f.store.ingest_layer(&descriptor, &diff_id, &mut |at| from(&blob, at), &|_| ()).unwrap();
    assert_eq!(std::fs::read_to_string(f.store.layer_dir(&diff_id).join("f")).unwrap(), data);
}

#[test]
fn gzip_members_zstd_and_plain_tars_are_recognised() {
    let f = open();
    for (i, pack) in [
        (|t: &[u8]| [gzip(&t[..600]), gzip(&t[600..])].concat()) as fn(&[u8]) -> Vec<u8>,
        |t| zstd::encode_all(t, 3).unwrap(),
        |t| t.to_vec(),
    ]
    .into_iter()
    .enumerate()
    {
        let tar = Tar::default().file(&format!("f{i}"), "content").end();
        let blob = pack(&tar);
        let diff_id = Digest::sha256(&tar);
        let descriptor = Descriptor::of("whatever", &blob);
        f.store.ingest_layer(&descriptor, &diff_id, &mut |at| from(&blob, at), &|_| ()).unwrap();
        assert!(f.store.layer_dir(&diff_id).join(format!("f{i}")).exists());
    }
}

#[test]
fn one_layer_wanted_by_many_is_fetched_once() {
    let f = open();
    let tar = Tar::default().file("f", &"x".repeat(100_000)).end();
    let blob = gzip(&tar);
    let (descriptor, diff_id) = (Descriptor::of("x", &blob), Digest::sha256(&tar));
    let opened = std::sync::atomic::AtomicU32::new(0);
    let root = f.store.root().to_owned();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let store = Store::open(&root).unwrap();
                let mut open = |at| {
                    opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    from(&blob, at)
                };
                store.ingest_layer(&descriptor, &diff_id, &mut open, &|_| ()).unwrap();
                assert!(store.has_layer(&diff_id));
            });
        }
    });
    assert_eq!(opened.into_inner(), 1);
}

fn make_upper(f: &Fixture, script: &str) -> (store::Scratch, PathBuf) {
    let scratch = f.store.new_scratch().unwrap();
    let upper = scratch.path().join("upper");
    std::fs::create_dir(&upper).unwrap();
    std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let status = Command::new("bash").args(["-ec", script]).current_dir(&upper).status().unwrap();
    assert!(status.success());
    (scratch, upper)
}

const UPPER: &str = "mkdir -p a/b; echo hi > a/f; ln a/f a/g; ln -s f a/l; mknod gone c 0 0; cp /bin/true cap; setcap cap_net_raw+ep cap; \
    touch -d @1600000000.123456789 a/f; chown 1000:100000000 cap; mkdir sock; mkfifo fifo; mknod dev b 7 300; \
    mkdir -p $(printf 'n%.0s' {1..150})/$(printf 'm%.0s' {1..150}); touch \"$(printf 'ü%.0s' {1..80})\"";

#[test]
fn an_upperdir_becomes_a_layer_equal_to_its_tar() {
    let f = open();
    let (_scratch, upper) = make_upper(&f, UPPER);
    for (path, key) in [("a/b", "opaque"), ("a/f", "origin"), ("a", "impure")] {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(upper.join(path), format!("trusted.overlay.{key}"), b"y", flags).unwrap();
    }
    drop(std::os::unix::net::UnixListener::bind(upper.join("sock/s")).unwrap());
    let layer = f.store.commit_upper(&upper).unwrap();
    assert!(!layer.empty && !upper.exists() && f.store.has_layer(&layer.diff_id));
    let fs = f.store.layer_dir(&layer.diff_id);
    assert!(!fs.join("sock/s").exists());
    assert_eq!(xattr(&fs.join("a/f"), "trusted.overlay.origin"), None);
    assert_eq!(xattr(&fs.join("a/b"), "trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(std::fs::metadata(fs.join("a/f")).unwrap().mtime_nsec(), 0);
    let mut tar = Vec::new();
    f.store.layer_tar(&layer.diff_id, &mut tar).unwrap();
    assert_eq!(Digest::sha256(&tar), layer.diff_id);
    // Another store unpacks it to the same folder.
    let other = open();
    let unpacked = ingest(&other.store, &tar).unwrap();
    assert_eq!(listing(&fs), listing(&unpacked));
    let mut again = Vec::new();
    other.store.layer_tar(&layer.diff_id, &mut again).unwrap();
    assert!(again == tar);
    // So does GNU tar, without a complaint.
    let target = f.path.join("gnu");
    std::fs::create_dir(&target).unwrap();
    std::fs::write(f.path.join("l.tar"), &tar).unwrap();
    let output = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(f.path.join("l.tar"))
        .arg("-C")
        .arg(&target)
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(target.join(".wh.gone").exists() && target.join("a/b/.wh..wh..opq").exists());
    for name in [".wh.gone", "a/b/.wh..wh..opq"] {
        std::fs::remove_file(target.join(name)).unwrap();
    }
    let mut expected = listing(&fs);
    expected.remove(Path::new("gone"));
    let got = listing(&target);
    for (path, line) in &expected {
        if path != Path::new("a/b") {
            assert_eq!(line, &got[path], "{path:?}");
        }
    }
}

#[test]
fn equal_uppers_are_one_layer_and_empty_ones_none() {
    let f = open();
    let (_a, first) = make_upper(&f, "echo x > f; touch -d @1 f");
    let (_b, second) = make_upper(&f, "echo x > f; touch -d @1.5 f");
    let (_c, empty) = make_upper(&f, "true");
    let one = f.store.commit_upper(&first).unwrap();
    assert_eq!(one, f.store.commit_upper(&second).unwrap());
    assert!(f.store.commit_upper(&empty).unwrap().empty);
    assert_eq!(std::fs::read_dir(f.store.root().join("layers")).unwrap().count(), 1);
}

#[test]
fn a_built_layers_blob_is_the_same_every_time() {
    let script = "head -c 5000000 /dev/zero | tr '\\0' 'x' > big; seq 1 400000 > numbers; touch -d @1 big numbers";
    let mut digests = Vec::new();
    for _ in 0..2 {
        let f = open();
        let (_scratch, upper) = make_upper(&f, script);
        let layer = f.store.commit_upper(&upper).unwrap();
        let blob = f.store.layer_blob(&layer.diff_id).unwrap();
        assert_eq!(blob, f.store.layer_blob(&layer.diff_id).unwrap());
        let mut bytes = Vec::new();
        f.store.blob(&blob.digest).unwrap().read_to_end(&mut bytes).unwrap();
        assert!(blob.digest.matches(&bytes) && blob.size == bytes.len() as u64);
        let mut tar = Vec::new();
        flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut tar).unwrap();
        assert!(layer.diff_id.matches(&tar));
        digests.push(blob.digest);
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn sweeping_takes_what_is_dead_and_leaves_what_lives() {
    let f = open();
    let scratch = f.store.new_scratch().unwrap();
    let dead = f.store.root().join("ingest/0123.work");
    std::fs::create_dir(&dead).unwrap();
    std::fs::write(f.store.root().join("trash/x"), "").unwrap();
    let other = Store::open(f.store.root()).unwrap();
    other.sweep().unwrap();
    assert!(scratch.path().exists() && !dead.exists());
    assert_eq!(std::fs::read_dir(f.store.root().join("trash")).unwrap().count(), 0);
    let path = scratch.path().to_owned();
    drop(scratch);
    assert!(!path.exists());
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_folder_without_a_header_is_as_the_layers_below_have_it() {
    let f = open();
    let base = Tar::default().dir("usr/").dir("usr/lib/").symlink("lib", "usr/lib").dir("plain/").end();
    let secret = Tar::default().pax(&[("uid", "7")]).dir("secret/").file("secret/a", "a").end();
    let upper =
        Tar::default().file("lib/x/new", "n").file("secret/b", "b").file("plain/c", "c").link("hard", "secret/a").end();
    let alone = Tar::default().file("plain/d", "d").end();
    let layers = chain(&f, &[base.clone(), secret.clone(), upper.clone(), alone]).unwrap();
    // The link below is followed, not masked.
    assert!(!layers[2].join("lib").exists() && layers[2].join("usr/lib/x/new").exists());
    assert_eq!(std::fs::metadata(layers[2].join("secret")).unwrap().uid(), 7);
    assert_eq!(std::fs::read(layers[2].join("hard")).unwrap(), b"a");
    assert_eq!(std::fs::metadata(layers[2].join("hard")).unwrap().nlink(), 2);
    // Where the folder below is an ordinary one, the layer is used as it is.
    assert_eq!(layers[3].parent().unwrap().file_name().unwrap().len(), 64);
    assert_eq!(mode(&layers[3].join("plain")), 0o755);
    // In another chain the same layer is another.
    let other = chain(&f, &[Tar::default().file("secret/a", "else").dir("lib/").end(), upper.clone()]).unwrap();
    assert!(other[1].join("lib/x/new").exists());
    assert_eq!(std::fs::read(other[1].join("hard")).unwrap(), b"else");
    // And the tar of the layer is what came.
    let error = chain(&f, &[upper]).map(|layers| layers[0].join("hard").exists());
    assert!(!error.unwrap());
}

#[test]
fn a_whiteout_or_an_opaque_folder_below_ends_the_search() {
    let f = open();
    let base = Tar::default()
        .pax(&[("uid", "7")])
        .dir("d/")
        .pax(&[("uid", "7")])
        .dir("e/")
        .pax(&[("uid", "7")])
        .dir("e/sub/")
        .end();
    let hides = Tar::default().file(".wh.d", "").dir("e/").file("e/.wh..wh..opq", "").end();
    let upper = Tar::default().file("d/x", "").file("e/sub/x", "").end();
    let layers = chain(&f, &[base, hides, upper]).unwrap();
    for folder in ["d", "e", "e/sub"] {
        assert_eq!(std::fs::metadata(layers[2].join(folder)).unwrap().uid(), 0, "{folder}");
    }
}
