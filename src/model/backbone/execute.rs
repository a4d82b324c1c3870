//! Walks the program: forward in training and at inference, and backward.

use super::layers::{Dims, conv_bn};
use super::op::{Op, Residual, Slot};
use super::parameters::Parameters;
use super::program::{IMAGES, Program};
use super::workspace::{Pass, SharedSlots, Workspace};
use crate::profile::{Work, enter_layer, span};

/// Forward with the batch statistics of each view, `n` images each; leaves everything in `pass`. The first `frozen`
/// operations go by running statistics, which stay as they are. Returns the features.
pub(super) fn forward_train(
    program: &Program,
    parameters: &mut Parameters,
    pass: &mut Pass,
    views: &[&[f32]],
    n: usize,
    frozen: usize,
    workspace: &mut Workspace,
) -> Vec<f32> {
    let mut buffer = pass.slots.take(IMAGES.0);
    let mut rest = &mut buffer[..];
    for images in views {
        let (target, other) = rest.split_at_mut(images.len());
        target.copy_from_slice(images);
        rest = other;
    }
    pass.slots.put(IMAGES.0, buffer);
    let n = views.len() * n;
    for (idx, op) in program.ops.iter().enumerate() {
        enter_layer(program.layer_name(op));
        let output = op.output();
        let mut buffer = pass.slots.take(output.0);
        let len = |slot: Slot| n * pass.dims[slot.0].len();
        let read = |slot: Slot| pass.slots.get(slot.0, len(slot));
        let out = &mut buffer[..len(output)];
        match op {
            Op::ConvBn { layer, input, residual, relu, .. } if idx < frozen => {
                let (scratch, prepared) = workspace.passing();
                let shape = layer.shape(n, pass.dims[input.0], pass.dims[output.0]);
                let (weight, bn) = (parameters.weight(program, layer), parameters.bn(program, layer));
                let running = &parameters.running[layer.norm];
                let residual = residual.map(read);
                conv_bn::forward_eval(
                    &shape,
                    weight,
                    bn,
                    running,
                    read(*input),
                    residual,
                    *relu,
                    out,
                    prepared,
                    scratch,
                );
            }
            Op::ConvBn { layer, input, residual, relu, .. } => {
                let mut conv_output = pass.conv_outputs.take(idx);
                // Taken so that parameters can be read beside it.
                let mut running = parameters.running[layer.norm].clone();
                let mut buffers = conv_bn::TrainBuffers {
                    conv_output: &mut conv_output[..len(output)],
                    output: out,
                    statistics: &mut pass.statistics[idx],
                    running: &mut running,
                };
                let (scratch, prepared) = workspace.passing();
                let shape = layer.shape(n, pass.dims[input.0], pass.dims[output.0]);
                let (weight, bn) = (parameters.weight(program, layer), parameters.bn(program, layer));
                conv_bn::forward_train(
                    &shape,
                    weight,
                    bn,
                    read(*input),
                    residual.map(read),
                    *relu,
                    &mut buffers,
                    prepared,
                    scratch,
                );
                parameters.running[layer.norm] = running;
                pass.conv_outputs.put(idx, conv_output);
            }
            Op::MaxPool { layer, input, .. } => {
                span(Work::Pool, 0.0, || layer.forward(pass.dims[input.0], pass.dims[output.0], read(*input), out));
            }
            Op::GlobalPool { layer, input, .. } => {
                span(Work::Pool, 0.0, || layer.forward(pass.dims[input.0], read(*input), out));
            }
        }
        pass.slots.put(output.0, buffer);
    }
    pass.n = n;
    pass.slots.get(program.output.0, n * program.feature_dim).to_vec()
}

/// Forward with running statistics; keeps nothing. Returns the features.
#[allow(clippy::too_many_arguments, reason = "what it reads and where it works")]
pub(super) fn forward_eval(
    program: &Program,
    parameters: &Parameters,
    slots: &mut SharedSlots,
    dims: &[Dims],
    images: &[f32],
    n: usize,
    workspace: &mut Workspace,
) -> Vec<f32> {
    for (idx, op) in program.ops.iter().enumerate() {
        enter_layer(program.layer_name(op));
        let output = op.output();
        let mut buffer = slots.take(output.0);
        let read = |slot: Slot| if slot == IMAGES { images } else { slots.get(slot.0) };
        let out = &mut buffer[..slots.len(output.0)];
        match op {
            Op::ConvBn { layer, input, residual, relu, .. } => {
                let (scratch, prepared) = workspace.kept(idx);
                let shape = layer.shape(n, dims[input.0], dims[output.0]);
                let (weight, bn) = (parameters.weight(program, layer), parameters.bn(program, layer));
                let running = &parameters.running[layer.norm];
                let residual = residual.map(read);
                conv_bn::forward_eval(
                    &shape,
                    weight,
                    bn,
                    running,
                    read(*input),
                    residual,
                    *relu,
                    out,
                    prepared,
                    scratch,
                );
            }
            Op::MaxPool { layer, input, .. } => {
                span(Work::Pool, 0.0, || layer.forward(dims[input.0], dims[output.0], read(*input), out));
            }
            Op::GlobalPool { layer, input, .. } => {
                span(Work::Pool, 0.0, || layer.forward(dims[input.0], read(*input), out));
            }
        }
        slots.put(output.0, buffer);
    }
    slots.get(program.output.0).to_vec()
}

/// Backward through what `pass` kept, down to the first operation that is not frozen; adds to the gradients of the
/// parameters if there are any.
pub(super) fn backward(
    program: &Program,
    parameters: &mut Parameters,
    pass: &mut Pass,
    gradients: &mut SharedSlots,
    grad_features: &[f32],
    frozen: usize,
    workspace: &mut Workspace,
) {
    let n = std::mem::take(&mut pass.n);
    let accumulate = parameters.begin_gradients();
    let pass = &*pass;
    let read = |slot: Slot| pass.slots.get(slot.0, n * pass.dims[slot.0].len());
    let mut written = vec![false; program.num_slots];
    let mut buffer = gradients.take(program.output.0);
    buffer[..grad_features.len()].copy_from_slice(grad_features);
    gradients.put(program.output.0, buffer);

    for (idx, op) in program.ops.iter().enumerate().skip(frozen).rev() {
        enter_layer(program.layer_name(op));
        let output = op.output();
        let mut d_output = gradients.take(output.0);
        let d = &mut d_output[..n * pass.dims[output.0].len()];
        match op {
            Op::ConvBn { layer, input, residual, relu, .. } => {
                let kept = conv_bn::Kept {
                    conv_output: pass.conv_outputs.get(idx, d.len()),
                    output: read(output),
                    statistics: &pass.statistics[idx],
                };
                let (scratch, prepared) = workspace.passing();
                let shape = layer.shape(n, pass.dims[input.0], pass.dims[output.0]);
                let (weight, mut grads) = parameters.weight_and_gradients(program, layer, accumulate);
                with_residual_gradient(gradients, &mut written, *residual, |residual| {
                    conv_bn::backward_norm(&kept, *relu, residual, d, &mut grads);
                });
                with_gradient(gradients, &mut written, *input, |d_input| {
                    conv_bn::backward_conv(
                        &shape,
                        weight,
                        read(*input),
                        d,
                        (&mut *grads.weight, accumulate),
                        d_input,
                        prepared,
                        scratch,
                    );
                });
            }
            Op::MaxPool { layer, input, .. } => {
                let (input_dims, output_dims) = (pass.dims[input.0], pass.dims[output.0]);
                with_gradient(gradients, &mut written, *input, |d_input| {
                    let Some((d_input, accumulate)) = d_input else { return };
                    let (x, y) = (read(*input), read(output));
                    span(Work::PoolGradient, 0.0, || {
                        layer.backward(input_dims, output_dims, x, y, d, d_input, accumulate);
                    });
                });
            }
            Op::GlobalPool { layer, input, .. } => {
                with_gradient(gradients, &mut written, *input, |d_input| {
                    let Some((d_input, accumulate)) = d_input else { return };
                    let (x, y) = (read(*input), read(output));
                    span(Work::PoolGradient, 0.0, || layer.backward(pass.dims[input.0], x, y, d, d_input, accumulate));
                });
            }
        }
        gradients.put(output.0, d_output);
    }
}

/// Lends the gradient of a slot, with whether something is in it already; the images have none.
fn with_gradient(
    gradients: &mut SharedSlots,
    written: &mut [bool],
    slot: Slot,
    f: impl FnOnce(Option<(&mut [f32], bool)>),
) {
    if slot == IMAGES {
        return f(None);
    }
    let mut buffer = gradients.take(slot.0);
    f(Some((&mut buffer[..gradients.len(slot.0)], written[slot.0])));
    gradients.put(slot.0, buffer);
    written[slot.0] = true;
}

fn with_residual_gradient(
    gradients: &mut SharedSlots,
    written: &mut [bool],
    residual: Residual<Slot>,
    f: impl FnOnce(Residual<(&mut [f32], bool)>),
) {
    let Some(slot) = residual.added() else { return f(Residual::None) };
    with_gradient(gradients, written, slot, |target| match target {
        Some(target) => f(residual.map(|_| target)),
        // The images get no gradient, but the mask must still see where the residual entered.
        None => f(residual.map(|_| (&mut [][..], false))),
    });
}
