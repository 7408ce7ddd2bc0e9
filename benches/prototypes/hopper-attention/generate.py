"""Writes a kernel's source: forward.cu or backward.cu with its WGMMA functions.

    generate.py forward KEYS | generate.py backward

WGMMA has one operand for each register, so that its text depends on the tile. Inline PTX with an accumulator that is both read and
written (`+f`) does not exist in CubeCL; the backward functions therefore move accumulators first (see `gradients`), as a port would.
"""

import pathlib
import sys

ALONG, DOWN = 2, 128  # a descriptor's step per 16 inner elements, in 16 bytes: along a row of 128 bytes, down 16 rows
OPEN = "{ .reg .pred p0, p1; .reg .b64 da, db; .reg .b32 x; setp.ne.b32 p0, 0, 0; setp.ne.b32 p1, 1, 0; "
FENCE, COMMIT = "wgmma.fence.sync.aligned; ", "wgmma.commit_group.sync.aligned; "


def registers(first, count):
    return ", ".join(f"%{first + i}" for i in range(count))


def moves(to, source, count):
    return " ".join(f"mov.f32 %{to + i}, %{source + i};" for i in range(count)) + " "


def mma(n, d, a, b, scale, trans):
    return f"wgmma.mma_async.sync.aligned.m64n{n}k16.f32.bf16.bf16 {{{registers(d, n // 2)}}}, {a}, {b}, p{scale}, 1, 1, {trans}; "


def scores(n, d, a, b):
    """d = A * B^T over 64 inner elements, operands at descriptors %a and %b."""
    text = ""
    for k in range(4):
        text += f"add.s64 da, %{a}, {ALONG * k}; add.s64 db, %{b}, {ALONG * k}; " + mma(n, d, "da", "db", int(k > 0), "0, 0")
    return text + COMMIT


def weighted_sum(d, w, v, slices):
    """d += W * V, W in registers from %w on, V at descriptor %v."""
    text = ""
    for k in range(slices):
        text += f"add.s64 db, %{v}, {DOWN * k}; " + mma(64, d, f"{{{registers(w + 4 * k, 4)}}}", "db", 1, "1")
    return text + COMMIT


def function(signature, text, outputs, inputs, after=""):
    return f'__device__ __forceinline__ void {signature} {{\n  asm volatile("{text}"\n    : {", ".join(outputs)}\n    : {", ".join(inputs)} : "memory");\n{after}}}\n'


def operands(kind, name, count):
    return [f'"{kind}"({name}[{i}])' for i in range(count)]


def forward(keys):
    m, slices = keys // 2, keys // 16
    qk = function(
        f"start_scores(float (&d)[{m}], uint64_t a, uint64_t b)",
        OPEN + FENCE + scores(keys, 0, m, m + 1) + "}",
        operands("+f", "d", m), ['"l"(a)', '"l"(b)'])
    pv = function(
        f"start_sum(float (&d)[32], uint32_t (&a)[{4 * slices}], uint64_t b)",
        OPEN + FENCE + weighted_sum(0, 32, 32 + 4 * slices, slices) + "}",
        operands("+f", "d", 32), operands("r", "a", 4 * slices) + ['"l"(b)'])
    return qk + pv


def gradients():
    """dV += P dO; then dS to shared memory and the consumers' barrier; then dQ = dS K and dK += dS Q. One text: between WGMMAs
    in flight, a move to an accumulator would serialize all of them."""
    v, k, q, c, p = 0, 32, 64, 96, 160
    e = p + 32
    d_out = e + 32
    qd, ds0, ds1, keys, at = d_out + 1, d_out + 2, d_out + 3, d_out + 4, d_out + 5
    text = OPEN + moves(0, c, 64) + FENCE + weighted_sum(v, p, d_out, 8)
    for j in range(8):
        text += f"add.u32 x, %{at}, {2048 * j}; stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [x], {{{registers(e + 4 * j, 4)}}}; "
    text += "fence.proxy.async.shared::cta; bar.sync 1, 256; "
    for j in range(8):
        text += f"add.s64 da, %{ds0 if j < 4 else ds1}, {ALONG * (j % 4)}; add.s64 db, %{keys}, {DOWN * j}; " + mma(64, q, "da", "db", int(j > 0), "0, 1")
    text += COMMIT + weighted_sum(k, e, qd, 8) + "}"
    return function(
        "products(float (&av)[32], float (&ak)[32], float (&q)[32], uint32_t (&p)[32], uint32_t (&e)[32], uint64_t dO, uint64_t qd, "
        "uint64_t ds0, uint64_t ds1, uint64_t kk, uint32_t ad)",
        text,
        operands("=f", "tv", 32) + operands("=f", "tk", 32) + operands("=f", "q", 32),
        operands("f", "av", 32) + operands("f", "ak", 32) + operands("r", "p", 32) + operands("r", "e", 32)
        + ['"l"(dO)', '"l"(qd)', '"l"(ds0)', '"l"(ds1)', '"l"(kk)', '"r"(ad)'],
        "  for (int i = 0; i < 32; i++) { av[i] = tv[i]; ak[i] = tk[i]; }\n",
    ).replace("{\n  asm", "{\n  float tv[32], tk[32];\n  asm", 1)


def wait(pending, n):
    return function(
        f"w{pending}_{n}(float (&d)[{n}])",
        f"wgmma.wait_group.sync.aligned {pending}; " + moves(0, n, n),
        operands("=f", "t", n), operands("f", "d", n),
        f"  for (int i = 0; i < {n}; i++) d[i] = t[i];\n",
    ).replace("{\n  asm", f"{{\n  float t[{n}];\n  asm", 1)


def backward():
    st = function(
        "st(float (&d)[64], uint64_t a, uint64_t b)", OPEN + FENCE + scores(128, 0, 64, 65) + "}",
        operands("+f", "d", 64), ['"l"(a)', '"l"(b)'])
    return st + gradients() + "".join(wait(p, n) for p, n in ((2, 32), (1, 32), (0, 32), (1, 64), (0, 64)))


def source(name, keys=128):
    body = (pathlib.Path(__file__).parent / f"{name}.cu").read_text()
    functions = forward(keys) if name == "forward" else backward()
    return body.replace("//@WGMMA@", functions).replace("QK(", "start_scores(").replace("PV(", "start_sum(")


if __name__ == "__main__":
    print(source(sys.argv[1], *map(int, sys.argv[2:])))
