//! `ctr build`: flags → a request.

use super::build::{Args, described};
use super::image_names;
use crate::context::{Context, read_stdin};
use crate::error::CliError;
use crate::options::env;
use builder::{
    BuildNetwork, BuildRequest, CacheOrigin, Containerfile, FetchedContext, GitContext, NamedContext, PullPolicy,
    Secret, SshAgent,
};
use oci::Platform;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The largest Containerfile taken from standard input, in bytes.
const MAX_CONTAINERFILE_BYTES: u64 = 4 << 20;

/// A context that is not a folder of this machine.
pub(super) fn fetched(args: &Args, context: &Context) -> Result<Option<FetchedContext>, CliError> {
    let fetched = if args.context == Path::new("-") {
        if args.file.as_deref() == Some(Path::new("-")) {
            return Err(CliError::flag("standard input cannot be both the context and the Containerfile"));
        }
        builder::fetch_stream(context.engine()?, "-", std::io::stdin().lock())
    } else {
        let Some(text) = args.context.to_str() else { return Ok(None) };
        match GitContext::parse(text) {
            Some(repository) => {
                let keep = args.build_arg.iter().any(|arg| arg == "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1");
                repository.fetch(context.engine()?, keep)
            }
            None if builder::is_url(text) => builder::fetch_url(context.engine()?, text),
            None => return Ok(None),
        }
    };
    fetched.map(Some).map_err(described)
}

pub(super) fn request(
    args: &Args,
    fetched: Option<&FetchedContext>,
    context: &Context,
) -> Result<BuildRequest, CliError> {
    let folder = match fetched {
        Some(fetched) => fetched.folder().to_owned(),
        None => build_context(&args.context)?,
    };
    let stdin = Path::new("-");
    let containerfile = match (fetched.and_then(FetchedContext::containerfile), args.file.as_deref()) {
        (Some(given), None) => given.clone(),
        (_, Some(file)) if file == stdin => Containerfile::from_text("-", read_stdin(MAX_CONTAINERFILE_BYTES)?),
        // Beside a folder of this machine a recipe is looked for from here, else in what was fetched.
        (_, Some(file)) if fetched.is_some() => Containerfile::find_in(&folder, file).map_err(described)?,
        (_, file) => Containerfile::find(&folder, file).map_err(described)?,
    };
    let lookup = |name: &str| context.env(name);
    let mut request = BuildRequest::new(folder, containerfile);
    request.tags = args.tag.iter().map(|name| image_names::tag(name)).collect::<Result<_, _>>()?;
    for (name, value) in env::variables(&[], &args.build_arg, &lookup)? {
        // A bare NAME that the caller's environment lacks is as if not given.
        request.build_args.extend(value.map(|value| (name, value)));
    }
    request.target = args.target.clone();
    request.no_cache = args.no_cache;
    request.pull = if args.pull { PullPolicy::Always } else { PullPolicy::Missing };
    request.labels = env::labels(&[], &args.label)?;
    request.platform = platforms(args)?.into_iter().next().flatten();
    let origin = |text: &String| CacheOrigin::parse(text).map_err(|e| CliError::flag(e.to_string()));
    request.cache_from = args.cache_from.iter().map(origin).collect::<Result<_, _>>()?;
    request.annotations = annotations(&args.annotation, "manifest")?;
    request.network = match args.network.as_str() {
        "none" => BuildNetwork::None,
        "host" => BuildNetwork::Host,
        _ => BuildNetwork::Default,
    };
    request.secrets = args
        .secret
        .iter()
        .map(|text| Secret::parse(text, &lookup).map_err(|e| CliError::flag(e.to_string())))
        .collect::<Result<_, _>>()?;
    let named = |text: &String| NamedContext::parse(text).map_err(|e| CliError::flag(e.to_string()));
    request.contexts = args.build_context.iter().map(named).collect::<Result<_, _>>()?;
    let agent = |text: &String| SshAgent::parse(text, &lookup).map_err(|e| CliError::flag(e.to_string()));
    request.ssh = args.ssh.iter().map(agent).collect::<Result<_, _>>()?;
    request.no_cache_filter.clone_from(&args.no_cache_filter);
    request.jobs = args.jobs;
    request.squash = args.squash;
    request.allow_insecure = args.allow.iter().any(|name| name == "security.insecure");
    request.shm_size_bytes = args.shm_size;
    request.ulimits.clone_from(&args.ulimit);
    for text in &args.add_host {
        let at = text.find([':', '=']).filter(|at| *at > 0);
        let at = at.ok_or_else(|| CliError::flag(format!("bad format for add-host: {text:?}: expected NAME:IP")))?;
        let address = text[at + 1..].trim_matches(['[', ']']);
        if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
            return Err(CliError::flag(format!("invalid IP address in add-host: {address:?}")));
        }
        request.add_hosts.push((text[..at].to_owned(), address.to_owned()));
    }
    const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "FTP_PROXY", "ALL_PROXY"];
    for name in PROXIES.into_iter().flat_map(|name| [name.to_owned(), name.to_lowercase()]) {
        request.proxies.extend(context.env_set(&name).map(|value| (name, value)));
    }
    let given = request.build_args.iter().rev().find(|(name, _)| name == "SOURCE_DATE_EPOCH").map(|(_, v)| v.clone());
    request.source_date_epoch =
        match given.or_else(|| context.env_set("SOURCE_DATE_EPOCH")) {
            None => args.reproducible.then_some(0),
            Some(text) => Some(text.parse().map_err(|_| {
                CliError::new(format!("invalid SOURCE_DATE_EPOCH {text:?}: expected seconds since 1970"))
            })?),
        };
    Ok(request)
}

/// The platforms asked for; a lone None is this machine's.
pub(super) fn platforms(args: &Args) -> Result<Vec<Option<Platform>>, CliError> {
    let parse = |text: &String| text.parse().map(Some).map_err(|e: oci::PlatformError| CliError::flag(e.to_string()));
    let mut found = args.platform.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    found.dedup();
    Ok(if found.is_empty() { vec![None] } else { found })
}

/// The annotations meant for `level`: `manifest` or `index`. One without a level is the manifest's.
pub(super) fn annotations(list: &[String], level: &str) -> Result<BTreeMap<String, String>, CliError> {
    let mut found = BTreeMap::new();
    for text in list {
        let wrong = || CliError::flag(format!("invalid --annotation {text:?}: expected [manifest:|index:]KEY=VALUE"));
        let (key, value) = text.split_once('=').ok_or_else(wrong)?;
        let (levels, key) = match key.split_once(':') {
            Some((levels, key)) if levels.split(',').all(|l| matches!(l, "manifest" | "index")) => (levels, key),
            _ => ("manifest", key),
        };
        if key.is_empty() {
            return Err(wrong());
        }
        if levels.split(',').any(|named| named == level) {
            found.insert(key.to_owned(), value.to_owned());
        }
    }
    Ok(found)
}

/// The context is a folder: what else docker takes is named in the error.
fn build_context(path: &Path) -> Result<PathBuf, CliError> {
    let text = path.to_string_lossy();
    if text.contains("://") {
        return Err(CliError::new(format!(
            "the context {text:?} is neither a folder of this machine, nor a git repository, nor a URL"
        )));
    }
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(path.to_owned()),
        Ok(_) => Err(CliError::new(format!("the context {text:?} is not a folder"))
            .with_hint("name the folder, and the Containerfile by -f")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(CliError::new(format!("unable to prepare context: path {text:?} not found")))
        }
        Err(e) => Err(CliError::io("open the context", text, &e)),
    }
}
