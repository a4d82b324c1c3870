//! `init`: a commented starter pipeline for a folder of images.

use std::path::{Component, Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser as _};

use super::Session;
use crate::{
    augment::preset::Preset,
    error::Error,
    fs::{FsError, Ignore, files, walk},
    runner::text,
};

const STARTER: &str = include_str!("init_template.yaml");

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  simsiam-pipe init data/photos\n  simsiam-pipe init data/intel -o pipelines/intel.yaml\n\n\
                        Folders named train/test (or val), also as `seg_train/seg_train`, become training and test data."
)]
pub struct InitArgs {
    /// Folder of images; sub-folders are classes.
    #[arg(value_name = "FOLDER", required_unless_present = "show_preset")]
    pub folder: Option<PathBuf>,
    /// Where to write the pipeline (default: `pipelines/<folder>.yaml`).
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print an augmentation policy that has a name in full, as an `augment` stage, and write nothing.
    #[arg(long, value_name = "PRESET", conflicts_with_all = ["folder", "output"], value_parser = presets())]
    pub show_preset: Option<Preset>,
}

fn presets() -> impl clap::builder::TypedValueParser<Value = Preset> {
    let values = Preset::ALL.map(|preset| PossibleValue::new(preset.name()).help(preset.summary()));
    PossibleValuesParser::new(values).try_map(|name| {
        Preset::ALL.into_iter().find(|preset| preset.name() == name).ok_or_else(|| format!("no preset `{name}`"))
    })
}

/// What lies in a folder of images.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ImageTree {
    path: PathBuf,
    num_files: u64,
    classes: Vec<String>,
}

/// Writes the pipeline.
///
/// # Errors
/// When there are no images or the file exists already.
pub fn run(args: &InitArgs, session: &Session) -> Result<(), Error> {
    if let Some(preset) = args.show_preset {
        return show_preset(preset, session);
    }
    let Some(folder) = &args.folder else { return Ok(()) };
    let project = session.project()?;
    if !folder.is_dir() {
        let help = "name a folder with images in it, best with one sub-folder for each class";
        return Err(Error::usage(format!("there is no folder `{}`", folder.display()), help));
    }
    let (train, test) = detect(folder)?;
    let full = files::canonicalize(folder)?;
    let name = name_of(&full);
    let output = args.output.clone().unwrap_or_else(|| project.root.join("pipelines").join(format!("{name}.yaml")));
    let name = output.file_stem().map_or(name, |stem| stem.to_string_lossy().into_owned());
    if files::exists(&output) {
        let help = "choose another file with `-o`, or remove it first";
        return Err(Error::usage(format!("`{}` exists already", output.display()), help));
    }
    let text = render(&name, &project.root, &train, test.as_ref())?;
    files::create_dir_all(&files::parent_of(&output))?;
    files::write_new(&output, text.as_bytes())?;
    let what = |images: &ImageTree, role: &str| {
        let classes = match images.classes.len() {
            0 => "no classes".to_owned(),
            1 => "1 class".to_owned(),
            count => format!("{count} classes"),
        };
        format!("{role}: {} images, {classes} in `{}`", text::count(images.num_files), images.path.display())
    };
    session.note(&what(&train, "training"));
    match &test {
        Some(test) => session.note(&what(test, "test")),
        None => session.note("test: none found, so nothing measures how good the features are"),
    }
    let here = std::env::current_dir().unwrap_or_default();
    let shown = if output.starts_with(&here) { files::relative_path(&here, &output) } else { output.clone() };
    session.note(&format!(
        "next: simsiam-pipe run {0} --set vars.epochs=2   for a first look, then\n      simsiam-pipe run {0}",
        shown.display()
    ));
    session.print(&format!("{}\n", shown.display()))
}

/// Prints a policy written out: a stage that can be copied into a pipeline.
fn show_preset(preset: Preset, session: &Session) -> Result<(), Error> {
    // Through JSON, since serde_yaml would write choices as YAML tags, which the loader refuses.
    let with = serde_json::to_value(preset.config()).map_err(|source| Error::Render { source })?;
    if session.json() {
        return session.print_json(&with);
    }
    let yaml =
        serde_yaml::to_string(&with).map_err(|source| Error::Render { source: serde::ser::Error::custom(source) })?;
    let mut text = format!("# Preset `{}`: {}.\nviews:\n  uses: augment\n  with:\n", preset.name(), preset.summary());
    for line in yaml.lines() {
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    }
    session.print(&text)
}

/// Finds training and test images: folders named so, or else the folder itself.
fn detect(folder: &Path) -> Result<(ImageTree, Option<ImageTree>), Error> {
    let find = |words: &[&str]| -> Result<Option<ImageTree>, Error> {
        for name in files::list(folder)? {
            let lower = name.to_lowercase();
            if words.iter().any(|word| lower.split(['_', '-', ' ']).any(|part| part == *word))
                && folder.join(&name).is_dir()
            {
                let images = count(&descend(&folder.join(&name)))?;
                if images.num_files > 0 {
                    return Ok(Some(images));
                }
            }
        }
        Ok(None)
    };
    if let Some(train) = find(&["train", "training"])? {
        return Ok((train, find(&["test", "testing", "val", "valid", "validation"])?));
    }
    let all = count(folder)?;
    if all.num_files == 0 {
        let help = "JPEG, PNG, BMP, GIF, TIFF and WebP files are images";
        return Err(Error::usage(format!("`{}` holds no images", folder.display()), help));
    }
    Ok((all, None))
}

/// Archives are often packed with their folder twice: `seg_train/seg_train`.
fn descend(folder: &Path) -> PathBuf {
    match files::list(folder).as_deref() {
        Ok([only]) if Some(only.as_str()) == folder.file_name().and_then(|name| name.to_str()) => folder.join(only),
        _ => folder.to_path_buf(),
    }
}

fn count(folder: &Path) -> Result<ImageTree, FsError> {
    const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "bmp", "gif", "tif", "tiff", "webp"];
    let mut classes = Vec::new();
    let mut num_files = 0;
    for file in walk(folder, Ignore::HiddenAndDesktopFiles)? {
        let name = String::from_utf8_lossy(&file.name).into_owned();
        let extension = Path::new(&name).extension().map(|extension| extension.to_string_lossy().to_lowercase());
        if !extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str())) {
            continue;
        }
        num_files += 1;
        if let (Some(Component::Normal(class)), true) = (Path::new(&name).components().next(), name.contains('/')) {
            let class = class.to_string_lossy().into_owned();
            if classes.last() != Some(&class) {
                classes.push(class);
            }
        }
    }
    Ok(ImageTree { path: folder.to_path_buf(), num_files, classes })
}

/// A name for the pipeline that is safe in paths.
fn name_of(folder: &Path) -> String {
    let name = folder.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String = name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    let name = name.trim_matches('-').to_owned();
    if name.is_empty() { "images".to_owned() } else { name }
}

fn render(name: &str, root: &Path, train: &ImageTree, test: Option<&ImageTree>) -> Result<String, Error> {
    let path = |images: &ImageTree| -> Result<String, Error> {
        let full = files::canonicalize(&images.path)?;
        let shown = full.strip_prefix(root).unwrap_or(&full).display().to_string();
        serde_json::to_string(&shown).map_err(|source| Error::Render { source })
    };
    let labelled = test.filter(|test| !test.classes.is_empty() && !train.classes.is_empty());
    let batch_size = match train.num_files {
        0..512 => 32,
        512..4096 => 64,
        4096..20_000 => 128,
        _ => 256,
    };
    // Small sets need more passes for the same number of steps.
    let epochs = (100 * 10_000 / train.num_files.max(1)).clamp(50, 400);
    let mut text = STARTER
        .replace("{{name}}", name)
        .replace("{{train}}", &path(train)?)
        .replace("{{batch_size}}", &batch_size.to_string())
        .replace("{{epochs}}", &epochs.to_string());
    text = keep_blocks(&text, "evaluation", labelled.is_some());
    text = keep_blocks(&text, "pretraining_only", labelled.is_none());
    if let Some(test) = labelled {
        text = text.replace("{{test}}", &path(test)?);
    }
    Ok(text)
}

/// Keeps or drops the lines between `#[name` and `#]`.
fn keep_blocks(text: &str, name: &str, keep: bool) -> String {
    let mut out = String::new();
    let mut inside = false;
    for line in text.lines() {
        if line == format!("#[{name}") {
            inside = true;
        } else if inside && line == "#]" {
            inside = false;
        } else if !inside || keep {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            files::create_dir_all(path.parent().unwrap()).unwrap();
            files::write_new(&path, b"x").unwrap();
        }
        dir
    }

    #[test]
    fn the_layout_of_the_intel_scenes_is_found() {
        let dir =
            make(&["seg_train/seg_train/sea/1.jpg", "seg_train/seg_train/street/2.JPG", "seg_test/seg_test/sea/3.jpg"]);
        let (train, test) = detect(dir.path()).unwrap();
        assert_eq!(train.path, dir.path().join("seg_train/seg_train"));
        assert_eq!(train.classes, ["sea", "street"]);
        assert_eq!(test.unwrap().num_files, 1);
    }

    #[test]
    fn a_flat_folder_is_training_data_without_classes() {
        let dir = make(&["1.png", "2.webp", "notes.txt", ".hidden.png"]);
        let (train, test) = detect(dir.path()).unwrap();
        assert_eq!((train.num_files, train.classes.len(), test), (2, 0, None));
        assert!(detect(make(&["notes.txt"]).path()).is_err());
    }

    #[test]
    fn evaluation_is_written_only_with_labelled_test_images() {
        let dir = make(&["train/a/1.png", "train/b/2.png", "test/a/3.png", "flat/1.png"]);
        let root = dir.path().canonicalize().unwrap();
        let (train, test) = detect(&root).unwrap();
        let text = render("x", &root, &train, test.as_ref()).unwrap();
        assert!(
            text.contains("image_folder: \"test\"") && text.contains("linear_probe") && !text.contains("{{"),
            "{text}"
        );
        let (train, test) = detect(&root.join("flat")).unwrap();
        let text = render("x", &root, &train, test.as_ref()).unwrap();
        assert!(!text.contains("linear_probe") && !text.contains("{{") && !text.contains("#["), "{text}");
    }

    #[test]
    fn names_are_safe_in_paths() {
        assert_eq!(name_of(Path::new("/data/My Photos (2)")), "my-photos--2");
        assert_eq!(name_of(Path::new("/")), "images");
    }
}
