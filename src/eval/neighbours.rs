//! The embedded images that are nearest to given embeddings.

use rayon::prelude::*;
use serde::Serialize;

use super::{
    embeddings::{Embeddings, EmbeddingsCard, PRETRAINED},
    eval_error::EvalError,
    knn::l2_normalize_rows,
    nearest::nearest_rows,
    tensor_file::format_error,
};

/// Queries of one task.
const QUERY_BLOCK: usize = 128;

/// An embedded image near another one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EmbeddedNeighbour<'a> {
    /// Cosine of the angle between both embeddings.
    pub similarity: f32,
    /// `train` or `test`.
    pub split: &'static str,
    /// Row in the split's table.
    pub row: usize,
    /// Class, where the split has labels.
    pub class: Option<&'a str>,
    /// Name of the file, relative to its source.
    pub file: &'a str,
}

/// The pretrained embeddings of both splits, those of the training images first.
#[derive(Debug)]
pub struct NeighbourTable<'a> {
    card: &'a EmbeddingsCard,
    dim: usize,
    /// [n_train + n_test, dim], rows of length 1
    rows: Vec<f32>,
    train_labels: Option<Vec<u32>>,
    test_labels: Option<Vec<u32>>,
}

impl<'a> NeighbourTable<'a> {
    /// From an embeddings artifact.
    ///
    /// # Errors
    /// Where a table is damaged or holds a value that is not finite.
    pub fn new(embeddings: &'a Embeddings) -> Result<Self, EvalError> {
        let representation = embeddings
            .representation(PRETRAINED)?
            .ok_or_else(|| format_error(embeddings.dir(), "it holds no pretrained embeddings"))?;
        let mut features = representation.train;
        features.extend(representation.test.unwrap_or_default());
        let labels = embeddings.labels()?;
        Ok(Self {
            card: embeddings.card(),
            rows: l2_normalize_rows(&features, representation.dim),
            dim: representation.dim,
            train_labels: labels.train,
            test_labels: labels.test,
        })
    }

    /// The `k` nearest images to each of `queries` [m, dim], nearest first; all there are where they are fewer.
    pub fn nearest(&self, queries: &[f32], k: usize) -> Vec<Vec<EmbeddedNeighbour<'a>>> {
        let k = k.min(self.rows.len() / self.dim);
        queries
            .par_chunks(QUERY_BLOCK * self.dim)
            .flat_map_iter(|block| nearest_rows(&self.rows, &l2_normalize_rows(block, self.dim), self.dim, k))
            .map(|found| found.into_iter().map(|(similarity, row)| self.describe(similarity, row as usize)).collect())
            .collect()
    }

    fn describe(&self, similarity: f32, row: usize) -> EmbeddedNeighbour<'a> {
        let num_train = self.card.train_file_names.len();
        let (split, row, names, labels) = match &self.card.test_file_names {
            Some(names) if row >= num_train => ("test", row - num_train, names, &self.test_labels),
            _ => ("train", row, &self.card.train_file_names, &self.train_labels),
        };
        let class = labels.as_ref().map(|labels| self.card.class_names[labels[row] as usize].as_str());
        EmbeddedNeighbour { similarity, split, row, class, file: &names[row] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::embeddings::tests::save_sample;

    #[test]
    fn an_embedded_image_is_its_own_nearest_neighbour() {
        let dir = tempfile::tempdir().unwrap();
        save_sample(dir.path(), &["a", "b", "c"], 30, 10);
        let embeddings = Embeddings::open(dir.path()).unwrap();
        let table = NeighbourTable::new(&embeddings).unwrap();
        let test = embeddings.representation(PRETRAINED).unwrap().unwrap().test.unwrap();
        let labels = embeddings.labels().unwrap().test.unwrap();
        let found = table.nearest(&test, 3);
        assert_eq!(found.len(), 10);
        for (row, neighbours) in found.iter().enumerate() {
            let first = neighbours[0];
            assert_eq!((first.split, first.row), ("test", row));
            assert_eq!(first.file, embeddings.card().test_file_names.as_ref().unwrap()[row]);
            assert_eq!(first.class, Some(["a", "b", "c"][labels[row] as usize]));
            assert!((first.similarity - 1.0).abs() < 1e-6);
            assert!(neighbours.windows(2).all(|pair| pair[0].similarity >= pair[1].similarity));
        }
        assert_eq!(table.nearest(&test[..12], 1_000)[0].len(), 40, "more than there are are all");
    }
}
