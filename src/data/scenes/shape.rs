//! Curves and noise that the scenes are drawn with.

use rand::Rng;

use crate::seed::{below, uniform};

/// How a ridge runs from knot to knot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interpolation {
    /// Straight lines: peaks.
    Linear,
    /// Smoothstep: dunes.
    Smooth,
    /// A level from each knot to the next: roofs.
    Step,
}

/// A curve over u in −1…2, given by knots at uneven distances.
#[derive(Clone, Debug)]
pub(super) struct Ridge {
    knots: Vec<(f64, f64)>,
    interpolation: Interpolation,
}

impl Ridge {
    /// Knots that alternate between high and low around `level`; distances and heights vary.
    pub(super) fn draw<R: Rng>(
        level: f64,
        amplitude: f64,
        distance: f64,
        interpolation: Interpolation,
        rng: &mut R,
    ) -> Self {
        let mut knots = vec![];
        let mut u = -1.0 - distance * uniform(rng, 0.0, 1.0);
        let mut sign = if below(rng, 2) == 0 { 1.0 } else { -1.0 };
        while u < 2.0 + 2.0 * distance {
            let swing = match interpolation {
                Interpolation::Step => uniform(rng, -1.0, 1.0),
                _ => sign * uniform(rng, 0.45, 1.0),
            };
            knots.push((u, level + amplitude * swing));
            u += distance * uniform(rng, 0.6, 1.4);
            sign = -sign;
        }
        Self { knots, interpolation }
    }

    /// Height at `u`, the slope's sign there, and how far into its piece `u` lies.
    pub(super) fn at(&self, u: f64) -> (f64, f64, f64) {
        let next = self.knots.partition_point(|knot| knot.0 <= u).clamp(1, self.knots.len() - 1);
        let ((u0, h0), (u1, h1)) = (self.knots[next - 1], self.knots[next]);
        let share = ((u - u0) / (u1 - u0)).clamp(0.0, 1.0);
        let height = match self.interpolation {
            Interpolation::Linear => h0 + share * (h1 - h0),
            Interpolation::Smooth => h0 + share * share * (3.0 - 2.0 * share) * (h1 - h0),
            Interpolation::Step => h0,
        };
        (height, if h1 < h0 { -1.0 } else { 1.0 }, u - u0)
    }
}

/// Smooth random values between −1 and 1 on a square lattice.
#[derive(Clone, Debug)]
pub(super) struct ValueNoise {
    lattice: Vec<f64>,
    cells: f64,
}

const LATTICE: usize = 32;

impl ValueNoise {
    /// `cells` lattice cells across the image.
    pub(super) fn draw<R: Rng>(cells: f64, rng: &mut R) -> Self {
        Self { lattice: (0..LATTICE * LATTICE).map(|_| uniform(rng, -1.0, 1.0)).collect(), cells }
    }

    /// The value at a point.
    pub(super) fn at(&self, u: f64, v: f64) -> f64 {
        let (x, y) = ((u + 1.0) * self.cells, (v + 1.0) * self.cells);
        let (x0, y0) = (x.floor(), y.floor());
        let smooth = |t: f64| t * t * (3.0 - 2.0 * t);
        let (fx, fy) = (smooth(x - x0), smooth(y - y0));
        let value = |dx: usize, dy: usize| {
            let (column, row) = ((x0.max(0.0) as usize + dx) % LATTICE, (y0.max(0.0) as usize + dy) % LATTICE);
            self.lattice[row * LATTICE + column]
        };
        let upper = value(0, 0) + fx * (value(1, 0) - value(0, 0));
        let lower = value(0, 1) + fx * (value(1, 1) - value(0, 1));
        upper + fy * (lower - upper)
    }
}

/// A wave between −1 and 1 with period 1 and rounded crests: parabolas instead of a sine.
pub(super) fn wave(t: f64) -> f64 {
    let phase = 2.0 * (t - t.floor());
    if phase < 1.0 { 4.0 * phase * (1.0 - phase) } else { -4.0 * (phase - 1.0) * (2.0 - phase) }
}
