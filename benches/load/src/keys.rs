//! Which key is asked for: every one alike, or few of them most of the time.

use std::sync::Arc;

/// A distribution over the numbers below a count.
#[derive(Clone)]
pub enum Keys {
    /// All alike.
    Uniform(usize),
    /// Zipf: the i-th has weight 1/i^s; here the running sums of the weights. A table costs eight bytes a key and is
    /// exact for any exponent, which closed formulas are not.
    Zipf(Arc<[f64]>),
}

impl Keys {
    /// All of `count` alike.
    pub fn uniform(count: usize) -> Keys {
        Keys::Uniform(count.max(1))
    }

    /// Of `count`, with an exponent above 0.
    pub fn zipf(count: usize, exponent: f64) -> Keys {
        let mut sum = 0.0;
        let sums = (1..=count.max(1)).map(|i| {
            sum += (i as f64).powf(-exponent);
            sum
        });
        Keys::Zipf(sums.collect())
    }

    /// Draws one.
    pub fn draw(&self, rng: &mut fastrand::Rng) -> usize {
        match self {
            Keys::Uniform(count) => rng.usize(..*count),
            Keys::Zipf(sums) => {
                let total = sums.last().copied().unwrap_or(0.0);
                let at = rng.f64() * total;
                sums.partition_point(|s| *s <= at).min(sums.len().saturating_sub(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drawn shares are those of the weights.
    #[test]
    fn shares() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (count, draws) = (5, 200_000);
        for (keys, exponent) in [(Keys::uniform(count), 0.0), (Keys::zipf(count, 1.2), 1.2)] {
            let mut seen = vec![0u32; count];
            for _ in 0..draws {
                seen[keys.draw(&mut rng)] += 1;
            }
            let total: f64 = (1..=count).map(|i| (i as f64).powf(-exponent)).sum();
            for (i, n) in seen.iter().enumerate() {
                let want = ((i + 1) as f64).powf(-exponent) / total;
                let got = f64::from(*n) / f64::from(draws);
                assert!((got - want).abs() < 0.01, "key {i}: {got} for {want}");
            }
        }
    }
}
