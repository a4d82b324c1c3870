//! What a report shows of an embeddings artifact.

use std::{fs, path::Path};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::{
    InputArtifact, StageError,
    report::{broken, read_json},
};
use crate::{
    eval::nearest::nearest_rows,
    report::{
        embedding_map::{EmbeddingsInput, NeighboursInput, spread},
        summary::{ClassDistances, RepresentationHealth},
    },
};

/// Rows whose neighbours are shown, and how many of each.
const GALLERY_ROWS: usize = 8;
const NEIGHBOURS: usize = 8;

/// The test embeddings, or the training embeddings where there is no test split.
///
/// # Errors
/// Where the artifact cannot be read or is not as expected.
pub(super) fn read_embeddings(artifact: &InputArtifact) -> Result<Option<EmbeddingsInput>, StageError> {
    let path = artifact.dir.join("embeddings.safetensors");
    let bytes = fs::read(&path).map_err(|source| StageError::Io { action: "read", path: path.clone(), source })?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| broken(&path, &error.to_string()))?;
    let Some(split) = ["test", "train"].into_iter().find(|split| tensors.tensor(&format!("{split}_features")).is_ok())
    else {
        return Ok(None);
    };
    let Some((features, dim)) = features_of(&tensors, split, &path)? else { return Ok(None) };
    let card: Value = read_json(&artifact.dir.join("embeddings.json"))?;
    let mut input = EmbeddingsInput {
        stage: artifact.stage.clone(),
        split: split.to_owned(),
        features,
        dim,
        labels: labels_of(&tensors, split, &path)?,
        class_names: strings(&card, &["class_names", "classes"]),
        health: representation_health(&card),
        class_distances: class_distances(&card),
        file_names: strings(&card, &[&format!("{split}_file_names"), &format!("{split}_files")]),
        neighbours: vec![],
        train_labels: labels_of(&tensors, "train", &path)?,
        train_file_names: strings(&card, &["train_file_names", "train_files"]),
    };
    if let Some((bank, bank_dim)) = features_of(&tensors, "train", &path)?
        && bank_dim == dim
    {
        input.neighbours = neighbours(&input, bank);
    }
    Ok(Some(input))
}

fn features_of(tensors: &SafeTensors<'_>, split: &str, path: &Path) -> Result<Option<(Vec<f32>, usize)>, StageError> {
    let Ok(features) = tensors.tensor(&format!("{split}_features")) else { return Ok(None) };
    let (Dtype::F32, &[_, dim]) = (features.dtype(), features.shape()) else {
        return Err(broken(path, &format!("`{split}_features` must be f32 with the shape [images, features]")));
    };
    let values = features.data().chunks_exact(4).filter_map(|raw| raw.try_into().ok()).map(f32::from_le_bytes);
    Ok(Some((values.collect(), dim)))
}

fn labels_of(tensors: &SafeTensors<'_>, split: &str, path: &Path) -> Result<Vec<i64>, StageError> {
    match tensors.tensor(&format!("{split}_labels")) {
        Ok(labels) if labels.dtype() == Dtype::I64 => {
            Ok(labels.data().chunks_exact(8).filter_map(|raw| raw.try_into().ok()).map(i64::from_le_bytes).collect())
        }
        Ok(_) => Err(broken(path, &format!("`{split}_labels` must be i64"))),
        Err(_) => Ok(vec![]),
    }
}

/// Evenly taken rows and the training images most like them. An image is not its own neighbour.
fn neighbours(input: &EmbeddingsInput, mut bank: Vec<f32>) -> Vec<NeighboursInput> {
    let dim = input.dim;
    if dim == 0 || bank.iter().chain(&input.features).any(|value| !value.is_finite()) {
        return vec![];
    }
    let num_rows = input.features.len() / dim;
    // From the middle of each part, so that sorted classes all have their turn.
    let rows: Vec<usize> = spread(2 * num_rows, 2 * GALLERY_ROWS).skip(1).step_by(2).map(|idx| idx / 2).collect();
    let mut queries: Vec<f32> =
        rows.iter().flat_map(|&row| input.features[row * dim..(row + 1) * dim].iter().copied()).collect();
    normalize_rows(&mut queries, dim);
    normalize_rows(&mut bank, dim);
    let own = input.split == "train";
    let found = nearest_rows(&bank, &queries, dim, NEIGHBOURS + usize::from(own));
    rows.into_iter()
        .zip(found)
        .map(|(row, mut nearest)| {
            nearest.retain(|(_, idx)| !own || *idx as usize != row);
            nearest.truncate(NEIGHBOURS);
            NeighboursInput { row, nearest }
        })
        .collect()
}

fn normalize_rows(rows: &mut [f32], dim: usize) {
    for row in rows.chunks_exact_mut(dim) {
        let length = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            for value in row {
                *value = (f64::from(*value) / length) as f32;
            }
        }
    }
}

/// What `embeddings.json` says of each representation, `pretrained` first.
fn representation_health(card: &Value) -> Vec<RepresentationHealth> {
    let mut health: Vec<RepresentationHealth> = card
        .get("representations")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| {
            let measured = value.get("health")?;
            let figure = |key: &str| measured.get(key).and_then(Value::as_f64);
            Some(RepresentationHealth {
                representation: name.clone(),
                dim: value.get("dim")?.as_u64()?,
                effective_rank: figure("effective_rank")?,
                normalized_std_ratio: figure("normalized_std_ratio")?,
                num_constant_dims: measured.get("num_constant_dims")?.as_u64()?,
                uniformity: figure("uniformity"),
                alignment: value.get("alignment").and_then(Value::as_f64),
            })
        })
        .collect();
    let rank = |name: &str| ["pretrained", "untrained", "raw_pixels"].iter().position(|known| *known == name);
    health.sort_by_key(|entry| rank(&entry.representation).unwrap_or(usize::MAX));
    health
}

/// How the classes lie in the pretrained representation.
fn class_distances(card: &Value) -> Option<ClassDistances> {
    let classes = card.get("representations")?.get("pretrained")?.get("classes")?;
    let distances: ClassDistances = serde_json::from_value(classes.clone()).ok()?;
    let num_classes = strings(card, &["class_names", "classes"]).len();
    let fits = distances.centroid_distances.len() == num_classes
        && distances.spread.len() == num_classes
        && distances.centroid_distances.iter().all(|row| row.len() == num_classes);
    fits.then_some(distances)
}

/// The list of strings under the first of these keys.
fn strings(card: &Value, keys: &[&str]) -> Vec<String> {
    let list = keys.iter().find_map(|key| card.get(key)?.as_array());
    list.into_iter().flatten().map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_not_its_own_neighbour() {
        let features: Vec<f32> = (0..20).flat_map(|idx| [idx as f32, 1.0, (idx % 3) as f32]).collect();
        let mut input =
            EmbeddingsInput { split: "train".into(), features: features.clone(), dim: 3, ..EmbeddingsInput::default() };
        let own = neighbours(&input, features.clone());
        assert_eq!(own.len(), GALLERY_ROWS);
        assert!(own.iter().all(|row| row.nearest.len() == NEIGHBOURS));
        assert!(own.iter().all(|row| row.nearest.iter().all(|(_, idx)| *idx as usize != row.row)));
        assert!(own.iter().all(|row| row.nearest.windows(2).all(|pair| pair[0].0 >= pair[1].0)));
        input.split = "test".into();
        let other = neighbours(&input, features);
        assert!(other.iter().all(|row| row.nearest[0].0 > 0.999_99), "of another split the same image counts");
    }

    #[test]
    fn few_or_broken_rows_have_few_or_no_neighbours() {
        let input =
            EmbeddingsInput { split: "test".into(), features: vec![1.0, 2.0], dim: 2, ..EmbeddingsInput::default() };
        let found = neighbours(&input, vec![1.0, 0.0, 0.0, 0.0]);
        assert_eq!((found.len(), found[0].nearest.len()), (1, 2));
        assert!(neighbours(&input, vec![f32::NAN, 0.0]).is_empty());
    }
}
