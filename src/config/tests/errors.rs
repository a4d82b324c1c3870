//! What users read when something is wrong. Read the snapshots as a user would: what, where, what to do.

use super::{INTEL, SMALL, codes, complaints, load, with};

#[test]
fn unknown_key_suggests_the_near_one() {
    insta::assert_snapshot!(complaints(&with(SMALL, "epochs: 10", "epoch: 10")));
}

#[test]
fn wrong_type_says_what_it_must_be() {
    insta::assert_snapshot!(complaints(&with(SMALL, "epochs: 10", "epochs: ten")));
}

#[test]
fn out_of_range_names_the_range() {
    insta::assert_snapshot!(complaints(&with(SMALL, "p: 0.2", "p: 1.2")));
}

#[test]
fn unknown_stage_suggests_the_near_one() {
    insta::assert_snapshot!(complaints(&with(SMALL, "dataset: train", "dataset: tain")));
}

#[test]
fn wrong_artifact_type_names_the_stages_that_fit() {
    insta::assert_snapshot!(complaints(&with(INTEL, "encoder: pretrain, train", "encoder: train, train")));
}

#[test]
fn missing_input_names_the_stages_that_fit() {
    insta::assert_snapshot!(complaints(&with(SMALL, "dataset: train, ", "")));
}

#[test]
fn cycle_is_named_from_end_to_end() {
    let text = "\
version: 1
stages:
  a: { uses: command, inputs: { c: c }, with: { run: [make], outputs: [a] } }
  b: { uses: command, inputs: { a: a }, with: { run: [make], outputs: [b] } }
  c: { uses: command, inputs: { b: b }, with: { run: [make], outputs: [c] } }
";
    insta::assert_snapshot!(complaints(text));
}

#[test]
fn missing_variable_suggests_the_near_one() {
    insta::assert_snapshot!(complaints(&with(INTEL, "${vars.data}/seg_test", "${vars.date}/seg_test")));
}

#[test]
fn missing_environment_variable_offers_a_default() {
    insta::assert_snapshot!(complaints(&with(INTEL, "data: data/intel", "data: ${env.DATA_DIR}/intel")));
}

#[test]
fn duplicate_key_shows_both_places() {
    insta::assert_snapshot!(complaints(&with(
        SMALL,
        "epochs: 10",
        "epochs: 10\n      batch_size: 8\n      epochs: 20"
    )));
}

#[test]
fn bytes_that_are_not_utf8_are_placed() {
    let mut bytes = SMALL.replace("data/train", "data/tr#in").into_bytes();
    bytes.iter_mut().filter(|byte| **byte == b'#').for_each(|byte| *byte = 0xe4);
    let errors = super::load_pipeline("small.yaml".as_ref(), &bytes, &[], &super::no_env).unwrap_err();
    insta::assert_snapshot!(errors.render(false, 100));
}

#[test]
fn several_errors_come_at_once_in_the_order_of_the_file() {
    let text = with(SMALL, "version: 1", "version: 1\nseeds: 3");
    let text = with(&text, "image_size: 32", "image_size: huge");
    let text = with(&text, "scale: [0.2, 1.0]", "scale: [1.0, 0.2]");
    let text = with(&text, "dataset: train,", "dataset: views,");
    let text = with(&text, "resnet18", "resnet19");
    insta::assert_snapshot!(complaints(&text));
    let records = load(&text).unwrap_err().records();
    assert!(records.is_sorted_by_key(|record| (record.line, record.column)));
    insta::assert_json_snapshot!(records);
}

#[test]
fn a_variable_of_the_wrong_type_shows_where_it_is_used_and_defined() {
    insta::assert_snapshot!(complaints(&with(INTEL, "size: 64", "size: big")));
}

#[test]
fn unquoted_reference_within_braces_is_explained() {
    insta::assert_snapshot!(complaints(&with(SMALL, "{ p: 0.2 }", "{ p: ${vars.p} }")));
}

#[test]
fn parameters_that_are_not_indented_are_recognised() {
    let text = with(SMALL, "- grayscale: { p: 0.2 }", "- grayscale:\n          p: 0.2");
    insta::assert_snapshot!(complaints(&text));
}

#[test]
fn a_choice_written_as_a_word_is_shown_with_its_parameters() {
    insta::assert_snapshot!(complaints(&with(SMALL, "{ resnet18: { stem: cifar } }", "resnet18")));
}

#[test]
fn an_empty_file_is_told_what_to_hold() {
    insta::assert_snapshot!(complaints("# nothing yet\n"));
}

#[test]
fn a_newer_version_asks_for_an_upgrade() {
    insta::assert_snapshot!(complaints(&with(SMALL, "version: 1", "version: 2")));
}

#[test]
fn parameters_outside_with_are_told_where_they_belong() {
    insta::assert_snapshot!(complaints(&with(SMALL, "    with: { source", "    max_pixels: 3\n    with: { source")));
}

#[test]
fn an_input_of_another_protocol_is_explained() {
    insta::assert_snapshot!(complaints(&with(
        INTEL,
        "inputs: { embeddings: embeddings }\n    with: { knn",
        "inputs: { encoder: pretrain }\n    with: { knn"
    )));
}

#[test]
fn each_mistake_has_its_own_code() {
    let intel = |from: &str, to: &str| codes(&with(INTEL, from, to));
    assert_eq!(intel("uses: extract", "uses: extrakt"), ["config::unknown_kind"]);
    assert_eq!(intel("    uses: extract\n", ""), ["config::missing_key"]);
    assert_eq!(intel("[probe, knn]", "[probe, probe]"), ["config::duplicate_input"]);
    assert_eq!(intel("encoder: pretrain", "encoder: [pretrain]"), ["config::many_inputs"]);
    assert_eq!(intel("dataset: train,", "dataset: pretrain,"), ["config::cycle"]);
    assert_eq!(intel("hidden_dim: 512", "hidden_dim: 0"), ["config::range"]);
    assert_eq!(intel("warmup_epochs: 0", "warmup_epochs: 100"), ["config::value"]);
    assert_eq!(intel("sigma: [0.1, 2.0]", "sigma: [0.0, 2.0]"), ["config::value"]);
    assert_eq!(intel("scale: [0.2, 1.0]", "scale: [0.2]"), ["config::length"]);
    assert_eq!(intel("  probe:\n", "  pro be:\n"), ["config::name", "config::unknown_stage"]);
    assert_eq!(intel("momentum: 0.9", "momentum: 1.0"), ["config::value"]);
    assert_eq!(intel("knn: { k: 20 }", "knn: { k: 20 }, linear_probe: {}"), ["config::one_choice"]);
    assert_eq!(intel("name: intel", "name: ../intel"), ["config::name"]);
    assert_eq!(codes("version: 1\nstages: {}\n"), ["config::no_stages"]);
    assert_eq!(codes("version: 1\n"), ["config::missing_key"]);
    assert_eq!(codes(&with(SMALL, "      image_size: 32\n", "")), ["config::missing_key"]);
    assert_eq!(codes(&with(SMALL, "      image_size: 32\n", "      preset: simsiam_cifar\n")), [""; 0]);
    assert_eq!(codes(&with(SMALL, "      image_size: 32\n", "      preset: cifar\n")), ["config::unknown_choice"]);
    assert_eq!(codes("stages\n"), ["config::type"]);
    assert_eq!(codes("- a\n- b\n"), ["config::type"]);
    assert_eq!(codes(&format!("{SMALL}---\n{SMALL}")), ["config::documents"]);
    assert_eq!(codes(&with(SMALL, "    uses: ingest", "\tuses: ingest")), ["config::syntax"]);
    assert_eq!(codes(&with(SMALL, "epochs: 10", "epochs: !int 10")), ["config::tag"]);
    assert_eq!(codes(&with(SMALL, "epochs: 10", "epochs: .nan")), ["config::type"]);
}

/// Each is one wrong value below `with` of an otherwise right policy.
#[test]
fn parameters_that_do_not_fit_each_other_are_refused() {
    for op in [
        "random_resized_crop: { scale: [0.0, 1.0] }",
        "random_resized_crop: { scale: [0.9, 0.1] }",
        "random_resized_crop: { ratio: [0.0, 1.0] }",
        "gaussian_blur: { sigma: [2.0, 0.1] }",
        "tf_hue: { max_delta: 0.6 }",
        "tf_brightness: { max_delta: 300 }",
        "tf_contrast: { lower: 1.8, upper: 0.2 }",
        "tf_saturation: { lower: 1.8, upper: 0.2 }",
        "rotate90: { turns: [] }",
        "gaussian_blur: { kernel_size: 4 }",
        "random_erasing: { ratio: [2.0, 1.0] }",
        "center_crop: { size: 40 }",
        "resize: { shorter_side: 40 }",
    ] {
        assert_eq!(codes(&with(SMALL, "grayscale: { p: 0.2 }", op)), ["config::value"], "{op}");
    }
    let normalize = "image_size: 32\n      normalize: { custom: { mean: [0, 0, 0], std: [1, 0, 1] } }";
    assert_eq!(codes(&with(SMALL, "image_size: 32", normalize)), ["config::value"]);
    let two = with(SMALL, "image_size: 32", "image_size: 32\n      view_ops: [[], []]");
    assert_eq!(codes(&two), ["config::value", "config::no_randomness"]);
    let nested =
        |head: &str| with(SMALL, "      ops:\n        - random", head).replace("        - gray", "          - gray");
    let three = nested("      views: 3\n      view_ops:\n        - []\n        - - random");
    assert_eq!(codes(&three), ["config::value"]);
    let second = nested("      view_ops:\n        - []\n        - - random");
    assert_eq!(codes(&second), [""; 0]);
    assert_eq!(codes(&with(&second, "p: 0.2", "p: 2")), ["config::range"]);
    assert_eq!(codes(&with(&second, "scale: [0.2, 1.0]", "scale: [0.9, 0.1]")), ["config::value"]);
    let none = with(SMALL, "- random_resized_crop: { scale: [0.2, 1.0] }", "- resize: {}");
    assert_eq!(codes(&with(&none, "p: 0.2", "p: 0.0")), ["config::no_randomness"]);
}

#[test]
fn outputs_of_a_command_stay_in_their_folder() {
    for (output, is_right) in [
        ("a.csv", true),
        ("tables/a.csv", true),
        ("../a.csv", false),
        ("tables/../../a.csv", false),
        ("/tmp/a.csv", false),
        ("C:/a.csv", false),
        ("a\\\\b", false),
        ("./a", false),
        ("", false),
        ("manifest.json", false),
        ("logs/a", false),
    ] {
        let text = format!(
            "version: 1\nstages:\n  own: {{ uses: command, with: {{ run: [make], outputs: [\"{output}\"] }} }}\n"
        );
        assert_eq!(codes(&text).is_empty(), is_right, "{output}: {:?}", codes(&text));
    }
}

#[test]
fn warnings_do_not_stop_a_pipeline() {
    let text = with(SMALL, "- random_resized_crop: { scale: [0.2, 1.0] }\n        ", "");
    let text =
        with(&text, "epochs: 10", "epochs: 10\n      batch_size: 4096\n      optimizer: { sgd: { base_lr: 3.2 } }");
    let text = with(&text, "stages:", "vars: { unused: 3 }\nstages:");
    let warnings = load(&text).unwrap().warnings;
    let rendered: String = warnings.iter().map(|warning| warning.render(false, 100)).collect();
    insta::assert_snapshot!(rendered);
}

#[test]
fn a_parameter_in_the_wrong_place_is_told_its_home() {
    let text = with(SMALL, "epochs: 10", "momentum: 0.5");
    let text = format!(
        "{text}  tuned:\n    uses: fit\n    inputs: {{ encoder: pretrain, train: train, test: train }}\n    with: {{ fine_tune: {{ epochs: 3 }} }}\n"
    );
    insta::assert_snapshot!(complaints(&text));
}

#[test]
fn as_one_diagnostic_all_mistakes_are_related_to_it() {
    use miette::Diagnostic as _;
    let two = load(&with(&with(SMALL, "epochs: 10", "epochs: 0"), "version: 1", "version: 7")).unwrap_err();
    assert_eq!(two.related().map(Iterator::count), Some(2));
    assert_eq!(two.to_string(), "`small.yaml` has 2 errors; nothing was run");
    let one = load(&with(SMALL, "epochs: 10", "epochs: 0")).unwrap_err();
    assert!(one.related().is_none() && one.source_code().is_some() && one.labels().is_some());
    assert!(one.render(true, 100).contains("\u{1b}["), "colour where it is asked for");
    assert!(!one.render(false, 100).contains('\u{1b}'), "none where it is not");
}
