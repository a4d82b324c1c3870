//! The backbone as the outside sees it.

use std::sync::{Mutex, PoisonError};

use super::backbone_config::{BackboneConfig, Stem};
use super::backbone_error::BackboneError;
use super::darknet_tiny::build_darknet_tiny;
use super::execute;
use super::init::initial_values;
use super::layers::Dims;
#[cfg(any(test, feature = "cuda"))]
use super::layers::conv_bn::RunningStatistics;
use super::op::Op;
use super::parameters::Parameters;
use super::program::{IMAGE_CHANNELS, Program};
use super::resnet::{Block, build_resnet};
use super::workspace::{Pass, SharedSlots, Workspace, inference_values, training_values};
use super::{StateEntry, state_dict};

/// The shape of one view in words.
const IMAGES_SHAPE: &str = "[n, image_size, image_size, 3]";

/// No image is longer than this; keeps products of edges far from overflow.
const MAX_IMAGE_SIZE: usize = 1 << 20;

/// A network from images to features, with its parameters, their gradients and the memory of its passes.
///
/// The same configuration, seed and input give the same bits, whatever the number of threads.
#[derive(Debug)]
pub struct Backbone {
    config: BackboneConfig,
    program: Program,
    parameters: Parameters,
    pass: Pass,
    gradient_slots: SharedSlots,
    workspace: Workspace,
    /// The first operation and the first value that learn.
    trained_from: (usize, usize),
    eval: Mutex<(SharedSlots, Workspace)>,
}

impl Backbone {
    /// Builds the network with initial weights drawn from `seed`.
    ///
    /// # Errors
    ///
    /// None at present; a configuration that cannot be built would be refused here.
    pub fn build(config: &BackboneConfig, seed: u64) -> Result<Backbone, BackboneError> {
        let program = build_program(*config);
        let zero_init_residual = match config {
            BackboneConfig::Resnet18(c) | BackboneConfig::Resnet34(c) | BackboneConfig::Resnet50(c) => {
                c.zero_init_residual
            }
            BackboneConfig::DarknetTiny(_) => false,
        };
        let values = initial_values(&program, seed, zero_init_residual);
        Ok(Self::of_values(*config, program, values))
    }

    /// The network with weights of 0, which take no memory yet: for whoever asks what it costs.
    pub fn zeroed(config: &BackboneConfig) -> Backbone {
        let program = build_program(*config);
        let values = vec![0.0; program.num_parameters()];
        Self::of_values(*config, program, values)
    }

    /// Builds the network with the weights of [`Self::state_dict`], as [`Self::load_state_dict`] takes them.
    ///
    /// # Errors
    ///
    /// Tensors that are missing, unexpected or of another shape, and values that are not finite.
    pub fn from_state_dict(config: &BackboneConfig, entries: &[StateEntry]) -> Result<Backbone, BackboneError> {
        let mut backbone = Self::zeroed(config);
        backbone.load_state_dict(entries)?;
        Ok(backbone)
    }

    fn of_values(config: BackboneConfig, program: Program, values: Vec<f32>) -> Backbone {
        let parameters = Parameters::new(&program, values);
        Backbone {
            config,
            program,
            parameters,
            pass: Pass::default(),
            gradient_slots: SharedSlots::default(),
            workspace: Workspace::default(),
            trained_from: (0, 0),
            eval: Mutex::default(),
        }
    }

    /// What it was built from.
    pub fn config(&self) -> &BackboneConfig {
        &self.config
    }

    /// The operations it consists of.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Length of one feature vector.
    pub fn feature_dim(&self) -> usize {
        self.program.feature_dim
    }

    /// How many values are trained.
    pub fn num_parameters(&self) -> usize {
        self.parameters.values().len()
    }

    /// All trained values, flat, in the engine's own layout.
    pub fn values(&self) -> &[f32] {
        self.parameters.values()
    }

    /// All trained values, to be changed.
    pub fn values_mut(&mut self) -> &mut [f32] {
        self.parameters.change().0
    }

    /// The gradients of `values`, in the same order.
    pub fn gradients(&mut self) -> &[f32] {
        self.parameters.gradients()
    }

    /// Forgets the gradients.
    pub fn zero_gradients(&mut self) {
        self.parameters.forget_gradients();
    }

    /// Values and gradients at once, for the optimiser.
    pub fn values_and_gradients_mut(&mut self) -> (&mut [f32], &[f32]) {
        self.parameters.change()
    }

    /// Running statistics by batch norm.
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn running_statistics(&self) -> &[RunningStatistics] {
        &self.parameters.running
    }

    /// The same, to be changed.
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn running_statistics_mut(&mut self) -> &mut [RunningStatistics] {
        &mut self.parameters.running
    }

    /// How many blocks there are: the stem, each residual block, and what lies between them.
    pub fn num_blocks(&self) -> usize {
        self.program.blocks().len()
    }

    /// Lets only the last `blocks` learn, or all where there are no more. What comes before them stays as it is, running
    /// statistics and all, and works in evaluation mode.
    pub fn train_last_blocks(&mut self, blocks: usize) {
        let all = self.program.blocks();
        let first = all.len().saturating_sub(blocks);
        let end = (self.program.ops.len(), self.num_parameters());
        self.trained_from = all.get(first).map_or(end, |block| (block.first_op, block.first_value));
        if first == 0 {
            self.trained_from = (0, 0);
        }
    }

    /// Where the values that learn begin; they reach to the end.
    pub fn first_trained_value(&self) -> usize {
        self.trained_from.1
    }

    /// Features `[views · n, feature_dim]` of normalised images, each view `[n, image_size, image_size, 3]`. Each view is
    /// normalised with its own statistics, as if it had come alone, and moves the running statistics in its turn. What
    /// `backward` needs is kept.
    ///
    /// # Errors
    ///
    /// Images that are too small or a batch that is too large, a batch norm that would see a single value per
    /// channel, a slice of the wrong length, no view.
    pub fn forward_train(&mut self, views: &[&[f32]], n: usize, image_size: usize) -> Result<Vec<f32>, BackboneError> {
        let dims = self.check_views(views, n, image_size)?;
        let total = views.len() * n;
        self.pass.fit(&self.program, dims, total, views.len());
        let Self { program, parameters, pass, workspace, trained_from: (frozen, _), .. } = self;
        Ok(execute::forward_train(program, parameters, pass, views, n, *frozen, workspace))
    }

    /// The shapes of all slots for views that [`Self::forward_train`] takes.
    pub(crate) fn check_views(
        &self,
        views: &[&[f32]],
        n: usize,
        image_size: usize,
    ) -> Result<Vec<Dims>, BackboneError> {
        let total = n.checked_mul(views.len()).ok_or(BackboneError::TooLarge { n, image_size })?;
        if total == 0 {
            return Err(BackboneError::EmptyBatch);
        }
        let dims = self.slot_dims(total, image_size)?;
        for images in views {
            check_length("images", IMAGES_SHAPE, images.len(), n * image_size * image_size * IMAGE_CHANNELS)?;
        }
        for op in &self.program.ops {
            if let Op::ConvBn { layer, .. } = op
                && n * Program::conv_dims(op, &dims).positions() < 2
            {
                let layer = self.program.norms[layer.norm].name.clone();
                return Err(BackboneError::SingleValuePerChannel { layer, n, image_size });
            }
        }
        Ok(dims)
    }

    /// Adds the gradients for `grad_features` `[views · n, feature_dim]` and consumes what `forward_train` kept.
    ///
    /// # Errors
    ///
    /// Nothing was kept, a slice of the wrong length.
    pub fn backward(&mut self, grad_features: &[f32]) -> Result<(), BackboneError> {
        if self.pass.n == 0 {
            return Err(BackboneError::NothingKept);
        }
        let expected = self.pass.n * self.program.feature_dim;
        check_length("grad_features", "[views · n, feature_dim]", grad_features.len(), expected)?;
        self.gradient_slots.fit_gradients(&self.program, &self.pass.dims, self.pass.n);
        let Self { program, parameters, pass, gradient_slots, workspace, trained_from: (frozen, _), .. } = self;
        execute::backward(program, parameters, pass, gradient_slots, grad_features, *frozen, workspace);
        Ok(())
    }

    /// Features `[n, feature_dim]` of normalised images `[n, image_size, image_size, 3]` with running statistics.
    /// Nothing is kept.
    ///
    /// # Errors
    ///
    /// Images that are too small or a batch that is too large, a slice of the wrong length.
    pub fn forward_eval(&self, images: &[f32], n: usize, image_size: usize) -> Result<Vec<f32>, BackboneError> {
        let dims = self.check_batch(images, n, image_size)?;
        // Taken, not held: a second caller at the same time gets memory of its own.
        let take = || std::mem::take(&mut *self.eval.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut slots, mut workspace) = take();
        slots.fit_activations(&self.program, &dims, n);
        let features =
            execute::forward_eval(&self.program, &self.parameters, &mut slots, &dims, images, n, &mut workspace);
        *self.eval.lock().unwrap_or_else(PoisonError::into_inner) = (slots, workspace);
        Ok(features)
    }

    /// Parameters and statistics under torchvision's names and in PyTorch's shapes.
    pub fn state_dict(&self) -> Vec<StateEntry> {
        state_dict::state_dict(&self.program, &self.parameters)
    }

    /// Takes over a state; nothing is changed on an error.
    ///
    /// # Errors
    ///
    /// Tensors that are missing, unexpected or of another shape or type (all of them are listed), values that are
    /// not finite, negative variances.
    pub fn load_state_dict(&mut self, entries: &[StateEntry]) -> Result<(), BackboneError> {
        state_dict::load_state_dict(self.config.name(), &self.program, &mut self.parameters, entries)
    }

    /// About how many bytes training holds with `n` images (of all views together) in memory: values and gradients,
    /// what is kept for the way back, and what kernels work with. The optimiser's own is not counted.
    ///
    /// # Errors
    ///
    /// Images that are too small, a batch that cannot be addressed.
    pub fn training_bytes(&self, n: usize, image_size: usize) -> Result<u64, BackboneError> {
        let dims = self.slot_dims(n, image_size)?;
        let values = 2 * self.num_parameters() + training_values(&self.program, &dims, n);
        Ok(values as u64 * size_of::<f32>() as u64)
    }

    /// About how many bytes inference holds with `n` images in memory: values, activations, and what kernels work with.
    ///
    /// # Errors
    ///
    /// Images that are too small, a batch that cannot be addressed.
    pub fn inference_bytes(&self, n: usize, image_size: usize) -> Result<u64, BackboneError> {
        let dims = self.slot_dims(n, image_size)?;
        let values = self.num_parameters() + inference_values(&self.program, &dims, n);
        Ok(values as u64 * size_of::<f32>() as u64)
    }

    /// Multiply-adds of the convolutions for one image, forward.
    ///
    /// # Errors
    ///
    /// Images that are too small.
    pub fn multiply_adds(&self, image_size: usize) -> Result<u64, BackboneError> {
        Ok(self.program.multiply_adds(&self.slot_dims(1, image_size)?))
    }

    /// Smallest edge of an image in pixels.
    pub fn minimum_image_size(&self) -> usize {
        self.program.minimum_image_size()
    }

    fn slot_dims(&self, n: usize, image_size: usize) -> Result<Vec<Dims>, BackboneError> {
        let too_large = BackboneError::TooLarge { n, image_size };
        if image_size > MAX_IMAGE_SIZE {
            return Err(too_large);
        }
        let dims = self.program.slot_dims(image_size).ok_or_else(|| BackboneError::ImageTooSmall {
            backbone: self.config.name(),
            image_size,
            minimum: self.program.minimum_image_size(),
        })?;
        let addressable =
            |d: Dims| n.checked_mul(d.len()).is_some_and(|len| len <= isize::MAX as usize / size_of::<f32>());
        let conv_dims = self.program.ops.iter().map(|op| Program::conv_dims(op, &dims));
        if conv_dims.chain(dims.iter().copied()).all(addressable) { Ok(dims) } else { Err(too_large) }
    }

    /// The shapes of all slots for images that [`Self::forward_eval`] takes.
    pub(crate) fn check_batch(&self, images: &[f32], n: usize, image_size: usize) -> Result<Vec<Dims>, BackboneError> {
        if n == 0 {
            return Err(BackboneError::EmptyBatch);
        }
        let dims = self.slot_dims(n, image_size)?;
        let expected = n * image_size * image_size * IMAGE_CHANNELS;
        check_length("images", IMAGES_SHAPE, images.len(), expected)?;
        Ok(dims)
    }
}

fn check_length(what: &'static str, shape: &'static str, actual: usize, expected: usize) -> Result<(), BackboneError> {
    if actual == expected { Ok(()) } else { Err(BackboneError::WrongLength { what, shape, expected, actual }) }
}

fn build_program(config: BackboneConfig) -> Program {
    let resnet = |block, depths, stem: Stem| build_resnet(block, depths, stem);
    match config {
        BackboneConfig::Resnet18(c) => resnet(Block::Basic, [2, 2, 2, 2], c.stem),
        BackboneConfig::Resnet34(c) => resnet(Block::Basic, [3, 4, 6, 3], c.stem),
        BackboneConfig::Resnet50(c) => resnet(Block::Bottleneck, [3, 4, 6, 3], c.stem),
        BackboneConfig::DarknetTiny(_) => build_darknet_tiny(),
    }
}
