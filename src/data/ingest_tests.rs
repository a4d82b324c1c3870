//! Folders of every shape through `ingest` and back through `Dataset`.

use std::{fs, path::Path, sync::Mutex};

use image::RgbImage;
use serde_json::json;

use super::{
    DataError, Dataset, DatasetCard, ImageRef, IngestConfig, Progress, ingest,
    store_writer::{IMAGES_FILE, StoreWriter},
};

/// Keeps warnings, and may ask to stop.
#[derive(Default)]
struct Listener {
    warnings: Mutex<Vec<String>>,
    cancel: bool,
}

impl Progress for Listener {
    fn images(&self, done: u64, total: u64) {
        assert!(done <= total);
    }
    fn info(&self, _message: &str) {}
    fn warn(&self, message: &str) {
        self.warnings.lock().unwrap().push(message.to_owned());
    }
    fn is_cancelled(&self) -> bool {
        self.cancel
    }
}

struct Folder {
    dir: tempfile::TempDir,
    out: tempfile::TempDir,
}

impl Folder {
    fn new(images: &[&str]) -> Self {
        let folder = Self { dir: tempfile::tempdir().unwrap(), out: tempfile::tempdir().unwrap() };
        for (idx, name) in images.iter().enumerate() {
            folder.image(name, 20 + idx as u32, 10);
        }
        folder
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("images").join(name)
    }

    fn image(&self, name: &str, width: u32, height: u32) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let image = RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 3) as u8, (y * 7) as u8, 40]));
        image.save_with_format(path, image::ImageFormat::Png).unwrap();
    }

    fn config(options: &serde_json::Value) -> IngestConfig {
        let mut value = json!({ "source": { "image_folder": "images" } });
        for (key, option) in options.as_object().unwrap() {
            value[key] = option.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    #[allow(clippy::needless_pass_by_value, reason = "called with `json!` literals")]
    fn ingest(&self, options: serde_json::Value) -> Result<(DatasetCard, Vec<String>), DataError> {
        let listener = Listener::default();
        let card = ingest(&Self::config(&options), self.dir.path(), self.out.path(), None, &listener)?;
        Ok((card, listener.warnings.into_inner().unwrap()))
    }

    fn open(&self) -> Dataset {
        Dataset::open(self.out.path()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.open().names().map(str::to_owned).collect()
    }
}

fn message(result: Result<(DatasetCard, Vec<String>), DataError>) -> String {
    let error = result.unwrap_err();
    format!("{error} | {}", error.help().unwrap_or_default())
}

#[test]
fn class_folders_become_labels_sorted_by_class_and_path() {
    let folder = Folder::new(&["sea/2.png", "sea/10.PNG", "berg/deep/er/a.png", "berg/b.png", "Ödland/日本.png"]);
    let (card, warnings) = folder.ingest(json!({})).unwrap();
    assert_eq!(card.class_names, ["berg", "sea", "Ödland"]);
    assert_eq!(card.class_counts, [2, 2, 1]);
    assert_eq!(folder.names(), ["berg/b.png", "berg/deep/er/a.png", "sea/10.PNG", "sea/2.png", "Ödland/日本.png"]);
    assert_eq!(warnings, ["class `Ödland` has only one image"]);
    let dataset = folder.open();
    assert_eq!(dataset.labels(), Some(vec![0, 0, 1, 1, 2]));
    assert_eq!(dataset.card(), &card);
    assert_eq!((dataset.image(3).width, dataset.image(3).height), (20, 10));
    assert_eq!(&dataset.image(3).rgb[3..6], &[3, 0, 40]);
    assert_eq!((card.min_size, card.max_size), ([20, 10], [24, 10]));
}

#[test]
fn a_flat_folder_is_unlabelled() {
    let folder = Folder::new(&["b.png", "a.png"]);
    let (card, _) = folder.ingest(json!({ "max_per_class": 1 })).unwrap();
    assert_eq!((folder.names(), card.class_names.len()), (vec!["a.png".to_owned()], 0));
    assert_eq!((folder.open().labels(), folder.open().label(0)), (None, None));
    assert!(message(folder.ingest(json!({ "classes": ["x"] }))).contains("has no classes"));
}

#[test]
fn a_doubled_folder_is_descended_into() {
    let folder = Folder::new(&["seg/seg/sea/1.png", "seg/seg/sea/2.png", "seg/seg/wood/1.png", "seg/seg/wood/2.png"]);
    let (card, _) = folder.ingest(json!({})).unwrap();
    assert_eq!(card.class_names, ["sea", "wood"]);
    assert_eq!(folder.names()[0], "seg/seg/sea/1.png");
    let single = Folder::new(&["sea/1.png", "sea/2.png"]);
    assert_eq!(single.ingest(json!({})).unwrap().0.class_names, ["sea"]);
}

#[test]
fn hidden_and_other_files_are_ignored() {
    let folder = Folder::new(&["a/1.png", "a/2.png", "a/.3.png", ".b/1.png", "b/1.png", "b/2.png"]);
    fs::write(folder.path("a/notes.txt"), "text").unwrap();
    fs::create_dir_all(folder.path("empty")).unwrap();
    let (card, warnings) = folder.ingest(json!({})).unwrap();
    assert_eq!((card.num_images, warnings.len()), (4, 0));
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_not_in_circles() {
    let folder = Folder::new(&["a/1.png", "a/2.png", "b/1.png", "b/2.png"]);
    std::os::unix::fs::symlink(folder.path(""), folder.path("a/up")).unwrap();
    std::os::unix::fs::symlink(folder.path("a/1.png"), folder.path("b/3.png")).unwrap();
    let (card, _) = folder.ingest(json!({})).unwrap();
    assert!(folder.names().contains(&"b/3.png".to_owned()));
    assert!(card.num_images < 20, "{:?}", folder.names());
    std::os::unix::fs::symlink("nowhere", folder.path("b/4.png")).unwrap();
    assert!(message(folder.ingest(json!({}))).contains("cannot be read"));
}

#[test]
fn images_beside_class_folders_are_left_out_with_a_warning() {
    let folder = Folder::new(&["a/1.png", "a/2.png", "stray.png"]);
    let (card, warnings) = folder.ingest(json!({})).unwrap();
    assert_eq!(card.num_images, 2);
    assert!(warnings[0].contains("stray.png"), "{warnings:?}");
}

#[test]
fn classes_select_and_order() {
    let folder = Folder::new(&["a/1.png", "a/2.png", "b/1.png", "b/2.png", "c/1.png", "c/2.png"]);
    folder.ingest(json!({ "classes": ["c", "a"], "max_per_class": 1 })).unwrap();
    assert_eq!(folder.names(), ["c/1.png", "a/1.png"]);
    assert_eq!(folder.open().labels(), Some(vec![0, 1]));
    let folder = Folder::new(&["mountain/1.png", "sea/1.png"]);
    let text = message(folder.ingest(json!({ "classes": ["mountian"] })));
    assert!(text.contains("did you mean `mountain`?"), "{text}");
    assert!(message(folder.ingest(json!({ "classes": ["sea", "sea"] }))).contains("twice"));
}

#[test]
fn a_broken_file_fails_and_names_the_way_out() {
    let folder = Folder::new(&["a/1.png", "a/3.png", "b/1.png", "b/2.png"]);
    fs::write(folder.path("a/2.png"), "not an image").unwrap();
    let text = message(folder.ingest(json!({})));
    assert!(text.contains("`a/2.png`") && text.contains("on_error: skip"), "{text}");

    let (card, warnings) = folder.ingest(json!({ "on_error": "skip" })).unwrap();
    assert_eq!((card.num_images, card.skipped.len()), (4, 1));
    assert_eq!(card.skipped[0].file, "a/2.png");
    assert!(warnings[0].starts_with("1 of 5 files was left out"), "{warnings:?}");
    assert_eq!(folder.open().len(), 4);
}

#[test]
fn too_many_pixels_name_the_key() {
    let folder = Folder::new(&["a/1.png"]);
    let text = message(folder.ingest(json!({ "max_pixels": 100 })));
    assert!(text.contains("20×10 = 200 pixels") && text.contains("raise `max_pixels`"), "{text}");
}

#[test]
fn nothing_usable_is_an_error() {
    let folder = Folder::new(&[]);
    assert!(message(folder.ingest(json!({}))).contains("does not exist"));
    fs::create_dir_all(folder.path("")).unwrap();
    assert!(message(folder.ingest(json!({}))).contains("holds no images"));
    fs::write(folder.path("only.jpg"), "").unwrap();
    assert!(message(folder.ingest(json!({ "on_error": "skip" }))).contains("none of the 1 images"));
    let file = json!({ "source": { "image_folder": "images/only.jpg" } });
    assert!(message(folder.ingest(file)).contains("is a file"));
}

#[test]
fn images_are_resized_as_asked() {
    let folder = Folder::new(&[]);
    folder.image("a/1.png", 90, 60);
    folder.image("a/2.png", 5, 9);
    folder.image("a/3.png", 1, 1);
    let sizes = |options| {
        let card = folder.ingest(options).unwrap().0;
        let dataset = folder.open();
        assert_eq!(card.num_images, 3);
        (0..3).map(|idx| (dataset.image(idx).width, dataset.image(idx).height)).collect::<Vec<_>>()
    };
    assert_eq!(sizes(json!({})), [(90, 60), (5, 9), (1, 1)]);
    assert_eq!(sizes(json!({ "resize": { "shorter_side": 20 } })), [(30, 20), (5, 9), (1, 1)]);
    assert_eq!(sizes(json!({ "resize": { "exact": { "width": 7, "height": 8 } } })), [(7, 8); 3]);
}

#[test]
fn the_artifact_is_the_same_every_time() {
    let folder = Folder::new(&["a/1.png", "a/2.png", "b/1.png"]);
    let bytes = || {
        folder.ingest(json!({ "resize": { "shorter_side": 7 } })).unwrap();
        [IMAGES_FILE, "pixels/00000.bin"].map(|name| fs::read(folder.out.path().join(name)).unwrap())
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn a_stop_is_heard() {
    let folder = Folder::new(&["a/1.png"]);
    let listener = Listener { cancel: true, ..Listener::default() };
    let result = ingest(&Folder::config(&json!({})), folder.dir.path(), folder.out.path(), None, &listener);
    assert!(matches!(result, Err(DataError::Cancelled)));
}

/// 36 images of 4.3 MB each, where 128 MiB may be held at once.
#[test]
fn more_than_fits_into_memory_at_once_is_stored_in_order() {
    let folder = Folder::new(&[]);
    for idx in 0..36_u8 {
        let image = RgbImage::from_pixel(1200, 1200, image::Rgb([idx, 1, 2]));
        fs::create_dir_all(folder.path("a")).unwrap();
        image.save(folder.path(&format!("a/{idx:02}.bmp"))).unwrap();
    }
    folder.ingest(json!({})).unwrap();
    let dataset = folder.open();
    assert_eq!(dataset.len(), 36);
    for idx in 0..36 {
        let rgb = dataset.image(idx).rgb;
        assert_eq!((dataset.name(idx), rgb.len()), (format!("a/{idx:02}.bmp").as_str(), 3 * 1200 * 1200));
        assert_eq!((&rgb[..3], &rgb[rgb.len() - 3..]), (&[idx as u8, 1, 2][..], &[idx as u8, 1, 2][..]));
    }
}

#[test]
fn cifar_batches_are_read_and_checked() {
    let folder = Folder::new(&[]);
    let archive = folder.dir.path().join("cifar/cifar-10-batches-bin");
    fs::create_dir_all(&archive).unwrap();
    let config = json!({ "source": { "cifar10": { "path": "cifar", "split": "test" } } });
    assert!(message(folder.ingest(config.clone())).contains("does not exist"));
    let mut record = vec![7_u8];
    record.extend((0..3072).map(|at| if at < 1024 { 1 } else { (at / 1024 * 100) as u8 }));
    let write = |bytes: &[u8]| fs::write(archive.join("test_batch.bin"), bytes).unwrap();
    write(&record[..3072]);
    assert!(message(folder.ingest(config.clone())).contains("3072 bytes"));
    write(&[&record[..], &record[..]].concat());
    let (card, _) = folder.ingest(config.clone()).unwrap();
    assert_eq!((card.num_images, card.class_names[7].as_str(), card.class_counts[7]), (2, "horse", 2));
    assert_eq!(&folder.open().image(1).rgb[..3], &[1, 100, 200]);
    let mut absent = config.clone();
    absent["classes"] = json!(["cat"]);
    assert!(message(folder.ingest(absent)).contains("none of the 0 images"));
    record[0] = 10;
    write(&record);
    assert!(message(folder.ingest(config)).contains("label 10"));
}

/// Ingests two images, damages a file and opens them again.
fn open_damaged(name: &str, damage: impl Fn(&mut Vec<u8>)) -> Result<Dataset, DataError> {
    let folder = Folder::new(&["ä/1.png", "ä/2.png"]);
    folder.ingest(json!({})).unwrap();
    let path = folder.out.path().join(name);
    let mut bytes = fs::read(&path).unwrap();
    damage(&mut bytes);
    fs::write(&path, bytes).unwrap();
    Dataset::open(folder.out.path())
}

#[test]
fn a_damaged_store_is_an_error() {
    const PIXELS: &str = "pixels/00000.bin";
    assert!(open_damaged(IMAGES_FILE, |_| ()).is_ok());
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, &str, Damage); 6] = [
        ("emptied", IMAGES_FILE, Vec::clear),
        ("cut", IMAGES_FILE, |bytes| bytes.truncate(300)),
        ("header length", IMAGES_FILE, |bytes| bytes[3] = 1),
        ("header text", IMAGES_FILE, |bytes| bytes[9] = b'!'),
        ("pixels cut", PIXELS, |bytes| bytes.truncate(100)),
        ("pixels longer", PIXELS, |bytes| bytes.push(0)),
    ];
    for (name, file, damage) in damages {
        let error = open_damaged(file, damage).err().unwrap_or_else(|| panic!("{name} passed"));
        assert!(matches!(error, DataError::Artifact { .. }), "{name}: {error}");
    }
    // Where a column begins, by the header.
    let start = |bytes: &[u8], name: &str| {
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
        8 + len + header[name]["data_offsets"][0].as_u64().unwrap() as usize
    };
    let damaged_columns: [(&str, usize, &[u8], &str); 14] = [
        ("labels", 0, &[9], "label 9 of 1"),
        ("labels", 8, &[0xFE; 8], "has label -"),
        ("runs", 0, &[1], "runs"),
        ("runs", 8, &[1], "runs"),
        ("runs", 8, &[9], "runs"),
        ("sizes", 12, &[0; 4], "size of 21×0"),
        ("sizes", 8, &[0xFF; 8], "size of 4294967295×4294967295"),
        ("sizes", 12, &[11], "bytes, not the"),
        ("starts", 8, &[1], "begin at"),
        ("starts", 8, &[0xFF; 8], "begin at"),
        ("name_ends", 0, &[1], "cannot end at"),
        ("name_ends", 0, &[0xFF; 8], "cannot end at"),
        ("name_ends", 8, &[12], "names do not end"),
        ("names", 2, &[0xFF], "not text"),
    ];
    for (name, behind, values, expected) in damaged_columns {
        let error = open_damaged(IMAGES_FILE, |bytes| {
            let place = start(bytes, name) + behind;
            bytes[place..place + values.len()].copy_from_slice(values);
        });
        let Err(DataError::Artifact { message, .. }) = error else { panic!("{name} {values:?}: {error:?}") };
        assert!(message.contains(expected), "{name} {values:?}: {message}");
    }
    assert!(matches!(Dataset::open(Path::new("/nowhere")), Err(DataError::Io { .. })));
}

/// `cargo test --release --lib a_million_images -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn a_million_images_are_open_in_milliseconds() {
    const NUM_IMAGES: usize = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
    let mut writer = StoreWriter::create(dir.path(), classes).unwrap().expecting(NUM_IMAGES, None);
    for idx in 0..NUM_IMAGES {
        let rgb = &idx.to_le_bytes()[..3];
        let name = format!("{}/photograph_{idx:07}.jpg", ["a", "b", "c"][idx % 3]);
        writer.push(&name, ImageRef { width: 1, height: 1, rgb }, Some(idx as u32 % 3)).unwrap();
    }
    writer.finish(vec![]).unwrap();
    let mut fastest = f64::INFINITY;
    for _ in 0..5 {
        let started = std::time::Instant::now();
        let dataset = Dataset::open(dir.path()).unwrap();
        fastest = fastest.min(started.elapsed().as_secs_f64());
        assert_eq!((dataset.len(), dataset.name(999_999)), (NUM_IMAGES, "a/photograph_0999999.jpg"));
        assert_eq!(dataset.image(65_537).rgb, [1, 0, 1]);
    }
    println!("{NUM_IMAGES} images are open after {:.1} ms", 1e3 * fastest);
}
