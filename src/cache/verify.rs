//! Reads every byte of the cache and finds what is not as it was left.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    CacheError, Manifest, Store,
    artifact::{MANIFEST, content_digest, record_files},
};
use crate::{digest::Digest, fs::files};

/// Something that is not as it was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The artifact or entry.
    pub digest: Digest,
    /// `artifact` or `entry`.
    pub what: &'static str,
    /// What is wrong.
    pub message: String,
}

/// Checks every artifact and entry, calling `progress` with the number of those done.
///
/// # Errors
/// When the disk fails.
pub fn verify(store: &Store, progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<Damage>, CacheError> {
    let mut damages = Vec::new();
    let artifacts = store.artifacts()?;
    let mut whole = BTreeMap::new();
    for (idx, artifact) in artifacts.iter().enumerate() {
        progress(idx, artifacts.len());
        let problem = check_artifact(store, artifact)?;
        whole.insert(*artifact, problem.is_none());
        if let Some(message) = problem {
            damages.push(Damage { digest: *artifact, what: "artifact", message });
        }
    }
    progress(artifacts.len(), artifacts.len());
    for fingerprint in store.fingerprints()? {
        let message = match store.entry(&fingerprint) {
            Ok(Some(entry)) if whole.contains_key(&entry.artifact) => continue,
            Ok(Some(entry)) => format!("its artifact {} is gone", entry.artifact.short()),
            Ok(None) => continue,
            Err(CacheError::Damaged { message, .. }) => message,
            Err(error) => return Err(error),
        };
        damages.push(Damage { digest: fingerprint, what: "entry", message });
    }
    Ok(damages)
}

fn check_artifact(store: &Store, artifact: &Digest) -> Result<Option<String>, CacheError> {
    let object = store.layout().object(artifact);
    let manifest = match Manifest::load(&object) {
        Ok(manifest) => manifest,
        Err(CacheError::Damaged { message, .. }) => return Ok(Some(format!("`{MANIFEST}` is damaged: {message}"))),
        Err(CacheError::Fs(error)) if error.is_not_found() => return Ok(Some(format!("`{MANIFEST}` is gone"))),
        Err(error) => return Err(error),
    };
    let found = match record_files(&object, "cache") {
        Ok(found) => found,
        Err(CacheError::BadOutput { name, problem, .. }) => return Ok(Some(format!("`{name}` {problem}"))),
        Err(error) => return Err(error),
    };
    for (name, file) in &manifest.files {
        match found.get(name) {
            None => return Ok(Some(format!("`{name}` is gone"))),
            Some(now) if now.size != file.size => {
                return Ok(Some(format!("`{name}` has {} bytes, not {}", now.size, file.size)));
            }
            Some(now) if now.digest != file.digest => return Ok(Some(format!("`{name}` has other bytes"))),
            Some(_) => {}
        }
    }
    if let Some(name) = found.keys().find(|name| !manifest.files.contains_key(*name)) {
        return Ok(Some(format!("`{name}` does not belong there")));
    }
    let digest = content_digest(&found);
    Ok((digest != *artifact).then(|| "its content does not match its name".to_owned()))
}

/// Removes what is damaged; the next run makes it again.
///
/// # Errors
/// When something cannot be removed.
pub fn repair(store: &Store, damages: &[Damage]) -> Result<(), CacheError> {
    for damage in damages {
        match damage.what {
            "artifact" => store.remove_object(&damage.digest)?,
            _ => files::remove_file(&store.layout().entry(&damage.digest))?,
        }
    }
    for fingerprint in store.fingerprints()? {
        let gone = |artifact| !files::exists(&store.layout().object(artifact));
        if matches!(store.entry(&fingerprint), Ok(Some(entry)) if gone(&entry.artifact)) {
            files::remove_file(&store.layout().entry(&fingerprint))?;
        }
    }
    Ok(())
}
