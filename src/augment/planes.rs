//! Pixels between the operations of a policy: three planes, which vectorise where interleaved pixels do not.

use super::ImageRef;

/// Red, green and blue planes of `width · height` values each, one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planes<T> {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Plane after plane, each row by row.
    pub data: Vec<T>,
}

impl<T: Copy + Default> Planes<T> {
    /// Number of pixels.
    pub fn area(&self) -> usize {
        self.width * self.height
    }

    /// Makes room for an image of this size; the values are whatever was there.
    pub fn reshape(&mut self, width: usize, height: usize) {
        self.width = width;
        self.height = height;
        self.data.resize(3 * width * height, T::default());
    }

    /// The three planes.
    pub fn split_mut(&mut self) -> [&mut [T]; 3] {
        let area = self.area();
        let (red, rest) = self.data.split_at_mut(area);
        let (green, blue) = rest.split_at_mut(area);
        [red, green, blue]
    }

    /// The three planes.
    pub fn split(&self) -> [&[T]; 3] {
        let area = self.area();
        let (red, rest) = self.data.split_at(area);
        let (green, blue) = rest.split_at(area);
        [red, green, blue]
    }
}

impl Planes<u8> {
    /// Takes the pixels of an image.
    pub fn load(&mut self, image: ImageRef<'_>) {
        self.reshape(image.width as usize, image.height as usize);
        let [red, green, blue] = self.split_mut();
        for (((pixel, r), g), b) in image.rgb.chunks_exact(3).zip(red).zip(green).zip(blue) {
            (*r, *g, *b) = (pixel[0], pixel[1], pixel[2]);
        }
    }

    /// Writes interleaved pixels, `3 · width · height` bytes.
    pub fn store(&self, rgb: &mut [u8]) {
        let [red, green, blue] = self.split();
        for (((pixel, &r), &g), &b) in rgb.chunks_exact_mut(3).zip(red).zip(green).zip(blue) {
            pixel.copy_from_slice(&[r, g, b]);
        }
    }

    /// The same values as floats.
    pub fn to_float(&self, out: &mut Planes<f32>) {
        out.reshape(self.width, self.height);
        for (to, &from) in out.data.iter_mut().zip(&self.data) {
            *to = f32::from(from);
        }
    }
}

impl Planes<f32> {
    /// Rounds to the nearest of 0…255.
    pub fn to_bytes(&self, out: &mut Planes<u8>) {
        out.reshape(self.width, self.height);
        for (to, &from) in out.data.iter_mut().zip(&self.data) {
            *to = (from + 0.5) as u8;
        }
    }
}
