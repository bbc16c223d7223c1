//! `--log FILE --log-format text|json`, in the form that runc's clients parse.

use super::CliError;
use super::state::now;
use std::io::Write;
use std::path::PathBuf;

/// Where errors and warnings are written down beside standard error.
#[derive(Debug, Default)]
pub(crate) struct Log {
    file: Option<PathBuf>,
    json: bool,
    debug: bool,
}

impl Log {
    pub(crate) fn new(file: Option<&str>, format: Option<&str>, debug: bool) -> Result<Log, CliError> {
        let json = match format.unwrap_or("text") {
            "json" => true,
            "text" => false,
            other => return Err(CliError::new(format!("invalid log-format {other:?}: text or json"))),
        };
        // runc's default, which it does not write errors to twice either.
        let file = file.filter(|file| !file.is_empty() && *file != "/dev/stderr").map(PathBuf::from);
        Ok(Log { file, json, debug })
    }

    /// What made the command fail.
    pub(crate) fn error(&self, message: &str) {
        self.add("error", message);
    }

    /// What did not.
    pub(crate) fn warn(&self, message: &str) {
        self.add("warning", message);
        if self.debug {
            // Nowhere else to say it.
            let _shown = writeln!(std::io::stderr(), "ctr-runtime: warning: {message}");
        }
    }

    fn add(&self, level: &str, message: &str) {
        let Some(path) = &self.file else { return };
        let (message, time) = (message.trim_end(), now());
        let line = if self.json {
            format!("{}\n", serde_json::json!({"level": level, "msg": message, "time": time}))
        } else {
            format!("time={time:?} level={level} msg={message:?}\n")
        };
        // The error itself is printed all the same.
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let _logged = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}
