#!/usr/bin/env python3
"""Loads a folder written by this library with transformers and prints the largest difference of its outputs.

    scripts/parity/roundtrip.py FOLDER CASE

FOLDER holds config.json and model.safetensors as `parity --save` wrote them from CASE; CASE holds inputs and references.
Exits 1 at a difference of 1e-4 or more, or where transformers finds a tensor missing or unknown.
"""

import pathlib, sys

import torch
import transformers
from safetensors.torch import load_file

folder, case = map(pathlib.Path, sys.argv[1:3])
config = transformers.AutoConfig.from_pretrained(folder)
kind = getattr(transformers, (config.architectures or ["ModernBertModel"])[0])
model, info = kind.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
lost = [f"{key}: {value}" for key, value in info.items() if value and "tied" not in key]
inputs, references = load_file(case / "inputs.safetensors"), load_file(case / "outputs.safetensors")
inputs = {key: inputs[key] for key in ["input_ids", "attention_mask"]}
with torch.no_grad():
    outputs = model.eval()(**inputs)
worst = 0.0
for name in ["logits", "start_logits", "end_logits", "last_hidden_state"]:
    if outputs.get(name) is not None and name in references:
        difference = (outputs[name] - references[name]).abs()
        worst = max(worst, difference.nan_to_num(0.0).max().item())
passed = worst < 1e-4 and not lost
print(f"roundtrip: {'PASS' if passed else 'FAIL'} {case.name} max_abs={worst:.3e}", *lost)
sys.exit(not passed)
