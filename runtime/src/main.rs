//! `ctr-runtime`: the runtime with runc's command line. Nothing here but reading arguments, keeping the state folder and
//! printing; the work is the library's.

mod cli;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
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
