//! What a build would warn of on its way, told without it (`--check`): the same instructions change the same configs, but
//! nothing is run, copied or fetched.

use super::base::{scratch_config, with_path};
use super::copy::Copy;
use super::state::StageState;
use super::{Build, lock};
use crate::error::BuildError;
use crate::event::Warning;
use crate::instruction::Instruction;
use crate::plan::Base;
use crate::step_error::StepResult;
use oci::{ImageConfig, Platform, Reference};
use std::collections::{BTreeMap, BTreeSet};

impl Build<'_> {
    /// Goes through the stages that the target needs. Of one whose base cannot be known nothing is said.
    pub(crate) fn rehearse(&self) -> Result<Vec<Warning>, BuildError> {
        let mut done: BTreeMap<usize, StageState> = BTreeMap::new();
        for index in self.plan.reachable() {
            if let Some(state) = self.rehearse_stage(index, &done) {
                done.insert(index, state);
            }
        }
        match lock(&self.error).take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut lock(&self.warnings))),
        }
    }

    fn rehearse_stage(&self, index: usize, done: &BTreeMap<usize, StageState>) -> Option<StageState> {
        let stage = self.plan.stages.get(index)?;
        let platform = stage.platform.clone().or_else(|| self.request.platform.clone());
        let mut state = match &stage.base {
            Base::Scratch => self.fresh(scratch_config(platform.as_ref()), Vec::new()),
            Base::Stage(base) => done.get(base)?.inherited(),
            Base::Context(_) => return None,
            Base::Image(name) => {
                let config = self.config_of(name, platform.as_ref())?;
                self.warn_of_platform(name, &config, platform.as_ref(), index);
                self.fresh(config, Vec::new())
            }
        };
        state.escape = self.plan.escape;
        let triggers = self.triggers(&mut state, &stage.from).ok()?;
        for located in triggers.iter().chain(&stage.steps) {
            let mut unset = BTreeSet::new();
            let done = self.rehearse_instruction(&mut state, &located.instruction, &mut unset);
            self.warn_unset(&state, located, &unset);
            // Errors are the build's to tell.
            done.ok()?;
        }
        Some(state)
    }

    fn rehearse_instruction(
        &self,
        state: &mut StageState,
        instruction: &Instruction,
        unset: &mut BTreeSet<String>,
    ) -> StepResult<()> {
        match instruction {
            Instruction::Workdir(text) => {
                let path = super::workdir::absolute(state.working_dir(), &state.word(text, unset)?);
                state.config.config.working_dir = path.display().to_string();
            }
            Instruction::Copy(copy) => drop(Copy::new(state, copy, unset)?),
            Instruction::Run(run) => {
                super::mounts::expanded(state, run, unset)?;
            }
            other => self.configure(state, other, unset)?,
        }
        Ok(())
    }

    /// The config of an image: of the store's, else of its registry's, whose layers stay there.
    fn config_of(&self, name: &str, platform: Option<&Platform>) -> Option<ImageConfig> {
        if let Ok(Some(image)) = self.find_image(name, platform) {
            return Some(image.config);
        }
        let reference: Reference = name.parse().ok()?;
        let platform = platform.cloned().unwrap_or_else(Platform::host);
        let manifest = self.engine.remote_manifest(&reference, &platform).ok()?;
        let config = self.engine.remote_document(&reference, &manifest.config).ok()?;
        serde_json::from_slice(&config).ok().map(with_path)
    }
}
