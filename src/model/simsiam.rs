//! SimSiam (Chen & He 2020, arXiv 2011.10566): the whole method on one screen.

use dfdx::prelude::{Backward, Cpu, CpuError, HasShape, NoneTape, PutTape, SplitTape, Trace};

use super::{
    backbone::{Backbone, BackboneConfig, BackboneError},
    embedding_std::embedding_std,
    head::Head,
    predictor::{PredictorConfig, build_predictor},
    projector::{ProjectorConfig, build_projector},
    state::{StateEntry, StateError, StateMap},
};
use crate::{
    ops::{Matrix, matrix_from_values, matrix_values, negative_cosine_similarity::negative_cosine_similarity},
    profile::{Work, enter_layer, span},
    seed::seeded_rng,
};

/// Backbone, projector and predictor. Backbone and projector together are the paper's encoder f.
pub struct SimSiam {
    /// The network whose output is the features.
    pub backbone: Backbone,
    /// The MLP between features and z.
    pub projector: Head,
    /// The MLP h between z and p.
    pub predictor: Head,
    device: Cpu,
}

/// Views of the same n images, two as in the paper or more.
#[derive(Clone)]
pub struct Views<'a> {
    /// The first view of each image, the second, and so on: each [n, `image_size`, `image_size`, 3], normalised.
    pub x: Vec<&'a [f32]>,
    /// Number of images.
    pub n: usize,
    /// Width and height.
    pub image_size: usize,
}

impl<'a> Views<'a> {
    /// Number `part` of `parts` equal parts.
    ///
    /// # Errors
    /// Where n is no multiple of `parts`.
    pub fn part(&self, part: usize, parts: usize) -> Result<Self, SimSiamError> {
        if parts == 0 || !self.n.is_multiple_of(parts) {
            return Err(SimSiamError::Parts { n: self.n, parts });
        }
        // Views of a wrong length are still wrong in parts, and the backbone says so.
        let cut = |x: &&'a [f32]| &x[part * (x.len() / parts)..][..x.len() / parts];
        Ok(Self { x: self.x.iter().map(cut).collect(), n: self.n / parts, image_size: self.image_size })
    }
}

/// What one forward and backward pass says. The gradients are in the networks.
#[derive(Clone, Copy, Debug)]
pub struct StepOutput {
    /// D(p1, stop-gradient(z2)) / 2 + D(p2, stop-gradient(z1)) / 2, in [−1, 1]; of more views the mean over all
    /// pairs.
    pub loss: f32,
    /// Mean over dimensions of the deviation of the L2-normalised z1 over the batch.
    pub embedding_std: f64,
}

/// Why a network cannot be built or run.
#[derive(Debug, thiserror::Error)]
pub enum SimSiamError {
    /// The backbone refused.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// dfdx refused.
    #[error("the heads failed: {0}")]
    Heads(#[from] CpuError),
    /// A batch that is not cut into equal parts.
    #[error("a batch of {n} images cannot be cut into {parts} equal parts")]
    Parts {
        /// Images in the batch.
        n: usize,
        /// Parts asked for.
        parts: usize,
    },
    /// Nothing to compare.
    #[error("{found} views of an image cannot be compared: there must be two at least")]
    TooFewViews {
        /// Views of each image.
        found: usize,
    },
    /// Saved tensors do not fit.
    #[error(transparent)]
    State(#[from] StateError),
}

impl SimSiam {
    /// Builds the networks with initial weights that depend on the seed alone.
    ///
    /// # Errors
    /// As [`Backbone::build`].
    pub fn build(
        backbone: &BackboneConfig,
        projector: &ProjectorConfig,
        predictor: &PredictorConfig,
        seed: u64,
    ) -> Result<Self, SimSiamError> {
        let backbone = Backbone::build(backbone, seed)?;
        let projector_rng = seeded_rng(seed, "projector weights", &[]);
        let predictor_rng = seeded_rng(seed, "predictor weights", &[]);
        let output_dim = projector.output_dim as usize;
        Ok(Self {
            projector: build_projector(projector, backbone.feature_dim(), projector_rng),
            predictor: build_predictor(predictor, output_dim, predictor_rng),
            backbone,
            device: Cpu::default(),
        })
    }

    /// Algorithm 1 of the paper up to the update: all views through f and h, the symmetrised loss, and the
    /// gradients of everything, times `share`, added to those that are there.
    ///
    /// The v views go through the networks as one batch of v·n rows, the first view above the second. Every batch norm
    /// keeps them apart, so the result is that of v passes, and each weight is read and each gradient written once.
    ///
    /// # Errors
    /// Where there are fewer than two views, they do not have the length that n and `image_size` say, or n is 1.
    pub fn forward_backward(&mut self, views: &Views<'_>, share: f32) -> Result<StepOutput, SimSiamError> {
        let Views { x, n, image_size } = views;
        let (v, n) = (x.len(), *n);
        if v < 2 {
            return Err(SimSiamError::TooFewViews { found: v });
        }
        let features = self.backbone.forward_train(x, n, *image_size)?;
        let h = matrix_from_values(&self.device, features, v * n, self.backbone.feature_dim()); // [v·n, feature_dim]

        let z = self.projector.forward(h.leaky_trace(), v)?; // [v·n, d]
        // The one stop-gradient of the method: targets carry no tape, so nothing flows back through them.
        let target = z.retaped::<NoneTape>();
        let p = self.predictor.forward(z, v)?; // [v·n, d]

        // Two views: p1 is to match z2 and p2 is to match z1; the mean over 2n rows is D(p1, z2) / 2 + D(p2, z1) / 2.
        // More: each p is to match the z of every other view, one after the other.
        enter_layer("loss");
        let others: Vec<Matrix> = (1..v).map(|shift| rotate_rows(&target, shift * n)).collect();
        let loss = span(Work::Loss, 0.0, || negative_cosine_similarity(p, &others))?;
        let (loss, tape) = loss.split_tape();
        let mut loss_value = [0.0];
        loss.copy_into(&mut loss_value);
        let gradients = (loss.put_tape(tape) * share).try_backward()?;
        self.backbone.backward(&matrix_values(&gradients.get(&h)))?;
        Ok(StepOutput { loss: loss_value[0], embedding_std: embedding_std(&target, n) })
    }

    /// Forgets all gradients.
    pub fn zero_gradients(&mut self) {
        self.backbone.zero_gradients();
        self.projector.parameters.zero_gradients();
        self.predictor.parameters.zero_gradients();
    }

    /// Every tensor: `backbone.…` under torchvision's names, `projector.…` and `predictor.…` as PyTorch would
    /// number them.
    pub fn state_dict(&self) -> Vec<StateEntry> {
        let mut entries = self.backbone.state_dict();
        for entry in &mut entries {
            entry.name.insert_str(0, "backbone.");
        }
        entries.extend(self.projector.state_dict());
        entries.extend(self.predictor.state_dict());
        entries
    }

    /// Takes every tensor from what [`Self::state_dict`] gave; others are ignored.
    ///
    /// # Errors
    /// Where a tensor is missing, of another shape or not finite.
    pub fn load_state_dict(&mut self, entries: &[StateEntry]) -> Result<(), SimSiamError> {
        let backbone: Vec<StateEntry> = entries
            .iter()
            .filter_map(|entry| {
                Some(StateEntry { name: entry.name.strip_prefix("backbone.")?.into(), ..entry.clone() })
            })
            .collect();
        self.backbone.load_state_dict(&backbone)?;
        let state = StateMap::new(entries);
        self.projector.load_state_dict(&state)?;
        self.predictor.load_state_dict(&state)?;
        Ok(())
    }

    /// About how many bytes training holds with so many views of n images of this size in a part: weights, gradients
    /// and velocities, what is kept for the way back, and what kernels work with.
    ///
    /// # Errors
    /// Where the backbone cannot take images of this size.
    pub fn training_bytes(&self, views: usize, n: usize, image_size: usize) -> Result<u64, SimSiamError> {
        let heads = [&self.projector, &self.predictor];
        let parameters: usize = heads.iter().map(|head| head.parameters.values().len()).sum();
        // Each layer keeps its input and its output, and their gradients come and go.
        let activations: usize = heads.iter().map(|head| head.values_per_row()).sum::<usize>() * views * n * 4;
        let velocity = self.backbone.num_parameters();
        let own = (3 * parameters + activations + velocity) as u64 * size_of::<f32>() as u64;
        Ok(own + self.backbone.training_bytes(views * n, image_size)?)
    }

    /// Multiply-adds of one view of one image, forward: backbone and heads.
    ///
    /// # Errors
    /// Where the backbone cannot take images of this size.
    pub fn multiply_adds(&self, image_size: usize) -> Result<(u64, u64), SimSiamError> {
        let heads = self.projector.multiply_adds() + self.predictor.multiply_adds();
        Ok((self.backbone.multiply_adds(image_size)?, heads))
    }
}

/// The rows from `first` on above those before: beside each row one of another view.
fn rotate_rows(matrix: &Matrix, first: usize) -> Matrix {
    let (rows, columns) = *matrix.shape();
    let mut values = matrix_values(matrix);
    values.rotate_left(first * columns);
    matrix_from_values(matrix.device(), values, rows, columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::backbone::backbone_config::DarknetTinyConfig, seed::uniform};

    /// The loss of these views, and the gradient of the backbone.
    fn gradients(x: Vec<&[f32]>) -> (f64, Vec<f32>) {
        let backbone = BackboneConfig::DarknetTiny(DarknetTinyConfig {});
        let projector = ProjectorConfig { hidden_dim: 8, output_dim: 8, ..ProjectorConfig::default() };
        let mut model = SimSiam::build(&backbone, &projector, &PredictorConfig { hidden_dim: 4 }, 0).unwrap();
        model.zero_gradients();
        let output = model.forward_backward(&Views { x, n: 4, image_size: 16 }, 1.0).unwrap();
        (f64::from(output.loss), model.backbone.values_and_gradients_mut().1.to_vec())
    }

    #[test]
    fn three_views_are_the_mean_of_their_pairs() {
        let view = |idx| {
            let mut rng = seeded_rng(3, "views", &[idx]);
            (0..4 * 16 * 16 * 3).map(|_| uniform(&mut rng, -1.0, 1.0) as f32).collect::<Vec<_>>()
        };
        let (a, b, c) = (view(0), view(1), view(2));
        let (loss, gradient) = gradients(vec![&a, &b, &c]);
        let pairs = [gradients(vec![&a, &b]), gradients(vec![&b, &c]), gradients(vec![&a, &c])];
        let mean = pairs.iter().map(|(loss, _)| loss).sum::<f64>() / 3.0;
        assert!((loss - mean).abs() < 1e-5, "{loss} {mean}");
        let (mut off, mut size) = (0.0, 0.0);
        for (idx, value) in gradient.iter().enumerate() {
            let mean = pairs.iter().map(|(_, gradient)| gradient[idx]).sum::<f32>() / 3.0;
            off += f64::from(value - mean).powi(2);
            size += f64::from(mean).powi(2);
        }
        // Kernels add in another order for another number of rows, and batch norms over four images enlarge that.
        assert!(off.sqrt() < 0.01 * size.sqrt(), "{off} of {size}");
    }

    #[test]
    fn one_view_is_nothing_to_compare() {
        let backbone = BackboneConfig::DarknetTiny(DarknetTinyConfig {});
        let (projector, predictor) = (ProjectorConfig::default(), PredictorConfig::default());
        let mut model = SimSiam::build(&backbone, &projector, &predictor, 0).unwrap();
        let x = vec![0.0; 2 * 16 * 16 * 3];
        let result = model.forward_backward(&Views { x: vec![&x], n: 2, image_size: 16 }, 1.0);
        assert!(matches!(result, Err(SimSiamError::TooFewViews { found: 1 })));
    }
}
