//! A file at an http address, as ADD sees it: fetched only where the server, or a checksum, does not say that an earlier
//! build's copy of its digest still holds.

use crate::event::BuildEvent;
use crate::step_error::{StepError, StepResult};
use engine::{Download, Engine, Validators};
use oci::{Digest, Hasher};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use store::Scratch;

use engine::file_name_of;

/// How much is fetched between two reports of progress, in bytes.
const REPORT_BYTES: u64 = 1 << 20;

/// Whether a text is an http or https address.
pub fn is_url(text: &str) -> bool {
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    lower.starts_with("http://") || lower.starts_with("https://")
}

/// What is known of a file at an address, and the file itself if it had to be fetched.
pub(crate) struct RemoteFile {
    pub(crate) address: String,
    pub(crate) known: Known,
    fetched: Option<(Scratch, File)>,
}

/// What of it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) digest: Digest,
    /// The name the server gives it, else its URL's.
    pub(crate) name: Option<String>,
    pub(crate) modified_s: i64,
    etag: Option<String>,
    last_modified: Option<String>,
}

/// Tells how far a download has come: bytes done, and of how many (0 if unknown).
pub(crate) type Report<'a> = &'a dyn Fn(u64, u64);

impl RemoteFile {
    /// Finds out what the file is now. With `fresh` nothing remembered counts.
    pub(crate) fn find(
        engine: &Engine,
        address: &str,
        checksum: Option<&Digest>,
        fresh: bool,
        report: Report<'_>,
    ) -> StepResult<RemoteFile> {
        let key = format!("url:{}", Digest::sha256(address).hex());
        // Another algorithm's digest is that of bytes: what is remembered says nothing of it.
        let fresh = fresh || checksum.is_some_and(|wanted| wanted.algorithm() != "sha256");
        let remembered = if fresh { None } else { engine.store().cache_get(&key)? };
        let remembered: Option<Known> = remembered.and_then(|text| serde_json::from_str(&text).ok());
        // What the user names by its digest need not be asked for.
        if let Some(known) = remembered.as_ref().filter(|known| Some(&known.digest) == checksum) {
            return Ok(RemoteFile { address: address.to_owned(), known: known.clone(), fetched: None });
        }
        let validators = remembered
            .as_ref()
            .map(|known| Validators { etag: known.etag.clone(), last_modified: known.last_modified.clone() });
        let validators = validators.filter(|v| v.etag.is_some() || v.last_modified.is_some());
        let (known, fetched) = match (engine.download(address, validators.as_ref())?, remembered) {
            (None, Some(known)) => (known, None),
            (None, None) => return Err(StepError::wrong(format!("{address}: the server sent nothing"))),
            (Some(download), _) => {
                let (known, scratch, file) = fetch(engine, address, download, checksum, report)?;
                let value = serde_json::to_string(&known).unwrap_or_default();
                engine.store().cache_put(&key, &value, &[])?;
                (known, Some((scratch, file)))
            }
        };
        if let Some(wanted) = checksum.filter(|wanted| fetched.is_none() && **wanted != known.digest) {
            return Err(mismatch(address, wanted, &known.digest));
        }
        Ok(RemoteFile { address: address.to_owned(), known, fetched })
    }

    /// Its bytes; fetched now if an earlier build's knowledge of it sufficed so far.
    pub(crate) fn open(&mut self, engine: &Engine, report: Report<'_>) -> StepResult<&mut File> {
        if self.fetched.is_none() {
            let download = engine.download(&self.address, None)?;
            let download = download.ok_or_else(|| StepError::wrong(format!("{}: no content", self.address)))?;
            let (_, scratch, file) = fetch(engine, &self.address, download, Some(&self.known.digest), report)?;
            self.fetched = Some((scratch, file));
        }
        match &mut self.fetched {
            Some((_, file)) => Ok(file),
            None => Err(StepError::wrong(format!("{}: no content", self.address))),
        }
    }
}

fn fetch(
    engine: &Engine,
    address: &str,
    mut download: Download,
    checksum: Option<&Digest>,
    report: Report<'_>,
) -> StepResult<(Known, Scratch, File)> {
    let scratch = engine.store().new_scratch()?;
    let path = scratch.path().join("download");
    let made = File::options().read(true).write(true).create_new(true).open(&path);
    let mut file = made.map_err(|e| StepError::io("make", &path, e))?;
    let mut hasher = Hasher::sha256();
    let mut asked_for = checksum.map(|digest| (digest, digest.hasher()));
    let mut buffer = vec![0; 128 << 10];
    let (mut done, mut reported) = (0_u64, 0_u64);
    loop {
        let n = match download.body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StepError::wrong(format!("cannot fetch {address}: {error}"))),
        };
        hasher.update(&buffer[..n]);
        if let Some((_, hasher)) = &mut asked_for {
            hasher.update(&buffer[..n]);
        }
        file.write_all(&buffer[..n]).map_err(|e| StepError::io("write", &path, e))?;
        done += n as u64;
        if done >= reported + REPORT_BYTES {
            report(done, download.size.unwrap_or(0));
            reported = done;
        }
    }
    report(done, done);
    if let Some((wanted, hasher)) = asked_for {
        let found = hasher.finish();
        if found != *wanted {
            return Err(mismatch(address, wanted, &found));
        }
    }
    let known = Known {
        digest: hasher.finish(),
        name: download.file_name.take().or_else(|| file_name_of(address)),
        // As docker has it: what has no date is from the beginning of time, so that two builds agree.
        modified_s: download.modified_s.unwrap_or(0),
        etag: download.validators.etag.take(),
        last_modified: download.validators.last_modified.take(),
    };
    Ok((known, scratch, file))
}

fn mismatch(address: &str, wanted: &Digest, found: &Digest) -> StepError {
    let hint = "check the file, then write its digest into --checksum";
    StepError::with_hint(format!("digest mismatch {found}: {address} should be {wanted}"), hint)
}

/// A download's progress as an event of a step.
pub(crate) fn progress(step: crate::StepId, done_bytes: u64, total_bytes: u64) -> BuildEvent {
    BuildEvent::Progress { step, what: "download".to_owned(), done_bytes, total_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        assert!(is_url("http://h/x") && is_url("HTTPS://h"));
        assert!(!["http:/h", "ftp://h", "x", "", "httpé://x"].into_iter().any(is_url));
    }
}
