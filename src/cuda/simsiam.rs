//! A training step of SimSiam on a device. `model/simsiam.rs` says what is computed; this says it again for memory that
//! the host does not see.

use std::sync::Arc;

use super::{
    backbone::DeviceBackbone,
    cuda_error::CudaError,
    device::{Device, Memory, Slice},
    head::DeviceHead,
    launch::{Kernels, MAX_VIEWS, SgdBuffers, SgdRule},
    parameters::{Layout, Parameters, Place},
    precision::Precision,
};
use crate::model::{
    backbone::Backbone,
    simsiam::{SimSiam, SimSiamError, StepOutput, Views},
};

/// By what the gradients of f16 are larger at first.
const FIRST_LOSS_SCALE: f32 = 65536.0;
/// Steps without overflow after which the loss scale is doubled.
const STEPS_UNTIL_DOUBLED: u32 = 2000;

/// By what the loss of f16 is multiplied, so that small gradients do not vanish: halved where one overflows, doubled when
/// none has for long. 1 for every other precision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    /// The factor, a power of two.
    pub factor: f32,
    /// Steps since it changed.
    pub good_steps: u32,
}

impl LossScale {
    fn new(precision: Precision) -> Self {
        Self { factor: if precision == Precision::F16 { FIRST_LOSS_SCALE } else { 1.0 }, good_steps: 0 }
    }

    /// After a step; whether another one can be tried.
    fn observe(&mut self, overflow: bool) -> bool {
        if overflow {
            *self = Self { factor: self.factor / 2.0, good_steps: 0 };
            return self.factor >= 1.0;
        }
        self.good_steps += 1;
        if self.good_steps == STEPS_UNTIL_DOUBLED {
            *self = Self { factor: (self.factor * 2.0).min(FIRST_LOSS_SCALE), good_steps: 0 };
        }
        true
    }
}

/// Numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CudaRates {
    /// Learning rate of backbone and projector.
    pub encoder: f64,
    /// That of the predictor.
    pub predictor: f64,
    /// Of both.
    pub momentum: f64,
    /// Of both.
    pub weight_decay: f64,
}

/// What one step says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CudaStep {
    /// The loss before the update, in [−1, 1]; not a number where the gradients of f16 overflow whatever the scale.
    pub loss: f64,
    /// See [`StepOutput`].
    pub embedding_std: f64,
}

/// Backbone, projector, predictor and their update in a device's memory.
#[derive(Debug)]
pub struct CudaSimSiam {
    kernels: Kernels,
    parameters: Parameters,
    backbone: DeviceBackbone,
    projector: DeviceHead,
    predictor: DeviceHead,
    /// The values of backbone and projector, and those of the predictor.
    encoder_range: Place,
    predictor_range: Place,
    output_dim: usize,
    loss_scale: LossScale,
    /// Set where a gradient is not finite.
    flag: Memory,
    /// The loss and `embedding_std`.
    result: Memory,
    pass: Option<Pass>,
    /// Whether the gradients hold anything.
    has_gradients: bool,
}

/// Memory of the loss.
#[derive(Debug)]
struct Pass {
    rows: usize,
    grad_p: Memory,
    per_row: Memory,
    per_column: Memory,
}

impl CudaSimSiam {
    /// The networks of `host` with its values and without velocities.
    ///
    /// # Errors
    /// Where the device has too little memory or fails.
    pub fn new(device: &Arc<dyn Device>, host: &SimSiam) -> Result<Self, CudaError> {
        let kernels = Kernels::new(device);
        let mut layout = Layout::default();
        let backbone = DeviceBackbone::new(&kernels, &host.backbone, &mut layout)?;
        let projector = DeviceHead::new(&kernels, &host.projector, &mut layout)?;
        let encoder_range = Place { offset: 0, len: layout.len() };
        let predictor = DeviceHead::new(&kernels, &host.predictor, &mut layout)?;
        let predictor_range = Place { offset: encoder_range.len, len: layout.len() - encoder_range.len };
        let mut simsiam = Self {
            parameters: Parameters::new(&kernels, layout, true)?,
            backbone,
            projector,
            output_dim: host.predictor.output_dim(),
            predictor,
            encoder_range,
            predictor_range,
            loss_scale: LossScale::new(kernels.precision()),
            flag: Memory::zeros(device, 4)?,
            result: Memory::zeros(device, 16)?,
            kernels,
            pass: None,
            has_gradients: false,
        };
        simsiam.load(host)?;
        Ok(simsiam)
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn Device> {
        self.kernels.device()
    }

    /// Takes the values and running statistics of `host`.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn load(&mut self, host: &SimSiam) -> Result<(), CudaError> {
        self.backbone.load(&self.parameters, &host.backbone)?;
        self.projector.load(&self.parameters, &host.projector)?;
        self.predictor.load(&self.parameters, &host.predictor)?;
        self.parameters.refresh_weights()
    }

    /// Gives values and running statistics to `host`.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn store(&self, host: &mut SimSiam) -> Result<(), CudaError> {
        self.backbone.store(&self.parameters, &mut host.backbone)?;
        self.projector.store(&self.parameters, &mut host.projector)?;
        self.predictor.store(&self.parameters, &mut host.predictor)
    }

    /// By what the loss is multiplied at present.
    pub fn loss_scale(&self) -> LossScale {
        self.loss_scale
    }

    /// Goes on with the scale of an earlier training of the same precision.
    pub fn set_loss_scale(&mut self, loss_scale: LossScale) {
        if self.kernels.precision() == Precision::F16 {
            self.loss_scale = loss_scale;
        }
    }

    /// Where tensors lie in the host's flat buffers of backbone, projector and predictor, and here.
    fn pairs(&self, host: &SimSiam) -> [Vec<(usize, Place)>; 3] {
        let backbone = self.backbone.pairs().collect();
        [backbone, self.projector.pairs(&host.projector), self.predictor.pairs(&host.predictor)]
    }

    /// Takes velocities of backbone, projector and predictor in the host's order.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn load_velocities(&mut self, host: &SimSiam, velocities: [&[f32]; 3]) -> Result<(), CudaError> {
        for (pairs, velocity) in self.pairs(host).into_iter().zip(velocities) {
            for (offset, place) in pairs {
                self.parameters.write_velocity(place, &velocity[offset..][..place.len])?;
            }
        }
        Ok(())
    }

    /// Gives them back.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn store_velocities(&self, host: &SimSiam, velocities: [&mut [f32]; 3]) -> Result<(), CudaError> {
        for (pairs, velocity) in self.pairs(host).into_iter().zip(velocities) {
            for (offset, place) in pairs {
                self.parameters.read_velocity(place, &mut velocity[offset..][..place.len])?;
            }
        }
        Ok(())
    }

    /// The gradients of backbone, projector and predictor in the host's order, as large as the loss scale makes them.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn gradients(&self, host: &SimSiam) -> Result<[Vec<f32>; 3], CudaError> {
        let mut gradients = [
            vec![0.0; host.backbone.num_parameters()],
            vec![0.0; host.projector.parameters.values().len()],
            vec![0.0; host.predictor.parameters.values().len()],
        ];
        for (pairs, gradient) in self.pairs(host).into_iter().zip(&mut gradients) {
            for (offset, place) in pairs {
                self.parameters.read_gradient(place, &mut gradient[offset..][..place.len])?;
            }
        }
        Ok(gradients)
    }

    /// Forgets the gradients: the next pass writes them where it would add to them.
    pub fn zero_gradients(&mut self) {
        self.has_gradients = false;
    }

    /// As [`SimSiam::forward_backward`], with gradients that are larger by the loss scale. `host` says what batches the
    /// network takes.
    ///
    /// # Errors
    /// As that, and where the device has too little memory or fails.
    pub fn forward_backward(&mut self, host: &SimSiam, views: &Views<'_>, share: f32) -> Result<StepOutput, CudaError> {
        let Views { x, n, image_size } = views;
        let (num_views, n) = (x.len(), *n);
        if num_views < 2 {
            return Err(SimSiamError::TooFewViews { found: num_views }.into());
        }
        if num_views > MAX_VIEWS {
            return Err(CudaError::TooManyViews { found: num_views, most: MAX_VIEWS });
        }
        let dims = host.backbone.check_views(x, n, *image_size)?;
        self.fit(num_views * n)?;
        let h = self.backbone.forward_train(&self.parameters, &dims, x, n, *image_size)?;
        let z = self.projector.forward(&self.parameters, h, num_views, n)?;
        let p = self.predictor.forward(&self.parameters, z, num_views, n)?;
        let output = self.loss(z, p, num_views, n, share * self.loss_scale.factor)?;

        let Some(pass) = &self.pass else { return Err(CudaError::Network("it has no memory")) };
        let accumulate = std::mem::replace(&mut self.has_gradients, true);
        let grad_z = self.predictor.backward(&self.parameters, z, pass.grad_p.all(), accumulate)?;
        // The one stop-gradient: z as a target got none from the loss.
        let grad_h = self.projector.backward(&self.parameters, h, grad_z, accumulate)?;
        self.backbone.backward(&self.parameters, grad_h, accumulate)?;
        Ok(output)
    }

    fn loss(&self, z: Slice, p: Slice, views: usize, n: usize, share: f32) -> Result<StepOutput, CudaError> {
        let Some(Pass { grad_p, per_row, per_column, .. }) = &self.pass else {
            return Err(CudaError::Network("it has no memory"));
        };
        let (result, d) = (self.result.all(), self.output_dim);
        self.kernels.cosine_loss([n, views, d], p, z, share, grad_p.all(), per_row.all(), result)?;
        self.kernels.embedding_std(n, d, z, per_row.all(), per_column.all(), result)?;
        let mut values = [0.0_f64; 2];
        self.kernels.device().download(result, bytemuck::cast_slice_mut(&mut values))?;
        Ok(StepOutput { loss: values[0] as f32, embedding_std: values[1] })
    }

    fn fit(&mut self, rows: usize) -> Result<(), CudaError> {
        if self.pass.as_ref().is_some_and(|pass| pass.rows == rows) {
            return Ok(());
        }
        self.pass = None;
        let (device, d) = (self.kernels.device(), self.output_dim);
        self.pass = Some(Pass {
            rows,
            grad_p: Memory::new(device, self.kernels.element_bytes() * rows * d)?,
            per_row: Memory::new(device, 8 * rows)?,
            per_column: Memory::new(device, 8 * d)?,
        });
        Ok(())
    }

    /// Updates all values by their gradients. In f16 nothing is updated where one is not finite; whether a step with
    /// another scale can be tried.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn update(&mut self, rates: &CudaRates) -> Result<bool, CudaError> {
        let scaled = self.kernels.precision() == Precision::F16;
        let flag = self.flag.all();
        if scaled {
            self.kernels.device().clear(flag)?;
            self.kernels.flag_not_finite(self.parameters.len(), self.parameters.gradients()?, flag)?;
        }
        for (place, lr) in [(self.encoder_range, rates.encoder), (self.predictor_range, rates.predictor)] {
            let buffers = SgdBuffers {
                values: self.parameters.value(place),
                gradients: self.parameters.gradient(place)?,
                velocity: self.parameters.velocity(place)?,
                weights: self.parameters.half_width_weights(place),
                flag,
            };
            let rule = SgdRule {
                lr: lr as f32,
                momentum: rates.momentum as f32,
                weight_decay: rates.weight_decay as f32,
                unscale: 1.0 / self.loss_scale.factor,
            };
            self.kernels.sgd(place.len, &buffers, &rule)?;
        }
        if !scaled {
            return Ok(true);
        }
        let mut overflow = [0_i32];
        self.kernels.device().download(flag, bytemuck::cast_slice_mut(&mut overflow))?;
        Ok(self.loss_scale.observe(overflow[0] != 0))
    }

    /// Forward, backward and update, as `train/step.rs` has it: the batch in `parts` equal parts whose gradients are
    /// averaged; where the loss is not finite nothing is updated.
    ///
    /// # Errors
    /// As [`Self::forward_backward`], and where the batch cannot be cut into equal parts.
    pub fn step(
        &mut self,
        host: &SimSiam,
        views: &Views<'_>,
        parts: usize,
        rates: &CudaRates,
    ) -> Result<CudaStep, CudaError> {
        let share = 1.0 / parts as f64;
        let mut step = CudaStep { loss: 0.0, embedding_std: 0.0 };
        self.zero_gradients();
        for part in 0..parts {
            let output = self.forward_backward(host, &views.part(part, parts)?, share as f32)?;
            step.loss += f64::from(output.loss) * share;
            step.embedding_std += output.embedding_std * share;
            if !step.loss.is_finite() {
                return Ok(step);
            }
        }
        if !self.update(rates)? {
            step.loss = f64::NAN;
        }
        Ok(step)
    }

    /// As [`Backbone::forward_eval`] with the values that are here; `host` says what images it takes.
    ///
    /// # Errors
    /// As that, and where the device has too little memory or fails.
    pub fn forward_eval(
        &mut self,
        host: &Backbone,
        images: &[f32],
        n: usize,
        image_size: usize,
    ) -> Result<Vec<f32>, CudaError> {
        let dims = host.check_batch(images, n, image_size)?;
        self.backbone.forward_eval(&self.parameters, &dims, images, n, image_size)
    }

    /// Gives back the memory of [`Self::forward_eval`].
    pub fn release_eval(&mut self) {
        self.backbone.release_eval();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_scale_falls_at_once_and_rises_slowly() {
        let mut scale = LossScale::new(Precision::F16);
        assert!(scale.observe(true));
        assert_eq!(scale, LossScale { factor: 32768.0, good_steps: 0 });
        for _ in 0..STEPS_UNTIL_DOUBLED - 1 {
            assert!(scale.observe(false));
        }
        assert_eq!(scale.factor, 32768.0);
        assert!(scale.observe(false));
        assert_eq!(scale, LossScale { factor: 65536.0, good_steps: 0 });
        for _ in 0..16 {
            assert!(scale.observe(true));
        }
        assert!(!scale.observe(true), "a scale below 1 helps nobody");
        assert_eq!(LossScale::new(Precision::Bf16).factor, 1.0);
    }
}
