#!/usr/bin/env python3
"""Writes benches/lengths.json: the document lengths of all measurements, of this project and its peers.

The four sets of 8192 documents follow section 4 of the ModernBERT paper: fixed and normally distributed lengths, truncated to
integers and clamped. The CPU sets are single batches that take seconds on two cores. The seed is fixed: running
this again writes the same file.
"""
import json
import pathlib
import random

DOCUMENTS = 8192


def clamp(low, value, high):
    return max(low, min(high, int(value)))


def normal(seed, count, mean, deviation, low, high):
    rng = random.Random(seed)
    return [clamp(low, rng.gauss(mean, deviation), high) for _ in range(count)]


def fixed(name, group, batch, count, length):
    return {"name": name, "group": group, "batch": batch, "fixed": {"count": count, "length": length}}


def variable(name, group, batch, lengths):
    return {"name": name, "group": group, "batch": batch, "lengths": lengths}


queries = random.Random(42)
sets = [
    fixed("16x32", "cpu", 16, 16, 32),
    fixed("8x128", "cpu", 8, 8, 128),
    fixed("2x512", "cpu", 2, 2, 512),
    fixed("1x2048", "cpu", 1, 1, 2048),
    fixed("1x16", "latency", 1, 1, 16),
    fixed("1x32", "latency", 1, 1, 32),
    fixed("8x32", "latency", 8, 8, 32),
    fixed("64x32", "latency", 64, 64, 32),
    fixed("1x23", "latency", 1, 1, 23),
    fixed("5x37", "latency", 5, 5, 37),
    fixed("1x512", "latency", 1, 1, 512),
    variable("ragged", "cpu", 16, normal(1, 16, 128, 64, 8, 512)),
    fixed("fixed-512", "paper", 512, DOCUMENTS, 512),
    variable("variable-256", "paper", 512, normal(42, DOCUMENTS, 256, 64, 32, 512)),
    fixed("fixed-8192", "paper", 32, DOCUMENTS, 8192),
    variable("variable-4096", "paper", 32, normal(42, DOCUMENTS, 4096, 1024, 32, 8192)),
    fixed("fixed-1024", "pretraining", 64, DOCUMENTS, 1024),
    variable("queries", "queries", 512, [queries.randint(32, 128) for _ in range(DOCUMENTS)]),
]
target = pathlib.Path(__file__).resolve().parent.parent / "lengths.json"
lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in sets)
target.write_text('{"sets":[\n' + lines + "\n]}\n")
print(f"wrote {target}")
