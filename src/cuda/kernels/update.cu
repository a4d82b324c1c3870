// Flat buffers: images in, gradients checked, weights updated.

// Images as activations.
KERNEL __launch_bounds__(256) to_elements(IN(float) x, OUT(element) y, Index len) {
    const Index i = first_value();
    if (i < len) put(y, i, from_float(at(x, i)));
}

// Activations as numbers.
KERNEL __launch_bounds__(256) to_floats(IN(element) x, OUT(float) y, Index len) {
    const Index i = first_value();
    if (i < len) put(y, i, to_float(at(x, i)));
}

// Sets flag[0] where a gradient is not finite. Whoever writes writes the same.
KERNEL __launch_bounds__(256) flag_not_finite(IN(float) gradients, OUT(int) flag, Index len) {
    const Index i = first_value();
    if (i >= len) return;
    const float value = at(gradients, i);
    if (!(value - value == 0.0f)) put(flag, 0, 1);
}

// SGD with momentum and weight decay as PyTorch has it; nothing where flag[0] is set:
// g ← g · unscale + decay · p; v ← momentum · v + g; p ← p − lr · v. `weights` is p as kernels multiply by it.
KERNEL __launch_bounds__(256) sgd(OUT(float) p, IN(float) g, OUT(float) v, OUT(element) weights, IN(int) flag, Index len,
                                  float lr, float momentum, float decay, float unscale) {
    const Index i = first_value();
    if (i >= len || at(flag, 0) != 0) return;
    const float velocity = momentum * at(v, i) + (at(g, i) * unscale + decay * at(p, i));
    const float value = at(p, i) - lr * velocity;
    put(v, i, velocity);
    put(p, i, value);
#if HALF_WIDTH
    put(weights, i, from_float(value));
#else
    (void)weights;
#endif
}
