//! L-BFGS with a line search for the strong Wolfe conditions (Nocedal & Wright, *Numerical Optimization*,
//! second edition, algorithms 7.4, 3.5 and 3.6).

use std::{collections::VecDeque, ops::ControlFlow};

/// Pairs of steps and gradient changes that stand for the curvature.
const HISTORY: usize = 10;
/// Sufficient decrease and curvature, the book's values for quasi-Newton methods.
const C1: f64 = 1e-4;
const C2: f64 = 0.9;
const MAX_LINE_SEARCH: usize = 40;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most iterations.
    pub(crate) max_iter: u32,
    /// No component of the gradient is larger.
    pub(crate) tolerance: f64,
}

/// Where the minimiser stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Iterations done.
    pub iterations: u32,
    /// Value of the objective.
    pub loss: f64,
    /// Largest component of the gradient.
    pub gradient_max: f64,
}

/// Why the minimiser stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The gradient is within the tolerance.
    Converged,
    /// `max_iter` iterations are done.
    MaxIter,
    /// Rounding hides any further decrease.
    Stalled,
    /// The observer said so.
    Cancelled,
}

/// Minimises `objective` (fills the gradient, returns the value) in place, from `x`.
pub(crate) fn minimize(
    x: &mut [f64],
    limits: Limits,
    objective: &mut dyn FnMut(&[f64], &mut [f64]) -> f64,
    observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> (Progress, Stop) {
    let mut gradient = vec![0.0; x.len()];
    let mut loss = objective(x, &mut gradient);
    let mut history: VecDeque<Pair> = VecDeque::with_capacity(HISTORY);
    let mut iterations = 0;
    loop {
        let progress = Progress { iterations, loss, gradient_max: max_abs(&gradient) };
        if observe(&progress).is_break() {
            return (progress, Stop::Cancelled);
        }
        if progress.gradient_max <= limits.tolerance {
            return (progress, Stop::Converged);
        }
        if iterations >= limits.max_iter {
            return (progress, Stop::MaxIter);
        }

        let mut direction = direction(&gradient, &history);
        let mut slope = dot(&gradient, &direction);
        if slope >= 0.0 {
            // Rounding has spoiled the curvature: begin again with the steepest descent.
            history.clear();
            direction = gradient.iter().map(|g| -g).collect();
            slope = -dot(&gradient, &gradient);
        }
        let first_step =
            if history.is_empty() { (1.0 / gradient.iter().map(|g| g.abs()).sum::<f64>()).min(1.0) } else { 1.0 };
        let Some(found) = line_search(x, loss, slope, &direction, first_step, objective) else {
            if history.is_empty() {
                return (progress, Stop::Stalled);
            }
            history.clear();
            continue;
        };

        let step: Vec<f64> = direction.iter().map(|d| found.step * d).collect();
        let change: Vec<f64> = found.gradient.iter().zip(&gradient).map(|(new, old)| new - old).collect();
        let curvature = dot(&step, &change);
        if curvature > f64::EPSILON * dot(&change, &change) {
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back(Pair { step, change, curvature });
        }
        for (x, d) in x.iter_mut().zip(&direction) {
            *x += found.step * d;
        }
        (loss, gradient) = (found.loss, found.gradient);
        iterations += 1;
    }
}

/// A step and how it changed the gradient.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    /// step · change
    curvature: f64,
}

/// −H · gradient by the two-loop recursion.
fn direction(gradient: &[f64], history: &VecDeque<Pair>) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(history.len());
    for pair in history.iter().rev() {
        let alpha = dot(&pair.step, &q) / pair.curvature;
        add_scaled(&mut q, -alpha, &pair.change);
        alphas.push(alpha);
    }
    if let Some(newest) = history.back() {
        let scale = newest.curvature / dot(&newest.change, &newest.change);
        for q in &mut q {
            *q *= scale;
        }
    }
    for (pair, alpha) in history.iter().zip(alphas.into_iter().rev()) {
        let beta = dot(&pair.change, &q) / pair.curvature;
        add_scaled(&mut q, alpha - beta, &pair.step);
    }
    q
}

/// A point on the line.
#[derive(Clone)]
struct Trial {
    step: f64,
    loss: f64,
    slope: f64,
    gradient: Vec<f64>,
}

/// A step that satisfies the strong Wolfe conditions, or failing that one that decreases the objective.
fn line_search(
    x: &[f64],
    loss: f64,
    slope: f64,
    direction: &[f64],
    first_step: f64,
    objective: &mut dyn FnMut(&[f64], &mut [f64]) -> f64,
) -> Option<Trial> {
    let mut point = vec![0.0; x.len()];
    let mut evaluate = |step: f64| {
        for ((point, x), d) in point.iter_mut().zip(x).zip(direction) {
            *point = x + step * d;
        }
        let mut gradient = vec![0.0; x.len()];
        let loss = objective(&point, &mut gradient);
        let slope = dot(&gradient, direction);
        // A step so long that the objective overflows is one that went too far.
        let (loss, slope) = if loss.is_finite() && slope.is_finite() { (loss, slope) } else { (f64::INFINITY, 0.0) };
        Trial { step, loss, slope, gradient }
    };
    // Near the minimum the decrease drowns in the rounding of the loss.
    let slack = 4.0 * f64::EPSILON * loss.abs();
    let decreases = |trial: &Trial| trial.loss <= loss + C1 * trial.step * slope + slack;
    let is_flat = |trial: &Trial| trial.slope.abs() <= -C2 * slope;

    let mut previous = Trial { step: 0.0, loss, slope, gradient: vec![] };
    let mut step = first_step;
    let (mut low, mut high) = 'bracket: {
        for attempt in 0..MAX_LINE_SEARCH {
            let trial = evaluate(step);
            if !decreases(&trial) || (attempt > 0 && trial.loss >= previous.loss + slack) {
                break 'bracket (previous, trial);
            }
            if is_flat(&trial) {
                return Some(trial);
            }
            if trial.slope >= 0.0 {
                break 'bracket (trial, previous);
            }
            step *= 2.0;
            previous = trial;
        }
        // The objective falls as far as we looked: take the longest step.
        return (previous.step > 0.0).then_some(previous);
    };
    for _ in 0..MAX_LINE_SEARCH {
        let trial = evaluate(between(&low, &high));
        if !decreases(&trial) || trial.loss >= low.loss + slack {
            high = trial;
        } else {
            if is_flat(&trial) {
                return Some(trial);
            }
            if trial.slope * (high.step - low.step) >= 0.0 {
                high = low;
            }
            low = trial;
        }
        if (high.step - low.step).abs() <= f64::EPSILON * low.step.abs().max(f64::MIN_POSITIVE) {
            break;
        }
    }
    (low.step > 0.0 && low.loss < loss).then_some(low)
}

/// Minimiser of the cubic through two trials (equation 3.59), kept off the ends of the interval.
fn between(low: &Trial, high: &Trial) -> f64 {
    let width = high.step - low.step;
    let middle = low.step + 0.5 * width;
    if !high.loss.is_finite() {
        return middle;
    }
    let d1 = low.slope + high.slope - 3.0 * (low.loss - high.loss) / (low.step - high.step);
    let square = d1 * d1 - low.slope * high.slope;
    if square < 0.0 {
        return middle;
    }
    let d2 = width.signum() * square.sqrt();
    let step = high.step - width * (high.slope + d2 - d1) / (high.slope - low.slope + 2.0 * d2);
    let share = (step - low.step) / width;
    if share.is_finite() { low.step + share.clamp(0.1, 0.9) * width } else { middle }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add_scaled(a: &mut [f64], scale: f64, b: &[f64]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += scale * b);
}

fn max_abs(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |max, value| max.max(value.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(x: &mut [f64], limits: Limits, objective: &mut dyn FnMut(&[f64], &mut [f64]) -> f64) -> (Progress, Stop) {
        minimize(x, limits, objective, &mut |_| ControlFlow::Continue(()))
    }

    /// Σ 100 (x₂ᵢ − x₁ᵢ²)² + (1 − x₁ᵢ)²: a curved valley with its minimum at 1.
    fn rosenbrock(x: &[f64], gradient: &mut [f64]) -> f64 {
        let mut loss = 0.0;
        for (x, g) in x.chunks_exact(2).zip(gradient.chunks_exact_mut(2)) {
            let (a, b) = (x[1] - x[0] * x[0], 1.0 - x[0]);
            loss += 100.0 * a * a + b * b;
            g[0] = -400.0 * a * x[0] - 2.0 * b;
            g[1] = 200.0 * a;
        }
        loss
    }

    #[test]
    fn finds_the_end_of_a_curved_valley() {
        let mut x = [-1.2, 1.0, 0.0, 3.0, 2.0, -2.0];
        let (progress, stop) = run(&mut x, Limits { max_iter: 200, tolerance: 1e-9 }, &mut rosenbrock);
        assert_eq!(stop, Stop::Converged);
        assert!(progress.iterations < 100, "{progress:?}");
        assert!(x.iter().all(|x| (x - 1.0).abs() < 1e-8), "{x:?}");
    }

    #[test]
    fn badly_scaled_quadratic_converges() {
        let mut x = [1.0; 12];
        let mut quadratic = |x: &[f64], gradient: &mut [f64]| {
            let mut loss = 0.0;
            for (idx, (x, g)) in x.iter().zip(gradient).enumerate() {
                let scale = 10_f64.powi(idx as i32 % 6 - 3);
                loss += 0.5 * scale * (x - 3.0).powi(2);
                *g = scale * (x - 3.0);
            }
            loss
        };
        let (_, stop) = run(&mut x, Limits { max_iter: 300, tolerance: 1e-10 }, &mut quadratic);
        assert_eq!(stop, Stop::Converged);
        assert!(x.iter().all(|x| (x - 3.0).abs() < 1e-6), "{x:?}");
    }

    #[test]
    fn stops_when_told() {
        let limits = Limits { max_iter: 3, tolerance: 1e-9 };
        assert_eq!(run(&mut [-1.2, 1.0], limits, &mut rosenbrock).1, Stop::MaxIter);
        let mut stop_at_two = |progress: &Progress| {
            if progress.iterations == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let (progress, stop) =
            minimize(&mut [-1.2, 1.0], Limits { max_iter: 9, tolerance: 0.0 }, &mut rosenbrock, &mut stop_at_two);
        assert_eq!((progress.iterations, stop), (2, Stop::Cancelled));
    }

    #[test]
    fn no_tolerance_at_all_stalls_at_the_minimum() {
        let mut x = [-1.2, 1.0];
        let (progress, stop) = run(&mut x, Limits { max_iter: 100_000, tolerance: 0.0 }, &mut rosenbrock);
        assert!(stop != Stop::MaxIter, "{stop:?} after {progress:?}");
        assert!((x[0] - 1.0).abs() < 1e-7, "{x:?}");
    }

    #[test]
    fn steps_into_overflow_are_taken_back() {
        // exp grows out of range for steps that are a little too long.
        let mut steep = |x: &[f64], gradient: &mut [f64]| {
            let (up, down) = ((300.0 * x[0]).exp(), (-300.0 * x[0]).exp());
            gradient[0] = 300.0 * (up - down);
            up + down
        };
        let mut x = [0.9];
        let (_, stop) = run(&mut x, Limits { max_iter: 500, tolerance: 1e-3 }, &mut steep);
        assert!(matches!(stop, Stop::Converged | Stop::Stalled), "{stop:?}");
        assert!(x[0].abs() < 1e-6, "{x:?}");
    }
}
