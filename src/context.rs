//! What every command gets: where the data is, the environment, the output, the engine.

use crate::arguments::truth;
use crate::error::CliError;
use crate::output::table::printable_lines;
use engine::{Engine, EngineConfig, Identity, RegistrySettings};
use rustix::termios::{isatty, tcgetwinsize};
use std::cell::OnceCell;
use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use store::StoreOptions;

/// The command line's surroundings.
pub(crate) struct Context {
    root: Option<PathBuf>,
    state: Option<PathBuf>,
    additional_stores: Vec<PathBuf>,
    keep_blobs: Option<bool>,
    authfile: Option<PathBuf>,
    engine: OnceCell<Engine>,
    /// Root of the machine, not of a user namespace.
    is_root: bool,
    user: (u32, u32),
    out: BufWriter<Stdout>,
}

impl Context {
    /// The surroundings of this process; nothing is opened yet.
    pub(crate) fn new() -> Context {
        // Before the process moves to where everybody is root.
        let user = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let is_root = rustix::process::geteuid().is_root() && linux::userns::is_initial_now();
        Context {
            root: None,
            state: None,
            additional_stores: Vec::new(),
            keep_blobs: None,
            authfile: None,
            engine: OnceCell::new(),
            is_root,
            user,
            out: BufWriter::new(io::stdout()),
        }
    }

    /// `--root`.
    pub(crate) fn set_root(&mut self, path: PathBuf) {
        self.root = Some(path);
    }

    /// `--state`.
    pub(crate) fn set_state(&mut self, path: PathBuf) {
        self.state = Some(path);
    }

    /// `--additional-store`, any number of times.
    pub(crate) fn add_store(&mut self, path: PathBuf) {
        self.additional_stores.push(path);
    }

    /// `--keep-blobs`.
    pub(crate) fn set_keep_blobs(&mut self, keep: bool) {
        self.keep_blobs = Some(keep);
    }

    /// `--authfile`.
    pub(crate) fn set_authfile(&mut self, path: PathBuf) {
        self.authfile = Some(path);
    }

    /// A variable of the environment that is valid text.
    pub(crate) fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    /// The same, where an empty one counts as none.
    pub(crate) fn env_set(&self, name: &str) -> Option<String> {
        self.env(name).filter(|value| !value.is_empty())
    }

    /// The user's home.
    pub(crate) fn home(&self) -> PathBuf {
        PathBuf::from(self.env_set("HOME").unwrap_or_else(|| "/root".to_owned()))
    }

    /// The directory the command was called in.
    pub(crate) fn directory(&self) -> Result<PathBuf, CliError> {
        std::env::current_dir().map_err(|e| CliError::io("find", "the current directory", &e))
    }

    /// The data root and the state folder: the flags', else the environment's, else the user's own.
    pub(crate) fn folders(&self) -> Result<(PathBuf, PathBuf), CliError> {
        let is_root = self.is_root;
        let root = match self.root.clone().or_else(|| self.env_set("CTR_ROOT").map(PathBuf::from)) {
            Some(root) => root,
            None if is_root => PathBuf::from(engine::DEFAULT_ROOT),
            None => match self.env_set("XDG_DATA_HOME") {
                Some(data) => PathBuf::from(data).join("ctr"),
                None => self.home().join(".local/share/ctr"),
            },
        };
        let root = self.absolute(root)?;
        let state = match self.state.clone().or_else(|| self.env_set("CTR_STATE").map(PathBuf::from)) {
            Some(state) => state,
            // A root of its own has a state of its own: two roots never share a socket.
            None if root.as_os_str() != engine::DEFAULT_ROOT => match self.env_set("XDG_RUNTIME_DIR") {
                Some(run) if !is_root => PathBuf::from(run).join("ctr"),
                _ => root.join("run"),
            },
            None => PathBuf::from(engine::DEFAULT_STATE),
        };
        Ok((root, self.absolute(state)?))
    }

    fn absolute(&self, path: PathBuf) -> Result<PathBuf, CliError> {
        if path.is_absolute() { Ok(path) } else { Ok(self.directory()?.join(path)) }
    }

    /// Moves to where the user is root, and says where the data is; nothing is opened.
    pub(crate) fn enter(&self) -> Result<EngineConfig, CliError> {
        let (root, state) = self.folders()?;
        let search_path = std::env::var_os("PATH").unwrap_or_default();
        let identity = Identity { user: self.user, state: state.clone(), search_path: search_path.clone() };
        let rootless = engine::enter_user_namespace(&identity)?;
        let mut config = EngineConfig::new(root, state);
        (config.rootless, config.search_path) = (rootless, search_path);
        config.store = self.store_options()?;
        Ok(config)
    }

    /// Additional stores, and whether blobs are kept: the flags', else the environment's.
    fn store_options(&self) -> Result<StoreOptions, CliError> {
        let mut stores = self.additional_stores.clone();
        if stores.is_empty() {
            let list = self.env_set("CTR_ADDITIONAL_STORES").unwrap_or_default();
            stores.extend(list.split(':').filter(|path| !path.is_empty()).map(PathBuf::from));
        }
        let additional = stores.into_iter().map(|path| self.absolute(path)).collect::<Result<_, _>>()?;
        let keep_blobs = match (self.keep_blobs, self.env_set("CTR_KEEP_BLOBS")) {
            (Some(keep), _) => keep,
            (None, Some(text)) => truth("CTR_KEEP_BLOBS", &text)?,
            (None, None) => true,
        };
        Ok(StoreOptions { additional, drop_blobs: !keep_blobs, refetch: None })
    }

    /// Takes away what killed commands left; whoever has used the engine does so last of all.
    pub(crate) fn sweep(&self) {
        if let Some(engine) = self.engine.get() {
            // What cannot be removed the next command tries again.
            let _ = engine.store().sweep_dead();
        }
    }

    /// The engine, opened when first asked for.
    pub(crate) fn engine(&self) -> Result<&Engine, CliError> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let mut config = self.enter()?;
        config.registries = RegistrySettings::from_variables(|name| std::env::var_os(name));
        config.registries.credentials.authfile.clone_from(&self.authfile);
        let engine = Engine::open(config)?;
        if let Some(why) = engine.untold_limit() {
            self.warn(why);
        }
        engine.store().unusable_stores().iter().for_each(|why| self.warn(why));
        Ok(self.engine.get_or_init(|| engine))
    }

    /// Standard output, buffered; flushed at the end or by [`Context::flush`].
    pub(crate) fn out(&mut self) -> &mut BufWriter<Stdout> {
        &mut self.out
    }

    /// One line to standard output.
    pub(crate) fn print(&mut self, line: impl Display) -> Result<(), CliError> {
        Ok(writeln!(self.out, "{line}")?)
    }

    /// Writes out what was printed so far.
    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        Ok(self.out.flush()?)
    }

    /// A warning to standard error.
    pub(crate) fn warn(&self, message: impl Display) {
        let _ = writeln!(io::stderr(), "WARNING: {}", printable_lines(&message.to_string()));
    }

    /// A plain line to standard error.
    pub(crate) fn say(&self, message: impl Display) {
        let _ = writeln!(io::stderr(), "{message}");
    }

    /// An error to standard error: the one place where errors are shown.
    pub(crate) fn report(&self, error: &CliError) {
        // What an image or a container calls its things may be part of it.
        let message = printable_lines(&error.to_string());
        let mut err = io::stderr().lock();
        if !message.is_empty() {
            let _ = writeln!(err, "ctr: {message}");
        }
        if let Some(hint) = error.hint() {
            let _ = writeln!(err, "{hint}");
        }
    }

    /// Standard output's width in columns, if it is a terminal.
    pub(crate) fn width(&self) -> Option<usize> {
        columns(io::stdout())
    }

    /// Standard error's width in columns, if it is a terminal.
    pub(crate) fn error_width(&self) -> Option<usize> {
        columns(io::stderr())
    }

    /// Standard error is a terminal: progress may be drawn.
    pub(crate) fn draws_progress(&self) -> bool {
        io::stderr().is_terminal() && self.env("TERM").is_none_or(|term| term != "dumb")
    }

    /// Colours are welcome on this terminal.
    pub(crate) fn colours(&self) -> bool {
        self.draws_progress() && self.env_set("NO_COLOR").is_none()
    }

    /// Does `action` for each name: what it returns goes to standard output, errors to standard error at once, and the
    /// rest is done all the same.
    pub(crate) fn for_each(
        &mut self,
        names: &[String],
        mut action: impl FnMut(&mut Context, &str) -> Result<Option<String>, CliError>,
    ) -> Result<std::process::ExitCode, CliError> {
        let mut failed = false;
        for name in names {
            match action(self, name) {
                Ok(Some(line)) => self.print(line)?,
                Ok(None) => {}
                Err(error) if error.is_broken_pipe() => return Err(error),
                Err(error) => {
                    self.flush()?;
                    self.report(&error);
                    failed = true;
                }
            }
        }
        Ok(if failed { std::process::ExitCode::FAILURE } else { std::process::ExitCode::SUCCESS })
    }
}

/// A terminal's width.
fn columns(stream: impl AsFd) -> Option<usize> {
    if !isatty(&stream) {
        return None;
    }
    tcgetwinsize(&stream).ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// The error of `run`, `create`, `exec` and `start -a`: docker's exit code says who is to blame.
pub(crate) fn with_exit_code(error: engine::EngineError) -> CliError {
    let code = error.exit_code();
    CliError::from(error).with_code(code)
}

/// Reads a whole text from standard input, at most `limit` bytes.
pub(crate) fn read_stdin(limit: u64) -> Result<Vec<u8>, CliError> {
    use io::Read;
    let mut bytes = Vec::new();
    let fail = |e: io::Error| CliError::new(format!("cannot read standard input: {}", e));
    io::stdin().lock().take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > limit {
        return Err(CliError::new(format!("standard input is longer than {limit} bytes")));
    }
    Ok(bytes)
}
