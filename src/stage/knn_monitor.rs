//! kNN accuracy of a backbone while it trains: bank and queries go through it as it is.

use std::{ops::ControlFlow, sync::Arc};

use super::{StageError, StageReporter};
use crate::{
    augment::{EvaluationView, Scratch},
    compute::{Compute, Inference},
    data::Dataset,
    eval::{
        EvalError,
        embed::embed_images,
        eval_config::{KnnConfig, KnnWeights},
        knn::KnnClassifier,
        metrics::predicted_classes,
    },
    model::backbone::Backbone,
    train::train_config::KnnMonitorConfig,
};

/// Labelled images to vote and to be judged.
pub(super) struct KnnMonitor {
    bank: Arc<Dataset>,
    bank_labels: Vec<u32>,
    queries: Arc<Dataset>,
    /// As indices into the bank's classes.
    query_labels: Vec<u32>,
    num_classes: usize,
    view: EvaluationView,
    config: KnnConfig,
}

impl KnnMonitor {
    /// A monitor, or in words why there can be none.
    pub(super) fn new(
        config: &KnnMonitorConfig,
        bank: &Arc<Dataset>,
        queries: &Arc<Dataset>,
        view: EvaluationView,
    ) -> Result<Self, String> {
        let bank_labels = bank.labels().ok_or("the images of `dataset` have no labels")?;
        let labels = queries.labels().ok_or("the images of `monitor` have no labels")?;
        let names = &bank.card().class_names;
        let place = |label: u32| {
            let name = &queries.card().class_names[label as usize];
            let place = names.iter().position(|other| other == name);
            place.map(|place| place as u32).ok_or_else(|| format!("`dataset` has no class `{name}`"))
        };
        let query_labels = labels.into_iter().map(place).collect::<Result<_, _>>()?;
        let config = KnnConfig {
            k: config.k,
            temperature: config.temperature,
            weights: KnnWeights::Similarity,
            label_fraction: 1.0,
        };
        let num_classes = names.len();
        Ok(Self {
            bank: Arc::clone(bank),
            bank_labels,
            queries: Arc::clone(queries),
            query_labels,
            num_classes,
            view,
            config,
        })
    }

    /// Share of the queries whose vote is right.
    pub(super) fn top1(
        &self,
        backbone: &Backbone,
        compute: &Compute,
        reporter: &dyn StageReporter,
    ) -> Result<f64, StageError> {
        let inference = compute.inference(backbone).map_err(EvalError::from)?;
        let bank = self.features(backbone, &inference, &self.bank, reporter)?;
        let queries = self.features(backbone, &inference, &self.queries, reporter)?;
        let knn = KnnClassifier::new(&bank, &self.bank_labels, backbone.feature_dim(), self.num_classes, &self.config)?;
        let predicted = predicted_classes(&knn.probabilities(&queries)?, self.num_classes);
        let hits = predicted.iter().zip(&self.query_labels).filter(|(predicted, label)| predicted == label).count();
        Ok(hits as f64 / self.query_labels.len() as f64)
    }

    fn features(
        &self,
        backbone: &Backbone,
        inference: &Inference,
        dataset: &Dataset,
        reporter: &dyn StageReporter,
    ) -> Result<Vec<f32>, StageError> {
        let size = self.view.image_size();
        let features = embed_images(
            dataset.len(),
            size,
            Scratch::default,
            |scratch, idx, out| {
                self.view.view(dataset.image(idx), scratch, out);
                Ok(())
            },
            |views, n| inference.forward_eval(backbone, views, n, size).map_err(EvalError::from),
            |_| if reporter.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) },
        )?;
        features.ok_or(StageError::Cancelled)
    }
}
