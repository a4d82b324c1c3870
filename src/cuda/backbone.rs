//! Walks a backbone's program on a device: forward in training and at inference, and backward.

use super::{
    cuda_error::CudaError,
    device::{Memory, Slice},
    launch::{AffineSlices, COEFFICIENTS, Kernels, NormGradient, NormShape, PoolShape, STATISTICS, Shape},
    parameters::{Layout, Parameters, Place, Running},
};
use crate::model::backbone::{
    Backbone, ConvBn, Dims, GlobalPool,
    memory_plan::{Lifetime, plan_memory},
    op::{Op, Residual, Slot},
    program::{IMAGES, Program},
};

/// A backbone without its trained values, which lie in [`Parameters`] at `places`.
#[derive(Debug)]
pub(super) struct DeviceBackbone {
    kernels: Kernels,
    program: Program,
    places: Vec<Place>,
    running: Running,
    pass: Option<Pass>,
    eval: Option<EvalPass>,
}

/// Memory of the training passes of one shape.
#[derive(Debug)]
struct Pass {
    shape: PassShape,
    dims: Vec<Dims>,
    /// f32 images on their way to elements, where these differ.
    images: Option<Memory>,
    /// By slot.
    slots: Vec<Memory>,
    /// By operation.
    convs: Vec<Option<ConvMemory>>,
    gradients: Shared,
    scratch: Scratch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PassShape {
    views: usize,
    n: usize,
    image_size: usize,
}

/// What a convolution and its batch norm keep.
#[derive(Debug)]
struct ConvMemory {
    output: Memory,
    statistics: Memory,
    winners: Option<Memory>,
}

/// What passes from kernel to kernel.
#[derive(Debug)]
struct Scratch {
    partial: Memory,
    coefficients: Memory,
    /// The gradient of a pool's input.
    unpooled: Memory,
}

/// Memory of inference with one shape.
#[derive(Debug)]
struct EvalPass {
    n: usize,
    image_size: usize,
    dims: Vec<Dims>,
    images: Option<Memory>,
    slots: Shared,
    conv_output: Memory,
    statistics: Memory,
    winners: Memory,
    features: Memory,
}

/// Slots that share memory by lifetime.
#[derive(Debug)]
struct Shared {
    buffers: Vec<Memory>,
    buffer_of: Vec<usize>,
    lengths: Vec<usize>,
    element_bytes: usize,
}

impl Shared {
    fn new(kernels: &Kernels, lifetimes: &[Lifetime]) -> Result<Self, CudaError> {
        let plan = plan_memory(lifetimes);
        let element_bytes = kernels.element_bytes();
        let memory = |len: &usize| Memory::new(kernels.device(), element_bytes * len);
        Ok(Self {
            buffers: plan.buffer_len.iter().map(memory).collect::<Result<_, _>>()?,
            buffer_of: plan.buffer_of,
            lengths: lifetimes.iter().map(|lifetime| lifetime.len).collect(),
            element_bytes,
        })
    }

    fn slot(&self, slot: Slot) -> Slice {
        self.buffers[self.buffer_of[slot.0]].part(self.element_bytes, 0, self.lengths[slot.0])
    }
}

impl DeviceBackbone {
    /// Takes places for its values from `layout`.
    pub(super) fn new(kernels: &Kernels, host: &Backbone, layout: &mut Layout) -> Result<Self, CudaError> {
        let program = host.program().clone();
        for op in &program.ops {
            let Op::GlobalPool { input, .. } = op else { continue };
            // Its gradient is written, never added to.
            if program.ops.iter().flat_map(Op::inputs).filter(|slot| slot == input).count() != 1 {
                return Err(CudaError::Network("something else reads what the global pool reads"));
            }
        }
        let channels: Vec<usize> = program.norms.iter().map(|norm| norm.channels).collect();
        Ok(Self {
            places: program.parameters.iter().map(|spec| layout.place(spec.len)).collect(),
            running: Running::new(kernels, &channels)?,
            kernels: kernels.clone(),
            program,
            pass: None,
            eval: None,
        })
    }

    /// Takes the host's values and running statistics.
    pub(super) fn load(&mut self, parameters: &Parameters, host: &Backbone) -> Result<(), CudaError> {
        for (spec, place) in self.program.parameters.iter().zip(&self.places) {
            parameters.write(*place, &host.values()[spec.offset..][..spec.len])?;
        }
        for (norm, running) in host.running_statistics().iter().enumerate() {
            self.running.write(norm, &running.mean, &running.variance, running.num_batches_tracked)?;
        }
        Ok(())
    }

    /// Gives them back.
    pub(super) fn store(&self, parameters: &Parameters, host: &mut Backbone) -> Result<(), CudaError> {
        let values = host.values_mut();
        for (spec, place) in self.program.parameters.iter().zip(&self.places) {
            parameters.read(*place, &mut values[spec.offset..][..spec.len])?;
        }
        for (norm, running) in host.running_statistics_mut().iter_mut().enumerate() {
            running.num_batches_tracked = self.running.read(norm, &mut running.mean, &mut running.variance)?;
        }
        Ok(())
    }

    /// Where each value of the host's flat buffers begins there and here.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (usize, Place)> {
        self.program.parameters.iter().map(|spec| spec.offset).zip(self.places.iter().copied())
    }

    /// Forward with the batch statistics of each view; what [`Self::backward`] needs is kept. `dims` are those of the
    /// slots. Gives the features [views · n, feature_dim].
    pub(super) fn forward_train(
        &mut self,
        parameters: &Parameters,
        dims: &[Dims],
        views: &[&[f32]],
        n: usize,
        image_size: usize,
    ) -> Result<Slice, CudaError> {
        self.fit(dims, PassShape { views: views.len(), n, image_size })?;
        let Self { kernels, program, places, running, pass: Some(pass), .. } = self else {
            return Err(CudaError::Network("it has no memory"));
        };
        let (views, total) = (write_images(kernels, pass, views)?, views.len() * n);
        for (idx, op) in program.ops.iter().enumerate() {
            let out = pass.slots[op.output().0].all();
            let read = |slot: Slot| pass.slots[slot.0].all();
            match op {
                Op::ConvBn { layer, input, residual, relu, pool, .. } => {
                    let Some(conv) = &pass.convs[idx] else { continue };
                    let (shape, norm) = conv_shapes(op, layer, &pass.dims, views, n);
                    let (y, statistics) = (conv.output.all(), conv.statistics.all());
                    kernels.conv_forward(&shape, read(*input), parameters.weight(places[layer.weight]), y)?;
                    let affine = affine(parameters, places, layer);
                    let partial = pass.scratch.partial.all();
                    kernels.bn_statistics(&norm, y, Some(affine), running.slices(layer.norm), partial, statistics)?;
                    running.counts[layer.norm] += views as i64;
                    if let (Some(pool), Some(winners)) = (pool, &conv.winners) {
                        let pool =
                            PoolShape { n: total, pool: *pool, input: shape.output, output: pass.dims[op.output().0] };
                        kernels.bn_pool(&pool, n, y, statistics, *relu, out, winners.all())?;
                    } else {
                        kernels.bn_apply(&norm, y, statistics, residual.map(read), *relu, out)?;
                    }
                }
                Op::GlobalPool { layer, input, .. } => {
                    kernels.global_pool(total, pass.dims[input.0], is_maximum(*layer), read(*input), out)?;
                }
            }
        }
        Ok(pass.slots[program.output.0].all())
    }

    /// Gradients of all values for the gradient of the features: written, or added to. Consumes what the forward pass kept.
    pub(super) fn backward(
        &mut self,
        parameters: &Parameters,
        grad_features: Slice,
        accumulate: bool,
    ) -> Result<(), CudaError> {
        let Some(pass) = &self.pass else { return Err(CudaError::Network("there is nothing to go back through")) };
        let Self { kernels, program, places, .. } = self;
        let Pass { shape: PassShape { views, n, .. }, dims, slots, convs, gradients, scratch, .. } = pass;
        let total = views * n;
        let mut written = vec![false; program.num_slots];
        for (idx, op) in program.ops.iter().enumerate().rev() {
            let output = op.output();
            let d = if output == program.output { grad_features } else { gradients.slot(output) };
            match op {
                Op::ConvBn { layer, input, residual, relu, pool, .. } => {
                    let Some(conv) = &convs[idx] else { continue };
                    let (shape, norm) = conv_shapes(op, layer, dims, *views, *n);
                    let y = conv.output.all();
                    let d = if let (Some(pool), Some(winners)) = (pool, &conv.winners) {
                        let pool = PoolShape { n: total, pool: *pool, input: shape.output, output: dims[output.0] };
                        let unpooled = scratch.unpooled.part(kernels.element_bytes(), 0, total * shape.output.len());
                        kernels.pool_gradient(&pool, d, winners.all(), unpooled)?;
                        unpooled
                    } else {
                        d
                    };
                    let target = |slot: Slot| {
                        let target = (slot != IMAGES).then(|| (gradients.slot(slot), written[slot.0]));
                        (slot, target)
                    };
                    let residual = residual.map(target);
                    let out = matches!(residual, Residual::BeforeRelu(_)).then(|| slots[output.0].all());
                    let tensors = NormGradient { d, y, out, statistics: conv.statistics.all() };
                    let trained = AffineSlices {
                        gamma: parameters.gradient(places[layer.scale])?,
                        beta: parameters.gradient(places[layer.shift])?,
                    };
                    let (partial, coefficients) = (scratch.partial.all(), scratch.coefficients.all());
                    kernels.bn_gradient(
                        &norm,
                        &tensors,
                        residual.map(|(_, target)| target),
                        *relu,
                        Some((trained, accumulate)),
                        partial,
                        coefficients,
                    )?;
                    if let Some((slot, _)) = residual.added() {
                        written[slot.0] = true;
                    }
                    let dw = parameters.gradient(places[layer.weight])?;
                    kernels.conv_weight_gradient(&shape, slots[input.0].all(), y, partial, dw, accumulate)?;
                    if *input != IMAGES {
                        let w = parameters.weight(places[layer.weight]);
                        kernels.conv_data_gradient(&shape, y, w, gradients.slot(*input), written[input.0])?;
                        written[input.0] = true;
                    }
                }
                Op::GlobalPool { layer, input, .. } => {
                    let (x, y) = (slots[input.0].all(), slots[output.0].all());
                    let dx = gradients.slot(*input);
                    kernels.global_pool_gradient(total, dims[input.0], is_maximum(*layer), x, y, d, dx)?;
                    written[input.0] = true;
                }
            }
        }
        Ok(())
    }

    /// Makes memory for training passes of a shape, if it is another one than the last.
    fn fit(&mut self, dims: &[Dims], shape: PassShape) -> Result<(), CudaError> {
        if self.pass.as_ref().is_some_and(|pass| pass.shape == shape) {
            return Ok(());
        }
        // What was there goes first.
        self.pass = None;
        let Self { kernels, program, .. } = self;
        let PassShape { views, n, .. } = shape;
        let total = views * n;
        check_rows(program, dims, total)?;
        let elements = |len: usize| Memory::new(kernels.device(), kernels.element_bytes() * len);
        let floats = |len: usize| Memory::new(kernels.device(), 4 * len);
        let slots = dims.iter().map(|dims| elements(total * dims.len())).collect::<Result<Vec<_>, _>>()?;
        let (mut convs, mut partial, mut coefficients, mut unpooled) = (vec![], 0, 0, 0);
        for op in &program.ops {
            let Op::ConvBn { layer, pool, output, .. } = op else {
                convs.push(None);
                continue;
            };
            let (conv, norm) = conv_shapes(op, layer, dims, views, n);
            partial = partial.max(conv.weight_partial_len()).max(norm.partial_len());
            coefficients = coefficients.max(views * COEFFICIENTS * norm.channels);
            let len = total * conv.output.len();
            let winners = match pool {
                Some(_) => {
                    unpooled = unpooled.max(len);
                    Some(Memory::new(kernels.device(), total * dims[output.0].len())?)
                }
                None => None,
            };
            let statistics = floats(views * STATISTICS * norm.channels)?;
            convs.push(Some(ConvMemory { output: elements(len)?, statistics, winners }));
        }
        let is_half_width = kernels.precision().is_half_width();
        let images = if is_half_width { Some(floats(total * dims[IMAGES.0].len())?) } else { None };
        let gradients = Shared::new(kernels, &gradient_lifetimes(program, dims, total))?;
        let scratch =
            Scratch { partial: floats(partial)?, coefficients: floats(coefficients)?, unpooled: elements(unpooled)? };
        self.pass = Some(Pass { shape, dims: dims.to_vec(), images, slots, convs, gradients, scratch });
        Ok(())
    }

    /// Features [n, feature_dim] of images with running statistics; nothing is kept but memory.
    pub(super) fn forward_eval(
        &mut self,
        parameters: &Parameters,
        dims: &[Dims],
        images: &[f32],
        n: usize,
        image_size: usize,
    ) -> Result<Vec<f32>, CudaError> {
        self.fit_eval(dims, n, image_size)?;
        let Some(pass) = &self.eval else { return Err(CudaError::Network("it has no memory")) };
        let Self { kernels, program, places, running, .. } = self;
        let input = pass.slots.slot(IMAGES);
        match &pass.images {
            Some(staging) => {
                staging.write(0, images)?;
                kernels.to_elements(images.len(), staging.all(), input)?;
            }
            None => kernels.device().upload(input, bytemuck::cast_slice(images))?,
        }
        for op in &program.ops {
            let out = pass.slots.slot(op.output());
            let read = |slot: Slot| pass.slots.slot(slot);
            match op {
                Op::ConvBn { layer, input, residual, relu, pool, output } => {
                    let (shape, norm) = conv_shapes(op, layer, &pass.dims, 1, n);
                    let y = pass.conv_output.part(kernels.element_bytes(), 0, n * shape.output.len());
                    let statistics = pass.statistics.part(4, 0, STATISTICS * norm.channels);
                    kernels.conv_forward(&shape, read(*input), parameters.weight(places[layer.weight]), y)?;
                    let affine = Some(affine(parameters, places, layer));
                    kernels.bn_frozen_statistics(norm.channels, affine, running.slices(layer.norm), statistics)?;
                    if let Some(pool) = pool {
                        let pool = PoolShape { n, pool: *pool, input: shape.output, output: pass.dims[output.0] };
                        let winners = pass.winners.part(1, 0, n * pool.output.len());
                        kernels.bn_pool(&pool, n, y, statistics, *relu, out, winners)?;
                    } else {
                        kernels.bn_apply(&norm, y, statistics, residual.map(read), *relu, out)?;
                    }
                }
                Op::GlobalPool { layer, input, .. } => {
                    kernels.global_pool(n, pass.dims[input.0], is_maximum(*layer), read(*input), out)?;
                }
            }
        }
        let mut features = vec![0.0; n * program.feature_dim];
        let output = pass.slots.slot(program.output);
        if kernels.precision().is_half_width() {
            kernels.to_floats(features.len(), output, pass.features.all())?;
            pass.features.read(0, &mut features)?;
        } else {
            kernels.device().download(output, bytemuck::cast_slice_mut(&mut features))?;
        }
        Ok(features)
    }

    fn fit_eval(&mut self, dims: &[Dims], n: usize, image_size: usize) -> Result<(), CudaError> {
        if self.eval.as_ref().is_some_and(|pass| pass.n == n && pass.image_size == image_size) {
            return Ok(());
        }
        self.eval = None;
        let Self { kernels, program, .. } = self;
        check_rows(program, dims, n)?;
        let mut lifetimes: Vec<Lifetime> =
            dims.iter().map(|d| Lifetime { first: 0, last: 0, len: n * d.len() }).collect();
        let (mut conv_output, mut statistics, mut winners) = (0, 0, 0);
        for (step, op) in program.ops.iter().enumerate() {
            // The images are written before the first operation.
            lifetimes[op.output().0].first = step + 1;
            lifetimes[op.output().0].last = step + 1;
            op.inputs().for_each(|slot| lifetimes[slot.0].last = step + 1);
            if let Op::ConvBn { layer, pool, output, .. } = op {
                let (shape, norm) = conv_shapes(op, layer, dims, 1, n);
                conv_output = conv_output.max(n * shape.output.len());
                statistics = statistics.max(STATISTICS * norm.channels);
                winners = winners.max(pool.map_or(0, |_| n * dims[output.0].len()));
            }
        }
        lifetimes[program.output.0].last = program.ops.len() + 1;
        let is_half_width = kernels.precision().is_half_width();
        let bytes = |bytes: usize| Memory::new(kernels.device(), bytes);
        self.eval = Some(EvalPass {
            n,
            image_size,
            dims: dims.to_vec(),
            images: if is_half_width { Some(bytes(4 * n * dims[IMAGES.0].len())?) } else { None },
            slots: Shared::new(kernels, &lifetimes)?,
            conv_output: bytes(kernels.element_bytes() * conv_output)?,
            statistics: bytes(4 * statistics)?,
            winners: bytes(winners)?,
            features: bytes(if is_half_width { 4 * n * program.feature_dim } else { 0 })?,
        });
        Ok(())
    }

    /// Forgets the memory of inference.
    pub(super) fn release_eval(&mut self) {
        self.eval = None;
    }
}

/// Writes the views one after the other to the slot of the images; says how many there are.
fn write_images(kernels: &Kernels, pass: &Pass, views: &[&[f32]]) -> Result<usize, CudaError> {
    let target = pass.images.as_ref().unwrap_or(&pass.slots[IMAGES.0]);
    let mut first = 0;
    for images in views {
        target.write(first, images)?;
        first += images.len();
    }
    if let Some(images) = &pass.images {
        kernels.to_elements(first, images.all(), pass.slots[IMAGES.0].all())?;
    }
    Ok(views.len())
}

fn affine(parameters: &Parameters, places: &[Place], layer: &ConvBn) -> AffineSlices {
    AffineSlices { gamma: parameters.value(places[layer.scale]), beta: parameters.value(places[layer.shift]) }
}

fn is_maximum(layer: GlobalPool) -> bool {
    layer == GlobalPool::Maximum
}

/// The numbers of an operation's convolution and of its batch norm.
fn conv_shapes(op: &Op, layer: &ConvBn, dims: &[Dims], views: usize, n: usize) -> (Shape, NormShape) {
    let output = Program::conv_dims(op, dims);
    let input = op.inputs().next().map_or(output, |slot| dims[slot.0]);
    let ConvBn { kernel, stride, padding, .. } = *layer;
    let shape = Shape { n: views * n, input, output, kernel, stride, padding };
    (shape, NormShape { views, rows: n * output.positions(), channels: output.channels })
}

/// Kernels count rows with 32 bits.
fn check_rows(program: &Program, dims: &[Dims], n: usize) -> Result<(), CudaError> {
    let convs = program.ops.iter().map(|op| Program::conv_dims(op, dims));
    let fits = |dims: Dims| i32::try_from(n * dims.positions()).is_ok();
    if convs.chain(dims.iter().copied()).all(fits) { Ok(()) } else { Err(CudaError::TooLarge { n }) }
}

/// Gradients: alive from the last reader of the activation to the operation that wrote it.
fn gradient_lifetimes(program: &Program, dims: &[Dims], n: usize) -> Vec<Lifetime> {
    let mut lifetimes: Vec<Lifetime> = dims.iter().map(|d| Lifetime { first: 0, last: 0, len: n * d.len() }).collect();
    // Nobody wants the gradient of the images; that of the features comes from outside.
    lifetimes[IMAGES.0].len = 0;
    lifetimes[program.output.0].len = 0;
    for (idx, op) in program.ops.iter().enumerate() {
        let step = program.ops.len() - idx;
        lifetimes[op.output().0].last = step;
        op.inputs().for_each(|slot| lifetimes[slot.0].first = step);
    }
    lifetimes[program.output.0].first = 0;
    lifetimes
}
