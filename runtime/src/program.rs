//! Finding the program, and saying what is missing when it can't be executed: the file, the `x` bit, its interpreter,
//! its ELF loader – or that it is for another machine.

use crate::channel::Failure;
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::OwnedFd;

/// Where a program is looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of a file is read to find out why it can't be executed, in bytes.
const HEAD_BYTES: usize = 4096;

/// The path to execute for `name`, found as the process itself sees the file system: call it in the container, as the user,
/// in the working directory.
pub(crate) fn find(name: &str, env: &[CString]) -> Result<CString, Failure> {
    if name.is_empty() {
        return Err(Failure::not_found("exec: \"\": executable file not found in $PATH"));
    }
    if name.contains('/') {
        return check(name).map_err(|why| why.failure(name));
    }
    let path = env.iter().rev().find_map(|line| line.to_str().ok()?.strip_prefix("PATH="));
    let mut refused = None;
    for folder in path.unwrap_or(DEFAULT_PATH).split(':') {
        let folder = if folder.is_empty() { "." } else { folder };
        match check(&format!("{folder}/{name}")) {
            Ok(path) => return Ok(path),
            Err(Unfit::Missing(_)) => {}
            Err(why) => refused = refused.or(Some(why)),
        }
    }
    match refused {
        Some(why) => Err(why.failure(name)),
        None => Err(Failure::not_found(format!("exec: {name:?}: executable file not found in $PATH"))),
    }
}

enum Unfit {
    Missing(Errno),
    Directory,
    Denied,
}

impl Unfit {
    fn failure(self, name: &str) -> Failure {
        match self {
            Unfit::Missing(errno) => Failure::not_found(format!("exec: {name:?}: stat {name}: {}", plain(errno))),
            // Clients look for the second half, to tell 126.
            Unfit::Directory => Failure::not_executable(format!("exec: {name:?}: is a directory: permission denied")),
            Unfit::Denied => Failure::not_executable(format!("exec: {name:?}: permission denied")),
        }
    }
}

fn check(path: &str) -> Result<CString, Unfit> {
    let text = CString::new(path).map_err(|_| Unfit::Missing(Errno::NOENT))?;
    match rustix::fs::statat(CWD, &text, AtFlags::empty()) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => return Err(Unfit::Directory),
        Ok(_) => {}
        Err(Errno::ACCESS) => return Err(Unfit::Denied),
        Err(errno) => return Err(Unfit::Missing(errno)),
    }
    match rustix::fs::accessat(CWD, &text, Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => Ok(text),
        Err(_) => Err(Unfit::Denied),
    }
}

/// The kernel's words as Go programs print them, which users search for.
fn plain(errno: Errno) -> String {
    match errno {
        Errno::NOENT => "no such file or directory".to_owned(),
        Errno::NOTDIR => "not a directory".to_owned(),
        Errno::LOOP => "too many levels of symbolic links".to_owned(),
        other => other.to_string(),
    }
}

/// Why executing `path` failed with `errno`. `root` is the container's root, for when the process can't read the file itself.
pub(crate) fn diagnose(path: &CString, errno: Errno) -> Failure {
    let name = path.to_string_lossy().into_owned();
    let head = read_head(path).unwrap_or_default();
    match errno {
        Errno::NOENT => missing_part(&name, &head),
        Errno::NOEXEC => Failure::not_executable(format!("exec: {name:?}: exec format error{}", wrong_format(&head))),
        Errno::ACCESS | Errno::PERM => {
            Failure::not_executable(format!("exec: {name:?}: permission denied{}", denied_part(&head)))
        }
        Errno::TOOBIG => Failure::not_executable(format!("exec: {name:?}: argument list too long")),
        Errno::TXTBSY => Failure::not_executable(format!("exec: {name:?}: text file busy: something writes to it")),
        other => Failure::not_executable(format!("exec: {name:?}: {other}")),
    }
}

fn read_head(path: &CString) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: OwnedFd = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let mut head = vec![0; HEAD_BYTES];
    let length = rustix::io::read(&file, &mut head).ok()?;
    head.truncate(length);
    Some(head)
}

/// execve says "no such file" for a program that is there when what it needs is not.
fn missing_part(name: &str, head: &[u8]) -> Failure {
    if let Some(interpreter) = shebang(head) {
        if let Some(bare) = interpreter.strip_suffix('\r') {
            return Failure::not_found(format!(
                "exec: {name:?}: no such file or directory: its first line ends in CRLF, so the kernel looks for \
                 {interpreter:?}; save it with LF line ends to use {bare}"
            ));
        }
        return Failure::not_found(format!(
            "exec: {name:?}: no such file or directory: the interpreter {interpreter} of its first line is not in the image"
        ));
    }
    if let Some(loader) = elf_loader(head) {
        return Failure::not_found(format!(
            "exec: {name:?}: no such file or directory: its ELF loader {loader} is not in the image (it is linked \
             dynamically; build it statically or use an image with that C library)"
        ));
    }
    Failure::not_found(format!("exec: {name:?}: no such file or directory"))
}

fn denied_part(head: &[u8]) -> String {
    match shebang(head) {
        Some(interpreter) => format!(" (or its interpreter {interpreter} can't be executed)"),
        None => String::new(),
    }
}

/// The interpreter a script's first line names.
fn shebang(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let text = String::from_utf8_lossy(line);
    // Only blanks separate: a carriage return is part of the name, as for the kernel.
    let interpreter = text.trim_start_matches([' ', '\t']).split([' ', '\t']).next()?;
    (!interpreter.is_empty()).then(|| interpreter.to_owned())
}

fn wrong_format(head: &[u8]) -> String {
    match elf_machine(head) {
        Some(machine) if Some(machine) != this_machine() => {
            format!(": it is for {}, this machine is {}", machine_name(machine), std::env::consts::ARCH)
        }
        Some(_) => String::new(),
        None if head.is_empty() => ": the file is empty".to_owned(),
        None if head.starts_with(b"#!") => String::new(),
        None => ": a script needs a first line like #!/bin/sh".to_owned(),
    }
}

fn is_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF")
}

fn u16_at(head: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(head.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(head: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(head.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(head: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(head.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn elf_machine(head: &[u8]) -> Option<u16> {
    if is_elf(head) { u16_at(head, 18) } else { None }
}

fn this_machine() -> Option<u16> {
    match std::env::consts::ARCH {
        "x86_64" => Some(62),
        "aarch64" => Some(183),
        _ => None,
    }
}

fn machine_name(machine: u16) -> String {
    match machine {
        3 => "i386".to_owned(),
        21 => "ppc64".to_owned(),
        22 => "s390x".to_owned(),
        40 => "arm".to_owned(),
        62 => "x86_64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "riscv64".to_owned(),
        258 => "loongarch64".to_owned(),
        other => format!("ELF machine {other}"),
    }
}

/// The loader (PT_INTERP) a dynamically linked ELF file names; 32 and 64 bit, little-endian.
fn elf_loader(head: &[u8]) -> Option<String> {
    const PT_INTERP: u32 = 3;
    if !is_elf(head) {
        return None;
    }
    let wide = *head.get(4)? == 2;
    let (table, entry_size, count) = if wide {
        (usize::try_from(u64_at(head, 32)?).ok()?, u16_at(head, 54)?, u16_at(head, 56)?)
    } else {
        (usize::try_from(u32_at(head, 28)?).ok()?, u16_at(head, 42)?, u16_at(head, 44)?)
    };
    for index in 0..usize::from(count.min(64)) {
        let entry = table.checked_add(index.checked_mul(entry_size.into())?)?;
        if u32_at(head, entry)? != PT_INTERP {
            continue;
        }
        let (offset, size) = if wide {
            (
                usize::try_from(u64_at(head, entry.checked_add(8)?)?).ok()?,
                usize::try_from(u64_at(head, entry.checked_add(32)?)?).ok()?,
            )
        } else {
            (
                usize::try_from(u32_at(head, entry.checked_add(4)?)?).ok()?,
                usize::try_from(u32_at(head, entry.checked_add(16)?)?).ok()?,
            )
        };
        let name = head.get(offset..offset.checked_add(size.min(HEAD_BYTES))?)?;
        return Some(String::from_utf8_lossy(name.split(|b| *b == 0).next()?).into_owned());
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::channel::FailureKind;
    use std::os::unix::fs::PermissionsExt;

    fn message(content: &[u8], errno: Errno) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("program");
        std::fs::write(&file, content).unwrap();
        diagnose(&CString::new(file.to_str().unwrap()).unwrap(), errno).message
    }

    #[test]
    fn the_missing_part_is_named() {
        assert!(message(b"#!/bin/bash -e\n", Errno::NOENT).contains("interpreter /bin/bash of its first line"));
        assert!(message(b"#!/bin/sh\r\necho\r\n", Errno::NOENT).contains("ends in CRLF"));
        assert!(message(b"echo hello\n", Errno::NOEXEC).contains("#!/bin/sh"));
        let own = std::fs::read("/bin/ls").unwrap();
        assert!(message(&own, Errno::NOENT).contains("its ELF loader /lib"));
        let mut foreign = own[..HEAD_BYTES].to_vec();
        foreign[18..20].copy_from_slice(&243u16.to_le_bytes());
        assert!(message(&foreign, Errno::NOEXEC).contains("it is for riscv64"));
        for cut in [0, 4, 5, 20, 40, 60, 64, 100] {
            diagnose(&CString::new("/").unwrap(), Errno::NOENT);
            message(&own[..cut], Errno::NOENT);
        }
    }

    #[test]
    fn a_program_is_found_in_its_path_or_said_to_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, mode| {
            std::fs::write(dir.path().join(name), "").unwrap();
            std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        put("good", 0o755);
        put("plain", 0o644);
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let env = [CString::new(format!("PATH=/nowhere:{}", dir.path().display())).unwrap()];
        assert_eq!(find("good", &env).unwrap().to_str().unwrap(), dir.path().join("good").to_str().unwrap());
        let kind = |name: &str| find(name, &env).unwrap_err().kind;
        assert_eq!(kind("plain"), FailureKind::NotExecutable);
        assert_eq!(kind("folder"), FailureKind::NotExecutable);
        assert_eq!(find("none", &env).unwrap_err().message, "exec: \"none\": executable file not found in $PATH");
        assert_eq!(
            find("/no/such", &env).unwrap_err().message,
            "exec: \"/no/such\": stat /no/such: no such file or directory"
        );
    }
}
