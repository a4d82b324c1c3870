// What heads and loss need beside linear layers and batch norm.

// y [rows, columns] += bias.
KERNEL __launch_bounds__(256) add_bias(OUT(element) y, IN(float) bias, Index len, int columns) {
    const Index i = first_value();
    if (i < len) put(y, i, from_float(to_float(at(y, i)) + at(bias, i % columns)));
}

// The bias's gradient: sums of the columns of d [rows, columns]. Blocks of 32 columns and 8 lines.
KERNEL __launch_bounds__(256) column_sums(IN(element) d, OUT(float) sums, int rows, int columns, int accumulate) {
    SHARED(float, shared_a, LANES * LINES);
    SHARED(float, shared_b, LANES * LINES);
    const int column = (int)(blockIdx.x * LANES + threadIdx.x);
    float sum = 0.0f, unused = 0.0f;
    if (column < columns) {
        for (int row = (int)threadIdx.y; row < rows; row += LINES) sum += to_float(at(d, (Index)row * columns + column));
    }
    line_sums(sum, unused, shared_a, shared_b);
    if (column < columns && threadIdx.y == 0) put(sums, column, accumulate ? at(sums, column) + sum : sum);
}

#define SMALLEST_NORM 1e-8
// Views of an image at the most, less one.
#define MAX_TARGETS 63

// Negative cosine similarity of each row of p [views · n, d] with the rows of z of the same image in every other view,
// and its gradient times `factor`. z gets none: the stop-gradient. cosines [views · n] are summed over targets.
KERNEL __launch_bounds__(256) cosine_loss(IN(element) p, IN(element) z, OUT(element) grad_p, OUT(double) cosines, int n, int views,
                                          int d, float factor) {
    SHARED(double, shared, 256);
    SHARED(double, along_z, MAX_TARGETS + 1);
    SHARED(double, along_p, 1);
    const int row = (int)blockIdx.x, rows = n * views;
    const Index first = (Index)row * d;
    double pp = 0.0, all = 0.0, slope = 0.0;
    for (int i = (int)threadIdx.x; i < d; i += 256) {
        const double value = (double)to_float(at(p, first + i));
        pp += value * value;
    }
    const double p_length = sqrt(block_sum(pp, shared));
    const double p_norm = p_length < SMALLEST_NORM ? SMALLEST_NORM : p_length;
    for (int view = 1; view < views; ++view) {
        const Index other = (Index)((row + view * n) % rows) * d;
        double zz = 0.0, pz = 0.0;
        for (int i = (int)threadIdx.x; i < d; i += 256) {
            const double value = (double)to_float(at(z, other + i));
            zz += value * value;
            pz += value * (double)to_float(at(p, first + i));
        }
        const double z_length = sqrt(block_sum(zz, shared));
        const double z_norm = z_length < SMALLEST_NORM ? SMALLEST_NORM : z_length;
        const double cosine = block_sum(pz, shared) / (p_norm * z_norm);
        // d cos / dp = (ẑ − cos · p̂) / ‖p‖
        if (threadIdx.x == 0) along_z[view - 1] = (double)factor / (p_norm * z_norm);
        slope += (double)factor * cosine / (p_norm * p_norm);
        all += cosine;
    }
    if (threadIdx.x == 0) {
        along_p[0] = slope;
        put(cosines, row, all);
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < d; i += 256) {
        double gradient = -along_p[0] * (double)to_float(at(p, first + i));
        for (int view = 1; view < views; ++view) {
            const Index other = (Index)((row + view * n) % rows) * d;
            gradient += along_z[view - 1] * (double)to_float(at(z, other + i));
        }
        put(grad_p, first + i, from_float((float)gradient));
    }
}

// factor · Σ values, by one block.
KERNEL __launch_bounds__(256) sum_scaled(IN(double) values, OUT(double) result, int len, float factor, int place) {
    SHARED(double, shared, 256);
    double sum = 0.0;
    for (int i = (int)threadIdx.x; i < len; i += 256) sum += at(values, i);
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) put(result, place, sum * (double)factor);
}

// 1 / ‖row‖ for each row of z [n, d]. A block for each.
KERNEL __launch_bounds__(256) inverse_norms(IN(element) z, OUT(double) inverse, int d) {
    SHARED(double, shared, 256);
    const Index first = (Index)blockIdx.x * d;
    double sum = 0.0;
    for (int i = (int)threadIdx.x; i < d; i += 256) {
        const double value = (double)to_float(at(z, first + i));
        sum += value * value;
    }
    const double norm = sqrt(block_sum(sum, shared));
    if (threadIdx.x == 0) put(inverse, (Index)blockIdx.x, norm < 1e-12 ? 1e12 : 1.0 / norm);
}

// The (unbiased) standard deviation of each column of the normalised rows of z [n, d].
KERNEL __launch_bounds__(256) column_deviations(IN(element) z, IN(double) inverse, OUT(double) deviations, int n, int d) {
    const int column = (int)first_value();
    if (column >= d) return;
    double sum = 0.0, squares = 0.0;
    for (int row = 0; row < n; ++row) {
        const double value = (double)(float)((double)to_float(at(z, (Index)row * d + column)) * at(inverse, row));
        sum += value;
        squares += value * value;
    }
    const double variance = n < 2 ? 0.0 : (squares - sum * sum / n) / (n - 1.0);
    // Rounding can leave a tiny negative number; NaN must stay.
    put(deviations, column, variance < 0.0 ? 0.0 : sqrt(variance));
}
