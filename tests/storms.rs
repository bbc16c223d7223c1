//! kill -9 at random moments, a disk that is full at every write, many at once: whatever a command that changes the store was doing,
//! what was whole before still runs, the next sweep leaves no orphan, and `ctr system check --repair` leaves nothing to repair.
//! `CTR_STORM_ROUNDS=500` makes the storm longer.
#![allow(clippy::unwrap_used)]

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use test_support::{Registry, RegistryKind, TestEnv, eventually, wait_for_exit};

/// The image that comes and goes. Its layers are large enough that a pull has a middle.
const FILE: &str =
    "FROM busybox\nCOPY big /big\nCOPY tree /tree\nRUN rm /tree/1; ln /big /hard; echo made > /made\nCMD cat /made\n";

/// A small generator, so that a failure can be repeated: CTR_STORM_SEED is printed at the start.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Bytes that do not compress, the same every time.
fn noise(bytes: usize) -> Vec<u8> {
    let mut dice = Dice(7);
    (0..bytes.div_ceil(4))
        .flat_map(|_| u32::try_from(dice.roll(1 << 31)).unwrap_or(0).to_le_bytes())
        .take(bytes)
        .collect()
}

fn write_context(env: &TestEnv) {
    env.write("ctx/big", noise(3 << 20));
    for n in 0..150 {
        env.write(&format!("ctx/tree/{n}"), format!("file {n}\n").repeat(n));
    }
    env.write("ctx/Containerfile", FILE);
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    entries.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Whatever is in the folder, as if it were of two hours ago: what could be just being made has an age until it counts as left.
fn age(path: &Path) {
    for name in names(path) {
        let Ok(file) = fs::File::open(path.join(name)) else { continue };
        let _ = file.set_modified(SystemTime::now() - Duration::from_secs(7200));
    }
}

/// What no command is at work on and no command may leave: after a command that sweeps, only downloads to be resumed are there.
#[track_caller]
fn is_swept(env: &TestEnv) {
    eventually("unfinished work is swept", || {
        age(&env.root().join("ingest"));
        env.ctr("run --rm busybox true").ok();
        let left: Vec<String> =
            names(&env.root().join("ingest")).into_iter().filter(|name| !name.ends_with(".partial")).collect();
        (left.is_empty() && names(&env.root().join("trash")).is_empty()).then_some(())
    });
}

/// Nothing is there that no image, container or cache entry uses, and nothing is wrong.
#[track_caller]
fn is_sound(env: &TestEnv) {
    is_swept(env);
    env.ctr("system check --repair").ok();
    env.ctr("system check").ok().prints("Nothing is wrong.");
    is_swept(env);
}

/// One command that changes the store. It may fail – what it wants may be away – but only in a plain way.
struct Step {
    words: Vec<String>,
    /// How long it takes undisturbed.
    takes: Duration,
}

fn steps(remote: &str) -> Vec<Step> {
    let lines = [
        format!("pull -q {remote}"),
        "build -q --no-cache -t built ctx".to_owned(),
        "load -q -i app.tar".to_owned(),
        format!("rmi -f {remote}"),
        "rmi -f app built".to_owned(),
        "image prune -af".to_owned(),
        format!("run --rm {remote}"),
        "save -o saved.tar kept".to_owned(),
        "builder prune -af".to_owned(),
    ];
    let words = |line: String| line.split(' ').map(str::to_owned).collect();
    lines.into_iter().map(|line| Step { words: words(line), takes: Duration::ZERO }).collect()
}

/// An engine with an image that comes and goes – at a registry, in an archive – and a container of another that stays.
fn scene(registry: &Registry) -> (TestEnv, String) {
    let env = TestEnv::new();
    let remote = format!("{}/app:1", registry.address());
    write_context(&env);
    env.ctr(["build", "-q", "-t", "app", "-t", &remote, "ctx"]).ok();
    env.ctr(["push", "-q", &remote]).ok();
    env.ctr("save -o app.tar app").ok();
    env.build("kept", "kept", "FROM busybox\nRUN echo whole > /whole && mkdir /d && echo more > /d/more\n").ok();
    env.ctr("create --name kept kept cat /whole /d/more").ok();
    env.ctr("create --name base busybox true").ok();
    (env, remote)
}

#[test]
fn of_kills_at_random_moments() {
    let registry = Registry::start(RegistryKind::Plain);
    let (env, remote) = scene(&registry);
    let seed = number("CTR_STORM_SEED", u64::from(std::process::id()));
    eprintln!("CTR_STORM_SEED={seed}");
    let mut dice = Dice(seed);
    let mut steps = steps(&remote);
    for step in &mut steps {
        let begin = Instant::now();
        env.ctr(step.words.as_slice()).either(&[0, 1]);
        step.takes = begin.elapsed();
    }
    let mut killed = 0;
    for round in 0..number("CTR_STORM_ROUNDS", 40) {
        let step = &steps[usize::try_from(dice.roll(steps.len() as u64)).unwrap()];
        let running = env.invoke(step.words.as_slice()).spawn();
        let moment = Duration::from_micros(dice.roll(u64::try_from(step.takes.as_micros()).unwrap() * 11 / 10 + 1));
        if !wait_for_exit(running.pid(), moment) {
            killed += 1;
        }
        running.kill();
        env.ctr("start -a kept").ok().prints("whole\nmore\n");
        if round % 10 == 9 {
            is_sound(&env);
        }
    }
    eprintln!("{killed} were killed before their end");
    is_sound(&env);
    // Everything works as ever.
    for step in &steps {
        env.ctr(step.words.as_slice()).either(&[0, 1]);
    }
    env.ctr(["run", "--rm", &remote]).ok().prints("made\n");
    env.ctr("start -a kept").ok().prints("whole\nmore\n");
    env.ctr("rm kept base").ok();
    env.ctr("system prune -af").ok();
    assert_eq!(names(&env.root().join("layers")), [""; 0]);
    assert_eq!(names(&env.root().join("blobs/sha256")), [""; 0]);
}

#[test]
fn of_eight_that_pull_and_remove_one_image() {
    let registry = Registry::start(RegistryKind::Plain);
    let (env, remote) = scene(&registry);
    env.ctr("rmi -f app").ok();
    env.ctr(["rmi", "-f", &remote]).ok();
    env.ctr("builder prune -af").ok();
    let script = format!(
        "for i in 1 2 3 4 5 6; do \"$1\" pull -q {remote} >/dev/null || exit 1; \"$1\" run --rm {remote} >/dev/null || true; \
         \"$1\" rmi -f {remote} >/dev/null 2>&1 || true; done"
    );
    let binary = test_support::ctr_binary();
    let loops: Vec<_> =
        (0..8).map(|_| env.program("/bin/sh", ["-c", &script, "sh", binary.to_str().unwrap()]).spawn()).collect();
    for one in loops {
        one.wait_within(Duration::from_secs(240)).ok();
    }
    env.ctr("start -a kept").ok().prints("whole\nmore\n");
    env.ctr("system check").either(&[0, 1]);
    is_sound(&env);
    env.ctr(["run", "--rm", &remote]).ok().prints("made\n");
}

/// Grows the disk under the engine's root.
fn grow(env: &TestEnv, kib: u64) {
    let size = format!("-oremount,size={kib}k");
    assert!(Command::new("mount").arg(&size).arg(env.root()).status().unwrap().success());
}

fn used_kib(env: &TestEnv) -> u64 {
    let stat = rustix::fs::statvfs(env.root()).unwrap();
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize / 1024
}

/// Does `words` again and again on a disk that is a little larger each time, until there is room for it.
#[track_caller]
fn squeeze(env: &TestEnv, words: &[&str], step_kib: u64) {
    let begin = used_kib(env);
    let mut room = 4;
    loop {
        grow(env, begin + room);
        let out = env.ctr(words).either(&[0, 1, 125]);
        let text = out.stderr();
        let done = out.code() == 0;
        if !done {
            assert!(
                text.contains("No space left on device") || text.contains("disk is full"),
                "{words:?} with {room} KiB: {text}"
            );
            assert!(text.contains("free some space"), "{words:?} with {room} KiB: {text}");
        }
        if done {
            break;
        }
        assert!(room < 64 << 10, "{words:?} never had enough");
        room += step_kib;
    }
    // With room again, everything is as if it had never been tight.
    grow(env, begin + room + (16 << 10));
    is_sound(env);
}

#[test]
fn of_full_disks_at_every_write() {
    let registry = Registry::start(RegistryKind::Plain);
    let (there, remote) = scene(&registry);
    let env = TestEnv::on_a_small_disk(64 << 10);
    write_context(&env);
    fs::copy(there.path("app.tar"), env.path("app.tar")).unwrap();
    env.build("kept", "kept", "FROM busybox\nRUN echo whole > /whole\n").ok();
    env.ctr("create --name kept kept cat /whole").ok();
    let works = |words: &[&str], step: u64| {
        squeeze(&env, words, step);
        env.ctr("start -a kept").ok().prints("whole\n");
        env.ctr("rmi -f app built").either(&[0, 1]);
        env.ctr(["rmi", "-f", &remote]).either(&[0, 1]);
        env.ctr("builder prune -af").ok();
    };
    works(&["pull", "-q", &remote], 97);
    works(&["load", "-q", "-i", "app.tar"], 151);
    works(&["build", "-q", "-t", "built", "ctx"], 151);
}

/// A way to the registry that notes what is asked for, and cuts each answer that brings blobs off after so many bytes, while it shall.
struct Toll {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
    cut_after: Arc<AtomicU64>,
}

impl Toll {
    fn start(registry: &Registry) -> Toll {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let toll = Toll {
            address: listener.local_addr().unwrap().to_string(),
            asked: Arc::default(),
            cut_after: Arc::new(AtomicU64::new(u64::MAX)),
        };
        let (upstream, asked, cut_after) = (registry.address(), toll.asked.clone(), toll.cut_after.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(&upstream).unwrap();
                let (requests, mut forward) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (asked, cut_after) = (asked.clone(), cut_after.clone());
                std::thread::spawn(move || {
                    let mut request = String::new();
                    for line in BufReader::new(requests).split(b'\n').map_while(Result::ok) {
                        let text = String::from_utf8_lossy(&line).trim().to_owned();
                        if text.starts_with("GET ") {
                            request = text;
                            asked.lock().unwrap().push(request.clone());
                        } else if text.to_ascii_lowercase().starts_with("range:") {
                            asked.lock().unwrap().push(format!("{request} {text}"));
                        }
                        if forward.write_all(&[line, b"\n".to_vec()].concat()).is_err() {
                            return;
                        }
                    }
                    let _ = forward.shutdown(Shutdown::Write);
                });
                std::thread::spawn(move || {
                    let (mut server, mut client, mut buffer, mut passed) = (server, client, [0; 16384], 0);
                    while let Ok(count @ 1..) = server.read(&mut buffer) {
                        passed += count as u64;
                        if passed > cut_after.load(SeqCst) || client.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        toll
    }

    /// What was asked for since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

#[test]
fn of_cuts_after_which_no_byte_is_fetched_twice() {
    let registry = Registry::start(RegistryKind::Plain);
    let (_there, remote) = scene(&registry);
    let toll = Toll::start(&registry);
    let env = TestEnv::empty();
    let name = remote.replace(&registry.address(), &toll.address);
    toll.cut_after.store(700_000, SeqCst);
    // Each connection ends after 700 kB: within the patience of one pull, or of a few.
    let mut tries = 0;
    while env.ctr(["pull", "-q", &name]).either(&[0, 1]).code() != 0 {
        tries += 1;
        assert!(tries < 20, "it comes no further");
        let partial: u64 = names(&env.root().join("ingest"))
            .iter()
            .filter(|name| name.ends_with(".partial"))
            .map(|name| fs::metadata(env.root().join("ingest").join(name)).unwrap().len())
            .sum();
        assert!(partial > 0, "what came is kept");
    }
    // Of each blob, a request begins where the one before it ended, give or take what was on its way.
    let mut starts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in toll.asked() {
        if let Some((request, range)) = line.split_once("bytes=") {
            let blob = request.split(' ').nth(1).unwrap().to_owned();
            starts.entry(blob).or_default().push(range.trim_end_matches('-').parse().unwrap());
        }
    }
    assert!(starts.values().any(|starts| starts.len() >= 3), "{starts:?}");
    for starts in starts.values() {
        assert!(starts.windows(2).all(|pair| pair[1] > pair[0] + 400_000), "all that came was kept: {starts:?}");
    }
    env.ctr(["run", "--rm", "--network", "none", &name]).ok().prints("made\n");
}

#[test]
fn of_eight_pulls_of_which_one_fetches_each_layer() {
    let registry = Registry::start(RegistryKind::Plain);
    let (_there, remote) = scene(&registry);
    let toll = Toll::start(&registry);
    let env = TestEnv::empty();
    let name = remote.replace(&registry.address(), &toll.address);
    let pulls: Vec<_> = (0..8).map(|_| env.invoke(["pull", "-q", &name]).spawn()).collect();
    for pull in pulls {
        pull.wait().ok();
    }
    let words = ["inspect", "--raw", "--tls-verify=false", &format!("docker://{remote}")];
    let manifest = Command::new("skopeo").args(words).output().unwrap().stdout;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let asked = toll.asked();
    for layer in manifest["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap();
        let count = asked.iter().filter(|line| line.contains(digest) && !line.contains("bytes=")).count();
        assert_eq!(count, 1, "{digest}: {asked:#?}");
    }
}

#[test]
fn of_a_kill_between_a_pull_and_the_next() {
    // The lock of whoever dies is free at once: the next one goes on with what is there.
    let registry = Registry::start(RegistryKind::Plain);
    let (env, remote) = scene(&registry);
    env.ctr("rmi -f app").ok();
    env.ctr(["rmi", "-f", &remote]).ok();
    env.ctr("builder prune -af").ok();
    let pulls: Vec<_> = (0..4).map(|_| env.invoke(["pull", "-q", &remote]).spawn()).collect();
    for (n, pull) in pulls.into_iter().enumerate() {
        if n < 3 {
            wait_for_exit(pull.pid(), Duration::from_millis(4 * n as u64));
            let _ = kill_process(Pid::from_raw(pull.pid()).unwrap(), Signal::KILL);
            drop(pull);
        } else {
            pull.wait().ok();
        }
    }
    env.ctr(["run", "--rm", &remote]).ok().prints("made\n");
    is_sound(&env);
}
