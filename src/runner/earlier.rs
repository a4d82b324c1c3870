//! Finds the artifact from which a stage may take what is as before.

use serde_json::json;

use crate::{
    cache::{CacheEntry, CacheError, Manifest, Store, tree_diff::file_digests},
    config::{Pipeline, Stage},
    digest::Digest,
    fingerprint::{StageFingerprint, canonical::to_canonical_json},
    stage::earlier::{Earlier, SourceFiles, StoredFolder, Treatment, treatment},
};

/// The newest artifact that treats an image as `fingerprint` does; one of the same stage comes before all others.
/// It makes a stage faster and changes nothing, so that what cannot be read is passed over in silence.
pub(super) fn find_earlier(
    store: &Store,
    pipeline: &Pipeline,
    stage: &Stage,
    fingerprint: &StageFingerprint,
) -> Option<Earlier> {
    let mut entries: Vec<CacheEntry> =
        store.alike(&key(fingerprint)?).iter().filter_map(|digest| store.entry(digest).ok().flatten()).collect();
    entries.sort_by_key(|entry| {
        let provenance = &entry.provenance;
        (provenance.stage == stage.name && provenance.pipeline == pipeline.name, provenance.created)
    });
    let images = treatment(fingerprint.kind, &fingerprint.config)?.images;
    entries.iter().rev().find_map(|entry| open(store, entry, fingerprint, images))
}

/// Keeps that a stage is done, for those that will look for it.
///
/// # Errors
/// When the cache cannot be written.
pub(super) fn remember(store: &Store, fingerprint: &StageFingerprint, digest: &Digest) -> Result<(), CacheError> {
    key(fingerprint).map_or(Ok(()), |key| store.note_alike(&key, digest))
}

/// The same for all stages that treat a single image alike; `None` for kinds that take nothing from earlier artifacts.
fn key(fingerprint: &StageFingerprint) -> Option<Digest> {
    let StageFingerprint { version, kind, implementation_revision, config, inputs, seed, .. } = fingerprint;
    let Treatment { parameters, inputs: names, .. } = treatment(*kind, config)?;
    let inputs: Vec<_> = names.iter().map(|name| (name, inputs.get(*name))).collect();
    let record = json!([version, kind.name(), implementation_revision, seed, parameters, inputs]);
    Some(Digest::of(to_canonical_json(&record).as_bytes()))
}

/// `images` is the key of the folder whose files the images are.
fn open(store: &Store, entry: &CacheEntry, now: &StageFingerprint, images: Option<&str>) -> Option<Earlier> {
    let then = &entry.fingerprint;
    let images = match images {
        Some(key) => {
            let files = |fingerprint: &StageFingerprint| file_digests(store.layout(), fingerprint.sources.get(key)?);
            let (then, now) = rayon::join(|| files(then), || files(now));
            Some(SourceFiles { then: then?, now: now? }).filter(SourceFiles::overlap)?.into()
        }
        None => None,
    };
    let inputs = then.inputs.iter().map(|(name, digests)| {
        let folders: Option<Vec<_>> = digests.iter().map(|digest| stored(store, digest)).collect();
        Some((name.clone(), folders?))
    });
    Some(Earlier { artifact: stored(store, &entry.artifact)?, inputs: inputs.collect::<Option<_>>()?, images })
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
