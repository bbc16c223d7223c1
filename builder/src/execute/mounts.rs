//! `RUN --mount`: files of the context, of stages and images; caches; tmpfs; secrets.

use super::agent::AgentRelay;
use super::cache_mount::{self, Cache, Opened};
use super::state::StageState;
use super::{Build, Step};
use crate::SecretSource;
use crate::ignore::IgnoreRules;
use crate::instruction::{Mount, MountKind, RunInstruction, Sharing};
use crate::layer::{LayerWriter, Placement};
use crate::step_error::{StepError, StepResult};
use crate::tree::{Manifest, Selected, Tree};
use engine::{StepMount, StepRequest, StepSource};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::LockedMountCache;

/// The largest secret, in bytes: docker's limit.
const MAX_SECRET_BYTES: u64 = 500 << 10;

/// A mount that is known to be possible; realised only if the step is not cached.
pub(super) struct Prepared {
    pub(super) target: String,
    /// What of it counts for the cache key.
    pub(super) identity: String,
    source: Source,
    read_only: bool,
}

enum Source {
    /// A host path, as it is.
    Host(PathBuf),
    /// The same folder of several layers, as one.
    Layers(Vec<PathBuf>),
    /// Copied, since an ignore file hides some of it, or it may be written to.
    Copy {
        tree: Arc<Tree>,
        selected: Selected,
    },
    Cache(Cache),
    Tmpfs {
        size_bytes: Option<u64>,
    },
    /// An agent's socket, and who may use it.
    Ssh {
        agent: PathBuf,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Secret {
        bytes: Vec<u8>,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    /// A variable, no mount.
    Env {
        name: String,
        bytes: Vec<u8>,
    },
}

impl Build<'_> {
    pub(super) fn prepare_mounts(
        &self,
        stage: usize,
        state: &StageState,
        run: &RunInstruction,
        step: &Step<'_, '_>,
        unset: &mut BTreeSet<String>,
    ) -> StepResult<Vec<Prepared>> {
        let mut prepared = Vec::new();
        for mount in &expanded(state, run, unset)? {
            let (source, id) = (mount.source.clone(), mount.id.clone());
            let absolute = |text: &str| super::workdir::absolute(state.working_dir(), text).display().to_string();
            let target = mount.target.as_deref().map(absolute);
            let place = || target.clone().unwrap_or_else(|| absolute("."));
            if !matches!(mount.kind, MountKind::Secret | MountKind::Ssh) && place() == "/" {
                let hint = "name a folder: target=…".to_owned();
                return Err(StepError::with_hint("invalid mount target \"/\"", hint));
            }
            match mount.kind {
                MountKind::Tmpfs => prepared.push(Prepared {
                    target: place(),
                    identity: format!("tmpfs {:?}", mount.size_bytes),
                    source: Source::Tmpfs { size_bytes: mount.size_bytes },
                    read_only: false,
                }),
                MountKind::Cache => {
                    prepared.push(self.cache(stage, mount, place(), id, source.as_deref(), step)?);
                }
                MountKind::Secret => {
                    let id = id.or(source).or_else(|| base_name(target.as_deref()?)).unwrap_or_default();
                    prepared.extend(self.secrets(mount, target, &id)?);
                }
                MountKind::Ssh => {
                    let count = prepared.len();
                    prepared.extend(self.ssh(mount, target, id.as_deref().unwrap_or("default"), count)?);
                }
                MountKind::Bind => {
                    let source = source.unwrap_or_else(|| "/".to_owned());
                    prepared.push(self.bind(stage, mount, place(), &source, step)?);
                }
            }
        }
        Ok(prepared)
    }

    fn bind(
        &self,
        stage: usize,
        mount: &Mount,
        target: String,
        source: &str,
        step: &Step<'_, '_>,
    ) -> StepResult<Prepared> {
        let read_only = mount.read_only.unwrap_or(true);
        let found = self.source(stage, mount.from.as_deref(), step)?;
        let selected = one(&found.tree, source)?;
        let identity = found.identity(&selected)?;
        let host = found.tree.host_path(&selected.path).filter(|_| read_only);
        // A file that may be written to is a copy: overlay joins folders only.
        let layers = found.layered(&selected).filter(|_| read_only || selected.is_folder);
        let source = match (host, layers) {
            (Some(path), _) => Source::Host(path),
            (None, Some(mut folders)) if folders.len() == 1 && read_only => Source::Host(folders.remove(0)),
            (None, Some(folders)) => Source::Layers(folders),
            (None, None) => Source::Copy { tree: found.tree, selected },
        };
        Ok(Prepared { target, identity: format!("bind {identity} {read_only}"), source, read_only })
    }

    /// A folder that lives on between builds, begun with what `from` and `source` name.
    fn cache(
        &self,
        stage: usize,
        mount: &Mount,
        target: String,
        id: Option<String>,
        source: Option<&str>,
        step: &Step<'_, '_>,
    ) -> StepResult<Prepared> {
        // As written: one of `node_modules` is the same wherever the working directory is.
        let mut id = id.unwrap_or_else(|| clean(mount.target.as_deref().unwrap_or_default()));
        let mut begin = None;
        match &mount.from {
            Some(from) => {
                let found = self.source(stage, Some(from), step)?;
                let selected = one(&found.tree, source.unwrap_or("/"))?;
                if !selected.is_folder {
                    return Err(StepError::wrong(format!(
                        "a cache begins with a folder: {} is none",
                        selected.path.display()
                    )));
                }
                // Of something else it is another cache.
                id.push_str(&format!("\nfrom {}", found.identity(&selected)?));
                begin = Some((found.tree, selected));
            }
            None => id.extend(source.map(|source| format!("\npart {source}"))),
        }
        let owner = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        let identity = format!("cache {id}");
        let source =
            Source::Cache(Cache { id, sharing: mount.sharing, mode: mount.mode.unwrap_or(0o755), owner, begin });
        Ok(Prepared { target, identity, source, read_only: mount.read_only.unwrap_or(false) })
    }

    /// An agent's socket; nothing where it was not given and need not be.
    fn ssh(&self, mount: &Mount, target: Option<String>, id: &str, count: usize) -> StepResult<Option<Prepared>> {
        let Some(agent) = self.request.ssh.iter().find(|agent| agent.id == id) else {
            if !mount.required {
                return Ok(None);
            }
            let hint = format!("give it with --ssh {id}");
            return Err(StepError::with_hint(format!("unset ssh forward key {id}: the step requires it"), hint));
        };
        let source = Source::Ssh {
            agent: agent.socket.clone(),
            mode: mount.mode.unwrap_or(0o600),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
        };
        let target = target.unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{count}"));
        Ok(Some(Prepared { target, identity: "ssh".to_owned(), source, read_only: true }))
    }

    /// A secret as a file, a variable, or both; none where it was not given and need not be.
    fn secrets(&self, mount: &Mount, target: Option<String>, id: &str) -> StepResult<Vec<Prepared>> {
        let Some(secret) = self.request.secrets.iter().find(|secret| secret.id == id) else {
            if !mount.required {
                return Ok(Vec::new());
            }
            let hint = format!("give it with --secret id={id},src=FILE");
            return Err(StepError::with_hint(format!("secret {id}: not found, but the step requires it"), hint));
        };
        let prepared =
            |target: String, source| Prepared { target, identity: "secret".to_owned(), source, read_only: true };
        let mut made = Vec::new();
        if let Some(name) = &mount.env {
            made.push(prepared(
                format!("${name}"),
                Source::Env { name: name.clone(), bytes: read_secret(&secret.source)? },
            ));
            if target.is_none() {
                return Ok(made);
            }
        }
        let target = target.unwrap_or_else(|| format!("/run/secrets/{}", base_name(id).as_deref().unwrap_or(id)));
        let source = match &secret.source {
            // The file itself: no copy of a secret is left behind by whatever happens to this process.
            SecretSource::File(path) if (mount.mode, mount.uid, mount.gid) == (None, None, None) => {
                let path = fs::canonicalize(path).map_err(|e| StepError::io("read the secret", path, e))?;
                Source::Host(path)
            }
            source => Source::Secret {
                bytes: read_secret(source)?,
                mode: mount.mode.unwrap_or(0o400),
                uid: mount.uid.unwrap_or(0),
                gid: mount.gid.unwrap_or(0),
            },
        };
        made.push(prepared(target, source));
        Ok(made)
    }
}

/// A step's mounts, the variables in them replaced.
pub(super) fn expanded(
    state: &StageState,
    run: &RunInstruction,
    unset: &mut BTreeSet<String>,
) -> StepResult<Vec<Mount>> {
    let mut expand = |text: &str| state.word(text, unset).map_err(|error| error.to_string());
    run.mounts.iter().map(|mount| mount.expanded(&mut expand).map_err(StepError::wrong)).collect()
}

/// A path without `.`, `..` and needless slashes, absolute only if it was.
fn clean(path: &str) -> String {
    let done = super::workdir::absolute("/", path).display().to_string();
    if path.starts_with('/') { done } else { done.trim_start_matches('/').to_owned() }
}

/// The one file or folder a mount's source names.
fn one(tree: &Tree, source: &str) -> StepResult<Selected> {
    let mut found = tree.select(source)?;
    let selected = found.pop().filter(|_| found.is_empty());
    selected.ok_or_else(|| StepError::wrong(format!("{source:?} is not one file or folder")))
}

/// Makes the mounts part of a request. What is returned is to be kept until the step is over.
pub(super) fn realise(
    mounts: Vec<Prepared>,
    build: &Build<'_>,
    scratch: &Path,
    request: &mut StepRequest,
) -> StepResult<Vec<Held>> {
    let caches = mounts.iter().filter_map(|mount| match &mount.source {
        Source::Cache(cache) => Some(cache),
        _ => None,
    });
    let common = cache_mount::open_common(caches, build.engine.store())?;
    let mut held = Vec::new();
    for mount in mounts {
        held.extend(mount.realise(build, &common, scratch, request)?);
    }
    Ok(held)
}

impl Prepared {
    fn realise(
        self,
        build: &Build<'_>,
        common: &BTreeMap<String, Opened>,
        scratch: &Path,
        request: &mut StepRequest,
    ) -> StepResult<Option<Held>> {
        let place = scratch.join(format!("mount-{}", request.mounts.len()));
        let mut held = None;
        let source = match self.source {
            Source::Env { name, bytes } => {
                let value = String::from_utf8(bytes)
                    .map_err(|_| StepError::wrong(format!("the secret for ${name} is not text")))?;
                request.env.push(format!("{name}={value}"));
                return Ok(None);
            }
            Source::Host(path) => StepSource::Path(path),
            Source::Layers(folders) => {
                fs::create_dir(&place).map_err(|e| StepError::io("make the folder", &place, e))?;
                StepSource::Layers { folders, writes: (!self.read_only).then(|| place.join("writes")) }
            }
            Source::Tmpfs { size_bytes } => StepSource::Tmpfs { size_bytes },
            Source::Copy { tree, selected } => {
                copy_out(&tree, &selected, &place)?;
                StepSource::Path(place.join("files"))
            }
            Source::Secret { bytes, mode, uid, gid } => {
                write_file(&place, &bytes, mode)?;
                let owned = std::os::unix::fs::chown(&place, Some(uid), Some(gid));
                owned.map_err(|e| StepError::io("chown", &place, e))?;
                StepSource::Path(place)
            }
            Source::Ssh { agent, mode, uid, gid } => {
                let (relay, socket) = AgentRelay::start(&agent, &place, mode, (uid, gid))?;
                held = Some(Held::Agent(relay));
                if !request.env.iter().any(|line| line.starts_with("SSH_AUTH_SOCK=")) {
                    request.env.push(format!("SSH_AUTH_SOCK={}", self.target));
                }
                StepSource::Path(socket)
            }
            Source::Cache(cache) => {
                let (folder, lock) = match common.get(&cache.id) {
                    Some(opened) if cache.sharing != Sharing::Private => opened.clone(),
                    _ => cache.open(build.engine.store())?,
                };
                held = Some(Held::Lock(lock));
                StepSource::Path(folder)
            }
        };
        request.mounts.push(StepMount { source, target: self.target, read_only: self.read_only });
        Ok(held)
    }
}

/// What a mount needs for as long as its step runs.
pub(super) enum Held {
    /// A cache's.
    Lock(#[allow(dead_code)] Arc<LockedMountCache>),
    Agent(#[allow(dead_code)] AgentRelay),
}

/// A heredoc with `#!`, as an executable file of the container's own /dev.
pub(super) fn script(scratch: &Path, name: &str, body: &str) -> StepResult<StepMount> {
    let place = scratch.join("script");
    write_file(&place, body.as_bytes(), 0o755)?;
    Ok(StepMount { source: StepSource::Path(place), target: format!("/dev/pipes/{name}"), read_only: true })
}

fn write_file(path: &Path, bytes: &[u8], mode: u32) -> StepResult<()> {
    let fail = |e| StepError::io("write", path, e);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(fail)
}

/// Copies a file or folder to `place/files`.
pub(super) fn copy_out(tree: &Tree, selected: &Selected, place: &Path) -> StepResult<()> {
    fs::create_dir(place).map_err(|e| StepError::io("make the folder", place, e))?;
    let manifest = Manifest::of(tree, &selected.path, &IgnoreRules::default())?;
    let mut writer = LayerWriter::new(place, None, (0, 0), 0, None)?;
    writer.copy(tree, &selected.path, &manifest, Path::new("files"), &Placement::default())?;
    writer.finish().map(drop)
}

fn read_secret(source: &SecretSource) -> StepResult<Vec<u8>> {
    let bytes = match source {
        SecretSource::Value(bytes) => bytes.clone(),
        SecretSource::File(path) => {
            let fail = |e| StepError::io("read the secret", path, e);
            let mut bytes = Vec::new();
            File::open(path).map_err(fail)?.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
            bytes
        }
    };
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(StepError::wrong(format!("a secret is larger than {MAX_SECRET_BYTES} bytes")));
    }
    Ok(bytes)
}

fn base_name(path: &str) -> Option<String> {
    Some(Path::new(path).file_name()?.to_str()?.to_owned())
}
