//! Any artifact that holds a network, and its network on images from anywhere.

use std::path::{Path, PathBuf};

use super::{
    classifier_artifact::{self, ClassifierCard, Head, load_classifier},
    embed::batch_size,
    embeddings::{self, BACKBONE_FILE, EmbeddingsCard},
    eval_error::EvalError,
    frozen_network::{FrozenNetwork, read_backbone},
    tensor_file::{format_error, load_json},
};
use crate::{
    augment::{Scratch, resample::ResampleScratch},
    data::{
        decode::{DecodeOptions, OwnedImage},
        ingest::resize,
        ingest_config::ResizeConfig,
    },
    model::backbone::{Backbone, BackboneConfig},
    train::{EncoderCard, Preprocessing, encoder_card},
};

/// The artifact of a `pretrain`, `extract` or `fit` stage: what is needed to use its network elsewhere.
#[derive(Clone, Debug)]
pub struct ModelArtifact {
    /// Its folder.
    pub dir: PathBuf,
    /// The network.
    pub backbone: BackboneConfig,
    /// Its weights.
    pub weights: PathBuf,
    /// How an image becomes its input.
    pub preprocessing: Preprocessing,
    /// Length of an embedding.
    pub feature_dim: usize,
    /// The classifier of a `fit` stage.
    pub classifier: Option<(ClassifierCard, Head)>,
}

impl ModelArtifact {
    /// Opens the artifact in `dir`, whichever of the three it is.
    ///
    /// # Errors
    /// Where it is none of them, or a file is missing, damaged, or of a version that this program does not know.
    pub fn open(dir: &Path) -> Result<Self, EvalError> {
        let holds = |name: &str| dir.join(name).is_file();
        let (backbone, weights, preprocessing, feature_dim, classifier) = if holds(classifier_artifact::CARD_FILE) {
            let (card, head) = load_classifier(dir)?;
            (card.backbone, BACKBONE_FILE, card.preprocessing, card.feature_dim, Some((card, head)))
        } else if holds(embeddings::CARD_FILE) {
            let card: EmbeddingsCard = embeddings::load_card(dir)?;
            (card.encoder.backbone, BACKBONE_FILE, card.preprocessing(), card.feature_dim, None)
        } else if holds(encoder_card::CARD_FILE) {
            let card = load_encoder_card(dir)?;
            (card.backbone, encoder_card::WEIGHTS_FILE, card.preprocessing, card.feature_dim, None)
        } else {
            return Err(EvalError::NoModel { path: dir.to_owned() });
        };
        if let Some(problem) = preprocessing.problem() {
            return Err(format_error(dir, format!("the preparation of images in its card: {problem}")));
        }
        let (dir, feature_dim) = (dir.to_owned(), feature_dim as usize);
        Ok(Self { weights: dir.join(weights), dir, backbone, preprocessing, feature_dim, classifier })
    }

    /// The network with its weights.
    ///
    /// # Errors
    /// As [`Self::network`].
    pub fn backbone(&self) -> Result<Backbone, EvalError> {
        let backbone = read_backbone(&self.weights, &self.backbone)?;
        self.check_feature_dim(backbone.feature_dim())?;
        Ok(backbone)
    }

    fn check_feature_dim(&self, made: usize) -> Result<(), EvalError> {
        let message = "`feature_dim` is not what the backbone makes";
        if made == self.feature_dim { Ok(()) } else { Err(format_error(&self.dir, message)) }
    }

    /// The network, ready for images.
    ///
    /// # Errors
    /// Where the weights cannot be read or are not the network's.
    pub fn network(&self) -> Result<ImageNetwork, EvalError> {
        let network = FrozenNetwork::load(&self.weights, &self.backbone, &self.preprocessing)?;
        self.check_feature_dim(network.feature_dim())?;
        let image_size = self.preprocessing.image_size as usize;
        let Preprocessing { resize, background, .. } = self.preprocessing;
        Ok(ImageNetwork { network, resize, background, image_size })
    }
}

/// Reads `encoder.json`.
///
/// # Errors
/// Where it is missing, damaged, or of a version that this program does not know.
pub fn load_encoder_card(dir: &Path) -> Result<EncoderCard, EvalError> {
    let path = dir.join(encoder_card::CARD_FILE);
    let card: EncoderCard = load_json(&path)?;
    if card.format != encoder_card::ENCODER_FORMAT {
        let message =
            format!("format {} is not {}, the one that this version reads", card.format, encoder_card::ENCODER_FORMAT);
        return Err(format_error(&path, message));
    }
    Ok(card)
}

/// Room for the images of one thread.
#[derive(Default)]
pub struct ImageScratch {
    resample: ResampleScratch,
    view: Scratch,
}

/// A network with all that was done to the images that it knows: resized as they were stored, then the view.
#[derive(Debug)]
pub struct ImageNetwork {
    network: FrozenNetwork,
    resize: ResizeConfig,
    background: [u8; 3],
    image_size: usize,
}

impl ImageNetwork {
    /// Length of an embedding.
    pub fn feature_dim(&self) -> usize {
        self.network.feature_dim()
    }

    /// Images that are best embedded together.
    pub fn batch_size(&self) -> usize {
        batch_size(self.image_size)
    }

    /// Values of a view.
    pub fn view_len(&self) -> usize {
        3 * self.image_size * self.image_size
    }

    /// How an image file is decoded, as those that it knows were.
    pub fn decode_options(&self) -> DecodeOptions {
        DecodeOptions { background: self.background, ..DecodeOptions::default() }
    }

    /// Writes the view of a decoded image, [size, size, 3], to `out`; gives the image as it would be stored.
    pub fn view(&self, image: OwnedImage, scratch: &mut ImageScratch, out: &mut [f32]) -> OwnedImage {
        let image = resize(image, &self.resize, &mut scratch.resample);
        self.network.view(image.as_ref(), &mut scratch.view, out);
        image
    }

    /// Embeddings [n, feature_dim] of `views` [n, size, size, 3].
    ///
    /// # Errors
    /// Where the network cannot take them or its output is not finite.
    pub fn embed(&self, views: &[f32]) -> Result<Vec<f32>, EvalError> {
        self.network.embed_views(views)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_without_a_network_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = ModelArtifact::open(dir.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("holds no network: it is no artifact of a `pretrain`, `extract` or `fit` stage"),
            "{error}"
        );
        std::fs::write(dir.path().join(encoder_card::CARD_FILE), "{}").unwrap();
        assert!(matches!(ModelArtifact::open(dir.path()), Err(EvalError::Format { .. })));
    }
}
