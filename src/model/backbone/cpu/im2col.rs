//! Patches as matrix rows: row = output position, column = (kernel row, kernel column, channel).

use std::ops::Range;

use super::conv::ConvShape;

/// Where one kernel row of one output position lies in the input: the offset of its first column in the image row
/// (may be negative), the valid range of `kernel * channels` columns, and the image row, if inside.
struct PatchRow {
    row_start: usize,
    first: isize,
    valid: Range<usize>,
}

fn patch_row(shape: &ConvShape, position: usize, ky: usize) -> Option<PatchRow> {
    let per_image = shape.output.positions();
    let (image, at) = (position / per_image, position % per_image);
    let (oy, ox) = (at / shape.output.width, at % shape.output.width);
    let iy = (oy * shape.stride + ky).checked_sub(shape.padding).filter(|&iy| iy < shape.input.height)?;
    let channels = shape.input.channels as isize;
    let ix = (ox * shape.stride) as isize - shape.padding as isize;
    let begin = (-ix).clamp(0, shape.kernel as isize) * channels;
    let end = (shape.input.width as isize - ix).clamp(0, shape.kernel as isize) * channels;
    Some(PatchRow {
        row_start: (image * shape.input.height + iy) * shape.input.width * shape.input.channels,
        first: ix * channels,
        valid: begin as usize..end.max(begin) as usize,
    })
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
    for (idx, position) in positions.enumerate() {
        let out = &mut out[idx * out_stride..][..columns.len()];
        let Some(row) = patch_row(shape, position, ky) else {
            out.fill(0.0);
            continue;
        };
        let begin = row.valid.start.clamp(columns.start, columns.end);
        let end = row.valid.end.clamp(begin, columns.end);
        out[..begin - columns.start].fill(0.0);
        out[end - columns.start..].fill(0.0);
        if begin == end {
            continue;
        }
        let source = (row.row_start as isize + row.first + begin as isize) as usize;
        out[begin - columns.start..end - columns.start].copy_from_slice(&x[source..][..end - begin]);
    }
}

/// All patches of `positions`: one row of `kernel * kernel * channels` each.
pub(crate) fn im2col(shape: &ConvShape, x: &[f32], positions: Range<usize>, out: &mut [f32]) {
    let (row, depth) = (shape.kernel * shape.input.channels, shape.depth());
    for ky in 0..shape.kernel {
        gather(shape, x, positions.clone(), ky, 0..row, &mut out[ky * row..], depth);
    }
}

/// The transpose of `im2col`: adds patches to the image they came from.
pub(crate) fn col2im(shape: &ConvShape, columns: &[f32], positions: Range<usize>, dx: &mut [f32]) {
    let (width, depth) = (shape.kernel * shape.input.channels, shape.depth());
    for (idx, position) in positions.enumerate() {
        for ky in 0..shape.kernel {
            let Some(row) = patch_row(shape, position, ky) else { continue };
            let source = &columns[idx * depth + ky * width..][..width][row.valid.clone()];
            if source.is_empty() {
                continue;
            }
            let target = (row.row_start as isize + row.first + row.valid.start as isize) as usize;
            for (dx, v) in dx[target..][..source.len()].iter_mut().zip(source) {
                *dx += v;
            }
        }
    }
}
