//! SimSiam (Chen & He 2020, arXiv 2011.10566): the whole method on one screen.

use dfdx::prelude::{Backward, Cpu, CpuError, Gradients, NoneTape, PutTape, SplitTape, Trace};

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

/// Two views of the same n images, each [n, `image_size`, `image_size`, 3], normalised.
#[derive(Clone, Copy)]
pub struct Views<'a> {
    /// The first view of each image.
    pub x1: &'a [f32],
    /// The second view of each image.
    pub x2: &'a [f32],
    /// Number of images.
    pub n: usize,
    /// Width and height.
    pub image_size: usize,
}

/// What one forward and backward pass says.
pub struct StepOutput {
    /// D(p1, stop-gradient(z2)) / 2 + D(p2, stop-gradient(z1)) / 2, in [−1, 1].
    pub loss: f32,
    /// Mean over dimensions of the deviation of the L2-normalised z1 over the batch.
    pub embedding_std: f64,
    /// Gradients of projector and predictor. Those of the backbone are added to its own buffer.
    pub gradients: Gradients<f32, Cpu>,
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
        let device = Cpu::default();
        let backbone = Backbone::build(backbone, seed)?;
        let projector_rng = seeded_rng(seed, "projector weights", &[]);
        let predictor_rng = seeded_rng(seed, "predictor weights", &[]);
        let output_dim = projector.output_dim as usize;
        Ok(Self {
            projector: build_projector(projector, backbone.feature_dim(), &device, projector_rng),
            predictor: build_predictor(predictor, output_dim, &device, predictor_rng),
            backbone,
            device,
        })
    }

    /// Algorithm 1 of the paper up to the update: both views through f and h, the symmetrised loss, and the
    /// gradients of everything.
    ///
    /// # Errors
    /// Where the views do not have the length that n and `image_size` say, or n is 1.
    pub fn forward_backward(&mut self, views: Views<'_>) -> Result<StepOutput, SimSiamError> {
        let h1 = self.features(0, views.x1, views)?; // [n, feature_dim]
        let h2 = self.features(1, views.x2, views)?;

        let z1 = self.projector.forward(h1.leaky_trace())?; // [n, d]
        let z2 = self.projector.forward(h2.leaky_trace())?;
        // The one stop-gradient of the method: targets carry no tape, so nothing flows back through them.
        let (target1, target2) = (z1.retaped::<NoneTape>(), z2.retaped::<NoneTape>());

        let p1 = self.predictor.forward(z1)?; // [n, d]
        let p2 = self.predictor.forward(z2)?;
        let loss = (negative_cosine_similarity(p1, &target2)? + negative_cosine_similarity(p2, &target1)?) * 0.5;

        let (loss, tape) = loss.split_tape();
        let mut loss_value = [0.0];
        loss.copy_into(&mut loss_value);
        let gradients = loss.put_tape(tape).try_backward()?;
        self.backbone.backward(0, &matrix_values(&gradients.get(&h1)))?;
        self.backbone.backward(1, &matrix_values(&gradients.get(&h2)))?;
        Ok(StepOutput { loss: loss_value[0], embedding_std: embedding_std(&target1), gradients })
    }

    fn features(&mut self, pass: usize, images: &[f32], views: Views<'_>) -> Result<Matrix, SimSiamError> {
        let features = self.backbone.forward_train(pass, images, views.n, views.image_size)?;
        Ok(matrix_from_values(&self.device, features, views.n, self.backbone.feature_dim()))
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

    /// Multiply-adds of one view of one image, forward: backbone and heads.
    ///
    /// # Errors
    /// Where the backbone cannot take images of this size.
    pub fn multiply_adds(&self, image_size: usize) -> Result<(u64, u64), SimSiamError> {
        let heads = self.projector.multiply_adds() + self.predictor.multiply_adds();
        Ok((self.backbone.multiply_adds(image_size)?, heads))
    }
}
