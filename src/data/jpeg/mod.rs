//! What is done for JPEG files alone: is the file whole, how large is the image, and the short ways to its pixels.
//!
//! Ordinary files, of one scan and with the usual sampling, are decoded here ([`decode_baseline`]), to the bytes that
//! `zune-jpeg` gives and in half its time. Whatever is unusual or damaged goes to `zune-jpeg`.

mod bits;
mod color;
mod frame;
mod huffman;
mod idct;
#[cfg(test)]
mod jpeg_tests;
mod rows;
mod scan;

use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

pub(super) use self::scan::decode_baseline;
use super::decode::OwnedImage;

/// Walks from marker to marker until the end of the image. The decoder fills what is missing with grey and reports
/// success, so that a half-downloaded photograph would enter a dataset unseen; this finds the end without decoding.
///
/// # Errors
/// In words for the user, when the file ends first.
pub(super) fn check_jpeg_is_whole(bytes: &[u8]) -> Result<(), String> {
    if markers(bytes).any(|(marker, _)| marker == 0xD9) {
        return Ok(());
    }
    Err(format!("the file is cut off: {} bytes hold no end of the image", bytes.len()))
}

/// Width and height, which may stand in the first part of a file already.
pub(super) fn jpeg_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let is_frame = |marker: u8| matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC);
    let (_, at) = markers(bytes).find(|(marker, _)| is_frame(*marker))?;
    // Two bytes of length and one of precision come first.
    let [_, _, _, height_high, height_low, width_high, width_low] = *bytes.get(at..)?.first_chunk()?;
    let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
    Some((side(width_high, width_low), side(height_high, height_low)))
}

/// Markers after the first, and where what belongs to each begins.
fn markers(bytes: &[u8]) -> impl Iterator<Item = (u8, usize)> {
    let mut at = 2;
    std::iter::from_fn(move || {
        loop {
            // Inside a scan 0xFF 0x00 is a data byte and 0xFFD0…0xFFD7 are restarts.
            at += memchr::memchr(0xFF, bytes.get(at..)?)? + 1;
            let marker = *bytes.get(at)?;
            match marker {
                // A fill byte: the marker follows.
                0xFF => {}
                0x00 | 0x01 | 0xD0..=0xD8 => at += 1,
                0xD9 => {
                    at += 1;
                    return Some((marker, at));
                }
                _ => {
                    let begin = at + 1;
                    let [high, low] = *bytes.get(begin..)?.first_chunk()?;
                    at = begin + usize::from(u16::from_be_bytes([high, low])).max(2);
                    return Some((marker, begin));
                }
            }
        }
    })
}

/// The pixels of a photograph, by `zune-jpeg`: three channels as brightness and colour, not to be turned. Reads the header
/// once where the long way, through [`image`], reads it three times. `None` for all others and wherever anything is
/// amiss; the long way then says what.
pub(super) fn decode_photograph(bytes: &[u8], max_pixels: u64) -> Option<OwnedImage> {
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().ok()?;
    let (width, height) = decoder.dimensions()?;
    let fits = width > 0 && height > 0 && width as u64 * height as u64 <= max_pixels;
    if !fits || decoder.input_colorspace() != Some(ColorSpace::YCbCr) || decoder.exif().is_some() {
        return None;
    }
    let mut rgb = vec![0; 3 * width * height];
    if decoder.output_buffer_size() != Some(rgb.len()) {
        return None;
    }
    decoder.decode_into(&mut rgb).ok()?;
    Some(OwnedImage { width: width as u32, height: height as u32, rgb })
}
