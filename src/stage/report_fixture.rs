//! Fixture artifacts with plausible numbers, for tests of the report. None of them was measured.

use std::{collections::BTreeMap, fmt::Write as _, fs, io::Cursor, path::Path};

use safetensors::{Dtype, tensor::TensorView};
use serde::Serialize;
use serde_json::json;

use super::super::InputArtifact;
use crate::{
    augment::{
        ImageRef, Policy,
        augment_config::{AugmentConfig, EvaluationViewConfig},
    },
    data::{
        DatasetCard, SkippedFile,
        ingest_config::{ResizeConfig, WHITE},
        store_writer::{FORMAT, StoreWriter},
    },
    digest::Digest,
    eval::{
        ClassScores, ClassifierEpoch, ClassifierMetrics, Scores,
        thumbnails::{THUMBNAIL_SIZE, save_thumbnails},
    },
    model::backbone::{BackboneConfig, ResnetConfig},
    report::pictures::thumbnail,
    train::{EncoderCard, EpochRecord, Preprocessing, PretrainConfig},
};

/// Class names, the last of them hostile when asked for.
pub(super) fn class_names(hostile: bool) -> Vec<String> {
    let last = if hostile { "<script>alert(\"street\")</script>\u{202e}&'" } else { "street" };
    ["buildings", "forest", "glacier", "mountain", "sea", last].map(str::to_owned).to_vec()
}

/// A fixed sequence in [0, 1).
pub(super) struct Sequence(pub(super) u64);

impl Sequence {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Roughly normal.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() - 6.0
    }
}

fn write_json(path: &Path, value: &impl Serialize) {
    fs::write(path, serde_json::to_string_pretty(value).unwrap()).unwrap();
}

fn artifact(root: &Path, stage: &str) -> InputArtifact {
    let dir = root.join(stage);
    fs::create_dir_all(&dir).unwrap();
    InputArtifact { stage: stage.to_owned(), digest: Digest::of(stage.as_bytes()), dir }
}

/// Training images of each class in the embeddings.
const TRAIN_PER_CLASS: usize = 30;
/// Test images of each class.
const PER_CLASS: usize = 100;

/// Every input that a report takes.
pub(super) fn all_inputs(root: &Path, hostile: bool) -> BTreeMap<String, Vec<InputArtifact>> {
    all_inputs_of(root, hostile, PER_CLASS)
}

/// The same with so many test images of each class.
pub(super) fn all_inputs_of(root: &Path, hostile: bool, per_class: usize) -> BTreeMap<String, Vec<InputArtifact>> {
    BTreeMap::from([
        ("pretraining".to_owned(), vec![encoder(root, "pretrain", 3)]),
        ("augmentation".to_owned(), vec![augmentation(root)]),
        ("embeddings".to_owned(), vec![embeddings(root, hostile, per_class)]),
        (
            "classifiers".to_owned(),
            vec![
                classifier(root, "knn", "knn", [0.752, 0.581, 0.497], hostile, per_class),
                classifier(root, "probe", "linear_probe", [0.802, 0.668, 0.543], hostile, per_class),
                trained_classifier(root, "tuned", "fine_tune", 0.741),
                trained_classifier(root, "scratch", "supervised", 0.583),
                trained_classifier_at(root, "tuned_more", "fine_tune", 0.801, 0.25),
                trained_classifier_at(root, "scratch_more", "supervised", 0.702, 0.25),
            ],
        ),
        ("datasets".to_owned(), vec![dataset(root, "train", 300, hostile), dataset(root, "test", per_class, hostile)]),
    ])
}

pub(super) fn encoder(root: &Path, stage: &str, seed: u64) -> InputArtifact {
    let artifact = artifact(root, stage);
    let (epochs, steps_per_epoch) = (100_u32, 7_u64);
    let mut random = Sequence(seed);
    let history: Vec<EpochRecord> = (1..=epochs)
        .map(|epoch| {
            let t = f64::from(epoch) / f64::from(epochs);
            let ratio = 0.93 - 0.5 * (-12.0 * t).exp() + 0.01 * random.normal();
            EpochRecord {
                epoch,
                step: u64::from(epoch) * steps_per_epoch,
                loss: -0.22 - 0.66 * (1.0 - (-4.0 * t).exp()) + 0.008 * random.normal(),
                embedding_std: ratio / 2048.0_f64.sqrt(),
                embedding_std_ratio: ratio,
                lr: 0.025 * (1.0 + (std::f64::consts::PI * f64::from(epoch - 1) / f64::from(epochs)).cos()),
                predictor_lr: 0.05,
                knn_top1: (epoch % 5 == 0).then(|| 0.52 + 0.23 * (1.0 - (-2.5 * t).exp()) + 0.006 * random.normal()),
            }
        })
        .collect();
    let last = history.last().unwrap();
    let config: PretrainConfig = serde_json::from_value(json!({"backbone": {"resnet18": {}}})).unwrap();
    let card = EncoderCard {
        format: 1,
        backbone: BackboneConfig::Resnet18(ResnetConfig::default()),
        feature_dim: 512,
        projector: config.projector,
        predictor: config.predictor,
        preprocessing: Preprocessing {
            resize: ResizeConfig::None,
            background: WHITE,
            image_size: 64,
            evaluation: EvaluationViewConfig::default(),
            channel_stats: policy().normalize.channel_stats(),
        },
        seed: 0,
        init: None,
        epochs,
        steps: u64::from(epochs) * steps_per_epoch,
        stopped_early: false,
        final_loss: last.loss,
        final_embedding_std_ratio: last.embedding_std_ratio,
        warnings: vec![],
    };
    write_json(&artifact.dir.join("encoder.json"), &card);
    let stored = json!({"uses": "pretrain", "inputs": {}, "seed": 0, "with": config});
    fs::write(artifact.dir.join("config.yaml"), serde_yaml::to_string(&stored).unwrap()).unwrap();
    let lines: Vec<String> = history.iter().map(|record| serde_json::to_string(record).unwrap() + "\n").collect();
    fs::write(artifact.dir.join("history.jsonl"), lines.concat()).unwrap();
    artifact
}

fn policy() -> AugmentConfig {
    serde_json::from_value(json!({
        "image_size": 64,
        "ops": [
            {"random_resized_crop": {"scale": [0.2, 1.0]}},
            {"color_jitter": {"p": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}},
            {"grayscale": {"p": 0.2}},
            {"gaussian_blur": {"p": 0.5, "sigma": [0.1, 2.0]}},
            {"horizontal_flip": {"p": 0.5}},
        ],
    }))
    .unwrap()
}

fn augmentation(root: &Path) -> InputArtifact {
    let artifact = artifact(root, "views");
    Policy::build(&policy()).unwrap().save(&artifact.dir).unwrap();
    // Hills under a sky, one hue a row and one shift a column.
    let (tile, columns, rows) = (64_u32, 9_u32, 5_u32);
    let sheet = image::RgbImage::from_fn(tile * columns, tile * rows, |x, y| {
        let (column, row) = (x / tile, y / tile);
        let (u, v) = (f64::from(x % tile) / 64.0, f64::from(y % tile) / 64.0);
        let shift = f64::from(column * 7 % 5) / 5.0;
        let zoom = 1.0 - f64::from(column % 4) * 0.15;
        let hill = 0.55 + 0.2 * ((u * zoom + shift) * 6.0 + f64::from(row)).sin();
        let grey = column == 4;
        let base = if v * zoom > hill - 0.1 {
            [60.0, 96.0 + 18.0 * f64::from(row), 70.0]
        } else {
            [150.0 - 12.0 * f64::from(row), 180.0, 215.0]
        };
        let light = 0.8 + 0.4 * shift + 0.2 * (1.0 - v);
        let mean = base.iter().sum::<f64>() / 3.0;
        image::Rgb(base.map(|value| ((if grey { mean } else { value }) * light).clamp(0.0, 255.0) as u8))
    });
    let mut bytes = Cursor::new(vec![]);
    sheet.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    fs::write(artifact.dir.join("preview.png"), bytes.into_inner()).unwrap();
    artifact
}

fn file_name(class: &str, idx: usize, hostile: bool) -> String {
    if hostile && idx.is_multiple_of(10) {
        format!("{class}/<img src=x onerror=alert({idx})>\".jpg")
    } else {
        format!("{class}/{:05}.jpg", 20_000 + idx * 37)
    }
}

fn embeddings(root: &Path, hostile: bool, per_class: usize) -> InputArtifact {
    let artifact = artifact(root, "embeddings");
    let dim = 32;
    let names = class_names(hostile);
    let mut random = Sequence(11);
    let centres: Vec<Vec<f64>> = names.iter().map(|_| (0..dim).map(|_| random.normal()).collect()).collect();
    let (mut features, mut labels, mut files) = (vec![], vec![], vec![]);
    for idx in 0..per_class {
        for (class, name) in names.iter().enumerate() {
            // Glaciers lie near mountains, as one would expect.
            let centre =
                |k: usize| if class == 2 { f64::midpoint(centres[2][k], centres[3][k]) } else { centres[class][k] };
            features.extend((0..dim).flat_map(|k| ((centre(k) * 0.9 + random.normal()) as f32).to_le_bytes()));
            labels.extend((class as i64).to_le_bytes());
            files.push(file_name(name, idx, hostile));
        }
    }
    let rows = per_class * names.len();
    // Training images lie where test images do.
    let (mut train, mut train_labels, mut train_files) = (vec![], vec![], vec![]);
    for (class, name) in names.iter().enumerate() {
        for idx in 0..TRAIN_PER_CLASS {
            train.extend((0..dim).flat_map(|k| ((centres[class][k] * 0.9 + random.normal()) as f32).to_le_bytes()));
            train_labels.extend((class as i64).to_le_bytes());
            train_files.push(file_name(name, 1_000 + idx, hostile));
        }
    }
    let thumbnails = |count: usize, shift: usize| -> Vec<Vec<u8>> {
        let (width, height) = (THUMBNAIL_SIZE as u32, THUMBNAIL_SIZE as u32);
        (0..count).map(|idx| thumbnail(width, height, &hills(width, height, idx + shift)).unwrap()).collect()
    };
    let train_pictures = thumbnails(TRAIN_PER_CLASS * names.len(), 7);
    save_thumbnails(&artifact.dir, &train_pictures, Some(&thumbnails(rows, 0))).unwrap();
    let tensors = [
        ("train_features", TensorView::new(Dtype::F32, vec![TRAIN_PER_CLASS * names.len(), dim], &train).unwrap()),
        ("train_labels", TensorView::new(Dtype::I64, vec![TRAIN_PER_CLASS * names.len()], &train_labels).unwrap()),
        ("test_features", TensorView::new(Dtype::F32, vec![rows, dim], &features).unwrap()),
        ("test_labels", TensorView::new(Dtype::I64, vec![rows], &labels).unwrap()),
    ];
    fs::write(artifact.dir.join("embeddings.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    let distances: Vec<Vec<f64>> =
        (0..6_i32).map(|a| (0..6_i32).map(|b| f64::from((a - b).abs()) * 0.2).collect()).collect();
    let representations = json!({
        "pretrained": {
            "dim": 512, "health": health(148.3, 0.81, 0), "alignment": 0.21,
            "classes": {"centroid_distances": distances, "spread": [0.5, 0.6, 0.5, 0.6, 0.4, 0.5]},
        },
        "raw_pixels": {"dim": 192, "health": health(21.7, 0.42, 0)},
        "untrained": {"dim": 512, "health": health(38.9, 0.35, 3)},
    });
    let card = json!({
        "class_names": names,
        "test_file_names": files,
        "train_file_names": train_files,
        "representations": representations,
    });
    write_json(&artifact.dir.join("embeddings.json"), &card);
    artifact
}

fn health(effective_rank: f64, normalized_std_ratio: f64, num_constant_dims: u32) -> serde_json::Value {
    json!({
        "effective_rank": effective_rank,
        "uniformity": -2.1,
        "mean_norm": 9.3,
        "normalized_std_ratio": normalized_std_ratio,
        "num_constant_dims": num_constant_dims,
        "num_measured": 1800,
    })
}

fn scores(top1: f64, num_classes: usize, support: u64) -> Scores {
    let mut confusion = vec![vec![0_u64; num_classes]; num_classes];
    for (actual, row) in confusion.iter_mut().enumerate() {
        let right = (support as f64 * (top1 + 0.04 * (actual as f64 - 2.5) / 2.5)).round() as u64;
        row[actual] = right;
        let near = (support - right) * 2 / 3;
        row[(actual + 1) % num_classes] += near;
        row[(actual + 3) % num_classes] += support - right - near;
    }
    let per_class = (0..num_classes)
        .map(|class| {
            let taken: u64 = confusion.iter().map(|row| row[class]).sum();
            let (precision, recall) =
                (confusion[class][class] as f64 / taken.max(1) as f64, confusion[class][class] as f64 / support as f64);
            ClassScores { precision, recall, f1: 2.0 * precision * recall / (precision + recall), support }
        })
        .collect();
    let half = 1.96 * (top1 * (1.0 - top1) / (support * num_classes as u64) as f64).sqrt();
    Scores {
        top1,
        top1_interval: [top1 - half, top1 + half],
        top5: 1.0 - (1.0 - top1) / 20.0,
        balanced_accuracy: top1,
        log_loss: 1.6 * (1.0 - top1) + 0.2,
        expected_calibration_error: 0.028,
        per_class,
        confusion,
    }
}

fn classifier(
    root: &Path,
    stage: &str,
    protocol: &str,
    top1: [f64; 3],
    hostile: bool,
    per_class: usize,
) -> InputArtifact {
    let artifact = artifact(root, stage);
    let names = class_names(hostile);
    let representations = ["pretrained", "untrained", "raw_pixels"];
    let metrics = ClassifierMetrics {
        format: 1,
        protocol: protocol.to_owned(),
        num_train: 1_800,
        num_test: 6 * per_class as u64,
        label_fraction: 1.0,
        scores: representations
            .iter()
            .zip(top1)
            .map(|(name, top1)| ((*name).to_owned(), scores(top1, 6, per_class as u64)))
            .collect(),
        history: vec![],
        class_names: names.clone(),
    };
    write_json(&artifact.dir.join("metrics.json"), &metrics);
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let mut csv = "file,true_label,predicted,probability,correct\n".to_owned();
    let mut random = Sequence(5);
    for idx in 0..per_class {
        for (class, name) in names.iter().enumerate() {
            let wrong = random.next() > top1[0];
            let predicted = if wrong { &names[(class + 1 + idx % 3) % 6] } else { name };
            let probability = 0.4 + 0.6 * random.next();
            let file = file_name(name, idx, hostile);
            writeln!(csv, "{},{},{},{probability:.4},{}", quoted(&file), quoted(name), quoted(predicted), !wrong)
                .unwrap();
        }
    }
    fs::write(artifact.dir.join("predictions.csv"), csv).unwrap();
    artifact
}

/// A classifier that was trained by gradient descent with 5 % of the labels.
fn trained_classifier(root: &Path, stage: &str, protocol: &str, top1: f64) -> InputArtifact {
    trained_classifier_at(root, stage, protocol, top1, 0.05)
}

fn trained_classifier_at(root: &Path, stage: &str, protocol: &str, top1: f64, share: f64) -> InputArtifact {
    let artifact = artifact(root, stage);
    let history = (1..=30)
        .map(|epoch| {
            let t = f64::from(epoch) / 8.0;
            ClassifierEpoch {
                epoch,
                train_loss: 0.1 + 1.6 * (-t).exp(),
                validation_loss: Some(0.7 + 1.1 * (-t).exp() + 0.02 * t),
                validation_top1: Some(top1 * (1.0 - 0.6 * (-t).exp())),
            }
        })
        .collect();
    let metrics = ClassifierMetrics {
        format: 1,
        protocol: protocol.to_owned(),
        num_train: (1_800.0 * share) as u64,
        num_test: 600,
        label_fraction: share,
        scores: BTreeMap::from([(protocol.to_owned(), scores(top1, 6, 100))]),
        history,
        class_names: class_names(false),
    };
    write_json(&artifact.dir.join("metrics.json"), &metrics);
    artifact
}

fn dataset(root: &Path, stage: &str, per_class: usize, hostile: bool) -> InputArtifact {
    let artifact = artifact(root, stage);
    let names = class_names(hostile);
    let skipped = if stage == "train" {
        vec![
            SkippedFile { file: "forest/10234.jpg".into(), reason: "the file ends too early".into() },
            SkippedFile { file: "sea/Thumbs.db\u{202e}".into(), reason: "not an image".into() },
        ]
    } else {
        vec![]
    };
    let card = DatasetCard {
        format: FORMAT,
        num_images: per_class as u64 * 6,
        class_counts: vec![per_class as u64; 6],
        min_size: [72, 72],
        max_size: [108, 81],
        channel_stats: policy().normalize.channel_stats(),
        resize: ResizeConfig::None,
        background: WHITE,
        skipped,
        class_names: names,
    };
    let files: Vec<String> =
        (0..per_class).flat_map(|idx| card.class_names.iter().map(move |name| file_name(name, idx, hostile))).collect();
    // The first test image is also the first training image, and the last training image is there twice.
    let shift = if stage == "train" { 0 } else { 10_000 };
    save_images(&artifact.dir, &card.class_names, &files, |idx| match idx {
        0 => 0,
        idx if stage == "train" && idx + 1 == per_class * 6 => 1,
        idx => idx + shift,
    });
    write_json(&artifact.dir.join("dataset.json"), &card);
    artifact
}

/// Small hills under a sky, image `seed(idx)` at each place.
fn save_images(dir: &Path, class_names: &[String], files: &[String], seed: impl Fn(usize) -> usize) {
    let (width, height) = (48_u32, 36_u32);
    let mut writer = StoreWriter::create(dir, class_names.to_vec()).unwrap();
    for (idx, file) in files.iter().enumerate() {
        let rgb = hills(width, height, seed(idx));
        writer.push(file, ImageRef { width, height, rgb: &rgb }, Some(idx as u32 % 6)).unwrap();
    }
    writer.finish(vec![]).unwrap();
}

fn hills(width: u32, height: u32, idx: usize) -> Vec<u8> {
    let mut rgb = vec![];
    for y in 0..height {
        for x in 0..width {
            let hill = f64::from(height) * (0.5 + 0.2 * (f64::from(x) / 6.5 + idx as f64).sin());
            let land = f64::from(y) > hill;
            let hue = (idx % 6) as u8 * 20;
            rgb.extend(if land { [60 + hue, 110, 70 + (idx % 97) as u8] } else { [150, 190 - hue / 2, 225] });
        }
    }
    rgb
}
