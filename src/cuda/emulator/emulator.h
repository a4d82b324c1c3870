// A GPU for tests, on one thread of the CPU. The kernels are compiled as C++ behind this file; every thread of a block is
// a fiber that runs until a barrier. What a real device would let pass is an error here: access outside of what a kernel
// was given, arguments of another number or type, a barrier that not all threads reach. Memory begins as NaN.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/mman.h>

#define EMULATED 1
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(threads)
#define KERNEL static void
#define IN(T) emulator::Memory<const T>
#define OUT(T) emulator::Memory<T>
#define SHARED(T, name, count) T* const name = static_cast<T*>(emulator::shared(sizeof(T) * (count)))
#define threadIdx (emulator::self->thread_idx)
#define blockIdx (emulator::device->block_idx)
#define blockDim (emulator::device->block_dim)
#define gridDim (emulator::device->grid_dim)

typedef long long Index;

struct uint3 {
    unsigned x, y, z;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return bits;
}

namespace emulator {

const size_t STACK = 128 << 10;
const size_t MAX_SHARED = 48 << 10;
const unsigned MAX_THREADS = 1024;
const int NOT_A_NUMBER = 0xff;

enum class State { Running, AtWarp, AtBlock, Done };

struct Thread {
    uint3 thread_idx;
    unsigned number;
    State state;
    void* stack_pointer;
    size_t shared_used;
    unsigned num_products;
};

struct Allocation {
    char* map;
    size_t map_len;
    size_t len;
    bool live;
};

// What one warp multiplies: two of each, since a lane may be one product ahead.
struct Fragments {
    float a[2][16][16];
    float b[2][8][16];
};

struct Device {
    std::map<uint64_t, Allocation> allocations;
    std::string error;
    const char* kernel = "";
    bool backwards = false;
    uint3 grid_dim, block_dim, block_idx;
    std::vector<Thread> threads;
    std::vector<Fragments> fragments;
    char* stacks = nullptr;
    void* scheduler = nullptr;
    void (*body)(const void*) = nullptr;
    const void* arguments = nullptr;
    alignas(16) char shared[MAX_SHARED];

    void fail(const std::string& what) {
        if (!error.empty()) return;
        error = std::string("kernel `") + kernel + "`, block (" + std::to_string(block_idx.x) + ", " +
                std::to_string(block_idx.y) + ", " + std::to_string(block_idx.z) + "): " + what;
    }
};

static thread_local Device* device = nullptr;
static thread_local Thread* self = nullptr;

// Saves where this fiber is, and goes on where another one was.
extern "C" void emulator_switch(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulator_switch, .-emulator_switch
)");
const size_t RETURN_WORD = 6;
#elif defined(__aarch64__)
asm(R"(
.text
.p2align 4
.type emulator_switch, %function
emulator_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size emulator_switch, .-emulator_switch
)");
const size_t RETURN_WORD = 11;
#else
#error "the emulator knows how to switch fibers on x86-64 and aarch64 only"
#endif

inline void wait(State state) {
    self->state = state;
    emulator_switch(&self->stack_pointer, device->scheduler);
}

static void fiber() {
    device->body(device->arguments);
    wait(State::Done);
    abort();
}

inline void resume(Device& d, Thread& thread) {
    self = &thread;
    thread.state = State::Running;
    emulator_switch(&d.scheduler, thread.stack_pointer);
}

// Every thread asks for the same memory in the same order.
inline void* shared(size_t bytes) {
    const size_t begin = self->shared_used;
    self->shared_used += (bytes + 15) / 16 * 16;
    if (self->shared_used > MAX_SHARED) {
        device->fail("asks for more than 48 KiB of shared memory");
        return device->shared;
    }
    return device->shared + begin;
}

// Runs one warp until all its threads wait for the block or are done.
inline void run_warp(Device& d, unsigned first, unsigned end) {
    for (;;) {
        unsigned at_warp = 0, elsewhere = 0;
        for (unsigned i = 0; i < end - first; ++i) {
            Thread& thread = d.threads[d.backwards ? end - 1 - i : first + i];
            if (thread.state == State::Running) resume(d, thread);
            (thread.state == State::AtWarp ? at_warp : elsewhere) += 1;
        }
        if (at_warp == 0) return;
        if (elsewhere != 0) d.fail("not all lanes of a warp take part in what a warp does together");
        for (unsigned i = first; i < end; ++i) {
            if (d.threads[i].state == State::AtWarp) d.threads[i].state = State::Running;
        }
    }
}

inline void run_block(Device& d) {
    const unsigned count = d.block_dim.x * d.block_dim.y * d.block_dim.z;
    memset(d.shared, NOT_A_NUMBER, sizeof d.shared);
    for (unsigned i = 0; i < count; ++i) {
        Thread& thread = d.threads[i];
        thread = Thread{};
        thread.number = i;
        thread.thread_idx = {i % d.block_dim.x, i / d.block_dim.x % d.block_dim.y, i / d.block_dim.x / d.block_dim.y};
        // A multiple of 16, as both processors want it.
        uint64_t* frame = reinterpret_cast<uint64_t*>(d.stacks + (i + 1) * STACK) - 32;
        memset(frame, 0, 32 * 8);
        frame[RETURN_WORD] = reinterpret_cast<uint64_t>(&fiber);
        thread.stack_pointer = frame;
    }
    for (;;) {
        const unsigned warps = (count + 31) / 32;
        unsigned at_block = 0;
        for (unsigned i = 0; i < warps; ++i) {
            const unsigned warp = d.backwards ? warps - 1 - i : i;
            run_warp(d, warp * 32, warp * 32 + 32 < count ? warp * 32 + 32 : count);
        }
        for (unsigned i = 0; i < count; ++i) at_block += d.threads[i].state == State::AtBlock;
        if (at_block == 0) return;
        if (at_block != count) d.fail("a barrier that not all threads of the block reach");
        for (unsigned i = 0; i < count; ++i) {
            if (d.threads[i].state == State::AtBlock) d.threads[i].state = State::Running;
        }
    }
}

// Device memory that a kernel was given.
template <class T> struct Memory {
    T* values;
    Index len;

    bool has(Index i, Index count) const {
        if (__builtin_expect(i >= 0 && i + count <= len, 1)) return true;
        device->fail("reaches elements from " + std::to_string(i) + " of " + std::to_string(len));
        return false;
    }
};

// The host's side of a launch: what it gives, and what the kernel takes.
struct Argument {
    uint64_t kind;
    uint64_t value;
    uint64_t bytes;
};
enum Kind : uint64_t { MEMORY, INT, INDEX, FLOAT, NUMBERS };

template <class T> struct Take;
template <class T> struct Take<Memory<T>> {
    static bool take(Device& d, const Argument& a, Memory<T>& out) {
        if (a.kind != MEMORY) return false;
        auto found = d.allocations.upper_bound(a.value);
        const bool known = found != d.allocations.begin();
        if (known) --found;
        if (!known || a.value + a.bytes > found->first + found->second.len) {
            d.fail("is given memory that was never allocated");
        } else if (!found->second.live) {
            d.fail("is given memory that was freed");
        } else if (a.bytes % sizeof(T) != 0 || a.value % sizeof(T) != 0) {
            d.fail("is given memory that does not hold whole values");
        }
        out = {reinterpret_cast<T*>(a.value), static_cast<Index>(a.bytes / sizeof(T))};
        return true;
    }
};
template <> struct Take<int> {
    static bool take(Device&, const Argument& a, int& out) {
        out = static_cast<int>(static_cast<int64_t>(a.value));
        return a.kind == INT;
    }
};
template <> struct Take<Index> {
    static bool take(Device&, const Argument& a, Index& out) {
        out = static_cast<Index>(a.value);
        return a.kind == INDEX;
    }
};
template <> struct Take<float> {
    static bool take(Device&, const Argument& a, float& out) {
        out = __uint_as_float(static_cast<unsigned>(a.value));
        return a.kind == FLOAT;
    }
};
template <class T> struct Take {
    static_assert(std::is_trivially_copyable<T>::value, "a kernel's parameter");
    static bool take(Device&, const Argument& a, T& out) {
        if (a.kind != NUMBERS || a.bytes != sizeof(T)) return false;
        memcpy(&out, reinterpret_cast<const void*>(a.value), sizeof(T));
        return true;
    }
};

template <class... P> struct Call {
    void (*kernel)(P...);
    std::tuple<P...> values;
};

template <class... P, size_t... I>
bool take_all(Device& d, const Argument* arguments, std::tuple<P...>& values, std::index_sequence<I...>) {
    bool fits = true;
    ((fits = Take<P>::take(d, arguments[I], std::get<I>(values)) && fits), ...);
    return fits;
}

template <class... P> void launch(Device& d, void (*kernel)(P...), const Argument* arguments, size_t count) {
    Call<P...> call{kernel, {}};
    if (count != sizeof...(P)) return d.fail("takes " + std::to_string(sizeof...(P)) + " arguments");
    if (!take_all(d, arguments, call.values, std::index_sequence_for<P...>{})) return d.fail("is given arguments of other types");
    if (!d.error.empty()) return;
    const unsigned threads = d.block_dim.x * d.block_dim.y * d.block_dim.z;
    const uint64_t blocks = static_cast<uint64_t>(d.grid_dim.x) * d.grid_dim.y * d.grid_dim.z;
    if (threads == 0 || threads > MAX_THREADS || d.block_dim.z > 64) return d.fail("has too many threads in a block, or none");
    if (blocks == 0 || d.grid_dim.x > 0x7fffffffu || d.grid_dim.y > 65535 || d.grid_dim.z > 65535) {
        return d.fail("has a grid that no device can launch");
    }
    d.threads.resize(threads);
    d.fragments.resize((threads + 31) / 32);
    d.arguments = &call;
    d.body = [](const void* pointer) {
        const Call<P...>& call = *static_cast<const Call<P...>*>(pointer);
        std::apply(call.kernel, call.values);
    };
    for (uint64_t i = 0; i < blocks && d.error.empty(); ++i) {
        const uint64_t block = d.backwards ? blocks - 1 - i : i;
        d.block_idx = {static_cast<unsigned>(block % d.grid_dim.x), static_cast<unsigned>(block / d.grid_dim.x % d.grid_dim.y),
                       static_cast<unsigned>(block / d.grid_dim.x / d.grid_dim.y)};
        run_block(d);
    }
}

}  // namespace emulator

inline void __syncthreads() { emulator::wait(emulator::State::AtBlock); }

template <class T> inline std::remove_const_t<T> at(const emulator::Memory<T>& p, Index i) {
    if (p.has(i, 1)) return p.values[i];
    std::remove_const_t<T> nothing;
    memset(&nothing, emulator::NOT_A_NUMBER, sizeof nothing);
    return nothing;
}
template <class T, class V> inline void put(const emulator::Memory<T>& p, Index i, V value) {
    static_assert(std::is_same<T, V>::value, "a value of the memory's type");
    if (p.has(i, 1)) p.values[i] = value;
}
inline bool aligned(const void* pointer) {
    if (reinterpret_cast<uint64_t>(pointer) % 16 == 0) return true;
    emulator::device->fail("reaches 16 bytes at an address that is no multiple of 16");
    return false;
}
template <class T> inline uint4 load_vector(const emulator::Memory<T>& p, Index i) {
    uint4 v;
    memset(&v, emulator::NOT_A_NUMBER, sizeof v);
    if (p.has(i, 16 / sizeof(T)) && aligned(p.values + i)) memcpy(&v, p.values + i, 16);
    return v;
}
template <class T> inline void store_vector(const emulator::Memory<T>& p, Index i, uint4 v) {
    if (p.has(i, 16 / sizeof(T)) && aligned(p.values + i)) memcpy(p.values + i, &v, 16);
}

#if PRECISION == 2
inline float decode_half(unsigned short bits) { return __uint_as_float(static_cast<unsigned>(bits) << 16); }
// To the nearest, of two equally near the even one.
inline unsigned short encode_half(float value) {
    const unsigned bits = __float_as_uint(value);
    if (value != value) return 0x7fff;
    return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
#elif PRECISION == 3
inline float decode_half(unsigned short bits) {
    const unsigned sign = static_cast<unsigned>(bits & 0x8000u) << 16, exponent = bits >> 10 & 31u, fraction = bits & 0x3ffu;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) {
        const float value = static_cast<float>(fraction) * 0x1p-24f;
        return sign ? -value : value;
    }
    return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
}
// To the nearest, of two equally near the even one; too large becomes infinite.
inline unsigned short encode_half(float value) {
    const unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    if (value != value) return 0x7fff;
    if (rest >= 0x477ff000u) return static_cast<unsigned short>(sign | 0x7c00u);
    if (rest < 0x38800000u) {
        // Multiples of 2^-24: adding a number whose last place is that one rounds to them.
        const float magnitude = __uint_as_float(rest) + 0.5f;
        return static_cast<unsigned short>(sign | (__float_as_uint(magnitude) - __float_as_uint(0.5f)));
    }
    return static_cast<unsigned short>(sign | (rest - (112u << 23) + 0xfffu + (rest >> 13 & 1u)) >> 13);
}
#elif PRECISION == 1
// To the nearest with ten bits of fraction, ties away from zero.
inline unsigned encode_tf32(unsigned bits) {
    if ((bits & 0x7f800000u) == 0x7f800000u) return bits;
    return (bits + 0x1000u) & 0xffffe000u;
}
#endif

#if PRECISION != 0
// What the instruction of this name computes (see prelude.cu), every lane bringing its share.
inline void multiply_fragments(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulator::Thread& thread = *emulator::self;
    emulator::Fragments& warp = emulator::device->fragments[thread.number / 32];
    const unsigned lane = thread.number % 32, group = lane / 4, member = lane % 4, turn = thread.num_products++ % 2;
    // Numbers along the sum that a word holds.
#if PRECISION == 1
    const unsigned per_word = 1;
    const auto number = [](unsigned word, unsigned) {
        // The unit does not look at the bits that encode_tf32 clears.
        return __uint_as_float(word & 0xffffe000u);
    };
#else
    const unsigned per_word = 2;
    const auto number = [](unsigned word, unsigned i) { return decode_half(static_cast<unsigned short>(word >> 16 * i)); };
#endif
    for (unsigned i = 0; i < per_word; ++i) {
        for (unsigned half = 0; half < 2; ++half) {
            const unsigned k = (member + 4 * half) * per_word + i;
            warp.a[turn][group][k] = number(a[2 * half], i);
            warp.a[turn][group + 8][k] = number(a[2 * half + 1], i);
            warp.b[turn][group][k] = number(b[half], i);
        }
    }
    emulator::wait(emulator::State::AtWarp);
    for (unsigned i = 0; i < 4; ++i) {
        const float* row = warp.a[turn][group + 8 * (i / 2)];
        const float* column = warp.b[turn][2 * member + i % 2];
        float sum = 0.0f;
        for (unsigned k = 0; k < 8 * per_word; ++k) sum += row[k] * column[k];
        c[i] += sum;
    }
}
#endif
