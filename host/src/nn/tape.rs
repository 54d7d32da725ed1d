//! A training step: forward and backward through a graph, in buffers that are made once and used in every step.
//!
//! A convolution's output is kept as it was summed; whoever reads it applies BatchNorm and activation on the way
//! ([`super::cpu::training`]). Gradients live from their first writer to their reader, then their buffer is used again.

use graft_shared::error::{Context, Error, Result};
use serde::{Deserialize, Serialize};

use super::cpu::training::{InputGradient, Output, OutputGradient, Stored, Sums};
use super::cpu::{Geometry, add, convolution, linear, pool};
use super::drop::Dropping;
use super::normalise::Channels;
use super::shapes::{Shape, shapes};
use super::weights::{Unit, Weights};
use super::{Graph, Node, Op};

/// Gradients that a step keeps at once, of the largest output's size: more than any of our networks do.
const LIVE_GRADIENTS: usize = 4;

/// Where BatchNorm takes its statistics from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchStatistics {
    /// The batch's own; the running ones follow.
    Batch,
    /// The running ones, which stay.
    Running,
}

/// Gradients by the parameters, in their order.
pub type Gradients = Vec<Vec<f32>>;

/// The buffers of a step for one graph, batch and input size.
#[derive(Debug)]
pub struct Tape<'g> {
    graph: &'g Graph,
    images: usize,
    places: Vec<Place>,
    gradients: Vec<Option<Vec<f32>>>,
    free: Vec<Vec<f32>>,
}

/// A node's output in a step.
#[derive(Debug)]
struct Place {
    shape: Shape,
    /// `[n, c, h, w]`, as left by the node.
    values: Vec<f32>,
    /// What readers apply.
    read: Channels,
    /// Of a max pool: where in its window each maximum was.
    taps: Vec<u8>,
    /// Factors of what is not left out: see [`Dropping`].
    kept: Vec<f32>,
}

impl Place {
    fn new(images: usize, shape: Shape, node: &Node) -> Result<Place> {
        let len = shape.len(images);
        let mut values = Vec::new();
        values
            .try_reserve_exact(len)
            .with_context(|| format!("no memory for {} MB of activations", len / 250_000))?;
        values.resize(len, 0.0);
        let taps = if matches!(node.op, Op::Pool(_)) {
            len
        } else {
            0
        };
        Ok(Place {
            values,
            read: Channels::plain(shape.channels),
            taps: vec![0; taps],
            kept: vec![1.0; Dropping::factors(&node.op, images, shape.channels)],
            shape,
        })
    }

    fn stored(&self) -> Stored<'_> {
        Stored {
            values: &self.values,
            scale: &self.read.scale,
            shift: &self.read.shift,
            low: self.shape.low,
            high: self.shape.high,
        }
    }

    /// As an input, and where its gradient goes.
    fn with_gradient<'a>(
        &'a mut self,
        target: Option<(&'a mut [f32], bool)>,
    ) -> (Stored<'a>, Option<InputGradient<'a>>) {
        let stored = Stored {
            values: &self.values,
            scale: &self.read.scale,
            shift: &self.read.shift,
            low: self.shape.low,
            high: self.shape.high,
        };
        let gradient = target.map(|(gradient, add)| InputGradient {
            gradient,
            add,
            sums: &mut self.read.backward,
            pivot: &self.read.mean,
        });
        (stored, gradient)
    }

    /// Its output as a convolution's kernel writes it.
    fn output(&mut self) -> (Output<'_>, Option<&Geometry>) {
        let output = Output {
            values: &mut self.values,
            sums: &mut self.read.forward,
            pivot: &self.read.mean,
        };
        (output, self.shape.geometry.as_ref())
    }
}

impl<'g> Tape<'g> {
    /// Buffers for `images` pictures of `height` x `width` pixels a step.
    ///
    /// # Errors
    /// An operator that can't be trained, and shapes that do not fit.
    pub fn new(
        graph: &'g Graph,
        images: usize,
        channels: usize,
        height: usize,
        width: usize,
    ) -> Result<Tape<'g>> {
        let shapes = shapes(graph, images, channels, height, width)?;
        let places: Vec<Place> = graph
            .nodes
            .iter()
            .zip(shapes)
            .map(|(node, shape)| {
                Place::new(images, shape, node)
                    .with_context(|| format!("node `{}` in training", node.name))
            })
            .collect::<Result<_>>()?;
        Ok(Tape {
            graph,
            images,
            gradients: places.iter().map(|_| None).collect(),
            places,
            free: Vec::new(),
        })
    }

    /// Bytes that a step takes: all outputs, and as many gradients as live at once, about.
    pub fn bytes(&self) -> u64 {
        let lens = || self.places.iter().map(|place| place.values.len());
        let gradients = LIVE_GRADIENTS * lens().max().unwrap_or(0);
        ((lens().sum::<usize>() + gradients) * size_of::<f32>()) as u64
    }

    /// The input's buffer, `[n, c, h, w]`, to be filled before [`Tape::forward`].
    pub fn input(&mut self) -> &mut [f32] {
        &mut self.places[0].values
    }

    /// Draws what the next step leaves out; nodes before `first` leave out nothing.
    pub fn leave_out(&mut self, dropping: &Dropping, first: usize) {
        for index in first..self.places.len() {
            dropping.draw(self.graph, index, &mut self.places[index].kept);
        }
    }

    /// The last node's output, `[n, outputs]`; nodes before `first` take the running statistics.
    ///
    /// # Errors
    /// A kernel that does not exist.
    pub fn forward(
        &mut self,
        weights: &mut Weights,
        statistics: BatchStatistics,
        first: usize,
    ) -> Result<&[f32]> {
        for (index, node) in self.graph.nodes.iter().enumerate() {
            let statistics = if index < first {
                BatchStatistics::Running
            } else {
                statistics
            };
            let (before, rest) = self.places.split_at_mut(index);
            let place = &mut rest[0];
            let from = |position: usize| &before[node.inputs[position]];
            let named = || format!("node `{}` in training", node.name);
            match &node.op {
                Op::Input => {}
                Op::Conv(_) => {
                    let unit = weights.unit(index);
                    prepare(place, unit, weights, statistics);
                    let weight = unit
                        .weight()
                        .map(|weight| &weights.parameters[weight].values[..]);
                    let input = from(0).stored();
                    if let ((output, Some(geometry)), Some(weight)) = (place.output(), weight) {
                        convolution::forward(geometry, input, weight, output)
                            .with_context(named)?;
                    }
                    finish(place, unit, weights, statistics, self.images);
                }
                Op::Add(_) => {
                    let bounds = (place.shape.low, place.shape.high);
                    let planes = (place.shape.channels, place.shape.size.area());
                    let (left, right) = (from(0).stored(), from(1).stored());
                    let Place { kept, values, .. } = place;
                    add::forward(planes, left, right, bounds, kept, values).with_context(named)?;
                }
                Op::Pool(_) => {
                    if let Some(geometry) = &place.shape.geometry {
                        pool::max_forward(
                            geometry,
                            from(0).stored(),
                            &mut place.values,
                            &mut place.taps,
                        )
                        .with_context(named)?;
                    }
                }
                Op::GlobalAveragePool => {
                    let input = from(0);
                    pool::average_forward(
                        input.shape.size.area(),
                        input.stored(),
                        &mut place.values,
                    )
                    .with_context(named)?;
                    multiply(&mut place.values, &place.kept);
                }
                Op::Linear(_) => {
                    if let Unit::Biased { weight, bias } = weights.unit(index) {
                        let [weight, bias] =
                            [weight, bias].map(|at| &weights.parameters[at].values[..]);
                        let sizes = sizes(self.images, from(0), place);
                        linear::forward(sizes, &from(0).values, weight, bias, &mut place.values);
                    }
                }
                _ => return Err(Error::new("it can't be trained")).with_context(named),
            }
        }
        Ok(self.places.last().map_or(&[][..], |place| &place.values))
    }

    /// Gradients by the parameters of node `first` and those after it, from the gradient by the last node's output as
    /// [`Tape::forward`] left it; those of the nodes before are left alone.
    ///
    /// # Errors
    /// A kernel that does not exist.
    pub fn backward(
        &mut self,
        weights: &Weights,
        statistics: BatchStatistics,
        output_gradient: &[f32],
        first: usize,
        gradients: &mut Gradients,
    ) -> Result<()> {
        for place in &mut self.places {
            place.read.backward.fill(Sums::default());
        }
        let last = self.graph.nodes.len().saturating_sub(1);
        let mut seed = self.buffer(output_gradient.len());
        seed.copy_from_slice(output_gradient);
        self.gradients[last] = Some(seed);
        for (index, node) in self.graph.nodes.iter().enumerate().skip(first).rev() {
            let Some(mut gradient) = self.gradients[index].take() else {
                continue;
            };
            // The inputs' gradients, and whether they hold something already.
            let mut targets: Vec<Option<(usize, Vec<f32>, bool)>> =
                Vec::with_capacity(node.inputs.len());
            for &input in &node.inputs {
                let wanted = input >= first && input > 0;
                targets.push(wanted.then(|| {
                    let there = self.gradients[input].take();
                    let add = there.is_some();
                    let len = self.places[input].values.len();
                    (input, there.unwrap_or_else(|| self.buffer(len)), add)
                }));
            }
            let (before, rest) = self.places.split_at_mut(index);
            let place = &mut rest[0];
            let named = || format!("node `{}` in training", node.name);
            let mut sinks = targets.iter_mut().map(|target| {
                target
                    .as_mut()
                    .map(|(_, buffer, add)| (&mut buffer[..], *add))
            });
            let mut sink = || sinks.next().flatten();
            match &node.op {
                Op::Input => {}
                Op::Conv(_) => {
                    let unit = weights.unit(index);
                    let count = self.images * place.shape.size.area();
                    match unit {
                        Unit::Normalised { gamma, beta, .. } => {
                            let count = (statistics == BatchStatistics::Batch).then_some(count);
                            if let Ok([gamma, beta]) = gradients.get_disjoint_mut([gamma, beta]) {
                                place.read.backward(count, gamma, beta);
                            }
                        }
                        Unit::Biased { bias, .. } => {
                            for (gradient, sums) in
                                gradients[bias].iter_mut().zip(&place.read.backward)
                            {
                                *gradient = sums.first as f32;
                            }
                        }
                        Unit::Plain | Unit::Bare { .. } => {}
                    }
                    let output_gradient = OutputGradient {
                        gradient: &gradient,
                        values: &place.values,
                        by_gradient: &place.read.by_gradient,
                        by_value: &place.read.by_value,
                        constant: &place.read.constant,
                    };
                    let (input, input_gradient) = before[node.inputs[0]].with_gradient(sink());
                    if let (Some(geometry), Some(weight)) = (&place.shape.geometry, unit.weight()) {
                        let values = &weights.parameters[weight].values[..];
                        let into = &mut gradients[weight];
                        convolution::backward(
                            geometry,
                            input,
                            values,
                            output_gradient,
                            into,
                            input_gradient,
                        )
                        .with_context(named)?;
                    }
                }
                Op::Add(_) => {
                    let bounds = (place.shape.low, place.shape.high);
                    let planes = (place.shape.channels, place.shape.size.area());
                    if let Ok([left, right]) =
                        before.get_disjoint_mut([node.inputs[0], node.inputs[1]])
                    {
                        let left = left.with_gradient(sink());
                        let right = right.with_gradient(sink());
                        add::backward(
                            planes,
                            bounds,
                            &place.kept,
                            &place.values,
                            &gradient,
                            left,
                            right,
                        )
                        .with_context(named)?;
                    }
                }
                Op::Pool(_) => {
                    let input = before[node.inputs[0]].with_gradient(sink());
                    if let (Some(geometry), (input, Some(input_gradient))) =
                        (&place.shape.geometry, input)
                    {
                        pool::max_backward(geometry, input, &place.taps, &gradient, input_gradient)
                            .with_context(named)?;
                    }
                }
                Op::GlobalAveragePool => {
                    let input = &mut before[node.inputs[0]];
                    let area = input.shape.size.area();
                    multiply(&mut gradient, &place.kept);
                    if let (input, Some(input_gradient)) = input.with_gradient(sink()) {
                        pool::average_backward(area, input, &gradient, input_gradient)
                            .with_context(named)?;
                    }
                }
                Op::Linear(_) => {
                    if let Unit::Biased { weight, bias } = weights.unit(index) {
                        let input = &before[node.inputs[0]];
                        let sizes = sizes(self.images, input, place);
                        if let Ok([into, bias]) = gradients.get_disjoint_mut([weight, bias]) {
                            let weight = &weights.parameters[weight].values;
                            let into = linear::Gradients {
                                weight: into,
                                bias,
                                input: sink().map(|(gradient, _)| gradient),
                            };
                            linear::backward(sizes, &input.values, weight, &gradient, into);
                        }
                    }
                }
                _ => return Err(Error::new("it can't be trained")).with_context(named),
            }
            drop(sinks);
            for (input, buffer, _) in targets.into_iter().flatten() {
                self.gradients[input] = Some(buffer);
            }
            self.free.push(gradient);
        }
        for gradient in &mut self.gradients {
            self.free.extend(gradient.take());
        }
        Ok(())
    }

    /// The smallest free buffer that holds `len` values, or a new one; its contents are anything.
    fn buffer(&mut self, len: usize) -> Vec<f32> {
        let fitting = self
            .free
            .iter()
            .enumerate()
            .filter(|(_, buffer)| buffer.capacity() >= len);
        match fitting
            .min_by_key(|(_, buffer)| buffer.capacity())
            .map(|(index, _)| index)
        {
            Some(index) => {
                let mut buffer = self.free.swap_remove(index);
                buffer.resize(len, 0.0);
                buffer
            }
            None => vec![0.0; len],
        }
    }
}

fn multiply(values: &mut [f32], factors: &[f32]) {
    for (value, factor) in values.iter_mut().zip(factors) {
        *value *= factor;
    }
}

/// Sizes of a linear layer between two places.
fn sizes(images: usize, input: &Place, output: &Place) -> linear::Sizes {
    linear::Sizes {
        images,
        inputs: input.shape.channels,
        outputs: output.shape.channels,
    }
}

/// What the readers of a convolution apply, as far as it is known before its output is.
fn prepare(place: &mut Place, unit: Unit, weights: &Weights, statistics: BatchStatistics) {
    match unit {
        Unit::Normalised {
            gamma,
            beta,
            statistics: at,
            epsilon,
            ..
        } => {
            let running = &weights.statistics[at];
            match statistics {
                // The pivot of the sums.
                BatchStatistics::Batch => place.read.mean.copy_from_slice(&running.mean),
                BatchStatistics::Running => place.read.running_statistics(
                    &weights.parameters[gamma].values,
                    &weights.parameters[beta].values,
                    epsilon,
                    running,
                ),
            }
        }
        Unit::Biased { bias, .. } => place
            .read
            .shift
            .copy_from_slice(&weights.parameters[bias].values),
        Unit::Plain | Unit::Bare { .. } => {}
    }
}

/// What they apply once the batch's statistics are known.
fn finish(
    place: &mut Place,
    unit: Unit,
    weights: &mut Weights,
    statistics: BatchStatistics,
    images: usize,
) {
    if let (
        Unit::Normalised {
            gamma,
            beta,
            statistics: at,
            epsilon,
            ..
        },
        BatchStatistics::Batch,
    ) = (unit, statistics)
    {
        let Weights {
            parameters,
            statistics,
            ..
        } = weights;
        place.read.batch_statistics(
            &parameters[gamma].values,
            &parameters[beta].values,
            epsilon,
            images * place.shape.size.area(),
            &mut statistics[at],
        );
    }
}
