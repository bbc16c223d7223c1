//! `ctr build`: what becomes of what was built.

use super::build::{Args, described};
use super::{build_request, image_names, push, save};
use crate::context::Context;
use crate::error::CliError;
use crate::options::build_output::BuildOutput;
use crate::output::transfer::{PushView, Show};
use builder::Built;
use engine::PushRequest;
use oci::{Descriptor, Document, Index, MediaType, Reference};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use store::{ArchiveFormat, Image};

/// All that is asked for.
pub(super) struct Outputs {
    list: Vec<BuildOutput>,
    names: Vec<Reference>,
}

impl Outputs {
    /// What the flags ask for; without any it is an image of the store.
    pub(super) fn of(args: &Args, tags: Vec<Reference>) -> Result<Outputs, CliError> {
        let mut list = args.output.clone();
        if args.push || (args.load && !list.is_empty()) || list.is_empty() {
            list.push(BuildOutput::Image { names: Vec::new(), push: args.push });
        }
        let mut names = Vec::new();
        for output in &list {
            let BuildOutput::Image { names: more, push } = output else { continue };
            for name in tags.iter().chain(more).filter(|name| !names.contains(*name)).cloned().collect::<Vec<_>>() {
                image_names::tag(&name.to_string())?;
                names.push(name);
            }
            if *push && names.is_empty() {
                return Err(CliError::flag("--push needs a name: give one with -t"));
            }
        }
        if list.iter().filter(|output| output.takes_stdout()).count() > 1 {
            return Err(CliError::flag("only one output can go to standard output"));
        }
        if list.iter().any(BuildOutput::takes_stdout) && std::io::stdout().is_terminal() {
            return Err(CliError::flag("refusing to write an archive to a terminal: give dest=FILE, or redirect it"));
        }
        // Archives carry the names, the store keeps them only if it is one of the outputs.
        let is_stored = list.iter().any(|output| matches!(output, BuildOutput::Image { .. }));
        let mut made = Outputs { list, names };
        if !is_stored {
            made.list.iter_mut().for_each(|output| {
                if let BuildOutput::Archive { names, .. } | BuildOutput::Layout { names, .. } = output {
                    names.extend(tags.iter().cloned());
                }
            });
        } else {
            let all = made.names.clone();
            made.list.iter_mut().for_each(|output| {
                if let BuildOutput::Archive { names, .. } | BuildOutput::Layout { names, .. } = output {
                    names.extend(all.iter().cloned());
                }
            });
        }
        Ok(made)
    }

    /// The names of the store's image.
    pub(super) fn names(&self) -> &[Reference] {
        &self.names
    }

    /// Anything but files alone.
    pub(super) fn need_image(&self) -> bool {
        self.list.iter().any(|o| !matches!(o, BuildOutput::Local(_) | BuildOutput::Tar(_) | BuildOutput::CacheOnly))
    }

    fn keep_image(&self) -> bool {
        self.list.iter().any(|output| matches!(output, BuildOutput::Image { .. }))
    }
}

/// Writes everything that was asked for, in order, and says what there is to say.
pub(super) fn write(
    args: &Args,
    outputs: &Outputs,
    results: &[Built],
    quiet: bool,
    context: &mut Context,
) -> Result<(), CliError> {
    let index_annotations = build_request::annotations(&args.annotation, "index")?;
    let mut index = None;
    for output in &outputs.list {
        match output {
            BuildOutput::CacheOnly => {}
            BuildOutput::Local(folder) => local(folder, results)?,
            BuildOutput::Tar(dest) => {
                let [built] = results else { return Err(one_platform("tar")) };
                let engine = context.engine()?;
                to_file(dest.as_deref(), |out| builder::export_tar(engine, built, out).map_err(described))?;
            }
            BuildOutput::Archive { is_docker, dest, names } => {
                let images = images(results, context)?;
                archive(*is_docker, dest.as_deref(), names, &images, &index_annotations, context)?;
            }
            BuildOutput::Layout { dest, names } => {
                layout(dest, names, &images(results, context)?, &index_annotations, context)?;
            }
            BuildOutput::Image { push: true, .. } => {
                index = push_all(outputs, results, &index_annotations, quiet, context)?;
            }
            BuildOutput::Image { .. } => {}
        }
    }
    describe(args, outputs, results, index, context)?;
    if !outputs.keep_image() && outputs.need_image() {
        for built in results.iter().filter(|built| built.is_new) {
            // It was needed for the archive only; another build may hold on to it by now.
            let _kept = context.engine()?.store().remove_image(built.image_id.as_str(), false, &|_| false);
        }
    }
    let takes_stdout = outputs.list.iter().any(BuildOutput::takes_stdout);
    if quiet && !takes_stdout {
        for built in results {
            context.print(&built.image_id)?;
        }
    }
    Ok(())
}

fn one_platform(kind: &str) -> CliError {
    CliError::flag(format!("type={kind} is for one platform: use type=oci, type=local or type=registry for several"))
}

/// A folder; of several platforms one below it for each.
fn local(folder: &Path, results: &[Built]) -> Result<(), CliError> {
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    for built in results {
        let folder = match results.len() {
            1 => folder.to_owned(),
            _ => folder.join(built.platform.to_string().replace('/', "_")),
        };
        // The folder that the user names may be a link; one in it is of an earlier result.
        if results.len() > 1 && folder.is_symlink() {
            let message = format!("cannot write {}: it is a link", folder.display());
            return Err(CliError::new(message).with_hint("remove it, or name another folder"));
        }
        builder::export_files(built, &folder, owner).map_err(described)?;
    }
    Ok(())
}

fn to_file(dest: Option<&Path>, write: impl FnOnce(&mut dyn Write) -> Result<(), CliError>) -> Result<(), CliError> {
    match dest {
        Some(path) => save::write_file(path, write),
        None => write(&mut std::io::stdout().lock()),
    }
}

fn images(results: &[Built], context: &Context) -> Result<Vec<Image>, CliError> {
    let store = context.engine()?.store();
    Ok(results.iter().map(|built| store.image(built.image_id.as_str())).collect::<Result<_, _>>()?)
}

fn archive(
    is_docker: bool,
    dest: Option<&Path>,
    names: &[Reference],
    images: &[Image],
    annotations: &BTreeMap<String, String>,
    context: &Context,
) -> Result<(), CliError> {
    let store = context.engine()?.store();
    to_file(dest, |out| match images {
        [image] => {
            let format = if is_docker { ArchiveFormat::Docker } else { ArchiveFormat::Oci };
            Ok(store.save_as(&[(image.clone(), names.to_vec())], format, out)?)
        }
        _ if is_docker => Err(one_platform("docker")),
        many => Ok(store.save_index(many, names, annotations, out)?),
    })
}

/// OCI's layout as a folder; what other images are in there stay.
fn layout(
    dest: &Path,
    names: &[Reference],
    images: &[Image],
    annotations: &BTreeMap<String, String>,
    context: &Context,
) -> Result<(), CliError> {
    let store = context.engine()?.store();
    let blobs = dest.join("blobs/sha256");
    let fail = |path: &Path| {
        let shown = path.display().to_string();
        move |e: std::io::Error| CliError::io("write", shown, &e)
    };
    std::fs::create_dir_all(&blobs).map_err(fail(&blobs))?;
    let put = |path: PathBuf, bytes: &[u8]| save::write_file(&path, |out| out.write_all(bytes).map_err(fail(&path)));
    let mut top = None;
    for image in images {
        let (descriptor, bytes) = store.manifest_of(image)?;
        if let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, Some(&descriptor.media_type)) {
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                let path = blobs.join(blob.digest.hex());
                let mut file = store.open_blob(blob, 0)?;
                save::write_file(&path, |out| std::io::copy(&mut file, out).map(drop).map_err(fail(&path)))?;
            }
        }
        put(blobs.join(descriptor.digest.hex()), &bytes)?;
        top = Some(descriptor);
    }
    if images.len() > 1 {
        let (descriptor, bytes) = store.index_of(images, annotations)?;
        put(blobs.join(descriptor.digest.hex()), &bytes)?;
        top = Some(descriptor);
    }
    let Some(top) = top else { return Ok(()) };
    let path = dest.join("index.json");
    let before = std::fs::read(&path).ok();
    let before = before.and_then(|bytes| Document::parse(&bytes, Some(MediaType::OCI_INDEX)).ok());
    let mut manifests: Vec<Descriptor> = match before {
        Some(Document::Index(index)) => index.manifests,
        _ => Vec::new(),
    };
    const REF_NAME: &str = "org.opencontainers.image.ref.name";
    let mut named: Vec<Descriptor> = Vec::new();
    for name in names {
        let mut descriptor = top.clone();
        descriptor.annotations.insert(REF_NAME.to_owned(), name.tag().unwrap_or("latest").to_owned());
        named.push(descriptor);
    }
    if named.is_empty() {
        named.push(top);
    }
    let name_of = |d: &Descriptor| d.annotations.get(REF_NAME).cloned();
    manifests.retain(|old| !named.iter().any(|new| name_of(new) == name_of(old)));
    manifests.extend(named);
    let media_type = Some(MediaType::OCI_INDEX.to_owned());
    let index = Index { schema_version: 2, media_type, manifests, annotations: BTreeMap::new() };
    put(dest.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    put(path, &serde_json::to_vec(&index).unwrap_or_default())
}

/// Pushes each name; of several platforms their index, whose descriptor is returned.
fn push_all(
    outputs: &Outputs,
    results: &[Built],
    annotations: &BTreeMap<String, String>,
    quiet: bool,
    context: &mut Context,
) -> Result<Option<Descriptor>, CliError> {
    if results.len() == 1 {
        for reference in outputs.names.iter().cloned() {
            push::push(context, PushRequest { reference, tls_verify: true }, Show::lines(quiet))?;
        }
        return Ok(None);
    }
    context.flush()?;
    let ids: Vec<_> = results.iter().map(|built| built.image_id.clone()).collect();
    for reference in outputs.names.iter().cloned() {
        let request = PushRequest { reference, tls_verify: true };
        let view = PushView::new(context, Show::lines(quiet));
        let pushed = context.engine()?.push_index(&ids, &request, annotations, &|event| view.event(&event));
        view.finish();
        let pushed = pushed?;
        if !quiet {
            let tag = request.reference.tag_or_digest();
            context.print(format_args!("{tag}: digest: {} size: {}", pushed.digest, pushed.size_bytes))?;
        }
    }
    let images = images(results, context)?;
    Ok(Some(context.engine()?.store().index_of(&images, annotations)?.0))
}

/// `--iidfile` and `--metadata-file`.
fn describe(
    args: &Args,
    outputs: &Outputs,
    results: &[Built],
    index: Option<Descriptor>,
    context: &Context,
) -> Result<(), CliError> {
    let Some(first) = results.first() else { return Ok(()) };
    let write = |path: &PathBuf, text: String| {
        save::write_file(path, |out| {
            out.write_all(text.as_bytes()).map_err(|e| CliError::io("write", path.display(), &e))
        })
    };
    if let Some(path) = &args.iidfile {
        write(path, first.image_id.to_string())?;
    }
    let Some(path) = &args.metadata_file else { return Ok(()) };
    let mut metadata = serde_json::Map::new();
    metadata.insert("containerimage.config.digest".to_owned(), json!(first.image_id));
    if outputs.need_image() {
        let known = context.engine()?.store().image(first.image_id.as_str()).ok().and_then(|image| image.manifest);
        // Before the first push or save an image has no manifest: its id is all there is.
        let descriptor = index.or(known);
        let digest = descriptor.as_ref().map_or(&first.image_id, |descriptor| &descriptor.digest);
        metadata.insert("containerimage.digest".to_owned(), json!(digest));
        if let Some(descriptor) = &descriptor {
            metadata.insert("containerimage.descriptor".to_owned(), json!(descriptor));
        }
    }
    let names: Vec<String> = outputs.names.iter().map(ToString::to_string).collect();
    if !names.is_empty() {
        metadata.insert("image.name".to_owned(), json!(names.join(",")));
    }
    write(path, format!("{}\n", serde_json::to_string_pretty(&metadata).unwrap_or_default()))
}
