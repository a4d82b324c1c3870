//! What is allowed but probably not meant. Few, so that they are read.

use std::collections::BTreeSet;

use super::{
    findings::{Finding, Findings},
    node::{Node, NodeValue},
    stage_check::StageDraft,
};
use crate::{
    augment::augment_config::OpConfig,
    stage::{StageConfig, StageKind},
    train::{PretrainConfig, train_config::PretrainOptimizerConfig},
};

/// Base learning rates that the paper and its reproductions train with, with room on both sides (0.03 for
/// CIFAR-10, 0.05 for ImageNet).
const USUAL_BASE_LR: std::ops::RangeInclusive<f64> = 0.002..=0.5;

/// The largest batch at which the paper's accuracy still holds (table 2: 67.9 % at 2048, 64.0 % at 4096).
const LARGEST_USUAL_BATCH: u32 = 2048;

/// Warns about stages that are right one by one.
pub(crate) fn check(drafts: &[StageDraft<'_>], findings: &mut Findings) {
    for draft in drafts {
        if let Some(StageConfig::Pretrain(config)) = &draft.config {
            check_optimizer(draft, config, findings);
            check_policy(draft, drafts, findings);
        }
        check_leak(draft, drafts, findings);
        if draft.kind == Some(StageKind::Report) && draft.inputs.values().all(Vec::is_empty) {
            let message = format!("report `{}` has no inputs, so it will be empty", draft.name);
            findings.warn(
                Finding::new("config::empty_report", draft.name_span, message)
                    .label("nothing to report on")
                    .help("add `inputs: { pretraining: STAGE, classifiers: [STAGE, …] }`"),
            );
        }
    }
}

fn check_optimizer(draft: &StageDraft<'_>, config: &PretrainConfig, findings: &mut Findings) {
    let PretrainOptimizerConfig::Sgd(sgd) = &config.optimizer;
    if !USUAL_BASE_LR.contains(&sgd.base_lr) && sgd.base_lr != 0.0 {
        let lr = sgd.base_lr * f64::from(config.batch_size) / 256.0;
        let message = format!(
            "`base_lr` {} is far from what SimSiam trains with (0.03 to 0.05): with a batch of {} the rate is {lr:.3}",
            sgd.base_lr, config.batch_size
        );
        findings.warn(
            Finding::new("config::unusual_lr", draft.span("with.optimizer.sgd.base_lr"), message)
                .label("unusual")
                .help("`base_lr` is the rate at a batch of 256; it is scaled by batch_size / 256 for you"),
        );
    }
    if config.batch_size > LARGEST_USUAL_BATCH {
        let message = format!("a batch of {} is larger than SGD copes with here", config.batch_size);
        findings.warn(
            Finding::new("config::large_batch", draft.span("with.batch_size"), message)
                .label("large")
                .help("in the paper (table 2) accuracy falls from 67.9 % at 2048 to 64.0 % at 4096"),
        );
    }
}

fn check_policy(draft: &StageDraft<'_>, drafts: &[StageDraft<'_>], findings: &mut Findings) {
    let Some(reference) = draft.inputs.get("augmentation").and_then(|refs| refs.first()) else { return };
    let policy = &drafts[reference.stage];
    let Some(StageConfig::Augment(config)) = &policy.config else { return };
    let crops = |op: &OpConfig| matches!(op, OpConfig::RandomResizedCrop(_) | OpConfig::PadCrop(_));
    if !config.op_lists().iter().all(|(_, ops)| ops.iter().any(crops)) {
        let message = format!("policy `{}` has no random crop, which such pretraining depends on most", policy.name);
        let span = ["with.ops", "with.view_ops"]
            .iter()
            .find_map(|path| policy.places.get(*path))
            .map_or(policy.name_span, |spans| spans.key);
        findings.warn(
            Finding::new("config::no_crop", span, message)
                .label("no crop among these")
                .help("add `random_resized_crop: { scale: [0.2, 1.0] }` as the first operation"),
        );
    }
}

/// A classifier that is judged by what it learned from.
fn check_leak(draft: &StageDraft<'_>, drafts: &[StageDraft<'_>], findings: &mut Findings) {
    let first = |input: &str| draft.inputs.get(input).and_then(|refs| refs.first());
    if let (Some(train), Some(test)) = (first("train"), first("test"))
        && train.stage == test.stage
    {
        let message = format!("`{}` is both what is learned from and what is judged by", drafts[test.stage].name);
        findings.warn(
            Finding::new("config::test_is_train", test.span, message)
                .label("the training images")
                .also(train.span, "learned from")
                .help("accuracy on these says nothing about new images: name another dataset"),
        );
    }
}

/// Variables that nothing refers to. One that holds an anchor is used by its alias, which leaves no trace.
pub(crate) fn unused_vars(root: &Node, used: &BTreeSet<String>, findings: &mut Findings) {
    let Some(vars) = root.get("vars") else { return };
    for entry in vars.value.entries() {
        let is_base = matches!(entry.value.value, NodeValue::Map(_) | NodeValue::Seq(_));
        if used.contains(&entry.key) || is_base || is_anchored(entry.value.span.start, entry.key_span.end, findings) {
            continue;
        }
        findings.warn(
            Finding::new("config::unused_var", entry.key_span, format!("nothing refers to `vars.{}`", entry.key))
                .label("unused")
                .help(format!("use it as `${{vars.{}}}`, or remove it", entry.key)),
        );
    }
}

fn is_anchored(value_start: usize, key_end: usize, findings: &Findings) -> bool {
    let between = super::source::Span { source: 0, start: key_end, end: value_start.max(key_end) };
    findings.sources.slice(between).contains('&')
}
