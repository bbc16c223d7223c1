//! What a build is asked for: everything the command line says, already parsed.

use crate::{BuildError, CacheOrigin, NamedContext, Secret, SshAgent, context_file};
use oci::{Platform, Reference};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// A build, wholly described. `BuildRequest::new` gives the defaults.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The folder COPY and ADD read from.
    pub context: PathBuf,
    /// The recipe.
    pub containerfile: Containerfile,
    /// Names for the image; none is fine.
    pub tags: Vec<Reference>,
    /// `--build-arg NAME=VALUE`; the caller has resolved a bare NAME from its environment (or left it out).
    pub build_args: Vec<(String, String)>,
    /// The stage to build, by name or index; the last where none is given.
    pub target: Option<String>,
    /// Run every step anew, looking nothing up (results are still recorded).
    pub no_cache: bool,
    /// Whether base images are fetched though they are there.
    pub pull: PullPolicy,
    /// Labels laid over the image's own.
    pub labels: Vec<(String, String)>,
    /// What to build for; the host's platform where none is given.
    pub platform: Option<Platform>,
    /// The network of RUN steps that say nothing else.
    pub network: BuildNetwork,
    /// Secrets that `RUN --mount=type=secret` may ask for, by id.
    pub secrets: Vec<Secret>,
    /// `--build-context NAME=…`: what stands for stages and images of that name. Of two with one name the last counts.
    pub contexts: Vec<(String, NamedContext)>,
    /// Agents that `RUN --mount=type=ssh` may ask for, by id.
    pub ssh: Vec<SshAgent>,
    /// Where other machines' builds kept what their steps made.
    pub cache_from: Vec<CacheOrigin>,
    /// False: the result is wanted as files, and no image of it is put into the store.
    pub makes_image: bool,
    /// Annotations of the image's manifest. With any, its layers are compressed at once.
    pub annotations: BTreeMap<String, String>,
    /// Names of steps begin with the platform: one build of several.
    pub shows_platform: bool,
    /// Stages that are built anew.
    pub no_cache_filter: Vec<String>,
    /// How many steps may run at once; 0 is no limit.
    pub jobs: usize,
    /// Bytes of /dev/shm in RUN steps; none is the engine's default.
    pub shm_size_bytes: Option<u64>,
    /// Limits of RUN steps' processes.
    pub ulimits: Vec<engine::Ulimit>,
    /// `name:ip` lines for the hosts file of RUN steps.
    pub add_hosts: Vec<(String, String)>,
    /// `SOURCE_DATE_EPOCH`: seconds since 1970 that no time in new layers or in the config exceeds.
    pub source_date_epoch: Option<i64>,
    /// `--squash`: the layers on top of the base are to be one.
    pub squash: bool,
    /// `--allow security.insecure`: RUN may ask for a privileged container.
    pub allow_insecure: bool,
    /// Proxy variables of the caller (`HTTP_PROXY`, …): they reach RUN, stay out of cache keys and history.
    pub proxies: Vec<(String, String)>,
}

impl BuildRequest {
    /// A request with every option at its default.
    pub fn new(context: impl Into<PathBuf>, containerfile: Containerfile) -> BuildRequest {
        BuildRequest {
            context: context.into(),
            containerfile,
            tags: Vec::new(),
            build_args: Vec::new(),
            target: None,
            no_cache: false,
            pull: PullPolicy::Missing,
            labels: Vec::new(),
            platform: None,
            network: BuildNetwork::Default,
            secrets: Vec::new(),
            contexts: Vec::new(),
            ssh: Vec::new(),
            cache_from: Vec::new(),
            makes_image: true,
            annotations: BTreeMap::new(),
            shows_platform: false,
            no_cache_filter: Vec::new(),
            jobs: 0,
            shm_size_bytes: None,
            ulimits: Vec::new(),
            add_hosts: Vec::new(),
            source_date_epoch: None,
            squash: false,
            allow_insecure: false,
            proxies: Vec::new(),
        }
    }
}

/// A Containerfile's text and the name error messages give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containerfile {
    /// As the user knows it: `Containerfile`, `docker/web.Dockerfile`, `-`.
    pub name: String,
    /// The whole text, as read.
    pub text: Vec<u8>,
    /// Where it was read from: `<path>.dockerignore` is looked for beside it.
    pub path: Option<PathBuf>,
}

/// The largest Containerfile read, in bytes.
pub(crate) const MAX_CONTAINERFILE_BYTES: u64 = 4 << 20;

impl Containerfile {
    /// A recipe that came from elsewhere than a file, such as standard input.
    pub fn from_text(name: impl Into<String>, text: impl Into<Vec<u8>>) -> Containerfile {
        Containerfile { name: name.into(), text: text.into(), path: None }
    }

    /// Reads `file`, or what a build in `context` uses where no file is named: `Containerfile`, else `Dockerfile`. What is
    /// the context's own may be a link, but not to anything outside.
    ///
    /// As docker has it, a relative `file` is relative to the caller's directory.
    pub fn find(context: &Path, file: Option<&Path>) -> Result<Containerfile, BuildError> {
        let Some(path) = file else {
            for name in ["Containerfile", "Dockerfile"] {
                if let Some(found) = Containerfile::of_context(context, Path::new(name))? {
                    return Ok(found);
                }
            }
            let message = format!(
                "failed to read Containerfile: neither Containerfile nor Dockerfile is in {}: name one with -f",
                context.display()
            );
            return Err(BuildError::NoContainerfile { message });
        };
        let text = context_file::read(path, MAX_CONTAINERFILE_BYTES).map_err(|e| unread(path, e))?;
        let text = text.ok_or_else(|| missing(path))?;
        Ok(Containerfile { name: path.display().to_string(), text, path: Some(path.to_owned()) })
    }

    /// Reads `file` of a context that came from elsewhere.
    pub fn find_in(context: &Path, file: &Path) -> Result<Containerfile, BuildError> {
        Containerfile::of_context(context, file)?.ok_or_else(|| missing(file))
    }

    fn of_context(context: &Path, name: &Path) -> Result<Option<Containerfile>, BuildError> {
        let path = context.join(name);
        let text = context_file::read_in(context, name, MAX_CONTAINERFILE_BYTES).map_err(|e| unread(&path, e))?;
        Ok(text.map(|text| Containerfile { name: name.display().to_string(), text, path: Some(path) }))
    }
}

fn unread(path: &Path, source: io::Error) -> BuildError {
    BuildError::Io { operation: "read", path: path.to_owned(), source }
}

fn missing(path: &Path) -> BuildError {
    let message = format!("failed to read Containerfile: open {}: no such file or directory", path.display());
    BuildError::NoContainerfile { message }
}

/// When a base image is fetched from its registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Where the store has none.
    #[default]
    Missing,
    /// Each time (`--pull`).
    Always,
    /// Never: a missing image is an error.
    Never,
}

/// The network a RUN step sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BuildNetwork {
    /// The engine's default bridge.
    #[default]
    Default,
    /// Loopback alone.
    None,
    /// The host's own.
    Host,
}
