//! What a benchmark says.

use serde::Serialize;

use super::machine::timed;
use crate::profile::{Profile, record};

/// A finished benchmark. One image is one source image: in training and augmentation it means two views.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// Of the fastest step.
    pub images_per_second: f64,
    /// The most memory that the process held while it worked, in MiB.
    pub peak_rss_mib: f64,
    /// Seconds of each timed step, in order.
    pub step_seconds: Vec<f64>,
    /// Images in one step.
    pub images_per_step: u64,
    /// Threads at work.
    pub threads: usize,
    /// Arithmetic, where the work is matrix products.
    #[serde(flatten)]
    pub arithmetic: Option<Arithmetic>,
    /// Where the time of the fastest step went, where spans were recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// How much of what the machine can compute was used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Arithmetic {
    /// 10⁹ operations that direct convolution and the heads' products need for one step; a multiply-add is two.
    pub gflop_per_step: f64,
    /// The same a second, in the fastest step.
    pub gflops: f64,
    /// 10⁹ operations a second of a 2048³ matrix product, measured in the same run.
    pub gemm_peak_gflops: f64,
    /// `gflops` / `gemm_peak_gflops`. Above 1 where a fast algorithm needs fewer operations than are counted.
    pub share_of_peak: f64,
}

impl Measurement {
    /// From the times of the steps.
    pub fn new(step_seconds: Vec<f64>, images_per_step: u64, peak_rss_bytes: u64) -> Self {
        let mut measurement = Self {
            images_per_second: 0.0,
            peak_rss_mib: peak_rss_bytes as f64 / f64::from(1 << 20),
            step_seconds,
            images_per_step,
            threads: rayon::current_num_threads(),
            arithmetic: None,
            profile: None,
        };
        measurement.images_per_second = images_per_step as f64 / measurement.fastest();
        measurement
    }

    /// The same with arithmetic: `flop` operations a step on a machine that manages `gemm_peak_gflops`.
    pub fn with_arithmetic(mut self, flop: f64, gemm_peak_gflops: f64) -> Self {
        let gflop_per_step = flop / 1e9;
        let gflops = gflop_per_step / self.fastest();
        let share_of_peak = gflops / gemm_peak_gflops;
        self.arithmetic = Some(Arithmetic { gflop_per_step, gflops, gemm_peak_gflops, share_of_peak });
        self
    }

    /// Seconds of the fastest step. Never 0, so that rates stay finite.
    pub fn fastest(&self) -> f64 {
        self.step_seconds.iter().copied().fold(f64::INFINITY, f64::min).max(1e-9)
    }

    /// Seconds of the step in the middle.
    pub fn median(&self) -> f64 {
        let mut sorted = self.step_seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
    }
}

/// Collects timed steps.
#[derive(Debug, Default)]
pub(super) struct Steps {
    seconds: Vec<f64>,
    fastest: Profile,
}

impl Steps {
    /// Takes a step; the first, number 0, allocates and does not count. `on_step` hears the number and the seconds.
    pub(super) fn take<R>(&mut self, step: u32, on_step: &mut dyn FnMut(u32, f64), f: impl FnOnce() -> R) -> R {
        let ((result, elapsed), profile) = record(|| timed(f));
        if step > 0 {
            if self.seconds.iter().all(|seconds| elapsed < *seconds) {
                self.fastest = profile;
            }
            self.seconds.push(elapsed);
            on_step(step, elapsed);
        }
        result
    }

    /// What the steps say.
    pub(super) fn measurement(self, images_per_step: u64, peak_rss_bytes: u64) -> Measurement {
        Measurement { profile: Some(self.fastest), ..Measurement::new(self.seconds, images_per_step, peak_rss_bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_fastest_step() {
        let measurement = Measurement::new(vec![4.0, 2.0, 3.0], 64, 3 << 20).with_arithmetic(1e11, 100.0);
        assert_eq!((measurement.images_per_second, measurement.median(), measurement.peak_rss_mib), (32.0, 3.0, 3.0));
        let arithmetic = measurement.arithmetic.unwrap();
        assert_eq!((arithmetic.gflops, arithmetic.share_of_peak), (50.0, 0.5));
    }

    #[test]
    fn machines_find_all_figures_on_one_level() {
        let measurement = Measurement::new(vec![0.5], 8, 0);
        let json = serde_json::to_value(&measurement).unwrap();
        assert_eq!(json["images_per_second"], 16.0);
        assert!(json.get("gflops").is_none());
        let json = serde_json::to_value(measurement.with_arithmetic(1e9, 4.0)).unwrap();
        assert_eq!((&json["gflop_per_step"], &json["share_of_peak"]), (&1.0.into(), &0.5.into()));
    }
}
