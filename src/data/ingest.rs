//! From a source to a dataset artifact: decode and resize in parallel, write in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use rayon::prelude::*;

use super::{
    DataError, DatasetCard, EarlierImages, Progress, SkippedFile,
    arrays::Arrays,
    cifar::Cifar,
    decode::{DecodeOptions, OwnedImage},
    image_folder::ImageFolder,
    image_source::ImageSource,
    ingest_config::{Duplicates, IngestConfig, OnError, ResizeConfig},
    manifest::Manifest,
    pixel_digests::{DuplicateFilter, PixelDigest, pixel_digest},
    pixel_sums::PixelSums,
    scenes::SyntheticScenes,
    source_config::{PathKind, SourceConfig, SourcePath},
    store_writer::StoreWriter,
    subset::{SubsetConfig, select_subset},
    tar_shards::TarShards,
};
use crate::augment::{
    crop::scale_shorter_side,
    resample::{ResampleScratch, resize_image},
};

/// How many images are decoded at once, and looked at at once.
const WINDOW: usize = 256;
const MAX_PART: usize = 64 * WINDOW;
/// How many bytes of images may be decoded while as many are written.
const WINDOW_BYTES: usize = 128 << 20;

/// Reads the images of `config.source` and writes the dataset artifact into `out_dir`. What `earlier` holds of them
/// is taken from there; the artifact is the same, to the byte, with and without it.
///
/// # Errors
/// When the source is not as it must be, a file is broken and `on_error` is `fail`, or writing fails.
pub fn ingest(
    config: &IngestConfig,
    project_root: &Path,
    out_dir: &Path,
    earlier: Option<&EarlierImages>,
    progress: &dyn Progress,
) -> Result<DatasetCard, DataError> {
    ingest_without(config, project_root, out_dir, earlier, &BTreeSet::new(), progress)
}

/// The same without images whose stored pixels are among `exclude`.
///
/// # Errors
/// As [`ingest`].
pub fn ingest_without(
    config: &IngestConfig,
    project_root: &Path,
    out_dir: &Path,
    earlier: Option<&EarlierImages>,
    exclude: &BTreeSet<PixelDigest>,
    progress: &dyn Progress,
) -> Result<DatasetCard, DataError> {
    let source = open_source(config, project_root, progress)?;
    let subset = select_subset(&config.subset, source.items(), project_root)?;
    let (class_names, mut selected) = select(source.as_ref(), &subset, config)?;
    let options = DecodeOptions { max_pixels: config.max_pixels, background: config.background };
    let mut duplicates = DuplicateFilter::new(exclude, config.duplicates == Duplicates::Drop);
    let source = source.as_ref();
    let mut num_duplicates = 0_u64;
    let mut writer = StoreWriter::create(out_dir, class_names.clone())?
        .with_resize(config.resize)
        .over(config.background)
        .expecting(selected.len(), earlier.map(EarlierImages::dataset));
    let (mut skipped, mut broken) = (vec![], vec![]);
    let total = selected.len() as u64;
    let (mut done, mut num_taken) = (0, 0);
    if let Some(earlier) = earlier {
        selected.par_iter_mut().for_each(|item| item.earlier = earlier.row(&source.items()[item.idx].name));
    }
    let without_earlier = || {
        progress.info("the earlier dataset is damaged: every image is read again");
        ingest_without(config, project_root, out_dir, None, exclude, progress)
    };
    let with_digests = duplicates.is_active();
    let prepare = |scratch: &mut ResampleScratch, item: &Selected| -> Result<Prepared, String> {
        if let (Some(row), Some(earlier)) = (item.earlier, earlier) {
            let digest = with_digests.then(|| pixel_digest(earlier.dataset().image(row)));
            return Ok(Prepared { pixels: Pixels::Taken(row), digest });
        }
        let image = resize(source.decode(item.idx, &options)?, &config.resize, scratch);
        let sums = PixelSums::of(&image.rgb);
        let digest = with_digests.then(|| pixel_digest(image.as_ref()));
        Ok(Prepared { pixels: Pixels::New(image, sums), digest })
    };
    let decode = |part: &[Selected]| -> PreparedImages {
        let held = AtomicUsize::new(0);
        part.par_iter()
            .map_init(ResampleScratch::default, |scratch, item| {
                if held.load(Ordering::Relaxed) >= WINDOW_BYTES || progress.is_cancelled() {
                    return None;
                }
                let prepared = prepare(scratch, item);
                held.fetch_add(prepared.as_ref().map_or(0, Prepared::num_bytes), Ordering::Relaxed);
                Some(prepared)
            })
            .collect()
    };
    // Gives whether the earlier dataset is whole.
    let mut store = |part: &[Selected], mut images: PreparedImages| -> Result<bool, DataError> {
        for at in 0..part.len() {
            if images[at].is_none() {
                if progress.is_cancelled() {
                    return Err(DataError::Cancelled);
                }
                // There was no room: a few at a time, as they are written.
                let end = part.len().min(at + 2 * rayon::current_num_threads());
                let late = images[at..end].par_iter_mut().zip(&part[at..end]).filter(|(image, _)| image.is_none());
                late.for_each_init(ResampleScratch::default, |scratch, (image, item)| {
                    *image = Some(prepare(scratch, item));
                });
            }
            let (item, Some(image)) = (&part[at], images[at].take()) else { continue };
            let name = &source.items()[item.idx].name;
            let Prepared { pixels, digest } = match image {
                Ok(prepared) => prepared,
                Err(reason) => match config.on_error {
                    OnError::Fail => return Err(broken_file(config, name, &reason)),
                    OnError::Skip => {
                        broken.push(SkippedFile { file: name.clone(), reason });
                        continue;
                    }
                },
            };
            num_taken += u64::from(matches!(pixels, Pixels::Taken(_)));
            if let Some(reason) = digest.and_then(|digest| duplicates.reject(name, digest)) {
                num_duplicates += 1;
                skipped.push(SkippedFile { file: name.clone(), reason });
                continue;
            }
            let earlier_is_whole = match pixels {
                Pixels::New(image, sums) => writer.push_summed(name, image.as_ref(), item.label, &sums)?,
                Pixels::Taken(row) => writer.push_taken(name, row, item.label)?,
            };
            if !earlier_is_whole {
                return Ok(false);
            }
        }
        done += part.len() as u64;
        progress.images(done, total);
        Ok(true)
    };
    // While some images are decoded those before are written.
    let mut before: Option<(&[Selected], PreparedImages)> = None;
    for part in parts(&selected) {
        if progress.is_cancelled() {
            return Err(DataError::Cancelled);
        }
        let store_before = || before.take().map_or(Ok(true), |(part, images)| store(part, images));
        let (earlier_is_whole, images) = rayon::join(store_before, || decode(part));
        if !earlier_is_whole? {
            return without_earlier();
        }
        before = Some((part, images));
    }
    if let Some((part, images)) = before
        && !store(part, images)?
    {
        return without_earlier();
    }
    if num_taken > 0 {
        progress.info(&format!("{num_taken} of {total} images are as before, {} new", total - num_taken));
    }
    report_skipped(&broken, total, progress);
    if num_duplicates > 0 {
        progress.info(&format!("{num_duplicates} of {total} images are there already and were left out"));
    }
    skipped.append(&mut broken);
    if writer.is_empty() {
        let first = skipped.first().map(|first| format!("; the first is `{}`: {}", first.file, first.reason));
        return Err(DataError::source(
            format!("none of the {total} images can be used{}", first.unwrap_or_default()),
            "check that the source holds images that a viewer opens, and what `classes` selects",
        ));
    }
    warn_about_classes(&class_names, writer.class_counts(), progress);
    skipped.sort_by(|a, b| a.file.as_bytes().cmp(b.file.as_bytes()));
    match writer.finish_taken(skipped)? {
        Some(card) => Ok(card),
        None => without_earlier(),
    }
}

/// An image with what is computed beside others.
struct Prepared {
    pixels: Pixels,
    /// Where equal images are looked for.
    digest: Option<PixelDigest>,
}

impl Prepared {
    /// Bytes that it holds: what is taken lies in a file.
    fn num_bytes(&self) -> usize {
        match &self.pixels {
            Pixels::New(image, _) => image.rgb.len(),
            Pixels::Taken(_) => 0,
        }
    }
}

/// Images in their order, or why one cannot be used; `None` where there was no room for more.
type PreparedImages = Vec<Option<Result<Prepared, String>>>;

/// An image on its way into the store.
enum Pixels {
    /// Decoded now, with the sums over its pixels.
    New(OwnedImage, PixelSums),
    /// The one at this index of the earlier dataset.
    Taken(usize),
}

/// An image that is kept, with its label among the kept classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Selected {
    pub(super) idx: usize,
    label: Option<u32>,
    /// Where the earlier dataset has it.
    earlier: Option<usize>,
}

pub(super) fn open_source(
    config: &IngestConfig,
    project_root: &Path,
    progress: &dyn Progress,
) -> Result<Box<dyn ImageSource>, DataError> {
    Ok(match &config.source {
        SourceConfig::ImageFolder(path) => {
            Box::new(ImageFolder::scan(&project_root.join(path), &config.classes, progress)?)
        }
        SourceConfig::FlatFolder(path) => Box::new(ImageFolder::scan_flat(&project_root.join(path))?),
        SourceConfig::Manifest(manifest) => Box::new(Manifest::open(project_root, manifest)?),
        SourceConfig::Cifar10(cifar) => Box::new(Cifar::open_10(&project_root.join(&cifar.path), cifar)?),
        SourceConfig::Cifar100(cifar) => Box::new(Cifar::open_100(&project_root.join(&cifar.path), cifar)?),
        SourceConfig::Idx(arrays) => Box::new(Arrays::open_idx(project_root, arrays)?),
        SourceConfig::Npy(arrays) => Box::new(Arrays::open_npy(project_root, arrays)?),
        SourceConfig::TarShards(tar) => Box::new(TarShards::open(project_root, tar)?),
        SourceConfig::SyntheticScenes(scenes) => Box::new(SyntheticScenes::new(scenes)),
    })
}

impl IngestConfig {
    /// The files and folders that are read.
    pub fn paths(&self) -> Vec<SourcePath<'_>> {
        let mut paths = self.source.paths();
        if let SubsetConfig::FileList(list) = &self.subset {
            paths.push(SourcePath { key: "subset.file_list.path", path: &list.path, kind: PathKind::File });
        }
        paths
    }
}

/// Resizes an image as a dataset would store it.
pub fn resize_for_store(image: OwnedImage, config: &ResizeConfig) -> OwnedImage {
    resize(image, config, &mut ResampleScratch::default())
}

/// Applies `classes` and `max_per_class`.
pub(super) fn select(
    source: &dyn ImageSource,
    subset: &[usize],
    config: &IngestConfig,
) -> Result<(Vec<String>, Vec<Selected>), DataError> {
    let known = source.class_names();
    let class_names = if config.classes.is_empty() { known.to_vec() } else { config.classes.clone() };
    let mut new_labels: BTreeMap<u32, u32> = BTreeMap::new();
    for (new, name) in class_names.iter().enumerate() {
        let old = known.iter().position(|other| other == name).ok_or_else(|| unknown_class(name, known))?;
        if new_labels.insert(old as u32, new as u32).is_some() {
            return Err(DataError::config(format!("class `{name}` stands twice in `classes`"), "name each class once"));
        }
    }
    let mut counts: BTreeMap<Option<u32>, u32> = BTreeMap::new();
    let mut selected = vec![];
    for &idx in subset {
        let label = match source.items()[idx].label {
            None if !config.classes.is_empty() => continue,
            None => None,
            Some(old) => match new_labels.get(&old) {
                Some(&new) => Some(new),
                None => continue,
            },
        };
        let count = counts.entry(label).or_default();
        if config.max_per_class == 0 || *count < config.max_per_class {
            *count += 1;
            selected.push(Selected { idx, label, earlier: None });
        }
    }
    if !config.classes.is_empty() {
        selected.sort_by_key(|item| item.label);
    }
    Ok((class_names, selected))
}

fn unknown_class(name: &str, known: &[String]) -> DataError {
    if known.is_empty() {
        return DataError::config(
            format!("`classes` names `{name}`, but the source has no classes"),
            "remove `classes`, or put the images of each class into a sub-folder of its own",
        );
    }
    let closest = known
        .iter()
        .map(|other| (strsim::jaro_winkler(name, other), other))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = closest.map(|(_, other)| format!("did you mean `{other}`? ")).unwrap_or_default();
    DataError::config(
        format!("`classes` names `{name}`, of which the source has no images"),
        format!("{hint}the source has `{}`", known.join("`, `")),
    )
}

/// The image as it is stored.
pub fn resize(image: OwnedImage, config: &ResizeConfig, scratch: &mut ResampleScratch) -> OwnedImage {
    let (width, height) = target_size((image.width, image.height), config);
    if (width, height) == (image.width, image.height) {
        return image;
    }
    OwnedImage { width, height, rgb: resize_image(image.as_ref(), width, height, scratch) }
}

fn target_size((width, height): (u32, u32), config: &ResizeConfig) -> (u32, u32) {
    match config {
        ResizeConfig::None => (width, height),
        ResizeConfig::ShorterSide(side) if width.min(height) <= *side => (width, height),
        ResizeConfig::ShorterSide(side) => scale_shorter_side(width, height, (*side).max(1)),
        ResizeConfig::Exact(size) => (size.width.max(1), size.height.max(1)),
    }
}

/// Cuts a list into parts of [`WINDOW`] images that must be decoded each, however many are taken between them: new ones
/// among many that are as before are decoded side by side.
fn parts(selected: &[Selected]) -> impl Iterator<Item = &[Selected]> {
    let mut rest = selected;
    std::iter::from_fn(move || {
        let new = rest.iter().enumerate().filter(|(_, item)| item.earlier.is_none());
        let end = new.map(|(idx, _)| idx + 1).nth(WINDOW - 1).unwrap_or(rest.len()).min(MAX_PART);
        let part;
        (part, rest) = rest.split_at(end);
        (!part.is_empty()).then_some(part)
    })
}

fn broken_file(config: &IngestConfig, name: &str, reason: &str) -> DataError {
    let place = config.source.paths().last().map(|place| format!(" in `{}`", place.path));
    let folder = place.unwrap_or_default();
    DataError::source(
        format!("`{name}`{folder} cannot be used: {reason}"),
        if reason.contains("max_pixels") {
            "raise `max_pixels`, or set `on_error: skip` to leave such files out"
        } else {
            "repair or remove the file, or set `on_error: skip` to leave such files out"
        },
    )
}

fn report_skipped(skipped: &[SkippedFile], total: u64, progress: &dyn Progress) {
    if let Some(first) = skipped.first() {
        progress.warn(&format!(
            "{} of {total} files {} left out; the first is `{}`: {}. `dataset.json` lists all",
            skipped.len(),
            if skipped.len() == 1 { "was" } else { "were" },
            first.file,
            first.reason
        ));
    }
}

fn warn_about_classes(class_names: &[String], counts: &[u64], progress: &dyn Progress) {
    for (name, count) in class_names.iter().zip(counts) {
        match count {
            0 => progress.warn(&format!("class `{name}` has no usable image")),
            1 => progress.warn(&format!("class `{name}` has only one image")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_a_window_of_new_images_each() {
        let list = |new: &dyn Fn(usize) -> bool, len: usize| -> Vec<Selected> {
            let item = |idx| Selected { idx, label: None, earlier: (!new(idx)).then_some(idx) };
            (0..len).map(item).collect()
        };
        let lens = |selected: &[Selected]| -> Vec<usize> { parts(selected).map(<[_]>::len).collect() };
        assert_eq!(lens(&list(&|_| true, 600)), [256, 256, 88]);
        assert_eq!(lens(&list(&|idx| idx % 10 == 0, 17_000)), [2551, 2560, 2560, 2560, 2560, 2560, 1649]);
        assert_eq!(lens(&list(&|_| false, MAX_PART + 1)), [MAX_PART, 1]);
        assert_eq!(lens(&[]), [0_usize; 0]);
        let all = list(&|idx| idx % 3 == 0, 5_000);
        assert_eq!(parts(&all).flatten().map(|item| item.idx).collect::<Vec<_>>(), (0..5_000).collect::<Vec<_>>());
    }
}
