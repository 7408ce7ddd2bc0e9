#!/usr/bin/env python3
"""Runs the kernel sources in a folder (see ../check-kernels) on the CPU and compares their results with an exact computation.

    python3 scripts/kernels/emulate.py FOLDER [--only PART_OF_A_NAME] [--keep FOLDER]

Needs g++ and numpy. Each source becomes a program: inline PTX is replaced by calls of emulator.hpp, which implements the instructions of
these kernels. All kernels take a minute with small batches: ragged lengths near the sizes of tiles and windows, and an empty sequence.
"""
import argparse
import math
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy

HERE = pathlib.Path(__file__).resolve().parent
LENGTHS = [1, 65, 0, 130, 30, 200]
# For kernels with larger tiles: rings of stages that start again, several tiles of a sequence.
LONG_LENGTHS = [1, 129, 0, 128, 520, 200]
# Blocks of persistent kernels.
RESIDENT = 5
HEADS = 2
THETA = 10000.0
SOFTCAP = 2.0


def meaning(text):
    """The emulator's operation for a text of PTX, as C++."""
    kinds = [
        (r"cvta\.to\.shared", "TO_SHARED"), (r"cvta\.to\.global", "TO_GLOBAL"), (r"cp\.async\.commit_group", "COMMIT"),
        (r"fence\.proxy\.async", "FENCE"), (r"ex2\.approx", "EX2"), (r"lg2\.approx", "LG2"), (r"rcp\.approx", "RCP"),
        (r"ld\.shared\.v4", "LOAD_SHARED"), (r"st\.shared\.v4", "STORE_SHARED"), (r"ld\.global\.nc\.v4", "LOAD_GLOBAL"),
    ]
    half = "true" if re.search(r"\bf16|\.f16", text) else "false"
    if found := re.search(r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k16", text):
        columns, steps = int(found.group(1)), text.count("wgmma.mma_async")
        registers = bool(re.search(r"\}, \{%", text))
        first = text.split("wgmma.mma_async")[1]
        trans = re.search(r"p[01], 1, 1, (?:0, )?([01]); ", first).group(1)
        adds = text.lstrip().startswith("mov.f32")
        return f"{{emu::WGMMA, {columns}, {half}, {'true' if trans == '1' else 'false'}, {str(registers).lower()}, {str(adds).lower()}, {steps}}}"
    if found := re.search(r"cp\.async\.c[ag]\.shared\.global \[.*?\], \[.*?\], (\d+),", text):
        return f"{{emu::COPY, {found.group(1)}}}"
    if found := re.search(r"cp\.async\.wait_group (\d+)", text):
        return f"{{emu::WAIT, {found.group(1)}}}"
    if "mma.sync.aligned.m16n8k16.row.col.f32" in text:
        return f"{{emu::MMA, 8, {half}}}"
    if "ldmatrix.sync.aligned.m8n8.x4" in text:
        return f"{{emu::LDMATRIX, 4, {half}, {'true' if '.trans.' in text else 'false'}}}"
    if "x2.f32" in text and "cvt.rn" in text:
        return f"{{emu::PACK, 2, {half}}}"
    if found := re.search(r"cvt\.f32\.b?f16 %\d+, ([lh]);", text):
        return f"{{emu::UNPACK, {0 if found.group(1) == 'l' else 1}, {half}}}"
    for pattern, kind in kinds:
        if re.search(pattern, text):
            return f"{{emu::{kind}}}"
    sys.exit(f"the emulator doesn't know this PTX: {text}")


# Texts of warp-specialized kernels, and their C++; `$n` is operand n.
FUNCTIONS = [
    (r"mbarrier\.init\.shared::cta\.b64 \[%0\], (\d+);", r"emu::mbarrier_init($0.u(), \1);"),
    (r"fence\.mbarrier_init.*", ""),
    (r"mbarrier\.arrive\.shared::cta\.b64 _, \[%0\];", "emu::mbarrier_arrive($0.u());"),
    (r"\{ \.reg \.pred p; WAIT: mbarrier\.try_wait\.parity\.shared::cta\.b64 p, \[%0\], %1; @!p bra WAIT; \}",
     "emu::mbarrier_wait($0.u(), $1.u());"),
    (r"\{ \.reg \.pred p, q; mbarrier\.test_wait\.parity\.shared::cta\.b64 p, \[%1\], %2; vote\.sync\.all\.pred q, p, 0xffffffff; "
     r"selp\.u32 %0, 1, 0, q; \}", "$0 = emu::Register(unsigned(emu::vote(emu::mbarrier_test($1.u(), $2.u()), true)));"),
    (r"bar\.sync %0, (\d+);", r"emu::named_barrier($0.u(), \1, true);"),
    (r"bar\.arrive %0, (\d+);", r"emu::named_barrier($0.u(), \1, false);"),
    (r"bar\.warp\.sync 0xffffffff;", "emu::vote(true, true);"),
    (r"setmaxnreg\.(?:inc|dec)\.sync\.aligned\.u32 (\d+);", r'if (\1 % 8 || \1 < 24 || \1 > 256) emu::fail("registers");'),
    (r"atom\.global\.add\.u32 %0, \[%1\], 1;",
     "auto at = reinterpret_cast<uint32_t *>(emu::global_at($1.bits, 4)); $0 = emu::Register((*at)++);"),
    (r"st\.shared\.u32 \[%0\], %1;", "uint32_t x = $1.u(); std::memcpy(emu::shared_at($0.u(), 4), &x, 4);"),
    (r"ld\.shared\.u32 %0, \[%1\];", "$0 = emu::Register(emu::load<uint32_t>(emu::shared_at($1.u(), 4)));"),
    (r"\{ \.reg \.pred p; \.reg \.u32 x; POLL: ld\.acquire\.gpu\.global\.u32 x, \[%0\]; setp\.ne\.u32 p, x, %1; @p bra POLL; \}",
     "emu::wait_until([&] { return emu::load<uint32_t>(emu::global_at($0.bits, 4)) == $1.u(); });"),
    (r"fence\.acq_rel\.gpu; st\.release\.gpu\.global\.u32 \[%0\], %1;", "uint32_t x = $1.u(); std::memcpy(emu::global_at($0.bits, 4), &x, 4); emu::moved = true;"),
    (r"cp\.reduce\.async\.bulk\.global\.shared::cta\.bulk_group\.add\.f32 \[%0\], \[%1\], (\d+);",
     r"emu::start_bulk($0.bits, $1.u(), \1, true);"),
    (r"cp\.async\.bulk\.global\.shared::cta\.bulk_group \[%0\], \[%1\], (\d+);", r"emu::start_bulk($0.bits, $1.u(), \1, false);"),
    (r"cp\.async\.bulk\.commit_group;", ""),
    (r"cp\.async\.bulk\.wait_group\.read 0;", "emu::wait_bulk(true);"),
    (r"cp\.async\.bulk\.wait_group 0;", "emu::wait_bulk(false);"),
    (r"ld\.shared\.v2\.f32 \{%0, %1\}, \[%2\];",
     "auto at = emu::shared_at($2.u(), 8); $0 = emu::Register(emu::load<float>(at)); $1 = emu::Register(emu::load<float>(at + 4));"),
    (r"st\.shared\.v4\.f32 \[%0\], \{%1, %2, %3, %4\};",
     "float x[4] = {$1.f(), $2.f(), $3.f(), $4.f()}; std::memcpy(emu::shared_at($0.u(), 16), x, 16);"),
]

# Statements of texts that start WGMMAs or wait for them. `first` is the result's first register, `last` the accumulators by it.
STATEMENTS = [
    (r"\.reg \.pred .*|\.reg \.b64 .*|\.reg \.b32 .*|setp\.ne\.b32 p0, 0, 0|setp\.ne\.b32 p1, 1, 0|wgmma\.fence.*|fence\.proxy\.async.*", ""),
    (r"add\.s64 (d[ab]), %(\d+), (\d+)", r"\1 = $\2.bits + \3;"),
    (r"add\.u32 at, %(\d+), (\d+)", r"at = $\1.u() + \2;"),
    (r"mov\.f32 %(\d+), %(\d+)", r"$\1 = $\2;"),
    (r"bar\.sync (\d+), (\d+)", r"emu::named_barrier(\1, \2, true);"),
    (r"wgmma\.commit_group.*", "emu::commit_wgmma();"),
    (r"stmatrix\.sync\.aligned\.m8n8\.x4\.trans\.shared\.b16 \[at\], \{%(\d+), %(\d+), %(\d+), %(\d+)\}",
     r"{ emu::Register x[4] = {$\1, $\2, $\3, $\4}; emu::store_matrices(at, x, true); }"),
]
WGMMA = re.compile(r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k16\.f32\.(b?f16)\.b?f16 \{%(\d+), .*?\}, (da|\{.*?\}), db, p([01]), 1, 1, (?:([01]), )?([01])")


def statement(text, started):
    """C++ of a statement; `started` has the columns of every result that the text has started."""
    if found := WGMMA.fullmatch(text):
        columns, ty, first, left, adds, a_trans, trans = found.groups()
        registers, first = int(columns) // 2, int(first)
        fresh = first not in started
        started[first] = registers
        d = ", ".join(f"${first + i}" for i in range(registers))
        a = "nullptr" if left == "da" else "a"
        held = "" if left == "da" else f"emu::Register a[4] = {{{left.strip('{}').replace('%', '$')}}}; "
        return (f"{{ emu::Register d[{registers}] = {{{d}}}; {held}"
                f"acc_{first} = emu::start_slice({columns}, {str(ty == 'f16').lower()}, {str(fresh).lower()}, {str(adds == '1').lower()}, d, {a}, da, "
                f"{int(a_trans or 0)}, db, {trans}, {'0' if fresh else f'acc_{first}'}); }}")
    for pattern, code in STATEMENTS:
        if found := re.fullmatch(pattern, text):
            return found.expand(code)
    sys.exit(f"the emulator doesn't know this PTX: {text}")


def function(text):
    """The body of a C++ function for a text that the kinds of `meaning` don't cover, or None."""
    text = " ".join(text.split("//")[0].split())
    for pattern, code in FUNCTIONS:
        if found := re.fullmatch(pattern, text):
            return found.expand(code)
    if text.startswith("wgmma.wait_group"):
        first, *moves = [part.strip() for part in text.rstrip("; ").split(";")]
        code = f"emu::wait_wgmma({first.split()[-1]}); "
        return code + " ".join(re.sub(r"mov\.f32 %(\d+), %(\d+)", r"$\1 = emu::resolve($\2);", move) for move in moves)
    if "wgmma.mma_async" in text and "wgmma.wait_group" not in text:
        started = {}
        lines = [statement(part.strip(), started) for part in text.strip("{} ").split(";") if part.strip()]
        declared = "uint64_t da = 0, db = 0; uint32_t at = 0; " + " ".join(f"size_t acc_{first} = 0;" for first in started)
        tokens = " ".join(f"for (int i = 0; i < {count}; i++) out[{first} + i] = emu::token(acc_{first}, i);" for first, count in started.items())
        return " ".join([declared, *lines, tokens])
    return None


def split_operands(text):
    """`"=f"(a.i_0), "=f"(b)` as the expressions in parentheses."""
    found, depth, start = [], 0, None
    for i, c in enumerate(text):
        if c == "(":
            if depth == 0:
                start = i + 1
            depth += 1
        elif c == ")":
            depth -= 1
            if depth == 0:
                found.append(text[start:i])
    return found


ASM = re.compile(r'asm (?:volatile)?\("((?:[^"\\]|\\.)*)"\s*:(.*?):(.*?)(?::\s*"memory"\s*)?\);', re.S)


def translate(source):
    """The source with inline PTX as calls, without what only CUDA's compiler knows."""
    ops, functions = {}, {}

    def call(found):
        text, outputs, inputs = found.groups()
        outputs, inputs = split_operands(outputs), split_operands(inputs)
        if code := function(text):
            # Operands are numbered through, outputs first.
            code = re.sub(r"\$(\d+)", lambda n: f"out[{n[1]}]" if int(n[1]) < len(outputs) else f"in[{int(n[1]) - len(outputs)}]", code)
            execute = functions.setdefault(code, f"asm_{len(functions)}") + "(out_, in_);"
        elif code is None:
            execute = f"emu::execute({ops.setdefault(meaning(text), f'op_{len(ops)}')}, out_, in_);"
        else:
            return ""
        lines = [f"emu::Register in_[] = {{{', '.join(f'emu::Register({x})' for x in inputs) or 'emu::Register()'}}};",
                 f"emu::Register out_[{max(len(outputs), 1)}];", execute]
        lines += [f"emu::assign({x}, out_[{i}]);" for i, x in enumerate(outputs)]
        return "{ " + " ".join(lines) + " }"

    body = ASM.sub(call, source)
    body = re.sub(r"extern __shared__ __align__\(\d+\) char (\w+)\[\];", r"char *\1 = emu::shared;", body)
    body = re.sub(r"^#include <.*>$", "", body, flags=re.M)
    body = body.replace('extern "C" __global__', "static")
    # Types of fixed width are the library's here.
    body = re.sub(r"^typedef (?:un)?signed .*;$", "", body, flags=re.M)
    constants = "".join(f"static const emu::Op {name} = {op};\n" for op, name in ops.items())
    constants += "".join(f"static void {name}(emu::Register *out, const emu::Register *in) {{ {code} }}\n" for code, name in functions.items())
    return constants + body


def parameters(source):
    """Name of the kernel and types of its parameters."""
    found = re.search(r'extern "C" __global__ void __launch_bounds__\(\d+\)\s+(\w+)\((.*?)\) \{', source, re.S)
    return found.group(1), [p.strip() for p in found.group(2).split(",")]


def program(source, shared, units):
    """A program that reads its arguments from the standard input and writes the buffers back."""
    name, params = parameters(source)
    pointers = [p for p in params if "info_st" not in p]
    types = [re.sub(r"\b(const|__restrict__)\b|\*", " ", p).split()[0] for p in pointers]
    arguments = ", ".join(f"reinterpret_cast<{t} *>(buffers[{i}])" for i, t in enumerate(types))
    return f'''#include "{HERE / 'emulator.hpp'}"
{translate(source)}
int main(int, char **argv) {{
    auto read = [](void *to, size_t bytes) {{ if (fread(to, 1, bytes, stdin) != bytes) emu::fail("short input"); }};
    uint32_t grid[3], count;
    read(grid, 12);
    read(&count, 4);
    std::vector<void *> buffers;
    std::vector<uint64_t> sizes;
    for (uint32_t i = 0; i < count; i++) {{
        uint64_t size;
        read(&size, 8);
        buffers.push_back(emu::allocate(size));
        sizes.push_back(size);
        read(buffers.back(), size);
    }}
    info_st info;
    std::memset(&info, 0, sizeof info);
    uint64_t size;
    read(&size, 8);
    if (size > sizeof info) emu::fail("more scalars than the kernel takes");
    read(&info, size);
    emu::launch({{grid[0], grid[1], grid[2]}}, {units}, {shared}, argv[1][0] == '1', [&] {{ {name}({arguments}, info); }});
    for (uint32_t i = 0; i < count; i++) fwrite(buffers[i], 1, sizes[i], stdout);
}}
'''


class Kernel:
    """A compiled source."""

    def __init__(self, name, text, shared, units, folder):
        self.name = name
        self.path = folder / name
        source = folder / f"{name}.cpp"
        source.write_text(program(text, shared, units))
        subprocess.run(["g++", "-std=c++20", "-O1", "-w", "-fno-strict-aliasing", source, "-o", self.path], check=True)

    def run(self, grid, buffers, scalars, backwards=False):
        data = numpy.array([*grid, len(buffers)], numpy.uint32).tobytes()
        for buffer in buffers:
            data += numpy.uint64(buffer.nbytes).tobytes() + buffer.tobytes()
        data += numpy.uint64(len(scalars)).tobytes() + scalars
        run = subprocess.run([self.path, str(int(backwards))], input=data, capture_output=True)
        if run.returncode != 0:
            sys.exit(f"{self.name}: {run.stderr.decode() or 'ended by signal ' + str(-run.returncode)}")
        results, at = [], 0
        for buffer in buffers:
            results.append(numpy.frombuffer(run.stdout[at:at + buffer.nbytes], buffer.dtype).reshape(buffer.shape))
            at += buffer.nbytes
        return results


def to_bits(x, half):
    x = x.astype(numpy.float32)
    if half:
        return x.astype(numpy.float16).view(numpy.uint16)
    bits = x.view(numpy.uint32).astype(numpy.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def from_bits(bits, half):
    if half:
        return bits.view(numpy.float16).astype(numpy.float64)
    return (bits.astype(numpy.uint32) << 16).view(numpy.float32).astype(numpy.float64)


def rotate(x, angles, direction=1.0):
    half = x.shape[-1] // 2
    cos, sin = numpy.cos(angles), direction * numpy.sin(angles)
    a, b = x[..., :half], x[..., half:]
    return numpy.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def exact(lengths, qkv, d_out, window, rotary, softcap, scale):
    """Output, log-sum-exp and gradient in f64, by the definition."""
    total, _, heads, dim = qkv.shape
    out, lse, grad = numpy.zeros((total, heads, dim)), numpy.zeros((heads, total)), numpy.zeros_like(qkv)
    start = 0
    for length in lengths:
        rows = slice(start, start + length)
        positions = numpy.arange(length)[:, None]
        angles = positions * THETA ** (-2.0 * numpy.arange(dim // 2) / dim) * (1.0 if rotary else 0.0)
        for head in range(heads):
            q, k, v = (qkv[rows, part, head] for part in range(3))
            q, k = rotate(q, angles), rotate(k, angles)
            s = scale * q @ k.T
            slope = 1.0
            if softcap:
                t = numpy.tanh(s / softcap)
                s, slope = softcap * t, 1 - t * t
            if window is not None:
                s = numpy.where(abs(positions - positions.T) <= window, s, -numpy.inf)
            if length == 0:
                continue
            top = s.max(1, keepdims=True)
            e = numpy.exp(s - top)
            p = e / e.sum(1, keepdims=True)
            o, d_o = p @ v, d_out[rows, head]
            out[rows, head] = o
            lse[head, rows] = (top + numpy.log(e.sum(1, keepdims=True)))[:, 0]
            d_s = p * (d_o @ v.T - (o * d_o).sum(1, keepdims=True)) * slope * scale
            grad[rows, 0, head] = rotate(d_s @ k, angles, -1.0)
            grad[rows, 1, head] = rotate(d_s.T @ q, angles, -1.0)
            grad[rows, 2, head] = p.T @ d_o
        start += length
    return out, lse, grad


def tiles(lengths, rows):
    """The host's table, the longest sequences first."""
    entries, start = [], 0
    spans = []
    for length in lengths:
        if length:
            spans.append((start, start + length))
        start += length
    for start, end in sorted(spans, key=lambda span: span[0] - span[1]):
        entries += [[first, start, end] for first in range(start, end, rows)]
    # One more than there are tiles, as a grid of two layers may have.
    return numpy.array(entries + [[0, 0, 0]], numpy.uint32)


class Problem:
    def __init__(self, dim, half, window, rotary, capped, lengths=LENGTHS):
        random = numpy.random.default_rng(dim + 7 * half + 13 * capped)
        total = sum(lengths)
        self.lengths = lengths
        self.dim, self.half, self.window, self.rotary = dim, half, window, rotary
        self.total = total
        self.scale = 1 / math.sqrt(dim)
        self.softcap = SOFTCAP if capped else None
        self.qkv = to_bits(random.standard_normal((total, 3, HEADS, dim)), half)
        self.d_out = to_bits(random.standard_normal((total, HEADS, dim)), half)
        angles = numpy.arange(max(lengths))[:, None] * THETA ** (-2.0 * numpy.arange(dim // 2) / dim)
        self.table = numpy.concatenate([numpy.cos(angles), numpy.sin(angles)], 1).astype(numpy.float32)
        self.out, self.lse, self.grad = exact(
            lengths, from_bits(self.qkv, half), from_bits(self.d_out, half), window, rotary, self.softcap, self.scale)

    def delta(self):
        rounded = from_bits(to_bits(self.out, self.half), self.half)
        return (rounded * from_bits(self.d_out, self.half)).sum(-1).T.astype(numpy.float32).copy()

    def rotated(self):
        """Queries and keys with RoPE applied, as the kernel before a global layer computes them."""
        x, start = from_bits(self.qkv, self.half)[:, :2].copy(), 0
        for length in self.lengths:
            angles = numpy.arange(length)[:, None, None, None] * THETA ** (-2.0 * numpy.arange(self.dim // 2) / self.dim)
            x[start:start + length] = rotate(x[start:start + length], angles)
            start += length
        return to_bits(x, self.half)


def close(name, what, found, expected, step):
    error = abs(found - expected).max() / max(abs(expected).max(), 1.0)
    good = error < step
    if not good or not numpy.isfinite(found).all():
        sys.exit(f"{name}: {what} is off by {error:.2e} of the largest value, allowed {step:.2e}")
    return error


def info(kernel, problem, separate, **others):
    """Scalars in CubeCL's info struct: each type together, in the order of the kernel's arguments, each list padded to eight bytes.
    `others` are unsigned arguments behind those that all kernels have."""
    head_bytes = HEADS * problem.dim * 2
    longest = max(problem.lengths)
    width = longest if problem.window is None else min(problem.window, longest)
    log2e = math.log2(math.e)
    groups = dict(
        u=[(2 if separate else 3) * head_bytes, head_bytes, 3 * head_bytes, 2 * head_bytes, HEADS, problem.total, *others.values()],
        i=[width],
        f=[problem.scale, (problem.softcap or problem.scale) * log2e, problem.scale / problem.softcap if problem.softcap else 0.0])
    dtypes = {"u": numpy.uint32, "i": numpy.int32, "f": numpy.float32}
    data = b""
    for kind in kernel.scalar_order:
        values = numpy.array(groups[kind], dtypes[kind]).tobytes()
        data += values + bytes(-len(values) % 8)
    return data


def run_pipelined(kernels, half, backwards):
    """The warp-specialized kernels, whose blocks loop over work or add to each other's sums."""
    ty = "f16" if half else "bf16"
    problem = Problem(64, half, None, True, False, LONG_LENGTHS)
    step = 4e-3 if not half else 1e-3
    qk, worst = problem.rotated(), {}
    if kernel := kernels.get(f"pipelined_forward_64_{ty}"):
        table = tiles(LONG_LENGTHS, 192)
        work = len(table) * HEADS
        out, lse = numpy.zeros_like(problem.d_out), numpy.zeros_like(problem.lse, dtype=numpy.float32)
        scalars = info(kernel, problem, True, work=work)
        results = kernel.run((min(work, RESIDENT), 1, 1), [qk, problem.qkv, table, out, lse], scalars, backwards)
        worst["forward"] = close(kernel.name, "output", from_bits(results[-2], half), problem.out, step)
        close(kernel.name, "log-sum-exp", results[-1], problem.lse, 3 * step)
    kernel, finish = kernels.get(f"pipelined_backward_64_{ty}"), kernels.get(f"pipelined_finish_64_{ty}")
    if kernel and finish:
        table = tiles(LONG_LENGTHS, 128)
        work = len(table) * HEADS
        sums = numpy.full(2 * work * 128 * 64, numpy.nan, numpy.float32)
        turns, grad = numpy.zeros(2 * work + 1, numpy.uint32), numpy.zeros_like(problem.qkv)
        buffers = [qk, problem.qkv, problem.d_out, problem.lse.astype(numpy.float32), problem.delta(), table, problem.table, sums, turns, grad]
        results = kernel.run((work, 1, 1), buffers, info(kernel, problem, True), backwards)
        sums, grad = results[7], results[9]
        grad = finish.run((HEADS, len(table), 1), [sums, table, problem.table, grad], info(finish, problem, True), backwards)[-1]
        found = from_bits(grad, half)
        worst["backward"] = max(close(kernel.name, f"gradient of {'qkv'[p]}", found[:, p], problem.grad[:, p], 3 * step) for p in range(3))
    print(f"pipelined 64 {ty:<20} {'late' if backwards else 'early':<12} " + ", ".join(f"{k} {v:.1e}" for k, v in worst.items()), flush=True)


def run_case(kernels, family, dim, half, suffix, window, rotary, inside, capped, backwards):
    problem = Problem(dim, half, window, rotary, capped)
    step = 4e-3 if not half else 1e-3
    separate = rotary and not inside
    qk = problem.rotated() if separate else problem.qkv
    worst = {}
    for name, kernel in kernels.items():
        if not name.startswith(f"{family}_") or not name.endswith(f"_{suffix}"):
            continue
        role = name.split("_")[1]
        if f"_{dim}_" not in name:
            continue
        table = tiles(LENGTHS, kernel.rows)
        grid = (HEADS, len(table), 1)
        scalars = info(kernel, problem, separate)
        if role == "forward":
            out, lse = numpy.zeros_like(problem.d_out), numpy.zeros_like(problem.lse, dtype=numpy.float32)
            buffers = [qk, problem.qkv, table, problem.table, out, lse]
            results = kernel.run(grid, buffers, scalars, backwards)
            worst[role] = close(name, "output", from_bits(results[-2], half), problem.out, step)
            close(name, "log-sum-exp", results[-1], problem.lse, 3 * step if rotary else 1e-4)
        else:
            grad = numpy.zeros_like(problem.qkv)
            buffers = [qk, problem.qkv, problem.d_out, problem.lse.astype(numpy.float32), problem.delta(), table, problem.table, grad]
            results = kernel.run(grid, buffers, scalars, backwards)
            found = from_bits(results[-1], half)
            parts = [0] if role == "queries" else [1, 2]
            worst[role] = max(close(name, f"gradient of {'qkv'[p]}", found[:, p], problem.grad[:, p], 3 * step) for p in parts)
    print(f"{family} {dim} {suffix:<24} window {str(window):<5} " + ", ".join(f"{k} {v:.1e}" for k, v in worst.items()), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", type=pathlib.Path, help="keep the programs here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        kernels = {}
        for line in (args.folder / "index").read_text().splitlines():
            name, _, units, shared = line.split()
            if args.only not in name or name.startswith(("rotate", "delta", "portable")):
                continue
            text = (args.folder / f"{name}.cu").read_text()
            kernel = kernels[name] = Kernel(name, text, shared, units, folder)
            kernel.rows = int(units) // 128 * 64 if name.startswith("hopper") else 64
            order = re.search(r"struct info_st \{(.*?)\};", text, re.S).group(1)
            kernel.scalar_order = [{"uint32": "u", "int32_": "i", "float ": "f"}[t[:6]] for t in re.findall(r"(uint32_t|int32_t|float )\s*scalars", order)]
        for half in (False, True):
            if any(name.startswith("pipelined") and name.endswith("_f16") == half for name in kernels):
                run_pipelined(kernels, half, False)
                run_pipelined(kernels, half, True)
        kernels = {name: kernel for name, kernel in kernels.items() if not name.startswith("pipelined")}
        families = sorted({(name.split("_")[0], int(re.search(r"_(\d+)_", name).group(1)), name[re.search(r"_(bf16|f16)", name).start() + 1:])
                           for name in kernels})
        for family, dim, suffix in families:
            inside, capped = "inside" in suffix, "capped" in suffix
            rotary = "rotated" in suffix
            for window in ([0, 16, 64] if inside else [None, 0, 64, 65]):
                run_case(kernels, family, dim, suffix.startswith("f16"), suffix, window, rotary, inside, capped, window == 64)


if __name__ == "__main__":
    main()
