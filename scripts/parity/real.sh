#!/usr/bin/env bash
# Compares the released weights: downloads them from the hub, computes reference outputs with transformers, and runs the parity
# program and fill-mask.
#   PYTHON=.venv/bin/python scripts/parity/real.sh [FOLDER [MODEL...]]
# MODEL is a name on the hub or a folder; by default the two published models. Cases of each: short texts padded on the right and
# on the left (logits and hidden states), and texts of 12, 1024 and 8192 tokens in one batch (hidden states).
set -euo pipefail
python="${PYTHON:-python3}"
folder="${1:-parity-real}"
models=("${@:2}")
[ ${#models[@]} -gt 0 ] || models=(answerdotai/ModernBERT-base answerdotai/ModernBERT-large)
root=$(cd "$(dirname "$0")/../.." && pwd)
failed=0
for name in "${models[@]}"; do
  target="$folder/$(basename "$name")"
  "$python" - "$name" "$target" <<'PY'
import pathlib, sys

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, ModernBertForMaskedLM

name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
model = ModernBertForMaskedLM.from_pretrained(name, dtype=torch.float32, attn_implementation="sdpa").eval()
tokenizer = AutoTokenizer.from_pretrained(name)
model.save_pretrained(folder / "model")
tokenizer.save_pretrained(folder / "model")


def write(case, inputs, with_logits):
    place = folder / case
    place.mkdir(exist_ok=True)
    for file in ["config.json", "model.safetensors"]:
        (place / file).unlink(missing_ok=True)
        (place / file).symlink_to(pathlib.Path("..") / "model" / file)
    inputs = {key: inputs[key].contiguous() for key in ["input_ids", "attention_mask"]}
    with torch.no_grad():
        outputs = {"last_hidden_state": model.model(**inputs).last_hidden_state}
        if with_logits:
            outputs["logits"] = model(**inputs).logits
    save_file(inputs, place / "inputs.safetensors")
    save_file({key: value.contiguous() for key, value in outputs.items()}, place / "outputs.safetensors")


texts = ["The capital of France is [MASK].", "def add(a, b):\n    return a [MASK] b", "One two three four five. " * 30]
for side in ["right", "left"]:
    write(side, tokenizer(texts, padding=True, padding_side=side, return_tensors="pt"), True)
long = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 600
rows = [tokenizer(long, truncation=True, max_length=n)["input_ids"] for n in (12, 1024, 8192)]
assert [len(row) for row in rows] == [12, 1024, 8192]
ids = torch.full((3, 8192), tokenizer.pad_token_id)
mask = torch.zeros_like(ids)
for i, row in enumerate(rows):
    ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
write("long", {"input_ids": ids, "attention_mask": mask}, False)
PY
  run() { cargo run --quiet --release --manifest-path "$root/Cargo.toml" -p "$1" --bin "${@:2}"; }
  run modernbert-training-examples parity -- "$target"/{right,left,long} || failed=1
  question="The capital of France is [MASK]."
  best=$(run modernbert-examples fill-mask -- --model "$target/model" --top 1 --json "$question" | "$python" -c 'import json, sys; print(json.load(sys.stdin)["masks"][0][0]["token"])')
  echo "$name: $question ->$best"
  [ "$best" = " Paris" ] || failed=1
done
exit $failed
