//! What `extract` leaves, alone and after an earlier table.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path, sync::Mutex};

use proptest::prelude::*;
use safetensors::{Dtype, tensor::TensorView};

use super::{
    InputArtifact, SilentReporter, StageContext, StageError, StageOutcome, StageReporter,
    earlier::{Earlier, StoredFolder},
    extract::execute,
    fit,
};
use crate::{
    augment::{AugmentConfig, ImageRef, Policy},
    data::store_writer::StoreWriter,
    digest::Digest,
    eval::{
        EvalError, ExtractConfig,
        embeddings::{BACKBONE_FILE, Embeddings, PRETRAINED, tests::encoder_card},
        eval_config::KnnConfig,
        frozen_network::FrozenNetwork,
        model_artifact::load_encoder_card,
    },
    model::backbone::{Backbone, BackboneConfig, StateData, backbone_config::DarknetTinyConfig},
    train::EncoderCard,
};

const BACKBONE: BackboneConfig = BackboneConfig::DarknetTiny(DarknetTinyConfig {});

pub(crate) const SEED: u64 = 5;

/// Stripes of a colour and a direction that depend on the class.
pub(crate) fn picture(class: u32, idx: u32) -> (u32, u32, Vec<u8>) {
    let (width, height) = (36 + idx % 5, 33 + idx % 7);
    let mut rgb = vec![];
    for y in 0..height {
        for x in 0..width {
            let along = [x, y, x + y][class as usize % 3] + idx;
            let level = if along % 6 < 3 { 220 } else { 40 + (idx * 7 % 30) as u8 };
            rgb.extend([0, 1, 2].map(|channel| if channel == class % 3 { level } else { level / 2 }));
        }
    }
    (width, height, rgb)
}

pub(crate) fn save_dataset(dir: &Path, classes: &[&str], per_class: u32, first: u32) {
    let names = classes.iter().map(|name| (*name).to_owned()).collect();
    let mut writer = StoreWriter::create(dir, names).unwrap();
    for (label, class) in (0..).zip(classes) {
        // What an image shows goes by the name, not by the index.
        let shown = u32::from(class.as_bytes()[0]);
        for idx in first..first + per_class {
            let (width, height, rgb) = picture(shown, idx);
            let image = ImageRef::new(width, height, &rgb).unwrap();
            writer.push(&format!("{class}/{idx}.png"), image, Some(label)).unwrap();
        }
    }
    writer.finish(vec![]).unwrap();
}

pub(crate) fn save_encoder(dir: &Path) -> EncoderCard {
    let backbone = Backbone::build(&BACKBONE, 99).unwrap();
    let mut card = encoder_card(backbone.feature_dim() as u32);
    card.backbone = BACKBONE;
    let state = backbone.state_dict();
    let views = state.iter().map(|entry| {
        let (dtype, bytes): (Dtype, &[u8]) = match &entry.data {
            StateData::F32(values) => (Dtype::F32, bytemuck::cast_slice(values)),
            StateData::I64(values) => (Dtype::I64, bytemuck::cast_slice(values)),
        };
        (entry.name.as_str(), TensorView::new(dtype, entry.shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &dir.join("encoder.safetensors")).unwrap();
    std::fs::write(dir.join("encoder.json"), serde_json::to_string(&card).unwrap()).unwrap();
    card
}

pub(crate) struct Inputs(pub(crate) BTreeMap<String, Vec<InputArtifact>>);

impl Inputs {
    pub(crate) fn new(dirs: &[(&str, &Path)]) -> Self {
        let artifact = |dir: &Path| InputArtifact { stage: "s".into(), digest: Digest::of(b"s"), dir: dir.to_owned() };
        Self(dirs.iter().map(|(name, dir)| ((*name).to_owned(), vec![artifact(dir)])).collect())
    }

    pub(crate) fn context<'a>(&'a self, out: &'a Path, reporter: &'a dyn StageReporter) -> StageContext<'a> {
        StageContext {
            pipeline: "p",
            stage: "s",
            inputs: &self.0,
            out_dir: out,
            work_dir: out,
            project_root: out,
            seed: SEED,
            earlier: None,
            compute: &crate::compute::Compute::Cpu,
            reporter,
        }
    }
}

struct Fixture {
    root: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["encoder", "train", "test", "out", "again"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        save_encoder(&root.path().join("encoder"));
        save_dataset(&root.path().join("train"), &["a", "b", "c"], 6, 0);
        save_dataset(&root.path().join("test"), &["c", "a", "b"], 3, 6);
        Self { root }
    }

    fn dir(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join(name)
    }

    fn extract(&self, out: &str, names: &[&str], reporter: &dyn StageReporter) -> Result<StageOutcome, StageError> {
        self.extract_after(None, out, names, reporter)
    }

    fn extract_after(
        &self,
        earlier: Option<&Earlier>,
        out: &str,
        names: &[&str],
        reporter: &dyn StageReporter,
    ) -> Result<StageOutcome, StageError> {
        let dirs: Vec<_> = names.iter().map(|name| (*name, self.dir(name))).collect();
        let dirs: Vec<(&str, &Path)> = dirs.iter().map(|(name, dir)| (*name, dir.as_path())).collect();
        let (inputs, out) = (Inputs::new(&dirs), self.dir(out));
        let config = ExtractConfig { raw_pixels_size: 4, ..ExtractConfig::default() };
        let ctx = StageContext { earlier, ..inputs.context(&out, reporter) };
        execute(&config, &ctx)
    }
}

#[test]
fn embeddings_are_what_the_network_makes_of_each_image() {
    let fixture = Fixture::new();
    let outcome = fixture.extract("out", &["encoder", "train", "test"], &SilentReporter).unwrap();
    assert!(outcome.metrics["embeddings/effective_rank"] >= 1.0);
    let embeddings = Embeddings::open(&fixture.dir("out")).unwrap();
    let card = embeddings.card();
    assert_eq!((card.feature_dim, card.num_train_classes, card.class_names.len()), (128, 3, 3));
    assert_eq!(card.test_file_names.as_ref().unwrap()[0], "c/6.png");
    // Labels of both splits go by the training images' list of classes.
    assert_eq!(embeddings.labels().unwrap().test.unwrap(), [2, 2, 2, 0, 0, 0, 1, 1, 1]);

    let pretrained = embeddings.representation(PRETRAINED).unwrap().unwrap();
    let untrained = embeddings.representation("untrained").unwrap().unwrap();
    assert_eq!((pretrained.train.len(), pretrained.test.as_ref().unwrap().len()), (18 * 128, 9 * 128));
    assert_ne!(pretrained.train, untrained.train);
    // Image by image, by hand.
    let encoder = &card.encoder;
    let weights = fixture.dir("out").join(BACKBONE_FILE);
    let network = FrozenNetwork::load(&weights, &encoder.backbone, &encoder.preprocessing).unwrap();
    let (width, height, rgb) = picture(u32::from(b'a'), 7);
    let alone = network.embed(1, |_| ImageRef { width, height, rgb: &rgb }, |_| ControlFlow::Continue(()));
    let row = &pretrained.test.unwrap()[4 * 128..5 * 128];
    for (alone, row) in alone.unwrap().unwrap().iter().zip(row) {
        assert!((alone - row).abs() <= 1e-4 * row.abs().max(1.0), "{alone} is not {row}");
    }
    let pixels = embeddings.representation("raw_pixels").unwrap().unwrap();
    assert_eq!((pixels.dim, pixels.train.len()), (48, 18 * 48));
    assert!(pixels.train.iter().all(|pixel| (0.0..=1.0).contains(pixel)));
}

#[test]
fn same_inputs_give_the_same_bytes() {
    let fixture = Fixture::new();
    for out in ["out", "again"] {
        let threads = if out == "out" { 1 } else { 3 };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fixture.extract(out, &["encoder", "train", "test"], &SilentReporter)).unwrap();
    }
    for entry in std::fs::read_dir(fixture.dir("out")).unwrap() {
        let name = entry.unwrap().file_name();
        let read = |out: &str| std::fs::read(fixture.dir(out).join(&name)).unwrap();
        assert_eq!(read("out"), read("again"), "{name:?}");
    }
}

#[test]
fn without_test_images_fit_says_what_is_missing() {
    let fixture = Fixture::new();
    fixture.extract("out", &["encoder", "train"], &SilentReporter).unwrap();
    let out = fixture.dir("out");
    let inputs = Inputs::new(&[("embeddings", out.as_path())]);
    let config = crate::eval::FitConfig::Knn(KnnConfig::default());
    let error = fit::execute(&config, &inputs.context(&fixture.dir("again"), &SilentReporter)).unwrap_err();
    assert_eq!(error.to_string(), "the embeddings hold no test images");
}

#[test]
fn weights_of_another_network_are_refused() {
    let fixture = Fixture::new();
    let mut card = load_encoder_card(&fixture.dir("encoder")).unwrap();
    card.backbone = BackboneConfig::Resnet18(crate::model::backbone::ResnetConfig::default());
    std::fs::write(fixture.dir("encoder").join("encoder.json"), serde_json::to_string(&card).unwrap()).unwrap();
    let error = fixture.extract("out", &["encoder", "train"], &SilentReporter).unwrap_err();
    assert!(matches!(&error, StageError::Artifact { path, .. } if path.ends_with("encoder.safetensors")), "{error}");
}

#[test]
fn diverged_weights_are_not_embedded() {
    let network = EvalError::NotFinite { what: "the table of embeddings".into(), row: 0, column: 0 };
    assert!(StageError::from(network).help().unwrap().contains("diverged"));
}

#[test]
fn stops_on_request() {
    struct Stop;
    impl StageReporter for Stop {
        fn progress(&self, _: u64, _: u64, _: &str, _: &str) {}
        fn warn(&self, _: &str) {}
        fn info(&self, _: &str) {}
        fn metric(&self, _: &str, _: u64, _: f64) {}
        fn is_cancelled(&self) -> bool {
            true
        }
    }
    let fixture = Fixture::new();
    let result = fixture.extract("out", &["encoder", "train"], &Stop);
    assert!(matches!(result, Err(StageError::Cancelled)), "{result:?}");
}

/// Images of a dataset: class and number of each.
type Images = Vec<(u32, u32)>;

const CLASSES: [&str; 3] = ["a", "b", "c"];

fn save_images(dir: &Path, images: &Images) {
    std::fs::create_dir_all(dir).unwrap();
    let mut writer = StoreWriter::create(dir, CLASSES.map(str::to_owned).to_vec()).unwrap();
    for (at, &(class, idx)) in images.iter().enumerate() {
        let (width, height, rgb) = picture(class, idx);
        let image = ImageRef::new(width, height, &rgb).unwrap();
        // Names say nothing: an image is known by its pixels.
        writer.push(&format!("{at}.png"), image, Some(class)).unwrap();
    }
    writer.finish(vec![]).unwrap();
}

fn stored(dir: &Path) -> StoredFolder {
    let files = crate::fs::tree::entries_below(dir).unwrap().into_iter().map(|name| {
        let digest = Digest::of(&std::fs::read(dir.join(&name)).unwrap());
        (name.into_os_string().into_string().unwrap(), digest)
    });
    StoredFolder { dir: dir.to_owned(), files: files.collect() }
}

/// Hears how many images were embedded, and what was said.
#[derive(Default)]
struct Listener {
    embedded: Mutex<BTreeMap<String, u64>>,
    said: Mutex<Vec<String>>,
}

impl StageReporter for Listener {
    fn progress(&self, _: u64, total: u64, _: &str, name: &str) {
        self.embedded.lock().unwrap().insert(name.to_owned(), total);
    }
    fn warn(&self, _: &str) {}
    fn info(&self, message: &str) {
        self.said.lock().unwrap().push(message.to_owned());
    }
    fn metric(&self, _: &str, _: u64, _: f64) {}
    fn is_cancelled(&self) -> bool {
        false
    }
}

impl Fixture {
    /// The artifact in `out` with those that it was made from.
    fn earlier(&self, names: &[&str]) -> Earlier {
        let inputs = names.iter().map(|name| ((*name).to_owned(), vec![stored(&self.dir(name))])).collect();
        Earlier { artifact: stored(&self.dir("out")), inputs, images: None }
    }

    fn files(&self, out: &str) -> BTreeMap<String, Digest> {
        stored(&self.dir(out)).files
    }
}

fn images(at_least: usize) -> impl Strategy<Value = Images> {
    proptest::collection::vec((0..3_u32, 0..9_u32), at_least..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn other_images_than_before_give_the_bytes_of_a_full_run(
        then in (images(1), proptest::option::of(images(1))),
        now in (images(1), proptest::option::of(images(1))),
    ) {
        let fixture = Fixture::new();
        let inputs = |(train, test): &(Images, Option<Images>), names: [&'static str; 2]| {
            save_images(&fixture.dir(names[0]), train);
            let Some(test) = test else { return vec!["encoder", names[0]] };
            save_images(&fixture.dir(names[1]), test);
            vec!["encoder", names[0], names[1]]
        };
        let names = inputs(&then, ["train", "test"]);
        fixture.extract("out", &names, &SilentReporter).unwrap();
        let earlier = fixture.earlier(&names);

        for out in ["after", "full"] {
            std::fs::create_dir(fixture.dir(out)).unwrap();
        }
        // The inputs of both runs are called `train` and `test`.
        std::fs::rename(fixture.dir("train"), fixture.dir("train_then")).unwrap();
        std::fs::rename(fixture.dir("test"), fixture.dir("test_then")).unwrap();
        let names = inputs(&now, ["train", "test"]);
        let moved = |name: &str, folder: &StoredFolder| StoredFolder {
            dir: if name == "encoder" { folder.dir.clone() } else { fixture.dir(&format!("{name}_then")) },
            ..folder.clone()
        };
        let inputs = earlier.inputs.iter().map(|(name, folders)| (name.clone(), vec![moved(name, &folders[0])]));
        let earlier = Earlier { inputs: inputs.collect(), ..earlier.clone() };
        fixture.extract_after(Some(&earlier), "after", &names, &SilentReporter).unwrap();
        fixture.extract("full", &names, &SilentReporter).unwrap();
        prop_assert_eq!(fixture.files("after"), fixture.files("full"));
    }
}

#[test]
fn only_new_images_are_embedded_and_some_of_the_others_compared() {
    let fixture = Fixture::new();
    let names = ["encoder", "train"];
    let then: Images = (0..40).map(|idx| (0, idx)).collect();
    save_images(&fixture.dir("train"), &then);
    fixture.extract("out", &names, &SilentReporter).unwrap();
    let mut earlier = fixture.earlier(&names);
    std::fs::rename(fixture.dir("train"), fixture.dir("then")).unwrap();
    if let Some(train) = earlier.inputs.get_mut("train") {
        train[0].dir = fixture.dir("then");
    }
    save_images(&fixture.dir("train"), &[&then[..], &[(1, 5), (2, 7)]].concat());
    let listener = Listener::default();
    fixture.extract_after(Some(&earlier), "again", &names, &listener).unwrap();
    assert_eq!(*listener.said.lock().unwrap(), ["40 of 42 images are as before, 2 new"]);
    assert!(listener.embedded.lock().unwrap().values().all(|&embedded| embedded == 2 + 8));

    // Another processor's bits, sealed as if they were right.
    let table = fixture.dir("out").join("embeddings.safetensors");
    let mut bytes = std::fs::read(&table).unwrap();
    let len = bytes.len();
    for byte in bytes[len / 2..].iter_mut().step_by(4) {
        *byte ^= 1;
    }
    std::fs::write(&table, bytes).unwrap();
    let listener = Listener::default();
    let full = fixture.files("again");
    let sealed = Earlier { artifact: stored(&fixture.dir("out")), ..earlier.clone() };
    fixture.extract_after(Some(&sealed), "again", &names, &listener).unwrap();
    assert!(listener.said.lock().unwrap().iter().any(|said| said.contains("other bits on this machine")));
    assert_eq!(fixture.files("again"), full);

    // Not sealed: damage.
    let listener = Listener::default();
    fixture.extract_after(Some(&earlier), "again", &names, &listener).unwrap();
    assert!(listener.said.lock().unwrap()[0].contains("are damaged"));
    assert_eq!(fixture.files("again"), full);
}

#[test]
fn views_that_differ_less_lie_nearer() {
    let fixture = Fixture::new();
    let measured = |name: &str, ops: serde_json::Value| {
        let config: AugmentConfig =
            serde_json::from_value(serde_json::json!({ "image_size": 32, "ops": ops })).unwrap();
        std::fs::create_dir(fixture.dir(name)).unwrap();
        Policy::build(&config).unwrap().save(&fixture.dir(name)).unwrap();
        let dirs: Vec<_> = ["encoder", "train"].map(|input| (input, fixture.dir(input))).into();
        let policy = fixture.dir(name);
        let mut inputs: Vec<(&str, &Path)> = dirs.iter().map(|(input, dir)| (*input, dir.as_path())).collect();
        inputs.push(("augmentation", &policy));
        let out = fixture.dir("out");
        let outcome = execute(&ExtractConfig::default(), &Inputs::new(&inputs).context(&out, &SilentReporter)).unwrap();
        let card = Embeddings::open(&out).unwrap().card().clone();
        assert_eq!(card.representations[PRETRAINED].alignment, outcome.metrics.get("embeddings/alignment").copied());
        assert!(card.representations["untrained"].alignment.is_some());
        assert_eq!(card.representations["raw_pixels"].alignment, None);
        assert_eq!(card.representations[PRETRAINED].classes.as_ref().unwrap().spread.len(), 3);
        outcome.metrics["embeddings/alignment"]
    };
    let flip = serde_json::json!([{ "horizontal_flip": { "p": 0.5 } }]);
    let strong = serde_json::json!([
        { "random_resized_crop": { "scale": [0.05, 0.3] } },
        { "color_jitter": { "p": 1.0, "brightness": 0.9, "contrast": 0.9, "saturation": 0.9, "hue": 0.5 } }
    ]);
    let same = measured("same", serde_json::json!([{ "resize": {} }]));
    let (weak, strong) = (measured("weak", flip), measured("strong", strong));
    assert_eq!(same, 0.0);
    assert!(weak < strong && strong < 2.0, "{weak} {strong}");
}
