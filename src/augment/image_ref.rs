//! A borrowed image.

/// A borrowed RGB image: rows from the top, pixels interleaved, `3 · width · height` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageRef<'a> {
    /// Width in pixels, at least 1.
    pub width: u32,
    /// Height in pixels, at least 1.
    pub height: u32,
    /// Red, green, blue of each pixel.
    pub rgb: &'a [u8],
}

impl<'a> ImageRef<'a> {
    /// An image over `rgb`, where its length fits the size.
    pub fn new(width: u32, height: u32, rgb: &'a [u8]) -> Option<Self> {
        let num_bytes = u64::from(width) * u64::from(height) * 3;
        (num_bytes > 0 && num_bytes == rgb.len() as u64).then_some(Self { width, height, rgb })
    }
}
