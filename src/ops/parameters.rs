//! Trained values of an MLP and their gradients, each in one flat buffer.
//!
//! dfdx would keep a tensor and, at every step, a new gradient for each matrix. Here both live as long as the
//! network: no step allocates them, zeroes them, or reads a gradient before it is first written.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The trained tensors of an MLP.
///
/// Backward operations hold the values and the gradients for as long as their tape lives.
#[derive(Debug, Default)]
pub struct Parameters {
    name: &'static str,
    values: Arc<Vec<f32>>,
    gradients: Arc<Mutex<Gradients>>,
}

#[derive(Clone, Debug, Default)]
struct Gradients {
    values: Vec<f32>,
    /// By tensor: whether the gradient holds anything of this step.
    written: Vec<bool>,
    ranges: Vec<Range<usize>>,
}

impl Gradients {
    /// Unwritten gradients become zeros.
    fn complete(&mut self) {
        for (range, written) in self.ranges.iter().zip(&mut self.written) {
            if !std::mem::replace(written, true) {
                self.values[range.clone()].fill(0.0);
            }
        }
    }
}

/// One tensor of [`Parameters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorId(usize);

impl Clone for Parameters {
    /// The copy shares nothing.
    fn clone(&self) -> Self {
        let gradients = lock(&self.gradients).clone();
        Self { name: self.name, values: Arc::new(self.values.to_vec()), gradients: Arc::new(Mutex::new(gradients)) }
    }
}

impl Parameters {
    /// No tensors yet, of an MLP of this name.
    pub fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    /// The name of the MLP.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Adds a tensor with these values.
    pub fn push(&mut self, values: &[f32]) -> TensorId {
        let all = Arc::make_mut(&mut self.values);
        let range = all.len()..all.len() + values.len();
        all.extend_from_slice(values);
        let mut gradients = lock(&self.gradients);
        gradients.values.resize(range.end, 0.0);
        gradients.written.push(false);
        gradients.ranges.push(range);
        TensorId(gradients.ranges.len() - 1)
    }

    /// Where a tensor lies in the flat buffers.
    pub fn range(&self, tensor: TensorId) -> Range<usize> {
        lock(&self.gradients).ranges[tensor.0].clone()
    }

    /// All values, flat.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values of one tensor.
    pub fn get(&self, tensor: TensorId) -> &[f32] {
        &self.values[self.range(tensor)]
    }

    /// The values of one tensor, to be changed. While a tape lives, this copies everything: the tape keeps its own.
    pub fn get_mut(&mut self, tensor: TensorId) -> &mut [f32] {
        let range = self.range(tensor);
        &mut Arc::make_mut(&mut self.values)[range]
    }

    /// A tensor that a backward operation can hold.
    pub(super) fn tensor(&self, tensor: TensorId) -> Tensor {
        let range = self.range(tensor);
        Tensor { id: tensor, range, values: Arc::clone(&self.values), gradients: Arc::clone(&self.gradients) }
    }

    /// Forgets the gradients.
    pub fn zero_gradients(&mut self) {
        lock(&self.gradients).written.fill(false);
    }

    /// Calls `f` with values and gradients, for the optimiser.
    pub fn update(&mut self, f: impl FnOnce(&mut [f32], &[f32])) {
        let mut gradients = lock(&self.gradients);
        gradients.complete();
        let values: &mut Vec<f32> = Arc::make_mut(&mut self.values);
        f(values, &gradients.values);
    }

    /// The gradients of [`Self::values`].
    pub fn gradients(&self) -> Vec<f32> {
        let mut gradients = lock(&self.gradients);
        gradients.complete();
        gradients.values.clone()
    }
}

/// One tensor, its values shared, its gradient shared with everybody.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    id: TensorId,
    range: Range<usize>,
    values: Arc<Vec<f32>>,
    gradients: Arc<Mutex<Gradients>>,
}

impl Tensor {
    /// The values.
    pub(super) fn values(&self) -> &[f32] {
        &self.values[self.range.clone()]
    }

    /// Calls `f` with the gradient and whether something is in it, which must then be added to.
    pub(super) fn with_gradient(&self, f: impl FnOnce(&mut [f32], bool)) {
        let mut gradients = lock(&self.gradients);
        let written = std::mem::replace(&mut gradients.written[self.id.0], true);
        f(&mut gradients.values[self.range.clone()], written);
    }

    /// Writes or adds these values.
    pub(super) fn add_gradient(&self, values: &[f32]) {
        self.with_gradient(|gradient, written| {
            if written {
                gradient.iter_mut().zip(values).for_each(|(gradient, value)| *gradient += value);
            } else {
                gradient.copy_from_slice(values);
            }
        });
    }
}

/// Nobody panics while holding it; where somebody did, the numbers are those of an unfinished step all the same.
fn lock(gradients: &Mutex<Gradients>) -> MutexGuard<'_, Gradients> {
    gradients.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_written_first_and_added_to_later() {
        let mut parameters = Parameters::new("head");
        let (a, b) = (parameters.push(&[1.0, 2.0]), parameters.push(&[3.0]));
        assert_eq!((parameters.get(b), parameters.range(b)), (&[3.0][..], 2..3));
        parameters.tensor(a).add_gradient(&[5.0, 6.0]);
        parameters.tensor(a).add_gradient(&[1.0, 1.0]);
        assert_eq!(parameters.gradients(), [6.0, 7.0, 0.0]);
        parameters.zero_gradients();
        parameters.tensor(b).add_gradient(&[4.0]);
        parameters.update(|values, gradients| {
            assert_eq!(gradients, [0.0, 0.0, 4.0]);
            values[2] = 0.5;
        });
        assert_eq!(parameters.values(), [1.0, 2.0, 0.5]);
    }

    #[test]
    fn what_a_tape_holds_does_not_change() {
        let mut parameters = Parameters::new("head");
        let a = parameters.push(&[1.0]);
        let held = parameters.tensor(a);
        parameters.get_mut(a)[0] = 2.0;
        assert_eq!((held.values(), parameters.get(a)), (&[1.0][..], &[2.0][..]));
        let copy = parameters.clone();
        copy.tensor(a).add_gradient(&[9.0]);
        assert_eq!(parameters.gradients(), [0.0]);
    }
}
