//! `ctr save`.

use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use store::ArchiveFormat;

/// Save images to an archive
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// The archive's format
    #[arg(long, value_name = "FORMAT", default_value = "docker", value_parser = ["docker", "oci", "docker-archive", "oci-archive"])]
    format: String,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let names: Vec<&str> = args.images.iter().map(String::as_str).collect();
    let format = if args.format.starts_with("oci") { ArchiveFormat::Oci } else { ArchiveFormat::Docker };
    write(args.output.as_deref(), |out| Ok(context.engine()?.store().save(&names, format, out)?))
}

/// Writes an archive to a file, or to standard output.
pub(super) fn write(
    output: Option<&Path>,
    archive: impl FnOnce(&mut dyn Write) -> Result<(), CliError>,
) -> Result<ExitCode, CliError> {
    if let Some(path) = output.filter(|path| *path != Path::new("-")) {
        return write_file(path, archive).map(|()| ExitCode::SUCCESS);
    }
    if std::io::stdout().is_terminal() {
        return Err(CliError::new("cowardly refusing to save to a terminal")
            .with_hint("use the -o flag or redirect standard output"));
    }
    // The error for a reader that went away reads like any other: what was said is enough.
    let mut out = Tracked { inner: BufWriter::with_capacity(256 << 10, std::io::stdout().lock()), broken: false };
    let written = archive(&mut out).and_then(|()| Ok(out.flush()?));
    if !out.broken {
        written?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes beside the file and renames: a failure leaves neither half an archive nor the old one lost.
pub(super) fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<(), CliError>) -> Result<(), CliError> {
    let fail = |e: std::io::Error| CliError::io("write", path.display(), &e);
    if path.is_dir() {
        return Err(CliError::new(format!("cannot write {}: it is a directory", path.display())));
    }
    let is_special = std::fs::metadata(path).is_ok_and(|m| !m.is_file());
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let target = if is_special { path } else { &partial };
    let result = std::fs::File::create(target).map_err(fail).and_then(|file| {
        let mut out = BufWriter::with_capacity(256 << 10, file);
        write(&mut out)?;
        out.flush().map_err(fail)?;
        if is_special { Ok(()) } else { std::fs::rename(&partial, path).map_err(fail) }
    });
    if result.is_err() && !is_special {
        let _ = std::fs::remove_file(&partial);
    }
    result
}

/// Remembers that nobody reads any more.
struct Tracked<W> {
    inner: W,
    broken: bool,
}

impl<W> Tracked<W> {
    fn note<T>(&mut self, result: std::io::Result<T>) -> std::io::Result<T> {
        self.broken |= result.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe);
        result
    }
}

impl<W: Write> Write for Tracked<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let result = self.inner.write(bytes);
        self.note(result)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let result = self.inner.flush();
        self.note(result)
    }
}
