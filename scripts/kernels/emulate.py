#!/usr/bin/env python3
"""Runs the kernel sources in a folder (see ../check-kernels) on the CPU and compares their results to an exact computation.

    python3 scripts/kernels/emulate.py FOLDER [--only PART_OF_A_NAME] [--keep FOLDER]

Needs g++ and numpy. Each source becomes a program: inline PTX turns into calls of emulator.hpp, which knows the instructions these
kernels use. Slow (a minute for all), so the batches are small: ragged lengths around tiles and windows, an empty sequence among them.
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
    if text.lstrip().startswith("wgmma.wait_group"):
        return f"{{emu::MOVE, {text.count('mov.f32')}}}"
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
    ops = {}

    def call(found):
        text, outputs, inputs = found.groups()
        outputs, inputs = split_operands(outputs), split_operands(inputs)
        op = ops.setdefault(meaning(text), f"op_{len(ops)}")
        lines = [f"emu::Register in_[] = {{{', '.join(f'emu::Register({x})' for x in inputs) or 'emu::Register()'}}};",
                 f"emu::Register out_[{max(len(outputs), 1)}];", f"emu::execute({op}, out_, in_);"]
        lines += [f"emu::assign({x}, out_[{i}]);" for i, x in enumerate(outputs)]
        return "{ " + " ".join(lines) + " }"

    body = ASM.sub(call, source)
    body = re.sub(r"extern __shared__ __align__\(\d+\) char (\w+)\[\];", r"char *\1 = emu::shared;", body)
    body = re.sub(r"^#include <.*>$", "", body, flags=re.M)
    body = body.replace('extern "C" __global__', "static")
    # Types of fixed width are the library's here.
    body = re.sub(r"^typedef (?:un)?signed .*;$", "", body, flags=re.M)
    constants = "".join(f"static const emu::Op {name} = {op};\n" for op, name in ops.items())
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


def exact(qkv, d_out, window, rotary, softcap, scale):
    """Output, log-sum-exp and gradient in f64, by the definition."""
    total, _, heads, dim = qkv.shape
    out, lse, grad = numpy.zeros((total, heads, dim)), numpy.zeros((heads, total)), numpy.zeros_like(qkv)
    start = 0
    for length in LENGTHS:
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


def tiles(rows):
    """The host's table, the longest sequences first."""
    entries, start = [], 0
    spans = []
    for length in LENGTHS:
        if length:
            spans.append((start, start + length))
        start += length
    for start, end in sorted(spans, key=lambda span: span[0] - span[1]):
        entries += [[first, start, end] for first in range(start, end, rows)]
    # One more than there are tiles, as a grid of two layers may have.
    return numpy.array(entries + [[0, 0, 0]], numpy.uint32)


def scalars(*values):
    """Scalars as CubeCL passes them: each type together, in the order of the kernel's struct."""
    return values


class Problem:
    def __init__(self, dim, half, window, rotary, capped):
        random = numpy.random.default_rng(dim + 7 * half + 13 * capped)
        total = sum(LENGTHS)
        self.dim, self.half, self.window, self.rotary = dim, half, window, rotary
        self.total = total
        self.scale = 1 / math.sqrt(dim)
        self.softcap = SOFTCAP if capped else None
        self.qkv = to_bits(random.standard_normal((total, 3, HEADS, dim)), half)
        self.d_out = to_bits(random.standard_normal((total, HEADS, dim)), half)
        angles = numpy.arange(max(LENGTHS))[:, None] * THETA ** (-2.0 * numpy.arange(dim // 2) / dim)
        self.table = numpy.concatenate([numpy.cos(angles), numpy.sin(angles)], 1).astype(numpy.float32)
        self.out, self.lse, self.grad = exact(
            from_bits(self.qkv, half), from_bits(self.d_out, half), window, rotary, self.softcap, self.scale)

    def rotated(self):
        """Queries and keys with RoPE applied, as the kernel before a global layer computes them."""
        x, start = from_bits(self.qkv, self.half)[:, :2].copy(), 0
        for length in LENGTHS:
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


def run_case(kernels, family, dim, half, suffix, window, rotary, inside, capped, backwards):
    problem = Problem(dim, half, window, rotary, capped)
    step = 4e-3 if not half else 1e-3
    longest = max(LENGTHS)
    head_bytes = HEADS * dim * 2
    separate = rotary and not inside
    qk = problem.rotated() if separate else problem.qkv
    width = longest if window is None else min(window, longest)
    log2e = math.log2(math.e)
    numbers = dict(
        qk_row=(2 if separate else 3) * head_bytes, k_offset=head_bytes, v_row=3 * head_bytes, v_offset=2 * head_bytes, heads=HEADS,
        total=problem.total, half_window=width, scale=problem.scale, scale_log2=(problem.softcap or problem.scale) * log2e,
        softcap=problem.scale / problem.softcap if capped else 0.0)

    def pack(names):
        """Scalars in the order of CubeCL's info struct: types in order of first use, each list padded to eight bytes."""
        kinds = {"half_window": "i", "scale": "f", "scale_log2": "f", "softcap": "f"}
        return [(kinds.get(name, "u"), numbers[name]) for name in names]

    def info(kernel, names):
        groups = {}
        for kind, value in pack(names):
            groups.setdefault(kind, []).append(value)
        dtypes = {"u": numpy.uint32, "i": numpy.int32, "f": numpy.float32}
        data = b""
        for kind in kernel.scalar_order:
            values = numpy.array(groups[kind], dtypes[kind]).tobytes()
            data += values + bytes(-len(values) % 8)
        return data

    names = ["qk_row", "k_offset", "v_row", "v_offset", "heads", "total", "half_window", "scale", "scale_log2", "softcap"]
    worst = {}
    for name, kernel in kernels.items():
        if not name.startswith(f"{family}_") or not name.endswith(f"_{suffix}"):
            continue
        role = name.split("_")[1]
        if f"_{dim}_" not in name:
            continue
        table = tiles(kernel.rows)
        grid = (HEADS, len(table), 1)
        if role == "forward":
            out, lse = numpy.zeros_like(problem.d_out), numpy.zeros_like(problem.lse, dtype=numpy.float32)
            buffers = [qk, problem.qkv, table, problem.table, out, lse]
            results = kernel.run(grid, buffers, info(kernel, names), backwards)
            worst[role] = close(name, "output", from_bits(results[-2], half), problem.out, step)
            close(name, "log-sum-exp", results[-1], problem.lse, 3 * step if rotary else 1e-4)
        else:
            delta = (from_bits(to_bits(problem.out, half), half) * from_bits(problem.d_out, half)).sum(-1).T.astype(numpy.float32).copy()
            grad = numpy.zeros_like(problem.qkv)
            buffers = [qk, problem.qkv, problem.d_out, problem.lse.astype(numpy.float32), delta, table, problem.table, grad]
            results = kernel.run(grid, buffers, info(kernel, names), backwards)
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
        families = sorted({(name.split("_")[0], int(re.search(r"_(\d+)_", name).group(1)), name[re.search(r"_(bf16|f16)", name).start() + 1:])
                           for name in kernels})
        for family, dim, suffix in families:
            inside, capped = "inside" in suffix, "capped" in suffix
            rotary = "rotated" in suffix
            for window in ([0, 16, 64] if inside else [None, 0, 64, 65]):
                run_case(kernels, family, dim, suffix.startswith("f16"), suffix, window, rotary, inside, capped, window == 64)


if __name__ == "__main__":
    main()
