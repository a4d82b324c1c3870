//! A stratified share of the labels, for `label_fraction`.

use crate::seed::{below, seeded_rng};

/// Rows whose labels may be used: of each class the share `fraction`, rounded, and at least one, drawn
/// without replacement. Returns rows in ascending order; the same seed gives the same rows, and a larger
/// fraction holds every row of a smaller one.
pub fn stratified_subset(labels: &[u32], fraction: f64, seed: u64) -> Vec<usize> {
    if fraction >= 1.0 {
        return (0..labels.len()).collect();
    }
    let mut chosen = vec![];
    for (class, mut rows) in rows_by_class(labels).into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
        let count = ((rows.len() as f64 * fraction).round() as usize).clamp(1, rows.len());
        // The start of a Fisher-Yates shuffle: the first `count` places do not depend on `count`.
        let mut rng = seeded_rng(seed, "label subset", &[class as u64]);
        for place in 0..count {
            let other = place + below(&mut rng, (rows.len() - place) as u64) as usize;
            rows.swap(place, other);
        }
        chosen.extend_from_slice(&rows[..count]);
    }
    chosen.sort_unstable();
    chosen
}

/// The rows of each class in ascending order, up to the highest label.
pub(super) fn rows_by_class(labels: &[u32]) -> Vec<Vec<usize>> {
    let num_classes = labels.iter().max().map_or(0, |&label| label as usize + 1);
    let mut rows_of = vec![vec![]; num_classes];
    for (row, &label) in labels.iter().enumerate() {
        rows_of[label as usize].push(row);
    }
    rows_of
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count_of(labels: &[u32], rows: &[usize], class: u32) -> usize {
        rows.iter().filter(|&&row| labels[row] == class).count()
    }

    #[test]
    fn every_class_gives_its_share_and_at_least_one() {
        let labels: Vec<u32> = (0..1_000).map(|row| if row < 5 { 0 } else { 1 + row % 3 }).collect();
        let rows = stratified_subset(&labels, 0.05, 3);
        assert_eq!(count_of(&labels, &rows, 0), 1);
        for class in 1..4 {
            assert_eq!(count_of(&labels, &rows, class), 17, "of about 332");
        }
    }

    #[test]
    fn another_seed_draws_other_rows() {
        let labels = vec![0; 100];
        assert_eq!(stratified_subset(&labels, 0.1, 1), stratified_subset(&labels, 0.1, 1));
        assert_ne!(stratified_subset(&labels, 0.1, 1), stratified_subset(&labels, 0.1, 2));
    }

    #[test]
    fn everything_is_everything() {
        assert_eq!(stratified_subset(&[1, 0, 1], 1.0, 9), vec![0, 1, 2]);
        assert!(stratified_subset(&[], 0.5, 9).is_empty());
    }

    proptest! {
        #[test]
        fn larger_fractions_hold_smaller_ones(
            labels in prop::collection::vec(0..4_u32, 1..200), seed: u64, small in 0.01..1.0_f64, more in 0.0..1.0_f64,
        ) {
            let few = stratified_subset(&labels, small, seed);
            let many = stratified_subset(&labels, (small + more).min(1.0), seed);
            prop_assert!(few.iter().all(|row| many.binary_search(row).is_ok()));
            prop_assert!(few.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
