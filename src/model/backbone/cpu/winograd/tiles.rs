//! How images are covered by tiles, where a transformed tile lies, and carrying pixels to tiles and back.

use std::ops::Range;

use super::super::conv::ConvShape;
use super::transform::{MAX_TILE, Tile, Transform, transform_tile};
use crate::kernels::matrix::{packed_len, panel_width};

/// Channels below which transforms cost more than they save.
const MIN_CHANNELS: usize = 16;

/// Which filtering a tile gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// F(4×4, 3×3).
    Four,
    /// F(3×3, 3×3).
    Three,
    /// F(2×2, 3×3).
    Two,
    /// The whole image is 2×2.
    Pair,
}

/// How an image is covered.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Tiling {
    pub(super) scheme: Scheme,
    /// Outputs of a tile in one direction.
    pub(super) outputs: usize,
    /// Images.
    pub(super) n: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

#[cfg(test)]
thread_local! {
    /// Makes the convolutions that this thread asks for direct, for comparison.
    pub(crate) static DIRECT: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Tiling {
    /// The cheapest tiling, or nothing where direct convolution is as cheap. The batch plays no part: an image has
    /// the same features, to the bit, whatever it is batched with.
    pub(in super::super) fn of(shape: &ConvShape) -> Option<Self> {
        Self::cheapest(shape, 1, 0)
    }

    /// The same for the gradients, which may look at the batch: for a few tiles, transforming the weights (writing
    /// and reading them where they no longer fit the caches) would cost more than it saves.
    pub(in super::super) fn of_gradients(shape: &ConvShape) -> Option<Self> {
        /// What transforming a weight costs, in multiply-adds.
        const TRANSFORM: usize = 80;
        Self::cheapest(shape, shape.n, TRANSFORM)
    }

    fn cheapest(shape: &ConvShape, images: usize, per_weight: usize) -> Option<Self> {
        #[cfg(test)]
        if DIRECT.get() {
            return None;
        }
        let fits = shape.kernel == 3 && shape.stride == 1 && shape.padding == 1;
        if !fits || shape.input.channels < MIN_CHANNELS || shape.output.channels < MIN_CHANNELS {
            return None;
        }
        let (height, width) = (shape.output.height, shape.output.width);
        let tiling = |scheme: Scheme| {
            let outputs = match scheme {
                Scheme::Four => 4,
                Scheme::Three => 3,
                Scheme::Two | Scheme::Pair => 2,
            };
            let (rows, columns) = (height.div_ceil(outputs), width.div_ceil(outputs));
            Tiling { scheme, outputs, n: shape.n, height, width, rows, columns }
        };
        // Multiply-adds for each pair of channels; the transforms of a tile count half as much as its products.
        let cost =
            |tiling: &Tiling| tiling.frequencies() * (images * tiling.rows * tiling.columns * 3 / 2 + per_weight);
        let best = if (height, width) == (2, 2) {
            tiling(Scheme::Pair)
        } else {
            [Scheme::Four, Scheme::Three, Scheme::Two].map(tiling).into_iter().min_by_key(cost)?
        };
        // Direct convolution packs the weights only.
        (cost(&best) <= 9 * (images * height * width + per_weight / 3)).then_some(best)
    }

    /// Matrices that are multiplied.
    pub(in super::super) fn frequencies(&self) -> usize {
        match self.scheme {
            Scheme::Four => 36,
            Scheme::Three => 25,
            Scheme::Two => 16,
            Scheme::Pair => 9,
        }
    }

    /// Pixels that a tile reads above and left of its outputs.
    pub(super) fn before(&self) -> usize {
        usize::from(self.scheme != Scheme::Pair)
    }

    pub(super) fn tile_rows(&self) -> usize {
        self.n * self.rows
    }

    /// Image positions that the tile rows before `row` cover.
    pub(super) fn positions_before(&self, row: usize) -> usize {
        let (image, row) = (row / self.rows, row % self.rows);
        (image * self.height + (row * self.outputs).min(self.height)) * self.width
    }

    /// Rows of source pointers for the tile at `(tile_row, column)`: `size`×`size` pixels, the first of which lies
    /// `before` pixels above and left of the tile; `zeros` stands for those outside the image.
    #[allow(clippy::too_many_arguments, reason = "where the tile lies and how large it is")]
    fn pixels(
        &self,
        x: &[f32],
        channels: usize,
        tile_row: usize,
        column: usize,
        size: usize,
        before: usize,
        zeros: *const f32,
    ) -> [[*const f32; MAX_TILE]; MAX_TILE] {
        let (image, row) = (tile_row / self.rows, tile_row % self.rows);
        let mut pointers = [[zeros; MAX_TILE]; MAX_TILE];
        for (i, pointers) in pointers.iter_mut().enumerate().take(size) {
            let Some(y) = (row * self.outputs + i).checked_sub(before).filter(|&y| y < self.height) else { continue };
            for (j, pointer) in pointers.iter_mut().enumerate().take(size) {
                let x_at = (column * self.outputs + j).checked_sub(before).filter(|&x| x < self.width);
                let Some(x_at) = x_at else { continue };
                let at = ((image * self.height + y) * self.width + x_at) * channels;
                *pointer = x[at..at + channels].as_ptr();
            }
        }
        pointers
    }
}

/// The distance between matrices of `len` values: an odd number of cache lines, so that the same row of all matrices
/// does not fall into the same cache set.
pub(super) fn spread(len: usize) -> usize {
    const LINE: usize = 16;
    (len.div_ceil(LINE) | 1) * LINE
}

/// Rows of transformed tiles: one matrix `tiles × channels` for each frequency, plain or in panels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) tiles: usize,
    pub(super) channels: usize,
    pub(super) panel: usize,
    /// Values from one frequency to the next.
    pub(super) frequency: usize,
}

impl Layout {
    pub(super) fn plain(tiles: usize, channels: usize) -> Self {
        Self { tiles, channels, panel: channels, frequency: spread(tiles * channels) }
    }

    /// As `multiply_packed` wants its right-hand side.
    pub(super) fn packed(tiles: usize, channels: usize) -> Self {
        Self { tiles, channels, panel: panel_width(channels), frequency: spread(packed_len(tiles, channels)) }
    }

    /// Where the rows of tile `tile` begin for all frequencies of an `edge`×`edge` tile.
    pub(super) fn targets(&self, base: *mut f32, tile: usize, edge: usize) -> [[*mut f32; MAX_TILE]; MAX_TILE] {
        let mut targets = [[std::ptr::null_mut(); MAX_TILE]; MAX_TILE];
        for (i, targets) in targets.iter_mut().enumerate().take(edge) {
            for (j, target) in targets.iter_mut().enumerate().take(edge) {
                *target = base.wrapping_add((i * edge + j) * self.frequency + tile * self.panel);
            }
        }
        targets
    }
}

/// Transforms the pixels of tile rows `rows` of `x` into `out`, whose tile 0 is the first tile of row `origin`.
///
/// # Safety
///
/// `out` must hold `layout` for all frequencies, and no other task may use the entries of these tiles.
#[allow(clippy::too_many_arguments, reason = "what it reads and where it writes")]
pub(super) unsafe fn transform_pixels<T: Transform>(
    tiling: &Tiling,
    x: &[f32],
    rows: Range<usize>,
    before: usize,
    zeros: &[f32],
    layout: Layout,
    origin: usize,
    out: *mut f32,
) {
    for row in rows {
        for column in 0..tiling.columns {
            let source = tiling.pixels(x, layout.channels, row, column, T::INPUTS, before, zeros.as_ptr());
            let target = layout.targets(out, (row - origin) * tiling.columns + column, T::OUTPUTS);
            let Layout { tiles, channels, panel, .. } = layout;
            let tile = Tile { source, target, channels, panel, panel_stride: tiles * panel, accumulate: false };
            // SAFETY: sources are rows of `x` or `zeros` of `channels` values; targets as the caller vouches.
            unsafe { transform_tile::<T, true>(&tile) };
        }
    }
}

/// Transforms the products of tile rows `rows` back into the pixels `y`, which begin with the first of these rows.
///
/// # Safety
///
/// `products` must hold `layout` for all frequencies, its tile 0 being the first tile of row `origin`.
pub(super) unsafe fn transform_products<T: Transform>(
    tiling: &Tiling,
    products: *const f32,
    rows: Range<usize>,
    layout: Layout,
    origin: usize,
    y: &mut [f32],
    accumulate: bool,
) {
    let channels = layout.channels;
    let begin = tiling.positions_before(rows.start);
    assert!(y.len() == (tiling.positions_before(rows.end) - begin) * channels, "block of pixels has another length");
    for row in rows {
        let first = tiling.positions_before(row) - begin;
        let height = (tiling.positions_before(row + 1) - tiling.positions_before(row)) / tiling.width;
        for column in 0..tiling.columns {
            let from = layout.targets(products.cast_mut(), (row - origin) * tiling.columns + column, T::INPUTS);
            let mut target = [[std::ptr::null_mut(); MAX_TILE]; MAX_TILE];
            let width = tiling.outputs.min(tiling.width - column * tiling.outputs);
            for (i, target) in target.iter_mut().enumerate().take(height) {
                for (j, target) in target.iter_mut().enumerate().take(width) {
                    let at = (first + i * tiling.width + column * tiling.outputs + j) * channels;
                    *target = y[at..at + channels].as_mut_ptr();
                }
            }
            let source = from.map(|row| row.map(<*mut f32>::cast_const));
            let tile = Tile { source, target, channels, panel: channels, panel_stride: 0, accumulate };
            // SAFETY: sources as the caller vouches; targets are rows of `y`.
            unsafe {
                if height == tiling.outputs && width == tiling.outputs {
                    transform_tile::<T, true>(&tile);
                } else {
                    transform_tile::<T, false>(&tile);
                }
            }
        }
    }
}

/// Tile rows of one task of the transforms: about 28 tiles.
pub(super) fn rows_of_task(tiling: &Tiling) -> usize {
    28_usize.div_ceil(tiling.columns).max(1)
}

/// Cuts `y` at the borders of blocks of `rows` tile rows: the first row of each block and its pixels.
pub(super) fn cut<'a>(
    tiling: &Tiling,
    range: Range<usize>,
    rows: usize,
    channels: usize,
    mut y: &'a mut [f32],
) -> Vec<(Range<usize>, &'a mut [f32])> {
    let mut blocks = Vec::with_capacity(range.len().div_ceil(rows));
    for first in range.clone().step_by(rows) {
        let last = range.end.min(first + rows);
        let len = (tiling.positions_before(last) - tiling.positions_before(first)) * channels;
        let (block, rest) = std::mem::take(&mut y).split_at_mut(len);
        blocks.push((first..last, block));
        y = rest;
    }
    blocks
}
