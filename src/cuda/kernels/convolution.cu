// Convolution as a product of matrices that are never written down (implicit GEMM): a tile of each is gathered into the
// block's memory, step by step along the sum. Linear layers are convolutions of one position.

// What a convolution is, channels last: x [n, height, width, in], w [kernel, kernel, in, out],
// y [n, out_height, out_width, out].
struct Shape {
    int n, height, width, in_channels, out_height, out_width, out_channels, kernel, stride, padding;
};

#define THREADS 256
#if TENSOR_CORES
// A row of a tile holds 64 bytes along the sum and is 80 long: eight rows then lie in different banks.
#define TILE_DEPTH (64 / (int)sizeof(element))
#define ROW_WORDS 20
#else
#define TILE_DEPTH 16
#endif

__device__ __forceinline__ uint4 no_vector() {
    uint4 v;
    v.x = v.y = v.z = v.w = 0u;
    return v;
}

// VECTOR elements that `element_at` gives one by one.
template <class F> __device__ __forceinline__ uint4 gather(F element_at) {
    float values[VECTOR];
#pragma unroll
    for (int j = 0; j < VECTOR; ++j) values[j] = element_at(j);
    return pack(values);
}

// A source of tiles has rows of the result and a depth along the sum. A cursor stands at the VECTOR elements from a row and
// a depth on, along the sum if ALONG_DEPTH and along the rows otherwise; `next` gives them, zeros outside, and goes on by
// the depth of a tile. WIDE ones read a vector at once, which must then lie within one position.

// (kernel row, kernel column, channel), walked along.
struct Taps {
    int row, column, channel;

    __device__ __forceinline__ Taps() {}
    __device__ __forceinline__ Taps(int depth, int channels, int kernel) {
        const int tap = depth / channels;
        channel = depth - tap * channels;
        row = tap / kernel;
        column = tap - row * kernel;
    }
    __device__ __forceinline__ void advance(int channels, int kernel) {
        channel += TILE_DEPTH;
        while (channel >= channels) {
            channel -= channels;
            if (++column == kernel) {
                column = 0;
                ++row;
            }
        }
    }
};

// (image, line, column) of a position.
struct Position {
    int image, line, column;

    __device__ __forceinline__ Position() {}
    __device__ __forceinline__ Position(int position, int height, int width) {
        const int lines = position / width;
        column = position - lines * width;
        image = lines / height;
        line = lines - image * height;
    }
};

// Windows of x, forward: a row is an output position, the depth is (kernel row, kernel column, channel).
template <bool WIDE> struct Windows {
    static const bool ALONG_DEPTH = true;
    IN(element) x;
    Shape s;

    struct Cursor {
        Position position;
        Taps taps;
        int row, depth;
    };
    __device__ __forceinline__ Cursor start(int row, int depth) const {
        return {Position(row, s.out_height, s.out_width), Taps(depth, s.in_channels, s.kernel), row, depth};
    }
    // Where in x this is, or −1.
    __device__ __forceinline__ Index place(const Position& p, const Taps& taps) const {
        const int h = p.line * s.stride + taps.row - s.padding, w = p.column * s.stride + taps.column - s.padding;
        if (taps.row >= s.kernel || h < 0 || h >= s.height || w < 0 || w >= s.width) return -1;
        return (((Index)p.image * s.height + h) * s.width + w) * s.in_channels + taps.channel;
    }
    __device__ __forceinline__ uint4 next(Cursor& c) const {
        uint4 v = no_vector();
        if (c.row < s.n * s.out_height * s.out_width) {
            if (WIDE) {
                const Index i = place(c.position, c.taps);
                if (i >= 0) v = load_vector(x, i);
            } else {
                v = gather([&](int j) {
                    const Index i = place(c.position, Taps(c.depth + j, s.in_channels, s.kernel));
                    return i < 0 ? 0.0f : to_float(at(x, i));
                });
            }
        }
        c.depth += TILE_DEPTH;
        if (WIDE) c.taps.advance(s.in_channels, s.kernel);
        return v;
    }
};

// Windows of x for the weight's gradient: a row is (kernel row, kernel column, channel), the depth an output position.
template <bool WIDE> struct TurnedWindows {
    static const bool ALONG_DEPTH = false;
    Windows<WIDE> windows;

    struct Cursor {
        Taps taps;
        int row, depth;
    };
    __device__ __forceinline__ Cursor start(int row, int depth) const {
        return {Taps(row, windows.s.in_channels, windows.s.kernel), row, depth};
    }
    __device__ __forceinline__ uint4 next(Cursor& c) const {
        const Shape& s = windows.s;
        uint4 v = no_vector();
        if (c.depth < s.n * s.out_height * s.out_width) {
            const Position position(c.depth, s.out_height, s.out_width);
            if (WIDE) {
                const Index i = windows.place(position, c.taps);
                if (i >= 0) v = load_vector(windows.x, i);
            } else {
                v = gather([&](int j) {
                    const Index i = windows.place(position, Taps(c.row + j, s.in_channels, s.kernel));
                    return i < 0 ? 0.0f : to_float(at(windows.x, i));
                });
            }
        }
        c.depth += TILE_DEPTH;
        return v;
    }
};

// The gradients that reach a position of x: a row is that position, the depth (kernel row, kernel column, out channel).
template <bool WIDE> struct Reached {
    static const bool ALONG_DEPTH = true;
    IN(element) dy;
    Shape s;

    struct Cursor {
        Position position;
        Taps taps;
        int row, depth;
    };
    __device__ __forceinline__ Cursor start(int row, int depth) const {
        return {Position(row, s.height, s.width), Taps(depth, s.out_channels, s.kernel), row, depth};
    }
    __device__ __forceinline__ Index place(const Position& p, const Taps& taps) const {
        int line = p.line + s.padding - taps.row, column = p.column + s.padding - taps.column;
        if (taps.row >= s.kernel || line < 0 || column < 0) return -1;
        if (s.stride != 1) {
            if (line % s.stride != 0 || column % s.stride != 0) return -1;
            line /= s.stride;
            column /= s.stride;
        }
        if (line >= s.out_height || column >= s.out_width) return -1;
        return (((Index)p.image * s.out_height + line) * s.out_width + column) * s.out_channels + taps.channel;
    }
    __device__ __forceinline__ uint4 next(Cursor& c) const {
        uint4 v = no_vector();
        if (c.row < s.n * s.height * s.width) {
            if (WIDE) {
                const Index i = place(c.position, c.taps);
                if (i >= 0) v = load_vector(dy, i);
            } else {
                v = gather([&](int j) {
                    const Index i = place(c.position, Taps(c.depth + j, s.out_channels, s.kernel));
                    return i < 0 ? 0.0f : to_float(at(dy, i));
                });
            }
        }
        c.depth += TILE_DEPTH;
        if (WIDE) c.taps.advance(s.out_channels, s.kernel);
        return v;
    }
};

// The kernel on the way back: a row is an in channel, the depth (kernel row, kernel column, out channel).
template <bool WIDE> struct TurnedKernel {
    static const bool ALONG_DEPTH = true;
    IN(element) w;
    Shape s;

    struct Cursor {
        Taps taps;
        int row, depth;
    };
    __device__ __forceinline__ Cursor start(int row, int depth) const {
        return {Taps(depth, s.out_channels, s.kernel), row, depth};
    }
    __device__ __forceinline__ Index place(int row, const Taps& taps) const {
        return ((Index)(taps.row * s.kernel + taps.column) * s.in_channels + row) * s.out_channels + taps.channel;
    }
    __device__ __forceinline__ uint4 next(Cursor& c) const {
        uint4 v = no_vector();
        if (c.row < s.in_channels) {
            if (WIDE) {
                if (c.taps.row < s.kernel) v = load_vector(w, place(c.row, c.taps));
            } else {
                v = gather([&](int j) {
                    const Taps taps(c.depth + j, s.out_channels, s.kernel);
                    return taps.row < s.kernel ? to_float(at(w, place(c.row, taps))) : 0.0f;
                });
            }
        }
        c.depth += TILE_DEPTH;
        if (WIDE) c.taps.advance(s.out_channels, s.kernel);
        return v;
    }
};

// A matrix [depths, rows] as it lies.
template <bool WIDE> struct Plain {
    static const bool ALONG_DEPTH = false;
    IN(element) values;
    int depths, rows;

    struct Cursor {
        int row, depth;
    };
    __device__ __forceinline__ Cursor start(int row, int depth) const { return {row, depth}; }
    __device__ __forceinline__ uint4 next(Cursor& c) const {
        uint4 v = no_vector();
        const Index i = (Index)c.depth * rows + c.row;
        if (c.depth < depths && c.row < rows) {
            v = WIDE ? load_vector(values, i)
                     : gather([&](int j) { return c.row + j < rows ? to_float(at(values, i + j)) : 0.0f; });
        }
        c.depth += TILE_DEPTH;
        return v;
    }
};

// A tile of one operand in the block's memory.
template <int ROWS> struct Tile {
#if TENSOR_CORES
    typedef unsigned Word;
    static const int WORDS = ROWS * ROW_WORDS;
#else
    typedef float Word;
    static const int WORDS = TILE_DEPTH * (ROWS + 4);
#endif
    static const int VECTORS = ROWS * TILE_DEPTH / VECTOR;
    static const int PER_THREAD = VECTORS / THREADS;

    // Where vector number `idx` of a tile begins. Neighbouring threads go along the sum.
    template <bool ALONG_DEPTH> static __device__ __forceinline__ void place(int idx, int& row, int& depth) {
        if (ALONG_DEPTH) {
            row = idx / (TILE_DEPTH / VECTOR);
            depth = idx % (TILE_DEPTH / VECTOR) * VECTOR;
        } else {
            row = idx / TILE_DEPTH * VECTOR;
            depth = idx % TILE_DEPTH;
        }
    }

    // The cursors of this thread.
    template <class Source> struct Cursors {
        typename Source::Cursor at[PER_THREAD];
    };

    // What the cursors stand at before `end`.
    template <class Source>
    static __device__ __forceinline__ void fetch(const Source& source, Cursors<Source>& cursors, int end,
                                                 uint4 (&vectors)[PER_THREAD]) {
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) {
            vectors[i] = cursors.at[i].depth < end ? source.next(cursors.at[i]) : no_vector();
        }
    }

    template <class Source>
    static __device__ __forceinline__ Cursors<Source> start_all(const Source& source, int first_row, int first_depth) {
        Cursors<Source> cursors;
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) {
            int row, depth;
            place<Source::ALONG_DEPTH>(i * THREADS + (int)threadIdx.x, row, depth);
            cursors.at[i] = source.start(first_row + row, first_depth + depth);
        }
        return cursors;
    }

    template <bool ALONG_DEPTH>
    static __device__ __forceinline__ void keep(Word* tile, const uint4 (&vectors)[PER_THREAD]) {
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) {
            int row, depth;
            place<ALONG_DEPTH>(i * THREADS + (int)threadIdx.x, row, depth);
            uint4 v = vectors[i];
#if PRECISION == 1
            v.x = encode_tf32(v.x);
            v.y = encode_tf32(v.y);
            v.z = encode_tf32(v.z);
            v.w = encode_tf32(v.w);
#endif
#if TENSOR_CORES
            if (ALONG_DEPTH) {
                *reinterpret_cast<uint4*>(tile + row * ROW_WORDS + depth * (int)sizeof(element) / 4) = v;
            } else {
#pragma unroll
                for (int j = 0; j < VECTOR; ++j) {
#if HALF_WIDTH
                    const unsigned word = word_of(v, j / 2);
                    reinterpret_cast<unsigned short*>(tile + (row + j) * ROW_WORDS)[depth] =
                        (unsigned short)(j % 2 == 0 ? word & 0xffffu : word >> 16);
#else
                    tile[(row + j) * ROW_WORDS + depth] = word_of(v, j);
#endif
                }
            }
#else
            if (ALONG_DEPTH) {
#pragma unroll
                for (int j = 0; j < VECTOR; ++j) tile[(depth + j) * (ROWS + 4) + row] = __uint_as_float(word_of(v, j));
            } else {
                *reinterpret_cast<uint4*>(tile + depth * (ROWS + 4) + row) = v;
            }
#endif
        }
    }
};

// The tile of a · b that begins at (first_row, first_column), summed over depths from `begin` to `end`, given value by
// value to `store(row, column, value)`. All threads of the block take part.
template <int ROWS, int COLUMNS, class A, class B, class Store>
__device__ __forceinline__ void product(const A& a, const B& b, int first_row, int first_column, int begin, int end,
                                        Store store) {
    typedef Tile<ROWS> TileA;
    typedef Tile<COLUMNS> TileB;
    SHARED(typename TileA::Word, tile_a, TileA::WORDS);
    SHARED(typename TileB::Word, tile_b, TileB::WORDS);
    uint4 next_a[TileA::PER_THREAD], next_b[TileB::PER_THREAD];
    typename TileA::template Cursors<A> cursors_a = TileA::start_all(a, first_row, begin);
    typename TileB::template Cursors<B> cursors_b = TileB::start_all(b, first_column, begin);
    TileA::fetch(a, cursors_a, end, next_a);
    TileB::fetch(b, cursors_b, end, next_b);
    const int thread = (int)threadIdx.x;
#if TENSOR_CORES
    // Eight warps: two along the rows, four along the columns.
    const int warp = thread / 32, group = thread % 32 / 4, member = thread % 4;
    const int warp_row = warp / 4 * (ROWS / 2), warp_column = warp % 4 * (COLUMNS / 4);
    const int ROW_PARTS = ROWS / 32, COLUMN_PARTS = COLUMNS / 32;
    float sums[ROW_PARTS][COLUMN_PARTS][4] = {};
#else
    const int part_row = thread / 16 * (ROWS / 16), part_column = thread % 16 * (COLUMNS / 16);
    float sums[ROWS / 16][COLUMNS / 16] = {};
#endif
    for (int depth = begin; depth < end; depth += TILE_DEPTH) {
        TileA::template keep<A::ALONG_DEPTH>(tile_a, next_a);
        TileB::template keep<B::ALONG_DEPTH>(tile_b, next_b);
        __syncthreads();
        // What comes next is on its way while this is multiplied.
        if (depth + TILE_DEPTH < end) {
            TileA::fetch(a, cursors_a, end, next_a);
            TileB::fetch(b, cursors_b, end, next_b);
        }
#if TENSOR_CORES
#pragma unroll
        for (int step = 0; step < 2; ++step) {
            const int word = step * 8 + member;
            unsigned rows[ROW_PARTS][4], columns[COLUMN_PARTS][2];
#pragma unroll
            for (int i = 0; i < ROW_PARTS; ++i) {
                const unsigned* row = tile_a + (warp_row + i * 16 + group) * ROW_WORDS + word;
                rows[i][0] = row[0];
                rows[i][1] = row[8 * ROW_WORDS];
                rows[i][2] = row[4];
                rows[i][3] = row[8 * ROW_WORDS + 4];
            }
#pragma unroll
            for (int j = 0; j < COLUMN_PARTS; ++j) {
                const unsigned* column = tile_b + (warp_column + j * 8 + group) * ROW_WORDS + word;
                columns[j][0] = column[0];
                columns[j][1] = column[4];
            }
#pragma unroll
            for (int i = 0; i < ROW_PARTS; ++i) {
#pragma unroll
                for (int j = 0; j < COLUMN_PARTS; ++j) multiply_fragments(sums[i][j], rows[i], columns[j]);
            }
        }
#else
#pragma unroll
        for (int k = 0; k < TILE_DEPTH; ++k) {
            const float* row = tile_a + k * (ROWS + 4) + part_row;
            const float* column = tile_b + k * (COLUMNS + 4) + part_column;
#pragma unroll
            for (int i = 0; i < ROWS / 16; ++i) {
#pragma unroll
                for (int j = 0; j < COLUMNS / 16; ++j) sums[i][j] += row[i] * column[j];
            }
        }
#endif
        __syncthreads();
    }
#if TENSOR_CORES
#pragma unroll
    for (int i = 0; i < ROW_PARTS; ++i) {
#pragma unroll
        for (int j = 0; j < COLUMN_PARTS; ++j) {
            const int row = first_row + warp_row + i * 16 + group;
            const int column = first_column + warp_column + j * 8 + member * 2;
#pragma unroll
            for (int k = 0; k < 4; ++k) store(row + k / 2 * 8, column + k % 2, sums[i][j][k]);
        }
    }
#else
#pragma unroll
    for (int i = 0; i < ROWS / 16; ++i) {
#pragma unroll
        for (int j = 0; j < COLUMNS / 16; ++j) store(first_row + part_row + i, first_column + part_column + j, sums[i][j]);
    }
#endif
}

// Blocks: x along the rows of the result, y along its columns.
template <int TILE, bool WIDE> __device__ __forceinline__ void forward(Shape s, IN(element) x, IN(element) w, OUT(element) y) {
    const int rows = s.n * s.out_height * s.out_width, depths = s.kernel * s.kernel * s.in_channels;
    const int columns = s.out_channels;
    const Windows<WIDE> a = {x, s};
    const Plain<WIDE> b = {w, depths, columns};
    product<TILE, TILE>(a, b, (int)blockIdx.x * TILE, (int)blockIdx.y * TILE, 0, depths, [&](int row, int column, float value) {
        if (row < rows && column < columns) put(y, (Index)row * columns + column, from_float(value));
    });
}

template <int TILE, bool WIDE>
__device__ __forceinline__ void data_gradient(Shape s, IN(element) dy, IN(element) w, OUT(element) dx, int accumulate) {
    const int rows = s.n * s.height * s.width, depths = s.kernel * s.kernel * s.out_channels, columns = s.in_channels;
    const Reached<WIDE> a = {dy, s};
    const TurnedKernel<WIDE> b = {w, s};
    product<TILE, TILE>(a, b, (int)blockIdx.x * TILE, (int)blockIdx.y * TILE, 0, depths, [&](int row, int column, float value) {
        if (row >= rows || column >= columns) return;
        const Index i = (Index)row * columns + column;
        put(dx, i, from_float(accumulate ? to_float(at(dx, i)) + value : value));
    });
}

// Block z sums `part` output positions; its result is number z in `partial`.
template <int TILE, bool WIDE>
__device__ __forceinline__ void weight_gradient(Shape s, IN(element) x, IN(element) dy, OUT(float) partial, int part) {
    const int rows = s.kernel * s.kernel * s.in_channels, depths = s.n * s.out_height * s.out_width;
    const int columns = s.out_channels;
    const TurnedWindows<WIDE> a = {{x, s}};
    const Plain<WIDE> b = {dy, depths, columns};
    const int begin = (int)blockIdx.z * part, end = begin + part < depths ? begin + part : depths;
    product<TILE, TILE>(a, b, (int)blockIdx.x * TILE, (int)blockIdx.y * TILE, begin, end, [&](int row, int column, float value) {
        if (row < rows && column < columns) put(partial, ((Index)blockIdx.z * rows + row) * columns + column, value);
    });
}

#define CONVOLUTION(TILE, NAME, WIDE)                                                                                  \
    KERNEL __launch_bounds__(THREADS) conv_forward_##TILE##_##NAME(Shape s, IN(element) x, IN(element) w, OUT(element) y) { \
        forward<TILE, WIDE>(s, x, w, y);                                                                               \
    }                                                                                                                  \
    KERNEL __launch_bounds__(THREADS) conv_data_gradient_##TILE##_##NAME(Shape s, IN(element) dy, IN(element) w,       \
                                                                        OUT(element) dx, int accumulate) {            \
        data_gradient<TILE, WIDE>(s, dy, w, dx, accumulate);                                                           \
    }                                                                                                                  \
    KERNEL __launch_bounds__(THREADS) conv_weight_gradient_##TILE##_##NAME(Shape s, IN(element) x, IN(element) dy,     \
                                                                          OUT(float) partial, int part) {             \
        weight_gradient<TILE, WIDE>(s, x, dy, partial, part);                                                          \
    }

CONVOLUTION(64, wide, true)
CONVOLUTION(64, narrow, false)
CONVOLUTION(128, wide, true)
CONVOLUTION(128, narrow, false)

// The parts of a weight gradient, summed in order.
KERNEL __launch_bounds__(THREADS) sum_parts(IN(float) partial, OUT(float) sum, Index len, int parts, int accumulate) {
    const Index i = first_value();
    if (i >= len) return;
    float value = 0.0f;
    for (int part = 0; part < parts; ++part) value += at(partial, part * len + i);
    put(sum, i, accumulate ? at(sum, i) + value : value);
}
