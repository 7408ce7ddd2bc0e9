#!/usr/bin/env python3
"""Writes case folders for the parity program: random weights, inputs, and the numbers transformers computes for them.

    python3 -m venv .venv && .venv/bin/pip install torch==2.9.0 transformers safetensors numpy torch-optimi
    .venv/bin/python scripts/parity/make_cases.py cases [--only PATTERN] [--quick] [--list]

docs/parity.md describes the files. --quick leaves out the published sizes and the long texts (a few MB in all).
"""

import argparse, fnmatch, json, pathlib, sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import ModernBertConfig

HEADS = {
    "encoder": "ModernBertModel",
    "mlm": "ModernBertForMaskedLM",
    "seqcls": "ModernBertForSequenceClassification",
    "tokcls": "ModernBertForTokenClassification",
    "qa": "ModernBertForQuestionAnswering",
    "choice": "ModernBertForMultipleChoice",
}
TRAINING = {"lr": 3e-4, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6, "weight_decay": 1e-5}

TINY = dict(vocab_size=331, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=2,
            local_attention=16)
BASE = dict(vocab_size=50368, hidden_size=768, intermediate_size=1152, num_hidden_layers=22, num_attention_heads=12)
LARGE = dict(vocab_size=50368, hidden_size=1024, intermediate_size=2624, num_hidden_layers=28, num_attention_heads=16)
RAGGED = [(9, 0), (31, 0), (1, 0), (17, 0)]


def case(head, shape=TINY, rows=RAGGED, choices=None, generation="5", train=False, big=False, **config):
    """rows: (tokens, padding on the left) of each sequence; the longest sum is the width."""
    return dict(head=head, config={**shape, **config}, rows=rows, choices=choices, generation=generation, train=train,
                big=big)


def all_cases():
    left = [(n, 31 - n) for n, _ in RAGGED]
    empty = [(9, 0), (0, 0), (31, 0)]
    full = [(24, 0), (24, 0), (24, 0)]
    biases = dict(attention_bias=True, mlp_bias=True, norm_bias=True, classifier_bias=True)
    cases = {
        "encoder": case("encoder"),
        "encoder-left": case("encoder", rows=left),
        "encoder-empty-row": case("encoder", rows=empty),
        "mlm": case("mlm", train=True),
        "mlm-left": case("mlm", rows=left, train=True),
        "mlm-untied": case("mlm", tie_word_embeddings=False, train=True),
        "mlm-no-decoder-bias": case("mlm", decoder_bias=False, train=True),
        "mlm-biases": case("mlm", train=True, **biases),
        "mlm-untied-biases": case("mlm", tie_word_embeddings=False, train=True, **biases),
        "seqcls-cls-1": case("seqcls", classifier_pooling="cls", num_labels=1, train=True),
        "seqcls-cls-2": case("seqcls", classifier_pooling="cls", num_labels=2, train=True),
        "seqcls-mean-7": case("seqcls", classifier_pooling="mean", num_labels=7, train=True),
        "seqcls-mean-1": case("seqcls", classifier_pooling="mean", num_labels=1, rows=left, train=True),
        "seqcls-multi": case("seqcls", classifier_pooling="mean", num_labels=5, train=True,
                             problem_type="multi_label_classification"),
        "seqcls-mean-empty-row": case("seqcls", classifier_pooling="mean", num_labels=3, rows=empty),
        "seqcls-cls-left": case("seqcls", classifier_pooling="cls", num_labels=3, rows=left),
        "tokcls": case("tokcls", num_labels=9, train=True),
        "tokcls-left": case("tokcls", num_labels=9, rows=left, train=True),
        "qa": case("qa", num_labels=2),
        "qa-full": case("qa", num_labels=2, rows=full, train=True),
        "qa-left": case("qa", num_labels=2, rows=left),
        "choice-cls": case("choice", classifier_pooling="cls", choices=2, train=True),
        "choice-mean": case("choice", classifier_pooling="mean", choices=2, rows=left, train=True),
        "choice-left-cls": case("choice", classifier_pooling="cls", choices=4, rows=left),
        "gen4": case("mlm", generation="4"),
        "gen4-thetas": case("mlm", generation="4", thetas=(50000.0, 777.0)),
        "mixed": case("mlm", generation="mixed", thetas=(80000.0, 5000.0)),
        "vocab-50001": case("mlm", vocab_size=50001, num_hidden_layers=2),
        "one-token": case("mlm", rows=[(1, 0)]),
        "train-longer": case("mlm", rows=[(200, 0), (64, 0)], train=True, local_attention=32, hidden_size=128,
                             num_attention_heads=4),
    }
    for dim, heads in [(32, 4), (64, 3), (96, 2), (128, 2)]:
        cases[f"head-{dim}"] = case("mlm", hidden_size=dim * heads, num_attention_heads=heads,
                                    rows=[(150, 0), (77, 0)], local_attention=64, train=True)
    for window in [8, 16, 32, 64, 128, 256]:
        cases[f"window-{window}"] = case("encoder", local_attention=window, rows=[(300, 0), (140, 0), (129, 0)])
    for n in [1, 2, 3]:
        cases[f"every-{n}"] = case("encoder", every=n, num_hidden_layers=7, rows=[(90, 0), (40, 0)])
    names = ["gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate", "gelu_python", "gelu_10",
             "quick_gelu", "relu", "relu2", "relu6", "leaky_relu", "silu", "swish", "mish", "sigmoid", "tanh",
             "laplace", "linear"]
    for name in names:
        cases[f"act-{name}"] = case("mlm", hidden_activation=name, classifier_activation=name, train=True)
    for length in [2, 63, 64, 65, 127, 129, 500, 512, 1000, 1024, 2048]:
        cases[f"length-{length}"] = case("encoder", local_attention=128, rows=[(length, 0)])
    for length in [4096, 8191, 8192]:
        cases[f"length-{length}"] = case("encoder", local_attention=128, rows=[(length, 0)], big=True)
    for name, shape in [("base", BASE), ("large", LARGE)]:
        cases[f"{name}-mlm"] = case("mlm", shape, rows=[(64, 0), (17, 0), (40, 0)], big=True)
        cases[f"{name}-encoder"] = case("encoder", shape, rows=[(300, 0), (512, 0), (1, 0)], big=True)
        cases[f"{name}-seqcls"] = case("seqcls", shape, rows=[(128, 0), (33, 95)], big=True, num_labels=3,
                                       classifier_pooling="mean")
        cases[f"{name}-cut"] = case("mlm", {**shape, "vocab_size": 1000, "num_hidden_layers": 4},
                                    rows=[(128, 0), (200, 0)], big=True, train=True)
        cases[f"{name}-8192"] = case("encoder", shape, rows=[(8192, 0)], big=True)
    cases["base-mlm-1024"] = case("mlm", BASE, rows=[(1024, 0), (700, 0)], big=True)
    # Small enough for a graphics API that binds 128 MiB at once. New cases come last: a case's seed is its place in the list.
    for name, shape in [("base", BASE), ("large", LARGE)]:
        cut = {**shape, "vocab_size": 1000, "num_hidden_layers": 4}
        cases[f"{name}-cut-2048"] = case("encoder", cut, rows=[(2048, 0), (300, 1748)], big=True)
        cases[f"{name}-cut-heads"] = case("seqcls", cut, rows=[(60, 4), (64, 0)], big=True, train=True, num_labels=3,
                                          classifier_pooling="mean")
    cases["length-8192-train"] = case("mlm", rows=[(8192, 0)], local_attention=128, num_hidden_layers=2, big=True, train=True)
    return cases


def randomize(model, config):
    """Weights under which attention is far from uniform: scores of deviation 2 or so, norms and biases off their defaults."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.copy_(torch.randn_like(p) * 0.1 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
            elif "tok_embeddings" in name or name.startswith("decoder"):
                p.copy_(torch.randn_like(p) * (0.05 if config.hidden_size > 512 else 0.2))
            else:
                p.copy_(torch.randn_like(p) * p.shape[1] ** -0.5)
                if "Wqkv" in name:
                    p[: 2 * config.hidden_size] *= 1.4
                elif name.endswith("Wo.weight"):
                    p *= (1.0 if config.num_hidden_layers < 10 else 0.3)


def build(spec):
    settings = dict(spec["config"])
    thetas, every = settings.pop("thetas", None), settings.pop("every", None)
    for token in ["bos", "eos", "cls", "sep", "pad"]:
        if settings["vocab_size"] < 50368:
            settings[f"{token}_token_id"] = None
    layers = settings["num_hidden_layers"]
    n = every or 3
    settings["layer_types"] = ["full_attention" if i % n == 0 else "sliding_attention" for i in range(layers)]
    if thetas:
        settings["rope_parameters"] = {
            "full_attention": {"rope_type": "default", "rope_theta": thetas[0]},
            "sliding_attention": {"rope_type": "default", "rope_theta": thetas[1]},
        }
    config = ModernBertConfig(**settings)
    config._attn_implementation = "sdpa"
    model = getattr(transformers, HEADS[spec["head"]])(config).eval()
    randomize(model, config)
    model.tie_weights()
    return model, config


def rewrite_config(folder, generation):
    """The same config with the keys of transformers 4.x, or a mixture: new layer types beside old thetas."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["global_rope_theta"] = rope["full_attention"]["rope_theta"]
    config["local_rope_theta"] = rope["sliding_attention"]["rope_theta"]
    config["torch_dtype"] = config.pop("dtype", "float32")
    if generation == "4":
        config.pop("layer_types")
        config["global_attn_every_n_layers"] = 3
        config["transformers_version"] = "4.48.0"
    path.write_text(json.dumps(config, indent=2))


def inputs_of(spec, config):
    rows, width = spec["rows"], max(n + pad for n, pad in spec["rows"])
    ids = torch.randint(5, min(config.vocab_size, 50000), (len(rows), width))
    mask = torch.zeros_like(ids)
    for row, (n, pad) in enumerate(rows):
        mask[row, pad : pad + n] = 1
    ids = torch.where(mask.bool(), ids, torch.tensor(3))
    if spec["choices"]:
        shape = (len(rows) // spec["choices"], spec["choices"], width)
        ids, mask = ids.view(shape), mask.view(shape)
    return {"input_ids": ids, "attention_mask": mask}


def labels_of(spec, config, inputs):
    head, mask = spec["head"], inputs["attention_mask"]
    questions, width = mask.shape[0], mask.shape[-1]
    if head in ("mlm", "tokcls"):
        classes = config.vocab_size if head == "mlm" else config.num_labels
        labels = torch.randint(0, classes, mask.shape)
        keep = (torch.rand(mask.shape) < 0.5) & mask.bool()
        keep[0] |= mask[0].bool()
        return {"labels": torch.where(keep, labels, torch.tensor(-100))}
    if head == "qa":
        positions = torch.randint(0, width, (2, questions)).sort(0).values
        return {"start_positions": positions[0].clone(), "end_positions": positions[1].clone()}
    if head == "choice":
        return {"labels": torch.randint(0, spec["choices"], (questions,))}
    if config.problem_type == "multi_label_classification":
        return {"labels": (torch.rand(questions, config.num_labels) < 0.4).float()}
    if config.num_labels == 1:
        # Away from the first answers, so that the squared error stays a number with digits.
        labels = torch.randn(questions)
        return {"labels": labels + 2.0 * labels.sign()}
    return {"labels": torch.randint(0, config.num_labels, (questions,))}


def outputs_of(spec, model, inputs):
    keep_states = not spec["big"] and spec["head"] != "choice"
    with torch.no_grad():
        out = model(**inputs, output_hidden_states=keep_states)
    tensors = {}
    for name in ["logits", "start_logits", "end_logits", "last_hidden_state"]:
        if out.get(name) is not None:
            tensors[name] = out[name].clone().contiguous()
    if spec["head"] == "encoder":
        state, mask = out.last_hidden_state, inputs["attention_mask"]
        weights = mask.unsqueeze(-1).float()
        tensors["pooled_mean"] = (state * weights).sum(1) / weights.sum(1).clamp(min=1)
        first = mask.argmax(-1)
        tensors["pooled_cls"] = state[torch.arange(len(first)), first].contiguous()
        # A row of nothing but padding is not compared, but an infinity in it would make every difference small.
        tensors["pooled_max"] = state.masked_fill(weights == 0, -torch.inf).amax(1).nan_to_num(neginf=0.0)
    if keep_states:
        for i, state in enumerate(out.hidden_states):
            tensors[f"hidden_states.{i}"] = state.clone().contiguous()
    return tensors


def train(model, inputs, folder, spec):
    from optimi import StableAdamW

    named = dict(model.named_parameters())
    decayed = [p for p in named.values() if p.ndim > 1]
    plain = [p for p in named.values() if p.ndim == 1]
    s = dict(TRAINING)
    if spec["head"] == "choice" or spec["config"].get("num_labels") == 1:
        # A few labels are memorized in a few steps; a loss of 1e-3 has no five digits left in f32.
        s["lr"] = 2e-5
    if spec["config"]["hidden_size"] >= 768 and spec["config"]["vocab_size"] < 50368:
        # The wider a model, the further a step carries it: at 3e-4 the first one leaves a loss of 1e-6.
        s["lr"] = 1e-6
    if s["lr"] < TRAINING["lr"]:
        # Decay is decoupled from the rate: at these rates a weight times (1 - 1e-5) is rounded by as much as a step moves it, and a device
        # that multiplies and subtracts with one rounding is, rightly, elsewhere than torch with its two.
        s["weight_decay"] = 0.0
    groups = [{"params": decayed, "weight_decay": s["weight_decay"]}, {"params": plain, "weight_decay": 0.0}]
    optimizer = StableAdamW(groups, lr=s["lr"], betas=(s["beta1"], s["beta2"]), eps=s["eps"], decouple_lr=True,
                            max_lr=s["lr"], triton=False, foreach=False)
    losses = []
    for step in range(11):
        loss = model(**inputs).loss
        losses.append(loss.item())
        loss.backward()
        if step == 0:
            zero = {n: torch.zeros_like(p) for n, p in named.items() if p.grad is None}
            save_file({**{n: p.grad.clone() for n, p in named.items() if p.grad is not None}, **zero},
                      folder / "grads.safetensors")
        optimizer.step()
        optimizer.zero_grad()
    save_file({"losses": torch.tensor(losses)}, folder / "losses.safetensors")
    (folder / "training.json").write_text(json.dumps(s))


def write(name, spec, folder, index):
    torch.manual_seed(1000 + index)
    model, config = build(spec)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if spec["generation"] != "5":
        rewrite_config(folder, spec["generation"])
    inputs = inputs_of(spec, config)
    labels = labels_of(spec, config, inputs) if spec["train"] else {}
    save_file({**inputs, **labels}, folder / "inputs.safetensors")
    save_file(outputs_of(spec, model, inputs), folder / "outputs.safetensors")
    if spec["train"]:
        train(model, {**inputs, **labels}, folder, spec)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", default="*", help="names to write, with * and ?; several with commas between")
    parser.add_argument("--quick", action="store_true", help="without the published sizes and the long texts")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    # Exact f32 on any machine: no TF32.
    torch.backends.cuda.matmul.allow_tf32 = False
    for index, (name, spec) in enumerate(all_cases().items()):
        wanted = any(fnmatch.fnmatch(name, pattern) for pattern in args.only.split(","))
        if not wanted or (args.quick and spec["big"]):
            continue
        print(name, flush=True)
        if not args.list:
            write(name, spec, args.folder / name, index)


if __name__ == "__main__":
    sys.exit(main())
