#!/usr/bin/env python3
"""StableAdamW for PyTorch, for machines without torch-optimi; as a program, its comparison with torch-optimi's.

    .venv/bin/python scripts/parity/stable_adamw.py

Both update the same tensors with the same gradients for 100 steps, in f32 and f64: matrices and vectors, gradients of very different sizes,
zeros among them, jumps of the second moment that shorten steps, and a rate below its peak. Prints the largest difference relative to the largest weight.
Exit code 1: more than 1e-6 in f32 or 1e-13 in f64.
"""

import sys

import torch


class StableAdamW(torch.optim.Optimizer):
    """AdamW whose step a tensor's root mean square of g / sqrt(v) shortens where it is above 1.

    With t from 1: b = (β^t - β) / (β^t - 1) for both betas, m += (1 - b1)(g - m), v = b2 v + (1 - b2) g²,
    η = lr / max(1, sqrt(mean(g² / max(v, ε²)))), w *= 1 - η / max_lr · weight_decay, w -= η m / (sqrt(v) + ε).
    """

    def __init__(self, params, lr, betas, eps, weight_decay=0.0, max_lr=None):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "max_lr": max_lr or lr})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)
        return loss

    def _update(self, weight, gradient, group):
        state = self.state[weight]
        if not state:
            state["time"], state["m"], state["v"] = 0, torch.zeros_like(weight), torch.zeros_like(weight)
        state["time"] += 1
        b1, b2 = ((beta ** state["time"] - beta) / (beta ** state["time"] - 1) for beta in group["betas"])
        m, v, eps = state["m"], state["v"], group["eps"]
        m.lerp_(gradient, 1 - b1)
        v.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
        ratio = (gradient.square() / v.clamp(min=eps ** 2)).mean().sqrt()
        # A tensor, so that a GPU need not wait for the host.
        rate = group["lr"] / ratio.clamp(min=1)
        weight.mul_(1 - rate * (group["weight_decay"] / group["max_lr"]))
        weight.sub_(rate * m / (v.sqrt() + eps))


def compare(dtype, steps=100):
    """Largest difference of weights from torch-optimi's, relative to the largest weight."""
    from optimi import StableAdamW as Reference

    generator = torch.Generator().manual_seed(1)
    normal = lambda shape: torch.randn(shape, generator=generator, dtype=dtype)
    start = [normal(shape) for shape in [(64, 48), (7, 5), (33,), (1,), (16, 4, 3)]]
    peak, common = 0.02, {"betas": (0.9, 0.98), "eps": 1e-6}
    ours, theirs = ([torch.nn.Parameter(weight.clone()) for weight in start] for _ in range(2))
    groups = lambda weights: [{"params": [w for w in weights if w.ndim > 1], "weight_decay": 0.01},
                              {"params": [w for w in weights if w.ndim == 1], "weight_decay": 0.0}]
    optimizers = [StableAdamW(groups(ours), lr=peak, max_lr=peak, **common),
                  Reference(groups(theirs), lr=peak, max_lr=peak, decouple_lr=True, triton=False, foreach=False, **common)]
    for step in range(steps):
        size = 30.0 if step % 17 == 16 else 10.0 ** -(step % 5)
        gradients = [normal(weight.shape) * size * (torch.rand(weight.shape, generator=generator) > 0.1) for weight in start]
        for optimizer, weights in zip(optimizers, (ours, theirs)):
            for group in optimizer.param_groups:
                group["lr"] = peak * (1 - 0.5 * step / steps)
            for weight, gradient in zip(weights, gradients):
                weight.grad = gradient.clone()
            optimizer.step()
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(ours, theirs))


def main():
    passed = True
    for dtype, limit in [(torch.float32, 1e-6), (torch.float64, 1e-13)]:
        error = compare(dtype)
        passed &= error <= limit
        print(f"{dtype}: weights after 100 steps differ from torch-optimi's by {error:.1e}, allowed {limit:.0e}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
