//! Builds with RUN: real containers, on a busybox base. The engine starts itself anew for each step, so this binary
//! must be one it can start: it has a `main` of its own instead of the test harness'.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::exit)]

mod common;

use builder::{CacheOrigin, CacheTarget, Secret, SecretSource, export_cache};
use common::{BUSYBOX, Home, read};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The paths of all files and folders.
fn all_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let inner = names(folder).into_iter().map(|name| folder.join(name));
    inner
        .flat_map(|path| if path.is_dir() { [vec![path.clone()], all_below(&path)].concat() } else { vec![path] })
        .collect()
}

fn a_layer_is_what_the_process_wrote(home: &Home) {
    let outcome = home.build("FROM busybox\nRUN echo hello > /file && mkdir -p /d/e && rm /etc/passwd\n");
    let top = home.top(&outcome);
    assert_eq!(read(&top, "file"), "hello\n");
    assert_eq!(names(&top), ["d", "etc", "file"]);
    let again = home.build("FROM busybox\nRUN echo hello > /file && mkdir -p /d/e && rm /etc/passwd\n");
    assert!(again.steps.iter().all(|step| step.ends_with("CACHED")), "{:?}", again.steps);
    assert_eq!(again.built.image_id, outcome.built.image_id);
}

fn processes_see_environment_folder_and_user(home: &Home) {
    let text = "FROM busybox\nARG A=arg\nENV E=env A2=$A\nWORKDIR /app/x\nUSER app\nRUN echo $A $E $A2; pwd; id -u; echo $HOME\n";
    assert_eq!(home.output(text), "arg env arg\n/app/x\n1000\n/app\n");
    let outcome = home.build("FROM busybox\nUSER app\nWORKDIR /mine\nRUN touch /mine/f\n");
    assert_eq!(fs::metadata(home.top(&outcome).join("mine/f")).unwrap().uid(), 1000);
}

fn proxies_are_known_by_both_names(home: &Home) {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let outcome = home.try_build("FROM busybox\nRUN env | grep -i _proxy | sort\n", |request| {
        request.build_args = vec![pair("HTTP_PROXY", "given")];
        request.proxies = vec![pair("http_proxy", "caller"), pair("no_proxy", "x")];
    });
    assert_eq!(outcome.unwrap().output, "HTTP_PROXY=given\nNO_PROXY=x\nhttp_proxy=given\nno_proxy=x\n");
}

fn both_forms_and_heredocs_run(home: &Home) {
    assert_eq!(home.output("FROM busybox\nRUN [\"echo\", \"$HOME\"]\n"), "$HOME\n");
    assert_eq!(home.output("FROM busybox\nRUN <<EOF\necho one\necho two\nEOF\n"), "one\ntwo\n");
    assert_eq!(home.output("FROM busybox\nRUN cat <<A - <<'B'\na $((1+1))\nA\n$b\nB\n"), "$b\n");
    assert_eq!(
        home.output("FROM busybox\nRUN <<EOF\n#!/bin/busybox sh\necho script $0\nEOF\n"),
        "script /dev/pipes/EOF\n"
    );
    assert_eq!(home.output("FROM busybox\nSHELL [\"/bin/sh\", \"-exc\"]\nRUN echo x\n"), "+ echo x\nx\n");
    let through = "FROM busybox\nSHELL [\"/bin/sh\", \"-exc\"]\nRUN <<EOF\n#!/bin/busybox sh\necho script\nEOF\n";
    assert_eq!(home.output(through), "+ /dev/pipes/EOF\nscript\n");
    home.build("FROM busybox\nRUN\n");
}

fn a_failed_process_says_its_line_code_and_last_words(home: &Home) {
    let error = home.try_build("FROM busybox\nRUN echo a; echo b >&2; exit 3\n", |_| {}).err().unwrap();
    assert_eq!(
        error.to_string(),
        "Containerfile:2: process \"/bin/sh -c echo a; echo b >&2; exit 3\" did not complete successfully: exit code: 3"
    );
    // Two pipes have no order between them.
    let mut tail = error.output_tail().to_vec();
    tail.sort();
    assert_eq!(tail, ["a", "b"]);
    assert_eq!(error.source_line().unwrap().text, "RUN echo a; echo b >&2; exit 3");
    let error = home.try_build("FROM busybox\nRUN [\"/nope\"]\n", |_| {}).err().unwrap();
    assert!(error.to_string().contains("Containerfile:2"), "{error}");
    assert!(
        fs::read_dir(home.dir.path().join("root/ingest"))
            .unwrap()
            .all(|e| { !e.unwrap().file_name().to_string_lossy().ends_with(".work") })
    );
}

fn secrets_reach_the_process_and_nothing_else(home: &Home) {
    let path = home.dir.path().join("ca.pem");
    fs::write(&path, "top secret").unwrap();
    let text = "FROM busybox\nRUN --mount=type=secret,id=ca,target=/etc/ssl/ca.pem,required cat /etc/ssl/ca.pem; touch /done\nRUN --mount=type=secret,id=tok,env=TOKEN echo $TOKEN\n";
    let outcome = home
        .try_build(text, |request| {
            request.secrets = vec![
                Secret { id: "ca".into(), source: SecretSource::File(path.clone()) },
                Secret { id: "tok".into(), source: SecretSource::Value(b"value".to_vec()) },
            ];
        })
        .unwrap();
    assert_eq!(outcome.output, "top secretvalue\n");
    assert_eq!(names(&home.top(&outcome)), ["done"]);
    let config = home.engine.store().image(outcome.built.image_id.as_str()).unwrap().config;
    assert!(!serde_json::to_string(&config).unwrap().contains("secretvalue"));
    let error = home.try_build("FROM busybox\nRUN --mount=type=secret,id=x,required true\n", |_| {}).err().unwrap();
    assert!(error.to_string().contains("secret x: not found"), "{error}");
}

fn caches_live_on_and_binds_are_read(home: &Home) {
    let add = "RUN --mount=type=cache,target=/c echo x >> /c/f && cat /c/f";
    let here = "FROM busybox\nWORKDIR /w\nRUN --mount=type=tmpfs touch /w/t && ls\n";
    assert_eq!(home.output(here), "t\n", "without a target a mount is at the working directory");
    let error = home.try_build("FROM busybox\nRUN --mount=type=tmpfs true\n", |_| {}).err().unwrap();
    assert!(error.to_string().contains("invalid mount target \"/\""), "{error}");
    let shared = "FROM busybox\nARG U=7 M=750\nWORKDIR /v\nRUN --mount=type=cache,target=m,uid=$U,mode=0$M touch m/kept\n\
                  WORKDIR /w\nRUN --mount=type=cache,target=m/ ls m && stat -c '%a %u' m\n";
    assert_eq!(home.output(shared), "kept\n750 7\n", "a relative cache is one, wherever it is");
    assert_eq!(home.output(&format!("FROM busybox\n{add}\n")), "x\n");
    assert_eq!(home.output(&format!("FROM busybox\nENV changed=1\n{add}\n")), "x\nx\n");
    home.file("src/a", "A");
    let outcome = home.build("FROM busybox\nRUN --mount=type=bind,source=src,target=/src cat /src/a > /out\n");
    assert_eq!(names(&home.top(&outcome)), ["out"]);
    assert_eq!(read(&home.top(&outcome), "out"), "A");
    home.file("src/a", "B");
    let outcome = home.build("FROM busybox\nRUN --mount=type=bind,source=src,target=/src cat /src/a > /out\n");
    assert_eq!(read(&home.top(&outcome), "out"), "B");
    let text = "FROM busybox AS a\nRUN mkdir /d && echo s > /d/f\nFROM busybox\nRUN --mount=from=a,source=/d,target=/m,rw echo t >> /m/f && cat /m/f\n";
    assert_eq!(home.output(text), "s\nt\n");
    assert_eq!(home.output("FROM busybox\nRUN --mount=type=tmpfs,target=/t touch /t/x && ls /t\n"), "x\n");
}

fn stages_build_side_by_side(home: &Home) {
    let text = "FROM busybox AS a\nRUN echo a > /a\nFROM busybox AS b\nRUN echo b > /b\nFROM busybox AS never\nRUN exit 1\nFROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\nRUN cat /a /b\n";
    let outcome = home.build(text);
    assert_eq!(outcome.output, "a\nb\n");
    assert!(!outcome.steps.iter().any(|step| step.contains("never")));
}

fn a_failure_ends_the_processes_of_other_stages(home: &Home) {
    // Without that this build takes a day.
    let text = "FROM busybox AS slow\nRUN --mount=type=cache,target=/c touch /c/up && sleep 86400\n\
                FROM busybox AS failing\nRUN --mount=type=cache,target=/c until test -e /c/up; do usleep 1000; done; exit 4\n\
                FROM scratch\nCOPY --from=slow /etc /slow\nCOPY --from=failing /etc /failing\n";
    let error = home.try_build(text, |_| {}).err().unwrap();
    assert!(
        error.to_string().starts_with("Containerfile:4: ") && error.to_string().ends_with("exit code: 4"),
        "{error}"
    );
}

fn two_builds_at_once_do_not_break_each_other(home: &Home) {
    home.file("shared", "s");
    let text = "FROM busybox\nCOPY shared /s\nRUN echo at-once > /x\n";
    let ids: Vec<_> = std::thread::scope(|scope| {
        let builds: Vec<_> = (0..4).map(|_| scope.spawn(|| home.build(text).built.image_id)).collect();
        builds.into_iter().map(|build| build.join().unwrap()).collect()
    });
    for id in ids {
        assert!(home.engine.store().image(id.as_str()).is_ok());
    }
}

fn mounts_come_from_layers_and_caches_begin_with_them(home: &Home) {
    // Three layers join in one folder, one takes something away again.
    let stages = "FROM busybox AS a\nRUN mkdir -p /d/e && echo 1 > /d/one && echo x > /d/gone && ln -s /d /l\n\
                  RUN echo 2 > /d/two && rm /d/gone\nRUN echo 3 > /d/e/three\nFROM busybox\n";
    let text =
        format!("{stages}RUN --mount=from=a,source=/d,target=/m cd /m && find . -type f | sort && ! touch x 2>&-\n");
    assert_eq!(home.output(&text), "./e/three\n./one\n./two\n");
    let text = format!("{stages}RUN --mount=from=a,source=/l,target=/m,rw cd /m && touch new && rm one && ls\n");
    assert_eq!(home.output(&text), "e\nnew\ntwo\n");
    let text = format!("{stages}RUN --mount=from=a,source=/d/two,target=/f,rw echo more >> /f && cat /f\n");
    assert_eq!(home.output(&text), "2\nmore\n");
    let begun = "--mount=type=cache,id=begun,from=a,source=/d,target=/c";
    assert_eq!(home.output(&format!("{stages}RUN {begun} rm /c/one && ls /c\n")), "e\ntwo\n");
    assert_eq!(home.output(&format!("{stages}RUN {begun} echo again && ls /c\n")), "again\ne\ntwo\n");
    let twice = "FROM busybox AS one\nFROM busybox AS a\nCOPY --from=one / /\nFROM a\nWORKDIR /w\n\
                 RUN --mount=from=a,source=/bin,target=/m ls /m | grep -c '^busybox$'\n";
    assert_eq!(home.output(twice), "1\n", "the same layer twice");
    let small = "FROM busybox\nRUN --mount=type=tmpfs,target=/t,size=1m df -k /t | tail -1 | awk '{print $2}'\n";
    assert_eq!(home.output(small), "1024\n");
}

fn an_agent_is_within_reach_of_who_may_use_it(home: &Home) {
    use std::io::{Read, Write};
    let socket = home.dir.path().join("agent.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut word = [0; 5];
            let _gone = client.read_exact(&mut word).and_then(|()| client.write_all(b"answer"));
        }
    });
    home.file("talk.sh", "echo -n hello | nc local:$SSH_AUTH_SOCK\n");
    let ask = "ls -ln $SSH_AUTH_SOCK | awk '{print $1, $3, $4}'; id -u";
    let text = format!("FROM busybox\nUSER app\nRUN --mount=type=ssh,uid=1000,gid=5,mode=0640 {ask}\n");
    let with = |text: &str| {
        home.try_build(text, |request| {
            request.ssh = vec![builder::SshAgent { id: "default".into(), socket: socket.clone() }];
        })
    };
    assert_eq!(with(&text).unwrap_or_else(|e| panic!("{e} {:?}", e.output_tail())).output, "srw-r----- 1000 5\n1000\n");
    let without = home.output("FROM busybox\nRUN --mount=type=ssh echo ${SSH_AUTH_SOCK:-none}\n");
    assert_eq!(without, "none\n");
    let error = home.try_build("FROM busybox\nRUN --mount=type=ssh,required true\n", |_| {}).err().unwrap();
    assert!(error.to_string().contains("unset ssh forward key default"), "{error}");
}

fn limits_reach_the_process(home: &Home) {
    let text = "FROM busybox\nRUN ulimit -n; df -k /dev/shm | tail -1 | awk '{print $2}'\n";
    let built = home.try_build(text, |request| {
        request.shm_size_bytes = Some(2 << 20);
        request.ulimits = vec![engine::Ulimit { name: "nofile".into(), soft: 77, hard: 88 }];
    });
    assert_eq!(built.unwrap_or_else(|e| panic!("{e}")).output, "77\n2048\n");
}

/// A mount target that the step swaps for a link while the mount is on it: neither what tidies up after the step
/// (CVE-2024-23652), nor a later mount of the same cache (CVE-2024-23651) may follow it to the host.
///
/// Seen to succeed, each one, with an openat that follows links in the place of `linux::resolve`'s openat2; the first four
/// (the host's empty files and folders were removed) with `Stubs::remove` joining paths as strings as well.
fn swapped_mount_targets_lead_to_nothing_of_the_host(home: &Home) {
    let outside = home.dir.path().join("outside");
    for name in ["inner", "folder", "cache"] {
        fs::create_dir_all(outside.join(name)).unwrap();
    }
    for name in ["secret", "stub", "inner/stub"] {
        fs::write(outside.join(name), if name == "secret" { "of the host" } else { "" }).unwrap();
    }
    let before = || (all_below(&outside), read(&outside, "secret"));
    let kept = before();
    home.file("f", "f");
    let host = outside.display();
    for (n, text) in [
        // The folder with the target is another one when the stub is looked for.
        format!("RUN --mount=type=bind,source=f,target=/d/stub mv /d /e && ln -s {host} /d"),
        format!("RUN --mount=type=tmpfs,target=/d/inner/stub mv /d /e && ln -s {host} /d"),
        format!("RUN --mount=type=cache,target=/d/cache mv /d /e && ln -s {host} /d"),
        format!("RUN --mount=type=bind,target=/d/folder mv /d /e && ln -s {host} /d"),
        // What a target is to be made in is a link already: in the image, or in a cache that is mounted first.
        format!("RUN ln -s {host} /l\nRUN --mount=type=bind,source=f,target=/l/made cat /l/made"),
        format!("RUN ln -s {host} /l\nRUN --mount=type=cache,target=/l/made/deep touch /l/made/deep/x"),
        format!("RUN --mount=type=cache,id=swap,target=/c ln -sfn {host} /c/l\nRUN --mount=type=cache,id=swap,target=/c --mount=type=bind,source=f,target=/c/l/made true"),
        format!("RUN --mount=type=cache,id=swap,target=/c ln -sfn {host} /c/l\nRUN --mount=type=cache,id=swap,target=/c --mount=type=tmpfs,target=/c/l/made touch /c/l/made/x"),
        // WORKDIR is made before the program runs.
        format!("RUN ln -s {host} /l\nWORKDIR /l/workdir\nRUN pwd"),
    ]
    .into_iter()
    .enumerate()
    {
        // Refused or harmless: both will do.
        let _either = home.try_build(&format!("FROM busybox\nENV N={n}\n{text}\n"), |_| {});
        assert_eq!(before(), kept, "{text}");
    }
}

/// Sources that lead out: of a cache (CVE-2024-9675), of a stage or image by a link to its root (CVE-2024-1753). Neither
/// is the host read, nor written to by a mount that may be written to.
///
/// Seen to succeed (the host's secret was printed) with both protections out: openat2 in `linux::resolve`, and the
/// resolving in `paths::resolve`. Either alone holds.
fn mount_sources_lead_to_nothing_of_the_host(home: &Home) {
    let outside = home.dir.path().join("outside-too");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "of the host").unwrap();
    home.file("dir/f", "f");
    let host = outside.display();
    let context = home.dir.path().join("context");
    let up = format!("{}{host}", "../".repeat(20));
    std::os::unix::fs::symlink(&outside, context.join("out")).unwrap();
    let stage =
        format!("FROM busybox AS links\nRUN ln -s / /root-link && ln -s {host} /link && ln -s ../../../../../.. /up\n");
    let try_all = "find /m -name secret | xargs cat; cat /m; touch /m/written /m/dir/written; echo x > /m/secret; true";
    for (n, mount) in [
        "type=bind,from=links,source=/root-link,target=/m,rw".to_owned(),
        "type=bind,from=links,source=/link,target=/m,rw".to_owned(),
        "type=bind,from=links,source=/link/secret,target=/m,rw".to_owned(),
        format!("type=bind,from=links,source=/up{host},target=/m,rw"),
        format!("type=bind,from=links,source={up},target=/m,rw"),
        "type=bind,source=out,target=/m,rw".to_owned(),
        "type=bind,source=out/secret,target=/m,rw".to_owned(),
        format!("type=bind,source={up},target=/m,rw"),
        "type=bind,target=/m,rw".to_owned(),
        "type=bind,from=busybox,source=/,target=/m,rw".to_owned(),
        "type=cache,from=links,source=/link,target=/m".to_owned(),
        "type=cache,from=links,source=/root-link,target=/m".to_owned(),
        format!("type=cache,source={up},target=/m"),
        format!("type=cache,id={up},target=/m"),
        format!("type=cache,source=/up{host},target=/m"),
    ]
    .into_iter()
    .enumerate()
    {
        let text = format!("{stage}FROM busybox\nENV N={n}\nRUN --mount={mount} {try_all}\n");
        let told = match home.try_build(&text, |_| {}) {
            Ok(outcome) => outcome.output,
            Err(error) => format!("{error} {:?}", error.output_tail()),
        };
        assert!(!told.contains("of the host"), "{mount}: {told}");
        assert_eq!(
            (names(&outside), read(&outside, "secret").as_str()),
            (vec!["secret".to_owned()], "of the host"),
            "{mount}"
        );
        assert_eq!(
            (names(&context.join("dir")), context.join("written").exists()),
            (vec!["f".to_owned()], false),
            "{mount}"
        );
    }
    fs::remove_file(context.join("out")).unwrap();
}

/// A recipe alone never gets a privileged step (CVE-2024-23653).
///
/// Seen to succeed without the question in `run_instruction`.
fn a_recipe_gets_no_privileges_by_itself(home: &Home) {
    for line in ["RUN --security=insecure grep CapEff /proc/self/status", "ONBUILD RUN --security=insecure true"] {
        let tag = |request: &mut builder::BuildRequest| request.tags = vec!["onbuild".parse().unwrap()];
        let error = match home.try_build(&format!("FROM busybox\n{line}\n"), tag) {
            Ok(_) => home.error("FROM onbuild\n"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains("security.insecure is not allowed"), "{error}");
    }
}

fn one_job_at_a_time_is_enough(home: &Home) {
    let text = "FROM busybox AS a\nRUN echo ja > /a\nFROM busybox AS b\nRUN echo jb > /b\nFROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\nRUN cat /a /b\n";
    assert_eq!(home.try_build(text, |request| request.jobs = 1).unwrap_or_else(|e| panic!("{e}")).output, "ja\njb\n");
}

fn named_stages_are_built_anew(home: &Home) {
    let text = "FROM busybox AS a\nRUN echo filter > /a\nFROM busybox\nRUN echo other\nCOPY --from=a /a /\n";
    home.build(text);
    let again =
        home.try_build(text, |request| request.no_cache_filter = vec!["A".into()]).unwrap_or_else(|e| panic!("{e}"));
    let cached = |word: &str| again.steps.iter().any(|step| step.contains(word) && step.ends_with("CACHED"));
    assert!(cached("echo other") && !cached("echo filter"), "{:?}", again.steps);
}

/// A test's name and what it does.
type Case = (&'static str, fn(&Home));

/// Seen to fail with another cache's result fetched in the place of the one that the steps after it were found by.
fn two_caches_that_differ_are_not_mixed(home: &Home) {
    home.file("h", "h");
    fs::copy(BUSYBOX, home.dir.path().join("context/busybox")).unwrap();
    let text = "FROM scratch AS a\nCOPY --chmod=755 busybox /bin/busybox\n\
                RUN [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox cat /proc/sys/kernel/random/uuid > /stamp\"]\n\
                COPY h /h\nFROM scratch\nCOPY --from=a /stamp /h /\n";
    let origins = [false, true].map(|all| {
        let built = home.try_build(text, |request| request.no_cache = true).unwrap_or_else(|e| panic!("{e}")).built;
        let folder = home.dir.path().join(format!("cache-{all}"));
        export_cache(&home.engine, &built, &CacheTarget::Local { folder: folder.clone(), all }).unwrap();
        CacheOrigin::Local(folder)
    });
    // The same context on a machine that has nothing yet.
    let there = Home::new();
    for name in ["busybox", "h"] {
        fs::rename(home.dir.path().join("context").join(name), there.dir.path().join("context").join(name)).unwrap();
    }
    there.file("h", "new");
    let outcome = there.try_build(text, |request| request.cache_from = origins.to_vec());
    let top = there.top(&outcome.unwrap_or_else(|error| panic!("{error}")));
    assert_eq!((read(&top, "h").as_str(), read(&top, "stamp").len()), ("new", 37));
}

fn main() {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if let Some(code) = engine::hidden_mode(&arguments) {
        std::process::exit(code);
    }
    let tests: [Case; 19] = [
        ("two_caches_that_differ_are_not_mixed", two_caches_that_differ_are_not_mixed),
        ("swapped_mount_targets_lead_to_nothing_of_the_host", swapped_mount_targets_lead_to_nothing_of_the_host),
        ("mount_sources_lead_to_nothing_of_the_host", mount_sources_lead_to_nothing_of_the_host),
        ("a_recipe_gets_no_privileges_by_itself", a_recipe_gets_no_privileges_by_itself),
        ("a_layer_is_what_the_process_wrote", a_layer_is_what_the_process_wrote),
        ("processes_see_environment_folder_and_user", processes_see_environment_folder_and_user),
        ("proxies_are_known_by_both_names", proxies_are_known_by_both_names),
        ("both_forms_and_heredocs_run", both_forms_and_heredocs_run),
        ("a_failed_process_says_its_line_code_and_last_words", a_failed_process_says_its_line_code_and_last_words),
        ("secrets_reach_the_process_and_nothing_else", secrets_reach_the_process_and_nothing_else),
        ("caches_live_on_and_binds_are_read", caches_live_on_and_binds_are_read),
        ("stages_build_side_by_side", stages_build_side_by_side),
        ("a_failure_ends_the_processes_of_other_stages", a_failure_ends_the_processes_of_other_stages),
        ("two_builds_at_once_do_not_break_each_other", two_builds_at_once_do_not_break_each_other),
        ("mounts_come_from_layers_and_caches_begin_with_them", mounts_come_from_layers_and_caches_begin_with_them),
        ("an_agent_is_within_reach_of_who_may_use_it", an_agent_is_within_reach_of_who_may_use_it),
        ("limits_reach_the_process", limits_reach_the_process),
        ("one_job_at_a_time_is_enough", one_job_at_a_time_is_enough),
        ("named_stages_are_built_anew", named_stages_are_built_anew),
    ];
    // What nextest asks of a harness: a list of the tests (none are ignored), then each by its exact name.
    let is_given = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if is_given("--list") {
        for (name, _) in tests.iter().filter(|_| !is_given("--ignored")) {
            println!("{name}: test");
        }
        return;
    }
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    if !rustix::process::geteuid().is_root() || !Path::new(BUSYBOX).exists() {
        println!("skipped: needs root and {BUSYBOX}");
        return;
    }
    let home = Home::with_busybox();
    let is_wanted = |name: &str| if is_given("--exact") { name == filter } else { name.contains(&filter) };
    for (name, test) in tests.iter().filter(|(name, _)| is_wanted(name)) {
        test(&home);
        println!("test {name} ... ok");
    }
}
