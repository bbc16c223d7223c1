//! One stage from its FROM to its last instruction.

use super::state::StageState;
use super::{Build, Hit, Step};
use crate::cache::{Ingredients, Record};
use crate::event::OutputStream;
use crate::instruction::{Instruction, Located, trigger};
use crate::plan::{Base, From, froms};
use crate::step_error::{StepError, StepResult};
use std::collections::BTreeSet;
use std::path::Path;

/// Where a step stands, for its name and its place in the cache.
pub(super) struct Position<'p> {
    /// The stage's label; empty where there is only one.
    pub(super) stage: &'p str,
    /// Counted from 1; only steps that may make a layer, and the FROM.
    pub(super) number: usize,
    pub(super) total: usize,
    /// The stage's number.
    pub(super) index: usize,
    /// Results of earlier builds are not looked for.
    pub(super) is_fresh: bool,
    /// Results of other machines' builds are fetched, not merely known.
    pub(super) is_whole: bool,
}

impl Position<'_> {
    /// `[build 2/5] RUN make`
    fn name(&self, text: &str) -> String {
        let space = if self.stage.is_empty() { "" } else { " " };
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("[{}{space}{}/{}] {text}", self.stage, self.number, self.total)
    }

    pub(super) fn slot(&self) -> String {
        format!("{} {}", self.stage, self.number)
    }
}

impl Build<'_> {
    pub(super) fn build_stage(&self, index: usize, is_whole: bool) -> StepResult<StageState> {
        let stage = &self.plan.stages[index];
        let mut label = self.plan.stage_label(index);
        if self.request.shows_platform {
            let platform = self.request.platform.as_ref().map(ToString::to_string).unwrap_or_default();
            label = format!("{platform} {label}").trim().to_owned();
        }
        let layered = stage.steps.iter().filter(|step| step.instruction.makes_layer()).count();
        let is_fresh = self.is_fresh(index);
        let position = Position { stage: &label, number: 1, total: layered + 1, index, is_fresh, is_whole };
        if let Base::Stage(base) = stage.base {
            self.stage_for(base, is_whole)?;
        }
        let step = self.start_step(position.name(&stage.from.text));
        let begun = self.begin(index, &step, &position).inspect_err(|error| step.failed(error));
        let (mut state, cached) = begun.map_err(|error| self.fail(error, stage.from.span))?;
        step.done(cached);
        let triggers = self.triggers(&mut state, &stage.from).map_err(|error| self.fail(error, stage.from.span))?;
        let total = layered + 1 + triggers.iter().filter(|step| step.instruction.makes_layer()).count();
        let mut number = 1;
        for located in triggers.iter().chain(&stage.steps) {
            if self.cancel.is_cancelled() {
                return Err(StepError::Cancelled);
            }
            number += usize::from(located.instruction.makes_layer());
            let position = Position { stage: &label, number, total, index, is_fresh, is_whole };
            self.instruction(index, &mut state, located, &position).map_err(|error| self.fail(error, located.span))?;
        }
        Ok(state)
    }

    /// `--no-cache`, or `--no-cache-filter` with the stage's name or number.
    fn is_fresh(&self, index: usize) -> bool {
        let label = self.plan.stages[index].name.clone().unwrap_or_else(|| index.to_string());
        self.request.no_cache || self.request.no_cache_filter.iter().any(|name| name.eq_ignore_ascii_case(&label))
    }

    /// The base image's ONBUILD instructions; they are this image's no more.
    pub(super) fn triggers(&self, state: &mut StageState, from: &Located) -> StepResult<Vec<Located>> {
        let texts = std::mem::take(&mut state.config.config.on_build);
        let parse = |text: &String| Ok(trigger(text, from.span, '\\', &self.plan.source)?);
        texts.iter().map(parse).collect()
    }

    fn instruction(
        &self,
        stage: usize,
        state: &mut StageState,
        located: &Located,
        position: &Position<'_>,
    ) -> StepResult<()> {
        let mut unset = BTreeSet::new();
        if !located.instruction.makes_layer() {
            let done = self.configure(state, &located.instruction, &mut unset);
            self.warn_unset(state, located, &unset);
            return done;
        }
        // What it takes from is waited for before its clock runs.
        for text in froms(&located.instruction) {
            if let From::Stage(source) = self.plan.find_from(text, stage, located.span)? {
                self.stage(source)?;
            }
        }
        let step = self.start_step(position.name(&located.text));
        let cached = match &located.instruction {
            Instruction::Run(run) => self.run_instruction(stage, state, run, &step, position, &mut unset),
            Instruction::Copy(copy) => self.copy_instruction(stage, state, copy, &step, position, &mut unset),
            Instruction::Workdir(text) => self.workdir_instruction(state, text, &step, position, &mut unset),
            _ => Ok(false),
        };
        self.warn_unset(state, located, &unset);
        if matches!(cached, Err(StepError::NotHere)) {
            step.output(OutputStream::Stderr, b"the cache knows what is below, but does not have it: it is built\n");
            step.done(false);
            return Err(StepError::NotHere);
        }
        let cached = cached.inspect_err(|error| step.failed(error))?;
        step.done(cached);
        Ok(())
    }

    pub(super) fn warn_unset(&self, state: &StageState, located: &Located, unset: &BTreeSet<String>) {
        // An ARG without a value is declared all the same.
        for name in unset.iter().filter(|name| !state.declared.contains(name)) {
            let near = state.near(name).map(|near| format!(" (did you mean ${near}?)")).unwrap_or_default();
            self.warn("UndefinedVar", located.span, format!("Usage of undefined variable '${name}'{near}"));
        }
    }

    /// The frame of every step that may make a layer: a cached result is taken, else `fill` is to fill an upperdir,
    /// which then becomes the layer. `fill` says whether its result may be recorded.
    pub(super) fn layer(
        &self,
        state: &mut StageState,
        step: &Step<'_, '_>,
        position: &Position<'_>,
        ingredients: &Ingredients,
        created_by: String,
        fill: impl FnOnce(&StageState, &Path) -> StepResult<bool>,
    ) -> StepResult<bool> {
        if let Some(hit) = self.cached(ingredients, position)? {
            self.note_hit(&position.slot(), ingredients)?;
            self.take(state, hit, created_by);
            return Ok(true);
        }
        self.make_whole(state)?;
        self.explain_miss(step, &position.slot(), ingredients)?;
        let store = self.engine.store();
        let scratch = store.new_scratch()?;
        let upper = scratch.path().join("upper");
        std::fs::create_dir(&upper).map_err(|e| StepError::io("make the folder", &upper, e))?;
        let running = self.running.enter();
        if self.cancel.is_cancelled() {
            return Err(StepError::Cancelled);
        }
        let may_record = fill(state, &upper)?;
        drop(running);
        let committed = store.commit_upper(&upper)?;
        let diff_id = (!committed.empty).then_some(committed.diff_id);
        let record = Record { diff_id, created: self.now.clone() };
        if may_record {
            self.record(&ingredients.key(), &record)?;
            self.note_record(ingredients.key(), &record, position);
        }
        self.take(state, Hit { record, missing: None }, created_by);
        Ok(false)
    }

    /// Puts a step's result onto the stage.
    pub(super) fn take(&self, state: &mut StageState, Hit { record, missing }: Hit, created_by: String) {
        state.missing.extend(missing.map(|key| (key, record.diff_id.clone())));
        if let Some(diff_id) = &record.diff_id {
            let folder = self.engine.store().layer_dir(diff_id);
            state.layers.push(super::state::Layer { diff_id: diff_id.clone(), folder });
        }
        let created = if self.request.source_date_epoch.is_some() { &self.now } else { &record.created };
        state.add_history(created_by, Some(created.clone()), record.diff_id.is_some());
    }
}
