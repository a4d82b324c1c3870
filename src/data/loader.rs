//! Batches of views of each image, in an order that depends on seed and epoch alone.

use std::sync::{Arc, Mutex, PoisonError};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};

use super::{DataError, Dataset, prefetch::Prefetched};
use crate::{
    augment::{Policy, Scratch, ViewKey},
    seed::below,
};

/// Views of each image of a batch, as many as the policy says.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewBatch {
    /// The first view of each image, then the second of each and so on: `[views, batch, size, size, 3]`, normalised.
    pub x: Vec<f32>,
    /// Which images these are.
    pub indices: Vec<usize>,
}

/// Makes the batches of an epoch; the next batch is computed while the current one is used.
///
/// Work happens on a thread pool of the loader's own, so that it neither waits for the training step's tasks nor
/// makes them wait in a queue.
#[derive(Clone)]
pub struct BatchLoader {
    shared: Arc<Shared>,
}

struct Shared {
    dataset: Arc<Dataset>,
    policy: Arc<Policy>,
    seed: u64,
    batch_size: usize,
    pool: ThreadPool,
    /// Buffers that were handed back.
    spare: Mutex<Vec<Vec<f32>>>,
}

impl BatchLoader {
    /// A loader of batches of `batch_size` images.
    ///
    /// # Errors
    /// When the dataset cannot fill one batch, or the system refuses threads.
    pub fn new(dataset: Arc<Dataset>, policy: Arc<Policy>, seed: u64, batch_size: usize) -> Result<Self, DataError> {
        Self::with_threads(dataset, policy, seed, batch_size, 0)
    }

    /// The same with this many threads; 0 takes as many as the process's pool has.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_threads(
        dataset: Arc<Dataset>,
        policy: Arc<Policy>,
        seed: u64,
        batch_size: usize,
        num_threads: usize,
    ) -> Result<Self, DataError> {
        check_batch_size(dataset.len(), batch_size)?;
        let pool = build_pool(num_threads)?;
        Ok(Self { shared: Arc::new(Shared { dataset, policy, seed, batch_size, pool, spare: Mutex::default() }) })
    }

    /// Number of batches in an epoch; the last incomplete one is dropped.
    pub fn num_batches(&self) -> usize {
        self.shared.dataset.len() / self.shared.batch_size
    }

    /// The batches of an epoch.
    pub fn epoch(&self, epoch: u32) -> impl Iterator<Item = ViewBatch> + Send + use<> {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch from batch `first_batch` on: what an interrupted epoch still lacks.
    pub fn epoch_from(&self, epoch: u32, first_batch: usize) -> impl Iterator<Item = ViewBatch> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        let order = epoch_order(shared.seed, epoch, shared.dataset.len());
        let num_batches = self.num_batches();
        Prefetched::start((first_batch..num_batches).map(move |batch| {
            let indices = &order[batch * shared.batch_size..(batch + 1) * shared.batch_size];
            shared.load(epoch, indices)
        }))
    }

    /// Hands a used batch back, so that its memory is used again.
    pub fn recycle(&self, batch: ViewBatch) {
        let mut spare = self.shared.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < 6 {
            spare.push(batch.x);
        }
    }
}

impl Shared {
    fn buffer(&self, len: usize) -> Vec<f32> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.filter(|buffer| buffer.len() == len).unwrap_or_else(|| vec![0.0; len])
    }

    fn load(&self, epoch: u32, indices: &[usize]) -> ViewBatch {
        let stride = 3 * self.policy.image_size() * self.policy.image_size();
        let mut x = self.buffer(self.policy.num_views() * indices.len() * stride);
        self.pool.install(|| {
            x.par_chunks_exact_mut(stride).enumerate().for_each_init(Scratch::default, |scratch, (place, out)| {
                let (view, idx) = ((place / indices.len()) as u32, indices[place % indices.len()]);
                let key = ViewKey { seed: self.seed, epoch, image_idx: idx as u64, view };
                self.policy.view(self.dataset.image(idx), key, scratch, out);
            });
        });
        ViewBatch { x, indices: indices.to_vec() }
    }
}

pub(super) fn build_pool(num_threads: usize) -> Result<ThreadPool, DataError> {
    ThreadPoolBuilder::new()
        .num_threads(if num_threads == 0 { rayon::current_num_threads() } else { num_threads })
        .thread_name(|idx| format!("loader-{idx}"))
        .build()
        .map_err(|error| DataError::Config { message: format!("cannot start loader threads: {error}"), help: None })
}

fn check_batch_size(num_images: usize, batch_size: usize) -> Result<(), DataError> {
    if batch_size == 0 || batch_size > num_images {
        return Err(DataError::config(
            format!("a batch of {batch_size} cannot be filled from {num_images} images"),
            "lower `batch_size`, or add images",
        ));
    }
    Ok(())
}

/// A permutation of `0 … len` that depends on seed and epoch alone.
pub fn epoch_order(seed: u64, epoch: u32, len: usize) -> Vec<usize> {
    let mut bytes = [0; 32];
    bytes[0..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..12].copy_from_slice(&epoch.to_le_bytes());
    bytes[24..32].copy_from_slice(b"order\0\0\0");
    let mut rng = ChaCha8Rng::from_seed(bytes);
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        order.swap(last, below(&mut rng, last as u64 + 1) as usize);
    }
    order
}
