//! `uses: augment`: a policy for views, with a contact sheet.

use super::{StageContext, StageError, StageOutcome};
use crate::{
    augment::{
        AugmentConfig, AugmentError, ImageRef, Policy,
        preview::{encode_png, render_contact_sheet},
    },
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
        std::fs::write(&path, encode_png(&sheet)?).map_err(|source| StageError::Io {
            action: "write",
            path,
            source,
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
            AugmentError::TooLarge { .. } => {
                Self::Config { message: error.to_string(), help: error.help().map(str::to_owned) }
            }
            AugmentError::Io { action, path, source } => Self::Io { action, path, source },
            AugmentError::Format { path, message } => Self::Artifact { path, message },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use serde_json::json;

    use super::*;
    use crate::{
        augment::policy_file::POLICY_FILE,
        digest::Digest,
        stage::{InputArtifact, SilentReporter},
    };

    fn with_context<T>(
        out_dir: &Path,
        inputs: &BTreeMap<String, Vec<InputArtifact>>,
        use_it: impl FnOnce(&StageContext<'_>) -> T,
    ) -> T {
        use_it(&StageContext {
            pipeline: "p",
            stage: "s",
            inputs,
            out_dir,
            work_dir: out_dir,
            project_root: out_dir,
            seed: 1,
            earlier: None,
            compute: &crate::compute::Compute::Cpu,
            reporter: &SilentReporter,
        })
    }

    #[test]
    fn a_dataset_gets_a_contact_sheet_and_no_dataset_none() {
        let (data, views) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let scenes =
            json!({ "source": { "synthetic_scenes": { "images_per_class": 1, "image_size": 24, "split": "test" } } });
        let outcome = with_context(data.path(), &BTreeMap::new(), |ctx| {
            crate::stage::ingest::run(&serde_json::from_value(scenes).unwrap(), ctx).unwrap()
        });
        assert_eq!(outcome.metrics["dataset/images"], 7.0);

        let config =
            json!({ "image_size": 16, "ops": [{ "random_resized_crop": {} }], "preview": { "images": 4, "views": 2 } });
        let config: AugmentConfig = serde_json::from_value(config).unwrap();
        with_context(views.path(), &BTreeMap::new(), |ctx| run(&config, ctx)).unwrap();
        assert!(views.path().join(POLICY_FILE).exists() && !views.path().join(PREVIEW_FILE).exists());

        let dataset = InputArtifact { stage: "train".into(), digest: Digest::of(b""), dir: data.path().to_owned() };
        let inputs = BTreeMap::from([("dataset".to_owned(), vec![dataset])]);
        with_context(views.path(), &inputs, |ctx| run(&config, ctx)).unwrap();
        let sheet = image::open(views.path().join(PREVIEW_FILE)).unwrap();
        assert_eq!((sheet.width(), sheet.height()), (4 + 16 + 12 + 2 * 20, 4 + 4 * 20));
    }

    #[test]
    fn a_missing_folder_is_the_users_data_with_help() {
        let dir = tempfile::tempdir().unwrap();
        let config = serde_json::from_value(json!({ "source": { "image_folder": "nowhere" } })).unwrap();
        let error = with_context(dir.path(), &BTreeMap::new(), |ctx| crate::stage::ingest::run(&config, ctx));
        let error = error.unwrap_err();
        assert!(matches!(error, StageError::Data { .. }) && error.help().unwrap().contains("project root"));
    }

    #[test]
    fn spread_indices_cover_the_dataset() {
        assert_eq!(spread(6, 6).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(spread(100, 2).collect::<Vec<_>>(), [25, 75]);
        assert_eq!(spread(1, 6).collect::<Vec<_>>(), [0]);
        assert_eq!(spread(0, 6).count(), 0);
    }
}
