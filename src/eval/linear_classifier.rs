//! softmax(W x + b) on raw embeddings.

use rayon::prelude::*;

use super::{
    eval_error::{EvalError, check_length},
    matmul::matmul_nt,
};

const BLOCK: usize = 256;

/// A linear classifier that applies to embeddings as the backbone makes them.
///
/// Parameters are f32, as they are stored: what is judged is what is used later.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearClassifier {
    /// [num_classes, dim]
    pub weight: Vec<f32>,
    /// `[num_classes]`
    pub bias: Vec<f32>,
    /// Length of an embedding.
    pub dim: usize,
    /// Whether embeddings are brought to length 1 first, which no weight can express.
    pub l2_normalize: bool,
}

impl LinearClassifier {
    /// Number of classes.
    pub fn num_classes(&self) -> usize {
        self.bias.len()
    }

    /// Class probabilities [n, num_classes] of `features` [n, dim]. Each row is computed alone.
    ///
    /// # Errors
    /// Where the length is no multiple of the embedding's length.
    pub fn probabilities(&self, features: &[f32]) -> Result<Vec<f64>, EvalError> {
        let (n, c) = (features.len() / self.dim, self.num_classes());
        check_length("the table of features", n * self.dim, features.len())?;
        let weight: Vec<f64> = self.weight.iter().map(|&w| f64::from(w)).collect();
        let mut probabilities = vec![0.0; n * c];
        probabilities.par_chunks_mut(BLOCK * c).zip(features.par_chunks(BLOCK * self.dim)).for_each(|(out, block)| {
            let mut x: Vec<f64> = block.iter().map(|&x| f64::from(x)).collect();
            if self.l2_normalize {
                x.chunks_exact_mut(self.dim).for_each(l2_normalize_row);
            }
            matmul_nt(out, &x, &weight, (x.len() / self.dim, c, self.dim));
            for row in out.chunks_exact_mut(c) {
                row.iter_mut().zip(&self.bias).for_each(|(logit, &bias)| *logit += f64::from(bias));
                softmax(row);
            }
        });
        Ok(probabilities)
    }
}

/// A row divided by its length; a row of zeros stays.
pub(crate) fn l2_normalize_row(row: &mut [f64]) {
    let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
    for x in row.iter_mut() {
        *x /= norm;
    }
}

/// Logits to probabilities, in place; returns log Σ exp(logit).
pub(crate) fn softmax(row: &mut [f64]) -> f64 {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut total = 0.0;
    for logit in row.iter_mut() {
        *logit = (*logit - max).exp();
        total += *logit;
    }
    for p in row.iter_mut() {
        *p /= total;
    }
    max + total.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_survives_large_logits() {
        let mut row = [1_000.0, 1_000.0, -1_000.0];
        assert!((softmax(&mut row) - (1_000.0 + 2_f64.ln())).abs() < 1e-9);
        assert_eq!(row, [0.5, 0.5, 0.0]);
    }

    #[test]
    fn probabilities_are_as_by_hand() {
        let classifier =
            LinearClassifier { weight: vec![1.0, 0.0, 0.0, 2.0], bias: vec![0.5, 0.0], dim: 2, l2_normalize: true };
        // (3, 4) becomes (0.6, 0.8); logits 1.1 and 1.6
        let p = classifier.probabilities(&[3.0, 4.0]).unwrap();
        assert!((p[0] - 1.0 / (1.0 + 0.5_f64.exp())).abs() < 1e-7, "{p:?}");
        assert!(matches!(classifier.probabilities(&[1.0]), Err(EvalError::Length { .. })));
    }
}
