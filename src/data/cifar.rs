//! The original CIFAR-10 and CIFAR-100 binary files: records of one or two labels and 32 × 32 red, green and blue
//! planes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    DataError,
    decode::{DecodeOptions, OwnedImage},
    image_source::{ImageSource, SourceItem},
    record_file::RecordFile,
    source_config::{Cifar10Config, Cifar100Config, Cifar100Labels, Split},
};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

const CLASSES_10: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
#[rustfmt::skip]
const CLASSES_100: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest",
    "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard",
    "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid",
    "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum",
    "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper",
    "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf",
    "woman", "worm",
];
#[rustfmt::skip]
const SUPERCLASSES_100: [&str; 20] = [
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices",
    "household_furniture", "insects", "large_carnivores", "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes", "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates",
    "people", "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
];

/// What the two archives differ in.
#[derive(Debug)]
struct Archive {
    name: &'static str,
    /// Key path of the folder.
    key: &'static str,
    /// The folder inside the published archive.
    folder: &'static str,
    files: &'static [&'static str],
    /// Bytes of labels before the pixels, and which of them counts.
    num_labels: usize,
    label_at: usize,
    classes: &'static [&'static str],
}

/// The records of one split in the order of the files.
#[derive(Debug)]
pub struct Cifar {
    archive: Archive,
    class_names: Vec<String>,
    items: Vec<SourceItem>,
    /// File and number of each record.
    places: Vec<(usize, usize)>,
    files: Vec<RecordFile>,
}

impl Cifar {
    /// Opens the batches of a split of CIFAR-10 below `root` and checks their sizes and labels.
    ///
    /// # Errors
    /// When a file is missing, has a size that is no whole number of records, or a label that there is not.
    pub fn open_10(root: &Path, config: &Cifar10Config) -> Result<Self, DataError> {
        let files: &[&str] = match config.split {
            Split::Train => {
                &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"]
            }
            Split::Test => &["test_batch.bin"],
        };
        let archive = Archive {
            name: "CIFAR-10",
            key: "source.cifar10.path",
            folder: "cifar-10-batches-bin",
            files,
            num_labels: 1,
            label_at: 0,
            classes: &CLASSES_10,
        };
        Self::open(root, archive)
    }

    /// The same for CIFAR-100.
    ///
    /// # Errors
    /// As [`Self::open_10`].
    pub fn open_100(root: &Path, config: &Cifar100Config) -> Result<Self, DataError> {
        let (label_at, classes): (_, &[&str]) = match config.labels {
            Cifar100Labels::Coarse => (0, &SUPERCLASSES_100),
            Cifar100Labels::Fine => (1, &CLASSES_100),
        };
        let archive = Archive {
            name: "CIFAR-100",
            key: "source.cifar100.path",
            folder: "cifar-100-binary",
            files: match config.split {
                Split::Train => &["train.bin"],
                Split::Test => &["test.bin"],
            },
            num_labels: 2,
            label_at,
            classes,
        };
        Self::open(root, archive)
    }

    fn open(root: &Path, archive: Archive) -> Result<Self, DataError> {
        let inner = root.join(archive.folder);
        let folder = if !root.join(archive.files[0]).exists() && inner.is_dir() { inner } else { root.to_owned() };
        let mut source = Self {
            class_names: archive.classes.iter().map(|&class| class.to_owned()).collect(),
            items: vec![],
            places: vec![],
            files: vec![],
            archive,
        };
        for name in source.archive.files {
            source.add_file(folder.join(name), name)?;
        }
        Ok(source)
    }

    fn add_file(&mut self, path: PathBuf, name: &str) -> Result<(), DataError> {
        let Archive { name: archive, key, num_labels, label_at, classes, .. } = self.archive;
        let record_len = num_labels + 3 * PLANE;
        let bytes = fs::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => DataError::source(
                format!("`{}` does not exist", path.display()),
                format!(
                    "`{key}` is the folder that holds `{}` (the \"binary version\" of the archive)",
                    self.archive.files.join("`, `")
                ),
            ),
            _ => DataError::Io { action: "read", path: path.clone(), source },
        })?;
        if bytes.is_empty() || bytes.len() % record_len != 0 {
            return Err(DataError::source(
                format!(
                    "`{}` has {} bytes, not a whole number of records of {record_len} bytes",
                    path.display(),
                    bytes.len()
                ),
                format!("the file is cut off or is not the binary version of {archive}; download it again"),
            ));
        }
        for (record, bytes) in bytes.chunks_exact(record_len).enumerate() {
            let label = bytes[label_at];
            if usize::from(label) >= classes.len() {
                return Err(DataError::source(
                    format!("record {record} of `{}` has label {label}", path.display()),
                    format!("labels are 0 to {}; the file is damaged, download it again", classes.len() - 1),
                ));
            }
            self.items.push(SourceItem { name: format!("{name}/{record:05}"), label: Some(u32::from(label)) });
            self.places.push((self.files.len(), record));
        }
        self.files.push(RecordFile::new(path, 0, record_len));
        Ok(())
    }
}

impl ImageSource for Cifar {
    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn items(&self) -> &[SourceItem] {
        &self.items
    }

    fn decode(&self, idx: usize, _options: &DecodeOptions) -> Result<OwnedImage, String> {
        let (file, record) = self.places[idx];
        let record = self.files[file].read(record)?;
        let planes = &record[self.archive.num_labels..];
        let rgb = (0..PLANE).flat_map(|at| [planes[at], planes[PLANE + at], planes[2 * PLANE + at]]).collect();
        Ok(OwnedImage { width: SIDE as u32, height: SIDE as u32, rgb })
    }
}
