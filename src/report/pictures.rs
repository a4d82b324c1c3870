//! Pictures that are small enough for a page.

use std::io::Cursor;

use image::{ImageFormat, ImageReader, imageops::FilterType};

/// Bytes of the contact sheet that a page takes as they are.
pub const MAX_SHEET_BYTES: usize = 1_500_000;
/// Width to which a larger sheet is reduced, in pixels.
const SHEET_WIDTH: u32 = 1_280;

/// The PNG file as it is where it is small, reduced where it is large, and nothing where it is no PNG file or
/// stays too large.
pub fn fit_sheet(png: Vec<u8>) -> Option<Vec<u8>> {
    let mut reader = ImageReader::with_format(Cursor::new(&png), ImageFormat::Png);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(1 << 29);
    reader.limits(limits);
    if png.len() <= MAX_SHEET_BYTES {
        // The header is enough to know that a browser will show it.
        return reader.into_dimensions().is_ok().then_some(png);
    }
    let sheet = reader.decode().ok()?;
    for width in [SHEET_WIDTH, SHEET_WIDTH / 2] {
        let width = width.min(sheet.width());
        let height = (u64::from(sheet.height()) * u64::from(width)).div_ceil(u64::from(sheet.width().max(1)));
        let reduced = sheet.resize_exact(width, height.clamp(1, 8_192) as u32, FilterType::Triangle);
        let mut bytes = Cursor::new(vec![]);
        reduced.to_rgb8().write_to(&mut bytes, ImageFormat::Png).ok()?;
        if bytes.get_ref().len() <= MAX_SHEET_BYTES {
            return Some(bytes.into_inner());
        }
    }
    None
}

/// Longer side of a thumbnail in pixels: sharp at 72 CSS pixels on a dense screen.
const THUMBNAIL_SIDE: u32 = 144;

/// A small JPEG file of an image of RGB bytes; nothing where the bytes do not fit the size.
pub fn thumbnail(width: u32, height: u32, rgb: &[u8]) -> Option<Vec<u8>> {
    if width == 0 || height == 0 {
        return None;
    }
    let image = image::RgbImage::from_raw(width, height, rgb.to_vec())?;
    let image = image::DynamicImage::ImageRgb8(image);
    let image = if width.max(height) > THUMBNAIL_SIDE {
        image.resize(THUMBNAIL_SIDE, THUMBNAIL_SIDE, FilterType::Triangle)
    } else {
        image
    };
    let mut bytes = vec![];
    image.write_with_encoder(image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 85)).ok()?;
    Some(bytes)
}

/// Pictures side by side in one file, so that a page can hold many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sprite {
    /// A JPEG file.
    pub jpeg: Vec<u8>,
    /// Width and height of each picture in pixels.
    pub tile: u32,
    /// Pictures in a row.
    pub columns: u32,
}

/// Pixels of a sprite, at most: about as many bytes as a page can spare.
const SPRITE_PIXELS: u32 = 2_500_000;

/// Square pictures of `side` pixels, RGB, one after the other. They are made smaller where there are many; nothing where
/// there are none or one does not fit its size.
pub fn sprite(pictures: &[Vec<u8>], side: u32) -> Option<Sprite> {
    let count = u32::try_from(pictures.len()).ok().filter(|&count| count > 0)?;
    let tile =
        [side, side * 3 / 4, side / 2].into_iter().find(|tile| count.saturating_mul(tile * tile) <= SPRITE_PIXELS);
    let tile = tile.unwrap_or(side / 3).max(1);
    let columns = f64::from(count).sqrt().ceil() as u32;
    let mut sheet = image::RgbImage::new(columns * tile, count.div_ceil(columns) * tile);
    for (idx, rgb) in (0..).zip(pictures) {
        let picture = image::RgbImage::from_raw(side, side, rgb.clone())?;
        let picture =
            if tile == side { picture } else { image::imageops::resize(&picture, tile, tile, FilterType::Triangle) };
        let (x, y) = (idx % columns * tile, idx / columns * tile);
        image::imageops::replace(&mut sheet, &picture, i64::from(x), i64::from(y));
    }
    let mut jpeg = vec![];
    sheet.write_with_encoder(image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 72)).ok()?;
    Some(Sprite { jpeg, tile, columns })
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    fn png(width: u32, height: u32, noise: bool) -> Vec<u8> {
        let mut state = 1_u32;
        let image = RgbImage::from_fn(width, height, |x, y| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            image::Rgb(if noise {
                [(state >> 24) as u8, (state >> 16) as u8, (state >> 8) as u8]
            } else {
                [x as u8, y as u8, 7]
            })
        });
        let mut bytes = Cursor::new(vec![]);
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn small_sheets_stay_as_they_are() {
        let sheet = png(40, 30, false);
        assert_eq!(fit_sheet(sheet.clone()), Some(sheet));
    }

    #[test]
    fn large_sheets_are_reduced() {
        let sheet = png(1_400, 700, true);
        assert!(sheet.len() > MAX_SHEET_BYTES);
        let reduced = fit_sheet(sheet).unwrap();
        assert!(reduced.len() <= MAX_SHEET_BYTES);
    }

    #[test]
    fn what_is_no_picture_is_left_out() {
        assert_eq!(fit_sheet(b"no picture".to_vec()), None);
        assert_eq!(fit_sheet(vec![0; MAX_SHEET_BYTES + 1]), None);
    }

    #[test]
    fn thumbnails_are_small_and_fit_their_bytes() {
        let jpeg = thumbnail(300, 100, &vec![90; 90_000]).unwrap();
        let image = image::load_from_memory_with_format(&jpeg, ImageFormat::Jpeg).unwrap();
        assert_eq!((image.width(), image.height()), (144, 48));
        assert_eq!(thumbnail(300, 100, &[90; 10]), None);
        assert_eq!(thumbnail(0, 0, &[]), None);
    }

    #[test]
    fn sprites_hold_every_picture_in_its_place() {
        let pictures: Vec<Vec<u8>> = (0..7).map(|idx| vec![idx * 30; 3 * 64 * 64]).collect();
        let sprite = sprite(&pictures, 64).unwrap();
        assert_eq!((sprite.tile, sprite.columns), (64, 3));
        let sheet = image::load_from_memory_with_format(&sprite.jpeg, ImageFormat::Jpeg).unwrap().to_rgb8();
        assert_eq!(sheet.dimensions(), (192, 192));
        for idx in 0..7_u32 {
            let pixel = sheet.get_pixel(idx % 3 * 64 + 32, idx / 3 * 64 + 32)[0];
            assert!(pixel.abs_diff(idx as u8 * 30) < 6, "{idx}: {pixel}");
        }
    }

    #[test]
    fn many_pictures_get_smaller() {
        let many = sprite(&vec![vec![9; 3 * 64 * 64]; 1_500], 64).unwrap();
        assert_eq!((many.tile, many.columns), (32, 39));
        assert_eq!(sprite(&[], 64), None);
        assert_eq!(sprite(&[vec![1, 2, 3]], 64), None);
    }
}
