//! Contexts that are no folder of this machine: a tar, or a lone Containerfile, that comes as a stream or from a URL; a
//! git repository.

mod git;
mod url;

pub use git::GitContext;
pub(crate) use git::is_url_of_a_repository;
pub use url::is_url;
pub(crate) use url::{RemoteFile, progress};

use crate::error::BuildError;
use crate::layer::{LayerWriter, head, looks_packed};
use crate::request::{Containerfile, MAX_CONTAINERFILE_BYTES};
use crate::step_error::StepError;
use engine::Engine;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
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

/// Reads a context off a stream (`ctr build -`): a tar, plain or compressed by gzip, bzip2, xz or zstd, else the text of a
/// Containerfile, which messages call `name`.
pub fn fetch_stream(engine: &Engine, name: &str, mut stream: impl Read) -> Result<FetchedContext, BuildError> {
    let failed =
        |path: &Path, source: io::Error| BuildError::Io { operation: "read into", path: path.to_owned(), source };
    let scratch = engine.store().new_scratch().map_err(unfetched)?;
    let folder = new_folder(&scratch)?;
    let mut head = head(&mut stream).map_err(|e| failed(&folder, e))?;
    if !looks_packed(&head) {
        stream.take(MAX_CONTAINERFILE_BYTES).read_to_end(&mut head).map_err(|e| failed(&folder, e))?;
        let containerfile = Some(Containerfile::from_text(name, head));
        return Ok(FetchedContext { folder, containerfile, _scratch: scratch });
    }
    // Archives are read from files: how one is packed shows only at its beginning.
    let path = scratch.path().join("context.tar");
    let made = File::options().read(true).write(true).create_new(true).open(&path);
    let mut file = made.map_err(|e| failed(&path, e))?;
    file.write_all(&head).map_err(|e| failed(&path, e))?;
    io::copy(&mut stream, &mut file).map_err(|e| failed(&path, e))?;
    let mut writer = LayerWriter::new(&folder, None, (0, 0), 0, None).map_err(unfetched)?;
    writer.unpack(&mut file, Path::new("/"), None).and_then(|()| writer.finish()).map_err(unfetched)?;
    // Best effort: it is gone with the scratch folder at the latest.
    let _room = std::fs::remove_file(&path);
    Ok(FetchedContext { folder, containerfile: None, _scratch: scratch })
}

/// Fetches a context from an http or https address: a tar, or the text of a Containerfile.
pub fn fetch_url(engine: &Engine, address: &str) -> Result<FetchedContext, BuildError> {
    let unreached = |error: engine::EngineError| BuildError::Context { message: error.to_string() };
    let download = engine.download(address, None).map_err(unreached)?;
    let download = download.ok_or_else(|| BuildError::Context { message: format!("{address}: no content") })?;
    fetch_stream(engine, address, download.body)
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
