//! One step after another at one input size, on the processor or on a GPU.

use graft_shared::error::Result;
use rayon::prelude::*;

#[cfg(any(test, feature = "cuda"))]
use super::optimizer::Rule;
use super::plan::Plan;
use super::state::State;
use super::{Device, loss};
#[cfg(any(test, feature = "cuda"))]
use crate::nn::cuda;
use crate::nn::{BatchStatistics, Dropping, Gradients, Graph, Tape, Weights};

/// What takes the steps.
pub(super) struct Trainer<'a> {
    engine: Engine<'a>,
    classes: usize,
    /// Highest learning rate of each parameter.
    rates: Vec<f64>,
    statistics: BatchStatistics,
    /// Nodes before this one stay as they are.
    first: usize,
    dropping: Dropping,
    label_smoothing: f64,
    ema: f64,
}

enum Engine<'a> {
    Cpu(Box<Cpu<'a>>),
    #[cfg(any(test, feature = "cuda"))]
    Cuda(Box<cuda::Step<'a>>),
}

/// The buffers of a step on the processor.
struct Cpu<'a> {
    tape: Tape<'a>,
    gradients: Gradients,
    logit_gradient: Vec<f32>,
}

impl<'a> Trainer<'a> {
    /// For batches of so many pictures of so many pixels a side in so many classes, from `state` on; `seed` is of what is
    /// left out at random.
    pub(super) fn new(
        graph: &'a Graph,
        (batch, size, classes): (usize, usize, usize),
        (plan, seed): (&Plan, u64),
        state: &State,
        device: &Device,
    ) -> Result<Trainer<'a>> {
        let weights = &state.weights;
        let first = (plan.frozen * graph.nodes.len() as f64) as usize;
        let rates = rates(weights, first, plan);
        let engine = match device {
            Device::Cpu => Engine::Cpu(Box::new(Cpu {
                tape: Tape::new(graph, batch, 3, size, size)?,
                gradients: weights
                    .parameters
                    .iter()
                    .map(|parameter| vec![0.0; parameter.values.len()])
                    .collect(),
                logit_gradient: vec![0.0; batch * classes],
            })),
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
                Engine::Cuda(Box::new(step))
            }
        };
        Ok(Trainer {
            engine,
            classes,
            rates,
            statistics: plan.batch_norm,
            first,
            dropping: Dropping {
                path: plan.drop_path,
                bottleneck: plan.dropout,
                seed,
                step: 0,
            },
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
        self.dropping.step = state.optimizer.steps;
        let leaves_out = !self.dropping.is_nothing();
        match &mut self.engine {
            Engine::Cpu(cpu) => {
                cpu.tape.input().copy_from_slice(input);
                if leaves_out {
                    cpu.tape.leave_out(&self.dropping, first);
                }
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
                let lists: Vec<_> = state.mean.lists_mut().zip(state.weights.lists()).collect();
                lists.into_par_iter().for_each(|((_, mean), (_, values))| {
                    for (mean, &value) in mean.iter_mut().zip(values) {
                        *mean += part * (value - *mean);
                    }
                });
                Ok(loss)
            }
            #[cfg(any(test, feature = "cuda"))]
            Engine::Cuda(step) => {
                if leaves_out {
                    step.leave_out(&self.dropping, first)?;
                }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::{DType, Tensor};

    use super::super::device::Gpu;
    use super::super::plan::Circumstances;
    use super::*;
    use crate::cli::Recipe;
    use crate::nn::testing::pseudo_random;
    use crate::nn::{Activation, BatchNorm, Conv, Linear, Node, Op, Padding, Pool, PoolKind};

    const CLASSES: usize = 7;
    const IMAGES: usize = 5;
    const SIZE: usize = 21;

    fn conv(weight: [usize; 4], stride: usize, activation: Activation, normalised: bool) -> Op {
        let [outputs, inputs, side, _] = weight;
        let ones = Tensor::ones(outputs, DType::F32, &candle_core::Device::Cpu).unwrap();
        let scale = 2.0 / ((inputs * side * side) as f64).sqrt();
        Op::Conv(Conv {
            weight: (pseudo_random(&weight, 1) * scale).unwrap(),
            bias: (!normalised).then(|| pseudo_random(&[outputs], 2)),
            batch_norm: normalised.then(|| BatchNorm {
                weight: ones.clone(),
                bias: pseudo_random(&[outputs], 3),
                mean: pseudo_random(&[outputs], 4),
                variance: ones,
                epsilon: 1e-3,
            }),
            stride,
            padding: Padding::same(SIZE, SIZE, side, stride),
            groups: if inputs == 1 { outputs } else { 1 },
            activation,
        })
    }

    /// One of each layer, a value that three layers read among them.
    fn net() -> Graph {
        let pool = Pool {
            kind: PoolKind::Max,
            kernel: 3,
            stride: 2,
            padding: Padding::symmetric(1),
        };
        let linear = Linear {
            weight: pseudo_random(&[CLASSES, 12], 5),
            bias: pseudo_random(&[CLASSES], 6),
        };
        let ops = [
            (Op::Input, vec![]),
            (conv([8, 3, 3, 3], 2, Activation::Relu, true), vec![0]),
            (Op::Pool(pool), vec![1]),
            (conv([8, 1, 5, 5], 1, Activation::Relu6, true), vec![2]),
            (conv([8, 8, 1, 1], 1, Activation::None, false), vec![3]),
            (Op::Add(Activation::Relu), vec![2, 4]),
            (Op::Add(Activation::None), vec![2, 5]),
            (conv([12, 8, 3, 3], 1, Activation::Relu6, true), vec![6]),
            (Op::GlobalAveragePool, vec![7]),
            (Op::Linear(linear), vec![8]),
        ];
        let node = |(index, (op, inputs))| Node {
            name: format!("node{index}"),
            op,
            inputs,
        };
        Graph {
            nodes: ops.into_iter().enumerate().map(node).collect(),
        }
    }

    fn tensor(shape: &[usize], seed: u64) -> Vec<f32> {
        let tensor = pseudo_random(shape, seed);
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Three steps; the losses and the state.
    fn steps(plan: &Plan, device: &Device) -> (Vec<f64>, State) {
        let graph = net();
        let mut state = State::start(Weights::of(&graph).unwrap(), plan);
        let sizes = (IMAGES, SIZE, CLASSES);
        let mut trainer = Trainer::new(&graph, sizes, (plan, 1), &state, device).unwrap();
        let mut targets = vec![0.0; IMAGES * CLASSES];
        (0..IMAGES).for_each(|image| targets[image * CLASSES + image % CLASSES] = 1.0);
        let losses = (0..3)
            .map(|step| {
                let input = tensor(&[IMAGES, 3, SIZE, SIZE], 20 + step);
                trainer.step(&mut state, &input, &targets, 1.0).unwrap()
            })
            .collect();
        trainer.fetch(&mut state).unwrap();
        (losses, state)
    }

    #[test]
    fn a_gpus_kernels_leave_what_the_processors_leave() {
        let gpu = Device::Cuda(Gpu(cuda::host::machine()));
        let circumstances = Circumstances {
            photos: 2000,
            smallest_class: 100,
            largest_class: 100,
            input_size: SIZE,
        };
        for (batch_norm, frozen, optimizer) in [
            (BatchStatistics::Batch, 0.0, Rule::Sgd),
            (BatchStatistics::Batch, 0.4, Rule::AdamW),
            (BatchStatistics::Running, 0.0, Rule::Sgd),
        ] {
            let plan = Plan {
                optimizer,
                learning_rate: 0.003,
                batch_norm,
                frozen,
                ..Plan::choose(Recipe::Balanced, circumstances).0
            };
            let (expected_losses, expected) = steps(&plan, &Device::Cpu);
            let (losses, state) = steps(&plan, &gpu);
            for (loss, expected) in losses.iter().zip(&expected_losses) {
                assert!((loss - expected).abs() < 1e-4, "{loss}, not {expected}");
            }
            let ours = state.weights.lists().chain(state.mean.lists());
            let theirs = expected.weights.lists().chain(expected.mean.lists());
            for ((name, ours), (_, theirs)) in ours.zip(theirs) {
                for (ours, theirs) in ours.iter().zip(theirs) {
                    let near = (ours - theirs).abs() < 2e-4 * (1.0 + theirs.abs());
                    assert!(near, "{name}, {plan:?}: {ours}, not {theirs}");
                }
            }
            let moments = state.optimizer.first.iter().zip(&expected.optimizer.first);
            for (ours, theirs) in moments.flat_map(|(ours, theirs)| ours.iter().zip(theirs)) {
                let near = (ours - theirs).abs() < 1e-3 * (1.0 + theirs.abs());
                assert!(near, "{plan:?}: {ours}, not {theirs}");
            }
            assert_eq!(state.optimizer.steps, 3);
        }
    }
}
