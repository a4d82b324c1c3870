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

/// What a window shows beyond the edge of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond<T> {
    /// One colour.
    Color([T; 3]),
    /// The pixels at the edge.
    Edge,
    /// The image mirrored; the flag says whether the pixels at the edge are repeated.
    Mirror(bool),
}

/// The window of `size` × `size` whose upper left corner is at (`left`, `top`).
pub fn window<T: Copy + Default>(
    image: &Planes<T>,
    (left, top): (i64, i64),
    size: usize,
    beyond: Beyond<T>,
    out: &mut Planes<T>,
) {
    let (width, height) = (image.width as i64, image.height as i64);
    out.reshape(size, size);
    let side = size as i64;
    let inside = |x: i64| match beyond {
        Beyond::Mirror(repeat) => mirror(x, width, repeat),
        _ => x.clamp(0, width - 1) as usize,
    };
    for (channel, (from, to)) in image.split().into_iter().zip(out.split_mut()).enumerate() {
        for (y, row) in (top..top + side).zip(to.chunks_exact_mut(size)) {
            let source_y = match beyond {
                Beyond::Color(color) if y < 0 || y >= height => {
                    row.fill(color[channel]);
                    continue;
                }
                Beyond::Mirror(repeat) => mirror(y, height, repeat),
                _ => y.clamp(0, height - 1) as usize,
            };
            let source = &from[source_y * image.width..][..image.width];
            // The part of the row that lies in the image is copied at once.
            let (x0, x1) = (left.clamp(0, width), (left + side).clamp(0, width));
            let (start, end) = if x0 < x1 { ((x0 - left) as usize, (x1 - left) as usize) } else { (size, size) };
            if x0 < x1 {
                row[start..end].copy_from_slice(&source[x0 as usize..x1 as usize]);
            }
            for x in (0..start).chain(end..size) {
                row[x] = match beyond {
                    Beyond::Color(color) => color[channel],
                    _ => source[inside(left + x as i64)],
                };
            }
        }
    }
}

/// The place in a line of `len` pixels that a mirror shows at `at`, however far away; the pixels at the ends are
/// repeated or not.
pub fn mirror(at: i64, len: i64, repeat_ends: bool) -> usize {
    let period = if repeat_ends { 2 * len } else { 2 * (len - 1) };
    if period == 0 {
        return 0;
    }
    let at = at.rem_euclid(period);
    let folded = if at < len { at } else { period - at - i64::from(repeat_ends) };
    folded as usize
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
        let black = Beyond::Color([0; 3]);
        window(&numbered(2, 2), (-1, 1), 2, black, &mut out);
        assert_eq!(&out.data[..4], &[0, 2, 0, 0]);
        window(&numbered(2, 2), (5, 5), 2, black, &mut out);
        assert_eq!(out.data, vec![0; 12]);
        window(&numbered(2, 2), (-5, -5), 2, Beyond::Color([7, 8, 9]), &mut out);
        assert_eq!(out.data, [7, 7, 7, 7, 8, 8, 8, 8, 9, 9, 9, 9]);
    }

    #[test]
    fn mirrors_go_on_for_ever() {
        let line = |repeat| (-5..8).map(|at| mirror(at, 3, repeat)).collect::<Vec<_>>();
        // numpy.pad([0, 1, 2], 5, "reflect") and "symmetric"
        assert_eq!(line(false), [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]);
        assert_eq!(line(true), [1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]);
        assert_eq!((mirror(9, 1, false), mirror(-9, 1, true)), (0, 0));
    }
}
