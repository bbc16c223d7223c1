//! Pulls, with their progress: for `ctr pull`, and for `run` and `create` where an image is missing.

use crate::context::{Context, with_exit_code};
use crate::error::{CliError, ENGINE_FAILED};
use crate::options::container::ContainerOptions;
use crate::output::transfer::{PullView, Show};
use engine::{ContainerSpec, Created, PullRequest, Pulled};
use oci::{Platform, Reference};
use std::io::Write;

/// Fetches an image and shows how it goes on, on standard error or, for `ctr pull`, on standard output.
fn pull(context: &Context, request: &PullRequest, show: Show) -> Result<Pulled, CliError> {
    let engine = context.engine()?;
    let view = PullView::new(context, show);
    let result = engine.pull(request, &|event| view.event(&event));
    view.finish();
    Ok(result.inspect_err(|error| view.failed(error))?)
}

/// The names to look for an image by: what was typed, or what a short name stands for by `registries.conf`.
pub(crate) fn names(context: &Context, typed: &str) -> Result<Vec<String>, CliError> {
    let names: Vec<String> = context.engine()?.short_names(typed)?.iter().map(Reference::to_string).collect();
    Ok(if names.is_empty() { vec![typed.to_owned()] } else { names })
}

/// The first of several that can be fetched.
pub(crate) fn pull_first(
    context: &Context,
    requests: Vec<PullRequest>,
    show: Show,
) -> Result<(PullRequest, Pulled), CliError> {
    let mut last = CliError::new("invalid reference format: the name is empty");
    for request in requests {
        match pull(context, &request, show) {
            Ok(pulled) => return Ok((request, pulled)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A pull request of a name, with `--platform`.
pub(crate) fn request(name: &str, platform: Option<&str>) -> Result<PullRequest, CliError> {
    let reference: Reference = name.parse().map_err(|e: oci::ReferenceError| CliError::new(e.to_string()))?;
    let platform = platform.map(str::parse::<Platform>).transpose().map_err(|e| CliError::flag(e.to_string()))?;
    Ok(PullRequest { platform, ..PullRequest::new(reference) })
}

/// Makes a container; pulls its image first where `--pull` says so.
pub(crate) fn create_or_pull(
    context: &Context,
    spec: &ContainerSpec,
    options: &ContainerOptions,
) -> Result<Created, CliError> {
    let failed = |e: CliError| e.with_code(ENGINE_FAILED);
    let cidfile = options.cidfile.as_ref().map(|path| CidFile::new(path)).transpose().map_err(failed)?;
    let mut spec = spec.clone();
    let show = Show { to_stdout: false, ..Show::lines(options.quiet) };
    let fetch = |names: &[String]| -> Result<String, CliError> {
        let requests = names.iter().map(|name| request(name, options.platform.as_deref()));
        let (request, pulled) = pull_first(context, requests.collect::<Result<_, _>>()?, show)?;
        if !options.quiet {
            context.say(format_args!("Digest: {}", pulled.digest));
            context.say(status(&request, &pulled));
        }
        Ok(request.reference.to_string())
    };
    if options.pull == "always" {
        spec.image = fetch(&names(context, &spec.image).map_err(failed)?).map_err(failed)?;
    } else if image_is_missing(context, &spec.image).map_err(failed)? {
        // A short id is no name a registry could know.
        let reference = spec.image.parse::<Reference>().map_err(|e| failed(CliError::new(e.to_string())))?;
        let names = names(context, &spec.image).map_err(failed)?;
        if let Some(here) = names.iter().find(|name| image_is_missing(context, name).is_ok_and(|missing| !missing)) {
            spec.image.clone_from(here);
        } else if options.pull == "never" {
            return Err(failed(
                CliError::new(format!("No such image: {}", reference.familiar()))
                    .with_hint("--pull never forbids fetching it"),
            ));
        } else {
            context.say(format_args!("Unable to find image '{}' locally", reference.familiar()));
            spec.image = fetch(&names).map_err(failed)?;
        }
    }
    let created = context.engine().map_err(failed)?.create(&spec).map_err(with_exit_code)?;
    if let Some(file) = cidfile {
        file.write(&created.id).map_err(failed)?;
    }
    Ok(created)
}

/// A pull's last word.
pub(crate) fn status(request: &PullRequest, pulled: &Pulled) -> String {
    let name = request.reference.familiar();
    match pulled.up_to_date {
        true => format!("Status: Image is up to date for {name}"),
        false => format!("Status: Downloaded newer image for {name}"),
    }
}

fn image_is_missing(context: &Context, name: &str) -> Result<bool, CliError> {
    match context.engine()?.store().image(name) {
        Ok(_) => Ok(false),
        Err(store::StoreError::NoSuchImage(_)) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// `--cidfile`: refused where there is one already, removed again if no id gets into it.
struct CidFile<'a> {
    path: &'a std::path::Path,
    file: std::fs::File,
    filled: bool,
}

impl<'a> CidFile<'a> {
    fn new(path: &'a std::path::Path) -> Result<CidFile<'a>, CliError> {
        match std::fs::File::create_new(path) {
            Ok(file) => Ok(CidFile { path, file, filled: false }),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(CliError::new(format!(
                "container ID file found, make sure the other container isn't running or delete {}",
                path.display()
            ))),
            Err(e) => Err(CliError::new(format!("cannot create {}: {}", path.display(), e))),
        }
    }

    fn write(mut self, id: &str) -> Result<(), CliError> {
        self.file.write_all(id.as_bytes()).map_err(|e| CliError::io("write", self.path.display(), &e))?;
        self.filled = true;
        Ok(())
    }
}

impl Drop for CidFile<'_> {
    fn drop(&mut self) {
        if !self.filled {
            let _ = std::fs::remove_file(self.path);
        }
    }
}
