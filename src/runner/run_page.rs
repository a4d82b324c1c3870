//! `runs/<pipeline>/<report>.html`: the page of a report artifact with the run beside it, graph, times and throughput.
//!
//! The artifact is the same wherever and whenever it was made, so none of this can be part of it. The page is made anew
//! when a stage that it rests on ran, when one of them is another than the page says, or when somebody has changed it; a
//! run that restores everything leaves it alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
};

use super::{RunnerError, execute::StageSummary, links, planner::parents, text};
use crate::{
    cache::{CacheEntry, CacheError, Project, Store, history::Action},
    config::{CellName, Pipeline, Stage, render_resolved},
    digest::Digest,
    fs::{FsError, files},
    graph::{BoxWords, StageGraph, inline_svg},
    report::{
        run_page::{InputView, RunMoment, RunView, STAMP_WITHIN, StageView, is_untouched, key_of, render_run_page},
        text::visible,
    },
    stage::{ArtifactKind, StageKind},
    sys::Timestamp,
};

/// Version of the page: with another one every page is made anew.
const PAGE_FORMAT: u32 = 1;
/// Where a report artifact holds its page.
const REPORT_PAGE: &str = "report.html";
/// Where a pretraining leaves how long its epochs took.
const TIMES: &str = crate::train::history::TIMES_FILE;
/// Boxes of a graph, at most; with more, the cells of a matrix share one.
const MAX_BOXES: usize = 12;
/// Lines of parameters under the pointer.
const TITLE_LINES: usize = 16;

/// A stage that a page tells of.
pub(super) struct PageStage<'a> {
    pub(super) stage: &'a Stage,
    pub(super) fingerprint: Digest,
    pub(super) entry: &'a CacheEntry,
    /// What became of it; nothing where the page belongs to no run.
    pub(super) action: Option<Action>,
}

/// A run as a whole.
pub(super) struct Moment {
    pub(super) began: Timestamp,
    pub(super) seconds: f64,
}

/// The page of a report's stage, beside its link.
pub(super) fn page_path(project: &Project, pipeline: &str, stage: &str) -> PathBuf {
    let link = project.run_link(pipeline, stage);
    let name = link.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    link.with_file_name(format!("{name}.html"))
}

/// What a page tells of: the report's stage and all that it rests on, in execution order. Nothing where one is not done.
fn stages_of<'a>(
    pipeline: &'a Pipeline,
    report: &'a Stage,
    done: &'a BTreeMap<String, (StageSummary, CacheEntry)>,
) -> Option<Vec<PageStage<'a>>> {
    let by_name: BTreeMap<&str, usize> =
        pipeline.stages.iter().enumerate().map(|(idx, stage)| (stage.name.as_str(), idx)).collect();
    let mut order: Vec<&Stage> = vec![];
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    // A stage is written down when all that it reads are.
    let mut stack: Vec<(&Stage, bool)> = vec![(report, false)];
    while let Some((stage, is_ready)) = stack.pop() {
        if is_ready {
            order.push(stage);
        } else if seen.insert(&stage.name) {
            stack.push((stage, true));
            // Otherwise in the order of the file.
            let before: BTreeSet<usize> =
                parents(stage).into_iter().filter_map(|name| by_name.get(name).copied()).collect();
            stack.extend(before.into_iter().rev().map(|idx| (&pipeline.stages[idx], false)));
        }
    }
    order
        .into_iter()
        .map(|stage| {
            let (summary, entry) = done.get(&stage.name)?;
            Some(PageStage { stage, fingerprint: summary.fingerprint, entry, action: Some(summary.action) })
        })
        .collect()
}

/// What decides whether a page tells of these stages.
fn key(stages: &[PageStage<'_>]) -> Digest {
    let mut text = format!("{PAGE_FORMAT} {}\n", env!("CARGO_PKG_VERSION"));
    for PageStage { stage, fingerprint, entry, .. } in stages {
        // Names are plain words, so that nothing runs together. Writing to a String cannot fail.
        let _ = write!(text, "{} {fingerprint} {}", stage.name, entry.artifact);
        for (input, references) in &stage.inputs {
            let _ = write!(text, " {input}={}", references.join(","));
        }
        text.push('\n');
    }
    Digest::of(text.as_bytes())
}

/// Brings the page of a report up to date. Returns where it is and, if somebody had changed it, where that copy is now;
/// nothing where the artifact has no place for a run.
pub(super) fn update(
    project: &Project,
    store: &Store,
    pipeline: &Pipeline,
    report: &Stage,
    done: &BTreeMap<String, (StageSummary, CacheEntry)>,
    moment: &Moment,
) -> Result<Option<(PathBuf, Option<PathBuf>)>, RunnerError> {
    let Some(stages) = stages_of(pipeline, report, done) else { return Ok(None) };
    let path = page_path(project, &pipeline.name, &report.name);
    if pipeline.stages.iter().any(|stage| path.file_name().is_some_and(|name| name == stage.name.as_str())) {
        // The link of that stage has this place.
        return Ok(None);
    }
    let key = key(&stages);
    let ran = stages.iter().any(|stage| stage.action == Some(Action::Executed));
    let start = files::read_start(&path, STAMP_WITHIN)?;
    // The key is cheap to look at; only where it fits is the page looked at as a whole.
    if !ran && start.is_some_and(|start| key_of(&String::from_utf8_lossy(&start)) == Some(key)) && is_ours(&path)? {
        return Ok(Some((path, None)));
    }
    let Some(page) = render(store, pipeline, &stages, Some(moment), &key)? else { return Ok(None) };
    let mut aside = None;
    if files::exists(&path) && !is_ours(&path)? {
        let to = links::aside_path(&path);
        files::rename(&path, &to)?;
        aside = Some(to);
    }
    files::write_atomic_unsynced(&path, page.as_bytes())?;
    Ok(Some((path, aside)))
}

/// Removes the page of a stage that its pipeline no longer has, if it is as it was made.
pub(super) fn remove(project: &Project, pipeline: &str, stage: &str) -> Result<(), FsError> {
    let path = page_path(project, pipeline, stage);
    if files::exists(&path) && is_ours(&path)? { files::remove_file(&path) } else { Ok(()) }
}

fn is_ours(path: &std::path::Path) -> Result<bool, FsError> {
    if files::read_link(path).is_some() || path.is_dir() {
        return Ok(false);
    }
    Ok(is_untouched(&String::from_utf8_lossy(&files::read(path)?)))
}

/// The page; the last of `stages` is the report.
pub(super) fn render(
    store: &Store,
    pipeline: &Pipeline,
    stages: &[PageStage<'_>],
    moment: Option<&Moment>,
    key: &Digest,
) -> Result<Option<String>, RunnerError> {
    let Some(report) = stages.last() else { return Ok(None) };
    let path = store.layout().object(&report.entry.artifact).join(REPORT_PAGE);
    let bytes = files::read(&path)?;
    let unfit = |message: String| CacheError::Damaged { path: path.clone(), message };
    let page = String::from_utf8(bytes).map_err(|error| unfit(error.to_string()))?;
    let (graph, is_folded) = graph(pipeline, stages);
    let view = RunView {
        moment: moment.map(|moment| words_of(moment, stages)),
        graph,
        is_folded,
        stages: stages.iter().map(view_of).collect::<Result<_, _>>()?,
        throughput: stages
            .iter()
            .filter(|stage| stage.stage.kind() == StageKind::Pretrain)
            .map(|stage| {
                let path = store.layout().object(&stage.entry.artifact).join(TIMES);
                // Logs are a convenience: without them there is no curve.
                let text = files::read_if_exists(&path).ok().flatten().unwrap_or_default();
                let lines = text.split(|byte| *byte == b'\n');
                let times = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
                (stage.stage.name.clone(), times)
            })
            .collect(),
    };
    Ok(render_run_page(&page, &view, key).map_err(|error| unfit(error.to_string()))?)
}

/// As [`render`] for an export: no run, and a key that says of what.
pub(super) fn render_exported(
    store: &Store,
    pipeline: &Pipeline,
    stages: &[PageStage<'_>],
) -> Result<Option<String>, RunnerError> {
    let is_report = stages.last().is_some_and(|stage| stage.stage.kind().output() == ArtifactKind::Report);
    if is_report { render(store, pipeline, stages, None, &key(stages)) } else { Ok(None) }
}

fn words_of(moment: &Moment, stages: &[PageStage<'_>]) -> RunMoment {
    let restored: Vec<&PageStage<'_>> = stages.iter().filter(|stage| stage.action == Some(Action::Restored)).collect();
    let saved: f64 = restored.iter().map(|stage| stage.entry.provenance.wall_seconds).sum();
    RunMoment {
        began: moment.began.to_string(),
        took: text::duration(moment.seconds),
        executed: stages.len() - restored.len(),
        restored: restored.len(),
        saved: (saved >= 0.05).then(|| text::duration(saved)),
    }
}

fn result(stage: &PageStage<'_>) -> &'static str {
    match stage.action {
        Some(Action::Restored) => "restored",
        Some(_) => "ran",
        None => "",
    }
}

fn view_of(stage: &PageStage<'_>) -> Result<StageView, RunnerError> {
    let PageStage { stage: declared, fingerprint, entry, .. } = stage;
    let made = &entry.provenance;
    let commit = made.git.as_ref().map(|git| {
        let short = git.commit.get(..12).unwrap_or(&git.commit);
        if git.dirty { format!("{short} with changes") } else { short.to_owned() }
    });
    Ok(StageView {
        name: declared.name.clone(),
        kind: declared.kind().name().to_owned(),
        result: result(stage).to_owned(),
        seconds: made.wall_seconds,
        took: text::duration(made.wall_seconds),
        peak_bytes: made.peak_rss_bytes,
        memory: if made.peak_rss_bytes > 0 { text::bytes(made.peak_rss_bytes) } else { "–".to_owned() },
        disk_bytes: entry.size,
        disk: text::bytes(entry.size),
        made: made.created.to_string(),
        host: made.host.clone(),
        device: made.device.clone(),
        version: made.tool_version.clone(),
        commit,
        inputs: declared
            .inputs
            .iter()
            .map(|(name, stages)| InputView { name: name.clone(), stages: stages.join(", ") })
            .collect(),
        artifact: entry.artifact.hex(),
        fingerprint: fingerprint.hex(),
        parameters: render_resolved(declared).map_err(RunnerError::Parameters)?,
    })
}

/// The stages as a picture, and whether cells share a box. Nothing where there is no picture to draw.
fn graph(pipeline: &Pipeline, stages: &[PageStage<'_>]) -> (Option<String>, bool) {
    let folds = stages.len() > MAX_BOXES;
    let name_of = |name: &str| if folds { CellName::parse(name).stage.to_owned() } else { name.to_owned() };
    let mut boxes: BTreeMap<String, Vec<&PageStage<'_>>> = BTreeMap::new();
    let mut drawn: Vec<Stage> = vec![];
    for page_stage in stages {
        let name = name_of(&page_stage.stage.name);
        let mut inputs = BTreeMap::new();
        for (input, references) in &page_stage.stage.inputs {
            let references: BTreeSet<String> = references.iter().map(|reference| name_of(reference)).collect();
            inputs.insert(input.clone(), references.into_iter().collect::<Vec<_>>());
        }
        match drawn.iter_mut().find(|stage| stage.name == name) {
            None => drawn.push(Stage { name: name.clone(), inputs, ..page_stage.stage.clone() }),
            Some(stage) => {
                for (input, references) in inputs {
                    let known = stage.inputs.entry(input).or_default();
                    let new: Vec<String> = references.into_iter().filter(|name| !known.contains(name)).collect();
                    known.extend(new);
                }
            }
        }
        boxes.entry(name).or_default().push(page_stage);
    }
    let words = boxes.iter().map(|(name, stages)| (name.clone(), box_words(name, stages))).collect();
    let is_folded = drawn.len() < stages.len();
    let part = Pipeline { stages: drawn, ..pipeline.clone() };
    let label = "Graph of the stages; the table of stages says the same in words.";
    let picture = StageGraph::build(&part).ok().map(|graph| inline_svg(&graph, &words, label));
    (picture, is_folded)
}

fn box_words(name: &str, stages: &[&PageStage<'_>]) -> BoxWords {
    let seconds: f64 = stages.iter().map(|stage| stage.entry.provenance.wall_seconds).sum();
    let took = text::duration(seconds);
    if let [stage] = stages {
        let result = result(stage);
        let parameters = render_resolved(stage.stage).unwrap_or_default();
        let mut lines: Vec<&str> = parameters.lines().take(TITLE_LINES + 1).collect();
        if lines.len() > TITLE_LINES {
            lines[TITLE_LINES] = "…";
        }
        let figures = text::headline(&stage.entry.metrics);
        let mut title = format!("{name}: {result} in {took}").replace(":  in", ", made in");
        if result == "restored" {
            title = format!("{name}: restored; it was made in {took}");
        }
        for line in std::iter::once(figures.as_str()).chain(lines).filter(|line| !line.is_empty()) {
            title.push('\n');
            title.push_str(&visible(line));
        }
        let status = if result.is_empty() { took } else { format!("{result}, {took}") };
        return BoxWords { tone: result.to_owned(), status, title };
    }
    let ran = stages.iter().filter(|stage| stage.action == Some(Action::Executed)).count();
    let tone = match stages.first().and_then(|stage| stage.action) {
        None => "",
        Some(_) if ran > 0 => "ran",
        Some(_) => "restored",
    };
    BoxWords {
        tone: tone.to_owned(),
        status: format!("× {}, {took}", stages.len()),
        title: format!("{name}: {} cells, of which {ran} ran; {took} in all", stages.len()),
    }
}
