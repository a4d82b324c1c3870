//! `metrics`: headline figures from the lockfile, alone or against another state of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Serialize;

use super::{PipelineArgs, Session, compare, load, spread, table::Table};
use crate::{
    config::cell::glob,
    error::Error,
    fs::{FsError, files},
    lockfile::{LockedStage, Lockfile},
    runner::text,
};

/// Arguments of `metrics`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  simsiam-pipe metrics\n  simsiam-pipe metrics --compare HEAD~1\n  \
                        simsiam-pipe metrics --compare ../other/pipelines/intel.lock\n  \
                        simsiam-pipe metrics --over seed\n  \
                        simsiam-pipe metrics --compare exported/before runs/intel/report")]
pub struct MetricsArgs {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Compare with the lockfile at a git revision, or with another lockfile; or compare two reports, each a
    /// `summary.json` or a folder that holds one.
    #[arg(long, value_name = "REF", num_args = 1..=2)]
    pub compare: Vec<String>,
    /// Mean and standard deviation over axes of a matrix, for each combination of the others.
    #[arg(long, value_name = "AXIS", value_delimiter = ',', conflicts_with = "compare")]
    pub over: Vec<String>,
    /// Only figures whose name matches (`*` and `?` match).
    #[arg(long, value_name = "METRIC")]
    pub only: Option<String>,
    /// Write the table as Markdown, for a pull request.
    #[arg(long)]
    pub markdown: bool,
}

#[derive(Serialize)]
struct Figure {
    stage: String,
    metric: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<f64>,
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<f64>,
}

/// Prints the figures.
///
/// # Errors
/// When a lockfile cannot be read or there is no such revision.
pub fn run(args: &MetricsArgs, session: &Session) -> Result<(), Error> {
    let (mut pipeline_args, mut references) = (args.pipeline.clone(), args.compare.clone());
    // `--compare REF PIPELINE` reads like two references.
    let is_pipeline = |name: &String| Path::new(name).extension().is_some_and(|end| end == "yaml" || end == "yml");
    if pipeline_args.pipeline.is_none() && references.len() == 2 && references.last().is_some_and(is_pipeline) {
        pipeline_args.pipeline = references.pop().map(PathBuf::from);
    }
    if let [before, now] = references.as_slice() {
        return compare::run(before, now, args.only.as_deref(), args.markdown, session);
    }
    let pipeline = load::load(&pipeline_args, session)?;
    let path = Lockfile::path_for(&pipeline.path);
    let is_wanted = |metric: &str| args.only.as_ref().is_none_or(|only| glob(only, metric));
    let figures = |lockfile: &Lockfile| figures(lockfile, &is_wanted);
    let now = figures(&Lockfile::load(&path)?);
    if !args.over.is_empty() {
        return spread::run(&now, &args.over, &path, args.markdown, session);
    }
    let before = match references.first() {
        Some(reference) => Some(figures(&other_lockfile(reference, &path)?)),
        None => None,
    };
    let keys: BTreeSet<_> = now.keys().chain(before.iter().flat_map(BTreeMap::keys)).collect();
    let rows: Vec<Figure> = keys
        .into_iter()
        .map(|key| {
            let value = now.get(key).copied();
            let before = before.as_ref().and_then(|before| before.get(key).copied());
            let change = value.zip(before).map(|(value, before)| value - before);
            Figure { stage: key.0.clone(), metric: key.1.clone(), before, value, change }
        })
        .collect();
    if session.json() {
        return session.print_json(&rows);
    }
    if rows.is_empty() {
        session.note(&format!("`{}` has no figures yet", path.display()));
        return Ok(());
    }
    let compared = before.is_some();
    let mut table = Table::new(if compared {
        &["stage", "metric", "before", "now", "change"]
    } else {
        &["stage", "metric", "value"]
    });
    for row in rows {
        let spell = |value: Option<f64>| value.map_or("-".to_owned(), text::figure);
        let mut cells = vec![row.stage, row.metric];
        if compared {
            cells.push(spell(row.before));
        }
        cells.push(spell(row.value));
        if compared {
            cells.push(row.change.map_or(String::new(), |change| format!("{change:+.4}")));
        }
        table.row(cells);
    }
    session.print(&table.render_as(args.markdown, session.paint()))
}

/// Figures by stage and name.
pub(super) type Figures = BTreeMap<(String, String), f64>;

fn figures(lockfile: &Lockfile, is_wanted: &dyn Fn(&str) -> bool) -> Figures {
    let of_stage = |(name, stage): (&String, &LockedStage)| {
        let wanted = stage.metrics.iter().filter(|(metric, _)| is_wanted(metric));
        wanted.map(|(metric, value)| ((name.clone(), metric.clone()), *value)).collect::<Vec<_>>()
    };
    lockfile.stages.iter().flat_map(of_stage).collect()
}

/// A file of that name, or the lockfile at a git revision of that name.
fn other_lockfile(reference: &str, lockfile: &Path) -> Result<Lockfile, Error> {
    let file = Path::new(reference);
    if file.is_file() {
        return Ok(Lockfile::load(file)?);
    }
    // In git's words `./` is where git runs, not the top of the repository.
    let folder = files::parent_of(lockfile);
    let name = lockfile.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if reference.starts_with('-') {
        return Err(Error::usage(format!("`{reference}` is no git revision"), "name a commit, a branch or a tag"));
    }
    let output = Command::new("git")
        .arg("-C")
        .arg(&folder)
        .args(["show", &format!("{reference}:./{name}")])
        .stdin(Stdio::null())
        .output()
        .map_err(FsError::at("run", Path::new("git")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or_default().trim_start_matches("fatal: ").to_owned();
        return Err(Error::usage(
            format!("there is no file and no git revision `{reference}` with `{}`: {said}", lockfile.display()),
            "commit the lockfile, or name another revision or lockfile",
        ));
    }
    Ok(Lockfile::parse(Path::new(&format!("{reference}:{}", lockfile.display())), &output.stdout)?)
}
