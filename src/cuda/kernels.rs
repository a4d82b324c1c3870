//! The kernels' sources and names.

use super::precision::Precision;

/// What the C++ compiler of the emulator and CUDA's compiler read, in this order.
const SOURCES: [&str; 6] = [
    include_str!("kernels/prelude.cu"),
    include_str!("kernels/convolution.cu"),
    include_str!("kernels/batch_norm.cu"),
    include_str!("kernels/pool.cu"),
    include_str!("kernels/head.cu"),
    include_str!("kernels/update.cu"),
];

/// Every kernel by name.
pub const KERNELS: [&str; 32] = [
    "conv_forward_64_wide",
    "conv_forward_64_narrow",
    "conv_forward_128_wide",
    "conv_forward_128_narrow",
    "conv_data_gradient_64_wide",
    "conv_data_gradient_64_narrow",
    "conv_data_gradient_128_wide",
    "conv_data_gradient_128_narrow",
    "conv_weight_gradient_64_wide",
    "conv_weight_gradient_64_narrow",
    "conv_weight_gradient_128_wide",
    "conv_weight_gradient_128_narrow",
    "sum_parts",
    "bn_moments",
    "bn_statistics",
    "bn_frozen_statistics",
    "bn_apply",
    "bn_gradient_sums",
    "bn_coefficients",
    "bn_gradient",
    "bn_pool",
    "pool_gradient",
    "global_pool",
    "global_pool_gradient",
    "add_bias",
    "column_sums",
    "cosine_loss",
    "sum_scaled",
    "inverse_norms",
    "column_deviations",
    "flag_not_finite",
    "sgd",
];

/// Kernels between numbers and elements; of no use where they are the same.
pub const CONVERSIONS: [&str; 2] = ["to_elements", "to_floats"];

/// The translation unit for a precision.
pub fn source(precision: Precision) -> String {
    let mut source = format!("#define PRECISION {}\n", precision.number());
    for part in SOURCES {
        source.push_str(part);
    }
    source
}
