//! `ctr image referrers`.

use super::image_names;
use crate::context::Context;
use crate::error::CliError;
use crate::options::registry::RegistryOptions;
use crate::output::format::Listing;
use crate::output::units;
use clap::Parser;
use engine::AttachRequest;
use oci::{Descriptor, Digest, Reference};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// List, fetch and attach what refers to an image at its registry: signatures, SBOMs and the like
///
/// A registry that keeps no track of such things gets a list of them under the tag sha256-DIGEST, as the distribution
/// specification has it.
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// With --attach: free text about it, KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE", requires = "attach")]
    annotation: Vec<String>,
    /// Attach a file
    #[arg(long, value_name = "FILE", requires = "artifact_type")]
    attach: Option<PathBuf>,
    /// Fetch an artifact's files, by its digest or the beginning of it; 'all' are all that --artifact-type leaves
    #[arg(long, value_name = "DIGEST", conflicts_with = "attach")]
    fetch: Option<String>,
    /// json, table, or a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Don't shorten digests
    #[arg(long)]
    no_trunc: bool,
    /// Where fetched files go
    #[arg(short, long, value_name = "FOLDER", default_value = ".")]
    output: PathBuf,
    /// Print digests only
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryOptions,
    /// Only those of this type, or the type of what is attached: application/spdx+json
    #[arg(long = "artifact-type", visible_alias = "type", value_name = "TYPE")]
    artifact_type: Option<String>,
    /// The image, by tag or digest
    #[arg(value_name = "IMAGE")]
    image: String,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let tls_verify = args.registry.apply(context);
    let image = image_names::reference(&args.image)?;
    if let Some(file) = &args.attach {
        return attach(&args, file, &image, tls_verify, context);
    }
    if let Some(digest) = &args.fetch {
        return fetch(&args, digest, &image, tls_verify, context);
    }
    let found = context.engine()?.referrers(&image, args.artifact_type.as_deref(), tls_verify)?;
    let rows = found.iter().map(|entry| row(entry, &args)).collect();
    let listing = Listing {
        rows,
        columns: vec![("DIGEST", "Digest"), ("TYPE", "Type"), ("SIZE", "Size"), ("CREATED", "CreatedAt")],
        titles: &[("ANNOTATIONS", "Annotations")],
        id: "Digest",
    };
    listing.print(context, args.format.as_deref(), args.quiet)?;
    Ok(ExitCode::SUCCESS)
}

fn row(entry: &Descriptor, args: &Args) -> serde_json::Value {
    let short = || format!("{}:{}", entry.digest.algorithm(), entry.digest.short());
    json!({
        // Digests are what is typed next, so a list for programs has them whole.
        "Digest": if args.no_trunc || args.quiet || args.format.is_some() { entry.digest.to_string() } else { short() },
        "Type": entry.artifact_type,
        "MediaType": entry.media_type,
        "Size": units::size(entry.size),
        "CreatedAt": entry.annotations.get("org.opencontainers.image.created").map_or("", String::as_str),
        "Annotations": entry.annotations,
    })
}

fn attach(
    args: &Args,
    file: &Path,
    image: &Reference,
    tls_verify: bool,
    context: &mut Context,
) -> Result<ExitCode, CliError> {
    let pair = |text: &String| {
        let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
        let pair = pair.ok_or_else(|| CliError::flag(format!("invalid annotation {text:?}: expected KEY=VALUE")));
        pair.map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    let request = AttachRequest {
        image: image.clone(),
        file: file.to_owned(),
        artifact_type: args.artifact_type.clone().unwrap_or_default(),
        annotations: args.annotation.iter().map(pair).collect::<Result<_, _>>()?,
        tls_verify,
    };
    let digest = context.engine()?.attach_artifact(&request)?;
    context.print(digest)?;
    Ok(ExitCode::SUCCESS)
}

/// The one of a digest (or the beginning of one), or all.
fn fetch(
    args: &Args,
    text: &str,
    image: &Reference,
    tls_verify: bool,
    context: &mut Context,
) -> Result<ExitCode, CliError> {
    let all = |context: &Context| -> Result<Vec<Digest>, CliError> {
        let found = context.engine()?.referrers(image, args.artifact_type.as_deref(), tls_verify)?;
        Ok(found.into_iter().map(|entry| entry.digest).collect())
    };
    let wanted = match text.parse::<Digest>() {
        Ok(digest) => vec![digest],
        Err(_) if text == "all" => all(context)?,
        Err(_) => {
            let fits = |digest: &Digest| digest.as_str().starts_with(text) || digest.hex().starts_with(text);
            let found: Vec<Digest> = all(context)?.into_iter().filter(fits).collect();
            if found.len() > 1 {
                return Err(CliError::new(format!("ambiguous digest {text:?}: {} begin with it", found.len())));
            }
            found
        }
    };
    if wanted.is_empty() {
        return Err(CliError::new(format!("nothing like that refers to {}", image.familiar())));
    }
    for digest in wanted {
        for file in context.engine()?.fetch_referrer(image, &digest, &args.output, tls_verify)? {
            context.print(file.display())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
