//! The command line: runc's, word for word, so that what calls runc can call this.

mod args;
mod commands;
mod create;
mod events;
mod exec;
mod features;
mod log;
mod state;
mod terminal;
mod update;

use args::{Args, OptionSpec};
use log::Log;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What went wrong, for the user.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) message: String,
    pub(crate) code: u8,
}

impl CliError {
    pub(crate) fn new(message: impl Into<String>) -> CliError {
        CliError { message: message.into(), code: 1 }
    }
}

impl From<runtime::RuntimeError> for CliError {
    fn from(error: runtime::RuntimeError) -> CliError {
        // 125 is docker's "the engine failed"; runc says 1.
        let code = Some(error.exit_code()).filter(|code| *code != 125).unwrap_or(1);
        CliError { message: error.to_string(), code }
    }
}

impl From<linux::CallError> for CliError {
    fn from(error: linux::CallError) -> CliError {
        CliError::new(error.to_string())
    }
}

/// Options before the command.
#[derive(Debug)]
pub(crate) struct Global {
    pub(crate) root: PathBuf,
    pub(crate) log: Log,
    /// Control groups are systemd's to make.
    pub(crate) systemd: bool,
}

const GLOBAL: &[OptionSpec] = &[
    ("root", None, true),
    ("log", None, true),
    ("log-format", None, true),
    ("debug", None, false),
    ("systemd-cgroup", None, false),
    ("rootless", None, true),
    ("criu", None, true),
    ("version", Some('v'), false),
    ("help", Some('h'), false),
];

const NO_SYSTEMD: &str = "--systemd-cgroup: systemd is not running on this machine; \
    leave it out (cgroupfs: control groups are made directly)";

const USAGE: &str = "\
usage: ctr-runtime [--root DIR] [--log FILE] [--log-format text|json] COMMAND [options] [ID]

commands:
  run      create and start a container    create   create a container
  start    start a created container       exec     run a process in a container
  state    show a container's state        list     list containers
  kill     send a signal                   delete   remove a container
  pause    freeze a container              resume   let it go on
  ps       list a container's processes    update   change its limits
  events   show what it uses, and when memory runs out
  spec     write a default config.json     features show what is supported
";

/// Runs a command: its exit code, and where to log an error.
pub(crate) fn dispatch(args: &[String]) -> (Global, Result<u8, CliError>) {
    let mut global = Global { root: PathBuf::from("/run/ctr-runtime"), log: Log::default(), systemd: false };
    let result = dispatch_with(args, &mut global);
    (global, result)
}

fn dispatch_with(args: &[String], global: &mut Global) -> Result<u8, CliError> {
    let options = Args::parse(args, GLOBAL, 1)?;
    if let Some(root) = options.value("root") {
        global.root = PathBuf::from(root);
    }
    global.log = Log::new(options.value("log"), options.value("log-format"), options.flag("debug"))?;
    if options.flag("version") {
        return print(&version());
    }
    let Some((command, rest)) = options.words.split_first().filter(|_| !options.flag("help")) else {
        return print(USAGE);
    };
    if rest.first().is_some_and(|arg| arg == "--help" || arg == "-h") {
        return print(USAGE);
    }
    if options.flag("systemd-cgroup") && matches!(command.as_str(), "run" | "create" | "restore") {
        global.systemd = true;
        if !Path::new("/run/systemd/system").is_dir() {
            return Err(CliError::new(NO_SYSTEMD));
        }
    }
    match command.as_str() {
        "run" => create::run(global, rest),
        "create" => create::create(global, rest),
        "start" => create::start(global, rest),
        "exec" => exec::exec(global, rest),
        "state" => commands::state(global, rest),
        "list" => commands::list(global, rest),
        "kill" => commands::kill(global, rest),
        "delete" => commands::delete(global, rest),
        "pause" => commands::freeze(global, rest, true),
        "resume" => commands::freeze(global, rest, false),
        "ps" => commands::ps(global, rest),
        "update" => update::update(global, rest),
        "events" => events::events(global, rest),
        "spec" => commands::spec(rest),
        "features" => features::features(),
        "checkpoint" | "restore" => Err(CliError::new(format!("{command} is not supported: it needs criu"))),
        "help" => print(USAGE),
        "version" => print(&version()),
        unknown => Err(CliError::new(format!("no such command: {unknown} (see ctr-runtime --help)"))),
    }
}

fn version() -> String {
    format!("ctr-runtime version {}\nspec: {}\n", env!("CARGO_PKG_VERSION"), runtime::OCI_VERSION)
}

/// Prints to standard output; a reader that went away is no error.
pub(crate) fn print(text: &str) -> Result<u8, CliError> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CliError::new(format!("write: {error}"))),
        _ => Ok(0),
    }
}
