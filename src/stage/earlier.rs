//! What a stage may take from an artifact that was made earlier, so that it works on what is new only.
//!
//! A stage stays a function of parameters, inputs and seed: what is taken are results for single images that the same
//! parameters and the same bytes would give again. The files of an earlier artifact have the sizes and times that they
//! were stored with. A file that becomes part of the new artifact as it is keeps its digest with its bytes; what is
//! copied out of one is compared with a digest or sum first, and whoever finds it damaged works as if there were
//! none.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::StageKind;
use crate::{digest::Digest, fs::files};

/// Digests of the files of a source by name, relative to it.
pub type FileDigests = BTreeMap<String, Digest>;

/// A folder with the digests that its files had when they were stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredFolder {
    /// The folder; read only.
    pub dir: PathBuf,
    /// Digest of each file by name.
    pub files: FileDigests,
}

impl StoredFolder {
    /// Whether the named files are what they were when they were stored, to the byte.
    pub fn is_whole(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.files.get(*name).is_some_and(|digest| self.has(name, digest)))
    }

    /// Whether all files are.
    pub fn is_all_whole(&self) -> bool {
        self.files.par_iter().all(|(name, digest)| self.has(name, digest))
    }

    fn has(&self, name: &str, digest: &Digest) -> bool {
        files::digest_file(&self.dir.join(name)).is_ok_and(|found| found == *digest)
    }
}

/// The files of a source when an artifact was made, and now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFiles {
    /// When the artifact was made.
    pub then: FileDigests,
    /// Now.
    pub now: FileDigests,
}

impl SourceFiles {
    /// Whether any file of now was there then, under whatever name.
    pub fn overlap(&self) -> bool {
        let then: HashSet<&Digest> = self.then.values().collect();
        self.now.values().any(|digest| then.contains(digest))
    }
}

/// An artifact that a stage of the same kind, which treats an image in the same way, made earlier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Earlier {
    /// Its folder.
    pub artifact: StoredFolder,
    /// The artifacts that it was made from, by name of the input, as far as they are still there.
    pub inputs: BTreeMap<String, Vec<StoredFolder>>,
    /// The files outside the cache that its images were, where they came from there.
    #[serde(default)]
    pub images: Option<SourceFiles>,
}

impl Earlier {
    /// The artifact of an input that takes one.
    pub fn input(&self, name: &str) -> Option<&StoredFolder> {
        self.inputs.get(name).and_then(|artifacts| artifacts.first())
    }
}

/// What decides, beside its bytes, what becomes of a single image.
#[derive(Clone, Debug, PartialEq)]
pub struct Treatment {
    /// The parameters that play a part.
    pub parameters: Value,
    /// The inputs whose content plays a part.
    pub inputs: &'static [&'static str],
    /// Key under `with` of the folder whose files the images are, where they come from outside. What else is read from
    /// outside only says which of them there are and what they are called.
    pub images: Option<&'static str>,
}

/// Sources whose images are files of one folder, by name, and the key of that folder.
const FOLDER_SOURCES: [(&str, &str); 3] = [
    ("image_folder", "source.image_folder"),
    ("flat_folder", "source.flat_folder"),
    ("manifest", "source.manifest.images"),
];

/// How a stage with these parameters (those of its fingerprint) treats a single image; `None` for kinds that take
/// nothing from earlier artifacts.
pub fn treatment(kind: StageKind, config: &Value) -> Option<Treatment> {
    // Those that only decide which images there are, or which tables; whatever is not named here plays a part.
    let (without, inputs, source): (&[&str], &[&str], _) = match kind {
        StageKind::Ingest => {
            let source = FOLDER_SOURCES.iter().find(|(name, _)| config["source"].get(*name).is_some())?;
            (&["classes", "max_per_class", "on_error", "subset", "duplicates"], &[], Some(source))
        }
        StageKind::Extract => (&["baselines"], &["encoder"], None),
        _ => return None,
    };
    let mut parameters = config.clone();
    if let Some(parameters) = parameters.as_object_mut() {
        parameters.retain(|key, _| !without.contains(&key.as_str()));
    }
    if let Some((name, _)) = source {
        // Which columns of a table say what decides no pixel.
        parameters["source"] = json!({ *name: "content" });
    }
    Some(Treatment { parameters, inputs, images: source.map(|(_, key)| *key) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_and_splits_of_a_table_decide_no_image() {
        let of =
            |table: Value| treatment(StageKind::Ingest, &json!({ "source": { "manifest": table }, "max_pixels": 9 }));
        let train = of(json!({ "path": "content", "images": "content", "split": "train" })).unwrap();
        assert_eq!(train.images, Some("source.manifest.images"));
        assert_eq!(of(json!({ "path": "content", "images": "content", "label_column": "kind" })), Some(train));
    }

    #[test]
    fn only_what_decides_an_image_counts() {
        let base = json!({"source": {"image_folder": "content"}, "resize": {"shorter_side": 72}, "max_pixels": 9});
        let with = |key: &str, value: Value| {
            let mut config = base.clone();
            config[key] = value;
            config
        };
        let same = |config: &Value| treatment(StageKind::Ingest, config) == treatment(StageKind::Ingest, &base);
        assert!(same(&with("on_error", json!("skip"))));
        assert!(same(&with("max_per_class", json!(5))) && same(&with("classes", json!(["a"]))));
        assert!(!same(&with("added_later", json!(1))));
        assert!(same(&with("duplicates", json!("drop"))) && same(&with("subset", json!("all"))));
        assert!(!same(&with("resize", json!("none"))) && !same(&with("max_pixels", json!(8))));
        assert!(treatment(StageKind::Ingest, &with("source", json!({"cifar10": {}}))).is_none());
        assert!(treatment(StageKind::Pretrain, &base).is_none());
    }

    #[test]
    fn a_changed_or_missing_file_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "bytes").unwrap();
        let files = [("a".to_owned(), Digest::of(b"bytes")), ("b".to_owned(), Digest::of(b""))].into();
        let folder = StoredFolder { dir: dir.path().to_owned(), files };
        assert!(folder.is_whole(&["a"]));
        assert!(!folder.is_whole(&["a", "b"]) && !folder.is_whole(&["c"]) && !folder.is_all_whole());
        std::fs::write(dir.path().join("b"), "").unwrap();
        assert!(folder.is_all_whole());
        std::fs::write(dir.path().join("a"), "Bytes").unwrap();
        assert!(!folder.is_whole(&["a"]));
    }
}
