//! `images.safetensors` of a dataset artifact: what there is to know of each image beside its pixels. The table is mapped
//! and checked once, not copied: that of a million images opens in milliseconds.

use std::{fs::File, ops::Range, path::Path};

use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors, tensor::Metadata};

use super::{DataError, pixel_sums::PixelSums};

/// The table of a dataset.
#[derive(Debug)]
pub(super) struct ImageTable {
    map: Mmap,
    num_images: usize,
    /// Index of the first image of each run, and the number of images in the end.
    firsts: Vec<usize>,
    labels: Range<usize>,
    sizes: Range<usize>,
    starts: Range<usize>,
    sums: Range<usize>,
    name_ends: Range<usize>,
    names: Range<usize>,
}

impl ImageTable {
    /// Opens a table and checks that everything in it fits together and labels are below `num_classes`.
    ///
    /// # Errors
    /// When it is missing, damaged or of another version.
    pub(super) fn open(path: &Path, num_images: u64, num_classes: usize) -> Result<Self, DataError> {
        let io_error = |source| DataError::Io { action: "open", path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io_error)?;
        // SAFETY: artifacts are immutable once visible; nothing in this program writes to one.
        let map = unsafe { Mmap::map(&file) }.map_err(io_error)?;
        Self::from_map(map, num_images, num_classes)
            .map_err(|message| DataError::Artifact { path: path.to_path_buf(), message })
    }

    fn from_map(map: Mmap, num_images: u64, num_classes: usize) -> Result<Self, String> {
        let num_images = usize::try_from(num_images).map_err(|_| "it claims too many images".to_owned())?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|error| format!("bad header: {error}"))?;
        let column = |name: &str, dtype: Dtype, shape: &[Option<usize>]| -> Result<Range<usize>, String> {
            // The header's length stands before it in eight bytes.
            let Range { start, end } = column(&metadata, name, dtype, shape)?;
            Ok(8 + header + start..8 + header + end)
        };
        let n = Some(num_images);
        let mut table = Self {
            labels: column("labels", Dtype::I64, &[n])?,
            sizes: column("sizes", Dtype::U32, &[n, Some(2)])?,
            starts: column("starts", Dtype::U64, &[n])?,
            sums: column("sums", Dtype::U64, &[n, Some(2), Some(3)])?,
            name_ends: column("name_ends", Dtype::U64, &[n])?,
            names: column("names", Dtype::U8, &[None])?,
            firsts: vec![],
            num_images,
            map,
        };
        let firsts = table.column::<8>(&column("runs", Dtype::U64, &[None])?).iter();
        let firsts: Option<Vec<usize>> = firsts.map(|first| usize::try_from(u64::from_le_bytes(*first)).ok()).collect();
        let firsts = firsts.filter(|firsts| are_runs(firsts, num_images));
        table.firsts = firsts.ok_or("its runs are not those of its images")?;
        if table.name_start(num_images) != table.names.len() {
            return Err("its names do not end where the last one does".into());
        }
        table.firsts.par_windows(2).try_for_each(|rows| table.check(rows[0]..rows[1], num_classes))?;
        Ok(table)
    }

    /// Checks what is said of the images of a run.
    fn check(&self, rows: Range<usize>, num_classes: usize) -> Result<(), String> {
        let names = self.name_start(rows.start)..self.name_start(rows.end);
        let text = self.map[self.names.clone()].get(names.clone()).and_then(|bytes| str::from_utf8(bytes).ok());
        let text = text.ok_or_else(|| format!("the names of images {rows:?} are not text"))?;
        let (mut start, mut name_start) = (0_u64, names.start);
        for row in rows {
            let [width, height] = self.size(row);
            let len = (u64::from(width) * u64::from(height)).checked_mul(3).filter(|len| *len > 0);
            let end = len.and_then(|len| start.checked_add(len)).filter(|_| self.start(row) as u64 == start);
            start = end.ok_or_else(|| {
                format!("image {row} cannot have a size of {width}×{height} and begin at {}", self.start(row))
            })?;
            let label = self.raw_label(row);
            if label < -1 || label >= num_classes as i64 {
                return Err(format!("image {row} has label {label} of {num_classes} classes"));
            }
            let name_end = self.name_start(row + 1);
            if name_end < name_start || !text.is_char_boundary(name_end - names.start) {
                return Err(format!("the name of image {row} cannot end at {name_end}"));
            }
            name_start = name_end;
        }
        Ok(())
    }

    /// Number of images.
    pub(super) fn len(&self) -> usize {
        self.num_images
    }

    /// Number of runs.
    pub(super) fn num_runs(&self) -> usize {
        self.firsts.len() - 1
    }

    /// The images of a run.
    pub(super) fn run(&self, run: usize) -> Range<usize> {
        self.firsts[run]..self.firsts[run + 1]
    }

    /// The run that an image is in.
    pub(super) fn run_of(&self, row: usize) -> usize {
        self.firsts.partition_point(|first| *first <= row) - 1
    }

    /// Where the pixels of an image begin in the file of its run.
    pub(super) fn start(&self, row: usize) -> usize {
        self.word(&self.starts, row) as usize
    }

    /// Width and height.
    pub(super) fn size(&self, row: usize) -> [u32; 2] {
        let bytes = self.column::<8>(&self.sizes)[row];
        [
            u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        ]
    }

    /// The class, an index into the card's class names.
    pub(super) fn label(&self, row: usize) -> Option<u32> {
        u32::try_from(self.raw_label(row)).ok()
    }

    /// Sums over the pixels.
    pub(super) fn sums(&self, row: usize) -> PixelSums {
        let sums = |first: usize| std::array::from_fn(|channel| self.word(&self.sums, row * 6 + first + channel));
        PixelSums { values: sums(0), squares: sums(3) }
    }

    /// The name that the source gave the image.
    pub(super) fn name(&self, row: usize) -> &str {
        let bytes = &self.map[self.names.clone()][self.name_start(row)..self.name_start(row + 1)];
        // Checked when it was opened.
        str::from_utf8(bytes).unwrap_or_default()
    }

    /// −1 where there is none.
    fn raw_label(&self, row: usize) -> i64 {
        self.word(&self.labels, row) as i64
    }

    /// Where the name of an image begins, or that of the image before it ends.
    fn name_start(&self, row: usize) -> usize {
        match row.checked_sub(1) {
            Some(before) => self.word(&self.name_ends, before) as usize,
            None => 0,
        }
    }

    fn word(&self, column: &Range<usize>, idx: usize) -> u64 {
        u64::from_le_bytes(self.column(column)[idx])
    }

    fn column<const N: usize>(&self, column: &Range<usize>) -> &[[u8; N]] {
        self.map[column.clone()].as_chunks().0
    }
}

/// Where a column's bytes lie after the header.
fn column(metadata: &Metadata, name: &str, dtype: Dtype, shape: &[Option<usize>]) -> Result<Range<usize>, String> {
    let tensor = metadata.info(name).ok_or_else(|| format!("it has no tensor `{name}`"))?;
    let fits = tensor.shape.len() == shape.len()
        && tensor.shape.iter().zip(shape).all(|(found, wanted)| wanted.is_none_or(|side| side == *found));
    if tensor.dtype != dtype || !fits {
        return Err(format!("`{name}` is {:?} {:?}", tensor.dtype, tensor.shape));
    }
    Ok(tensor.data_offsets.0..tensor.data_offsets.1)
}

/// Whether these are the first images of runs that are not empty, with the number of images in the end.
fn are_runs(firsts: &[usize], num_images: usize) -> bool {
    firsts.first() == Some(&0) && firsts.last() == Some(&num_images) && firsts.is_sorted_by(|a, b| a < b)
}
