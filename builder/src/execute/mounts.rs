//! `RUN --mount`: files of the context, of stages and images; caches; tmpfs; secrets.

use super::state::StageState;
use super::{Build, Step};
use crate::ignore::IgnoreRules;
use crate::instruction::{Mount, MountKind, RunInstruction, Sharing};
use crate::layer::{LayerWriter, Placement};
use crate::request::SecretSource;
use crate::step_error::{StepError, StepResult};
use crate::tree::{Manifest, Selected, Tree};
use engine::{StepMount, StepRequest};
use oci::Digest;
use rustix::fs::FlockOperation;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest secret, in bytes: docker's limit.
const MAX_SECRET_BYTES: u64 = 500 << 10;
/// How many private copies of one cache there may be.
const MAX_PRIVATE_CACHES: usize = 100;

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
    /// Copied, since it is not one folder of the host, or may be written to.
    Copy {
        tree: Arc<Tree>,
        selected: Selected,
    },
    Cache {
        id: String,
        sharing: Sharing,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Tmpfs,
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
        for mount in &run.mounts {
            let mut expand = |text: &Option<String>| text.as_ref().map(|text| state.word(text, unset)).transpose();
            let (target, source, id) = (expand(&mount.target)?, expand(&mount.source)?, expand(&mount.id)?);
            let absolute = |text: &str| super::workdir::absolute(state.working_dir(), text).display().to_string();
            let target = target.map(|text| absolute(&text));
            match mount.kind {
                MountKind::Tmpfs => prepared.push(Prepared {
                    target: target.unwrap_or_default(),
                    identity: "tmpfs".to_owned(),
                    source: Source::Tmpfs,
                    read_only: false,
                }),
                MountKind::Cache => prepared.push(cache(mount, target.unwrap_or_default(), id)?),
                MountKind::Secret => {
                    let id = id.or(source).or_else(|| base_name(target.as_deref()?)).unwrap_or_default();
                    prepared.extend(self.secrets(mount, target, &id)?);
                }
                MountKind::Ssh if mount.required => {
                    return Err(StepError::wrong("RUN --mount=type=ssh is not supported yet"));
                }
                MountKind::Ssh => {}
                MountKind::Bind => {
                    let source = source.unwrap_or_else(|| "/".to_owned());
                    prepared.push(self.bind(stage, mount, target.unwrap_or_default(), &source, step)?);
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
        let (tree, chain) = match &mount.from {
            None => (self.context()?, None),
            Some(from) => {
                let (tree, chain) = self.named_tree(stage, from, step)?;
                (Arc::new(tree), Some(chain))
            }
        };
        let mut found = tree.select(source)?;
        let selected = found.pop().filter(|_| found.is_empty());
        let selected = selected.ok_or_else(|| StepError::wrong(format!("{source:?} is not one file or folder")))?;
        let identity = match &chain {
            Some(chain) => format!("{chain} {}", selected.path.display()),
            None => Manifest::of(&tree, &selected.path, &IgnoreRules::default())?.digest(None, None).to_string(),
        };
        let as_it_is = chain.is_none() && read_only && tree.rules().is_empty();
        let source = match as_it_is {
            true => Source::Host(self.host_path(&selected)?),
            false => Source::Copy { tree, selected },
        };
        Ok(Prepared { target, identity: format!("bind {identity} {read_only}"), source, read_only })
    }

    fn host_path(&self, selected: &Selected) -> StepResult<PathBuf> {
        let context = &self.request.context;
        let context = fs::canonicalize(context).map_err(|e| StepError::io("open", context, e))?;
        Ok(if selected.path.as_os_str().is_empty() { context } else { context.join(&selected.path) })
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
        let target = target.unwrap_or_else(|| format!("/run/secrets/{id}"));
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

fn cache(mount: &Mount, target: String, id: Option<String>) -> StepResult<Prepared> {
    if mount.from.is_some() || mount.source.is_some() {
        return Err(StepError::wrong("--mount=type=cache with from or source is not supported yet"));
    }
    let id = id.unwrap_or_else(|| target.clone());
    let (mode, uid, gid) = (mount.mode.unwrap_or(0o755), mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
    Ok(Prepared {
        target,
        identity: format!("cache {id}"),
        source: Source::Cache { id, sharing: mount.sharing, mode, uid, gid },
        read_only: mount.read_only.unwrap_or(false),
    })
}

impl Prepared {
    /// Makes the mount part of a request. What is returned is to be kept until the step is over.
    pub(super) fn realise(
        self,
        build: &Build<'_>,
        scratch: &Path,
        request: &mut StepRequest,
    ) -> StepResult<Option<File>> {
        let place = scratch.join(format!("mount-{}", request.mounts.len()));
        let mut lock = None;
        let source = match self.source {
            Source::Env { name, bytes } => {
                let value = String::from_utf8(bytes)
                    .map_err(|_| StepError::wrong(format!("the secret for ${name} is not text")))?;
                request.env.push(format!("{name}={value}"));
                return Ok(None);
            }
            Source::Host(path) => Some(path),
            Source::Tmpfs => None,
            Source::Copy { tree, selected } => {
                copy_out(&tree, &selected, &place)?;
                Some(place.join("files"))
            }
            Source::Secret { bytes, mode, uid, gid } => {
                write_file(&place, &bytes, mode)?;
                let owned = std::os::unix::fs::chown(&place, Some(uid), Some(gid));
                owned.map_err(|e| StepError::io("chown", &place, e))?;
                Some(place)
            }
            Source::Cache { id, sharing, mode, uid, gid } => {
                let (folder, held) = open_cache(build.engine.store().root(), &id, sharing, mode, (uid, gid))?;
                lock = Some(held);
                Some(folder)
            }
        };
        request.mounts.push(StepMount { source, target: self.target, read_only: self.read_only });
        Ok(lock)
    }
}

/// A heredoc with `#!`, as an executable file of the container's own /dev.
pub(super) fn script(scratch: &Path, name: &str, body: &str) -> StepResult<StepMount> {
    let place = scratch.join("script");
    write_file(&place, body.as_bytes(), 0o755)?;
    Ok(StepMount { source: Some(place), target: format!("/dev/pipes/{name}"), read_only: true })
}

fn write_file(path: &Path, bytes: &[u8], mode: u32) -> StepResult<()> {
    let fail = |e| StepError::io("write", path, e);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(fail)
}

/// Copies a file or folder to `place/files`.
fn copy_out(tree: &Tree, selected: &Selected, place: &Path) -> StepResult<()> {
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

/// A cache's folder, made where missing, and its lock as `sharing` wants it.
fn open_cache(root: &Path, id: &str, sharing: Sharing, mode: u32, owner: (u32, u32)) -> StepResult<(PathBuf, File)> {
    let base = root.join("build-cache");
    let hex = Digest::sha256(id).hex().to_owned();
    let folder = |n: usize| base.join(if n == 0 { hex.clone() } else { format!("{hex}.{n}") });
    match sharing {
        Sharing::Shared => lock_cache(&folder(0), FlockOperation::LockShared, mode, owner)?,
        Sharing::Locked => lock_cache(&folder(0), FlockOperation::LockExclusive, mode, owner)?,
        Sharing::Private => {
            let mut found = None;
            for n in 0..MAX_PRIVATE_CACHES {
                found = lock_cache(&folder(n), FlockOperation::NonBlockingLockExclusive, mode, owner)?;
                if found.is_some() {
                    break;
                }
            }
            found
        }
    }
    .ok_or_else(|| StepError::wrong(format!("all {MAX_PRIVATE_CACHES} private caches of {id:?} are in use")))
}

/// None: a lock that must not wait was not to be had.
fn lock_cache(
    folder: &Path,
    operation: FlockOperation,
    mode: u32,
    owner: (u32, u32),
) -> StepResult<Option<(PathBuf, File)>> {
    let fail = |e| StepError::io("open the cache", folder, e);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail)?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("lock")).map_err(fail)?;
    match rustix::fs::flock(&lock, operation) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(fail(errno.into())),
    }
    let data = folder.join("data");
    match fs::create_dir(&data) {
        Ok(()) => {
            std::os::unix::fs::chown(&data, Some(owner.0), Some(owner.1)).map_err(fail)?;
            fs::set_permissions(&data, fs::Permissions::from_mode(mode)).map_err(fail)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(fail(error)),
    }
    Ok(Some((data, lock)))
}

fn base_name(path: &str) -> Option<String> {
    Some(Path::new(path).file_name()?.to_str()?.to_owned())
}
