//! `uses: augment`: a policy for views, with a contact sheet.

use super::{StageContext, StageError, StageOutcome};
use crate::{
    augment::{AugmentConfig, AugmentError, ImageRef, Policy, preview::render_contact_sheet},
    data::Dataset,
};

/// Name of the contact sheet in an augmentation artifact.
pub const PREVIEW_FILE: &str = "preview.png";

/// Checks the policy and leaves `policy.json` and, where a dataset is given, `preview.png`.
///
/// # Errors
/// When a parameter is out of range, the dataset cannot be read, or writing fails.
pub fn run(config: &AugmentConfig, ctx: &StageContext<'_>) -> Result<StageOutcome, StageError> {
    let policy = Policy::build(config)?;
    policy.save(ctx.out_dir)?;
    if let Some(input) = ctx.input("dataset") {
        let dataset = Dataset::open(&input.dir)?;
        let images: Vec<(u64, ImageRef<'_>)> =
            spread(dataset.len(), config.preview.images as usize).map(|idx| (idx as u64, dataset.image(idx))).collect();
        let sheet = render_contact_sheet(&policy, &images, config.preview.views, ctx.seed);
        let path = ctx.out_dir.join(PREVIEW_FILE);
        let png = image::RgbImage::from_raw(sheet.width, sheet.height, sheet.rgb)
            .ok_or_else(|| StageError::Config { message: "the contact sheet is too large".into(), help: None })?;
        png.save_with_format(&path, image::ImageFormat::Png).map_err(|error| StageError::Io {
            action: "write",
            path,
            source: std::io::Error::other(error),
        })?;
    }
    Ok(StageOutcome::default())
}

/// At most `count` indices below `len`, evenly spread: images are sorted by class, so that every class shows.
fn spread(len: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(len);
    (0..count).map(move |idx| (2 * idx + 1) * len / (2 * count))
}

impl From<AugmentError> for StageError {
    fn from(error: AugmentError) -> Self {
        match error {
            AugmentError::Config { key, message, help } => {
                Self::Config { message: format!("`{key}`: {message}"), help: Some(help) }
            }
            AugmentError::Io { action, path, source } => Self::Io { action, path, source },
            AugmentError::Format { path, message } => Self::Artifact { path, message },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn spread_indices_cover_the_dataset() {
        assert_eq!(spread(6, 6).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(spread(100, 2).collect::<Vec<_>>(), [25, 75]);
        assert_eq!(spread(1, 6).collect::<Vec<_>>(), [0]);
        assert_eq!(spread(0, 6).count(), 0);
    }
}
