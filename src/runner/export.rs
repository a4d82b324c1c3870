//! An artifact and all that it was made from as a folder that stands alone.
//!
//! ```text
//! README.md            how to check and to use it
//! pipeline.yaml        the pipeline file as it is
//! resolved.yaml        the exported stages with every parameter written out: a pipeline that loads again
//! provenance.json      fingerprints, digests, figures; who made what, when, where, with which commit
//! report.html          of a report: its page with graph, times and throughput
//! artifacts/<stage>/   the artifact and each of its ancestors
//! SHA256SUMS, B3SUMS   checksums of every other file
//! ```
//!
//! The same artifacts give the same bytes: no time of the export is written.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    RunOptions, Runner, RunnerError, Selection, Verdict,
    event::Metrics,
    run_page::{self, PageStage},
};
use crate::{
    cache::{CacheEntry, CacheError, Provenance, artifact::MANIFEST},
    config::{Pipeline, Stage, resolved::render_resolved_pipeline},
    digest::Digest,
    fingerprint::StageFingerprint,
    fs::{
        TemporaryDir, files,
        sums::{FileSums, file_sums, sum_line},
        tree,
    },
    stage::StageKind,
};

/// Version of `provenance.json`.
pub const EXPORT_FORMAT: u32 = 1;

const PIPELINE: &str = "pipeline.yaml";
const RESOLVED: &str = "resolved.yaml";
const PROVENANCE: &str = "provenance.json";
const ARTIFACTS: &str = "artifacts";
const README: &str = "README.md";
const REPORT: &str = "report.html";

/// How files leave the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transfer {
    /// As copies, which share their blocks with the cache where the file system can do that.
    #[default]
    Copy,
    /// As second names of the cache's own read-only files, or as copies where that cannot be.
    HardLink,
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// The stage that was asked for.
    pub stage: String,
    /// Its artifact.
    pub artifact: Digest,
    /// The folder.
    pub folder: PathBuf,
    /// It and its ancestors in execution order.
    pub stages: Vec<String>,
    /// Number of files.
    pub files: usize,
    /// Bytes of all files.
    pub size: u64,
}

#[derive(Serialize)]
struct ExportRecord<'a> {
    format: u32,
    tool_version: &'a str,
    pipeline: &'a str,
    stage: &'a str,
    stages: BTreeMap<&'a str, StageExport<'a>>,
}

#[derive(Serialize)]
struct StageExport<'a> {
    uses: StageKind,
    inputs: &'a BTreeMap<String, Vec<String>>,
    fingerprint: Digest,
    artifact: Digest,
    metrics: &'a Metrics,
    decided_by: &'a StageFingerprint,
    provenance: &'a Provenance,
}

impl Runner<'_> {
    /// Writes the artifact of a stage and those of its ancestors into a new folder: whole, or not at all.
    ///
    /// # Errors
    /// When the folder is not empty, something is not up to date or damaged, or the disk fails.
    pub fn export(
        &self,
        pipeline: &Pipeline,
        stage: &str,
        folder: &Path,
        transfer: Transfer,
    ) -> Result<Exported, RunnerError> {
        if files::exists(folder) && !is_empty_dir(folder) {
            return Err(RunnerError::TargetTaken { path: folder.to_path_buf() });
        }
        let entries = self.up_to_date(pipeline, stage)?;
        let Some((_, _, asked)) = entries.last() else {
            return Err(RunnerError::NotUpToDate { stages: vec![stage.to_owned()] });
        };
        let parent = files::parent_of(folder);
        files::create_dir_all(&parent)?;
        crate::fs::sweep_temporaries(&parent);
        let temp = TemporaryDir::for_path(folder)?;
        let mut sums = BTreeMap::new();
        for (stage, _, entry) in &entries {
            self.export_artifact(&stage.name, &entry.artifact, temp.path(), transfer, &mut sums)?;
        }
        let names: Vec<&str> = entries.iter().map(|(stage, ..)| stage.name.as_str()).collect();
        let record = ExportRecord {
            format: EXPORT_FORMAT,
            tool_version: env!("CARGO_PKG_VERSION"),
            pipeline: &pipeline.name,
            stage,
            stages: entries
                .iter()
                .map(|(stage, fingerprint, entry)| {
                    let exported = StageExport {
                        uses: stage.kind(),
                        inputs: &stage.inputs,
                        fingerprint: *fingerprint,
                        artifact: entry.artifact,
                        metrics: &entry.metrics,
                        decided_by: &entry.fingerprint,
                        provenance: &entry.provenance,
                    };
                    (stage.name.as_str(), exported)
                })
                .collect(),
        };
        let mut record = serde_json::to_vec_pretty(&record)
            .map_err(|error| CacheError::Damaged { path: folder.join(PROVENANCE), message: error.to_string() })?;
        record.push(b'\n');
        let page_stages: Vec<PageStage<'_>> = entries
            .iter()
            .map(|(stage, fingerprint, entry)| PageStage { stage, fingerprint: *fingerprint, entry, action: None })
            .collect();
        let page = run_page::render_exported(self.store, pipeline, &page_stages)?;
        let texts = [
            (PIPELINE, files::read(&pipeline.path)?),
            (RESOLVED, render_resolved_pipeline(pipeline, &names)?.into_bytes()),
            (PROVENANCE, record),
            (README, readme(pipeline, stage, page.is_some()).into_bytes()),
        ];
        let texts = texts.into_iter().chain(page.map(|page| (REPORT, page.into_bytes())));
        for (name, text) in texts {
            let path = temp.path().join(name);
            files::write_new(&path, &text)?;
            sums.insert(name.to_owned(), file_sums(&path)?);
        }
        write_sums(temp.path(), &sums)?;
        let size = tree_size(temp.path())?;
        self.stop_if_asked()?;
        temp.persist(folder)?;
        Ok(Exported {
            stage: stage.to_owned(),
            artifact: asked.artifact,
            folder: folder.to_path_buf(),
            stages: names.into_iter().map(str::to_owned).collect(),
            files: sums.len() + 2,
            size,
        })
    }

    /// The folder of a stage's artifact in the cache. Nobody deletes it while this process lives.
    ///
    /// # Errors
    /// When there is no such stage, or it is not up to date.
    pub fn artifact_dir(&self, pipeline: &Pipeline, stage: &str) -> Result<PathBuf, RunnerError> {
        let entries = self.up_to_date(pipeline, stage)?;
        let (_, _, asked) =
            entries.last().ok_or_else(|| RunnerError::NotUpToDate { stages: vec![stage.to_owned()] })?;
        Ok(self.store.layout().object(&asked.artifact))
    }

    /// A stage and its ancestors with what the cache holds of them, in execution order. Nobody deletes that while
    /// this process lives.
    pub(super) fn up_to_date<'a>(
        &self,
        pipeline: &'a Pipeline,
        stage: &str,
    ) -> Result<Vec<(&'a Stage, Digest, CacheEntry)>, RunnerError> {
        if pipeline.stage(stage).is_none() {
            let known = pipeline.stages.iter().map(|stage| stage.name.clone()).collect();
            return Err(RunnerError::UnknownStage { pattern: stage.to_owned(), known });
        }
        let selection = Selection { stages: vec![stage.to_owned()], ..Selection::default() };
        let plan = self.plan(pipeline, &RunOptions { selection, ..RunOptions::default() })?;
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for planned in &plan.stages {
            let entry = match (&planned.verdict, planned.fingerprint) {
                (Verdict::Hit { artifact, .. }, Some(fingerprint)) if self.store.pin(artifact)? => {
                    self.store.entry(&fingerprint)?.map(|entry| (fingerprint, entry))
                }
                _ => None,
            };
            match (pipeline.stage(&planned.stage), entry) {
                (Some(stage), Some((fingerprint, entry))) => found.push((stage, fingerprint, entry)),
                _ => missing.push(planned.stage.clone()),
            }
        }
        if missing.is_empty() { Ok(found) } else { Err(RunnerError::NotUpToDate { stages: missing }) }
    }

    fn export_artifact(
        &self,
        stage: &str,
        artifact: &Digest,
        folder: &Path,
        transfer: Transfer,
        sums: &mut BTreeMap<String, FileSums>,
    ) -> Result<(), RunnerError> {
        let object = self.store.layout().object(artifact);
        let manifest = self.store.manifest(artifact)?;
        for name in manifest.files.keys().map(String::as_str).chain([MANIFEST]) {
            self.stop_if_asked()?;
            let exported = format!("{ARTIFACTS}/{stage}/{name}");
            let (from, to) = (object.join(name), folder.join(&exported));
            files::create_dir_all(&files::parent_of(&to))?;
            match transfer {
                Transfer::Copy => tree::copy_file(&from, &to)?,
                Transfer::HardLink => tree::link_or_copy_file(&from, &to)?,
            }
            files::sync_file(&to)?;
            let found = file_sums(&to)?;
            if manifest.files.get(name).is_some_and(|file| file.digest != found.blake3) {
                return Err(CacheError::Damaged { path: from, message: "it has other bytes".into() }.into());
            }
            sums.insert(exported, found);
        }
        Ok(())
    }

    fn stop_if_asked(&self) -> Result<(), RunnerError> {
        match self.cancel.signal() {
            Some(signal) => Err(RunnerError::Cancelled { signal }),
            None => Ok(()),
        }
    }
}

fn is_empty_dir(path: &Path) -> bool {
    path.is_dir() && tree::is_empty_dir(path)
}

fn tree_size(folder: &Path) -> Result<u64, RunnerError> {
    let mut size = 0;
    for name in tree::entries_below(folder)? {
        size += files::size_and_mtime(&folder.join(name))?.0;
    }
    Ok(size)
}

fn write_sums(folder: &Path, sums: &BTreeMap<String, FileSums>) -> Result<(), RunnerError> {
    let lines = |of: &dyn Fn(&FileSums) -> String| {
        sums.iter().map(|(name, sums)| sum_line(&of(sums), name)).collect::<String>().into_bytes()
    };
    files::write_new(&folder.join("SHA256SUMS"), &lines(&|sums| sums.sha256.clone()))?;
    files::write_new(&folder.join("B3SUMS"), &lines(&|sums| sums.blake3.hex()))?;
    Ok(())
}

fn readme(pipeline: &Pipeline, stage: &str, has_page: bool) -> String {
    let page = if has_page { format!("- `{REPORT}` is the page to open.\n") } else { String::new() };
    format!(
        "# `{stage}` of `{name}`, with all that it was made from\n\n\
         Written by simsiam-pipe {version}.\n\n\
         {page}- `{ARTIFACTS}/{stage}/` is the artifact; beside it is each stage that it depends on.\n\
         - `{RESOLVED}` is the pipeline of these stages with every parameter written out, `{PIPELINE}` the file as \
         it was written.\n\
         - `{PROVENANCE}` says who made what, when and where.\n\n\
         To check that every byte is as it was: `sha256sum -c SHA256SUMS` or `b3sum -c B3SUMS` in this folder.\n",
        name = pipeline.name,
        version = env!("CARGO_PKG_VERSION"),
    )
}
