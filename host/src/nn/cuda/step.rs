//! Training steps that stay on a GPU: a batch goes up, its loss comes down, weights and moments are fetched when wanted.

use std::sync::Arc;

use graft_shared::error::{Error, Result};

use super::machine::{Machine, Memory, THREADS};
use super::tape::{Tape, Tensors};
use crate::nn::{BatchStatistics, Dropping, Graph, Weights};

/// How the values of a step move.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moves {
    /// AdamW, with the corrections of its two means.
    AdamW(f64, f64),
    /// Gradient descent with momentum.
    Momentum,
}

/// A network in training on a GPU.
#[derive(Debug)]
pub(crate) struct Step<'g> {
    machine: Arc<dyn Machine>,
    tape: Tape<'g>,
    tensors: Tensors,
    layout: Layout,
    /// Parameters, then running statistics.
    values: Memory,
    /// Their running mean.
    mean: Memory,
    /// By the parameters.
    gradients: Memory,
    /// Two moments of each parameter.
    moments: [Memory; 2],
    /// Highest rate and weight decay of each block of parameters.
    rates: Memory,
    targets: Memory,
    loss: Memory,
    images: usize,
    classes: usize,
}

impl<'g> Step<'g> {
    /// For batches of `images` pictures of `side` pixels; `rates` are the highest learning rate and the weight decay of each
    /// parameter.
    ///
    /// # Errors
    /// A graph that can't be trained, and too little memory.
    pub(crate) fn new(
        graph: &'g Graph,
        weights: &Weights,
        machine: Arc<dyn Machine>,
        (images, side, classes): (usize, usize, usize),
        rates: &[(f64, f64)],
    ) -> Result<Step<'g>> {
        let tape = Tape::new(graph, weights, machine.clone(), images, side)?;
        let layout = Layout::of(weights);
        let allocate = |len: usize| machine.allocate(len);
        let (parameters, all) = (layout.parameters * THREADS, layout.all * THREADS);
        let values = allocate(all)?;
        let gradients = allocate(parameters)?;
        let count = weights.parameters.len();
        let at = |memory: &Memory, list: usize| memory.at(layout.lists[list].0);
        let tensors = Tensors {
            parameters: (0..count).map(|list| at(&values, list)).collect(),
            gradients: (0..count).map(|list| at(&gradients, list)).collect(),
            statistics: (count..layout.lists.len())
                .step_by(2)
                .map(|list| (at(&values, list), at(&values, list + 1)))
                .collect(),
        };
        let mut of_blocks = Vec::with_capacity(2 * layout.parameters);
        for ((_, len), (highest, decay)) in layout.lists.iter().zip(rates) {
            for _ in 0..len.div_ceil(THREADS) {
                of_blocks.extend([*highest as f32, *decay as f32]);
            }
        }
        let rates = allocate(of_blocks.len())?;
        machine.write(&rates, &of_blocks)?;
        Ok(Step {
            mean: allocate(all)?,
            moments: [allocate(parameters)?, allocate(parameters)?],
            targets: allocate(images * classes)?,
            loss: allocate(1)?,
            values,
            gradients,
            rates,
            tape,
            tensors,
            layout,
            images,
            classes,
            machine,
        })
    }

    /// Sends weights, their running mean and the optimizer's moments up; empty moments stay 0.
    ///
    /// # Errors
    /// What the GPU says.
    pub(crate) fn send(
        &self,
        weights: &Weights,
        mean: &Weights,
        moments: [&[Vec<f32>]; 2],
    ) -> Result<()> {
        for (memory, weights) in [(&self.values, weights), (&self.mean, mean)] {
            let lists: Vec<&[f32]> = weights.lists().map(|(_, values)| values).collect();
            self.machine
                .write(memory, &self.layout.gather(&lists, self.layout.all))?;
        }
        for (memory, lists) in self.moments.iter().zip(moments) {
            let lists: Vec<&[f32]> = lists.iter().map(Vec::as_slice).collect();
            self.machine
                .write(memory, &self.layout.gather(&lists, self.layout.parameters))?;
        }
        Ok(())
    }

    /// Fetches what [`Step::send`] sent, as the last step left it.
    ///
    /// # Errors
    /// What the GPU says.
    pub(crate) fn fetch(
        &self,
        weights: &mut Weights,
        mean: &mut Weights,
        moments: [&mut [Vec<f32>]; 2],
    ) -> Result<()> {
        let mut all = vec![0.0; self.layout.all * THREADS];
        for (memory, weights) in [(&self.values, weights), (&self.mean, mean)] {
            self.machine.read(memory, &mut all)?;
            let lists = weights.lists_mut().map(|(_, values)| values);
            self.layout.scatter(&all, lists);
        }
        let parameters = &mut all[..self.layout.parameters * THREADS];
        for (memory, lists) in self.moments.iter().zip(moments) {
            self.machine.read(memory, parameters)?;
            let lists = lists.iter_mut().map(Vec::as_mut_slice);
            self.layout.scatter(parameters, lists);
        }
        Ok(())
    }

    /// Draws what the next step leaves out.
    ///
    /// # Errors
    /// What the GPU says.
    pub(crate) fn leave_out(&self, dropping: &Dropping, first: usize) -> Result<()> {
        self.tape.leave_out(dropping, first)
    }

    /// One step; returns the loss before it. `input` is `[n, 3, side, side]`, `targets` `[n, classes]`; nodes before `first`
    /// keep their statistics, `rate` is a factor on all rates, and the running mean takes `mean_part` of the difference.
    ///
    /// # Errors
    /// A batch of another size, and what the GPU says.
    pub(crate) fn step(
        &mut self,
        input: &[f32],
        targets: &[f32],
        (statistics, first): (BatchStatistics, usize),
        (rate, moves): (f64, Moves),
        mean_part: f32,
    ) -> Result<f64> {
        if input.len() != self.tape.input()?.len() || targets.len() != self.targets.len() {
            return Err(Error::new("a batch of another size"));
        }
        self.machine.write(self.tape.input()?, input)?;
        self.machine.write(&self.targets, targets)?;
        let logits = self.tape.forward(&self.tensors, statistics, first)?;
        let seed = self.tape.seed()?;
        let kernels = &self.tape.kernels;
        let sizes = (self.images, self.classes);
        kernels.cross_entropy(sizes, logits, self.targets.start(), seed, self.loss.start())?;
        self.tape.backward(&self.tensors, statistics, first)?;

        let kernels = &self.tape.kernels;
        let blocks = self.layout.parameters;
        let (values, gradients) = (self.values.start(), self.gradients.start());
        let [one, two] = [0, 1].map(|moment| self.moments[moment].start());
        let rates = self.rates.start();
        match moves {
            Moves::AdamW(first, second) => kernels.adam_w(
                blocks,
                rates,
                (rate, (first, second)),
                [values, gradients, one, two],
            )?,
            Moves::Momentum => kernels.momentum(blocks, rates, rate, [values, gradients, one])?,
        }
        kernels.running_mean(self.layout.all, mean_part, values, self.mean.start())?;
        let mut loss = [0.0];
        self.machine.read(&self.loss, &mut loss)?;
        Ok(f64::from(loss[0]))
    }

    /// The gradients of the last step, in the order of the parameters.
    #[cfg(test)]
    pub(crate) fn gradients(&self) -> crate::nn::Gradients {
        let mut values = vec![0.0; self.layout.parameters * THREADS];
        self.machine
            .read(&self.gradients, &mut values)
            .unwrap_or_default();
        let count = self.tensors.parameters.len();
        let lists = self.layout.lists[..count].iter();
        lists
            .map(|(start, len)| values[*start..start + len].to_vec())
            .collect()
    }
}

/// All lists of some weights one after the other, each beginning with a block of its own: parameters, then statistics.
#[derive(Debug)]
struct Layout {
    /// Where each list begins, and how long it is.
    lists: Vec<(usize, usize)>,
    /// Blocks of the parameters, and of all.
    parameters: usize,
    all: usize,
}

impl Layout {
    fn of(weights: &Weights) -> Layout {
        let mut layout = Layout {
            lists: Vec::new(),
            parameters: 0,
            all: 0,
        };
        for (index, (_, values)) in weights.lists().enumerate() {
            layout.lists.push((layout.all * THREADS, values.len()));
            layout.all += values.len().div_ceil(THREADS);
            if index < weights.parameters.len() {
                layout.parameters = layout.all;
            }
        }
        layout
    }

    /// The first of `lists` in `blocks` blocks, with zeros between.
    fn gather(&self, lists: &[&[f32]], blocks: usize) -> Vec<f32> {
        let mut all = vec![0.0; blocks * THREADS];
        for ((start, _), list) in self.lists.iter().zip(lists) {
            all[*start..start + list.len()].copy_from_slice(list);
        }
        all
    }

    fn scatter<'a>(&self, all: &[f32], lists: impl Iterator<Item = &'a mut [f32]>) {
        for ((start, _), list) in self.lists.iter().zip(lists) {
            let len = list.len();
            list.copy_from_slice(&all[*start..start + len]);
        }
    }
}
