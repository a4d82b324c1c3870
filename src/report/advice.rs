//! What to try next: rules over what was measured, the most promising first.

use super::{
    summary::{ClassifierSummary, CollapseState, Learned, PretrainingSummary},
    text::{count, number, percent, significant},
};

/// Steps of the paper's CIFAR-10 recipe: 800 epochs of 97 steps (50,000 images, batch 512, the rest dropped).
const CIFAR_STEPS: u64 = 800 * 97;
/// Steps of the paper's shortest ImageNet recipe: 100 epochs of 2,502 steps (1,281,167 images, batch 512).
const IMAGENET_STEPS: u64 = 100 * 2_502;
/// Fewer steps than this are too few to judge the method by.
const FEW_STEPS: u64 = 20_000;
/// A rise of kNN accuracy over the last third that counts as still learning.
const STILL_RISING: f64 = 0.005;

/// What is known of the configuration beyond the summaries.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdviceInputs<'a> {
    /// Names of the augmentation's operations, if the policy was given.
    pub ops: Option<&'a [String]>,
    /// Whether the predictor's learning rate stays fixed, if known.
    pub predictor_lr_fixed: Option<bool>,
    /// Whether the projector ends in a batch norm.
    pub projector_output_bn: Option<bool>,
    /// Files that could not be used, over all datasets.
    pub num_skipped: u64,
}

/// What to try next, the most promising first.
pub fn advise(
    learned: Learned,
    collapse: CollapseState,
    pretraining: Option<&PretrainingSummary>,
    classifiers: &[ClassifierSummary],
    inputs: &AdviceInputs<'_>,
) -> Vec<String> {
    let mut advice = vec![];
    if let Some(run) = pretraining {
        match collapse {
            CollapseState::Collapsed | CollapseState::Partial => advice.extend(against_collapse(run, inputs)),
            _ => advice.extend(about_learning_rate(run)),
        }
        advice.extend(about_steps(learned, run));
        advice.extend(about_views(collapse, run, inputs));
        advice.extend(about_batch(run));
    }
    advice.extend(about_evaluation(learned, pretraining.is_some(), classifiers));
    if inputs.num_skipped > 0 {
        advice.push(format!(
            "{} could not be read and were left out; see the data section for the reasons.",
            super::text::counted(inputs.num_skipped, "file", "files")
        ));
    }
    advice
}

fn against_collapse(run: &PretrainingSummary, inputs: &AdviceInputs<'_>) -> Vec<String> {
    let mut advice = vec![];
    match run.base_lr {
        Some(base_lr) if base_lr > 0.0 => advice.push(format!(
            "Lower the learning rate: try base_lr {} instead of {} (the paper uses 0.05 for ImageNet, 0.03 for CIFAR-10).",
            significant(base_lr / 3.0),
            significant(base_lr)
        )),
        _ => advice.push("Lower the learning rate to a third.".to_owned()),
    }
    if inputs.predictor_lr_fixed == Some(false) {
        advice.push(
            "Set predictor_lr to fixed: the paper finds the predictor should not decay with the rest.".to_owned(),
        );
    }
    if inputs.projector_output_bn == Some(false) {
        advice.push(
            "Set projector.output_bn to true: without batch norm on z the paper's training gets unstable.".to_owned(),
        );
    }
    advice
}

fn about_learning_rate(run: &PretrainingSummary) -> Option<String> {
    let idle = run.curve.iter().rev().take_while(|point| point.lr == 0.0 && point.predictor_lr == 0.0).count();
    let idle_backbone = run.curve.iter().rev().take_while(|point| point.lr == 0.0).count();
    // A cosine schedule ends at 0: only more than one such epoch is waste.
    if idle_backbone > 1 {
        return Some(format!(
            "The learning rate was 0 in the last {} of {} epochs{}: lengthen the schedule or train for fewer epochs.",
            idle_backbone,
            run.curve.len(),
            if idle > 1 { ", which changed nothing" } else { ", in which only the predictor learned" }
        ));
    }
    let best = run.curve.iter().map(|point| point.loss).fold(f64::INFINITY, f64::min);
    let last = run.curve.last()?.loss;
    if last - best > 0.1 {
        let now = run.base_lr.map_or(String::new(), |lr| format!(" (base_lr is {})", significant(lr)));
        return Some(format!(
            "The loss rose again from {} to {}: lower the learning rate{now} or add warmup_epochs.",
            number(best, 3),
            number(last, 3)
        ));
    }
    let first = run.curve.first()?.loss;
    if run.curve.len() > 4 && first - last < 0.05 && last > -0.5 {
        let now = run.base_lr.map_or(String::new(), |lr| format!(" (base_lr is {})", significant(lr)));
        return Some(format!(
            "The loss hardly fell (from {} to {}): raise the learning rate{now} or train longer.",
            number(first, 3),
            number(last, 3)
        ));
    }
    None
}

fn about_steps(learned: Learned, run: &PretrainingSummary) -> Option<String> {
    let measured: Vec<f64> = run.curve.iter().filter_map(|point| point.knn_top1).collect();
    let rising = (measured.len() >= 3).then(|| measured[measured.len() - 1] - measured[measured.len() * 2 / 3 - 1]);
    let is_rising = rising.is_some_and(|rise| rise > STILL_RISING);
    if run.steps < FEW_STEPS && (learned != Learned::Clearly || is_rising || measured.len() < 3) {
        let (steps, recipe) = if run.image_size <= 64 {
            (CIFAR_STEPS, "CIFAR-10 recipe takes about 78,000 (800 epochs, batch 512)")
        } else {
            (IMAGENET_STEPS, "ImageNet recipe takes about 250,000 (100 epochs, batch 512)")
        };
        // Ten times as many is a step that shows something and can still be paid for.
        let times = (steps / run.steps.max(1)).clamp(2, 10);
        return Some(format!(
            "Train longer: {} steps were run, the paper’s {recipe}. Try epochs: {}, {times} times as many.{}",
            count(run.steps),
            u64::from(run.epochs) * times,
            if is_rising { " Nearest-neighbour accuracy was still rising." } else { "" }
        ));
    }
    let rise = rising.filter(|_| is_rising)?;
    Some(format!(
        "Train longer: nearest-neighbour accuracy still rose by {} points over the last third.",
        number(rise * 100.0, 1)
    ))
}

fn about_views(collapse: CollapseState, run: &PretrainingSummary, inputs: &AdviceInputs<'_>) -> Vec<String> {
    let mut advice = vec![];
    if let Some(ops) = inputs.ops {
        let has = |names: &[&str]| ops.iter().any(|op| names.contains(&op.as_str()));
        if !has(&["random_resized_crop", "pad_crop"]) {
            advice.push(
                "Add random_resized_crop to the augmentation: without crops, two views of an image are too easy to match."
                    .to_owned(),
            );
        }
        if !has(&["color_jitter", "grayscale", "tf_brightness", "tf_contrast", "tf_saturation", "tf_hue"]) {
            advice.push(
                "Add color_jitter and grayscale to the augmentation: otherwise colour alone tells which views belong together."
                    .to_owned(),
            );
        }
    }
    if advice.is_empty() && collapse == CollapseState::Healthy && run.final_loss < -0.97 {
        advice.push(format!(
            "The loss is close to its minimum ({}) without collapse: the views may be too alike; widen the augmentation.",
            number(run.final_loss, 3)
        ));
    }
    advice
}

fn about_batch(run: &PretrainingSummary) -> Option<String> {
    let batch = run.batch_size?;
    if batch < 64 {
        return Some(format!(
            "Use a larger batch: {batch} images make batch norm's statistics noisy; the paper does equally well from 128 to 2,048."
        ));
    }
    (batch > 2048).then(|| {
        format!(
            "Use a smaller batch: with {} images the paper loses accuracy under SGD; 256 to 512 is enough.",
            count(u64::from(batch))
        )
    })
}

fn about_evaluation(learned: Learned, has_pretraining: bool, classifiers: &[ClassifierSummary]) -> Vec<String> {
    let mut advice = vec![];
    let mut frozen = classifiers.iter().filter(|classifier| classifier.is_frozen()).peekable();
    if frozen.peek().is_none() {
        if has_pretraining {
            advice.push("Add a linear_probe to the pipeline: it says what the features are worth.".to_owned());
        }
        return advice;
    }
    let frozen: Vec<_> = frozen.collect();
    if frozen.iter().all(|classifier| classifier.comparisons.is_empty()) {
        advice.push(
            "Turn on the baselines of the extract stage (untrained, raw_pixels): a score alone says little.".to_owned(),
        );
    }
    if learned == Learned::Perhaps
        && let Some(classifier) = frozen.iter().find(|c| c.num_test < 2_000 && !c.comparisons.is_empty())
        && let Some(main) = classifier.main()
    {
        let half = (main.top1_interval[1] - main.top1_interval[0]) / 2.0;
        advice.push(format!(
            "Judge on more test images: with {} the accuracy is known to ±{} only.",
            count(classifier.num_test),
            percent(half)
        ));
    }
    advice
}
