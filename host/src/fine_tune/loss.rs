//! The loss: cross entropy of softmax with soft targets.

/// Mean over the batch of `-sum(target * ln(softmax(logits)))`, in nats; `gradient` gets its gradient by the logits.
///
/// `logits`, `targets` (each row sums to 1) and `gradient` are `[n, classes]`.
pub(super) fn cross_entropy(
    logits: &[f32],
    targets: &[f32],
    classes: usize,
    gradient: &mut [f32],
) -> f64 {
    let classes = classes.max(1);
    let rows = logits.len() / classes;
    let mut sum = 0.0;
    for ((logits, targets), gradient) in logits
        .chunks_exact(classes)
        .zip(targets.chunks_exact(classes))
        .zip(gradient.chunks_exact_mut(classes))
    {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = logits
            .iter()
            .map(|&logit| f64::from(logit - largest).exp())
            .sum();
        let log_total = total.ln() + f64::from(largest);
        for ((gradient, &logit), &target) in gradient.iter_mut().zip(logits).zip(targets) {
            let log_probability = f64::from(logit) - log_total;
            sum -= f64::from(target) * log_probability;
            *gradient = ((log_probability.exp() - f64::from(target)) / rows as f64) as f32;
        }
    }
    sum / rows as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let logits = [1.5_f32, -0.25, 0.75, 3.0, -2.0, 0.5];
        let targets = [0.9_f32, 0.05, 0.05, 0.2, 0.5, 0.3];
        let mut gradient = [0.0; 6];
        let loss = cross_entropy(&logits, &targets, 3, &mut gradient);
        for index in 0..6 {
            let mut moved = logits;
            moved[index] += 1e-3;
            let change = cross_entropy(&moved, &targets, 3, &mut [0.0; 6]) - loss;
            assert!((change / 1e-3 - f64::from(gradient[index])).abs() < 1e-3);
        }
    }

    #[test]
    fn far_logits_stay_finite() {
        let mut gradient = [0.0; 2];
        let loss = cross_entropy(&[1e4, -1e4], &[1.0, 0.0], 2, &mut gradient);
        assert_eq!((loss, gradient), (0.0, [0.0; 2]));
    }
}
