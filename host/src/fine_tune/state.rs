//! Everything that a fine-tuning changes from step to step, and its file: what was stopped goes on to the bit.

use std::collections::HashMap;
use std::path::Path;

use graft_shared::error::{Context, Result};
use graft_shared::files::write_atomic;
use safetensors::tensor::SafeTensors;
use serde::{Deserialize, Serialize};

use super::optimizer::Optimizer;
use super::plan::Plan;
use crate::nn::{Graph, Weights, read_lists, write_lists};

/// Name of the table of numbers in the file's metadata.
const PROGRESS: &str = "progress";

/// A fine-tuning between two steps.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    /// As the last step left them.
    pub(super) weights: Weights,
    /// Their running mean.
    pub(super) mean: Weights,
    /// With its moments.
    pub(super) optimizer: Optimizer,
    /// Where it is.
    pub(super) position: Position,
    /// The running mean of the best epoch so far.
    pub(super) best: Weights,
}

/// How far a fine-tuning has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Epochs finished and validated.
    pub(super) epochs: usize,
    /// Steps taken in all.
    pub(super) steps: usize,
    /// Steps of the optimizer.
    optimizer_steps: u64,
    /// Sum of the losses of the epoch at hand.
    pub(super) loss: f64,
    /// The best validation accuracy and its epoch, counted from 1.
    pub(super) best: Option<(f64, usize)>,
    /// Factor on all learning rates: halved once when the loss was not finite.
    pub(super) rate_factor: f64,
}

impl State {
    /// Before the first step.
    pub(super) fn start(weights: Weights, plan: &Plan) -> State {
        State {
            mean: weights.clone(),
            best: weights.clone(),
            optimizer: Optimizer::new(plan.optimizer, plan.weight_decay, &weights.parameters),
            position: Position {
                rate_factor: 1.0,
                ..Position::default()
            },
            weights,
        }
    }

    /// Writes everything to `path`, whole or not at all.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn save(&mut self, path: &Path) -> Result<()> {
        self.position.optimizer_steps = self.optimizer.steps;
        let progress = serde_json::to_string(&self.position).context("writing the progress")?;
        let metadata = HashMap::from([(PROGRESS.to_owned(), progress)]);
        write_atomic(path, &write_lists(self.lists(), Some(metadata))?)
    }

    /// What [`State::save`] wrote, for the same graph and plan.
    ///
    /// # Errors
    /// A file that can't be read, and one of another graph.
    pub(super) fn load(path: &Path, graph: &Graph, plan: &Plan) -> Result<State> {
        let read = || -> Result<State> {
            let bytes = std::fs::read(path).context("it can't be read")?;
            let (_, header) =
                SafeTensors::read_metadata(&bytes).context("it is no safetensors file")?;
            let progress = header
                .metadata()
                .as_ref()
                .and_then(|metadata| metadata.get(PROGRESS))
                .context("it does not say how far training had come")?;
            let mut state = State::start(Weights::of(graph)?, plan);
            state.position =
                serde_json::from_str(progress).context("its progress can't be read")?;
            state.optimizer.steps = state.position.optimizer_steps;
            read_lists(&bytes, state.lists_mut())?;
            Ok(state)
        };
        read().with_context(|| format!("the checkpoint `{}`", path.display()))
    }

    /// Every list of values by its name in the file.
    fn lists(&self) -> Vec<(String, &[f32])> {
        let mut lists = Vec::new();
        for (kind, weights) in [
            ("weights", &self.weights),
            ("mean", &self.mean),
            ("best", &self.best),
        ] {
            lists.extend(
                weights
                    .lists()
                    .map(|(name, values)| (format!("{kind}.{name}"), values)),
            );
        }
        for (kind, moments) in [
            ("first", &self.optimizer.first),
            ("second", &self.optimizer.second),
        ] {
            for (parameter, values) in self.weights.parameters.iter().zip(moments) {
                lists.push((format!("{kind}.{}", parameter.name), &values[..]));
            }
        }
        lists
    }

    /// As [`State::lists`], to be filled.
    fn lists_mut(&mut self) -> Vec<(String, &mut [f32])> {
        let names: Vec<String> = self
            .weights
            .parameters
            .iter()
            .map(|parameter| parameter.name.clone())
            .collect();
        let mut lists = Vec::new();
        for (kind, weights) in [
            ("weights", &mut self.weights),
            ("mean", &mut self.mean),
            ("best", &mut self.best),
        ] {
            lists.extend(
                weights
                    .lists_mut()
                    .map(|(name, values)| (format!("{kind}.{name}"), values)),
            );
        }
        for (kind, moments) in [
            ("first", &mut self.optimizer.first),
            ("second", &mut self.optimizer.second),
        ] {
            for (name, values) in names.iter().zip(moments) {
                lists.push((format!("{kind}.{name}"), &mut values[..]));
            }
        }
        lists
    }
}
