//! Every project of Containerfile.examples/ is built, run and probed.

use std::path::PathBuf;
use std::time::Duration;
use test_support::{TestEnv, eventually, http_get, source_root};

/// Builds may fetch packages.
const BUILD_LIMIT: Duration = Duration::from_secs(600);

fn example(name: &str) -> PathBuf {
    source_root().join("Containerfile.examples").join(name)
}

#[test]
fn web() {
    let env = TestEnv::new();
    let folder = example("web");
    env.ctr(["build", "-t", "web", folder.to_str().unwrap()]).ok();
    let settings = folder.join("settings.env");
    env.ctr(["run", "-d", "--name", "web", "-p", "127.0.0.1::8080", "--env-file", settings.to_str().unwrap(), "web"])
        .ok();
    let address = env.published("web", "8080");
    assert!(http_get(&address, "/").contains("It works"));
    assert!(http_get(&address, "/cgi-bin/hello").contains("Good day from an env file"));
    env.ctr("exec web id -un").ok().prints("www-data");
    env.ctr("exec web ls /www").ok().prints("index.html");
    env.ctr("stop -t 20 web").ok();
    assert_eq!(env.inspect("web", "/State/ExitCode"), 0, "a clean stop, not a kill");
    env.ctr("logs web").ok().prints("serve: listening on port 8080").prints("serve: stopped");
    // The defaults hold without the file.
    env.ctr("run -d --name plain -p 127.0.0.1::8080 web").ok();
    assert!(http_get(&env.published("plain", "8080"), "/cgi-bin/hello").contains("Hello"));
}

#[test]
fn worker() {
    let env = TestEnv::new();
    env.ctr(["build", "-t", "worker", example("worker").to_str().unwrap()]).ok();
    env.ctr("run -d --name worker worker").ok();
    let mut log = env.spawn("logs -f worker");
    log.line_with("piece 1 done");
    log.line_with("piece 2 done");
    env.ctr("stop worker").ok();
    log.line_with("worker: stopped after");
    log.wait().ok();
    assert_eq!(env.inspect("worker", "/State/ExitCode"), 0);
}

#[test]
fn static_binary() {
    let env = TestEnv::with_debian();
    let folder = example("static-binary");
    env.invoke(["build", "-t", "static", folder.to_str().unwrap()]).limit(BUILD_LIMIT).run().ok();
    env.ctr("run -d --name static -p 127.0.0.1::8081 static").ok();
    let answer = http_get(&env.published("static", "8081"), "/");
    assert_eq!(answer, "static binary, pid 1, uid 10001\n");
    env.ctr("exec static sh").fails(127);
    let size = env.ctr("image inspect -f '{{.Size}}' static").ok().text().parse::<u64>().unwrap();
    assert!(size < 2_000_000, "{size}");
    env.ctr("stop -t 20 static").ok();
    env.ctr("logs static").ok().prints("server: answered").prints("server: stopping");
    assert_eq!(env.inspect("static", "/State/ExitCode"), 0);
}

#[test]
fn django() {
    let env = TestEnv::with_debian();
    let folder = example("django");
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    let secret = format!("id=ca,src={bundle}");
    let mut build = vec!["build", "-t", "guestbook"];
    if std::path::Path::new(bundle).exists() {
        build.extend(["--secret", &secret]);
    }
    build.push(folder.to_str().unwrap());
    env.invoke(build.clone()).limit(BUILD_LIMIT).run().ok();
    // Again, nothing is installed twice.
    let again = env.invoke(build).run().ok();
    assert!(again.stderr().contains("CACHED"), "{again}");

    let settings = folder.join("settings.env");
    let run = ["run", "-d", "--name", "app", "-p", "127.0.0.1::8000", "-v", "book:/data", "--env-file"];
    let run = |name: &'static str| {
        let mut words: Vec<&str> = run.iter().map(|word| if *word == "app" { name } else { word }).collect();
        words.extend([settings.to_str().unwrap(), "guestbook"]);
        env.ctr(words).ok();
    };
    run("app");
    let address = env.published("app", "8000");
    assert!(http_get(&address, "/").contains("Our guest book"), "the title of the env file");
    let write = "from guestbook.models import Entry; Entry.objects.create(name='Ada', text='hello')";
    env.ctr(["exec", "app", "python", "manage.py", "shell", "-c", write]).ok();
    assert!(http_get(&address, "/").contains("Ada"));
    env.ctr("exec app id -un").ok().prints("guestbook");
    env.ctr("stop -t 20 app").ok();
    assert_eq!(env.inspect("app", "/State/ExitCode"), 0, "a clean stop, not a kill");

    // The data is the volume's, not the container's.
    env.ctr("rm app").ok();
    run("next");
    assert_eq!(http_get(&env.published("next", "8000"), "/health"), "ok, 1 entries\n");
    // The certificates were lent, not given.
    env.ctr("exec next test ! -e /run/ca.crt").ok();
    let history = env.ctr("image inspect guestbook").ok().stdout();
    assert!(!history.contains("BEGIN CERTIFICATE"));
    eventually("the log says who asked", || env.ctr("logs next").stderr().contains("GET /health").then_some(()));
}
