//! [`crate::nn::Tape`] on a GPU: forward and backward through a graph, in memory that is taken once and used in every step.

use std::sync::Arc;

use graft_shared::error::{Context, Error, Result};

use super::kernels::{Channels, InputGradient, Kernels, Norm, OutputGradient, Planes, Stored};
use super::machine::{Address, Machine, Memory};
use crate::nn::shapes::{Shape, shapes};
use crate::nn::weights::Unit;
use crate::nn::{BatchStatistics, Dropping, Graph, Op, Weights};

/// Lists of a [`Channels`].
const CHANNEL_LISTS: usize = 7;

/// Where the values of parameters, their gradients and the running statistics lie.
#[derive(Clone, Debug, Default)]
pub(super) struct Tensors {
    /// Of each parameter.
    pub(super) parameters: Vec<Address>,
    /// Of each parameter's gradient.
    pub(super) gradients: Vec<Address>,
    /// Running mean and variance of each BatchNorm.
    pub(super) statistics: Vec<(Address, Address)>,
}

/// The memory of a step for one graph, batch and input size.
#[derive(Debug)]
pub(super) struct Tape<'g> {
    graph: &'g Graph,
    machine: Arc<dyn Machine>,
    pub(super) kernels: Kernels,
    images: usize,
    places: Vec<Place>,
    gradients: Vec<Option<Memory>>,
    free: Vec<Memory>,
    /// As many as the widest layer has channels.
    ones: Memory,
    zeros: Memory,
}

/// A node's output in a step.
#[derive(Debug)]
struct Place {
    shape: Shape,
    unit: Unit,
    values: Memory,
    /// Of a convolution with BatchNorm.
    channels: Option<Memory>,
    /// Of a max pool, one byte a value.
    taps: Option<Memory>,
    /// Factors of what is not left out.
    kept: Option<Memory>,
}

impl Place {
    /// The lists of its channels.
    fn channels(&self) -> Option<Channels> {
        let memory = self.channels.as_ref()?;
        let list = |index: usize| memory.at(index * self.shape.channels);
        Some(Channels {
            scale: list(0),
            shift: list(1),
            mean: list(2),
            inverse_deviation: list(3),
            by_gradient: list(4),
            by_value: list(5),
            constant: list(6),
        })
    }

    fn planes(&self, images: usize) -> Planes {
        Planes {
            images,
            channels: self.shape.channels,
            area: self.shape.size.area(),
        }
    }

    fn bounds(&self) -> (f32, f32) {
        (self.shape.low, self.shape.high)
    }

    fn taps(&self) -> Address {
        self.taps.as_ref().map_or(Address::NONE, Memory::start)
    }

    fn kept(&self) -> Address {
        self.kept.as_ref().map_or(Address::NONE, Memory::start)
    }
}

impl<'g> Tape<'g> {
    /// Memory for `images` pictures of `side` x `side` pixels a step.
    ///
    /// # Errors
    /// An operator that can't be trained, shapes that do not fit, and too little memory.
    pub(super) fn new(
        graph: &'g Graph,
        weights: &Weights,
        machine: Arc<dyn Machine>,
        images: usize,
        side: usize,
    ) -> Result<Tape<'g>> {
        let shapes = shapes(graph, images, 3, side, side)?;
        let widest = shapes.iter().map(|shape| shape.channels).max().unwrap_or(0);
        let kernels = Kernels::new(machine.clone(), images, &shapes)?;
        let mut places = Vec::with_capacity(shapes.len());
        for (index, (shape, node)) in shapes.into_iter().zip(&graph.nodes).enumerate() {
            let unit = weights.unit(index);
            let len = shape.len(images);
            let normalised = matches!(unit, Unit::Normalised { .. });
            let pool = matches!(node.op, Op::Pool(_));
            let factors = Dropping::factors(&node.op, images, shape.channels);
            let kept = (factors > 0).then(|| filled(&*machine, factors, 1.0));
            places.push(Place {
                values: machine.allocate(len)?,
                channels: normalised
                    .then(|| machine.allocate(CHANNEL_LISTS * shape.channels))
                    .transpose()?,
                taps: pool
                    .then(|| machine.allocate(len.div_ceil(4)))
                    .transpose()?,
                kept: kept.transpose()?,
                unit,
                shape,
            });
        }
        let ones = filled(&*machine, widest.max(images), 1.0)?;
        Ok(Tape {
            graph,
            kernels,
            images,
            gradients: places.iter().map(|_| None).collect(),
            places,
            free: Vec::new(),
            ones,
            zeros: machine.allocate(widest)?,
            machine,
        })
    }

    /// Draws what the next step leaves out; nodes before `first` leave out nothing.
    ///
    /// # Errors
    /// What the GPU says.
    pub(super) fn leave_out(&self, dropping: &Dropping, first: usize) -> Result<()> {
        for (index, place) in self.places.iter().enumerate().skip(first) {
            if let Some(kept) = &place.kept {
                let mut factors = vec![1.0; kept.len()];
                dropping.draw(self.graph, index, &mut factors);
                self.machine.write(kept, &factors)?;
            }
        }
        Ok(())
    }

    /// The input's values, `[n, 3, side, side]`.
    pub(super) fn input(&self) -> Result<&Memory> {
        let first = self.places.first().context("a graph without nodes")?;
        Ok(&first.values)
    }

    /// Runs all nodes; those before `first` take the running statistics. Returns the last node's output, `[n, outputs]`.
    ///
    /// # Errors
    /// What the GPU says, and a kernel that there is not.
    pub(super) fn forward(
        &self,
        tensors: &Tensors,
        statistics: BatchStatistics,
        first: usize,
    ) -> Result<Stored> {
        for (index, node) in self.graph.nodes.iter().enumerate() {
            let batch = index >= first && statistics == BatchStatistics::Batch;
            self.run(index, tensors, batch)
                .with_context(|| format!("node `{}` in training", node.name))?;
        }
        let last = self.places.len().saturating_sub(1);
        Ok(self.stored(last, tensors))
    }

    /// The output of node `index`; its statistics are the batch's or the running ones.
    fn run(&self, index: usize, tensors: &Tensors, batch: bool) -> Result<()> {
        let node = &self.graph.nodes[index];
        let place = &self.places[index];
        let from = |position: usize| self.stored(node.inputs[position], tensors);
        let output = place.values.start();
        let planes = place.planes(self.images);
        match (&node.op, &place.shape.geometry) {
            (Op::Input, _) => Ok(()),
            (Op::Conv(_) | Op::Linear(_), Some(geometry)) => {
                let weight = weight(place.unit, &tensors.parameters)?;
                let norm = norm(place.unit, tensors).zip(place.channels());
                if let (Some((norm, channels)), false) = (norm, batch) {
                    let count = place.shape.channels;
                    self.kernels.running_statistics(count, norm, channels)?;
                }
                self.kernels.forward(geometry, from(0), weight, output)?;
                if let (Some((norm, channels)), true) = (norm, batch) {
                    self.kernels
                        .batch_statistics(planes, output, norm, channels)?;
                }
                Ok(())
            }
            (Op::Add(_), _) => {
                let inputs = (from(0), from(1));
                self.kernels
                    .add(planes, inputs, place.bounds(), place.kept(), output)
            }
            (Op::Pool(_), Some(geometry)) => {
                self.kernels
                    .maximum(geometry, from(0), output, place.taps())
            }
            (Op::GlobalAveragePool, _) => {
                let read = self.places[node.inputs[0]].planes(self.images);
                self.kernels.average(read, from(0), place.kept(), output)
            }
            _ => Err(Error::new("it can't be trained")),
        }
    }

    /// Gradients by the parameters of node `first` and those after it; [`Tape::seed`] holds that by the last node's output.
    ///
    /// # Errors
    /// As [`Tape::forward`].
    pub(super) fn backward(
        &mut self,
        tensors: &Tensors,
        statistics: BatchStatistics,
        first: usize,
    ) -> Result<()> {
        let batch = statistics == BatchStatistics::Batch;
        for (index, node) in self.graph.nodes.iter().enumerate().skip(first).rev() {
            if let Some(gradient) = self.gradients[index].take() {
                self.run_back(index, tensors, batch, first, gradient.start())
                    .with_context(|| format!("node `{}` in training", node.name))?;
                self.free.push(gradient);
            }
        }
        for gradient in &mut self.gradients {
            self.free.extend(gradient.take());
        }
        Ok(())
    }

    /// Memory for the gradient by the last node's output, to be filled before [`Tape::backward`].
    ///
    /// # Errors
    /// Too little memory.
    pub(super) fn seed(&mut self) -> Result<Address> {
        let last = self.places.len().saturating_sub(1);
        Ok(self.gradient(last)?.0)
    }

    /// Takes the gradient by the output of node `index` to its inputs and parameters.
    fn run_back(
        &mut self,
        index: usize,
        tensors: &Tensors,
        batch: bool,
        first: usize,
        gradient: Address,
    ) -> Result<()> {
        let node = &self.graph.nodes[index];
        let mut targets = [None, None];
        for (target, &input) in targets.iter_mut().zip(&node.inputs) {
            if input >= first && input > 0 {
                let (gradient, there) = self.gradient(input)?;
                *target = Some(InputGradient {
                    input: self.stored(input, tensors),
                    gradient,
                    add: i32::from(there),
                });
            }
        }
        let place = &self.places[index];
        let planes = place.planes(self.images);
        let values = place.values.start();
        match (&node.op, &place.shape.geometry) {
            (Op::Input, _) => {}
            (Op::Conv(_) | Op::Linear(_), Some(geometry)) => {
                let output = self.output_gradient(place, tensors, batch, gradient)?;
                let input = self.stored(node.inputs[0], tensors);
                let into = weight(place.unit, &tensors.gradients)?;
                self.kernels
                    .weight_gradient(geometry, input, output, into)?;
                if let Some(target) = targets[0] {
                    let weight = weight(place.unit, &tensors.parameters)?;
                    self.kernels
                        .input_gradient(geometry, output, weight, target)?;
                }
            }
            (Op::Add(_), _) => {
                for (target, kept) in targets.into_iter().zip([place.kept(), self.ones.start()]) {
                    if let Some(target) = target {
                        self.kernels.add_backward(
                            planes,
                            place.bounds(),
                            kept,
                            (values, gradient),
                            target,
                        )?;
                    }
                }
            }
            (Op::Pool(_), Some(geometry)) => {
                if let Some(target) = targets[0] {
                    self.kernels
                        .maximum_backward(geometry, gradient, place.taps(), target)?;
                }
            }
            (Op::GlobalAveragePool, _) => {
                if let Some(target) = targets[0] {
                    let read = self.places[node.inputs[0]].planes(self.images);
                    self.kernels
                        .average_backward(read, place.kept(), gradient, target)?;
                }
            }
            _ => return Err(Error::new("it can't be trained")),
        }
        Ok(())
    }

    /// The gradient by a convolution's output before BatchNorm; that of gamma and beta, or of the bias, is made on the way.
    fn output_gradient(
        &self,
        place: &Place,
        tensors: &Tensors,
        batch: bool,
        gradient: Address,
    ) -> Result<OutputGradient> {
        let values = place.values.start();
        let planes = place.planes(self.images);
        let (by_gradient, by_value, constant) = match (place.unit, place.channels()) {
            (Unit::Normalised { gamma, beta, .. }, Some(channels)) => {
                let into = (tensors.gradients[gamma], tensors.gradients[beta]);
                self.kernels.normalise_backward(
                    planes,
                    (gradient, values),
                    batch,
                    channels,
                    into,
                )?;
                (channels.by_gradient, channels.by_value, channels.constant)
            }
            (unit, _) => {
                if let Unit::Biased { bias, .. } = unit {
                    let into = tensors.gradients[bias];
                    self.kernels
                        .bias_backward(planes, gradient, self.zeros.start(), into)?;
                }
                (self.ones.start(), self.zeros.start(), self.zeros.start())
            }
        };
        Ok(OutputGradient {
            gradient,
            values,
            by_gradient,
            by_value,
            constant,
        })
    }

    /// The output of node `index` as its readers see it.
    fn stored(&self, index: usize, tensors: &Tensors) -> Stored {
        let place = &self.places[index];
        let (scale, shift) = match (place.channels(), place.unit) {
            (Some(channels), _) => (channels.scale, channels.shift),
            (None, Unit::Biased { bias, .. }) => (self.ones.start(), tensors.parameters[bias]),
            (None, _) => (self.ones.start(), self.zeros.start()),
        };
        Stored {
            values: place.values.start(),
            scale,
            shift,
            low: place.shape.low,
            high: place.shape.high,
        }
    }

    /// Memory for the gradient by the output of node `index`, and whether something is there already: else the smallest
    /// free memory that holds it, or new one.
    fn gradient(&mut self, index: usize) -> Result<(Address, bool)> {
        if let Some(there) = &self.gradients[index] {
            return Ok((there.start(), true));
        }
        let len = self.places[index].values.len();
        let fitting = self
            .free
            .iter()
            .enumerate()
            .filter(|(_, memory)| memory.len() >= len)
            .min_by_key(|(_, memory)| memory.len())
            .map(|(index, _)| index);
        let memory = match fitting {
            Some(free) => self.free.swap_remove(free),
            None => self.machine.allocate(len)?,
        };
        let address = memory.start();
        self.gradients[index] = Some(memory);
        Ok((address, false))
    }
}

/// Memory for `len` values, all `value`.
fn filled(machine: &dyn Machine, len: usize, value: f32) -> Result<Memory> {
    let memory = machine.allocate(len)?;
    machine.write(&memory, &vec![value; len])?;
    Ok(memory)
}

/// The address of a unit's weight in a list by parameter.
fn weight(unit: Unit, addresses: &[Address]) -> Result<Address> {
    unit.weight()
        .and_then(|weight| addresses.get(weight).copied())
        .context("it has no weight")
}

/// The tensors of a unit's BatchNorm.
fn norm(unit: Unit, tensors: &Tensors) -> Option<Norm> {
    match unit {
        Unit::Normalised {
            gamma,
            beta,
            statistics,
            epsilon,
            ..
        } => Some(Norm {
            gamma: tensors.parameters[gamma],
            beta: tensors.parameters[beta],
            running_mean: tensors.statistics[statistics].0,
            running_variance: tensors.statistics[statistics].1,
            epsilon,
        }),
        _ => None,
    }
}
