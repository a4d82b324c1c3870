// What the tests call; stands behind the kernels and EMULATOR_TABLE, which lists them.

// A kernel with a mistake, to see it noticed.
KERNEL half_a_barrier(OUT(float) y, int threads) {
    if ((int)threadIdx.x < threads) __syncthreads();
    put(y, (Index)threadIdx.x, 1.0f);
}

extern "C" {

void* emulator_new() {
    auto* d = new emulator::Device;
    void* stacks = mmap(nullptr, emulator::STACK * emulator::MAX_THREADS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stacks == MAP_FAILED) abort();
    d->stacks = static_cast<char*>(stacks);
    return d;
}

void emulator_delete(void* device) {
    auto* d = static_cast<emulator::Device*>(device);
    for (auto& entry : d->allocations) munmap(entry.second.map, entry.second.map_len);
    munmap(d->stacks, emulator::STACK * emulator::MAX_THREADS);
    delete d;
}

void emulator_set_order(void* device, int backwards) { static_cast<emulator::Device*>(device)->backwards = backwards != 0; }

// Memory full of NaN that ends where a page ends which nobody may touch; 0 where there is none.
uint64_t emulator_allocate(void* device, size_t len) {
    auto* d = static_cast<emulator::Device*>(device);
    const size_t page = 4096, pages = (len + page - 1) / page * page;
    void* map = mmap(nullptr, pages + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return 0;
    char* begin = static_cast<char*>(map) + page;
    if (pages != 0 && mprotect(begin, pages, PROT_READ | PROT_WRITE) != 0) return 0;
    // Vectors must lie on multiples of 16.
    char* values = begin + (pages - (len + 15) / 16 * 16);
    memset(begin, emulator::NOT_A_NUMBER, pages);
    const uint64_t address = reinterpret_cast<uint64_t>(values);
    d->allocations[address] = {static_cast<char*>(map), pages + 2 * page, len, true};
    return address;
}

// Whether it was memory; it is never given out again.
int emulator_free(void* device, uint64_t address) {
    auto* d = static_cast<emulator::Device*>(device);
    auto found = d->allocations.find(address);
    if (found == d->allocations.end() || !found->second.live) return 0;
    found->second.live = false;
    // Gives the pages back and forbids them.
    mmap(found->second.map, found->second.map_len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    return 1;
}

// Whether a range lies in live memory.
int emulator_owns(void* device, uint64_t address, size_t len) {
    auto* d = static_cast<emulator::Device*>(device);
    auto found = d->allocations.upper_bound(address);
    if (found == d->allocations.begin()) return 0;
    --found;
    return found->second.live && address + len <= found->first + found->second.len;
}

// Runs a kernel; what went wrong, or nothing.
const char* emulator_launch(void* device, const char* name, const unsigned* grid, const unsigned* block,
                            const emulator::Argument* arguments, size_t count) {
    auto& d = *static_cast<emulator::Device*>(device);
    emulator::device = &d;
    d.error.clear();
    d.kernel = name;
    d.block_idx = {0, 0, 0};
    d.grid_dim = {grid[0], grid[1], grid[2]};
    d.block_dim = {block[0], block[1], block[2]};
    bool found = false;
#define ENTRY(kernel)                                      \
    if (!found && strcmp(name, #kernel) == 0) {            \
        found = true;                                      \
        emulator::launch(d, &kernel, arguments, count);    \
    }
    EMULATOR_TABLE
    ENTRY(half_a_barrier)
#undef ENTRY
    if (!found) d.fail("there is no such kernel");
    emulator::device = nullptr;
    return d.error.empty() ? nullptr : d.error.c_str();
}

}
