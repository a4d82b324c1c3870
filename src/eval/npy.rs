//! NumPy's `.npy` format, version 1.0: a magic word, a header that is a Python literal, little-endian values.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use bytemuck::Pod;

use super::eval_error::EvalError;

/// Values with a NumPy type.
pub(crate) trait NpyElement: Pod {
    /// NumPy's name of the type.
    const DESCR: &'static str;
}

impl NpyElement for f32 {
    const DESCR: &'static str = "<f4";
}

impl NpyElement for i64 {
    const DESCR: &'static str = "<i8";
}

/// Writes `values` of `shape` in C order.
pub(crate) fn save_npy<T: NpyElement>(path: &Path, shape: &[usize], values: &[T]) -> Result<(), EvalError> {
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&header(T::DESCR, shape, 64))?;
        file.write_all(bytemuck::cast_slice(values))?;
        file.flush()
    };
    write().map_err(|source| EvalError::Io { action: "write", path: path.to_owned(), source })
}

/// Padded with spaces and closed by a line feed so that the values begin at a multiple of `align` bytes, itself a
/// multiple of 64.
pub(crate) fn header(descr: &str, shape: &[usize], align: usize) -> Vec<u8> {
    let mut sizes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    if sizes.len() == 1 {
        // A tuple of one.
        sizes.push(String::new());
    }
    let mut dict =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", sizes.join(", ").trim_end());
    const PREFIX: usize = 10;
    let padded = (PREFIX + dict.len() + 1).next_multiple_of(align);
    dict.extend(std::iter::repeat_n(' ', padded - PREFIX - dict.len() - 1));
    dict.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((dict.len() as u16).to_le_bytes());
    bytes.extend(dict.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_equal_numpy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        save_npy(&path, &[3, 2], &[0.0_f32, 0.5, 1.0, 1.5, 2.0, 2.5]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), include_bytes!("../../tests/golden/eval/features.npy"));
        save_npy(&path, &[4], &[3_i64, 1, -1, 2]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), include_bytes!("../../tests/golden/eval/labels.npy"));
    }

    #[test]
    fn headers_end_at_a_multiple_of_64_bytes() {
        for shape in [&[0][..], &[1, 2], &[1_281_167, 2048], &[10, 10, 10, 10, 10, 10, 10, 10, 10]] {
            let header = header("<f4", shape, 64);
            assert_eq!(header.len() % 64, 0);
            assert_eq!(header.last(), Some(&b'\n'));
        }
    }
}
