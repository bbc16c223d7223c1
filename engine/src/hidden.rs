//! The modes the binary re-executes itself in. They are no commands: nothing in the help speaks of them.

use std::ffi::OsString;

/// Runs a hidden mode if the arguments (the program's own name included) ask for one, and returns the exit code.
/// To be called before anything else in `main`.
pub fn hidden_mode(args: &[OsString]) -> Option<i32> {
    match args.get(1)?.to_str()? {
        "__monitor" | "__exec" | "__step" => todo!(),
        _ => None,
    }
}
