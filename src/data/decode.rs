//! From the bytes of an image file to RGB pixels, as a viewer shows them.
//!
//! The format is judged by content, not by name. EXIF orientation is applied. Grey becomes three equal channels,
//! 16 bits become 8, and transparency lies over white. Of an animation the first frame is taken. What a decoder
//! lets pass in silence, such as a photograph whose second half is missing, is an error.

use std::{io::Cursor, panic::catch_unwind};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage, RgbaImage, metadata::Orientation};

use super::jpeg::{check_jpeg_is_whole, decode_photograph, jpeg_size};
use crate::augment::ImageRef;

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
    // A decoder that panics on a damaged file must not end the run.
    catch_unwind(|| decode(bytes, max_pixels)).unwrap_or_else(|_| Err("the decoder gave up on it".into()))
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

fn decode(bytes: &[u8], max_pixels: u64) -> Result<OwnedImage, String> {
    let format = guess_format(bytes)?;
    if format == ImageFormat::Jpeg
        && check_jpeg_is_whole(bytes).is_ok()
        && let Some(image) = decode_photograph(bytes, max_pixels)
    {
        return Ok(image);
    }
    decode_by_library(bytes, format, max_pixels)
}

fn decode_by_library(bytes: &[u8], format: ImageFormat, max_pixels: u64) -> Result<OwnedImage, String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // The library's own limit would refuse images that `max_pixels` allows; eight bytes a pixel and some room for
    // metadata still stop what is not pixels from filling the memory.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_pixels.saturating_mul(8).saturating_add(64 << 20));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| describe(&error))?;
    let (width, height) = decoder.dimensions();
    let num_pixels = u64::from(width) * u64::from(height);
    if num_pixels > max_pixels {
        return Err(format!("its header says {width}×{height} = {num_pixels} pixels, `max_pixels` is {max_pixels}"));
    }
    if num_pixels == 0 {
        return Err("it has no pixels".into());
    }
    if format == ImageFormat::Jpeg {
        check_jpeg_is_whole(bytes)?;
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| describe(&error))?;
    image.apply_orientation(orientation);
    let rgb = if image.color().has_alpha() { over_white(&image.into_rgba8()) } else { image.into_rgb8() };
    Ok(OwnedImage { width: rgb.width(), height: rgb.height(), rgb: rgb.into_raw() })
}

/// Only for tests: the same without the short way.
#[cfg(test)]
pub(super) fn decode_the_long_way(bytes: &[u8], max_pixels: u64) -> Result<OwnedImage, String> {
    decode_by_library(bytes, guess_format(bytes)?, max_pixels)
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

fn over_white(image: &RgbaImage) -> RgbImage {
    let mut flat = RgbImage::new(image.width(), image.height());
    for (to, from) in flat.pixels_mut().zip(image.pixels()) {
        let alpha = u32::from(from[3]);
        for channel in 0..3 {
            to[channel] = ((u32::from(from[channel]) * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        }
    }
    flat
}
