//! When to stop: a pure state that sees one value an epoch.

use serde::{Deserialize, Serialize};

use super::train_config::EarlyStoppingConfig;

/// Watches a value that should fall.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlyStopping {
    config: EarlyStoppingConfig,
    best: Option<f64>,
    epochs_without: u32,
}

/// What the newest value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The best so far.
    Improved,
    /// No better, but patience lasts.
    Waiting,
    /// Patience is over.
    Stop,
}

impl EarlyStopping {
    /// Nothing seen yet.
    pub fn new(config: EarlyStoppingConfig) -> Self {
        Self { config, best: None, epochs_without: 0 }
    }

    /// Takes the value of an epoch.
    pub fn observe(&mut self, value: f64) -> Progress {
        if self.best.is_none_or(|best| value < best - self.config.min_delta) {
            self.best = Some(value);
            self.epochs_without = 0;
            return Progress::Improved;
        }
        self.epochs_without += 1;
        if self.epochs_without >= self.config.patience { Progress::Stop } else { Progress::Waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_after_patience_epochs_without_improvement() {
        let mut stopping = EarlyStopping::new(EarlyStoppingConfig { patience: 2, min_delta: 0.1 });
        let seen: Vec<_> = [-0.5, -0.7, -0.75, -0.9, -0.9, -0.8].map(|loss| stopping.observe(loss)).into();
        use Progress::{Improved, Stop, Waiting};
        assert_eq!(seen, [Improved, Improved, Waiting, Improved, Waiting, Stop]);
    }
}
