//! Figures of merit of logits against true classes.

/// The index of the largest value; ties go to the lower index.
#[must_use]
pub fn argmax(values: &[f32]) -> usize {
    values
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (i, v)| {
            if *v > best.1 { (i, *v) } else { best }
        })
        .0
}

/// Share of rows whose largest logit is the target's; 0 without rows.
#[must_use]
pub fn top1(logits: &[Vec<f32>], targets: &[usize]) -> f64 {
    let right = logits
        .iter()
        .zip(targets)
        .filter(|(row, target)| argmax(row) == **target)
        .count();
    right as f64 / targets.len().max(1) as f64
}

/// Mean over the classes that have rows of the share of their rows that is right.
#[must_use]
pub fn macro_recall(logits: &[Vec<f32>], targets: &[usize], classes: usize) -> f64 {
    let mut seen = vec![0u32; classes];
    let mut right = vec![0u32; classes];
    for (row, &target) in logits.iter().zip(targets) {
        seen[target] += 1;
        right[target] += u32::from(argmax(row) == target);
    }
    let recalls: Vec<f64> = seen
        .iter()
        .zip(&right)
        .filter(|(n, _)| **n > 0)
        .map(|(n, r)| f64::from(*r) / f64::from(*n))
        .collect();
    recalls.iter().sum::<f64>() / recalls.len().max(1) as f64
}

/// Mean cross-entropy in nats of softmax(logits / temperature).
#[must_use]
pub fn cross_entropy(logits: &[Vec<f32>], targets: &[usize], temperature: f64) -> f64 {
    let loss = |row: &Vec<f32>, target: usize| {
        let most = row.iter().fold(f32::MIN, |a, b| a.max(*b));
        let total: f64 = row
            .iter()
            .map(|l| (f64::from(l - most) / temperature).exp())
            .sum();
        total.ln() - f64::from(row[target] - most) / temperature
    };
    logits
        .iter()
        .zip(targets)
        .map(|(row, target)| loss(row, *target))
        .sum::<f64>()
        / targets.len().max(1) as f64
}

/// The temperature in 0.05..20 at which scores of these logits are calibrated best (Guo et al. 2017, arXiv 1706.04599,
/// section 4.2): golden-section search of the cross-entropy over its logarithm. 1 without rows.
#[must_use]
pub fn temperature(logits: &[Vec<f32>], targets: &[usize]) -> f32 {
    if targets.is_empty() {
        return 1.0;
    }
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (0.05f64.ln(), 20f64.ln());
    let at = |log: f64| cross_entropy(logits, targets, log.exp());
    for _ in 0..40 {
        let (left, right) = (high - golden * (high - low), low + golden * (high - low));
        if at(left) <= at(right) {
            high = right
        } else {
            low = left
        }
    }
    ((low + high) / 2.0).exp() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_index() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
    }

    #[test]
    fn macro_recall_weighs_classes_alike() {
        let logits = vec![
            vec![1.0, 0.0],
            vec![1.0, 0.0],
            vec![1.0, 0.0],
            vec![1.0, 0.0],
        ];
        assert_eq!(top1(&logits, &[0, 0, 0, 1]), 0.75);
        assert_eq!(macro_recall(&logits, &[0, 0, 0, 1], 2), 0.5);
    }

    #[test]
    fn overconfident_logits_get_a_temperature_above_one() {
        let logits: Vec<Vec<f32>> = (0..10).map(|_| vec![8.0, 0.0]).collect();
        let mut targets = vec![0; 10];
        targets[0] = 1;
        targets[1] = 1;
        assert!(temperature(&logits, &targets) > 2.0);
    }
}
