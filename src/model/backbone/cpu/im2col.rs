//! Patches as matrix rows: row = output position, column = (kernel row, kernel column, channel).

use crate::kernels::multiversion;
use std::ops::Range;

use super::conv::ConvShape;

/// The output positions of a batch one after the other, without a division for each.
#[derive(Clone, Copy, Debug)]
struct Position {
    image: usize,
    oy: usize,
    ox: usize,
}

impl Position {
    fn new(shape: &ConvShape, position: usize) -> Self {
        let (image, at) = (position / shape.output.positions(), position % shape.output.positions());
        Self { image, oy: at / shape.output.width, ox: at % shape.output.width }
    }

    fn advance(&mut self, shape: &ConvShape) {
        self.ox += 1;
        if self.ox == shape.output.width {
            (self.ox, self.oy) = (0, self.oy + 1);
        }
        if self.oy == shape.output.height {
            (self.oy, self.image) = (0, self.image + 1);
        }
    }

    /// Where kernel row `ky` lies in the input, or nothing where that is above or below the image.
    fn patch_row(&self, shape: &ConvShape, ky: usize) -> Option<PatchRow> {
        let y = (self.oy * shape.stride + ky).checked_sub(shape.padding).filter(|&y| y < shape.input.height)?;
        let channels = shape.input.channels as isize;
        let x = (self.ox * shape.stride) as isize - shape.padding as isize;
        let begin = (-x).clamp(0, shape.kernel as isize);
        let end = (shape.input.width as isize - x).clamp(begin, shape.kernel as isize);
        let row_start = (self.image * shape.input.height + y) * shape.input.width;
        Some(PatchRow {
            first: (row_start as isize + x) * channels,
            valid: (begin * channels) as usize..(end * channels) as usize,
        })
    }
}

/// Where one kernel row of one output position lies in the input: the offset of its first column, which may be
/// outside, and which of its `kernel * channels` columns are inside the image.
struct PatchRow {
    first: isize,
    valid: Range<usize>,
}

/// Copies the patches of `positions`, limited to `columns` of kernel row `ky`, into rows that begin `out_stride`
/// apart; what lies outside the image becomes zero.
pub(crate) fn gather(
    shape: &ConvShape,
    x: &[f32],
    positions: Range<usize>,
    ky: usize,
    columns: Range<usize>,
    out: &mut [f32],
    out_stride: usize,
) {
    let mut at = Position::new(shape, positions.start);
    for idx in 0..positions.len() {
        copy_patch(at.patch_row(shape, ky), x, columns.clone(), &mut out[idx * out_stride..][..columns.len()]);
        at.advance(shape);
    }
}

/// Copies `columns` of one kernel row.
#[inline]
fn copy_patch(row: Option<PatchRow>, x: &[f32], columns: Range<usize>, out: &mut [f32]) {
    let Some(row) = row else { return out.fill(0.0) };
    let begin = row.valid.start.clamp(columns.start, columns.end);
    let end = row.valid.end.clamp(begin, columns.end);
    if begin > columns.start {
        out[..begin - columns.start].fill(0.0);
    }
    if end < columns.end {
        out[end - columns.start..].fill(0.0);
    }
    if begin < end {
        let source = (row.first + begin as isize) as usize;
        copy_row(&x[source..][..end - begin], &mut out[begin - columns.start..end - columns.start]);
    }
}

/// Copies a row; the lengths that a first layer has by the thousand are known to the compiler.
fn copy_row(from: &[f32], to: &mut [f32]) {
    fn known<const LEN: usize>(from: &[f32], to: &mut [f32]) {
        to[..LEN].copy_from_slice(&from[..LEN]);
    }
    match to.len() {
        3 => known::<3>(from, to),
        9 => known::<9>(from, to),
        21 => known::<21>(from, to),
        64 => known::<64>(from, to),
        _ => to.copy_from_slice(from),
    }
}

/// All patches of `positions`: one row of `kernel * kernel * channels` each.
pub(crate) fn im2col(shape: &ConvShape, x: &[f32], positions: Range<usize>, out: &mut [f32]) {
    let width = shape.kernel * shape.input.channels;
    let mut at = Position::new(shape, positions.start);
    for out in out.chunks_exact_mut(shape.depth()).take(positions.len()) {
        for (ky, out) in out.chunks_exact_mut(width).enumerate() {
            copy_patch(at.patch_row(shape, ky), x, 0..width, out);
        }
        at.advance(shape);
    }
}

/// The transpose of `im2col`: adds patches to the image they came from.
pub(crate) fn col2im(shape: &ConvShape, columns: &[f32], positions: Range<usize>, dx: &mut [f32]) {
    let width = shape.kernel * shape.input.channels;
    let mut at = Position::new(shape, positions.start);
    for columns in columns.chunks_exact(shape.depth()).take(positions.len()) {
        for (ky, columns) in columns.chunks_exact(width).enumerate() {
            let Some(row) = at.patch_row(shape, ky) else { continue };
            let source = &columns[row.valid.clone()];
            if !source.is_empty() {
                let target = (row.first + row.valid.start as isize) as usize;
                add(&mut dx[target..][..source.len()], source);
            }
        }
        at.advance(shape);
    }
}

multiversion! {
    fn add(target: &mut [f32], source: &[f32]) {
        for (t, s) in target.iter_mut().zip(source) {
            *t += s;
        }
    }
}
