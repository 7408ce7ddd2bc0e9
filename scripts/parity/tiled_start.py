#!/usr/bin/env python3
"""Where does a larger model begin that is tiled from a trained smaller one? Measured in PyTorch, with the authors' own tiling functions.

    .venv/bin/python scripts/parity/tiled_start.py CHECKOUT [--steps 400]

CHECKOUT is a clone of https://github.com/AnswerDotAI/ModernBERT. Trains a model of 4 layers and 12 heads of 8 (transformers' ModernBertForMaskedLM), tiles
it to 16 heads, the proportion of base to large, and to 24, with as many layers, to more layers, and to both (5 layers of 16 heads are base to large in every
size), and prints the loss on the same held-out batches: as tiled; with the final norm tiled as well, which the authors' code leaves at ones; with
every input column divided by the number of its copies. Then the loss after 100 more steps, from the tiled and from random weights.
"""

import argparse, math, pathlib, sys

import torch
from transformers import ModernBertConfig, ModernBertForMaskedLM

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tiling import load_reference

VOCAB, MASK, HEAD, LAYERS = 128, 4, 8, 4


def batches(count, seed):
    """A token follows from the one before it, but for one in five."""
    generator = torch.Generator().manual_seed(seed)
    follows = torch.randperm(VOCAB - 5, generator=torch.Generator().manual_seed(0)) + 5
    ids = torch.randint(5, VOCAB, (count, 16, 32), generator=generator)
    for i in range(1, 32):
        known = torch.rand(count, 16, generator=generator) < 0.8
        ids[..., i] = torch.where(known, follows[ids[..., i - 1] - 5], ids[..., i])
    chosen = torch.rand(ids.shape, generator=generator) < 0.3
    return torch.where(chosen, MASK, ids), torch.where(chosen, ids, -100)


def model_of(heads, inner, layers=LAYERS, tied=True):
    torch.manual_seed(1)
    config = ModernBertConfig(vocab_size=VOCAB, hidden_size=heads * HEAD, intermediate_size=inner, num_hidden_layers=layers,
                              num_attention_heads=heads, local_attention=16, tie_word_embeddings=tied, pad_token_id=None,
                              bos_token_id=None, eos_token_id=None, cls_token_id=None, sep_token_id=None)
    config._attn_implementation = "sdpa"
    return ModernBertForMaskedLM(config)


def train(model, steps, seed):
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    for x, y in zip(*batches(steps, seed)):
        model(input_ids=x, labels=y).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def loss(model):
    with torch.no_grad():
        return sum(model(input_ids=x, labels=y).loss.item() for x, y in zip(*batches(8, 99))) / 8


def copies(old, new):
    """How often each column of a tiled matrix occurs."""
    source = [(j - (new - old) // 2) % old for j in range(new)]
    return torch.tensor([float(source.count(s)) for s in source])


def source_of(name, layers):
    """The smaller model's tensor that a tensor of the larger one is tiled from, as `init_mlm_model_from_pretrained` maps layers."""
    parts = name.split(".")
    if "layers" in parts:
        at = parts.index("layers") + 1
        # Python rounds halves to even, as the authors' line does.
        parts[at] = str(round(int(parts[at]) * LAYERS / layers))
    return ".".join(parts)


def tiled(reference, small, heads, inner, layers, final_norm=False, divided=False):
    large = model_of(heads, inner, layers, tied=not divided)
    old, new = small.state_dict(), large.state_dict()
    old.setdefault("decoder.weight", old["model.embeddings.tok_embeddings.weight"])
    for name, value in new.items():
        if name == "model.final_norm.weight" and not final_norm:
            continue
        source = source_of(name, layers)
        if source not in old:
            # The first layer has no attention norm; its copies keep theirs at ones, as in the authors' code.
            assert source.endswith("layers.0.attn_norm.weight"), name
            continue
        before = old[source]
        if "Wqkv" in name:
            after = reference.tile_fused_qkv(before, value)
        elif "mlp.Wi" in name:
            after = reference.tile_fused_glu(before, value)
        else:
            after = reference.tile_weight(before, value)
        if divided and value.ndim == 2 and "embeddings" not in name:
            after = after / copies(before.shape[1], value.shape[1])
        new[name] = after
    large.load_state_dict(new)
    if not divided:
        large.tie_weights()
    return large


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout")
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    reference = load_reference(args.checkout)
    small = train(model_of(12, 144), args.steps, 1)
    print(f"ln V {math.log(VOCAB):.2f}; {LAYERS} layers of 12 heads after {args.steps} steps {loss(small):.2f}", flush=True)
    sizes = [(16, 328, 4), (16, 192, 4), (24, 288, 4), (12, 144, 5), (12, 144, 7), (16, 328, 5), (16, 192, 7)]
    for heads, inner, layers in sizes:
        made = lambda **how: tiled(reference, small, heads, inner, layers, **how)
        random = lambda: model_of(heads, inner, layers)
        print(f"{layers} layers of {heads} heads, inner width {inner}: random {loss(random()):.2f}, tiled {loss(made()):.2f}, "
              f"final norm too {loss(made(final_norm=True)):.2f}, divided too {loss(made(final_norm=True, divided=True)):.2f}; after 100 steps "
              f"random {loss(train(random(), 100, 2)):.2f}, tiled {loss(train(made(), 100, 2)):.2f}", flush=True)


if __name__ == "__main__":
    main()
