//! Finds and loads the pipeline that a command is about.

use std::path::{Path, PathBuf};

use super::{PipelineArgs, Session};
use crate::{
    cache::Project,
    config::Pipeline,
    error::{ConfigFailure, Error},
    fs::files,
};

/// Loads the pipeline, showing warnings.
///
/// # Errors
/// When there is none, or it is wrong: then with every mistake.
pub fn load(args: &PipelineArgs, session: &Session) -> Result<Pipeline, Error> {
    let path = find(args.pipeline.as_deref(), session)?;
    let bytes = files::read(&path)?;
    parse(&path, &bytes, &args.set)
}

/// The given file, or the one that there is no doubt about.
fn find(given: Option<&Path>, session: &Session) -> Result<PathBuf, Error> {
    let help = "name the pipeline file, or write one with `simsiam-pipe init FOLDER`";
    if let Some(path) = given {
        return if path.is_dir() {
            Err(Error::usage(format!("`{}` is a folder, not a pipeline file", path.display()), help))
        } else if path.exists() {
            Ok(path.to_path_buf())
        } else {
            Err(Error::usage(format!("there is no file `{}`", path.display()), similar(path).unwrap_or(help.into())))
        };
    }
    let Project { root, .. } = session.project()?;
    // Relative to where the user is, since messages and places repeat it.
    let here = std::env::current_dir().unwrap_or_default();
    let shown = |path: PathBuf| {
        if path.starts_with(&here) { files::relative_path(&here, &path) } else { path }
    };
    let single = root.join("pipeline.yaml");
    if single.is_file() {
        return Ok(shown(single));
    }
    let folder = root.join("pipelines");
    let found: Vec<PathBuf> = files::list(&folder)?
        .into_iter()
        .filter(|name| is_yaml(Path::new(name)))
        .map(|name| folder.join(name))
        .collect();
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(shown(path)),
        Err(found) if found.is_empty() => Err(Error::usage("there is no pipeline here", help)),
        Err(found) => {
            let list: Vec<_> = found.into_iter().map(|path| format!("`{}`", shown(path).display())).collect();
            Err(Error::usage(format!("which pipeline? there are {}", list.join(", ")), "name one of them"))
        }
    }
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn similar(path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_string_lossy().into_owned();
    let folder = files::parent_of(path);
    let names = files::list(&folder).ok()?;
    let near = names
        .iter()
        .filter(|name| is_yaml(Path::new(name.as_str())))
        .min_by_key(|name| strsim::levenshtein(name, &wanted))?;
    let close = strsim::normalized_levenshtein(near, &wanted) > 0.5;
    close.then(|| format!("did you mean `{}`?", folder.join(near).display()))
}

// Stands in for `config::load_pipeline` until that is here: no places, no substitution, first mistake only.
fn parse(path: &Path, bytes: &[u8], _set: &[String]) -> Result<Pipeline, Error> {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use crate::{
        config::Stage,
        stage::{StageConfig, StageKind},
    };

    #[derive(Deserialize)]
    struct PipelineText {
        name: Option<String>,
        #[serde(default)]
        seed: u64,
        stages: serde_yaml::Mapping,
    }
    #[derive(Deserialize)]
    struct StageText {
        uses: StageKind,
        #[serde(default)]
        inputs: BTreeMap<String, serde_json::Value>,
        #[serde(default)]
        with: serde_json::Value,
        seed: Option<u64>,
    }
    let failure = |message: String| {
        let summary = format!("`{}`: {message}", path.display());
        Error::Config(ConfigFailure { rendered: format!("error: {summary}"), summary })
    };
    let text: PipelineText = serde_yaml::from_slice(bytes).map_err(|error| failure(error.to_string()))?;
    let mut stages = Vec::new();
    for (name, value) in text.stages {
        let name = name.as_str().unwrap_or_default().to_owned();
        let stage: StageText = serde_yaml::from_value(value).map_err(|error| failure(format!("{name}: {error}")))?;
        let with = if stage.with.is_null() { serde_json::json!({}) } else { stage.with };
        let config = match stage.uses {
            StageKind::Ingest => serde_json::from_value(with).map(StageConfig::Ingest),
            StageKind::Augment => serde_json::from_value(with).map(StageConfig::Augment),
            StageKind::Pretrain => serde_json::from_value(with).map(StageConfig::Pretrain),
            StageKind::Extract => serde_json::from_value(with).map(StageConfig::Extract),
            StageKind::Fit => serde_json::from_value(with).map(StageConfig::Fit),
            StageKind::Report => serde_json::from_value(with).map(StageConfig::Report),
            StageKind::Command => serde_json::from_value(with).map(StageConfig::Command),
        };
        let config = config.map_err(|error| failure(format!("{name}: {error}")))?;
        let inputs = stage.inputs.into_iter().map(|(key, value)| {
            let names = match value {
                serde_json::Value::Array(items) => {
                    items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
                }
                value => value.as_str().map(str::to_owned).into_iter().collect(),
            };
            (key, names)
        });
        let seed = stage.seed.unwrap_or(text.seed);
        stages.push(Stage { name, config, inputs: inputs.collect(), seed, places: BTreeMap::new() });
    }
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = text.name.or(stem).unwrap_or_default();
    Ok(Pipeline { name, seed: text.seed, path: path.to_path_buf(), stages })
}
