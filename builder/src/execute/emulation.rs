//! RUN for another kind of processor: possible where the kernel hands such programs to an emulator (binfmt_misc).

use crate::step_error::{StepError, StepResult};
use oci::Platform;
use std::path::Path;

const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// An error where nothing here runs programs of `architecture`.
pub(super) fn check(architecture: &str) -> StepResult<()> {
    let host = Platform::host().architecture;
    if architecture.is_empty() || runs_natively(&host, architecture) {
        return Ok(());
    }
    let Some(machine) = machine(architecture) else { return Ok(()) };
    if is_registered(Path::new(BINFMT), machine) {
        return Ok(());
    }
    let hint = "install qemu-user-static with binfmt-support, or build that stage FROM --platform=$BUILDPLATFORM";
    let message = format!("RUN for {architecture} on {host}: the kernel knows no emulator for it");
    Err(StepError::with_hint(message, hint))
}

fn runs_natively(host: &str, architecture: &str) -> bool {
    host == architecture || matches!((host, architecture), ("amd64", "386") | ("arm64", "arm"))
}

/// The ELF number of a processor, as its two bytes in a file: little end first but for s390x.
fn machine(architecture: &str) -> Option<&'static str> {
    Some(match architecture {
        "amd64" => "3e00",
        "386" => "0300",
        "arm64" => "b700",
        "arm" => "2800",
        "riscv64" => "f300",
        "ppc64le" => "1500",
        "s390x" => "0016",
        "loong64" => "0201",
        "mips64le" => "0800",
        _ => return None,
    })
}

/// Whether an enabled entry's magic begins as an ELF file of that processor.
fn is_registered(folder: &Path, machine: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let magic = text.lines().find_map(|line| line.strip_prefix("magic ")).unwrap_or_default().trim();
        text.starts_with("enabled") && magic.starts_with("7f454c46") && magic.get(36..40) == Some(machine)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn emulators_are_told_by_their_magic() {
        let dir = tempfile::tempdir().unwrap();
        let entry = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: F\noffset 0\n\
                     magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";
        std::fs::write(dir.path().join("status"), "enabled\n").unwrap();
        assert!(!is_registered(dir.path(), "b700"));
        std::fs::write(dir.path().join("qemu-aarch64"), entry).unwrap();
        assert!(is_registered(dir.path(), "b700") && !is_registered(dir.path(), "f300"));
        std::fs::write(dir.path().join("qemu-aarch64"), entry.replace("enabled", "disabled")).unwrap();
        assert!(!is_registered(dir.path(), "b700"));
        assert!(check(&Platform::host().architecture).is_ok());
    }
}
