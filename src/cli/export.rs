//! `export`: an artifact and all that it was made from as a folder that stands alone, or what it holds in a format of
//! other programs.

use std::{
    io::BufWriter,
    path::{Path, PathBuf},
};

use super::{
    PipelineArgs, Session, destination,
    image_stream::{open_model, unusable},
    load,
    run::RealExecutor,
};
use crate::{
    error::Error,
    eval::embeddings::{self, Embeddings},
    fs::{FsError, TemporaryDir, files},
    interchange::{
        onnx_model,
        projector::{CONFIG_FILE, METADATA_FILE, Projector, SPRITE_FILE, VECTORS_FILE, projector_config},
        write_csv,
    },
    runner::{Cancel, Runner, Transfer, event::SilentObserver, text},
};

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
#[command(allow_missing_positional = true)]
#[command(after_help = "Examples:\n  simsiam-pipe export probe --to /mnt/share/probe-2026\n  simsiam-pipe export \
                        pipelines/intel.yaml pretrain --to encoder\n  simsiam-pipe export probe --format onnx --to probe.onnx\n  \
                        simsiam-pipe export runs/intel/embeddings --format csv --to embeddings.csv\n\nTo check the folder later, in it:\n  sha256sum \
                        -c SHA256SUMS")]
pub struct ExportArgs {
    /// The pipeline file [default: `pipeline.yaml`, or the only file in `pipelines/`].
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<PathBuf>,
    /// The stage; with a `--format` also the folder of its artifact, such as `runs/intel/probe` or a copy of it.
    #[arg(value_name = "STAGE", required = true)]
    pub stage: String,
    /// The folder to write, a new or an empty one; with `--format onnx` or `csv` the file.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// What to write.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ExportFormat::Artifact)]
    pub format: ExportFormat,
    /// Give the cache's own read-only files a second name instead of copying them, where that is possible. Whoever
    /// edits one edits it in the cache, too.
    #[arg(long, conflicts_with = "format")]
    pub hard_link: bool,
    /// Change a value of the pipeline.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// What to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ExportFormat {
    /// The artifact and all that it was made from, with provenance and checksums.
    #[default]
    Artifact,
    /// The network of a `pretrain` or `extract` stage, of a `fit` stage with its classifier, for ONNX Runtime and others.
    Onnx,
    /// The embeddings of an `extract` stage with file names and classes; `.npy` and `.safetensors` are in its artifact.
    Csv,
    /// The embeddings of an `extract` stage as a folder for TensorBoard's projector, with pictures.
    Projector,
}

/// Writes the folder.
///
/// # Errors
/// When the stage is not up to date, the folder is taken or the disk fails.
pub fn run(args: &ExportArgs, session: &Session) -> Result<(), Error> {
    let folder = Path::new(&args.stage);
    if args.format != ExportFormat::Artifact && args.pipeline.is_none() && folder.is_dir() {
        return convert(args, folder, session);
    }
    let pipeline_args = PipelineArgs { pipeline: args.pipeline.clone(), set: args.set.clone() };
    let pipeline = load::load(&pipeline_args, session)?;
    let (project, store) = session.open()?;
    let cancel = Cancel::install().map_err(FsError::at("listen to signals in", &project.root))?;
    let runner = Runner {
        project: &project,
        store: &store,
        executor: &RealExecutor::default(),
        observer: &SilentObserver,
        cancel: &cancel,
    };
    if args.format != ExportFormat::Artifact {
        return convert(args, &runner.artifact_dir(&pipeline, &args.stage)?, session);
    }
    let transfer = if args.hard_link { Transfer::HardLink } else { Transfer::Copy };
    let exported = runner.export(&pipeline, &args.stage, &args.to, transfer)?;
    if session.json() {
        return session.print_json(&exported);
    }
    session.print(&format!("{}\n", exported.folder.display()))?;
    let (stages, files, size) = (exported.stages.len(), exported.files, text::bytes(exported.size));
    session.note(&format!("{stages} artifacts, {files} files, {size}; to check them: `sha256sum -c SHA256SUMS` there"));
    Ok(())
}

/// Writes what the artifact in `dir` holds in another format, whole or not at all.
fn convert(args: &ExportArgs, dir: &Path, session: &Session) -> Result<(), Error> {
    if args.format == ExportFormat::Projector {
        files::create_dir_all(&files::parent_of(&args.to))?;
    } else {
        destination::prepare(&args.to)?;
    }
    match args.format {
        ExportFormat::Artifact => {}
        ExportFormat::Onnx => {
            let model = onnx_model(&open_model(dir)?).map_err(|source| unusable(dir, source))?;
            files::write_atomic(&args.to, &model)?;
        }
        ExportFormat::Csv => {
            let temporary = TemporaryDir::for_path(&args.to)?;
            let unfinished = temporary.path().join("table");
            let mut out = BufWriter::new(files::create(&unfinished)?);
            write_csv(&open_embeddings(dir)?, &mut out)
                .map_err(|source| unusable(dir, source))?
                .map_err(FsError::at("write", &args.to))?;
            files::rename(&unfinished, &args.to)?;
        }
        ExportFormat::Projector => write_projector(args, dir)?,
    }
    if session.json() {
        return session.print_json(&serde_json::json!({ "artifact": dir, "written": args.to }));
    }
    session.print(&format!("{}\n", args.to.display()))
}

fn open_embeddings(dir: &Path) -> Result<Embeddings, Error> {
    if dir.join(embeddings::CARD_FILE).is_file() {
        return Embeddings::open(dir).map_err(|source| unusable(dir, source));
    }
    Err(Error::usage(
        format!("`{}` is not the artifact of an `extract` stage", dir.display()),
        "name an `extract` stage, or the folder of its artifact",
    ))
}

fn write_projector(args: &ExportArgs, dir: &Path) -> Result<(), Error> {
    let failed = |source| unusable(dir, source);
    let embeddings = open_embeddings(dir)?;
    let projector = Projector::new(&embeddings).map_err(failed)?;
    let temporary = TemporaryDir::for_path(&args.to)?;
    let create = |name: &str| files::create(&temporary.path().join(name)).map(BufWriter::new);
    let write_error = || FsError::at("write", &args.to);
    projector.write_vectors(&mut create(VECTORS_FILE)?).map_err(write_error())?;
    projector.write_metadata(&mut create(METADATA_FILE)?).map_err(write_error())?;
    let sprite = projector.sprite().map_err(failed)?;
    if let Some((png, _)) = &sprite {
        files::write_new(&temporary.path().join(SPRITE_FILE), png)?;
    }
    let config = projector_config(sprite.map(|(_, tile)| tile));
    files::write_new(&temporary.path().join(CONFIG_FILE), config.as_bytes())?;
    temporary.persist(&args.to)?;
    Ok(())
}
