//! `ctr build`.

use super::{image_names, push};
use crate::context::{Context, read_stdin};
use crate::error::CliError;
use crate::options::{env, units, values};
use crate::output::build_view::BuildView;
use crate::output::transfer::Show;
use builder::{
    BuildError, BuildNetwork, BuildRequest, Containerfile, FetchedContext, GitContext, NamedContext, PullPolicy, Secret,
    SshAgent,
};
use clap::Parser;
use engine::PushRequest;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The largest Containerfile taken from standard input, in bytes.
const MAX_CONTAINERFILE_BYTES: u64 = 4 << 20;

/// Build an image from a Containerfile
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Add a line to /etc/hosts of RUN steps: name:ip
    #[arg(long, value_name = "NAME:IP")]
    add_host: Vec<String>,
    /// Let a stage or an image of this name be a folder, docker-image://IMAGE, oci-layout://FOLDER[:TAG], a git repository
    /// or the URL of a tar
    #[arg(long, value_name = "NAME=VALUE")]
    build_context: Vec<String>,
    /// Set a build-time variable, or take it from the caller's environment (NAME alone)
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// The recipe (default: Containerfile, else Dockerfile, in the context), or - for standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Say what the recipe is worth a warning for, and build nothing
    #[arg(long)]
    check: bool,
    /// Instead of building: check the recipe, or list its targets
    #[arg(long, value_name = "WHAT", default_value = "build", value_parser = ["build", "check", "targets"])]
    call: String,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// How many steps may run at once (0: as many as there are)
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    jobs: usize,
    /// Set a label of the image
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Put the image into the store (it always is)
    #[arg(long, hide = true)]
    load: bool,
    /// The network of RUN steps: default, none, host
    #[arg(long, alias = "net", value_name = "NETWORK", default_value = "default", value_parser = ["default", "bridge", "none", "host"])]
    network: String,
    /// Run every step anew
    #[arg(long)]
    no_cache: bool,
    /// Build these stages anew
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// What to build for: os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// How to show progress: auto, plain, tty, quiet
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = ["auto", "plain", "tty", "quiet", "rawjson"])]
    progress: String,
    /// Fetch base images though they are here
    #[arg(long)]
    pull: bool,
    /// Send the image to the registries of its names
    #[arg(long)]
    push: bool,
    /// Print the image's id only
    #[arg(short, long)]
    quiet: bool,
    /// Remove intermediate containers (there are none)
    #[arg(long, hide = true)]
    rm: bool,
    /// Remove intermediate containers (there are none)
    #[arg(long, hide = true)]
    force_rm: bool,
    /// A secret for RUN --mount=type=secret: id=ID[,src=FILE|,env=NAME]
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// The size of /dev/shm in RUN steps
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    shm_size: Option<u64>,
    /// An ssh agent for RUN --mount=type=ssh: default, or ID=SOCKET
    #[arg(long, value_name = "ID[=SOCKET]")]
    ssh: Vec<String>,
    /// Name the image
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// Build this stage
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Limit what a RUN step's processes may take: NAME=SOFT[:HARD]
    #[arg(long, value_name = "LIMIT", value_parser = values::parse_ulimit)]
    ulimit: Vec<engine::Ulimit>,
    /// What COPY and ADD read from: a folder, a git repository (https://host/x.git#branch:folder), the URL of a tar, or -
    /// for a tar or a Containerfile on standard input
    #[arg(value_name = "CONTEXT")]
    context: PathBuf,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let fetched = fetched(&args, context)?;
    let request = request(&args, fetched.as_ref(), context)?;
    match args.call.as_str() {
        "targets" => return targets(&request, context),
        "check" => return check(&request, context),
        _ if args.check => return check(&request, context),
        _ if args.push && request.tags.is_empty() => {
            return Err(CliError::flag("--push needs a name: give one with -t"));
        }
        _ => {}
    }
    let quiet = args.quiet || args.progress == "quiet";
    if args.progress == "rawjson" {
        return Err(CliError::flag("--progress rawjson is not supported: use auto, plain, tty or quiet"));
    }
    let live = match args.progress.as_str() {
        "tty" => true,
        "plain" => false,
        _ => context.draws_progress(),
    };
    let view = BuildView::new(context, quiet, live);
    let result = builder::build(context.engine()?, &request, &|event| view.event(event));
    view.finish(result.is_ok());
    let built = result.map_err(|error| {
        view.explain(&error);
        described(error)
    })?;
    if let Some(path) = &args.iidfile {
        std::fs::write(path, built.image_id.as_str()).map_err(|e| CliError::io("write", path.display(), &e))?;
    }
    if quiet {
        context.print(&built.image_id)?;
    } else {
        view.built(&built, &request.tags);
    }
    for reference in request.tags.into_iter().filter(|_| args.push) {
        push::push(context, PushRequest { reference, tls_verify: true }, Show::lines(quiet))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Docker's words for a recipe that was only looked at; warnings are a failure.
fn check(request: &BuildRequest, context: &mut Context) -> Result<ExitCode, CliError> {
    let recipe = builder::check(request).map_err(described)?;
    match recipe.warnings.len() {
        0 => context.print("Check complete, no warnings found.")?,
        1 => context.print("Check complete, 1 warning has been found!")?,
        many => context.print(format_args!("Check complete, {many} warnings have been found!"))?,
    }
    for warning in &recipe.warnings {
        context.print(format_args!("\nWARNING: {warning}"))?;
    }
    Ok(if recipe.warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn targets(request: &BuildRequest, context: &mut Context) -> Result<ExitCode, CliError> {
    let recipe = builder::check(request).map_err(described)?;
    context.print("TARGET")?;
    for stage in &recipe.stages {
        context.print(format_args!("{}{}", stage.name, if stage.is_target { " (default)" } else { "" }))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn described(error: BuildError) -> CliError {
    let made = CliError::new(error.to_string());
    match error.hint() {
        Some(hint) => made.with_hint(hint.to_owned()),
        None => made,
    }
}

/// A context that is not a folder of this machine.
fn fetched(args: &Args, context: &Context) -> Result<Option<FetchedContext>, CliError> {
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

fn request(args: &Args, fetched: Option<&FetchedContext>, context: &Context) -> Result<BuildRequest, CliError> {
    let folder = match fetched {
        Some(fetched) => fetched.folder().to_owned(),
        None => build_context(&args.context)?,
    };
    let stdin = Path::new("-");
    // Beside a folder of this machine a recipe is looked for from here, else in what was fetched.
    let file = args.file.as_ref().map(|file| match fetched {
        Some(_) if file != stdin => folder.join(file),
        _ => file.clone(),
    });
    let containerfile = match (fetched.and_then(FetchedContext::containerfile), file.as_deref()) {
        (Some(given), None) => given.clone(),
        (_, Some(file)) if file == stdin => Containerfile::from_text("-", read_stdin(MAX_CONTAINERFILE_BYTES)?),
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
    request.platform = args
        .platform
        .as_ref()
        .map(|text| text.parse().map_err(|e: oci::PlatformError| CliError::flag(e.to_string())))
        .transpose()?;
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
    request.source_date_epoch = match context.env_set("SOURCE_DATE_EPOCH") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            CliError::new(format!("invalid SOURCE_DATE_EPOCH {text:?}: expected seconds since 1970"))
        })?),
    };
    Ok(request)
}

/// The context is a folder: what else docker takes is named in the error.
fn build_context(path: &Path) -> Result<PathBuf, CliError> {
    let text = path.to_string_lossy();
    if text.contains("://") {
        return Err(CliError::new(format!("the context {text:?} is neither a folder of this machine, nor a git repository, nor a URL")));
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
