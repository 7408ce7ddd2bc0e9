"""Compiles, checks and times the prototypes beside PyTorch's cuDNN and FlashAttention-2 kernels, on one Hopper GPU with nvcc.

    python3 run.py            12 heads of 64, bf16, 65,536 tokens in sequences of 512 to 8192, and one of 8192

Checked against f64 on ragged lengths first: largest error of the output, relative error (norm) of each gradient, and whether ten
more runs give the same bits. Times are the best of five means of 10 or 20 calls; TFLOP/s count 4 or 10 FLOP per score and element.
"""

import ctypes
import math
import subprocess
import tempfile

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import generate

HEADS, DEVICE, LOG2_E = 12, "cuda", math.log2(math.e)
FORWARD = dict(NWG=3, BN=128, ST=3, CREG=160, PREG=32, SCHED=1, RESC=8, LAG=2, PERSIST=1)
BACKWARD = dict(BM=128, ST=2, CREG=240, PREG=24, LAG=1, DET=1)
RAGGED = [1, 385, 700, 64, 129, 1500, 333, 2, 127, 128, 191, 192, 193]
SETS = {"8x8192": [8192] * 8, "1x8192": [8192], "16x4096": [4096] * 16, "64x1024": [1024] * 64, "128x512": [512] * 128}


def build(name, options):
    folder = tempfile.mkdtemp()
    with open(f"{folder}/{name}.cu", "w") as file:
        file.write(generate.source(name))
    command = ["nvcc", "-O3", "-std=c++17", "-gencode", "arch=compute_90a,code=sm_90a", "-shared", "-Xcompiler", "-fPIC", "-Xptxas", "-v"]
    command += [f"-D{key}={value}" for key, value in options.items()] + ["-o", f"{folder}/{name}.so", f"{folder}/{name}.cu"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert "serialized" not in log, log
    return ctypes.CDLL(f"{folder}/{name}.so")


def ranges(lengths):
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    return sorted(zip(lengths, starts), key=lambda pair: -pair[0])


def table(rows):
    return torch.tensor(rows, dtype=torch.int32, device=DEVICE)


def pointer(tensor, offset=0):
    return ctypes.c_void_p(tensor.data_ptr() + offset)


def stream():
    return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)


def forward(lib, qkv, lengths):
    """A call that fills the returned output and log-sum-exp."""
    rows = FORWARD["NWG"] * 64
    tiles = table([(s + f, s, s + n) for n, s in ranges(lengths) for f in range(0, n, rows)])
    total = qkv.shape[0]
    out = torch.full((total, HEADS, 64), float("nan"), device=DEVICE, dtype=torch.bfloat16)
    lse = torch.full((HEADS, total), float("nan"), device=DEVICE)
    part = HEADS * 128

    def call():
        error = lib.launch(pointer(qkv), pointer(qkv, 2 * part), pointer(tiles), pointer(out), pointer(lse), 3 * part, part, 3 * part,
                           HEADS, total, ctypes.c_float(LOG2_E / 8), tiles.shape[0], stream())
        assert error == 0, error

    return call, out, lse


def backward(lib, qkv, d_out, lse2, delta, lengths):
    """A call that fills the returned gradients; `lse2` is the log-sum-exp in units of log2."""
    rows, work, queries = BACKWARD["BM"], [], []
    for n, s in ranges(lengths):
        first = len(queries)
        work += [(s + f, s, s + n, head << 20 | first) for head in range(HEADS) for f in reversed(range(0, n, rows))]
        queries += [(s + f, s, s + n, 0) for f in range(0, n, rows)]
    work, queries = table(work), table(queries)
    total, tiles = qkv.shape[0], queries.shape[0]
    sums = torch.full((2 * HEADS * tiles * rows * 64,), float("nan"), device=DEVICE)
    turns = torch.zeros(2 * HEADS * tiles + 1, dtype=torch.int32, device=DEVICE)
    grads = [torch.full((total, HEADS, 64), float("nan"), device=DEVICE, dtype=torch.bfloat16) for _ in range(3)]
    part = HEADS * 128

    def call():
        error = lib.launch(pointer(qkv), pointer(qkv, 2 * part), pointer(d_out), pointer(lse2), pointer(delta), pointer(work), pointer(queries),
                           pointer(sums), pointer(turns), *map(pointer, grads), 3 * part, part, 3 * part, part, HEADS, total, tiles,
                           ctypes.c_float(LOG2_E / 8), ctypes.c_float(0.125), work.shape[0], stream())
        assert error == 0, error

    return call, grads


def reference(qkv, d_out, lengths):
    outs, lses, grads, start = [], [], [], 0
    for n in lengths:
        q, k, v = [x.transpose(0, 1).double().requires_grad_() for x in qkv[start:start + n].unbind(1)]
        scores = q @ k.transpose(1, 2) / 8
        out = scores.softmax(-1) @ v
        grad = torch.autograd.grad(out, (q, k, v), d_out[start:start + n].transpose(0, 1).double())
        outs.append(out.detach().transpose(0, 1))
        lses.append(scores.logsumexp(-1).detach())
        grads.append(torch.stack([x.transpose(0, 1) for x in grad], 1))
        start += n
    return torch.cat(outs), torch.cat(lses, 1), torch.cat(grads)


def milliseconds(call, count):
    call()
    best = math.inf
    for _ in range(5):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(count):
            call()
        end.record()
        torch.cuda.synchronize()
        best = min(best, start.elapsed_time(end) / count)
    return best


def random(*shape):
    return torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16)


def check(libs):
    total = sum(RAGGED)
    qkv, d_out = random(total, 3, HEADS, 64), random(total, HEADS, 64)
    out, lse, grads = reference(qkv, d_out, RAGGED)
    call, found, found_lse = forward(libs[0], qkv, RAGGED)
    call()
    delta = (out * d_out.double()).sum(-1).T.float().contiguous()
    back, found_grads = backward(libs[1], qkv, d_out, (lse * LOG2_E).float().contiguous(), delta, RAGGED)
    back()
    torch.cuda.synchronize()
    print(f"output: largest error {(found.double() - out).abs().max():.4f}, log-sum-exp {(found_lse.double() - lse).abs().max():.6f}")
    for i, name in enumerate("qkv"):
        print(f"d_{name}: relative error {((found_grads[i].double() - grads[:, i]).norm() / grads[:, i].norm()).item():.4f}")
    first, same = [x.clone() for x in (found, *found_grads)], True
    for _ in range(10):
        call()
        back()
        torch.cuda.synchronize()
        same &= all(torch.equal(a, b) for a, b in zip(first, (found, *found_grads)))
    print("the same bits in ten more runs:", same)


def peer(backend, qkv, d_out, lengths):
    q, k, v = [x.reshape(len(lengths), lengths[0], HEADS, 64).transpose(1, 2).detach().requires_grad_() for x in qkv.unbind(1)]
    grad = d_out.reshape(len(lengths), lengths[0], HEADS, 64).transpose(1, 2)

    def run():
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v)

    out = run()
    with torch.no_grad():
        ahead = milliseconds(run, 20)
    return ahead, milliseconds(lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True), 10)


def main():
    torch.manual_seed(0)
    libs = build("forward", FORWARD), build("backward", BACKWARD)
    check(libs)
    print("| sequences | pass | prototype ms (TFLOP/s) | cuDNN ms | FlashAttention-2 ms | cuDNN / prototype |\n|---|---|---|---|---|---|")
    for name, lengths in SETS.items():
        total, pairs = sum(lengths), sum(n * n for n in lengths)
        qkv, d_out = random(total, 3, HEADS, 64), random(total, HEADS, 64)
        lse2 = torch.full((HEADS, total), math.log2(lengths[0]) + 0.7, device=DEVICE)
        delta = torch.zeros(HEADS, total, device=DEVICE)
        ours = (milliseconds(forward(libs[0], qkv, lengths)[0], 20),
                milliseconds(backward(libs[1], qkv, d_out, lse2, delta, lengths)[0], 10))
        cudnn, flash = (peer(b, qkv, d_out, lengths) for b in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION))
        for i, (what, flops) in enumerate((("forward", 4), ("backward", 10))):
            speed = flops * pairs * HEADS * 64 / ours[i] / 1e9
            print(f"| {name} | {what} | {ours[i]:.3f} ({speed:.0f}) | {cudnn[i]:.3f} | {flash[i]:.3f} | {cudnn[i] / ours[i]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
