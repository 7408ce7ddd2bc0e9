#!/usr/bin/env python3
"""cuBLAS (through torch) on the GEMMs of the program `linear`.

    python3 benches/peers/linear.py [--json FILE] [--shape base,large] [--tokens 65536] [--rest MILLISECONDS] [--only "Wi d_input"]
"""
import argparse
import json
import pathlib
import statistics
import time

import torch


def milliseconds(call, rest, calls=50, runs=5):
    call()
    torch.cuda.synchronize()
    time.sleep(rest / 1e3)
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--json")
    parser.add_argument("--shape", default="base,large")
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--rest", type=int, default=0)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rows = []
    for model in arguments.shape.split(","):
        hidden, inner = {"base": (768, 1152), "large": (1024, 2624)}[model]
        shapes = [("Wqkv", 10, hidden, 3 * hidden), ("attn.Wo", 10, hidden, hidden), ("Wi", 10, hidden, 2 * inner),
                  ("mlp.Wo", 10, inner, hidden), ("decoder", 3, hidden, 50368)]
        for name, share, inputs, outputs in shapes:
            tokens = arguments.tokens * share // 10
            make = lambda *shape: torch.randn(shape, device="cuda", dtype=torch.bfloat16)
            x, weight, d_out = make(tokens, inputs), make(outputs, inputs), make(tokens, outputs)
            passes = {"forward": lambda: x @ weight.t(), "d_input": lambda: d_out @ weight, "d_weight": lambda: d_out.t() @ x}
            for which, call in passes.items():
                if arguments.only not in f"{model} {name} {which}":
                    continue
                ms = milliseconds(call, arguments.rest)
                row = {"set": f"{model} {name}", "op": "linear", "pass": which, "ms": ms, "tflops": 2 * tokens * inputs * outputs / ms / 1e9}
                rows.append(row)
                print(f"{row['set']:<14} {which:<8} {ms:>9.3f} ms {row['tflops']:>8.1f} TFLOP/s", flush=True)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
