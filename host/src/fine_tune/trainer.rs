//! One step after another at one input size, on the processor or on a GPU.

use graft_shared::error::Result;

#[cfg(any(test, feature = "cuda"))]
use super::optimizer::Rule;
use super::plan::Plan;
use super::state::State;
use super::{Device, loss};
#[cfg(any(test, feature = "cuda"))]
use crate::nn::cuda;
use crate::nn::{BatchStatistics, Gradients, Graph, Tape, Weights};

/// What takes the steps.
pub(super) struct Trainer<'a> {
    engine: Engine<'a>,
    classes: usize,
    /// Highest learning rate of each parameter.
    rates: Vec<f64>,
    statistics: BatchStatistics,
    /// Nodes before this one stay as they are.
    first: usize,
    label_smoothing: f64,
    ema: f64,
}

enum Engine<'a> {
    Cpu(Cpu<'a>),
    #[cfg(any(test, feature = "cuda"))]
    Cuda(cuda::Step<'a>),
}

/// The buffers of a step on the processor.
struct Cpu<'a> {
    tape: Tape<'a>,
    gradients: Gradients,
    logit_gradient: Vec<f32>,
}

impl<'a> Trainer<'a> {
    /// For batches of so many pictures of so many pixels a side in so many classes, from `state` on.
    pub(super) fn new(
        graph: &'a Graph,
        (batch, size, classes): (usize, usize, usize),
        plan: &Plan,
        state: &State,
        device: &Device,
    ) -> Result<Trainer<'a>> {
        let weights = &state.weights;
        let first = (plan.frozen * graph.nodes.len() as f64) as usize;
        let rates = rates(weights, first, plan);
        let engine = match device {
            Device::Cpu => Engine::Cpu(Cpu {
                tape: Tape::new(graph, batch, 3, size, size)?,
                gradients: weights
                    .parameters
                    .iter()
                    .map(|parameter| vec![0.0; parameter.values.len()])
                    .collect(),
                logit_gradient: vec![0.0; batch * classes],
            }),
            #[cfg(any(test, feature = "cuda"))]
            Device::Cuda(gpu) => {
                let decays = weights
                    .parameters
                    .iter()
                    .map(|parameter| state.optimizer.decay(parameter.role));
                let rates: Vec<(f64, f64)> = rates.iter().copied().zip(decays).collect();
                let sizes = (batch, size, classes);
                let step = cuda::Step::new(graph, weights, gpu.0.clone(), sizes, &rates)?;
                let moments = [&state.optimizer.first[..], &state.optimizer.second[..]];
                step.send(weights, &state.mean, moments)?;
                Engine::Cuda(step)
            }
        };
        Ok(Trainer {
            engine,
            classes,
            rates,
            statistics: plan.batch_norm,
            first,
            label_smoothing: plan.label_smoothing,
            ema: plan.ema,
        })
    }

    /// One step with all learning rates times `rate`; returns the loss before it. What a GPU changes is in `state` after
    /// [`Trainer::fetch`].
    ///
    /// `targets` are `[n, classes]`, each row summing to 1, before smoothing.
    pub(super) fn step(
        &mut self,
        state: &mut State,
        input: &[f32],
        targets: &[f32],
        rate: f64,
    ) -> Result<f64> {
        let spread = (self.label_smoothing / self.classes as f64) as f32;
        let keep = (1.0 - self.label_smoothing) as f32;
        let targets: Vec<f32> = targets
            .iter()
            .map(|target| keep * target + spread)
            .collect();
        let part = mean_part(self.ema, state.optimizer.steps + 1);
        let (statistics, first) = (self.statistics, self.first);
        match &mut self.engine {
            Engine::Cpu(cpu) => {
                cpu.tape.input().copy_from_slice(input);
                let logits = cpu.tape.forward(&mut state.weights, statistics, first)?;
                let loss =
                    loss::cross_entropy(logits, &targets, self.classes, &mut cpu.logit_gradient);
                cpu.tape.backward(
                    &state.weights,
                    statistics,
                    &cpu.logit_gradient,
                    first,
                    &mut cpu.gradients,
                )?;
                let rates: Vec<f64> = self.rates.iter().map(|highest| highest * rate).collect();
                state
                    .optimizer
                    .step(&mut state.weights.parameters, &cpu.gradients, &rates);
                for ((_, mean), (_, values)) in state.mean.lists_mut().zip(state.weights.lists()) {
                    for (mean, &value) in mean.iter_mut().zip(values) {
                        *mean += part * (value - *mean);
                    }
                }
                Ok(loss)
            }
            #[cfg(any(test, feature = "cuda"))]
            Engine::Cuda(step) => {
                let (one, two) = state.optimizer.begin();
                let moves = match state.optimizer.rule {
                    Rule::AdamW => cuda::Moves::AdamW(one, two),
                    Rule::Sgd => cuda::Moves::Momentum,
                };
                step.step(input, &targets, (statistics, first), (rate, moves), part)
            }
        }
    }

    /// Brings `state` up to date with the steps taken.
    #[cfg_attr(not(any(test, feature = "cuda")), expect(unused_variables))]
    pub(super) fn fetch(&self, state: &mut State) -> Result<()> {
        match &self.engine {
            Engine::Cpu(_) => Ok(()),
            #[cfg(any(test, feature = "cuda"))]
            Engine::Cuda(step) => {
                let moments = [
                    &mut state.optimizer.first[..],
                    &mut state.optimizer.second[..],
                ];
                step.fetch(&mut state.weights, &mut state.mean, moments)
            }
        }
    }

    /// Those of the last step, in the order of the parameters.
    #[cfg(test)]
    pub(super) fn gradients(&self) -> Gradients {
        match &self.engine {
            Engine::Cpu(cpu) => cpu.gradients.clone(),
            Engine::Cuda(step) => step.gradients(),
        }
    }
}

/// How much of the difference to the weights their running mean takes after so many steps: more in the first ones.
fn mean_part(ema: f64, steps: u64) -> f32 {
    let steps = steps as f64;
    (1.0 - ema.min((1.0 + steps) / (10.0 + steps))) as f32
}

/// The highest learning rate of each parameter: that of the plan at the backbone's last layer, falling geometrically to
/// the first layer's; the head's own; 0 for the nodes before `first`.
fn rates(weights: &Weights, first: usize, plan: &Plan) -> Vec<f64> {
    let layers = weights.parameters.len().saturating_sub(3).max(1) as f64;
    let mut rates: Vec<f64> = (0..weights.parameters.len())
        .map(|layer| {
            plan.learning_rate
                * plan
                    .first_layer_rate
                    .powf(1.0 - (layer as f64 / layers).min(1.0))
        })
        .collect();
    let head = rates.len().saturating_sub(2);
    rates[head..].fill(plan.learning_rate * plan.head_rate);
    rates[..weights.parameters_before(first)].fill(0.0);
    rates
}
