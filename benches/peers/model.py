#!/usr/bin/env python3
"""The fastest PyTorch peer of `inference` and `training`: an unpadded ModernBERT with torch.compile, FlashAttention-2 (torch's
varlen_attn) and fused AdamW, on the same documents.

    python3 benches/peers/model.py inference|training [--shape base|large] [--tokens 65536] [--sets paper] [--json FILE] [--eager]

Inference uses bf16 weights; training uses autocast to bf16 with f32 weights, and labels 30 % of the tokens. Milliseconds are medians
between CUDA events, after compilation and warm-up.
"""
import argparse
import json
import pathlib
import statistics

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.attention.varlen import varlen_attn

HEAD_DIM = 64
HALF_WINDOW = 64
VOCABULARY = 50368
SHAPES = {"base": dict(hidden=768, inner=1152, layers=22), "large": dict(hidden=1024, inner=2624, layers=28)}


def milliseconds(call, warm_up, runs):
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(runs):
        start, end = torch.cuda.Event(True), torch.cuda.Event(True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
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


def table(theta):
    frequencies = 1.0 / (theta ** (torch.arange(0, HEAD_DIM, 2, device="cuda").float() / HEAD_DIM))
    angles = torch.outer(torch.arange(8192, device="cuda").float(), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


class Layer(nn.Module):
    def __init__(self, index, hidden, inner):
        super().__init__()
        self.heads, self.wide = hidden // HEAD_DIM, index % 3 == 0
        self.attn_norm = nn.LayerNorm(hidden, eps=1e-5, bias=False) if index else nn.Identity()
        self.mlp_norm = nn.LayerNorm(hidden, eps=1e-5, bias=False)
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden, bias=False), nn.Linear(hidden, hidden, bias=False)
        self.up, self.down = nn.Linear(hidden, 2 * inner, bias=False), nn.Linear(inner, hidden, bias=False)

    def forward(self, x, cos, sin, boundaries, longest):
        q, k, v = self.qkv(self.attn_norm(x)).view(-1, 3, self.heads, HEAD_DIM).unbind(1)
        q, k = rotate(q, cos, sin).to(v.dtype).contiguous(), rotate(k, cos, sin).to(v.dtype).contiguous()
        window = {} if self.wide else {"window_size": (HALF_WINDOW, HALF_WINDOW)}
        attended = varlen_attn(q, k, v.contiguous(), boundaries, boundaries, longest, longest, **window)
        x = x + self.out(attended.reshape(-1, self.heads * HEAD_DIM))
        activated, gate = self.up(self.mlp_norm(x)).chunk(2, -1)
        return x + self.down(F.gelu(activated) * gate)


class Model(nn.Module):
    def __init__(self, hidden, inner, layers):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, hidden)
        self.embedding_norm, self.final_norm = (nn.LayerNorm(hidden, eps=1e-5, bias=False) for _ in range(2))
        self.layers = nn.ModuleList([Layer(i, hidden, inner) for i in range(layers)])
        self.dense, self.head_norm = nn.Linear(hidden, hidden, bias=False), nn.LayerNorm(hidden, eps=1e-5, bias=False)
        self.bias = nn.Parameter(torch.zeros(VOCABULARY))
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.tables = table(160000.0), table(10000.0)

    def forward(self, ids, positions, boundaries, longest, labelled=None):
        x = self.embedding_norm(self.embedding(ids))
        rows = [[part[positions][:, None, :].to(torch.bfloat16) for part in pair] for pair in self.tables]
        for layer in self.layers:
            x = layer(x, *rows[0 if layer.wide else 1], boundaries, longest)
        x = self.final_norm(x)
        if labelled is None:
            return x
        x = self.head_norm(F.gelu(self.dense(x[labelled])))
        return F.linear(x, self.embedding.weight, self.bias.to(x.dtype))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["inference", "training"])
    parser.add_argument("--json")
    parser.add_argument("--shape", default="base", choices=list(SHAPES))
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--sets", default="paper")
    parser.add_argument("--eager", action="store_true")
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.manual_seed(0)
    shape = SHAPES[arguments.shape]
    hidden, inner, layers = shape["hidden"], shape["inner"], shape["layers"]
    wide = sum(1 for i in range(layers) if i % 3 == 0)
    rows = []
    for name, lengths in batches(arguments.tokens, arguments.sets.split(",")):
        total, longest = sum(lengths), max(lengths)
        boundaries = torch.tensor([0] + lengths, device="cuda").cumsum(0).to(torch.int32)
        ids = torch.randint(100, 16000, (total,), device="cuda")
        positions = torch.cat([torch.arange(length, device="cuda") for length in lengths])
        products = layers * (4 * hidden * hidden + 3 * hidden * inner)
        pairs = wide * visible_pairs(lengths, None) + (layers - wide) * visible_pairs(lengths, HALF_WINDOW)
        flops = 2 * products * total + 4 * hidden * pairs
        torch._dynamo.reset()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        model = Model(**shape).to("cuda")
        compiled = (lambda m: m) if arguments.eager else (lambda m: torch.compile(m, dynamic=False))
        if arguments.what == "inference":
            run = compiled(model.to(torch.bfloat16).eval())
            with torch.no_grad():
                ms = milliseconds(lambda: run(ids, positions, boundaries, longest), 5, 10)
            which = "forward"
        else:
            run = compiled(model.train())
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
            count = int(total * 0.3)
            labelled = torch.randperm(total, device="cuda")[:count].sort().values
            labels = ids[labelled]
            flops = 3 * (flops + 2 * count * (hidden * hidden + hidden * VOCABULARY))

            def step():
                with torch.autocast("cuda", dtype=torch.bfloat16):
                    loss = F.cross_entropy(run(ids, positions, boundaries, longest, labelled).float(), labels)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

            ms = milliseconds(step, 4, 8)
            which = "step"
        row = {"set": name, "op": arguments.what, "pass": which, "ms": ms, "tok_s": total / ms * 1e3, "tflops": flops / ms / 1e9,
               "peak_mib": torch.cuda.max_memory_allocated() / 2**20}
        rows.append(row)
        print(f"{name:<14} {which:<8} {ms:>9.2f} ms {row['tok_s']:>10.0f} tok/s {row['tflops']:>7.1f} TFLOP/s {row['peak_mib']:>8.0f} MiB", flush=True)
        del model, run
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
