#!/usr/bin/env python3
"""Tiles base's shapes to large's with the authors' own functions, and prints checksums for modernbert/tests/files/tiling_reference.rs.

    git clone https://github.com/AnswerDotAI/ModernBERT
    .venv/bin/python scripts/parity/tiling.py ModernBERT [--layers 4 7]

Widths are the published ones, 768 to 1024 and 1152 to 2624, over a vocabulary of 64. Every tensor holds whole numbers below 2^24 that
follow from its name, and the larger model holds -1 before the tiling. The loop over layers is that of `init_mlm_model_from_pretrained`
(src/bert_layers/model.py); the tiling of each tensor is the authors' function (src/bert_layers/initialization.py).
"""

import argparse, enum, importlib.util, pathlib, sys, types

import numpy as np
import torch
from torch import nn

VOCAB = 64
SMALL, LARGE = (768, 1152), (1024, 2624)


def load_reference(checkout):
    """initialization.py, without the packages that it imports for other functions."""

    class StrEnum(str, enum.Enum):
        pass

    def stub(name, **contents):
        module = types.ModuleType(name)
        module.__dict__.update(contents)
        sys.modules[name] = module

    stub("src")
    stub("src.utils", StrEnum=StrEnum)
    stub("src.bert_layers")
    stub("src.bert_layers.configuration_bert", FlexBertConfig=object)
    stub("src.bert_layers.normalization", RMSNorm=type("RMSNorm", (nn.Module,), {}))
    path = pathlib.Path(checkout) / "src/bert_layers/initialization.py"
    spec = importlib.util.spec_from_file_location("src.bert_layers.initialization", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def values(name, shape):
    seed = 0
    for byte in name.encode():
        seed = (seed * 31 + byte) & 0xFFFFFFFF
    index = np.arange(int(np.prod(shape)), dtype=np.uint64)
    numbers = ((index * np.uint64(2654435761) + np.uint64(seed)) & np.uint64(0xFFFFFFFF)) >> np.uint64(8)
    return torch.from_numpy(numbers.astype(np.float32).reshape(shape))


def checksum(tensor):
    numbers = tensor.numpy().reshape(-1).astype(np.int64).astype(np.uint64)
    odd = np.arange(numbers.size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return int((numbers * odd).sum(dtype=np.uint64))


def module_of(kind, name, sizes, tiled):
    """A module of one parameter: the smaller model's with its values, the larger model's with -1."""
    hidden, inner = sizes
    made = {
        "norm": lambda: nn.LayerNorm(hidden, bias=False),
        "embedding": lambda: nn.Embedding(VOCAB, hidden),
        "bias": lambda: nn.Linear(1, VOCAB),
        "wqkv": lambda: nn.Linear(hidden, 3 * hidden, bias=False),
        "glu": lambda: nn.Linear(hidden, 2 * inner, bias=False),
        "square": lambda: nn.Linear(hidden, hidden, bias=False),
        "down": lambda: nn.Linear(inner, hidden, bias=False),
    }[kind]()
    parameter = made.bias if kind == "bias" else made.weight
    parameter.data = torch.full_like(parameter, -1.0) if tiled else values(name, tuple(parameter.shape))
    return made


KINDS = {
    "model.embeddings.tok_embeddings.weight": "embedding",
    "model.embeddings.norm.weight": "norm",
    "attn_norm.weight": "norm",
    "attn.Wqkv.weight": "wqkv",
    "attn.Wo.weight": "square",
    "mlp_norm.weight": "norm",
    "mlp.Wi.weight": "glu",
    "mlp.Wo.weight": "down",
    "model.final_norm.weight": "norm",
    "head.dense.weight": "square",
    "head.norm.weight": "norm",
    "decoder.bias": "bias",
}


def tile(reference, kind, old, new, mode):
    if kind == "norm":
        reference.tile_norm(old, new, mode=mode)
    elif kind == "embedding":
        reference.tile_embedding(old, new, mode=mode)
    else:
        types_ = {"wqkv": "wqkv", "glu": "glu"}
        reference.tile_linear(old, new, linear_type=types_.get(kind, "default"), mode=mode, bias_only=kind == "bias")
    return new.bias if kind == "bias" else new.weight


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout")
    parser.add_argument("--layers", type=int, nargs=2, default=[4, 7])
    args = parser.parse_args()
    reference = load_reference(args.checkout)
    small, large = args.layers
    # Python rounds halves to even, as the authors' line does.
    mapping = [round(i * small / large) for i in range(large)]
    with torch.no_grad():
        for mode in ["tile_weights_from_middle", "tile_weights_from_edge", "center_weights"]:
            print(mode)
            for role, kind in KINDS.items():
                total = 0
                layers = range(large) if "." in role and role.split(".")[0] in ("attn_norm", "attn", "mlp_norm", "mlp") else [None]
                for layer in layers:
                    if role == "attn_norm.weight" and layer == 0:
                        continue
                    source = role if layer is None else f"model.layers.{mapping[layer]}.{role}"
                    new = module_of(kind, role, LARGE, True)
                    if role == "model.final_norm.weight" or source == "model.layers.0.attn_norm.weight":
                        tiled = new.weight
                    else:
                        tiled = tile(reference, kind, module_of(kind, source, SMALL, False), new, mode)
                    weight = 1 if layer is None else 2 * layer + 1
                    total = (total + weight * checksum(tiled)) % 2**64
                print(f'    ("{role}", {total:#018x}),')


if __name__ == "__main__":
    main()
