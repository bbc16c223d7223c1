//! `ctr images`.

use crate::context::Context;
use crate::error::CliError;
use crate::options::filter::Filters;
use crate::output::container_rows::{at, since};
use crate::output::format::Listing;
use crate::output::units;
use clap::Parser;
use jiff::Timestamp;
use oci::Reference;
use serde_json::{Value, json};
use std::process::ExitCode;
use store::ImageSummary;

/// List images
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Show intermediate images too (there are none)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Only those that match: before, dangling, label, reference, since, until
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// json, table, or a template: '{{.Repository}}:{{.Tag}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Don't shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Only images of this repository or name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let filters = Filters::parse(&args.filter, &["before", "dangling", "label", "reference", "since", "until"])?;
    let images = context.engine()?.store().images()?;
    let now = Timestamp::now();
    let chosen = choose(&images, &filters, now, context)?;
    let mut patterns: Vec<&str> = filters.values("reference").iter().map(String::as_str).collect();
    patterns.extend(args.name.as_deref());
    let rows = chosen.iter().flat_map(|image| rows(image, &patterns, &args, now)).collect();
    let digest = args.digests.then_some(("DIGEST", "Digest"));
    // As podman does: only where there is anything to tell apart.
    let read_only = images.iter().any(|image| image.read_only).then_some(("R/O", "ReadOnly"));
    let listing = Listing {
        rows,
        columns: [("REPOSITORY", "Repository"), ("TAG", "Tag")]
            .into_iter()
            .chain(digest)
            .chain([("IMAGE ID", "ID"), ("CREATED", "CreatedSince"), ("SIZE", "Size")])
            .chain(read_only)
            .collect(),
        titles: &[("CREATED AT", "CreatedAt"), ("DIGEST", "Digest")],
        id: "ID",
    };
    if args.quiet && args.format.is_none() {
        // One image, one line, whatever the number of its names.
        let mut ids: Vec<&str> = listing.rows.iter().filter_map(|row| row["ID"].as_str()).collect();
        ids.dedup();
        for id in ids {
            context.print(id)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    listing.print(context, args.format.as_deref(), args.quiet)?;
    Ok(ExitCode::SUCCESS)
}

fn choose<'a>(
    images: &'a [ImageSummary],
    filters: &Filters,
    now: Timestamp,
    context: &Context,
) -> Result<Vec<&'a ImageSummary>, CliError> {
    let created = |key: &str| -> Result<Option<Timestamp>, CliError> {
        let Some(name) = filters.values(key).last() else { return Ok(None) };
        let id = context.engine()?.store().image(name)?.id;
        Ok(images.iter().find(|i| i.id == id).and_then(|i| i.created))
    };
    let (before, since) = (created("before")?, created("since")?);
    let until = match filters.values("until").last() {
        Some(text) => Some(
            crate::options::units::parse_time(text, now, &jiff::tz::TimeZone::UTC)
                .map_err(|e| CliError::flag(format!("invalid filter 'until': {e}")))?,
        ),
        None => None,
    };
    let dangling = filters.truth("dangling")?;
    let older = |image: &ImageSummary, time: Timestamp| image.created.is_some_and(|t| t < time);
    Ok(images
        .iter()
        .filter(|i| dangling.is_none_or(|wanted| i.is_dangling() == wanted))
        .filter(|i| before.is_none_or(|t| older(i, t)) && until.is_none_or(|t| older(i, t)))
        .filter(|i| since.is_none_or(|t| i.created.is_some_and(|c| c > t)))
        .filter(|i| filters.labels(&i.labels))
        .collect())
}

/// One row a name.
fn rows(image: &ImageSummary, patterns: &[&str], args: &Args, now: Timestamp) -> Vec<Value> {
    let digest_of = |repository: &str| {
        let found = image.repo_digests.iter().find(|d| d.familiar_name() == repository);
        found.and_then(|d| d.digest()).map_or_else(|| "<none>".to_owned(), ToString::to_string)
    };
    let row = |repository: String, tag: &str, digest: String| {
        let id = if args.no_trunc { image.id.to_string() } else { image.id.short().to_owned() };
        json!({
            "Repository": repository,
            "Tag": tag,
            "Digest": digest,
            "ID": id,
            "CreatedAt": image.created.map(at).unwrap_or_else(|| "N/A".to_owned()),
            "CreatedSince": image.created.map_or_else(
                || "N/A".to_owned(), |t| format!("{} ago", units::duration(since(t, now)))),
            "Size": units::size(image.size),
            "VirtualSize": units::size(image.size),
            "Containers": image.containers.to_string(),
            "SharedSize": "N/A",
            "UniqueSize": "N/A",
            "ReadOnly": image.read_only.to_string(),
        })
    };
    let wanted = |name: &Reference| patterns.is_empty() || patterns.iter().any(|p| matches_pattern(name, p));
    let mut rows: Vec<Value> = image
        .names
        .iter()
        .filter(|name| wanted(name))
        .map(|name| {
            let repository = name.familiar_name();
            let digest = digest_of(&repository);
            row(repository, name.tag().unwrap_or("<none>"), digest)
        })
        .collect();
    if image.names.is_empty() {
        match image.repo_digests.first() {
            Some(name) if wanted(name) => {
                let repository = name.familiar_name();
                let digest = digest_of(&repository);
                rows.push(row(repository, "<none>", digest));
            }
            None if patterns.is_empty() => rows.push(row("<none>".to_owned(), "<none>", "<none>".to_owned())),
            _ => {}
        }
    }
    rows
}

/// Whether a name matches `repo`, `repo:tag` or such with `*` and `?`.
fn matches_pattern(name: &Reference, pattern: &str) -> bool {
    let repository = name.familiar_name();
    let whole = name.familiar();
    let exact = pattern.parse::<Reference>().map(|p| p.familiar_name()).unwrap_or_default();
    let has_tag = pattern.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'));
    if has_tag || pattern.contains('@') {
        let canonical = pattern.parse::<Reference>().map(|p| p.familiar()).unwrap_or_default();
        return glob(pattern.as_bytes(), whole.as_bytes()) || whole == canonical;
    }
    glob(pattern.as_bytes(), repository.as_bytes()) || repository == exact
}

/// `*` is any run without a slash, `?` one character.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on if what follows the last star does not fit: one character further.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b'?') if text[t] != b'/' => (p, t) = (p + 1, t + 1),
            Some(c) if *c == text[t] && *c != b'?' => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) if text[from] != b'/' => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_docker_has_it() -> Result<(), oci::ReferenceError> {
        for (name, pattern, expected) in [
            ("busybox:1", "busybox", true),
            ("busybox:1", "busybox:1", true),
            ("busybox:1", "busybox:2", false),
            ("busybox:1", "busy*", true),
            ("busybox:1", "busy*:1", true),
            ("busybox:1", "b", false),
            ("user/app:1", "*/app", true),
            ("user/app:1", "*", false),
            ("user/app:1", "user/a??", true),
            ("busybox:latest", "docker.io/library/busybox", true),
            ("localhost:5000/app:1", "localhost:5000/app", true),
        ] {
            assert_eq!(matches_pattern(&name.parse()?, pattern), expected, "{name} {pattern}");
        }
        Ok(())
    }
}
