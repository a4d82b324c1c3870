//! Every source but folders: what it reads, and what it says of files that are not as they must be.

use std::{fs, path::PathBuf};

use image::RgbImage;
use serde_json::{Value, json};

use super::{
    DataError, Dataset, DatasetCard, IngestConfig, NoProgress,
    hostile::{idx_file as idx, npy_file as npy, tar_file as tar},
    ingest,
};

/// A project folder and a dataset made of it.
struct Source {
    dir: tempfile::TempDir,
    out: tempfile::TempDir,
}

impl Source {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), out: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path(name), bytes).unwrap();
        self
    }

    fn image(&self, name: &str, look: u8) -> &Self {
        self.write(name, png(look))
    }

    fn ingest(&self, config: &Value) -> Result<DatasetCard, DataError> {
        let config: IngestConfig = serde_json::from_value(config.clone()).unwrap();
        ingest(&config, self.dir.path(), self.out.path(), None, &NoProgress)
    }

    fn complaint(&self, config: &Value) -> String {
        let error = self.ingest(config).unwrap_err();
        format!("{error} | {}", error.help().unwrap_or_default())
    }

    fn labels(&self) -> Vec<Option<u32>> {
        let dataset = self.open();
        (0..dataset.len()).map(|idx| dataset.label(idx)).collect()
    }

    fn open(&self) -> Dataset {
        Dataset::open(self.out.path()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.open().names().map(str::to_owned).collect()
    }
}

fn png(look: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(vec![]);
    RgbImage::from_pixel(8, 6, image::Rgb([look, 2, 3])).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[test]
fn a_table_names_files_labels_and_splits() {
    let source = Source::new();
    source.image("photos/a.png", 1).image("photos/ß/b c.png", 2).image("photos/d.png", 3);
    source.write("t.csv", "split, path ,label\ntrain,a.png,sea\ntest,d.png,wood\ntrain,\"ß/b c.png\",berg\n");
    let config = |path: &str| json!({ "source": { "manifest": { "path": path, "images": "photos" } } });
    let card = source.ingest(&config("t.csv")).unwrap();
    assert_eq!(card.class_names, ["berg", "sea", "wood"]);
    assert_eq!(source.names(), ["a.png", "d.png", "ß/b c.png"]);
    assert_eq!(source.labels(), [Some(1), Some(2), Some(0)]);
    assert_eq!(source.open().image(1).rgb[0], 3);

    let mut train = config("t.csv");
    train["source"]["manifest"]["split"] = json!("train");
    assert_eq!(source.ingest(&train).unwrap().class_names, ["berg", "sea"]);
    train["source"]["manifest"]["split"] = json!("val");
    assert!(source.complaint(&train).contains("no rows of split `val`"));
    train["source"]["manifest"]["split_column"] = json!("fold");
    assert!(source.complaint(&train).contains("no column `fold` | its columns are `split`, `path`, `label`"));

    let lines =
        "{\"path\": \"d.png\", \"label\": 10}\n\n{\"path\": \"a.png\", \"label\": 9}\n{\"path\": \"ß/b c.png\"}\n";
    source.write("t.jsonl", lines).write("t.tsv", "path\tx\na.png\t1\n");
    let card = source.ingest(&config("t.jsonl")).unwrap();
    assert_eq!(card.class_names, ["9", "10"]);
    assert_eq!(source.labels(), [Some(1), Some(0), None]);
    assert_eq!(source.ingest(&config("t.tsv")).unwrap().class_names.len(), 0);
}

#[test]
fn a_wrong_table_is_told_its_row() {
    let source = Source::new();
    source.image("photos/a.png", 1);
    let complaint = |name: &str, text: &str| {
        source.write(name, text);
        source.complaint(&json!({ "source": { "manifest": { "path": name, "images": "photos" } } }))
    };
    assert!(complaint("t.txt", "a.png").contains("no table that is known"));
    assert!(complaint("t.csv", "").contains("no column `path`"));
    assert!(complaint("t.csv", "path,label\n").contains("has no rows"));
    assert!(complaint("t.csv", "path,label\na.png,x\na.png,y\n").starts_with("row 2 of"));
    assert!(complaint("t.csv", "path,label\n../a.png,x\n").contains("no path below the folder"));
    assert!(complaint("t.csv", "path,label\n/a.png,x\n").contains("no path below the folder"));
    assert!(complaint("t.csv", "path,label\na.png,x,z\n").starts_with("row 1 of"));
    assert!(complaint("t.jsonl", "{\"path\": \"a.png\"}\n{\"path\": 1.5}\n").starts_with("row 2 of"));
    assert!(complaint("t.jsonl", "{\"path\"\n").starts_with("row 1 of"));
    assert!(complaint("t.jsonl", "{\"file\": \"a.png\"}\n").contains("it has no `path`"));
    assert!(complaint("t.csv", "path\nb.png\n").contains("`b.png` in `photos` cannot be used: it cannot be read"));
    let absent = json!({ "source": { "manifest": { "path": "no.csv", "images": "photos" } } });
    assert!(source.complaint(&absent).contains("does not exist | correct `source.manifest.path`"));
}

#[test]
fn a_flat_folder_has_no_labels_whatever_its_folders() {
    let source = Source::new();
    source.image("in/b/1.png", 1).image("in/a/x/2.png", 2).image("in/3.png", 3);
    let card = source.ingest(&json!({ "source": { "flat_folder": "in" } })).unwrap();
    assert_eq!(
        (source.names(), card.class_names.len()),
        (vec!["3.png".into(), "a/x/2.png".into(), "b/1.png".into()], 0)
    );
    fs::create_dir(source.path("empty")).unwrap();
    assert!(source.complaint(&json!({ "source": { "flat_folder": "empty" } })).contains("holds no images"));
}

#[test]
fn cifar_100_has_two_labels() {
    let source = Source::new();
    let mut record = vec![4_u8, 99];
    record.extend((0..3072).map(|at| (at / 1024 * 100) as u8));
    source.write("c/cifar-100-binary/train.bin", [&record[..], &record[..]].concat());
    let config =
        |labels: &str| json!({ "source": { "cifar100": { "path": "c", "split": "train", "labels": labels } } });
    let card = source.ingest(&config("fine")).unwrap();
    assert_eq!((card.num_images, card.class_names.len(), card.class_counts[99]), (2, 100, 2));
    assert_eq!(card.class_names[99], "worm");
    assert_eq!(&source.open().image(1).rgb[..3], &[0, 100, 200]);
    let card = source.ingest(&config("coarse")).unwrap();
    assert_eq!((card.class_names[4].as_str(), card.class_counts[4]), ("fruit_and_vegetables", 2));
    record[1] = 100;
    source.write("c/cifar-100-binary/train.bin", &record);
    assert!(source.complaint(&config("fine")).contains("record 0"));
    source.write("c/cifar-100-binary/train.bin", &record[..3000]);
    assert!(source.complaint(&config("fine")).contains("records of 3074 bytes"));
    assert!(
        source.complaint(&json!({ "source": { "cifar100": { "path": "c", "split": "test" } } })).contains("`test.bin`")
    );
}

#[test]
fn arrays_of_grey_and_of_colours_are_read() {
    let source = Source::new();
    let values: Vec<u8> = (0..36).collect();
    source.write("l.idx", idx(8, &[3], &[7, 0, 7])).write("i.idx", idx(8, &[3, 2, 6], &values));
    let card = source.ingest(&json!({ "source": { "idx": { "images": "i.idx", "labels": "l.idx" } } })).unwrap();
    assert_eq!(
        (card.class_names, source.names()),
        (vec!["0".into(), "7".into()], vec!["0".into(), "1".into(), "2".into()])
    );
    assert_eq!(source.labels(), [Some(1), Some(0), Some(1)]);
    let dataset = source.open();
    assert_eq!(
        (dataset.image(1).width, dataset.image(1).height, &dataset.image(1).rgb[..4]),
        (6, 2, &[12, 12, 12, 13][..])
    );

    let labels: Vec<u8> = [-1_i16, 5].iter().flat_map(|label| label.to_be_bytes()).collect();
    source.write("l.npy", npy(">i2", "(2,)", &labels));
    for (shape, width, expected) in [("(2, 2, 3, 3)", 3, [18, 19, 20, 21]), ("(2, 3, 3, 2)", 2, [18, 24, 30, 19])] {
        source.write("i.npy", npy("|u1", shape, &values));
        let card = source.ingest(&json!({ "source": { "npy": { "images": "i.npy", "labels": "l.npy" } } })).unwrap();
        assert_eq!(card.class_names, ["-1", "5"]);
        let dataset = source.open();
        assert_eq!((dataset.image(1).width, &dataset.image(1).rgb[..4]), (width, &expected[..]), "{shape}");
    }
    for shape in ["(2, 3, 2, 3)", "(4, 1, 3, 3)", "(4, 3, 3, 1)"] {
        source.write("i.npy", npy("|u1", shape, &values));
        let complaint = source.complaint(&json!({ "source": { "npy": { "images": "i.npy" } } }));
        assert!(complaint.contains("may both be the channels"), "{shape}: {complaint}");
    }
    source.write("i.npy", npy("|u1", "(4, 1, 9, 1)", &values));
    assert_eq!(source.ingest(&json!({ "source": { "npy": { "images": "i.npy" } } })).unwrap().num_images, 4);
    source.write("i.npy", npy("|u1", "(4, 3, 3)", &values));
    assert_eq!(source.ingest(&json!({ "source": { "npy": { "images": "i.npy" } } })).unwrap().num_images, 4);
}

#[test]
fn wrong_arrays_say_what_is_wrong() {
    let source = Source::new();
    let right = idx(8, &[1, 2, 2], &[1, 2, 3, 4]);
    let with_labels = json!({ "source": { "idx": { "images": "i", "labels": "l" } } });
    let complaint = |bytes: &[u8]| {
        source.write("i", bytes).write("l", idx(8, &[2], &[0, 1]));
        source.complaint(&with_labels)
    };
    assert!(complaint(&right).contains("2 labels for the 1 images"));
    assert!(complaint(&right[..right.len() - 1]).contains("does not fit its 19 bytes"));
    assert!(complaint(&right[..6]).contains("cut off"));
    assert!(complaint(b"").contains("cut off"));
    assert!(complaint(b"\x1f\x8b\x08\x00\x00\x00").contains("compressed with gzip | unpack"));
    assert!(complaint(b"\x00\x00\x0d\x03\x00\x00").contains("not whole numbers"));
    assert!(complaint(&idx(8, &[1, 0, 2], &[])).contains("its shape is [1, 0, 2]"));
    assert!(complaint(&idx(8, &[4], &[1, 2, 3, 4])).contains("its shape is [4]"));
    assert!(complaint(&idx(8, &[u32::MAX; 4], &[])).contains("does not fit"));
    assert!(complaint(&idx(12, &[1, 1, 1], &[0; 4])).contains("not bytes"));

    let complaint = |bytes: &[u8]| {
        source.write("i", bytes);
        source.complaint(&json!({ "source": { "npy": { "images": "i" } } }))
    };
    assert!(complaint(&npy("<f4", "(1, 1, 1)", &[0; 4])).contains("`<f4`"));
    assert!(complaint(b"PK\x03\x04\x00\x00\x00\x00").contains("`.npz`"));
    assert!(complaint(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").contains("claims 4294967295 bytes"));
    assert!(complaint(b"just some text").contains("no `.npy` file"));
    let large = npy("|u1", "(1, 200, 400)", &vec![9; 80_000]);
    source.write("i", large);
    let limited = json!({ "source": { "npy": { "images": "i" } }, "max_pixels": 50_000 });
    assert!(source.complaint(&limited).contains("400×200 = 80000 pixels"));
}

#[test]
fn archives_are_read_sample_by_sample() {
    let source = Source::new();
    let (a, b, c) = (png(1), png(2), png(3));
    let long = format!("{}/c.png", "deep/".repeat(30));
    source.write("shards/1.tar", tar(&[("./a.png", &a), ("a.cls", b"10\n"), ("b.cls", b"9"), ("b.png", &b)]));
    source.write("shards/0.tar", tar(&[(&long, &c), (&long.replace(".png", ".cls"), b"9"), ("._x.png", b"")]));
    source.write("shards/notes.txt", "");
    let card = source.ingest(&json!({ "source": { "tar_shards": { "path": "shards" } } })).unwrap();
    assert_eq!(card.class_names, ["9", "10"]);
    assert_eq!(source.names(), [format!("0.tar/{long}"), "1.tar/a.png".into(), "1.tar/b.png".into()]);
    assert_eq!(source.labels(), [Some(0), Some(1), Some(0)]);
    assert_eq!(source.open().image(2).rgb[0], 2);

    let one = |label: Value| json!({ "source": { "tar_shards": { "path": "one.tar", "label": label } } });
    source.write("one.tar", tar(&[("sea/a.png", &a), ("sea/a.json", b"{\"class\": \"wave\", \"x\": 1.5}")]));
    assert_eq!(source.ingest(&one(json!({ "json": "class" }))).unwrap().class_names, ["wave"]);
    assert_eq!(source.ingest(&one(json!("folder"))).unwrap().class_names, ["sea"]);
    assert_eq!(source.ingest(&one(json!("none"))).unwrap().class_names.len(), 0);
    assert!(source.complaint(&one(json!("cls"))).contains("no `sea/a.cls` beside it | set `label`"));
    assert!(source.complaint(&one(json!({ "json": "x" }))).contains("no word or whole number under `x`"));
}

#[test]
fn wrong_archives_say_what_is_wrong() {
    let source = Source::new();
    let whole = tar(&[("a.png", &png(1)), ("a.cls", b"1"), ("b.png", &vec![7; 5000])]);
    let complaint = |bytes: &[u8]| {
        source.write("a.tar", bytes);
        source.complaint(&json!({ "source": { "tar_shards": { "path": "a.tar" } } }))
    };
    assert!(complaint(&whole[..3000]).contains("in the middle of a file"));
    assert!(complaint(b"").contains("hold no images"));
    assert!(complaint(&[b'x'; 2000]).contains("cannot be read as a tar archive"));
    assert!(complaint(b"\x1f\x8b\x08 and so on").contains("compressed with gzip | unpack"));
    assert!(complaint(&tar(&[("a.txt", b"1")])).contains("hold no images"));
    fs::create_dir(source.path("none")).unwrap();
    let none = json!({ "source": { "tar_shards": { "path": "none" } } });
    assert!(source.complaint(&none).contains("holds no `.tar` files"));
}

#[test]
fn a_source_is_divided_by_a_list_or_by_a_share() {
    let source = Source::new();
    for idx in 0..10 {
        source.image(&format!("in/{}/{idx}.png", ["a", "b"][idx % 2]), idx as u8);
    }
    let config = |subset: Value| json!({ "source": { "image_folder": "in" }, "subset": subset });
    source.write("list.txt", "a/4.png\r\n\n./b/1.png\n");
    let listed = config(json!({ "file_list": { "path": "list.txt" } }));
    source.ingest(&listed).unwrap();
    assert_eq!(source.names(), ["a/4.png", "b/1.png"]);
    let others = config(json!({ "file_list": { "path": "list.txt", "keep": "others" } }));
    assert_eq!(source.ingest(&others).unwrap().num_images, 8);
    source.write("list.txt", "a/4.png\na/99.png\n");
    assert!(
        source.complaint(&listed).contains("first `a/99.png` | names are relative to the source, such as `a/0.png`")
    );
    source.write("list.txt", b"\xff\xfe");
    assert!(source.complaint(&listed).contains("not UTF-8"));

    let part = |part: &str| config(json!({ "fraction": { "part": part, "test_fraction": 0.2 } }));
    let part_of = |name: &str| (source.ingest(&part(name)).unwrap().class_counts, source.names());
    let ((test, test_names), (train, train_names)) = (part_of("test"), part_of("train"));
    assert_eq!((test, train), (vec![1, 1], vec![4, 4]));
    assert!(test_names.iter().all(|name| !train_names.contains(name)));
}

#[test]
fn equal_images_are_dropped_where_that_is_asked_for() {
    let source = Source::new();
    source.image("in/a/1.png", 1).image("in/a/2.png", 1).image("in/b/3.png", 1).image("in/b/4.png", 4);
    let mut config = json!({ "source": { "image_folder": "in" } });
    assert_eq!(source.ingest(&config).unwrap().num_images, 4);
    config["duplicates"] = json!("drop");
    let card = source.ingest(&config).unwrap();
    assert_eq!(source.names(), ["a/1.png", "b/4.png"]);
    let reasons: Vec<_> = card.skipped.iter().map(|skipped| (skipped.file.as_str(), skipped.reason.as_str())).collect();
    let reason = "it has the same pixels as `a/1.png`";
    assert_eq!(reasons, [("a/2.png", reason), ("b/3.png", reason)]);
}

#[test]
fn transparency_lies_over_the_colour_that_is_asked_for() {
    let source = Source::new();
    let clear = image::RgbaImage::from_fn(2, 1, |x, _| image::Rgba([10, 20, 30, if x == 0 { 0 } else { 255 }]));
    clear.save(source.path("in/a.png")).unwrap();
    source.ingest(&json!({ "source": { "image_folder": "in" }, "background": [1, 2, 3] })).unwrap();
    assert_eq!(source.open().image(0).rgb, [1, 2, 3, 10, 20, 30]);
}
