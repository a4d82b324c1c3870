//! How images are covered by tiles, where a transformed tile lies, and carrying pixels to tiles and back.

use std::ops::Range;

use super::super::super::layers::Dims;
use super::super::conv::ConvShape;
use super::transform::{Tile, Transform, transform_tile};
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
    /// Stride 2, 4×4 outputs.
    StridedFour,
    /// Stride 2, 3×3 outputs.
    StridedThree,
    /// Stride 2, 2×2 outputs.
    StridedTwo,
}

impl Scheme {
    /// Outputs of a tile in one direction.
    fn outputs(self) -> usize {
        match self {
            Scheme::Four | Scheme::StridedFour => 4,
            Scheme::Three | Scheme::StridedThree => 3,
            Scheme::Two | Scheme::Pair | Scheme::StridedTwo => 2,
        }
    }

    fn stride(self) -> usize {
        match self {
            Scheme::Four | Scheme::Three | Scheme::Two | Scheme::Pair => 1,
            Scheme::StridedFour | Scheme::StridedThree | Scheme::StridedTwo => 2,
        }
    }

    /// Frequencies in one direction.
    fn edge(self) -> usize {
        match self {
            Scheme::Pair => 3,
            Scheme::Four | Scheme::Three | Scheme::Two => self.outputs() + 2,
            Scheme::StridedFour | Scheme::StridedThree | Scheme::StridedTwo => 2 * self.outputs() + 1,
        }
    }

    /// Transformed taps in one direction: with stride 2 the last one serves several frequencies.
    fn taps(self) -> usize {
        if self.stride() == 1 { self.edge() } else { self.outputs() + 2 }
    }
}

/// The images on one side of a convolution, as tiles see them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub(super) height: usize,
    pub(super) width: usize,
    /// Pixels from a tile to the next.
    pub(super) step: usize,
    /// Pixels that a tile reads above and left of the place where it begins.
    pub(super) before: usize,
}

/// How an image is covered.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Tiling {
    pub(super) scheme: Scheme,
    /// Images.
    pub(super) n: usize,
    /// Tiles of an image.
    pub(super) rows: usize,
    pub(super) columns: usize,
    input: Grid,
    output: Grid,
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
        let fits = shape.kernel == 3 && shape.padding == 1;
        if !fits || shape.input.channels < MIN_CHANNELS || shape.output.channels < MIN_CHANNELS {
            return None;
        }
        let (height, width) = (shape.output.height, shape.output.width);
        // Multiply-adds for each pair of channels; the transforms of a tile count half as much as its products.
        let cost = |tiling: &Tiling| {
            tiling.frequencies() * images * tiling.rows * tiling.columns * 3 / 2 + tiling.num_kernels() * per_weight
        };
        let schemes = match shape.stride {
            1 if (height, width) == (2, 2) => &[Scheme::Pair][..],
            1 => &[Scheme::Four, Scheme::Three, Scheme::Two],
            2 => &[Scheme::StridedFour, Scheme::StridedThree, Scheme::StridedTwo],
            _ => return None,
        };
        let best = schemes.iter().map(|scheme| Self::covering(*scheme, shape)).min_by_key(cost)?;
        // Direct convolution packs the weights only.
        (cost(&best) <= 9 * (images * height * width + per_weight / 3)).then_some(best)
    }

    fn covering(scheme: Scheme, shape: &ConvShape) -> Self {
        let step = scheme.outputs();
        let before = usize::from(scheme != Scheme::Pair);
        let side = |dims: Dims, step, before| Grid { height: dims.height, width: dims.width, step, before };
        Tiling {
            scheme,
            n: shape.n,
            rows: shape.output.height.div_ceil(step),
            columns: shape.output.width.div_ceil(step),
            input: side(shape.input, step * scheme.stride(), before),
            output: side(shape.output, step, 0),
        }
    }

    /// What a tile of the forward pass, and of the weight gradient, reads: the pixels around its outputs.
    pub(super) fn input(&self) -> Grid {
        self.input
    }

    /// What a tile stands for on the side of the outputs.
    pub(super) fn output(&self) -> Grid {
        self.output
    }

    /// What a tile of the data gradient reads: gradients around its pixels with stride 1, from its own on with stride 2.
    pub(super) fn output_around(&self) -> Grid {
        let before = if self.scheme.stride() == 1 { self.input.before } else { 0 };
        Grid { before, ..self.output }
    }

    /// Pairs of matrices that are multiplied.
    pub(in super::super) fn frequencies(&self) -> usize {
        self.scheme.edge() * self.scheme.edge()
    }

    /// Matrices of transformed weights.
    pub(in super::super) fn num_kernels(&self) -> usize {
        self.scheme.taps() * self.scheme.taps()
    }

    /// Which of them belongs to a frequency.
    pub(super) fn kernel_of(&self, frequency: usize) -> usize {
        let (edge, last) = (self.scheme.edge(), self.scheme.taps() - 1);
        (frequency / edge).min(last) * (last + 1) + (frequency % edge).min(last)
    }

    /// The first frequency that a matrix of transformed weights belongs to.
    pub(super) fn first_of(&self, kernel: usize) -> usize {
        kernel / self.scheme.taps() * self.scheme.edge() + kernel % self.scheme.taps()
    }

    /// Tile rows of blocks of equal size with about `tiles` tiles at the most.
    pub(super) fn equal_blocks(&self, tiles: usize) -> usize {
        let rows = tiles.div_ceil(self.columns).min(self.tile_rows());
        self.tile_rows().div_ceil(self.tile_rows().div_ceil(rows))
    }

    pub(super) fn tile_rows(&self) -> usize {
        self.n * self.rows
    }

    /// Positions of `grid` that the tile rows before `row` cover.
    pub(super) fn positions_before(&self, grid: Grid, row: usize) -> usize {
        let (image, row) = (row / self.rows, row % self.rows);
        (image * grid.height + (row * grid.step).min(grid.height)) * grid.width
    }

    /// Rows of source pointers for the tile at `(tile_row, column)`: `size`×`size` pixels; `zeros` stands for those
    /// outside the image.
    #[allow(clippy::too_many_arguments, reason = "where the tile lies and how large it is")]
    fn pixels<const EDGE: usize>(
        &self,
        grid: Grid,
        x: &[f32],
        channels: usize,
        tile_row: usize,
        column: usize,
        size: usize,
        zeros: *const f32,
    ) -> [[*const f32; EDGE]; EDGE] {
        let (image, row) = (tile_row / self.rows, tile_row % self.rows);
        let mut pointers = [[zeros; EDGE]; EDGE];
        for (i, pointers) in pointers.iter_mut().enumerate().take(size) {
            let y = (row * grid.step + i).checked_sub(grid.before).filter(|&y| y < grid.height);
            let Some(y) = y else { continue };
            for (j, pointer) in pointers.iter_mut().enumerate().take(size) {
                let x_at = (column * grid.step + j).checked_sub(grid.before).filter(|&x| x < grid.width);
                let Some(x_at) = x_at else { continue };
                let at = ((image * grid.height + y) * grid.width + x_at) * channels;
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
    pub(super) fn targets<const EDGE: usize>(
        &self,
        base: *mut f32,
        tile: usize,
        edge: usize,
    ) -> [[*mut f32; EDGE]; EDGE] {
        let mut targets = [[std::ptr::null_mut(); EDGE]; EDGE];
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
pub(super) unsafe fn transform_pixels<const EDGE: usize, T: Transform<EDGE>>(
    tiling: &Tiling,
    grid: Grid,
    x: &[f32],
    rows: Range<usize>,
    zeros: &[f32],
    layout: Layout,
    origin: usize,
    out: *mut f32,
) {
    for row in rows {
        for column in 0..tiling.columns {
            let source = tiling.pixels(grid, x, layout.channels, row, column, T::INPUTS, zeros.as_ptr());
            let target = layout.targets(out, (row - origin) * tiling.columns + column, T::OUTPUTS);
            let Layout { tiles, channels, panel, .. } = layout;
            let tile = Tile { source, target, channels, panel, panel_stride: tiles * panel, accumulate: false };
            // SAFETY: sources are rows of `x` or `zeros` of `channels` values; targets as the caller vouches.
            unsafe { transform_tile::<EDGE, T, true>(&tile) };
        }
    }
}

/// Transforms the products of tile rows `rows` back into the pixels `y`, which begin with the first of these rows.
///
/// # Safety
///
/// `products` must hold `layout` for all frequencies, its tile 0 being the first tile of row `origin`.
#[allow(clippy::too_many_arguments, reason = "what it reads and where it writes")]
pub(super) unsafe fn transform_products<const EDGE: usize, T: Transform<EDGE>>(
    tiling: &Tiling,
    grid: Grid,
    products: *const f32,
    rows: Range<usize>,
    layout: Layout,
    origin: usize,
    y: &mut [f32],
    accumulate: bool,
) {
    let channels = layout.channels;
    let begin = tiling.positions_before(grid, rows.start);
    assert!(
        y.len() == (tiling.positions_before(grid, rows.end) - begin) * channels,
        "block of pixels has another length"
    );
    for row in rows {
        let first = tiling.positions_before(grid, row) - begin;
        let height = (tiling.positions_before(grid, row + 1) - tiling.positions_before(grid, row)) / grid.width;
        for column in 0..tiling.columns {
            let from = layout.targets(products.cast_mut(), (row - origin) * tiling.columns + column, T::INPUTS);
            let mut target = [[std::ptr::null_mut(); EDGE]; EDGE];
            let width = grid.step.min(grid.width - column * grid.step);
            for (i, target) in target.iter_mut().enumerate().take(height) {
                for (j, target) in target.iter_mut().enumerate().take(width) {
                    let at = (first + i * grid.width + column * grid.step + j) * channels;
                    *target = y[at..at + channels].as_mut_ptr();
                }
            }
            let source = from.map(|row| row.map(<*mut f32>::cast_const));
            let tile = Tile { source, target, channels, panel: channels, panel_stride: 0, accumulate };
            // SAFETY: sources as the caller vouches; targets are rows of `y`.
            unsafe {
                if height == grid.step && width == grid.step {
                    transform_tile::<EDGE, T, true>(&tile);
                } else {
                    transform_tile::<EDGE, T, false>(&tile);
                }
            }
        }
    }
}

/// Tile rows of one task of the transforms: about 28 tiles, half as many where each has twice the frequencies.
pub(super) fn rows_of_task(tiling: &Tiling) -> usize {
    let tiles: usize = if tiling.scheme.stride() == 1 { 28 } else { 14 };
    tiles.div_ceil(tiling.columns).max(1)
}

/// Cuts `y` at the borders of blocks of `rows` tile rows: the first row of each block and its pixels.
pub(super) fn cut<'a>(
    tiling: &Tiling,
    grid: Grid,
    range: Range<usize>,
    rows: usize,
    channels: usize,
    mut y: &'a mut [f32],
) -> Vec<(Range<usize>, &'a mut [f32])> {
    let mut blocks = Vec::with_capacity(range.len().div_ceil(rows));
    for first in range.clone().step_by(rows) {
        let last = range.end.min(first + rows);
        let len = (tiling.positions_before(grid, last) - tiling.positions_before(grid, first)) * channels;
        let (block, rest) = std::mem::take(&mut y).split_at_mut(len);
        blocks.push((first..last, block));
        y = rest;
    }
    blocks
}
