//! Plan → image. Each reachable stage is built in a thread of its own, once, by whoever needs it first; a stage waits
//! only for earlier ones, so nobody waits in a circle.

mod agent;
mod base;
mod cache_mount;
mod config;
mod copy;
mod emulation;
mod items;
mod jobs;
mod layout;
mod mounts;
mod rehearse;
mod run;
mod sources;
mod squash;
mod stage;
mod state;
mod users;
mod workdir;

use crate::cache::{Ingredients, Record};
use crate::error::BuildError;
use crate::event::{BuildEvent, OutputStream, StepId, Warning};
use crate::plan::Plan;
use crate::remote_cache::{CacheRecord, Imports};
use crate::request::BuildRequest;
use crate::step_error::{StepError, StepResult};
use crate::tree::{DigestTable, Tree};
use crate::{Built, Debugger};
use engine::Cancel;
use jiff::Timestamp;
use oci::{Digest, ImageConfig, Platform};
use state::StageState;
use std::collections::BTreeMap;
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
    /// One step at a time is looked at.
    debug: Option<Mutex<Debugger<'a>>>,
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
    /// What the steps made, for other machines.
    records: Mutex<Vec<CacheRecord>>,
    /// What other machines' made, read when first missed.
    imports: OnceLock<Imports>,
    /// Named contexts found or fetched, by their place in the request.
    contexts: Mutex<BTreeMap<usize, Arc<Mutex<Option<sources::Context>>>>>,
    /// Who may run a step now.
    running: jobs::Jobs,
    /// Where the context is, from the root.
    absolute_context: PathBuf,
    /// When this build began: the date of what it makes.
    now: String,
}

/// What a step made before.
struct Hit {
    record: Record,
    /// Its key, where its layer is not in the store.
    missing: Option<String>,
}

impl<'a> Build<'a> {
    pub(crate) fn new(
        engine: &'a engine::Engine,
        request: &'a BuildRequest,
        plan: &'a Plan,
        events: &'a (dyn Fn(BuildEvent) + Sync),
        debug: Option<Debugger<'a>>,
    ) -> Build<'a> {
        let epoch = request.source_date_epoch.and_then(|seconds| Timestamp::from_second(seconds).ok());
        Build {
            engine,
            request,
            plan,
            events,
            debug: debug.map(Mutex::new),
            stages: plan.stages.iter().map(|_| Mutex::new(None)).collect(),
            context: OnceLock::new(),
            next_step: AtomicUsize::new(0),
            cancel: Cancel::default(),
            error: Mutex::new(None),
            warnings: Mutex::new(Vec::new()),
            images: Mutex::new(BTreeMap::new()),
            records: Mutex::new(Vec::new()),
            imports: OnceLock::new(),
            contexts: Mutex::new(BTreeMap::new()),
            running: jobs::Jobs::new(request.jobs),
            absolute_context: std::path::absolute(&request.context).unwrap_or_else(|_| request.context.clone()),
            now: epoch.unwrap_or_else(Timestamp::now).to_string(),
        }
    }

    /// Builds what the target needs and puts the image into the store.
    pub(crate) fn run(self) -> Result<Built, BuildError> {
        let needed = self.plan.reachable();
        let target = match needed.as_slice() {
            [only] => self.whole_stage(*only),
            _ => std::thread::scope(|scope| {
                let lineage = self.plan.lineage();
                for index in needed.iter().copied().filter(|index| *index != self.plan.target) {
                    let (build, is_whole) = (&self, lineage.contains(&index));
                    scope.spawn(move || build.stage_for(index, is_whole).map(drop));
                }
                self.whole_stage(self.plan.target)
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
        self.export(&target).map_err(|error| error.at(line()))
    }

    /// What a stage's layers are, found out by the first who asks. Results of other machines stay there.
    fn stage(&self, index: usize) -> StepResult<Arc<StageState>> {
        self.stage_for(index, false)
    }

    /// A stage whose layers are in the store.
    fn whole_stage(&self, index: usize) -> StepResult<Arc<StageState>> {
        self.stage_for(index, true)
    }

    fn stage_for(&self, index: usize, is_whole: bool) -> StepResult<Arc<StageState>> {
        let cell = self.stages.get(index).ok_or(StepError::Cancelled)?;
        let mut cell = lock(cell);
        let mut known = None;
        if let Some(done) = &*cell {
            if !is_whole || done.missing.is_empty() {
                return Ok(Arc::clone(done));
            }
            known = Some(StageState::clone(done));
        }
        if self.cancel.is_cancelled() {
            return Err(StepError::Cancelled);
        }
        let found = match known {
            Some(mut state) => self.make_whole(&mut state).map(|()| state),
            None => self.build_stage(index, is_whole),
        };
        let built = match found {
            Err(StepError::NotHere) => self.build_stage(index, true),
            found => found,
        };
        match built {
            Ok(state) => Ok(Arc::clone(cell.insert(Arc::new(state)))),
            Err(error) => {
                self.cancel.cancel();
                Err(error)
            }
        }
    }

    /// Notes the error that ends the build, with its line; the first one counts.
    fn fail(&self, error: StepError, span: crate::parser::Span) -> StepError {
        if matches!(error, StepError::NotHere) {
            return error;
        }
        self.cancel.cancel();
        if !matches!(error, StepError::Cancelled) {
            lock(&self.error).get_or_insert_with(|| error.at(self.plan.source.line(span)));
        }
        StepError::Cancelled
    }

    /// Puts the target stage's image, its dates filled in. What is wholly cached keeps its date, and so its id.
    fn export(&self, state: &StageState) -> StepResult<Built> {
        let squashed = if self.request.squash { Some(self.squash(state)?) } else { None };
        let state = squashed.as_ref().unwrap_or(state);
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
        let mut image_id = Digest::sha256(serde_json::to_string(&config).unwrap_or_default());
        let is_new = store.image(image_id.as_str()).is_err();
        if self.request.makes_image {
            image_id = store.put_built_image(&config, &self.request.tags)?;
            if !self.request.annotations.is_empty() {
                store.annotate(&image_id, self.request.annotations.clone())?;
            }
        }
        store.cache_put(&key, &created, &config.rootfs.diff_ids)?;
        let (os, architecture, variant) = (config.os.clone(), config.architecture.clone(), config.variant.clone());
        Ok(Built {
            image_id,
            is_new,
            layers: state.folders(),
            platform: Platform { os, architecture, variant, ..Platform::default() },
            cache: std::mem::take(&mut lock(&self.records)),
            annotations: self.request.annotations.clone(),
            warnings: std::mem::take(&mut lock(&self.warnings)),
        })
    }

    /// The context's files, as the ignore file shows them. Read when a step first asks for it.
    fn context(&self) -> StepResult<Arc<Tree>> {
        if let Some(tree) = self.context.get() {
            return Ok(Arc::clone(tree));
        }
        let rules = crate::ignore::ignore_rules(&self.request.context, self.request.containerfile.path.as_deref())?;
        let tree = Tree::context(&self.request.context, rules)?;
        let tree = Arc::new(self.with_digests(tree, &self.absolute_context));
        Ok(Arc::clone(self.context.get_or_init(|| tree)))
    }

    /// The tree with what earlier builds read of the same folder.
    fn with_digests(&self, tree: Tree, folder: &Path) -> Tree {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let name = Digest::sha256(folder.as_os_str().as_bytes()).hex().to_owned();
        let table = self.engine.store().digest_table(&name);
        tree.with_digests(DigestTable::open(table))
    }

    fn event(&self, event: BuildEvent) {
        (self.events)(event);
    }

    /// Tells a warning once.
    fn warn(&self, rule: &'static str, span: crate::parser::Span, message: String) {
        if self.plan.skipped_rules.iter().any(|skipped| skipped == rule || skipped == "all") {
            return;
        }
        let warning = self.plan.source.warning(rule, span, message);
        if self.plan.warnings_fail {
            self.cancel.cancel();
            lock(&self.error).get_or_insert_with(|| crate::violation(&warning));
        }
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
    fn cached(&self, ingredients: &Ingredients, position: &stage::Position<'_>) -> StepResult<Option<Hit>> {
        if position.is_fresh {
            return Ok(None);
        }
        let key = ingredients.key();
        let value = self.engine.store().cache_get(&key)?;
        let here = value.and_then(|value| serde_json::from_str(&value).ok());
        let hit = match here.map(|record| Hit { record, missing: None }) {
            None if !self.request.cache_from.is_empty() => self.imported(&key, position.is_whole)?,
            hit => hit,
        };
        if let Some(hit) = &hit {
            self.note_record(key, &hit.record, position);
        }
        Ok(hit)
    }

    /// Fetches the layers of a stage of which no more is known than what they are.
    fn make_whole(&self, state: &mut StageState) -> StepResult<()> {
        for (key, diff_id) in &state.missing {
            let hit = self.imported(key, true)?.filter(|hit| hit.record.diff_id == *diff_id);
            // Another cache's result of the same step is another one, on which the steps after it did not build.
            hit.ok_or(StepError::NotHere)?;
        }
        state.missing.clear();
        Ok(())
    }

    /// What another machine's build left; `is_whole`: with its layer, which is fetched. A cache that fails is one that is not
    /// there.
    fn imported(&self, key: &str, is_whole: bool) -> StepResult<Option<Hit>> {
        let warn = |message: String| {
            let warning = Warning { rule: "", message, location: None };
            lock(&self.warnings).push(warning.clone());
            self.event(BuildEvent::Warning(warning));
        };
        let platform = self.request.platform.clone().unwrap_or_else(Platform::host);
        let imports =
            self.imports.get_or_init(|| Imports::read(self.engine, &self.request.cache_from, &platform, &warn));
        let found = imports.find(self.engine, key, is_whole).unwrap_or_else(|error| {
            warn(format!("a layer of the build cache is not imported: {error}"));
            None
        });
        let Some((record, is_here)) = found else { return Ok(None) };
        if is_here {
            self.record(key, &record)?;
        }
        Ok(Some(Hit { record, missing: (!is_here).then(|| key.to_owned()) }))
    }

    /// Keeps a result in mind for `--cache-to`.
    fn note_record(&self, key: String, record: &Record, position: &stage::Position<'_>) {
        let is_of_image = self.plan.lineage().contains(&position.index);
        lock(&self.records).push(CacheRecord::new(key, record.clone(), is_of_image));
    }

    /// Keeps a step's result for later builds.
    fn record(&self, key: &str, record: &Record) -> StepResult<()> {
        let value = serde_json::to_string(record).unwrap_or_default();
        let layers: Vec<Digest> = record.diff_id.iter().cloned().collect();
        Ok(self.engine.store().cache_put(key, &value, &layers)?)
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
        let text = format!("{}\n{}\n{slot}", self.absolute_context.display(), self.request.containerfile.name);
        format!("last:{}", Digest::sha256(text).hex())
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
