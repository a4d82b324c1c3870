// Pooling. A max-pool follows a batch norm and is computed with it; padding never wins, and of equal values the first in
// reading order gets the gradient.

// What a max-pool is: y [n, height, width, channels] to out [n, out_height, out_width, channels].
struct Pool {
    int n, height, width, channels, out_height, out_width, kernel, stride, padding;
};

// out = max over windows of relu(y · scale + shift); `winners` says which place of the window won.
KERNEL __launch_bounds__(256) bn_pool(Pool p, IN(element) y, IN(float) statistics, OUT(element) out, OUT(unsigned char) winners,
                                      int images_per_view, int relu) {
    const Index i = first_value();
    if (i >= (Index)p.n * p.out_height * p.out_width * p.channels) return;
    const int channel = (int)(i % p.channels), column = (int)(i / p.channels % p.out_width);
    const int line = (int)(i / p.channels / p.out_width % p.out_height);
    const int image = (int)(i / p.channels / p.out_width / p.out_height);
    const Index s = (Index)(image / images_per_view) * STATISTICS * p.channels + channel;
    const float scale = at(statistics, s + SCALE * p.channels), shift = at(statistics, s + SHIFT * p.channels);
    float best = 0.0f;
    int winner = -1;
    for (int place = 0; place < p.kernel * p.kernel; ++place) {
        const int h = line * p.stride + place / p.kernel - p.padding, w = column * p.stride + place % p.kernel - p.padding;
        if (h < 0 || h >= p.height || w < 0 || w >= p.width) continue;
        const Index from = (((Index)image * p.height + h) * p.width + w) * p.channels + channel;
        float value = to_float(at(y, from)) * scale + shift;
        if (relu) value = rectify(value);
        // NaN wins: it must not be lost.
        if (winner < 0 || value > best || value != value) {
            best = value;
            winner = place;
        }
    }
    put(out, i, from_float(best));
    put(winners, i, (unsigned char)winner);
}

// The gradient d of the pool's output, brought to the places that won: g [n, height, width, channels].
KERNEL __launch_bounds__(256) pool_gradient(Pool p, IN(element) d, IN(unsigned char) winners, OUT(element) g) {
    const Index i = first_value();
    if (i >= (Index)p.n * p.height * p.width * p.channels) return;
    const int channel = (int)(i % p.channels), w = (int)(i / p.channels % p.width);
    const int h = (int)(i / p.channels / p.width % p.height), image = (int)(i / p.channels / p.width / p.height);
    float sum = 0.0f;
    for (int place = 0; place < p.kernel * p.kernel; ++place) {
        const int line = h + p.padding - place / p.kernel, column = w + p.padding - place % p.kernel;
        if (line < 0 || column < 0 || line % p.stride != 0 || column % p.stride != 0) continue;
        const int out_line = line / p.stride, out_column = column / p.stride;
        if (out_line >= p.out_height || out_column >= p.out_width) continue;
        const Index from = (((Index)image * p.out_height + out_line) * p.out_width + out_column) * p.channels + channel;
        if ((int)at(winners, from) == place) sum += to_float(at(d, from));
    }
    put(g, i, from_float(sum));
}

// Mean or maximum over all positions of an image: y [n, channels] of x [n, positions, channels].
KERNEL __launch_bounds__(256) global_pool(IN(element) x, OUT(element) y, int n, int positions, int channels, int maximum) {
    const Index i = first_value();
    if (i >= (Index)n * channels) return;
    const Index first = i / channels * positions * channels + i % channels;
    float result = maximum ? to_float(at(x, first)) : 0.0f;
    for (int position = maximum ? 1 : 0; position < positions; ++position) {
        const float value = to_float(at(x, first + (Index)position * channels));
        if (maximum) {
            result = value > result || value != value ? value : result;
        } else {
            result += value;
        }
    }
    put(y, i, from_float(maximum ? result : result / (float)positions));
}

// dx of the same.
KERNEL __launch_bounds__(256) global_pool_gradient(IN(element) x, IN(element) y, IN(element) dy, OUT(element) dx, int n,
                                                   int positions, int channels, int maximum) {
    const Index i = first_value();
    if (i >= (Index)n * channels) return;
    const Index first = i / channels * positions * channels + i % channels;
    const float gradient = to_float(at(dy, i));
    if (!maximum) {
        const element share = from_float(gradient / (float)positions);
        for (int position = 0; position < positions; ++position) put(dx, first + (Index)position * channels, share);
        return;
    }
    const float best = to_float(at(y, i));
    bool given = false;
    for (int position = 0; position < positions; ++position) {
        const Index place = first + (Index)position * channels;
        const bool wins = !given && to_float(at(x, place)) == best;
        put(dx, place, from_float(wins ? gradient : 0.0f));
        given = given || wins;
    }
}
