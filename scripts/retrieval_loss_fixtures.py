#!/usr/bin/env python3
"""Writes the losses and gradients with which the Rust losses of retrieval are compared.

    pip install torch transformers scipy scikit-learn && pip install sentence-transformers==6.2.0
    pip install --no-deps pylate==1.6.0 && pip install datasets accelerate ujson srsly
    python scripts/retrieval_loss_fixtures.py     # writes modernbert-retrieval/tests/fixtures/losses.json

All data are random numbers from a fixed seed; losses and gradients are computed in f64.
"""

import json
from pathlib import Path

import torch
from pylate.losses.contrastive import Contrastive
from pylate.losses.distillation import Distillation
from sentence_transformers.multi_vector_encoder import losses as multi
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.util import dot_score

OUT = Path(__file__).resolve().parent.parent / "modernbert-retrieval/tests/fixtures/losses.json"
SKIPPED = 7


def numbers(*shape):
    return torch.randn(*shape, generator=GENERATOR).double()


def flat(tensor):
    return [float(x) for x in tensor.detach().reshape(-1)]


def case(name, inputs, loss):
    value = loss()
    gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    gradients = [g if g is not None else torch.zeros_like(x) for g, x in zip(gradients, inputs)]
    return {"name": name, "loss": float(value.detach()), "gradients": [flat(g) for g in gradients]}


class Stub(torch.nn.Module):
    """A model whose outputs are the inputs."""

    skiplist = [SKIPPED]
    do_query_expansion = True

    def forward(self, features, task=None):
        return features


def single():
    rows, ways, dimension = 5, 3, 8
    columns = [numbers(rows, dimension).requires_grad_() for _ in range(ways + 1)]
    teacher = numbers(rows, ways)
    cases = []

    def in_batch(name, columns_used=ways + 1, **settings):
        loss = losses.MultipleNegativesRankingLoss(None, **settings)
        used = columns[:columns_used]
        cases.append(case(name, columns, lambda: loss.compute_loss_from_embeddings(used, None)))

    everything = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
    in_batch("in_batch")
    in_batch("in_batch pairs", columns_used=2)
    in_batch("in_batch scale 1 dot", scale=1.0, similarity_fct=dot_score)
    in_batch("in_batch all directions", directions=everything)
    in_batch("in_batch symmetric", directions=everything[::2], partition_mode="per_direction")
    for mode in ("in_batch_negatives", "hard_negatives", "all_negatives"):
        in_batch(f"in_batch {mode}", hardness_mode=mode, hardness_strength=9.0)
    margin = losses.MarginMSELoss(None)
    cases.append(case("margin_mse", columns, lambda: margin.compute_loss_from_embeddings(columns, teacher)))
    in_batch_loss = losses.MultipleNegativesRankingLoss(None)

    def matryoshka():
        def part(dimension):
            cut = [torch.nn.functional.normalize(c[:, :dimension], p=2, dim=-1) for c in columns]
            return in_batch_loss.compute_loss_from_embeddings(cut, None)

        return part(8) + part(4) + part(2)

    cases.append(case("matryoshka", columns, matryoshka))

    def cosine_mse():
        found = [torch.cosine_similarity(columns[0], column) for column in columns[1:]]
        return torch.nn.functional.mse_loss(torch.stack(found, dim=1), teacher)

    cases.append(case("mse", columns, cosine_mse))
    return {
        "rows": rows,
        "ways": ways,
        "dimension": dimension,
        "columns": [flat(c) for c in columns],
        "teacher": flat(teacher),
        "cases": cases,
    }


def tokens():
    rows, ways, dimension, query_tokens, longest = 4, 3, 6, 3, 5
    queries = numbers(rows, query_tokens, dimension).requires_grad_()
    documents = [numbers(rows, longest, dimension).requires_grad_() for _ in range(ways)]
    teacher = numbers(rows, ways)
    lengths = torch.randint(2, longest + 1, (ways, rows), generator=GENERATOR)
    ids = torch.randint(1, 10, (ways, rows, longest), generator=GENERATOR)
    ids[:, :, 0] = 1
    inside = torch.arange(longest)[None, None, :] < lengths[:, :, None]

    def features(masked):
        normalized = [torch.nn.functional.normalize(d, p=2, dim=-1) for d in documents]
        query = {
            "token_embeddings": torch.nn.functional.normalize(queries, p=2, dim=-1),
            "input_ids": torch.ones(rows, query_tokens, dtype=torch.long),
            "attention_mask": torch.ones(rows, query_tokens, dtype=torch.long),
        }
        columns = [
            {
                "token_embeddings": normalized[way],
                "input_ids": ids[way],
                "attention_mask": (inside[way] & (ids[way] != SKIPPED) if masked else inside[way]).long(),
            }
            for way in range(ways)
        ]
        return [query, *columns]

    def stacked(features):
        """PyLate's form of distillation: all documents of a query, one after the other."""
        join = lambda key: torch.stack([f[key] for f in features[1:]], dim=1).flatten(0, 1)
        keys = ("token_embeddings", "input_ids", "attention_mask")
        return [features[0], {key: join(key) for key in keys}]

    inputs = [queries, *documents]
    model = Stub()
    cases = [
        case("pylate contrastive", inputs, lambda: Contrastive(model)(features(False))),
        case("pylate distillation", inputs, lambda: Distillation(model)(stacked(features(False)), teacher)),
        case("contrastive", inputs, lambda: multi.MultiVectorMultipleNegativesRankingLoss(model)(features(True))),
        case(
            "distillation",
            inputs,
            lambda: multi.MultiVectorDistillKLDivLoss(model, student_temperature=2.0, teacher_temperature=0.5)(
                features(True), teacher
            ),
        ),
    ]
    return {
        "rows": rows,
        "ways": ways,
        "dimension": dimension,
        "query_tokens": query_tokens,
        "longest": longest,
        "queries": flat(queries),
        "documents": [flat(d) for d in documents],
        "lengths": lengths.tolist(),
        "skipped": (ids == SKIPPED).tolist(),
        "teacher": flat(teacher),
        "cases": cases,
    }


GENERATOR = torch.Generator().manual_seed(20)
fixtures = {"single": single(), "tokens": tokens()}
OUT.write_text(json.dumps(fixtures, separators=(",", ":")) + "\n")
print(OUT)
