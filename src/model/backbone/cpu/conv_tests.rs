//! Convolutions against their slow twins.

use super::conv::{self, ConvShape};
use super::prepared::{PreparedWeights, Weights};
use super::reference::{self, shape};
use super::winograd::{self, Tiling};
use crate::kernels::reference::{deviation, numbers};
use crate::kernels::scratch::Scratch;

/// Kernels 1, 3, 7; strides 1, 2; odd sizes; channels that fill no vector; a batch of one.
fn shapes() -> Vec<ConvShape> {
    vec![
        shape(2, [8, 8], [16, 8], [3, 1, 1]),
        shape(1, [5, 7], [3, 5], [3, 1, 1]),
        shape(3, [9, 6], [7, 13], [3, 2, 1]),
        shape(2, [1, 1], [4, 4], [3, 1, 1]),
        shape(2, [1, 1], [4, 4], [3, 2, 1]),
        shape(2, [2, 3], [70, 66], [3, 1, 1]),
        shape(1, [15, 15], [3, 8], [7, 2, 3]),
        shape(2, [4, 3], [3, 9], [7, 2, 3]),
        shape(2, [6, 6], [12, 10], [1, 1, 0]),
        shape(3, [7, 5], [12, 10], [1, 2, 0]),
        shape(1, [40, 33], [1, 1], [3, 1, 1]),
        shape(2, [13, 13], [130, 17], [3, 1, 1]),
        shape(1, [6, 6], [5, 3], [3, 1, 0]),
        shape(40, [6, 6], [160, 20], [1, 1, 0]),
        // Winograd: odd images, the edge of one task after the other, weights that are too large for one task.
        shape(1, [40, 33], [17, 19], [3, 1, 1]),
        shape(5, [2, 2], [32, 48], [3, 1, 1]),
        shape(2, [3, 5], [20, 16], [3, 1, 1]),
        shape(3, [7, 6], [150, 160], [3, 1, 1]),
        shape(2, [2, 2], [210, 220], [3, 1, 1]),
        shape(3, [40, 40], [16, 17], [3, 1, 1]),
        // The same with stride 2: tiles of 4, 3 and 2 outputs, odd and even images.
        shape(3, [32, 31], [17, 19], [3, 2, 1]),
        shape(2, [12, 11], [20, 16], [3, 2, 1]),
        shape(5, [4, 4], [32, 48], [3, 2, 1]),
        shape(3, [8, 8], [150, 160], [3, 2, 1]),
        shape(2, [16, 16], [130, 140], [3, 2, 1]),
    ]
}

const TOLERANCE: f64 = 1e-5;

fn once(values: &[f32]) -> Weights<'_> {
    Weights { values, version: 1 }
}

#[test]
fn winograd_is_accurate_for_every_size() {
    let mut worst = [0.0_f64; 3];
    let sizes = (1..=14).chain([17, 23, 40]);
    for (size, stride) in sizes.flat_map(|size| [(size, 1), (size, 2)]) {
        let s = shape(1 + size % 3, [size, size * 7 % 11 + 1], [16 + size % 5, 18 - size % 3], [3, stride, 1]);
        let w = numbers(2, s.depth() * s.output.channels);
        let (x, dy) = (numbers(1, s.n * s.input.len()), numbers(3, s.n * s.output.len()));
        let (mut y, mut dx, mut dw) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()], vec![f32::NAN; w.len()]);
        let scratch = &mut Scratch::default();
        conv::forward(&s, &x, once(&w), &mut y, &mut PreparedWeights::default(), scratch, |_, _| ());
        let Some(tiling) = Tiling::of(&s) else { continue };
        winograd::data_gradient(&tiling, &s, &dy, once(&w), &mut dx, false, &mut PreparedWeights::default(), scratch);
        winograd::weight_gradient(&tiling, &s, &x, &dy, &mut dw, false, scratch);
        worst[0] = worst[0].max(deviation(&y, &reference::forward(&s, &x, &w)));
        worst[1] = worst[1].max(deviation(&dx, &reference::data_gradient(&s, &dy, &w)));
        worst[2] = worst[2].max(deviation(&dw, &reference::weight_gradient(&s, &x, &dy)));
    }
    println!("forward {:.1e}, data gradient {:.1e}, weight gradient {:.1e}", worst[0], worst[1], worst[2]);
    assert!(worst.iter().all(|w| *w < 3e-6), "{worst:?}");
}

#[test]
fn forward_is_the_direct_sum() {
    for s in shapes() {
        let (x, w) = (numbers(1, s.n * s.input.len()), numbers(2, s.depth() * s.output.channels));
        let mut y = vec![f32::NAN; s.n * s.output.len()];
        let done = conv::forward(
            &s,
            &x,
            once(&w),
            &mut y,
            &mut PreparedWeights::default(),
            &mut Scratch::default(),
            |first, y| (first, y.to_vec()),
        );
        let mut next = 0;
        for (first, block) in done {
            assert_eq!(first * s.output.channels, next);
            assert!(block == y[next..][..block.len()]);
            next += block.len();
        }
        assert_eq!(next, y.len());
        let error = deviation(&y, &reference::forward(&s, &x, &w));
        assert!(error < TOLERANCE, "{s:?}: {error}");
    }
}

#[test]
fn weight_gradient_is_the_direct_sum_and_is_written_or_added() {
    for s in shapes() {
        let (x, dy) = (numbers(1, s.n * s.input.len()), numbers(2, s.n * s.output.len()));
        let before = numbers(3, s.depth() * s.output.channels);
        let mut dw = before.clone();
        let scratch = &mut Scratch::default();
        conv::weight_gradient(&s, &x, &dy, &mut dw, true, scratch);
        if let Some(tiling) = Tiling::of(&s) {
            // Small batches go directly; the other way must be right, too.
            let mut other = before.clone();
            winograd::weight_gradient(&tiling, &s, &x, &dy, &mut other, true, scratch);
            let direct: Vec<f64> = dw.iter().map(|v| f64::from(*v)).collect();
            assert!(deviation(&other, &direct) < TOLERANCE);
        }
        let mut expected = reference::weight_gradient(&s, &x, &dy);
        let mut written = vec![f32::NAN; dw.len()];
        conv::weight_gradient(&s, &x, &dy, &mut written, false, scratch);
        assert!(deviation(&written, &expected) < TOLERANCE, "{s:?}");
        expected.iter_mut().zip(&before).for_each(|(e, b)| *e += f64::from(*b));
        let error = deviation(&dw, &expected);
        assert!(error < TOLERANCE, "{s:?}: {error}");
    }
}

#[test]
fn data_gradient_is_the_direct_sum_written_or_added() {
    for s in shapes() {
        let (dy, w) = (numbers(1, s.n * s.output.len()), numbers(2, s.depth() * s.output.channels));
        let mut expected = reference::data_gradient(&s, &dy, &w);
        let mut dx = vec![f32::NAN; s.n * s.input.len()];
        conv::data_gradient(
            &s,
            &dy,
            once(&w),
            &mut dx,
            false,
            &mut PreparedWeights::default(),
            &mut Scratch::default(),
        );
        let error = deviation(&dx, &expected);
        assert!(error < TOLERANCE, "{s:?}: {error}");
        let mut dx = numbers(3, s.n * s.input.len());
        expected.iter_mut().zip(&dx).for_each(|(e, b)| *e += f64::from(*b));
        let mut other = dx.clone();
        conv::data_gradient(&s, &dy, once(&w), &mut dx, true, &mut PreparedWeights::default(), &mut Scratch::default());
        if let Some(tiling) = Tiling::of(&s) {
            winograd::data_gradient(
                &tiling,
                &s,
                &dy,
                once(&w),
                &mut other,
                true,
                &mut PreparedWeights::default(),
                &mut Scratch::default(),
            );
            assert!(deviation(&other, &expected) < TOLERANCE, "{s:?}");
        }
        let error = deviation(&dx, &expected);
        assert!(error < TOLERANCE, "{s:?}, added: {error}");
    }
}

#[test]
fn one_bad_pixel_stays_visible() {
    let s = shape(2, [6, 6], [4, 4], [3, 1, 1]);
    let mut x = numbers(1, s.n * s.input.len());
    x[17] = f32::NAN;
    let mut y = vec![0.0; s.n * s.output.len()];
    let w = numbers(2, s.depth() * s.output.channels);
    conv::forward(&s, &x, once(&w), &mut y, &mut PreparedWeights::default(), &mut Scratch::default(), |_, _| ());
    assert!(y.iter().any(|v| v.is_nan()));
}
