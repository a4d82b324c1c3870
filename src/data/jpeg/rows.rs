//! Samples of a few rows on their way to pixels: colours at half resolution become as many as there are pixels.

use super::{color::render_colors, frame::Frame};
use crate::kernels::multiversion;

/// Samples of one row of units, and the last row of the units above, which the next one is blended with.
#[derive(Debug, Default)]
pub(super) struct Rows {
    width: usize,
    height: usize,
    sampling: (usize, usize),
    is_grey: bool,
    /// Length of a row of brightness and of colour, in whole units.
    strides: [usize; 2],
    /// Brightness and two colours; the first row is of the units above.
    planes: [Vec<u8>; 3],
    /// A row of colour blended with a neighbour, its ends repeated.
    blended: Vec<u8>,
    /// A row of each colour in full length.
    full: [Vec<u8>; 2],
}

impl Rows {
    /// Prepares for an image; gives the number of units across and down.
    pub(super) fn start(&mut self, frame: &Frame) -> (usize, usize) {
        (self.width, self.height, self.sampling) = (frame.width, frame.height, frame.sampling);
        self.is_grey = frame.components().len() == 1;
        let (across, down) = frame.sampling;
        let units = (frame.width.div_ceil(8 * across), frame.height.div_ceil(8 * down));
        self.strides = [8 * across * units.0, 8 * units.0];
        let [luma, color] = self.strides;
        self.planes[0].resize(luma * (1 + 8 * down), 0);
        if !self.is_grey {
            self.planes[1].resize(color * 9, 0);
            self.planes[2].resize(color * 9, 0);
            self.blended.resize(color + 2, 0);
            self.full.iter_mut().for_each(|row| row.resize(luma, 0));
        }
        units
    }

    /// Where the samples of a component's units go, and the length of a row.
    pub(super) fn plane_mut(&mut self, idx: usize) -> (&mut [u8], usize) {
        let stride = self.strides[idx.min(1)];
        (&mut self.planes[idx][stride..], stride)
    }

    /// Writes all pixels to `rgb` whose neighbours are known; the last row of units has none below.
    pub(super) fn emit(&mut self, unit_y: usize, is_last: bool, rgb: &mut [u8]) {
        let down = self.sampling.1;
        let num_rows = 8 * down;
        // Rows from 1 are those of this unit. With colours at half the height the last one waits for the next unit.
        let rows = match (down, unit_y, is_last) {
            (1, ..) | (_, 0, true) => 1..=num_rows,
            (_, 0, false) => 1..=num_rows - 1,
            (_, _, false) => 0..=num_rows - 1,
            (_, _, true) => 0..=num_rows,
        };
        for row in rows {
            let y = unit_y * num_rows + row - 1;
            if y >= self.height {
                break;
            }
            let out = &mut rgb[3 * self.width * y..][..3 * self.width];
            let luma = &self.planes[0][row * self.strides[0]..][..self.strides[0]];
            if self.is_grey {
                for (pixel, &luma) in out.as_chunks_mut::<3>().0.iter_mut().zip(luma) {
                    *pixel = [luma; 3];
                }
                continue;
            }
            let stride = self.strides[1];
            let nearest = row.div_ceil(down);
            // The upper half of a row of colours leans to the row above, the lower to the one below.
            let other = match (down, row % 2) {
                (1, _) => nearest,
                (_, 1) if unit_y == 0 && nearest == 1 => nearest,
                (_, 1) => nearest - 1,
                _ if is_last && nearest == 8 => nearest,
                _ => nearest + 1,
            };
            for (plane, full) in self.planes[1..].iter().zip(&mut self.full) {
                let at = |row: usize| &plane[row * stride..][..stride];
                if self.sampling == (1, 1) {
                    full.copy_from_slice(at(nearest));
                    continue;
                }
                blend_rows(at(nearest), at(other), &mut self.blended);
                if self.sampling.0 == 2 {
                    stretch_row(&self.blended, full);
                } else {
                    full.copy_from_slice(&self.blended[1..=stride]);
                }
            }
            render_colors(luma, &self.full[0], &self.full[1], out);
        }
        if down == 2 {
            for (idx, plane) in self.planes.iter_mut().enumerate() {
                let kept = plane.len().saturating_sub(self.strides[idx.min(1)]);
                plane.copy_within(kept.., 0);
            }
        }
    }
}

multiversion! {
    /// Three parts of one row and one of the other, rounded down from a half; the ends of `to` repeat its first and last.
    fn blend_rows(near: &[u8], far: &[u8], to: &mut [u8]) {
        let last = near.len() + 1;
        for ((to, &near), &far) in to[1..last].iter_mut().zip(near).zip(far) {
            *to = ((3 * u16::from(near) + u16::from(far) + 2) >> 2) as u8;
        }
        (to[0], to[last]) = (to[1], to[last - 1]);
    }
}

multiversion! {
    /// Two samples for each but the ends of `from`: three parts of it and one of the one before, or after.
    fn stretch_row(from: &[u8], to: &mut [u8]) {
        let pairs = to.as_chunks_mut::<2>().0;
        let len = pairs.len();
        for (((pair, &before), &near), &after) in
            pairs.iter_mut().zip(&from[..len]).zip(&from[1..=len]).zip(&from[2..])
        {
            let near = 3 * u16::from(near) + 2;
            let (left, right) = ((near + u16::from(before)) >> 2, (near + u16::from(after)) >> 2);
            // One store for both.
            *pair = (left | (right << 8)).to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_blended_and_stretched_as_one_sample_after_the_other() {
        for len in [3, 8, 16, 40, 75, 136] {
            let line = |factor: usize| (0..len).map(|x| (x * x * factor % 256) as u8).collect::<Vec<_>>();
            let (near, far) = (line(31), line(57));
            let mut blended = vec![0; len + 2];
            blend_rows(&near, &far, &mut blended);
            let mix = |near: u8, far: u8| ((3 * u32::from(near) + u32::from(far) + 2) / 4) as u8;
            let mut full = vec![0; 2 * len];
            stretch_row(&blended, &mut full);
            for x in 0..len {
                let at = |x: usize| mix(near[x], far[x]);
                assert_eq!(full[2 * x], if x == 0 { at(0) } else { mix(at(x), at(x - 1)) });
                assert_eq!(full[2 * x + 1], if x + 1 == len { at(x) } else { mix(at(x), at(x + 1)) });
            }
        }
    }
}
