//! `similar`: the embedded images that are most like given ones, with nothing but an embeddings artifact.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
};

use serde::Serialize;

use super::{
    Session, destination,
    image_stream::{
        EmbeddedImage, ImageArgs, ImageStream, ImageSummary, UntilClosed, on_terminal, open_model, unusable, written,
    },
};
use crate::{
    augment::{EvaluationView, Scratch},
    error::Error,
    eval::{
        EvalError,
        classifier_artifact::csv_field,
        embeddings::{self, Embeddings},
        neighbours::{EmbeddedNeighbour, NeighbourTable},
        thumbnails::{Thumbnails, draw_sheet, thumbnail, thumbnail_view},
    },
    fs::files,
};

/// A sheet of more rows than this is no picture to look at, and memory must not grow with the number of images.
const MAX_SHEET_ROWS: usize = 256;

/// Arguments of `similar`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  simsiam-pipe similar photo.jpg --in runs/intel/embeddings --top 9 --sheet out.png\n  \
                        simsiam-pipe similar photos/ --in runs/intel/embeddings --csv\n\n\
                        In the sheet each row begins with the image itself; it shows the first 256 images. Similarity is the cosine of the angle between \
                        two embeddings."
)]
pub struct SimilarArgs {
    /// Which images.
    #[command(flatten)]
    pub images: ImageArgs,
    /// The artifact of an `extract` stage, such as `runs/intel/embeddings`.
    #[arg(long = "in", value_name = "FOLDER")]
    pub embeddings: PathBuf,
    /// How many images to name, the most similar first.
    #[arg(long, value_name = "K", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub top: u32,
    /// Draw them into a PNG file, too.
    #[arg(long, value_name = "FILE")]
    pub sheet: Option<PathBuf>,
    /// Print CSV with the header `file,rank,similarity,split,class,neighbour`, even where JSON is asked for.
    #[arg(long)]
    pub csv: bool,
}

/// Looks for the user.
///
/// # Errors
/// Where the embeddings cannot be used, nobody takes the output, or some images could not be used.
pub fn command(args: &SimilarArgs, session: &Session) -> Result<(), Error> {
    on_terminal(|stdin, out, err| run(args, session.json(), stdin, out, err))
}

/// One line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    neighbours: &'a [EmbeddedNeighbour<'a>],
}

/// Writes the neighbours of each image to `out`, and the sheet.
///
/// # Errors
/// Where the embeddings cannot be used, stdin cannot be read, or something cannot be written.
pub fn run(
    args: &SimilarArgs,
    json: bool,
    stdin: &mut dyn Read,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<ImageSummary, Error> {
    let dir = &args.embeddings;
    if !dir.join(embeddings::CARD_FILE).is_file() {
        return Err(Error::usage(
            format!("`{}` is not the artifact of an `extract` stage: it holds no `embeddings.json`", dir.display()),
            "give the folder of an `extract` stage, such as `runs/intel/embeddings`",
        ));
    }
    let failed = |source: EvalError| unusable(dir, source);
    let mut listing;
    let out: &mut dyn Write = if let Some(sheet) = &args.sheet {
        destination::prepare(sheet)?;
        // Whoever closes stdout has seen enough names, and still wants the sheet.
        listing = UntilClosed::new(out);
        &mut listing
    } else {
        out
    };
    let network = open_model(dir)?.network().map_err(failed)?;
    let embeddings = Embeddings::open(dir).map_err(failed)?;
    let table = NeighbourTable::new(&embeddings).map_err(failed)?;
    let mut sheet = match args.sheet {
        Some(_) => Some(SheetRows::new(&embeddings).map_err(failed)?),
        None => None,
    };
    if args.csv {
        written(writeln!(out, "file,rank,similarity,split,class,neighbour"))?;
    }
    let mut images = ImageStream::new(&args.images.inputs, &network, dir, stdin, err);
    if sheet.is_some() {
        images = images.keeping_images();
    }
    while let Some((batch, features)) = images.next_batch()? {
        for (image, neighbours) in batch.iter().zip(table.nearest(&features, args.top as usize)) {
            written(print(args.csv, json, image, &neighbours, out))?;
            match &mut sheet {
                Some(sheet) if sheet.rows.len() < MAX_SHEET_ROWS => {
                    sheet.add(image, &neighbours).map_err(failed)?;
                }
                _ => {}
            }
        }
        written(out.flush())?;
    }
    if let (Some(path), Some(sheet)) = (&args.sheet, sheet) {
        files::write_atomic(path, &sheet.png().map_err(failed)?)?;
    }
    Ok(images.summary())
}

fn print(
    csv: bool,
    json: bool,
    image: &EmbeddedImage,
    neighbours: &[EmbeddedNeighbour<'_>],
    out: &mut dyn Write,
) -> io::Result<()> {
    let file = image.path.to_string_lossy();
    if json && !csv {
        let line = serde_json::to_string(&Line { file: &file, neighbours }).map_err(io::Error::other)?;
        return writeln!(out, "{line}");
    }
    for (rank, neighbour) in (1..).zip(neighbours) {
        let EmbeddedNeighbour { similarity, split, class, file: name, .. } = neighbour;
        let class = class.unwrap_or_default();
        if csv {
            let (file, class, name) = (csv_field(&file), csv_field(class), csv_field(name));
            writeln!(out, "{file},{rank},{similarity:.6},{split},{class},{name}")?;
        } else {
            let class = if class.is_empty() { String::new() } else { format!("{class}, ") };
            writeln!(out, "{file}: {rank}. {name} ({class}{split}) {similarity:.3}")?;
        }
    }
    Ok(())
}

/// The rows of the sheet so far.
struct SheetRows {
    thumbnails: Thumbnails,
    view: EvaluationView,
    scratch: Scratch,
    rows: Vec<Vec<Vec<u8>>>,
}

impl SheetRows {
    fn new(embeddings: &Embeddings) -> Result<Self, EvalError> {
        let view = thumbnail_view(&embeddings.card().preprocessing());
        Ok(Self { thumbnails: Thumbnails::open(embeddings.dir())?, view, scratch: Scratch::default(), rows: vec![] })
    }

    fn add(&mut self, image: &EmbeddedImage, neighbours: &[EmbeddedNeighbour<'_>]) -> Result<(), EvalError> {
        let stored = image.stored.as_ref().map(|stored| thumbnail(&self.view, stored.as_ref(), &mut self.scratch));
        let mut row: Vec<Vec<u8>> = stored.into_iter().collect();
        for neighbour in neighbours {
            row.push(self.thumbnails.rgb(neighbour.split, neighbour.row)?);
        }
        self.rows.push(row);
        Ok(())
    }

    fn png(&self) -> Result<Vec<u8>, EvalError> {
        draw_sheet(&self.rows).png()
    }
}
