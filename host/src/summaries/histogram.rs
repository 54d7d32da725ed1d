//! Values in buckets of equal width, as TensorBoard's own `tf.summary.histogram` makes them.

use super::proto::Histogram;

/// How many buckets there are, as in TensorBoard.
const BUCKETS: usize = 30;

/// The histogram of the finite `values`. Where all are one value, it is one bucket of width 1 around it.
pub(super) fn histogram(values: &[f32]) -> Histogram {
    let finite = || {
        let values = values.iter().filter(|value| value.is_finite());
        values.map(|value| f64::from(*value))
    };
    let Some((min, max)) = finite().fold(None, |range, value| {
        let (min, max) = range.unwrap_or((value, value));
        Some((value.min(min), value.max(max)))
    }) else {
        return Histogram::default();
    };
    let (buckets, first, width) = if min < max {
        (BUCKETS, min, (max - min) / BUCKETS as f64)
    } else {
        (1, min - 0.5, 1.0)
    };
    let mut histogram = Histogram {
        min,
        max,
        bucket_limit: (1..=buckets)
            .map(|edge| first + width * edge as f64)
            .collect(),
        bucket: vec![0.0; buckets],
        ..Histogram::default()
    };
    for value in finite() {
        let bucket = ((value - first) / width) as usize;
        // The last bucket holds its right edge too.
        histogram.bucket[bucket.min(buckets - 1)] += 1.0;
        histogram.num += 1.0;
        histogram.sum += value;
        histogram.sum_squares += value * value;
    }
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_value_is_in_one_bucket() {
        let mut values: Vec<f32> = (0..=60).map(|number| number as f32 - 30.0).collect();
        values.extend([f32::NAN, f32::INFINITY]);
        let histogram = histogram(&values);
        assert_eq!((histogram.min, histogram.max), (-30.0, 30.0));
        assert_eq!((histogram.num, histogram.sum), (61.0, 0.0));
        assert_eq!(histogram.sum_squares, 2.0 * (30 * 31 * 61 / 6) as f64);
        assert_eq!(histogram.bucket_limit.len(), BUCKETS);
        assert_eq!(histogram.bucket_limit[0], -28.0);
        assert_eq!(histogram.bucket_limit[BUCKETS - 1], 30.0);
        assert_eq!(histogram.bucket[0], 2.0);
        assert_eq!(histogram.bucket[BUCKETS - 1], 3.0);
        assert_eq!(histogram.bucket.iter().sum::<f64>(), 61.0);
    }

    #[test]
    fn one_value_and_no_value() {
        let one = histogram(&[2.0, 2.0]);
        assert_eq!((one.bucket_limit, one.bucket), (vec![2.5], vec![2.0]));
        assert_eq!(histogram(&[f32::NAN]), Histogram::default());
        let extremes = histogram(&[f32::MIN, f32::MAX]);
        assert_eq!((extremes.bucket[0], extremes.bucket[29]), (1.0, 1.0));
    }
}
