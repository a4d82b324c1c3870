use std::{collections::BTreeMap, path::PathBuf};

use super::{super::SilentReporter, *};
use crate::digest::Digest;

#[path = "report_fixture.rs"]
mod fixture;

struct Rendered {
    html: String,
    json: String,
    markdown: String,
    outcome: StageOutcome,
}

fn render_into(
    dir: &Path,
    inputs: &BTreeMap<String, Vec<InputArtifact>>,
    title: &str,
) -> Result<StageOutcome, StageError> {
    let ctx = StageContext {
        pipeline: "intel",
        stage: "report",
        inputs,
        out_dir: dir,
        work_dir: dir,
        project_root: dir,
        seed: 0,
        earlier: None,
        compute: &crate::compute::Compute::Cpu,
        reporter: &SilentReporter,
    };
    run(&ReportConfig { title: title.to_owned() }, &ctx)
}

fn render(inputs: &BTreeMap<String, Vec<InputArtifact>>) -> Rendered {
    let out = tempfile::tempdir().unwrap();
    let outcome = render_into(out.path(), inputs, "Intel scenes").unwrap();
    let text = |name: &str| fs::read_to_string(out.path().join(name)).unwrap();
    Rendered { html: text("report.html"), json: text("summary.json"), markdown: text("summary.md"), outcome }
}

#[test]
fn figures_of_another_format_are_refused_by_their_version() {
    let root = tempfile::tempdir().unwrap();
    let inputs = fixture::all_inputs(root.path(), false);
    let path = inputs["classifiers"][0].dir.join("metrics.json");
    let mut metrics: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    metrics["format"] = Value::from(9);
    metrics["new"] = Value::from(1);
    fs::write(&path, metrics.to_string()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let error = render_into(out.path(), &inputs, "").unwrap_err();
    assert!(error.to_string().ends_with("format 9 is not 1, the one that this version reads"), "{error}");
}

#[test]
fn everything_that_was_given_is_on_the_page() {
    let root = tempfile::tempdir().unwrap();
    let rendered = render(&fixture::all_inputs(root.path(), false));
    for section in ["verdict", "classifiers", "training", "map", "views", "data", "provenance"] {
        assert!(rendered.html.contains(&format!("<section id=\"{section}\"")), "{section}");
    }
    for words in [
        "It learned: 80.2",
        "chart-loss",
        "chart-spread",
        "chart-knn",
        "chart-lr",
        "data:image/png;base64,",
        "Most confident mistakes",
        "2 files were skipped",
        "random_resized_crop",
        "700 steps",
        "steps in 100 epochs of batch 256",
        "data:image/jpeg;base64,",
        "Effective rank",
        "Starting from the pretrained weights clearly helps",
        "data-projection=\"tsne\"",
        "data-projection=\"pca\"",
        "data-sprite=\"64 25\"",
        "class=\"gallery\"",
        "chart-labels",
        "Alignment",
        "Distances between the classes",
        "1 has the same pixels as another",
        "1 image of <bdi>test</bdi> is also in <bdi>train</bdi>",
        "Errors are those of <bdi>probe</bdi>",
    ] {
        assert!(rendered.html.contains(words), "{words}");
    }
    assert!(rendered.outcome.metrics["probe/gain_over_untrained"] > 0.1);
    assert!(rendered.markdown.contains("| Linear probe (`probe`) | 80.2 % ("), "{}", rendered.markdown);
}

#[test]
fn summary_fits_its_schema_and_reads_back() {
    let root = tempfile::tempdir().unwrap();
    let rendered = render(&fixture::all_inputs(root.path(), true));
    let schema: Value = serde_json::from_str(&crate::report::summary::summary_schema().unwrap()).unwrap();
    let value: Value = serde_json::from_str(&rendered.json).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let summary: Summary = serde_json::from_str(&rendered.json).unwrap();
    assert_eq!(summary.to_json().unwrap(), rendered.json);
    assert!(summary.classifiers[0].per_class[5].name.contains("<script>"));
}

#[test]
fn the_same_inputs_give_the_same_bytes_wherever_they_lie() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) =
        (render(&fixture::all_inputs(one.path(), false)), render(&fixture::all_inputs(other.path(), false)));
    assert_eq!(first.html, second.html);
    assert_eq!(first.json, second.json);
    assert_eq!(first.markdown, second.markdown);
    for text in [&first.html, &first.json, &first.markdown] {
        assert!(!text.contains(&*one.path().to_string_lossy()));
    }
}

#[test]
fn hostile_names_stay_text() {
    let root = tempfile::tempdir().unwrap();
    let rendered = render(&fixture::all_inputs(root.path(), true));
    assert_eq!(rendered.html.matches("<script").count(), 1, "only the page's own");
    for bad in ["<img src=x", "<script>alert", "\u{202e}"] {
        for text in [&rendered.html, &rendered.json, &rendered.markdown] {
            assert!(!text.contains(bad), "{bad}");
        }
    }
    assert!(rendered.html.contains("&lt;script&gt;alert(&quot;street"));
    assert!(rendered.html.contains("\\u{202e}"));
}

#[test]
fn the_page_asks_for_nothing_from_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    let html = render(&fixture::all_inputs(root.path(), false)).html;
    for bad in ["http://www.w3.org/1999/xlink", "href=\"http", "src=\"http", "url(", "@import", "<link"] {
        assert!(!html.contains(bad), "{bad}");
    }
}

#[test]
fn missing_inputs_leave_sections_out() {
    let root = tempfile::tempdir().unwrap();
    let all = fixture::all_inputs(root.path(), false);
    let sections = [
        ("pretraining", "training"),
        ("augmentation", "views"),
        ("embeddings", "map"),
        ("classifiers", "classifiers"),
        ("datasets", "data"),
    ];
    for (input, section) in sections {
        let mut inputs = all.clone();
        inputs.remove(input);
        let html = render(&inputs).html;
        assert!(!html.contains(&format!("<section id=\"{section}\"")), "without {input}");
        let only = BTreeMap::from([(input.to_owned(), all[input].clone())]);
        assert!(render(&only).html.contains(&format!("<section id=\"{section}\"")), "only {input}");
    }
    let nothing = render(&BTreeMap::new());
    assert!(nothing.html.contains("no pretraining"));
}

#[test]
fn several_pretrainings_stand_side_by_side() {
    let root = tempfile::tempdir().unwrap();
    let one = fixture::all_inputs(root.path(), false);
    let mut inputs = one.clone();
    let names = ["pretrain@seed=0", "pretrain@seed=1", "pretrain@seed=<2>"];
    let cells = names.iter().zip(3..).map(|(name, seed)| fixture::encoder(root.path(), name, seed)).collect();
    inputs.insert("pretraining".into(), cells);
    let rendered = render(&inputs);
    let summary: Summary = serde_json::from_str(&rendered.json).unwrap();
    let cells = summary.cells.as_ref().unwrap();
    assert_eq!(cells.runs.iter().map(|run| run.stage.as_str()).collect::<Vec<_>>(), names);
    assert_eq!(summary.pretraining.as_ref(), Some(&cells.runs[0]));
    let losses: Vec<f64> = cells.runs.iter().map(|run| run.final_loss).collect();
    assert!((cells.final_loss.mean - losses.iter().sum::<f64>() / 3.0).abs() < 1e-12 && cells.final_loss.sd > 0.0);
    let html = &rendered.html;
    for chart in ["chart-cells-loss", "chart-cells-spread", "chart-cells-knn"] {
        let svg = &html[html.find(&format!("id=\"{chart}-title\"")).unwrap()..];
        let svg = &svg[..svg.find("</svg>").unwrap()];
        assert_eq!(svg.matches("<path class=\"line s").count(), 3, "{chart}");
    }
    assert_eq!(html.matches("<span class=\"key s2\"></span> seed=&lt;2&gt;").count(), 3);
    assert!(html.contains("chart-parallel-title"));
    assert!(html.contains("mean ± sd") && html.contains("3 runs are compared"));
    let alone = render(&one);
    assert!(!alone.json.contains("\"cells\"") && !alone.html.contains("chart-cells"));
}

#[test]
fn optional_files_may_be_absent() {
    let root = tempfile::tempdir().unwrap();
    let inputs = fixture::all_inputs(root.path(), false);
    for file in ["views/preview.png", "pretrain/config.yaml", "probe/predictions.csv"] {
        fs::remove_file(root.path().join(file)).unwrap();
    }
    let html = render(&inputs).html;
    assert!(!html.contains("data:image/png") && html.contains("Parameters of the pretraining"));
}

#[test]
fn broken_artifacts_are_named() {
    let root = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    let inputs = fixture::all_inputs(root.path(), false);
    fs::write(root.path().join("pretrain/history.jsonl"), "{\"epoch\": 1}\n").unwrap();
    let error = render_into(out.path(), &inputs, "").unwrap_err();
    assert!(error.to_string().contains("history.jsonl") && error.to_string().contains("line 1"), "{error}");
    let absent = InputArtifact { stage: "probe".into(), digest: Digest::of(b""), dir: PathBuf::from("/nonexistent") };
    let inputs = BTreeMap::from([("classifiers".to_owned(), vec![absent])]);
    assert!(matches!(render_into(out.path(), &inputs, "").unwrap_err(), StageError::Io { action: "read", .. }));
}

/// Writes whole reports for the browser check to `REPORT_FIXTURE_DIR`, where that is set.
#[test]
fn fixture_reports_render() {
    let Some(dir) = std::env::var_os("REPORT_FIXTURE_DIR").map(PathBuf::from) else { return };
    for (name, hostile) in [("plain", false), ("hostile", true)] {
        let out = dir.join(name);
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(&out).unwrap();
        let title = if hostile { "</title><script>alert(1)</script>\u{202e}\"" } else { "Intel scenes (fixture)" };
        render_into(&out, &fixture::all_inputs(root.path(), hostile), title).unwrap();
    }
    // As large as the data sets that the page is meant for.
    let (out, root) = (dir.join("large"), tempfile::tempdir().unwrap());
    fs::create_dir_all(&out).unwrap();
    render_into(&out, &fixture::all_inputs_of(root.path(), false, 2_834), "17,004 images (fixture)").unwrap();
    // Cells of a matrix.
    let (out, root) = (dir.join("matrix"), tempfile::tempdir().unwrap());
    fs::create_dir_all(&out).unwrap();
    let mut inputs = fixture::all_inputs(root.path(), false);
    let cells = [("0.03", 0), ("0.03", 1), ("0.05", 0), ("0.05", 1), ("0.1", 0), ("0.1", 1)];
    let cells = (3..)
        .zip(cells)
        .map(|(seed, (lr, cell))| fixture::encoder(root.path(), &format!("pretrain@lr={lr},seed={cell}"), seed));
    inputs.insert("pretraining".into(), cells.collect());
    render_into(&out, &inputs, "A matrix (fixture)").unwrap();
}
