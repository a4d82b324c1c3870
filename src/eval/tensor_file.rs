//! Safetensors files of f32 and i64 tables.
//!
//! Values are little-endian, as the format says and as every machine that this program supports is.

use std::{fs::File, path::Path};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::eval_error::EvalError;

/// Values of a tensor to be written.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    F32(&'a [f32]),
    I64(&'a [i64]),
    U8(&'a [u8]),
}

/// Writes named tensors with their shapes.
pub(crate) fn save_tensors(path: &Path, tensors: &[(String, Vec<usize>, Values<'_>)]) -> Result<(), EvalError> {
    let views = tensors.iter().map(|(name, shape, values)| {
        let (dtype, bytes) = match values {
            Values::F32(values) => (Dtype::F32, bytemuck::cast_slice(values)),
            Values::I64(values) => (Dtype::I64, bytemuck::cast_slice(values)),
            Values::U8(values) => (Dtype::U8, *values),
        };
        Ok((name.as_str(), TensorView::new(dtype, shape.clone(), bytes)?))
    });
    let views: Vec<_> = views
        .collect::<Result<_, safetensors::SafeTensorError>>()
        .map_err(|error| format_error(path, error.to_string()))?;
    safetensors::serialize_to_file(views, None, path).map_err(|error| EvalError::Io {
        action: "write",
        path: path.to_owned(),
        source: std::io::Error::other(error),
    })
}

/// A mapped file: tensors are copied out one at a time, so that a large file is never in memory whole.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: std::path::PathBuf,
    bytes: Mmap,
}

impl TensorFile {
    pub(crate) fn open(path: &Path) -> Result<Self, EvalError> {
        let io = |source| EvalError::Io { action: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: artifacts are immutable once they are visible, so nothing changes the file under the map.
        let bytes = unsafe { Mmap::map(&file) }.map_err(io)?;
        let opened = Self { path: path.to_owned(), bytes };
        opened.tensors()?;
        Ok(opened)
    }

    fn tensors(&self) -> Result<SafeTensors<'_>, EvalError> {
        SafeTensors::deserialize(&self.bytes)
            .map_err(|error| format_error(&self.path, format!("not a safetensors file: {error}")))
    }

    /// Values of a table [rows, columns]; `shape` holds `None` where any size will do.
    pub(crate) fn f32(&self, name: &str, shape: &[Option<usize>]) -> Result<Vec<f32>, EvalError> {
        let bytes = self.checked(name, Dtype::F32, shape)?;
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        if let Some(idx) = values.iter().position(|value| !value.is_finite()) {
            let columns = shape.get(1).copied().flatten().unwrap_or(1).max(1);
            return Err(EvalError::NotFinite {
                what: format!("tensor `{name}` of `{}`", self.path.display()),
                row: idx / columns,
                column: idx % columns,
            });
        }
        Ok(values)
    }

    /// Values of a list of labels.
    pub(crate) fn labels(&self, name: &str, num_rows: usize, num_classes: usize) -> Result<Vec<u32>, EvalError> {
        let bytes = self.checked(name, Dtype::I64, &[Some(num_rows)])?;
        let labels = bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).enumerate();
        labels
            .map(|(row, label)| match u32::try_from(label) {
                Ok(small) if (small as usize) < num_classes => Ok(small),
                _ => Err(EvalError::Label { row, label, num_classes }),
            })
            .collect()
    }

    /// All numbers of a list.
    pub(crate) fn i64(&self, name: &str) -> Result<Vec<i64>, EvalError> {
        let bytes = self.checked(name, Dtype::I64, &[None])?;
        Ok(bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect())
    }

    /// Bytes.
    pub(crate) fn u8(&self, name: &str) -> Result<&[u8], EvalError> {
        self.checked(name, Dtype::U8, &[None])
    }

    fn checked(&self, name: &str, dtype: Dtype, shape: &[Option<usize>]) -> Result<&[u8], EvalError> {
        let tensor = self
            .tensors()?
            .tensor(name)
            .map_err(|_| format_error(&self.path, format!("tensor `{name}` is missing")))?;
        let fits = tensor.shape().len() == shape.len()
            && tensor.shape().iter().zip(shape).all(|(&found, wanted)| wanted.is_none_or(|wanted| wanted == found));
        if tensor.dtype() != dtype || !fits {
            let wanted: Vec<String> =
                shape.iter().map(|size| size.map_or_else(|| "any".into(), |size| size.to_string())).collect();
            let message = format!(
                "tensor `{name}` is {:?} {:?} where {dtype:?} [{}] is needed",
                tensor.dtype(),
                tensor.shape(),
                wanted.join(", ")
            );
            return Err(format_error(&self.path, message));
        }
        Ok(tensor.data())
    }
}

pub(crate) fn format_error(path: &Path, message: impl Into<String>) -> EvalError {
    EvalError::Format { path: path.to_owned(), message: message.into() }
}

/// Writes pretty JSON with a line feed at the end.
pub(crate) fn save_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), EvalError> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| format_error(path, error.to_string()))?;
    text.push('\n');
    std::fs::write(path, text).map_err(|source| EvalError::Io { action: "write", path: path.to_owned(), source })
}

/// Reads JSON.
pub(crate) fn load_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, EvalError> {
    let text = std::fs::read_to_string(path).map_err(|source| EvalError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|error| format_error(path, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_back_and_wrong_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let tensors = [
            ("x".to_owned(), vec![2, 2], Values::F32(&[1.0, -2.5, 0.0, f32::MIN_POSITIVE])),
            ("nan".to_owned(), vec![1, 3], Values::F32(&[0.0, 1.0, f32::NAN])),
            ("labels".to_owned(), vec![3], Values::I64(&[0, 2, 1])),
            ("negative".to_owned(), vec![1], Values::I64(&[-1])),
        ];
        save_tensors(&path, &tensors).unwrap();
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.f32("x", &[None, Some(2)]).unwrap(), [1.0, -2.5, 0.0, f32::MIN_POSITIVE]);
        assert_eq!(file.labels("labels", 3, 3).unwrap(), [0, 2, 1]);
        let message = |result: Result<(), EvalError>| result.unwrap_err().to_string();
        assert!(message(file.f32("x", &[None, Some(3)]).map(drop)).contains("F32 [2, 2] where F32 [any, 3]"));
        assert!(message(file.f32("y", &[None]).map(drop)).contains("`y` is missing"));
        assert!(message(file.f32("nan", &[None, Some(3)]).map(drop)).ends_with("row 0, column 2"));
        assert!(message(file.labels("labels", 3, 2).map(drop)).contains("label 2 of row 1"));
        assert!(message(file.labels("negative", 1, 2).map(drop)).contains("label -1"));
        std::fs::write(&path, b"not a tensor").unwrap();
        assert!(message(TensorFile::open(&path).map(drop)).contains("not a safetensors file"));
    }
}
