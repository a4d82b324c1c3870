//! What an engine on a device must do, for any device: the library's tests run these on the emulator, `tests/cuda` on a
//! GPU. They panic where something is off.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    reason = "the bodies of tests, which are compiled into the library so that two test binaries can run them"
)]

mod convolution;
mod layers;
mod network;
mod training;

use std::sync::Arc;

pub use convolution::{conversions_round_to_nearest, convolutions_agree_with_loops};
pub use layers::{batch_norm_agrees_with_loops, pools_agree_with_loops, sgd_is_the_cpus};
pub use network::{backbone_is_pytorchs, inference_is_the_cpus};
pub use training::{
    a_step_is_pytorchs, a_step_is_the_cpus, lower_precisions_follow, overflow_skips_the_step, same_bits_every_time,
    states_move_between_devices, train_a_little, training_goes_on_where_it_was,
};

use super::{
    device::{Device, Memory},
    launch::Kernels,
    precision::Precision,
};
use crate::seed::{seeded_rng, uniform};

/// Opens a device for a precision.
pub type Open<'a> = &'a dyn Fn(Precision) -> Arc<dyn Device>;

/// Numbers in [−1, 1) that depend on the name alone.
fn random(name: &str, len: usize) -> Vec<f32> {
    let seed = name.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut rng = seeded_rng(seed, "device checks", &[]);
    (0..len).map(|_| uniform(&mut rng, -1.0, 1.0) as f32).collect()
}

/// A device's kernels, with activations as the host writes them.
struct Bench {
    kernels: Kernels,
}

impl Bench {
    fn new(open: Open<'_>, precision: Precision) -> Self {
        Self { kernels: Kernels::new(&open(precision)) }
    }

    /// Memory for so many elements.
    fn elements(&self, len: usize) -> Memory {
        Memory::new(self.kernels.device(), self.kernels.element_bytes() * len).unwrap()
    }

    fn floats(&self, len: usize) -> Memory {
        Memory::new(self.kernels.device(), 4 * len).unwrap()
    }

    /// Elements of these numbers, and the numbers that they became.
    fn rounded(&self, values: &[f32]) -> (Memory, Vec<f32>) {
        if !self.kernels.precision().is_half_width() {
            return (Memory::of(self.kernels.device(), values).unwrap(), values.to_vec());
        }
        let (source, elements) = (Memory::of(self.kernels.device(), values).unwrap(), self.elements(values.len()));
        self.kernels.to_elements(values.len(), source.all(), elements.all()).unwrap();
        let numbers = self.numbers(&elements, values.len());
        (elements, numbers)
    }

    /// The numbers of elements.
    fn numbers(&self, elements: &Memory, len: usize) -> Vec<f32> {
        let mut values = vec![0.0; len];
        if self.kernels.precision().is_half_width() {
            let floats = self.floats(len);
            self.kernels.to_floats(len, elements.all(), floats.all()).unwrap();
            floats.read(0, &mut values).unwrap();
        } else {
            elements.read(0, &mut values).unwrap();
        }
        values
    }

    fn read(memory: &Memory, len: usize) -> Vec<f32> {
        let mut values = vec![0.0; len];
        memory.read(0, &mut values).unwrap();
        values
    }

    /// What storing an element may cost, as a share of the largest.
    fn tolerance(&self) -> f64 {
        match self.kernels.precision() {
            Precision::F32 | Precision::Tf32 => 1e-5,
            Precision::Bf16 => 5e-3,
            Precision::F16 => 7e-4,
        }
    }
}

/// Compares with what a slow and obvious twin says, as a share of the largest.
fn assert_close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-6_f64, |scale, value| scale.max(value.abs()));
    for (idx, (found, expected)) in found.iter().zip(expected).enumerate() {
        let off = (f64::from(*found) - expected).abs();
        assert!(off <= tolerance * scale, "{what}: {found} at {idx} instead of {expected} (largest {scale})");
    }
}

/// The checks that need nothing but a function that opens a device, each as a test.
#[doc(hidden)]
#[macro_export]
macro_rules! cuda_checks {
    ($open:expr) => {
        $crate::cuda_checks!(
            $open,
            conversions_round_to_nearest,
            convolutions_agree_with_loops,
            batch_norm_agrees_with_loops,
            pools_agree_with_loops,
            sgd_is_the_cpus,
            inference_is_the_cpus,
            a_step_is_the_cpus,
            lower_precisions_follow,
            training_goes_on_where_it_was,
            states_move_between_devices,
            overflow_skips_the_step,
        );
    };
    ($open:expr, $($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                $crate::cuda::checks::$name(&$open);
            }
        )+
    };
}
