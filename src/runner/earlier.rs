//! Finds the artifact from which a stage may take what is as before.

use std::collections::BTreeMap;

use crate::{
    cache::{CacheEntry, Manifest, Store, tree_diff::file_digests},
    config::{Pipeline, Stage},
    digest::Digest,
    fingerprint::StageFingerprint,
    stage::earlier::{Earlier, SourceFiles, StoredFolder, treatment},
};

/// The newest artifact that treats an image as `fingerprint` does; one of the same stage comes before all others.
/// It makes a stage faster and changes nothing, so that what cannot be read is passed over in silence.
pub(super) fn find_earlier(
    store: &Store,
    pipeline: &Pipeline,
    stage: &Stage,
    fingerprint: &StageFingerprint,
) -> Option<Earlier> {
    treatment(fingerprint.kind, &fingerprint.config)?;
    let mut entries: Vec<CacheEntry> = store
        .fingerprints()
        .ok()?
        .iter()
        .filter_map(|digest| store.entry(digest).ok().flatten())
        .filter(|entry| treats_alike(&entry.fingerprint, fingerprint))
        .collect();
    entries.sort_by_key(|entry| {
        let provenance = &entry.provenance;
        (provenance.stage == stage.name && provenance.pipeline == pipeline.name, provenance.created)
    });
    entries.iter().rev().find_map(|entry| open(store, entry, fingerprint))
}

fn treats_alike(old: &StageFingerprint, new: &StageFingerprint) -> bool {
    let of_code = |fingerprint: &StageFingerprint| {
        (fingerprint.version, fingerprint.kind, fingerprint.implementation_revision, fingerprint.seed)
    };
    if of_code(old) != of_code(new) {
        return false;
    }
    match (treatment(old.kind, &old.config), treatment(new.kind, &new.config)) {
        (Some(a), Some(b)) => a == b && a.inputs.iter().all(|name| old.inputs.get(*name) == new.inputs.get(*name)),
        _ => false,
    }
}

fn open(store: &Store, entry: &CacheEntry, now: &StageFingerprint) -> Option<Earlier> {
    let then = &entry.fingerprint;
    let mut sources = BTreeMap::new();
    for (key, new) in &now.sources {
        let old = then.sources.get(key)?;
        let files = |tree| file_digests(store.layout(), tree);
        let files = SourceFiles { then: files(old)?, now: files(new)? };
        if !files.overlap() {
            return None;
        }
        sources.insert(key.clone(), files);
    }
    let inputs = then.inputs.iter().map(|(name, digests)| {
        let folders: Option<Vec<_>> = digests.iter().map(|digest| stored(store, digest)).collect();
        Some((name.clone(), folders?))
    });
    Some(Earlier { artifact: stored(store, &entry.artifact)?, inputs: inputs.collect::<Option<_>>()?, sources })
}

/// An artifact that stays where it is until the process ends.
fn stored(store: &Store, artifact: &Digest) -> Option<StoredFolder> {
    let manifest: Manifest = store.manifest(artifact).ok()?;
    if manifest.artifact != *artifact || !store.pin(artifact).ok()? || store.damage(artifact).ok()?.is_some() {
        return None;
    }
    let files = manifest.files.into_iter().map(|(name, file)| (name, file.digest)).collect();
    Some(StoredFolder { dir: store.layout().object(artifact), files })
}
