//! `extract`: features of every image from the frozen backbone, and from what needed no pretraining.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::Path,
};

use super::{StageContext, StageError, StageOutcome, fit::copy_file, pretrain::ENCODER_FORMAT};
use crate::{
    data::Dataset,
    eval::{
        ExtractConfig,
        embeddings::{
            BACKBONE_FILE, EMBEDDINGS_FORMAT, EmbeddingsCard, PRETRAINED, Representation, RepresentationCard,
            SplitLabels, merge_classes, save_embeddings,
        },
        eval_config::Baseline,
        frozen_network::{FrozenNetwork, embed_raw_pixels},
        representation_health::measure_health,
    },
    train::EncoderCard,
};

/// A spread below this share of an even one is a collapse, as in pretraining's default.
const COLLAPSED_BELOW: f64 = 0.1;

/// Embeds the images of the inputs `train` and `test` and leaves the table in `ctx.out_dir`.
///
/// # Errors
/// See [`StageError`].
pub fn execute(config: &ExtractConfig, ctx: &StageContext<'_>) -> Result<StageOutcome, StageError> {
    let encoder_dir = input_dir(ctx, "encoder")?;
    let encoder = load_encoder_card(encoder_dir)?;
    let weights = encoder_dir.join("encoder.safetensors");
    let network = FrozenNetwork::load(&weights, &encoder.backbone, &encoder.preprocessing)?;
    let train = open_dataset(input_dir(ctx, "train")?)?;
    let test = ctx.input("test").map(|input| open_dataset(&input.dir)).transpose()?;
    if train.is_empty() {
        return Err(StageError::Data {
            message: "the input `train` holds no images".into(),
            help: Some("look at the `source` of its `ingest` stage".into()),
        });
    }

    let work = Work { ctx, encoder: &encoder, train: &train, test: test.as_ref() };
    let mut representations = vec![work.network(PRETRAINED, &network)?];
    for baseline in config.baselines.iter().copied().collect::<BTreeSet<Baseline>>() {
        representations.push(match baseline {
            Baseline::Untrained => {
                let untrained = FrozenNetwork::untrained(&encoder.backbone, encoder.seed, &encoder.preprocessing)?;
                work.network(baseline.name(), &untrained)?
            }
            Baseline::RawPixels => work.raw_pixels(baseline.name(), config.raw_pixels_size as usize)?,
        });
    }

    let mut cards = BTreeMap::new();
    for representation in &representations {
        let health = measure_health(&representation.train, representation.dim)?;
        cards.insert(representation.name.clone(), RepresentationCard { dim: representation.dim as u32, health });
    }
    let health = cards[PRETRAINED].health;
    if health.normalized_std_ratio < COLLAPSED_BELOW && train.len() > 1 {
        ctx.reporter.warn(&format!(
            "the embeddings of different images hardly differ (spread {:.3} where 1 is even): the pretraining has \
             collapsed",
            health.normalized_std_ratio
        ));
    }
    let test_class_names = test.as_ref().map_or(&[][..], |test| &test.card().class_names);
    let (class_names, places) = merge_classes(&train.card().class_names, test_class_names);
    let test_labels = test.as_ref().and_then(Dataset::labels);
    let test_labels = test_labels.map(|labels| labels.iter().map(|&label| places[label as usize]).collect());
    let labels = SplitLabels { train: train.labels(), test: test_labels };
    let card = EmbeddingsCard {
        format: EMBEDDINGS_FORMAT,
        feature_dim: network.feature_dim() as u32,
        class_names,
        num_train_classes: train.card().class_names.len() as u32,
        train_file_names: train.card().file_names.clone(),
        test_file_names: test.as_ref().map(|test| test.card().file_names.clone()),
        train_labelled: labels.train.is_some(),
        test_labelled: labels.test.is_some(),
        representations: cards,
        raw_pixels_size: config.raw_pixels_size,
        encoder,
    };
    save_embeddings(ctx.out_dir, &card, &labels, &representations)?;
    copy_file(&weights, &ctx.out_dir.join(BACKBONE_FILE))?;
    let metrics = [("embeddings/effective_rank", health.effective_rank), ("embeddings/uniformity", health.uniformity)];
    Ok(StageOutcome { metrics: metrics.map(|(name, value)| (name.to_owned(), value)).into() })
}

/// Folder of an input that takes one artifact.
pub(super) fn input_dir<'a>(ctx: &'a StageContext<'_>, name: &str) -> Result<&'a Path, StageError> {
    ctx.input(name).map(|input| input.dir.as_path()).ok_or_else(|| StageError::Config {
        message: format!("input `{name}` is missing"),
        help: Some("name a stage for it under `inputs`".into()),
    })
}

/// Reads `encoder.json`.
pub(super) fn load_encoder_card(dir: &Path) -> Result<EncoderCard, StageError> {
    let path = dir.join("encoder.json");
    let text = std::fs::read_to_string(&path).map_err(|source| StageError::Io {
        action: "read",
        path: path.clone(),
        source,
    })?;
    let card: EncoderCard = serde_json::from_str(&text)
        .map_err(|error| StageError::Artifact { path: path.clone(), message: error.to_string() })?;
    if card.format != ENCODER_FORMAT {
        let message = format!("format {} is not {ENCODER_FORMAT}, the one that this version reads", card.format);
        return Err(StageError::Artifact { path, message });
    }
    Ok(card)
}

fn open_dataset(dir: &Path) -> Result<Dataset, StageError> {
    Dataset::open(dir).map_err(|error| StageError::Artifact { path: dir.to_owned(), message: error.to_string() })
}

/// What every representation is made from.
struct Work<'a> {
    ctx: &'a StageContext<'a>,
    encoder: &'a EncoderCard,
    train: &'a Dataset,
    test: Option<&'a Dataset>,
}

impl Work<'_> {
    fn network(&self, name: &str, network: &FrozenNetwork) -> Result<Representation, StageError> {
        self.both(name, network.feature_dim(), |dataset, observe| {
            network.embed(dataset.len(), |idx| dataset.image(idx), observe)
        })
    }

    fn raw_pixels(&self, name: &str, size: usize) -> Result<Representation, StageError> {
        self.both(name, 3 * size * size, |dataset, observe| {
            let preprocessing = &self.encoder.preprocessing;
            embed_raw_pixels(dataset.len(), |idx| dataset.image(idx), preprocessing, size, observe)
        })
    }

    /// One representation of both datasets.
    fn both(
        &self,
        name: &str,
        dim: usize,
        embed: impl Fn(
            &Dataset,
            &mut dyn FnMut(usize) -> ControlFlow<()>,
        ) -> Result<Option<Vec<f32>>, crate::eval::EvalError>,
    ) -> Result<Representation, StageError> {
        let reporter = self.ctx.reporter;
        let total = self.train.len() + self.test.map_or(0, Dataset::len);
        let one = |dataset: &Dataset, before: usize| {
            let mut observe = |done: usize| {
                reporter.progress((before + done) as u64, total as u64, "images", name);
                if reporter.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            embed(dataset, &mut observe)?.ok_or(StageError::Cancelled)
        };
        let train = one(self.train, 0)?;
        let test = self.test.map(|test| one(test, self.train.len())).transpose()?;
        Ok(Representation { name: name.to_owned(), dim, train, test })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use safetensors::{Dtype, tensor::TensorView};

    use super::*;
    use crate::{
        augment::ImageRef,
        data::store_writer::StoreWriter,
        digest::Digest,
        eval::{EvalError, embeddings::Embeddings, embeddings::tests::encoder_card, eval_config::KnnConfig},
        model::backbone::{Backbone, BackboneConfig, StateData, backbone_config::DarknetTinyConfig},
        stage::{InputArtifact, SilentReporter, StageReporter, fit},
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
            let artifact =
                |dir: &Path| InputArtifact { stage: "s".into(), digest: Digest::of(b"s"), dir: dir.to_owned() };
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
            let dirs: Vec<_> = names.iter().map(|name| (*name, self.dir(name))).collect();
            let dirs: Vec<(&str, &Path)> = dirs.iter().map(|(name, dir)| (*name, dir.as_path())).collect();
            let (inputs, out) = (Inputs::new(&dirs), self.dir(out));
            execute(&ExtractConfig { raw_pixels_size: 4, ..ExtractConfig::default() }, &inputs.context(&out, reporter))
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
        assert!(
            matches!(&error, StageError::Artifact { path, .. } if path.ends_with("encoder.safetensors")),
            "{error}"
        );
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
}
