//! `extract`: features of every image from the frozen backbone, and from what needed no pretraining.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::Path,
};

use super::{
    StageContext, StageError, StageOutcome,
    earlier_embeddings::{EarlierEmbeddings, EarlierRows, Split},
    fit::copy_file,
    fit_trained::policy_of_size,
    leak::warn_about_shared_images,
};
use crate::{
    data::{Dataset, ingest_config::ResizeConfig},
    eval::{
        EvalError, ExtractConfig,
        alignment::alignment,
        class_geometry::class_geometry,
        embeddings::{
            BACKBONE_FILE, EMBEDDINGS_FORMAT, EmbeddingsCard, PRETRAINED, Representation, RepresentationCard,
            SplitLabels, merge_classes, save_embeddings,
        },
        eval_config::Baseline,
        frozen_network::{FrozenNetwork, embed_raw_pixels},
        model_artifact::load_encoder_card,
        representation_health::measure_health,
        thumbnails::{encode_thumbnails, save_thumbnails},
    },
    train::{EncoderCard, encoder_card::WEIGHTS_FILE},
};

/// A spread below this share of an even one is a collapse, as in pretraining's default.
const COLLAPSED_BELOW: f64 = 0.1;

/// Embeds the images of the inputs `train` and `test` and leaves the table in `ctx.out_dir`. Rows of images that an
/// earlier table holds are taken from there: an image has the same features, to the bit, whatever it is batched with.
///
/// # Errors
/// See [`StageError`].
pub fn execute(config: &ExtractConfig, ctx: &StageContext<'_>) -> Result<StageOutcome, StageError> {
    let encoder_dir = input_dir(ctx, "encoder")?;
    let encoder = load_encoder_card(encoder_dir)?;
    let weights = encoder_dir.join(WEIGHTS_FILE);
    let network = FrozenNetwork::load(&weights, &encoder.backbone, &encoder.preprocessing)?.on(ctx.compute)?;
    let train = open_dataset(input_dir(ctx, "train")?)?;
    let test = ctx.input("test").map(|input| open_dataset(&input.dir)).transpose()?;
    if train.is_empty() {
        return Err(StageError::Data {
            message: "the input `train` holds no images".into(),
            help: Some("look at the `source` of its `ingest` stage".into()),
        });
    }

    if let Some(test) = &test {
        warn_about_shared_images(&train, test, ctx.reporter);
    }
    let policy = match ctx.input("augmentation") {
        Some(input) => Some(policy_of_size(&input.dir, encoder.preprocessing.image_size)?),
        None => None,
    };
    let alignment_of = |network: &FrozenNetwork| {
        let measured =
            policy.as_ref().map(|policy| alignment(network, policy, train.len(), |idx| train.image(idx), encoder.seed));
        measured.transpose()
    };
    let mut alignments = BTreeMap::from([(PRETRAINED.to_owned(), alignment_of(&network)?)]);
    let mut work = Work { ctx, encoder: &encoder, train: &train, test: test.as_ref(), earlier: None };
    work.look_for_earlier_rows();
    let mut representations = vec![work.network(PRETRAINED, &network)?];
    for baseline in config.baselines.iter().copied().collect::<BTreeSet<Baseline>>() {
        representations.push(match baseline {
            Baseline::Untrained => {
                let untrained = FrozenNetwork::untrained(&encoder.backbone, encoder.seed, &encoder.preprocessing)?;
                let untrained = untrained.on(ctx.compute)?;
                alignments.insert(baseline.name().to_owned(), alignment_of(&untrained)?);
                work.network(baseline.name(), &untrained)?
            }
            Baseline::RawPixels => work.raw_pixels(baseline.name(), config.raw_pixels_size as usize)?,
        });
    }
    let earlier = work.earlier;

    let mut cards = BTreeMap::new();
    for representation in &representations {
        let health = measure_health(&representation.train, representation.dim)?;
        let classes = match train.labels() {
            Some(labels) => {
                let num_classes = train.card().class_names.len();
                class_geometry(&representation.train, &labels, representation.dim, num_classes)?
            }
            None => None,
        };
        let alignment = alignments.get(&representation.name).copied().flatten();
        let card = RepresentationCard { dim: representation.dim as u32, health, alignment, classes };
        cards.insert(representation.name.clone(), card);
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
        train_file_names: train.names().map(str::to_owned).collect(),
        test_file_names: test.as_ref().map(|test| test.names().map(str::to_owned).collect()),
        train_labelled: labels.train.is_some(),
        test_labelled: labels.test.is_some(),
        representations: cards,
        resize: common_resize(&train, test.as_ref(), ctx),
        background: test.as_ref().unwrap_or(&train).card().background,
        raw_pixels_size: config.raw_pixels_size,
        encoder,
    };
    save_embeddings(ctx.out_dir, &card, &labels, &representations)?;
    let pictures = |dataset: &Dataset, split: Split| {
        let known = |idx: usize| earlier.as_ref()?.picture(split, idx);
        encode_thumbnails(dataset.len(), |idx| dataset.image(idx), known, &card.encoder.preprocessing)
    };
    let test_pictures = test.as_ref().map(|test| pictures(test, Split::Test)).transpose()?;
    save_thumbnails(ctx.out_dir, &pictures(&train, Split::Train)?, test_pictures.as_deref())?;
    copy_file(&weights, &ctx.out_dir.join(BACKBONE_FILE))?;
    let mut metrics = BTreeMap::from([
        ("embeddings/effective_rank".to_owned(), health.effective_rank),
        ("embeddings/uniformity".to_owned(), health.uniformity),
    ]);
    if let Some(alignment) = alignments[PRETRAINED] {
        metrics.insert("embeddings/alignment".to_owned(), alignment);
    }
    Ok(StageOutcome { metrics })
}

/// How images that come later must be resized: as those that classifiers are judged by, or else as those that they
/// learn from. Says so where the two differ.
pub(super) fn common_resize(train: &Dataset, test: Option<&Dataset>, ctx: &StageContext<'_>) -> ResizeConfig {
    let learned = train.card().resize;
    let judged = test.map_or(learned, |test| test.card().resize);
    if judged != learned {
        ctx.reporter.warn(
            "the images of `train` and `test` were resized differently by their `ingest` stages; new images are treated \
             like those of `test`",
        );
    }
    judged
}

/// Folder of an input that takes one artifact.
pub(super) fn input_dir<'a>(ctx: &'a StageContext<'_>, name: &str) -> Result<&'a Path, StageError> {
    ctx.input(name).map(|input| input.dir.as_path()).ok_or_else(|| StageError::Config {
        message: format!("input `{name}` is missing"),
        help: Some("name a stage for it under `inputs`".into()),
    })
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
    earlier: Option<EarlierEmbeddings>,
}

impl Work<'_> {
    fn look_for_earlier_rows(&mut self) {
        let Some(earlier) = self.ctx.earlier else { return };
        let reporter = self.ctx.reporter;
        match EarlierEmbeddings::find(earlier, self.train, self.test) {
            Ok(Some(found)) => {
                let (known, total) = (found.num_known(), self.num_images());
                reporter.info(&format!("{known} of {total} images are as before, {} new", total - known));
                self.earlier = Some(found);
            }
            Ok(None) => {}
            Err(_) => {
                reporter.info("the earlier embeddings or their images are damaged: every image is embedded again");
            }
        }
    }

    fn num_images(&self) -> usize {
        self.train.len() + self.test.map_or(0, Dataset::len)
    }

    fn network(&self, name: &str, network: &FrozenNetwork) -> Result<Representation, StageError> {
        self.both(name, network.feature_dim(), |dataset, images, observe| {
            network.embed(images.len(), |idx| dataset.image(images[idx]), observe)
        })
    }

    fn raw_pixels(&self, name: &str, size: usize) -> Result<Representation, StageError> {
        self.both(name, 3 * size * size, |dataset, images, observe| {
            let preprocessing = &self.encoder.preprocessing;
            embed_raw_pixels(images.len(), |idx| dataset.image(images[idx]), preprocessing, size, observe)
        })
    }

    /// One representation of both datasets.
    fn both(&self, name: &str, dim: usize, embed: impl Embed) -> Result<Representation, StageError> {
        if let Some(rows) = self.earlier.as_ref().and_then(|earlier| earlier.rows(name, dim)) {
            if let Some(representation) = self.both_after(name, dim, &rows, &embed)? {
                return Ok(representation);
            }
            let message =
                format!("`{name}` has other bits on this machine than earlier: every image is embedded again");
            self.ctx.reporter.info(&message);
        }
        let all = |dataset: &Dataset| (0..dataset.len()).collect::<Vec<usize>>();
        let [train, test] =
            self.embed_splits(name, &all(self.train), &self.test.map(all).unwrap_or_default(), &embed)?;
        Ok(Representation { name: name.to_owned(), dim, train, test: self.test.map(|_| test) })
    }

    /// The same with rows of an earlier table; `None` where they are not what this machine would compute.
    fn both_after(
        &self,
        name: &str,
        dim: usize,
        rows: &EarlierRows<'_>,
        embed: &impl Embed,
    ) -> Result<Option<Representation>, StageError> {
        let (new_train, new_test) = (rows.to_embed(Split::Train), rows.to_embed(Split::Test));
        let [train, test] = self.embed_splits(name, &new_train, &new_test, embed)?;
        let train = rows.merge(Split::Train, &new_train, &train);
        let test = rows.merge(Split::Test, &new_test, &test);
        let (Some(train), Some(test)) = (train, test) else { return Ok(None) };
        Ok(Some(Representation { name: name.to_owned(), dim, train, test: self.test.map(|_| test) }))
    }

    /// Features of the named images of both datasets.
    fn embed_splits(
        &self,
        name: &str,
        train: &[usize],
        test: &[usize],
        embed: &impl Embed,
    ) -> Result<[Vec<f32>; 2], StageError> {
        let reporter = self.ctx.reporter;
        let total = train.len() + test.len();
        let one = |dataset: &Dataset, images: &[usize], before: usize| {
            let mut observe = |done: usize| {
                reporter.progress((before + done) as u64, total as u64, "images", name);
                if reporter.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            embed(dataset, images, &mut observe)?.ok_or(StageError::Cancelled)
        };
        let first = one(self.train, train, 0)?;
        let second = self.test.map(|dataset| one(dataset, test, train.len())).transpose()?;
        Ok([first, second.unwrap_or_default()])
    }
}

/// Features of some images of a dataset, by index; `None` where the observer ended it.
trait Embed:
    Fn(&Dataset, &[usize], &mut dyn FnMut(usize) -> ControlFlow<()>) -> Result<Option<Vec<f32>>, EvalError>
{
}

impl<F> Embed for F where
    F: Fn(&Dataset, &[usize], &mut dyn FnMut(usize) -> ControlFlow<()>) -> Result<Option<Vec<f32>>, EvalError>
{
}
