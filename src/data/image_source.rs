//! Where images come from, whatever the source.

use super::decode::{DecodeOptions, OwnedImage};

/// One image that a source can give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceItem {
    /// Name relative to the source, `/` between folders.
    pub name: String,
    /// Index into the class names.
    pub label: Option<u32>,
}

/// A list of images in a fixed order.
pub trait ImageSource: Sync {
    /// Names of the classes; empty where there are no labels.
    fn class_names(&self) -> &[String];

    /// The images in the order in which they are stored.
    fn items(&self) -> &[SourceItem];

    /// Decodes the image at `idx`.
    ///
    /// # Errors
    /// In words for the user, without the image's name.
    fn decode(&self, idx: usize, options: &DecodeOptions) -> Result<OwnedImage, String>;
}
