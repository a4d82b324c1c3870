//! `predict`: a fitted classifier on images, with nothing but its artifact.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde::Serialize;

use super::Session;
use crate::{
    data::decode::{OwnedImage, decode_rgb},
    error::Error,
    eval::{
        EvalError,
        classifier_artifact::{Head, csv_field, load_classifier},
        embed::batch_size,
        embeddings::BACKBONE_FILE,
        frozen_network::FrozenNetwork,
    },
    fs::FsError,
};

/// As `ingest` refuses them by default.
const MAX_PIXELS: u64 = 50_000_000;
/// Names that count as images in a folder; a file named by the user is tried whatever its name.
const EXTENSIONS: [&str; 8] = ["bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp"];

/// Arguments of `predict`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  simsiam-pipe predict --model runs/intel/probe photos/\n  \
                        find . -name '*.jpg' | simsiam-pipe predict --model runs/intel/knn --csv --top 3 -\n\n\
                        With `--json` each image is one object on a line: `file` and `predictions`, a list of \
                        `class` and `probability`. Images that cannot be read are named on stderr and the others \
                        go on; the exit code then is 4.")]
pub struct PredictArgs {
    /// The artifact of a `fit` stage, such as `runs/intel/probe`.
    #[arg(long, value_name = "FOLDER")]
    pub model: PathBuf,
    /// Images, folders of images with all folders below, or `-` for paths on stdin, one a line.
    #[arg(required = true, value_name = "IMAGE|FOLDER|-")]
    pub inputs: Vec<PathBuf>,
    /// Print CSV with the header `file,rank,class,probability`, even where JSON is asked for.
    #[arg(long)]
    pub csv: bool,
    /// How many classes to name for each image, the most probable first.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub top: u32,
}

/// Why nothing more can be predicted. A broken image is no such reason: see [`PredictSummary`].
#[derive(Debug, thiserror::Error)]
pub enum PredictError {
    /// The folder is no classifier.
    #[error("`{}` is not the artifact of a `fit` stage: it holds no `classifier.json`", path.display())]
    NotAClassifier {
        /// The folder.
        path: PathBuf,
    },
    /// The artifact cannot be used.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The list of paths on stdin cannot be read.
    #[error("cannot read paths from stdin")]
    Input(#[source] io::Error),
    /// Nobody takes the output.
    #[error("cannot write the predictions")]
    Output(#[source] io::Error),
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PredictSummary {
    /// Images with a prediction.
    pub predicted: u64,
    /// Images and folders that could not be used; each was named on `err`. Where there are any, the command
    /// must not exit as if all were well.
    pub failed: u64,
}

/// Predicts for the user: images from the command line and stdin, results to stdout.
///
/// # Errors
/// Where the classifier cannot be used, nobody takes the output, or some images could not be used.
pub fn command(args: &PredictArgs, session: &Session) -> Result<(), Error> {
    let mut out = BufWriter::new(io::stdout().lock());
    let summary = run(args, session.json(), &mut io::stdin().lock(), &mut out, &mut io::stderr());
    match summary {
        Ok(PredictSummary { failed: 0, .. }) => Ok(()),
        Ok(PredictSummary { predicted, failed }) => Err(Error::ImagesFailed { failed, total: predicted + failed }),
        Err(error @ PredictError::NotAClassifier { .. }) => {
            Err(Error::usage(error.to_string(), "give the folder of a `fit` stage, such as `runs/intel/probe`"))
        }
        Err(PredictError::Eval(source)) => Err(Error::Classifier { path: args.model.clone(), source }),
        Err(PredictError::Input(source)) => Err(FsError { action: "read", path: "stdin".into(), source }.into()),
        Err(PredictError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::BrokenPipe),
        Err(PredictError::Output(source)) => Err(FsError { action: "write", path: "stdout".into(), source }.into()),
    }
}

/// Predicts every image of `args.inputs` and writes to `out` as it goes; what cannot be used is named on
/// `err`. `stdin` is read where an input is `-`. With `json`, each image is one JSON object on a line.
///
/// # Errors
/// See [`PredictError`].
pub fn run(
    args: &PredictArgs,
    json: bool,
    stdin: &mut dyn Read,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<PredictSummary, PredictError> {
    let model = Model::load(&args.model)?;
    let format = match (args.csv, json) {
        (true, _) => Format::Csv,
        (false, true) => Format::Json,
        (false, false) => Format::Text,
    };
    let mut queue = PathQueue::new(&args.inputs, stdin);
    let mut summary = PredictSummary::default();
    if format == Format::Csv {
        writeln!(out, "file,rank,class,probability").map_err(PredictError::Output)?;
    }
    loop {
        let batch = queue.next_batch(model.batch).map_err(PredictError::Input)?;
        if batch.is_empty() {
            break;
        }
        // Decoded in parallel, reported in order.
        let decoded: Vec<Result<OwnedImage, String>> =
            batch.par_iter().map(|entry| entry.as_ref().map_err(String::clone).and_then(|path| decode(path))).collect();
        let mut images = vec![];
        for (entry, decoded) in batch.iter().zip(decoded) {
            match (entry, decoded) {
                (Ok(path), Ok(image)) => images.push((path, image)),
                (_, Err(reason)) => {
                    summary.failed += 1;
                    // Where even stderr is gone there is nobody left to tell.
                    let _ = writeln!(err, "{reason}");
                }
                (Err(_), Ok(_)) => {}
            }
        }
        let probabilities = model.probabilities(&images)?;
        for ((path, _), row) in images.iter().zip(probabilities.chunks_exact(model.class_names.len())) {
            let best = model.best(row, args.top as usize);
            print(format, path, &best, out).map_err(PredictError::Output)?;
            summary.predicted += 1;
        }
        out.flush().map_err(PredictError::Output)?;
    }
    Ok(summary)
}

fn decode(path: &Path) -> Result<OwnedImage, String> {
    let problem = |reason: String| format!("`{}`: {reason}", path.display());
    let bytes = std::fs::read(path).map_err(|error| problem(error.to_string()))?;
    decode_rgb(&bytes, MAX_PIXELS).map_err(problem)
}

/// A classifier with its network.
struct Model {
    network: FrozenNetwork,
    head: Head,
    class_names: Vec<String>,
    batch: usize,
}

/// A class with its probability.
#[derive(Debug, PartialEq, Serialize)]
struct Prediction<'a> {
    class: &'a str,
    probability: f64,
}

impl Model {
    fn load(dir: &Path) -> Result<Self, PredictError> {
        if !dir.join("classifier.json").is_file() {
            return Err(PredictError::NotAClassifier { path: dir.to_owned() });
        }
        let (card, head) = load_classifier(dir)?;
        let network = FrozenNetwork::load(&dir.join(BACKBONE_FILE), &card.backbone, &card.preprocessing)?;
        if network.feature_dim() != card.feature_dim as usize {
            let message = "`feature_dim` is not what the backbone makes".into();
            return Err(EvalError::Format { path: dir.join("classifier.json"), message }.into());
        }
        let batch = batch_size(card.preprocessing.image_size as usize);
        Ok(Self { network, head, class_names: card.class_names, batch })
    }

    /// [images, classes]
    fn probabilities(&self, images: &[(&PathBuf, OwnedImage)]) -> Result<Vec<f64>, EvalError> {
        let never_stops = |_| ControlFlow::Continue(());
        let features = self.network.embed(images.len(), |idx| images[idx].1.as_ref(), never_stops)?;
        self.head.probabilities(&features.unwrap_or_default())
    }

    /// The `top` most probable classes of a row; of equals the first.
    fn best(&self, row: &[f64], top: usize) -> Vec<Prediction<'_>> {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        order
            .into_iter()
            .take(top)
            .map(|class| Prediction { class: &self.class_names[class], probability: row[class] })
            .collect()
    }
}

/// How predictions are printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Csv,
    Json,
}

fn print(format: Format, path: &Path, best: &[Prediction<'_>], out: &mut dyn Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        file: &'a str,
        predictions: &'a [Prediction<'a>],
    }
    let file = path.to_string_lossy();
    match format {
        Format::Json => {
            let line = serde_json::to_string(&Line { file: &file, predictions: best }).map_err(io::Error::other)?;
            writeln!(out, "{line}")
        }
        Format::Csv => (1..).zip(best).try_for_each(|(rank, Prediction { class, probability })| {
            writeln!(out, "{},{rank},{},{probability:.6}", csv_field(&file), csv_field(class))
        }),
        Format::Text => {
            let classes: Vec<String> =
                best.iter().map(|best| format!("{} {:.1} %", best.class, 100.0 * best.probability)).collect();
            writeln!(out, "{file}: {}", classes.join(", "))
        }
    }
}

/// A path, or why there is none to look at.
type Entry = Result<PathBuf, String>;

/// Paths of images in the order of the inputs, a batch at a time.
struct PathQueue<'a> {
    inputs: VecDeque<PathBuf>,
    pending: VecDeque<Entry>,
    stdin: BufReader<&'a mut dyn Read>,
    reading_stdin: bool,
}

impl<'a> PathQueue<'a> {
    fn new(inputs: &[PathBuf], stdin: &'a mut dyn Read) -> Self {
        let inputs = inputs.iter().cloned().collect();
        Self { inputs, pending: VecDeque::new(), stdin: BufReader::new(stdin), reading_stdin: false }
    }

    /// The next paths, at most `max`; none at the end. Does not wait for stdin while it has some.
    fn next_batch(&mut self, max: usize) -> io::Result<Vec<Entry>> {
        let mut batch = vec![];
        while batch.len() < max {
            if let Some(entry) = self.pending.pop_front() {
                batch.push(entry);
            } else if self.reading_stdin {
                if !batch.is_empty() && !self.stdin.buffer().contains(&b'\n') {
                    break;
                }
                let mut line = vec![];
                self.reading_stdin = self.stdin.read_until(b'\n', &mut line)? > 0;
                let text = String::from_utf8_lossy(&line);
                let text = text.trim_end_matches(['\n', '\r']);
                if !text.is_empty() {
                    self.expand(PathBuf::from(text));
                }
            } else if let Some(input) = self.inputs.pop_front() {
                if input.as_os_str() == "-" {
                    self.reading_stdin = true;
                } else {
                    self.expand(input);
                }
            } else {
                break;
            }
        }
        Ok(batch)
    }

    fn expand(&mut self, path: PathBuf) {
        if !path.is_dir() {
            return self.pending.push_back(Ok(path));
        }
        let before = self.pending.len();
        self.walk(&path);
        if self.pending.len() == before {
            self.pending.push_back(Err(format!("`{}`: no images in this folder", path.display())));
        }
    }

    /// Sorted, files and folders alike; hidden ones are left out, and links to folders are not followed, so
    /// that a circle of links ends.
    fn walk(&mut self, dir: &Path) {
        let listed = std::fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match listed {
            Ok(entries) => entries,
            Err(error) => return self.pending.push_back(Err(format!("`{}`: {error}", dir.display()))),
        };
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.walk(&path);
            } else if is_image_name(&path) && !path.is_dir() {
                self.pending.push_back(Ok(path));
            }
        }
    }
}

fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        eval::{ExtractConfig, FitConfig, eval_config::LinearProbeConfig},
        stage::{
            SilentReporter, extract,
            extract_tests::{Inputs, picture, save_dataset, save_encoder},
            fit,
        },
    };

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: PredictArgs,
        #[arg(long)]
        json: bool,
    }

    /// A probe that tells stripes apart, and a folder of pictures.
    fn fixture() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let dir = |name: &str| root.path().join(name);
        for name in ["encoder", "train", "test", "embeddings", "probe", "photos", "photos/more", "photos/.hidden"] {
            std::fs::create_dir(dir(name)).unwrap();
        }
        save_encoder(&dir("encoder"));
        save_dataset(&dir("train"), &["a", "b", "c"], 8, 0);
        save_dataset(&dir("test"), &["a", "b", "c"], 2, 8);
        let (encoder, train, test) = (dir("encoder"), dir("train"), dir("test"));
        let inputs = Inputs::new(&[("encoder", &encoder), ("train", &train), ("test", &test)]);
        extract::execute(&ExtractConfig::default(), &inputs.context(&dir("embeddings"), &SilentReporter)).unwrap();
        let embeddings = dir("embeddings");
        let inputs = Inputs::new(&[("embeddings", &embeddings)]);
        let config = FitConfig::LinearProbe(LinearProbeConfig::default());
        fit::execute(&config, &inputs.context(&dir("probe"), &SilentReporter)).unwrap();
        for (path, class) in [("a, \"x\".png", b'a'), ("more/b.PNG", b'b'), ("z.png", b'c'), (".hidden/no.png", b'a')] {
            let (width, height, rgb) = picture(u32::from(class), 3);
            let format = image::ImageFormat::Png;
            let image = image::RgbImage::from_raw(width, height, rgb).unwrap();
            image.save_with_format(dir("photos").join(path), format).unwrap();
        }
        std::fs::write(dir("photos/notes.txt"), "not an image").unwrap();
        root
    }

    fn predict(root: &Path, words: &[&str], stdin: &str) -> (Result<PredictSummary, PredictError>, String, String) {
        let probe = root.join("probe");
        let mut line = vec!["predict".to_owned(), "--model".into(), probe.display().to_string()];
        line.extend(words.iter().map(|word| word.replace("ROOT", &root.display().to_string())));
        let Cli { args, json } = Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{error}"));
        let (mut out, mut err) = (vec![], vec![]);
        let stdin = stdin.replace("ROOT", &root.display().to_string());
        let result = run(&args, json, &mut stdin.as_bytes(), &mut out, &mut err);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&root.display().to_string(), "ROOT");
        (result, text(out), text(err))
    }

    #[test]
    fn folders_files_and_stdin_are_predicted_in_order() {
        let root = fixture();
        let (result, out, err) = predict(root.path(), &["ROOT/photos"], "");
        assert_eq!(result.unwrap(), PredictSummary { predicted: 3, failed: 0 });
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0].starts_with("ROOT/photos/a, \"x\".png: a ") && lines[0].ends_with(" %"), "{out}");
        assert!(lines[1].starts_with("ROOT/photos/more/b.PNG: b "), "{out}");
        assert!(lines[2].starts_with("ROOT/photos/z.png: c "), "{out}");
        assert_eq!((lines.len(), err.as_str()), (3, ""));

        let (_, piped, _) = predict(root.path(), &["-"], "ROOT/photos/more\r\n\nROOT/photos/z.png");
        assert_eq!(piped.lines().collect::<Vec<_>>().len(), 2);
        assert!(piped.contains("b.PNG: b ") && piped.contains("z.png: c "), "{piped}");
    }

    #[test]
    fn machines_get_csv_or_json() {
        let root = fixture();
        let (_, csv, _) = predict(root.path(), &["--csv", "--top", "2", "ROOT/photos/a, \"x\".png"], "");
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!((lines.len(), lines[0]), (3, "file,rank,class,probability"));
        assert!(lines[1].starts_with("\"ROOT/photos/a, \"\"x\"\".png\",1,a,0."), "{csv}");
        assert!(lines[2].contains(",2,"), "{csv}");

        let (_, json, _) = predict(root.path(), &["--json", "--top", "9", "ROOT/photos/z.png"], "");
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(line["file"], "ROOT/photos/z.png");
        let predictions = line["predictions"].as_array().unwrap();
        assert_eq!((predictions.len(), predictions[0]["class"].as_str()), (3, Some("c")));
        let total: f64 = predictions.iter().map(|p| p["probability"].as_f64().unwrap()).sum();
        assert!((total - 1.0).abs() < 1e-9);
    }

    #[test]
    fn broken_images_are_named_and_the_rest_goes_on() {
        let root = fixture();
        std::fs::write(root.path().join("photos/broken.png"), b"\x89PNG and no more").unwrap();
        std::fs::create_dir(root.path().join("empty")).unwrap();
        let words = ["ROOT/photos", "ROOT/absent.jpg", "ROOT/empty"];
        let (result, out, err) = predict(root.path(), &words, "");
        assert_eq!(result.unwrap(), PredictSummary { predicted: 3, failed: 3 });
        assert_eq!(out.lines().count(), 3);
        let lines: Vec<&str> = err.lines().collect();
        assert!(lines[0].starts_with("`ROOT/photos/broken.png`: "), "{err}");
        assert!(lines[1].starts_with("`ROOT/absent.jpg`: "), "{err}");
        assert_eq!(lines[2], "`ROOT/empty`: no images in this folder");
    }

    #[test]
    fn other_artifacts_are_refused() {
        let root = fixture();
        std::fs::remove_file(root.path().join("probe/classifier.json")).unwrap();
        let (result, ..) = predict(root.path(), &["ROOT/photos"], "");
        assert!(result.unwrap_err().to_string().contains("is not the artifact of a `fit` stage"));
    }

    #[test]
    fn stdin_is_answered_before_it_ends() {
        /// Gives one line at a time.
        struct Slow(Vec<&'static [u8]>);
        impl Read for Slow {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let Some(line) = self.0.pop() else { return Ok(0) };
                out[..line.len()].copy_from_slice(line);
                Ok(line.len())
            }
        }
        let mut stdin = Slow(vec![b"c.png\n", b"a.png\nb.png\n"]);
        let mut queue = PathQueue::new(&[PathBuf::from("first.png"), PathBuf::from("-")], &mut stdin);
        let mut next =
            || queue.next_batch(8).unwrap().into_iter().map(|e| e.unwrap().display().to_string()).collect::<Vec<_>>();
        assert_eq!(next(), ["first.png"]);
        assert_eq!(next(), ["a.png", "b.png"]);
        assert_eq!(next(), ["c.png"]);
        assert!(next().is_empty());
    }
}
