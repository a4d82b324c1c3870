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
