//! Multinomial logistic regression on frozen embeddings.
//!
//! Minimises mean cross-entropy + l2 · ‖W‖² over W and b (b carries no penalty). scikit-learn's
//! `LogisticRegression` minimises Σ cross-entropy + ‖W‖² / (2 C), which is the same for C = 1 / (2 · n · l2).
//!
//! Everything is f64: the loss near its minimum changes by less than f32 can resolve, and a line search that
//! sees noise stops early. Embeddings stay f32 in memory; each block is widened and scaled as it is used,
//! and serves both the logits and the gradient while it is in the cache. Rows are split into groups whose
//! number depends only on the number of rows, and summed in order: the number of threads changes no bit.

use std::ops::ControlFlow;

use rayon::prelude::*;

use super::{
    eval_config::{FeatureScaling, LinearProbeConfig},
    eval_error::{EvalError, check_finite, check_labels, check_length},
    lbfgs::{self, Limits},
    linear_classifier::{LinearClassifier, l2_normalize_row, softmax},
    matmul::{add_matmul_tn, matmul_nt},
};

pub use super::lbfgs::{Progress, Stop};

/// Rows that are widened to f64 at a time.
const BLOCK: usize = 256;
/// Each group holds a gradient of its own.
const MAX_GROUPS: usize = 16;

/// A fitted probe and how the fit went.
#[derive(Clone, Debug)]
pub struct ProbeFit {
    /// In the space of raw embeddings: scaling is folded into the weights.
    pub classifier: LinearClassifier,
    /// Iterations, loss and gradient at the end.
    pub progress: Progress,
    /// Why it ended.
    pub stop: Stop,
}

/// Fits `features` [n, dim] to `labels` `[n]`. `observe` sees every iteration and may end the fit.
///
/// # Errors
/// Where there are no rows, lengths do not fit, a label names no class, a feature is not finite, or all
/// labels are the same.
pub fn fit_linear_probe(
    features: &[f32],
    labels: &[u32],
    dim: usize,
    num_classes: usize,
    config: &LinearProbeConfig,
    observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<ProbeFit, EvalError> {
    let problem = Problem::new(features, labels, dim, num_classes, config)?;
    Ok(problem.fit(&mut vec![0.0; num_classes * (dim + 1)], config.l2, observe))
}

/// Fits the same rows with several penalties, each from the weights of the one before it; `None` where `observe` ended
/// one of them. Penalties in descending order make this fast.
///
/// # Errors
/// As [`fit_linear_probe`].
pub(crate) fn fit_linear_probes(
    features: &[f32],
    labels: &[u32],
    dim: usize,
    num_classes: usize,
    config: &LinearProbeConfig,
    penalties: &[f64],
    observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Option<Vec<ProbeFit>>, EvalError> {
    let problem = Problem::new(features, labels, dim, num_classes, config)?;
    let mut parameters = vec![0.0; num_classes * (dim + 1)];
    let mut fits = vec![];
    for &l2 in penalties {
        let fit = problem.fit(&mut parameters, l2, observe);
        if fit.stop == Stop::Cancelled {
            return Ok(None);
        }
        fits.push(fit);
    }
    Ok(Some(fits))
}

/// Rows that were checked, and how they are scaled.
struct Problem<'a> {
    features: &'a [f32],
    labels: &'a [u32],
    dim: usize,
    num_classes: usize,
    limits: Limits,
    scaler: Scaler,
}

impl<'a> Problem<'a> {
    fn new(
        features: &'a [f32],
        labels: &'a [u32],
        dim: usize,
        num_classes: usize,
        config: &LinearProbeConfig,
    ) -> Result<Self, EvalError> {
        if labels.is_empty() || dim == 0 {
            return Err(EvalError::Empty { what: "the table of training features" });
        }
        check_length("the table of training features", labels.len() * dim, features.len())?;
        check_labels(labels, num_classes)?;
        check_finite("the table of training features", features, dim)?;
        if labels.iter().all(|&label| label == labels[0]) {
            return Err(EvalError::OneClass { class: labels[0].to_string() });
        }
        let limits = Limits { max_iter: config.max_iter, tolerance: config.tolerance };
        Ok(Self { features, labels, dim, num_classes, limits, scaler: Scaler::fit(features, dim, config.scaling) })
    }

    /// From `parameters`, which are left where the fit ended.
    fn fit(&self, parameters: &mut [f64], l2: f64, observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>) -> ProbeFit {
        let Self { features, labels, dim, num_classes, limits, ref scaler } = *self;
        let mut objective = Objective::new(features, labels, dim, num_classes, l2, scaler);
        let (progress, stop) =
            lbfgs::minimize(parameters, limits, &mut |x, gradient| objective.evaluate(x, gradient), observe);
        let (weight, bias) = parameters.split_at(num_classes * dim);
        ProbeFit { classifier: scaler.fold(weight, bias), progress, stop }
    }
}

/// How a raw embedding becomes the row that the weights see.
#[derive(Debug)]
enum Scaler {
    /// (x − mean) / std with the population's deviation, as scikit-learn's `StandardScaler`.
    Standardize {
        mean: Vec<f64>,
        std: Vec<f64>,
    },
    L2Normalize,
    None,
}

impl Scaler {
    fn fit(features: &[f32], dim: usize, scaling: FeatureScaling) -> Self {
        match scaling {
            FeatureScaling::L2Normalize => return Self::L2Normalize,
            FeatureScaling::None => return Self::None,
            FeatureScaling::Standardize => {}
        }
        let n = (features.len() / dim) as f64;
        let mut mean = vec![0.0; dim];
        for row in features.chunks_exact(dim) {
            mean.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        for sum in &mut mean {
            *sum /= n;
        }
        let mut std = vec![0.0; dim];
        for row in features.chunks_exact(dim) {
            for ((sum, &x), mean) in std.iter_mut().zip(row).zip(&mean) {
                *sum += (f64::from(x) - mean).powi(2);
            }
        }
        for (std, mean) in std.iter_mut().zip(&mean) {
            *std = (*std / n).sqrt();
            // A dimension that varies less than f32 resolves is constant: scaled up it would be noise.
            if *std <= f64::from(f32::EPSILON) * mean.abs() {
                *std = 1.0;
            }
        }
        Self::Standardize { mean, std }
    }

    fn apply(&self, row: &[f32], out: &mut [f64]) {
        match self {
            Self::Standardize { mean, std } => {
                for (((out, &x), mean), std) in out.iter_mut().zip(row).zip(mean).zip(std) {
                    *out = (f64::from(x) - mean) / std;
                }
            }
            Self::L2Normalize | Self::None => {
                out.iter_mut().zip(row).for_each(|(out, &x)| *out = f64::from(x));
                if matches!(self, Self::L2Normalize) {
                    l2_normalize_row(out);
                }
            }
        }
    }

    /// The same function of raw embeddings.
    fn fold(&self, weight: &[f64], bias: &[f64]) -> LinearClassifier {
        let dim = weight.len() / bias.len();
        let (mut weight, mut bias) = (weight.to_vec(), bias.to_vec());
        if let Self::Standardize { mean, std } = self {
            for (row, bias) in weight.chunks_exact_mut(dim).zip(&mut bias) {
                for ((w, mean), std) in row.iter_mut().zip(mean).zip(std) {
                    *w /= std;
                    *bias -= *w * mean;
                }
            }
        }
        LinearClassifier {
            weight: weight.into_iter().map(|w| w as f32).collect(),
            bias: bias.into_iter().map(|b| b as f32).collect(),
            dim,
            l2_normalize: matches!(self, Self::L2Normalize),
        }
    }
}

/// Mean cross-entropy + l2 · ‖W‖², with parameters W [num_classes, dim] and then b `[num_classes]`.
struct Objective<'a> {
    groups: Vec<Group<'a>>,
    num_rows: usize,
    dim: usize,
    num_classes: usize,
    l2: f64,
    scaler: &'a Scaler,
}

/// Consecutive rows and room for their part of the sums.
struct Group<'a> {
    features: &'a [f32],
    labels: &'a [u32],
    loss: f64,
    /// As the parameters.
    gradient: Vec<f64>,
    /// [BLOCK, dim]
    rows: Vec<f64>,
    /// [BLOCK, num_classes]
    logits: Vec<f64>,
}

impl<'a> Objective<'a> {
    fn new(
        features: &'a [f32],
        labels: &'a [u32],
        dim: usize,
        num_classes: usize,
        l2: f64,
        scaler: &'a Scaler,
    ) -> Self {
        let num_groups = labels.len().div_ceil(BLOCK).min(MAX_GROUPS);
        let group_len = labels.len().div_ceil(num_groups);
        let block = BLOCK.min(group_len);
        let groups = features
            .chunks(group_len * dim)
            .zip(labels.chunks(group_len))
            .map(|(features, labels)| Group {
                features,
                labels,
                loss: 0.0,
                gradient: vec![0.0; num_classes * (dim + 1)],
                rows: vec![0.0; block * dim],
                logits: vec![0.0; block * num_classes],
            })
            .collect();
        Self { groups, num_rows: labels.len(), dim, num_classes, l2, scaler }
    }

    fn evaluate(&mut self, parameters: &[f64], gradient: &mut [f64]) -> f64 {
        let (weight, bias) = parameters.split_at(self.num_classes * self.dim);
        let scaler = self.scaler;
        self.groups.par_iter_mut().for_each(|group| group.accumulate(weight, bias, scaler));

        let scale = 1.0 / self.num_rows as f64;
        let mut loss = 0.0;
        gradient.fill(0.0);
        for group in &self.groups {
            loss += group.loss;
            gradient.iter_mut().zip(&group.gradient).for_each(|(sum, part)| *sum += part);
        }
        for g in gradient.iter_mut() {
            *g *= scale;
        }
        for (g, w) in gradient.iter_mut().zip(weight) {
            *g += 2.0 * self.l2 * w;
        }
        loss * scale + self.l2 * weight.iter().map(|w| w * w).sum::<f64>()
    }
}

impl Group<'_> {
    fn accumulate(&mut self, weight: &[f64], bias: &[f64], scaler: &Scaler) {
        let c = bias.len();
        let dim = weight.len() / c;
        self.loss = 0.0;
        self.gradient.fill(0.0);
        let (weight_gradient, bias_gradient) = self.gradient.split_at_mut(c * dim);
        for (features, labels) in self.features.chunks(BLOCK * dim).zip(self.labels.chunks(BLOCK)) {
            let rows = &mut self.rows[..features.len()];
            for (row, out) in features.chunks_exact(dim).zip(rows.chunks_exact_mut(dim)) {
                scaler.apply(row, out);
            }
            let logits = &mut self.logits[..labels.len() * c];
            matmul_nt(logits, rows, weight, (labels.len(), c, dim));
            for (row, &label) in logits.chunks_exact_mut(c).zip(labels) {
                row.iter_mut().zip(bias).for_each(|(logit, bias)| *logit += bias);
                let logit = row[label as usize];
                self.loss += softmax(row) - logit;
                // The logits' gradient: probabilities − one-hot label.
                row[label as usize] -= 1.0;
                bias_gradient.iter_mut().zip(&*row).for_each(|(sum, g)| *sum += g);
            }
            add_matmul_tn(weight_gradient, logits, rows, (c, dim, labels.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::eval::metrics::predicted_classes;

    #[derive(Deserialize)]
    struct Golden {
        dim: usize,
        num_classes: usize,
        train: Vec<f32>,
        labels: Vec<u32>,
        test: Vec<f32>,
        test_labels: Vec<u32>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        scaling: FeatureScaling,
        l2: f64,
        weight: Vec<f64>,
        bias: Vec<f64>,
        probabilities: Vec<f64>,
        accuracy: f64,
    }

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../tests/golden/eval/linear_probe.json")).unwrap()
    }

    fn fit(golden: &Golden, config: &LinearProbeConfig) -> ProbeFit {
        let observe = &mut |_: &Progress| ControlFlow::Continue(());
        fit_linear_probe(&golden.train, &golden.labels, golden.dim, golden.num_classes, config, observe).unwrap()
    }

    #[track_caller]
    fn close(ours: impl IntoIterator<Item = f64>, theirs: &[f64], tolerance: f64) {
        let ours: Vec<f64> = ours.into_iter().collect();
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            let error = (ours - theirs).abs() / theirs.abs().max(1.0);
            assert!(error < tolerance, "{ours} is not {theirs}");
        }
    }

    #[test]
    fn coefficients_equal_scikit_learn() {
        let golden = golden();
        assert_eq!(golden.cases.len(), 6);
        for case in &golden.cases {
            let config = LinearProbeConfig {
                max_iter: 5_000,
                l2: case.l2,
                tolerance: 1e-9,
                scaling: case.scaling,
                label_fraction: 1.0,
                cross_validation: None,
                sgd: None,
            };
            let ProbeFit { classifier, stop, .. } = fit(&golden, &config);
            assert!(matches!(stop, Stop::Converged | Stop::Stalled), "{stop:?}");
            close(classifier.weight.iter().map(|&w| w.into()), &case.weight, 1e-4);
            close(classifier.bias.iter().map(|&b| b.into()), &case.bias, 1e-4);
            let probabilities = classifier.probabilities(&golden.test).unwrap();
            close(probabilities.iter().copied(), &case.probabilities, 1e-5);
            let right = predicted_classes(&probabilities, golden.num_classes);
            let right = right.iter().zip(&golden.test_labels).filter(|(ours, label)| ours == label).count();
            assert_eq!(right as f64 / golden.test_labels.len() as f64, case.accuracy);
        }
    }

    #[test]
    fn default_settings_come_within_a_fifth_of_a_point() {
        let golden = golden();
        let fit = fit(&golden, &LinearProbeConfig::default());
        assert_eq!(fit.stop, Stop::Converged);
        let predicted = predicted_classes(&fit.classifier.probabilities(&golden.test).unwrap(), golden.num_classes);
        let right = predicted.iter().zip(&golden.test_labels).filter(|(ours, label)| ours == label).count();
        let accuracy = right as f64 / golden.test_labels.len() as f64;
        assert!((accuracy - golden.cases[0].accuracy).abs() <= 0.002, "{accuracy} {}", golden.cases[0].accuracy);
    }

    #[test]
    fn gradient_agrees_with_finite_differences() {
        let golden = golden();
        let scaler = Scaler::fit(&golden.train, golden.dim, FeatureScaling::Standardize);
        let mut objective =
            Objective::new(&golden.train, &golden.labels, golden.dim, golden.num_classes, 0.03, &scaler);
        let mut x: Vec<f64> = (0..44).map(|idx| f64::from(idx * 37 % 11) / 11.0 - 0.4).collect();
        let (mut gradient, mut scratch) = (vec![0.0; 44], vec![0.0; 44]);
        objective.evaluate(&x, &mut gradient);
        for idx in 0..44 {
            let (middle, h) = (x[idx], 1e-6);
            x[idx] = middle + h;
            let above = objective.evaluate(&x, &mut scratch);
            x[idx] = middle - h;
            let below = objective.evaluate(&x, &mut scratch);
            x[idx] = middle;
            let numeric = (above - below) / (2.0 * h);
            assert!((numeric - gradient[idx]).abs() < 1e-7, "{idx}: {numeric} is not {}", gradient[idx]);
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let dim = 8;
        let features: Vec<f32> = (0..5_000 * dim as u64).map(|i| (i * 2_654_435_761 % 1009) as f32 / 500.0).collect();
        let labels: Vec<u32> = (0..5_000).map(|i| i * 31 % 5).collect();
        let config = LinearProbeConfig { max_iter: 15, ..LinearProbeConfig::default() };
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let observe = &mut |_: &Progress| ControlFlow::Continue(());
            pool.install(|| fit_linear_probe(&features, &labels, dim, 5, &config, observe).unwrap().classifier)
        };
        assert_eq!(with(1), with(3));
    }

    #[test]
    fn constant_dimensions_do_no_harm() {
        // Dimension 1 is constant up to the last bit of f32.
        let features: Vec<f32> = (0..40_u8)
            .flat_map(|i| [f32::from(i % 2), f32::from_bits(0.1_f32.to_bits() + u32::from(i == 7))])
            .collect();
        let labels: Vec<u32> = (0..40).map(|i| i % 2).collect();
        let observe = &mut |_: &Progress| ControlFlow::Continue(());
        let fit = fit_linear_probe(&features, &labels, 2, 2, &LinearProbeConfig::default(), observe).unwrap();
        assert!(fit.classifier.weight[1].abs() < 1e-3 * fit.classifier.weight[0].abs(), "{fit:?}");
    }

    #[test]
    fn labels_of_one_class_are_refused() {
        let observe = &mut |_: &Progress| ControlFlow::Continue(());
        let fit = fit_linear_probe(&[1.0, 2.0], &[1, 1], 1, 3, &LinearProbeConfig::default(), observe);
        assert!(matches!(fit, Err(EvalError::OneClass { class }) if class == "1"));
    }
}
