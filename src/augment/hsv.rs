//! Hue turns in Pillow's 8-bit HSV (`libImaging/Convert.c`), pixel for pixel as torchvision's `adjust_hue`.

use super::{planes::Planes, simd::dispatched};

/// Turns the hue by `shift` / 256 of the colour circle.
pub fn shift_hue(image: &mut Planes<u8>, shift: u8) {
    let [red, green, blue] = image.split_mut();
    shift_hue_planes(red, green, blue, shift);
}

dispatched! {
    fn shift_hue_planes(red: &mut [u8], green: &mut [u8], blue: &mut [u8], shift: u8) {
        for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
            let (hue, saturation, value) = rgb_to_hsv(*r, *g, *b);
            (*r, *g, *b) = hsv_to_rgb(hue.wrapping_add(shift), saturation, value);
        }
    }
}

/// The mixed single and double precision is Pillow's and decides the last bit.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loop")]
fn rgb_to_hsv(r: u8, g: u8, b: u8) -> (u8, u8, u8) {
    let (r, g, b) = (i32::from(r), i32::from(g), i32::from(b));
    let max = r.max(g).max(b);
    let min = r.min(g).min(b);
    // Grey pixels divide by 1 instead of 0; their hue and saturation come out as 0.
    let range = (max - min).max(1) as f32;
    let saturation = (max - min) as f32 / max.max(1) as f32;
    let (rc, gc, bc) = ((max - r) as f32 / range, (max - g) as f32 / range, (max - b) as f32 / range);
    let from_red = bc - gc;
    let from_green = (2.0 + f64::from(rc) - f64::from(bc)) as f32;
    let from_blue = (4.0 + f64::from(gc) - f64::from(rc)) as f32;
    let sector = if r == max {
        from_red
    } else if g == max {
        from_green
    } else {
        from_blue
    };
    let turns = f64::from(sector) / 6.0 + 1.0;
    let turns = (if turns >= 1.0 { turns - 1.0 } else { turns }) as f32;
    (to_byte(f64::from(turns) * 255.0), to_byte(f64::from(saturation) * 255.0), max as u8)
}

/// Whole numbers throughout: with hue = 42.5 · sector + remainder / 6 the shares are multiples of 1 / 255², and
/// none of them lies halfway between two levels.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loop")]
fn hsv_to_rgb(hue: u8, saturation: u8, value: u8) -> (u8, u8, u8) {
    let (hue, saturation, value) = (u32::from(hue), u32::from(saturation), u32::from(value));
    let sector = hue * 6 / 255;
    let remainder = hue * 6 - sector * 255;
    let p = (value * (255 - saturation) + 127) / 255;
    let q = (value * (65025 - saturation * remainder) + 32512) / 65025;
    let t = (value * (65025 - saturation * (255 - remainder)) + 32512) / 65025;
    let sector = if sector == 6 { 0 } else { sector };
    let pick = |values: [u32; 6]| {
        let mut chosen = values[5];
        for idx in (0..5).rev() {
            chosen = if sector == idx { values[idx as usize] } else { chosen };
        }
        chosen as u8
    };
    (pick([value, q, p, p, t, value]), pick([t, value, value, q, p, p]), pick([p, p, t, value, value, q]))
}

/// Truncates a value that lies within 0…255.99.
#[inline(always)]
#[allow(clippy::inline_always, reason = "must be compiled inside the vectorised loop")]
fn to_byte(value: f64) -> u8 {
    debug_assert!((0.0..256.0).contains(&value));
    // SAFETY: only shares of 255 arrive here, between 0 and 255.
    (unsafe { value.to_int_unchecked::<i32>() }) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The floating-point formula of `libImaging/Convert.c`.
    fn pillow_hsv_to_rgb(hue: u8, saturation: u8, value: u8) -> (u8, u8, u8) {
        let sixth = f64::from(hue) * 6.0 / 255.0;
        let sector = (i32::from(hue) * 6) / 255;
        let fraction = f64::from((sixth - f64::from(sector)) as f32);
        let strength = f64::from((f64::from(saturation) / 255.0) as f32);
        let full = f64::from(value);
        let p = to_byte(full * (1.0 - strength) + 0.5);
        let q = to_byte(full * (1.0 - f64::from((strength * fraction) as f32)) + 0.5);
        let t = to_byte(full * (1.0 - strength * (1.0 - fraction)) + 0.5);
        let sector = if sector == 6 { 0 } else { sector };
        let pick = |values: [u8; 6]| {
            let mut chosen = values[5];
            for idx in (0..5).rev() {
                chosen = if sector == idx { values[idx as usize] } else { chosen };
            }
            chosen
        };
        (pick([value, q, p, p, t, value]), pick([t, value, value, q, p, p]), pick([p, p, t, value, value, q]))
    }

    #[test]
    fn whole_numbers_give_what_pillows_floats_give() {
        for hue in 0..=255 {
            for saturation in 0..=255 {
                for value in (0..=255).step_by(5) {
                    assert_eq!(
                        hsv_to_rgb(hue, saturation, value),
                        pillow_hsv_to_rgb(hue, saturation, value),
                        "{hue} {saturation} {value}"
                    );
                }
            }
        }
    }
}
