//! Readers fed with anybody's bytes: what `fuzz/` and the mutation test call.
//!
//! None may panic, run for long, or take memory that the bytes do not justify; what comes out fits together. A panic
//! here is the finding.
#![allow(clippy::missing_panics_doc, reason = "that they panic on a mistake is what they are for")]

use std::{io::Cursor, panic::catch_unwind, path::Path};

use image::{ImageFormat, RgbImage};
use rand::Rng as _;
use serde_json::json;

use super::{
    DataError, Dataset,
    arrays::Arrays,
    cifar::Cifar,
    decode::{DecodeOptions, decode_the_long_way, decode_with, read_dimensions},
    image_source::ImageSource,
    jpeg::decode_baseline,
    manifest::Manifest,
    source_config::{
        ArraysConfig, Cifar10Config, Cifar100Config, Cifar100Labels, ManifestConfig, Split, TarLabel, TarShardsConfig,
    },
    store_writer::{CARD_FILE, IMAGES_FILE},
    tar_shards::TarShards,
};
use crate::seed::{below, seeded_rng};

/// Enough for every image of a corpus, little enough that a decoder's buffers show.
pub const OPTIONS: DecodeOptions = DecodeOptions { max_pixels: 1 << 20, background: [255; 3] };

/// What is called with bytes.
pub type Target = fn(&[u8]);

/// Everything that reads a format of its own, by name.
pub const TARGETS: [(&str, Target); 9] = [
    ("decode", decode),
    ("jpeg", jpeg),
    ("cifar", cifar),
    ("idx", idx),
    ("npy", npy),
    ("tar", tar),
    ("csv", csv),
    ("jsonl", json_lines),
    ("store", store),
];

/// An image file.
pub fn decode(bytes: &[u8]) {
    let _ = read_dimensions(bytes);
    if let Ok(image) = decode_with(bytes, &OPTIONS) {
        assert_eq!(image.rgb.len() as u64, 3 * u64::from(image.width) * u64::from(image.height));
        assert!(image.rgb.len() as u64 <= 3 * OPTIONS.max_pixels);
    }
}

/// A JPEG file, which must be left alone or decoded to what `zune-jpeg` makes of it.
pub fn jpeg(bytes: &[u8]) {
    zune_agrees(bytes);
}

/// Whether a file takes the short way; panics where the long way gives other pixels.
pub(super) fn zune_agrees(bytes: &[u8]) -> bool {
    let Some(image) = decode_baseline(bytes, OPTIONS.max_pixels) else { return false };
    // A panic of the long way is not what is looked for.
    let long = catch_unwind(|| decode_the_long_way(bytes, OPTIONS.max_pixels));
    assert!(long.is_ok_and(|long| long == Ok(image)), "the long way gives another image");
    true
}

/// A batch of CIFAR-10 and of CIFAR-100.
pub fn cifar(bytes: &[u8]) {
    in_folder(&[("test_batch.bin", bytes), ("test.bin", bytes)], |dir| {
        use_source(Cifar::open_10(dir, &Cifar10Config { path: String::new(), split: Split::Test }));
        for labels in [Cifar100Labels::Fine, Cifar100Labels::Coarse] {
            use_source(Cifar::open_100(dir, &Cifar100Config { path: String::new(), split: Split::Test, labels }));
        }
    });
}

/// An IDX file of images, and of labels.
pub fn idx(bytes: &[u8]) {
    arrays(bytes, Arrays::open_idx);
}

/// A NumPy array of images, and of labels.
pub fn npy(bytes: &[u8]) {
    arrays(bytes, Arrays::open_npy);
}

fn arrays(bytes: &[u8], open: fn(&Path, &ArraysConfig) -> Result<Arrays, DataError>) {
    in_folder(&[("a", bytes)], |dir| {
        for labels in [None, Some("a".to_owned())] {
            use_source(open(dir, &ArraysConfig { images: "a".into(), labels }));
        }
    });
}

/// A tar archive.
pub fn tar(bytes: &[u8]) {
    in_folder(&[("a.tar", bytes)], |dir| {
        for label in [TarLabel::Cls, TarLabel::Json("class".into()), TarLabel::Folder, TarLabel::None] {
            use_source(TarShards::open(dir, &TarShardsConfig { path: "a.tar".into(), label }));
        }
    });
}

/// A table in CSV.
pub fn csv(bytes: &[u8]) {
    table("a.csv", bytes);
}

/// A table in JSON Lines.
pub fn json_lines(bytes: &[u8]) {
    table("a.jsonl", bytes);
}

fn table(name: &str, bytes: &[u8]) {
    in_folder(&[(name, bytes)], |dir| {
        for split in [None, Some("train".to_owned())] {
            use_source(Manifest::open(
                dir,
                &ManifestConfig {
                    path: name.into(),
                    images: String::new(),
                    path_column: "path".into(),
                    label_column: "label".into(),
                    split_column: "split".into(),
                    split,
                },
            ));
        }
    });
}

/// A dataset artifact: two bytes say how long the card is, then come the card and the tensors.
pub fn store(bytes: &[u8]) {
    let Some((len, rest)) = bytes.split_first_chunk() else { return };
    let (card, tensors) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
    in_folder(&[(CARD_FILE, card), (IMAGES_FILE, tensors)], |dir| {
        if let Ok(dataset) = Dataset::open(dir) {
            assert_eq!(dataset.names().len(), dataset.len());
            for idx in 0..dataset.len() {
                assert!(dataset.name(idx).len() <= tensors.len());
                let image = dataset.image(idx);
                assert_eq!(image.rgb.len() as u64, 3 * u64::from(image.width) * u64::from(image.height));
                assert!(dataset.label(idx).is_none_or(|label| (label as usize) < dataset.card().class_names.len()));
            }
        }
    });
}

/// Looks at the first and the last image of a source.
fn use_source(source: Result<impl ImageSource, DataError>) {
    let Ok(source) = source else { return };
    let classes = source.class_names().len();
    for item in source.items() {
        assert!(item.label.is_none_or(|label| (label as usize) < classes));
    }
    for idx in [0, source.items().len().saturating_sub(1)] {
        if idx < source.items().len()
            && let Ok(image) = source.decode(idx, &OPTIONS)
        {
            assert_eq!(image.rgb.len() as u64, 3 * u64::from(image.width) * u64::from(image.height));
        }
    }
}

/// Files in a folder of their own; where there is no room for one nothing is tried.
fn in_folder(files: &[(&str, &[u8])], read: impl FnOnce(&Path)) {
    let Ok(dir) = tempfile::tempdir() else { return };
    if files.iter().all(|(name, bytes)| std::fs::write(dir.path().join(name), bytes).is_ok()) {
        read(dir.path());
    }
}

/// Whole files to begin with, for a target.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let image = |format| {
        let mut bytes = Cursor::new(vec![]);
        let image = RgbImage::from_fn(31, 22, |x, y| image::Rgb([x as u8 * 8, y as u8 * 11, (x * y) as u8]));
        // In memory nothing fails.
        let _ = image.write_to(&mut bytes, format);
        bytes.into_inner()
    };
    let png = image(ImageFormat::Png);
    match target {
        "decode" => [
            ImageFormat::Jpeg,
            ImageFormat::Png,
            ImageFormat::Gif,
            ImageFormat::Bmp,
            ImageFormat::Tiff,
            ImageFormat::WebP,
        ]
        .map(image)
        .to_vec(),
        "jpeg" => vec![image(ImageFormat::Jpeg)],
        "cifar" => vec![[1; 3073].to_vec(), [2; 3074].to_vec()],
        "idx" => vec![idx_file(8, &[3, 4, 4], &[9; 48]), idx_file(8, &[5], &[1, 2, 3, 4, 5])],
        "npy" => vec![npy_file("|u1", "(2, 4, 4, 3)", &[7; 96]), npy_file("<i8", "(2,)", &[1; 16])],
        "tar" => {
            vec![tar_file(&[("a.png", &png), ("a.cls", b"3"), ("x/b.png", &png), ("x/b.json", b"{\"class\": 1}")])]
        }
        "csv" => vec![b"path,label,split\na.png,x,train\n\"b,c.png\",y,test\n".to_vec()],
        "jsonl" => vec![b"{\"path\": \"a.png\", \"label\": 3, \"split\": \"train\"}\n{\"path\": \"b\"}\n".to_vec()],
        _ => stored().into_iter().collect(),
    }
}

/// An IDX file: type of the values, sides, values.
pub fn idx_file(kind: u8, sides: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, kind, sides.len() as u8];
    bytes.extend(sides.iter().flat_map(|side| side.to_be_bytes()));
    bytes.extend(values);
    bytes
}

/// A `.npy` file: type of the values, shape as Python writes it, values.
pub fn npy_file(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let mut head = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    head.push_str(&" ".repeat(63 - (10 + head.len()) % 64));
    head.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((head.len() as u16).to_le_bytes());
    bytes.extend(head.as_bytes());
    bytes.extend(values);
    bytes
}

/// A tar archive of these files.
pub fn tar_file(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // In memory nothing fails.
        let _ = builder.append_data(&mut header, name, *bytes);
    }
    builder.into_inner().unwrap_or_default()
}

/// A dataset as [`store`] takes it.
fn stored() -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().ok()?;
    let config = json!({
        "source": { "synthetic_scenes": { "images_per_class": 1, "image_size": 16, "split": "train" } }
    });
    super::ingest(&serde_json::from_value(config).ok()?, dir.path(), dir.path(), None, &super::NoProgress).ok()?;
    let card = std::fs::read(dir.path().join(CARD_FILE)).ok()?;
    let mut bytes = (card.len() as u16).to_le_bytes().to_vec();
    bytes.extend(card);
    bytes.extend(std::fs::read(dir.path().join(IMAGES_FILE)).ok()?);
    Some(bytes)
}

/// Changes a file in a few places, as damage or malice would.
pub fn mutate(bytes: &[u8], other: &[u8], seed: u64) -> Vec<u8> {
    let mut rng = seeded_rng(seed, "mutation", &[]);
    let mut bytes = bytes.to_vec();
    for _ in 0..=below(&mut rng, 4) {
        if bytes.is_empty() {
            bytes.push(rng.next_u64() as u8);
        }
        let at = below(&mut rng, bytes.len() as u64) as usize;
        // Heads decide most.
        let at = if rng.next_u64().is_multiple_of(2) { at.min(at % 64) } else { at };
        let end = (at + 1 + below(&mut rng, 32) as usize).min(bytes.len());
        match below(&mut rng, 8) {
            0 => bytes[at] ^= 1 << below(&mut rng, 8),
            1 => bytes[at] = rng.next_u64() as u8,
            2 => bytes[at..end].fill([0, 0xFF, 0x7F][below(&mut rng, 3) as usize]),
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            6 if !other.is_empty() => {
                let from = below(&mut rng, other.len() as u64) as usize;
                let part = other[from..(from + 64).min(other.len())].to_vec();
                bytes.splice(at..end, part);
            }
            _ => {
                let number = [0, 1, u32::MAX, 0x7FFF_FFFF, 0x1_0000][below(&mut rng, 5) as usize].to_be_bytes();
                let number = if rng.next_u64().is_multiple_of(2) { number } else { number.map(u8::reverse_bits) };
                for (to, from) in bytes[at..end].iter_mut().zip(number) {
                    *to = from;
                }
            }
        }
    }
    bytes
}
