//! Flips, quarter turns and windows: exact moves of pixels.

use super::planes::Planes;

/// Mirrors left and right.
pub fn flip_horizontal<T: Copy + Default>(image: &mut Planes<T>) {
    let width = image.width.max(1);
    for row in image.data.chunks_exact_mut(width) {
        row.reverse();
    }
}

/// Mirrors up and down.
pub fn flip_vertical<T: Copy + Default>(image: &mut Planes<T>) {
    let (width, height) = (image.width, image.height);
    for plane in image.split_mut() {
        for y in 0..height / 2 {
            let (upper, lower) = plane.split_at_mut((height - 1 - y) * width);
            upper[y * width..(y + 1) * width].swap_with_slice(&mut lower[..width]);
        }
    }
}

/// Swaps rows and columns.
pub fn transpose<T: Copy + Default>(image: &Planes<T>, out: &mut Planes<T>) {
    let (width, height) = (image.width, image.height);
    out.reshape(height, width);
    // Square blocks keep both sides in the first-level cache.
    const BLOCK: usize = 16;
    for (from, to) in image.split().into_iter().zip(out.split_mut()) {
        for y0 in (0..height).step_by(BLOCK) {
            for x0 in (0..width).step_by(BLOCK) {
                for x in x0..(x0 + BLOCK).min(width) {
                    for y in y0..(y0 + BLOCK).min(height) {
                        to[x * height + y] = from[y * width + x];
                    }
                }
            }
        }
    }
}

/// Turns counter-clockwise by `turns` quarter turns, as `tf.image.rot90` and `numpy.rot90` do.
pub fn rotate90<T: Copy + Default>(image: &mut Planes<T>, turns: u8, spare: &mut Planes<T>) {
    match turns % 4 {
        0 => {}
        2 => {
            for plane in image.split_mut() {
                plane.reverse();
            }
        }
        odd => {
            transpose(image, spare);
            std::mem::swap(image, spare);
            if odd == 1 {
                flip_vertical(image);
            } else {
                flip_horizontal(image);
            }
        }
    }
}

/// The window of `size` × `size` whose upper left corner is at (`left`, `top`); what lies outside is black.
pub fn window<T: Copy + Default>(image: &Planes<T>, left: i64, top: i64, size: usize, out: &mut Planes<T>) {
    let (width, height) = (image.width as i64, image.height as i64);
    out.reshape(size, size);
    out.data.fill(T::default());
    let side = size as i64;
    let (x0, x1) = (left.clamp(0, width), (left + side).clamp(0, width));
    if x0 >= x1 {
        return;
    }
    for (from, to) in image.split().into_iter().zip(out.split_mut()) {
        for y in top.clamp(0, height)..(top + side).clamp(0, height) {
            let start = ((y - top) * side + (x0 - left)) as usize;
            let source = &from[(y * width + x0) as usize..(y * width + x1) as usize];
            to[start..start + source.len()].copy_from_slice(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(width: usize, height: usize) -> Planes<u8> {
        Planes { width, height, data: (0..3 * width * height).map(|value| value as u8).collect() }
    }

    #[test]
    fn four_quarter_turns_are_the_identity() {
        let image = numbered(5, 3);
        let mut turned = image.clone();
        let mut spare = Planes::default();
        for turns in 1..=4 {
            rotate90(&mut turned, 1, &mut spare);
            let mut direct = image.clone();
            rotate90(&mut direct, turns, &mut spare);
            assert_eq!(turned, direct, "{turns}");
        }
        assert_eq!(turned, image);
    }

    #[test]
    fn a_quarter_turn_is_counter_clockwise() {
        // numpy.rot90([[0, 1, 2], [3, 4, 5]]) = [[2, 5], [1, 4], [0, 3]]
        let mut image = numbered(3, 2);
        rotate90(&mut image, 1, &mut Planes::default());
        assert_eq!((image.width, image.height), (2, 3));
        assert_eq!(&image.data[..6], &[2, 5, 1, 4, 0, 3]);
    }

    #[test]
    fn flips_reverse_rows_and_columns() {
        let mut image = numbered(3, 2);
        flip_horizontal(&mut image);
        assert_eq!(&image.data[..6], &[2, 1, 0, 5, 4, 3]);
        flip_vertical(&mut image);
        assert_eq!(&image.data[..6], &[5, 4, 3, 2, 1, 0]);
        let mut odd = numbered(1, 3);
        flip_vertical(&mut odd);
        assert_eq!(&odd.data[..3], &[2, 1, 0]);
    }

    #[test]
    fn a_window_beyond_the_edge_is_black_there() {
        let mut out = Planes::default();
        window(&numbered(2, 2), -1, 1, 2, &mut out);
        assert_eq!(&out.data[..4], &[0, 2, 0, 0]);
        window(&numbered(2, 2), 5, 5, 2, &mut out);
        assert_eq!(out.data, vec![0; 12]);
    }
}
