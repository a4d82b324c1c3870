//! A backbone that no longer learns, with the view that it was made for.

use std::{ops::ControlFlow, path::Path};

use super::{
    embed::embed_images,
    eval_error::{EvalError, check_finite},
    raw_pixels::average_areas,
};
use crate::{
    augment::{EvaluationView, ImageRef, Scratch, augment_config::ChannelStats},
    compute::{Compute, Inference},
    model::{
        backbone::{Backbone, BackboneConfig},
        state::StateError,
        weights::{WeightsError, load_backbone},
    },
    train::Preprocessing,
};

/// A backbone in evaluation mode and how an image becomes its input.
#[derive(Debug)]
pub struct FrozenNetwork {
    backbone: Backbone,
    inference: Inference,
    view: EvaluationView,
}

impl FrozenNetwork {
    /// The network whose weights lie in the safetensors file `weights`.
    ///
    /// # Errors
    /// Where the file cannot be read or its tensors do not fit the network.
    pub fn load(weights: &Path, config: &BackboneConfig, preprocessing: &Preprocessing) -> Result<Self, EvalError> {
        let backbone = read_backbone(weights, config)?;
        Ok(Self::new(backbone, preprocessing))
    }

    /// The network with the random weights that training from `seed` would start from.
    ///
    /// # Errors
    /// Where the network cannot be built.
    pub fn untrained(config: &BackboneConfig, seed: u64, preprocessing: &Preprocessing) -> Result<Self, EvalError> {
        let backbone =
            Backbone::build(config, seed).map_err(|error| EvalError::Network { message: error.to_string() })?;
        Ok(Self::new(backbone, preprocessing))
    }

    fn new(backbone: Backbone, preprocessing: &Preprocessing) -> Self {
        Self { backbone, inference: Inference::Cpu, view: preprocessing.view() }
    }

    /// The same network, run by what `compute` says.
    ///
    /// # Errors
    /// Where the device has too little memory or fails.
    pub fn on(mut self, compute: &Compute) -> Result<Self, EvalError> {
        self.inference = compute.inference(&self.backbone)?;
        Ok(self)
    }

    /// Length of an embedding.
    pub fn feature_dim(&self) -> usize {
        self.backbone.feature_dim()
    }

    /// Embeddings [num_images, feature_dim] of the images that `image` gives by index, or `None` where
    /// `observe` ended it.
    ///
    /// # Errors
    /// Where the network cannot take the images or its output is not finite.
    pub fn embed<'i>(
        &self,
        num_images: usize,
        image: impl Fn(usize) -> ImageRef<'i> + Sync + Send,
        observe: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<Vec<f32>>, EvalError> {
        let features = embed_images(
            num_images,
            self.view.image_size(),
            Scratch::default,
            |scratch, idx, out| {
                self.view(image(idx), scratch, out);
                Ok(())
            },
            |views, n| self.forward(views, n),
            observe,
        )?;
        if let Some(features) = &features {
            check_finite("the table of embeddings", features, self.feature_dim())?;
        }
        Ok(features)
    }

    /// Writes the view of an image, [size, size, 3], to `out`.
    pub fn view(&self, image: ImageRef<'_>, scratch: &mut Scratch, out: &mut [f32]) {
        self.view.view(image, scratch, out);
    }

    /// Embeddings [n, feature_dim] of `views` [n, size, size, 3].
    ///
    /// # Errors
    /// As [`Self::embed`].
    pub fn embed_views(&self, views: &[f32]) -> Result<Vec<f32>, EvalError> {
        let size = self.view.image_size();
        let features = self.forward(views, views.len() / (3 * size * size))?;
        check_finite("the table of embeddings", &features, self.feature_dim())?;
        Ok(features)
    }

    fn forward(&self, views: &[f32], n: usize) -> Result<Vec<f32>, EvalError> {
        Ok(self.inference.forward_eval(&self.backbone, views, n, self.view.image_size())?)
    }
}

/// The network whose weights lie in the safetensors file `weights`.
///
/// # Errors
/// Where the file cannot be read or its tensors do not fit the network.
pub fn read_backbone(weights: &Path, config: &BackboneConfig) -> Result<Backbone, EvalError> {
    let bytes =
        std::fs::read(weights).map_err(|source| EvalError::Io { action: "read", path: weights.to_owned(), source })?;
    load_backbone(&bytes, weights, config).map_err(|error| {
        let message = match error {
            // The path is said once.
            WeightsError::State(StateError::NotSafetensors { message, .. }) => {
                format!("not a readable safetensors file: {message}")
            }
            other => other.to_string(),
        };
        EvalError::Format { path: weights.to_owned(), message }
    })
}

/// The pixels themselves, [num_images, out_size · out_size · 3] in 0…1: each image through the evaluation view
/// without normalisation, then averaged over areas. `None` where `observe` ended it.
///
/// # Errors
/// None at present.
pub fn embed_raw_pixels<'i>(
    num_images: usize,
    image: impl Fn(usize) -> ImageRef<'i> + Sync + Send,
    preprocessing: &Preprocessing,
    out_size: usize,
    observe: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Vec<f32>>, EvalError> {
    let unit = ChannelStats { mean: [0.0; 3], std: [1.0; 3] };
    let view = EvaluationView::new(preprocessing.image_size, preprocessing.evaluation, &unit);
    let size = view.image_size();
    embed_images(
        num_images,
        size,
        Scratch::default,
        |scratch, idx, out| {
            view.view(image(idx), scratch, out);
            Ok(())
        },
        |views, _| Ok(views.chunks_exact(3 * size * size).flat_map(|v| average_areas(v, size, out_size)).collect()),
        observe,
    )
}
