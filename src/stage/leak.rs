//! Images that are learned from and judged by at once.

use super::StageReporter;
use crate::data::{Dataset, pixel_digests::shared_images};

/// Warns where test images are also training images, to the last pixel: accuracy on them says nothing.
pub(super) fn warn_about_shared_images(train: &Dataset, test: &Dataset, reporter: &dyn StageReporter) {
    let Some((count, test_name, train_name)) = shared_images(train, test) else { return };
    let total = test.len();
    reporter.warn(&format!(
        "{count} of {total} test images {} among the training images, such as `{test_name}`, there `{train_name}`: \
         accuracy on them says nothing. `inputs: {{ exclude: … }}` of an `ingest` stage leaves images of another dataset out",
        if count == 1 { "is" } else { "are" },
    ));
}
