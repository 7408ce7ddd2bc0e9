#!/usr/bin/env bash
# Saves the model of every given case through this library, loads it with transformers and compares the outputs.
#   scripts/parity/roundtrip.sh cases/*      (PYTHON: an interpreter with torch, transformers and safetensors)
set -euo pipefail
python="${PYTHON:-python3}"
root=$(cd "$(dirname "$0")/../.." && pwd)
parity="${PARITY:-cargo run --quiet --release --manifest-path $root/Cargo.toml -p modernbert-training-examples --bin parity --}"
failed=0
for case in "$@"; do
  folder=$(mktemp -d)
  # A folder of its own for the model: the program writes into none that holds other files.
  $parity --device flex --save "$folder/model" "$case" > "$folder/parity.log" || { cat "$folder/parity.log"; failed=1; }
  "$python" "$root/scripts/parity/roundtrip.py" "$folder/model" "$case" || failed=1
  rm -r "$folder"
done
exit $failed
