#!/usr/bin/env bash
# The released weights, where the hub can be reached: downloads them, lets transformers compute, runs the parity program.
#   PYTHON=.venv/bin/python scripts/parity/real.sh [FOLDER]
set -euo pipefail
python="${PYTHON:-python3}"
folder="${1:-parity-real}"
root=$(cd "$(dirname "$0")/../.." && pwd)
for name in ModernBERT-base ModernBERT-large; do
  "$python" - "$name" "$folder/$name" <<'PY'
import pathlib, sys

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, ModernBertForMaskedLM

name, folder = f"answerdotai/{sys.argv[1]}", pathlib.Path(sys.argv[2])
model = ModernBertForMaskedLM.from_pretrained(name, dtype=torch.float32, attn_implementation="sdpa").eval()
tokenizer = AutoTokenizer.from_pretrained(name)
texts = ["The capital of France is [MASK].", "def add(a, b):\n    return a [MASK] b", "One two three four five. " * 300]
inputs = dict(tokenizer(texts, padding=True, return_tensors="pt"))
inputs = {key: inputs[key] for key in ["input_ids", "attention_mask"]}
with torch.no_grad():
    logits = model(**inputs).logits
model.save_pretrained(folder)
save_file(inputs, folder / "inputs.safetensors")
save_file({"logits": logits.contiguous()}, folder / "outputs.safetensors")
PY
done
cargo run --release --manifest-path "$root/Cargo.toml" -p modernbert-examples --bin parity -- "$folder"/ModernBERT-*
