//! A stage to execute as one self-contained, versioned description: all that a process needs which knows neither
//! pipeline nor cache, on this machine or on another that sees the same folders.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    compute::{Compute, DeviceChoice, Precision},
    digest::Digest,
    stage::{InputArtifact, StageConfig, StageContext, StageKind, StageReporter, earlier::Earlier},
};

/// Version of the description and of the events that answer it. Raised with every field: a worker of another
/// version refuses.
pub const JOB_VERSION: u32 = 2;

/// A stage to execute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "JobRecord", into = "JobRecord")]
pub struct StageJob {
    /// What decides the result, for whoever schedules jobs.
    pub fingerprint: Digest,
    /// Name of the pipeline, for titles only.
    pub pipeline: String,
    /// Name of the stage, for titles only.
    pub stage: String,
    /// Kind and resolved parameters.
    pub config: StageConfig,
    /// Inputs by the name under which the stage asks for them.
    pub inputs: BTreeMap<String, Vec<InputArtifact>>,
    /// Where outputs go; empty.
    pub out_dir: PathBuf,
    /// Where checkpoints survive a kill.
    pub work_dir: PathBuf,
    /// Relative paths in the parameters start here.
    pub project_root: PathBuf,
    /// Seed of everything random.
    pub seed: u64,
    /// What the stage may take from an earlier artifact. Decides nothing but the time.
    pub earlier: Option<Earlier>,
    /// How many threads to use. Decides nothing but the time.
    pub threads: usize,
    /// What computes.
    pub device: DeviceChoice,
    /// How a GPU computes.
    pub precision: Precision,
}

impl StageJob {
    /// What the stage sees, which trains and embeds on `compute`.
    pub fn context<'a>(&'a self, compute: &'a Compute, reporter: &'a dyn StageReporter) -> StageContext<'a> {
        StageContext {
            pipeline: &self.pipeline,
            stage: &self.stage,
            inputs: &self.inputs,
            out_dir: &self.out_dir,
            work_dir: &self.work_dir,
            project_root: &self.project_root,
            seed: self.seed,
            earlier: self.earlier.as_ref(),
            compute,
            reporter,
        }
    }
}

/// The description as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobRecord {
    version: u32,
    fingerprint: Digest,
    pipeline: String,
    stage: String,
    uses: StageKind,
    with: Value,
    inputs: BTreeMap<String, Vec<InputArtifact>>,
    out_dir: PathBuf,
    work_dir: PathBuf,
    project_root: PathBuf,
    seed: u64,
    earlier: Option<Earlier>,
    threads: usize,
    device: DeviceChoice,
    precision: Precision,
}

impl From<StageJob> for JobRecord {
    fn from(job: StageJob) -> Self {
        Self {
            version: JOB_VERSION,
            fingerprint: job.fingerprint,
            pipeline: job.pipeline,
            stage: job.stage,
            uses: job.config.kind(),
            // Validation has refused numbers that are not finite; of null no worker makes parameters.
            with: job.config.to_json().unwrap_or(Value::Null),
            inputs: job.inputs,
            out_dir: job.out_dir,
            work_dir: job.work_dir,
            project_root: job.project_root,
            seed: job.seed,
            earlier: job.earlier,
            threads: job.threads,
            device: job.device,
            precision: job.precision,
        }
    }
}

impl TryFrom<JobRecord> for StageJob {
    type Error = serde_json::Error;

    fn try_from(record: JobRecord) -> Result<Self, Self::Error> {
        if record.version != JOB_VERSION {
            let message = format!("version {} is not {JOB_VERSION}, the one that is known here", record.version);
            return Err(serde::de::Error::custom(message));
        }
        Ok(Self {
            fingerprint: record.fingerprint,
            pipeline: record.pipeline,
            stage: record.stage,
            config: StageConfig::from_json(record.uses, record.with)?,
            inputs: record.inputs,
            out_dir: record.out_dir,
            work_dir: record.work_dir,
            project_root: record.project_root,
            seed: record.seed,
            earlier: record.earlier,
            threads: record.threads,
            device: record.device,
            precision: record.precision,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stage::earlier::{SourceFiles, StoredFolder};

    fn job(kind: StageKind, with: Value) -> StageJob {
        let input = InputArtifact { stage: "a".into(), digest: Digest::of(b"a"), dir: "/cache/a".into() };
        let stored = StoredFolder { dir: "/cache/old".into(), files: [("a".into(), Digest::of(b"a"))].into() };
        let files = SourceFiles { then: stored.files.clone(), now: BTreeMap::new() };
        StageJob {
            fingerprint: Digest::of(b"f"),
            pipeline: "p".into(),
            stage: "s".into(),
            config: StageConfig::from_json(kind, with).unwrap(),
            inputs: [("dataset".to_owned(), vec![input])].into(),
            out_dir: "/out".into(),
            work_dir: "/work".into(),
            project_root: "/project".into(),
            seed: u64::MAX,
            earlier: Some(Earlier {
                artifact: stored.clone(),
                inputs: [("dataset".into(), vec![stored])].into(),
                images: Some(files),
            }),
            threads: 3,
            device: DeviceChoice::Cuda(1),
            precision: Precision::F16,
        }
    }

    #[test]
    fn a_job_of_each_kind_survives_the_way_to_another_process() {
        for (kind, with) in [
            (StageKind::Ingest, json!({"source": {"image_folder": "data/x"}})),
            (StageKind::Augment, json!({"image_size": 64, "ops": [{"color_jitter": {"brightness": 0.4}}]})),
            (StageKind::Pretrain, json!({"backbone": {"resnet18": {}}, "optimizer": {"sgd": {"base_lr": 0.1}}})),
            (StageKind::Extract, json!({})),
            (StageKind::Fit, json!({"knn": {"k": 20}})),
            (StageKind::Report, json!({"title": "t"})),
            (StageKind::Command, json!({"run": ["true"], "outputs": ["x"]})),
        ] {
            let job = job(kind, with);
            let line = serde_json::to_string(&job).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<StageJob>(&line).unwrap(), job);
        }
    }

    #[test]
    fn another_version_and_unknown_fields_are_refused() {
        let mut record = serde_json::to_value(job(StageKind::Extract, json!({}))).unwrap();
        record["version"] = json!(JOB_VERSION + 1);
        let error = serde_json::from_value::<StageJob>(record.clone()).unwrap_err();
        assert_eq!(error.to_string(), "version 3 is not 2, the one that is known here");
        record["version"] = json!(JOB_VERSION);
        record["gpu"] = json!(0);
        assert!(serde_json::from_value::<StageJob>(record).unwrap_err().to_string().contains("unknown field `gpu`"));
    }
}
