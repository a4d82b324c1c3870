//! Each kernel as a function: what it reads, what it writes, how many blocks it gets.
//!
//! How work is cut depends on shapes alone, so a result has the same bits at every run.

use std::sync::Arc;

use super::{
    cuda_error::CudaError,
    device::{Argument, Device, Slice},
    precision::Precision,
};
use crate::model::backbone::{Dims, MaxPool, op::Residual};

/// Threads of a block; the kernels are written for this number.
const THREADS: usize = 256;
/// Channels and rows of a block of `bn_moments`, `bn_gradient_sums` and `column_sums`.
const LANES: usize = 32;
const LINES: usize = 8;
/// Values that statistics and coefficients of a batch norm keep for a channel.
pub(super) const STATISTICS: usize = 4;
pub(super) const COEFFICIENTS: usize = 3;
/// Views of an image at the most (`MAX_TARGETS` and one).
pub(super) const MAX_VIEWS: usize = 64;
/// Parts of a view that are summed apart, at the most, and rows of a part at the least.
const MAX_PARTS: usize = 128;
const MIN_PART: usize = 128;
/// About how many blocks keep a large device busy.
const MANY_BLOCKS: usize = 264;
/// Output positions of a part of a weight gradient at the least.
const MIN_WEIGHT_PART: usize = 512;
/// Values of all parts of a weight gradient at the most.
const MAX_PARTIAL: usize = 32 << 20;

/// The numbers of a convolution over one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) n: usize,
    pub(super) input: Dims,
    pub(super) output: Dims,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
}

impl Shape {
    /// A linear layer: a convolution of one position.
    pub(super) fn linear(rows: usize, inputs: usize, outputs: usize) -> Self {
        let point = |channels| Dims { height: 1, width: 1, channels };
        Self { n: rows, input: point(inputs), output: point(outputs), kernel: 1, stride: 1, padding: 0 }
    }

    /// Output positions of the batch.
    pub(super) fn positions(&self) -> usize {
        self.n * self.output.positions()
    }

    /// Values of one window.
    fn depth(&self) -> usize {
        self.kernel * self.kernel * self.input.channels
    }

    fn numbers(&self) -> [i32; 10] {
        let Self { n, input, output, kernel, stride, padding } = *self;
        let numbers = [n, input.height, input.width, input.channels, output.height, output.width, output.channels];
        let mut all = [0; 10];
        for (to, from) in all.iter_mut().zip(numbers.into_iter().chain([kernel, stride, padding])) {
            *to = from as i32;
        }
        all
    }

    /// How the sum over positions of a weight gradient is cut: positions of a part, and parts.
    fn weight_parts(&self, tile: usize) -> (usize, usize) {
        let (rows, columns, positions) = (self.depth(), self.output.channels, self.positions());
        let tiles = rows.div_ceil(tile) * columns.div_ceil(tile);
        let most = positions.div_ceil(MIN_WEIGHT_PART).min(MAX_PARTIAL / (rows * columns)).clamp(1, 1 << 15);
        let parts = MANY_BLOCKS.div_ceil(tiles).min(most);
        // Whole tiles of every precision.
        let part = positions.div_ceil(parts).next_multiple_of(32);
        (part, positions.div_ceil(part))
    }

    fn weight_tile(&self) -> usize {
        if self.depth() >= 128 && self.output.channels >= 128 { 128 } else { 64 }
    }

    /// Values that [`Kernels::conv_weight_gradient`] wants to work with.
    pub(super) fn weight_partial_len(&self) -> usize {
        self.weight_partial_len_by(self.weight_tile())
    }

    /// The same for tiles of this size.
    pub(super) fn weight_partial_len_by(&self, tile: usize) -> usize {
        self.depth() * self.output.channels * self.weight_parts(tile).1
    }
}

/// The rows of a batch norm: views one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NormShape {
    pub(super) views: usize,
    /// Of one view.
    pub(super) rows: usize,
    pub(super) channels: usize,
}

impl NormShape {
    /// Rows of a part, and parts of a view.
    fn parts(&self) -> (usize, usize) {
        let part = self.rows.div_ceil(MAX_PARTS).max(MIN_PART);
        (part, self.rows.div_ceil(part))
    }

    fn len(&self) -> usize {
        self.views * self.rows * self.channels
    }

    /// Values that the sums want to work with.
    pub(super) fn partial_len(&self) -> usize {
        self.views * self.parts().1 * 2 * self.channels
    }
}

/// Trained values of a batch norm, if it has any.
#[derive(Clone, Copy, Debug)]
pub(super) struct AffineSlices {
    pub(super) gamma: Slice,
    pub(super) beta: Slice,
}

/// Running statistics of a batch norm.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunningSlices {
    pub(super) mean: Slice,
    pub(super) var: Slice,
}

/// The tensors of a batch norm's way back.
#[derive(Clone, Copy, Debug)]
pub(super) struct NormGradient {
    /// Gradient of the output.
    pub(super) d: Slice,
    /// What was normalised; becomes its gradient.
    pub(super) y: Slice,
    /// The output, where a residual was added before the ReLU.
    pub(super) out: Option<Slice>,
    pub(super) statistics: Slice,
}

/// The kernels of a device.
#[derive(Clone, Debug)]
pub(super) struct Kernels {
    device: Arc<dyn Device>,
    precision: Precision,
}

const fn blocks(grid: [usize; 3]) -> [u32; 3] {
    [grid[0] as u32, grid[1] as u32, grid[2] as u32]
}

impl Kernels {
    pub(super) fn new(device: &Arc<dyn Device>) -> Self {
        Self { device: Arc::clone(device), precision: device.precision() }
    }

    pub(super) fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of an activation.
    pub(super) fn element_bytes(&self) -> usize {
        self.precision.element_bytes()
    }

    /// A thread for each value.
    fn for_each(&self, kernel: &'static str, len: usize, arguments: &[Argument<'_>]) -> Result<(), CudaError> {
        self.device.launch(kernel, blocks([len.div_ceil(THREADS), 1, 1]), blocks([THREADS, 1, 1]), arguments)
    }

    /// A thread for each vector of elements.
    fn for_vectors(&self, kernel: &'static str, len: usize, arguments: &[Argument<'_>]) -> Result<(), CudaError> {
        self.for_each(kernel, len.div_ceil(self.precision.vector()), arguments)
    }

    fn is_wide(&self, channels: usize) -> bool {
        channels.is_multiple_of(self.precision.vector())
    }

    fn conv(
        &self,
        [small_wide, small_narrow, large_wide, large_narrow]: [&'static str; 4],
        tile: usize,
        wide: bool,
        [rows, columns, parts]: [usize; 3],
        arguments: &[Argument<'_>],
    ) -> Result<(), CudaError> {
        let kernel = match (tile, wide) {
            (64, true) => small_wide,
            (64, false) => small_narrow,
            (_, true) => large_wide,
            (_, false) => large_narrow,
        };
        let grid = blocks([rows.div_ceil(tile), columns.div_ceil(tile), parts]);
        self.device.launch(kernel, grid, blocks([THREADS, 1, 1]), arguments)
    }

    /// Large tiles where there are enough of them.
    fn tile(rows: usize, columns: usize) -> usize {
        let tiles = rows.div_ceil(128) * columns.div_ceil(128);
        if columns >= 128 && tiles >= MANY_BLOCKS / 2 { 128 } else { 64 }
    }

    /// y = conv(x, w)
    pub(super) fn conv_forward(&self, shape: &Shape, x: Slice, w: Slice, y: Slice) -> Result<(), CudaError> {
        let (rows, columns) = (shape.positions(), shape.output.channels);
        self.conv_forward_by(Self::tile(rows, columns), shape, x, w, y)
    }

    /// The same in tiles of this size.
    pub(super) fn conv_forward_by(
        &self,
        tile: usize,
        shape: &Shape,
        x: Slice,
        w: Slice,
        y: Slice,
    ) -> Result<(), CudaError> {
        let wide = self.is_wide(shape.input.channels) && self.is_wide(shape.output.channels);
        let names =
            ["conv_forward_64_wide", "conv_forward_64_narrow", "conv_forward_128_wide", "conv_forward_128_narrow"];
        let numbers = shape.numbers();
        let arguments = [Argument::Numbers(&numbers), Argument::Memory(x), Argument::Memory(w), Argument::Memory(y)];
        self.conv(names, tile, wide, [shape.positions(), shape.output.channels, 1], &arguments)
    }

    /// dx = what dy says of x, or dx += that.
    pub(super) fn conv_data_gradient(
        &self,
        shape: &Shape,
        dy: Slice,
        w: Slice,
        dx: Slice,
        accumulate: bool,
    ) -> Result<(), CudaError> {
        let tile = Self::tile(shape.n * shape.input.positions(), shape.input.channels);
        self.conv_data_gradient_by(tile, shape, dy, w, dx, accumulate)
    }

    /// The same in tiles of this size.
    pub(super) fn conv_data_gradient_by(
        &self,
        tile: usize,
        shape: &Shape,
        dy: Slice,
        w: Slice,
        dx: Slice,
        accumulate: bool,
    ) -> Result<(), CudaError> {
        let wide = self.is_wide(shape.output.channels);
        let names = [
            "conv_data_gradient_64_wide",
            "conv_data_gradient_64_narrow",
            "conv_data_gradient_128_wide",
            "conv_data_gradient_128_narrow",
        ];
        let numbers = shape.numbers();
        let arguments = [
            Argument::Numbers(&numbers),
            Argument::Memory(dy),
            Argument::Memory(w),
            Argument::Memory(dx),
            Argument::Int(i32::from(accumulate)),
        ];
        self.conv(names, tile, wide, [shape.n * shape.input.positions(), shape.input.channels, 1], &arguments)
    }

    /// dw = what dy says of w, or dw += that; `partial` holds [`Shape::weight_partial_len`] values at least.
    pub(super) fn conv_weight_gradient(
        &self,
        shape: &Shape,
        x: Slice,
        dy: Slice,
        partial: Slice,
        dw: Slice,
        accumulate: bool,
    ) -> Result<(), CudaError> {
        self.conv_weight_gradient_by(shape.weight_tile(), shape, x, dy, partial, dw, accumulate)
    }

    /// The same in tiles of this size.
    #[allow(clippy::too_many_arguments, reason = "the layer's tensors")]
    pub(super) fn conv_weight_gradient_by(
        &self,
        tile: usize,
        shape: &Shape,
        x: Slice,
        dy: Slice,
        partial: Slice,
        dw: Slice,
        accumulate: bool,
    ) -> Result<(), CudaError> {
        let wide = self.is_wide(shape.input.channels) && self.is_wide(shape.output.channels);
        let names = [
            "conv_weight_gradient_64_wide",
            "conv_weight_gradient_64_narrow",
            "conv_weight_gradient_128_wide",
            "conv_weight_gradient_128_narrow",
        ];
        let (part, parts) = shape.weight_parts(tile);
        let len = shape.depth() * shape.output.channels;
        let partial = Slice { bytes: 4 * len * parts, ..partial };
        let numbers = shape.numbers();
        let arguments = [
            Argument::Numbers(&numbers),
            Argument::Memory(x),
            Argument::Memory(dy),
            Argument::Memory(partial),
            Argument::Int(part as i32),
        ];
        self.conv(names, tile, wide, [shape.depth(), shape.output.channels, parts], &arguments)?;
        let arguments = [
            Argument::Memory(partial),
            Argument::Memory(dw),
            Argument::Index(len as i64),
            Argument::Int(parts as i32),
            Argument::Int(i32::from(accumulate)),
        ];
        self.for_each("sum_parts", len, &arguments)
    }

    /// Statistics of each view of `y`, by which the running ones are moved. A norm without trained values is given none.
    pub(super) fn bn_statistics(
        &self,
        shape: &NormShape,
        y: Slice,
        affine: Option<AffineSlices>,
        running: RunningSlices,
        partial: Slice,
        statistics: Slice,
    ) -> Result<(), CudaError> {
        let (part, parts) = shape.parts();
        let (rows, channels, views) = (shape.rows as i32, shape.channels as i32, shape.views as i32);
        let partial = Slice { bytes: 4 * shape.partial_len(), ..partial };
        let arguments = [
            Argument::Memory(y),
            Argument::Memory(partial),
            Argument::Int(rows),
            Argument::Int(channels),
            Argument::Int(part as i32),
        ];
        let grid = blocks([shape.channels.div_ceil(LANES), parts, shape.views]);
        self.device.launch("bn_moments", grid, blocks([LANES, LINES, 1]), &arguments)?;
        // Where there are none, nothing is read.
        let slices = affine.unwrap_or(AffineSlices { gamma: running.mean, beta: running.mean });
        let arguments = [
            Argument::Memory(partial),
            Argument::Memory(slices.gamma),
            Argument::Memory(slices.beta),
            Argument::Memory(running.mean),
            Argument::Memory(running.var),
            Argument::Memory(statistics),
            Argument::Int(rows),
            Argument::Int(channels),
            Argument::Int(part as i32),
            Argument::Int(views),
            Argument::Int(i32::from(affine.is_some())),
        ];
        self.for_each("bn_statistics", shape.channels, &arguments)
    }

    /// Statistics of a single view from the running ones.
    pub(super) fn bn_frozen_statistics(
        &self,
        channels: usize,
        affine: Option<AffineSlices>,
        running: RunningSlices,
        statistics: Slice,
    ) -> Result<(), CudaError> {
        let slices = affine.unwrap_or(AffineSlices { gamma: running.mean, beta: running.mean });
        let arguments = [
            Argument::Memory(slices.gamma),
            Argument::Memory(slices.beta),
            Argument::Memory(running.mean),
            Argument::Memory(running.var),
            Argument::Memory(statistics),
            Argument::Int(channels as i32),
            Argument::Int(i32::from(affine.is_some())),
        ];
        self.for_each("bn_frozen_statistics", channels, &arguments)
    }

    /// out = relu(y · scale + shift + residual), or with the residual after the ReLU.
    pub(super) fn bn_apply(
        &self,
        shape: &NormShape,
        y: Slice,
        statistics: Slice,
        residual: Residual<Slice>,
        relu: bool,
        out: Slice,
    ) -> Result<(), CudaError> {
        let arguments = [
            Argument::Memory(y),
            Argument::Memory(statistics),
            Argument::Memory(residual.added().unwrap_or(y)),
            Argument::Memory(out),
            Argument::Index(shape.len() as i64),
            Argument::Index((shape.rows * shape.channels) as i64),
            Argument::Int(shape.channels as i32),
            Argument::Int(added(residual)),
            Argument::Int(i32::from(relu)),
            Argument::Int(i32::from(self.is_wide(shape.channels))),
        ];
        self.for_vectors("bn_apply", shape.len(), &arguments)
    }

    /// The way back through what [`Self::bn_apply`] did: turns `y` into its gradient and gives those of the trained
    /// values. A residual comes with the gradient of what was added, if it wants one, and whether to add to it.
    #[allow(clippy::too_many_arguments, reason = "the layer's tensors")]
    pub(super) fn bn_gradient(
        &self,
        shape: &NormShape,
        tensors: &NormGradient,
        residual: Residual<Option<(Slice, bool)>>,
        relu: bool,
        gradients: Option<(AffineSlices, bool)>,
        partial: Slice,
        coefficients: Slice,
    ) -> Result<(), CudaError> {
        let NormGradient { d, y, out, statistics } = *tensors;
        let (part, parts) = shape.parts();
        let (rows, channels) = (shape.rows as i32, shape.channels as i32);
        let (added, relu) = (added(residual), i32::from(relu));
        let partial = Slice { bytes: 4 * shape.partial_len(), ..partial };
        let out = out.unwrap_or(d);
        let arguments = [
            Argument::Memory(d),
            Argument::Memory(y),
            Argument::Memory(out),
            Argument::Memory(statistics),
            Argument::Memory(partial),
            Argument::Int(rows),
            Argument::Int(channels),
            Argument::Int(part as i32),
            Argument::Int(added),
            Argument::Int(relu),
        ];
        let grid = blocks([shape.channels.div_ceil(LANES), parts, shape.views]);
        self.device.launch("bn_gradient_sums", grid, blocks([LANES, LINES, 1]), &arguments)?;
        let (slices, accumulate) =
            gradients.unwrap_or((AffineSlices { gamma: coefficients, beta: coefficients }, false));
        let arguments = [
            Argument::Memory(partial),
            Argument::Memory(statistics),
            Argument::Memory(coefficients),
            Argument::Memory(slices.gamma),
            Argument::Memory(slices.beta),
            Argument::Int(rows),
            Argument::Int(channels),
            Argument::Int(part as i32),
            Argument::Int(shape.views as i32),
            Argument::Int(i32::from(gradients.is_some())),
            Argument::Int(i32::from(accumulate)),
        ];
        self.for_each("bn_coefficients", shape.channels, &arguments)?;
        let d_residual = residual.added().flatten();
        let arguments = [
            Argument::Memory(d),
            Argument::Memory(y),
            Argument::Memory(out),
            Argument::Memory(statistics),
            Argument::Memory(coefficients),
            Argument::Memory(d_residual.map_or(y, |(slice, _)| slice)),
            Argument::Index(shape.len() as i64),
            Argument::Index((shape.rows * shape.channels) as i64),
            Argument::Int(channels),
            Argument::Int(added),
            Argument::Int(relu),
            Argument::Int(d_residual.map_or(0, |(_, accumulate)| if accumulate { 2 } else { 1 })),
            Argument::Int(i32::from(self.is_wide(shape.channels))),
        ];
        self.for_vectors("bn_gradient", shape.len(), &arguments)
    }

    /// out = max-pool of relu(y · scale + shift), with which place of each window won.
    #[allow(clippy::too_many_arguments, reason = "the layer's tensors")]
    pub(super) fn bn_pool(
        &self,
        pool: &PoolShape,
        images_per_view: usize,
        y: Slice,
        statistics: Slice,
        relu: bool,
        out: Slice,
        winners: Slice,
    ) -> Result<(), CudaError> {
        let numbers = pool.numbers();
        let arguments = [
            Argument::Numbers(&numbers),
            Argument::Memory(y),
            Argument::Memory(statistics),
            Argument::Memory(out),
            Argument::Memory(winners),
            Argument::Int(images_per_view as i32),
            Argument::Int(i32::from(relu)),
        ];
        self.for_each("bn_pool", pool.n * pool.output.len(), &arguments)
    }

    /// g = the gradient `d` of the pool's output at the places that won.
    pub(super) fn pool_gradient(&self, pool: &PoolShape, d: Slice, winners: Slice, g: Slice) -> Result<(), CudaError> {
        let numbers = pool.numbers();
        let arguments =
            [Argument::Numbers(&numbers), Argument::Memory(d), Argument::Memory(winners), Argument::Memory(g)];
        self.for_each("pool_gradient", pool.n * pool.input.len(), &arguments)
    }

    /// y = mean or maximum of each image's positions.
    pub(super) fn global_pool(
        &self,
        n: usize,
        input: Dims,
        maximum: bool,
        x: Slice,
        y: Slice,
    ) -> Result<(), CudaError> {
        let arguments = [
            Argument::Memory(x),
            Argument::Memory(y),
            Argument::Int(n as i32),
            Argument::Int(input.positions() as i32),
            Argument::Int(input.channels as i32),
            Argument::Int(i32::from(maximum)),
        ];
        self.for_each("global_pool", n * input.channels, &arguments)
    }

    /// dx of the same.
    #[allow(clippy::too_many_arguments, reason = "the layer's tensors")]
    pub(super) fn global_pool_gradient(
        &self,
        n: usize,
        input: Dims,
        maximum: bool,
        x: Slice,
        y: Slice,
        dy: Slice,
        dx: Slice,
    ) -> Result<(), CudaError> {
        let arguments = [
            Argument::Memory(x),
            Argument::Memory(y),
            Argument::Memory(dy),
            Argument::Memory(dx),
            Argument::Int(n as i32),
            Argument::Int(input.positions() as i32),
            Argument::Int(input.channels as i32),
            Argument::Int(i32::from(maximum)),
        ];
        self.for_each("global_pool_gradient", n * input.channels, &arguments)
    }

    /// y [rows, columns] += bias
    pub(super) fn add_bias(&self, rows: usize, columns: usize, y: Slice, bias: Slice) -> Result<(), CudaError> {
        let len = rows * columns;
        let arguments =
            [Argument::Memory(y), Argument::Memory(bias), Argument::Index(len as i64), Argument::Int(columns as i32)];
        self.for_each("add_bias", len, &arguments)
    }

    /// sums = Σ rows of d, or sums += that.
    pub(super) fn column_sums(
        &self,
        rows: usize,
        columns: usize,
        d: Slice,
        sums: Slice,
        accumulate: bool,
    ) -> Result<(), CudaError> {
        let arguments = [
            Argument::Memory(d),
            Argument::Memory(sums),
            Argument::Int(rows as i32),
            Argument::Int(columns as i32),
            Argument::Int(i32::from(accumulate)),
        ];
        let grid = blocks([columns.div_ceil(LANES), 1, 1]);
        self.device.launch("column_sums", grid, blocks([LANES, LINES, 1]), &arguments)
    }

    /// The loss of p and z [views · n, d] into place 0 of `result` (f64), and the gradient of p times `share`.
    /// `per_row` holds a f64 for each row.
    #[allow(clippy::too_many_arguments, reason = "the loss's tensors")]
    pub(super) fn cosine_loss(
        &self,
        [n, views, d]: [usize; 3],
        p: Slice,
        z: Slice,
        share: f32,
        grad_p: Slice,
        per_row: Slice,
        result: Slice,
    ) -> Result<(), CudaError> {
        let (rows, count) = (n * views, (n * views * (views - 1)) as f64);
        let arguments = [
            Argument::Memory(p),
            Argument::Memory(z),
            Argument::Memory(grad_p),
            Argument::Memory(per_row),
            Argument::Int(n as i32),
            Argument::Int(views as i32),
            Argument::Int(d as i32),
            Argument::Float((-f64::from(share) / count) as f32),
        ];
        self.device.launch("cosine_loss", blocks([rows, 1, 1]), blocks([THREADS, 1, 1]), &arguments)?;
        self.sum_scaled(per_row, rows, (-1.0 / count) as f32, result, 0)
    }

    /// result[place] = factor · Σ of the first `len` values, all f64.
    fn sum_scaled(&self, values: Slice, len: usize, factor: f32, result: Slice, place: usize) -> Result<(), CudaError> {
        let arguments = [
            Argument::Memory(values),
            Argument::Memory(result),
            Argument::Int(len as i32),
            Argument::Float(factor),
            Argument::Int(place as i32),
        ];
        self.device.launch("sum_scaled", [1, 1, 1], blocks([THREADS, 1, 1]), &arguments)
    }

    /// `embedding_std` of the first n rows of z [at least n, d] into place 1 of `result`. `per_row` holds n f64,
    /// `per_column` d.
    pub(super) fn embedding_std(
        &self,
        n: usize,
        d: usize,
        z: Slice,
        per_row: Slice,
        per_column: Slice,
        result: Slice,
    ) -> Result<(), CudaError> {
        let arguments = [Argument::Memory(z), Argument::Memory(per_row), Argument::Int(d as i32)];
        self.device.launch("inverse_norms", blocks([n, 1, 1]), blocks([THREADS, 1, 1]), &arguments)?;
        let arguments = [
            Argument::Memory(z),
            Argument::Memory(per_row),
            Argument::Memory(per_column),
            Argument::Int(n as i32),
            Argument::Int(d as i32),
        ];
        self.for_each("column_deviations", d, &arguments)?;
        self.sum_scaled(per_column, d, (1.0 / d as f64) as f32, result, 1)
    }

    /// Elements of numbers.
    pub(super) fn to_elements(&self, len: usize, x: Slice, y: Slice) -> Result<(), CudaError> {
        let arguments = [Argument::Memory(x), Argument::Memory(y), Argument::Index(len as i64)];
        self.for_each("to_elements", len, &arguments)
    }

    /// Numbers of elements.
    pub(super) fn to_floats(&self, len: usize, x: Slice, y: Slice) -> Result<(), CudaError> {
        let arguments = [Argument::Memory(x), Argument::Memory(y), Argument::Index(len as i64)];
        self.for_each("to_floats", len, &arguments)
    }

    /// Sets the flag, an i32, where a gradient is not finite.
    pub(super) fn flag_not_finite(&self, len: usize, gradients: Slice, flag: Slice) -> Result<(), CudaError> {
        let arguments = [Argument::Memory(gradients), Argument::Memory(flag), Argument::Index(len as i64)];
        self.for_each("flag_not_finite", len, &arguments)
    }

    /// SGD over flat buffers; nothing where the flag is set. `weights` are the values as elements, if they differ.
    pub(super) fn sgd(&self, len: usize, buffers: &SgdBuffers, rule: &SgdRule) -> Result<(), CudaError> {
        let SgdBuffers { values, gradients, velocity, weights, flag } = *buffers;
        let SgdRule { lr, momentum, weight_decay, unscale } = *rule;
        let arguments = [
            Argument::Memory(values),
            Argument::Memory(gradients),
            Argument::Memory(velocity),
            Argument::Memory(weights.unwrap_or(values)),
            Argument::Memory(flag),
            Argument::Index(len as i64),
            Argument::Float(lr),
            Argument::Float(momentum),
            Argument::Float(weight_decay),
            Argument::Float(unscale),
        ];
        self.for_each("sgd", len, &arguments)
    }
}

/// The numbers of a max-pool over one batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolShape {
    pub(super) n: usize,
    pub(super) pool: MaxPool,
    pub(super) input: Dims,
    pub(super) output: Dims,
}

impl PoolShape {
    fn numbers(&self) -> [i32; 9] {
        let Self { n, pool, input, output } = *self;
        [
            n,
            input.height,
            input.width,
            input.channels,
            output.height,
            output.width,
            pool.kernel,
            pool.stride,
            pool.padding,
        ]
        .map(|number| number as i32)
    }
}

/// What an update reads and writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct SgdBuffers {
    pub(super) values: Slice,
    pub(super) gradients: Slice,
    pub(super) velocity: Slice,
    pub(super) weights: Option<Slice>,
    pub(super) flag: Slice,
}

/// The numbers of an update.
#[derive(Clone, Copy, Debug)]
pub(super) struct SgdRule {
    pub(super) lr: f32,
    pub(super) momentum: f32,
    pub(super) weight_decay: f32,
    /// What gradients are multiplied by first.
    pub(super) unscale: f32,
}

fn added<T: Copy>(residual: Residual<T>) -> i32 {
    match residual {
        Residual::None => 0,
        Residual::BeforeRelu(_) => 1,
        Residual::AfterRelu(_) => 2,
    }
}
