//! Where time goes: by layer and kind of work.
//!
//! Off unless [`record`] is at work on this thread; a span then costs two looks at the clock. Kernels use all threads
//! and return when they are done, so the wall-clock time of the calling thread is what counts.

use std::{cell::RefCell, fmt, time::Instant};

use serde::Serialize;

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Recorder {
    layer: String,
    profile: Profile,
}

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Convolution, with the sums that batch norm needs.
    Convolution,
    /// Batch norm, the residual and the ReLU.
    Norm,
    /// Pooling.
    Pool,
    /// A linear layer.
    Linear,
    /// Backward through batch norm, residual and ReLU.
    NormGradient,
    /// Gradient of a convolution's weights.
    WeightGradient,
    /// Gradient of a convolution's input.
    DataGradient,
    /// Backward through pooling.
    PoolGradient,
    /// Backward through a linear layer.
    LinearGradient,
    /// The loss and its gradient.
    Loss,
    /// The optimiser.
    Update,
    /// Waiting for the next batch of images.
    Waiting,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Convolution => "convolution",
            Self::Norm => "batch norm, ReLU",
            Self::Pool => "pooling",
            Self::Linear => "linear",
            Self::NormGradient => "batch norm, gradient",
            Self::WeightGradient => "convolution, weight gradient",
            Self::DataGradient => "convolution, data gradient",
            Self::PoolGradient => "pooling, gradient",
            Self::LinearGradient => "linear, gradients",
            Self::Loss => "loss",
            Self::Update => "update",
            Self::Waiting => "waiting for images",
        })
    }
}

/// One line of a profile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Name of the layer, as in saved weights.
    pub layer: String,
    /// What was done there.
    pub work: Work,
    /// Seconds in all calls.
    pub seconds: f64,
    /// Operations that the definition of the work needs, in all calls; a multiply-add is two, 0 where none are counted.
    pub flop: f64,
    /// How often.
    pub calls: u32,
}

/// Entries in the order of their first call.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Profile {
    /// The entries.
    pub entries: Vec<Entry>,
}

impl Profile {
    fn add(&mut self, layer: &str, work: Work, flop: f64, seconds: f64) {
        let known = self.entries.iter_mut().find(|entry| entry.work == work && entry.layer == layer);
        if let Some(entry) = known {
            entry.seconds += seconds;
            entry.flop += flop;
            entry.calls += 1;
        } else {
            self.entries.push(Entry { layer: layer.to_owned(), work, seconds, flop, calls: 1 });
        }
    }

    /// Seconds in all entries.
    pub fn seconds(&self) -> f64 {
        self.entries.iter().map(|entry| entry.seconds).sum()
    }

    /// Seconds and operations by kind of work, the longest first.
    pub fn by_work(&self) -> Vec<(Work, f64, f64)> {
        let mut sums: Vec<(Work, f64, f64)> = vec![];
        for entry in &self.entries {
            match sums.iter_mut().find(|(work, ..)| *work == entry.work) {
                Some((_, seconds, flop)) => (*seconds, *flop) = (*seconds + entry.seconds, *flop + entry.flop),
                None => sums.push((entry.work, entry.seconds, entry.flop)),
            }
        }
        sums.sort_by(|a, b| b.1.total_cmp(&a.1));
        sums
    }
}

/// Runs `f` and records its spans on this thread. Not to be nested.
pub fn record<R>(f: impl FnOnce() -> R) -> (R, Profile) {
    RECORDER.set(Some(Recorder::default()));
    let result = f();
    let profile = RECORDER.take().map(|recorder| recorder.profile).unwrap_or_default();
    (result, profile)
}

/// Names the layer that the next spans belong to.
pub(crate) fn enter_layer(name: &str) {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(recorder) = recorder {
            name.clone_into(&mut recorder.layer);
        }
    });
}

/// Times `f`, which needs `flop` operations by definition.
pub(crate) fn span<R>(work: Work, flop: f64, f: impl FnOnce() -> R) -> R {
    if !RECORDER.with_borrow(Option::is_some) {
        return f();
    }
    let begin = Instant::now();
    let result = f();
    let seconds = begin.elapsed().as_secs_f64();
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(Recorder { layer, profile }) = recorder {
            profile.add(layer, work, flop, seconds);
        }
    });
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_added_up_by_layer_and_work_only_while_recording() {
        span(Work::Update, 1.0, || ());
        let (result, profile) = record(|| {
            for layer in ["a", "b", "a"] {
                enter_layer(layer);
                span(Work::Convolution, 3.0, || ());
            }
            span(Work::Norm, 0.0, || 7)
        });
        assert_eq!(result, 7);
        let lines: Vec<_> = profile.entries.iter().map(|e| (e.layer.as_str(), e.work, e.flop, e.calls)).collect();
        assert_eq!(
            lines,
            [("a", Work::Convolution, 6.0, 2), ("b", Work::Convolution, 3.0, 1), ("a", Work::Norm, 0.0, 1)]
        );
        assert_eq!(profile.by_work().iter().map(|(_, _, flop)| flop).sum::<f64>(), 9.0);
        assert_eq!(record(|| ()).1, Profile::default());
    }
}
