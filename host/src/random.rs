//! Random numbers that depend on what they are for alone.
//!
//! SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), begun at a
//! hash of the seed, the purpose and two numbers.

/// What a stream of numbers is for: streams of different purposes have nothing in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The order of an epoch; its number.
    Epoch = 1,
    /// The order of a class's photos; class and round.
    Class = 2,
    /// The change of a photo; its position in the whole training.
    Change = 3,
    /// Mixing; step and pair.
    Mixing = 4,
    /// What a training step leaves out; step and node.
    Drop = 5,
}

/// A stream of random numbers.
pub(crate) struct Random {
    state: u64,
}

/// 2^64 divided by the golden ratio, odd: SplitMix64's step.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    pub(crate) fn new(seed: u64, purpose: Purpose, numbers: [u64; 2]) -> Self {
        let key = [seed, purpose as u64, numbers[0], numbers[1]];
        let state = key.iter().fold(0, |state, number| mixed(state ^ number));
        Self { state }
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        finished(self.state)
    }

    /// From 0 to `end`, without `end`; 0 where `end` is.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.bits()) * end as u128) >> u64::BITS) as usize
    }

    /// From 0 to 1, without 1.
    pub(crate) fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From `low` to `high`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.share()
    }

    /// True with that probability.
    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.share() < f64::from(probability)
    }

    /// From 0 to 1, distributed as Beta(`alpha`, `alpha`); `alpha` is above 0 and at most 1.
    ///
    /// M. Jöhnk, "Erzeugung von betaverteilten und gammaverteilten Zufallszahlen", Metrika 8 (1964).
    pub(crate) fn beta(&mut self, alpha: f32) -> f64 {
        let power = 1.0 / f64::from(alpha);
        loop {
            let (one, other) = (self.share().powf(power), self.share().powf(power));
            let sum = one + other;
            if sum > 0.0 && sum <= 1.0 {
                return one / sum;
            }
        }
    }
}

/// One step of SplitMix64 from `state`.
pub(crate) fn mixed(state: u64) -> u64 {
    finished(state.wrapping_add(STEP))
}

fn finished(state: u64) -> u64 {
    let bits = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of the reference implementation from state 0 (S. Vigna, splitmix64.c).
    #[test]
    fn equals_the_reference() {
        let mut random = Random { state: 0 };
        let bits: Vec<u64> = (0..3).map(|_| random.bits()).collect();
        let expected = [
            0xe220_a839_7b1d_cdaf,
            0x6e78_9e6a_a1b9_65f4,
            0x06c4_5d18_8009_454f,
        ];
        assert_eq!(bits, expected);
    }

    #[test]
    fn streams_differ_in_every_part_of_their_key() {
        let first = |seed, purpose, numbers| Random::new(seed, purpose, numbers).bits();
        let streams = [
            first(1, Purpose::Change, [2, 3]),
            first(2, Purpose::Change, [2, 3]),
            first(1, Purpose::Mixing, [2, 3]),
            first(1, Purpose::Change, [3, 2]),
            first(1, Purpose::Change, [2, 4]),
        ];
        for (index, stream) in streams.iter().enumerate() {
            assert!(!streams[..index].contains(stream));
        }
    }

    #[test]
    fn numbers_have_their_means_and_stay_inside() {
        let mut random = Random::new(7, Purpose::Change, [0, 0]);
        let rounds = 20_000;
        let mut sums = [0.0; 4];
        for _ in 0..rounds {
            let below = random.below(5);
            assert!(below < 5);
            let beta = [0.05, 0.2, 1.0].map(|alpha| random.beta(alpha));
            assert!(beta.iter().all(|beta| (0.0..=1.0).contains(beta)));
            for (sum, number) in sums
                .iter_mut()
                .zip([below as f64 / 4.0].iter().chain(&beta))
            {
                *sum += number / f64::from(rounds);
            }
        }
        assert!(
            sums.iter().all(|mean| (mean - 0.5).abs() < 0.012),
            "{sums:?}"
        );
        assert_eq!(random.below(0), 0);
    }
}
