//! A table of embeddings written row by row, whose length is known only at the end.
//!
//! `.npy` and `.safetensors` begin with a header that holds the number of rows. Room for it is left at the start, which
//! both formats allow to be padded with spaces.

use std::{
    io::{self, Seek, SeekFrom, Write},
    path::Path,
};

use serde_json::json;

use super::{classifier_artifact::csv_field, npy};

/// Bytes of either header.
const HEADER_BYTES: usize = 256;

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureFormat {
    /// NumPy's.
    Npy,
    /// One tensor, `features`.
    Safetensors,
    /// A header line, then the name of the file and the values.
    Csv,
}

impl FeatureFormat {
    /// The format that the ending of a file name says, if it says one.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "npy" => Some(Self::Npy),
            "safetensors" => Some(Self::Safetensors),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// A table being written.
pub struct FeatureWriter<W> {
    out: W,
    format: FeatureFormat,
    dim: usize,
    rows: usize,
}

impl<W: Write + Seek> FeatureWriter<W> {
    /// Begins a table of rows of `dim` values.
    ///
    /// # Errors
    /// Where writing fails.
    pub fn new(mut out: W, format: FeatureFormat, dim: usize) -> io::Result<Self> {
        match format {
            FeatureFormat::Npy | FeatureFormat::Safetensors => out.write_all(&[b' '; HEADER_BYTES])?,
            FeatureFormat::Csv => {
                out.write_all(b"file")?;
                (0..dim).try_for_each(|column| write!(out, ",f{column}"))?;
                writeln!(out)?;
            }
        }
        Ok(Self { out, format, dim, rows: 0 })
    }

    /// Appends the row of the file `name`.
    ///
    /// # Errors
    /// Where writing fails.
    pub fn push(&mut self, name: &str, row: &[f32]) -> io::Result<()> {
        self.rows += 1;
        match self.format {
            FeatureFormat::Npy | FeatureFormat::Safetensors => self.out.write_all(bytemuck::cast_slice(row)),
            FeatureFormat::Csv => {
                self.out.write_all(csv_field(name).as_bytes())?;
                // The shortest text that reads back to the same f32.
                row.iter().try_for_each(|value| write!(self.out, ",{value}"))?;
                writeln!(self.out)
            }
        }
    }

    /// Completes the table.
    ///
    /// # Errors
    /// Where writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        let shape = [self.rows, self.dim];
        match self.format {
            FeatureFormat::Csv => {}
            FeatureFormat::Npy => {
                self.out.seek(SeekFrom::Start(0))?;
                self.out.write_all(&npy::header("<f4", &shape, HEADER_BYTES))?;
            }
            FeatureFormat::Safetensors => {
                let len = size_of::<f32>() * self.rows * self.dim;
                let header = json!({
                    "__metadata__": { "format": "pt" },
                    "features": { "dtype": "F32", "shape": shape, "data_offsets": [0, len] },
                });
                self.out.seek(SeekFrom::Start(0))?;
                self.out.write_all(&((HEADER_BYTES - 8) as u64).to_le_bytes())?;
                self.out.write_all(header.to_string().as_bytes())?;
            }
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use safetensors::SafeTensors;

    use super::*;

    fn write(format: FeatureFormat, rows: &[(&str, [f32; 3])]) -> Vec<u8> {
        let mut writer = FeatureWriter::new(Cursor::new(vec![]), format, 3).unwrap();
        for (name, row) in rows {
            writer.push(name, row).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn every_format_holds_the_rows() {
        let rows = [("a.png", [1.0, -0.1, 3.5e-12]), ("b, \"c\".png", [0.25, 1e20, 7.0])];
        let npy = write(FeatureFormat::Npy, &rows);
        assert!(
            npy.starts_with(b"\x93NUMPY\x01\x00\xf6\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }  ")
        );
        let values: Vec<f32> = rows.iter().flat_map(|row| row.1).collect();
        assert_eq!((npy.len(), &npy[HEADER_BYTES..]), (HEADER_BYTES + 24, bytemuck::cast_slice(&values)));

        let safetensors = write(FeatureFormat::Safetensors, &rows);
        let features = SafeTensors::deserialize(&safetensors).unwrap().tensor("features").unwrap().data().to_vec();
        assert_eq!(features, bytemuck::cast_slice::<f32, u8>(&values));
        let none = write(FeatureFormat::Safetensors, &[]);
        assert_eq!(SafeTensors::deserialize(&none).unwrap().tensor("features").unwrap().shape(), [0, 3]);

        let csv = String::from_utf8(write(FeatureFormat::Csv, &rows)).unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines[..2], ["file,f0,f1,f2", "a.png,1,-0.1,0.0000000000035"]);
        assert!(lines[2].starts_with("\"b, \"\"c\"\".png\",0.25,"));
    }

    #[test]
    fn the_ending_says_the_format() {
        assert_eq!(FeatureFormat::of(Path::new("x/y.npy")), Some(FeatureFormat::Npy));
        assert_eq!(FeatureFormat::of(Path::new("y.csv")), Some(FeatureFormat::Csv));
        assert_eq!(FeatureFormat::of(Path::new("npy")), None);
        assert_eq!(FeatureFormat::of(Path::new("y.txt")), None);
    }
}
