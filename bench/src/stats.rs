//! Medians, percentiles and spreads.

/// The middle of some values and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Of an even number of values, the upper of the two in the middle.
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// # Panics
    /// If there are no values.
    pub fn of(values: &[f64]) -> Spread {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Spread {
            median: sorted[sorted.len() / 2],
            least: sorted[0],
            most: sorted[sorted.len() - 1],
        }
    }
}

/// The value that a share `p` (0 to 1) of the values does not exceed.
///
/// # Panics
/// If there are no values.
pub fn percentile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * p).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// What each round gave for one thing, over what it gave for the other.
pub fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| of / to).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_percentiles_are_values_that_were_there() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        let spread = Spread {
            median: 3.0,
            least: 1.0,
            most: 5.0,
        };
        assert_eq!(Spread::of(&values), spread);
        assert_eq!(
            [0.0, 0.5, 0.8, 0.81, 1.0].map(|p| percentile(&values, p)),
            [1.0, 3.0, 4.0, 5.0, 5.0]
        );
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        assert_eq!(ratios(&[1.0, 6.0], &[2.0, 3.0]), [0.5, 2.0]);
    }
}
