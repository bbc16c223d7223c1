//! Contexts that are no folder of this machine: a tar, or a lone Containerfile, that comes as a stream; a git repository.

use crate::error::BuildError;
use crate::layer::LayerWriter;
use crate::request::{Containerfile, MAX_CONTAINERFILE_BYTES};
use crate::step_error::StepError;
use engine::Engine;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use store::Scratch;

/// A context that was fetched; it is gone with this value.
#[derive(Debug)]
pub struct FetchedContext {
    folder: PathBuf,
    containerfile: Option<Containerfile>,
    _scratch: Scratch,
}

impl FetchedContext {
    /// What COPY and ADD read from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The recipe, where the stream was one; the folder is empty then.
    pub fn containerfile(&self) -> Option<&Containerfile> {
        self.containerfile.as_ref()
    }
}

/// As much of a stream as tells a tar (`ustar` at 257) from a text.
const HEAD_BYTES: u64 = 512;

/// Reads a context off a stream (`ctr build -`): a tar, plain or compressed by gzip or zstd, else the text of a Containerfile.
pub fn fetch_stream(engine: &Engine, mut stream: impl Read) -> Result<FetchedContext, BuildError> {
    let failed =
        |path: &Path, source: io::Error| BuildError::Io { operation: "read into", path: path.to_owned(), source };
    let scratch = engine.store().new_scratch().map_err(unfetched)?;
    let folder = new_folder(&scratch)?;
    let mut head = Vec::new();
    stream.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(|e| failed(&folder, e))?;
    let is_tar = head.starts_with(&[0x1f, 0x8b]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    if !is_tar && head.get(257..262) != Some(b"ustar") {
        stream.take(MAX_CONTAINERFILE_BYTES).read_to_end(&mut head).map_err(|e| failed(&folder, e))?;
        let containerfile = Some(Containerfile::from_text("-", head));
        return Ok(FetchedContext { folder, containerfile, _scratch: scratch });
    }
    // Archives are read from files: how one is packed shows only at its beginning.
    let path = scratch.path().join("context.tar");
    let made = File::options().read(true).write(true).create_new(true).open(&path);
    let mut file = made.map_err(|e| failed(&path, e))?;
    file.write_all(&head).map_err(|e| failed(&path, e))?;
    io::copy(&mut stream, &mut file).map_err(|e| failed(&path, e))?;
    file.rewind().map_err(|e| failed(&path, e))?;
    let mut writer = LayerWriter::new(&folder, None, (0, 0), 0, None).map_err(unfetched)?;
    writer.unpack(file, Path::new("/"), None).and_then(|()| writer.finish()).map_err(unfetched)?;
    // Best effort: it is gone with the scratch folder at the latest.
    let _room = std::fs::remove_file(&path);
    Ok(FetchedContext { folder, containerfile: None, _scratch: scratch })
}

/// A repository as `build` is given it: `https://host/x.git#branch:folder`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitContext {
    url: String,
    /// A branch, a tag or a commit.
    reference: String,
    folder: String,
}

impl GitContext {
    /// None if the text names no repository: git's own schemes, `git@host:path`, a path ending in `.git` over http, and
    /// `github.com/…` do.
    pub fn parse(text: &str) -> Option<GitContext> {
        let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
        let over_http = url.starts_with("http://") || url.starts_with("https://");
        let is_git = ["git://", "ssh://", "git@"].iter().any(|start| url.starts_with(start));
        let url = match () {
            () if is_git || (over_http && url.ends_with(".git")) => url.to_owned(),
            () if url.starts_with("github.com/") => format!("https://{url}"),
            () => return None,
        };
        Some(GitContext { url, reference: reference.to_owned(), folder: folder.to_owned() })
    }

    /// Fetches the one commit, without its history, by the program `git`.
    pub fn fetch(&self, engine: &Engine) -> Result<FetchedContext, BuildError> {
        let scratch = engine.store().new_scratch().map_err(unfetched)?;
        let work = new_folder(&scratch)?;
        let reference = if self.reference.is_empty() { "HEAD" } else { &self.reference };
        git(&work, &["init", "--quiet"])?;
        git(&work, &["fetch", "--quiet", "--depth", "1", "--", &self.url, reference])?;
        git(&work, &["checkout", "--quiet", "FETCH_HEAD"])?;
        git(&work, &["submodule", "update", "--quiet", "--init", "--recursive", "--depth", "1"])?;
        let _history = std::fs::remove_dir_all(work.join(".git"));
        let folder = work.join(self.folder.trim_start_matches('/'));
        let is_beneath = |(folder, work): (PathBuf, PathBuf)| folder.starts_with(work) && folder.is_dir();
        let paths = folder.canonicalize().and_then(|folder| work.canonicalize().map(|work| (folder, work)));
        if !paths.is_ok_and(is_beneath) {
            return Err(BuildError::Context {
                message: format!("there is no folder {:?} in {}", self.folder, self.url),
            });
        }
        Ok(FetchedContext { folder, containerfile: None, _scratch: scratch })
    }
}

fn git(folder: &Path, arguments: &[&str]) -> Result<(), BuildError> {
    let wrong = |message: String| BuildError::Context { message };
    let mut command = Command::new("git");
    // No question is answered by a build, and no configuration of a repository's own is followed out of it.
    command.env("GIT_TERMINAL_PROMPT", "0").args([OsStr::new("-C"), folder.as_os_str()]).args(arguments);
    let output = command.stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => wrong("a repository as context needs the program git: install it".to_owned()),
        _ => wrong(format!("cannot run git: {error}")),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    Err(wrong(format!("git {} failed: {last}", arguments.first().unwrap_or(&""))))
}

fn new_folder(scratch: &Scratch) -> Result<PathBuf, BuildError> {
    let folder = scratch.path().join("context");
    std::fs::create_dir(&folder).map_err(|source| BuildError::Io {
        operation: "make",
        path: folder.clone(),
        source,
    })?;
    Ok(folder)
}

fn unfetched(error: impl Into<StepError>) -> BuildError {
    BuildError::Context { message: format!("cannot read the context: {}", error.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_folders() {
        let parsed = |text: &str| GitContext::parse(text).map(|g| (g.url, g.reference, g.folder));
        let all =
            |url: &str, reference: &str, folder: &str| Some((url.to_owned(), reference.to_owned(), folder.to_owned()));
        assert_eq!(parsed("https://h/x.git"), all("https://h/x.git", "", ""));
        assert_eq!(parsed("https://h/x.git#v1:sub/dir"), all("https://h/x.git", "v1", "sub/dir"));
        assert_eq!(parsed("git@h:x#:sub"), all("git@h:x", "", "sub"));
        assert_eq!(parsed("github.com/a/b"), all("https://github.com/a/b", "", ""));
        for folder in [".", "./x.git", "https://h/x.tar", "-", "ext::sh -c x"] {
            assert_eq!(parsed(folder), None, "{folder}");
        }
    }
}
