//! `ctr build`.

use super::{build_call, build_output, build_request};
use crate::context::{Context, read_stdin};
use crate::error::CliError;
use crate::options::build_output::BuildOutput;
use crate::options::{units, values};
use crate::output::build_json::BuildJson;
use crate::output::build_view::BuildView;
use crate::terminal::{DetachKeys, Session};
use builder::{BuildError, BuildRequest, Built, CacheTarget};
use clap::Parser;
use engine::{Engine, StepRequest};
use oci::{Platform, Reference};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// The longest script that --debug takes from a pipe, in bytes.
const MAX_SCRIPT_BYTES: u64 = 1 << 20;

/// Build an image from a Containerfile
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Add a line to /etc/hosts of RUN steps: name:ip
    #[arg(long, value_name = "NAME:IP")]
    pub(super) add_host: Vec<String>,
    /// Let the recipe have what it asks for: security.insecure (privileged RUN steps); network.host is always allowed
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',', value_parser = ["network.host", "security.insecure"])]
    pub(super) allow: Vec<String>,
    /// Annotate the image's manifest: [manifest:|index:]KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) annotation: Vec<String>,
    /// Let a stage or an image of this name be a folder, docker-image://IMAGE, oci-layout://FOLDER[:TAG], a git repository
    /// or the URL of a tar
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) build_context: Vec<String>,
    /// Set a build-time variable, or take it from the caller's environment (NAME alone)
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) build_arg: Vec<String>,
    /// Take what another machine's build made from there: NAME, or type=local|registry,src=FOLDER|ref=NAME
    #[arg(long, value_name = "CACHE")]
    pub(super) cache_from: Vec<String>,
    /// Keep what the steps made there: type=local|registry|inline,dest=FOLDER|ref=NAME[,mode=max]
    #[arg(long, value_name = "CACHE")]
    pub(super) cache_to: Vec<String>,
    /// When a RUN step fails, open a shell in what it left, with its environment and mounts
    #[arg(long)]
    pub(super) debug: bool,
    /// The recipe (default: Containerfile, else Dockerfile, in the context), or - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Say what the recipe is worth a warning for, and build nothing
    #[arg(long)]
    pub(super) check: bool,
    /// Instead of building: check the recipe, list its targets, or what it wants: check|outline|targets[,format=json]
    #[arg(long, value_name = "WHAT", default_value = "build")]
    pub(super) call: String,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    pub(super) iidfile: Option<PathBuf>,
    /// How many steps may run at once (0: as many as there are)
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(super) jobs: usize,
    /// Set a label of the image
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) label: Vec<String>,
    /// Put the image into the store (it always is)
    #[arg(long, hide = true)]
    pub(super) load: bool,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
    /// The network of RUN steps: default, none, host
    #[arg(long, alias = "net", value_name = "NETWORK", default_value = "default", value_parser = ["default", "bridge", "none", "host"])]
    pub(super) network: String,
    /// Run every step anew
    #[arg(long)]
    pub(super) no_cache: bool,
    /// Build these stages anew
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(super) no_cache_filter: Vec<String>,
    /// What the result becomes: type=local|tar|oci|docker|image|registry,dest=PATH; FOLDER alone is a local one's
    #[arg(short, long, value_name = "OUTPUT", value_parser = BuildOutput::parse)]
    pub(super) output: Vec<BuildOutput>,
    /// What to build for: os/arch[/variant]; several make an index
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub(super) platform: Vec<String>,
    /// Instead of building: print the recipe's stages and instructions as JSON
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    pub(super) print: Option<String>,
    /// How to show progress: auto, plain, tty, quiet, rawjson
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = ["auto", "plain", "tty", "quiet", "rawjson"])]
    pub(super) progress: String,
    /// Fetch base images though they are here
    #[arg(long)]
    pub(super) pull: bool,
    /// Send the image to the registries of its names
    #[arg(long)]
    pub(super) push: bool,
    /// Print the image's id only
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Remove intermediate containers (there are none)
    #[arg(long, hide = true)]
    pub(super) rm: bool,
    /// Remove intermediate containers (there are none)
    #[arg(long, hide = true)]
    pub(super) force_rm: bool,
    /// Let two builds of the same files give the same image: as SOURCE_DATE_EPOCH=0 where that is not set
    #[arg(long)]
    pub(super) reproducible: bool,
    /// A secret for RUN --mount=type=secret: id=ID[,src=FILE|,env=NAME]
    #[arg(long, value_name = "SECRET")]
    pub(super) secret: Vec<String>,
    /// The size of /dev/shm in RUN steps
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub(super) shm_size: Option<u64>,
    /// An ssh agent for RUN --mount=type=ssh: default, or ID=SOCKET
    #[arg(long, value_name = "ID[=SOCKET]")]
    pub(super) ssh: Vec<String>,
    /// Make one layer of those that the build puts on top of its base
    #[arg(long)]
    pub(super) squash: bool,
    /// Name the image
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(super) tag: Vec<String>,
    /// Build this stage
    #[arg(long, value_name = "STAGE")]
    pub(super) target: Option<String>,
    /// Limit what a RUN step's processes may take: NAME=SOFT[:HARD]
    #[arg(long, value_name = "LIMIT", value_parser = values::parse_ulimit)]
    pub(super) ulimit: Vec<engine::Ulimit>,
    /// What COPY and ADD read from: a folder, a git repository (https://host/x.git#branch:folder), the URL of a tar, or -
    /// for a tar or a Containerfile on standard input
    #[arg(value_name = "CONTEXT")]
    pub(super) context: PathBuf,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let fetched = build_request::fetched(&args, context)?;
    let mut request = build_request::request(&args, fetched.as_ref(), context)?;
    if let Some(done) = build_call::instead(&args, &request, context)? {
        return Ok(done);
    }
    let outputs = build_output::Outputs::of(&args, std::mem::take(&mut request.tags))?;
    let cache_to = args.cache_to.iter().map(|text| CacheTarget::parse(text)).collect::<Result<Vec<_>, _>>();
    let cache_to = cache_to.map_err(|e| CliError::flag(e.to_string()))?;
    let quiet = args.quiet || args.progress == "quiet";
    request.makes_image = outputs.need_image();
    let platforms = build_request::platforms(&args)?;
    request.shows_platform = platforms.len() > 1;
    let mut results: Vec<Built> = Vec::new();
    for (index, platform) in platforms.iter().enumerate() {
        request.platform.clone_from(platform);
        // One name leads to one image of the store: this machine's, if it is among them.
        request.tags = if index == preferred(&platforms) { outputs.names().to_vec() } else { Vec::new() };
        results.push(build_one(&args, &request, quiet, context)?);
    }
    for (built, target) in results.iter().flat_map(|built| cache_to.iter().map(move |target| (built, target))) {
        builder::export_cache(context.engine()?, built, target).map_err(described)?;
    }
    build_output::write(&args, &outputs, &results, quiet, context)?;
    // The image is made: what cannot be tidied up now a later build will.
    let _later = builder::bound_cache(context.engine()?.store());
    Ok(ExitCode::SUCCESS)
}

/// Which of several platforms is this machine's.
fn preferred(platforms: &[Option<Platform>]) -> usize {
    let host = Platform::host();
    let is_ours = |platform: &Option<Platform>| platform.as_ref().is_none_or(|p| p.rank(&host).is_some());
    platforms.iter().position(is_ours).unwrap_or(0)
}

fn build_one(args: &Args, request: &BuildRequest, quiet: bool, context: &mut Context) -> Result<Built, CliError> {
    if args.progress == "rawjson" {
        let view = BuildJson::new();
        return builder::build(context.engine()?, request, &|event| view.event(&event)).map_err(described);
    }
    let progress = match args.progress.as_str() {
        "auto" => context.env_set("BUILDKIT_PROGRESS").unwrap_or_else(|| "auto".to_owned()),
        other => other.to_owned(),
    };
    let live = match progress.as_str() {
        "tty" => true,
        "plain" => false,
        _ => context.draws_progress(),
    };
    let view = BuildView::new(context, quiet, live);
    let engine = context.engine()?;
    let shell = |failed: &StepRequest| {
        view.finish(false);
        if let Err(error) = debug_shell(engine, failed) {
            Context::new().report(&error);
        }
    };
    let debug: Option<builder::Debugger<'_>> = if args.debug { Some(&shell) } else { None };
    let result = builder::build_and_debug(engine, request, &|event| view.event(event), debug);
    view.finish(result.is_ok());
    let built = result.map_err(|error| {
        view.explain(&error);
        described(error)
    })?;
    if !quiet {
        view.built(&built, if request.makes_image { &request.tags } else { &[] as &[Reference] });
    }
    Ok(built)
}

/// A shell in a failed step's file system.
fn debug_shell(engine: &Engine, failed: &StepRequest) -> Result<(), CliError> {
    let mut context = Context::new();
    context.say("the step failed; here is a shell in its file system: leave it with exit");
    let mut request = failed.clone();
    request.terminal = std::io::stdin().is_terminal();
    if !request.terminal {
        // What is piped in is what is to be looked at.
        request.stdin = Some(read_stdin(MAX_SCRIPT_BYTES)?);
    }
    let session = Session::new(request.terminal, request.terminal, false, DetachKeys::parse(None).map_err(CliError::new)?)?;
    let options = session.options(true, true);
    let ended = engine.attach_step(&request, options, |attached| session.run(attached, &mut context))?;
    ended.map(drop)
}

pub(super) fn described(error: BuildError) -> CliError {
    let made = CliError::new(error.to_string());
    match error.hint() {
        Some(hint) => made.with_hint(hint.to_owned()),
        None => made,
    }
}
