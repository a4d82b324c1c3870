//! The classifier artifact: what `predict` needs, what the report shows.
//!
//! `classifier.json` and `classifier.safetensors` hold the classifier on embeddings, `backbone.safetensors`
//! the network that makes embeddings of images, `metrics.json` and `predictions.csv` how it did on the test
//! images.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::cross_validation::CandidateScore;
use super::{
    ClassifierMetrics, Scores,
    embeddings::PRETRAINED,
    eval_config::{KnnConfig, KnnWeights},
    eval_error::EvalError,
    knn::KnnClassifier,
    linear_classifier::LinearClassifier,
    metrics::predicted_classes,
    tensor_file::{TensorFile, Values, format_error, load_json, save_json, save_tensors},
};
use crate::{model::backbone::BackboneConfig, train::Preprocessing};

/// Version of `classifier.json`.
pub const CLASSIFIER_FORMAT: u32 = 1;
/// Name of the card in a classifier artifact.
pub const CARD_FILE: &str = "classifier.json";
const TENSOR_FILE: &str = "classifier.safetensors";

/// `classifier.json`: enough to use the classifier without the pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierCard {
    /// Version of this file's format.
    pub format: u32,
    /// `linear_probe`, `knn`, `fine_tune` or `supervised`.
    pub protocol: String,
    /// Names of the classes, in the order of the probabilities.
    pub class_names: Vec<String>,
    /// Length of an embedding.
    pub feature_dim: u32,
    /// How embeddings become probabilities.
    pub head: HeadCard,
    /// The network that makes embeddings.
    pub backbone: BackboneConfig,
    /// How an image becomes its input.
    pub preprocessing: Preprocessing,
    /// How the fit ended, where it was iterative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solver: Option<SolverCard>,
}

/// How embeddings become probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HeadCard {
    /// softmax(`weight` · x + `bias`).
    Linear {
        /// Whether x is brought to length 1 first.
        l2_normalize: bool,
    },
    /// The vote of the nearest of `bank_features` (rows of length 1).
    Knn {
        /// Number of neighbours that vote.
        k: u32,
        /// A vote counts exp(cosine similarity / temperature).
        temperature: f64,
        /// How votes are weighted.
        weights: KnnWeights,
    },
}

/// How an iterative fit ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SolverCard {
    /// The penalty.
    #[serde(default)]
    pub l2: f64,
    /// The penalties that were tried by cross-validation, if they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<CandidateScore>,
    /// Iterations of L-BFGS.
    pub iterations: u32,
    /// Mean cross-entropy plus penalty.
    pub loss: f64,
    /// Largest component of the gradient.
    pub gradient_max: f64,
    /// Whether the gradient is within the tolerance.
    pub converged: bool,
}

/// A classifier on embeddings.
#[derive(Clone, Debug)]
pub enum Head {
    /// Of `linear_probe`, `fine_tune` and `supervised`.
    Linear(LinearClassifier),
    /// Of `knn`.
    Knn(KnnClassifier),
}

impl Head {
    /// Class probabilities [n, num_classes] of `features` [n, dim].
    ///
    /// # Errors
    /// Where the length is no multiple of the embedding's length, or a value is not finite.
    pub fn probabilities(&self, features: &[f32]) -> Result<Vec<f64>, EvalError> {
        match self {
            Self::Linear(linear) => linear.probabilities(features),
            Self::Knn(knn) => knn.probabilities(features),
        }
    }

    /// The head's part of the card.
    pub fn card(&self) -> HeadCard {
        match self {
            Self::Linear(linear) => HeadCard::Linear { l2_normalize: linear.l2_normalize },
            Self::Knn(knn) => {
                HeadCard::Knn { k: knn.k() as u32, temperature: knn.temperature(), weights: knn.weights() }
            }
        }
    }
}

/// Writes `classifier.json` and `classifier.safetensors`.
///
/// # Errors
/// Where a file cannot be written.
pub fn save_classifier(dir: &Path, card: &ClassifierCard, head: &Head) -> Result<(), EvalError> {
    let path = dir.join(TENSOR_FILE);
    match head {
        Head::Linear(linear) => {
            let (c, dim) = (linear.num_classes(), linear.dim);
            let tensors = [
                ("weight".to_owned(), vec![c, dim], Values::F32(&linear.weight)),
                ("bias".to_owned(), vec![c], Values::F32(&linear.bias)),
            ];
            save_tensors(&path, &tensors)?;
        }
        Head::Knn(knn) => {
            let labels: Vec<i64> = knn.labels().iter().map(|&label| i64::from(label)).collect();
            let n = labels.len();
            let tensors = [
                ("bank_features".to_owned(), vec![n, knn.bank().len() / n], Values::F32(knn.bank())),
                ("bank_labels".to_owned(), vec![n], Values::I64(&labels)),
            ];
            save_tensors(&path, &tensors)?;
        }
    }
    save_json(&dir.join(CARD_FILE), card)
}

/// Reads what [`save_classifier`] wrote.
///
/// # Errors
/// Where a file is missing, damaged, or of a version that this program does not know.
pub fn load_classifier(dir: &Path) -> Result<(ClassifierCard, Head), EvalError> {
    let path = dir.join(CARD_FILE);
    let card: ClassifierCard = load_json(&path)?;
    if card.format != CLASSIFIER_FORMAT {
        let message = format!("format {} is not {CLASSIFIER_FORMAT}, the one that this version reads", card.format);
        return Err(format_error(&path, message));
    }
    let file = TensorFile::open(&dir.join(TENSOR_FILE))?;
    let (c, dim) = (card.class_names.len(), card.feature_dim as usize);
    let head = match card.head {
        HeadCard::Linear { l2_normalize } => Head::Linear(LinearClassifier {
            weight: file.f32("weight", &[Some(c), Some(dim)])?,
            bias: file.f32("bias", &[Some(c)])?,
            dim,
            l2_normalize,
        }),
        HeadCard::Knn { temperature, .. } if !(temperature > 0.0 && temperature.is_finite()) => {
            return Err(format_error(&path, format!("a temperature of {temperature} weighs no votes")));
        }
        HeadCard::Knn { k, temperature, weights } => {
            let bank = file.f32("bank_features", &[None, Some(dim)])?;
            let labels = file.labels("bank_labels", bank.len() / dim.max(1), c)?;
            let config = KnnConfig { k, temperature, weights, label_fraction: 1.0 };
            Head::Knn(KnnClassifier::from_normalized(bank, labels, dim, c, &config)?)
        }
    };
    Ok((card, head))
}

/// Writes `metrics.json`.
///
/// # Errors
/// Where the file cannot be written.
pub fn save_metrics(dir: &Path, metrics: &ClassifierMetrics) -> Result<(), EvalError> {
    save_json(&dir.join("metrics.json"), metrics)
}

/// Writes `predictions.csv`: one line for each of `file_names` with its true class, the predicted one, that
/// one's probability, and whether it is right. RFC 4180 quoting.
///
/// # Errors
/// Where lengths do not fit or the file cannot be written.
pub fn save_predictions(
    dir: &Path,
    file_names: &[impl AsRef<str>],
    labels: &[u32],
    probabilities: &[f64],
    class_names: &[String],
) -> Result<(), EvalError> {
    let predicted = predicted_classes(probabilities, class_names.len());
    super::eval_error::check_length("the list of file names", labels.len(), file_names.len())?;
    super::eval_error::check_length("the table of probabilities", labels.len(), predicted.len())?;
    super::eval_error::check_labels(labels, class_names.len())?;
    let mut text = String::from("file,label,predicted,probability,correct\n");
    for (row, ((file, &label), &predicted)) in file_names.iter().zip(labels).zip(&predicted).enumerate() {
        let probability = probabilities[row * class_names.len() + predicted as usize];
        let (file, name) = (csv_field(file.as_ref()), csv_field(&class_names[label as usize]));
        let predicted_name = csv_field(&class_names[predicted as usize]);
        let line = format!("{file},{name},{predicted_name},{probability:.6},{}", label == predicted);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    }
    let path: PathBuf = dir.join("predictions.csv");
    std::fs::write(&path, text).map_err(|source| EvalError::Io { action: "write", path, source })
}

/// A field as RFC 4180 wants it: quoted where it holds a comma, a quote or a line break.
pub fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// Headline figures for the lockfile: `<protocol>/top1`, `<protocol>/top5`, and `<protocol>/<baseline>_top1`
/// for each baseline.
pub fn headline(metrics: &ClassifierMetrics) -> BTreeMap<String, f64> {
    let protocol = &metrics.protocol;
    let mut figures = BTreeMap::new();
    for (name, Scores { top1, top5, .. }) in &metrics.scores {
        if name == PRETRAINED || name == protocol {
            figures.insert(format!("{protocol}/top1"), *top1);
            figures.insert(format!("{protocol}/top5"), *top5);
        } else {
            figures.insert(format!("{protocol}/{name}_top1"), *top1);
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::embeddings::tests::encoder_card;

    fn card(head: &Head) -> ClassifierCard {
        let encoder = encoder_card(2);
        ClassifierCard {
            format: CLASSIFIER_FORMAT,
            protocol: "knn".into(),
            class_names: vec!["cat".into(), "dog, big".into(), "a\"b\nc".into()],
            feature_dim: 2,
            head: head.card(),
            backbone: encoder.backbone,
            preprocessing: encoder.preprocessing,
            solver: None,
        }
    }

    #[test]
    fn classifiers_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let linear = LinearClassifier {
            weight: vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
            bias: vec![1.0, 2.0, 3.0],
            dim: 2,
            l2_normalize: true,
        };
        let config = KnnConfig { k: 2, ..KnnConfig::default() };
        let knn = KnnClassifier::new(&[1.0, 0.3, 0.2, 5.0, -0.7, 0.2], &[0, 2, 1], 2, 3, &config).unwrap();
        for head in [Head::Linear(linear), Head::Knn(knn)] {
            let card = card(&head);
            save_classifier(dir.path(), &card, &head).unwrap();
            let (card_again, head_again) = load_classifier(dir.path()).unwrap();
            assert_eq!(card_again, card);
            let queries = [0.4, 0.9, -2.0, 0.1];
            assert_eq!(head_again.probabilities(&queries).unwrap(), head.probabilities(&queries).unwrap());
        }
    }

    #[test]
    fn classifiers_of_another_shape_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let linear = LinearClassifier { weight: vec![0.0; 6], bias: vec![0.0; 3], dim: 2, l2_normalize: false };
        let head = Head::Linear(linear);
        let mut card = card(&head);
        card.class_names.pop();
        save_classifier(dir.path(), &card, &head).unwrap();
        let error = load_classifier(dir.path()).unwrap_err().to_string();
        assert!(error.contains("`weight` is F32 [3, 2] where F32 [2, 2] is needed"), "{error}");
        card.format = 9;
        save_classifier(dir.path(), &card, &head).unwrap();
        assert!(load_classifier(dir.path()).unwrap_err().to_string().contains("format 9 is not 1"));
    }

    #[test]
    fn names_with_commas_quotes_and_line_breaks_survive_in_csv() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> = ["cat", "dog, big"].map(String::from).into();
        let files: Vec<String> = ["a \"b\".jpg", "c\nd.jpg", "e.jpg"].map(String::from).into();
        save_predictions(dir.path(), &files, &[0, 1, 1], &[0.75, 0.25, 0.5, 0.5, 0.0, 1.0], &names).unwrap();
        let text = std::fs::read_to_string(dir.path().join("predictions.csv")).unwrap();
        let expected = "file,label,predicted,probability,correct\n\
            \"a \"\"b\"\".jpg\",cat,cat,0.750000,true\n\
            \"c\nd.jpg\",\"dog, big\",cat,0.500000,false\n\
            e.jpg,\"dog, big\",\"dog, big\",1.000000,true\n";
        assert_eq!(text, expected);
        assert!(save_predictions(dir.path(), &files, &[0], &[0.5, 0.5], &names).is_err());
    }
}
