//! What will become of each stage, and why: pure decisions.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::{event::Metrics, planner::parents};
use crate::{
    cache::{CacheEntry, CacheStatus},
    config::{Pipeline, Place, Stage},
    digest::Digest,
    fingerprint::{
        FieldChange, StageFingerprint,
        diff::{self, CONTENT_OF},
    },
    stage::{StageKind, forecast::Forecast},
    sys::Timestamp,
};

/// What will become of every selected stage.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Plan {
    /// Name of the pipeline.
    pub pipeline: String,
    /// The selected stages in execution order.
    pub stages: Vec<PlannedStage>,
    /// What those that run will cost, as far as earlier runs and shapes tell.
    pub cost: Cost,
}

/// What stages will cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Cost {
    /// Number of stages that will or may run.
    pub stages: usize,
    /// How many of them have nothing to go by.
    pub without_estimate: usize,
    /// How many are estimated by the shapes of their work, for want of an earlier run.
    pub by_shapes: usize,
    /// Seconds of all that have an estimate, one after the other.
    pub seconds: f64,
    /// How many stages may run at a time.
    pub jobs: usize,
    /// Seconds until all are done, with so many at a time that do not slow each other down.
    pub elapsed_seconds: f64,
    /// Most memory that one of them will hold, in bytes.
    pub peak_memory_bytes: u64,
    /// Bytes of their artifacts.
    pub disk_bytes: u64,
}

/// What a stage will cost.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Estimate {
    /// What says so.
    #[serde(flatten)]
    pub basis: Basis,
    /// How long it will take, in seconds.
    pub seconds: f64,
    /// Most memory that the whole process will hold meanwhile, in bytes; absent if unknown.
    pub peak_memory_bytes: Option<u64>,
    /// Bytes of the artifact.
    pub disk_bytes: u64,
}

/// What an estimate goes by.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "basis", rename_all = "snake_case")]
pub enum Basis {
    /// An earlier run, the best guess at the next.
    EarlierRun {
        /// The stage that ran: itself, or the newest of the other cells of its matrix where it never did.
        stage: String,
        /// When, UTC.
        #[schemars(with = "String")]
        made: Timestamp,
        /// `cpu` or the name of an accelerator.
        device: String,
        /// How many times as much there is to do as in that run, by the number of epochs or of images that are drawn;
        /// the time is in proportion.
        work: f64,
    },
    /// The shapes of the work and the speed of this machine, where there was no run, or one of quite other work: good to a
    /// factor of about two.
    Shapes,
}

impl From<Forecast> for Estimate {
    fn from(forecast: Forecast) -> Self {
        let Forecast { seconds, peak_memory_bytes, disk_bytes } = forecast;
        Self { basis: Basis::Shapes, seconds, peak_memory_bytes: Some(peak_memory_bytes), disk_bytes }
    }
}

impl Estimate {
    /// Whether what shapes say is so far from what a run says that there must be other work: another backbone, larger
    /// images. Small differences are those of the machine, or of what shapes do not see.
    pub fn is_other_work_than(&self, run: &Self) -> bool {
        const TIMES: f64 = 3.0;
        const UNSEEN_SECONDS: f64 = 20.0;
        self.seconds > TIMES * (run.seconds + 1.0) || run.seconds > TIMES * (self.seconds + UNSEEN_SECONDS)
    }

    /// What an entry of the cache says of a stage that has `work` times as much to do.
    pub fn of(entry: &CacheEntry, work: f64) -> Self {
        let made = &entry.provenance;
        Self {
            basis: Basis::EarlierRun {
                stage: made.stage.clone(),
                made: made.created,
                device: made.device.clone(),
                work,
            },
            seconds: work * made.wall_seconds,
            peak_memory_bytes: (made.peak_rss_bytes > 0).then_some(made.peak_rss_bytes),
            disk_bytes: entry.size,
        }
    }
}

impl Plan {
    /// A plan with its cost, if `jobs` stages may run at a time.
    pub fn new(pipeline: &Pipeline, stages: Vec<PlannedStage>, jobs: usize) -> Self {
        let jobs = jobs.max(1);
        let mut cost = Cost { jobs, elapsed_seconds: elapsed_seconds(pipeline, &stages, jobs), ..Cost::default() };
        for stage in stages.iter().filter(|stage| !stage.verdict.is_hit()) {
            cost.stages += 1;
            let Some(estimate) = &stage.estimate else {
                cost.without_estimate += 1;
                continue;
            };
            cost.by_shapes += usize::from(estimate.basis == Basis::Shapes);
            cost.seconds += estimate.seconds;
            cost.peak_memory_bytes = cost.peak_memory_bytes.max(estimate.peak_memory_bytes.unwrap_or(0));
            cost.disk_bytes += estimate.disk_bytes;
        }
        Self { pipeline: pipeline.name.clone(), stages, cost }
    }
}

/// When the last stage is done if each that runs takes as long as it is estimated to, and the others no time. Stages
/// start in the order in which a run starts them.
fn elapsed_seconds(pipeline: &Pipeline, stages: &[PlannedStage], jobs: usize) -> f64 {
    let seconds = |stage: &PlannedStage| match &stage.estimate {
        Some(estimate) if !stage.verdict.is_hit() => estimate.seconds,
        _ => 0.0,
    };
    let places: BTreeMap<&str, usize> =
        stages.iter().enumerate().map(|(idx, stage)| (stage.stage.as_str(), idx)).collect();
    let mut waits_for = vec![0; stages.len()];
    let mut followers: Vec<Vec<usize>> = vec![vec![]; stages.len()];
    for stage in &pipeline.stages {
        let Some(&idx) = places.get(stage.name.as_str()) else { continue };
        for parent in parents(stage).into_iter().filter_map(|name| places.get(name)) {
            waits_for[idx] += 1;
            followers[*parent].push(idx);
        }
    }
    let mut ready: BTreeSet<usize> = (0..stages.len()).filter(|&idx| waits_for[idx] == 0).collect();
    let mut running: Vec<(f64, usize)> = Vec::new();
    let mut now = 0.0;
    loop {
        while running.len() < jobs
            && let Some(next) = ready.pop_first()
        {
            running.push((now + seconds(&stages[next]), next));
        }
        let first = (0..running.len()).min_by(|a, b| running[*a].0.total_cmp(&running[*b].0));
        let Some(first) = first else { return now };
        let (end, done) = running.remove(first);
        now = end;
        for &follower in &followers[done] {
            waits_for[follower] -= 1;
            if waits_for[follower] == 0 {
                ready.insert(follower);
            }
        }
    }
}

/// What will become of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct PlannedStage {
    /// Name of the stage.
    pub stage: String,
    /// Its kind.
    #[schemars(with = "String")]
    pub uses: StageKind,
    /// The decision.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Digest of everything that decides the result; absent while it is not known.
    #[schemars(with = "Option<String>")]
    pub fingerprint: Option<Digest>,
    /// How long it took last time, in seconds.
    pub last_seconds: Option<f64>,
    /// What it will cost; absent where nothing tells.
    pub estimate: Option<Estimate>,
}

/// The decision about a stage.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// The cache has the artifact.
    Hit {
        /// Its digest.
        #[schemars(with = "String")]
        artifact: Digest,
        /// Headline figures.
        metrics: Metrics,
    },
    /// It will be executed.
    Run {
        /// Why.
        reason: Reason,
    },
    /// Depends on what the stages before it leave: if that is the same as before, it need not run.
    Unknown {
        /// The stages that decide.
        waits_for: Vec<String>,
        /// What has changed in the stage itself, as far as that is known.
        changes: Vec<FieldChange>,
    },
}

/// Why a stage must run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// It has never run here.
    NeverRan,
    /// These fields differ from the last run.
    Changed {
        /// Each of them.
        changes: Vec<FieldChange>,
    },
    /// The lockfile knows another fingerprint, but what it was made of is not in this cache.
    ChangedUnknown {
        /// The fingerprint in the lockfile.
        #[schemars(with = "String")]
        locked: Digest,
    },
    /// Nothing changed since the lockfile was written, but this cache does not have the artifact.
    NotInCache,
    /// The artifact is not as it was left.
    Damaged {
        /// What is wrong.
        message: String,
    },
    /// The user asked for it.
    Forced,
}

/// All that a decision rests on.
#[derive(Debug)]
pub struct Findings<'a> {
    /// The record as it is now.
    pub fingerprint: &'a StageFingerprint,
    /// Its digest.
    pub digest: Digest,
    /// What the cache says to it.
    pub status: &'a CacheStatus,
    /// The fingerprint in the lockfile.
    pub locked: Option<Digest>,
    /// The record of the last run, from the lockfile's entry or else the newest one of this stage.
    pub previous: Option<&'a StageFingerprint>,
    /// Whether the user wants it executed in any case.
    pub forced: bool,
}

/// Decides about a stage whose inputs are known.
pub fn decide(findings: &Findings<'_>) -> Verdict {
    if findings.forced {
        return Verdict::Run { reason: Reason::Forced };
    }
    let reason = match findings.status {
        CacheStatus::Hit(entry) => {
            return Verdict::Hit { artifact: entry.artifact, metrics: entry.metrics.clone() };
        }
        CacheStatus::Damaged { message, .. } => Reason::Damaged { message: message.clone() },
        CacheStatus::Miss if findings.locked == Some(findings.digest) => Reason::NotInCache,
        CacheStatus::Miss => match (findings.previous, findings.locked) {
            (Some(previous), _) => match diff::diff(previous, findings.fingerprint) {
                changes if changes.is_empty() => Reason::NotInCache,
                changes => Reason::Changed { changes },
            },
            (None, Some(locked)) => Reason::ChangedUnknown { locked },
            (None, None) => Reason::NeverRan,
        },
    };
    Verdict::Run { reason }
}

impl Verdict {
    /// Adds to each change where the file says the new value.
    pub fn locate(&mut self, stage: &Stage, file: &str) {
        for change in self.changes_mut() {
            change.place = place_of(stage, &change.key).map(|place| format!("{file}:{}", place.line));
        }
    }

    /// Whether the cache has the artifact.
    pub fn is_hit(&self) -> bool {
        matches!(self, Self::Hit { .. })
    }

    /// What differs between the stage's last run and now.
    pub fn changes_mut(&mut self) -> &mut [FieldChange] {
        match self {
            Self::Run { reason: Reason::Changed { changes } } | Self::Unknown { changes, .. } => changes,
            Self::Hit { .. } | Self::Run { .. } => &mut [],
        }
    }
}

/// Where a key stands in the file, or else the nearest one around it.
pub fn place_of(stage: &Stage, key: &str) -> Option<Place> {
    let mut key = key.strip_prefix(CONTENT_OF).unwrap_or(key);
    loop {
        if let Some(place) = stage.places.get(key) {
            return Some(*place);
        }
        key = &key[..key.rfind(['.', '['])?];
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::compute::{DeviceChoice, Precision};
    use crate::{
        cache::Provenance,
        stage::{CommandConfig, StageConfig},
    };

    fn fingerprint(config: serde_json::Value) -> StageFingerprint {
        StageFingerprint {
            version: 1,
            kind: StageKind::Command,
            implementation_revision: 1,
            config,
            inputs: BTreeMap::new(),
            sources: BTreeMap::new(),
            seed: None,
        }
    }

    fn entry(fingerprint: StageFingerprint) -> Box<CacheEntry> {
        Box::new(CacheEntry {
            format: 1,
            fingerprint,
            artifact: Digest::of(b"artifact"),
            size: 1,
            metrics: BTreeMap::new(),
            provenance: Provenance {
                pipeline: "p".into(),
                stage: "s".into(),
                created: Timestamp::default(),
                host: "h".into(),
                device: "cpu".into(),
                tool_version: "0".into(),
                git: None,
                wall_seconds: 1.0,
                peak_rss_bytes: 0,
            },
        })
    }

    fn decide_with(
        status: &CacheStatus,
        previous: Option<&StageFingerprint>,
        locked: Option<Digest>,
        forced: bool,
    ) -> Verdict {
        let fingerprint = fingerprint(json!({"epochs": 2}));
        let digest = fingerprint.digest().unwrap();
        decide(&Findings { fingerprint: &fingerprint, digest, status, locked, previous, forced })
    }

    fn reason(status: &CacheStatus, previous: Option<&StageFingerprint>, locked: Option<Digest>) -> Reason {
        match decide_with(status, previous, locked, false) {
            Verdict::Run { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_the_cache_has_is_a_hit_unless_forced() {
        let status = CacheStatus::Hit(entry(fingerprint(json!({"epochs": 2}))));
        assert!(matches!(decide_with(&status, None, None, false), Verdict::Hit { .. }));
        assert_eq!(decide_with(&status, None, None, true), Verdict::Run { reason: Reason::Forced });
    }

    #[test]
    fn every_miss_has_its_reason() {
        let now = fingerprint(json!({"epochs": 2})).digest().unwrap();
        let previous = fingerprint(json!({"epochs": 1}));
        assert_eq!(reason(&CacheStatus::Miss, None, None), Reason::NeverRan);
        assert_eq!(reason(&CacheStatus::Miss, None, Some(now)), Reason::NotInCache);
        let locked = Digest::of(b"other");
        assert_eq!(reason(&CacheStatus::Miss, None, Some(locked)), Reason::ChangedUnknown { locked });
        let Reason::Changed { changes } = reason(&CacheStatus::Miss, Some(&previous), Some(locked)) else {
            panic!("no change found")
        };
        assert_eq!((changes.len(), changes[0].key.as_str()), (1, "with.epochs"));
        let damaged = CacheStatus::Damaged { entry: None, message: "gone".into(), edited: false };
        assert_eq!(reason(&damaged, None, None), Reason::Damaged { message: "gone".into() });
    }

    #[test]
    fn stages_side_by_side_end_when_a_run_would_end_them() {
        // a (4 s) before b (1 s) and c (2 s), d (3 s) alone, e, which is cached, after all.
        let stages = [("a", "", 4.0), ("b", "a", 1.0), ("c", "a", 2.0), ("d", "", 3.0), ("e", "b c d", 9.0)];
        let config = CommandConfig { run: vec![], outputs: vec![], sources: vec![], env: BTreeMap::new() };
        let pipeline = Pipeline {
            name: "p".into(),
            stages: stages
                .iter()
                .map(|(name, needs, _)| Stage {
                    name: (*name).into(),
                    config: StageConfig::Command(config.clone()),
                    inputs: [("x".to_owned(), needs.split_whitespace().map(str::to_owned).collect())].into(),
                    seed: 0,
                    places: BTreeMap::new(),
                })
                .collect(),
            seed: 0,
            device: DeviceChoice::Cpu,
            precision: Precision::F32,
            path: "p.yaml".into(),
        };
        let planned = stages.map(|(name, _, seconds)| PlannedStage {
            stage: name.into(),
            uses: StageKind::Command,
            verdict: match name {
                "e" => Verdict::Hit { artifact: Digest::of(b"e"), metrics: BTreeMap::new() },
                _ => Verdict::Run { reason: Reason::NeverRan },
            },
            fingerprint: None,
            last_seconds: None,
            estimate: Some(Estimate {
                basis: if name == "a" {
                    Basis::Shapes
                } else {
                    Basis::EarlierRun {
                        stage: name.into(),
                        made: Timestamp::default(),
                        device: "cpu".into(),
                        work: 1.0,
                    }
                },
                seconds,
                peak_memory_bytes: None,
                disk_bytes: 0,
            }),
        });
        let cost = |jobs| Plan::new(&pipeline, planned.to_vec(), jobs).cost;
        assert_eq!([0, 1, 2, 3, 9].map(|jobs| cost(jobs).elapsed_seconds), [10.0, 10.0, 6.0, 6.0, 6.0]);
        assert_eq!((cost(2).seconds, cost(0).jobs, cost(2).stages, cost(2).by_shapes), (10.0, 1, 4, 1));
    }

    #[test]
    fn shapes_win_over_a_run_of_quite_other_work() {
        let other = |shapes: f64, run: f64| {
            let of = |seconds| Estimate::from(Forecast { seconds, peak_memory_bytes: 1, disk_bytes: 1 });
            of(shapes).is_other_work_than(&of(run))
        };
        assert!(other(1275.0, 20.0) && other(20.0, 36_000.0));
        // A busy machine; a stage whose work is mostly what shapes do not see.
        assert!(!other(69.0, 257.0) && !other(2.9, 14.0) && !other(2.0, 0.1) && !other(60.0, 30.0));
    }

    #[test]
    fn the_nearest_known_place_is_named() {
        let config = CommandConfig { run: vec![], outputs: vec![], sources: vec![], env: BTreeMap::new() };
        let places = [
            ("with".to_owned(), Place { line: 3, column: 1 }),
            ("with.ops[1]".to_owned(), Place { line: 5, column: 1 }),
        ];
        let stage = Stage {
            name: "s".into(),
            config: StageConfig::Command(config),
            inputs: BTreeMap::new(),
            seed: 0,
            places: places.into(),
        };
        let line = |key| place_of(&stage, key).map(|place| place.line);
        assert_eq!(line("with.ops[1].crop.scale[0]"), Some(5));
        assert_eq!(line("with.ops[0].crop"), Some(3));
        assert_eq!(line("content of with.source.image_folder"), Some(3));
        assert_eq!(line("seed"), None);
    }
}
