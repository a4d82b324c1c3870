//! 3×3 convolutions with stride 1 and padding 1 by Winograd's algorithm: forward, data gradient, weight gradient.
//!
//! An image is covered by tiles of m×m outputs (m = 2 or 4). A tile's (m+2)² inputs, transformed, give one row of
//! channels for each of the (m+2)² frequencies; for each frequency one matrix product over all tiles replaces the
//! convolution. Where the transformed weights are small, a task does everything for a few rows of tiles inside its
//! cache; where they are large, all tiles are transformed first and tasks divide the frequencies.

use std::ops::Range;

use rayon::prelude::*;

use super::conv::ConvShape;
use super::direct::add_in_order;
use super::matrix::{Matrix, multiply_packed, packed_len, panel_width};
use super::prepared::{Form, PreparedWeights, Weights};
use super::scratch::{Scratch, with_scratch};
use super::shared_mut::SharedMut;
use super::transpose::transpose;
use super::winograd_transform::{
    Filter2, Filter4, FilterGradient2, FilterGradient4, FilterGradientPair, FilterPair, Input2, Input4, InputPair,
    MAX_TILE, Output2, Output4, OutputGradient2, OutputGradient4, OutputGradientPair, OutputPair, Tile, Transform,
    transform_tile,
};

/// Channels below which transforms cost more than they save.
const MIN_CHANNELS: usize = 16;

/// Transformed weights up to this many values stay near enough for every task to read all of them.
const MAX_FUSED_WEIGHTS: usize = 40 << 14;

/// Which filtering a tile gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// F(4×4, 3×3).
    Four,
    /// F(2×2, 3×3).
    Two,
    /// The whole image is 2×2.
    Pair,
}

/// How an image is covered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    scheme: Scheme,
    /// Outputs of a tile in one direction.
    outputs: usize,
    /// Images.
    n: usize,
    height: usize,
    width: usize,
    rows: usize,
    columns: usize,
}

impl Tiling {
    /// The cheapest tiling, or nothing where direct convolution is as cheap. The batch plays no part: an image has
    /// the same features, to the bit, whatever it is batched with.
    pub(super) fn of(shape: &ConvShape) -> Option<Self> {
        Self::cheapest(shape, 1, 0)
    }

    /// The same for the gradients, which may look at the batch: for a few tiles, transforming the weights (writing
    /// and reading them where they no longer fit the caches) would cost more than it saves.
    pub(super) fn of_gradients(shape: &ConvShape) -> Option<Self> {
        /// What transforming a weight costs, in multiply-adds.
        const TRANSFORM: usize = 80;
        Self::cheapest(shape, shape.n, TRANSFORM)
    }

    fn cheapest(shape: &ConvShape, images: usize, per_weight: usize) -> Option<Self> {
        let fits = shape.kernel == 3 && shape.stride == 1 && shape.padding == 1;
        if !fits || shape.input.channels < MIN_CHANNELS || shape.output.channels < MIN_CHANNELS {
            return None;
        }
        let (height, width) = (shape.output.height, shape.output.width);
        let tiling = |scheme: Scheme| {
            let outputs = if scheme == Scheme::Four { 4 } else { 2 };
            let (rows, columns) = (height.div_ceil(outputs), width.div_ceil(outputs));
            Tiling { scheme, outputs, n: shape.n, height, width, rows, columns }
        };
        // Multiply-adds for each pair of channels; the transforms of a tile count half as much as its products.
        let cost =
            |tiling: &Tiling| tiling.frequencies() * (images * tiling.rows * tiling.columns * 3 / 2 + per_weight);
        let best = if (height, width) == (2, 2) {
            tiling(Scheme::Pair)
        } else {
            [tiling(Scheme::Four), tiling(Scheme::Two)].into_iter().min_by_key(cost)?
        };
        // Direct convolution packs the weights only.
        (cost(&best) <= 9 * (images * height * width + per_weight / 3)).then_some(best)
    }

    fn frequencies(&self) -> usize {
        match self.scheme {
            Scheme::Four => 36,
            Scheme::Two => 16,
            Scheme::Pair => 9,
        }
    }

    /// Pixels that a tile reads above and left of its outputs.
    fn before(&self) -> usize {
        usize::from(self.scheme != Scheme::Pair)
    }

    fn tile_rows(&self) -> usize {
        self.n * self.rows
    }

    /// Image positions that the tile rows before `row` cover.
    fn positions_before(&self, row: usize) -> usize {
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
fn spread(len: usize) -> usize {
    const LINE: usize = 16;
    (len.div_ceil(LINE) | 1) * LINE
}

/// Rows of transformed tiles: one matrix `tiles × channels` for each frequency, plain or in panels.
#[derive(Clone, Copy, Debug)]
struct Layout {
    tiles: usize,
    channels: usize,
    panel: usize,
    /// Values from one frequency to the next.
    frequency: usize,
}

impl Layout {
    fn plain(tiles: usize, channels: usize) -> Self {
        Self { tiles, channels, panel: channels, frequency: spread(tiles * channels) }
    }

    /// As `multiply_packed` wants its right-hand side.
    fn packed(tiles: usize, channels: usize) -> Self {
        Self { tiles, channels, panel: panel_width(channels), frequency: spread(packed_len(tiles, channels)) }
    }

    /// Where the rows of tile `tile` begin for all frequencies of an `edge`×`edge` tile.
    fn targets(&self, base: *mut f32, tile: usize, edge: usize) -> [[*mut f32; MAX_TILE]; MAX_TILE] {
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
unsafe fn transform_pixels<T: Transform>(
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
            unsafe { transform_tile::<T>(&tile) };
        }
    }
}

/// Transforms the products of tile rows `rows` back into the pixels `y`, which begin with the first of these rows.
///
/// # Safety
///
/// `products` must hold `layout` for all frequencies, its tile 0 being the first tile of row `origin`.
unsafe fn transform_products<T: Transform>(
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
            unsafe { transform_tile::<T>(&tile) };
        }
    }
}

/// Transformed weights for `k` channels in and `n` channels out: packed, one matrix for each frequency.
fn transform_weights<T: Transform>(w: &[f32], k: usize, n: usize, out: &mut [f32]) {
    const ROWS: usize = 8;
    let layout = Layout::packed(k, n);
    assert!(layout.frequency * T::OUTPUTS * T::OUTPUTS <= out.len() && w.len() == 9 * k * n);
    let shared = SharedMut::new(out);
    (0..k.div_ceil(ROWS)).into_par_iter().for_each(|task| {
        for row in task * ROWS..k.min((task + 1) * ROWS) {
            let mut source = [[std::ptr::null(); MAX_TILE]; MAX_TILE];
            for (ky, source) in source.iter_mut().enumerate().take(3) {
                for (kx, source) in source.iter_mut().enumerate().take(3) {
                    *source = w[((ky * 3 + kx) * k + row) * n..][..n].as_ptr();
                }
            }
            let target = layout.targets(shared.pointer(0), row, T::OUTPUTS);
            let (panel, panel_stride) = (layout.panel, k * layout.panel);
            let tile = Tile { source, target, channels: n, panel, panel_stride, accumulate: false };
            // SAFETY: sources are rows of `w`; a target row belongs to one `row`, hence to one task.
            unsafe { transform_tile::<T>(&tile) };
        }
    });
}

/// The kernel of the data gradient: turned by 180°, channels in and out exchanged.
fn turn_weights(w: &[f32], cin: usize, cout: usize, turned: &mut [f32]) {
    turned.par_chunks_mut(cin * cout).zip(w.par_chunks(cin * cout).rev()).for_each(|(turned, w)| {
        transpose([cin, cout], w, cout, turned, cin);
    });
}

/// Tile rows of one task of the transforms: about 28 tiles.
fn rows_of_task(tiling: &Tiling) -> usize {
    28_usize.div_ceil(tiling.columns).max(1)
}

/// Cuts `y` at the borders of blocks of `rows` tile rows: the first row of each block and its pixels.
fn cut<'a>(
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

/// `y = conv(x, w)`; `finish` gets each finished block of positions and where it begins.
#[allow(clippy::too_many_arguments, reason = "kernels take what they read and write")]
pub(super) fn forward<T: Send>(
    tiling: &Tiling,
    shape: &ConvShape,
    x: &[f32],
    w: Weights<'_>,
    y: &mut [f32],
    prepared: &mut PreparedWeights,
    scratch: &mut Scratch,
    finish: impl Fn(usize, &mut [f32]) -> T + Sync,
) -> Vec<T> {
    let (cin, cout) = (shape.input.channels, shape.output.channels);
    let (call, weights): (Convolve<T, _>, TransformWeights) = match tiling.scheme {
        Scheme::Four => (convolve::<Input4, Output4, T, _>, transform_weights::<Filter4>),
        Scheme::Two => (convolve::<Input2, Output2, T, _>, transform_weights::<Filter2>),
        Scheme::Pair => (convolve::<InputPair, OutputPair, T, _>, transform_weights::<FilterPair>),
    };
    let form = Form::Transformed(tiling.frequencies());
    let weights =
        prepared.get(w.version, form, weights_len(tiling, cin, cout), |out| weights(w.values, cin, cout, out));
    call(tiling, [cin, cout], x, weights, y, false, scratch, finish)
}

/// `dx = dL/dx`, or `dx += dL/dx`: the convolution of `dy` with the turned kernel.
#[allow(clippy::too_many_arguments, reason = "kernels take what they read and write")]
pub(super) fn data_gradient(
    tiling: &Tiling,
    shape: &ConvShape,
    dy: &[f32],
    w: Weights<'_>,
    dx: &mut [f32],
    accumulate: bool,
    prepared: &mut PreparedWeights,
    scratch: &mut Scratch,
) {
    let (cin, cout) = (shape.input.channels, shape.output.channels);
    let (call, weights): (Convolve<(), _>, TransformWeights) = match tiling.scheme {
        Scheme::Four => (convolve::<Input4, Output4, (), _>, transform_weights::<Filter4>),
        Scheme::Two => (convolve::<Input2, Output2, (), _>, transform_weights::<Filter2>),
        Scheme::Pair => (convolve::<InputPair, OutputPair, (), _>, transform_weights::<FilterPair>),
    };
    let form = Form::Transformed(tiling.frequencies());
    let weights = prepared.get(w.version, form, weights_len(tiling, cout, cin), |out| {
        let [turned] = scratch.parts([w.values.len()]);
        turn_weights(w.values, cin, cout, turned);
        weights(turned, cout, cin, out);
    });
    call(tiling, [cout, cin], dy, weights, dx, accumulate, scratch, nothing);
}

/// Gradients are not looked at while they are in the cache.
fn nothing(_: usize, _: &mut [f32]) {}

/// Values of the transformed weights for `k` channels in and `n` channels out.
fn weights_len(tiling: &Tiling, k: usize, n: usize) -> usize {
    tiling.frequencies() * Layout::packed(k, n).frequency
}

/// `transform_weights` for one of the schemes.
type TransformWeights = fn(&[f32], usize, usize, &mut [f32]);

/// `convolve` for one of the schemes.
type Convolve<T, F> = fn(&Tiling, [usize; 2], &[f32], &[f32], &mut [f32], bool, &mut Scratch, F) -> Vec<T>;

#[allow(clippy::too_many_arguments, reason = "the two directions share it")]
fn convolve<I: Transform, O: Transform, T: Send, F: Fn(usize, &mut [f32]) -> T + Sync>(
    tiling: &Tiling,
    [cin, cout]: [usize; 2],
    x: &[f32],
    weights: &[f32],
    y: &mut [f32],
    accumulate: bool,
    scratch: &mut Scratch,
    finish: F,
) -> Vec<T> {
    let (frequencies, weights_of) = (tiling.frequencies(), Layout::packed(cin, cout).frequency);
    if weights.len() <= MAX_FUSED_WEIGHTS {
        let rows = rows_of_task(tiling);
        let tiles = rows * tiling.columns;
        // Products of a frequency overwrite the transformed pixels of the one before it.
        let slot = spread(tiles * cin.max(cout));
        let task = |(range, y): (Range<usize>, &mut [f32])| {
            with_scratch([(frequencies + 1) * slot, cin], |[slots, zeros]| {
                zeros.fill(0.0);
                let tiles_here = range.len() * tiling.columns;
                let from = Layout { frequency: slot, ..Layout::plain(tiles, cin) };
                let to = Layout { frequency: slot, ..Layout::plain(tiles, cout) };
                // SAFETY: all frequencies of `from` begin one slot late and fit; this thread owns the slots.
                unsafe {
                    let target = slots[slot..].as_mut_ptr();
                    transform_pixels::<I>(tiling, x, range.clone(), tiling.before(), zeros, from, range.start, target);
                }
                for (f, weights) in weights.chunks_exact(weights_of).enumerate().take(frequencies) {
                    let (products, pixels) = slots[f * slot..].split_at_mut(slot);
                    let pixels = Matrix::row_major(pixels, cin);
                    multiply_packed([tiles_here, cout, cin], pixels, weights, products, cout, false);
                }
                let products = slots.as_ptr();
                // SAFETY: all frequencies of `to` fit into the slots.
                unsafe {
                    transform_products::<O>(tiling, products, range.clone(), to, range.start, y, accumulate);
                }
            });
            finish(tiling.positions_before(range.start), y)
        };
        return cut(tiling, 0..tiling.tile_rows(), rows, cout, y).into_par_iter().map(task).collect();
    }

    // Rows of tiles that are worked on at once: as many as a few million values hold, and not too few.
    const VALUES: usize = 1 << 22;
    const MIN_TILES: usize = 112;
    let tiles = (VALUES / (frequencies * (cin + cout))).max(MIN_TILES);
    let rows = tiles.div_ceil(tiling.columns).min(tiling.tile_rows());
    let tiles = rows * tiling.columns;
    let (from, to) = (Layout::plain(tiles, cin), Layout::plain(tiles, cout));
    let lengths = [frequencies * from.frequency, frequencies * to.frequency, cin];
    let [pixels, products, zeros] = scratch.parts(lengths);
    zeros.fill(0.0);
    let zeros = &*zeros;
    let mut done = Vec::new();
    let mut rest = y;
    for first in (0..tiling.tile_rows()).step_by(rows) {
        let range = first..tiling.tile_rows().min(first + rows);
        let tiles_here = range.len() * tiling.columns;
        let len = (tiling.positions_before(range.end) - tiling.positions_before(first)) * cout;
        let (y, other) = std::mem::take(&mut rest).split_at_mut(len);
        rest = other;

        let target = SharedMut::new(pixels);
        let task = rows_of_task(tiling);
        let starts: Vec<usize> = range.clone().step_by(task).collect();
        starts.par_iter().for_each(|&start| {
            let rows = start..range.end.min(start + task);
            // SAFETY: `pixels` holds all frequencies of `from`; tasks have tiles of their own.
            unsafe { transform_pixels::<I>(tiling, x, rows, tiling.before(), zeros, from, first, target.pointer(0)) };
        });
        let pixels = &*pixels;
        products.par_chunks_mut(to.frequency).enumerate().take(frequencies).for_each(|(f, products)| {
            let pixels = Matrix::row_major(&pixels[f * from.frequency..], cin);
            multiply_packed([tiles_here, cout, cin], pixels, &weights[f * weights_of..], products, cout, false);
        });
        let products = SharedMut::new(products);
        let task = |(rows, y): (Range<usize>, &mut [f32])| {
            let begin = tiling.positions_before(rows.start);
            // SAFETY: `products` holds all frequencies of `to`, and nobody writes it now.
            unsafe { transform_products::<O>(tiling, products.pointer(0), rows, to, first, y, accumulate) };
            finish(begin, y)
        };
        done.par_extend(cut(tiling, range.clone(), rows_of_task(tiling), cout, y).into_par_iter().map(task));
    }
    done
}

/// `dw += dL/dw`.
pub(super) fn weight_gradient(
    tiling: &Tiling,
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    scratch: &mut Scratch,
) {
    let (cin, cout) = (shape.input.channels, shape.output.channels);
    let call = match tiling.scheme {
        Scheme::Four => gradient_of_weights::<Input4, OutputGradient4, FilterGradient4>,
        Scheme::Two => gradient_of_weights::<Input2, OutputGradient2, FilterGradient2>,
        Scheme::Pair => gradient_of_weights::<InputPair, OutputGradientPair, FilterGradientPair>,
    };
    call(tiling, cin, cout, x, dy, dw, scratch);
}

fn gradient_of_weights<I: Transform, D: Transform, F: Transform>(
    tiling: &Tiling,
    cin: usize,
    cout: usize,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    scratch: &mut Scratch,
) {
    const VALUES: usize = 1 << 22;
    const MAX_GROUPS: usize = 16;
    let frequencies = tiling.frequencies();
    let sums_of = spread(cin * cout);
    let sums_len = frequencies * sums_of;
    let task = 2 * rows_of_task(tiling);
    let groups = (VALUES / sums_len).min(MAX_GROUPS).min(tiling.tile_rows().div_ceil(task));
    if groups >= 4 {
        // Each task sums over its share of the tiles.
        let share = tiling.tile_rows().div_ceil(task).div_ceil(groups) * task;
        let groups = tiling.tile_rows().div_ceil(share);
        let [sums] = scratch.parts([groups * sums_len]);
        sums.par_chunks_mut(sums_len).enumerate().for_each(|(group, sums)| {
            let tiles = task * tiling.columns;
            let (a, b) = (Layout::plain(tiles, cin), Layout::packed(tiles, cout));
            let lengths = [frequencies * a.frequency, frequencies * b.frequency, cin.max(cout)];
            with_scratch(lengths, |[pixels, gradients, zeros]| {
                zeros.fill(0.0);
                let begin = group * share;
                let end = tiling.tile_rows().min(begin + share);
                for first in (begin..end).step_by(task) {
                    let rows = first..end.min(first + task);
                    // The panels of a shorter block lie closer together.
                    let tiles = rows.len() * tiling.columns;
                    let (a, b) = (Layout::plain(tiles, cin), Layout::packed(tiles, cout));
                    // SAFETY: both buffers hold all frequencies and belong to this thread.
                    unsafe {
                        transform_pixels::<I>(
                            tiling,
                            x,
                            rows.clone(),
                            tiling.before(),
                            zeros,
                            a,
                            first,
                            pixels.as_mut_ptr(),
                        );
                        transform_pixels::<D>(tiling, dy, rows, 0, zeros, b, first, gradients.as_mut_ptr());
                    }
                    for (f, sums) in sums.chunks_exact_mut(sums_of).enumerate() {
                        let a = Matrix::transposed(&pixels[f * a.frequency..], cin);
                        let b = &gradients[f * b.frequency..][..b.frequency];
                        multiply_packed([cin, cout, tiles], a, b, sums, cout, first > begin);
                    }
                }
            });
        });
        let (sums, others) = sums.split_at_mut(sums_len);
        add_in_order(others, sums);
        transform_sums::<F>(sums, cin, cout, dw);
        return;
    }

    let tiles = (2 * VALUES / (frequencies * (cin + cout))).max(112);
    let rows = tiles.div_ceil(tiling.columns).min(tiling.tile_rows());
    let tiles = rows * tiling.columns;
    let (a, b) = (Layout::plain(tiles, cin), Layout::packed(tiles, cout));
    let lengths = [sums_len, frequencies * a.frequency, frequencies * b.frequency, cin.max(cout)];
    let [sums, pixels, gradients, zeros] = scratch.parts(lengths);
    zeros.fill(0.0);
    let zeros = &*zeros;
    for first in (0..tiling.tile_rows()).step_by(rows) {
        let range = first..tiling.tile_rows().min(first + rows);
        let tiles = range.len() * tiling.columns;
        let (a, b) = (Layout::plain(tiles, cin), Layout::packed(tiles, cout));
        let (to_pixels, to_gradients) = (SharedMut::new(pixels), SharedMut::new(gradients));
        let task = rows_of_task(tiling);
        let starts: Vec<usize> = range.clone().step_by(task).collect();
        starts.par_iter().for_each(|&start| {
            let rows = start..range.end.min(start + task);
            // SAFETY: both buffers hold all frequencies; tasks have tiles of their own.
            unsafe {
                transform_pixels::<I>(tiling, x, rows.clone(), tiling.before(), zeros, a, first, to_pixels.pointer(0));
                transform_pixels::<D>(tiling, dy, rows, 0, zeros, b, first, to_gradients.pointer(0));
            }
        });
        let (pixels, gradients) = (&*pixels, &*gradients);
        sums.par_chunks_mut(sums_of).enumerate().for_each(|(f, sums)| {
            let a = Matrix::transposed(&pixels[f * a.frequency..], cin);
            let b = &gradients[f * b.frequency..][..b.frequency];
            multiply_packed([cin, cout, tiles], a, b, sums, cout, first > 0);
        });
    }
    transform_sums::<F>(sums, cin, cout, dw);
}

/// Adds the transformed sums to the gradient of the kernel.
fn transform_sums<T: Transform>(sums: &[f32], cin: usize, cout: usize, dw: &mut [f32]) {
    const ROWS: usize = 8;
    let (edge, sums_of) = (T::INPUTS, spread(cin * cout));
    assert!(sums.len() >= edge * edge * sums_of && dw.len() == 9 * cin * cout);
    let shared = SharedMut::new(dw);
    (0..cin.div_ceil(ROWS)).into_par_iter().for_each(|task| {
        for row in task * ROWS..cin.min((task + 1) * ROWS) {
            let mut source = [[std::ptr::null(); MAX_TILE]; MAX_TILE];
            for (i, source) in source.iter_mut().enumerate().take(edge) {
                for (j, source) in source.iter_mut().enumerate().take(edge) {
                    *source = sums[(i * edge + j) * sums_of + row * cout..][..cout].as_ptr();
                }
            }
            let mut target = [[std::ptr::null_mut(); MAX_TILE]; MAX_TILE];
            for (ky, target) in target.iter_mut().enumerate().take(3) {
                for (kx, target) in target.iter_mut().enumerate().take(3) {
                    *target = shared.pointer(((ky * 3 + kx) * cin + row) * cout);
                }
            }
            let tile = Tile { source, target, channels: cout, panel: cout, panel_stride: 0, accumulate: true };
            // SAFETY: sources are rows of `sums`; a target row belongs to one `row`, hence to one task.
            unsafe { transform_tile::<T>(&tile) };
        }
    });
}
