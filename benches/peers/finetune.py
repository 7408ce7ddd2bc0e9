#!/usr/bin/env python3
"""The peer of `finetuning`: transformers' ModernBertForSequenceClassification finetuned on the same sequences, attention `sdpa`.

    python benches/peers/finetune.py --device cuda --dtype bf16 --shape base --steps 100

Needs torch and transformers. Uses the sequences of `finetuning` (same lengths, ids, classes and batches), pads each batch to its
longest sequence as transformers does, runs AdamW, and prints a row of JSON with the same fields. Weights are random and in f32; with
--dtype bf16 the model runs under autocast, as in the authors' finetuning.
"""
import argparse
import json
import time

import torch
import transformers
from transformers import ModernBertConfig, ModernBertForSequenceClassification

SHAPES = {
    "base": {},
    "large": dict(hidden_size=1024, intermediate_size=2624, num_attention_heads=16, num_hidden_layers=28),
    "17m": dict(hidden_size=256, intermediate_size=384, num_attention_heads=4, num_hidden_layers=7),
}


def sequences(count, mean, longest):
    """Returns the ids and classes of the program `finetuning`, from the upper bits of the states of a 32-bit generator."""
    state = 1

    def number(below):
        nonlocal state
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        return (state >> 8) % below

    # The sum of two uniform numbers: most sequences are near the mean, some are short, some long.
    lengths = [min(max(8, number(mean) + number(mean) + 1), longest) for _ in range(count)]
    return [([100 + number(15900) for _ in range(length)], number(2)) for length in lengths]


def bucketed(rows, batch, pool=16):
    """Returns batches of similar length: sequences are sorted within pools of 16 batches and then divided into batches."""
    out = []
    for start in range(0, len(rows), pool * batch):
        part = sorted(rows[start : start + pool * batch], key=lambda row: len(row[0]))
        out += [part[i : i + batch] for i in range(0, len(part), batch)]
    return out


def tensors(rows, pad, device):
    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, (row, _) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    labels = torch.tensor([label for _, label in rows])
    return {k: v.to(device) for k, v in {"input_ids": ids, "attention_mask": mask, "labels": labels}.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--mean", type=int, default=40, help="mean tokens of a sequence")
    parser.add_argument("--longest", type=int, default=256)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=10)
    parser.add_argument("--eval-sequences", type=int, default=4096)
    parser.add_argument("--order", choices=["bucketed", "shuffled"], default="bucketed")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.backends.cuda.matmul.allow_tf32 = True
    config = ModernBertConfig(vocab_size=50368, pad_token_id=50283, num_labels=2, **SHAPES[args.shape])
    config._attn_implementation = "sdpa"
    model = ModernBertForSequenceClassification(config).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, betas=(0.9, 0.98), eps=1e-6, fused=device.type == "cuda")
    cast = lambda: torch.autocast(device.type, torch.bfloat16, enabled=args.dtype == "bf16")  # noqa: E731
    sync = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    total = args.warm_up + args.steps
    rows = sequences(total * args.batch, args.mean, args.longest)
    batches = bucketed(rows, args.batch) if args.order == "bucketed" else [
        rows[i : i + args.batch] for i in range(0, len(rows), args.batch)
    ]
    model.train()
    start = time.perf_counter()
    tokens = 0
    for step, batch in enumerate(batches):
        if step == args.warm_up:
            sync()
            start, tokens = time.perf_counter(), 0
        tokens += sum(len(ids) for ids, _ in batch)
        with cast():
            loss = model(**tensors(batch, config.pad_token_id, device)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    sync()
    seconds = time.perf_counter() - start

    model.eval()
    rows = sorted(sequences(args.eval_sequences, args.mean, args.longest), key=lambda row: len(row[0]))
    evaluate = [rows[i : i + 256] for i in range(0, len(rows), 256)]
    eval_seconds = 0.0
    with torch.inference_mode(), cast():
        for timed in (False, True):
            sync()
            start = time.perf_counter()
            for batch in evaluate:
                model(**tensors(batch, config.pad_token_id, device)).logits.float().cpu()
            sync()
            eval_seconds = time.perf_counter() - start if timed else 0.0
    print(
        json.dumps(
            {
                "program": f"transformers {transformers.__version__}, torch {torch.__version__}, sdpa",
                "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
                "dtype": args.dtype,
                "shape": args.shape,
                "batch": args.batch,
                "steps_s": args.steps / seconds,
                "train_tok_s": tokens / seconds,
                "eval_sequences_s": args.eval_sequences / eval_seconds,
            }
        )
    )


if __name__ == "__main__":
    main()
