//! TensorFlow's colour operations (`tf.image`) on float images of the 0…255 scale.
//!
//! On floats `tf.image` never clips, so that values may leave 0…255 from one operation to the next; here too.

use super::planes::Planes;
use crate::kernels::multiversion;

/// `tf.image.adjust_brightness`: adds `delta` grey levels.
pub fn adjust_brightness(image: &mut Planes<f32>, delta: f64) {
    let delta = delta as f32;
    for value in &mut image.data {
        *value += delta;
    }
}

/// `tf.image.adjust_contrast`: scales the distance to the mean of each channel.
pub fn adjust_contrast(image: &mut Planes<f32>, factor: f64) {
    let factor = factor as f32;
    for plane in image.split_mut() {
        let sum: f64 = plane.iter().map(|&value| f64::from(value)).sum();
        let mean = (sum / plane.len().max(1) as f64) as f32;
        for value in plane {
            *value = (*value - mean) * factor + mean;
        }
    }
}

/// `tf.image.adjust_saturation`: scales the saturation in HSV and clips it to 0…1.
pub fn adjust_saturation(image: &mut Planes<f32>, factor: f64) {
    let [red, green, blue] = image.split_mut();
    scale_saturation(red, green, blue, factor as f32);
}

/// `tf.image.adjust_hue`: turns the hue by `turn` of the colour circle; the largest and the smallest channel
/// keep their values.
pub fn adjust_hue(image: &mut Planes<f32>, turn: f64) {
    let [red, green, blue] = image.split_mut();
    turn_hue(red, green, blue, turn as f32);
}

multiversion! {
    fn scale_saturation(red: &mut [f32], green: &mut [f32], blue: &mut [f32], factor: f32) {
        for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
            let max = r.max(*g).max(*b);
            let range = max - r.min(*g).min(*b);
            let saturation = if max > 0.0 { range / max } else { 0.0 };
            let chroma = (saturation * factor).clamp(0.0, 1.0) * max;
            (*r, *g, *b) = from_hue(hue(*r, *g, *b, max, range), max - chroma, chroma);
        }
    }
}

multiversion! {
    fn turn_hue(red: &mut [f32], green: &mut [f32], blue: &mut [f32], turn: f32) {
        for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
            let max = r.max(*g).max(*b);
            let range = max - r.min(*g).min(*b);
            let sixths = hue(*r, *g, *b, max, range) + turn * 6.0;
            let turned = sixths - (sixths * (1.0 / 6.0)).floor() * 6.0;
            (*r, *g, *b) = from_hue(turned, max - range, range);
        }
    }
}

/// The hue in sixths of the circle, 0…6; 0 for grey.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn hue(r: f32, g: f32, b: f32, max: f32, range: f32) -> f32 {
    let scale = if range > 0.0 { 1.0 / range } else { 0.0 };
    let (from_red, from_green, from_blue) = (scale * (g - b), scale * (b - r) + 2.0, scale * (r - g) + 4.0);
    let sixths = if r == max {
        from_red
    } else if g == max {
        from_green
    } else {
        from_blue
    };
    let sixths = if range > 0.0 { sixths } else { 0.0 };
    if sixths < 0.0 { sixths + 6.0 } else { sixths }
}

/// The colour of this hue between `min` and `min + chroma`.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loops")]
fn from_hue(sixths: f32, min: f32, chroma: f32) -> (f32, f32, f32) {
    let red = ((sixths - 3.0).abs() - 1.0).clamp(0.0, 1.0);
    let green = (2.0 - (sixths - 2.0).abs()).clamp(0.0, 1.0);
    let blue = (2.0 - (sixths - 4.0).abs()).clamp(0.0, 1.0);
    (min + red * chroma, min + green * chroma, min + blue * chroma)
}
