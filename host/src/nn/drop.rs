//! What a training step leaves out at random, so that the network does not lean on any one part of itself.
//!
//! Whole branches of sums (G. Huang et al., "Deep networks with stochastic depth", 2016: the deeper, the more often) and
//! single values of the bottleneck (N. Srivastava et al., "Dropout", 2014). What is kept is magnified, so that the mean
//! stays.

use super::{Graph, Op};
use crate::random::{Purpose, Random};

/// Which shares are left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dropping {
    /// Of the branches of a sum at the network's end; in proportion before it.
    pub path: f64,
    /// Of the bottleneck's values.
    pub bottleneck: f64,
    /// Of the randomness.
    pub seed: u64,
    /// Number of the step: each leaves out others.
    pub step: u64,
}

impl Dropping {
    /// How many factors a node has: one for each image of a sum's first input, one for each value of a bottleneck.
    pub(super) fn factors(op: &Op, images: usize, channels: usize) -> usize {
        match op {
            Op::Add(_) => images,
            Op::GlobalAveragePool => images * channels,
            _ => 0,
        }
    }

    /// Whether nothing is left out.
    pub fn is_nothing(&self) -> bool {
        self.path <= 0.0 && self.bottleneck <= 0.0
    }

    /// Draws the factors of node `index` of `graph`.
    pub(super) fn draw(&self, graph: &Graph, index: usize, factors: &mut [f32]) {
        let share = match graph.nodes[index].op {
            Op::Add(_) => self.path * index as f64 / graph.nodes.len() as f64,
            _ => self.bottleneck,
        };
        let mut random = Random::new(self.seed, Purpose::Drop, [self.step, index as u64]);
        let kept = (1.0 / (1.0 - share)) as f32;
        for factor in factors {
            *factor = if random.chance(share as f32) {
                0.0
            } else {
                kept
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Activation, Node};

    #[test]
    fn the_mean_stays_and_other_steps_leave_out_others() {
        let ops = [
            Op::Input,
            Op::Add(Activation::None),
            Op::GlobalAveragePool,
            Op::Input,
        ];
        let node = |op| Node {
            name: String::new(),
            op,
            inputs: Vec::new(),
        };
        let graph = Graph {
            nodes: ops.map(node).into(),
        };
        let mut dropping = Dropping {
            path: 0.4,
            bottleneck: 0.5,
            seed: 1,
            step: 0,
        };
        let mut factors = vec![0.0; 20_000];
        let mean = |factors: &[f32]| factors.iter().sum::<f32>() / factors.len() as f32;
        dropping.draw(&graph, 1, &mut factors);
        assert!((mean(&factors) - 1.0).abs() < 0.02);
        let dropped = factors.iter().filter(|&&factor| factor == 0.0).count();
        assert!((1_800..2_200).contains(&dropped), "{dropped}");
        dropping.draw(&graph, 2, &mut factors);
        let first = factors.clone();
        assert!((mean(&factors) - 1.0).abs() < 0.05);
        dropping.step = 1;
        dropping.draw(&graph, 2, &mut factors);
        assert_ne!(first, factors);
        dropping.bottleneck = 0.0;
        dropping.draw(&graph, 2, &mut factors);
        assert!(factors.iter().all(|&factor| factor == 1.0));
    }
}
