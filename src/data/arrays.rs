//! Images as arrays of bytes: IDX (MNIST and its relatives) and NumPy's `.npy`.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use super::{
    DataError,
    class_names::classes_of,
    decode::{DecodeOptions, OwnedImage},
    image_source::{ImageSource, SourceItem},
    npy_header::{NpyHeader, parse_npy_header},
    record_file::{RecordFile, compression, open_file},
    source_config::ArraysConfig,
};

/// Labels that are read at most: beyond this nobody has images.
const MAX_LABEL_BYTES: u64 = 1 << 32;

/// Where the channels of a pixel are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Grey,
    Interleaved,
    Planes,
}

/// An array of images with an array of labels.
#[derive(Debug)]
pub struct Arrays {
    class_names: Vec<String>,
    items: Vec<SourceItem>,
    file: RecordFile,
    width: u32,
    height: u32,
    layout: Layout,
}

/// What the head of a file says.
#[derive(Debug)]
struct Head {
    shape: Vec<u64>,
    /// Where the values begin.
    start: u64,
    /// Bytes of a value, and how it becomes a number.
    value: ValueType,
}

/// A whole number in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ValueType {
    /// 1, 2, 4 or 8 bytes.
    pub(super) size: usize,
    /// Whether it has a sign.
    pub(super) signed: bool,
    /// Whether the largest byte comes first.
    pub(super) big_endian: bool,
}

const BYTE: ValueType = ValueType { size: 1, signed: false, big_endian: false };

impl ValueType {
    fn read(self, bytes: &[u8]) -> i128 {
        let mut wide = [0; 8];
        for (idx, &byte) in bytes.iter().enumerate() {
            wide[if self.big_endian { bytes.len() - 1 - idx } else { idx }] = byte;
        }
        let value = u64::from_le_bytes(wide);
        let unused = 64 - 8 * bytes.len() as u32;
        if self.signed { i128::from((value << unused) as i64 >> unused) } else { i128::from(value) }
    }
}

impl Arrays {
    /// Opens IDX files and checks that they fit together.
    ///
    /// # Errors
    /// When a file is missing, of another kind, cut off, or does not fit the other.
    pub fn open_idx(root: &Path, config: &ArraysConfig) -> Result<Self, DataError> {
        Self::open(root, config, ["source.idx.images", "source.idx.labels"], read_idx_head)
    }

    /// Opens NumPy arrays and checks that they fit together.
    ///
    /// # Errors
    /// As [`Self::open_idx`].
    pub fn open_npy(root: &Path, config: &ArraysConfig) -> Result<Self, DataError> {
        Self::open(root, config, ["source.npy.images", "source.npy.labels"], read_npy_head)
    }

    fn open(
        root: &Path,
        config: &ArraysConfig,
        keys: [&str; 2],
        read_head: fn(&mut File) -> io::Result<Result<Head, String>>,
    ) -> Result<Self, DataError> {
        let path = root.join(&config.images);
        let (_, head) = open_array(&path, keys[0], read_head)?;
        if head.value != BYTE {
            return Err(unfit(&path, "its values are not bytes", "store pixels as unsigned bytes from 0 to 255"));
        }
        let shape_help = "images are arrays [images, height, width], or with 1 or 3 channels behind or before";
        if let [_, second @ (1 | 3), _, last @ (1 | 3)] = head.shape[..]
            && (second, last) != (1, 1)
        {
            return Err(unfit(
                &path,
                &format!("its shape is {:?}, where {second} and {last} may both be the channels", head.shape),
                "pad the images until they are higher and wider than 3 pixels, or leave the axis of a single channel away",
            ));
        }
        let (num_images, height, width, layout) = match head.shape[..] {
            [n, h, w] | [n, h, w, 1] | [n, 1, h, w] => (n, h, w, Layout::Grey),
            [n, h, w, 3] => (n, h, w, Layout::Interleaved),
            [n, 3, h, w] => (n, h, w, Layout::Planes),
            _ => return Err(unfit(&path, &format!("its shape is {:?}", head.shape), shape_help)),
        };
        let side = |side: u64| u32::try_from(side).ok().filter(|&side| side > 0);
        let (Some(width), Some(height)) = (side(width), side(height)) else {
            return Err(unfit(&path, &format!("its shape is {:?}", head.shape), shape_help));
        };
        if num_images == 0 {
            return Err(unfit(&path, "it holds no images", shape_help));
        }
        let channels = if layout == Layout::Grey { 1 } else { 3 };
        let labels = match &config.labels {
            Some(labels) => read_labels(&root.join(labels), keys[1], read_head)?,
            None => vec![],
        };
        if config.labels.is_some() && labels.len() as u64 != num_images {
            return Err(DataError::source(
                format!(
                    "`{}` has {} labels for the {num_images} images of `{}`",
                    root.join(config.labels.as_deref().unwrap_or_default()).display(),
                    labels.len(),
                    path.display()
                ),
                format!("`{}` and `{}` must belong together", keys[0], keys[1]),
            ));
        }
        let (class_names, indices) = classes_of(labels.iter().map(|label| Some(label.as_str())));
        let digits = num_images.saturating_sub(1).to_string().len();
        let items = (0..num_images as usize)
            .map(|idx| SourceItem { name: format!("{idx:0digits$}"), label: indices.get(idx).copied().flatten() })
            .collect();
        // The size of the file has been compared with the shape, so that this fits.
        let record = channels * width as usize * height as usize;
        Ok(Self { class_names, items, file: RecordFile::new(path, head.start, record), width, height, layout })
    }
}

impl ImageSource for Arrays {
    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn items(&self) -> &[SourceItem] {
        &self.items
    }

    fn decode(&self, idx: usize, options: &DecodeOptions) -> Result<OwnedImage, String> {
        options.check_size(self.width, self.height)?;
        let bytes = self.file.read(idx)?;
        let rgb = match self.layout {
            Layout::Grey => bytes.iter().flat_map(|&grey| [grey; 3]).collect(),
            Layout::Interleaved => bytes,
            Layout::Planes => {
                let area = bytes.len() / 3;
                (0..area).flat_map(|at| [bytes[at], bytes[area + at], bytes[2 * area + at]]).collect()
            }
        };
        Ok(OwnedImage { width: self.width, height: self.height, rgb })
    }
}

fn unfit(path: &Path, what: &str, help: &str) -> DataError {
    DataError::source(format!("`{}` cannot be used: {what}", path.display()), help)
}

/// Reads the head of a file and compares its size with what that says.
fn open_array(
    path: &Path,
    key: &str,
    read_head: fn(&mut File) -> io::Result<Result<Head, String>>,
) -> Result<(File, Head), DataError> {
    let (mut file, len) = open_file(path, key)?;
    let head = match read_head(&mut file) {
        Ok(Ok(head)) => head,
        Ok(Err(what)) => {
            let help = if what.contains("compressed") {
                "unpack it first"
            } else {
                "the file is damaged or of another format"
            };
            return Err(unfit(path, &what, help));
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(unfit(path, "it is cut off", "the file is damaged or of another format"));
        }
        Err(source) => return Err(DataError::Io { action: "read", path: path.to_owned(), source }),
    };
    let values = head.shape.iter().try_fold(head.value.size as u64, |size, &side| size.checked_mul(side));
    let expected = values.and_then(|values| values.checked_add(head.start));
    if expected != Some(len) {
        let what = format!("its head says {:?}, which does not fit its {len} bytes", head.shape);
        return Err(unfit(path, &what, "the file is cut off or damaged; copy it again"));
    }
    Ok((file, head))
}

fn read_labels(
    path: &Path,
    key: &str,
    read_head: fn(&mut File) -> io::Result<Result<Head, String>>,
) -> Result<Vec<String>, DataError> {
    let (mut file, head) = open_array(path, key, read_head)?;
    let ([count] | [count, 1]) = head.shape[..] else {
        let help = "labels are one whole number for each image";
        return Err(unfit(path, &format!("its shape is {:?}", head.shape), help));
    };
    if count.saturating_mul(head.value.size as u64) > MAX_LABEL_BYTES {
        return Err(unfit(path, &format!("it has {count} labels"), "split the dataset"));
    }
    let mut bytes = vec![];
    file.read_to_end(&mut bytes).map_err(|source| DataError::Io { action: "read", path: path.to_owned(), source })?;
    Ok(bytes.chunks_exact(head.value.size).map(|bytes| head.value.read(bytes).to_string()).collect())
}

/// Two zeros, the type of the values, the number of dimensions, and each dimension in four bytes.
fn read_idx_head(file: &mut File) -> io::Result<Result<Head, String>> {
    let mut magic = [0; 4];
    file.read_exact(&mut magic)?;
    if let Some(name) = compression(&magic) {
        return Ok(Err(format!("it is compressed with {name}")));
    }
    let [0, 0, kind, dimensions @ 1..=4] = magic else { return Ok(Err("it is no IDX file".into())) };
    let value = |size, signed| ValueType { size, signed, big_endian: true };
    let value = match kind {
        0x08 => BYTE,
        0x09 => ValueType { signed: true, ..BYTE },
        0x0B => value(2, true),
        0x0C => value(4, true),
        _ => return Ok(Err("its values are not whole numbers".into())),
    };
    let mut sides = vec![0; 4 * usize::from(dimensions)];
    file.read_exact(&mut sides)?;
    let shape = sides.as_chunks::<4>().0.iter().map(|side| u64::from(u32::from_be_bytes(*side))).collect();
    Ok(Ok(Head { shape, start: 4 + sides.len() as u64, value }))
}

fn read_npy_head(file: &mut File) -> io::Result<Result<Head, String>> {
    let mut front = [0; 8];
    file.read_exact(&mut front)?;
    if let Some(name) = compression(&front) {
        return Ok(Err(format!("it is compressed with {name}; an `.npz` holds several arrays")));
    }
    let (b"\x93NUMPY", [major, _]) = front.split_at(6) else { return Ok(Err("it is no `.npy` file".into())) };
    let mut size = [0; 4];
    let size_len = if *major == 1 { 2 } else { 4 };
    file.read_exact(&mut size[..size_len])?;
    let len = u32::from_le_bytes(size);
    if len > 1 << 16 {
        return Ok(Err(format!("its head claims {len} bytes")));
    }
    let mut text = vec![0; len as usize];
    file.read_exact(&mut text)?;
    Ok(parse_npy_header(&text).map(|NpyHeader { value, shape }| Head {
        shape,
        start: 8 + size_len as u64 + u64::from(len),
        value,
    }))
}
