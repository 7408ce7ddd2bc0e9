#!/usr/bin/env python3
"""Writes the scores of scikit-learn and SciPy with which the Rust metrics are compared.

    pip install numpy scipy scikit-learn
    python scripts/metrics_fixtures.py            # writes modernbert-glue/tests/fixtures/metrics.json

The data are random numbers from a fixed seed. Undefined scores (a constant list has no correlation) become null.
"""

import json
import math
import warnings
from pathlib import Path

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

OUT = Path(__file__).resolve().parent.parent / "modernbert-glue/tests/fixtures/metrics.json"
rng = np.random.default_rng(20241218)


def classes(name, truth, predicted):
    truth, predicted = [int(v) for v in truth], [int(v) for v in predicted]
    binary = max(truth + predicted) < 2
    return {
        "name": name,
        "truth": truth,
        "predicted": predicted,
        "matthews": float(matthews_corrcoef(truth, predicted)),
        "accuracy": float(accuracy_score(truth, predicted)),
        "f1": float(f1_score(truth, predicted, zero_division=0)) if binary else None,
    }


def numbers(name, x, y):
    x, y = [float(v) for v in x], [float(v) for v in y]
    scores = [float(f(x, y).statistic) for f in (pearsonr, spearmanr)]
    pearson, spearman = (None if math.isnan(v) else v for v in scores)
    return {"name": name, "x": x, "y": y, "pearson": pearson, "spearman": spearman}


def noisy(truth, labels, share):
    """The truth with a share of its entries drawn again."""
    return np.where(rng.random(len(truth)) < share, rng.integers(0, labels, len(truth)), truth)


def classification():
    for labels in (2, 3):
        for n in (2, 7, 50, 300):
            truth = rng.integers(0, labels, n)
            for share in (0.2, 0.6, 1.0):
                yield classes(f"{labels} classes, {n} rows, {share} redrawn", truth, noisy(truth, labels, share))
    rare = (rng.random(300) < 0.03).astype(int)
    yield classes("rare positives", rare, noisy(rare, 2, 0.1))
    yield classes("all right", [0, 1, 1, 0], [0, 1, 1, 0])
    yield classes("all wrong", [0, 1, 1, 0], [1, 0, 0, 1])
    yield classes("one class predicted: 1", [0, 1, 1, 0], [1, 1, 1, 1])
    yield classes("one class predicted: 0", [0, 1, 1, 0], [0, 0, 0, 0])
    yield classes("one class in the truth", [1, 1, 1], [0, 1, 1])
    yield classes("0 alone on both sides", [0, 0, 0], [0, 0, 0])
    yield classes("1 alone on both sides", [1, 1, 1], [1, 1, 1])
    yield classes("a class that is never predicted", [0, 1, 2, 2], [0, 1, 1, 0])
    yield classes("one row", [1], [1])


def correlation():
    for n in (3, 10, 120):
        for noise in (0.1, 1.0, 5.0):
            x = np.round(rng.uniform(0, 5, n), 3)
            yield numbers(f"{n} points, noise {noise}", x, np.round(x + noise * rng.standard_normal(n), 6))
    grid = np.round(rng.uniform(0, 5, 100) * 4) / 4
    yield numbers("ties on one side", grid, np.round(grid + rng.standard_normal(100), 6))
    yield numbers("ties on both sides", grid, np.round(np.clip(grid + rng.standard_normal(100), 0, 5)))
    yield numbers("two values", rng.permutation([0, 0, 0, 1, 1]), [3, 1, 2, 2, 1])
    yield numbers("rising but not straight", np.arange(1, 12), np.arange(1, 12) ** 5)
    yield numbers("falling", [1, 2, 3, 4], [8, 6, 4, 2])
    yield numbers("two points, rising", [1, 2], [3, 7])
    yield numbers("two points, falling", [1, 2], [7, 3])
    yield numbers("two points, one value", [1, 2], [3, 3])
    yield numbers("constant left", [2.5, 2.5, 2.5, 2.5], [1, 2, 3, 4])
    yield numbers("constant right", [1, 2, 3, 4], [0.1, 0.1, 0.1, 0.1])
    yield numbers("constant on both sides", [1, 1, 1], [2, 2, 2])
    yield numbers("far from zero", 1e6 + np.arange(20.0), np.round(1e6 + rng.uniform(0, 20, 20), 3))


def main():
    warnings.simplefilter("ignore")  # The undefined cases are here on purpose.
    out = {"classification": list(classification()), "correlation": list(correlation())}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    rows = lambda cases: ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    OUT.write_text("{\n" + ",\n".join(f'"{name}":[\n{rows(cases)}\n]' for name, cases in out.items()) + "\n}\n")
    print(f"{OUT}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
