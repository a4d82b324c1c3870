//! The nearest rows of a table by cosine similarity: exact, a block of products at a time.

use std::cmp::Ordering;

use super::matmul::matmul_nt;

/// Rows whose similarities are computed at a time: with blocks of 128 queries, 128 × 1,024 similarities stay in the
/// cache, and neither depends on the number of threads.
const BANK_BLOCK: usize = 1024;

/// A neighbour: how similar, and which row of the bank.
pub type Neighbour = (f32, u32);

/// The `k` nearest rows of `bank` [n, dim] to each of `queries` [m, dim], nearest first; of equals the one that comes
/// first. Rows of both have length 1. One thread; memory grows with queries times k, not with the bank.
pub fn nearest_rows(bank: &[f32], queries: &[f32], dim: usize, k: usize) -> Vec<Vec<Neighbour>> {
    let num_queries = queries.len() / dim;
    let mut best: Vec<TopK> = (0..num_queries).map(|_| TopK::new(k)).collect();
    let mut similarities = vec![0.0; num_queries * BANK_BLOCK];
    for (block_idx, block) in bank.chunks(BANK_BLOCK * dim).enumerate() {
        let num_rows = block.len() / dim;
        let similarities = &mut similarities[..num_queries * num_rows];
        matmul_nt(similarities, queries, block, (num_queries, num_rows, dim));
        for (best, row) in best.iter_mut().zip(similarities.chunks_exact(num_rows)) {
            best.extend(row, (block_idx * BANK_BLOCK) as u32);
        }
    }
    best.into_iter().map(TopK::into_sorted).collect()
}

/// The best `k` of a stream. Buffers up to 2k candidates, so that each costs a comparison and, rarely, its
/// part of a selection.
struct TopK {
    k: usize,
    candidates: Vec<Neighbour>,
    /// Only what is more similar can still be among the best.
    threshold: f32,
}

impl TopK {
    fn new(k: usize) -> Self {
        Self { k, candidates: vec![], threshold: f32::NEG_INFINITY }
    }

    /// Takes the next rows in ascending order: so one that is no more similar than the threshold comes after
    /// `k` rows that beat it.
    fn extend(&mut self, similarities: &[f32], first_row: u32) {
        for (row, &similarity) in (first_row..).zip(similarities) {
            if similarity > self.threshold {
                // `+ 0.0` makes −0 the same as 0, which it must tie with.
                self.candidates.push((similarity + 0.0, row));
                if self.candidates.len() >= 2 * self.k {
                    self.shrink();
                }
            }
        }
    }

    fn shrink(&mut self) {
        if self.candidates.len() >= self.k {
            let (_, &mut (threshold, _), _) =
                self.candidates.select_nth_unstable_by(self.k - 1, |&a, &b| nearest_first(a, b));
            self.threshold = threshold;
            self.candidates.truncate(self.k);
        }
    }

    fn into_sorted(mut self) -> Vec<Neighbour> {
        self.shrink();
        self.candidates.sort_unstable_by(|&a, &b| nearest_first(a, b));
        self.candidates
    }
}

/// More similar first; of equals the one that comes first in the bank.
fn nearest_first(a: Neighbour, b: Neighbour) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}
