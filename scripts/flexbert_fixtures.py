#!/usr/bin/env python3
"""Writes the reference values of the choices of FlexBERT: values and derivatives of activations by PyTorch, frequencies of scaled rotary embeddings by
transformers, losses by PyTorch.

    pip install torch "transformers>=5"
    python scripts/flexbert_fixtures.py         # writes modernbert/src/model/fixtures/flexbert.json

Everything is computed in f64 but the frequencies, which transformers computes in f32.
"""

import json
from pathlib import Path

import torch
from torch import nn
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

OUT = Path(__file__).resolve().parent.parent / "modernbert/src/model/fixtures/flexbert.json"

# Two rows, for softmin; no point at which a derivative jumps.
POINTS = [-12.0, -4.3, -2.9, -1.3, -0.6, -0.3, 0.2, 0.45, 0.7, 1.6, 2.9, 3.7, 6.5, 12.0]

ACTIVATIONS = {
    "celu": nn.CELU(),
    "elu": nn.ELU(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "hardtanh": nn.Hardtanh(),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardshrink": nn.Hardshrink(),
    "hardswish": nn.Hardswish(),
    "leaky_relu": nn.LeakyReLU(),
    "logsigmoid": nn.LogSigmoid(),
    "mish": nn.Mish(),
    "prelu": nn.PReLU(dtype=torch.float64),
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "rrelu": nn.RReLU().eval(),
    "selu": nn.SELU(),
    "sigmoid": nn.Sigmoid(),
    "silu": nn.SiLU(),
    "softmin": nn.Softmin(dim=-1),
    "softplus": nn.Softplus(),
    "softshrink": nn.Softshrink(),
    "softsign": nn.Softsign(),
    "swish": nn.SiLU(),
    "tanh": nn.Tanh(),
    "tanhshrink": nn.Tanhshrink(),
    "threshold": nn.Threshold(0.0, 0.0),
}


def activations():
    rows = {}
    for name, function in ACTIVATIONS.items():
        x = torch.tensor(POINTS, dtype=torch.float64).reshape(2, -1).requires_grad_()
        y = function(x)
        # Weights of their own, so that softmin's derivative is not 0.
        (y * torch.arange(1, 15, dtype=torch.float64).reshape(2, -1)).sum().backward()
        rows[name] = {"values": y.flatten().tolist(), "slopes": x.grad.flatten().tolist()}
    return rows


def frequencies():
    cases = []
    for dim, theta, length, rope in [
        (64, 160000.0, 8192, {"rope_type": "linear", "factor": 4.0}),
        (16, 10000.0, 64, {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 64}),
        (16, 10000.0, 200, {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 64}),
        (64, 160000.0, 8192, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}),
        (32, 10000.0, 512, {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 128, "beta_fast": 8.0, "beta_slow": 2.0, "truncate": False}),
        (32, 10000.0, 512, {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 1.0, "mscale_all_dim": 0.5}),
        (32, 10000.0, 512, {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "attention_factor": 1.25}),
    ]:
        config = PretrainedConfig()
        config.hidden_size, config.num_attention_heads, config.head_dim = dim * 2, 2, dim
        config.max_position_embeddings = rope.get("original_max_position_embeddings", 8192)
        config.rope_parameters = {**rope, "rope_theta": theta}
        found, factor = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, "cpu", seq_len=length)
        cases.append({"dim": dim, "theta": theta, "length": length, "scaling": rope, "frequencies": found.tolist(), "factor": factor})
    return cases


def losses():
    generator = torch.Generator().manual_seed(1)
    x = (torch.randn(5, 7, generator=generator, dtype=torch.float64) * 3).requires_grad_()
    labels = torch.tensor([0, 3, 6, 2, 2])
    smoothing, z = 0.1, 0.01
    rows = nn.functional.cross_entropy(x, labels, reduction="none", label_smoothing=smoothing)
    rows = rows + z * torch.logsumexp(x, 1) ** 2
    (rows * torch.arange(1, 6, dtype=torch.float64)).sum().backward()
    return {
        "logits": x.flatten().tolist(),
        "labels": labels.tolist(),
        "label_smoothing": smoothing,
        "lse_square_scale": z,
        "losses": rows.tolist(),
        "gradients": x.grad.flatten().tolist(),
    }


OUT.parent.mkdir(exist_ok=True)
OUT.write_text(json.dumps({"points": POINTS, "activations": activations(), "frequencies": frequencies(), "losses": losses()}) + "\n")
