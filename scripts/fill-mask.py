"""The example `fill-mask` in Python's transformers, to check that transformers loads a folder written by this project and computes the same
probabilities.

Usage: python3 scripts/fill-mask.py MODEL_FOLDER TEXT    (needs torch and transformers)
"""

import sys

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

folder, text = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForMaskedLM.from_pretrained(folder).eval()
inputs = tokenizer(text, return_tensors="pt")
ids = inputs["input_ids"]
with torch.no_grad():
    logits = model(input_ids=ids, attention_mask=inputs["attention_mask"]).logits
for position in (ids[0] == tokenizer.mask_token_id).nonzero()[:, 0]:
    best = logits[0, position].softmax(-1).topk(5)
    for probability, token in zip(best.values, best.indices):
        print(f"  {100 * probability:6.2f} %  {tokenizer.decode([int(token)])!r}")
