//! `predict`: a fitted classifier on images, with nothing but its artifact.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    Session,
    image_stream::{ImageArgs, ImageStream, ImageSummary, on_terminal, open_model, unusable, written},
};
use crate::{
    error::Error,
    eval::classifier_artifact::{CARD_FILE, ClassifierCard, csv_field},
};

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
    /// Which images.
    #[command(flatten)]
    pub images: ImageArgs,
    /// Print CSV with the header `file,rank,class,probability`, even where JSON is asked for.
    #[arg(long)]
    pub csv: bool,
    /// How many classes to name for each image, the most probable first.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub top: u32,
}

/// Predicts for the user: images from the command line and stdin, results to stdout.
///
/// # Errors
/// Where the classifier cannot be used, nobody takes the output, or some images could not be used.
pub fn command(args: &PredictArgs, session: &Session) -> Result<(), Error> {
    on_terminal(|stdin, out, err| run(args, session.json(), stdin, out, err))
}

/// Predicts every image of `args.images` and writes to `out` as it goes; what cannot be used is named on
/// `err`. `stdin` is read where an input is `-`. With `json`, each image is one JSON object on a line.
///
/// # Errors
/// Where the classifier cannot be used, stdin cannot be read or nobody takes the output.
pub fn run(
    args: &PredictArgs,
    json: bool,
    stdin: &mut dyn Read,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<ImageSummary, Error> {
    let not_fitted = || {
        Error::usage(
            format!("`{}` is not the artifact of a `fit` stage: it holds no `{CARD_FILE}`", args.model.display()),
            "give the folder of a `fit` stage, such as `runs/intel/probe`",
        )
    };
    if !args.model.join(CARD_FILE).is_file() {
        return Err(not_fitted());
    }
    let artifact = open_model(&args.model)?;
    let Some((card, head)) = &artifact.classifier else { return Err(not_fitted()) };
    let failed = |source| unusable(&args.model, source);
    let network = artifact.network().map_err(failed)?;
    let format = match (args.csv, json) {
        (true, _) => Format::Csv,
        (false, true) => Format::Json,
        (false, false) => Format::Text,
    };
    if format == Format::Csv {
        written(writeln!(out, "file,rank,class,probability"))?;
    }
    let mut images = ImageStream::new(&args.images.inputs, &network, &args.model, stdin, err);
    while let Some((batch, features)) = images.next_batch()? {
        let probabilities = head.probabilities(&features).map_err(failed)?;
        for (image, row) in batch.iter().zip(probabilities.chunks_exact(card.class_names.len())) {
            written(print(format, &image.path, &best(card, row, args.top as usize), out))?;
        }
        written(out.flush())?;
    }
    Ok(images.summary())
}

/// A class with its probability.
#[derive(Debug, PartialEq, Serialize)]
struct Prediction<'a> {
    class: &'a str,
    probability: f64,
}

/// The `top` most probable classes of a row; of equals the first.
fn best<'a>(card: &'a ClassifierCard, row: &[f64], top: usize) -> Vec<Prediction<'a>> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
    let named = |class: usize| Prediction { class: &card.class_names[class], probability: row[class] };
    order.into_iter().take(top).map(named).collect()
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

    fn predict(root: &Path, words: &[&str], stdin: &str) -> (Result<ImageSummary, Error>, String, String) {
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
        assert_eq!(result.unwrap(), ImageSummary { done: 3, failed: 0 });
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
        assert_eq!(result.unwrap(), ImageSummary { done: 3, failed: 3 });
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
}
