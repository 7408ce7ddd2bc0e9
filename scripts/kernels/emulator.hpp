// Runs one CUDA kernel on the CPU, slowly and exactly: a block at a time, its threads as fibers that synchronize at barriers and at the
// instructions of a warp or a warp group. Inline PTX has been replaced by calls of `emu::execute` (see emulate.py).
//
// It finds errors that a GPU doesn't report: asynchronous copies complete only when they are waited for, shared memory is initialized to
// NaN, addresses outside the shared allocation or outside a buffer end the program, and the order of fibers can be chosen.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

namespace emu {

struct Dim { unsigned x = 1, y = 1, z = 1; };

// Every asm operand, whatever its type.
struct Register {
    uint64_t bits = 0;
    Register() = default;
    Register(float value) { uint32_t b; std::memcpy(&b, &value, 4); bits = b; }
    Register(unsigned value) : bits(value) {}
    Register(int value) : bits(uint32_t(value)) {}
    Register(unsigned long long value) : bits(value) {}
    Register(unsigned long value) : bits(value) {}
    template <typename T> Register(T *pointer) : bits(reinterpret_cast<uint64_t>(pointer)) {}
    float f() const { float value; uint32_t b = uint32_t(bits); std::memcpy(&value, &b, 4); return value; }
    uint32_t u() const { return uint32_t(bits); }
};
inline void assign(float &to, Register from) { to = from.f(); }
inline void assign(unsigned &to, Register from) { to = from.u(); }
inline void assign(int &to, Register from) { to = int(from.u()); }
inline void assign(unsigned long long &to, Register from) { to = from.bits; }
inline void assign(unsigned long &to, Register from) { to = from.bits; }

enum Kind {
    TO_SHARED, TO_GLOBAL, COPY, COMMIT, WAIT, FENCE, EX2, LG2, RCP, PACK, UNPACK, LOAD_SHARED, STORE_SHARED, LOAD_GLOBAL,
    MMA, LDMATRIX, WGMMA, MOVE
};
// The meaning of an asm text; emulate.py translates texts.
struct Op {
    Kind kind;
    int size = 0;       // bytes of a copy, groups left pending, half of a pair, columns of a result, registers moved
    bool half = false;  // f16 instead of bf16
    bool trans = false; // transposed right operand
    bool registers = false; // left operand of WGMMA in registers
    bool accumulates = false; // results start from operands
    int steps = 0;      // slices of 16
};

struct Copy { uint32_t to; uint64_t from; unsigned size, bytes; };
struct Fiber {
    ucontext_t context;
    Dim thread;
    unsigned id = 0;
    bool done = false;
    std::vector<Copy> open;
    std::vector<std::vector<Copy>> groups;
};
// Threads that execute an instruction together: a warp, a warp group or the block.
struct Meeting {
    unsigned size = 0, arrived = 0;
    uint64_t generation = 0;
    std::vector<const Register *> in;
    std::vector<Register *> out;
};

constexpr uint32_t SHARED_BASE = 1024; // an address in the shared state space; tiles are aligned to 1024
inline std::vector<Fiber> fibers;
inline std::vector<Meeting> warps, groups;
inline Meeting block;
inline Fiber *current = nullptr;
inline ucontext_t scheduler;
inline char *shared = nullptr;
inline size_t shared_size = 0;
inline Dim block_index, block_size, grid_size;
inline std::vector<std::pair<uint64_t, uint64_t>> buffers;
inline std::function<void()> body;

[[noreturn]] inline void fail(const std::string &what) {
    std::fprintf(stderr, "block (%u, %u, %u), thread %u: %s\n", block_index.x, block_index.y, block_index.z,
                 current ? current->id : 0, what.c_str());
    std::_Exit(3);
}

inline char *shared_at(uint64_t address, unsigned bytes) {
    if (address < SHARED_BASE || address + bytes > SHARED_BASE + shared_size) fail("address outside shared memory");
    if (address % bytes) fail("misaligned address in shared memory");
    return shared + (address - SHARED_BASE);
}
inline char *global_at(uint64_t address, unsigned bytes) {
    for (auto [start, end] : buffers)
        if (address >= start && address + bytes <= end) {
            if (address % bytes) fail("misaligned address in a buffer");
            return reinterpret_cast<char *>(address);
        }
    fail("address outside every buffer");
}

inline void yield() { swapcontext(&current->context, &scheduler); }
// All threads of `meeting` arrive; the last does `work`; then all continue.
template <typename Work> inline void meet(Meeting &meeting, unsigned place, const Register *in, Register *out, Work work) {
    meeting.in[place] = in;
    meeting.out[place] = out;
    uint64_t generation = meeting.generation;
    if (++meeting.arrived == meeting.size) {
        work();
        meeting.arrived = 0;
        meeting.generation++;
    } else {
        while (meeting.generation == generation) yield();
    }
}
inline void barrier() { meet(block, current->id, nullptr, nullptr, [] {}); }

inline uint16_t round_bf16(float x) {
    uint32_t b;
    std::memcpy(&b, &x, 4);
    if (std::isnan(x)) return 0x7fff;
    return uint16_t((b + 0x7fff + ((b >> 16) & 1)) >> 16);
}
inline float widen(uint16_t bits, bool half) {
    if (half) {
        _Float16 h;
        std::memcpy(&h, &bits, 2);
        return float(h);
    }
    uint32_t b = uint32_t(bits) << 16;
    float x;
    std::memcpy(&x, &b, 4);
    return x;
}
inline uint16_t narrow(float x, bool half) {
    if (!half) return round_bf16(x);
    _Float16 h = _Float16(x);
    uint16_t bits;
    std::memcpy(&bits, &h, 2);
    return bits;
}
inline float part(uint32_t pair, int i, bool half) { return widen(uint16_t(pair >> (16 * i)), half); }

// D[16, 8] = C + A[16, 16] · B[16, 8]; operands: A (4), B (2), C (4).
inline void mma(const Op &op, Meeting &warp) {
    float a[16][16], b[16][8], c[16][8];
    for (unsigned lane = 0; lane < 32; lane++) {
        const Register *in = warp.in[lane];
        unsigned g = lane / 4, t = lane % 4 * 2;
        for (int r = 0; r < 4; r++)
            for (int i = 0; i < 2; i++) a[g + r % 2 * 8][t + i + r / 2 * 8] = part(in[r].u(), i, op.half);
        for (int r = 0; r < 2; r++)
            for (int i = 0; i < 2; i++) b[t + i + r * 8][g] = part(in[4 + r].u(), i, op.half);
        for (int r = 0; r < 4; r++) c[g + r / 2 * 8][t + r % 2] = in[6 + r].f();
    }
    for (auto m = 0; m < 16; m++)
        for (auto n = 0; n < 8; n++) {
            float sum = c[m][n];
            for (auto k = 0; k < 16; k++) sum += a[m][k] * b[k][n];
            c[m][n] = sum;
        }
    for (unsigned lane = 0; lane < 32; lane++)
        for (int r = 0; r < 4; r++) warp.out[lane][r] = Register(c[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2]);
}

inline void ldmatrix(const Op &op, Meeting &warp) {
    uint16_t matrices[4][8][8];
    for (unsigned lane = 0; lane < 32; lane++)
        std::memcpy(matrices[lane / 8][lane % 8], shared_at(warp.in[lane][0].u(), 16), 16);
    for (unsigned lane = 0; lane < 32; lane++)
        for (int m = 0; m < 4; m++) {
            unsigned g = lane / 4, t = lane % 4 * 2;
            uint16_t low = op.trans ? matrices[m][t][g] : matrices[m][g][t];
            uint16_t high = op.trans ? matrices[m][t + 1][g] : matrices[m][g][t + 1];
            warp.out[lane][m] = Register(uint32_t(low) | uint32_t(high) << 16);
        }
}

// Element `column` of row `row` of a tile of 128-byte rows under the 128-byte swizzle.
inline float tile_element(uint64_t descriptor, unsigned row, unsigned column, bool half) {
    uint32_t start = uint32_t(descriptor & 0x3fff) << 4;
    uint32_t address = start + row / 8 * 1024 + row % 8 * 128 + column * 2;
    address ^= (address >> 7 & 7) << 4;
    uint16_t bits;
    std::memcpy(&bits, shared_at(address, 2), 2);
    return widen(bits, half);
}

// D[64, n] (+)= A[64, 16 steps] · B; operands: the result's old value where it accumulates, then A's registers or descriptor,
// then B's descriptor.
inline void wgmma(const Op &op, Meeting &group) {
    int registers = op.size / 2, first = op.accumulates ? registers : 0, inner = 16 * op.steps;
    std::vector<float> a(64 * inner), d(64 * op.size);
    for (unsigned lane = 0; lane < 128; lane++) {
        const Register *in = group.in[lane];
        unsigned g = lane / 32 * 16 + lane % 32 / 4, t = lane % 4 * 2;
        if (op.registers)
            for (int s = 0; s < op.steps; s++)
                for (int r = 0; r < 4; r++)
                    for (int i = 0; i < 2; i++)
                        a[(g + r % 2 * 8) * inner + s * 16 + t + i + r / 2 * 8] = part(in[first + s * 4 + r].u(), i, op.half);
        for (int r = 0; r < registers; r++)
            d[(g + r % 4 / 2 * 8) * op.size + r / 4 * 8 + t + r % 2] = op.accumulates ? in[r].f() : 0.0f;
    }
    uint64_t left = group.in[0][first].bits;
    uint64_t right = group.in[0][first + (op.registers ? 4 * op.steps : 1)].bits;
    if (!op.registers)
        for (int m = 0; m < 64; m++)
            for (int k = 0; k < inner; k++) a[m * inner + k] = tile_element(left, m, k, op.half);
    for (int n = 0; n < op.size; n++)
        for (int k = 0; k < inner; k++) {
            float b = op.trans ? tile_element(right, k, n, op.half) : tile_element(right, n, k, op.half);
            for (int m = 0; m < 64; m++) d[m * op.size + n] += a[m * inner + k] * b;
        }
    for (unsigned lane = 0; lane < 128; lane++) {
        unsigned g = lane / 32 * 16 + lane % 32 / 4, t = lane % 4 * 2;
        for (int r = 0; r < registers; r++)
            group.out[lane][r] = Register(d[(g + r % 4 / 2 * 8) * op.size + r / 4 * 8 + t + r % 2]);
    }
}

inline void land(const std::vector<Copy> &copies) {
    for (const Copy &copy : copies) {
        char *to = shared_at(copy.to, copy.size);
        std::memset(to, 0, copy.size);
        if (copy.bytes) std::memcpy(to, global_at(copy.from, copy.size), copy.bytes);
    }
}

inline void execute(const Op &op, Register *out, const Register *in) {
    Fiber &me = *current;
    switch (op.kind) {
    case TO_SHARED: out[0] = Register(unsigned(reinterpret_cast<char *>(in[0].bits) - shared + SHARED_BASE)); break;
    case TO_GLOBAL: out[0] = in[0]; break;
    case COPY: me.open.push_back({in[0].u(), in[1].bits, unsigned(op.size), in[2].u()}); break;
    case COMMIT: me.groups.push_back(std::move(me.open)); me.open.clear(); break;
    case WAIT:
        while (me.groups.size() > size_t(op.size)) {
            land(me.groups.front());
            me.groups.erase(me.groups.begin());
        }
        break;
    case FENCE: break;
    case MOVE:
        for (int i = 0; i < op.size; i++) out[i] = in[i];
        break;
    case EX2: out[0] = Register(std::exp2(in[0].f())); break;
    case LG2: out[0] = Register(std::log2(in[0].f())); break;
    case RCP: out[0] = Register(1.0f / in[0].f()); break;
    case PACK: out[0] = Register(uint32_t(narrow(in[1].f(), op.half)) | uint32_t(narrow(in[0].f(), op.half)) << 16); break;
    case UNPACK: out[0] = Register(part(in[0].u(), op.size, op.half)); break;
    case LOAD_SHARED: {
        uint32_t x[4];
        std::memcpy(x, shared_at(in[0].u(), 16), 16);
        for (int i = 0; i < 4; i++) out[i] = Register(x[i]);
        break;
    }
    case STORE_SHARED: {
        uint32_t x[4] = {in[1].u(), in[2].u(), in[3].u(), in[4].u()};
        std::memcpy(shared_at(in[0].u(), 16), x, 16);
        break;
    }
    case LOAD_GLOBAL: {
        float x[4];
        std::memcpy(x, global_at(in[0].bits, 16), 16);
        for (int i = 0; i < 4; i++) out[i] = Register(x[i]);
        break;
    }
    case MMA: {
        Meeting &warp = warps[me.id / 32];
        meet(warp, me.id % 32, in, out, [&] { mma(op, warp); });
        break;
    }
    case LDMATRIX: {
        Meeting &warp = warps[me.id / 32];
        meet(warp, me.id % 32, in, out, [&] { ldmatrix(op, warp); });
        break;
    }
    case WGMMA: {
        Meeting &group = groups[me.id / 128];
        meet(group, me.id % 128, in, out, [&] { wgmma(op, group); });
        break;
    }
    }
}

inline float shuffle_xor(float x, unsigned mask) {
    Meeting &warp = warps[current->id / 32];
    Register in(x), out;
    meet(warp, current->id % 32, &in, &out, [&] {
        for (unsigned lane = 0; lane < 32; lane++) *warp.out[lane] = *warp.in[lane ^ mask];
    });
    return out.f();
}

// A buffer that ends at a page without access.
inline void *allocate(size_t bytes) {
    size_t page = 4096, room = (bytes + page - 1) / page * page;
    char *start = static_cast<char *>(mmap(nullptr, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(start + room, page, PROT_NONE);
    char *at = start + room - (bytes + 15) / 16 * 16;
    buffers.push_back({uint64_t(at), uint64_t(at + bytes)});
    return at;
}

inline void enter() {
    body();
    current->done = true;
    while (true) yield();
}

// Runs `kernel` on every block; `backwards` runs fibers from the last to the first.
inline void launch(Dim grid, unsigned threads, size_t shared_bytes, bool backwards, std::function<void()> kernel) {
    constexpr size_t STACK = 256 * 1024;
    static std::vector<char> stacks;
    stacks.resize(threads * STACK);
    grid_size = grid;
    block_size = {threads, 1, 1};
    body = std::move(kernel);
    shared_size = shared_bytes;
    if (posix_memalign(reinterpret_cast<void **>(&shared), 1024, shared_bytes + 1024)) fail("no memory");
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                block_index = {x, y, z};
                std::memset(shared, 0xff, shared_bytes);
                fibers.assign(threads, Fiber());
                auto meeting = [](unsigned size) {
                    Meeting m;
                    m.size = size;
                    m.in.resize(size);
                    m.out.resize(size);
                    return m;
                };
                warps.assign((threads + 31) / 32, meeting(32));
                groups.assign((threads + 127) / 128, meeting(128));
                block = meeting(threads);
                for (unsigned i = 0; i < threads; i++) {
                    Fiber &fiber = fibers[i];
                    fiber.id = i;
                    fiber.thread = {i, 0, 0};
                    getcontext(&fiber.context);
                    fiber.context.uc_stack.ss_sp = stacks.data() + i * STACK;
                    fiber.context.uc_stack.ss_size = STACK;
                    fiber.context.uc_link = nullptr;
                    makecontext(&fiber.context, enter, 0);
                }
                for (size_t left = threads, idle = 0; left > 0;) {
                    for (unsigned i = 0; i < threads; i++) {
                        Fiber &fiber = fibers[backwards ? threads - 1 - i : i];
                        if (fiber.done) continue;
                        current = &fiber;
                        swapcontext(&scheduler, &fiber.context);
                        if (fiber.done) left--;
                    }
                    if (++idle > 10'000'000) fail("threads wait for each other");
                }
                current = nullptr;
            }
    free(shared);
}

} // namespace emu

#define __global__
#define __device__
#define __restrict__
#define __launch_bounds__(...)
#define __grid_constant__
#define threadIdx (emu::current->thread)
#define blockIdx (emu::block_index)
#define blockDim (emu::block_size)
#define gridDim (emu::grid_size)
#define __syncthreads() emu::barrier()
#define __activemask() 0xffffffffu
#define __shfl_xor_sync(mask, value, lanes) emu::shuffle_xor(value, lanes)
inline float max(float a, float b) { return std::fmax(a, b); }
inline float min(float a, float b) { return std::fmin(a, b); }
inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
