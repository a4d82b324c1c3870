//! Batches of one view of each labelled image, for training a classifier.

use std::sync::Arc;

use rayon::{ThreadPool, prelude::*};

use super::{
    DataError, Dataset,
    loader::{build_pool, epoch_order},
    prefetch::Prefetched,
};
use crate::augment::{EvaluationView, Policy, Scratch, ViewKey};

/// How an image becomes input.
#[derive(Clone)]
pub enum ViewSource {
    /// A random view, another one in each epoch.
    Random(Arc<Policy>),
    /// The evaluation view.
    Evaluation(Arc<EvaluationView>),
}

impl ViewSource {
    fn image_size(&self) -> usize {
        match self {
            Self::Random(policy) => policy.image_size(),
            Self::Evaluation(view) => view.image_size(),
        }
    }
}

/// One view of each image of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledBatch {
    /// `[batch, size, size, 3]`, normalised.
    pub x: Vec<f32>,
    /// Class of each image.
    pub labels: Vec<u32>,
    /// Which images these are.
    pub indices: Vec<usize>,
}

/// Makes the batches of an epoch over some images of a dataset.
#[derive(Clone)]
pub struct LabelledLoader {
    shared: Arc<Shared>,
}

struct Shared {
    dataset: Arc<Dataset>,
    views: ViewSource,
    /// Images and their labels.
    subset: Vec<(usize, u32)>,
    seed: u64,
    batch_size: usize,
    pool: ThreadPool,
}

impl LabelledLoader {
    /// A loader over the images `subset`. Where there are fewer than `batch_size`, all are one batch.
    ///
    /// # Errors
    /// When the subset is empty or holds an image without a label, or the system refuses threads.
    pub fn new(
        dataset: Arc<Dataset>,
        views: ViewSource,
        subset: &[usize],
        seed: u64,
        batch_size: usize,
    ) -> Result<Self, DataError> {
        let subset: Vec<(usize, u32)> = subset
            .iter()
            .map(|&idx| {
                let label = if idx < dataset.len() { dataset.label(idx) } else { None };
                label.map(|label| (idx, label)).ok_or_else(|| {
                    DataError::config(
                        format!("image {idx} has no label"),
                        "use a dataset with one sub-folder for each class",
                    )
                })
            })
            .collect::<Result<_, _>>()?;
        if subset.is_empty() || batch_size == 0 {
            return Err(DataError::config("there are no labelled images to learn from", "raise `label_fraction`"));
        }
        let batch_size = batch_size.min(subset.len());
        let pool = build_pool(0)?;
        Ok(Self { shared: Arc::new(Shared { dataset, views, subset, seed, batch_size, pool }) })
    }

    /// Number of batches in an epoch; the last incomplete one is dropped.
    pub fn num_batches(&self) -> usize {
        self.shared.subset.len() / self.shared.batch_size
    }

    /// The batches of an epoch in random order; the last incomplete one is dropped.
    pub fn epoch(&self, epoch: u32) -> impl Iterator<Item = LabelledBatch> + Send + use<> {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch from batch `first_batch` on.
    pub fn epoch_from(&self, epoch: u32, first_batch: usize) -> impl Iterator<Item = LabelledBatch> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        let order = epoch_order(shared.seed, epoch, shared.subset.len());
        let num_batches = self.num_batches();
        Prefetched::start(
            (first_batch..num_batches).map(move |batch| {
                shared.load(epoch, &order[batch * shared.batch_size..(batch + 1) * shared.batch_size])
            }),
        )
    }
}

impl Shared {
    fn load(&self, epoch: u32, positions: &[usize]) -> LabelledBatch {
        let stride = 3 * self.views.image_size() * self.views.image_size();
        let (indices, labels): (Vec<usize>, Vec<u32>) = positions.iter().map(|&at| self.subset[at]).unzip();
        let mut x = vec![0.0; indices.len() * stride];
        self.pool.install(|| {
            x.par_chunks_exact_mut(stride).zip(&indices).for_each_init(Scratch::default, |scratch, (out, &idx)| {
                let image = self.dataset.image(idx);
                match &self.views {
                    ViewSource::Random(policy) => {
                        let key = ViewKey { seed: self.seed, epoch, image_idx: idx as u64, view: 0 };
                        policy.view(image, key, scratch, out);
                    }
                    ViewSource::Evaluation(view) => view.view(image, scratch, out),
                }
            });
        });
        LabelledBatch { x, labels, indices }
    }
}
