//! k nearest neighbours by cosine similarity, exact, in bounded memory.
//!
//! The weighted vote is that of Wu et al. 2018 (arXiv 1805.01978, section 3.4), which SimSiam's monitor uses.

use rayon::prelude::*;

use super::{
    eval_config::{KnnConfig, KnnWeights},
    eval_error::{EvalError, check_finite, check_labels, check_length},
    nearest::{Neighbour, nearest_rows},
};

/// Queries of one task.
const QUERY_BLOCK: usize = 128;

/// A bank of labelled, normalised features.
#[derive(Clone, Debug)]
pub struct KnnClassifier {
    /// [n, dim], rows of length 1
    bank: Vec<f32>,
    labels: Vec<u32>,
    dim: usize,
    num_classes: usize,
    k: usize,
    clamped: bool,
    temperature: f64,
    weights: KnnWeights,
}

impl KnnClassifier {
    /// From training `features` [n, dim] and their `labels` `[n]`.
    ///
    /// # Errors
    /// Where there are no rows, lengths do not fit, a label names no class, or a feature is not finite.
    pub fn new(
        features: &[f32],
        labels: &[u32],
        dim: usize,
        num_classes: usize,
        config: &KnnConfig,
    ) -> Result<Self, EvalError> {
        if dim == 0 {
            return Err(EvalError::Empty { what: "the bank of training features" });
        }
        // Before normalising, which would spread a value that is not finite over its row.
        check_finite("the bank of training features", features, dim)?;
        Self::from_normalized(l2_normalize_rows(features, dim), labels.to_vec(), dim, num_classes, config)
    }

    /// From a `bank` [n, dim] whose rows have length 1, as [`Self::bank`] gives it.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_normalized(
        bank: Vec<f32>,
        labels: Vec<u32>,
        dim: usize,
        num_classes: usize,
        config: &KnnConfig,
    ) -> Result<Self, EvalError> {
        if labels.is_empty() || dim == 0 {
            return Err(EvalError::Empty { what: "the bank of training features" });
        }
        check_length("the bank of training features", labels.len() * dim, bank.len())?;
        check_labels(&labels, num_classes)?;
        check_finite("the bank of training features", &bank, dim)?;
        let wanted = (config.k as usize).max(1);
        let k = wanted.min(labels.len());
        let (temperature, weights) = (config.temperature, config.weights);
        Ok(Self { bank, labels, dim, num_classes, k, clamped: wanted > k, temperature, weights })
    }

    /// The normalised training features [n, dim].
    pub fn bank(&self) -> &[f32] {
        &self.bank
    }

    /// The labels `[n]` of the bank.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// How strongly a vote depends on similarity.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// How votes are weighted.
    pub fn weights(&self) -> KnnWeights {
        self.weights
    }

    /// Number of neighbours that vote: the one asked for, or all rows where there are fewer.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Whether fewer rows than the `k` asked for exist.
    pub fn is_clamped(&self) -> bool {
        self.clamped
    }

    /// Class probabilities [m, num_classes] of `queries` [m, dim]: each class's share of the vote.
    ///
    /// # Errors
    /// Where the length is no multiple of the feature length, or a value is not finite.
    pub fn probabilities(&self, queries: &[f32]) -> Result<Vec<f64>, EvalError> {
        let num_queries = queries.len() / self.dim;
        check_length("the table of query features", num_queries * self.dim, queries.len())?;
        check_finite("the table of query features", queries, self.dim)?;
        let mut probabilities = vec![0.0; num_queries * self.num_classes];
        probabilities
            .par_chunks_mut(QUERY_BLOCK * self.num_classes)
            .zip(queries.par_chunks(QUERY_BLOCK * self.dim))
            .for_each(|(out, block)| {
                let neighbours = nearest_rows(&self.bank, &l2_normalize_rows(block, self.dim), self.dim, self.k);
                for (row, neighbours) in out.chunks_exact_mut(self.num_classes).zip(&neighbours) {
                    self.vote(neighbours, row);
                }
            });
        Ok(probabilities)
    }

    fn vote(&self, neighbours: &[Neighbour], out: &mut [f64]) {
        let nearest = neighbours.first().map_or(0.0, |&(similarity, _)| f64::from(similarity));
        let mut total = 0.0;
        for &(similarity, row) in neighbours {
            let weight = match self.weights {
                // Relative to the nearest: only ratios matter, and exp(1 / temperature) may overflow.
                KnnWeights::Similarity => ((f64::from(similarity) - nearest) / self.temperature).exp(),
                KnnWeights::Uniform => 1.0,
            };
            out[self.labels[row as usize] as usize] += weight;
            total += weight;
        }
        for share in out.iter_mut() {
            *share /= total;
        }
    }
}

/// Rows of `features` [n, dim] divided by their length, as `torch.nn.functional.normalize` does; a row of
/// zeros stays.
pub(crate) fn l2_normalize_rows(features: &[f32], dim: usize) -> Vec<f32> {
    let mut normalized = features.to_vec();
    normalized.par_chunks_mut(dim).for_each(|row| {
        let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt().max(1e-12);
        for x in row.iter_mut() {
            *x = (f64::from(*x) / norm) as f32;
        }
    });
    normalized
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    fn config(k: u32, temperature: f64, weights: KnnWeights) -> KnnConfig {
        KnnConfig { k, temperature, weights, label_fraction: 1.0 }
    }

    /// The obvious way: all similarities in f64, a full stable sort, a vote.
    fn twin(
        bank: &[f32],
        labels: &[u32],
        queries: &[f32],
        dim: usize,
        num_classes: usize,
        config: &KnnConfig,
    ) -> Vec<f64> {
        let unit = |row: &[f32]| {
            let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt().max(1e-12);
            row.iter().map(|&x| f64::from(x) / norm).collect::<Vec<f64>>()
        };
        let mut out = vec![];
        for query in queries.chunks(dim).map(unit) {
            let mut all: Vec<(f64, usize)> = bank
                .chunks(dim)
                .map(|row| unit(row).iter().zip(&query).map(|(a, b)| a * b).sum::<f64>())
                .zip(0..)
                .collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut votes = vec![0.0; num_classes];
            for &(similarity, row) in all.iter().take(config.k as usize) {
                votes[labels[row] as usize] += match config.weights {
                    KnnWeights::Similarity => (similarity / config.temperature).exp(),
                    KnnWeights::Uniform => 1.0,
                };
            }
            let total: f64 = votes.iter().sum();
            out.extend(votes.iter().map(|vote| vote / total));
        }
        out
    }

    #[derive(Deserialize)]
    struct Golden {
        dim: usize,
        num_classes: usize,
        bank: Vec<f32>,
        labels: Vec<u32>,
        queries: Vec<f32>,
        k: u32,
        temperature: f64,
        similarity: Vec<f64>,
        uniform: Vec<f64>,
    }

    #[test]
    fn shares_equal_torch_and_scikit_learn() {
        let golden: Golden = serde_json::from_str(include_str!("../../tests/golden/eval/knn.json")).unwrap();
        for (weights, theirs) in [(KnnWeights::Similarity, &golden.similarity), (KnnWeights::Uniform, &golden.uniform)]
        {
            let config = config(golden.k, golden.temperature, weights);
            let knn =
                KnnClassifier::new(&golden.bank, &golden.labels, golden.dim, golden.num_classes, &config).unwrap();
            let ours = knn.probabilities(&golden.queries).unwrap();
            assert_eq!(ours.len(), theirs.len());
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert!((ours - theirs).abs() < 2e-5, "{ours} is not {theirs}");
            }
        }
    }

    #[test]
    fn more_neighbours_than_rows_are_all_rows() {
        let config = config(200, 0.1, KnnWeights::Uniform);
        let knn = KnnClassifier::new(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], &[0, 1, 1], 2, 2, &config).unwrap();
        assert_eq!((knn.k(), knn.is_clamped()), (3, true));
        assert_eq!(knn.probabilities(&[1.0, 0.0]).unwrap(), [1.0 / 3.0, 2.0 / 3.0]);
    }

    #[test]
    fn of_equally_near_rows_the_first_votes() {
        // Rows 1, 3 and 5 point the same way and tie; k = 2 takes the first two of them.
        let bank = [0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
        let knn = KnnClassifier::new(&bank, &[0, 1, 0, 2, 0, 3], 2, 4, &config(2, 0.1, KnnWeights::Uniform)).unwrap();
        assert_eq!(knn.probabilities(&[5.0, 0.0]).unwrap(), [0.0, 0.5, 0.5, 0.0]);
    }

    #[test]
    fn equal_rows_are_exactly_as_near_wherever_they_lie() {
        // Sixty rows, again and again: wherever in the product a row lies, its similarity must have the same bits, so that
        // of equals the first vote. Sizes that fill no block.
        let (kinds, dim) = (60, 37);
        let kinds_of_rows: Vec<f32> = (0..kinds * dim).map(|i| ((i * 7_919 % 613) as f32) / 99.0 - 3.0).collect();
        for n in [61, 257, 1_003] {
            let bank: Vec<f32> = kinds_of_rows.iter().copied().cycle().take(n * dim).collect();
            let labels: Vec<u32> = (0..n as u32).collect();
            let copies = n / kinds;
            let config = config(copies as u32, 0.1, KnnWeights::Uniform);
            let knn = KnnClassifier::new(&bank, &labels, dim, n, &config).unwrap();
            let shares = knn.probabilities(&kinds_of_rows).unwrap();
            for (kind, row) in shares.chunks_exact(n).enumerate() {
                let voters: Vec<usize> = (0..n).filter(|&row_idx| row[row_idx] > 0.0).collect();
                let first: Vec<usize> = (0..copies).map(|copy| copy * kinds + kind).collect();
                assert_eq!(voters, first, "{n} rows");
            }
        }
    }

    #[test]
    fn a_tiny_temperature_does_not_overflow() {
        let knn = KnnClassifier::new(&[1.0, 0.0, 0.9, 0.1], &[0, 1], 2, 2, &config(2, 0.001, KnnWeights::Similarity));
        let shares = knn.unwrap().probabilities(&[1.0, 0.0, 0.0, 0.0]).unwrap();
        assert!(shares.iter().all(|share| share.is_finite()) && shares[0] > 0.99, "{shares:?}");
        assert_eq!(shares[2..], [0.5, 0.5], "a row of zeros is as near to all");
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let bank: Vec<f32> = (0..3_000 * 16_u64).map(|i| ((i * 2_654_435_761 % 1009) as f32) - 500.0).collect();
        let labels: Vec<u32> = (0..3_000).map(|i| i % 7).collect();
        let knn = KnnClassifier::new(&bank, &labels, 16, 7, &config(20, 0.1, KnnWeights::Similarity)).unwrap();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| knn.probabilities(&bank[..700 * 16]).unwrap())
        };
        assert_eq!(with(1), with(3));
    }

    #[test]
    fn features_that_are_not_finite_are_refused() {
        let knn = KnnClassifier::new(&[1.0, f32::NAN], &[0], 2, 1, &KnnConfig::default());
        assert!(matches!(knn, Err(EvalError::NotFinite { row: 0, column: 1, .. })));
        let knn = KnnClassifier::new(&[1.0, 0.0], &[0], 2, 1, &KnnConfig::default()).unwrap();
        assert!(matches!(knn.probabilities(&[1.0]), Err(EvalError::Length { .. })));
    }

    /// `cargo test --release --lib knn -- --ignored --nocapture` says how long it takes here.
    #[test]
    #[ignore = "a measurement"]
    fn fourteen_thousand_by_three_thousand_takes_seconds() {
        let (n, m, dim) = (14_000, 3_000, 512);
        let values: Vec<f32> = (0..((n + m) * dim) as u64)
            .map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / 8e6 - 1.0)
            .collect();
        let labels: Vec<u32> = (0..n as u32).map(|row| row % 6).collect();
        let before = crate::sys::machine::peak_rss_bytes();
        for weights in [KnnWeights::Similarity, KnnWeights::Uniform] {
            let knn = KnnClassifier::new(&values[..n * dim], &labels, dim, 6, &config(200, 0.1, weights)).unwrap();
            let start = std::time::Instant::now();
            let shares = knn.probabilities(&values[n * dim..]).unwrap();
            println!("{weights:?}: {:.2} s, {} rows", start.elapsed().as_secs_f64(), shares.len() / 6);
        }
        println!("peak memory before {before:?}, after {:?}", crate::sys::machine::peak_rss_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn shares_equal_the_obvious_way(
            n in 1..90_usize, m in 1..9_usize, dim in 1..12_usize, k in 1..30_u32, uniform: bool,
            raw in prop::collection::vec(-1.0..1.0_f32, 99 * 12),
        ) {
            let weights = if uniform { KnnWeights::Uniform } else { KnnWeights::Similarity };
            let config = config(k, 0.2, weights);
            let labels: Vec<u32> = (0..n as u32).map(|row| row * 7 % 5).collect();
            let (bank, queries) = (&raw[..n * dim], &raw[raw.len() - m * dim..]);
            let ours = KnnClassifier::new(bank, &labels, dim, 5, &config).unwrap().probabilities(queries).unwrap();
            let theirs = twin(bank, &labels, queries, dim, 5, &config);
            for (ours, theirs) in ours.iter().zip(&theirs) {
                // In one dimension all similarities are ±1 up to rounding, so that ties are broken by chance.
                prop_assert!(dim == 1 || (ours - theirs).abs() < 1e-4, "{} is not {}", ours, theirs);
            }
        }
    }
}
