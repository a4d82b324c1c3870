//! What can go: a pure selection, and the deletion.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    CacheError, Store,
    condition::{Condition, check_object},
    workspace::lock_path,
};
use crate::{
    digest::Digest,
    fs::{LockFile, files, lock::SharedLock, shared::may_remove, tree},
    sys::Timestamp,
};

/// An entry as the selection sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its cache key.
    pub fingerprint: Digest,
    /// Its artifact.
    pub artifact: Digest,
    /// Bytes of the artifact.
    pub size: u64,
    /// When it was made.
    pub created: Timestamp,
    /// Pipeline and stage that made it.
    pub made_by: (String, String),
}

/// What to keep beside what is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcPolicy {
    /// Keep the newest of each stage, this many.
    pub keep_last: usize,
    /// Delete, oldest first, only until the cache is not larger than this many bytes.
    pub max_size: Option<u64>,
}

/// What the selection decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// Entries to delete.
    pub entries: BTreeSet<Digest>,
    /// Artifacts to delete.
    pub artifacts: BTreeSet<Digest>,
    /// Bytes that become free.
    pub freed: u64,
    /// Bytes that stay.
    pub kept: u64,
    /// Checkpoints of stages that are done or were given up.
    pub checkpoints: BTreeSet<Digest>,
    /// What stages printed that failed and are done by now or were given up.
    pub logs: BTreeSet<Digest>,
    /// Artifacts that could go but belong to another user.
    pub foreign: BTreeSet<Digest>,
    /// Where artifacts went that somebody has edited.
    pub edited: Vec<PathBuf>,
}

/// Checkpoints and logs that nobody has touched for so long are given up.
const GIVEN_UP_AFTER: i64 = 30 * 24 * 3600;

/// Selects what can go. `in_use` are artifacts that lockfiles, links or living processes refer to, `artifacts`
/// everything in the cache with its size.
pub fn select(
    candidates: &[Candidate],
    artifacts: &BTreeMap<Digest, u64>,
    in_use: &BTreeSet<Digest>,
    policy: GcPolicy,
) -> Selected {
    let mut by_age: Vec<&Candidate> = candidates.iter().collect();
    by_age.sort_by_key(|candidate| (candidate.created, candidate.fingerprint));

    let mut kept: BTreeSet<Digest> = in_use.clone();
    let mut count: BTreeMap<&(String, String), usize> = BTreeMap::new();
    for candidate in by_age.iter().rev() {
        let count = count.entry(&candidate.made_by).or_default();
        if *count < policy.keep_last {
            *count += 1;
            kept.insert(candidate.artifact);
        }
    }

    let known: BTreeSet<Digest> = candidates.iter().map(|candidate| candidate.artifact).collect();
    let mut selected = Selected { kept: artifacts.values().sum(), ..Selected::default() };
    let mut delete = |artifact: Digest| {
        if let Some(size) = artifacts.get(&artifact)
            && selected.artifacts.insert(artifact)
        {
            selected.freed += size;
            selected.kept -= size;
        }
        selected.kept
    };
    // Nothing leads to these: a crash between artifact and entry, or a repair.
    for artifact in artifacts.keys().filter(|artifact| !known.contains(*artifact) && !kept.contains(*artifact)) {
        delete(*artifact);
    }
    let mut size: u64 = delete(Digest::from_bytes([0; 32]));
    for candidate in &by_age {
        let fits = policy.max_size.is_some_and(|max| size <= max);
        if !fits && !kept.contains(&candidate.artifact) {
            size = delete(candidate.artifact);
        }
    }
    selected.entries = candidates
        .iter()
        .filter(|candidate| {
            selected.artifacts.contains(&candidate.artifact) || !artifacts.contains_key(&candidate.artifact)
        })
        .map(|candidate| candidate.fingerprint)
        .collect();
    selected
}

/// Selects and, unless `dry_run`, deletes. `roots` are the artifacts that lockfiles and links refer to; those
/// of living processes are added here. Nobody can start to use an artifact meanwhile.
///
/// # Errors
/// When the cache cannot be read or something cannot be removed.
pub fn collect(
    store: &Store,
    roots: &BTreeSet<Digest>,
    policy: GcPolicy,
    dry_run: bool,
) -> Result<Selected, CacheError> {
    let _alone = SharedLock::write(&store.layout().gc_lock())?;
    let mut in_use = roots.clone();
    in_use.extend(pinned(store)?);
    let mut candidates = Vec::new();
    for fingerprint in store.fingerprints()? {
        // One that cannot be read is for `cache verify`.
        let Ok(Some(entry)) = store.entry(&fingerprint) else { continue };
        candidates.push(Candidate {
            fingerprint,
            artifact: entry.artifact,
            size: entry.size,
            created: entry.provenance.created,
            made_by: (entry.provenance.pipeline, entry.provenance.stage),
        });
    }
    let sizes: BTreeMap<Digest, u64> = candidates.iter().map(|entry| (entry.artifact, entry.size)).collect();
    let artifacts = store
        .artifacts()?
        .into_iter()
        .map(|artifact| {
            let size = sizes.get(&artifact).copied();
            (artifact, size.or_else(|| store.manifest(&artifact).ok().map(|manifest| manifest.size())).unwrap_or(0))
        })
        .collect();
    let layout = store.layout();
    let mut selected = select(&candidates, &artifacts, &in_use, policy);
    let foreign = |artifact: &&Digest| !may_remove(&layout.object(artifact)) && files::exists(&layout.object(artifact));
    let foreign: BTreeSet<Digest> = selected.artifacts.iter().filter(foreign).copied().collect();
    if !foreign.is_empty() {
        in_use.extend(&foreign);
        selected = select(&candidates, &artifacts, &in_use, policy);
        selected.foreign = foreign;
    }
    selected.checkpoints = given_up(store, &layout.work_root())?;
    selected.logs = given_up(store, &layout.logs_root())?;
    if !dry_run {
        for fingerprint in &selected.checkpoints {
            tree::remove_dir_all(&layout.work(fingerprint))?;
        }
        for fingerprint in &selected.logs {
            tree::remove_dir_all(&layout.logs(fingerprint))?;
        }
        super::workspace::sweep_locks(&layout.locks())?;
        // Entries first: whatever happens between, no entry leads to nothing.
        for fingerprint in &selected.entries {
            files::remove_file(&store.layout().entry(fingerprint))?;
        }
        for artifact in &selected.artifacts {
            if matches!(check_object(&layout.object(artifact), artifact)?, Condition::Damaged { edited: true, .. }) {
                selected.edited.push(store.keep_edited(artifact)?);
            } else {
                store.remove_object(artifact)?;
            }
        }
        remove_file_lists(store, &candidates, &selected)?;
        forget_alike(store)?;
    }
    Ok(selected)
}

/// Folders named after fingerprints whose stage is done, or that are old; never those of a stage at work or of
/// another user.
fn given_up(store: &Store, root: &Path) -> Result<BTreeSet<Digest>, CacheError> {
    let mut found = BTreeSet::new();
    for name in files::list(root)? {
        let (Ok(fingerprint), path) = (name.parse::<Digest>(), root.join(&name)) else { continue };
        if !may_remove(&path) || LockFile::try_acquire(&store.layout().lock(&fingerprint))?.is_err() {
            continue;
        }
        let (_, touched) = files::size_and_mtime(&path)?;
        let age = Timestamp::now().seconds() - touched / 1_000_000_000;
        if files::exists(&store.layout().entry(&fingerprint)) || age > GIVEN_UP_AFTER {
            found.insert(fingerprint);
        }
    }
    Ok(found)
}

/// Lists of files of sources that no entry was made from any more.
fn remove_file_lists(store: &Store, candidates: &[Candidate], selected: &Selected) -> Result<(), CacheError> {
    let mut wanted = BTreeSet::new();
    for candidate in candidates.iter().filter(|candidate| !selected.entries.contains(&candidate.fingerprint)) {
        if let Ok(Some(entry)) = store.entry(&candidate.fingerprint) {
            wanted.extend(entry.fingerprint.sources.into_values());
        }
    }
    for name in files::list(&store.layout().sources())? {
        let tree = name.strip_suffix(".tree").and_then(|name| name.parse::<Digest>().ok());
        if tree.is_some_and(|tree| !wanted.contains(&tree)) {
            files::remove_file(&store.layout().sources().join(&name))?;
        }
    }
    Ok(())
}

/// Fingerprints that have no entry any more. One that is added meanwhile may get lost, which costs time and no more.
fn forget_alike(store: &Store) -> Result<(), CacheError> {
    let root = store.layout().alike_root();
    for treatment in files::list(&root)?.iter().filter_map(|name| name.parse::<Digest>().ok()) {
        let (path, known) = (store.layout().alike(&treatment), store.alike(&treatment));
        let kept: Vec<&Digest> = known.iter().filter(|known| files::exists(&store.layout().entry(known))).collect();
        if kept.is_empty() {
            files::remove_file(&path)?;
        } else if kept.len() < known.len() {
            let lines: Vec<String> = kept.iter().map(|fingerprint| fingerprint.hex()).collect();
            files::write_atomic_unsynced(&path, format!("{}\n", lines.join("\n")).as_bytes())?;
        }
    }
    Ok(())
}

/// What living processes use.
fn pinned(store: &Store) -> Result<BTreeSet<Digest>, CacheError> {
    let dir = store.layout().pins();
    let mut pinned = BTreeSet::new();
    for name in files::list(&dir)?.iter().filter(|name| name.strip_suffix(".lock").is_none()) {
        let path = dir.join(name);
        if LockFile::try_acquire(&lock_path(&path))?.is_err() {
            let text = files::read_if_exists(&path)?.unwrap_or_default();
            pinned.extend(String::from_utf8_lossy(&text).lines().filter_map(|line| line.parse::<Digest>().ok()));
        }
    }
    Ok(pinned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn candidate(name: &str, artifact: &str, stage: &str, created: i64) -> Candidate {
        Candidate {
            fingerprint: digest(name),
            artifact: digest(artifact),
            size: 10,
            created: Timestamp::from_seconds(created),
            made_by: ("p".into(), stage.into()),
        }
    }

    fn cache() -> (Vec<Candidate>, BTreeMap<Digest, u64>) {
        let candidates = vec![
            candidate("f1", "a1", "s", 1),
            candidate("f2", "a2", "s", 2),
            candidate("f3", "a3", "s", 3),
            candidate("f4", "a4", "t", 1),
        ];
        let artifacts = ["a1", "a2", "a3", "a4", "orphan"].map(|name| (digest(name), 10)).into();
        (candidates, artifacts)
    }

    fn deleted(in_use: &[&str], policy: GcPolicy) -> Vec<&'static str> {
        let (candidates, artifacts) = cache();
        let in_use = in_use.iter().map(|name| digest(name)).collect();
        let selected = select(&candidates, &artifacts, &in_use, policy);
        assert_eq!(selected.freed + selected.kept, 50);
        assert_eq!(selected.freed, 10 * selected.artifacts.len() as u64);
        let names = ["a1", "a2", "a3", "a4", "orphan"];
        names.into_iter().filter(|name| selected.artifacts.contains(&digest(name))).collect()
    }

    #[test]
    fn what_nothing_refers_to_goes() {
        assert_eq!(deleted(&["a2"], GcPolicy::default()), ["a1", "a3", "a4", "orphan"]);
        assert_eq!(deleted(&["a1", "a2", "a3", "a4", "orphan"], GcPolicy::default()), [""; 0]);
    }

    #[test]
    fn the_newest_of_each_stage_stay_on_request() {
        assert_eq!(deleted(&[], GcPolicy { keep_last: 1, max_size: None }), ["a1", "a2", "orphan"]);
        assert_eq!(deleted(&[], GcPolicy { keep_last: 2, max_size: None }), ["a1", "orphan"]);
    }

    #[test]
    fn with_a_limit_the_oldest_go_until_it_fits() {
        let policy = |max| GcPolicy { keep_last: 0, max_size: Some(max) };
        assert_eq!(deleted(&["a1"], policy(20)), ["a2", "a4", "orphan"]);
        assert_eq!(deleted(&["a1"], policy(0)), ["a2", "a3", "a4", "orphan"]);
        assert_eq!(deleted(&[], policy(1000)), ["orphan"]);
    }

    #[test]
    fn entries_go_with_their_artifact_and_those_without_one_too() {
        let (mut candidates, artifacts) = cache();
        candidates.push(candidate("f5", "a1", "u", 9));
        candidates.push(candidate("f6", "gone", "u", 9));
        let in_use = ["a2", "a3", "a4"].map(digest).into();
        let selected = select(&candidates, &artifacts, &in_use, GcPolicy::default());
        assert_eq!(selected.entries, ["f1", "f5", "f6"].map(digest).into());
    }
}
