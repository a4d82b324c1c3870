//! The record that decides a stage's output.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::canonical::to_canonical_json;
use crate::{
    config::Stage,
    digest::Digest,
    stage::{
        StageKind,
        external_input::{fingerprint_config, uses_seed},
    },
};

/// Version of the record. Bumped when a field is added or changes its meaning: everything then runs again.
pub const FINGERPRINT_VERSION: u32 = 1;

/// Everything that decides a stage's output and nothing else: no path, time, host, name, thread count or
/// device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageFingerprint {
    /// Version of this record.
    pub version: u32,
    /// Kind of the stage.
    pub kind: StageKind,
    /// Revision of the code behind the kind.
    pub implementation_revision: u32,
    /// Parameters with defaults filled in; paths replaced, since `sources` holds what lies there.
    pub config: Value,
    /// For each input the digests of those files of its artifacts that the stage reads.
    pub inputs: BTreeMap<String, Vec<Digest>>,
    /// Content of files and folders outside the cache, by key under `with`.
    pub sources: BTreeMap<String, Digest>,
    /// The seed, where something is random.
    pub seed: Option<u64>,
}

impl StageFingerprint {
    /// The fingerprint of a stage whose inputs and sources are known.
    ///
    /// # Errors
    /// Where a parameter is not finite, which validation has refused before.
    pub fn new(
        stage: &Stage,
        inputs: BTreeMap<String, Vec<Digest>>,
        sources: BTreeMap<String, Digest>,
    ) -> Result<Self, serde_json::Error> {
        let kind = stage.kind();
        Ok(Self {
            version: FINGERPRINT_VERSION,
            kind,
            implementation_revision: kind.implementation_revision(),
            config: fingerprint_config(&stage.config)?,
            inputs,
            sources,
            seed: uses_seed(&stage.config).then_some(stage.seed),
        })
    }

    /// The cache key.
    ///
    /// # Errors
    /// Where a parameter is not finite, which validation has refused before.
    pub fn digest(&self) -> Result<Digest, serde_json::Error> {
        Ok(Digest::of(self.canonical_json()?.as_bytes()))
    }

    /// The text whose digest is the cache key.
    ///
    /// # Errors
    /// Where a parameter is not finite, which validation has refused before.
    pub fn canonical_json(&self) -> Result<String, serde_json::Error> {
        Ok(to_canonical_json(&serde_json::to_value(self)?))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use serde_json::json;

    use super::*;
    use crate::{
        augment::AugmentConfig,
        data::IngestConfig,
        eval::{ExtractConfig, FitConfig},
        stage::{CommandConfig, ReportConfig, StageConfig},
        train::PretrainConfig,
    };

    fn stage(config: StageConfig) -> Stage {
        Stage { name: "any".into(), config, inputs: BTreeMap::new(), seed: 7, places: BTreeMap::new() }
    }

    fn fingerprint(config: StageConfig) -> StageFingerprint {
        StageFingerprint::new(&stage(config), BTreeMap::new(), BTreeMap::new()).unwrap()
    }

    fn pretrain(with: Value) -> StageConfig {
        StageConfig::Pretrain(serde_json::from_value::<PretrainConfig>(with).unwrap())
    }

    fn one_of_each() -> Vec<StageConfig> {
        let ingest: IngestConfig = serde_json::from_value(json!({"source": {"image_folder": "data/x"}})).unwrap();
        let augment: AugmentConfig = serde_json::from_value(json!({
            "image_size": 64,
            "ops": [{"random_resized_crop": {}}, {"color_jitter": {"brightness": 0.4}}, {"horizontal_flip": {}}],
        }))
        .unwrap();
        let fit: FitConfig = serde_json::from_value(json!({"knn": {"k": 20}})).unwrap();
        let command: CommandConfig =
            serde_json::from_value(json!({"run": ["cp", "a", "b"], "outputs": ["b"], "sources": ["a"]})).unwrap();
        vec![
            StageConfig::Ingest(ingest),
            StageConfig::Augment(augment),
            pretrain(json!({"backbone": {"resnet18": {}}})),
            StageConfig::Extract(ExtractConfig::default()),
            StageConfig::Fit(fit),
            StageConfig::Report(ReportConfig::default()),
            StageConfig::Command(command),
        ]
    }

    /// A change here makes every cached artifact of that kind worthless: is that meant?
    #[test]
    fn fingerprints_change_only_on_purpose() {
        let mut text = String::new();
        for config in one_of_each() {
            let fingerprint = fingerprint(config);
            writeln!(text, "{}\n{}\n", fingerprint.digest().unwrap(), fingerprint.canonical_json().unwrap()).unwrap();
        }
        insta::assert_snapshot!("one_of_each_kind", text);
    }

    #[test]
    fn a_default_spelled_out_changes_nothing() {
        let short = pretrain(json!({"backbone": {"resnet18": {}}}));
        let long = pretrain(json!({
            "epochs": 100, "batch_size": 256, "backbone": {"resnet18": {"stem": "imagenet"}},
            "optimizer": {"sgd": {"base_lr": 5e-2, "momentum": 0.90, "weight_decay": 1e-4}},
        }));
        assert_eq!(fingerprint(short).digest().unwrap(), fingerprint(long).digest().unwrap());
    }

    #[test]
    fn a_changed_value_input_source_or_seed_changes_the_digest() {
        let base = fingerprint(pretrain(json!({"backbone": {"resnet18": {}}})));
        let mut others = vec![fingerprint(pretrain(json!({"backbone": {"resnet18": {}}, "epochs": 101})))];
        let mut changed = base.clone();
        changed.inputs.insert("dataset".into(), vec![Digest::of(b"x")]);
        others.push(changed);
        let mut changed = base.clone();
        changed.sources.insert("source".into(), Digest::of(b"x"));
        others.push(changed);
        let mut changed = base.clone();
        changed.seed = Some(8);
        others.push(changed);
        let mut changed = base.clone();
        changed.implementation_revision += 1;
        others.push(changed);
        for other in others {
            assert_ne!(other.digest().unwrap(), base.digest().unwrap());
        }
    }

    #[test]
    fn the_path_of_a_source_does_not_matter() {
        let at = |path: &str| {
            let config = serde_json::from_value(json!({"source": {"image_folder": path}})).unwrap();
            fingerprint(StageConfig::Ingest(config)).digest().unwrap()
        };
        assert_eq!(at("data/x"), at("/mnt/elsewhere/x"));
    }

    #[test]
    fn a_stored_record_keeps_its_digest() {
        for config in one_of_each() {
            let before = fingerprint(config);
            let text = serde_json::to_string(&before).unwrap();
            let after: StageFingerprint = serde_json::from_str(&text).unwrap();
            assert_eq!(after.digest().unwrap(), before.digest().unwrap());
        }
    }
}
