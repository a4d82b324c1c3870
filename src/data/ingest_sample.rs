//! What ingesting a source will cost, by a few of its images.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{
    DataError, IngestConfig, NoProgress, SourceConfig,
    decode::DecodeOptions,
    ingest::{open_source, resize_for_store, select},
    subset::select_subset,
};

/// How many images are tried at the most, and how long.
const MAX_IMAGES: usize = 16;
const MAX_TIME: Duration = Duration::from_millis(60);

/// What a source holds, and what one image of it costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IngestSample {
    /// Images that will be read, broken ones and duplicates included.
    pub num_images: u64,
    /// Classes.
    pub num_classes: u32,
    /// Seconds in which one thread decodes and resizes an image.
    pub seconds_per_image: f64,
    /// Bytes of an image as it is stored.
    pub bytes_per_image: f64,
}

impl IngestSample {
    /// Lists the source and reads a few images from all over it. `None` where only reading everything would tell:
    /// archives, and sources of which no image that was tried can be read.
    ///
    /// # Errors
    /// When the source is not as it must be.
    pub fn take(config: &IngestConfig, project_root: &Path) -> Result<Option<Self>, DataError> {
        if let SourceConfig::TarShards(_) = config.source {
            return Ok(None);
        }
        let source = open_source(config, project_root, &NoProgress)?;
        let subset = select_subset(&config.subset, source.items(), project_root)?;
        let (class_names, selected) = select(source.as_ref(), &subset, config)?;
        let options = DecodeOptions { max_pixels: config.max_pixels, background: config.background };
        let started = Instant::now();
        let (mut num_read, mut num_bytes) = (0_u32, 0);
        for item in selected.iter().step_by(selected.len().div_ceil(MAX_IMAGES).max(1)) {
            if let Ok(image) = source.decode(item.idx, &options) {
                num_bytes += resize_for_store(image, &config.resize).rgb.len();
                num_read += 1;
            }
            if started.elapsed() > MAX_TIME {
                break;
            }
        }
        Ok((num_read > 0).then(|| Self {
            num_images: selected.len() as u64,
            num_classes: class_names.len() as u32,
            seconds_per_image: started.elapsed().as_secs_f64() / f64::from(num_read),
            bytes_per_image: num_bytes as f64 / f64::from(num_read),
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_source_is_counted_as_ingest_will_read_it() {
        let root = tempfile::tempdir().unwrap();
        for (name, side) in [("a/1.png", 8), ("a/2.png", 16), ("b/1.png", 8), ("b/2.png", 8)] {
            let path = root.path().join("in").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::RgbImage::new(side, side).save(path).unwrap();
        }
        let sample = |options: serde_json::Value| {
            let mut config = json!({ "source": { "image_folder": "in" } });
            config.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
            IngestSample::take(&serde_json::from_value(config).unwrap(), root.path())
        };
        let all = sample(json!({})).unwrap().unwrap();
        assert_eq!((all.num_images, all.num_classes, all.bytes_per_image), (4, 2, 3.0 * (3.0 * 64.0 + 256.0) / 4.0));
        assert!(all.seconds_per_image > 0.0);
        let few = sample(json!({ "max_per_class": 1, "resize": { "exact": { "width": 4, "height": 2 } } }));
        let few = few.unwrap().unwrap();
        assert_eq!((few.num_images, few.bytes_per_image), (2, 24.0));
        std::fs::write(root.path().join("in/a/1.png"), "broken").unwrap();
        std::fs::write(root.path().join("in/b/1.png"), "broken").unwrap();
        assert_eq!(sample(json!({ "max_per_class": 1 })).unwrap(), None);
        assert!(sample(json!({ "classes": ["c"] })).is_err());
        let tar = json!({ "source": { "tar_shards": { "path": "nowhere" } } });
        assert_eq!(IngestSample::take(&serde_json::from_value(tar).unwrap(), root.path()).unwrap(), None);
    }
}
