//! What earlier runs of a pipeline's stages left in the cache.

use std::collections::{BTreeMap, BTreeSet};

use super::RunnerError;
use crate::{
    cache::{CacheEntry, Store},
    config::CellName,
};

/// The newest entries of a pipeline's stages. Read once for a whole plan: a cache may hold thousands.
#[derive(Debug, Default)]
pub struct PastRuns {
    by_name: BTreeMap<String, CacheEntry>,
    /// Names of cells by stage.
    cells: BTreeMap<String, BTreeSet<String>>,
}

impl PastRuns {
    /// Reads the entries that stages of this pipeline led to. Those that cannot be read are for `cache verify`.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn load(store: &Store, pipeline: &str) -> Result<Self, RunnerError> {
        let mut past = Self::default();
        for fingerprint in store.fingerprints()? {
            let Ok(Some(entry)) = store.entry(&fingerprint) else { continue };
            if entry.provenance.pipeline == pipeline {
                past.add(entry);
            }
        }
        Ok(past)
    }

    fn add(&mut self, entry: CacheEntry) {
        let name = &entry.provenance.stage;
        if self.by_name.get(name).is_some_and(|known| known.provenance.created > entry.provenance.created) {
            return;
        }
        let base = CellName::parse(name).stage;
        if base != name {
            self.cells.entry(base.to_owned()).or_default().insert(name.clone());
        }
        self.by_name.insert(name.clone(), entry);
    }

    /// The newest entry of a stage of this name.
    pub fn of(&self, stage: &str) -> Option<&CacheEntry> {
        self.by_name.get(stage)
    }

    /// The entry whose cost is the best guess at that of a stage that never ran: of the cell that shares most values
    /// with it, the newest of several, or else of the same stage without a matrix.
    pub fn like(&self, stage: &str) -> Option<&CacheEntry> {
        let cell = CellName::parse(stage);
        let entries =
            self.cells.get(cell.stage).into_iter().flatten().filter_map(|name| self.by_name.get_key_value(name));
        let nearest = entries.max_by_key(|(name, entry)| {
            let shared = CellName::parse(name).axes.iter().filter(|choice| cell.axes.contains(choice)).count();
            (shared, entry.provenance.created)
        });
        nearest.map(|(_, entry)| entry).or_else(|| self.by_name.get(cell.stage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{digest::Digest, sys::Timestamp};

    fn entry(stage: &str, seconds: i64) -> CacheEntry {
        serde_json::from_value(serde_json::json!({
            "format": 1,
            "fingerprint": {
                "version": 1,
                "kind": "command",
                "implementation_revision": 1,
                "config": {},
                "inputs": {},
                "sources": {},
                "seed": null,
            },
            "artifact": Digest::of(b"x"),
            "size": 1,
            "metrics": {},
            "provenance": {
                "pipeline": "p",
                "stage": stage,
                "created": Timestamp::from_seconds(seconds),
                "host": "h",
                "device": "cpu",
                "tool_version": "0",
                "wall_seconds": seconds as f64,
                "peak_rss_bytes": 0,
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_newest_run_of_the_stage_or_else_of_a_cell_like_it_counts() {
        let mut past = PastRuns::default();
        for (stage, seconds) in
            [("a", 1), ("a", 3), ("a", 2), ("a@x=1,s=0", 5), ("a@x=2,s=0", 7), ("a@x=1,s=0", 6), ("b", 9)]
        {
            past.add(entry(stage, seconds));
        }
        let took = |entry: Option<&CacheEntry>| entry.map(|entry| entry.provenance.wall_seconds);
        assert_eq!([took(past.of("a")), took(past.of("a@x=1,s=0")), took(past.of("c"))], [Some(3.0), Some(6.0), None]);
        assert_eq!(took(past.like("a@x=1,s=1")), Some(6.0), "the cell with the same value");
        assert_eq!(took(past.like("a@x=3,s=0")), Some(7.0), "the newest");
        assert_eq!([took(past.like("b@x=3")), took(past.like("c@x=3"))], [Some(9.0), None]);
    }
}
