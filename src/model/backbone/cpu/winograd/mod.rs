//! 3×3 convolutions with padding 1 by Winograd's algorithm: forward, data gradient, weight gradient.
//!
//! An image is covered by tiles of m×m outputs (m = 2, 3 or 4). A tile's inputs, transformed, give one row of channels
//! for each of its frequencies, of which there are (m+2)² with stride 1 and (2m+1)² with stride 2; for each frequency
//! one matrix product over all tiles replaces the convolution. Where the transformed weights are small, a task does
//! everything for a few rows of tiles inside its cache; where they are large, all tiles are transformed first and tasks
//! divide the frequencies.

mod convolve;
mod strided;
mod tiles;
mod transform;
mod weight_gradient;

pub(super) use convolve::{data_gradient, forward};
#[cfg(test)]
pub(crate) use tiles::DIRECT;
pub(super) use tiles::Tiling;
pub(super) use weight_gradient::weight_gradient;
