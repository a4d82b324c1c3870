//! Walks the program: forward in training and at inference, and backward.

use super::cpu::conv::ConvShape;
use super::cpu::pooled_norm::PoolShape;
use super::cpu::prepared::PreparedWeights;
use super::layers::{ConvBn, Dims, MaxPool, conv_bn};
use super::op::{Op, Residual, Slot};
use super::parameters::Parameters;
use super::program::{IMAGES, Program};
use super::workspace::{Pass, SharedSlots, Workspace};
use crate::kernels::scratch::Scratch;
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
            Op::ConvBn { layer, input, residual, relu, pool, .. } if idx < frozen => {
                let conv_dims = Program::conv_dims(op, &pass.dims);
                let mut conv_output = pass.conv_outputs.take(idx);
                let shape = layer.shape(n, pass.dims[input.0], conv_dims);
                let before_pool = &mut conv_output[..n * conv_dims.len()];
                let pool = pool.map(|pool| (pool_shape(pool, conv_dims, pass.dims[output.0]), before_pool));
                let (layer, residual) = ((layer, *relu), residual.map(read));
                infer(program, parameters, layer, &shape, read(*input), residual, pool, out, workspace.passing());
                pass.conv_outputs.put(idx, conv_output);
            }
            Op::ConvBn { layer, input, residual, relu, pool, .. } => {
                let conv_dims = Program::conv_dims(op, &pass.dims);
                let mut conv_output = pass.conv_outputs.take(idx);
                // Taken so that parameters can be read beside it.
                let mut running = parameters.running[layer.norm].clone();
                let mut buffers = conv_bn::TrainBuffers {
                    conv_output: &mut conv_output[..n * conv_dims.len()],
                    output: out,
                    statistics: &mut pass.statistics[idx],
                    running: &mut running,
                    winners: &mut pass.winners[idx],
                };
                let (scratch, prepared) = workspace.passing();
                let shape = layer.shape(n, pass.dims[input.0], conv_dims);
                let (weight, bn) = (parameters.weight(program, layer), parameters.bn(program, layer));
                conv_bn::forward_train(
                    &shape,
                    weight,
                    bn,
                    read(*input),
                    residual.map(read),
                    *relu,
                    pool.map(|pool| pool_shape(pool, conv_dims, pass.dims[output.0])),
                    &mut buffers,
                    prepared,
                    scratch,
                );
                parameters.running[layer.norm] = running;
                pass.conv_outputs.put(idx, conv_output);
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

fn pool_shape(pool: MaxPool, input: Dims, output: Dims) -> PoolShape {
    PoolShape { pool, input, output }
}

/// One convolution with its batch norm by running statistics; with a pool, the convolution's output goes to the memory
/// beside it. `layer` comes with whether a ReLU follows.
#[allow(clippy::too_many_arguments, reason = "the layer's tensors")]
fn infer(
    program: &Program,
    parameters: &Parameters,
    (layer, relu): (&ConvBn, bool),
    shape: &ConvShape,
    input: &[f32],
    residual: Residual<&[f32]>,
    pool: Option<(PoolShape, &mut [f32])>,
    out: &mut [f32],
    (scratch, prepared): (&mut Scratch, &mut PreparedWeights),
) {
    let (weight, bn) = (parameters.weight(program, layer), parameters.bn(program, layer));
    let running = &parameters.running[layer.norm];
    conv_bn::forward_eval(shape, weight, bn, running, input, residual, relu, pool, out, prepared, scratch);
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
        let conv_output = SharedSlots::conv_output(program, idx);
        let mut before_pool = slots.take(conv_output);
        let read = |slot: Slot| if slot == IMAGES { images } else { slots.get(slot.0) };
        let out = &mut buffer[..slots.len(output.0)];
        match op {
            Op::ConvBn { layer, input, residual, relu, pool, .. } => {
                let conv_dims = Program::conv_dims(op, dims);
                let shape = layer.shape(n, dims[input.0], conv_dims);
                let before_pool = &mut before_pool[..slots.len(conv_output)];
                let pool = pool.map(|pool| (pool_shape(pool, conv_dims, dims[output.0]), before_pool));
                let (layer, residual) = ((layer, *relu), residual.map(read));
                infer(program, parameters, layer, &shape, read(*input), residual, pool, out, workspace.kept(idx));
            }
            Op::GlobalPool { layer, input, .. } => {
                span(Work::Pool, 0.0, || layer.forward(dims[input.0], read(*input), out));
            }
        }
        slots.put(conv_output, before_pool);
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
    let Pass { slots, conv_outputs, winners, statistics, dims, .. } = pass;
    let len = |slot: Slot| n * dims[slot.0].len();
    let mut written = vec![false; program.num_slots];
    let mut buffer = gradients.take(program.output.0);
    buffer[..grad_features.len()].copy_from_slice(grad_features);
    gradients.put(program.output.0, buffer);

    for (idx, op) in program.ops.iter().enumerate().skip(frozen).rev() {
        enter_layer(program.layer_name(op));
        let output = op.output();
        let in_activation = gradients.is_in_activation(output.0);
        let mut d_output = if in_activation { slots.take(output.0) } else { gradients.take(output.0) };
        let d = &mut d_output[..len(output)];
        match op {
            Op::ConvBn { layer, input, residual, relu, pool, .. } => {
                let conv_dims = Program::conv_dims(op, dims);
                let mut conv_output = conv_outputs.take(idx);
                let y = &mut conv_output[..n * conv_dims.len()];
                let (scratch, prepared) = workspace.passing();
                let shape = layer.shape(n, dims[input.0], conv_dims);
                let (weight, mut grads) = parameters.weight_and_gradients(program, layer, accumulate);
                // Where the gradient has taken the output's place, nobody asks for the output.
                let out = if in_activation { &[][..] } else { slots.get(output.0, len(output)) };
                let kept = conv_bn::Kept { output: out, statistics: &statistics[idx] };
                let shares = |slot: &Slot| gradients.share_memory(slot.0, output.0);
                if let Some(pool) = *pool {
                    let pool = pool_shape(pool, conv_dims, dims[output.0]);
                    conv_bn::backward_pooled_norm(pool, &winners[idx], &kept, *relu, d, y, &mut grads);
                } else if let Some(slot) = residual.added().filter(shares) {
                    // What is left in `d` is the gradient of that slot.
                    conv_bn::backward_norm(&kept, *relu, residual.map(|_| (&mut [][..], false)), d, y, &mut grads);
                    written[slot.0] = true;
                } else {
                    with_residual_gradient(gradients, &mut written, *residual, |residual| {
                        conv_bn::backward_norm(&kept, *relu, residual, d, y, &mut grads);
                    });
                }
                if in_activation {
                    slots.put(output.0, d_output);
                } else {
                    gradients.put(output.0, d_output);
                }
                let mut x = slots.take(input.0);
                conv_bn::weight_gradient(&shape, &x[..len(*input)], y, grads.weight, accumulate, scratch);
                if gradients.is_in_activation(input.0) {
                    let target = (&mut x[..len(*input)], false);
                    conv_bn::data_gradient(&shape, y, weight, target, prepared, scratch);
                } else {
                    with_gradient(gradients, &mut written, *input, |target| {
                        let Some(target) = target else { return };
                        conv_bn::data_gradient(&shape, y, weight, target, prepared, scratch);
                    });
                }
                slots.put(input.0, x);
                conv_outputs.put(idx, conv_output);
            }
            Op::GlobalPool { layer, input, .. } => {
                with_gradient(gradients, &mut written, *input, |d_input| {
                    let Some((d_input, accumulate)) = d_input else { return };
                    let (x, y) = (slots.get(input.0, len(*input)), slots.get(output.0, len(output)));
                    span(Work::PoolGradient, 0.0, || layer.backward(dims[input.0], x, y, d, d_input, accumulate));
                });
                gradients.put(output.0, d_output);
            }
        }
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
