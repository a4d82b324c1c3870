//! Images of an earlier dataset that can be taken as they are, because the bytes of their files are the same.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use super::Dataset;

/// An earlier dataset and which of its images are those of files that are there now.
#[derive(Debug)]
pub struct EarlierImages {
    dataset: Dataset,
    /// Index of the image by the name that its file has now.
    rows: HashMap<String, usize>,
}

impl EarlierImages {
    /// Finds the images of `dataset` again. `then` and `now` say by name what the files held when it was made and
    /// what they hold now; a file may have another name, or another class, than then.
    pub fn find<D: Eq + Hash>(dataset: Dataset, then: &BTreeMap<String, D>, now: &BTreeMap<String, D>) -> Self {
        let by_content: HashMap<&D, usize> = dataset
            .names()
            .enumerate()
            .filter(|(_, name)| is_exact(name))
            .filter_map(|(idx, name)| Some((then.get(name)?, idx)))
            .collect();
        let rows = now
            .iter()
            .filter(|(name, _)| is_exact(name))
            .filter_map(|(name, content)| Some((name.clone(), *by_content.get(content)?)))
            .collect();
        Self { dataset, rows }
    }

    /// The index of the image of the file that is called `name` now.
    pub(super) fn row(&self, name: &str) -> Option<usize> {
        self.rows.get(name).copied()
    }

    /// The dataset.
    pub(super) fn dataset(&self) -> &Dataset {
        &self.dataset
    }
}

/// Names that are not UTF-8 are stored with this character in place of what cannot be read, and two of them may then
/// be equal.
fn is_exact(name: &str) -> bool {
    !name.contains(char::REPLACEMENT_CHARACTER)
}
