//! The whole way from bytes to a checked pipeline.

use std::{collections::BTreeMap, fmt::Display, path::Path, str::FromStr};

use super::{
    cells::Cell,
    config_error::{ConfigErrors, ConfigWarning},
    findings::{Finding, Findings},
    inputs,
    load::{self, Budget},
    node::{Node, NodeValue},
    overrides::{self, TOP_KEYS},
    pipeline::{Pipeline, Stage},
    schema::{FORMAT_VERSION, strict_seed_schema},
    semantics,
    source::Span,
    stage_check::{self, StageDraft},
    substitute,
    suggest::did_you_mean,
    walk::{At, Places, Walker},
    warnings,
};
use crate::compute::{DeviceChoice, Precision};

/// A pipeline and what is allowed in it but probably not meant.
#[derive(Clone, Debug)]
pub struct LoadedPipeline {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// What the user may want to change.
    pub warnings: Vec<ConfigWarning>,
}

/// Reads a pipeline from the bytes of its file.
///
/// `source_name` is the file as messages name it, `overrides` are the arguments of `--set`, `env` looks up a
/// variable of the environment. No file, clock or environment is touched.
///
/// # Errors
/// All mistakes at once, in the order of the file.
pub fn load_pipeline(
    source_name: &Path,
    bytes: &[u8],
    overrides: &[String],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<LoadedPipeline, ConfigErrors> {
    let mut findings = Findings::default();
    let pipeline = load(source_name, bytes, overrides, env, &mut findings);
    let (errors, warnings) = findings.finish();
    match pipeline {
        Some(pipeline) if errors.is_empty() => Ok(LoadedPipeline { pipeline, warnings }),
        _ => Err(ConfigErrors::new(source_name.display().to_string(), errors)),
    }
}

fn load(
    source_name: &Path,
    bytes: &[u8],
    overrides: &[String],
    env: &dyn Fn(&str) -> Option<String>,
    findings: &mut Findings,
) -> Option<Pipeline> {
    // Editors on Windows begin files with a byte order mark.
    let bytes = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(bytes);
    let (text, finding) = load::decode(bytes);
    let source = findings.sources.add(source_name.display().to_string(), text);
    if let Some(finding) = finding {
        findings.error(finding);
        return None;
    }
    let mut budget = Budget::default();
    let root = load::parse(source, findings, &mut budget);
    let mut root = check_root(root, findings)?;
    overrides::apply(&mut root, overrides, findings, &mut budget);
    let substituted = substitute::substitute(&mut root, env, findings, &mut budget);
    let before_vars_warning = findings.num_errors();
    let pipeline = check_pipeline(source_name, &root, &substituted.cells, findings);
    if findings.num_errors() == before_vars_warning {
        warnings::unused_vars(&root, &substituted.used_vars, findings);
    }
    pipeline
}

/// A pipeline file is one mapping.
fn check_root(root: Option<Node>, findings: &mut Findings) -> Option<Node> {
    let example = "write at least\n\nversion: 1\nstages:\n  data:\n    uses: ingest\n    with: { source: { image_folder: PATH } }\n\nor let `simsiam-pipe init` write a pipeline for a folder of images";
    let Some(root) = root else {
        if findings.num_errors() == 0 {
            findings.error(Finding::new("config::empty", Span::default(), "the file is empty").help(example));
        }
        return None;
    };
    match &root.value {
        NodeValue::Map(_) => Some(root),
        NodeValue::Scalar(_) if root.is_null() => {
            findings.error(Finding::new("config::empty", Span::default(), "the file is empty").help(example));
            None
        }
        _ => {
            let message = format!("a pipeline must be a mapping, but this is {}", root.describe());
            findings.error(Finding::new("config::type", root.span, message).label("not a mapping").help(example));
            None
        }
    }
}

fn check_pipeline(source_name: &Path, root: &Node, cells: &[Cell], findings: &mut Findings) -> Option<Pipeline> {
    for entry in root.entries().iter().filter(|entry| !TOP_KEYS.contains(&entry.key.as_str())) {
        let message = format!("a pipeline has no key `{}`", super::node::shorten(&entry.key));
        let help = did_you_mean(&entry.key, "it may have", TOP_KEYS);
        findings
            .error(Finding::new("config::unknown_key", entry.key_span, message).label("unknown key").maybe_help(help));
    }
    check_version(root, findings);
    let name = check_pipeline_name(source_name, root, findings);
    let seed = match root.get("seed") {
        None => Some(0),
        Some(entry) => {
            let at = At::top("seed", entry.key_span);
            let mut places = Places::new();
            let mut walker = Walker { findings, places: &mut places, owner: "", top: strict_seed_schema() };
            walker.check(&entry.value, strict_seed_schema(), &at).and_then(|seed| seed.as_u64())
        }
    };
    let device = check_word::<DeviceChoice>(root, "device", findings);
    let precision = check_word::<Precision>(root, "precision", findings);
    if let Some(vars) = root.get("vars")
        && !matches!(vars.value.value, NodeValue::Map(_))
        && !vars.value.is_null()
    {
        let message = format!("`vars` must be a mapping, but is {}", vars.value.describe());
        findings.error(
            Finding::new("config::type", vars.value.span.or(vars.key_span), message)
                .label("not a mapping")
                .help("write `vars: { NAME: VALUE }`"),
        );
    }
    let stages = check_stages(root, cells, findings)?;
    if findings.num_errors() > 0 {
        return None;
    }
    let seed = seed?;
    let stages = finish_stages(stages, seed, findings)?;
    Some(Pipeline { name: name?, seed, device: device?, precision: precision?, path: source_name.to_owned(), stages })
}

/// A key at the top that is one of a few words; its default where it is not there.
fn check_word<T: FromStr<Err: Display> + Default>(root: &Node, key: &str, findings: &mut Findings) -> Option<T> {
    let Some(entry) = root.get(key) else { return Some(T::default()) };
    if entry.value.is_invalid() {
        return None;
    }
    let span = entry.value.span.or(entry.key_span);
    let NodeValue::Scalar(scalar) = &entry.value.value else {
        let message = format!("`{key}` must be a word, but is {}", entry.value.describe());
        findings.error(Finding::new("config::type", span, message).label("not a word"));
        return None;
    };
    match scalar.text.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            findings.error(Finding::new("config::value", span, error.to_string()).label("unknown"));
            None
        }
    }
}

fn check_version(root: &Node, findings: &mut Findings) {
    let Some(entry) = root.get("version") else {
        // The first key, since nothing else is there to point at.
        let span = root.entries().first().map_or(root.span, |entry| entry.key_span);
        findings.error(
            Finding::new("config::version", span, "`version` is missing")
                .label("the file begins here")
                .help(format!("add `version: {FORMAT_VERSION}` as the first line")),
        );
        return;
    };
    if entry.value.is_invalid() {
        return;
    }
    let span = entry.value.span.or(entry.key_span);
    let written = match &entry.value.value {
        NodeValue::Scalar(scalar) => scalar.text.as_str(),
        _ => "",
    };
    let number: Option<u64> = written.parse().ok();
    let finding = match number {
        Some(version) if version == u64::from(FORMAT_VERSION) => return,
        Some(version) if version > u64::from(FORMAT_VERSION) => {
            let message = format!("version {version} is newer than this program, which reads {FORMAT_VERSION}");
            Finding::new("config::version", span, message)
                .label("newer")
                .help(format!("upgrade simsiam-pipe, or write `version: {FORMAT_VERSION}` if that is what the file is"))
        }
        _ => {
            let message = format!("`version` must be {FORMAT_VERSION}, but is {}", entry.value.describe());
            Finding::new("config::version", span, message)
                .label("unknown version")
                .help(format!("write `version: {FORMAT_VERSION}`"))
        }
    };
    findings.error(finding);
}

fn check_pipeline_name(source_name: &Path, root: &Node, findings: &mut Findings) -> Option<String> {
    let Some(entry) = root.get("name") else {
        let stem = source_name.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let span = root.entries().first().map_or(root.span, |entry| entry.key_span);
        let before = findings.num_errors();
        let mut scratch = Findings::default();
        if !stage_check::check_name(&stem, span, "pipeline", &mut scratch) {
            let message = format!("the file's name `{stem}` cannot be the pipeline's name");
            findings.error(
                Finding::new("config::name", span, message)
                    .label("the file begins here")
                    .help("add `name: NAME` with letters, digits, `_`, `-` and `.`, or rename the file"),
            );
        }
        return (findings.num_errors() == before).then_some(stem);
    };
    if entry.value.is_invalid() {
        return None;
    }
    let span = entry.value.span.or(entry.key_span);
    let NodeValue::Scalar(scalar) = &entry.value.value else {
        let message = format!("`name` must be text, but is {}", entry.value.describe());
        findings.error(Finding::new("config::type", span, message).label("not text"));
        return None;
    };
    stage_check::check_name(&scalar.text, span, "pipeline", findings).then(|| scalar.text.clone())
}

fn check_stages<'n>(root: &Node, cells: &'n [Cell], findings: &mut Findings) -> Option<Vec<StageDraft<'n>>> {
    let help = "a stage is written `NAME: { uses: KIND, inputs: {…}, with: {…} }`";
    let Some(entry) = root.get("stages") else {
        let span = root.entries().first().map_or(root.span, |entry| entry.key_span);
        findings.error(
            Finding::new("config::missing_key", span, "`stages` is missing").label("the file begins here").help(help),
        );
        return None;
    };
    let span = entry.value.span.or(entry.key_span);
    match &entry.value.value {
        NodeValue::Map(entries) if !entries.is_empty() => {}
        NodeValue::Invalid => return None,
        NodeValue::Map(_) => {
            findings.error(Finding::new("config::no_stages", span, "`stages` is empty").label("no stage").help(help));
            return None;
        }
        _ if entry.value.is_null() => {
            findings.error(Finding::new("config::no_stages", span, "`stages` is empty").label("no stage").help(help));
            return None;
        }
        _ => {
            let message = format!("`stages` must be a mapping, but is {}", entry.value.describe());
            findings.error(Finding::new("config::type", span, message).label("not a mapping").help(help));
            return None;
        }
    }
    let mut drafts: Vec<StageDraft<'n>> = cells.iter().map(|cell| stage_check::check(cell, findings)).collect();
    check_case(&drafts, findings);
    inputs::check(&mut drafts, findings);
    for draft in &drafts {
        semantics::check(draft, findings);
    }
    semantics::check_edges(&drafts, findings);
    if findings.num_errors() == 0 {
        warnings::check(&drafts, findings);
    }
    Some(drafts)
}

/// Results of stages lie in folders of their names, and some file systems take `Train` and `train` for one.
fn check_case(drafts: &[StageDraft<'_>], findings: &mut Findings) {
    let mut seen: BTreeMap<String, &StageDraft<'_>> = BTreeMap::new();
    for draft in drafts {
        if let Some(first) = seen.insert(draft.name.to_lowercase(), draft)
            && first.name != draft.name
        {
            let message = format!("stages `{}` and `{}` differ only in case", first.name, draft.name);
            findings.error(
                Finding::new("config::name", draft.name_span, message)
                    .label("differs only in case")
                    .also(first.name_span, "from this")
                    .help("rename one of the two: their folders would be one on some systems"),
            );
        }
    }
}

fn finish_stages(drafts: Vec<StageDraft<'_>>, seed: u64, findings: &Findings) -> Option<Vec<Stage>> {
    let names: Vec<String> = drafts.iter().map(|draft| draft.cell_name.clone()).collect();
    drafts
        .into_iter()
        .map(|draft| {
            let inputs = draft
                .inputs
                .into_iter()
                .filter(|(_, refs)| !refs.is_empty())
                .map(|(input, refs)| (input, refs.iter().map(|reference| names[reference.stage].clone()).collect()))
                .collect();
            let places = draft
                .places
                .into_iter()
                .filter_map(|(path, spans)| Some((path, findings.sources.place_in_file(spans.key)?)))
                .collect();
            Some(Stage {
                name: draft.cell_name,
                config: draft.config?,
                inputs,
                seed: draft.seed.unwrap_or(seed),
                places,
            })
        })
        .collect()
}
