//! One scene: what stands in it, how it is lit, and what spoils the picture.

use rand_chacha::ChaCha8Rng;

use super::{
    layer::Layer,
    palette::{Color, contrasting, mix, random_color},
    shape::{ValueNoise, wave},
};
use crate::{
    augment::portable_math::{cos_turns, exp, ln, sin_turns},
    seed::{below, chance, uniform, unit},
};

/// The classes in the order of their labels.
pub(super) const CLASS_NAMES: [&str; 7] = ["city", "clouds", "desert", "field", "forest", "mountain", "sea"];

/// Points per pixel and direction.
const SUPERSAMPLING: usize = 2;

/// Everything that is drawn before the first pixel.
pub(super) struct Scene {
    /// From front to back.
    layers: Vec<Layer>,
    sky: [Color; 2],
    sky_direction: [f64; 2],
    sun: Option<([f64; 3], Color)>,
    /// Camera: rotation and zoom around the middle.
    axes: [[f64; 2]; 2],
    noise: ValueNoise,
    noise_strength: f64,
    grating: [f64; 3],
    grating_strength: f64,
    light: [f64; 2],
    light_strength: f64,
    contrast: f64,
    brightness: f64,
    sensor_noise: f64,
    rng: ChaCha8Rng,
}

impl Scene {
    /// Draws the parameters of a scene of this class.
    pub(super) fn draw(class: usize, mut rng: ChaCha8Rng) -> Self {
        let rng_ref = &mut rng;
        let sky = random_color(rng_ref);
        let layers = draw_layers(class, sky, rng_ref);
        let direction = unit(rng_ref);
        let tilt = uniform(rng_ref, -0.04, 0.04);
        let zoom = exp(uniform(rng_ref, ln(0.75), ln(1.25)));
        let mirror = if below(rng_ref, 2) == 0 { 1.0 } else { -1.0 };
        let (sin, cos) = (sin_turns(tilt) / zoom, cos_turns(tilt) / zoom);
        let (grating_turn, grating_frequency) = (unit(rng_ref), uniform(rng_ref, 3.0, 12.0));
        let light_turn = unit(rng_ref);
        Self {
            layers,
            sky: [sky, mix(sky, random_color(rng_ref), 0.5)],
            sky_direction: [cos_turns(direction), sin_turns(direction)],
            sun: chance(rng_ref, 0.4).then(|| {
                let place = [uniform(rng_ref, 0.0, 1.0), uniform(rng_ref, 0.0, 0.6), uniform(rng_ref, 0.04, 0.09)];
                (place, contrasting(sky, 0.2, rng_ref))
            }),
            axes: [[mirror * cos, -sin], [mirror * sin, cos]],
            noise: ValueNoise::draw(uniform(rng_ref, 4.0, 14.0), rng_ref),
            noise_strength: 0.02,
            grating: [
                cos_turns(grating_turn) * grating_frequency,
                sin_turns(grating_turn) * grating_frequency,
                unit(rng_ref),
            ],
            grating_strength: 0.0,
            light: [cos_turns(light_turn), sin_turns(light_turn)],
            light_strength: uniform(rng_ref, 0.0, 0.15),
            contrast: uniform(rng_ref, 0.5, 1.1),
            brightness: uniform(rng_ref, -0.12, 0.12),
            sensor_noise: 0.03,
            rng,
        }
    }

    /// Paints `side` × `side` interleaved RGB pixels.
    pub(super) fn render(mut self, side: usize) -> Vec<u8> {
        let step = 1.0 / (side * SUPERSAMPLING) as f64;
        let mut rgb = Vec::with_capacity(3 * side * side);
        for y in 0..side {
            for x in 0..side {
                let mut sum = [0.0; 3];
                for sub in 0..SUPERSAMPLING * SUPERSAMPLING {
                    let px = ((x * SUPERSAMPLING + sub % SUPERSAMPLING) as f64 + 0.5) * step;
                    let py = ((y * SUPERSAMPLING + sub / SUPERSAMPLING) as f64 + 0.5) * step;
                    let color = self.color_at(px, py);
                    for channel in 0..3 {
                        sum[channel] += color[channel];
                    }
                }
                for value in sum {
                    let mean = value / (SUPERSAMPLING * SUPERSAMPLING) as f64;
                    let exposed = 0.5 + self.contrast * (mean - 0.5) + self.brightness;
                    // The sum of three uniform numbers is near enough to a bell.
                    let bell = unit(&mut self.rng) + unit(&mut self.rng) + unit(&mut self.rng) - 1.5;
                    let level = (exposed + 2.0 * self.sensor_noise * bell) * 255.0;
                    rgb.push(level.clamp(0.0, 255.0).round() as u8);
                }
            }
        }
        rgb
    }

    fn color_at(&self, px: f64, py: f64) -> Color {
        let (cx, cy) = (px - 0.5, py - 0.5);
        let u = self.axes[0][0] * cx + self.axes[0][1] * cy + 0.5;
        let v = self.axes[1][0] * cx + self.axes[1][1] * cy + 0.5;
        let color = self.layers.iter().find_map(|layer| layer.at(u, v)).unwrap_or_else(|| self.sky_at(u, v));
        let shade = self.noise_strength * self.noise.at(px, py)
            + self.grating_strength * wave(self.grating[0] * px + self.grating[1] * py + self.grating[2])
            + self.light_strength * (self.light[0] * cx + self.light[1] * cy);
        color.map(|value| value + shade)
    }

    fn sky_at(&self, u: f64, v: f64) -> Color {
        if let Some(([su, sv, radius], color)) = self.sun
            && (u - su) * (u - su) + (v - sv) * (v - sv) < radius * radius
        {
            return color;
        }
        let share = 0.5 + self.sky_direction[0] * (u - 0.5) + self.sky_direction[1] * (v - 0.5);
        mix(self.sky[0], self.sky[1], share.clamp(0.0, 1.0))
    }
}

/// What stands in a scene of this class, from front to back.
fn draw_layers(class: usize, sky: Color, rng: &mut ChaCha8Rng) -> Vec<Layer> {
    let horizon = uniform(rng, 0.15, 0.6);
    let contrast = uniform(rng, 0.25, 0.45);
    let mut layers: Vec<Layer> = vec![];
    let num_layers = match class {
        0 | 2 | 5 => 2 + below(rng, 2),
        4 => 2 + below(rng, 3),
        _ => 1,
    };
    for depth in 0..num_layers {
        let level = horizon + uniform(rng, 0.16, 0.26) * depth as f64;
        let behind = layers.last().map_or(sky, Layer::color);
        layers.push(match class {
            0 => Layer::city(level, behind, contrast, rng),
            1 => Layer::clouds(behind, contrast, rng),
            2 => Layer::dune(level, behind, contrast, rng),
            3 => Layer::field(level, behind, contrast, rng),
            4 => Layer::forest(level, behind, contrast, rng),
            5 => Layer::mountain(level, behind, contrast, rng),
            _ => Layer::sea(level, behind, contrast, rng),
        });
    }
    layers.reverse();
    layers
}
