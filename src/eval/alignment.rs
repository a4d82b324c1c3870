//! Alignment (Wang & Isola 2020): how near the embeddings of two views of an image lie.

use std::ops::ControlFlow;

use super::{
    embed::embed_images, eval_error::EvalError, frozen_network::FrozenNetwork, linear_classifier::l2_normalize_row,
};
use crate::augment::{ImageRef, Policy, Scratch, ViewKey};

/// Images that it is measured on, evenly spaced.
const MAX_IMAGES: usize = 1024;

/// Mean ‖f(x) − f(y)‖² over two views x and y of an image, embeddings of length 1: 0 where views do not matter, 2 where
/// two views are as far apart as two directions at random. `seed` decides the views.
///
/// # Errors
/// Where there are no images or the network's output is not finite.
pub fn alignment<'i>(
    network: &FrozenNetwork,
    policy: &Policy,
    num_images: usize,
    image: impl Fn(usize) -> ImageRef<'i> + Sync + Send,
    seed: u64,
) -> Result<f64, EvalError> {
    let num_pairs = num_images.min(MAX_IMAGES);
    let fill = |scratch: &mut Scratch, idx: usize, out: &mut [f32]| {
        let row = idx / 2 * num_images / num_pairs;
        let key = ViewKey { seed, epoch: 0, image_idx: row as u64, view: (idx % 2) as u32 };
        policy.view(image(row), key, scratch, out);
        Ok(())
    };
    let features = embed_images(
        2 * num_pairs,
        policy.image_size(),
        Scratch::default,
        fill,
        |views, _| network.embed_views(views),
        |_| ControlFlow::Continue(()),
    )?;
    let features = features.filter(|features| !features.is_empty());
    let features = features.ok_or(EvalError::Empty { what: "the set of images" })?;
    let dim = network.feature_dim();
    let unit = |row: &[f32]| {
        let mut row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        l2_normalize_row(&mut row);
        row
    };
    let distance = |pair: &[f32]| -> f64 {
        let (x, y) = pair.split_at(dim);
        unit(x).iter().zip(unit(y)).map(|(x, y)| (x - y) * (x - y)).sum()
    };
    Ok(features.chunks_exact(2 * dim).map(distance).sum::<f64>() / num_pairs as f64)
}
