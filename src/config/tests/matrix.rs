//! `matrix`: which cells there are, what they hold, and what is said when something is wrong.

use std::fmt::Write as _;

use super::{complaints, load, load_with, pipeline, with};
use crate::{config::Pipeline, stage::StageConfig};

/// Two rates, two seeds, and a classifier with an axis of its own.
pub(super) const SWEEP: &str = "\
version: 1
seed: 7
stages:
  train:
    uses: ingest
    with: { source: { image_folder: data/train } }
  views:
    uses: augment
    with:
      image_size: 32
      ops:
        - random_resized_crop: { scale: [0.2, 1.0] }
  pretrain:
    uses: pretrain
    matrix: { lr: [3e-2, 0.05], seed: [0, 1] }
    inputs: { dataset: train, augmentation: views }
    with:
      backbone: { resnet18: { stem: cifar } }
      optimizer: { sgd: { base_lr: \"${matrix.lr}\" } }
  embeddings:
    uses: extract
    inputs: { encoder: pretrain, train: train }
  knn:
    uses: fit
    matrix:
      k: [1, 5]
    inputs: { embeddings: embeddings }
    with:
      knn: { k: \"${matrix.k}\" }
  report:
    uses: report
    inputs: { datasets: train, classifiers: knn@* }
";

fn names(pipeline: &Pipeline) -> Vec<&str> {
    pipeline.stages.iter().map(|stage| stage.name.as_str()).collect()
}

#[test]
fn a_matrix_multiplies_the_stage_and_what_follows_from_it() {
    let pipeline = pipeline(SWEEP);
    assert_eq!(
        names(&pipeline),
        [
            "train",
            "views",
            "pretrain@lr=0.03,seed=0",
            "pretrain@lr=0.03,seed=1",
            "pretrain@lr=0.05,seed=0",
            "pretrain@lr=0.05,seed=1",
            "embeddings@lr=0.03,seed=0",
            "embeddings@lr=0.03,seed=1",
            "embeddings@lr=0.05,seed=0",
            "embeddings@lr=0.05,seed=1",
            "knn@lr=0.03,seed=0,k=1",
            "knn@lr=0.03,seed=0,k=5",
            "knn@lr=0.03,seed=1,k=1",
            "knn@lr=0.03,seed=1,k=5",
            "knn@lr=0.05,seed=0,k=1",
            "knn@lr=0.05,seed=0,k=5",
            "knn@lr=0.05,seed=1,k=1",
            "knn@lr=0.05,seed=1,k=5",
            "report",
        ]
    );
    let stage = |name: &str| pipeline.stage(name).unwrap();
    assert_eq!(stage("embeddings@lr=0.05,seed=1").inputs["encoder"], ["pretrain@lr=0.05,seed=1"]);
    assert_eq!(stage("embeddings@lr=0.05,seed=1").inputs["train"], ["train"]);
    assert_eq!(stage("knn@lr=0.03,seed=1,k=5").inputs["embeddings"], ["embeddings@lr=0.03,seed=1"]);
    assert_eq!(stage("report").inputs["classifiers"].len(), 8);
    let StageConfig::Pretrain(config) = &stage("pretrain@lr=0.03,seed=1").config else { panic!() };
    assert_eq!(serde_json::to_value(config).unwrap()["optimizer"]["sgd"]["base_lr"], 0.03);
}

#[test]
fn an_axis_seed_is_the_seed_of_its_cells_unless_a_stage_has_its_own() {
    let pipeline = pipeline(&with(SWEEP, "    matrix:\n      k", "    seed: 3\n    matrix:\n      k"));
    let seed = |name: &str| pipeline.stage(name).unwrap().seed;
    assert_eq!(seed("train"), 7);
    assert_eq!((seed("pretrain@lr=0.03,seed=0"), seed("pretrain@lr=0.03,seed=1")), (0, 1));
    assert_eq!(seed("embeddings@lr=0.05,seed=1"), 1);
    assert_eq!(seed("knn@lr=0.05,seed=1,k=1"), 3);
}

#[test]
fn a_stage_of_two_multiplied_stages_has_the_product_and_shared_axes_once() {
    let text = "\
version: 1
stages:
  a: { uses: command, matrix: { x: [1, 2], s: [0, 1] }, with: { run: [make, \"${matrix.x}\", \"${matrix.s}\"], outputs: [o] } }
  b: { uses: command, matrix: { y: [u, v] }, with: { run: [make, \"y=${matrix.y}\"], outputs: [o] } }
  c: { uses: command, matrix: { s: [1, 0] }, with: { run: [make, \"${matrix.s}\"], outputs: [o] } }
  both: { uses: command, inputs: { a: a, b: b, c: c }, with: { run: [make], outputs: [o] } }
  all: { uses: command, inputs: { some: [\"both@x=2\", c], one: \"a@s=0,x=1\" }, with: { run: [make], outputs: [o] } }
";
    let pipeline = pipeline(text);
    let both: Vec<&str> = names(&pipeline).into_iter().filter(|name| name.starts_with("both")).collect();
    assert_eq!(both.len(), 8);
    assert_eq!(both[0], "both@x=1,s=0,y=u");
    let stage = pipeline.stage("both@x=2,s=1,y=v").unwrap();
    assert_eq!([&stage.inputs["a"], &stage.inputs["b"], &stage.inputs["c"]], [&["a@x=2,s=1"], &["b@y=v"], &["c@s=1"]]);
    let StageConfig::Command(config) = &pipeline.stage("b@y=v").unwrap().config else { panic!() };
    assert_eq!(config.run[1], "y=v");
    let all = pipeline.stage("all@s=1").unwrap();
    assert_eq!(all.inputs["some"].len(), 5);
    assert_eq!(all.inputs["some"][4], "c@s=1");
    assert_eq!(all.inputs["one"], ["a@x=1,s=0"]);
}

#[test]
fn an_axis_may_choose_the_stage_of_an_input() {
    let text = with(SWEEP, "{ lr: [3e-2, 0.05], seed: [0, 1] }", "{ policy: [views, weak], lr: \"${vars.rates}\" }");
    let text = with(&text, "augmentation: views", "augmentation: \"${matrix.policy}\"");
    let weak = "  weak:\n    uses: augment\n    matrix: { size: [24, 32] }\n    with:\n      image_size: ${matrix.size}\n      ops: [random_resized_crop: { scale: [0.2, 1.0] }]\n";
    let text = with(&text, "stages:\n", &format!("vars: {{ rates: [0.1] }}\nstages:\n{weak}"));
    let pipeline = pipeline(&text);
    let cells: Vec<&str> = names(&pipeline).into_iter().filter(|name| name.starts_with("pretrain")).collect();
    assert_eq!(
        cells,
        ["pretrain@size=24,policy=weak,lr=0.1", "pretrain@size=32,policy=weak,lr=0.1", "pretrain@policy=views,lr=0.1",]
    );
    assert_eq!(pipeline.stage(cells[1]).unwrap().inputs["augmentation"], ["weak@size=32"]);
    assert_eq!(pipeline.stage(cells[2]).unwrap().inputs["augmentation"], ["views"]);
}

#[test]
fn a_collection_may_depend_on_an_axis() {
    let text = with(SWEEP, "    uses: report\n", "    uses: report\n    matrix: { lr: [0.05, 3.0e-2] }\n");
    let text = with(&text, "knn@*", "\"knn@lr=${matrix.lr},*\"");
    let pipeline = pipeline(&text);
    let report = pipeline.stage("report@lr=0.03").unwrap();
    assert_eq!(report.inputs["classifiers"].len(), 4);
    assert!(report.inputs["classifiers"].iter().all(|name| name.starts_with("knn@lr=0.03,")));
}

#[test]
fn values_come_from_variables_and_the_command_line() {
    let text = with(SWEEP, "seed: [0, 1]", "seed: \"${vars.seeds}\"");
    let text = with(&text, "stages:\n", "vars: { seeds: [4] }\nstages:\n");
    let cells = |overrides: &[&str]| {
        let pipeline = load_with(&text, overrides).unwrap().pipeline;
        names(&pipeline).iter().filter(|name| name.starts_with("pretrain")).map(|name| (*name).to_owned()).collect()
    };
    let found: Vec<String> = cells(&[]);
    assert_eq!(found, ["pretrain@lr=0.03,seed=4", "pretrain@lr=0.05,seed=4"]);
    let found: Vec<String> = cells(&["vars.seeds=[1, 2]", "stages.pretrain.matrix.lr=[1e-1]"]);
    assert_eq!(found, ["pretrain@lr=0.1,seed=1", "pretrain@lr=0.1,seed=2"]);
}

#[test]
fn names_of_cells_are_plain_and_equal_numbers_have_one_spelling() {
    let text = "\
version: 1
stages:
  a:
    uses: command
    matrix: { x: [1.0, 5.0e-4, \"a/b c\", true, \"\"] }
    with: { run: [make, \"=${matrix.x}\"], outputs: [o] }
";
    assert_eq!(names(&pipeline(text)), ["a@x=1", "a@x=0.0005", "a@x=a_b_c", "a@x=true", "a@x=_"]);
}

#[test]
fn lists_are_values_too() {
    let text =
        with(SWEEP, "    uses: augment\n", "    uses: augment\n    matrix: { scale: [[0.2, 1.0], [0.08, 1]] }\n");
    let pipeline = pipeline(&with(&text, "scale: [0.2, 1.0] }\n", "scale: \"${matrix.scale}\" }\n"));
    assert_eq!(names(&pipeline)[1..3], ["views@scale=0.2_1", "views@scale=0.08_1"]);
    assert_eq!(names(&pipeline)[3], "pretrain@scale=0.2_1,lr=0.03,seed=0");
}

#[test]
fn mistakes_about_axes_are_placed_and_explained() {
    for (name, from, to) in [
        ("unknown_axis", "${matrix.lr}", "${matrix.lrr}"),
        ("empty_axis", "lr: [3e-2, 0.05]", "lr: []"),
        ("empty_matrix", "{ lr: [3e-2, 0.05], seed: [0, 1] }", "{}"),
        ("no_list", "seed: [0, 1]", "seed: 3"),
        ("duplicate_value", "lr: [3e-2, 0.05]", "lr: [3e-2, 0.05, 0.030]"),
        ("same_name", "lr: [3e-2, 0.05]", "lr: [a/b, a b]"),
        ("unused_axis", "\"${matrix.lr}\"", "0.05"),
        ("map_value", "lr: [3e-2, 0.05]", "lr: [{ rate: 0.03 }, ~]"),
        ("axis_clash", "      k: [1, 5]\n", "      k: [1, 5]\n      lr: [1, 2]\n"),
        ("axis_name", "seed: [0, 1]", "my-seed: [0, 1]"),
        ("too_many_cells", "seed: [0, 1]", &format!("seed: {:?}", (0..400).collect::<Vec<_>>())),
        ("own_seed", "    matrix: { lr", "    seed: 3\n    matrix: { lr"),
        ("seed_of_nothing_random", "    uses: ingest\n", "    uses: ingest\n    matrix: { seed: [0, 1] }\n"),
        ("value_out_of_range", "lr: [3e-2, 0.05]", "lr: [-1, 0.05, fast]"),
        ("seed_out_of_range", "seed: [0, 1]", "seed: [0, -1]"),
        ("axis_in_vars", "stages:\n", "vars: { rate: \"${matrix.lr}\" }\nstages:\n"),
        ("axis_outside", "seed: 7", "seed: ${matrix.seed}"),
    ] {
        insta::assert_snapshot!(format!("matrix_{name}"), complaints(&with(SWEEP, from, to)));
    }
}

#[test]
fn mistakes_about_cells_in_inputs_are_placed_and_explained() {
    for (name, from, to) in [
        ("unknown_cell", "knn@*", "knn@lr=0.1"),
        ("unknown_stage_of_cells", "knn@*", "kn@*"),
        ("no_cells", "datasets: train", "datasets: train@seed=1"),
        ("twice", "knn@*", "[knn@*, \"knn@lr=0.03,seed=0,k=1\"]"),
        ("one_expected", "{ datasets: train, ", "{ embeddings: embeddings@*, datasets: train, "),
        ("itself", "encoder: pretrain, ", "encoder: embeddings@*, "),
        ("wrong_kind", "knn@*", "embeddings@*"),
        ("a_cycle", "dataset: train, augmentation", "dataset: knn, augmentation"),
    ] {
        insta::assert_snapshot!(format!("cells_{name}"), complaints(&with(SWEEP, from, to)));
    }
}

#[test]
fn axes_of_one_name_with_other_values_may_not_meet() {
    let text = "\
version: 1
stages:
  a: { uses: command, matrix: { s: [0, 1] }, with: { run: [make, \"${matrix.s}\"], outputs: [o] } }
  b: { uses: command, matrix: { s: [0, 1, 2] }, with: { run: [make, \"${matrix.s}\"], outputs: [o] } }
  both: { uses: command, inputs: { a: a, b: b }, with: { run: [make], outputs: [o] } }
";
    insta::assert_snapshot!(complaints(text));
    // Collected they do not meet.
    assert!(load(&with(text, "b: b }", "b: b@* }")).is_ok());
}

#[test]
fn a_mistake_in_a_multiplied_stage_is_said_once() {
    let records = load(&with(SWEEP, "stem: cifar", "stem: cifra")).unwrap_err().records();
    assert_eq!(records.len(), 1);
}

#[test]
fn a_long_chain_of_stages_is_no_danger() {
    let mut text = String::from("version: 1\nstages:\n");
    for idx in (0..2000).rev() {
        let input = if idx == 0 { "{}".into() } else { format!("{{ x: s{} }}", idx - 1) };
        let _ = writeln!(text, "  s{idx}: {{ uses: command, inputs: {input}, with: {{ run: [a], outputs: [b] }} }}");
    }
    let text = with(&text, "  s0: { uses: command,", "  s0: { uses: command, matrix: { seed: [0] },");
    assert_eq!(pipeline(&text).stages[0].name, "s1999@seed=0");
}

#[test]
fn a_cell_is_what_a_stage_written_by_hand_would_be() {
    let sweep = pipeline(SWEEP);
    let by_hand = with(SWEEP, "    matrix: { lr: [3e-2, 0.05], seed: [0, 1] }\n", "    seed: 1\n");
    let by_hand = with(&by_hand, "\"${matrix.lr}\"", "0.05");
    let by_hand = with(&by_hand, "    matrix:\n      k: [1, 5]\n", "    seed: 1\n");
    let by_hand = with(&by_hand, "\"${matrix.k}\"", "5");
    let by_hand = with(&by_hand, "    uses: extract\n", "    uses: extract\n    seed: 1\n");
    let by_hand = pipeline(&by_hand);
    for (cell, stage) in [
        ("pretrain@lr=0.05,seed=1", "pretrain"),
        ("embeddings@lr=0.05,seed=1", "embeddings"),
        ("knn@lr=0.05,seed=1,k=5", "knn"),
        ("views", "views"),
    ] {
        let (cell, stage) = (sweep.stage(cell).unwrap(), by_hand.stage(stage).unwrap());
        assert_eq!((&cell.config, cell.seed), (&stage.config, stage.seed));
        assert_eq!(cell.inputs.keys().collect::<Vec<_>>(), stage.inputs.keys().collect::<Vec<_>>());
    }
}

#[test]
fn a_new_value_leaves_the_other_cells_as_they_are() {
    let (before, after) = (pipeline(SWEEP), pipeline(&with(SWEEP, "lr: [3e-2, 0.05]", "lr: [3e-2, 0.05, 0.1]")));
    for stage in before.stages.iter().filter(|stage| stage.name != "report") {
        let same = after.stage(&stage.name).unwrap();
        assert_eq!((&same.config, &same.inputs, same.seed), (&stage.config, &stage.inputs, stage.seed));
    }
    assert_eq!(after.stages.len(), before.stages.len() + 2 + 2 + 4);
}

#[test]
fn a_pipeline_has_a_limit_of_cells() {
    let mut text = String::from("version: 1\nstages:\n");
    let values: Vec<usize> = (0..450).collect();
    for idx in 0..30 {
        let _ = writeln!(
            text,
            "  s{idx}: {{ uses: command, matrix: {{ x{idx}: {values:?} }}, with: {{ run: [\"${{matrix.x{idx}}}\"], outputs: [b] }} }}"
        );
    }
    let codes = super::codes(&text);
    assert!(codes.contains(&"config::matrix_size".into()), "{codes:?}");
}
