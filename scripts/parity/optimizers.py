#!/usr/bin/env python3
"""Prints the weights after ten steps of torch-optimi's StableAdamW and of torch's AdamW, for modernbert-train/src/optim/traces.rs.

    .venv/bin/python scripts/parity/optimizers.py

A matrix [7, 5] and a vector [6], in f64: starting weights and gradients follow from their index and step, with gradients 30 times larger
in the sixth step. The rate falls from 0.02 by a tenth each step. Weight decay is 0.01 of a weight at the peak rate, for the matrix alone;
torch's AdamW multiplies decay by the rate, so it gets 0.01 / 0.02, which is Composer's DecoupledAdamW with 0.01.
"""

import torch
from optimi import StableAdamW

PEAK, DECAY, STEPS = 0.02, 0.01, 10


def start(count):
    return torch.tensor([((i * 31 + 7) % 97) / 97 - 0.5 for i in range(count)], dtype=torch.float64)


def gradient(count, step):
    spike = 30.0 if step == 5 else 1.0
    return torch.tensor([(((i * 7919 + step * 104729) % 1009) / 1009 * 2 - 1) * spike for i in range(count)], dtype=torch.float64)


def trace(make):
    matrix = torch.nn.Parameter(start(35).reshape(7, 5))
    vector = torch.nn.Parameter(start(6))
    optimizer = make(matrix, vector)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = PEAK * (1 - 0.1 * step)
        matrix.grad, vector.grad = gradient(35, step).reshape(7, 5), gradient(6, step)
        optimizer.step()
    return torch.cat([matrix.detach().reshape(-1), vector.detach()]).tolist()


def main():
    common = dict(lr=PEAK, betas=(0.9, 0.98), eps=1e-6)
    stable = trace(lambda m, v: StableAdamW([{"params": [m], "weight_decay": DECAY}, {"params": [v], "weight_decay": 0.0}],
                                            decouple_lr=True, max_lr=PEAK, triton=False, foreach=False, **common))
    adamw = trace(lambda m, v: torch.optim.AdamW([{"params": [m], "weight_decay": DECAY / PEAK},
                                                  {"params": [v], "weight_decay": 0.0}], **common))
    for name, values in [("STABLE_ADAMW", stable), ("ADAMW", adamw)]:
        print(f"const {name}: [f64; {len(values)}] = [")
        for at in range(0, len(values), 4):
            print("    " + " ".join(f"{value:.12f}," for value in values[at:at + 4]))
        print("];")


if __name__ == "__main__":
    main()
