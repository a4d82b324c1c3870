//! Update rules over flat buffers. dfdx's work a matrix at a time on one thread, and memory is what an update costs.

use rayon::prelude::*;

use super::train_config::{AdamConfig, AdamwConfig, SgdConfig};
use crate::kernels::multiversion;

/// Elements that one task updates: fixed, so that the number of threads changes nothing.
const CHUNK: usize = 1 << 15;

/// SGD over one flat buffer, by the same rule as dfdx and PyTorch:
/// g ← g + weight_decay · p; v ← momentum · v + g; p ← p − lr · v.
pub struct Sgd {
    config: SgdConfig,
    /// v, as long as the parameters.
    pub velocity: Vec<f32>,
}

impl Sgd {
    /// No velocity yet.
    pub fn new(config: SgdConfig, num_parameters: usize) -> Self {
        Self { config, velocity: vec![0.0; num_parameters] }
    }

    /// The rule's numbers.
    pub fn config(&self) -> SgdConfig {
        self.config
    }

    /// One step with this rate.
    pub fn step(&mut self, parameters: &mut [f32], gradients: &[f32], lr: f64) {
        let (lr, momentum, decay) = (lr as f32, self.config.momentum as f32, self.config.weight_decay as f32);
        parameters
            .par_chunks_mut(CHUNK)
            .zip(gradients.par_chunks(CHUNK))
            .zip(self.velocity.par_chunks_mut(CHUNK))
            .for_each(|((parameters, gradients), velocity)| {
                sgd_chunk(parameters, gradients, velocity, lr, momentum, decay);
            });
    }
}

multiversion! {
    fn sgd_chunk(parameters: &mut [f32], gradients: &[f32], velocity: &mut [f32], lr: f32, momentum: f32, decay: f32) {
        for ((p, g), v) in parameters.iter_mut().zip(gradients).zip(velocity) {
            *v = momentum * *v + (g + decay * *p);
            *p -= lr * *v;
        }
    }
}

/// Adam over one flat buffer (Kingma & Ba 2014, algorithm 1), weight decay added to the gradient as PyTorch does, or
/// apart from it (AdamW: Loshchilov & Hutter 2017).
pub struct Adam {
    config: AdamConfig,
    decoupled: bool,
    first: Vec<f32>,
    second: Vec<f32>,
    num_steps: i32,
}

impl Adam {
    /// No moments yet.
    pub fn new(config: AdamConfig, num_parameters: usize) -> Self {
        let moments = || vec![0.0; num_parameters];
        Self { config, decoupled: false, first: moments(), second: moments(), num_steps: 0 }
    }

    /// AdamW, no moments yet.
    pub fn decoupled(config: AdamwConfig, num_parameters: usize) -> Self {
        let AdamwConfig { lr, betas, eps, weight_decay } = config;
        Self { decoupled: true, ..Self::new(AdamConfig { lr, betas, eps, weight_decay }, num_parameters) }
    }

    /// One step with this rate.
    pub fn step(&mut self, parameters: &mut [f32], gradients: &[f32], lr: f64) {
        self.num_steps += 1;
        let [beta1, beta2] = self.config.betas;
        let step_size = (lr / (1.0 - beta1.powi(self.num_steps))) as f32;
        let second_correction = (1.0 - beta2.powi(self.num_steps)).sqrt() as f32;
        let (beta1, beta2, eps) = (beta1 as f32, beta2 as f32, self.config.eps as f32);
        // Either added to the gradient, or a share that is taken from the parameter.
        let (decay, kept) = if self.decoupled {
            (0.0, (1.0 - lr * self.config.weight_decay) as f32)
        } else {
            (self.config.weight_decay as f32, 1.0)
        };
        parameters
            .par_chunks_mut(CHUNK)
            .zip(gradients.par_chunks(CHUNK))
            .zip(self.first.par_chunks_mut(CHUNK))
            .zip(self.second.par_chunks_mut(CHUNK))
            .for_each(|(((parameters, gradients), first), second)| {
                for (((p, g), m), v) in parameters.iter_mut().zip(gradients).zip(first).zip(second) {
                    let g = g + decay * *p;
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    *p = *p * kept - step_size * *m / (v.sqrt() / second_correction + eps);
                }
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from `torch.optim.SGD(lr=0.1, momentum=0.9, weight_decay=0.01)`: three steps with the
    /// gradient g = 2p + 1 from p = (1, −2).
    #[test]
    fn sgd_takes_the_steps_that_pytorch_takes() {
        let config = SgdConfig { base_lr: 0.1, momentum: 0.9, weight_decay: 0.01 };
        let mut sgd = Sgd::new(config, 2);
        let (mut p, mut by_hand, mut velocity) = (vec![1.0_f32, -2.0], [1.0_f64, -2.0], [0.0_f64; 2]);
        for _ in 0..3 {
            let gradients: Vec<f32> = p.iter().map(|p| 2.0 * p + 1.0).collect();
            sgd.step(&mut p, &gradients, 0.1);
            for (p, v) in by_hand.iter_mut().zip(&mut velocity) {
                *v = 0.9 * *v + (2.0 * *p + 1.0 + 0.01 * *p);
                *p -= 0.1 * *v;
            }
        }
        for (p, expected) in p.iter().zip(by_hand) {
            assert!((f64::from(*p) - expected).abs() < 1e-6);
        }
    }

    /// `torch.optim.Adam` and `AdamW` with `lr=0.1, weight_decay=0.2`: three steps with the gradient g = 2p + 1 from
    /// p = (1, −2), in float64.
    #[test]
    fn adam_and_adamw_take_the_steps_that_pytorch_takes() {
        let steps = |mut adam: Adam| {
            let mut p = vec![1.0_f32, -2.0];
            for _ in 0..3 {
                let gradients: Vec<f32> = p.iter().map(|p| 2.0 * p + 1.0).collect();
                adam.step(&mut p, &gradients, 0.1);
            }
            p
        };
        let adam = steps(Adam::new(AdamConfig { lr: 0.1, weight_decay: 0.2, ..AdamConfig::default() }, 2));
        let adamw = steps(Adam::decoupled(AdamwConfig { lr: 0.1, weight_decay: 0.2, ..AdamwConfig::default() }, 2));
        for (found, expected) in adam.iter().chain(&adamw).zip([0.700_940_6, -1.700_867_9, 0.648_29, -1.589_757_7]) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} is not {expected}");
        }
    }

    #[test]
    fn first_adam_step_has_the_length_of_the_rate() {
        let mut adam = Adam::new(AdamConfig::default(), 2);
        let mut p = vec![1.0, 1.0];
        adam.step(&mut p, &[0.5, -3.0], 1e-3);
        assert!((p[0] - 0.999).abs() < 1e-6 && (p[1] - 1.001).abs() < 1e-6);
    }
}
