#!/usr/bin/env python3
"""Trains a small masked language model in PyTorch, and writes what the program `train-parity` repeats on the same batches and weights.

    .venv/bin/python scripts/parity/train.py FOLDER [--steps 100] [--seed 1]

Writes to FOLDER: the model before the first step (config.json, model.safetensors), batches.safetensors (`ids` and `labels`, int64
[steps, rows, width], -100 where nothing is predicted), training.json, and for each of f32 and bf16 (autocast, weights in f32)
reference-DTYPE.safetensors: `losses` [steps], the loss before each update, and every parameter after the last one.
The model is transformers' ModernBertForMaskedLM (attention `sdpa`), the optimizer torch-optimi's StableAdamW.
"""

import argparse, json, pathlib

import torch
from optimi import StableAdamW
from safetensors.torch import save_file
from transformers import ModernBertConfig, ModernBertForMaskedLM

VOCAB, ROWS, WIDTH, MASK, SHARE = 512, 8, 64, 4, 0.3
TRAINING = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6, "weight_decay": 1e-5}


def batches(steps):
    """Texts of a noisy grammar, so that there is something to learn: a token follows from the two before it, but for one in five."""
    a, b = torch.randint(5, VOCAB, (2, VOCAB))
    ids = torch.randint(5, VOCAB, (steps, ROWS, WIDTH))
    for i in range(2, WIDTH):
        follows = torch.where(ids[..., i - 2] % 2 == 0, a[ids[..., i - 1]], b[ids[..., i - 1]])
        ids[..., i] = torch.where(torch.rand(steps, ROWS) < 0.8, follows, ids[..., i])
    chosen = torch.rand(ids.shape) < SHARE
    return torch.where(chosen, MASK, ids), torch.where(chosen, ids, -100)


def model_of():
    config = ModernBertConfig(vocab_size=VOCAB, hidden_size=128, intermediate_size=192, num_hidden_layers=4, num_attention_heads=2,
                              local_attention=16, pad_token_id=None, bos_token_id=None, eos_token_id=None, cls_token_id=None,
                              sep_token_id=None)
    config._attn_implementation = "sdpa"
    return ModernBertForMaskedLM(config)


def train(model, ids, labels, bf16):
    named = dict(model.named_parameters())
    groups = [{"params": [p for p in named.values() if p.ndim > 1], "weight_decay": TRAINING["weight_decay"]},
              {"params": [p for p in named.values() if p.ndim == 1], "weight_decay": 0.0}]
    optimizer = StableAdamW(groups, lr=TRAINING["lr"], betas=(TRAINING["beta1"], TRAINING["beta2"]), eps=TRAINING["eps"],
                            decouple_lr=True, max_lr=TRAINING["lr"], triton=False, foreach=False)
    losses = []
    for x, y in zip(ids, labels):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = model(input_ids=x, attention_mask=torch.ones_like(x), labels=y).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses, {name: p.detach().clone() for name, p in named.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    start = model_of().train()
    args.folder.mkdir(parents=True, exist_ok=True)
    start.save_pretrained(args.folder)
    ids, labels = batches(args.steps)
    save_file({"ids": ids, "labels": labels}, args.folder / "batches.safetensors")
    (args.folder / "training.json").write_text(json.dumps(TRAINING))
    for name, bf16 in [("f32", False), ("bf16", True)]:
        model = model_of().train()
        model.load_state_dict(start.state_dict())
        losses, weights = train(model, ids, labels, bf16)
        save_file({"losses": torch.tensor(losses), **weights}, args.folder / f"reference-{name}.safetensors")
        print(f"{name}: {args.steps} steps, loss {losses[0]:.4f} to {losses[-1]:.4f}", flush=True)


if __name__ == "__main__":
    main()
