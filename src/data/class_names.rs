//! From the labels that a source has to classes: which there are, in which order.

use std::collections::{BTreeMap, BTreeSet};

/// Classes of labels that were read as text, and the index of each label among them.
///
/// Labels that are all whole numbers are in the order of the numbers, others in that of their bytes.
pub(super) fn classes_of<'a>(labels: impl Iterator<Item = Option<&'a str>>) -> (Vec<String>, Vec<Option<u32>>) {
    let labels: Vec<Option<&str>> = labels.collect();
    let distinct: BTreeSet<&str> = labels.iter().flatten().copied().collect();
    let mut names: Vec<&str> = distinct.into_iter().collect();
    if names.iter().all(|name| name.parse::<i64>().is_ok()) {
        // Numbers that are equal but written differently stay apart, in the order of their bytes.
        names.sort_by_key(|name| name.parse::<i64>().unwrap_or_default());
    }
    let places: BTreeMap<&str, u32> = names.iter().enumerate().map(|(idx, name)| (*name, idx as u32)).collect();
    let indices = labels.iter().map(|label| label.and_then(|label| places.get(label).copied())).collect();
    (names.into_iter().map(str::to_owned).collect(), indices)
}

/// The names that files of images may end in.
pub(super) const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"];

/// Whether a name ends like that of an image.
pub(super) fn is_image_extension(extension: &str) -> bool {
    EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_the_order_of_numbers_and_words_of_their_bytes() {
        let classes = |labels: &[&'static str]| classes_of(labels.iter().map(|label| Some(*label)));
        assert_eq!(classes(&["10", "9", "-1", "9"]).0, ["-1", "9", "10"]);
        assert_eq!(classes(&["10", "9", "b"]).0, ["10", "9", "b"]);
        assert_eq!(classes_of([None, Some("b"), Some("a")].into_iter()).1, [None, Some(1), Some(0)]);
    }
}
