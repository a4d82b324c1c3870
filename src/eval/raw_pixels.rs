//! The pixels themselves as a representation: what a classifier reaches without any network.

/// Averages a view [size, size, 3] over areas down to [out_size, out_size, 3].
///
/// A pixel that lies across an edge counts in both areas by its share, so that sizes need not divide each
/// other (`torch.nn.functional.interpolate(mode="area")` agrees where they do).
///
/// # Panics
/// Where the length of `view` does not fit `size`.
pub fn average_areas(view: &[f32], size: usize, out_size: usize) -> Vec<f32> {
    assert_eq!(view.len(), 3 * size * size, "the view is not [size, size, 3]");
    let spans: Vec<Vec<(usize, f64)>> = (0..out_size).map(|cell| shares(cell, size, out_size)).collect();
    let mut out = Vec::with_capacity(3 * out_size * out_size);
    for rows in &spans {
        for columns in &spans {
            let mut sums = [0.0; 3];
            for &(y, y_share) in rows {
                for &(x, x_share) in columns {
                    let at = 3 * (y * size + x);
                    for (sum, &value) in sums.iter_mut().zip(&view[at..at + 3]) {
                        *sum += y_share * x_share * f64::from(value);
                    }
                }
            }
            out.extend(sums.map(|sum| sum as f32));
        }
    }
    out
}

/// The pixels below a cell and each one's share of it; shares sum to 1.
fn shares(cell: usize, size: usize, out_size: usize) -> Vec<(usize, f64)> {
    // In units of 1 / out_size pixel everything is an integer: a pixel is out_size long, a cell is size long.
    let (start, end) = (cell * size, (cell + 1) * size);
    (start / out_size..end.div_ceil(out_size))
        .map(|pixel| {
            let overlap = end.min((pixel + 1) * out_size) - start.max(pixel * out_size);
            (pixel, overlap as f64 / size as f64)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_averaged() {
        // 4×4 to 2×2: red is the column, green the row, blue 1.
        let view: Vec<f32> = (0..16_u8).flat_map(|at| [f32::from(at % 4), f32::from(at / 4), 1.0]).collect();
        let expected = [0.5, 0.5, 1.0, 2.5, 0.5, 1.0, 0.5, 2.5, 1.0, 2.5, 2.5, 1.0];
        assert_eq!(average_areas(&view, 4, 2), expected);
        assert_eq!(average_areas(&view, 4, 1), [1.5, 1.5, 1.0]);
        assert_eq!(average_areas(&view, 4, 4), view);
    }

    #[test]
    fn pixels_across_an_edge_count_in_both_areas() {
        // 3 to 2: each cell is one and a half pixels wide.
        assert_eq!(shares(0, 3, 2), [(0, 2.0 / 3.0), (1, 1.0 / 3.0)]);
        assert_eq!(shares(1, 3, 2), [(1, 1.0 / 3.0), (2, 2.0 / 3.0)]);
        for (size, out_size) in [(64, 8), (65, 8), (7, 5), (3, 8)] {
            for cell in 0..out_size {
                let sum: f64 = shares(cell, size, out_size).iter().map(|(_, share)| share).sum();
                assert!((sum - 1.0).abs() < 1e-12, "{size} to {out_size}");
            }
        }
    }
}
