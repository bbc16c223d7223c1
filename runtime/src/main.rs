//! `ctr-runtime`: the runtime with runc's command line. Nothing here but reading arguments, keeping the state folder and
//! printing; the work is the library's.

mod cli;

use std::ffi::{CString, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = seal() {
        // Nothing runs yet that could be told otherwise.
        let _written = writeln!(std::io::stderr(), "ctr-runtime: protect the runtime's own binary: {error}");
        return ExitCode::FAILURE;
    }
    let args: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let (global, result) = cli::dispatch(&args);
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            global.log.error(&error.message);
            // Nowhere else to say it.
            let _written = writeln!(std::io::stderr(), "ctr-runtime: {}", error.message);
            ExitCode::from(error.code)
        }
    }
}

/// Whoever makes processes in a container does so from a binary that the container can't write (CVE-2019-5736). The others
/// need not pay for it. Which command it is, is guessed: a value that reads like one costs half a millisecond.
fn seal() -> Result<(), linux::CallError> {
    let mut words = std::env::args_os().skip(1);
    if !words.any(|word| ["create", "run", "exec"].iter().any(|command| word == *command)) {
        return Ok(());
    }
    let text = |text: OsString| CString::new(text.into_vec()).unwrap_or_default();
    let args: Vec<CString> = std::env::args_os().map(text).collect();
    let line = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        text(name)
    };
    let env: Vec<CString> = std::env::vars_os().map(line).collect();
    let args: Vec<_> = args.iter().map(CString::as_c_str).collect();
    let env: Vec<_> = env.iter().map(CString::as_c_str).collect();
    linux::selfexe::seal(&args, &env)?;
    // The kernel names a program that is executed by descriptor after its number.
    rustix::thread::set_name(c"ctr-runtime").map_err(|e| linux::CallError::new("prctl", "PR_SET_NAME", e))
}
