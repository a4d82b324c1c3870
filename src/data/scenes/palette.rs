//! Colours that say nothing about the class.

use rand::Rng;

use crate::seed::uniform;

/// Red, green, blue in 0…1.
pub(super) type Color = [f64; 3];

/// Luminance with ITU-R 601 weights.
fn luminance(color: Color) -> f64 {
    0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
}

/// A random colour whose luminance differs from that of `other` by at least `contrast`, lighter or darker.
pub(super) fn contrasting<R: Rng>(other: Color, contrast: f64, rng: &mut R) -> Color {
    for _ in 0..64 {
        let color = random_color(rng);
        if (luminance(color) - luminance(other)).abs() >= contrast {
            return color;
        }
    }
    if luminance(other) > 0.5 { [0.1; 3] } else { [0.9; 3] }
}

/// Any colour.
pub(super) fn random_color<R: Rng>(rng: &mut R) -> Color {
    let grey = uniform(rng, 0.1, 0.9);
    let vividness = uniform(rng, 0.0, 1.0);
    std::array::from_fn(|_| {
        let own = uniform(rng, 0.05, 0.95);
        grey + vividness * (own - grey)
    })
}

/// `from` at 0, `to` at 1.
pub(super) fn mix(from: Color, to: Color, share: f64) -> Color {
    std::array::from_fn(|channel| from[channel] + share * (to[channel] - from[channel]))
}
