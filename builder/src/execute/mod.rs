//! Plan → image. Each reachable stage is built in a thread of its own, once, by whoever needs it first; a stage waits
//! only for earlier ones, so nobody waits in a circle.

mod agent;
mod base;
mod cache_mount;
mod config;
mod copy;
mod items;
mod jobs;
mod layout;
mod mounts;
mod run;
mod sources;
mod stage;
mod state;
mod users;
mod workdir;

use crate::cache::{Ingredients, Record};
use crate::error::BuildError;
use crate::event::{BuildEvent, OutputStream, StepId, Warning};
use crate::ignore::{IgnoreRules, MAX_IGNORE_FILE_BYTES};
use crate::plan::Plan;
use crate::request::BuildRequest;
use crate::step_error::{StepError, StepResult};
use crate::tree::{DigestTable, Tree};
use engine::Cancel;
use jiff::Timestamp;
use oci::{Digest, ImageConfig};
use state::StageState;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// Where the shared state of one build lives while its stages run.
pub(crate) struct Build<'a> {
    engine: &'a engine::Engine,
    request: &'a BuildRequest,
    plan: &'a Plan,
    events: &'a (dyn Fn(BuildEvent) + Sync),
    /// Finished stages. The lock is held while a stage is built.
    stages: Vec<Mutex<Option<Arc<StageState>>>>,
    context: OnceLock<Arc<Tree>>,
    next_step: AtomicUsize,
    /// Set by the first failure: it ends what other stages are at.
    cancel: Cancel,
    /// The first error, or the one of the earliest line.
    error: Mutex<Option<BuildError>>,
    warnings: Mutex<Vec<Warning>>,
    /// Base images found or pulled, by name and platform: each is fetched once.
    images: Mutex<BTreeMap<String, Arc<Mutex<Option<base::BaseImage>>>>>,
    /// Named contexts found or fetched, by their place in the request.
    contexts: Mutex<BTreeMap<usize, Arc<Mutex<Option<sources::Context>>>>>,
    /// Who may run a step now.
    running: jobs::Jobs,
    /// When this build began: the date of what it makes.
    now: String,
}

impl<'a> Build<'a> {
    pub(crate) fn new(
        engine: &'a engine::Engine,
        request: &'a BuildRequest,
        plan: &'a Plan,
        events: &'a (dyn Fn(BuildEvent) + Sync),
    ) -> Build<'a> {
        let epoch = request.source_date_epoch.and_then(|seconds| Timestamp::from_second(seconds).ok());
        Build {
            engine,
            request,
            plan,
            events,
            stages: plan.stages.iter().map(|_| Mutex::new(None)).collect(),
            context: OnceLock::new(),
            next_step: AtomicUsize::new(0),
            cancel: Cancel::default(),
            error: Mutex::new(None),
            warnings: Mutex::new(Vec::new()),
            images: Mutex::new(BTreeMap::new()),
            contexts: Mutex::new(BTreeMap::new()),
            running: jobs::Jobs::new(request.jobs),
            now: epoch.unwrap_or_else(Timestamp::now).to_string(),
        }
    }

    /// Builds what the target needs and puts the image into the store.
    pub(crate) fn run(self) -> Result<(Digest, Vec<Warning>), BuildError> {
        let needed = self.plan.reachable();
        let target = match needed.as_slice() {
            [only] => self.stage(*only),
            _ => std::thread::scope(|scope| {
                for index in needed.iter().copied().filter(|index| *index != self.plan.target) {
                    let build = &self;
                    scope.spawn(move || build.stage(index).map(drop));
                }
                self.stage(self.plan.target)
            }),
        };
        if let Some(context) = self.context.get() {
            context.save_digests();
        }
        for cell in lock(&self.contexts).values() {
            if let Some(sources::Context::Folder(tree, _)) = &*lock(cell) {
                tree.save_digests();
            }
        }
        if let Some(error) = lock(&self.error).take() {
            return Err(error);
        }
        let line = || self.plan.source.line(self.plan.stages[self.plan.target].from.span);
        let target = target.map_err(|error| error.at(line()))?;
        let image = self.export(&target).map_err(|error| error.at(line()))?;
        Ok((image, std::mem::take(&mut lock(&self.warnings))))
    }

    /// A stage's result, built by the first who asks.
    fn stage(&self, index: usize) -> StepResult<Arc<StageState>> {
        let cell = self.stages.get(index).ok_or(StepError::Cancelled)?;
        let mut cell = lock(cell);
        if let Some(done) = &*cell {
            return Ok(Arc::clone(done));
        }
        if self.cancel.is_cancelled() {
            return Err(StepError::Cancelled);
        }
        match self.build_stage(index) {
            Ok(state) => Ok(Arc::clone(cell.insert(Arc::new(state)))),
            Err(error) => {
                self.cancel.cancel();
                Err(error)
            }
        }
    }

    /// Notes the error that ends the build, with its line; the first one counts.
    fn fail(&self, error: StepError, span: crate::parser::Span) -> StepError {
        self.cancel.cancel();
        if !matches!(error, StepError::Cancelled) {
            lock(&self.error).get_or_insert_with(|| error.at(self.plan.source.line(span)));
        }
        StepError::Cancelled
    }

    /// Puts the target stage's image, its dates filled in. What is wholly cached keeps its date, and so its id.
    fn export(&self, state: &StageState) -> StepResult<Digest> {
        let mut config = state.config.clone();
        for (name, value) in &self.request.labels {
            config.config.labels.insert(name.clone(), value.clone());
        }
        config.rootfs.diff_ids = state.diff_ids();
        config.created = None;
        let dateless = serde_json::to_string(&config).unwrap_or_default();
        let key = format!("image:{}", Digest::sha256(dateless).hex());
        let store = self.engine.store();
        let known = if self.request.no_cache { None } else { store.cache_get(&key)? };
        let created = match (self.request.source_date_epoch, known) {
            (None, Some(created)) => created,
            _ => self.now.clone(),
        };
        for index in &state.undated {
            if let Some(entry) = config.history.get_mut(*index) {
                entry.created = Some(created.clone());
            }
        }
        config.created = Some(created.clone());
        let image = store.put_built_image(&config, &self.request.tags)?;
        store.cache_put(&key, &created, &config.rootfs.diff_ids)?;
        Ok(image)
    }

    /// The context's files, as the ignore file shows them. Read when a step first asks for it.
    fn context(&self) -> StepResult<Arc<Tree>> {
        if let Some(tree) = self.context.get() {
            return Ok(Arc::clone(tree));
        }
        let rules = ignore_rules_in(&self.request.context, self.request.containerfile.path.as_deref())?;
        let tree = Tree::context(&self.request.context, rules)?;
        let tree = Arc::new(self.with_digests(tree, &self.absolute_context()));
        Ok(Arc::clone(self.context.get_or_init(|| tree)))
    }

    /// The tree with what earlier builds read of the same folder.
    fn with_digests(&self, tree: Tree, folder: &Path) -> Tree {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let name = Digest::sha256(folder.as_os_str().as_bytes()).hex().to_owned();
        let table = self.engine.store().root().join("build-cache/digests").join(name);
        tree.with_digests(DigestTable::open(table))
    }

    fn event(&self, event: BuildEvent) {
        (self.events)(event);
    }

    /// Tells a warning once.
    fn warn(&self, rule: &'static str, span: crate::parser::Span, message: String) {
        let warning = self.plan.source.warning(rule, span, message);
        let mut warnings = lock(&self.warnings);
        if !warnings.contains(&warning) {
            warnings.push(warning.clone());
            drop(warnings);
            self.event(BuildEvent::Warning(warning));
        }
    }

    fn start_step(&self, name: String) -> Step<'_, 'a> {
        let id = StepId(self.next_step.fetch_add(1, Ordering::Relaxed));
        self.event(BuildEvent::StepStarted { step: id, name });
        Step { build: self, id, begun: Instant::now() }
    }

    /// What an earlier build left for these ingredients.
    fn cached(&self, ingredients: &Ingredients, position: &stage::Position<'_>) -> StepResult<Option<Record>> {
        if position.is_fresh {
            return Ok(None);
        }
        let value = self.engine.store().cache_get(&ingredients.key())?;
        Ok(value.and_then(|value| serde_json::from_str(&value).ok()))
    }

    /// Keeps a step's result for later builds.
    fn record(&self, ingredients: &Ingredients, record: &Record) -> StepResult<()> {
        let value = serde_json::to_string(record).unwrap_or_default();
        let layers: Vec<Digest> = record.diff_id.iter().cloned().collect();
        Ok(self.engine.store().cache_put(&ingredients.key(), &value, &layers)?)
    }

    /// Why a step that is not cached is not: compared with the last build's step at the same place.
    fn explain_miss(&self, step: &Step<'_, '_>, slot: &str, ingredients: &Ingredients) -> StepResult<()> {
        let slot = self.slot_key(slot);
        let before = self.engine.store().cache_get(&slot)?;
        let before: Option<Ingredients> = before.and_then(|text| serde_json::from_str(&text).ok());
        if let Some(why) = before.and_then(|before| ingredients.explain(&before)).filter(|_| !self.request.no_cache) {
            self.event(BuildEvent::CacheMiss { step: step.id, why });
        }
        let value = serde_json::to_string(ingredients).unwrap_or_default();
        Ok(self.engine.store().cache_put(&slot, &value, &[])?)
    }

    /// Remembers the ingredients of a hit, where the place's last ones were others.
    fn note_hit(&self, slot: &str, ingredients: &Ingredients) -> StepResult<()> {
        let slot = self.slot_key(slot);
        let value = serde_json::to_string(ingredients).unwrap_or_default();
        if self.engine.store().cache_get(&slot)?.as_deref() != Some(value.as_str()) {
            self.engine.store().cache_put(&slot, &value, &[])?;
        }
        Ok(())
    }

    /// A step's place, across builds: the context, the recipe, the stage and the count.
    fn slot_key(&self, slot: &str) -> String {
        let text = format!("{}\n{}\n{slot}", self.absolute_context().display(), self.request.containerfile.name);
        format!("last:{}", Digest::sha256(text).hex())
    }

    fn absolute_context(&self) -> PathBuf {
        std::path::absolute(&self.request.context).unwrap_or_else(|_| self.request.context.clone())
    }

    /// The time folders made by the builder get: SOURCE_DATE_EPOCH, else the base image's date, so that two builds agree.
    fn folder_time(&self, config: &ImageConfig) -> i64 {
        let base =
            || config.created.as_deref().and_then(|text| text.parse::<Timestamp>().ok()).map(Timestamp::as_second);
        self.request.source_date_epoch.or_else(base).unwrap_or(0)
    }
}

/// A numbered step being carried out.
struct Step<'b, 'a> {
    build: &'b Build<'a>,
    id: StepId,
    begun: Instant,
}

impl Step<'_, '_> {
    fn done(&self, cached: bool) {
        self.build.event(BuildEvent::StepDone { step: self.id, cached, duration: self.begun.elapsed() });
    }

    fn failed(&self, error: &StepError) {
        let event =
            BuildEvent::StepFailed { step: self.id, message: error.to_string(), duration: self.begun.elapsed() };
        self.build.event(event);
    }

    fn output(&self, stream: OutputStream, bytes: &[u8]) {
        self.build.event(BuildEvent::Output { step: self.id, stream, bytes: bytes.to_vec() });
    }
}

/// A lock that a panicking thread left is as good as any: nothing is half-changed under these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The rules of a context: of the file beside the recipe, else of the context's own.
fn ignore_rules_in(context: &Path, containerfile: Option<&Path>) -> StepResult<IgnoreRules> {
    let beside = containerfile.map(|path| {
        let mut name = path.to_owned().into_os_string();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    let in_context = [".containerignore", ".dockerignore"].map(|name| context.join(name));
    for path in beside.into_iter().chain(in_context) {
        let Some(text) = read_ignore_file(&path)? else { continue };
        return IgnoreRules::parse(&text).map_err(|error| StepError::wrong(format!("{}: {error}", path.display())));
    }
    Ok(IgnoreRules::default())
}

fn read_ignore_file(path: &Path) -> StepResult<Option<String>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(StepError::io("read", path, error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_IGNORE_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| StepError::io("read", path, e))?;
    if bytes.len() as u64 > MAX_IGNORE_FILE_BYTES {
        return Err(StepError::wrong(format!("{} is larger than {MAX_IGNORE_FILE_BYTES} bytes", path.display())));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
