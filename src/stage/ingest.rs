//! `uses: ingest`: images from outside become a dataset artifact.

use std::collections::{BTreeMap, BTreeSet};

use super::{StageContext, StageError, StageOutcome, StageReporter};
use crate::data::{
    DataError, Dataset, EarlierImages, IngestConfig, Progress,
    ingest::ingest_without,
    pixel_digests::pixel_digests,
    store_writer::{CARD_FILE, IMAGES_FILE},
};

/// Reads the source and leaves `pixels/`, `images.safetensors` and `dataset.json`.
///
/// # Errors
/// When the source is not as it must be, or reading or writing fails.
pub fn run(config: &IngestConfig, ctx: &StageContext<'_>) -> Result<StageOutcome, StageError> {
    let earlier = earlier_images(ctx);
    let progress = ReporterProgress(ctx.reporter);
    let mut exclude = BTreeSet::new();
    for input in ctx.inputs.get("exclude").into_iter().flatten() {
        exclude.extend(pixel_digests(&Dataset::open(&input.dir)?));
    }
    let card = ingest_without(config, ctx.project_root, ctx.out_dir, earlier.as_ref(), &exclude, &progress)?;
    Ok(StageOutcome {
        metrics: BTreeMap::from([
            ("dataset/images".to_owned(), card.num_images as f64),
            ("dataset/classes".to_owned(), card.class_names.len() as f64),
            ("dataset/skipped".to_owned(), card.skipped.len() as f64),
        ]),
    })
}

/// What an earlier dataset holds of the folder's images, where there is one and its tables are whole. Pixels are looked
/// at when they are taken.
fn earlier_images(ctx: &StageContext<'_>) -> Option<EarlierImages> {
    let earlier = ctx.earlier?;
    let files = earlier.images.as_ref()?;
    if !earlier.artifact.is_whole(&[IMAGES_FILE, CARD_FILE]) {
        ctx.reporter.info("the earlier dataset is damaged: every image is read again");
        return None;
    }
    let dataset = Dataset::open(&earlier.artifact.dir).ok()?;
    Some(EarlierImages::find(dataset, &files.then, &files.now))
}

/// Passes what ingest says on to the stage's reporter.
struct ReporterProgress<'a>(&'a dyn StageReporter);

impl Progress for ReporterProgress<'_> {
    fn images(&self, done: u64, total: u64) {
        self.0.progress(done, total, "images", "");
    }

    fn info(&self, message: &str) {
        self.0.info(message);
    }

    fn warn(&self, message: &str) {
        self.0.warn(message);
    }

    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

impl From<DataError> for StageError {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Source { message, help } => Self::Data { message, help },
            DataError::Config { message, help } => Self::Config { message, help },
            DataError::Io { action, path, source } => Self::Io { action, path, source },
            DataError::Artifact { path, message } => Self::Artifact { path, message },
            DataError::Cancelled => Self::Cancelled,
        }
    }
}
