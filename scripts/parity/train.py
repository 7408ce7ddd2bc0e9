#!/usr/bin/env python3
"""Trains a small masked language model in PyTorch, and writes batches, weights and losses, with which the program `train-parity` repeats the training.

    .venv/bin/python scripts/parity/train.py FOLDER [--steps 100] [--seed 1] [--device cpu|cuda] [--optimizer optimi|own]

Writes to FOLDER: the model before the first step (config.json, model.safetensors), batches.safetensors (`ids` and `labels`, int64
[steps, rows, width], -100 where nothing is predicted), training.json, and for each of f32 and bf16 (autocast, weights in f32)
reference-DTYPE.safetensors: `losses` [steps], the loss before each update, and every parameter after the last one.
The model is transformers' ModernBertForMaskedLM (attention `sdpa`). The optimizer is torch-optimi's StableAdamW, or without that package the one
of stable_adamw.py, which compares itself with torch-optimi's. Weights and batches are drawn on the CPU, so they are the same for every device.
On a GPU f32 is IEEE f32, not TF32, and each training is repeated there: the difference of the two is that of PyTorch from itself.
"""

import argparse, contextlib, json, pathlib

import torch
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
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
    # Older versions of transformers compile parts of the model on a GPU unless told not to.
    if hasattr(config, "reference_compile"):
        config.reference_compile = False
    return ModernBertForMaskedLM(config)


def optimizer_of(which, groups):
    """The optimizer named, or torch-optimi's if that is installed and else our own."""
    common = {"lr": TRAINING["lr"], "betas": (TRAINING["beta1"], TRAINING["beta2"]), "eps": TRAINING["eps"], "max_lr": TRAINING["lr"]}
    if which != "own":
        try:
            from optimi import StableAdamW
            return StableAdamW(groups, decouple_lr=True, triton=False, foreach=False, **common), "torch-optimi's StableAdamW"
        except ImportError:
            if which == "optimi":
                raise
    from stable_adamw import StableAdamW
    return StableAdamW(groups, **common), "StableAdamW of stable_adamw.py"


def train(model, ids, labels, bf16, which):
    device = next(model.parameters()).device
    named = dict(model.named_parameters())
    groups = [{"params": [p for p in named.values() if p.ndim > 1], "weight_decay": TRAINING["weight_decay"]},
              {"params": [p for p in named.values() if p.ndim == 1], "weight_decay": 0.0}]
    optimizer, title = optimizer_of(which, groups)
    # On a GPU the fused kernels of f32 may use TF32 operands.
    exact = device.type == "cuda" and not bf16
    losses = []
    for x, y in zip(ids.to(device), labels.to(device)):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16), sdpa_kernel(SDPBackend.MATH) if exact else contextlib.nullcontext():
            loss = model(input_ids=x, attention_mask=torch.ones_like(x), labels=y).loss
        losses.append(loss.detach())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.stack(losses).float().cpu(), {name: p.detach().cpu().clone() for name, p in named.items()}, title


def apart(first, second, start):
    """Largest difference of two trainings: of losses relative to the loss, of a tensor's final weights relative to their way from the start."""
    losses = ((first[0] - second[0]).abs() / second[0].abs()).max().item()
    ways = {name: (second[1][name] - start[name].detach()).norm() for name in start}
    weights = max(((first[1][name] - second[1][name]).norm() / way).item() for name, way in ways.items())
    return losses, weights


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--optimizer", choices=["optimi", "own"], help="torch-optimi's, or that of stable_adamw.py; without it, optimi's if installed")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this PyTorch sees no GPU; use --device cpu")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest")
    torch.manual_seed(args.seed)
    start = model_of().train()
    args.folder.mkdir(parents=True, exist_ok=True)
    start.save_pretrained(args.folder)
    ids, labels = batches(args.steps)
    save_file({"ids": ids, "labels": labels}, args.folder / "batches.safetensors")
    (args.folder / "training.json").write_text(json.dumps(TRAINING))
    for name, bf16 in [("f32", False), ("bf16", True)]:
        def run():
            model = model_of().train()
            model.load_state_dict(start.state_dict())
            return train(model.to(device), ids, labels, bf16, args.optimizer)
        losses, weights, title = run()
        save_file({"losses": losses, **weights}, args.folder / f"reference-{name}.safetensors")
        line = f"PyTorch {torch.__version__} on {args.device}, {title}, {name}: {args.steps} steps, loss {losses[0]:.4f} to {losses[-1]:.4f}"
        if device.type == "cuda":
            loss, weight = apart(run(), (losses, weights), dict(start.named_parameters()))
            line += f"; repeated, losses differ by {loss:.1e} and final weights by {weight:.1e} of the way"
        print(line, flush=True)


if __name__ == "__main__":
    main()
