//! What ARCHITECTURE.md promises of the tree, held by looking at it.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use test_support::{ctr_binary, source_root};

/// Who may depend on whom; a new arrow is the rarest of changes and starts here.
const ARROWS: &[(&str, &[&str])] = &[
    ("oci", &[]),
    ("linux", &[]),
    ("runtime", &["oci", "linux"]),
    ("network", &["oci", "linux"]),
    ("store", &["oci", "linux"]),
    ("registry-client", &["oci"]),
    ("engine", &["oci", "linux", "runtime", "network", "store", "registry-client"]),
    ("builder", &["oci", "linux", "engine", "store", "registry-client"]),
    ("ctr", &["oci", "linux", "runtime", "network", "store", "registry-client", "engine", "builder"]),
];
/// The crates whose code answers to others: they print nothing, exit nowhere, read no environment.
const LIBRARIES: &[&str] = &["oci", "linux", "runtime", "network", "store", "registry-client", "engine", "builder"];

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out =
        Command::new(cargo).args(["metadata", "--format-version=1", "--locked"]).current_dir(source_root()).output();
    let out = out.unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Workspace crate → its normal and build dependencies of the workspace.
fn arrows(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let members: BTreeSet<&str> =
        metadata["workspace_members"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: Vec<&Value> = packages.iter().filter(|p| members.contains(p["id"].as_str().unwrap())).collect();
    let names: BTreeSet<&str> = ours.iter().map(|p| p["name"].as_str().unwrap()).collect();
    let mut found = BTreeMap::new();
    for package in &ours {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let lasting = dependencies.filter(|dependency| dependency["kind"] != "dev");
        let inner = lasting.map(|dependency| dependency["name"].as_str().unwrap()).filter(|name| names.contains(name));
        found.insert(package["name"].as_str().unwrap().to_owned(), inner.map(str::to_owned).collect());
    }
    found
}

#[test]
fn no_crate_reaches_up() {
    let found = arrows(&metadata());
    for (name, allowed) in ARROWS {
        let reached = found.get(*name).unwrap_or_else(|| panic!("the crate {name} is gone: mend this table"));
        let beyond: Vec<_> = reached.iter().filter(|other| !allowed.contains(&other.as_str())).collect();
        assert!(beyond.is_empty(), "{name} depends on {beyond:?}; allowed are {allowed:?}");
    }
}

/// All crates that `package` is built with, by name.
fn tree_of(package: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut tree = Command::new(cargo);
    tree.args(["tree", "--locked", "--edges=normal", "--prefix=none", "--format={lib}", "--package", package]);
    let out = tree.current_dir(source_root()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn the_runtime_speaks_no_network_and_keeps_no_database() {
    let tree = tree_of("runtime");
    for banned in [
        "ureq",
        "rustls",
        "hyper",
        "reqwest",
        "http",
        "tokio",
        "async_std",
        "smol",
        "native_tls",
        "openssl",
        "rusqlite",
    ] {
        assert!(!tree.contains(banned), "ctr-runtime is built with {banned}");
    }
}

#[test]
fn no_asynchronous_runtime_anywhere() {
    let tree = tree_of("ctr");
    for banned in ["tokio", "async_std", "smol", "reqwest"] {
        assert!(!tree.contains(banned), "ctr is built with {banned}");
    }
}

/// Every Rust file of a crate's src folder.
fn sources(name: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let folder = if name == "ctr" { source_root().join("src") } else { source_root().join(name).join("src") };
    let mut paths = Vec::new();
    walk(&folder, &mut paths);
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The lines of code: no comments, and nothing from `#[cfg(test)]` on (tests stand last in a file).
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let test_module = |line: &&str| line.starts_with("#[cfg(test)]");
    let lines = text.lines().take_while(move |line| !test_module(line));
    lines.enumerate().map(|(at, line)| (at + 1, line.trim())).filter(|(_, line)| !line.starts_with("//"))
}

/// Lines of the given crates that hold one of `words`, as `path:line: text`; `spare` exempts files, as are those of tests alone.
fn lines_with(crates: &[&str], words: &[&str], spare: &[&str]) -> Vec<String> {
    let root = source_root();
    let mut found = Vec::new();
    for (path, text) in crates.iter().flat_map(|name| sources(name)) {
        let short = path.strip_prefix(&root).unwrap().display().to_string();
        if short.ends_with("tests.rs") || spare.iter().any(|spared| short.starts_with(spared)) {
            continue;
        }
        let hits = code_lines(&text).filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        found.extend(hits.map(|(at, line)| format!("{short}:{at}: {line}")));
    }
    found
}

#[test]
fn unsafe_stands_in_linux_alone() {
    let others: Vec<&str> = LIBRARIES.iter().copied().filter(|name| *name != "linux").chain(["ctr", "xtask"]).collect();
    let found = lines_with(&others, &["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"], &[]);
    assert!(found.is_empty(), "unsafe belongs into linux/:\n{}", found.join("\n"));
}

#[test]
fn libraries_do_not_print_exit_or_read_the_environment() {
    // The runtime's own command line, and the hidden modes of the engine, are programs within a library's folder.
    let programs = ["runtime/src/main.rs", "runtime/src/cli"];
    let words = [
        "println!",
        "print!(",
        "eprintln!",
        "eprint!(",
        "dbg!(",
        "process::exit(",
        "env::var",
        "env::vars",
        "env::args",
        "std::env::",
    ];
    let mut found = lines_with(LIBRARIES, &words, &programs);
    // What the program was compiled for is no environment.
    found.retain(|line| !line.contains("env::consts::"));
    assert!(found.is_empty(), "the caller's business:\n{}", found.join("\n"));
}

#[test]
fn libraries_do_not_panic_by_design() {
    let words = [".unwrap()", ".expect(\"", "panic!(", "todo!(", "unimplemented!("];
    let found = lines_with(LIBRARIES, &words, &[]);
    assert!(found.is_empty(), "errors are returned:\n{}", found.join("\n"));
}

#[test]
fn names_are_resolved_by_our_own_resolver() {
    // In the libraries: nothing that leads to getaddrinfo.
    let found = lines_with(
        LIBRARIES,
        &["to_socket_addrs", "lookup_host", "TcpStream::connect((\"", "getpwnam", "getaddrinfo"],
        &[],
    );
    assert!(found.is_empty(), "use network::dns and the files:\n{}", found.join("\n"));
}

#[test]
fn files_are_of_a_readable_length() {
    for (path, text) in LIBRARIES.iter().chain(&["ctr"]).flat_map(|name| sources(name)) {
        let lines = text.lines().count();
        assert!(lines <= 700, "{} has {lines} lines: it holds more than one subject", path.display());
    }
}

#[test]
fn the_binary_is_static_and_free_of_name_services() {
    let binary = ctr_binary();
    let file = Command::new("readelf").args(["-lW"]).arg(&binary).output().expect("readelf is of binutils");
    let headers = String::from_utf8_lossy(&file.stdout).into_owned();
    assert!(!headers.contains("INTERP"), "a static binary asks for no loader:\n{headers}");
    // glibc's name services load modules at run time, and with them a second libc. A stripped binary has no symbols to read:
    // then the file that getaddrinfo alone opens is looked for. (nsswitch.conf is in every static program that forks.)
    let bytes = std::fs::read(&binary).unwrap();
    let trace = "/etc/gai.conf";
    let there = bytes.windows(trace.len()).any(|window| window == trace.as_bytes());
    assert!(!there, "{trace:?} is in the binary: something calls getaddrinfo");
    let symbols = Command::new("nm").arg(&binary).output().expect("nm is of binutils");
    let symbols = String::from_utf8_lossy(&symbols.stdout).into_owned();
    for banned in ["getaddrinfo", "getpwnam_r", "getpwuid_r", "getgrnam_r", "gethostbyname", "iconv_open"] {
        assert!(!symbols.lines().any(|line| line.ends_with(&format!(" {banned}"))), "{banned} is linked");
    }
}
