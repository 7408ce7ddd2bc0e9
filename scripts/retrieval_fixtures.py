#!/usr/bin/env python3
"""Writes the scores with which the Rust measures, BM25 and stemmer are compared.

    pip install numpy scipy nltk bm25s pytrec-eval-terrier && pip install --no-deps sentence-transformers==6.2.0
    python scripts/retrieval_fixtures.py          # writes modernbert-retrieval/tests/fixtures/*.json

pytrec-eval-terrier is pytrec_eval with wheels: the sdist of pytrec_eval downloads trec_eval while it is built. All data are random
numbers from a fixed seed.
"""

import ast
import importlib.util
import json
import random
from pathlib import Path

import bm25s
import numpy as np
import pytrec_eval
from nltk.stem import PorterStemmer
from scipy.stats import permutation_test

OUT = Path(__file__).resolve().parent.parent / "modernbert-retrieval/tests/fixtures"
CUTOFFS = [1, 3, 10, 100]


def write(name, value):
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / name).write_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n")


def random_case(rng, duplicates):
    """Judgments and rows of a run with ties, unjudged documents, unjudged queries and queries without a relevant document."""
    documents = [f"d{i}" for i in range(60)] + ["D1", "ä", "d01"]
    judgments, rows = {}, []
    kinds = rng.choice([[0, 1], [0, 1, 2, 3], [-1, 0, 1, 2], [0]])
    for query in range(7):
        judged = rng.sample(documents, rng.randint(1, 25))
        judgments[f"q{query}"] = {document: rng.choice(kinds) for document in judged}
    judgments["absent"] = {"d1": 1}
    judgments["none"] = {"d1": 0, "d2": 0}
    for query in list(judgments)[:-2] + ["none", "unjudged"]:
        for document in rng.sample(documents, rng.randint(1, 40)):
            # Few different values make ties; some of them differ in f64 only.
            score = rng.choice([rng.randint(-3, 6) / 2, 1 + rng.randint(0, 3) * 1e-9, rng.random()])
            rows.append([query, document, score])
            if duplicates and rng.random() < 0.2:
                rows.append([query, document, rng.randint(0, 6) / 2])
    rng.shuffle(rows)
    return judgments, rows


def best(rows):
    run = {}
    for query, document, score in rows:
        scores = run.setdefault(query, {})
        scores[document] = max(score, scores.get(document, -1e9))
    return run


def by_trec(judgments, run, level):
    names = {f"{name}.{','.join(map(str, CUTOFFS))}" for name in ["ndcg_cut", "map_cut", "recall", "P", "success"]}
    evaluator = pytrec_eval.RelevanceEvaluator(judgments, names | {"ndcg", "map", "recip_rank"}, relevance_level=level)
    short = {"ndcg_cut": "ndcg", "map_cut": "map", "P": "p", "recip_rank": "mrr"}
    result = {}
    for query, scores in evaluator.evaluate(run).items():
        named = {}
        for key, value in scores.items():
            base, _, cutoff = key.rpartition("_")
            if cutoff.isdigit():
                named[f"{short.get(base, base)}@{cutoff}"] = value
            else:
                named[short.get(key, key)] = value
        result[query] = named
    return result


def sentence_transformers_evaluator():
    """The evaluator's arithmetic alone, without importing PyTorch."""
    package = Path(importlib.util.find_spec("sentence_transformers").origin).parent
    source = (package / "sentence_transformer/evaluation/information_retrieval.py").read_text()
    wanted = {"compute_metrics", "compute_dcg_at_k"}
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef) and node.name in wanted]
    module = ast.Module([ast.ClassDef("Evaluator", [], [], functions, [])], [])
    space = {"np": np}
    exec(compile(ast.fix_missing_locations(module), "evaluator", "exec"), space)
    return space["Evaluator"]


def by_sentence_transformers(judgments, run):
    """Means per query: the evaluator is run on one query at a time."""
    evaluator = sentence_transformers_evaluator()()
    evaluator.accuracy_at_k = evaluator.precision_recall_at_k = evaluator.mrr_at_k = CUTOFFS
    evaluator.ndcg_at_k = evaluator.map_at_k = CUTOFFS
    result = {}
    for query, scores in run.items():
        relevant = {document for document, grade in judgments.get(query, {}).items() if grade > 0}
        if not relevant:
            continue
        evaluator.queries, evaluator.queries_ids, evaluator.relevant_docs = [query], [query], {query: relevant}
        hits = [{"corpus_id": document, "score": score} for document, score in scores.items()]
        found = evaluator.compute_metrics([hits])
        short = {"accuracy@k": "success", "precision@k": "p", "recall@k": "recall", "ndcg@k": "ndcg", "mrr@k": "mrr", "map@k": "map"}
        result[query] = {f"{short[name]}@{k}": float(value) for name, values in found.items() for k, value in values.items()}
    return result


def measures():
    rng = random.Random(20241218)
    cases = []
    for number in range(8):
        judgments, rows = random_case(rng, duplicates=number >= 6)
        run, level = best(rows), 2 if number == 5 else 1
        cases.append({
            "judgments": judgments,
            "rows": rows,
            "level": level,
            "trec": by_trec(judgments, run, level),
            "sentence_transformers": by_sentence_transformers(judgments, run) if level == 1 else {},
        })
    write("measures.json", cases)


def significance():
    rng = np.random.default_rng(7)
    cases = []
    for count in (2, 3, 5, 9, 12):
        first = rng.integers(0, 5, count) / 4
        second = np.clip(first + rng.integers(-1, 3, count) / 4, 0, 1)
        if not np.any(first != second):
            second[0] = first[0] + 0.5
        difference = second - first
        exact = permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=np.inf)
        one = min(1.0, float(exact.pvalue))
        cases.append({"first": first.tolist(), "second": second.tolist(), "p": one})
    write("significance.json", cases)


def lexical():
    rng = random.Random(11)
    words = [f"w{i}" for i in range(40)]
    weights = [1 / (i + 1) for i in range(40)]
    documents = [rng.choices(words, weights, k=rng.randint(0, 30)) for _ in range(50)]
    queries = [list(dict.fromkeys(rng.choices(words, k=rng.randint(1, 6)))) for _ in range(12)]
    cases = []
    for k1, b in ((0.9, 0.4), (1.2, 0.75), (1.5, 0.0)):
        model = bm25s.BM25(method="lucene", k1=k1, b=b, dtype="float64")
        model.index(documents, show_progress=False)
        known = [[word for word in query if word in model.vocab_dict] for query in queries]
        scores = [model.get_scores(query).tolist() if query else [0.0] * len(documents) for query in known]
        cases.append({"k1": k1, "b": b, "scores": scores})
    write("bm25.json", {"documents": documents, "queries": queries, "cases": cases})


def stems():
    stemmer = PorterStemmer(mode=PorterStemmer.MARTIN_EXTENSIONS)
    rng = random.Random(3)
    roots = """relat condit rational valenci hesit digit conform radic differ vile analog vietnam predic oper feudal decis hope
        callous formal sensit trip electric triplic revive allow infer air gyroscop adjust defens irrit replac depend adopt homolog
        communi activ angular effect bowdler probat rate ceas control roll hop tan fall hiss fizz fail fil sky happy troubl siz
        caress poni ti cat feed agre plaster bled motor sing conflat geo theo bio sh y yy oxy tsetse résum 1990 b2 naïv über possib
        generic skis dying lying news inning outing canning exceed proceed succeed enjoy employ day""".split()
    endings = """ s es ies sses ed eed ing ational tional enci anci izer abli bli alli entli eli ousli ization ation ator alism iveness
        fulness ousness aliti iviti biliti logi icate ative alize iciti ical ful ness al ance ence er ic able ible ant ement ment ent
        ion sion tion ou ism ate iti ous ive ize e ll y ly less fully ability ically""".split(" ")
    found = sorted({root + ending for root in roots for ending in endings})
    chosen = sorted(rng.sample(found, 1500))
    write("stems.json", [[word, stemmer.stem(word, to_lowercase=False)] for word in chosen])


measures()
significance()
lexical()
stems()
