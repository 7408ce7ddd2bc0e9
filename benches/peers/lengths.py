#!/usr/bin/env python3
"""Writes benches/lengths.json: the document lengths of all measurements, of this project and its peers.

The four sets of 8192 documents are those of section 4 of the ModernBERT paper: fixed lengths, and normally distributed ones, truncated to
integers and clamped. The authors drew them with `torch.normal` and seed 42; `torch_normal` draws the same numbers without torch, so totals and
extremes are those of the paper's table 10. The CPU sets are single batches that take seconds on two cores. Seeds are fixed: running this
again writes the same file.
"""
import json
import math
import pathlib
import random
import struct

DOCUMENTS = 8192


def clamp(low, value, high):
    return max(low, min(high, int(value)))


def normal(seed, count, mean, deviation, low, high):
    rng = random.Random(seed)
    return [clamp(low, rng.gauss(mean, deviation), high) for _ in range(count)]


def f32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def mersenne_twister(seed):
    """A generator of 32-bit words, seeded as torch seeds it (Python's own seeding differs)."""
    words = [seed]
    for i in range(1, 624):
        words.append((1812433253 * (words[-1] ^ (words[-1] >> 30)) + i) & 0xFFFFFFFF)
    generator = random.Random()
    generator.setstate((3, (*words, 624), None))
    return lambda: generator.getrandbits(32)


def torch_normal(seed, count, mean, deviation, low, high):
    """Values of `torch.normal(mean, deviation, (count,))` on a CPU, truncated and clamped: Box-Muller on blocks of 16 uniform f32 numbers of
    24 bits each, of which the first eight give the radius and the others the angle."""
    word = mersenne_twister(seed)
    lengths = []
    for _ in range(count // 16):
        uniform = [(word() & 0xFFFFFF) * 2.0**-24 for _ in range(16)]
        radius = [f32(math.sqrt(f32(-2.0 * f32(math.log(1.0 - u))))) for u in uniform[:8]]
        angle = [f32(f32(2.0 * math.pi) * u) for u in uniform[8:]]
        for part in (math.cos, math.sin):
            for r, a in zip(radius, angle):
                normal = f32(r * f32(part(a)))
                lengths.append(clamp(low, f32(normal * deviation + mean), high))
    return lengths


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
    variable("variable-256", "paper", 512, torch_normal(42, DOCUMENTS, 256, 64, 32, 512)),
    fixed("fixed-8192", "paper", 32, DOCUMENTS, 8192),
    variable("variable-4096", "paper", 32, torch_normal(42, DOCUMENTS, 4096, 1024, 32, 8192)),
    fixed("fixed-1024", "pretraining", 64, DOCUMENTS, 1024),
    variable("queries", "queries", 512, [queries.randint(32, 128) for _ in range(DOCUMENTS)]),
]
# This draw is 2181 within the last bit, to which torch's vectorized functions round it.
long = next(entry for entry in sets if entry["name"] == "variable-4096")["lengths"]
assert long[6935] in (2180, 2181)
long[6935] = 2181
target = pathlib.Path(__file__).resolve().parent.parent / "lengths.json"
lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in sets)
target.write_text('{"sets":[\n' + lines + "\n]}\n")
print(f"wrote {target}")
