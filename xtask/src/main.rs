//! `cargo xtask completions DIR`: writes the completion scripts of bash, zsh and fish, as each shell's folder for
//! them wants the file named. They come from the release binary itself, so they are what it accepts.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Each shell and its file name.
const SHELLS: &[(&str, &str)] = &[("bash", "ctr"), ("zsh", "_ctr"), ("fish", "ctr.fish")];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["completions", folder] => completions(Path::new(folder)),
        _ => Err("usage: cargo xtask completions DIR".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            report(&why);
            ExitCode::FAILURE
        }
    }
}

fn completions(folder: &Path) -> Result<(), String> {
    let ctr = built_binary()?;
    for (shell, file) in SHELLS {
        let output = Command::new(&ctr).args(["completion", shell]).output();
        let output = output.map_err(|error| format!("starting {}: {error}", ctr.display()))?;
        if !output.status.success() {
            return Err(format!("ctr completion {shell}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        let path = folder.join(shell).join(file);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(|error| format!("making {}: {error}", parent.display()))?;
        std::fs::write(&path, output.stdout).map_err(|error| format!("writing {}: {error}", path.display()))?;
    }
    Ok(())
}

/// Builds the release binary and says where it lies: beside this program's own profile folder.
fn built_binary() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(["build", "--release", "--quiet", "--bin", "ctr"]).status();
    let status = status.map_err(|error| format!("starting cargo: {error}"))?;
    if !status.success() {
        return Err("the release build failed".to_owned());
    }
    let own = std::env::current_exe().map_err(|error| format!("finding this program: {error}"))?;
    let triple = own.parent().and_then(Path::parent).ok_or("this program lies in no target folder")?;
    Ok(triple.join("release/ctr"))
}

#[allow(clippy::print_stderr)] // The one place where this program speaks.
fn report(why: &str) {
    eprintln!("xtask: {why}");
}
