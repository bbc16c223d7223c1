//! What a process finds itself to be, as JSON: run as a container's program by the tests, which compare it with the config.
//! Arguments are paths to report about. Static like everything here, so it runs in an empty root.
#![allow(clippy::print_stdout, missing_docs)] // Printing is what it is for.

use rustix::fs::{AtFlags, CWD, FileType};
use rustix::process::Resource;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

const LIMITS: &[(&str, Resource)] = &[
    ("AS", Resource::As),
    ("CORE", Resource::Core),
    ("CPU", Resource::Cpu),
    ("DATA", Resource::Data),
    ("FSIZE", Resource::Fsize),
    ("LOCKS", Resource::Locks),
    ("MEMLOCK", Resource::Memlock),
    ("MSGQUEUE", Resource::Msgqueue),
    ("NICE", Resource::Nice),
    ("NOFILE", Resource::Nofile),
    ("NPROC", Resource::Nproc),
    ("RSS", Resource::Rss),
    ("RTPRIO", Resource::Rtprio),
    ("RTTIME", Resource::Rttime),
    ("SIGPENDING", Resource::Sigpending),
    ("STACK", Resource::Stack),
];

fn main() {
    // Before anything else is opened.
    let fds = links("/proc/self/fd");
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    let uname = rustix::system::uname();
    let ids = |ids: (u32, u32, u32)| json!([ids.0, ids.1, ids.2]);
    let status = status();
    let found = json!({
        "args": std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "env": std::env::vars_os()
            .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
            .collect::<Vec<_>>(),
        "cwd": std::env::current_dir().unwrap_or_default(),
        "pid": rustix::process::getpid().as_raw_nonzero().get(),
        "session": rustix::process::getsid(None).map(|pid| pid.as_raw_nonzero().get()).unwrap_or(0),
        "uids": ids(numbers(&status, "Uid")),
        "gids": ids(numbers(&status, "Gid")),
        "umask": mask.bits(),
        "status": status,
        "namespaces": links("/proc/self/ns"),
        "fds": fds,
        "limits": LIMITS.iter().map(|(name, resource)| {
            let limit = rustix::process::getrlimit(*resource);
            ((*name).to_owned(), json!([limit.current, limit.maximum]))
        }).collect::<Map<_, _>>(),
        "mounts": mounts(),
        "devices": devices(),
        "label": read("/proc/self/attr/current"),
        "oom_score_adj": read("/proc/self/oom_score_adj"),
        "cgroup": read("/proc/self/cgroup"),
        "hostname": uname.nodename().to_string_lossy(),
        "domainname": uname.domainname().to_string_lossy(),
        "machine": uname.machine().to_string_lossy(),
        "keyring": linux::process::session_keyring().unwrap_or_else(|e| e.to_string()),
        "personality": linux::process::personality().unwrap_or(u32::MAX),
        "scheduling": scheduling(),
        "io_priority": linux::schedule::io_priority().map_or(Value::Null, |(class, level)| json!([class, level])),
        "memory_policy": linux::schedule::memory_policy().map_or_else(|e| json!(e.to_string()), |mode| json!(mode)),
        "clocks": {
            "monotonic": clock_gettime(ClockId::Monotonic).tv_sec,
            "boottime": clock_gettime(ClockId::Boottime).tv_sec,
        },
        "paths": std::env::args().skip(1).map(|path| { let about = about(&path); (path, about) }).collect::<Map<_, _>>(),
    });
    println!("{found}");
}

fn read(path: &str) -> String {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim_end().to_owned(),
        Err(error) => error.to_string(),
    }
}

fn links(folder: &str) -> Map<String, Value> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let link = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        // The listing's own descriptor is gone by the time it is looked at, or shows the folder.
        let target = target.to_string_lossy().into_owned();
        (!target.ends_with("/fd")).then(|| (entry.file_name().to_string_lossy().into_owned(), target.into()))
    };
    entries.filter_map(link).collect()
}

fn status() -> Map<String, Value> {
    let text = read("/proc/self/status");
    let line = |line: &str| line.split_once(':').map(|(key, value)| (key.to_owned(), value.trim().into()));
    text.lines().filter_map(line).collect()
}

/// Real, effective and saved.
fn numbers(status: &Map<String, Value>, key: &str) -> (u32, u32, u32) {
    let text = status.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut all = text.split_ascii_whitespace().map(|word| word.parse().unwrap_or(u32::MAX));
    let mut next = || all.next().unwrap_or(u32::MAX);
    (next(), next(), next())
}

fn mounts() -> Vec<Value> {
    let line = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        Some(json!({
            "target": left.get(4)?,
            "options": left.get(5)?.split(',').collect::<Vec<_>>(),
            "propagation": left.get(6..)?,
            "type": right.first()?,
            "source": right.get(1)?,
            "super": right.get(2)?.split(',').collect::<Vec<_>>(),
        }))
    };
    read("/proc/self/mountinfo").lines().filter_map(line).collect()
}

/// Kind, number and mode of what is in /dev.
fn devices() -> Map<String, Value> {
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), about_node(&entry.path()).into())).collect()
}

fn about_node(path: &Path) -> String {
    let Ok(stat) = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) else { return "gone".to_owned() };
    let number = || format!("{}:{}", rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => format!("-> {}", fs::read_link(path).unwrap_or_default().display()),
        FileType::CharacterDevice => format!("c {} {:o}", number(), stat.st_mode & 0o7777),
        FileType::BlockDevice => format!("b {} {:o}", number(), stat.st_mode & 0o7777),
        FileType::Fifo => format!("p {:o}", stat.st_mode & 0o7777),
        FileType::Directory => "directory".to_owned(),
        _ => "file".to_owned(),
    }
}

fn scheduling() -> Value {
    match linux::schedule::scheduling() {
        Ok(now) => json!({"policy": now.policy, "nice": now.nice, "priority": now.priority, "flags": now.flags}),
        Err(error) => error.to_string().into(),
    }
}

/// Owner, mode, content (of a small file) or names (of a folder), and whether it can be written.
fn about(path: &str) -> Value {
    let stat = match rustix::fs::statat(CWD, path, AtFlags::empty()) {
        Ok(stat) => stat,
        Err(errno) => return json!({"error": errno.to_string()}),
    };
    let content = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let mut names: Vec<String> = fs::read_dir(path)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names.into()
        }
        FileType::RegularFile => read(path).into(),
        _ => Value::Null,
    };
    let writable = rustix::fs::accessat(CWD, path, rustix::fs::Access::WRITE_OK, AtFlags::EACCESS);
    json!({
        "uid": stat.st_uid,
        "gid": stat.st_gid,
        "mode": stat.st_mode & 0o7777,
        "content": content,
        "writable": writable.is_ok(),
        "modified": stat.st_mtime,
    })
}
