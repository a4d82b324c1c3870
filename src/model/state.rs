//! Named tensors as they are saved: the common language of networks, checkpoints and weight files.

use std::{borrow::Cow, collections::BTreeMap, path::Path};

use safetensors::{Dtype, SafeTensors, View};

/// A named tensor in PyTorch's shape, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct StateEntry {
    /// Name, such as `layer1.0.conv1.weight`.
    pub name: String,
    /// Shape; empty for a single number.
    pub shape: Vec<usize>,
    /// The numbers.
    pub data: StateData,
}

/// The numbers of a [`StateEntry`].
#[derive(Clone, Debug, PartialEq)]
pub enum StateData {
    /// Weights and statistics.
    F32(Vec<f32>),
    /// Counters.
    I64(Vec<i64>),
}

impl StateEntry {
    /// An entry of floats.
    pub fn f32(name: impl Into<String>, shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self { name: name.into(), shape, data: StateData::F32(values) }
    }

    /// An entry of integers.
    pub fn i64(name: impl Into<String>, shape: Vec<usize>, values: Vec<i64>) -> Self {
        Self { name: name.into(), shape, data: StateData::I64(values) }
    }
}

impl StateData {
    pub(super) fn describe(&self, shape: &[usize]) -> String {
        match self {
            StateData::F32(_) => format!("f32 {shape:?}"),
            StateData::I64(_) => format!("i64 {shape:?}"),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            StateData::F32(values) => values.len(),
            StateData::I64(values) => values.len(),
        }
    }

    pub(super) fn same_type(&self, other: &StateData) -> bool {
        matches!((self, other), (Self::F32(_), Self::F32(_)) | (Self::I64(_), Self::I64(_)))
    }
}

impl View for &StateEntry {
    fn dtype(&self) -> Dtype {
        match self.data {
            StateData::F32(_) => Dtype::F32,
            StateData::I64(_) => Dtype::I64,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match &self.data {
            StateData::F32(values) => Cow::Borrowed(bytemuck::cast_slice(values)),
            StateData::I64(values) => Cow::Borrowed(bytemuck::cast_slice(values)),
        }
    }

    fn data_len(&self) -> usize {
        match &self.data {
            StateData::F32(values) => 4 * values.len(),
            StateData::I64(values) => 8 * values.len(),
        }
    }
}

/// Why named tensors cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The bytes are not a safetensors file.
    #[error("`{file}` is not a readable safetensors file: {message}")]
    NotSafetensors {
        /// Which file.
        file: String,
        /// The reader's word.
        message: String,
    },
    /// A tensor is missing.
    #[error("tensor `{name}` is missing")]
    Missing {
        /// Which one.
        name: String,
    },
    /// A tensor has another shape or type.
    #[error("tensor `{name}` has shape {found} where {expected} is needed")]
    Shape {
        /// Which one.
        name: String,
        /// Type and shape as found.
        found: String,
        /// Type and shape as needed.
        expected: String,
    },
    /// A tensor holds a value that is not finite.
    #[error("tensor `{name}` holds a value that is not finite")]
    NotFinite {
        /// Which one.
        name: String,
    },
}

/// Named tensors to look up by name, shape and type.
pub struct StateMap<'a> {
    entries: BTreeMap<&'a str, &'a StateEntry>,
}

impl<'a> StateMap<'a> {
    /// A map over entries.
    pub fn new(entries: &'a [StateEntry]) -> Self {
        Self { entries: entries.iter().map(|entry| (entry.name.as_str(), entry)).collect() }
    }

    fn get(&self, name: &str, shape: &[usize], dtype: &str) -> Result<&'a StateEntry, StateError> {
        let entry = self.entries.get(name).ok_or_else(|| StateError::Missing { name: name.into() })?;
        let found_dtype = match entry.data {
            StateData::F32(_) => "f32",
            StateData::I64(_) => "i64",
        };
        if entry.shape != shape || found_dtype != dtype {
            return Err(StateError::Shape {
                name: name.into(),
                found: format!("{found_dtype} {:?}", entry.shape),
                expected: format!("{dtype} {shape:?}"),
            });
        }
        Ok(entry)
    }

    /// Floats of this name and shape.
    ///
    /// # Errors
    /// Where it is missing, of another shape or type, or not finite.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<&'a [f32], StateError> {
        match &self.get(name, shape, "f32")?.data {
            StateData::F32(values) if values.iter().all(|value| value.is_finite()) => Ok(values),
            _ => Err(StateError::NotFinite { name: name.into() }),
        }
    }

    /// Integers of this name and shape; never empty where the shape has no 0.
    ///
    /// # Errors
    /// Where it is missing, or of another shape or type.
    pub fn i64(&self, name: &str, shape: &[usize]) -> Result<&'a [i64], StateError> {
        match &self.get(name, shape, "i64")?.data {
            StateData::I64(values) => Ok(values),
            StateData::F32(_) => Err(StateError::Missing { name: name.into() }),
        }
    }
}

/// The entries as a safetensors file, with text metadata.
///
/// # Errors
/// Where two entries have one name or a shape does not fit its numbers.
pub fn to_safetensors(
    entries: &[StateEntry],
    metadata: BTreeMap<String, String>,
) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let views = entries.iter().map(|entry| (entry.name.as_str(), entry));
    safetensors::serialize(views, Some(metadata.into_iter().collect()))
}

/// All f32 and i64 tensors of a safetensors file; `file` is for messages.
///
/// # Errors
/// Where the bytes are not such a file or hold another type.
pub fn from_safetensors(bytes: &[u8], file: &Path) -> Result<Vec<StateEntry>, StateError> {
    let unreadable = |message: String| StateError::NotSafetensors { file: file.display().to_string(), message };
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| unreadable(error.to_string()))?;
    let mut entries = vec![];
    for (name, view) in tensors.iter() {
        let values = match view.dtype() {
            // The data may lie at any address, so numbers are put together from bytes.
            Dtype::F32 => {
                StateData::F32(view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
            }
            Dtype::I64 => {
                StateData::I64(view.data().as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
            }
            other => return Err(unreadable(format!("tensor `{name}` has type {other:?}; only F32 and I64 are read"))),
        };
        entries.push(StateEntry { name: name.to_owned(), shape: view.shape().to_vec(), data: values });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// The text metadata of a safetensors file.
///
/// # Errors
/// Where the bytes are not such a file.
pub fn safetensors_metadata(bytes: &[u8], file: &Path) -> Result<BTreeMap<String, String>, StateError> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|error| StateError::NotSafetensors { file: file.display().to_string(), message: error.to_string() })?;
    Ok(metadata.metadata().clone().unwrap_or_default().into_iter().collect())
}
