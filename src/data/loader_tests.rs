//! Batches: same pixels whatever the threads, nothing lost, order from seed and epoch.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::json;

use super::{
    BatchLoader, Dataset, LabelledLoader, NoProgress, ViewSource, ingest, load_evaluation_views, loader::epoch_order,
};
use crate::augment::{Policy, Scratch, ViewKey};

fn dataset() -> Arc<Dataset> {
    let dir = tempfile::tempdir().unwrap();
    let config = serde_json::from_value(json!({
        "source": { "synthetic_scenes": { "images_per_class": 2, "image_size": 20, "split": "train" } }
    }));
    ingest(&config.unwrap(), dir.path(), dir.path(), None, &NoProgress).unwrap();
    // The map keeps the file's content after the folder is gone.
    Arc::new(Dataset::open(dir.path()).unwrap())
}

fn policy() -> Arc<Policy> {
    let config = json!({
        "image_size": 12,
        "ops": [{ "random_resized_crop": {} }, { "color_jitter": { "brightness": 0.4, "hue": 0.1 } }, { "horizontal_flip": {} }]
    });
    Arc::new(Policy::build(&serde_json::from_value(config).unwrap()).unwrap())
}

#[test]
fn batches_are_the_same_for_any_number_of_threads() {
    let (dataset, policy) = (dataset(), policy());
    let batches = |threads| {
        let loader = BatchLoader::with_threads(dataset.clone(), policy.clone(), 5, 4, threads).unwrap();
        loader.epoch(3).collect::<Vec<_>>()
    };
    let one = batches(1);
    assert_eq!(one.len(), 3);
    assert_eq!(one, batches(3));
    let (first, stride) = (&one[0], 3 * 12 * 12);
    assert_eq!(first.x.len(), 2 * 4 * stride);
    let mut out = vec![0.0; stride];
    let idx = first.indices[1];
    let key = ViewKey { seed: 5, epoch: 3, image_idx: idx as u64, view: 1 };
    policy.view(dataset.image(idx), key, &mut Scratch::default(), &mut out);
    assert_eq!(out, first.x[(4 + 1) * stride..][..stride]);
}

#[test]
fn an_interrupted_epoch_continues_with_the_same_batches() {
    let loader = BatchLoader::new(dataset(), policy(), 1, 3).unwrap();
    let whole: Vec<_> = loader.epoch(0).collect();
    let rest: Vec<_> = loader.epoch_from(0, 2).collect();
    assert_eq!(whole[2..], rest[..]);
    assert_eq!(loader.epoch_from(0, 99).count(), 0);
}

#[test]
fn an_abandoned_epoch_ends_its_thread_and_buffers_come_back() {
    let loader = BatchLoader::new(dataset(), policy(), 1, 2).unwrap();
    let mut epoch = loader.epoch(0);
    let first = epoch.next().unwrap();
    drop(epoch);
    let copy = first.clone();
    loader.recycle(first);
    assert_eq!(loader.epoch(0).next().unwrap(), copy);
}

#[test]
fn an_epoch_shows_every_image_once_in_its_own_order() {
    let order = epoch_order(0, 0, 100);
    assert_eq!(order.iter().copied().collect::<BTreeSet<_>>().len(), 100);
    assert_eq!(order, epoch_order(0, 0, 100));
    assert_ne!(order, epoch_order(0, 1, 100));
    assert_ne!(order, epoch_order(1, 0, 100));
    assert!(epoch_order(0, 0, 0).is_empty());
}

#[test]
fn a_batch_larger_than_the_dataset_is_refused() {
    let error = BatchLoader::new(dataset(), policy(), 0, 15).err().unwrap();
    assert!(error.to_string().contains("15") && error.help().unwrap().contains("batch_size"));
}

#[test]
fn labelled_batches_hold_the_subset_with_its_labels() {
    let dataset = dataset();
    let loader = LabelledLoader::new(dataset.clone(), ViewSource::Random(policy()), &[1, 4, 7, 9, 13], 0, 2).unwrap();
    assert_eq!(loader.num_batches(), 2);
    let mut seen = BTreeSet::new();
    for batch in loader.epoch(0) {
        for (&idx, &label) in batch.indices.iter().zip(&batch.labels) {
            assert_eq!(dataset.label(idx), Some(label));
            assert!(seen.insert(idx));
        }
    }
    assert_eq!(seen.len(), 4);
    let all = LabelledLoader::new(dataset.clone(), ViewSource::Random(policy()), &[1, 4], 0, 64).unwrap();
    assert_eq!(all.epoch(0).next().unwrap().labels.len(), 2);
    assert!(LabelledLoader::new(dataset.clone(), ViewSource::Random(policy()), &[], 0, 2).is_err());
    assert!(LabelledLoader::new(dataset, ViewSource::Random(policy()), &[99], 0, 2).is_err());
}

#[test]
fn evaluation_views_are_filled_in_order() {
    let (dataset, view) = (dataset(), policy().evaluation_view());
    let stride = 3 * 12 * 12;
    let mut out = vec![0.0; 3 * stride];
    load_evaluation_views(&dataset, &view, &[5, 0, 5], &mut out);
    assert_eq!(out[..stride], out[2 * stride..]);
    let mut alone = vec![0.0; stride];
    view.view(dataset.image(0), &mut Scratch::default(), &mut alone);
    assert_eq!(alone, out[stride..2 * stride]);
    let evaluation = ViewSource::Evaluation(Arc::new(view));
    let batch = LabelledLoader::new(dataset, evaluation, &[0], 0, 1).unwrap().epoch(7).next().unwrap();
    assert_eq!(batch.x, alone);
}
