//! Evaluation views of many images at once.

use rayon::prelude::*;

use super::Dataset;
use crate::augment::{EvaluationView, Scratch};

/// Fills `out` with `[indices.len(), size, size, 3]`: the evaluation view of each image, on the caller's threads.
///
/// `out` must have that length; every index must be below the dataset's.
pub fn load_evaluation_views(dataset: &Dataset, view: &EvaluationView, indices: &[usize], out: &mut [f32]) {
    let stride = 3 * view.image_size() * view.image_size();
    out.par_chunks_exact_mut(stride)
        .zip(indices)
        .for_each_init(Scratch::default, |scratch, (out, &idx)| view.view(dataset.image(idx), scratch, out));
}
