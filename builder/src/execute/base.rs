//! What a stage starts from: nothing, another stage, or an image that is here or fetched.

use super::sources::Context;
use super::stage::Position;
use super::state::{Below, Layer, StageState};
use super::{Build, Step, lock};
use crate::cache::Ingredients;
use crate::event::{BuildEvent, OutputStream};
use crate::ignore::IgnoreRules;
use crate::layer::{LayerWriter, Placement};
use crate::plan::{Base, platform_args};
use crate::request::PullPolicy;
use crate::step_error::{StepError, StepResult};
use crate::tree::{Manifest, Tree};
use engine::{PullEvent, PullRequest, PullState};
use oci::{Digest, ImageConfig, Platform, Reference};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use store::StoreError;

/// What an image without a PATH of its own runs programs with.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image to build on or copy from.
#[derive(Clone, Debug)]
pub(super) struct BaseImage {
    pub(super) layers: Vec<Layer>,
    pub(super) config: ImageConfig,
    pub(super) id: Digest,
}

impl Build<'_> {
    /// The state a stage begins with, and whether it was all here.
    pub(super) fn begin(
        &self,
        index: usize,
        step: &Step<'_, '_>,
        position: &Position<'_>,
    ) -> StepResult<(StageState, bool)> {
        let stage = &self.plan.stages[index];
        let platform = stage.platform.clone().or_else(|| self.request.platform.clone());
        let mut state = match &stage.base {
            Base::Scratch => (self.fresh(scratch_config(platform.as_ref()), Vec::new()), true),
            Base::Stage(base) => {
                let base = self.stage_for(*base, position.is_whole)?;
                (base.inherited(), true)
            }
            Base::Context(context) => match self.named_context(*context, step)? {
                Context::Image(image) => (self.over(&image), true),
                Context::Folder(tree, _) => {
                    let mut state = self.fresh(scratch_config(platform.as_ref()), Vec::new());
                    let cached = self.whole_tree(&mut state, &tree, step, position)?;
                    (state, cached)
                }
            },
            Base::Image(name) => {
                let (image, was_here) = self.image(name, platform.as_ref(), step)?;
                self.warn_of_platform(name, &image.config, platform.as_ref(), index);
                (self.over(&image), was_here)
            }
        };
        state.0.escape = self.plan.escape;
        state.0.base.layers = state.0.layers.len();
        state.0.base.entries = state.0.config.history.len();
        Ok(state)
    }

    pub(super) fn warn_of_platform(&self, name: &str, config: &ImageConfig, wanted: Option<&Platform>, stage: usize) {
        let has = platform_of(config);
        let wanted = wanted.cloned().unwrap_or_else(Platform::host);
        if !config.architecture.is_empty() && wanted != has && wanted.rank(&has).is_none() {
            let message = format!(
                "Base image {name} was pulled with platform \"{has}\", expected \"{wanted}\" for current build"
            );
            self.warn("InvalidBaseImagePlatform", self.plan.stages[stage].from.span, message);
        }
    }

    /// A folder as a root file system: its content is the first layer.
    fn whole_tree(
        &self,
        state: &mut StageState,
        tree: &Tree,
        step: &Step<'_, '_>,
        position: &Position<'_>,
    ) -> StepResult<bool> {
        let manifest = Manifest::of(tree, Path::new(""), &IgnoreRules::default())?;
        let mut ingredients = Ingredients::new("FROM", &[]);
        ingredients.add("files", manifest.digest(None, None).to_string());
        ingredients.add("time", format!("{:?}", self.request.source_date_epoch));
        let created_by = "COPY . /".to_owned();
        self.layer(state, step, position, &ingredients, created_by, |_, upper| {
            let mut writer = LayerWriter::new(upper, None, (0, 0), 0, self.request.source_date_epoch)?;
            writer.copy(tree, Path::new(""), &manifest, Path::new(""), &Placement::default())?;
            Ok(!writer.finish()?)
        })
    }

    fn over(&self, image: &BaseImage) -> StageState {
        let base = Below { image: Some(image.id.clone()), ..Below::default() };
        StageState { base, ..self.fresh(image.config.clone(), image.layers.clone()) }
    }

    pub(super) fn fresh(&self, config: ImageConfig, layers: Vec<Layer>) -> StageState {
        StageState {
            layers,
            folder_time_s: self.folder_time(&config),
            config,
            args: BTreeMap::new(),
            declared: Vec::new(),
            cmd_set: false,
            undated: Vec::new(),
            base: Below::default(),
            missing: Vec::new(),
            escape: self.plan.escape,
            expanded_bytes: Arc::default(),
        }
    }

    /// What an ARG that nothing else sets is worth where it is declared.
    pub(super) fn automatic_arg(&self, name: &str) -> Option<String> {
        platform_args(self.request).remove(name)
    }

    /// An image by name: out of the store, or fetched. Asked for by several stages it is fetched once.
    pub(super) fn image(
        &self,
        name: &str,
        platform: Option<&Platform>,
        step: &Step<'_, '_>,
    ) -> StepResult<(BaseImage, bool)> {
        let key = format!("{name} {}", platform.map(Platform::to_string).unwrap_or_default());
        let cell = Arc::clone(lock(&self.images).entry(key).or_default());
        let mut cell = lock(&cell);
        if let Some(image) = &*cell {
            return Ok((image.clone(), true));
        }
        let found = match self.request.pull {
            PullPolicy::Always => None,
            PullPolicy::Missing | PullPolicy::Never => match self.find_image(name, platform)? {
                None => self.find_short(name, platform)?,
                found => found,
            },
        };
        let was_here = found.is_some();
        let image = match found {
            Some(image) => image,
            None => self.fetch_image(name, platform, step)?,
        };
        *cell = Some(image.clone());
        Ok((image, was_here))
    }

    pub(super) fn find_image(&self, name: &str, platform: Option<&Platform>) -> StepResult<Option<BaseImage>> {
        let store = self.engine.store();
        let image = match store.image(name) {
            Ok(image) => image,
            Err(StoreError::NoSuchImage(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // An image of another platform is as good as none, if one was asked for.
        let has = platform_of(&image.config);
        if platform.is_some_and(|wanted| wanted.rank(&has).is_none()) {
            return Ok(None);
        }
        let folders = store.image_layers(&image)?;
        if folders.len() != image.config.rootfs.diff_ids.len() {
            return Err(StepError::wrong(format!("image {name} is incomplete: pull it again")));
        }
        // From here on they stay, whoever removes the image meanwhile.
        for layer in &image.config.rootfs.diff_ids {
            let _leased = store.has_layer(layer);
        }
        let layers = image.config.rootfs.diff_ids.iter().cloned().zip(folders);
        let layers = layers.map(|(diff_id, folder)| Layer { diff_id, folder }).collect();
        Ok(Some(BaseImage { layers, config: with_path(image.config), id: image.id }))
    }

    /// By one of the names that a short one stands for by `registries.conf`.
    fn find_short(&self, name: &str, platform: Option<&Platform>) -> StepResult<Option<BaseImage>> {
        for full in self.engine.short_names(name)? {
            if let Some(found) = self.find_image(&full.to_string(), platform)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Under the first of the names that a short one stands for, or under its own.
    fn fetch_image(&self, name: &str, platform: Option<&Platform>, step: &Step<'_, '_>) -> StepResult<BaseImage> {
        let names: Vec<String> = self.engine.short_names(name)?.iter().map(Reference::to_string).collect();
        let Some((last, others)) = names.split_last() else { return self.fetch_named(name, platform, step) };
        let first = others.iter().find_map(|name| self.fetch_named(name, platform, step).ok());
        first.map_or_else(|| self.fetch_named(last, platform, step), Ok)
    }

    fn fetch_named(&self, name: &str, platform: Option<&Platform>, step: &Step<'_, '_>) -> StepResult<BaseImage> {
        if self.request.pull == PullPolicy::Never {
            let hint = format!("fetch it with: ctr pull {name}");
            return Err(StepError::with_hint(format!("No such image: {name}"), hint));
        }
        let reference: Reference = name.parse().map_err(|error| StepError::wrong(format!("{name:?}: {error}")))?;
        let mut request = PullRequest::new(reference);
        request.platform = platform.cloned();
        let pulled = self.engine.pull(&request, &|event| self.tell_pull(step, event));
        if let Err(error) = pulled {
            let near = self.plan.near_stage(name).map(|near| format!("did you mean the stage {near}?"));
            let hint = near.or_else(|| error.hint().map(str::to_owned)).unwrap_or_else(|| {
                format!("no image {name} is here and fetching it failed; `ctr image ls` shows what is here")
            });
            return Err(StepError::with_hint(error.to_string(), hint));
        }
        self.find_image(name, platform)?.ok_or_else(|| StepError::wrong(format!("No such image: {name}")))
    }

    fn tell_pull(&self, step: &Step<'_, '_>, event: PullEvent) {
        let progress = |what: String, done_bytes, total_bytes| BuildEvent::Progress {
            step: step.id,
            what,
            done_bytes,
            total_bytes,
        };
        match event {
            PullEvent::Started { version, repository } => {
                step.output(OutputStream::Stderr, format!("{version}: Pulling from {repository}\n").as_bytes());
            }
            PullEvent::Layers(layers) => {
                layers.into_iter().for_each(|layer| self.event(progress(layer.id, 0, layer.size_bytes)));
            }
            PullEvent::Layer { id, state: PullState::Downloading { done_bytes } } => {
                self.event(progress(id, done_bytes, 0));
            }
            PullEvent::Layer { .. } => {}
            PullEvent::Warning(text) => step.output(OutputStream::Stderr, format!("{text}\n").as_bytes()),
        }
    }
}

/// What an image is for.
fn platform_of(config: &ImageConfig) -> Platform {
    let (architecture, os, variant) = (config.architecture.clone(), config.os.clone(), config.variant.clone());
    Platform { architecture, os, variant, ..Platform::default() }
}

pub(super) fn scratch_config(platform: Option<&Platform>) -> ImageConfig {
    let platform = platform.cloned().unwrap_or_else(Platform::host);
    let mut config = ImageConfig {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        ..ImageConfig::default()
    };
    config.config.working_dir = "/".to_owned();
    with_path(config)
}

/// As BuildKit has it, every stage begins with a PATH: `ENV PATH=/app/bin:$PATH` must find the system's programs too.
pub(super) fn with_path(mut config: ImageConfig) -> ImageConfig {
    let env = &mut config.config.env;
    if !env.iter().any(|line| line.starts_with("PATH=")) {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_without_a_path_gets_the_default_one() {
        let path = |env: &[&str]| {
            let mut config = ImageConfig::default();
            config.config.env = env.iter().map(|line| (*line).to_owned()).collect();
            with_path(config).config.env
        };
        assert_eq!(path(&["A=1"]), ["A=1".to_owned(), format!("PATH={DEFAULT_PATH}")]);
        assert_eq!(path(&["PATH=/x"]), ["PATH=/x"]);
    }
}
