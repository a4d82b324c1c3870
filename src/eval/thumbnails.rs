//! Small pictures of the embedded images, so that neighbours can be shown where the images are not.
//!
//! `thumbnails.safetensors` holds for each split the JPEG files one after the other (`train`, U8) and where each begins
//! (`train_offsets`, I64, one more than there are images).

use std::path::Path;

use image::{
    ImageEncoder as _,
    codecs::{jpeg::JpegEncoder, png::PngEncoder},
};
use rayon::prelude::*;

use super::{
    eval_error::EvalError,
    tensor_file::{TensorFile, Values, format_error, save_tensors},
};
use crate::{
    augment::{EvaluationView, ImageRef, Scratch, augment_config::ChannelStats},
    train::Preprocessing,
};

/// Name of the pictures in an embeddings artifact.
pub const THUMBNAILS_FILE: &str = "thumbnails.safetensors";
/// Width and height of a picture.
pub const THUMBNAIL_SIZE: usize = 64;

const QUALITY: u8 = 85;
/// Pixels between the pictures of a sheet.
const GUTTER: usize = 4;

/// The view that pictures show: what the network sees of an image, at another size.
pub fn thumbnail_view(preprocessing: &Preprocessing) -> EvaluationView {
    let unit = ChannelStats { mean: [0.0; 3], std: [1.0; 3] };
    EvaluationView::new(THUMBNAIL_SIZE as u32, preprocessing.evaluation, &unit)
}

/// RGB bytes of a picture.
pub fn thumbnail(view: &EvaluationView, image: ImageRef<'_>, scratch: &mut Scratch) -> Vec<u8> {
    let mut rgb = vec![0; 3 * THUMBNAIL_SIZE * THUMBNAIL_SIZE];
    view.view_pixels(image, scratch, &mut rgb);
    rgb
}

/// JPEG files of the pictures of images that are given by index; `known` are those that were encoded before.
///
/// # Errors
/// Where a picture cannot be encoded.
pub fn encode_thumbnails<'i>(
    num_images: usize,
    image: impl Fn(usize) -> ImageRef<'i> + Sync,
    known: impl Fn(usize) -> Option<Vec<u8>> + Sync,
    preprocessing: &Preprocessing,
) -> Result<Vec<Vec<u8>>, EvalError> {
    let view = thumbnail_view(preprocessing);
    (0..num_images)
        .into_par_iter()
        .map_init(Scratch::default, |scratch, idx| {
            if let Some(jpeg) = known(idx) {
                return Ok(jpeg);
            }
            let rgb = thumbnail(&view, image(idx), scratch);
            let (mut jpeg, side) = (vec![], THUMBNAIL_SIZE as u32);
            JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
                .encode(&rgb, side, side, image::ExtendedColorType::Rgb8)
                .map_err(|error| format_error(Path::new(THUMBNAILS_FILE), error.to_string()))?;
            Ok(jpeg)
        })
        .collect()
}

/// Writes the pictures of both splits.
///
/// # Errors
/// Where the file cannot be written.
pub fn save_thumbnails(dir: &Path, train: &[Vec<u8>], test: Option<&[Vec<u8>]>) -> Result<(), EvalError> {
    let splits: Vec<(&str, Vec<u8>, Vec<i64>)> = [("train", Some(train)), ("test", test)]
        .into_iter()
        .filter_map(|(name, pictures)| Some((name, pictures?)))
        .map(|(name, pictures)| {
            let mut offsets = vec![0];
            let mut end = 0;
            offsets.extend(pictures.iter().map(|jpeg| {
                end += jpeg.len() as i64;
                end
            }));
            (name, pictures.concat(), offsets)
        })
        .collect();
    let mut tensors = vec![];
    for (name, bytes, offsets) in &splits {
        tensors.push(((*name).to_owned(), vec![bytes.len()], Values::U8(bytes)));
        tensors.push((format!("{name}_offsets"), vec![offsets.len()], Values::I64(offsets)));
    }
    save_tensors(&dir.join(THUMBNAILS_FILE), &tensors)
}

/// Pictures that are read one at a time.
#[derive(Debug)]
pub struct Thumbnails {
    path: std::path::PathBuf,
    file: TensorFile,
}

impl Thumbnails {
    /// Opens those of an embeddings artifact.
    ///
    /// # Errors
    /// Where the file is missing or damaged.
    pub fn open(dir: &Path) -> Result<Self, EvalError> {
        let path = dir.join(THUMBNAILS_FILE);
        Ok(Self { file: TensorFile::open(&path)?, path })
    }

    /// The picture of image `idx` of a split, `train` or `test`, as a JPEG file.
    ///
    /// # Errors
    /// Where there is no such picture.
    pub fn jpeg(&self, split: &str, idx: usize) -> Result<&[u8], EvalError> {
        let offsets = self.file.i64(&format!("{split}_offsets"))?;
        let place = |at: usize| offsets.get(at).and_then(|&offset| usize::try_from(offset).ok());
        let (Some(from), Some(to)) = (place(idx), place(idx + 1)) else {
            return Err(self.broken(split, idx, "is missing"));
        };
        self.file.u8(split)?.get(from..to).ok_or_else(|| self.broken(split, idx, "lies outside of the file"))
    }

    /// RGB bytes of the same picture.
    ///
    /// # Errors
    /// Where there is no such picture or it is damaged.
    pub fn rgb(&self, split: &str, idx: usize) -> Result<Vec<u8>, EvalError> {
        let broken = |message: &str| self.broken(split, idx, message);
        let picture = image::load_from_memory_with_format(self.jpeg(split, idx)?, image::ImageFormat::Jpeg)
            .map_err(|error| broken(&format!("cannot be decoded: {error}")))?
            .into_rgb8();
        let side = THUMBNAIL_SIZE as u32;
        if picture.dimensions() == (side, side) { Ok(picture.into_raw()) } else { Err(broken("has another size")) }
    }

    fn broken(&self, split: &str, idx: usize, message: &str) -> EvalError {
        format_error(&self.path, format!("picture {idx} of `{split}` {message}"))
    }
}

/// A sheet of pictures: each row begins with one that stands apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Interleaved pixels.
    pub rgb: Vec<u8>,
}

impl Sheet {
    /// The sheet as a PNG file.
    ///
    /// # Errors
    /// Where it cannot be encoded.
    pub fn png(&self) -> Result<Vec<u8>, EvalError> {
        let mut bytes = vec![];
        PngEncoder::new(&mut bytes)
            .write_image(&self.rgb, self.width, self.height, image::ExtendedColorType::Rgb8)
            .map_err(|error| format_error(Path::new("the sheet"), error.to_string()))?;
        Ok(bytes)
    }
}

/// Draws rows of pictures, each [`THUMBNAIL_SIZE`] squared.
pub fn draw_sheet(rows: &[Vec<Vec<u8>>]) -> Sheet {
    const APART: usize = 2 * GUTTER;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = GUTTER + APART + columns * (THUMBNAIL_SIZE + GUTTER);
    let height = GUTTER + rows.len() * (THUMBNAIL_SIZE + GUTTER);
    let mut rgb = vec![255; 3 * width * height];
    for (y, row) in rows.iter().enumerate() {
        for (x, picture) in row.iter().enumerate() {
            let left = GUTTER + x * (THUMBNAIL_SIZE + GUTTER) + if x > 0 { APART } else { 0 };
            let top = GUTTER + y * (THUMBNAIL_SIZE + GUTTER);
            for (line, pixels) in picture.chunks_exact(3 * THUMBNAIL_SIZE).enumerate() {
                let start = 3 * ((top + line) * width + left);
                rgb[start..start + pixels.len()].copy_from_slice(pixels);
            }
        }
    }
    Sheet { width: width as u32, height: height as u32, rgb }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::embeddings::tests::encoder_card;

    #[test]
    fn pictures_come_back_and_missing_ones_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let shades = [10_u8, 128, 240];
        let images: Vec<Vec<u8>> = shades.iter().map(|&shade| vec![shade; 3 * 80 * 70]).collect();
        let image = |idx: usize| ImageRef { width: 80, height: 70, rgb: &images[idx] };
        let pictures = encode_thumbnails(3, image, |_| None, &encoder_card(4).preprocessing).unwrap();
        save_thumbnails(dir.path(), &pictures[..2], Some(&pictures[2..])).unwrap();
        let thumbnails = Thumbnails::open(dir.path()).unwrap();
        for (split, idx, shade) in [("train", 0, 10_i32), ("train", 1, 128), ("test", 0, 240)] {
            let rgb = thumbnails.rgb(split, idx).unwrap();
            assert_eq!(rgb.len(), 3 * 64 * 64);
            assert!(rgb.iter().all(|&byte| (i32::from(byte) - shade).abs() < 4), "{split} {idx}");
        }
        let known = |idx: usize| thumbnails.jpeg("train", idx).ok().map(<[u8]>::to_vec);
        assert_eq!(encode_thumbnails(3, image, known, &encoder_card(4).preprocessing).unwrap(), pictures);
        let error = thumbnails.rgb("test", 1).unwrap_err().to_string();
        assert!(error.contains("picture 1 of `test` is missing"), "{error}");
    }

    #[test]
    fn the_first_picture_of_a_row_stands_apart() {
        let picture = |shade: u8| vec![shade; 3 * 64 * 64];
        let sheet = draw_sheet(&[vec![picture(1), picture(2)], vec![picture(3)]]);
        assert_eq!((sheet.width, sheet.height), (12 + 2 * 68, 4 + 2 * 68));
        let at = |x: usize, y: usize| sheet.rgb[3 * (y * sheet.width as usize + x)];
        assert_eq!((at(4, 4), at(68, 4), at(80, 4), at(4, 72), at(80, 72)), (1, 255, 2, 3, 255));
    }
}
