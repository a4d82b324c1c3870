// What every kernel is written in. PRECISION says how activations and their gradients are stored and how tiles are
// multiplied: 0 f32, 1 tf32, 2 bf16, 3 f16. Sums, statistics and trained values are f32 or f64 throughout.
//
// Device memory is reached through at, put, load_vector and store_vector only: the emulator replaces them, and the
// other definitions of the first part, by ones that check (emulator/emulator.h).

#define TENSOR_CORES (PRECISION != 0)
#define HALF_WIDTH (PRECISION >= 2)

#ifndef EMULATED

#define KERNEL extern "C" __global__ void
#define IN(T) const T* __restrict__
#define OUT(T) T* __restrict__
// Memory of the block: a row of values.
#define SHARED(T, name, count) __shared__ __align__(16) T name[count]

typedef long long Index;

template <class T> __device__ __forceinline__ T at(const T* p, Index i) { return p[i]; }
template <class T> __device__ __forceinline__ void put(T* p, Index i, T value) { p[i] = value; }
template <class T> __device__ __forceinline__ uint4 load_vector(const T* p, Index i) {
    return *reinterpret_cast<const uint4*>(p + i);
}
template <class T> __device__ __forceinline__ void store_vector(T* p, Index i, uint4 value) {
    *reinterpret_cast<uint4*>(p + i) = value;
}

#if PRECISION == 2
__device__ __forceinline__ float decode_half(unsigned short bits) { return __uint_as_float((unsigned)bits << 16); }
__device__ __forceinline__ unsigned short encode_half(float value) {
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#elif PRECISION == 3
__device__ __forceinline__ float decode_half(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
__device__ __forceinline__ unsigned short encode_half(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#elif PRECISION == 1
// The nearest number that a tensor core takes for an f32.
__device__ __forceinline__ unsigned encode_tf32(unsigned value) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(__uint_as_float(value)));
    return bits;
}
#endif

#if TENSOR_CORES
// c [16, 8] += a [16, 32 bytes] · b [32 bytes, 8] by all lanes of a warp (PTX ISA, "Matrix Fragments for mma.m16n8k16"
// and "mma.m16n8k8"). With g = lane / 4 and t = lane % 4, a word of a or b being 4 bytes along the sum:
// a = words t of rows g and g + 8, then words t + 4 of the same rows; b = words t and t + 4 of column g;
// c = columns 2t and 2t + 1 of row g, then of row g + 8.
__device__ __forceinline__ void multiply_fragments(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if PRECISION == 1
#define INSTRUCTION "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
#elif PRECISION == 2
#define INSTRUCTION "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
#else
#define INSTRUCTION "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
#endif
    asm volatile(INSTRUCTION " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#undef INSTRUCTION
}
#endif

#endif  // EMULATED

#if HALF_WIDTH
// An activation or its gradient.
struct element {
    unsigned short bits;
};
__device__ __forceinline__ float to_float(element value) { return decode_half(value.bits); }
__device__ __forceinline__ element from_float(float value) { return element{encode_half(value)}; }
#else
typedef float element;
__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float from_float(float value) { return value; }
#endif

// Elements in 16 bytes.
#define VECTOR (16 / (int)sizeof(element))

__device__ __forceinline__ unsigned word_of(uint4 v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

// The elements of 16 bytes as numbers, and back.
__device__ __forceinline__ void unpack(uint4 v, float (&values)[VECTOR]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#if HALF_WIDTH
        values[2 * i] = decode_half((unsigned short)(word_of(v, i) & 0xffffu));
        values[2 * i + 1] = decode_half((unsigned short)(word_of(v, i) >> 16));
#else
        values[i] = __uint_as_float(word_of(v, i));
#endif
    }
}

__device__ __forceinline__ unsigned pack_word(const float* values) {
#if HALF_WIDTH
    return (unsigned)encode_half(values[0]) | ((unsigned)encode_half(values[1]) << 16);
#else
    return __float_as_uint(values[0]);
#endif
}

__device__ __forceinline__ uint4 pack(const float (&values)[VECTOR]) {
    const int step = VECTOR / 4;
    uint4 v;
    v.x = pack_word(values);
    v.y = pack_word(values + step);
    v.z = pack_word(values + 2 * step);
    v.w = pack_word(values + 3 * step);
    return v;
}

// VECTOR elements from i on, in one access where `wide` says that they lie on 16 bytes; beyond `len` there are zeros.
template <class P> __device__ __forceinline__ void read(const P& p, Index i, Index len, int wide, float (&values)[VECTOR]) {
    if (wide) {
        unpack(load_vector(p, i), values);
        return;
    }
#pragma unroll
    for (int j = 0; j < VECTOR; ++j) values[j] = i + j < len ? to_float(at(p, i + j)) : 0.0f;
}

template <class P> __device__ __forceinline__ void write(const P& p, Index i, Index len, int wide, const float (&values)[VECTOR]) {
    if (wide) {
        store_vector(p, i, pack(values));
        return;
    }
#pragma unroll
    for (int j = 0; j < VECTOR; ++j) {
        if (i + j < len) put(p, i + j, from_float(values[j]));
    }
}

// The first of the VECTOR elements of this thread.
__device__ __forceinline__ Index first_element() {
    return ((Index)blockIdx.x * blockDim.x + threadIdx.x) * VECTOR;
}

__device__ __forceinline__ Index first_value() { return (Index)blockIdx.x * blockDim.x + threadIdx.x; }

// Not fmaxf, which would turn NaN into 0 and hide a training that has gone wrong.
__device__ __forceinline__ float rectify(float value) { return value < 0.0f ? 0.0f : value; }

// The sum over all 256 threads of a block, in an order that is always the same, in every thread.
__device__ __forceinline__ double block_sum(double value, double* shared) {
    const int thread = (int)threadIdx.x;
    shared[thread] = value;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (thread < half) shared[thread] += shared[thread + half];
        __syncthreads();
    }
    double sum = shared[0];
    __syncthreads();
    return sum;
}
