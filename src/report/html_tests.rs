use super::*;
use crate::report::build::{ReportInputs, build_summary};

#[test]
fn base64_is_the_standard_one() {
    for (plain, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
        assert_eq!(base64(plain.as_bytes()), encoded);
    }
}

#[test]
fn an_empty_report_renders() {
    let inputs = ReportInputs { pipeline: "intel".into(), ..ReportInputs::default() };
    let page = render_html(&build_summary(&inputs).unwrap(), &Pictures::default()).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert!(!page.contains("id=\"training\"") && !page.contains("id=\"map\""));
}

#[test]
fn hostile_titles_are_text() {
    let title = "</title><script>alert(1)</script>\"'&\u{202e}";
    let inputs = ReportInputs { title: title.into(), pipeline: title.into(), ..ReportInputs::default() };
    let page = render_html(&build_summary(&inputs).unwrap(), &Pictures::default()).unwrap();
    assert!(!page.contains("<script>alert") && !page.contains('\u{202e}'));
    assert!(page.contains("&lt;/title&gt;&lt;script&gt;alert(1)"));
}

#[test]
fn lines_of_parameters_stay_lines() {
    let text = block("{\n  \"a\": \"</pre>\u{202e}\"\n}").to_string();
    assert_eq!(text, "{\n  &quot;a&quot;: &quot;&lt;/pre&gt;\\u{202e}&quot;\n}");
}

#[test]
fn long_trainings_have_a_short_table() {
    let curve: Vec<CurvePoint> = (1..=800)
        .map(|epoch| CurvePoint {
            epoch,
            step: 0,
            loss: 0.0,
            embedding_std_ratio: 1.0,
            lr: 0.0,
            predictor_lr: 0.0,
            knn_top1: None,
        })
        .collect();
    let rows = spread_epochs(&curve);
    assert_eq!((rows.len(), rows[0].epoch, rows[EPOCH_ROWS - 1].epoch), (EPOCH_ROWS, 1, 800));
}

#[test]
fn many_classes_leave_the_matrix_out() {
    let scores = |num_classes: usize| crate::eval::Scores {
        top1: 0.5,
        top1_interval: [0.4, 0.6],
        top5: 0.8,
        balanced_accuracy: 0.5,
        log_loss: 2.0,
        expected_calibration_error: 0.1,
        per_class: vec![crate::eval::ClassScores { precision: 0.5, recall: 0.5, f1: 0.5, support: 2 }; num_classes],
        confusion: (0..num_classes)
            .map(|actual| {
                (0..num_classes)
                    .map(|class| u64::from(class == actual || class == (actual + 1) % num_classes))
                    .collect()
            })
            .collect(),
    };
    for (num_classes, in_page, in_summary) in
        [(30, true, true), (31, false, true), (100, false, true), (1_000, false, false)]
    {
        let metrics = crate::eval::ClassifierMetrics {
            format: 1,
            protocol: "linear_probe".into(),
            class_names: (0..num_classes).map(|class| format!("n{class:08}")).collect(),
            num_train: 10_000,
            num_test: 2 * num_classes as u64,
            label_fraction: 1.0,
            scores: BTreeMap::from([("pretrained".to_owned(), scores(num_classes))]),
            history: vec![],
        };
        let classifier =
            crate::report::build::ClassifierInput { stage: "probe".into(), metrics, predictions: String::new() };
        let inputs = ReportInputs { classifiers: vec![classifier], ..ReportInputs::default() };
        let summary = build_summary(&inputs).unwrap();
        assert_eq!(summary.classifiers[0].confusion.is_some(), in_summary, "{num_classes}");
        let page = render_html(&summary, &Pictures::default()).unwrap();
        assert_eq!(page.contains("class=\"matrix\""), in_page, "{num_classes}");
        assert!(page.contains("Most often mixed up"));
    }
}
