#!/usr/bin/env python3
"""GLUE's TSV files as the Parquet files of the Hub's nyu-mll/glue: same rows, the Hub's columns, class ids, file names.

    scripts/glue_parquet.py GLUE OUT

Needs pyarrow. Tasks and sets that GLUE lacks are left out. Used by modernbert-glue/tests/parquet.rs; the files are never committed.
"""
import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq

NLI = ["entailment", "neutral", "contradiction"]
ENTAILMENT = ["entailment", "not_entailment"]
BINARY = ["0", "1"]
# Folder: name on the Hub, text columns of the TSV and of the Hub, label column, classes (None: a score).
TASKS = {
    "CoLA": ("cola", ["sentence"], ["sentence"], "label", BINARY),
    "SST-2": ("sst2", ["sentence"], ["sentence"], "label", BINARY),
    "MRPC": ("mrpc", ["#1 String", "#2 String"], ["sentence1", "sentence2"], "Quality", BINARY),
    "STS-B": ("stsb", ["sentence1", "sentence2"], ["sentence1", "sentence2"], "score", None),
    "QQP": ("qqp", ["question1", "question2"], ["question1", "question2"], "is_duplicate", BINARY),
    "MNLI": ("mnli", ["sentence1", "sentence2"], ["premise", "hypothesis"], "gold_label", NLI),
    "QNLI": ("qnli", ["question", "sentence"], ["question", "sentence"], "label", ENTAILMENT),
    "RTE": ("rte", ["sentence1", "sentence2"], ["sentence1", "sentence2"], "label", ENTAILMENT),
    "WNLI": ("wnli", ["sentence1", "sentence2"], ["sentence1", "sentence2"], "label", BINARY),
    "AX": ("ax", ["sentence1", "sentence2"], ["premise", "hypothesis"], "label", NLI),
}


def rows(path, task):
    lines = path.read_bytes().decode("utf-8-sig").rstrip("\r\n").split("\n")
    lines = [line[:-1] if line.endswith("\r") else line for line in lines]
    if task == "CoLA" and path.stem != "test":
        header = ["source", "label", "mark", "sentence"]
    else:
        header, lines = lines[0].split("\t"), lines[1:]
    for number, line in enumerate(lines):
        cells = line.split("\t")
        if task == "QQP" and len(cells) < len(header):
            continue  # broken over several lines; everybody drops these
        assert len(cells) == len(header), f"{path}: row {number}: {len(cells)} cells"
        yield dict(zip(header, cells))


def convert(path, task, out):
    name, tsv, hub, label, classes = TASKS[task]
    split = "test" if task == "AX" else path.stem.replace("dev", "validation")
    data = list(rows(path, task))
    columns = {h: pa.array([row[t] for row in data], pa.string()) for t, h in zip(tsv, hub)}
    hidden = split.startswith("test")
    if classes is None:
        values = [-1.0 if hidden else float(row[label]) for row in data]
        columns["label"] = pa.array(values, pa.float32())
    else:
        values = [-1 if hidden else classes.index(row[label]) for row in data]
        columns["label"] = pa.array(values, pa.int64())
    columns["idx"] = pa.array(range(len(data)), pa.int32())
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    # Small row groups, and a second file where there is enough, so that readers meet both.
    table = pa.table(columns)
    half = len(data) // 2 if len(data) > 10000 else len(data)
    parts = [table.slice(0, half)] + ([table.slice(half)] if half < len(data) else [])
    for i, part in enumerate(parts):
        pq.write_table(part, folder / f"{split}-{i:05}-of-{len(parts):05}.parquet", row_group_size=1000)


def main():
    glue, out = map(pathlib.Path, sys.argv[1:])
    for task in TASKS:
        for path in sorted((glue / task).glob("*.tsv")):
            convert(path, task, out)


if __name__ == "__main__":
    main()
