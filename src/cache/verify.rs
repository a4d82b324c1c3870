//! Reads every byte of the cache and finds what is not as it was left.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use super::{
    CacheError, Manifest, Store,
    artifact::{MANIFEST, content_digest, record_files},
    condition::is_touched,
};
use crate::{
    digest::Digest,
    fs::{files, lock::SharedLock},
};

/// Something that is not as it was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The artifact or entry.
    pub digest: Digest,
    /// `artifact` or `entry`.
    pub what: &'static str,
    /// What is wrong.
    pub message: String,
    /// Whether somebody may have put work into it; else the disk has lost something.
    pub edited: bool,
}

/// Checks every artifact and entry, calling `progress` with the number of those done.
///
/// # Errors
/// When the disk fails.
pub fn verify(store: &Store, progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<Damage>, CacheError> {
    // Nobody deletes meanwhile, where this process may say so.
    let _shared = SharedLock::read(&store.layout().gc_lock());
    let mut damages = Vec::new();
    let artifacts = store.artifacts()?;
    let mut whole = BTreeMap::new();
    for (idx, artifact) in artifacts.iter().enumerate() {
        progress(idx, artifacts.len());
        let problem = check_artifact(store, artifact)?;
        whole.insert(*artifact, problem.is_none());
        if let Some((message, edited)) = problem {
            damages.push(Damage { digest: *artifact, what: "artifact", message, edited });
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
        damages.push(Damage { digest: fingerprint, what: "entry", message, edited: false });
    }
    Ok(damages)
}

/// What is wrong with an artifact, and whether somebody may have put work into it.
fn check_artifact(store: &Store, artifact: &Digest) -> Result<Option<(String, bool)>, CacheError> {
    let object = store.layout().object(artifact);
    let damaged = |message: String, edited| Ok(Some((message, edited)));
    let manifest = match Manifest::load(&object) {
        Ok(manifest) => manifest,
        Err(CacheError::Damaged { message, .. }) => {
            return damaged(format!("`{MANIFEST}` is damaged: {message}"), true);
        }
        Err(CacheError::Fs(error)) if error.is_not_found() => return damaged(format!("`{MANIFEST}` is gone"), true),
        Err(error) => return Err(error),
    };
    let found = match record_files(&object, "cache") {
        Ok(found) => found,
        Err(CacheError::BadOutput { name, problem, .. }) => return damaged(format!("`{name}` {problem}"), true),
        Err(error) => return Err(error),
    };
    for (name, file) in &manifest.files {
        match found.get(name) {
            None => return damaged(format!("`{name}` is gone"), true),
            Some(now) if now.size != file.size => {
                let message = format!("`{name}` has {} bytes, not {}", now.size, file.size);
                return damaged(message, is_touched(&object, name));
            }
            Some(now) if now.digest != file.digest => {
                return damaged(format!("`{name}` has other bytes"), is_touched(&object, name));
            }
            Some(_) => {}
        }
    }
    if let Some(name) = found.keys().find(|name| !manifest.files.contains_key(*name)) {
        return damaged(format!("`{name}` does not belong there"), true);
    }
    let digest = content_digest(&found);
    Ok((digest != *artifact).then(|| ("its content does not match its name".to_owned(), false)))
}

/// Takes what is damaged out of the cache; the next run makes it again. What somebody has edited is moved to the
/// folder `edited/` in the cache, the rest is removed. Returns what was moved there.
///
/// # Errors
/// When something cannot be moved or removed.
pub fn repair(store: &Store, damages: &[Damage]) -> Result<Vec<PathBuf>, CacheError> {
    let mut kept = Vec::new();
    for damage in damages {
        match (damage.what, damage.edited) {
            ("artifact", true) => {
                let aside = store.edited_path(&damage.digest);
                if store.set_strangers_aside(&damage.digest, &aside).unwrap_or(false) {
                    kept.push(aside);
                    if check_artifact(store, &damage.digest)?.is_none() {
                        continue;
                    }
                }
                kept.push(store.keep_edited(&damage.digest)?);
            }
            ("artifact", false) => {
                store.forget(&damage.digest)?;
                store.remove_object(&damage.digest)?;
            }
            _ => files::remove_file(&store.layout().entry(&damage.digest))?,
        }
    }
    Ok(kept)
}
