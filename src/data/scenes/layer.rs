//! Things that stand in a scene. Coordinates: u to the right, v downward, both 0…1 in the middle of the scene.

use rand::Rng;

use super::{
    palette::{Color, contrasting, mix},
    shape::{Interpolation, Ridge, wave},
};
use crate::seed::{below, uniform, unit};

/// Something that covers a part of the scene.
#[derive(Clone, Debug)]
pub(super) enum Layer {
    /// Everything below a curve.
    Land { ridge: Ridge, color: Color, shade: Color, cover: Cover },
    /// Trees whose feet stand on a curve.
    Trees { trees: Vec<Tree>, crown: Color, trunk: Color },
    /// Water below a horizon.
    Sea { horizon: f64, color: Color, crest: Color, period: f64, swell: f64, phase: f64 },
    /// Puffs of discs.
    Clouds { discs: Vec<[f64; 3]>, color: Color, shade: Color },
    /// Furrows that meet at a point on the horizon.
    Field { horizon: f64, vanishing: f64, color: Color, furrow: Color, spacing: f64, phase: f64 },
}

/// What lies on land.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cover {
    /// Light and dark slopes.
    Slopes,
    /// Lines that follow the ridge.
    Ripples { period: f64 },
    /// Rows and columns of windows.
    Windows { period: f64, size: f64 },
}

/// A conifer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree {
    u: f64,
    foot: f64,
    height: f64,
    half_width: f64,
}

impl Layer {
    /// Jagged rock with light and dark slopes.
    pub(super) fn mountain<R: Rng>(level: f64, behind: Color, contrast: f64, rng: &mut R) -> Self {
        let color = contrasting(behind, contrast, rng);
        let (amplitude, distance) = (uniform(rng, 0.1, 0.2), uniform(rng, 0.12, 0.26));
        let ridge = Ridge::draw(level, amplitude, distance, Interpolation::Linear, rng);
        Self::Land { ridge, color, shade: contrasting(color, 0.5 * contrast, rng), cover: Cover::Slopes }
    }

    /// Smooth sand with ripples along the ridge.
    pub(super) fn dune<R: Rng>(level: f64, behind: Color, contrast: f64, rng: &mut R) -> Self {
        let color = contrasting(behind, contrast, rng);
        let (amplitude, distance) = (uniform(rng, 0.06, 0.13), uniform(rng, 0.3, 0.5));
        let ridge = Ridge::draw(level, amplitude, distance, Interpolation::Smooth, rng);
        let cover = Cover::Ripples { period: uniform(rng, 0.08, 0.14) };
        Self::Land { ridge, color, shade: contrasting(color, 0.5 * contrast, rng), cover }
    }

    /// Houses with windows.
    pub(super) fn city<R: Rng>(level: f64, behind: Color, contrast: f64, rng: &mut R) -> Self {
        let color = contrasting(behind, contrast, rng);
        let ridge = Ridge::draw(level, uniform(rng, 0.12, 0.22), uniform(rng, 0.14, 0.24), Interpolation::Step, rng);
        let cover = Cover::Windows { period: uniform(rng, 0.07, 0.1), size: uniform(rng, 0.4, 0.6) };
        Self::Land { ridge, color, shade: contrasting(color, contrast, rng), cover }
    }

    /// A row of conifers on a slightly uneven line.
    pub(super) fn forest<R: Rng>(level: f64, behind: Color, contrast: f64, rng: &mut R) -> Self {
        let crown = contrasting(behind, contrast, rng);
        let (spacing, height) = (uniform(rng, 0.09, 0.16), uniform(rng, 0.25, 0.42));
        let mut trees = vec![];
        let mut u = -1.0 + spacing * unit(rng);
        while u < 2.0 {
            let height = height * uniform(rng, 0.7, 1.2);
            trees.push(Tree {
                u,
                foot: level + uniform(rng, 0.1, 0.2),
                height,
                half_width: height * uniform(rng, 0.16, 0.24),
            });
            u += spacing * uniform(rng, 0.6, 1.4);
        }
        Self::Trees { trees, crown, trunk: contrasting(crown, 0.6 * contrast, rng) }
    }

    /// Water with crests that come closer toward the horizon.
    pub(super) fn sea<R: Rng>(level: f64, behind: Color, contrast: f64, rng: &mut R) -> Self {
        let color = contrasting(behind, contrast, rng);
        Self::Sea {
            horizon: level,
            color,
            crest: contrasting(color, contrast, rng),
            period: uniform(rng, 0.1, 0.18),
            swell: uniform(rng, 0.12, 0.25),
            phase: unit(rng),
        }
    }

    /// Puffs anywhere.
    pub(super) fn clouds<R: Rng>(behind: Color, contrast: f64, rng: &mut R) -> Self {
        let color = contrasting(behind, contrast, rng);
        let mut discs = vec![];
        for _ in 0..5 + below(rng, 4) {
            let (u, v) = (uniform(rng, -0.3, 1.3), uniform(rng, -0.3, 1.3));
            let size = uniform(rng, 0.05, 0.1);
            for _ in 0..3 + below(rng, 4) {
                let radius = size * uniform(rng, 0.7, 1.3);
                discs.push([u + size * uniform(rng, -2.2, 2.2), v - size * uniform(rng, 0.0, 0.8), radius]);
            }
        }
        Self::Clouds { discs, color, shade: contrasting(color, 0.4 * contrast, rng) }
    }

    /// A ploughed plain.
    pub(super) fn field<R: Rng>(level: f64, behind: Color, contrast: f64, rng: &mut R) -> Self {
        let color = contrasting(behind, contrast, rng);
        Self::Field {
            horizon: level - 0.05,
            vanishing: uniform(rng, -0.1, 1.1),
            color,
            furrow: contrasting(color, contrast, rng),
            spacing: uniform(rng, 0.25, 0.5),
            phase: unit(rng),
        }
    }

    /// The main colour, which what stands in front contrasts with.
    pub(super) fn color(&self) -> Color {
        match self {
            Self::Land { color, .. }
            | Self::Sea { color, .. }
            | Self::Clouds { color, .. }
            | Self::Field { color, .. } => *color,
            Self::Trees { crown, .. } => *crown,
        }
    }

    /// The colour at a point, where the layer covers it.
    pub(super) fn at(&self, u: f64, v: f64) -> Option<Color> {
        match self {
            Self::Land { ridge, color, shade, cover } => {
                let (height, slope, inside) = ridge.at(u);
                let depth = v - height;
                (depth >= 0.0).then(|| if cover.is_shaded(slope, inside, depth) { *shade } else { *color })
            }
            Self::Trees { trees, crown, trunk } => trees.iter().rev().find_map(|tree| tree.at(u, v, *crown, *trunk)),
            Self::Sea { horizon, color, crest, period, swell, phase } => {
                let depth = v - horizon;
                (depth >= 0.0).then(|| {
                    // Perspective: rows are evenly spaced in √depth.
                    let row = (depth + 0.02).sqrt() / period + 0.35 * wave(u / swell + phase) * (0.3 + depth);
                    let breaks = wave(u * 1.7 / swell + phase + 0.37 * row.floor());
                    if row - row.floor() < 0.42 + 0.12 * breaks { *crest } else { *color }
                })
            }
            Self::Clouds { discs, color, shade } => {
                let mut hit = None;
                for [cu, cv, radius] in discs {
                    let (du, dv) = (u - cu, v - cv);
                    if du * du + dv * dv <= radius * radius {
                        let lower = dv > 0.35 * radius;
                        hit = Some(if lower { *shade } else { *color });
                        if !lower {
                            break;
                        }
                    }
                }
                hit
            }
            Self::Field { horizon, vanishing, color, furrow, spacing, phase } => {
                let depth = v - horizon;
                (depth >= 0.0).then(|| {
                    let column = (u - vanishing) / ((depth + 0.08) * spacing) + phase;
                    if column - column.floor() < 0.45 { *furrow } else { *color }
                })
            }
        }
    }
}

impl Cover {
    fn is_shaded(self, slope: f64, inside: f64, depth: f64) -> bool {
        match self {
            Self::Slopes => slope > 0.0,
            Self::Ripples { period } => {
                let row = depth / period;
                row - row.floor() < 0.4
            }
            Self::Windows { period, size } => {
                let (column, row) = (inside / period, depth / period);
                column - column.floor() > 1.0 - size && row - row.floor() > 1.0 - size
            }
        }
    }
}

impl Tree {
    fn at(self, u: f64, v: f64, crown: Color, trunk: Color) -> Option<Color> {
        let above_foot = (self.foot - v) / self.height;
        let aside = (u - self.u).abs() / self.half_width;
        if above_foot > 1.0 || aside > 1.0 || above_foot < -0.15 {
            None
        } else if above_foot < 0.12 {
            (aside < 0.25).then_some(trunk)
        } else {
            // Three storeys of branches.
            let storey = (above_foot - 0.12) / 0.88 * 3.0;
            let taper = 1.0 - storey / 3.0;
            let width = taper + 0.25 * (1.0 - (storey - storey.floor())) - 0.1;
            (aside < width).then(|| if u > self.u { mix(crown, trunk, 0.35) } else { crown })
        }
    }
}
