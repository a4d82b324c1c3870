//! Finds and loads the pipeline that a command is about.

use std::path::{Path, PathBuf};

use super::{PipelineArgs, Session};
use crate::{
    cache::Project,
    config::{Pipeline, load_pipeline},
    error::Error,
    fs::files,
};

/// Loads the pipeline, showing warnings.
///
/// # Errors
/// When there is none, or it is wrong: then with every mistake.
pub fn load(args: &PipelineArgs, session: &Session) -> Result<Pipeline, Error> {
    let path = find(args.pipeline.as_deref(), session)?;
    let bytes = files::read(&path)?;
    let loaded = load_pipeline(&path, &bytes, &args.set, &|name| std::env::var(name).ok())?;
    for warning in loaded.warnings {
        let record = warning.record();
        let help = record.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        session.warn(&format!("{}:{}:{}: {}{help}", record.file, record.line, record.column, record.message));
    }
    Ok(loaded.pipeline)
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
    // The root may lie far above: what lies beside the user comes first.
    if let Some(single) = [&here, &root].into_iter().map(|folder| folder.join("pipeline.yaml")).find(|it| it.is_file())
    {
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
        Err(found) if found.is_empty() => {
            let message = format!(
                "there is no pipeline here: neither `pipeline.yaml` nor a file in `pipelines/` of `{}`",
                root.display()
            );
            Err(Error::usage(message, help))
        }
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
