//! `augment`: tries a policy on images, without a run.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{PipelineArgs, Session, load::load};
use crate::{
    augment::{
        AugmentConfig, ImageRef, Policy,
        policy_file::POLICY_FILE,
        preset::Preset,
        preview::{encode_png, render_contact_sheet},
    },
    config::{Pipeline, Stage},
    data::{
        decode::{DecodeOptions, OwnedImage, decode_with},
        ingest::resize_for_store,
        ingest_config::ResizeConfig,
    },
    error::Error,
    fs::files,
    stage::{StageConfig, StageKind},
};

/// Arguments of `augment`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  simsiam-pipe augment --image cat.jpg --policy pipelines/intel.yaml:views --out sheet.png\n  \
                  simsiam-pipe augment --image a.jpg --image b.jpg --policy simsiam_imagenet --out sheet.png\n\n\
                  The sheet has a row for each image: first the image itself, then its views."
)]
pub struct AugmentArgs {
    /// An image; several times for several rows.
    #[arg(long = "image", value_name = "FILE", required = true)]
    pub images: Vec<PathBuf>,
    /// PIPELINE.yaml:STAGE, the folder of an augmentation artifact, or the name of a preset.
    #[arg(long, value_name = "POLICY")]
    pub policy: String,
    /// Where to write the sheet, as PNG.
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// Views of each image [default: as the policy's contact sheet].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub views: Option<u32>,
    /// Seed of the random parameters [default: the stage's, or 0].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Change a value of the pipeline first: `--set stages.views.with.image_size=96`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Written<'a> {
    sheet: &'a Path,
    images: usize,
    views: u32,
    seed: u64,
}

/// A policy, and how its images come to it.
struct Chosen {
    config: AugmentConfig,
    seed: u64,
    /// As the dataset of the stage stores them.
    resize: ResizeConfig,
    options: DecodeOptions,
}

impl Chosen {
    fn alone(config: AugmentConfig) -> Self {
        Self { config, seed: 0, resize: ResizeConfig::None, options: DecodeOptions::default() }
    }
}

/// Draws the sheet.
///
/// # Errors
/// When there is no such policy, an image cannot be used, or the sheet cannot be written.
pub fn run(args: &AugmentArgs, session: &Session) -> Result<(), Error> {
    let chosen = choose(args, session)?;
    let policy = Policy::build(&chosen.config)?;
    let images = args.images.iter().map(|path| read(path, &chosen)).collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<(u64, ImageRef<'_>)> =
        images.iter().enumerate().map(|(idx, image)| (idx as u64, image.as_ref())).collect();
    let views = args.views.unwrap_or(chosen.config.preview.views);
    let seed = args.seed.unwrap_or(chosen.seed);
    let sheet = render_contact_sheet(&policy, &rows, views, seed);
    files::create_dir_all(&files::parent_of(&args.out))?;
    files::write_atomic(&args.out, &encode_png(&sheet)?)?;
    if session.json() {
        return session.print_json(&Written { sheet: &args.out, images: images.len(), views, seed });
    }
    session.print(&format!("{}\n", args.out.display()))
}

fn choose(args: &AugmentArgs, session: &Session) -> Result<Chosen, Error> {
    let refuse_set = |what: &str| {
        if args.set.is_empty() {
            return Ok(());
        }
        Err(Error::usage(
            format!("`--set` changes a pipeline, and `{}` is {what}", args.policy),
            "give `--policy PIPELINE.yaml:STAGE`, or leave `--set` away",
        ))
    };
    if let Some(preset) = Preset::ALL.into_iter().find(|preset| preset.name() == args.policy) {
        refuse_set("a preset")?;
        return Ok(Chosen::alone(preset.config()));
    }
    let folder = Path::new(&args.policy);
    if folder.join(POLICY_FILE).is_file() {
        refuse_set("the folder of an artifact")?;
        return Ok(Chosen::alone(Policy::load(folder)?.config().clone()));
    }
    let Some((file, name)) = args.policy.rsplit_once(':').filter(|(file, name)| !file.is_empty() && !name.is_empty())
    else {
        let presets = Preset::ALL.map(Preset::name).join("`, `");
        return Err(Error::usage(
            format!("`{}` is no policy", args.policy),
            format!("write `PIPELINE.yaml:STAGE`, the folder of an augmentation artifact, or one of `{presets}`"),
        ));
    };
    let pipeline = load(&PipelineArgs { pipeline: Some(file.into()), set: args.set.clone() }, session)?;
    let stage = find_stage(&pipeline, file, name)?;
    let StageConfig::Augment(config) = &stage.config else { return Err(not_a_policy(&pipeline, file, name)) };
    let mut chosen = Chosen { seed: stage.seed, ..Chosen::alone(config.clone()) };
    let dataset = stage.inputs.get("dataset").and_then(|stages| pipeline.stage(stages.first()?));
    if let Some(StageConfig::Ingest(ingest)) = dataset.map(|stage| &stage.config) {
        chosen.resize = ingest.resize;
        chosen.options = DecodeOptions { max_pixels: ingest.max_pixels, background: ingest.background };
    }
    Ok(chosen)
}

/// The stage, or the first cell of it.
fn find_stage<'p>(pipeline: &'p Pipeline, file: &str, name: &str) -> Result<&'p Stage, Error> {
    let of_cell = |stage: &&Stage| stage.name.split_once('@').is_some_and(|(base, _)| base == name);
    pipeline
        .stage(name)
        .or_else(|| pipeline.stages.iter().find(of_cell))
        .ok_or_else(|| not_a_policy(pipeline, file, name))
}

fn not_a_policy(pipeline: &Pipeline, file: &str, name: &str) -> Error {
    let policies: Vec<String> = pipeline
        .stages
        .iter()
        .filter(|stage| stage.kind() == StageKind::Augment)
        .map(|stage| format!("`{file}:{}`", stage.name))
        .collect();
    let help = if policies.is_empty() {
        "the pipeline has no `augment` stage".to_owned()
    } else {
        format!("its policies are {}", policies.join(", "))
    };
    let what = if pipeline.stage(name).is_some() { "is no `augment` stage" } else { "is no stage" };
    Error::usage(format!("`{name}` {what} of `{file}`"), help)
}

fn read(path: &Path, chosen: &Chosen) -> Result<OwnedImage, Error> {
    let image = decode_with(&files::read(path)?, &chosen.options)
        .map_err(|reason| Error::Image { path: path.to_owned(), reason })?;
    Ok(resize_for_store(image, &chosen.resize))
}
