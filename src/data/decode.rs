//! From the bytes of an image file to RGB pixels, as a viewer shows them.
//!
//! The format is judged by content, not by name. EXIF orientation is applied. Grey becomes three equal channels,
//! 16 bits become 8, and transparency lies over a colour, white unless another is asked for. Of an animation the first frame is taken. What a decoder
//! lets pass in silence, such as a photograph whose second half is missing, is an error.

use std::{
    fs::File,
    io::{self, Cursor, Read as _},
    panic::catch_unwind,
    path::Path,
};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage, RgbaImage, metadata::Orientation};

use super::{
    ingest_config::{DEFAULT_MAX_PIXELS, WHITE},
    jpeg::{check_jpeg_is_whole, decode_baseline, decode_photograph, jpeg_size},
};
use crate::augment::ImageRef;

/// Memory that a file's size is believed to need before anything of it was read.
const LARGE_FILE: u64 = 64 << 20;

/// What decides, beside the bytes, what becomes of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Images with more pixels are refused by their header.
    pub max_pixels: u64,
    /// What lies behind transparency.
    pub background: [u8; 3],
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { max_pixels: DEFAULT_MAX_PIXELS, background: WHITE }
    }
}

impl DecodeOptions {
    /// Refuses what has no pixels or too many.
    ///
    /// # Errors
    /// In words for the user.
    pub fn check_size(&self, width: u32, height: u32) -> Result<(), String> {
        let num_pixels = u64::from(width) * u64::from(height);
        if num_pixels > self.max_pixels {
            return Err(format!(
                "its header says {width}×{height} = {num_pixels} pixels, `max_pixels` is {}",
                self.max_pixels
            ));
        }
        if num_pixels == 0 { Err("it has no pixels".into()) } else { Ok(()) }
    }
}

/// An RGB image in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedImage {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Red, green, blue of each pixel, row by row.
    pub rgb: Vec<u8>,
}

impl OwnedImage {
    /// The same image, borrowed.
    pub fn as_ref(&self) -> ImageRef<'_> {
        ImageRef { width: self.width, height: self.height, rgb: &self.rgb }
    }
}

/// Decodes an image file that lies in memory.
///
/// # Errors
/// In words for the user, without the file's name: not an image, damaged, cut off, or more than `max_pixels`.
pub fn decode_rgb(bytes: &[u8], max_pixels: u64) -> Result<OwnedImage, String> {
    decode_with(bytes, &DecodeOptions { max_pixels, ..DecodeOptions::default() })
}

/// The same over another background.
///
/// # Errors
/// As [`decode_rgb`].
pub fn decode_with(bytes: &[u8], options: &DecodeOptions) -> Result<OwnedImage, String> {
    // A decoder that panics on a damaged file must not end the run.
    catch_unwind(|| decode(bytes, options)).unwrap_or_else(|_| Err("the decoder gave up on it".into()))
}

/// Reads and decodes an image file.
///
/// # Errors
/// As [`decode_rgb`], and where the file cannot be read.
pub fn decode_file(path: &Path, options: &DecodeOptions) -> Result<OwnedImage, String> {
    decode_with(&read_image_file(path)?, options)
}

/// The bytes of a file.
fn read_image_file(path: &Path) -> Result<Vec<u8>, String> {
    let describe = |error: io::Error| format!("it cannot be read: {error}");
    // Opening a pipe would wait for ever.
    let metadata = std::fs::metadata(path).map_err(describe)?;
    if !metadata.is_file() {
        return Err("it is not a regular file".into());
    }
    let mut bytes = Vec::with_capacity(metadata.len().min(LARGE_FILE) as usize + 1);
    // Of a file itself, `read_to_end` would ask for the size once more.
    File::open(path).and_then(|file| file.take(u64::MAX).read_to_end(&mut bytes)).map_err(describe)?;
    Ok(bytes)
}

/// Width and height from the header alone.
///
/// # Errors
/// In words for the user, without the file's name.
pub fn read_dimensions(bytes: &[u8]) -> Result<(u32, u32), String> {
    let format = guess_format(bytes)?;
    if format == ImageFormat::Jpeg
        && let Some(size) = jpeg_size(bytes)
    {
        return Ok(size);
    }
    catch_unwind(|| {
        ImageReader::with_format(Cursor::new(bytes), format).into_dimensions().map_err(|error| describe(&error))
    })
    .unwrap_or_else(|_| Err("the decoder gave up on its header".into()))
}

fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<OwnedImage, String> {
    let format = guess_format(bytes)?;
    if format == ImageFormat::Jpeg {
        if let Some(image) = decode_baseline(bytes, options.max_pixels) {
            return Ok(image);
        }
        if check_jpeg_is_whole(bytes).is_ok()
            && let Some(image) = decode_photograph(bytes, options.max_pixels)
        {
            return Ok(image);
        }
    }
    decode_by_library(bytes, format, options)
}

fn decode_by_library(bytes: &[u8], format: ImageFormat, options: &DecodeOptions) -> Result<OwnedImage, String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // The library's own limit would refuse images that `max_pixels` allows; eight bytes a pixel and some room for
    // metadata still stop what is not pixels from filling the memory.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(options.max_pixels.saturating_mul(8).saturating_add(64 << 20));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| describe(&error))?;
    let (width, height) = decoder.dimensions();
    options.check_size(width, height)?;
    if format == ImageFormat::Jpeg {
        check_jpeg_is_whole(bytes)?;
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| describe(&error))?;
    image.apply_orientation(orientation);
    let rgb =
        if image.color().has_alpha() { over_color(&image.into_rgba8(), options.background) } else { image.into_rgb8() };
    Ok(OwnedImage { width: rgb.width(), height: rgb.height(), rgb: rgb.into_raw() })
}

/// The same without the short ways: what they are compared with.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn decode_the_long_way(bytes: &[u8], max_pixels: u64) -> Result<OwnedImage, String> {
    decode_by_library(bytes, guess_format(bytes)?, &DecodeOptions { max_pixels, ..DecodeOptions::default() })
}

fn guess_format(bytes: &[u8]) -> Result<ImageFormat, String> {
    if bytes.is_empty() {
        return Err("it is empty".into());
    }
    let unknown = || "its content is not JPEG, PNG, WebP, BMP, GIF or TIFF".to_owned();
    let format = image::guess_format(bytes).map_err(|_| unknown())?;
    if format.reading_enabled() { Ok(format) } else { Err(unknown()) }
}

fn describe(error: &image::ImageError) -> String {
    use std::error::Error as _;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn over_color(image: &RgbaImage, background: [u8; 3]) -> RgbImage {
    let mut flat = RgbImage::new(image.width(), image.height());
    for (to, from) in flat.pixels_mut().zip(image.pixels()) {
        let alpha = u32::from(from[3]);
        for channel in 0..3 {
            let behind = u32::from(background[channel]) * (255 - alpha);
            to[channel] = ((u32::from(from[channel]) * alpha + behind + 127) / 255) as u8;
        }
    }
    flat
}
