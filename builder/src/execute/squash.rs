//! `--squash`: the layers that a build put on top of its base become one.

use super::Build;
use super::state::{Layer, StageState};
use crate::cache::{Ingredients, Record};
use crate::step_error::{StepError, StepResult};
use oci::{Digest, History};

impl Build<'_> {
    /// The state with one layer for those of its own stage, and the history that docker gives it: no step has a layer of
    /// its own any more, and a last entry says what was merged.
    pub(super) fn squash(&self, state: &StageState) -> StepResult<StageState> {
        let (below, own) = state.layers.split_at_checked(state.base.layers).unwrap_or((&state.layers, &[]));
        let mut squashed = StageState { layers: below.to_vec(), ..state.clone() };
        let mut whole = state.config.clone();
        whole.rootfs.diff_ids = state.diff_ids();
        let id = Digest::sha256(serde_json::to_string(&whole).unwrap_or_default());
        let record = self.merged(below, own)?;
        let has_layer = record.diff_id.is_some();
        if let Some(diff_id) = record.diff_id {
            let folder = self.engine.store().layer_dir(&diff_id);
            squashed.layers.push(Layer { diff_id, folder });
        }
        let history = &mut squashed.config.history;
        history.iter_mut().skip(state.base.entries).for_each(|entry| entry.empty_layer = true);
        let comment = match &state.base.image {
            Some(base) => format!("merge {id} to {base}"),
            None => format!("create new from {id}"),
        };
        squashed.undated.push(history.len());
        history.push(History { comment: Some(comment), empty_layer: !has_layer, ..History::default() });
        Ok(squashed)
    }

    fn merged(&self, below: &[Layer], own: &[Layer]) -> StepResult<Record> {
        let ids = |layers: &[Layer]| layers.iter().map(|layer| layer.diff_id.clone()).collect::<Vec<_>>();
        let folders = |layers: &[Layer]| layers.iter().map(|layer| layer.folder.clone()).collect::<Vec<_>>();
        let mut ingredients = Ingredients::new("SQUASH", &ids(below));
        ids(own).iter().for_each(|id| ingredients.add("layer", id.as_str()));
        let store = self.engine.store();
        let known = store.cache_get(&ingredients.key())?.and_then(|value| serde_json::from_str::<Record>(&value).ok());
        if let Some(record) = known {
            return Ok(record);
        }
        let scratch = store.new_scratch()?;
        let upper = scratch.path().join("upper");
        std::fs::create_dir(&upper).map_err(|e| StepError::io("make the folder", &upper, e))?;
        crate::layer::merge(&folders(below), &folders(own), &upper)?;
        let committed = store.commit_upper(&upper)?;
        let diff_id = (!committed.empty).then_some(committed.diff_id);
        let record = Record { diff_id, created: self.now.clone() };
        self.record(&ingredients.key(), &record)?;
        Ok(record)
    }
}
