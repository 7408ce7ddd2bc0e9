#!/usr/bin/env python3
"""Finetunes a BERT on RTE with transformers' model and PyTorch's AdamW by the settings of `modernbert-glue run`, for comparison of the scores.

    scripts/families_rte.py MODEL GLUE/RTE [--seeds 3] [--epochs 4] [--rate 5e-5] [--decay 1e-5] [--batch 16] [--warmup 0.06] [--length 256]

The decay is the share of a matrix lost per step at the peak rate, as in `modernbert-glue`; torch's AdamW multiplies its own by the rate. Prints the accuracy on the dev set after each epoch, and the best of each seed.
"""

import argparse
import csv
import random
import time
from pathlib import Path

import torch
import transformers

LABELS = {"entailment": 0, "not_entailment": 1}


def rows(path):
    with open(path, encoding="utf-8") as file:
        return [(r["sentence1"], r["sentence2"], LABELS[r["label"]]) for r in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def batch_of(tokenizer, some, length):
    texts = tokenizer([a for a, _, _ in some], [b for _, b, _ in some], truncation=True, max_length=length, padding=True, return_tensors="pt")
    return texts, torch.tensor([label for _, _, label in some])


def accuracy(model, tokenizer, dev, length):
    model.eval()
    right = 0
    with torch.no_grad():
        for at in range(0, len(dev), 32):
            texts, labels = batch_of(tokenizer, dev[at : at + 32], length)
            right += (model(**texts).logits.argmax(1) == labels).sum().item()
    return 100 * right / len(dev)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    for name, kind, default in [("seeds", int, 3), ("epochs", int, 4), ("rate", float, 5e-5), ("decay", float, 1e-5), ("batch", int, 16), ("warmup", float, 0.06), ("length", int, 256)]:
        parser.add_argument(f"--{name}", type=kind, default=default)
    args = parser.parse_args()
    train, dev = rows(args.data / "train.tsv"), rows(args.data / "dev.tsv")
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    steps = args.epochs * -(-len(train) // args.batch)
    best = []
    for seed in range(args.seeds):
        transformers.set_seed(seed)
        started = time.time()
        model = transformers.AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2)
        matrices = [p for p in model.parameters() if p.dim() > 1]
        others = [p for p in model.parameters() if p.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": args.decay / args.rate}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=args.rate, eps=1e-6, betas=(0.9, 0.98))
        schedule = transformers.get_linear_schedule_with_warmup(optimizer, round(args.warmup * steps), steps)
        scores = []
        for _ in range(args.epochs):
            model.train()
            random.shuffle(train)
            for at in range(0, len(train), args.batch):
                texts, labels = batch_of(tokenizer, train[at : at + args.batch], args.length)
                model(**texts, labels=labels).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
            scores.append(accuracy(model, tokenizer, dev, args.length))
        best.append(max(scores))
        print(f"seed {seed}: {' '.join(f'{s:.2f}' for s in scores)} ({time.time() - started:.0f} s)", flush=True)
    print(f"best of each seed: {' '.join(f'{s:.2f}' for s in best)}; mean {sum(best) / len(best):.2f}")


if __name__ == "__main__":
    main()
