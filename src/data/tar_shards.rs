//! Tar archives in WebDataset's layout: the files of a sample have one name and differ in what follows its first dot.
//!
//! Archives are read once for their list of files; an image is read from its place in the archive.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use super::{
    DataError,
    class_names::{classes_of, is_image_extension},
    decode::{DecodeOptions, OwnedImage, decode_with},
    image_source::{ImageSource, SourceItem},
    record_file::{compression, open_file},
    source_config::{TarLabel, TarShardsConfig},
};

/// A label is not longer.
const MAX_LABEL: u64 = 1 << 20;

/// The images of all archives in the order of the archives and within them.
#[derive(Debug)]
pub struct TarShards {
    class_names: Vec<String>,
    items: Vec<SourceItem>,
    places: Vec<Place>,
    shards: Vec<PathBuf>,
}

/// Where an image lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    shard: usize,
    start: u64,
    size: u64,
}

/// A file in an archive.
struct Member {
    name: String,
    start: u64,
    size: u64,
}

impl Member {
    /// The sample's name with its folders, and the extension behind its first dot.
    fn split(&self) -> (&str, &str) {
        let base = self.name.rfind('/').map_or(0, |slash| slash + 1);
        match self.name[base..].find('.') {
            Some(dot) => (&self.name[..base + dot], &self.name[base + dot + 1..]),
            None => (&self.name, ""),
        }
    }
}

impl TarShards {
    /// Lists the images of all archives with their labels.
    ///
    /// # Errors
    /// When there is no archive, one is damaged or compressed, holds no image, or an image has no label.
    pub fn open(root: &Path, config: &TarShardsConfig) -> Result<Self, DataError> {
        let path = root.join(&config.path);
        let shards = find_shards(&path)?;
        let (mut names, mut places, mut labels) = (vec![], vec![], vec![]);
        for (shard, path) in shards.iter().enumerate() {
            let shard_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (mut file, members) = list_members(path)?;
            let sample_labels = read_labels(&mut file, path, &members, &config.label)?;
            for member in &members {
                let (sample, extension) = member.split();
                if !is_image_extension(extension) {
                    continue;
                }
                let label = match &config.label {
                    TarLabel::None => None,
                    TarLabel::Folder => member.name.rsplit_once('/').map(|(folder, _)| folder.to_owned()),
                    TarLabel::Cls | TarLabel::Json(_) => sample_labels.get(sample).cloned(),
                };
                if label.is_none() && config.label != TarLabel::None {
                    return Err(without_label(path, member, &config.label));
                }
                names.push(format!("{shard_name}/{}", member.name));
                places.push(Place { shard, start: member.start, size: member.size });
                labels.push(label);
            }
        }
        if names.is_empty() {
            return Err(DataError::source(
                format!("the archives of `{}` hold no images", path.display()),
                "a sample is an image such as `0001.jpg` with `0001.cls` or `0001.json` beside it",
            ));
        }
        let (class_names, indices) = classes_of(labels.iter().map(Option::as_deref));
        let items = names.into_iter().zip(indices).map(|(name, label)| SourceItem { name, label }).collect();
        Ok(Self { class_names, items, places, shards })
    }

    /// At most the first `limit` bytes of an image.
    fn read(&self, idx: usize) -> Result<Vec<u8>, String> {
        let Place { shard, start, size } = self.places[idx];
        let mut bytes = vec![];
        let mut read = || {
            let mut file = File::open(&self.shards[shard])?;
            file.seek(SeekFrom::Start(start))?;
            file.take(size).read_to_end(&mut bytes)
        };
        read().map_err(|error: io::Error| format!("it cannot be read: {error}"))?;
        Ok(bytes)
    }
}

impl ImageSource for TarShards {
    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn items(&self) -> &[SourceItem] {
        &self.items
    }

    fn decode(&self, idx: usize, options: &DecodeOptions) -> Result<OwnedImage, String> {
        decode_with(&self.read(idx)?, options)
    }
}

fn find_shards(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    if !path.is_dir() {
        open_file(path, "source.tar_shards.path")?;
        return Ok(vec![path.to_owned()]);
    }
    let read_error = |source| DataError::Io { action: "read", path: path.to_owned(), source };
    let mut shards = vec![];
    for entry in fs::read_dir(path).map_err(read_error)? {
        let shard = entry.map_err(read_error)?.path();
        let is_hidden = shard.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && shard.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar")) {
            shards.push(shard);
        }
    }
    shards.sort();
    if shards.is_empty() {
        return Err(DataError::source(
            format!("folder `{}` holds no `.tar` files", path.display()),
            "`source.tar_shards.path` is a `.tar` file or a folder of them; unpack compressed ones first",
        ));
    }
    Ok(shards)
}

/// The regular files of an archive in their order.
fn list_members(path: &Path) -> Result<(File, Vec<Member>), DataError> {
    let damaged = |what: &str| {
        DataError::source(
            format!("`{}` cannot be read as a tar archive: {what}", path.display()),
            "the archive is cut off or damaged; copy it again, or remove it",
        )
    };
    let (mut file, len) = open_file(path, "source.tar_shards.path")?;
    let mut head = [0; 6];
    let num_read = file.read(&mut head).map_err(|error| damaged(&error.to_string()))?;
    if let Some(name) = compression(&head[..num_read]) {
        return Err(DataError::source(
            format!("`{}` is compressed with {name}", path.display()),
            "unpack it to a plain `.tar`: images are compressed already, and plain archives are read in any order",
        ));
    }
    file.rewind().map_err(|error| damaged(&error.to_string()))?;
    let mut members = vec![];
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().map_err(|error| damaged(&error.to_string()))? {
        let entry = entry.map_err(|error| damaged(&error.to_string()))?;
        let (start, size) = (entry.raw_file_position(), entry.size());
        if start.checked_add(size).is_none_or(|end| end > len) {
            return Err(damaged("it ends in the middle of a file"));
        }
        let kind = entry.header().entry_type();
        if !(kind.is_file() || kind.is_contiguous()) {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        let is_hidden = name.rsplit('/').next().is_some_and(|base| base.starts_with('.'));
        if !is_hidden {
            members.push(Member { name, start, size });
        }
    }
    Ok((archive.into_inner(), members))
}

/// The label of each sample that has a file for it.
fn read_labels(
    file: &mut File,
    path: &Path,
    members: &[Member],
    label: &TarLabel,
) -> Result<BTreeMap<String, String>, DataError> {
    let (wanted, key) = match label {
        TarLabel::None | TarLabel::Folder => return Ok(BTreeMap::new()),
        TarLabel::Cls => ("cls", None),
        TarLabel::Json(key) => ("json", Some(key)),
    };
    let mut labels = BTreeMap::new();
    for member in members {
        let (sample, extension) = member.split();
        if extension != wanted {
            continue;
        }
        let bad = |what: &str| {
            DataError::source(
                format!("`{}` in `{}` {what}", member.name, path.display()),
                "a label is a word or a whole number: `.cls` holds nothing else, `.json` holds it under a key",
            )
        };
        if member.size > MAX_LABEL {
            return Err(bad("is too long for a label"));
        }
        let mut bytes = vec![0; member.size as usize];
        file.seek(SeekFrom::Start(member.start))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|source| DataError::Io { action: "read", path: path.to_owned(), source })?;
        let text = match key {
            None => String::from_utf8(bytes).map_err(|_| bad("is not text"))?.trim().to_owned(),
            Some(key) => {
                let value: serde_json::Value =
                    serde_json::from_slice(&bytes).map_err(|error| bad(&format!("is no JSON: {error}")))?;
                match &value[key.as_str()] {
                    serde_json::Value::String(text) => text.clone(),
                    serde_json::Value::Number(number) if !number.is_f64() => number.to_string(),
                    _ => return Err(bad(&format!("has no word or whole number under `{key}`"))),
                }
            }
        };
        if text.is_empty() {
            return Err(bad("is empty"));
        }
        labels.insert(sample.to_owned(), text);
    }
    Ok(labels)
}

fn without_label(path: &Path, member: &Member, label: &TarLabel) -> DataError {
    let what = match label {
        TarLabel::Json(_) => format!("no `{}.json` beside it", member.split().0),
        TarLabel::Folder => "no folder".to_owned(),
        TarLabel::Cls | TarLabel::None => format!("no `{}.cls` beside it", member.split().0),
    };
    DataError::source(
        format!("`{}` in `{}` has no label: there is {what}", member.name, path.display()),
        "set `label` to `none` for images without labels, to `folder`, or to `{ json: KEY }`",
    )
}
