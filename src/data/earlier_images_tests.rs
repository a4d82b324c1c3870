//! Ingesting what was edited gives the bytes of ingesting everything.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Mutex,
};

use proptest::{prelude::*, sample::Index};

use super::{
    Dataset, EarlierImages, IngestConfig, NoProgress, Progress, ingest,
    runs::PIXELS_DIR,
    store_writer::{CARD_FILE, IMAGES_FILE},
};

const CLASSES: [&str; 4] = ["berg", "forest", "sea", "street"];

/// Something that happens to a folder of images.
#[derive(Clone, Debug)]
enum Edit {
    Add { class: usize, name: u8, look: u8 },
    Break { file: Index },
    Change { file: Index, look: u8 },
    Copy { file: Index, class: usize, name: u8 },
    Move { file: Index, class: usize, name: u8 },
    Remove { file: Index },
    RemoveClass { class: usize },
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let (class, name, look, file) = (|| 0..CLASSES.len(), || 0..12_u8, any::<u8>, any::<Index>);
    let edit = prop_oneof![
        4 => (class(), name(), look()).prop_map(|(class, name, look)| Edit::Add { class, name, look }),
        1 => file().prop_map(|file| Edit::Break { file }),
        2 => (file(), look()).prop_map(|(file, look)| Edit::Change { file, look }),
        1 => (file(), class(), name()).prop_map(|(file, class, name)| Edit::Copy { file, class, name }),
        2 => (file(), class(), name()).prop_map(|(file, class, name)| Edit::Move { file, class, name }),
        2 => file().prop_map(|file| Edit::Remove { file }),
        1 => class().prop_map(|class| Edit::RemoveClass { class }),
    ];
    prop::collection::vec(edit, 1..8)
}

/// Contents of the files of a folder by name.
type Files = BTreeMap<String, Vec<u8>>;

fn apply(files: &mut Files, edit: &Edit) {
    let names: Vec<String> = files.keys().cloned().collect();
    let pick = |file: &Index| (!names.is_empty()).then(|| file.get(&names).clone());
    let path = |class: usize, name: u8| format!("{}/{name}.png", CLASSES[class]);
    match edit {
        Edit::Add { class, name, look } => {
            files.insert(path(*class, *name), picture(*look));
        }
        Edit::Break { file } => {
            if let Some(bytes) = pick(file).and_then(|name| files.get_mut(&name)) {
                bytes.truncate(bytes.len() / 2);
            }
        }
        Edit::Change { file, look } => {
            if let Some(name) = pick(file) {
                files.insert(name, picture(*look));
            }
        }
        Edit::Copy { file, class, name } => {
            if let Some(bytes) = pick(file).map(|name| files[&name].clone()) {
                files.insert(path(*class, *name), bytes);
            }
        }
        Edit::Move { file, class, name } => {
            if let Some(bytes) = pick(file).and_then(|name| files.remove(&name)) {
                files.insert(path(*class, *name), bytes);
            }
        }
        Edit::Remove { file } => {
            pick(file).map(|name| files.remove(&name));
        }
        Edit::RemoveClass { class } => files.retain(|name, _| !name.starts_with(CLASSES[*class])),
    }
}

fn picture(look: u8) -> Vec<u8> {
    let (width, height) = (5 + u32::from(look % 7), 4 + u32::from(look / 40));
    let image = image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x as u8).wrapping_mul(look), (y as u8).wrapping_mul(31), look])
    });
    let mut bytes = std::io::Cursor::new(vec![]);
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn start() -> Files {
    CLASSES[..3].iter().flat_map(|class| (0..4).map(move |idx| (format!("{class}/{idx}.png"), picture(idx)))).collect()
}

fn write(root: &Path, files: &Files) {
    let _ = fs::remove_dir_all(root);
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn config(options: &serde_json::Value) -> IngestConfig {
    let mut value = serde_json::json!({
        "source": { "image_folder": "images" }, "resize": { "shorter_side": 6 }, "on_error": "skip"
    });
    for (key, option) in options.as_object().unwrap() {
        value[key] = option.clone();
    }
    serde_json::from_value(value).unwrap()
}

/// What lies in an artifact, or the error instead of it.
fn outcome(
    config: &IngestConfig,
    root: &Path,
    earlier: Option<&EarlierImages>,
    progress: &dyn Progress,
) -> Result<Vec<(PathBuf, Vec<u8>)>, String> {
    let out = tempfile::tempdir().unwrap();
    ingest(config, root, out.path(), earlier, progress).map_err(|error| error.to_string())?;
    Dataset::open(out.path()).unwrap();
    Ok(files_of(out.path()))
}

/// Every file of an artifact.
fn files_of(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let pixels = fs::read_dir(dir.join(PIXELS_DIR)).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = pixels.chain([IMAGES_FILE, CARD_FILE].map(|name| dir.join(name))).collect();
    paths.sort();
    let read = |path: PathBuf| (path.strip_prefix(dir).unwrap().to_path_buf(), fs::read(&path).unwrap());
    paths.into_iter().map(read).collect()
}

#[derive(Default)]
struct Listener(Mutex<Vec<String>>);

impl Progress for Listener {
    fn images(&self, _done: u64, _total: u64) {}
    fn info(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
    fn warn(&self, _message: &str) {}
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// An artifact of the folder as it is.
fn earlier_of(root: &Path, files: &Files) -> tempfile::TempDir {
    write(&root.join("images"), files);
    let dir = tempfile::tempdir().unwrap();
    ingest(&config(&serde_json::json!({})), root, dir.path(), None, &NoProgress).unwrap();
    dir
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn edited_folders_give_the_bytes_of_a_full_run(
        edits in edits(),
        options in prop_oneof![
            Just(serde_json::json!({})),
            Just(serde_json::json!({ "max_per_class": 3 })),
            Just(serde_json::json!({ "classes": ["sea", "berg"] })),
            Just(serde_json::json!({ "on_error": "fail" })),
        ],
    ) {
        let root = tempfile::tempdir().unwrap();
        let then = start();
        let artifact = earlier_of(root.path(), &then);
        let mut now = then.clone();
        for edit in &edits {
            apply(&mut now, edit);
        }
        write(&root.path().join("images"), &now);
        let dataset = Dataset::open(artifact.path()).unwrap();
        let earlier = EarlierImages::find(dataset, &then, &now);
        let config = config(&options);
        let full = outcome(&config, root.path(), None, &NoProgress);
        prop_assert_eq!(outcome(&config, root.path(), Some(&earlier), &NoProgress), full);
    }
}

#[test]
fn only_what_is_new_is_read() {
    let root = tempfile::tempdir().unwrap();
    let then = start();
    let artifact = earlier_of(root.path(), &then);
    let mut now = then.clone();
    let moved = now.remove("sea/1.png").unwrap();
    now.insert("street/7.png".into(), moved);
    now.insert("street/8.png".into(), picture(200));
    write(&root.path().join("images"), &now);
    let earlier = EarlierImages::find(Dataset::open(artifact.path()).unwrap(), &then, &now);
    // A file that is not opened may be unreadable.
    fs::write(root.path().join("images/berg/0.png"), "not read").unwrap();
    let listener = Listener::default();
    outcome(&config(&serde_json::json!({ "on_error": "fail" })), root.path(), Some(&earlier), &listener).unwrap();
    assert_eq!(*listener.0.lock().unwrap(), ["12 of 13 images are as before, 1 new"]);
}

/// Classes of many pictures, so that there are many runs.
fn many() -> Files {
    (0..240_u32)
        .map(|idx| {
            let class = CLASSES[idx as usize % 3];
            let image =
                image::RgbImage::from_fn(6, 6, |x, y| image::Rgb([(idx * 7 + x) as u8, (idx + y * 3) as u8, 9]));
            let mut bytes = std::io::Cursor::new(vec![]);
            image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
            (format!("{class}/{idx:03}.png"), bytes.into_inner())
        })
        .collect()
}

#[test]
fn runs_without_a_change_are_second_names_of_the_earlier_files() {
    let root = tempfile::tempdir().unwrap();
    let then = many();
    let artifact = earlier_of(root.path(), &then);
    let mut now = then.clone();
    now.remove("berg/003.png");
    now.insert("sea/1000.png".into(), picture(7));
    write(&root.path().join("images"), &now);
    let earlier = EarlierImages::find(Dataset::open(artifact.path()).unwrap(), &then, &now);
    let out = tempfile::tempdir().unwrap();
    ingest(&config(&serde_json::json!({})), root.path(), out.path(), Some(&earlier), &NoProgress).unwrap();
    assert_eq!(files_of(out.path()), outcome(&config(&serde_json::json!({})), root.path(), None, &NoProgress).unwrap());
    let runs: Vec<u64> = fs::read_dir(out.path().join(PIXELS_DIR))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().nlink())
        .collect();
    let shared = runs.iter().filter(|names| **names == 2).count();
    assert!(runs.len() >= 8 && shared + 4 >= runs.len(), "{shared} of {} runs are shared", runs.len());
    // A dataset in the place of another one does not write into what that shares.
    let before = files_of(artifact.path());
    write(&root.path().join("images"), &start());
    ingest(&config(&serde_json::json!({})), root.path(), out.path(), None, &NoProgress).unwrap();
    assert_eq!(files_of(artifact.path()), before);
}

#[test]
fn a_damaged_image_beside_a_new_one_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let then = many();
    let artifact = earlier_of(root.path(), &then);
    let first = artifact.path().join(PIXELS_DIR).join("00000.bin");
    let mut bytes = fs::read(&first).unwrap();
    bytes[10] ^= 64;
    fs::write(&first, bytes).unwrap();
    let mut now = then.clone();
    now.insert("berg/000a.png".into(), picture(9));
    write(&root.path().join("images"), &now);
    let earlier = EarlierImages::find(Dataset::open(artifact.path()).unwrap(), &then, &now);
    let listener = Listener::default();
    let config = config(&serde_json::json!({}));
    let after = outcome(&config, root.path(), Some(&earlier), &listener);
    assert_eq!(after, outcome(&config, root.path(), None, &NoProgress));
    assert_eq!(*listener.0.lock().unwrap(), ["the earlier dataset is damaged: every image is read again"]);
}
