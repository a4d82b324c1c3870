//! `embed`: features of images from anywhere, with nothing but an artifact.

use std::{
    io::{BufWriter, Read, Write},
    path::PathBuf,
};

use super::{
    Session, destination,
    image_stream::{ImageArgs, ImageStream, ImageSummary, UntilClosed, on_terminal, open_model, unusable, written},
};
use crate::{
    error::Error,
    eval::feature_file::{FeatureFormat, FeatureWriter},
    fs::{FsError, TemporaryDir, files},
};

/// Arguments of `embed`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  simsiam-pipe embed --model runs/intel/pretrain photos/ --out photos.npy > files.txt\n  \
                        find . -name '*.jpg' | simsiam-pipe embed --model runs/intel/probe - --out photos.csv\n\n\
                        stdout names the file of each row, in order. Images that cannot be read have no row; they are \
                        named on stderr and the others go on; the exit code then is 4."
)]
pub struct EmbedArgs {
    /// The artifact of a `pretrain`, `extract` or `fit` stage, such as `runs/intel/pretrain`.
    #[arg(long, value_name = "FOLDER")]
    pub model: PathBuf,
    /// Which images.
    #[command(flatten)]
    pub images: ImageArgs,
    /// The file to write: its ending decides whether it is `.npy`, `.safetensors` or `.csv`.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Embeds for the user.
///
/// # Errors
/// Where the model cannot be used, the file cannot be written, or some images could not be used.
pub fn command(args: &EmbedArgs, session: &Session) -> Result<(), Error> {
    on_terminal(|stdin, out, err| run(args, session.json(), stdin, out, err))
}

/// Writes the file, which appears whole or not at all, and the name of each row's file to `out`; with `json` as one
/// object a line.
///
/// # Errors
/// Where the model cannot be used, stdin cannot be read or the file cannot be written.
pub fn run(
    args: &EmbedArgs,
    json: bool,
    stdin: &mut dyn Read,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<ImageSummary, Error> {
    let Some(format) = FeatureFormat::of(&args.out) else {
        return Err(Error::usage(
            format!("the ending of `{}` says no format", args.out.display()),
            "name a file that ends in `.npy`, `.safetensors` or `.csv`",
        ));
    };
    destination::prepare(&args.out)?;
    // Whoever closes stdout has seen enough names, and still wants the file.
    let out = &mut UntilClosed::new(out);
    let artifact = open_model(&args.model)?;
    let network = artifact.network().map_err(|source| unusable(&args.model, source))?;
    let io_error = |source| FsError { action: "write", path: args.out.clone(), source };
    let folder = TemporaryDir::for_path(&args.out)?;
    let unfinished = folder.path().join("features");
    let file = BufWriter::new(files::create(&unfinished)?);
    let mut table = FeatureWriter::new(file, format, network.feature_dim()).map_err(io_error)?;
    let mut images = ImageStream::new(&args.images.inputs, &network, &args.model, stdin, err);
    let mut row = 0_u64;
    while let Some((batch, features)) = images.next_batch()? {
        for (image, values) in batch.iter().zip(features.chunks_exact(network.feature_dim())) {
            let name = image.path.to_string_lossy();
            table.push(&name, values).map_err(io_error)?;
            let line =
                if json { serde_json::json!({ "file": name, "row": row }).to_string() } else { name.into_owned() };
            written(writeln!(out, "{line}"))?;
            row += 1;
        }
        written(out.flush())?;
    }
    let summary = images.summary();
    table.finish().map_err(io_error)?;
    files::rename(&unfinished, &args.out)?;
    Ok(summary)
}
