//! Collapse: every image ends at the same z (paper, section 4.1 and figure 2). Pure decisions.

use super::train_config::CollapseConfig;

/// Whether `embedding_std` · √d says that the representation has collapsed. A value that is not a number counts.
pub fn has_collapsed(config: &CollapseConfig, embedding_std_ratio: f64) -> bool {
    embedding_std_ratio.is_nan() || embedding_std_ratio < config.std_below
}

/// What to try against collapse.
pub const COLLAPSE_HELP: &str = "try a lower `base_lr` or `warmup_epochs`, a larger `batch_size`, stronger \
    `random_resized_crop` and `color_jitter`, and keep `output_bn: true` and `predictor_lr: fixed`";

/// What happened, for people.
pub fn collapse_message(epoch: u32, embedding_std_ratio: f64, loss: f64) -> String {
    format!(
        "representation collapsed in epoch {epoch}: embedding_std is {embedding_std_ratio:.3} of 1/√d (1 is healthy, \
         0 is collapse) at loss {loss:.3}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_or_undefined_deviation_is_collapse() {
        let config = CollapseConfig::default();
        assert!(!has_collapsed(&config, 0.8));
        assert!(has_collapsed(&config, 0.01));
        assert!(has_collapsed(&config, f64::NAN));
    }
}
