//! A pipeline that has passed every check which needs no file but its own.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    compute::{DeviceChoice, Precision},
    stage::{StageConfig, StageKind},
};

/// A checked pipeline. Stages keep the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// `name`, or the file's name without extension.
    pub name: String,
    /// Seed of everything random, unless a stage has its own.
    pub seed: u64,
    /// What computes. Decides nothing but the time and last digits, so that it is in no fingerprint.
    pub device: DeviceChoice,
    /// How a GPU computes.
    pub precision: Precision,
    /// The file.
    pub path: PathBuf,
    /// The stages.
    pub stages: Vec<Stage>,
}

/// A checked stage: its inputs exist and have the right type.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Key under `stages`.
    pub name: String,
    /// Parameters, defaults filled in.
    pub config: StageConfig,
    /// Names of the stages whose artifacts each input takes.
    pub inputs: BTreeMap<String, Vec<String>>,
    /// The stage's own seed or else the pipeline's.
    pub seed: u64,
    /// Where each key of the stage stands in the file, by key path (`with.epochs`, `inputs.dataset`, `uses`).
    pub places: BTreeMap<String, Place>,
}

/// Line and column in the pipeline file, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
}

impl Stage {
    /// The kind after `uses`.
    pub fn kind(&self) -> StageKind {
        self.config.kind()
    }
}

impl Pipeline {
    /// The stage of this name.
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == name)
    }
}
