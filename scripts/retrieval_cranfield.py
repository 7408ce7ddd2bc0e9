#!/usr/bin/env python3
"""Computes BM25's scores on Cranfield with bm25s and pytrec_eval, for comparison with this project's.

    pip install numpy nltk bm25s pytrec-eval-terrier
    python scripts/retrieval_cranfield.py FOLDER        # the folder with corpus.jsonl, queries.jsonl and qrels/test.tsv

Words are cut by a regular expression that equals Unicode's rules on ASCII text; the collection contains nothing else.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

import bm25s
import numpy as np
import pytrec_eval
from nltk.stem import PorterStemmer

STOP_WORDS = set(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was will with".split()
)
WORD = re.compile(r"[A-Za-z0-9_]+(?:(?:(?<=[A-Za-z])[.':](?=[A-Za-z])|(?<=[0-9])[.,';](?=[0-9]))[A-Za-z0-9_]+)*")
STEMMER = PorterStemmer(mode=PorterStemmer.MARTIN_EXTENSIONS)


def words(text):
    found = (re.sub(r"'[sS]$", "", word).lower() for word in WORD.findall(text) if re.search("[A-Za-z0-9]", word))
    return [STEMMER.stem(word, to_lowercase=False) if len(word) > 2 else word for word in found if word not in STOP_WORDS]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


folder = Path(sys.argv[1])
documents, queries = rows(folder / "corpus.jsonl"), rows(folder / "queries.jsonl")
judgments = {}
for line in (folder / "qrels/test.tsv").read_text().splitlines()[1:]:
    query, document, grade = line.split("\t")
    judgments.setdefault(query, {})[document] = int(grade)
model = bm25s.BM25(method="lucene", k1=0.9, b=0.4, dtype="float64")
model.index([words(f"{row.get('title') or ''} {row['text']}") for row in documents], show_progress=False)
run = {}
for row in queries:
    counts = Counter(word for word in words(row["text"]) if word in model.vocab_dict)
    scores = sum(count * model.get_scores([word]) for word, count in counts.items())
    best = np.argsort(-scores)[:1000]
    run[row["_id"]] = {documents[i]["_id"]: float(scores[i]) for i in best if scores[i] > 0}
found = pytrec_eval.RelevanceEvaluator(judgments, {"ndcg_cut.10", "map", "recip_rank", "recall.100"}).evaluate(run)
for measure in next(iter(found.values())):
    print(measure, round(float(np.mean([scores[measure] for scores in found.values()])), 6))
