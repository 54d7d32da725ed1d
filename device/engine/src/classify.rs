//! Logits -> scores -> the best labels.

/// What a model says about one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// One per label, as the graph gives them.
    pub logits: Vec<f32>,
    /// Softmax of logits / temperature: one per label, in 0..=1, together 1.
    pub scores: Vec<f32>,
    /// Whether the best score is below the card's threshold: the picture shows none of the labels.
    pub unknown: bool,
}

impl Classification {
    pub(crate) fn new(logits: Vec<f32>, temperature: f32, threshold: f32) -> Classification {
        let scores = softmax(&logits, temperature);
        let unknown = best(&scores, 1)
            .first()
            .is_none_or(|(_, score)| *score < threshold);
        Classification {
            logits,
            scores,
            unknown,
        }
    }

    /// The best label and its score; a model has at least two labels.
    #[must_use]
    pub fn best(&self) -> (usize, f32) {
        self.top(1).first().copied().unwrap_or_default()
    }

    /// The `k` best labels and their scores, best first; equal logits in the order of the labels.
    #[must_use]
    pub fn top(&self, k: usize) -> Vec<(usize, f32)> {
        best(&self.logits, k)
            .into_iter()
            .map(|(label, _)| (label, self.scores[label]))
            .collect()
    }
}

/// The `k` largest of `values` with their indices, largest first; ties go to the lower index.
fn best(values: &[f32], k: usize) -> Vec<(usize, f32)> {
    let mut order: Vec<(usize, f32)> = values.iter().copied().enumerate().collect();
    // Stable, so equal values keep the order of their indices.
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.truncate(k);
    order
}

/// Softmax of `logits / temperature` in f32, summed in index order, with the exponential of the `libm` crate: the same
/// bits on every processor.
fn softmax(logits: &[f32], temperature: f32) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = logits
        .iter()
        .map(|logit| libm::expf((logit - largest) / temperature))
        .collect();
    let sum: f32 = exponentials.iter().fold(0.0, |sum, e| sum + e);
    exponentials.iter().map(|e| e / sum).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ties_go_to_the_lower_index() {
        let classification = Classification::new(vec![1.0, 3.0, 3.0, -2.0], 1.0, 0.0);
        let order: Vec<usize> = classification
            .top(9)
            .iter()
            .map(|(label, _)| *label)
            .collect();
        assert_eq!(order, [1, 2, 0, 3]);
        assert_eq!(classification.top(2).len(), 2);
        assert_eq!(classification.top(0), []);
    }

    #[test]
    fn scores_are_probabilities_whatever_the_temperature() {
        for temperature in [0.1, 1.0, 7.0] {
            let classification =
                Classification::new(vec![1000.0, 999.0, -1000.0], temperature, 0.5);
            let sum: f32 = classification.scores.iter().sum();
            assert!((sum - 1.0).abs() < 1e-6);
            assert!(
                classification
                    .scores
                    .iter()
                    .all(|score| (0.0..=1.0).contains(score))
            );
        }
        let even = Classification::new(vec![0.0; 4], 1.0, 0.25);
        assert_eq!(even.scores, [0.25; 4]);
        assert!(!even.unknown);
        assert!(Classification::new(vec![0.0; 4], 1.0, 0.26).unknown);
    }
}
