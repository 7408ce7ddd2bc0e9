#!/usr/bin/env python3
"""Writes the scores with which the metrics of finetuning are compared: spans by seqeval, labels by scikit-learn, answers by transformers'
version of SQuAD's rules.

    pip install numpy scikit-learn "transformers<5" && pip install --no-deps seqeval
    python scripts/kinds_fixtures.py            # writes modernbert-train/tests/fixtures/kinds.json

The data are random, from a fixed seed. Tags are drawn independently of their neighbors, so that many sequences are ill-formed.
"""

import json
import random
import warnings
from pathlib import Path

import numpy as np
from seqeval import scheme
from seqeval.metrics import classification_report
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import accuracy_score, f1_score
from transformers.data.metrics.squad_metrics import compute_exact, compute_f1, normalize_answer

OUT = Path(__file__).resolve().parent.parent / "modernbert-train/tests/fixtures/kinds.json"
random.seed(20241218)
warnings.simplefilter("ignore", UndefinedMetricWarning)
warnings.simplefilter("ignore", UserWarning)

SCHEMES = {"IOB2": ("BI", scheme.IOB2), "IOBES": ("BIES", scheme.IOBES), "BILOU": ("BILU", scheme.BILOU)}
KINDS = ["PER", "LOC", "A-B"]


def scores(truth, predicted, **more):
    report = classification_report(truth, predicted, output_dict=True, zero_division=0, **more)
    rows = {name: row for name, row in report.items() if not name.endswith(" avg")}
    micro = report["micro avg"]
    return {
        "precision": float(micro["precision"]),
        "recall": float(micro["recall"]),
        "f1": float(micro["f1-score"]),
        # Without a kind there is no mean.
        "macro_f1": float(report["macro avg"]["f1-score"]) if rows else 0.0,
        "kinds": {name: {"f1": float(row["f1-score"]), "support": int(row["support"])} for name, row in rows.items()},
    }


def ends(sentences):
    """seqeval's default mode knows E and S, but not BILOU's names for them."""
    names = str.maketrans("LU", "ES")
    return [[tag[0].translate(names) + tag[1:] for tag in tags] for tags in sentences]


def spans():
    for name, (prefixes, strict) in SCHEMES.items():
        for kinds in (1, 3):
            tags = ["O"] + [f"{prefix}-{kind}" for kind in KINDS[:kinds] for prefix in prefixes]
            for sentences in (1, 8):
                for redrawn in (0.1, 0.5, 1.0):
                    for outside in (1, 6):
                        weights = [outside] + [1] * (len(tags) - 1)
                        draw = lambda: random.choices(tags, weights)[0]
                        truth = [[draw() for _ in range(random.randint(1, 12))] for _ in range(sentences)]
                        predicted = [[draw() if random.random() < redrawn else tag for tag in row] for row in truth]
                        yield {
                            "name": f"{name}, {kinds} kinds, {sentences} sentences, {redrawn} redrawn, O {outside}",
                            "tags": tags,
                            "truth": truth,
                            "predicted": predicted,
                            "default": scores(ends(truth), ends(predicted)),
                            "strict": scores(truth, predicted, mode="strict", scheme=strict),
                        }


def labels():
    rng = np.random.default_rng(7)
    for count, rows, share in [(1, 9, 0.5), (2, 5, 0.3), (4, 40, 0.1), (4, 40, 0.7), (7, 100, 0.2), (20, 15, 0.05)]:
        for noise in (0.3, 2.0):
            truth = rng.random((rows, count)) < share
            truth[0, 0] = True
            outputs = np.round(np.where(truth, 1.0, -1.0) + noise * rng.normal(size=truth.shape), 3)
            predicted = outputs > 0
            yield {
                "truth": [np.flatnonzero(row).tolist() for row in truth],
                "outputs": outputs.tolist(),
                "micro_f1": float(f1_score(truth, predicted, average="micro", zero_division=0)) if count > 1 else one(truth, predicted),
                "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0)) if count > 1 else one(truth, predicted),
                "exact_match": float(accuracy_score(truth, predicted)),
            }


def one(truth, predicted):
    """F1 of a single label; of one column the averages would be those of two classes."""
    return float(f1_score(truth[:, 0], predicted[:, 0], zero_division=0))


def answers():
    words = ["the", "The", "a", "an", "cat", "Cat.", "sat", "on", "mat", "mat!", "THE", "theory", "an-other", "1,000", "$5", "né", "–a–", "\u00a0", "  ", "it's"]
    for _ in range(150):
        draw = lambda low: " ".join(random.choice(words) for _ in range(random.randint(low, 5)))
        right = [draw(1) for _ in range(random.randint(0, 3))]
        predicted = random.choice([draw(0), "", random.choice(right or [""])])
        golds = [text for text in right if normalize_answer(text)] or [""]
        yield {
            "right": right,
            "predicted": predicted,
            "exact": float(max(compute_exact(gold, predicted) for gold in golds)),
            "f1": float(max(compute_f1(gold, predicted) for gold in golds)),
        }


def main():
    fixtures = {"spans": list(spans()), "labels": list(labels()), "answers": list(answers())}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    lists = [f' "{name}": [\n  ' + ",\n  ".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n ]" for name, cases in fixtures.items()]
    OUT.write_text("{\n" + ",\n".join(lists) + "\n}\n")


if __name__ == "__main__":
    main()
