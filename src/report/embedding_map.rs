//! Where the embeddings lie in two dimensions, and what is near what.

use std::collections::BTreeMap;

use super::{
    build::ClassifierInput,
    pca::Pca,
    predictions::answers,
    summary::{ClassDistances, EmbeddingMap, MapPoint, Neighbour, NeighbourRow, RepresentationHealth},
    tsne::{Tsne, tsne},
};

/// Rows that the principal directions are computed from, at most.
const PCA_ROWS: usize = 2_000;
/// Points on the map, at most: a page should stay light.
const MAP_POINTS: usize = 1_500;

/// One split of an embeddings artifact.
#[derive(Clone, Debug, Default)]
pub struct EmbeddingsInput {
    /// Name of the stage that made it.
    pub stage: String,
    /// `test` or `train`.
    pub split: String,
    /// Rows of `dim` values, one after the other.
    pub features: Vec<f32>,
    /// Length of a row.
    pub dim: usize,
    /// Class of each row; anything that is no index of a class means none.
    pub labels: Vec<i64>,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// File name of each row; may be empty.
    pub file_names: Vec<String>,
    /// How well each representation uses its space, where the artifact says so.
    pub health: Vec<RepresentationHealth>,
    /// How the classes lie, where the artifact says so.
    pub class_distances: Option<ClassDistances>,
    /// Some rows and the training images most like them.
    pub neighbours: Vec<NeighboursInput>,
    /// Class of each training image.
    pub train_labels: Vec<i64>,
    /// File name of each training image; may be empty.
    pub train_file_names: Vec<String>,
}

/// A row and what is most like it.
#[derive(Clone, Debug, Default)]
pub struct NeighboursInput {
    /// Place of the row in its split.
    pub row: usize,
    /// Similarity and place of training images, the nearest first.
    pub nearest: Vec<(f32, u32)>,
}

impl EmbeddingsInput {
    /// Places of the rows that the map shows.
    pub fn shown(&self) -> Vec<usize> {
        spread(self.features.len() / self.dim.max(1), MAP_POINTS).collect()
    }

    fn class(&self, labels: &[i64], row: usize) -> Option<u32> {
        let class = labels.get(row).and_then(|&label| u32::try_from(label).ok());
        class.filter(|&class| (class as usize) < self.class_names.len())
    }
}

/// Indices of at most `max` of `total` things, evenly spread.
pub fn spread(total: usize, max: usize) -> impl Iterator<Item = usize> {
    let taken = total.min(max);
    (0..taken).map(move |idx| idx * total / taken)
}

/// The map, or nothing where embeddings have no two directions. The points carry the answers of `classifier` if it judged
/// these very images.
pub(super) fn embedding_map(input: &EmbeddingsInput, classifier: Option<&ClassifierInput>) -> Option<EmbeddingMap> {
    let dim = input.dim.max(1);
    let num_rows = input.features.len() / dim;
    let row = |idx: usize| &input.features[idx * dim..(idx + 1) * dim];
    let sample: Vec<f32> = spread(num_rows, PCA_ROWS).flat_map(|idx| row(idx).iter().copied()).collect();
    let pca = Pca::fit(&sample, dim)?;
    let shown = input.shown();
    let projected: Vec<[f64; 2]> = shown.iter().map(|&idx| pca.project(row(idx))).collect();
    let shown_rows: Vec<f32> = shown.iter().flat_map(|&idx| row(idx).iter().copied()).collect();
    let tsne: Option<Tsne> = tsne(&shown_rows, dim, &projected);
    let answers = classifier.and_then(|classifier| answers_of(input, classifier));
    // Four decimals are far finer than a pixel and keep the file small.
    let rounded = |value: f64| (value * 1e4).round() / 1e4 + 0.0;
    let points = shown.iter().zip(&projected).enumerate().map(|(place, (&idx, [x, y]))| MapPoint {
        x: rounded(*x),
        y: rounded(*y),
        tsne: tsne.as_ref().and_then(|tsne| tsne.points.get(place)).map(|point| point.map(rounded)),
        class: input.class(&input.labels, idx),
        answer: answers.as_ref().and_then(|answers| *answers.get(idx)?),
        file: input.file_names.get(idx).cloned().unwrap_or_default(),
    });
    Some(EmbeddingMap {
        stage: input.stage.clone(),
        split: input.split.clone(),
        num_images: num_rows as u64,
        dim: dim as u64,
        explained: pca.explained,
        perplexity: tsne.as_ref().map(|tsne| tsne.perplexity),
        answers_of: answers.as_ref().and(classifier).map(|classifier| classifier.stage.clone()),
        health: input.health.clone(),
        class_distances: input.class_distances.clone(),
        class_names: input.class_names.clone(),
        points: points.collect(),
        neighbours: input.neighbours.iter().map(|neighbours| neighbour_row(input, neighbours)).collect(),
    })
}

fn neighbour_row(input: &EmbeddingsInput, neighbours: &NeighboursInput) -> NeighbourRow {
    let name = |names: &[String], idx: usize| names.get(idx).cloned().unwrap_or_default();
    NeighbourRow {
        index: neighbours.row as u64,
        file: name(&input.file_names, neighbours.row),
        class: input.class(&input.labels, neighbours.row),
        neighbours: neighbours
            .nearest
            .iter()
            .map(|&(similarity, idx)| Neighbour {
                index: u64::from(idx),
                file: name(&input.train_file_names, idx as usize),
                class: input.class(&input.train_labels, idx as usize),
                similarity: (f64::from(similarity) * 1e4).round() / 1e4 + 0.0,
            })
            .collect(),
    }
}

/// The class that a classifier named for each row, if its answers are to these images in this order.
fn answers_of(input: &EmbeddingsInput, classifier: &ClassifierInput) -> Option<Vec<Option<u32>>> {
    let answers = answers(&classifier.predictions);
    let num_rows = input.features.len() / input.dim.max(1);
    let fits = |(answer, file): (&super::predictions::Answer, &String)| answer.file == *file;
    if answers.len() != num_rows
        || input.file_names.len() != num_rows
        || !answers.iter().zip(&input.file_names).all(fits)
    {
        return None;
    }
    let classes: BTreeMap<&str, u32> = input.class_names.iter().map(String::as_str).zip(0..).collect();
    Some(answers.iter().map(|answer| classes.get(answer.predicted.as_str()).copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::ClassifierMetrics;

    #[test]
    fn sampling_is_even_and_complete_where_there_is_room() {
        assert_eq!(spread(3, 10).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spread(10, 4).collect::<Vec<_>>(), [0, 2, 5, 7]);
        assert_eq!(spread(0, 4).count(), 0);
    }

    fn input() -> EmbeddingsInput {
        EmbeddingsInput {
            features: (0..40).map(|idx| (idx * idx % 7) as f32).collect(),
            dim: 4,
            labels: vec![-1, 0, 1, 99],
            class_names: vec!["a".into(), "b".into()],
            file_names: (0..10).map(|idx| format!("{idx}.jpg")).collect(),
            neighbours: vec![NeighboursInput { row: 2, nearest: vec![(0.5, 1), (0.25, 7)] }],
            train_labels: vec![0, 1],
            train_file_names: vec!["x".into(), "y".into()],
            ..EmbeddingsInput::default()
        }
    }

    #[test]
    fn labels_that_are_no_class_are_none() {
        let map = embedding_map(&input(), None).unwrap();
        let classes: Vec<_> = map.points.iter().take(5).map(|point| point.class).collect();
        assert_eq!(classes, [None, Some(0), Some(1), None, None]);
        assert!(map.answers_of.is_none() && map.points.iter().all(|point| point.answer.is_none()));
        let row = &map.neighbours[0];
        assert_eq!((row.file.as_str(), row.class), ("2.jpg", Some(1)));
        assert_eq!((row.neighbours[0].file.as_str(), row.neighbours[0].class), ("y", Some(1)));
        assert_eq!((row.neighbours[1].file.as_str(), row.neighbours[1].class), ("", None));
    }

    #[test]
    fn answers_count_only_for_the_same_images_in_the_same_order() {
        let classifier = |names: &mut dyn Iterator<Item = usize>| ClassifierInput {
            stage: "probe".into(),
            metrics: ClassifierMetrics {
                format: 1,
                protocol: "knn".into(),
                class_names: vec![],
                num_train: 1,
                num_test: 10,
                label_fraction: 1.0,
                scores: BTreeMap::new(),
                history: vec![],
            },
            predictions: std::iter::once("file,label,predicted,probability,correct\n".to_owned())
                .chain(names.map(|idx| format!("{idx}.jpg,a,{},0.5,true\n", if idx == 3 { "b" } else { "?" })))
                .collect(),
        };
        let map = embedding_map(&input(), Some(&classifier(&mut (0..10)))).unwrap();
        assert_eq!(map.answers_of.as_deref(), Some("probe"));
        assert_eq!((map.points[3].answer, map.points[4].answer), (Some(1), None));
        for names in [&mut (0..9_usize) as &mut dyn Iterator<Item = usize>, &mut (0..10_usize).rev()] {
            assert!(embedding_map(&input(), Some(&classifier(names))).unwrap().answers_of.is_none());
        }
    }
}
