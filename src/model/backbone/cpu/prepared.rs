//! Weights in the form a kernel wants them: packed or transformed, and kept while they stay the same. Both views of
//! a training step share one preparation, and so do all batches of an extraction.

use crate::kernels::scratch::Scratch;

/// The kernel of one convolution; the version changes whenever the values may have changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) version: u64,
}

/// How the weights were prepared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// Not at all.
    #[default]
    Unprepared,
    /// Packed for direct convolution.
    Packed,
    /// Transformed for tiles with this many frequencies.
    Transformed(usize),
}

/// Prepared weights of one layer in one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct PreparedWeights {
    form: Form,
    version: u64,
    memory: Scratch,
}

impl PreparedWeights {
    /// Keeps the memory only.
    pub(crate) fn forget(&mut self) {
        self.form = Form::Unprepared;
    }

    /// The prepared weights, `len` values; `prepare` makes them if they are not those of this version and form.
    pub(crate) fn get(&mut self, version: u64, form: Form, len: usize, prepare: impl FnOnce(&mut [f32])) -> &[f32] {
        let [values] = self.memory.parts([len]);
        if (self.form, self.version) != (form, version) {
            prepare(values);
            (self.form, self.version) = (form, version);
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepared_once_for_each_version_and_form() {
        let mut prepared = PreparedWeights::default();
        let mut count = 0;
        for (version, form, expected) in [
            (1, Form::Packed, 1.0),
            (1, Form::Packed, 1.0),
            (1, Form::Transformed(16), 2.0),
            (1, Form::Transformed(36), 3.0),
            (2, Form::Transformed(36), 4.0),
            (2, Form::Transformed(36), 4.0),
        ] {
            let values = prepared.get(version, form, 3, |values| {
                count += 1;
                values.fill(count as f32);
            });
            assert_eq!(values, [expected; 3]);
        }
    }
}
