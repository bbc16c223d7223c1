//! What the tests of real builds share: an engine and a context of one's own, and a server of files.
#![allow(dead_code, unreachable_pub)] // Each test file uses its own part of this.
#![allow(clippy::unwrap_used, clippy::panic)]

pub mod git;

use builder::{BuildError, BuildEvent, BuildNetwork, BuildRequest, Built, Containerfile, build};
use engine::{Engine, EngineConfig};
use oci::ImageConfig;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A data root and a context of one's own.
pub struct Home {
    pub dir: tempfile::TempDir,
    pub engine: Engine,
}

/// What a build did.
pub struct Outcome {
    pub built: Built,
    /// `name` or `name CACHED` of each step, in the order they ended.
    pub steps: Vec<String>,
    pub misses: Vec<String>,
    /// What its processes wrote.
    pub output: String,
}

/// Static, so that it runs without anything.
pub const BUSYBOX: &str = "/bin/busybox";
const BASE: &str = r#"FROM scratch
COPY --chmod=755 busybox /bin/
COPY <<passwd /etc/
root:x:0:0:root:/root:/bin/sh
app:x:1000:1000::/app:/bin/sh
passwd
RUN ["/bin/busybox", "--install", "-s", "/bin"]
"#;

impl Home {
    pub fn new() -> Home {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("context")).unwrap();
        let engine = Engine::open(EngineConfig::new(dir.path().join("root"), dir.path().join("state"))).unwrap();
        Home { dir, engine }
    }

    /// With the image `busybox`. The engine starts itself anew for each RUN, so the caller must be able to be started so.
    pub fn with_busybox() -> Home {
        let home = Home::new();
        let copied = home.dir.path().join("context/busybox");
        fs::copy(BUSYBOX, &copied).unwrap();
        home.try_build(BASE, |request| request.tags = vec!["busybox".parse().unwrap()])
            .unwrap_or_else(|error| panic!("the base: {error} {:?}", error.output_tail()));
        fs::remove_file(copied).unwrap();
        home
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join("context").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub fn try_build(&self, text: &str, edit: impl Fn(&mut BuildRequest)) -> Result<Outcome, BuildError> {
        let containerfile = Containerfile::from_text("Containerfile", text);
        let mut request = BuildRequest::new(self.dir.path().join("context"), containerfile);
        request.network = BuildNetwork::None;
        edit(&mut request);
        let names = Mutex::new(Vec::new());
        let steps = Mutex::new(Vec::new());
        let misses = Mutex::new(Vec::new());
        let output = Mutex::new(Vec::new());
        let built = build(&self.engine, &request, &|event| match event {
            BuildEvent::StepStarted { step, name } => names.lock().unwrap().push((step, name)),
            BuildEvent::StepDone { step, cached, .. } => {
                let names = names.lock().unwrap();
                let name = &names.iter().find(|(id, _)| *id == step).unwrap().1;
                steps.lock().unwrap().push(format!("{name}{}", if cached { " CACHED" } else { "" }));
            }
            BuildEvent::CacheMiss { why, .. } => misses.lock().unwrap().push(why),
            BuildEvent::Output { bytes, .. } => output.lock().unwrap().extend(bytes),
            _ => {}
        })?;
        let output = String::from_utf8(output.into_inner().unwrap()).unwrap();
        Ok(Outcome { built, steps: steps.into_inner().unwrap(), misses: misses.into_inner().unwrap(), output })
    }

    pub fn build(&self, text: &str) -> Outcome {
        self.try_build(text, |_| {}).unwrap_or_else(|error| panic!("{error} {:?}", error.output_tail()))
    }

    pub fn output(&self, text: &str) -> String {
        self.build(text).output
    }

    pub fn error(&self, text: &str) -> String {
        match self.try_build(text, |_| {}) {
            Ok(_) => panic!("it built"),
            Err(error) => format!("{error} | {}", error.hint().unwrap_or_default()),
        }
    }

    pub fn config(&self, outcome: &Outcome) -> ImageConfig {
        self.engine.store().image(outcome.built.image_id.as_str()).unwrap().config
    }

    /// The `fs` folders of the image's layers.
    pub fn layers(&self, outcome: &Outcome) -> Vec<PathBuf> {
        let image = self.engine.store().image(outcome.built.image_id.as_str()).unwrap();
        self.engine.store().image_layers(&image).unwrap()
    }

    /// That of the topmost.
    pub fn top(&self, outcome: &Outcome) -> PathBuf {
        self.layers(outcome).pop().unwrap()
    }
}

pub fn read(root: &Path, name: &str) -> String {
    fs::read_to_string(root.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

pub fn mode(root: &Path, name: &str) -> u32 {
    fs::symlink_metadata(root.join(name)).unwrap().mode() & 0o7777
}

/// A web server on a free loopback port.
pub struct Web {
    pub address: String,
    seen: Arc<Mutex<Vec<String>>>,
    sent: Arc<AtomicUsize>,
}

impl Web {
    /// `answer` gets a request's path and headers, and gives status line, headers and body.
    pub fn start(answer: impl Fn(&str, &str) -> (String, Vec<u8>) + Send + 'static) -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sent = Arc::new(AtomicUsize::new(0));
        let (log, count) = (Arc::clone(&seen), Arc::clone(&sent));
        // The thread sleeps in accept until the test process ends.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let Some(Ok(first)) = lines.next() else { continue };
                let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
                log.lock().unwrap().push(path.clone());
                let (head, body) = answer(&path, &headers.join("\n").to_lowercase());
                count.fetch_add(body.len(), Ordering::SeqCst);
                let head = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        Web { address, seen, sent }
    }

    /// The bytes of all files sent so far.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    /// The paths asked for so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// Runs a program in a folder.
pub fn run(folder: &Path, program: &str, arguments: &[&str]) {
    let output = std::process::Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
