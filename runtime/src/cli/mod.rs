//! Arguments, by hand: a runtime is started for every container, and an argument parser costs more than the rest of its start.

mod commands;
mod create;
mod exec;
mod state;
mod terminal;

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;

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
    log: Option<PathBuf>,
    log_json: bool,
}

impl Global {
    /// Adds an error to the log file, if there is one.
    pub(crate) fn log_error(&self, message: &str) {
        let Some(path) = &self.log else { return };
        let line = if self.log_json {
            format!("{}\n", serde_json::json!({"level": "error", "msg": message}))
        } else {
            format!("level=error msg={message:?}\n")
        };
        // The error itself is printed all the same.
        let _logged = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// A command's arguments, sorted: options before and after positionals.
#[derive(Debug, Default)]
pub(crate) struct Args {
    values: HashMap<&'static str, Vec<String>>,
    pub(crate) positional: Vec<String>,
}

/// An option: its long name, its one-letter name, and whether it takes a value.
type OptionSpec = (&'static str, Option<char>, bool);

const GLOBAL: &[OptionSpec] = &[
    ("root", None, true),
    ("log", None, true),
    ("log-format", None, true),
    ("debug", None, false),
    ("systemd-cgroup", None, false),
    ("rootless", None, true),
    ("version", Some('v'), false),
    ("help", Some('h'), false),
];

impl Args {
    /// Sorts arguments. With `stop` the first positional ends the options (global options; exec's program), else `--` does.
    pub(crate) fn parse(args: &[String], known: &[OptionSpec], stop: usize) -> Result<(Args, usize), CliError> {
        let mut parsed = Args::default();
        let mut at = 0;
        while at < args.len() {
            let arg = &args[at];
            if parsed.positional.len() >= stop {
                break;
            }
            at += 1;
            if arg == "--" {
                break;
            }
            let Some(name) = arg.strip_prefix('-').filter(|name| !name.is_empty()) else {
                parsed.positional.push(arg.clone());
                continue;
            };
            let (name, inline) = match name.strip_prefix('-').unwrap_or(name).split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name.strip_prefix('-').unwrap_or(name), None),
            };
            let matches = |spec: &&OptionSpec| spec.0 == name || spec.1.is_some_and(|short| name.chars().eq([short]));
            let (long, _, takes_value) = known
                .iter()
                .find(matches)
                .ok_or_else(|| CliError::new(format!("flag provided but not defined: {arg}")))?;
            let value = match (takes_value, inline) {
                (false, None) => "true".to_owned(),
                (false, Some(value)) | (true, Some(value)) => value,
                (true, None) => {
                    let value = args.get(at).ok_or_else(|| CliError::new(format!("flag needs an argument: {arg}")))?;
                    at += 1;
                    value.clone()
                }
            };
            parsed.values.entry(long).or_default().push(value);
        }
        Ok((parsed, at))
    }

    /// The last value of an option.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.all(name).last().map(String::as_str)
    }

    pub(crate) fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value != "false")
    }

    /// The only positional: a container's id.
    pub(crate) fn id(&self) -> Result<&str, CliError> {
        match self.positional.as_slice() {
            [id] => Ok(id),
            [] => Err(CliError::new("container id cannot be empty")),
            _ => Err(CliError::new(format!("expected one container id, got {}", self.positional.join(" ")))),
        }
    }
}

const USAGE: &str = "\
usage: ctr-runtime [--root DIR] [--log FILE] [--log-format text|json] COMMAND [options] [ID]

commands:
  run      create and start a container    create   create a container
  start    start a created container       exec     run a process in a container
  state    show a container's state        list     list containers
  kill     send a signal                   delete   remove a container
  pause    freeze a container              resume   let it go on
  ps       list a container's processes    update   change its limits
  spec     write a default config.json     features show what is supported
";

/// Runs a command: its exit code, and where to log an error.
pub(crate) fn dispatch(args: Vec<String>) -> (Global, Result<u8, CliError>) {
    let mut global = Global { root: PathBuf::from("/run/ctr-runtime"), log: None, log_json: false };
    let result = dispatch_with(&args, &mut global);
    (global, result)
}

fn dispatch_with(args: &[String], global: &mut Global) -> Result<u8, CliError> {
    let (options, mut at) = Args::parse(args, GLOBAL, 1)?;
    if let Some(root) = options.value("root") {
        global.root = PathBuf::from(root);
    }
    global.log = options.value("log").map(PathBuf::from);
    global.log_json = options.value("log-format") == Some("json");
    if options.flag("version") {
        return print(&format!("ctr-runtime version {}\nspec: {}\n", env!("CARGO_PKG_VERSION"), runtime::OCI_VERSION));
    }
    let Some(command) = options.positional.first().filter(|_| !options.flag("help")) else { return print(USAGE) };
    at = at.min(args.len());
    let rest = &args[at..];
    if options.flag("systemd-cgroup") {
        return Err(CliError::new("--systemd-cgroup is not supported: control groups are made directly"));
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
        "update" => commands::update(global, rest),
        "spec" => commands::spec(rest),
        "features" => commands::features(),
        "checkpoint" | "restore" => Err(CliError::new(format!("{command} is not supported"))),
        "help" => print(USAGE),
        "version" => print(&format!("ctr-runtime version {}\n", env!("CARGO_PKG_VERSION"))),
        unknown => Err(CliError::new(format!("no such command: {unknown} (see ctr-runtime --help)"))),
    }
}

/// Prints to standard output; a reader that went away is no error.
pub(crate) fn print(text: &str) -> Result<u8, CliError> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CliError::new(format!("write: {error}"))),
        _ => Ok(0),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_before_and_after_positionals() {
        let known: &[OptionSpec] =
            &[("bundle", Some('b'), true), ("detach", Some('d'), false), ("tty", Some('t'), false)];
        let args = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (parsed, _) = Args::parse(&args("-b /x id --detach"), known, usize::MAX).unwrap();
        assert_eq!((parsed.value("bundle"), parsed.flag("detach"), parsed.id().unwrap()), (Some("/x"), true, "id"));
        let (parsed, at) = Args::parse(&args("--bundle=/x id sh -c x"), known, 1).unwrap();
        assert_eq!((parsed.value("bundle"), at), (Some("/x"), 2));
        assert!(Args::parse(&args("--bogus"), known, 1).is_err());
        assert!(Args::parse(&args("id --bundle"), known, usize::MAX).is_err());
    }
}
