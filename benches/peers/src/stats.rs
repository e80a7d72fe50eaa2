//! Medians and their confidence intervals.

/// The median. For an even number of values, the mean of the middle two.
pub(crate) fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    }
}

/// The nearest-rank percentile: the smallest value such that at least the fraction `p` of `values`
/// is no larger.
pub(crate) fn percentile(values: &[f64], p: f64) -> f64 {
    let sorted = sorted(values);
    let rank = (p * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// A confidence interval for the median of the distribution behind some values.
///
/// The interval assumes nothing about the distribution. It reaches from the [`rank`]-th smallest
/// value to the [`rank`]-th largest.
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Interval {
    pub(crate) fn of(values: &[f64]) -> Interval {
        let sorted = sorted(values);
        let (rank, _) = rank(sorted.len());
        Interval {
            low: sorted[rank - 1],
            high: sorted[sorted.len() - rank],
        }
    }
}

/// The rank that bounds an [`Interval`] of `n` values, and the interval's confidence.
///
/// The interval is the narrowest one that holds the median with at least 95 % confidence. If no
/// interval has 95 %, the rank is 1, for the widest one. Of 11 values, the interval reaches from
/// the 2nd to the 10th, with 98.8 %.
///
/// The median lies outside the interval if fewer than `rank` of the `n` values lie on one side of
/// the median. Each side has the probability of fewer than `rank` heads in `n` throws of a coin.
/// The factor 2 counts both sides.
pub(crate) fn rank(n: usize) -> (usize, f64) {
    let mut ways = 1.0; // n choose rank - 1
    let mut outside = 0.0;
    let mut best = (1, 0.0);
    for rank in 1..=n.div_ceil(2) {
        outside += 2.0 * ways * 0.5_f64.powi(n as i32);
        let confidence = (1.0 - outside).max(0.0);
        if rank > 1 && confidence < 0.95 {
            break;
        }
        best = (rank, confidence);
        ways *= (n - rank + 1) as f64 / rank as f64;
    }
    best
}

/// Pseudo-random numbers. Each process gets the same numbers, so all peers get the same work.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Marsaglia's xorshift64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn percentiles() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.99), 99.0);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
    }

    #[test]
    fn ranks() {
        assert_eq!(rank(11).0, 2);
        assert!((rank(11).1 - 0.988).abs() < 0.001);
        assert_eq!(rank(1), (1, 0.0));
        assert_eq!(rank(2), (1, 0.5));
        assert_eq!(rank(9).0, 2); // 96.1 %
        assert_eq!(rank(8).0, 1); // rank 2 would give 93 %
        let interval = Interval::of(&[5.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        assert_eq!((interval.low, interval.high), (2.0, 10.0));
    }
}
