//! Sums over pixels, from which mean and deviation follow. Whole numbers: the same in any order of summation.

/// Pixels that are added up side by side.
const SIDE_BY_SIDE: usize = 16;
const LANES: usize = 3 * SIDE_BY_SIDE;
/// Rows of lanes whose squares fit into 32 bits: 255² · 2¹⁶ < 2³².
const ROWS: usize = 1 << 16;

/// Sums of values and of their squares, for each channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PixelSums {
    pub(super) values: [u64; 3],
    pub(super) squares: [u64; 3],
}

impl PixelSums {
    /// Over the pixels of an image: red, green, blue of each.
    pub(super) fn of(rgb: &[u8]) -> Self {
        let mut sums = Self::default();
        let (rows, rest) = rgb.as_chunks::<LANES>();
        for rows in rows.chunks(ROWS) {
            let (mut values, mut squares) = ([0_u32; LANES], [0_u32; LANES]);
            for row in rows {
                for lane in 0..LANES {
                    let value = u16::from(row[lane]);
                    values[lane] += u32::from(value);
                    squares[lane] += u32::from(value * value);
                }
            }
            for lane in 0..LANES {
                sums.values[lane % 3] += u64::from(values[lane]);
                sums.squares[lane % 3] += u64::from(squares[lane]);
            }
        }
        for (at, &value) in rest.iter().enumerate() {
            sums.values[at % 3] += u64::from(value);
            sums.squares[at % 3] += u64::from(value) * u64::from(value);
        }
        sums
    }

    /// Adds those of another image.
    pub(super) fn add(&mut self, other: &Self) {
        for channel in 0..3 {
            self.values[channel] += other.values[channel];
            self.squares[channel] += other.squares[channel];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_a_plain_loop() {
        for len in [0, 3, 45, 48, 51, 3 * 1000] {
            let rgb: Vec<u8> = (0..len).map(|at| (at * 37 % 256) as u8).collect();
            let mut expected = PixelSums::default();
            for (at, &value) in rgb.iter().enumerate() {
                expected.values[at % 3] += u64::from(value);
                expected.squares[at % 3] += u64::from(value).pow(2);
            }
            assert_eq!(PixelSums::of(&rgb), expected);
        }
    }

    #[test]
    fn white_fills_no_counter() {
        let num_pixels = SIDE_BY_SIDE * ROWS + 5;
        let sums = PixelSums::of(&vec![255; 3 * num_pixels]);
        assert_eq!(sums.values, [255 * num_pixels as u64; 3]);
        assert_eq!(sums.squares, [255 * 255 * num_pixels as u64; 3]);
    }
}
