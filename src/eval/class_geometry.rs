//! How the classes lie in the space of embeddings: distances between their centroids, and how far they spread.

use serde::{Deserialize, Serialize};

use super::{
    eval_error::{EvalError, check_labels, check_length},
    linear_classifier::l2_normalize_row,
};

/// More classes than this have no table: it grows with the square.
pub const MAX_CLASSES: usize = 100;

/// How the classes lie among embeddings of length 1. Classes without images have zeros.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassGeometry {
    /// `centroid_distances[i][j]`: Euclidean distance between the means of classes i and j.
    pub centroid_distances: Vec<Vec<f64>>,
    /// Root mean square distance of a class's images from its mean.
    pub spread: Vec<f64>,
}

/// Measures `features` [n, dim] with their `labels` `[n]`; nothing where there are more than [`MAX_CLASSES`] classes.
///
/// # Errors
/// Where lengths do not fit or a label names no class.
pub fn class_geometry(
    features: &[f32],
    labels: &[u32],
    dim: usize,
    num_classes: usize,
) -> Result<Option<ClassGeometry>, EvalError> {
    check_length("the table of features", labels.len() * dim, features.len())?;
    check_labels(labels, num_classes)?;
    if num_classes == 0 || num_classes > MAX_CLASSES || dim == 0 {
        return Ok(None);
    }
    let mut means = vec![0.0; num_classes * dim];
    let mut counts = vec![0_u64; num_classes];
    // Of rows of length 1 the mean of squares is 1, or less where rows are zero.
    let mut squares = vec![0.0; num_classes];
    let mut unit = vec![0.0; dim];
    for (row, &label) in features.chunks_exact(dim).zip(labels) {
        for (unit, &x) in unit.iter_mut().zip(row) {
            *unit = f64::from(x);
        }
        l2_normalize_row(&mut unit);
        let class = label as usize;
        counts[class] += 1;
        squares[class] += unit.iter().map(|x| x * x).sum::<f64>();
        means[class * dim..(class + 1) * dim].iter_mut().zip(&unit).for_each(|(sum, x)| *sum += x);
    }
    for ((mean, square), &count) in means.chunks_exact_mut(dim).zip(&mut squares).zip(&counts) {
        let count = count.max(1) as f64;
        for x in mean.iter_mut() {
            *x /= count;
        }
        *square /= count;
    }
    let mean = |class: usize| &means[class * dim..(class + 1) * dim];
    let distance = |a: usize, b: usize| {
        if counts[a] == 0 || counts[b] == 0 {
            return 0.0;
        }
        mean(a).iter().zip(mean(b)).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
    };
    let length = |class: usize| mean(class).iter().map(|x| x * x).sum::<f64>();
    Ok(Some(ClassGeometry {
        centroid_distances: (0..num_classes).map(|a| (0..num_classes).map(|b| distance(a, b)).collect()).collect(),
        spread: (0..num_classes).map(|class| (squares[class] - length(class)).max(0.0).sqrt()).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_and_spread_are_as_by_hand() {
        // Class 0 points east, class 2 north and south: its mean is the origin, its spread 1. Class 1 has no image.
        let features = [2.0, 0.0, 5.0, 0.0, 0.0, 3.0, 0.0, -1.0];
        let found = class_geometry(&features, &[0, 0, 2, 2], 2, 3).unwrap().unwrap();
        assert_eq!(found.centroid_distances, [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]);
        assert_eq!(found.spread, [0.0, 0.0, 1.0]);
    }

    #[test]
    fn too_many_classes_have_no_table_and_strange_labels_are_refused() {
        assert_eq!(class_geometry(&[1.0], &[0], 1, MAX_CLASSES + 1).unwrap(), None);
        assert!(matches!(class_geometry(&[1.0], &[3], 1, 2), Err(EvalError::Label { .. })));
        assert!(matches!(class_geometry(&[1.0, 2.0], &[0], 1, 2), Err(EvalError::Length { .. })));
    }
}
