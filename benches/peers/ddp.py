#!/usr/bin/env python3
"""Data-parallel training of the PyTorch peer: the model of model.py under DistributedDataParallel with torch.compile, NCCL's all-reduce.

    torchrun --nproc-per-node N benches/peers/ddp.py [--shape base] [--tokens 65536] [--lengths 1024,8192] [--json FILE]

Every process takes a step on the same number of tokens. Rank 0 prints milliseconds a step, the median between CUDA events after
compilation and warm-up, and tokens per second of all processes together.
"""
import argparse
import json
import os
import pathlib

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from model import SHAPES, Model, milliseconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", default="base", choices=list(SHAPES))
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--lengths", default="1024,8192")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    gpu = int(os.environ["LOCAL_RANK"])
    torch.cuda.set_device(gpu)
    device = torch.device("cuda", gpu)
    dist.init_process_group("nccl", device_id=device)
    world = dist.get_world_size()
    torch.manual_seed(0)
    rows = []
    for length in map(int, arguments.lengths.split(",")):
        count = arguments.tokens // length
        total = count * length
        boundaries = torch.tensor([0] + [length] * count, device=device).cumsum(0).to(torch.int32)
        ids = torch.randint(100, 16000, (total,), device=device)
        positions = torch.arange(length, device=device).repeat(count)
        labelled = torch.randperm(total, device=device)[: int(total * 0.3)].sort().values
        labels = ids[labelled]
        torch._dynamo.reset()
        model = Model(**SHAPES[arguments.shape]).to(device)
        # The tables are no buffers of the module.
        model.tables = tuple(tuple(part.to(device) for part in pair) for pair in model.tables)
        parallel = DistributedDataParallel(model, device_ids=[gpu], gradient_as_bucket_view=True) if world > 1 else model
        run = torch.compile(parallel.train(), dynamic=False)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

        def step():
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = F.cross_entropy(run(ids, positions, boundaries, length, labelled).float(), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        ms = milliseconds(step, 4, 10)
        if dist.get_rank() == 0:
            row = {"length": length, "ranks": world, "ms": ms, "tok_s": world * total / ms * 1e3}
            rows.append(row)
            print(f"ddp {length:>5} tokens, {world} ranks: {ms:.2f} ms, {row['tok_s']:.0f} tok/s", flush=True)
        del model, parallel, run, optimizer
        torch.cuda.empty_cache()
    if arguments.json and dist.get_rank() == 0:
        pathlib.Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
