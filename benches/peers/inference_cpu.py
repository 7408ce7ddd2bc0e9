#!/usr/bin/env python3
"""The peer of `inference --device flex`: transformers' ModernBERT in f32 on the CPU, attention `sdpa`, padded batches.

Needs torch and transformers. Measures sets of benches/lengths.json (group `cpu` unless names are given) and prints a row of JSON for
each, with the fields of `inference`. With --turns it reads names of sets from standard input and prints one timed pass for each. Weights
are random. Throughput counts tokens without padding; transformers computes on the padding as well.
"""
import argparse
import json
import pathlib
import resource
import statistics
import sys
import time

import torch
import transformers
from transformers import ModernBertConfig, ModernBertModel

SHAPES = {
    "base": {},
    "large": dict(hidden_size=1024, intermediate_size=2624, num_attention_heads=16, num_hidden_layers=28),
}


def sets():
    path = pathlib.Path(__file__).resolve().parent.parent / "lengths.json"
    for entry in json.loads(path.read_text())["sets"]:
        fixed = entry.get("fixed")
        entry["lengths"] = [fixed["length"]] * fixed["count"] if fixed else entry["lengths"]
        yield entry


def batches(entry, pad):
    lengths, size = entry["lengths"], entry["batch"]
    for start in range(0, len(lengths), size):
        part = lengths[start : start + size]
        width = max(part)
        ids = torch.randint(100, 16000, (len(part), width))
        if min(part) == width:
            yield {"input_ids": ids}
            continue
        mask = (torch.arange(width)[None, :] < torch.tensor(part)[:, None]).long()
        yield {"input_ids": torch.where(mask.bool(), ids, pad), "attention_mask": mask}


def one_pass(model, prepared):
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for batch in prepared:
        model(**batch)
    ms = (time.perf_counter() - start) * 1e3
    after = resource.getrusage(resource.RUSAGE_SELF)
    return ms, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


def row(entry, ms, cpu_ms):
    return {
        "set": entry["name"],
        "op": "encoder",
        "pass": "forward",
        "ms": ms,
        "tok_s": sum(entry["lengths"]) / ms * 1e3,
        "tflops": None,
        "gbs": None,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "cpu_ms": cpu_ms,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=["cpu"], help="sets or groups of sets")
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--threads", type=int, help="default: as many as torch takes")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--turns", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    config = ModernBertConfig(vocab_size=50368, pad_token_id=50283, **SHAPES[args.shape])
    config._attn_implementation = "sdpa"
    model = ModernBertModel(config).eval()
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads",
        file=sys.stderr,
    )
    known = {}

    def prepared(entry):
        if entry["name"] not in known:
            known[entry["name"]] = list(batches(entry, config.pad_token_id))
            for _ in range(args.warm_up):
                one_pass(model, known[entry["name"]])
        return known[entry["name"]]

    with torch.inference_mode():
        if args.turns:
            by_name = {entry["name"]: entry for entry in sets()}
            for line in sys.stdin:
                entry = by_name[line.strip()]
                print(json.dumps(row(entry, *one_pass(model, prepared(entry)))), flush=True)
            return
        for entry in sets():
            if entry["name"] in args.names or entry["group"] in args.names:
                timed = [one_pass(model, prepared(entry)) for _ in range(args.runs)]
                print(json.dumps(row(entry, *(statistics.median_low(part) for part in zip(*timed)))), flush=True)


main()
