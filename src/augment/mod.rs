//! From one image to one view: pure functions of pixels and a seed.
//!
//! ```text
//! ImageRef ─▶ sample (key ─▶ pinned parameters) ─▶ apply (crop + resize fused, then u8 or f32 planes) ─▶ normalise
//! ```
//!
//! Arithmetic is Pillow's, so that a view equals torchvision's with the same parameters; the `tf_…`
//! operations are TensorFlow's and work on unbounded floats.

pub mod augment_config;
pub mod augment_error;
pub mod color_jitter;
pub mod crop;
#[cfg(test)]
mod distribution_tests;
pub mod erase;
pub mod evaluation_view;
pub mod flip;
pub mod gaussian_blur;
pub mod gaussian_kernel;
#[cfg(test)]
mod golden_tests;
pub mod hsv;
pub mod image_ref;
pub mod normalize_pixels;
pub mod op_config;
pub mod planes;
pub mod policy;
pub mod policy_file;
#[cfg(test)]
mod policy_tests;
pub mod portable_math;
pub mod preset;
pub mod preview;
pub mod resample;
pub mod solarize;
pub mod tf_color;
pub mod view_key;
pub mod view_op;
pub mod view_size;

pub use augment_config::AugmentConfig;
pub use augment_error::AugmentError;
pub use evaluation_view::EvaluationView;
pub use image_ref::ImageRef;
pub use policy::{Policy, Scratch};
pub use view_key::ViewKey;
