//! The state of the network under torchvision's names and in PyTorch's shapes.

use std::collections::BTreeMap;

use super::backbone_error::BackboneError;
use super::parameters::{Parameters, to_internal, to_torch};
use super::program::Program;
use crate::model::state::{StateData, StateEntry};

const MEAN: &str = "running_mean";
const VARIANCE: &str = "running_var";
const COUNT: &str = "num_batches_tracked";

/// The whole state in the order of torchvision.
pub(super) fn state_dict(program: &Program, parameters: &Parameters) -> Vec<StateEntry> {
    let mut entries = Vec::with_capacity(program.parameters.len() * 2);
    let mut norms = program.norms.iter().zip(&parameters.running);
    for spec in &program.parameters {
        let mut values = vec![0.0; spec.len];
        to_torch(&spec.shape, &parameters.values()[spec.offset..][..spec.len], &mut values);
        entries.push(StateEntry { name: spec.name.clone(), shape: spec.shape.clone(), data: StateData::F32(values) });
        // A batch norm's buffers follow its bias; convolutions have none.
        if !spec.name.ends_with("bias") {
            continue;
        }
        if let Some((norm, running)) = norms.next() {
            let mut buffer = |name: &str, shape: Vec<usize>, data: StateData| {
                entries.push(StateEntry { name: format!("{}.{name}", norm.name), shape, data });
            };
            buffer(MEAN, vec![norm.channels], StateData::F32(running.mean.clone()));
            buffer(VARIANCE, vec![norm.channels], StateData::F32(running.variance.clone()));
            buffer(COUNT, Vec::new(), StateData::I64(vec![running.num_batches_tracked]));
        }
    }
    entries
}

/// Takes over a whole state, or nothing of it.
pub(super) fn load_state_dict(
    backbone: &'static str,
    program: &Program,
    parameters: &mut Parameters,
    entries: &[StateEntry],
) -> Result<(), BackboneError> {
    let found = check(backbone, &state_dict(program, parameters), entries)?;
    let (target, _) = parameters.change();
    for spec in &program.parameters {
        if let Some(StateData::F32(values)) = found.get(spec.name.as_str()) {
            to_internal(&spec.shape, values, &mut target[spec.offset..][..spec.len]);
        }
    }
    for (norm, running) in program.norms.iter().zip(&mut parameters.running) {
        let get = |name: &str| found.get(format!("{}.{name}", norm.name).as_str()).copied();
        if let Some(StateData::F32(values)) = get(MEAN) {
            running.mean.clone_from(values);
        }
        if let Some(StateData::F32(values)) = get(VARIANCE) {
            running.variance.clone_from(values);
        }
        if let Some(StateData::I64(values)) = get(COUNT) {
            running.num_batches_tracked = values[0];
        }
    }
    Ok(())
}

/// Compares names, types, shapes and values with what the network expects; returns the tensors by name.
fn check<'a>(
    backbone: &'static str,
    expected: &[StateEntry],
    entries: &'a [StateEntry],
) -> Result<BTreeMap<&'a str, &'a StateData>, BackboneError> {
    let expected: BTreeMap<&str, &StateEntry> = expected.iter().map(|e| (e.name.as_str(), e)).collect();
    let mut found = BTreeMap::new();
    let (mut unexpected, mut wrong_shape) = (Vec::new(), Vec::new());
    for entry in entries {
        let Some(wanted) = expected.get(entry.name.as_str()) else {
            unexpected.push(format!("`{}`", entry.name));
            continue;
        };
        if found.insert(entry.name.as_str(), &entry.data).is_some() {
            unexpected.push(format!("`{}` twice", entry.name));
        }
        let fits = entry.shape == wanted.shape && entry.data.len() == wanted.data.len();
        if !fits || !entry.data.same_type(&wanted.data) {
            let (is, should) = (entry.data.describe(&entry.shape), wanted.data.describe(&wanted.shape));
            wrong_shape.push(format!("`{}` ({is} instead of {should})", entry.name));
        }
    }
    let missing: Vec<String> =
        expected.keys().filter(|name| !found.contains_key(*name)).map(|name| format!("`{name}`")).collect();
    if !(missing.is_empty() && unexpected.is_empty() && wrong_shape.is_empty()) {
        return Err(BackboneError::StateMismatch { backbone, missing, unexpected, wrong_shape });
    }
    for entry in entries {
        let usable = match &entry.data {
            StateData::F32(values) => {
                let at_least = if entry.name.ends_with(VARIANCE) { 0.0 } else { f32::MIN };
                values.iter().all(|v| v.is_finite() && *v >= at_least)
            }
            StateData::I64(values) => values.iter().all(|v| *v >= 0),
        };
        if !usable {
            return Err(BackboneError::UnusableValue { name: entry.name.clone() });
        }
    }
    Ok(found)
}
