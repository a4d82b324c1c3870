//! A backbone that no longer learns, with the view that it was made for.

use std::{ops::ControlFlow, path::Path};

use safetensors::{Dtype, SafeTensors};

use super::{
    embed::embed_images,
    eval_error::{EvalError, check_finite},
    raw_pixels::average_areas,
};
use crate::{
    augment::{EvaluationView, ImageRef, Scratch, augment_config::ChannelStats},
    model::backbone::{Backbone, BackboneConfig, StateData, StateEntry},
    train::Preprocessing,
};

/// A backbone in evaluation mode and how an image becomes its input.
#[derive(Debug)]
pub struct FrozenNetwork {
    backbone: Backbone,
    view: EvaluationView,
}

impl FrozenNetwork {
    /// The network whose weights lie in the safetensors file `weights`.
    ///
    /// # Errors
    /// Where the file cannot be read or its tensors do not fit the network.
    pub fn load(weights: &Path, config: &BackboneConfig, preprocessing: &Preprocessing) -> Result<Self, EvalError> {
        let unusable = |message: String| EvalError::Format { path: weights.to_owned(), message };
        let bytes = std::fs::read(weights).map_err(|source| EvalError::Io {
            action: "read",
            path: weights.to_owned(),
            source,
        })?;
        let entries = read_state(&bytes).map_err(unusable)?;
        let mut network = Self::untrained(config, 0, preprocessing)?;
        network.backbone.load_state_dict(&entries).map_err(|error| unusable(error.to_string()))?;
        Ok(network)
    }

    /// The network with the weights that training from `seed` would start from.
    ///
    /// # Errors
    /// Where the network cannot be built.
    pub fn untrained(config: &BackboneConfig, seed: u64, preprocessing: &Preprocessing) -> Result<Self, EvalError> {
        let backbone =
            Backbone::build(config, seed).map_err(|error| EvalError::Network { message: error.to_string() })?;
        let Preprocessing { image_size, evaluation, channel_stats } = preprocessing;
        Ok(Self { backbone, view: EvaluationView::new(*image_size, *evaluation, channel_stats) })
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
        let size = self.view.image_size();
        let features = embed_images(
            num_images,
            size,
            Scratch::default,
            |scratch, idx, out| {
                self.view.view(image(idx), scratch, out);
                Ok(())
            },
            |views, n| {
                self.backbone
                    .forward_eval(views, n, size)
                    .map_err(|error| EvalError::Network { message: error.to_string() })
            },
            observe,
        )?;
        if let Some(features) = &features {
            check_finite("the table of embeddings", features, self.feature_dim())?;
        }
        Ok(features)
    }
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

/// The tensors of a safetensors file, f32 and i64 as a network has them.
fn read_state(bytes: &[u8]) -> Result<Vec<StateEntry>, String> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| format!("not a safetensors file: {error}"))?;
    let entries = tensors.iter().map(|(name, tensor)| {
        let raw = tensor.data();
        let data = match tensor.dtype() {
            Dtype::F32 => StateData::F32(raw.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()),
            Dtype::I64 => StateData::I64(raw.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect()),
            other => return Err(format!("tensor `{name}` has the type {other:?}; networks have F32 and I64 only")),
        };
        Ok(StateEntry { name: name.to_owned(), shape: tensor.shape().to_vec(), data })
    });
    entries.collect()
}
