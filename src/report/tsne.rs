//! Embeddings in two dimensions by t-SNE (van der Maaten & Hinton 2008): what is near in the space of embeddings stays
//! near on the map. Exact, since a page shows a sample of the images only.
//!
//! Each row's sums are made by one task in a fixed order, and the map begins at the principal components: the same
//! embeddings give the same map for any number of threads.

use rayon::prelude::*;

/// About how many neighbours an image has; less where there are few images.
const PERPLEXITY: f64 = 30.0;
const EARLY_ROUNDS: usize = 150;
const ROUNDS: usize = 500;
/// In the early rounds neighbours attract each other so many times more strongly: clusters find together.
const EXAGGERATION: f64 = 12.0;
const LEARNING_RATE: f64 = 50.0;
/// Sums that run side by side, so that the compiler can use vectors without changing the order.
const LANES: usize = 4;

/// A map.
#[derive(Clone, Debug, PartialEq)]
pub struct Tsne {
    /// A point for each row.
    pub points: Vec<[f64; 2]>,
    /// The perplexity that was used.
    pub perplexity: f64,
}

/// The map of `rows` (each `dim` long) by the angles between them, from `start`. Nothing where there are fewer than ten
/// rows or a value is not finite.
pub fn tsne(rows: &[f32], dim: usize, start: &[[f64; 2]]) -> Option<Tsne> {
    let num_rows = start.len();
    if num_rows < 10 || rows.len() != num_rows * dim || rows.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let perplexity = PERPLEXITY.min((num_rows - 1) as f64 / 3.0);
    let affinities = Affinities::of(rows, dim, num_rows, perplexity);
    let mut layout = Layout::scaled(start);
    let mut speed = Layout { x: vec![0.0; num_rows], y: vec![0.0; num_rows] };
    let mut gains = vec![[1.0_f64; 2]; num_rows];
    for round in 0..ROUNDS {
        let (exaggeration, momentum) = if round < EARLY_ROUNDS { (EXAGGERATION, 0.5) } else { (1.0, 0.8) };
        let gradient = affinities.gradient(&layout, exaggeration);
        for (idx, gains) in gains.iter_mut().enumerate() {
            let axes = [(&mut layout.x[idx], &mut speed.x[idx]), (&mut layout.y[idx], &mut speed.y[idx])];
            for (((place, speed), gain), slope) in axes.into_iter().zip(gains).zip(gradient[idx]) {
                // A direction that keeps its sign gets faster, one that swings slower.
                *gain = if slope.is_sign_positive() == speed.is_sign_positive() { *gain * 0.8 } else { *gain + 0.2 };
                *gain = gain.max(0.01);
                *speed = momentum * *speed - LEARNING_RATE * *gain * slope;
                *place += *speed;
            }
        }
        layout.centre();
    }
    let points: Vec<[f64; 2]> = layout.x.iter().zip(&layout.y).map(|(&x, &y)| [x, y]).collect();
    points.iter().flatten().all(|value| value.is_finite()).then_some(Tsne { points, perplexity })
}

/// Points, one list for each coordinate.
#[derive(Clone, Debug)]
struct Layout {
    x: Vec<f64>,
    y: Vec<f64>,
}

impl Layout {
    /// Tiny, so that points can pass each other in the first rounds.
    fn scaled(start: &[[f64; 2]]) -> Self {
        let mut layout =
            Self { x: start.iter().map(|point| point[0]).collect(), y: start.iter().map(|point| point[1]).collect() };
        layout.centre();
        let deviation = (layout.x.iter().map(|x| x * x).sum::<f64>() / start.len() as f64).sqrt();
        let scale = if deviation > 0.0 && deviation.is_finite() { 1e-4 / deviation } else { 0.0 };
        // Equal points would never part: a little of their order keeps them from being equal.
        let nudge = |idx: usize| 1e-9 * idx as f64;
        layout.x.iter_mut().enumerate().for_each(|(idx, x)| *x = *x * scale + nudge(idx));
        layout.y.iter_mut().enumerate().for_each(|(idx, y)| *y = *y * scale - nudge(idx * idx % 7));
        layout
    }

    fn centre(&mut self) {
        for list in [&mut self.x, &mut self.y] {
            let mean = list.iter().sum::<f64>() / list.len() as f64;
            for value in list.iter_mut() {
                *value -= mean;
            }
        }
    }
}

/// How near each pair of rows is; symmetric, sums to 1.
struct Affinities {
    num_rows: usize,
    /// Rows are padded to whole lanes with zeros.
    stride: usize,
    values: Vec<f64>,
}

impl Affinities {
    fn of(rows: &[f32], dim: usize, num_rows: usize, perplexity: f64) -> Self {
        let unit = unit_rows(rows, dim);
        let stride = num_rows.next_multiple_of(LANES);
        let mut near = vec![0.0; num_rows * stride];
        near.par_chunks_mut(stride).enumerate().for_each(|(idx, out)| {
            let row = &unit[idx * dim..(idx + 1) * dim];
            for (out, other) in out.iter_mut().zip(unit.chunks_exact(dim)) {
                *out = (2.0 - 2.0 * dot(row, other)).max(0.0);
            }
            conditional(&mut out[..num_rows], idx, perplexity);
        });
        let scale = 1.0 / (2.0 * num_rows as f64);
        let mut values = vec![0.0; num_rows * stride];
        values.par_chunks_mut(stride).enumerate().for_each(|(idx, out)| {
            for (other, out) in out[..num_rows].iter_mut().enumerate() {
                *out = (near[idx * stride + other] + near[other * stride + idx]) * scale;
            }
        });
        Self { num_rows, stride, values }
    }

    /// The slope of the divergence at each point.
    fn gradient(&self, layout: &Layout, exaggeration: f64) -> Vec<[f64; 2]> {
        // Points that fill up the lanes lie so far away that nothing of them is left.
        let padded = |list: &[f64]| {
            let mut list = list.to_vec();
            list.resize(self.stride, 1e150);
            list
        };
        let (xs, ys) = (padded(&layout.x), padded(&layout.y));
        let sums: Vec<([f64; 2], [f64; 2], f64)> = (0..self.num_rows)
            .into_par_iter()
            .map(|idx| {
                let near = &self.values[idx * self.stride..(idx + 1) * self.stride];
                forces(near, &xs, &ys, (layout.x[idx], layout.y[idx]))
            })
            .collect();
        // Each point also met itself, at distance 0.
        let total: f64 = sums.iter().map(|(_, _, sum)| sum - 1.0).sum::<f64>().max(f64::MIN_POSITIVE);
        sums.into_iter()
            .map(|(pull, push, _)| [0, 1].map(|axis| 4.0 * (exaggeration * pull[axis] - push[axis] / total)))
            .collect()
    }

    /// Kullback–Leibler divergence of the map from the affinities: what the gradient is the slope of.
    #[cfg(test)]
    fn divergence(&self, layout: &Layout) -> f64 {
        let weight = |a: usize, b: usize| {
            1.0 / (1.0 + (layout.x[a] - layout.x[b]).powi(2) + (layout.y[a] - layout.y[b]).powi(2))
        };
        let pairs =
            || (0..self.num_rows).flat_map(|a| (0..self.num_rows).filter(move |&b| b != a).map(move |b| (a, b)));
        let total: f64 = pairs().map(|(a, b)| weight(a, b)).sum();
        pairs()
            .map(|(a, b)| (self.values[a * self.stride + b], weight(a, b) / total))
            .filter(|(near, _)| *near > 0.0)
            .map(|(near, shown)| near * (near / shown).ln())
            .sum()
    }
}

/// Pull and push on one point, and the sum of its weights.
fn forces(near: &[f64], xs: &[f64], ys: &[f64], (x, y): (f64, f64)) -> ([f64; 2], [f64; 2], f64) {
    let mut lanes = [[0.0; LANES]; 5];
    let chunks = near.chunks_exact(LANES).zip(xs.chunks_exact(LANES).zip(ys.chunks_exact(LANES)));
    for (near, (xs, ys)) in chunks {
        for lane in 0..LANES {
            let (dx, dy) = (x - xs[lane], y - ys[lane]);
            let weight = 1.0 / (1.0 + dx * dx + dy * dy);
            let (pull, push) = (near[lane] * weight, weight * weight);
            lanes[0][lane] += pull * dx;
            lanes[1][lane] += pull * dy;
            lanes[2][lane] += push * dx;
            lanes[3][lane] += push * dy;
            lanes[4][lane] += weight;
        }
    }
    let [pull_x, pull_y, push_x, push_y, sum] = lanes.map(|lanes| lanes.iter().sum::<f64>());
    ([pull_x, pull_y], [push_x, push_y], sum)
}

/// Squared distances of one row become the probabilities with which it would choose each other row.
fn conditional(row: &mut [f64], own: usize, perplexity: f64) {
    let nearest = row.iter().enumerate().filter(|(idx, _)| *idx != own).fold(f64::INFINITY, |low, (_, &d)| low.min(d));
    let wanted = perplexity.ln();
    let (mut low, mut high, mut precision) = (0.0, f64::INFINITY, 1.0);
    for _ in 0..64 {
        let (mut sum, mut weighted) = (0.0, 0.0);
        for (idx, &distance) in row.iter().enumerate() {
            if idx != own {
                let weight = (-precision * (distance - nearest)).exp();
                sum += weight;
                weighted += weight * (distance - nearest);
            }
        }
        let entropy = sum.ln() + precision * weighted / sum;
        if (entropy - wanted).abs() < 1e-6 {
            break;
        }
        if entropy > wanted {
            low = precision;
            precision = if high.is_finite() { f64::midpoint(low, high) } else { precision * 2.0 };
        } else {
            high = precision;
            precision = f64::midpoint(low, high);
        }
    }
    let mut sum = 0.0;
    for (idx, value) in row.iter_mut().enumerate() {
        *value = if idx == own { 0.0 } else { (-precision * (*value - nearest)).exp() };
        sum += *value;
    }
    for value in row {
        *value /= sum;
    }
}

fn unit_rows(rows: &[f32], dim: usize) -> Vec<f32> {
    let mut unit = rows.to_vec();
    for row in unit.chunks_exact_mut(dim.max(1)) {
        let length = dot(row, row).sqrt();
        if length > 0.0 {
            for value in row {
                *value = (f64::from(*value) / length) as f32;
            }
        }
    }
    unit
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0; 2 * LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(2 * LANES), b.chunks_exact(2 * LANES));
    let rest: f64 =
        a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..2 * LANES {
            lanes[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// `per_class` rows around each of `classes` directions.
    fn clusters(classes: usize, per_class: usize, dim: usize) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        (0..classes * per_class)
            .flat_map(|idx| {
                let class = idx / per_class;
                (0..dim).map(|k| if k == class { 3.0 } else { 0.0 } + rng.random::<f32>() - 0.5).collect::<Vec<_>>()
            })
            .collect()
    }

    /// All rows start on a line: nothing of the answer is in it.
    fn line(num_rows: usize) -> Vec<[f64; 2]> {
        (0..num_rows).map(|idx| [((idx * 37) % num_rows) as f64, ((idx * 11) % 13) as f64]).collect()
    }

    #[test]
    fn clusters_are_recovered() {
        let (classes, per_class) = (5, 24);
        let rows = clusters(classes, per_class, 16);
        let map = tsne(&rows, 16, &line(classes * per_class)).unwrap();
        let distance = |a: &[f64; 2], b: &[f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
        for (idx, point) in map.points.iter().enumerate() {
            let others = map.points.iter().enumerate().filter(|(other, _)| *other != idx);
            let mut near: Vec<(f64, usize)> = others.map(|(other, to)| (distance(point, to), other)).collect();
            near.sort_by(|a, b| a.0.total_cmp(&b.0));
            let same = near.iter().take(10).filter(|(_, other)| other / per_class == idx / per_class).count();
            assert!(same >= 9, "row {idx}: {same} of 10 neighbours are of its class");
        }
        let own: Vec<[f64; 2]> = (0..classes)
            .map(|class| {
                let of = &map.points[class * per_class..(class + 1) * per_class];
                [0, 1].map(|axis| of.iter().map(|point| point[axis]).sum::<f64>() / per_class as f64)
            })
            .collect();
        assert!(distance(&own[0], &own[1]) > 1.0);
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_divergence() {
        let num_rows = 13;
        let rows = clusters(2, 7, 5)[..num_rows * 5].to_vec();
        let affinities = Affinities::of(&rows, 5, num_rows, 4.0);
        let sum: f64 = affinities.values.iter().sum();
        assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        let start = line(num_rows);
        let layout = Layout {
            x: start.iter().map(|point| point[0] * 0.2).collect(),
            y: start.iter().map(|point| point[1] * 0.3).collect(),
        };
        let gradient = affinities.gradient(&layout, 1.0);
        let step = 1e-5;
        for (idx, slopes) in gradient.iter().enumerate() {
            for (axis, expected) in slopes.iter().enumerate() {
                let moved = |by: f64| {
                    let mut layout = layout.clone();
                    let list = if axis == 0 { &mut layout.x } else { &mut layout.y };
                    list[idx] += by;
                    affinities.divergence(&layout)
                };
                let slope = (moved(step) - moved(-step)) / (2.0 * step);
                assert!((slope - expected).abs() < 1e-8, "{idx} {axis}: {slope} {expected}");
            }
        }
    }

    #[test]
    fn each_row_has_the_perplexity_that_was_asked_for() {
        let mut row: Vec<f64> = (0..50).map(|idx| f64::from(idx) * 0.03).collect();
        conditional(&mut row, 4, 12.0);
        let entropy: f64 = row.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        assert!((entropy.exp() - 12.0).abs() < 1e-3 && row[4] == 0.0);
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        let rows = clusters(3, 20, 9);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| tsne(&rows, 9, &line(60)).unwrap())
        };
        assert_eq!(with(1), with(3));
    }

    #[test]
    fn odd_input_gives_a_map_or_none() {
        assert_eq!(tsne(&[0.0; 18], 2, &line(9)), None);
        assert_eq!(tsne(&[f32::NAN; 40], 2, &line(20)), None);
        let same = tsne(&[1.0; 40], 2, &[[0.0; 2]; 20]).unwrap();
        assert!(same.points.iter().flatten().all(|value| value.is_finite()));
    }
}
