//! What a training step leaves out at random, so that the network does not lean on any one part of itself.
//!
//! Whole branches of sums (G. Huang et al., "Deep networks with stochastic depth", 2016: the deeper, the more often) and
//! single values of the bottleneck (N. Srivastava et al., "Dropout", 2014). What is kept is magnified, so that the mean
//! stays.

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
    /// Factors for the branch of node `index` of `nodes`, one for each image.
    pub(super) fn branches(&self, index: usize, nodes: usize, factors: &mut [f32]) {
        self.draw(self.path * index as f64 / nodes as f64, index, factors);
    }

    /// Factors for the values of node `index`, a bottleneck.
    pub(super) fn values(&self, index: usize, factors: &mut [f32]) {
        self.draw(self.bottleneck, index, factors);
    }

    fn draw(&self, share: f64, index: usize, factors: &mut [f32]) {
        if share <= 0.0 {
            factors.fill(1.0);
            return;
        }
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

    #[test]
    fn the_mean_stays_and_other_steps_leave_out_others() {
        let mut dropping = Dropping {
            path: 0.2,
            bottleneck: 0.5,
            seed: 1,
            step: 0,
        };
        let mut factors = vec![0.0; 20_000];
        let mean = |factors: &[f32]| factors.iter().sum::<f32>() / factors.len() as f32;
        dropping.branches(5, 10, &mut factors);
        assert!((mean(&factors) - 1.0).abs() < 0.02);
        let dropped = factors.iter().filter(|&&factor| factor == 0.0).count();
        assert!((1_800..2_200).contains(&dropped), "{dropped}");
        dropping.values(5, &mut factors);
        let first = factors.clone();
        assert!((mean(&factors) - 1.0).abs() < 0.05);
        dropping.step = 1;
        dropping.values(5, &mut factors);
        assert_ne!(first, factors);
        dropping.bottleneck = 0.0;
        dropping.values(5, &mut factors);
        assert!(factors.iter().all(|&factor| factor == 1.0));
    }
}
