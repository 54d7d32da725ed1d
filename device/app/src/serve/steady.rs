//! From one frame's label to what is to be seen: scores smoothed over time, a label that must last before it is believed.

use std::time::{Duration, Instant};

use graft_engine::Classification;

/// How steady labels have to be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Steadiness {
    /// The time constant of the scores' exponential average; zero takes each frame as it is.
    pub(crate) smooth: Duration,
    /// For so long another label must have been the best one before it is shown.
    pub(crate) hold: Duration,
}

/// What was seen so far.
#[derive(Debug)]
pub(crate) struct Steady {
    steadiness: Steadiness,
    /// The model that the labels are of.
    version: String,
    scores: Vec<f32>,
    last: Option<Instant>,
    /// The label that is shown: a label's index, or none of them; `None` before the first frame.
    shown: Option<Option<usize>>,
    /// Another label, and since when it is the best one.
    rival: Option<(Option<usize>, Instant)>,
}

/// What is shown after a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) label: Option<usize>,
    /// Whether it is another one than after the frame before.
    pub(crate) changed: bool,
}

impl Steady {
    pub(crate) fn new(steadiness: Steadiness) -> Self {
        Self {
            steadiness,
            version: String::new(),
            scores: Vec::new(),
            last: None,
            shown: None,
            rival: None,
        }
    }

    /// Takes a frame's classification by the model of that version, and makes its scores the smoothed ones. A best score
    /// below `threshold` shows no label.
    pub(crate) fn take(
        &mut self,
        version: &str,
        classification: &mut Classification,
        threshold: f32,
        now: Instant,
    ) -> Shown {
        if self.version != version {
            *self = Self {
                version: version.to_owned(),
                ..Self::new(self.steadiness)
            };
        }
        self.smooth(classification, now);
        let (best, score) = classification.best();
        classification.unknown = score < threshold;
        let label = (!classification.unknown).then_some(best);
        let changed = self.judge(label, now);
        Shown {
            label: self.shown.flatten(),
            changed,
        }
    }

    fn smooth(&mut self, classification: &mut Classification, now: Instant) {
        let constant = self.steadiness.smooth.as_secs_f32();
        let since = self.last.replace(now).map(|last| now - last);
        let weight = match since {
            Some(since) if constant > 0.0 => 1.0 - (-since.as_secs_f32() / constant).exp(),
            _ => 1.0,
        };
        self.scores.resize(classification.scores.len(), 0.0);
        for (smoothed, score) in self.scores.iter_mut().zip(&classification.scores) {
            *smoothed += weight * (score - *smoothed);
        }
        if constant > 0.0 {
            classification.scores.clone_from(&self.scores);
            // The best labels are told by their logits: here by what the smoothed scores are.
            classification.logits.clone_from(&self.scores);
        }
    }

    /// Whether what is shown changes to `label`.
    fn judge(&mut self, label: Option<usize>, now: Instant) -> bool {
        if self.shown == Some(label) {
            self.rival = None;
            return false;
        }
        let since = match self.rival {
            Some((rival, since)) if rival == label => since,
            _ => now,
        };
        self.rival = Some((label, since));
        let believed = self.shown.is_none() || now - since >= self.steadiness.hold;
        if believed {
            self.shown = Some(label);
            self.rival = None;
        }
        believed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(scores: [f32; 3]) -> Classification {
        Classification {
            logits: scores.to_vec(),
            scores: scores.to_vec(),
            unknown: false,
        }
    }

    const CAT: [f32; 3] = [0.9, 0.05, 0.05];
    const DOG: [f32; 3] = [0.05, 0.9, 0.05];
    const NONE: [f32; 3] = [0.4, 0.3, 0.3];

    /// What is shown after each frame, one every 100 ms.
    fn shown(steadiness: Steadiness, frames: &[[f32; 3]]) -> Vec<(Option<usize>, bool)> {
        let mut steady = Steady::new(steadiness);
        let start = Instant::now();
        let after = |index| start + Duration::from_millis(100) * index as u32;
        let frames = frames.iter().enumerate();
        frames
            .map(|(index, scores)| {
                let shown = steady.take("1", &mut frame(*scores), 0.5, after(index));
                (shown.label, shown.changed)
            })
            .collect()
    }

    #[test]
    fn without_smoothing_each_frame_counts() {
        let (cat, dog) = (Some(0), Some(1));
        assert_eq!(
            shown(Steadiness::default(), &[CAT, CAT, DOG, NONE, NONE]),
            [
                (cat, true),
                (cat, false),
                (dog, true),
                (None, true),
                (None, false)
            ]
        );
    }

    #[test]
    fn a_label_must_last_before_it_is_shown() {
        let steadiness = Steadiness {
            hold: Duration::from_millis(200),
            ..Steadiness::default()
        };
        let labels: Vec<_> = shown(steadiness, &[CAT, DOG, CAT, DOG, DOG, DOG, DOG])
            .into_iter()
            .map(|(label, _)| label)
            .collect();
        let (cat, dog) = (Some(0), Some(1));
        assert_eq!(labels, [cat, cat, cat, cat, cat, dog, dog]);
    }

    #[test]
    fn smoothed_scores_pass_over_a_single_frame() {
        let steadiness = Steadiness {
            smooth: Duration::from_millis(500),
            ..Steadiness::default()
        };
        let mut frames = vec![CAT; 5];
        frames.push(DOG);
        frames.extend([CAT; 3]);
        assert!(
            shown(steadiness, &frames)[1..]
                .iter()
                .all(|(label, changed)| { *label == Some(0) && !changed })
        );
        // A steady change comes through.
        let labels = shown(steadiness, &[&[CAT; 5][..], &[DOG; 20]].concat());
        assert_eq!(labels.last(), Some(&(Some(1), false)));
        // The scores stay probabilities.
        let mut steady = Steady::new(steadiness);
        let start = Instant::now();
        for index in 0..10 {
            let mut taken = frame(if index % 2 == 0 { CAT } else { DOG });
            steady.take(
                "1",
                &mut taken,
                0.5,
                start + Duration::from_millis(30) * index,
            );
            assert!((taken.scores.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn another_model_begins_anew() {
        let steadiness = Steadiness {
            hold: Duration::from_secs(60),
            ..Steadiness::default()
        };
        let mut steady = Steady::new(steadiness);
        let now = Instant::now();
        steady.take("1", &mut frame(CAT), 0.5, now);
        let shown = steady.take("2", &mut frame(DOG), 0.5, now);
        assert_eq!((shown.label, shown.changed), (Some(1), true));
    }
}
