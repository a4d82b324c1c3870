//! `predict`, `embed`, `similar` and `export` on copies of artifacts: far from a project, damaged, and with odd images.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::Value;

use super::{
    fixture::{Project, names},
    predict::{TINY, put_picture},
};

/// Copies the artifacts of the tiny pipeline to a folder that belongs to no project, with two pictures beside them.
fn far_away(stages: &[&str]) -> Project {
    let project = Project::new().write("pipelines/tiny.yaml", TINY);
    let selected: Vec<&str> = stages.iter().flat_map(|stage| ["--stage", *stage]).collect();
    project.call(&[&["run", "-q"][..], &selected].concat()).ok();
    let far = Project::new();
    for stage in stages {
        copy(&project.path(&format!("runs/tiny/{stage}")), &far.path(stage));
    }
    put_picture(&far, "a.png", 0);
    put_picture(&far, "b.png", 200);
    far
}

/// The files of an artifact, writable.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for name in names(from) {
        if from.join(&name).is_file() {
            fs::write(to.join(&name), fs::read(from.join(&name)).unwrap()).unwrap();
        }
    }
}

/// The file with other values in one tensor.
fn with_tensor(bytes: &[u8], tensor: &str, edit: impl Fn(&mut Vec<f32>)) -> Vec<u8> {
    let tensors = SafeTensors::deserialize(bytes).unwrap();
    let mut edited: BTreeMap<String, (Vec<usize>, safetensors::Dtype, Vec<u8>)> = tensors
        .iter()
        .map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), view.dtype(), view.data().to_vec())))
        .collect();
    let (_, _, data) = edited.get_mut(tensor).unwrap();
    let mut values: Vec<f32> = data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    edit(&mut values);
    *data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let views =
        edited.iter().map(|(name, (shape, dtype, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn damaged_models_are_refused_by_name() {
    let far = far_away(&["probe", "knn", "embeddings"]);
    let edit = |name: &str, edit: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let kept = fs::read(far.path(name)).unwrap();
        fs::write(far.path(name), edit(kept.clone())).unwrap();
        kept
    };
    let card = |from: &'static str, to: &'static str| {
        move |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains(from), "{from} is not in {text}");
            text.replacen(from, to, 1).into_bytes()
        }
    };
    // A header that promises more than there is, or is longer than the file.
    let lies = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() - 4);
        bytes
    };
    let endless = |mut bytes: Vec<u8>| {
        bytes[..8].copy_from_slice(&(1_u64 << 62).to_le_bytes());
        bytes
    };
    let nan = |tensor: &'static str| move |bytes: Vec<u8>| with_tensor(&bytes, tensor, |values| values[3] = f32::NAN);
    let negative = |bytes: Vec<u8>| with_tensor(&bytes, "stem.bn.running_var", |values| values[0] = -1.0);
    let other_network = |bytes: Vec<u8>| {
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let views = tensors.iter().filter(|(name, _)| !name.starts_with("stem.")).collect::<Vec<_>>();
        safetensors::serialize(views, None).unwrap()
    };
    let weights = "probe/backbone.safetensors";
    let probe_card = "probe/classifier.json";
    type Damage<'a> = &'a dyn Fn(Vec<u8>) -> Vec<u8>;
    let cases: [(&str, Damage<'_>, &str); 12] = [
        (weights, &lies, "`probe/backbone.safetensors` cannot be used: not a readable safetensors file"),
        (weights, &endless, "`probe/backbone.safetensors` cannot be used: not a readable safetensors file"),
        (weights, &nan("stem.conv.weight"), "tensor `stem.conv.weight` holds a value that is not finite"),
        (weights, &negative, "`stem.bn.running_var` holds a value that is not finite, or a negative variance"),
        (weights, &other_network, "the tensors do not fit `darknet_tiny`: missing `stem.bn.bias`"),
        (weights, &|_| vec![], "not a readable safetensors file"),
        ("probe/classifier.safetensors", &nan("weight"), "tensor `weight` of `probe/classifier.safetensors` holds"),
        (probe_card, &card("\"image_size\": 16", "\"image_size\": 0"), "`image_size` is 0, not between 8 and 1024"),
        (probe_card, &card("\"image_size\": 16", "\"image_size\": 4000000000"), "`image_size` is 4000000000"),
        (probe_card, &card("0.229", "0"), "channel 0 has mean 0.485 and std 0"),
        (probe_card, &card("\"feature_dim\": 128", "\"feature_dim\": 127"), "where F32 [7, 127] is needed"),
        (probe_card, &|_| b"{".to_vec(), "`probe/classifier.json` cannot be used"),
    ];
    for (file, damage, says) in cases {
        let kept = edit(file, damage);
        far.call(&["predict", "--model", "probe", "a.png"]).code(4).says(says);
        far.call(&["embed", "--model", "probe", "a.png", "--out", "x.npy"]).code(4).says(says);
        far.call(&["export", "probe", "--format", "onnx", "--to", "x.onnx"]).code(4).says(says);
        fs::write(far.path(file), kept).unwrap();
    }
    edit("knn/classifier.json", &card("\"temperature\": 0.1", "\"temperature\": 0.0"));
    far.call(&["predict", "--model", "knn", "a.png"]).code(4).says("a temperature of 0 weighs no votes");
    edit("embeddings/embeddings.safetensors", &nan("train_features"));
    let says = "tensor `train_features` of `embeddings/embeddings.safetensors` holds a value that is not finite: row 0";
    far.call(&["similar", "a.png", "--in", "embeddings"]).code(4).says(says);
    far.call(&["export", "embeddings", "--format", "csv", "--to", "x.csv"]).code(4).says(says);
    far.call(&["export", "embeddings", "--format", "projector", "--to", "x"]).code(4).says(says);
    assert_eq!(names(&far.root()), ["a.png", "b.png", "embeddings", "knn", "probe"], "nothing is left behind");
}

#[test]
fn files_appear_where_they_are_asked_for() {
    let far = far_away(&["probe", "embeddings"]);
    // Folders are made, older files replaced.
    let embed = |out: &str| far.call(&["embed", "--model", "probe", "a.png", "b.png", "--out", out]);
    far.put("deep/er/x.npy", "something older");
    embed("deep/er/x.npy").ok();
    embed("new/folder/x.npy").ok();
    let made = fs::read(far.path("new/folder/x.npy")).unwrap();
    assert!(made == fs::read(far.path("deep/er/x.npy")).unwrap());
    assert_eq!(made.len(), 256 + 2 * 128 * 4, "a header and two rows");
    for (format, to) in [("onnx", "onnx/x.onnx"), ("csv", "csv/x.csv"), ("projector", "for/tensorboard")] {
        far.call(&["export", "embeddings", "--format", format, "--to", to]).ok();
        assert!(far.path(to).exists(), "{to}");
    }
    far.call(&["similar", "a.png", "--in", "embeddings", "--sheet", "sheets/a.png"]).ok();
    assert!(image::open(far.path("sheets/a.png")).is_ok());
    // What cannot be written is said before there was any work: not one image is looked at.
    fs::create_dir(far.path("taken.npy")).unwrap();
    let refused = [
        embed("taken.npy"),
        far.call(&["similar", "absent.png", "--in", "embeddings", "--sheet", "taken.npy"]),
        far.call(&["export", "embeddings", "--format", "csv", "--to", "taken.npy"]),
    ];
    for called in refused {
        let called = called.code(2).says("`taken.npy` is a folder, and a file is to be written there");
        assert!(called.stdout.is_empty() && !called.stderr.contains("absent"), "{}", called.stderr);
    }
    assert_eq!(far.leftovers(), 0);
}

#[test]
fn whoever_stops_reading_still_gets_the_file() {
    let far = far_away(&["probe", "embeddings"]);
    let list = "a.png\nb.png\n".repeat(2_000);
    far.put("list.txt", &list);
    let closed = |args: &[&str]| {
        let mut command: Command = far.command(args);
        let stdin = fs::File::open(far.path("list.txt")).unwrap();
        let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""), "{args:?}");
    };
    closed(&["embed", "--model", "probe", "-", "--out", "x.csv"]);
    assert_eq!(far.read("x.csv").lines().count(), 1 + 4_000);
    closed(&["predict", "--model", "probe", "-"]);
    closed(&["similar", "--in", "embeddings", "-", "--json"]);
    closed(&["similar", "--in", "embeddings", "-", "--sheet", "sheet.png", "--top", "1"]);
    // Of four thousand rows so many that the sheet stays a picture.
    let sheet = image::open(far.path("sheet.png")).unwrap().into_rgb8();
    assert_eq!(sheet.height(), 4 + 256 * 68);
}

#[test]
fn odd_images_and_numbers_do_not_stop_the_rest() {
    let far = far_away(&["probe", "embeddings"]);
    far.put("broken.png", "no picture");
    far.put("list.txt", "\r\n\na.png\r\nabsent.png\n\n  \nbroken.png\nb.png");
    let with_list = |args: &[&str]| {
        let stdin = fs::File::open(far.path("list.txt")).unwrap();
        far.finish(far.command(args).stdin(stdin).output().unwrap())
    };
    let called = with_list(&["predict", "--model", "probe", "--json", "--top", "4000000000", "-"]).code(4);
    let lines: Vec<Value> = called.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // Two images, and that some could not be used.
    assert_eq!((lines.len(), &lines[2]["exit_code"]), (3, &4.into()));
    assert_eq!((&lines[0]["file"], &lines[1]["file"]), (&"a.png".into(), &"b.png".into()));
    assert_eq!(lines[0]["predictions"].as_array().unwrap().len(), 7, "more than there are is all");
    called.says("`absent.png`: ").says("`broken.png`: ").prints("3 of 5 images could not be used");

    let called = with_list(&["similar", "--in", "embeddings", "--csv", "--top", "1000", "-"]).code(4);
    // 28 training and 14 test images.
    assert_eq!(called.stdout.lines().count(), 1 + 2 * 42);
    called.says("`broken.png`: ");
    let called = with_list(&["embed", "--model", "embeddings", "-", "--out", "x.csv"]).code(4);
    assert_eq!(called.stdout, "a.png\nb.png\n");
    assert_eq!(far.read("x.csv").lines().count(), 3);

    // Nothing on the list is nothing to do; an empty folder was meant to hold something.
    far.put("list.txt", "");
    assert_eq!(with_list(&["predict", "--model", "probe", "-"]).ok().stdout, "");
    fs::create_dir(far.path("empty")).unwrap();
    far.call(&["predict", "--model", "probe", "empty"]).code(4).says("`empty`: no images in this folder");
}

#[test]
fn the_test_images_have_no_say_in_training() {
    let early = "{ fine_tune: { train: { epochs: 6, batch_size: 4, validation_fraction: 0.25, \
                 early_stopping: { patience: 1 } } } }";
    let text = TINY.replace("{ fine_tune: { train: { epochs: 1, batch_size: 4 } } }", early);
    let project = Project::new().write("pipelines/tiny.yaml", &text);
    let read = |name: &str| fs::read(project.path(&format!("runs/tiny/tuned/{name}"))).unwrap();
    let files = ["classifier.safetensors", "backbone.safetensors", "predictions.csv"];
    project.call(&["run", "-q", "--stage", "tuned"]).ok();
    let [head, network, predictions] = files.map(read);
    let metrics: Value = serde_json::from_slice(&read("metrics.json")).unwrap();
    let history = metrics["history"].as_array().unwrap();
    assert!(history.iter().all(|epoch| epoch["validation_loss"].as_f64().is_some()), "{history:?}");
    assert_eq!(metrics["num_train"], 21, "a quarter of 28 is kept apart");

    // Judged by other images, it is the same classifier: they decide neither when to stop nor which epoch is best.
    let inputs = |test: &str| {
        format!("  tuned:\n    uses: fit\n    inputs: {{ encoder: pretrain, train: train, test: {test} }}")
    };
    let other = text.replace(&inputs("test"), &inputs("train"));
    assert_ne!(other, text);
    project.put("pipelines/tiny.yaml", &other);
    project.call(&["run", "-q", "--stage", "tuned"]).ok();
    assert!(read(files[0]) == head && read(files[1]) == network && read(files[2]) != predictions);
}

#[test]
fn classes_and_labels_are_looked_for_before_training() {
    let text = format!(
        "{TINY}  unlabelled: {{ uses: ingest, with: {{ source: {{ flat_folder: photos }} }} }}
  blind: {{ uses: fit, inputs: {{ encoder: pretrain, train: unlabelled, test: test }}, with: {{ fine_tune: {{}} }} }}
  one: {{ uses: ingest, with: {{ source: {{ image_folder: classes }} }} }}
  single: {{ uses: fit, inputs: {{ encoder: pretrain, train: one, test: one }}, with: {{ fine_tune: {{}} }} }}
  few: {{ uses: fit, inputs: {{ embeddings: embeddings }}, with: {{ knn: {{ k: 200 }} }} }}
"
    );
    let project = Project::new().write("pipelines/tiny.yaml", &text);
    put_picture(&project, "photos/a.png", 0);
    put_picture(&project, "classes/only/a.png", 0);
    put_picture(&project, "classes/only/b.png", 9);
    project.call(&["run", "--stage", "blind"]).code(4).says("the training images have no labels");
    project.call(&["run", "--stage", "single"]).code(4).says("all training images are of one class, `only`");
    project.call(&["run", "--stage", "few"]).ok().says("`k` is 200 but there are 28 training images: all of them vote");
    project
        .call(&["run", "--stage", "tuned"])
        .ok()
        .says("warning: `tuned`: the training is 5 steps long, in which little is learned: raise `epochs` to 20 or so");
}
