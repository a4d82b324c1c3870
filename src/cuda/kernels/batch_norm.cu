// Batch norm with the residual and the ReLU that follow it. Rows are views of `rows` rows each, one after the other;
// a view is normalised with its own statistics. Sums run over parts of `part` rows and are joined in f64, in order.

// Values that statistics keep for each view, each `channels` long: mean, 1/deviation, and y · scale + shift.
#define MEAN 0
#define INV_STD 1
#define SCALE 2
#define SHIFT 3
#define STATISTICS 4
// The same for the way back: dy = slope · (d − mean_d − (y − mean) · along).
#define SLOPE 0
#define MEAN_D 1
#define ALONG 2
#define COEFFICIENTS 3

#define NOTHING_ADDED 0
#define ADDED_BEFORE_RELU 1
#define ADDED_AFTER_RELU 2

#define EPSILON 1e-5
#define MOMENTUM 0.1

// A block has 32 channels beside each other and 8 rows.
#define LANES 32
#define LINES 8

// The sums of both values over the lines of a block, in order, in every thread.
__device__ __forceinline__ void line_sums(float& a, float& b, float* shared_a, float* shared_b) {
    const int lane = (int)threadIdx.x, line = (int)threadIdx.y;
    shared_a[line * LANES + lane] = a;
    shared_b[line * LANES + lane] = b;
    __syncthreads();
    a = b = 0.0f;
    for (int i = 0; i < LINES; ++i) {
        a += shared_a[i * LANES + lane];
        b += shared_b[i * LANES + lane];
    }
    __syncthreads();
}

// Mean and sum of squared deviations of each part: partial [view, part, 2, channels]. Blocks: channels, parts, views.
KERNEL __launch_bounds__(256) bn_moments(IN(element) y, OUT(float) partial, int rows, int channels, int part) {
    SHARED(float, shared_a, LANES * LINES);
    SHARED(float, shared_b, LANES * LINES);
    const int channel = (int)(blockIdx.x * LANES + threadIdx.x);
    const int begin = (int)blockIdx.y * part, end = begin + part < rows ? begin + part : rows;
    const Index first = (Index)blockIdx.z * rows;
    float sum = 0.0f, unused = 0.0f;
    if (channel < channels) {
        for (int row = begin + (int)threadIdx.y; row < end; row += LINES) sum += to_float(at(y, (first + row) * channels + channel));
    }
    line_sums(sum, unused, shared_a, shared_b);
    const float mean = sum / (float)(end - begin);
    float squares = 0.0f;
    if (channel < channels) {
        for (int row = begin + (int)threadIdx.y; row < end; row += LINES) {
            const float off = to_float(at(y, (first + row) * channels + channel)) - mean;
            squares += off * off;
        }
    }
    line_sums(squares, unused, shared_a, shared_b);
    if (channel < channels && threadIdx.y == 0) {
        const Index i = ((Index)blockIdx.z * gridDim.y + blockIdx.y) * 2 * channels + channel;
        put(partial, i, mean);
        put(partial, i + channels, squares);
    }
}

// Joins the moments (Chan et al.), keeps what the views are normalised with, and moves the running statistics towards
// each view in turn; the variance that they track is the unbiased one. A thread for each channel.
KERNEL __launch_bounds__(256) bn_statistics(IN(float) partial, IN(float) gamma, IN(float) beta, OUT(float) running_mean,
                                            OUT(float) running_var, OUT(float) statistics, int rows, int channels, int part,
                                            int views, int affine) {
    const int channel = (int)first_value();
    if (channel >= channels) return;
    const int parts = (rows + part - 1) / part;
    for (int view = 0; view < views; ++view) {
        double mean = 0.0, squares = 0.0;
        for (int k = 0; k < parts; ++k) {
            const int before = k * part, count = before + part < rows ? part : rows - before;
            const Index i = ((Index)view * parts + k) * 2 * channels + channel;
            const double total = (double)before + (double)count, delta = (double)at(partial, i) - mean;
            mean += delta * ((double)count / total);
            squares += (double)at(partial, i + channels) + delta * delta * ((double)before * (double)count / total);
        }
        const double inv_std = 1.0 / sqrt(squares / (double)rows + EPSILON);
        const double scale = affine ? (double)at(gamma, channel) * inv_std : inv_std;
        const double shift = (affine ? (double)at(beta, channel) : 0.0) - mean * scale;
        const Index i = (Index)view * STATISTICS * channels + channel;
        put(statistics, i + MEAN * channels, (float)mean);
        put(statistics, i + INV_STD * channels, (float)inv_std);
        put(statistics, i + SCALE * channels, (float)scale);
        put(statistics, i + SHIFT * channels, (float)shift);
        const double unbiased = squares / (double)(rows > 1 ? rows - 1 : 1);
        put(running_mean, channel, (float)((double)at(running_mean, channel) * (1.0 - MOMENTUM) + mean * MOMENTUM));
        put(running_var, channel, (float)((double)at(running_var, channel) * (1.0 - MOMENTUM) + unbiased * MOMENTUM));
    }
}

// Statistics of one view that come from the running ones.
KERNEL __launch_bounds__(256) bn_frozen_statistics(IN(float) gamma, IN(float) beta, IN(float) running_mean,
                                                   IN(float) running_var, OUT(float) statistics, int channels, int affine) {
    const int channel = (int)first_value();
    if (channel >= channels) return;
    const double mean = (double)at(running_mean, channel);
    const double inv_std = 1.0 / sqrt((double)at(running_var, channel) + EPSILON);
    const double scale = affine ? (double)at(gamma, channel) * inv_std : inv_std;
    const double shift = (affine ? (double)at(beta, channel) : 0.0) - mean * scale;
    put(statistics, (Index)MEAN * channels + channel, (float)mean);
    put(statistics, (Index)INV_STD * channels + channel, (float)inv_std);
    put(statistics, (Index)SCALE * channels + channel, (float)scale);
    put(statistics, (Index)SHIFT * channels + channel, (float)shift);
}

// The view and the channel of an element, walked along.
struct Place {
    Index next_view;
    int view, channel;

    __device__ __forceinline__ Place(Index i, Index view_len, int channels) {
        view = (int)(i / view_len);
        next_view = (view + 1) * view_len;
        channel = (int)(i % channels);
    }
    __device__ __forceinline__ void advance(Index i, Index view_len, int channels) {
        if (++channel == channels) channel = 0;
        if (i == next_view) {
            ++view;
            next_view += view_len;
        }
    }
    // Where the first of the values of `kinds` lies that statistics or coefficients keep for it.
    __device__ __forceinline__ Index of(int kinds, int channels) const { return (Index)view * kinds * channels + channel; }
};

// out = relu(y · scale + shift + residual), or with the residual after the ReLU.
KERNEL __launch_bounds__(256) bn_apply(IN(element) y, IN(float) statistics, IN(element) residual, OUT(element) out, Index len,
                                       Index view_len, int channels, int added, int relu, int wide) {
    const Index first = first_element();
    if (first >= len) return;
    float values[VECTOR], more[VECTOR];
    read(y, first, len, wide, values);
    if (added != NOTHING_ADDED) read(residual, first, len, wide, more);
    Place place(first, view_len, channels);
#pragma unroll
    for (int j = 0; j < VECTOR; ++j) {
        if (first + j >= len) break;
        if (j > 0) place.advance(first + j, view_len, channels);
        const Index i = place.of(STATISTICS, channels);
        float value = values[j] * at(statistics, i + SCALE * channels) + at(statistics, i + SHIFT * channels);
        if (added == ADDED_BEFORE_RELU) value += more[j];
        if (relu) value = rectify(value);
        if (added == ADDED_AFTER_RELU) value += more[j];
        values[j] = value;
    }
    write(out, first, len, wide, values);
}

// Whether the ReLU let a value through.
__device__ __forceinline__ bool passed(float y, float out, float scale, float shift, int added) {
    return added == ADDED_BEFORE_RELU ? out > 0.0f : y * scale + shift > 0.0f;
}

// Σ d and Σ d · x̂ of each part, d being the gradient behind the ReLU: partial [view, part, 2, channels]. Blocks as for
// bn_moments.
KERNEL __launch_bounds__(256) bn_gradient_sums(IN(element) d, IN(element) y, IN(element) out, IN(float) statistics,
                                               OUT(float) partial, int rows, int channels, int part, int added, int relu) {
    SHARED(float, shared_a, LANES * LINES);
    SHARED(float, shared_b, LANES * LINES);
    const int channel = (int)(blockIdx.x * LANES + threadIdx.x);
    const int begin = (int)blockIdx.y * part, end = begin + part < rows ? begin + part : rows;
    const Index first = (Index)blockIdx.z * rows;
    float sum = 0.0f, along = 0.0f;
    if (channel < channels) {
        const Index s = (Index)blockIdx.z * STATISTICS * channels + channel;
        const float mean = at(statistics, s + MEAN * channels), inv_std = at(statistics, s + INV_STD * channels);
        const float scale = at(statistics, s + SCALE * channels), shift = at(statistics, s + SHIFT * channels);
        for (int row = begin + (int)threadIdx.y; row < end; row += LINES) {
            const Index i = (first + row) * channels + channel;
            const float value = to_float(at(y, i));
            const float kept = relu && added == ADDED_BEFORE_RELU ? to_float(at(out, i)) : 0.0f;
            const float gradient = !relu || passed(value, kept, scale, shift, added) ? to_float(at(d, i)) : 0.0f;
            sum += gradient;
            along += gradient * (value - mean) * inv_std;
        }
    }
    line_sums(sum, along, shared_a, shared_b);
    if (channel < channels && threadIdx.y == 0) {
        const Index i = ((Index)blockIdx.z * gridDim.y + blockIdx.y) * 2 * channels + channel;
        put(partial, i, sum);
        put(partial, i + channels, along);
    }
}

// Joins these sums; gives the gradients of gamma and beta, and what bn_gradient needs. A thread for each channel.
KERNEL __launch_bounds__(256) bn_coefficients(IN(float) partial, IN(float) statistics, OUT(float) coefficients,
                                              OUT(float) d_gamma, OUT(float) d_beta, int rows, int channels, int part,
                                              int views, int affine, int accumulate) {
    const int channel = (int)first_value();
    if (channel >= channels) return;
    const int parts = (rows + part - 1) / part;
    double all = 0.0, all_along = 0.0;
    for (int view = 0; view < views; ++view) {
        double sum = 0.0, along = 0.0;
        for (int k = 0; k < parts; ++k) {
            const Index i = ((Index)view * parts + k) * 2 * channels + channel;
            sum += (double)at(partial, i);
            along += (double)at(partial, i + channels);
        }
        all += sum;
        all_along += along;
        const Index s = (Index)view * STATISTICS * channels + channel, c = (Index)view * COEFFICIENTS * channels + channel;
        // Scale is gamma / deviation.
        put(coefficients, c + SLOPE * channels, at(statistics, s + SCALE * channels));
        put(coefficients, c + MEAN_D * channels, (float)(sum / (double)rows));
        put(coefficients, c + ALONG * channels, (float)(along / (double)rows * (double)at(statistics, s + INV_STD * channels)));
    }
    if (affine) {
        put(d_gamma, channel, (float)(all_along + (accumulate ? (double)at(d_gamma, channel) : 0.0)));
        put(d_beta, channel, (float)(all + (accumulate ? (double)at(d_beta, channel) : 0.0)));
    }
}

// Turns y into the gradient of the convolution's output. The residual's gradient is written on 1, added on 2.
KERNEL __launch_bounds__(256) bn_gradient(IN(element) d, OUT(element) y, IN(element) out, IN(float) statistics,
                                          IN(float) coefficients, OUT(element) d_residual, Index len, Index view_len,
                                          int channels, int added, int relu, int residual, int wide) {
    const Index first = first_element();
    if (first >= len) return;
    float gradients[VECTOR], values[VECTOR], kept[VECTOR], more[VECTOR];
    const int with_out = relu && added == ADDED_BEFORE_RELU;
    read(d, first, len, wide, gradients);
    read(y, first, len, wide, values);
    if (with_out) read(out, first, len, wide, kept);
    if (residual == 2) read(d_residual, first, len, wide, more);
    Place place(first, view_len, channels);
#pragma unroll
    for (int j = 0; j < VECTOR; ++j) {
        if (first + j >= len) break;
        if (j > 0) place.advance(first + j, view_len, channels);
        const Index s = place.of(STATISTICS, channels), c = place.of(COEFFICIENTS, channels);
        const float y_value = values[j];
        const float scale = at(statistics, s + SCALE * channels), shift = at(statistics, s + SHIFT * channels);
        const bool through = !relu || passed(y_value, with_out ? kept[j] : 0.0f, scale, shift, added);
        const float gradient = through ? gradients[j] : 0.0f;
        const float share = added == ADDED_BEFORE_RELU ? gradient : gradients[j];
        if (residual != 0) more[j] = residual == 2 ? more[j] + share : share;
        const float off = (y_value - at(statistics, s + MEAN * channels)) * at(coefficients, c + ALONG * channels);
        values[j] = at(coefficients, c + SLOPE * channels) * (gradient - at(coefficients, c + MEAN_D * channels) - off);
    }
    write(y, first, len, wide, values);
    if (residual != 0) write(d_residual, first, len, wide, more);
}
