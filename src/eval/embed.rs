//! Images through a frozen network in batches.

use std::ops::ControlFlow;

use rayon::prelude::*;

/// Pixels of a batch: about 256 images of 64×64 or 20 of 224×224, so that activations stay within some
/// hundred megabytes.
const PIXELS_PER_BATCH: usize = 1 << 20;

/// Images of a batch. A function of the size alone, so that the same images always meet in a batch.
pub fn batch_size(image_size: usize) -> usize {
    (PIXELS_PER_BATCH / (image_size * image_size).max(1)).clamp(4, 256)
}

/// Features [num_images, d], or `None` where `observe` ended it.
///
/// `fill(scratch, idx, view)` writes the normalised view [size, size, 3] of an image and runs on many threads;
/// `forward(views, n)` turns n views into [n, d]; `observe(done)` hears how many images are done.
///
/// # Errors
/// The first error of `fill` in the order of the images, or that of `forward`.
pub fn embed_images<S, E: Send>(
    num_images: usize,
    image_size: usize,
    scratch: impl Fn() -> S + Sync + Send,
    fill: impl Fn(&mut S, usize, &mut [f32]) -> Result<(), E> + Sync + Send,
    mut forward: impl FnMut(&[f32], usize) -> Result<Vec<f32>, E>,
    mut observe: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Vec<f32>>, E> {
    let view_len = 3 * image_size * image_size;
    let batch = batch_size(image_size);
    let mut views = vec![0.0; batch.min(num_images) * view_len];
    let mut features = vec![];
    for first in (0..num_images).step_by(batch) {
        if observe(first).is_break() {
            return Ok(None);
        }
        let n = batch.min(num_images - first);
        let views = &mut views[..n * view_len];
        let filled: Vec<Result<(), E>> = views
            .par_chunks_exact_mut(view_len)
            .enumerate()
            .map_init(&scratch, |scratch, (idx, view)| fill(scratch, first + idx, view))
            .collect();
        filled.into_iter().collect::<Result<(), E>>()?;
        features.extend(forward(views, n)?);
    }
    let _ = observe(num_images);
    Ok(Some(features))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded() {
        assert_eq!(batch_size(32), 256);
        assert_eq!(batch_size(64), 256);
        assert_eq!(batch_size(224), 20);
        assert_eq!(batch_size(4096), 4);
    }

    #[test]
    fn every_image_is_embedded_once_and_in_order() {
        let mut sizes = vec![];
        let mut seen = vec![];
        let features = embed_images(
            600,
            2,
            || (),
            |(), idx, view| {
                view.fill(idx as f32);
                Ok::<(), String>(())
            },
            |views, n| {
                sizes.push(n);
                Ok(views.chunks_exact(12).map(|view| view.iter().sum()).collect())
            },
            |done| {
                seen.push(done);
                ControlFlow::Continue(())
            },
        );
        let expected: Vec<f32> = (0..600_u16).map(|idx| 12.0 * f32::from(idx)).collect();
        assert_eq!(features.unwrap().unwrap(), expected);
        assert_eq!(sizes, [256, 256, 88]);
        assert_eq!(seen, [0, 256, 512, 600]);
    }

    #[test]
    fn the_first_error_counts_and_stopping_leaves_nothing() {
        let run = |stop_at: usize| {
            embed_images(
                600,
                1,
                || (),
                |(), idx, _| if idx % 100 == 99 { Err(idx) } else { Ok(()) },
                |_, n| Ok(vec![0.0; n]),
                |done| if done >= stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) },
            )
        };
        assert_eq!(run(1_000), Err(99));
        assert_eq!(run(0), Ok(None));
    }
}
