// Runs one CUDA kernel on the CPU, slowly and exactly: a block at a time, its threads as fibers that synchronize at barriers and at the
// instructions of a warp or a warp group. Inline PTX has been replaced by calls of `emu::execute` (see emulate.py).
//
// The emulator finds errors that a GPU doesn't report: asynchronous copies complete only when they are waited for, shared memory is initialized to
// NaN, addresses outside the shared allocation or outside a buffer end the program, the order of fibers can be chosen, and threads that
// wait for each other end the program. Asynchronous WGMMA and bulk copies read shared memory either when they start or at the last moment
// allowed (`late`); the result of a WGMMA is a token until it is waited for.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
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
    MMA, LDMATRIX, WGMMA
};
// An instruction; emulate.py makes it of the text of an inline asm.
struct Op {
    Kind kind;
    int size = 0;       // bytes of a copy, groups left pending, half of a pair, columns of a result
    bool half = false;  // f16 instead of bf16
    bool trans = false; // transposed right operand
    bool registers = false; // left operand of WGMMA in registers
    bool accumulates = false; // results start from operands
    int steps = 0;      // slices of 16
};

struct Copy { uint32_t to; uint64_t from; unsigned size, bytes; };
// A copy from shared to global memory, or an addition, of many bytes.
struct Bulk { uint64_t to; uint32_t from; unsigned bytes; bool adds, read; std::vector<float> numbers; };
struct Fiber {
    ucontext_t context;
    Dim thread;
    unsigned id = 0;
    bool done = false;
    std::vector<Copy> open;
    std::vector<std::vector<Copy>> groups;
    std::vector<Bulk> bulk;
    // WGMMA groups that this thread has committed, and those that are complete.
    unsigned committed = 0, retired = 0;
};
// Threads that execute an instruction together: a warp, a warp group or the block.
struct Meeting {
    unsigned size = 0, arrived = 0;
    uint64_t generation = 0;
    std::vector<const Register *> in;
    std::vector<Register *> out;
};

// The result of started WGMMAs of a warp group, `[64, columns]`, its WGMMA group, and the work that is left.
struct Accumulator {
    int columns = 0;
    unsigned group = 0;
    std::vector<float> numbers;
    std::vector<std::function<void()>> left;
};
struct WarpGroup {
    std::vector<std::unique_ptr<Accumulator>> accumulators;
    size_t done = 0;
};
struct Mbarrier { unsigned count = 0, pending = 0, phase = 0; };
struct NamedBarrier { unsigned arrived = 0; uint64_t generation = 0; };

constexpr uint32_t SHARED_BASE = 1024; // an address in the shared state space; tiles are aligned to 1024
inline std::vector<Fiber> fibers;
inline std::vector<Meeting> warps, groups;
inline std::vector<WarpGroup> warp_groups;
inline std::map<uint32_t, Mbarrier> mbarriers;
inline std::map<unsigned, NamedBarrier> named_barriers;
inline bool late = false;
inline bool moved = false; // a fiber made progress in this round, for which another may have waited
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
template <typename Condition> inline void wait_until(Condition condition) {
    while (!condition()) yield();
    moved = true;
}
// All threads of `meeting` arrive; the last does `work`; then all continue.
template <typename Work> inline void meet(Meeting &meeting, unsigned place, const Register *in, Register *out, Work work) {
    meeting.in[place] = in;
    meeting.out[place] = out;
    uint64_t generation = meeting.generation;
    if (++meeting.arrived == meeting.size) {
        work();
        meeting.arrived = 0;
        meeting.generation++;
        moved = true;
    } else {
        wait_until([&] { return meeting.generation != generation; });
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

// Tokens are NaNs: an accumulator's index and a register's.
constexpr uint32_t TOKEN = 0xffc00000;
inline bool is_token(uint32_t bits) { return (bits & TOKEN) == TOKEN && (bits & ~TOKEN) != 0; }
inline Register token(size_t accumulator, int element) {
    if (accumulator >= 1 << 15) fail("too many WGMMAs for the emulator");
    return Register(TOKEN | uint32_t(accumulator + 1) << 6 | uint32_t(element));
}

// Where register `r` of a lane is in `[64, columns]`.
inline size_t fragment_place(unsigned lane, int r, int columns) {
    return (lane / 32 * 16 + lane % 32 / 4 + r % 4 / 2 * 8) * columns + r / 4 * 8 + lane % 4 * 2 + r % 2;
}

// One slice of 16: D[64, n] (+)= A · B. `d` are the result's registers, `a` four registers or, if `left` is given, A's descriptor.
// `first` starts an accumulator, from zero or, if `adds`, from the registers. Returns the accumulator's index.
inline size_t start_slice(int columns, bool half, bool first, bool adds, const Register *d, const Register *a, uint64_t left, bool a_trans,
                          uint64_t right, bool trans, size_t accumulator) {
    Meeting &meeting = groups[current->id / 128];
    WarpGroup &group = warp_groups[current->id / 128];
    unsigned committed = current->committed;
    size_t index = accumulator;
    if (a_trans) fail("transposed left operand");
    Register operands[64 + 4];
    for (int r = 0; r < columns / 2; r++) operands[r] = d[r];
    for (int r = 0; a && r < 4; r++) operands[64 + r] = a[r];
    if (first) index = group.accumulators.size();
    meet(meeting, current->id % 128, operands, nullptr, [&] {
        if (first) {
            group.accumulators.push_back(std::make_unique<Accumulator>());
            Accumulator &fresh = *group.accumulators[index];
            fresh.columns = columns;
            fresh.group = committed;
            fresh.numbers.assign(64 * columns, 0.0f);
            for (unsigned lane = 0; adds && lane < 128; lane++)
                for (int r = 0; r < columns / 2; r++) {
                    if (is_token(meeting.in[lane][r].u())) fail("an accumulator that is not complete");
                    fresh.numbers[fragment_place(lane, r, columns)] = meeting.in[lane][r].f();
                }
        }
        std::vector<float> rows(64 * 16);
        for (unsigned lane = 0; a && lane < 128; lane++)
            for (int r = 0; r < 4; r++)
                for (int i = 0; i < 2; i++)
                    rows[(lane / 32 * 16 + lane % 32 / 4 + r % 2 * 8) * 16 + lane % 4 * 2 + i + r / 2 * 8] =
                        part(meeting.in[lane][64 + r].u(), i, half);
        Accumulator *sums = group.accumulators[index].get();
        auto work = [=]() mutable {
            if (!a)
                for (int m = 0; m < 64; m++)
                    for (int k = 0; k < 16; k++) rows[m * 16 + k] = tile_element(left, m, k, half);
            for (int n = 0; n < columns; n++)
                for (int k = 0; k < 16; k++) {
                    float b = trans ? tile_element(right, k, n, half) : tile_element(right, n, k, half);
                    for (int m = 0; m < 64; m++) sums->numbers[m * columns + n] += rows[m * 16 + k] * b;
                }
        };
        if (late) sums->left.push_back(work);
        else work();
    });
    return index;
}

inline void commit_wgmma() { current->committed++; }
// Waits until at most `pending` groups are incomplete.
inline void wait_wgmma(unsigned pending) {
    WarpGroup &group = warp_groups[current->id / 128];
    if (current->committed > pending) current->retired = std::max(current->retired, current->committed - pending);
    while (group.done < group.accumulators.size() && group.accumulators[group.done]->group < current->retired) {
        for (auto &work : group.accumulators[group.done]->left) work();
        group.accumulators[group.done++]->left.clear();
    }
}
// The number that a token stands for.
inline Register resolve(Register x) {
    if (!is_token(x.u())) return x;
    size_t index = ((x.u() & ~TOKEN) >> 6) - 1;
    Accumulator &sums = *warp_groups[current->id / 128].accumulators.at(index);
    if (sums.group >= current->retired) fail("the result of a WGMMA that is not complete");
    return Register(sums.numbers[fragment_place(current->id % 128, int(x.u() & 63), sums.columns)]);
}

inline void mbarrier_init(uint32_t address, unsigned count) { mbarriers[address] = {count, count, 0}; }
inline Mbarrier &mbarrier_at(uint32_t address) {
    auto found = mbarriers.find(address);
    if (found == mbarriers.end()) fail("not an mbarrier");
    return found->second;
}
inline void mbarrier_arrive(uint32_t address) {
    Mbarrier &barrier = mbarrier_at(address);
    if (--barrier.pending == 0) {
        barrier.pending = barrier.count;
        barrier.phase ^= 1;
        moved = true;
    }
}
inline bool mbarrier_test(uint32_t address, unsigned parity) { return mbarrier_at(address).phase != parity; }
inline void mbarrier_wait(uint32_t address, unsigned parity) { wait_until([&] { return mbarrier_test(address, parity); }); }

// Arrives at a named barrier of `threads` threads, and waits there if `waits`.
inline void named_barrier(unsigned id, unsigned threads, bool waits) {
    if (id == 0 || id > 15) fail("not a named barrier");
    NamedBarrier &barrier = named_barriers[id];
    uint64_t generation = barrier.generation;
    if (++barrier.arrived == threads) {
        barrier.arrived = 0;
        barrier.generation++;
        moved = true;
    } else if (waits) {
        wait_until([&] { return barrier.generation != generation; });
    }
}

inline bool vote(bool mine, bool all) {
    Meeting &warp = warps[current->id / 32];
    Register in{unsigned(mine)}, out;
    meet(warp, current->id % 32, &in, &out, [&] {
        unsigned count = 0;
        for (unsigned lane = 0; lane < 32; lane++) count += warp.in[lane]->u();
        for (unsigned lane = 0; lane < 32; lane++) *warp.out[lane] = Register(unsigned(all ? count == 32 : count > 0));
    });
    return out.u();
}

// Stores four matrices; lanes 8 i to 8 i + 7 give the addresses of the rows of matrix i.
inline void store_matrices(uint32_t address, const Register *x, bool trans) {
    Meeting &warp = warps[current->id / 32];
    Register in[5] = {Register(address), x[0], x[1], x[2], x[3]};
    meet(warp, current->id % 32, in, nullptr, [&] {
        for (unsigned lane = 0; lane < 32; lane++)
            for (unsigned m = 0; m < 4; m++)
                for (unsigned i = 0; i < 2; i++) {
                    unsigned row = trans ? lane % 4 * 2 + i : lane / 4, column = trans ? lane / 4 : lane % 4 * 2 + i;
                    uint16_t bits = uint16_t(warp.in[lane][1 + m].u() >> (16 * i));
                    std::memcpy(shared_at(warp.in[8 * m + row][0].u(), 16) + 2 * column, &bits, 2);
                }
    });
}

inline void read_bulk(Bulk &bulk) {
    if (bulk.read) return;
    bulk.read = true;
    bulk.numbers.resize(bulk.bytes / 4);
    for (size_t i = 0; i < bulk.numbers.size(); i++) std::memcpy(&bulk.numbers[i], shared_at(bulk.from + 4 * i, 4), 4);
}
inline void write_bulk(Bulk &bulk) {
    for (size_t i = 0; i < bulk.numbers.size(); i++) {
        float *to = reinterpret_cast<float *>(global_at(bulk.to + 4 * i, 4));
        *to = bulk.adds ? *to + bulk.numbers[i] : bulk.numbers[i];
    }
}
inline void start_bulk(uint64_t to, uint32_t from, unsigned bytes, bool adds) {
    if (to % 16 || from % 16 || bytes % 16) fail("misaligned bulk operation");
    current->bulk.push_back({to, from, bytes, adds, false, {}});
    if (!late) read_bulk(current->bulk.back());
}
inline void wait_bulk(bool only_read) {
    for (Bulk &bulk : current->bulk) read_bulk(bulk);
    if (only_read) return;
    for (Bulk &bulk : current->bulk) write_bulk(bulk);
    current->bulk.clear();
}

template <typename T> inline T load(const char *from) {
    T x;
    std::memcpy(&x, from, sizeof x);
    return x;
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
    moved = true;
    body();
    current->done = moved = true;
    while (true) yield();
}

// Runs `kernel` on every block; `backwards` runs fibers from the last to the first, and asynchronous instructions late.
inline void launch(Dim grid, unsigned threads, size_t shared_bytes, bool backwards, std::function<void()> kernel) {
    late = backwards;
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
                warp_groups.clear();
                warp_groups.resize(groups.size());
                mbarriers.clear();
                named_barriers.clear();
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
                for (size_t left = threads; left > 0;) {
                    moved = false;
                    for (unsigned i = 0; i < threads; i++) {
                        Fiber &fiber = fibers[backwards ? threads - 1 - i : i];
                        if (fiber.done) continue;
                        current = &fiber;
                        swapcontext(&scheduler, &fiber.context);
                        if (fiber.done) left--;
                    }
                    if (!moved) fail("threads wait for each other");
                }
                for (Fiber &fiber : fibers)
                    if (!fiber.bulk.empty()) {
                        current = &fiber;
                        fail("ends with bulk operations that it did not wait for");
                    }
                for (auto &[id, barrier] : named_barriers)
                    if (barrier.arrived) fail("ends with threads that have arrived at a named barrier");
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
#define __any_sync(mask, x) emu::vote(x, false)
#define __all_sync(mask, x) emu::vote(x, true)
#define __shfl_xor_sync(mask, value, lanes) emu::shuffle_xor(value, lanes)
inline float max(float a, float b) { return std::fmax(a, b); }
inline float min(float a, float b) { return std::fmin(a, b); }
inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
