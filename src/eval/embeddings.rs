//! The embeddings artifact: features of every image, by representation.
//!
//! `embeddings.safetensors` holds `train_features` [n, d], `train_labels` `[n]` (where the images have labels),
//! `test_features` and `test_labels` (where there are test images), and the same for each baseline as
//! `untrained.train_features` and so on. The pretrained features and the labels lie beside it as `.npy`.
//! `embeddings.json` describes them; `backbone.safetensors` is the encoder's backbone, so that a classifier
//! made from the embeddings can take images.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    class_geometry::ClassGeometry,
    eval_error::EvalError,
    npy::save_npy,
    representation_health::RepresentationHealth,
    tensor_file::{TensorFile, Values, format_error, load_json, save_json, save_tensors},
};
use crate::{
    data::ingest_config::{ResizeConfig, is_white, white},
    train::{EncoderCard, Preprocessing},
};

/// Version of `embeddings.json`.
pub const EMBEDDINGS_FORMAT: u32 = 1;
/// The representation that pretraining made.
pub const PRETRAINED: &str = "pretrained";
/// The encoder's backbone weights, in an embeddings and in a classifier artifact.
pub const BACKBONE_FILE: &str = "backbone.safetensors";
/// Name of the description in an embeddings artifact.
pub const CARD_FILE: &str = "embeddings.json";
/// Name of the tables in an embeddings artifact.
pub const TENSOR_FILE: &str = "embeddings.safetensors";

/// `embeddings.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingsCard {
    /// Version of this file's format.
    pub format: u32,
    /// Length of a pretrained feature vector.
    pub feature_dim: u32,
    /// Names of the classes; a label of either split is an index into it. Those of the training images come
    /// first, then those that only the test images have.
    pub class_names: Vec<String>,
    /// How many of the classes are those of the training images.
    pub num_train_classes: u32,
    /// Name of each training image, relative to its source, in the order of the rows.
    pub train_file_names: Vec<String>,
    /// Name of each test image; absent where there are no test images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_file_names: Option<Vec<String>>,
    /// Whether the training images have labels.
    pub train_labelled: bool,
    /// Whether the test images have labels.
    pub test_labelled: bool,
    /// What each representation is, by name: `pretrained`, `untrained`, `raw_pixels`.
    pub representations: BTreeMap<String, RepresentationCard>,
    /// How the test images, or without those the training images, were resized when they were stored.
    #[serde(default)]
    pub resize: ResizeConfig,
    /// What lay behind their transparency; left out where it is white.
    #[serde(default = "white", skip_serializing_if = "is_white")]
    pub background: [u8; 3],
    /// Width and height that raw pixels were averaged down to.
    pub raw_pixels_size: u32,
    /// The encoder: backbone, preprocessing, seed.
    pub encoder: EncoderCard,
}

impl EmbeddingsCard {
    /// How an image becomes input, from the file on: what was done to the images in the tables.
    pub fn preprocessing(&self) -> Preprocessing {
        Preprocessing { resize: self.resize, background: self.background, ..self.encoder.preprocessing }
    }
}

/// A way to turn an image into numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepresentationCard {
    /// Length of a vector.
    pub dim: u32,
    /// How well the training images use the space.
    pub health: RepresentationHealth,
    /// How near two views of an image lie, mean ‖f(x) − f(y)‖² of embeddings of length 1 (Wang & Isola 2020); of networks,
    /// where a policy for views was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<f64>,
    /// How the classes of the training images lie, where they have labels and are not too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<ClassGeometry>,
}

/// Features of every image in one representation.
#[derive(Clone, Debug, PartialEq)]
pub struct Representation {
    /// `pretrained`, `untrained` or `raw_pixels`.
    pub name: String,
    /// Length of a vector.
    pub dim: usize,
    /// [n_train, dim]
    pub train: Vec<f32>,
    /// [n_test, dim], where there are test images.
    pub test: Option<Vec<f32>>,
}

/// Labels of both splits, where they have any: indices into `class_names`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitLabels {
    /// `[n_train]`
    pub train: Option<Vec<u32>>,
    /// `[n_test]`
    pub test: Option<Vec<u32>>,
}

/// The classes of both splits, those of `train` first, and for each class of `test` its index among them.
pub fn merge_classes(train: &[String], test: &[String]) -> (Vec<String>, Vec<u32>) {
    let mut merged = train.to_vec();
    let places = test.iter().map(|name| {
        let place = merged.iter().position(|other| other == name).unwrap_or_else(|| {
            merged.push(name.clone());
            merged.len() - 1
        });
        place as u32
    });
    let places = places.collect();
    (merged, places)
}

/// Writes the artifact's tables and card into `dir`; the backbone's weights are the caller's to copy.
///
/// # Errors
/// Where a file cannot be written.
pub fn save_embeddings(
    dir: &Path,
    card: &EmbeddingsCard,
    labels: &SplitLabels,
    representations: &[Representation],
) -> Result<(), EvalError> {
    let widen = |labels: &Option<Vec<u32>>| {
        labels.as_ref().map(|labels| labels.iter().map(|&label| i64::from(label)).collect::<Vec<i64>>())
    };
    let mut tensors = vec![];
    let splits = [("train", widen(&labels.train)), ("test", widen(&labels.test))];
    for (split, labels) in &splits {
        if let Some(labels) = labels {
            save_npy(&dir.join(format!("{split}_labels.npy")), &[labels.len()], labels)?;
            tensors.push((format!("{split}_labels"), vec![labels.len()], Values::I64(labels)));
        }
    }
    for representation in representations {
        for (split, features) in [("train", Some(&representation.train)), ("test", representation.test.as_ref())] {
            let Some(features) = features else { continue };
            let shape = vec![features.len() / representation.dim.max(1), representation.dim];
            if representation.name == PRETRAINED {
                save_npy(&dir.join(format!("{split}_features.npy")), &shape, features)?;
            }
            tensors.push((tensor_name(&representation.name, split), shape, Values::F32(features)));
        }
    }
    save_tensors(&dir.join(TENSOR_FILE), &tensors)?;
    save_json(&dir.join(CARD_FILE), card)
}

fn tensor_name(representation: &str, split: &str) -> String {
    if representation == PRETRAINED {
        format!("{split}_features")
    } else {
        format!("{representation}.{split}_features")
    }
}

/// Reads `embeddings.json`.
///
/// # Errors
/// Where it is missing, damaged, or of a version that this program does not know.
pub fn load_card(dir: &Path) -> Result<EmbeddingsCard, EvalError> {
    let path = dir.join(CARD_FILE);
    let card: EmbeddingsCard = load_json(&path)?;
    if card.format != EMBEDDINGS_FORMAT {
        let message = format!("format {} is not {EMBEDDINGS_FORMAT}, the one that this version reads", card.format);
        return Err(format_error(&path, message));
    }
    Ok(card)
}

/// An embeddings artifact that is read.
#[derive(Debug)]
pub struct Embeddings {
    dir: PathBuf,
    card: EmbeddingsCard,
    file: TensorFile,
}

impl Embeddings {
    /// Opens the artifact in `dir`. Tables are read when they are asked for.
    ///
    /// # Errors
    /// Where a file is missing, damaged, or of a version that this program does not know.
    pub fn open(dir: &Path) -> Result<Self, EvalError> {
        let path = dir.join(CARD_FILE);
        let card = load_card(dir)?;
        if card.num_train_classes as usize > card.class_names.len() {
            return Err(format_error(&path, "`num_train_classes` is larger than the number of classes"));
        }
        let dim = card.representations.get(PRETRAINED).map(|representation| representation.dim);
        if dim != Some(card.feature_dim) {
            return Err(format_error(&path, "`feature_dim` is not the length of the pretrained vectors"));
        }
        Ok(Self { dir: dir.to_owned(), file: TensorFile::open(&dir.join(TENSOR_FILE))?, card })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The description.
    pub fn card(&self) -> &EmbeddingsCard {
        &self.card
    }

    /// Labels of both splits, where they have any.
    ///
    /// # Errors
    /// Where a table has the wrong type or length, or a label names no class.
    pub fn labels(&self) -> Result<SplitLabels, EvalError> {
        let card = &self.card;
        let num_test = card.test_file_names.as_ref().map_or(0, Vec::len);
        let read = |name: &str, labelled: bool, num_rows: usize, num_classes: usize| {
            labelled.then(|| self.file.labels(name, num_rows, num_classes)).transpose()
        };
        let num_train_classes = card.num_train_classes as usize;
        Ok(SplitLabels {
            train: read("train_labels", card.train_labelled, card.train_file_names.len(), num_train_classes)?,
            test: read("test_labels", card.test_labelled, num_test, card.class_names.len())?,
        })
    }

    /// Features of every image in the representation `name`; `None` where the artifact does not hold it.
    ///
    /// # Errors
    /// Where a table has the wrong type or shape, or holds a value that is not finite.
    pub fn representation(&self, name: &str) -> Result<Option<Representation>, EvalError> {
        let Some(card) = self.card.representations.get(name) else { return Ok(None) };
        let dim = card.dim as usize;
        let read = |split: &str, files: &Vec<String>| {
            self.file.f32(&tensor_name(name, split), &[Some(files.len()), Some(dim)])
        };
        Ok(Some(Representation {
            name: name.to_owned(),
            dim,
            train: read("train", &self.card.train_file_names)?,
            test: self.card.test_file_names.as_ref().map(|files| read("test", files)).transpose()?,
        }))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        augment::augment_config::{EvaluationViewConfig, NormalizeConfig},
        eval::representation_health::measure_health,
        model::{
            backbone::{BackboneConfig, ResnetConfig},
            predictor::PredictorConfig,
            projector::ProjectorConfig,
        },
    };

    pub(crate) fn encoder_card(feature_dim: u32) -> EncoderCard {
        EncoderCard {
            format: 1,
            backbone: BackboneConfig::Resnet18(ResnetConfig::default()),
            feature_dim,
            projector: ProjectorConfig::default(),
            predictor: PredictorConfig::default(),
            preprocessing: Preprocessing {
                resize: ResizeConfig::None,
                background: white(),
                image_size: 32,
                evaluation: EvaluationViewConfig::CenterCrop,
                channel_stats: NormalizeConfig::Imagenet.channel_stats(),
            },
            seed: 7,
            init: None,
            epochs: 2,
            steps: 10,
            stopped_early: false,
            final_loss: -0.9,
            final_embedding_std_ratio: 0.8,
            warnings: vec![],
        }
    }

    /// An artifact with classes that the features tell apart; baselines do so less well.
    pub(crate) fn save_sample(dir: &Path, class_names: &[&str], num_train: usize, num_test: usize) -> EmbeddingsCard {
        let c = class_names.len();
        let label = |row: usize| (row * 7 + row / 5) % c;
        let make = |num: usize, dim: usize, signal: f32, salt: usize| -> Vec<f32> {
            let noise = |at: usize| ((at + salt) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            (0..num * dim)
                .map(|at| {
                    let hit = (at % dim) % c == label(at / dim);
                    noise(at) as f32 / 16_777_216.0 + if hit { signal } else { 0.0 }
                })
                .collect()
        };
        let representations: Vec<Representation> =
            [(PRETRAINED, 12, 1.5), ("untrained", 12, 0.4), ("raw_pixels", 6, 0.1)]
                .into_iter()
                .map(|(name, dim, signal)| Representation {
                    name: name.into(),
                    dim,
                    train: make(num_train, dim, signal, 0),
                    test: Some(make(num_test, dim, signal, 12_345)),
                })
                .collect();
        let files = |num: usize, folder: &str| (0..num).map(|row| format!("{folder}/{row}, \"a\".jpg")).collect();
        let card = EmbeddingsCard {
            format: EMBEDDINGS_FORMAT,
            feature_dim: 12,
            class_names: class_names.iter().map(|name| (*name).to_owned()).collect(),
            num_train_classes: c as u32,
            train_file_names: files(num_train, "train"),
            test_file_names: Some(files(num_test, "test")),
            train_labelled: true,
            test_labelled: true,
            representations: representations
                .iter()
                .map(|r| {
                    let health = measure_health(&r.train, r.dim).unwrap();
                    (r.name.clone(), RepresentationCard { dim: r.dim as u32, health, alignment: None, classes: None })
                })
                .collect(),
            resize: ResizeConfig::None,
            background: white(),
            raw_pixels_size: 8,
            encoder: encoder_card(12),
        };
        let labels = |num| Some((0..num).map(|row| label(row) as u32).collect());
        let labels = SplitLabels { train: labels(num_train), test: labels(num_test) };
        save_embeddings(dir, &card, &labels, &representations).unwrap();
        std::fs::write(dir.join(BACKBONE_FILE), b"weights").unwrap();
        card
    }

    #[test]
    fn artifact_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let card = save_sample(dir.path(), &["a", "b", "c"], 30, 10);
        let embeddings = Embeddings::open(dir.path()).unwrap();
        assert_eq!(embeddings.card(), &card);
        let labels = embeddings.labels().unwrap();
        assert_eq!((labels.train.unwrap().len(), labels.test.unwrap().len()), (30, 10));
        let pixels = embeddings.representation("raw_pixels").unwrap().unwrap();
        assert_eq!((pixels.dim, pixels.train.len(), pixels.test.unwrap().len()), (6, 180, 60));
        assert_eq!(embeddings.representation("absent").unwrap(), None);
        assert!(dir.path().join("test_features.npy").is_file() && dir.path().join("train_labels.npy").is_file());
    }

    #[test]
    fn classes_are_merged_by_name() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        let (merged, places) = merge_classes(&names(&["a", "b", "c"]), &names(&["c", "x", "a"]));
        assert_eq!((merged, places), (names(&["a", "b", "c", "x"]), vec![2, 3, 0]));
    }

    #[test]
    fn same_content_is_the_same_bytes() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&a, &b] {
            save_sample(dir.path(), &["a", "b"], 20, 5);
        }
        for file in [TENSOR_FILE, CARD_FILE, "train_features.npy"] {
            assert_eq!(std::fs::read(a.path().join(file)).unwrap(), std::fs::read(b.path().join(file)).unwrap());
        }
    }

    #[test]
    fn cards_that_do_not_fit_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut card = save_sample(dir.path(), &["a", "b"], 20, 5);
        let reopened = |card: &EmbeddingsCard| {
            save_json(&dir.path().join(CARD_FILE), card).unwrap();
            Embeddings::open(dir.path())
        };
        card.format = 2;
        assert!(reopened(&card).unwrap_err().to_string().contains("format 2 is not 1"));
        card.format = 1;
        card.num_train_classes = 3;
        assert!(reopened(&card).unwrap_err().to_string().contains("`num_train_classes`"));
        card.num_train_classes = 2;
        card.train_file_names.push("x".into());
        let error = reopened(&card).unwrap().representation(PRETRAINED).unwrap_err();
        assert!(error.to_string().contains("F32 [20, 12] where F32 [21, 12] is needed"), "{error}");
    }
}
