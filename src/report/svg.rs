//! Small parts of SVG: axes and paths.
//!
//! Charts are written by hand instead of with plotters: its SVG backend writes fixed colours and no classes, so
//! that a page could not restyle it for dark mode or print, and it has no place for titles of points.

use std::fmt::Write as _;

/// Values along an axis: from, to, and round numbers between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Value at the beginning.
    pub from: f64,
    /// Value at the end; above `from`.
    pub to: f64,
    /// Round numbers in between, ascending.
    pub ticks: Vec<f64>,
    /// Decimals that tell the ticks apart.
    pub decimals: usize,
}

impl Axis {
    /// An axis over all values, widened to round numbers, with about `num_ticks` ticks.
    pub fn over(values: impl Iterator<Item = f64>, num_ticks: usize) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if high - low < 1e-9 * high.abs().max(1e-3) {
            let margin = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
            (low, high) = (low - margin, high + margin);
        }
        let step = round_step((high - low) / num_ticks.max(1) as f64);
        let first = (low / step + 1e-9).floor();
        let last = (high / step - 1e-9).ceil();
        let ticks: Vec<f64> = (0..=(last - first) as usize).map(|idx| (first + idx as f64) * step + 0.0).collect();
        let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
        Self { from: first * step, to: last * step, ticks, decimals }
    }

    /// An axis over whole numbers that begins and ends where they do.
    pub fn over_counts(from: u32, to: u32, num_ticks: usize) -> Self {
        let (low, high) = (f64::from(from), f64::from(to.max(from.saturating_add(1))));
        let step = round_step((high - low) / num_ticks.max(1) as f64).max(1.0).round();
        let mut ticks = vec![low];
        let mut tick = ((low / step).floor() + 1.0) * step;
        while tick <= high {
            // The first tick keeps its distance from the next.
            if tick - low >= step / 2.0 {
                ticks.push(tick);
            }
            tick += step;
        }
        Self { from: low, to: high, ticks, decimals: 0 }
    }

    /// Where a value lies, as a share of the axis.
    pub fn share(&self, value: f64) -> f64 {
        (value - self.from) / (self.to - self.from)
    }
}

/// 1, 2 or 5 times a power of ten, near `rough`.
fn round_step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    let factor = rough / power;
    let round = if factor < 1.5 {
        1.0
    } else if factor < 3.5 {
        2.0
    } else if factor < 7.5 {
        5.0
    } else {
        10.0
    };
    round * power
}

/// A coordinate with at most two decimals.
pub fn coordinate(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// `M… L…` through all points.
pub fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut data = String::new();
    for (idx, (x, y)) in points.enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(data, "{}{} {}", if idx == 0 { 'M' } else { 'L' }, coordinate(x), coordinate(y));
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        let axis = Axis::over([-0.83, -0.12].into_iter(), 4);
        assert_eq!((axis.from, axis.to, axis.decimals), (-1.0, 0.0, 1));
        assert_eq!(axis.ticks.len(), 6);
        assert_eq!(axis.share(-0.5), 0.5);
    }

    #[test]
    fn constant_and_missing_values_still_have_an_axis() {
        let flat = Axis::over([0.05, 0.05].into_iter(), 4);
        assert!(flat.from < 0.05 && flat.to > 0.05);
        let none = Axis::over(std::iter::empty(), 4);
        assert_eq!((none.from, none.to), (0.0, 1.0));
        let zero = Axis::over([0.0].into_iter(), 4);
        assert!(zero.share(0.0).is_finite());
        assert!(Axis::over([f64::NAN, 1.0, 2.0].into_iter(), 4).to.is_finite());
    }

    #[test]
    fn counts_begin_at_the_first() {
        let axis = Axis::over_counts(1, 100, 5);
        assert_eq!(axis.ticks, [1.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(Axis::over_counts(1, 1, 5).ticks, [1.0, 2.0]);
    }

    #[test]
    fn paths_are_short() {
        assert_eq!(path([(0.0, 1.5), (2.345, -0.0)].into_iter()), "M0 1.5L2.35 0");
    }
}
