//! Medians, ratios, and whether they are what they should be.

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => (sorted[length / 2 - 1] + sorted[length / 2]) / 2.0,
    }
}

/// What a figure must be.
#[derive(Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    /// Whether the median of these is as it must be; prints it.
    pub fn check(self, what: &str, unit: &str, values: &[f64]) -> bool {
        let value = median(values);
        let (word, limit, met) = match self {
            Self::AtLeast(limit) => ("at least", limit, value >= limit),
            Self::AtMost(limit) => ("at most", limit, value <= limit),
        };
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        println!(
            "{what:<28} {value:>7.2}{unit:<3} ({low:.2} to {high:.2})  {word} {limit}{unit}  {}",
            if met { "ok" } else { "MISSED" }
        );
        met
    }
}
