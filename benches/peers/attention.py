#!/usr/bin/env python3
"""FlashAttention-2 (torch's varlen_attn) on the batches of the program `attention`.

    python3 benches/peers/attention.py [--json FILE] [--heads 12] [--head-dim 64] [--tokens 65536] [--sets paper,queries]

Prints and writes the same rows. `+rot` is RoPE (compiled with torch.compile) followed by attention.
"""
import argparse
import json
import pathlib
import statistics

import torch
from torch.nn.attention.varlen import varlen_attn

HALF_WINDOW = 64


def milliseconds(call, calls=20, runs=5):
    call()
    times = []
    for _ in range(runs):
        start, end = torch.cuda.Event(True), torch.cuda.Event(True)
        torch.cuda.synchronize()
        start.record()
        for _ in range(calls):
            call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / calls)
    return statistics.median(times)


def batches(tokens, names):
    path = pathlib.Path(__file__).resolve().parent.parent / "lengths.json"
    for entry in json.loads(path.read_text())["sets"]:
        if entry["name"] not in names and entry["group"] not in names:
            continue
        fixed = entry.get("fixed")
        documents = [fixed["length"]] * fixed["count"] if fixed else entry["lengths"]
        lengths, total = [], 0
        for length in documents:
            if total + length > tokens:
                break
            total += length
            lengths.append(length)
        yield entry["name"], lengths


def visible_pairs(lengths, window):
    if window is None:
        return sum(length * length for length in lengths)
    return sum(min(length - 1, i + window) - max(0, i - window) + 1 for length in lengths for i in range(length))


@torch.compile
def rotate(x, cos, sin):
    first, second = x.chunk(2, -1)
    return (x * cos + torch.cat([-second, first], -1) * sin).to(x.dtype)


def attend(q, k, v, boundaries, longest, window):
    if window is None:
        return varlen_attn(q, k, v, boundaries, boundaries, longest, longest)
    return varlen_attn(q, k, v, boundaries, boundaries, longest, longest, window_size=(window, window))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--json")
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--sets", default="paper,queries")
    arguments = parser.parse_args()
    head_dim = arguments.head_dim
    torch.manual_seed(0)
    device = torch.device("cuda")
    rows = []
    for name, lengths in batches(arguments.tokens, arguments.sets.split(",")):
        total, longest = sum(lengths), max(lengths)
        boundaries = torch.tensor([0] + lengths, device=device).cumsum(0).to(torch.int32)
        positions = torch.cat([torch.arange(length, device=device) for length in lengths])
        frequencies = 1.0 / (160000.0 ** (torch.arange(0, head_dim, 2, device=device).float() / head_dim))
        angles = (positions[:, None].float() * frequencies).repeat(1, 2)[:, None, :]
        cos, sin = angles.cos().to(torch.bfloat16), angles.sin().to(torch.bfloat16)
        shape = (total, arguments.heads, head_dim)
        q, k, v = [torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
        d_out = torch.randn(shape, device=device, dtype=torch.bfloat16)
        for window in (None, HALF_WINDOW):
            flops = 4 * visible_pairs(lengths, window) * arguments.heads * head_dim
            for rotary in (False, True):
                def call():
                    if rotary:
                        return attend(rotate(q, cos, sin), rotate(k, cos, sin), v, boundaries, longest, window)
                    return attend(q, k, v, boundaries, longest, window)

                with torch.no_grad():
                    forward = milliseconds(call)
                out = call()
                backward = milliseconds(lambda: torch.autograd.grad(out, (q, k, v), d_out, retain_graph=True))
                op = ("global" if window is None else "local") + ("+rot" if rotary else "")
                for which, ms, work, tensors in (("forward", forward, flops, 4), ("backward", backward, 2.5 * flops, 8)):
                    row = {"set": name, "op": op, "pass": which, "ms": ms, "tflops": work / ms / 1e9,
                           "gbs": tensors * total * arguments.heads * head_dim * 2 / ms / 1e6}
                    rows.append(row)
                    print(f"{name:<14} {op:<10} {which:<8} {ms:>9.3f} ms {row['tflops']:>8.1f} TFLOP/s {row['gbs']:>8.1f} GB/s", flush=True)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
