//! Transposing a matrix, four by four.

/// Writes the transpose of `source` (`rows`×`columns`, rows `source_stride` apart) to `target`, whose rows lie
/// `target_stride` apart.
pub(crate) fn transpose(
    [rows, columns]: [usize; 2],
    source: &[f32],
    source_stride: usize,
    target: &mut [f32],
    target_stride: usize,
) {
    /// A block whose lines stay in the first-level cache even where all of them fall into two of its sets, as they do
    /// for rows of 512 values: a line of target rows is written whole before the next block begins.
    const ROWS: usize = 16;
    const COLUMNS: usize = 8;
    if rows == 0 || columns == 0 {
        return;
    }
    assert!((rows - 1) * source_stride + columns <= source.len(), "source of a transpose is too short");
    assert!((columns - 1) * target_stride + rows <= target.len(), "target of a transpose is too short");
    for row in (0..rows).step_by(ROWS) {
        for column in (0..columns).step_by(COLUMNS) {
            let (end_row, end_column) = (rows.min(row + ROWS), columns.min(column + COLUMNS));
            let (whole_row, whole_column) = (row + (end_row - row) / 4 * 4, column + (end_column - column) / 4 * 4);
            for j in (column..whole_column).step_by(4) {
                for i in (row..whole_row).step_by(4) {
                    four_by_four(
                        &source[i * source_stride + j..],
                        source_stride,
                        &mut target[j * target_stride + i..],
                        target_stride,
                    );
                }
            }
            for i in row..end_row {
                let first = if i < whole_row { whole_column } else { column };
                for j in first..end_column {
                    target[j * target_stride + i] = source[i * source_stride + j];
                }
            }
        }
    }
}

#[inline]
fn four_by_four(source: &[f32], source_stride: usize, target: &mut [f32], target_stride: usize) {
    assert!(3 * source_stride + 4 <= source.len() && 3 * target_stride + 4 <= target.len());
    #[cfg(target_arch = "x86_64")]
    // SAFETY: four rows of four values on both sides by the check above; SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_TRANSPOSE4_PS, _mm_loadu_ps, _mm_storeu_ps};
        let (from, to) = (source.as_ptr(), target.as_mut_ptr());
        let mut a = _mm_loadu_ps(from);
        let mut b = _mm_loadu_ps(from.add(source_stride));
        let mut c = _mm_loadu_ps(from.add(2 * source_stride));
        let mut d = _mm_loadu_ps(from.add(3 * source_stride));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        _mm_storeu_ps(to, a);
        _mm_storeu_ps(to.add(target_stride), b);
        _mm_storeu_ps(to.add(2 * target_stride), c);
        _mm_storeu_ps(to.add(3 * target_stride), d);
    }
    #[cfg(not(target_arch = "x86_64"))]
    for i in 0..4 {
        for j in 0..4 {
            target[j * target_stride + i] = source[i * source_stride + j];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::numbers;
    use super::transpose;

    #[test]
    fn every_element_finds_its_place() {
        for [rows, columns] in [[1, 1], [4, 4], [5, 3], [33, 70], [64, 32], [7, 130]] {
            let (source_stride, target_stride) = (columns + 2, rows + 1);
            let source = numbers(1, rows * source_stride);
            let mut target = vec![9.0; columns * target_stride];
            transpose([rows, columns], &source, source_stride, &mut target, target_stride);
            for (at, value) in target.iter().enumerate() {
                let (j, i) = (at / target_stride, at % target_stride);
                assert_eq!(*value, if i < rows { source[i * source_stride + j] } else { 9.0 });
            }
        }
    }
}
