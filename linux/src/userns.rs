//! User namespaces: the one this process is in, a new one, joining another's.
//!
//! An ordinary user is root in a user namespace of his own, over the ids that were given to him. What the kernel refuses
//! there all the same (devices, `trusted.*` attributes, other namespaces' networks) is asked for with [`is_initial`].

use crate::process::{self, Forked, Namespaces};
use crate::{CallError, procfs};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The link that every process of the first user namespace has; the number is fixed in the kernel (PROC_USER_INIT_INO).
const INITIAL: &str = "user:[4026531837]";
/// The longest message of a helper that is read, in bytes.
const MAX_MESSAGE_BYTES: u64 = 4096;

/// Whether this process is in the first user namespace, where root is root. To be asked after the process has moved for the
/// last time: the answer is kept.
pub fn is_initial() -> bool {
    static INITIAL_HERE: OnceLock<bool> = OnceLock::new();
    *INITIAL_HERE.get_or_init(is_initial_now)
}

/// As [`is_initial`], for a process that may still move.
pub fn is_initial_now() -> bool {
    match std::fs::read_link("/proc/self/ns/user") {
        Ok(link) => link.as_os_str() == INITIAL,
        // A kernel without user namespaces has but one.
        Err(_) => true,
    }
}

/// Whether this process is root of the machine, not an ordinary user or root of a namespace of his.
pub fn is_machines_root() -> bool {
    rustix::process::geteuid().is_root() && is_initial()
}

/// A range of ids of this namespace and where it lies outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first id in here.
    pub inside: u32,
    /// The first id in the namespace above.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Parses `uid_map` and `gid_map`.
pub fn parse_map(text: &str) -> Vec<IdRange> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|word| word.parse().ok());
        Some(IdRange { inside: numbers.next()??, outside: numbers.next()??, count: numbers.next()?? })
    };
    text.lines().filter_map(line).collect()
}

/// The ids of users that this process's namespace has.
pub fn user_map() -> Vec<IdRange> {
    parse_map(&std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default())
}

/// The ids of groups that this process's namespace has.
pub fn group_map() -> Vec<IdRange> {
    parse_map(&std::fs::read_to_string("/proc/self/gid_map").unwrap_or_default())
}

/// Whether this process's namespace has but one id: its user had no others to give. Kept, as [`is_initial`].
pub fn has_single_id() -> bool {
    static SINGLE: OnceLock<bool> = OnceLock::new();
    *SINGLE.get_or_init(|| !is_initial() && has_single_id_now())
}

/// As [`has_single_id`], for a process that may have moved since that was asked.
pub fn has_single_id_now() -> bool {
    matches!(user_map().as_slice(), [IdRange { count: 1, .. }])
}

/// The owner that a file of this user and group gets here: with a single id there is no other.
pub fn file_owner(uid: u32, gid: u32) -> (u32, u32) {
    if has_single_id() { (0, 0) } else { (uid, gid) }
}

/// Moves this process, which has one thread, into a new user namespace. `map` runs in a forked child that stays outside –
/// only from there can programs with privileges write the maps – and is given this process's pid. Its error comes
/// back as the second result: the namespace is there then, without maps ([`map_single`]).
pub fn enter_new(map: impl FnOnce(i32) -> Result<(), String>) -> Result<Result<(), String>, CallError> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| CallError::new("pipe2", "", e));
    let ((go, my_go), (answer, their_answer)) = (pipe()?, pipe()?);
    let pid = std::process::id().cast_signed();
    let child = match process::fork_into(Namespaces::none(), None)? {
        Forked::Parent { pidfd, .. } => pidfd,
        Forked::Child => {
            drop((my_go, answer));
            let mapped = wait_for(go).then(|| map(pid));
            if let Some(Err(message)) = &mapped {
                // Its reader may be gone; the exit code tells as well.
                let _told = File::from(their_answer).write_all(message.as_bytes());
            }
            process::exit_now(u8::from(!matches!(mapped, Some(Ok(())))));
        }
    };
    drop((go, their_answer));
    let moved = process::unshare(Namespaces::USER);
    let went = moved.is_ok().then(|| rustix::io::write(&my_go, b"1"));
    drop(my_go);
    let mut message = String::new();
    let _cut = File::from(answer).take(MAX_MESSAGE_BYTES).read_to_string(&mut message);
    let code = process::reap(child.as_fd())?;
    moved?;
    Ok(match (went, code) {
        (Some(Ok(_)), 0) => Ok(()),
        _ if message.is_empty() => Err("the process that writes the id maps died".to_owned()),
        _ => Err(message),
    })
}

fn wait_for(go: OwnedFd) -> bool {
    let mut byte = [0; 1];
    matches!(File::from(go).read(&mut byte), Ok(1))
}

/// Writes the maps of another process's new namespace: as root any, as an ordinary user his own ids, and with the help of
/// newuidmap and newgidmap those that are given to him.
pub fn write_maps(pid: i32, users: &[IdRange], groups: &[IdRange]) -> Result<(), CallError> {
    let proc = procfs::open()?;
    let write =
        |file: &str, text: &str| procfs::write(proc.as_fd(), Path::new(&format!("{pid}/{file}")), text.as_bytes());
    let maps = [("uid_map", users, "newuidmap"), ("gid_map", groups, "newgidmap")];
    for (file, ranges, program) in maps {
        let line = |range: &IdRange| format!("{} {} {}\n", range.inside, range.outside, range.count);
        let text: String = ranges.iter().map(line).collect();
        let failed = |why: &str, errno| CallError::new("write", format!("/proc/{pid}/{file}{why}"), errno);
        if !is_machines_root() && file == "gid_map" && matches!(ranges, [IdRange { count: 1, .. }]) {
            // The kernel's condition for a group without privileges; root of a namespace needs it not, and may fail.
            let _kept = write("setgroups", "deny");
        }
        match write(file, &text) {
            Err(Errno::PERM | Errno::ACCESS) => {
                let places = ["/usr/bin", "/bin", "/usr/local/bin"].map(|folder| Path::new(folder).join(program));
                let missing = || format!("{program} is not installed: Debian and Ubuntu have it in uidmap");
                let found = places.iter().find(|path| path.exists()).ok_or_else(missing);
                found
                    .and_then(|found| run_map_program(found, pid, ranges))
                    .map_err(|why| failed(&format!(" ({why})"), Errno::PERM))?;
            }
            written => written.map_err(|errno| failed("", errno))?,
        }
    }
    Ok(())
}

/// Runs newuidmap or newgidmap; its complaint as an error.
pub fn run_map_program(program: &Path, pid: i32, ranges: &[IdRange]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.arg(pid.to_string()).env_clear().stdin(Stdio::null());
    for range in ranges {
        command.args([range.inside, range.outside, range.count].map(|number| number.to_string()));
    }
    let name = program.display();
    let output = command.output().map_err(|e| format!("cannot run {name}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Gives the new namespace this process is in the one id that needs nobody's help: these ids outside are root inside.
pub fn map_single(uid: u32, gid: u32) -> Result<(), CallError> {
    let write = |file: &str, text: String| {
        let path = format!("/proc/self/{file}");
        std::fs::write(&path, text)
            .map_err(|e| CallError::path("write", path, Errno::from_io_error(&e).unwrap_or(Errno::IO)))
    };
    write("uid_map", format!("0 {uid} 1"))?;
    // The kernel's condition for a group without privileges.
    write("setgroups", "deny".to_owned())?;
    write("gid_map", format!("0 {gid} 1"))
}

/// Moves this process, which has one thread, into the user namespace of another process.
pub fn join(process: BorrowedFd<'_>) -> Result<(), CallError> {
    process::join_process(process, Namespaces::USER)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read() {
        let map = parse_map("         0       1000          1\n         1     100000      65536\n");
        let range = |inside, outside, count| IdRange { inside, outside, count };
        assert_eq!(map, [range(0, 1000, 1), range(1, 100_000, 65_536)]);
        assert_eq!(parse_map("0 0 4294967295").len(), 1);
        assert!(parse_map("0 x 1\n1 2").is_empty());
    }
}
