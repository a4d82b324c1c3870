//! The learning rate at each step: a pure function of the configuration and the position in the training.

use std::f64::consts::PI;

use super::train_config::{ScheduleConfig, ScheduleUpdate};

/// A schedule for a training of known length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    config: ScheduleConfig,
    full_lr: f64,
    epochs: u64,
    steps_per_epoch: u64,
}

impl Schedule {
    /// A schedule that reaches `full_lr` after its warm-up.
    pub fn new(config: ScheduleConfig, full_lr: f64, epochs: u32, steps_per_epoch: u64) -> Self {
        Self { config, full_lr, epochs: u64::from(epochs), steps_per_epoch: steps_per_epoch.max(1) }
    }

    /// The rate that the schedule starts from or rises to.
    pub fn full_lr(&self) -> f64 {
        self.full_lr
    }

    /// The rate for the step with this number, from 0.
    pub fn lr(&self, step: u64) -> f64 {
        let (warmup_epochs, update, decay_steps) = match self.config {
            ScheduleConfig::Cosine(cosine) => (u64::from(cosine.warmup_epochs), cosine.update, cosine.decay_steps),
            ScheduleConfig::Constant(constant) => (u64::from(constant.warmup_epochs), ScheduleUpdate::Step, 0),
        };
        // In units that the rate changes by: whole epochs, or steps.
        let unit = match update {
            ScheduleUpdate::Epoch => self.steps_per_epoch,
            ScheduleUpdate::Step => 1,
        };
        let warmup_steps = warmup_epochs * self.steps_per_epoch;
        let position = step / unit * unit;
        if position < warmup_steps {
            return self.full_lr * (position + unit) as f64 / warmup_steps as f64;
        }
        match self.config {
            ScheduleConfig::Constant(_) => self.full_lr,
            ScheduleConfig::Cosine(_) => {
                let last = if decay_steps > 0 { decay_steps } else { self.epochs * self.steps_per_epoch };
                let length = last.saturating_sub(warmup_steps).max(1);
                let progress = (position - warmup_steps) as f64 / length as f64;
                if progress >= 1.0 { 0.0 } else { self.full_lr * 0.5 * (1.0 + (PI * progress).cos()) }
            }
        }
    }
}

/// lr = base_lr · batch_size / 256 (paper, section 4.1, the linear rule of Goyal et al.).
pub fn linear_scaled_lr(base_lr: f64, batch_size: u32) -> f64 {
    base_lr * f64::from(batch_size) / 256.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::train_config::{ConstantConfig, CosineConfig};

    fn cosine(config: CosineConfig) -> Schedule {
        Schedule::new(ScheduleConfig::Cosine(config), 0.2, 10, 7)
    }

    #[test]
    fn batch_of_512_doubles_the_base_rate() {
        assert_eq!(linear_scaled_lr(0.05, 512), 0.1);
    }

    #[test]
    fn cosine_changes_at_the_start_of_an_epoch() {
        let schedule = cosine(CosineConfig::default());
        assert_eq!(schedule.lr(0), 0.2);
        assert_eq!(schedule.lr(6), 0.2);
        for epoch in 0..10_u64 {
            let expected = 0.2 * 0.5 * (1.0 + (PI * epoch as f64 / 10.0).cos());
            assert!((schedule.lr(epoch * 7 + 3) - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn cosine_by_step_falls_at_each_step() {
        let schedule = cosine(CosineConfig { update: ScheduleUpdate::Step, ..CosineConfig::default() });
        assert!((1..70).all(|step| schedule.lr(step) < schedule.lr(step - 1)));
        assert!((schedule.lr(35) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn cosine_stays_at_zero_after_its_decay_steps() {
        let config = CosineConfig { update: ScheduleUpdate::Step, decay_steps: 20, ..CosineConfig::default() };
        let schedule = cosine(config);
        assert!(schedule.lr(19) > 0.0);
        assert_eq!(schedule.lr(20), 0.0);
        assert_eq!(schedule.lr(60), 0.0);
    }

    #[test]
    fn warm_up_rises_to_the_full_rate() {
        let by_epoch = cosine(CosineConfig { warmup_epochs: 2, ..CosineConfig::default() });
        assert_eq!((by_epoch.lr(0), by_epoch.lr(7), by_epoch.lr(14)), (0.1, 0.2, 0.2));
        let constant = Schedule::new(ScheduleConfig::Constant(ConstantConfig { warmup_epochs: 1 }), 0.7, 3, 7);
        assert!((constant.lr(0) - 0.1).abs() < 1e-12);
        assert_eq!((constant.lr(6), constant.lr(7), constant.lr(20)), (0.7, 0.7, 0.7));
    }
}
