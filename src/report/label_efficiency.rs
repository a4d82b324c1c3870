//! What pretraining is worth at each share of the labels: the label-efficiency curve.

use super::summary::{ClassifierSummary, LabelEfficiency};

const SUPERVISED: &str = "supervised";

/// For each share of the labels at which a network was trained from scratch, the protocols that start from pretrained
/// weights, against it. Several classifiers of one protocol and share, such as those of several seeds, count by their
/// mean. Only what was judged by as many images is compared.
pub fn label_efficiency(classifiers: &[ClassifierSummary]) -> Vec<LabelEfficiency> {
    let mut points: Vec<LabelEfficiency> = vec![];
    for classifier in classifiers.iter().filter(|classifier| classifier.protocol != SUPERVISED) {
        let ClassifierSummary { protocol, label_fraction, num_train, num_test, .. } = classifier;
        let alike = |other: &&ClassifierSummary| {
            (other.label_fraction - label_fraction).abs() < 1e-9 && other.num_test == *num_test
        };
        let known = |point: &LabelEfficiency| {
            point.protocol == *protocol && (point.label_fraction - label_fraction).abs() < 1e-9
        };
        let top1 = |of: &str| -> Vec<f64> {
            let of_protocol = classifiers.iter().filter(|other| other.protocol == of).filter(alike);
            of_protocol.filter_map(|other| Some(other.main()?.top1)).collect()
        };
        let (pretrained, supervised) = (top1(protocol), top1(SUPERVISED));
        if pretrained.is_empty() || supervised.is_empty() || points.iter().any(known) {
            continue;
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (top1, supervised_top1) = (mean(&pretrained), mean(&supervised));
        points.push(LabelEfficiency {
            label_fraction: *label_fraction,
            num_train: *num_train,
            protocol: protocol.clone(),
            top1,
            supervised_top1,
            gain: top1 - supervised_top1,
            runs: [pretrained.len() as u32, supervised.len() as u32],
        });
    }
    points.sort_by(|a, b| a.label_fraction.total_cmp(&b.label_fraction));
    points
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::report::summary::RepresentationScores;

    pub(in crate::report) fn classifier(protocol: &str, label_fraction: f64, top1: f64) -> ClassifierSummary {
        ClassifierSummary {
            stage: "s".into(),
            protocol: protocol.into(),
            num_train: (1_000.0 * label_fraction) as u64,
            num_test: 600,
            label_fraction,
            largest_class_share: 0.2,
            scores: vec![RepresentationScores {
                representation: protocol.into(),
                top1,
                top1_interval: [top1; 2],
                top5: 1.0,
                balanced_accuracy: top1,
                log_loss: 1.0,
                expected_calibration_error: 0.1,
            }],
            comparisons: vec![],
            per_class: vec![],
            confusion: None,
            confused_pairs: vec![],
            mistakes: vec![],
            curve: vec![],
        }
    }

    #[test]
    fn seeds_are_averaged_and_shares_kept_apart() {
        let mut other_images = classifier("supervised", 0.01, 0.9);
        other_images.num_test = 7;
        let classifiers = [
            classifier("fine_tune", 1.0, 0.9),
            classifier("fine_tune", 0.01, 0.6),
            classifier("fine_tune", 0.01, 0.7),
            classifier("knn", 0.01, 0.5),
            classifier("knn", 0.1, 0.5),
            classifier("supervised", 0.01, 0.4),
            other_images,
            classifier("supervised", 1.0, 0.88),
        ];
        let points = label_efficiency(&classifiers);
        let found: Vec<(f64, &str, [u32; 2])> =
            points.iter().map(|point| (point.label_fraction, point.protocol.as_str(), point.runs)).collect();
        assert_eq!(found, [(0.01, "fine_tune", [2, 1]), (0.01, "knn", [1, 1]), (1.0, "fine_tune", [1, 1])]);
        assert!((points[0].top1 - 0.65).abs() < 1e-12 && (points[0].gain - 0.25).abs() < 1e-12);
        assert!(label_efficiency(&classifiers[..5]).is_empty(), "nothing from scratch, nothing to compare with");
    }
}
