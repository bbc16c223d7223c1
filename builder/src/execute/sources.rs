//! What a `--from`, a mount's `from` or a FROM names beside the context: earlier stages, images, named contexts.

use super::base::BaseImage;
use super::run::said_image;
use super::state::Layer;
use super::{Build, Step, lock};
use crate::NamedContext;
use crate::fetch::{FetchedContext, fetch_url};
use crate::ignore::IgnoreRules;
use crate::layer::view;
use crate::plan::From;
use crate::step_error::{StepError, StepResult};
use crate::tree::{Manifest, Selected, Tree};
use oci::Digest;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files to take from.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) tree: Arc<Tree>,
    /// What identifies all of it where that is known without reading it: the layers it is made of.
    pub(super) chain: Option<String>,
    /// The layers' folders, lowest first, where it is made of such.
    folders: Vec<PathBuf>,
}

impl Source {
    /// What a mount's cache key holds of one thing in here.
    pub(super) fn identity(&self, selected: &Selected) -> StepResult<String> {
        Ok(match &self.chain {
            Some(chain) => format!("{chain} {}", selected.path.display()),
            None => Manifest::of(&self.tree, &selected.path, &IgnoreRules::default())?.digest(None, None).to_string(),
        })
    }

    /// The host's folders, the lowest first, that together are one thing in here: as overlay would see it. None where this
    /// is not made of layers.
    pub(super) fn layered(&self, selected: &Selected) -> Option<Vec<PathBuf>> {
        let mut found = Vec::new();
        for layer in self.folders.iter().rev() {
            match in_layer(layer, &selected.path) {
                InLayer::Nothing => {}
                InLayer::Hidden => break,
                InLayer::Folder { path, hides_others } => {
                    // The same layer may be there twice: overlay wants it once.
                    if !found.contains(&path) {
                        found.push(path);
                    }
                    if hides_others {
                        break;
                    }
                }
                InLayer::File(path) => {
                    if found.is_empty() {
                        found.push(path);
                    }
                    break;
                }
            }
        }
        found.reverse();
        (!found.is_empty()).then_some(found)
    }
}

/// What one layer says of a path.
enum InLayer {
    /// Ask the next one below.
    Nothing,
    /// It took it away.
    Hidden,
    Folder {
        path: PathBuf,
        hides_others: bool,
    },
    File(PathBuf),
}

fn in_layer(layer: &Path, path: &Path) -> InLayer {
    let (mut at, mut hides_others) = (layer.to_owned(), false);
    for name in path {
        at.push(name);
        let Ok(meta) = std::fs::symlink_metadata(&at) else {
            return if hides_others { InLayer::Hidden } else { InLayer::Nothing };
        };
        if !meta.is_dir() {
            let is_last = at.strip_prefix(layer).is_ok_and(|done| done == path);
            let is_whiteout = meta.file_type().is_char_device() && meta.rdev() == 0;
            return if is_last && !is_whiteout { InLayer::File(at) } else { InLayer::Hidden };
        }
        hides_others |= is_opaque(&at);
    }
    InLayer::Folder { path: at, hides_others }
}

fn is_opaque(folder: &Path) -> bool {
    let mark = |name: &str| {
        let mut value = [0; 8];
        rustix::fs::lgetxattr(folder, name, &mut value).is_ok_and(|len| value.get(..len) == Some(b"y"))
    };
    mark("trusted.overlay.opaque") || mark("user.overlay.opaque")
}

fn chain(layers: &[Layer]) -> String {
    let layers: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    Digest::sha256(layers.join("\n")).to_string()
}

/// A named context, found or fetched.
#[derive(Clone)]
pub(super) enum Context {
    Image(Arc<BaseImage>),
    /// The second keeps what was fetched for as long as it is read.
    Folder(Arc<Tree>, #[allow(dead_code)] Option<Arc<FetchedContext>>),
}

impl Build<'_> {
    /// The files a `from` names; without one the context's.
    pub(super) fn source(&self, stage: usize, from: Option<&str>, step: &Step<'_, '_>) -> StepResult<Source> {
        let plain = |tree| Source { tree, chain: None, folders: Vec::new() };
        let Some(from) = from else { return Ok(plain(self.context()?)) };
        let span = self.plan.stages[stage].from.span;
        let (label, layers) = match self.plan.find_from(from, stage, span)? {
            From::Stage(index) => (format!("stage {from}"), self.whole_stage(index)?.layers.clone()),
            From::Context(index) => match self.named_context(index, step)? {
                Context::Folder(tree, _) => return Ok(plain(tree)),
                Context::Image(image) => (format!("context {from}"), image.layers.clone()),
            },
            From::Image(name) => {
                let platform = self.request.platform.as_ref();
                let image =
                    self.image(&name, platform, step).map_err(|e| said_image(e, from, self.plan.near_stage(from)))?.0;
                (format!("image {from}"), image.layers)
            }
        };
        let folders: Vec<PathBuf> = layers.iter().map(|layer| layer.folder.clone()).collect();
        let chain = chain(&layers);
        let root = match view(&folders)? {
            Some(root) => root,
            None => self.empty_root()?,
        };
        Ok(Source { tree: Arc::new(Tree::of_root(root, label)), chain: Some(chain), folders })
    }

    /// The chain of the earlier stage that a `from` names, without its files; None where it names something else.
    pub(super) fn stage_chain(&self, stage: usize, from: Option<&str>) -> StepResult<Option<String>> {
        let Some(from) = from else { return Ok(None) };
        match self.plan.find_from(from, stage, self.plan.stages[stage].from.span)? {
            From::Stage(index) => Ok(Some(chain(&self.stage(index)?.layers))),
            _ => Ok(None),
        }
    }

    /// A folder without anything in it: it stays valid by its descriptor after its name is gone.
    fn empty_root(&self) -> StepResult<OwnedFd> {
        let scratch = self.engine.store().new_scratch()?;
        Ok(linux::resolve::open_root(scratch.path())?)
    }

    /// A named context; what several stages ask for is fetched once.
    pub(super) fn named_context(&self, index: usize, step: &Step<'_, '_>) -> StepResult<Context> {
        let cell = Arc::clone(lock(&self.contexts).entry(index).or_default());
        let mut cell = lock(&cell);
        if let Some(context) = &*cell {
            return Ok(context.clone());
        }
        let Some((name, context)) = self.request.contexts.get(index) else { return Err(StepError::Cancelled) };
        let found = match context {
            NamedContext::Folder(folder) => self.folder_context(name, folder, None)?,
            NamedContext::Image(image) => {
                Context::Image(Arc::new(self.image(image, self.request.platform.as_ref(), step)?.0))
            }
            NamedContext::Layout { folder, reference } => {
                Context::Image(Arc::new(self.layout(folder, reference, self.request.platform.as_ref())?))
            }
            NamedContext::Git(repository) => {
                let fetched = Arc::new(repository.fetch(self.engine, repository.keeps_git_dir())?);
                self.folder_context(name, fetched.folder(), Some(Arc::clone(&fetched)))?
            }
            NamedContext::Url(address) => {
                let fetched = Arc::new(fetch_url(self.engine, address)?);
                if fetched.containerfile().is_some() {
                    return Err(StepError::wrong(format!("the context {name}: {address} is no archive")));
                }
                self.folder_context(name, fetched.folder(), Some(Arc::clone(&fetched)))?
            }
        };
        *cell = Some(found.clone());
        Ok(found)
    }

    fn folder_context(&self, name: &str, folder: &Path, fetched: Option<Arc<FetchedContext>>) -> StepResult<Context> {
        let rules = crate::ignore::ignore_rules(folder, None)?;
        let tree = Tree::context(folder, rules)?.labelled(format!("build context {name}"));
        let tree = if fetched.is_some() { tree } else { self.with_digests(tree, folder) };
        Ok(Context::Folder(Arc::new(tree), fetched))
    }
}
