//! A folder of images: sub-folders are classes, a flat folder is unlabelled.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use super::{
    DataError, Progress,
    class_names::{EXTENSIONS, is_image_extension},
    decode::{DecodeOptions, OwnedImage, decode_file},
    image_source::{ImageSource, SourceItem},
};

/// The images below a folder, sorted by class and then by relative path, byte by byte.
#[derive(Debug)]
pub struct ImageFolder {
    class_names: Vec<String>,
    items: Vec<SourceItem>,
    paths: Vec<PathBuf>,
}

/// A file or folder name with the path to it.
struct Entry {
    name: String,
    path: PathBuf,
}

/// What a folder holds, hidden things and other files left out.
#[derive(Default)]
struct Listing {
    folders: Vec<Entry>,
    images: Vec<Entry>,
}

impl ImageFolder {
    /// Lists the images below `root`; `wanted_classes` only decides how a lone sub-folder is understood.
    ///
    /// # Errors
    /// When the folder is missing, unreadable or holds no image.
    pub fn scan(root: &Path, wanted_classes: &[String], progress: &dyn Progress) -> Result<Self, DataError> {
        check_is_folder(root)?;
        let mut dir = root.to_owned();
        let mut prefix = String::new();
        loop {
            let listing = list(&dir).map_err(|source| read_error(&dir, source))?;
            let images = listing.folders.par_iter().map(|folder| {
                let mut images = vec![];
                collect(&folder.path, &format!("{prefix}{}/", folder.name), &mut vec![], &mut images)?;
                Ok(images)
            });
            let images = images.collect::<Result<Vec<_>, DataError>>()?;
            let classes: Vec<(&Entry, Vec<Entry>)> =
                listing.folders.iter().zip(images).filter(|(_, images)| !images.is_empty()).collect();
            if let [(lone, _)] = &classes[..]
                && listing.images.is_empty()
                && !wanted_classes.contains(&lone.name)
                && holds_class_folders(&lone.path)?
            {
                // `seg_train/seg_train/<classes>`, as some archives unpack.
                prefix = format!("{prefix}{}/", lone.name);
                dir.clone_from(&lone.path);
                continue;
            }
            return Self::from_listing(root, &prefix, listing.images, classes, progress);
        }
    }

    /// Lists all images below `root`, without labels.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub fn scan_flat(root: &Path) -> Result<Self, DataError> {
        check_is_folder(root)?;
        let mut images = vec![];
        collect(root, "", &mut vec![], &mut images)?;
        if images.is_empty() {
            return Err(no_images(root));
        }
        let mut source = Self { class_names: vec![], items: vec![], paths: vec![] };
        for entry in images {
            source.push(entry, None);
        }
        Ok(source)
    }

    fn from_listing(
        root: &Path,
        prefix: &str,
        flat: Vec<Entry>,
        classes: Vec<(&Entry, Vec<Entry>)>,
        progress: &dyn Progress,
    ) -> Result<Self, DataError> {
        let mut source = Self { class_names: vec![], items: vec![], paths: vec![] };
        if classes.is_empty() {
            if flat.is_empty() {
                return Err(no_images(root));
            }
            for mut entry in flat {
                entry.name = format!("{prefix}{}", entry.name);
                source.push(entry, None);
            }
            return Ok(source);
        }
        if let Some(first) = flat.first() {
            progress.warn(&format!(
                "{} images beside the class folders of `{}` are left out, such as `{}`",
                flat.len(),
                root.display(),
                first.name
            ));
        }
        for (label, (class, images)) in classes.into_iter().enumerate() {
            source.class_names.push(class.name.clone());
            for entry in images {
                source.push(entry, Some(label as u32));
            }
        }
        Ok(source)
    }

    fn push(&mut self, entry: Entry, label: Option<u32>) {
        self.items.push(SourceItem { name: entry.name, label });
        self.paths.push(entry.path);
    }
}

impl ImageSource for ImageFolder {
    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn items(&self) -> &[SourceItem] {
        &self.items
    }

    fn decode(&self, idx: usize, options: &DecodeOptions) -> Result<OwnedImage, String> {
        decode_file(&self.paths[idx], options)
    }
}

fn no_images(root: &Path) -> DataError {
    DataError::source(
        format!("folder `{}` holds no images", root.display()),
        format!("put files that end in {} into it, or into one sub-folder for each class", extensions()),
    )
}

fn check_is_folder(root: &Path) -> Result<(), DataError> {
    let message = match fs::metadata(root) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => format!("`{}` is a file, not a folder of images", root.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!("folder `{}` does not exist", root.display()),
        Err(source) => return Err(read_error(root, source)),
    };
    Err(DataError::source(message, "correct `source.image_folder`; relative paths start at the project root"))
}

fn read_error(path: &Path, source: io::Error) -> DataError {
    DataError::Io { action: "read", path: path.to_owned(), source }
}

fn list(dir: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let file_type = entry.file_type()?;
        // A link counts as what it points at; a broken one named like an image is a broken image.
        if file_type.is_dir() || (file_type.is_symlink() && path.is_dir()) {
            listing.folders.push(Entry { name, path });
        } else if is_image_name(&path) {
            listing.images.push(Entry { name, path });
        }
    }
    for entries in [&mut listing.folders, &mut listing.images] {
        entries.sort_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
    }
    Ok(listing)
}

fn is_image_name(path: &Path) -> bool {
    path.extension().and_then(|extension| extension.to_str()).is_some_and(is_image_extension)
}

fn extensions() -> String {
    EXTENSIONS.map(|extension| format!(".{extension}")).join(" ")
}

/// All images below `dir` with names that start with `prefix`, sorted. `above` are the folders on the way, so
/// that a link upward does not lead around for ever.
fn collect(dir: &Path, prefix: &str, above: &mut Vec<PathBuf>, out: &mut Vec<Entry>) -> Result<(), DataError> {
    let real = fs::canonicalize(dir).map_err(|source| read_error(dir, source))?;
    if above.contains(&real) {
        return Ok(());
    }
    let is_top = above.is_empty();
    above.push(real);
    let listing = list(dir).map_err(|source| read_error(dir, source))?;
    out.extend(listing.images.into_iter().map(|entry| Entry { name: format!("{prefix}{}", entry.name), ..entry }));
    for folder in listing.folders {
        collect(&folder.path, &format!("{prefix}{}/", folder.name), above, out)?;
    }
    above.pop();
    if is_top {
        out.sort_by(|a, b| (a.name.as_bytes(), &a.path).cmp(&(b.name.as_bytes(), &b.path)));
    }
    Ok(())
}

/// Whether a folder holds no images itself but folders with images.
fn holds_class_folders(dir: &Path) -> Result<bool, DataError> {
    let listing = list(dir).map_err(|source| read_error(dir, source))?;
    if !listing.images.is_empty() {
        return Ok(false);
    }
    for folder in listing.folders {
        let mut images = vec![];
        collect(&folder.path, "", &mut vec![], &mut images)?;
        if !images.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
