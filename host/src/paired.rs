//! Statistics of two classifiers on the same photos: is one more accurate than the other?

use serde::Serialize;

/// Photos by which of two models labels them right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Both.
    pub both: u64,
    /// Only the old model.
    pub only_old: u64,
    /// Only the new model.
    pub only_new: u64,
    /// Neither.
    pub neither: u64,
}

impl Counts {
    /// Counts photos by whether the old and whether the new model is right.
    pub fn of(photos: impl Iterator<Item = (bool, bool)>) -> Self {
        photos.fold(Self::default(), |mut counts, right| {
            *match right {
                (true, true) => &mut counts.both,
                (true, false) => &mut counts.only_old,
                (false, true) => &mut counts.only_new,
                (false, false) => &mut counts.neither,
            } += 1;
            counts
        })
    }

    /// All photos.
    #[must_use]
    pub fn images(&self) -> u64 {
        self.both + self.only_old + self.only_new + self.neither
    }

    /// Share of photos that the old model labels right; 0 without photos.
    #[must_use]
    pub fn old_top1(&self) -> f64 {
        (self.both + self.only_old) as f64 / self.images().max(1) as f64
    }

    /// Share of photos that the new model labels right; 0 without photos.
    #[must_use]
    pub fn new_top1(&self) -> f64 {
        (self.both + self.only_new) as f64 / self.images().max(1) as f64
    }

    /// What the new model wins, in fractions; negative where it loses.
    #[must_use]
    pub fn difference(&self) -> f64 {
        self.new_top1() - self.old_top1()
    }

    /// The 95 % confidence interval of [`Counts::difference`]: the adjusted Wald interval of Bonett and Price (Journal of
    /// Educational and Behavioral Statistics 37, 2012), which holds for few photos and few differences too.
    #[must_use]
    pub fn difference_interval(&self) -> (f64, f64) {
        /// The 97.5 % quantile of the normal distribution.
        const Z: f64 = 1.959_963_984_540_054;
        let images = self.images() as f64 + 2.0;
        let old = (self.only_old as f64 + 1.0) / images;
        let new = (self.only_new as f64 + 1.0) / images;
        let centre = new - old;
        let margin = Z * ((new + old - centre * centre) / images).sqrt();
        ((centre - margin).max(-1.0), (centre + margin).min(1.0))
    }

    /// The two-sided p of McNemar's exact test: how often photos that only one model labels right would be shared out at
    /// least as unevenly, were both models equally accurate (Q. McNemar, Psychometrika 12, 1947; with the binomial
    /// distribution instead of its approximation).
    #[must_use]
    pub fn mcnemar_p(&self) -> f64 {
        let fewer = self.only_old.min(self.only_new);
        let all = self.only_old + self.only_new;
        // The probability of `fewer` of `all`, as a logarithm: it underflows where `all` exceeds a thousand.
        let binomial: f64 = (1..=fewer)
            .map(|k| ((all - fewer + k) as f64 / k as f64).ln())
            .sum();
        let largest = binomial - all as f64 * std::f64::consts::LN_2;
        // The probabilities of `fewer`, `fewer` - 1, ... 0, relative to that of `fewer`.
        let mut relative = 1.0;
        let mut tail = 0.0;
        for k in (0..=fewer).rev() {
            tail += relative;
            relative *= k as f64 / (all - k + 1) as f64;
        }
        (2.0 * (largest + f64::ln(tail)).exp()).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(only_old: u64, only_new: u64) -> Counts {
        Counts {
            both: 60,
            only_old,
            only_new,
            neither: 40,
        }
    }

    #[test]
    fn photos_are_counted_by_who_is_right() {
        let right = [(true, true), (true, true), (true, false), (false, true)];
        let counts = Counts::of(right.into_iter().chain([(false, true), (false, false)]));
        let expected = Counts {
            both: 2,
            only_old: 1,
            only_new: 2,
            neither: 1,
        };
        assert_eq!(counts, expected);
        assert_eq!((counts.old_top1(), counts.new_top1()), (0.5, 4.0 / 6.0));
        assert_eq!(Counts::default().difference(), 0.0);
    }

    /// Sums of binomial coefficients, worked out with integers of any size.
    #[test]
    fn mcnemar_of_known_counts() {
        for (only_old, only_new, expected) in [
            (0, 0, 1.0),
            (1, 0, 1.0),
            (7, 7, 1.0),
            (0, 6, 0.03125),
            (2, 10, 0.038_574_218_75),
            (10, 2, 0.038_574_218_75),
            (5, 15, 0.041_389_465_332_031_25),
            (900, 1100, 8.457089535503927e-06),
        ] {
            let p = counts(only_old, only_new).mcnemar_p();
            assert!((p / expected - 1.0).abs() < 1e-10, "{p} {expected}");
        }
        assert!(counts(0, 5_000).mcnemar_p() < 1e-300);
    }

    #[test]
    fn interval_holds_the_difference() {
        let (low, high) = counts(5, 15).difference_interval();
        let centre = 10.0 / 122.0;
        let margin = 1.959_963_984_540_054 * ((22.0 / 122.0 - centre * centre) / 122.0f64).sqrt();
        assert!(
            (low - (centre - margin)).abs() < 1e-12 && (high - (centre + margin)).abs() < 1e-12
        );
        for (only_old, only_new) in [(0, 0), (0, 20), (30, 0), (3, 4)] {
            let counts = counts(only_old, only_new);
            let (low, high) = counts.difference_interval();
            assert!(low < counts.difference() && counts.difference() < high);
        }
    }
}
