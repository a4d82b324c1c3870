//! The contact sheet: rows are images, the first column the image itself, the others views of it.

use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};

use super::{AugmentError, ImageRef, Policy, Scratch, ViewKey, resample::resize_image};

/// Pixels between tiles.
const GUTTER: usize = 4;
/// Extra pixels after the first column, which is not a view.
const FIRST_GUTTER: usize = 12;
const BACKGROUND: u8 = 255;

/// An RGB image in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContactSheet {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Interleaved pixels.
    pub rgb: Vec<u8>,
}

/// Draws `views` views of each image; `images` are pairs of dataset index and image.
pub fn render_contact_sheet(policy: &Policy, images: &[(u64, ImageRef<'_>)], views: u32, seed: u64) -> ContactSheet {
    let size = policy.image_size();
    let columns = views as usize;
    let width = GUTTER + size + FIRST_GUTTER + columns * (size + GUTTER);
    let height = GUTTER + images.len() * (size + GUTTER);
    let mut sheet = vec![BACKGROUND; 3 * width * height];
    let mut scratch = Scratch::default();
    let mut tile = vec![0; 3 * size * size];
    for (row, &(image_idx, image)) in images.iter().enumerate() {
        let top = GUTTER + row * (size + GUTTER);
        let (fitted_width, fitted_height) = fit(image, size as u32);
        let fitted = resize_image(image, fitted_width, fitted_height, &mut scratch.canvas.resample);
        let left = GUTTER + (size - fitted_width as usize) / 2;
        paste(&fitted, fitted_width as usize, &mut sheet, width, left, top + (size - fitted_height as usize) / 2);
        for view in 0..views {
            policy.view_pixels(image, ViewKey { seed, epoch: 0, image_idx, view }, &mut scratch, &mut tile);
            let left = GUTTER + size + FIRST_GUTTER + view as usize * (size + GUTTER);
            paste(&tile, size, &mut sheet, width, left, top);
        }
    }
    ContactSheet { width: width as u32, height: height as u32, rgb: sheet }
}

/// The sheet as the bytes of a PNG file.
///
/// # Errors
/// [`AugmentError::TooLarge`] where the format cannot hold it.
pub fn encode_png(sheet: &ContactSheet) -> Result<Vec<u8>, AugmentError> {
    let ContactSheet { width, height, rgb } = sheet;
    let mut bytes = vec![];
    PngEncoder::new(&mut bytes)
        .write_image(rgb, *width, *height, ExtendedColorType::Rgb8)
        .map_err(|_| AugmentError::TooLarge { width: *width, height: *height })?;
    Ok(bytes)
}

/// The largest size of the same ratio that fits a square.
fn fit(image: ImageRef<'_>, size: u32) -> (u32, u32) {
    let scale = |short: u32, long: u32| (u64::from(size) * u64::from(short) / u64::from(long)).max(1) as u32;
    if image.width >= image.height {
        (size, scale(image.height, image.width))
    } else {
        (scale(image.width, image.height), size)
    }
}

fn paste(tile: &[u8], tile_width: usize, sheet: &mut [u8], sheet_width: usize, left: usize, top: usize) {
    for (y, row) in tile.chunks_exact(3 * tile_width).enumerate() {
        let start = 3 * ((top + y) * sheet_width + left);
        sheet[start..start + row.len()].copy_from_slice(row);
    }
}
