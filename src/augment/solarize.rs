//! Solarisation as Pillow's `ImageOps.solarize` does it.

use super::planes::Planes;

/// Subtracts all values from `threshold` on from 255.
pub fn solarize(image: &mut Planes<u8>, threshold: u32) {
    for value in &mut image.data {
        if u32::from(*value) >= threshold {
            *value = 255 - *value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_itself_is_inverted_and_256_changes_nothing() {
        let image = |data| Planes { width: 1, height: 1, data };
        let mut pixel = image(vec![99, 100, 255]);
        solarize(&mut pixel, 100);
        assert_eq!(pixel, image(vec![99, 155, 0]));
        solarize(&mut pixel, 256);
        assert_eq!(pixel, image(vec![99, 155, 0]));
    }
}
