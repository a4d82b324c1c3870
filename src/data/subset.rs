//! Which images of a source belong to the dataset: a list of files, or a stratified share.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DataError, image_source::SourceItem, source_config::Split};

/// Which images of a source belong to the dataset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SubsetConfig {
    /// All of them.
    #[default]
    All,
    /// Those in a list, or all others.
    FileList(FileListConfig),
    /// A share of each class, drawn by a seed: two stages that differ in `part` divide a source without overlap.
    Fraction(FractionConfig),
}

/// A list of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileListConfig {
    /// A text file with the name of an image on each line, as `dataset.json` names it: relative to the source.
    pub path: String,
    /// Whether to keep the listed images or all others.
    #[serde(default)]
    pub keep: Keep,
}

/// Which side of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Those in the list.
    #[default]
    Listed,
    /// All others.
    Others,
}

/// A share of each class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FractionConfig {
    /// Which of the two parts to keep.
    pub part: Split,
    /// Share of each class that is the test part, rounded to whole images, at least one of each part.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub test_fraction: f64,
    /// Seed of the division. An image that is added moves few others.
    #[serde(default)]
    pub seed: u64,
}

/// The numbers of the images that are kept, in their order.
///
/// # Errors
/// When the list cannot be read or names an image that there is not.
pub(super) fn select_subset(
    config: &SubsetConfig,
    items: &[SourceItem],
    project_root: &Path,
) -> Result<Vec<usize>, DataError> {
    match config {
        SubsetConfig::All => Ok((0..items.len()).collect()),
        SubsetConfig::FileList(list) => by_list(list, items, project_root),
        SubsetConfig::Fraction(fraction) => Ok(by_fraction(fraction, items)),
    }
}

fn by_list(config: &FileListConfig, items: &[SourceItem], project_root: &Path) -> Result<Vec<usize>, DataError> {
    let path = project_root.join(&config.path);
    let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => DataError::source(
            format!("`{}` does not exist", path.display()),
            "correct `subset.file_list.path`; relative paths start at the project root",
        ),
        std::io::ErrorKind::InvalidData => DataError::source(
            format!("`{}` is not UTF-8 text", path.display()),
            "write the name of an image on each line",
        ),
        _ => DataError::Io { action: "read", path: path.clone(), source },
    })?;
    let listed: BTreeSet<&str> =
        text.lines().map(str::trim).map(|line| line.trim_start_matches("./")).filter(|line| !line.is_empty()).collect();
    let mut missing = listed.clone();
    for item in items {
        missing.remove(item.name.as_str());
    }
    if let Some(first) = missing.first() {
        let example = items.first().map(|item| format!(", such as `{}`", item.name)).unwrap_or_default();
        return Err(DataError::source(
            format!("{} of the names in `{}` are not in the source, first `{first}`", missing.len(), path.display()),
            format!("names are relative to the source{example}"),
        ));
    }
    let keep_listed = config.keep == Keep::Listed;
    Ok((0..items.len()).filter(|&idx| listed.contains(items[idx].name.as_str()) == keep_listed).collect())
}

fn by_fraction(config: &FractionConfig, items: &[SourceItem]) -> Vec<usize> {
    let mut classes: BTreeMap<Option<u32>, Vec<([u8; 32], usize)>> = BTreeMap::new();
    for (idx, item) in items.iter().enumerate() {
        let mut hasher = blake3::Hasher::new_derive_key("simsiam-pipe 2026 division into train and test");
        hasher.update(&config.seed.to_le_bytes());
        hasher.update(item.name.as_bytes());
        classes.entry(item.label).or_default().push((*hasher.finalize().as_bytes(), idx));
    }
    let mut kept = vec![];
    for mut members in classes.into_values() {
        members.sort_unstable();
        let count = members.len();
        let wanted = (config.test_fraction * count as f64).round() as usize;
        // A part without a class would be of no use.
        let num_test = if count < 2 { wanted.min(count) } else { wanted.clamp(1, count - 1) };
        let (test, train) = members.split_at(num_test);
        let part = match config.part {
            Split::Train => train,
            Split::Test => test,
        };
        kept.extend(part.iter().map(|(_, idx)| *idx));
    }
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(per_class: u32) -> Vec<SourceItem> {
        (0..3)
            .flat_map(|label| {
                (0..per_class).map(move |idx| SourceItem { name: format!("{label}/{idx}"), label: Some(label) })
            })
            .collect()
    }

    fn part(part: Split, seed: u64, items: &[SourceItem]) -> Vec<usize> {
        by_fraction(&FractionConfig { part, test_fraction: 0.25, seed }, items)
    }

    #[test]
    fn parts_divide_each_class_and_depend_on_the_seed() {
        let items = items(40);
        let (train, test) = (part(Split::Train, 1, &items), part(Split::Test, 1, &items));
        assert_eq!((train.len(), test.len()), (90, 30));
        let all: BTreeSet<usize> = train.iter().chain(&test).copied().collect();
        assert_eq!(all.len(), 120);
        for label in 0..3 {
            assert_eq!(test.iter().filter(|&&idx| items[idx].label == Some(label)).count(), 10);
        }
        assert_eq!(test, part(Split::Test, 1, &items));
        assert_ne!(test, part(Split::Test, 2, &items));
    }

    #[test]
    fn an_image_that_is_added_moves_few_others() {
        let (before, after) = (items(40), items(41));
        let names = |items: &[SourceItem]| -> BTreeSet<String> {
            part(Split::Test, 1, items).iter().map(|&idx| items[idx].name.clone()).collect()
        };
        assert!(names(&before).difference(&names(&after)).count() <= 3);
    }

    #[test]
    fn small_classes_are_in_both_parts_where_they_can_be() {
        let items = items(2);
        assert_eq!((part(Split::Train, 0, &items).len(), part(Split::Test, 0, &items).len()), (3, 3));
    }
}
