"""Trials of scripts/hostile: finetuning of every kind, GLUE, SuperGLUE, NER, multiple choice, retrieval."""
import json
import os
import shutil
import signal

from hostile_lib import ACCEPT, EITHER, REFUSE, floats, read_tensors, sentence, write_tensors


def kinds(r):
    """The tasks of `finetune`: one good set each, then one fault each."""
    good = {
        "tag": ["tags.jsonl", [{"tokens": ["the", "cat", "sat"], "tags": ["O", "B-X", "O"]}] * 8],
        "answer": ["squad.jsonl", [{"question": "who sat", "context": "the cat sat", "answers": {"text": ["cat"], "answer_start": [4]}}] * 8],
        "multi-label": ["many.jsonl", [{"text": "the cat", "label": ["a", "b"]}, {"text": "a dog", "label": ["a"]}] * 4],
        "choose": ["choices.jsonl", [{"prompt": "the cat", "choices": ["sat", "read"], "label": 0}] * 8],
    }
    faults = {
        "tag": {"lengths": {"tags": ["O"]}, "no-words": {"tokens": []}, "unknown-type": {"tags": [1.5, None, {}]}, "text": {"tokens": "the cat sat"},
                "number-words": {"tokens": [1, 2, 3]}, "empty-word": {"tokens": ["the", "", "sat"]}},
        "answer": {"start": {"answers": {"text": ["cat"], "answer_start": [1]}}, "beyond": {"answers": {"text": ["cat"], "answer_start": [99]}},
                   "negative": {"answers": {"text": ["cat"], "answer_start": [-4]}}, "pairs": {"answers": {"text": ["cat", "x"], "answer_start": [4]}},
                   "null-context": {"context": None}, "number": {"answers": 3}},
        "multi-label": {"twice": {"label": ["a", "a"]}, "number": {"label": [1.5]}, "null": {"label": None}, "nested": {"label": [["a"]]}},
        "choose": {"label": {"label": 2}, "negative": {"label": -1}, "one": {"choices": ["sat"]}, "none": {"choices": []}, "null": {"choices": ["sat", None]},
                   "text": {"choices": "sat"}},
    }
    # An edge that some of these may accept: repeated labels, empty words, choices that differ in number.
    tolerated = {"multi-label-twice", "tag-empty-word", "tag-number-words", "choose-one"}
    for task, (file, rows) in good.items():
        path = r.place / file
        command = r.command("finetune", "--model", "mlm", "--task", task, "--train", file, "--dev", file, "--epochs", "1", "--lines")
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        r.trial(f"kinds-{task}", command, ACCEPT)
        for name, change in faults[task].items():
            path.write_text("".join(json.dumps(row) + "\n" for row in [*rows[:3], rows[0] | change, *rows[3:]]))
            r.trial(f"kinds-{task}-{name}", command, EITHER if f"{task}-{name}" in tolerated else REFUSE, [f"{file}:4"])
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        missing = dict(rows[0])
        missing.pop({"tag": "tags", "answer": "answers", "multi-label": "label", "choose": "label"}[task])
        path.write_text(json.dumps(missing) + "\n" + path.read_text())
        r.trial(f"kinds-{task}-missing", command, EITHER if task == "answer" else REFUSE, [file])
    for name, text in {"columns": "the O\ncat\n\n", "tag": "the O\ncat Q-X\nsat I-\n\n", "latin": "caf\xe9 O\n"}.items():
        (r.place / "words.conll").write_bytes(text.encode("latin-1"))
        r.trial(f"ner-{name}", r.command("ner", "mlm", "words.conll", "words.conll", "--epochs", "1"), EITHER if name == "tag" else REFUSE, ["words.conll"])
    (r.place / "words.conll").write_text("the O\ncat B-X\n\nsat O\n\n" * 4)
    r.trial("ner", r.command("ner", "mlm", "words.conll", "words.conll", "the cat", "--epochs", "1"), ACCEPT)
    for name, more in {"epochs": ["--epochs", "0"], "epochs-huge": ["--epochs", str(2**64 - 1)], "rate": ["--learning-rate", "nan"], "file": ["--epochs", "1"]}.items():
        files = ["words.conll", "words.conll"] if name != "file" else ["nowhere", "words.conll"]
        r.trial(f"ner-{name}", r.command("ner", "mlm", *files, *more), REFUSE)


def glue(r):
    data = r.place / "glue"
    folder = data / "RTE"
    folder.mkdir(parents=True)
    header = "index\tsentence1\tsentence2\tlabel\n"
    rows = [f"{i}\t{sentence(i)}\t{sentence(i + 1)}\t{'entailment' if i % 2 else 'not_entailment'}\n" for i in range(12)]
    write = lambda train, dev=None: [(folder / f"{split}.tsv").write_bytes(content if isinstance(content, bytes) else content.encode())
                                     for split, content in (("train", train), ("dev", dev or header + "".join(rows)))]

    def run(out, *more):
        # An argument in `more` replaces the one of its name here.
        usual = {"--task": "rte", "--epochs": "1", "--mnli": "off"}
        usual = [part for name, value in usual.items() if name not in more for part in (name, value)]
        return r.command("modernbert-glue", "run", "--data", "glue", "--model", "mlm", "--out", out, "--lines", *usual, *more)

    whole = header + "".join(rows)
    for name, content in {
        "empty": "", "header": header, "other-header": "a\tb\n" + "".join(rows), "label": whole.replace("\tentailment", "\tperhaps", 1),
        "short-row": whole + "13\tone\tentailment\n", "long-row": whole + "13\ta\tb\tc\tentailment\n", "latin": whole.encode() + b"13\tcaf\xe9\tb\tentailment\n",
        "nul": whole.replace("cat", "c\0t"), "one-column": "text\n", "binary": os.urandom(400), "no-label": whole + "13\ta\tb\t\n",
    }.items():
        write(content)
        r.trial(f"glue-{name}", run("g"), EITHER if name == "nul" else REFUSE, ["train.tsv"])
        shutil.rmtree(r.place / "g", ignore_errors=True)
    write(whole)
    (folder / "train.tsv").unlink()
    os.mkfifo(folder / "train.tsv")
    r.trial("glue-pipe", run("g"), REFUSE, ["train.tsv"], limit=20)
    (folder / "train.tsv").unlink()
    write(whole)
    for name, more in {"epochs-0": ["--epochs", "0"], "epochs-huge": ["--epochs", str(2**64 - 1)], "rate-0": ["--learning-rate", "0"], "rate-inf": ["--learning-rate", "inf"],
                       "decay": ["--weight-decay", "-1"], "warmup": ["--warmup", "2"], "batch": ["--batch-size", "0"], "length": ["--max-length", "2"], "seeds": ["--seeds", "0"],
                       "seeds-huge": ["--seeds", str(2**63)], "rows": ["--max-rows", "0"], "task": ["--task", "rt"], "mnli": ["--mnli", "nowhere"], "mnli-plain": ["--mnli", "mlm"],
                       "sweep": ["--sweep", "nowhere"], "every": ["--evaluate-every", "0"]}.items():
        r.trial(f"glue-argument-{name}", run("g", *more), REFUSE)
        shutil.rmtree(r.place / "g", ignore_errors=True)
    r.trial("glue-out-model", run("mlm"), REFUSE, keep=[r.place / "mlm"])
    r.trial("glue-out-data", run("glue/out"), REFUSE, keep=[data])
    r.trial("glue-run", run("g"), ACCEPT)
    r.trial("glue-signal", run("g-int", "--patience", "0", "--epochs", "9999"), {0, 130}, send=[(2, signal.SIGINT)])
    results = r.place / "g" / "results.json"
    if results.exists():
        text = results.read_text()
        for name, content in {"brace": "{", "list": "[]", "nan": text.replace("0.", "NaN", 1), "link": None}.items():
            shutil.copytree(r.place / "g", r.place / "g2", dirs_exist_ok=True)
            (r.place / "g2" / "results.json").unlink()
            if content is None:
                (r.place / "g2" / "results.json").symlink_to("/dev/zero")
            else:
                (r.place / "g2" / "results.json").write_text(content)
            r.trial(f"glue-report-{name}", r.command("modernbert-glue", "report", "g2", "--out", "g3"), REFUSE, ["results.json"], limit=20)
            shutil.rmtree(r.place / "g2")
            shutil.rmtree(r.place / "g3", ignore_errors=True)
    r.trial("glue-report-missing", r.command("modernbert-glue", "report", "nowhere"), REFUSE, ["nowhere"])
    r.trial("glue-predict-missing", r.command("modernbert-glue", "predict", "--run", "nowhere", "--data", "glue", "--out", "p"), REFUSE, ["nowhere"])
    r.trial("glue-predict-no-test", r.command("modernbert-glue", "predict", "--run", "g", "--data", "glue", "--out", "p"), REFUSE)
    for name, rows in {"label": [{"premise": "a", "choice1": "b", "choice2": "c", "question": "cause", "label": 7}], "missing": [{"premise": "a"}], "list": [[]], "question": [
            {"premise": "a", "choice1": "b", "choice2": "c", "question": "why", "label": 0}]}.items():
        (r.place / "super" / "COPA").mkdir(parents=True, exist_ok=True)
        for split in ("train", "val"):
            (r.place / "super" / "COPA" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        r.trial(f"superglue-{name}", r.command("superglue", "--task", "copa", "--data", "super", "--model", "mlm", "--epochs", "1", "--lines"), REFUSE, ["train.jsonl:1"])
    r.trial("superglue-missing", r.command("superglue", "--task", "boolq", "--data", "super", "--model", "mlm"), REFUSE, ["BoolQ"])


def retrieval(r):
    program, place = "modernbert-retrieval", r.place / "beir"
    (place / "qrels").mkdir(parents=True)
    good = {"corpus.jsonl": "".join(json.dumps({"_id": f"d{i}", "title": "", "text": sentence(i)}) + "\n" for i in range(20)),
            "queries.jsonl": "".join(json.dumps({"_id": f"q{i}", "text": sentence(i)}) + "\n" for i in range(4)),
            "qrels/test.tsv": "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\td{i}\t1\n" for i in range(4))}
    evaluate = r.command(program, "evaluate", "--data", "beir")

    def reset():
        for name, text in good.items():
            path = place / name
            if path.exists() or path.is_symlink():
                path.unlink()
            path.write_text(text)

    reset()
    r.trial("retrieval-evaluate", evaluate, ACCEPT)
    text = good["corpus.jsonl"]
    for file, name, content in [
        ("corpus.jsonl", "empty", ""), ("corpus.jsonl", "twice", text + text.splitlines()[0] + "\n"), ("corpus.jsonl", "no-id", '{"text": "a"}\n'), ("corpus.jsonl", "null", '{"_id": "d0", "text": null}\n'),
        ("corpus.jsonl", "list", "[]\n"), ("corpus.jsonl", "half", text[:-5]), ("corpus.jsonl", "deep", "[" * 200_000), ("corpus.jsonl", "latin", b'{"_id": "d0", "text": "caf\xe9"}\n'), ("corpus.jsonl", "device", None),
        ("queries.jsonl", "empty", ""), ("queries.jsonl", "number", '{"_id": "q0", "text": 3}\n'), ("queries.jsonl", "twice", good["queries.jsonl"] * 2),
        ("qrels/test.tsv", "empty", ""), ("qrels/test.tsv", "grade", "query-id\tcorpus-id\tscore\nq0\td0\tmuch\n"), ("qrels/test.tsv", "columns", "query-id\tcorpus-id\tscore\nq0\td0\n"),
        ("qrels/test.tsv", "unknown", "query-id\tcorpus-id\tscore\nq0\tnone\t1\n"), ("qrels/test.tsv", "twice", "query-id\tcorpus-id\tscore\nq0\td0\t1\nq0\td0\t2\n"), ("qrels/test.tsv", "nan", "query-id\tcorpus-id\tscore\nq0\td0\tnan\n"),
        ("qrels/test.tsv", "huge", "query-id\tcorpus-id\tscore\nq0\td0\t99999999999999999999\n"), ("qrels/test.tsv", "name", "query-id\tcorpus-id\tvalue\nq0\td0\t0\n"),
        ("qrels/test.tsv", "wide", "query-id\tcorpus-id\tscore\nq0\td0\t1\tjunk\n"), ("qrels/test.tsv", "grades", "query-id\tcorpus-id\tscore\tlabel\nq0\td0\t1\t0\n"),
    ]:
        path = place / file
        path.unlink()
        if content is None:
            path.symlink_to("/dev/zero")
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        r.trial(f"retrieval-{file.split('/')[-1]}-{name}", evaluate, EITHER if (file, name) in {("corpus.jsonl", "null")} else REFUSE, ["beir"], limit=20)
        reset()
    lines = "".join(f"q{i} Q0 d{i} 1 2.5 x\n" for i in range(4))
    (r.place / "other.run").write_text(lines)
    for name, content in {"good": lines, "short": "q0 Q0 d0\n", "nan": "q0 Q0 d0 1 nan x\n", "inf": "q0 Q0 d0 1 inf x\n", "twice": lines + lines, "empty": "", "text": "hello\n", "unknown": "q0 Q0 dx 1 1.0 x\n"}.items():
        (r.place / "a.run").write_text(content)
        r.trial(f"retrieval-run-{name}", r.command(program, "evaluate", "--data", "beir", "--run", "a.run", "--no-bm25"), ACCEPT if name == "good" else EITHER if name == "unknown" else REFUSE, ["a.run"])
        r.trial(f"retrieval-compare-{name}", r.command(program, "compare", "--data", "beir", "a.run", "other.run"), EITHER if name in ("good", "unknown") else REFUSE, ["a.run"])
        r.trial(f"retrieval-fuse-{name}", r.command(program, "fuse", "--out", f"f-{name}.run", "a.run", "other.run"), EITHER if name in ("good", "unknown") else REFUSE, ["a.run"])
    (r.place / "a.run").write_text(lines)
    for name, more in {"k1": ["--k1", "nan"], "b": ["--b", "2"], "top": ["--top", "0"], "measure": ["--measures", "ndgc@10"], "cutoff": ["--measures", "ndcg@0"], "split": ["--split", "nowhere"], "level": ["--relevance-level", "x"],
                       "subset": ["--subset", "none"], "run": ["--run", "nowhere.run"], "out": ["--out", "train.csv"], "vectors": ["--vectors", "train.csv"],
                       "no-effect": ["--run", "a.run", "--no-bm25", "--k1", "1"], "no-top": ["--run", "a.run", "--no-bm25", "--top", "5"]}.items():
        r.trial(f"retrieval-argument-{name}", [*evaluate, *more], REFUSE, keep=[r.place / "train.csv"])
    for name, extra in {"form": "corpus.jsonl.gz", "judgments": "qrels/test.jsonl"}.items():
        (place / extra).write_bytes(b"")
        r.trial(f"retrieval-two-{name}", evaluate, REFUSE, ["two forms"])
        (place / extra).unlink()
    r.trial("retrieval-fuse-twice", r.command(program, "fuse", "--out", "b.run", "a.run", "a.run"), REFUSE, ["named twice"])
    r.trial("retrieval-fuse-packed", r.command(program, "fuse", "--out", "f.run.gz", "a.run", "other.run"), REFUSE, ["f.run.gz"])
    r.trial("retrieval-fuse-over", r.command(program, "fuse", "--out", "a.run", "a.run", "other.run"), REFUSE, keep=[r.place / "a.run"])
    r.trial("retrieval-fuse-k", r.command(program, "fuse", "--out", "b.run", "a.run", "other.run", "--k", "-1"), REFUSE)
    r.trial("retrieval-fuse-weights", r.command(program, "fuse", "--out", "b.run", "a.run", "other.run", "--weights", "1"), REFUSE)

    def vectors(name, values, width=4):
        write_tensors(r.place / name, {"embeddings": ("F32", [len(values) // width, width], floats(*values))})

    r.trial("retrieval-embed", r.command("embed", "--model", "mlm", "--input", "beir/corpus.jsonl", "--out", "v.safetensors"), ACCEPT)
    build = lambda out, file, *more: r.command(program, "index", "build", "--vectors", file, out, *more)
    r.trial("retrieval-index", build("ix", "v.safetensors", "--texts", "beir/corpus.jsonl"), ACCEPT)
    for name, values in {"nan": [float("nan")] * 8, "inf": [float("inf")] * 8, "zero": [0.0] * 8, "none": []}.items():
        vectors("bad.safetensors", values)
        r.trial(f"retrieval-index-{name}", build("iy", "bad.safetensors"), REFUSE, ["bad.safetensors"])
        shutil.rmtree(r.place / "iy", ignore_errors=True)
    vectors("narrow.safetensors", [1.0] * 8)
    r.trial("retrieval-index-width", r.command(program, "index", "add", "--vectors", "narrow.safetensors", "ix"), REFUSE, keep=[p for p in (r.place / "ix").glob("*") if p.name != "lock"])
    r.trial("retrieval-search-width", r.command(program, "search", "--queries", "narrow.safetensors", "ix"), REFUSE)
    r.trial("retrieval-index-again", build("ix", "v.safetensors"), REFUSE, keep=[r.place / "ix"])
    r.trial("retrieval-index-over-model", build("mlm", "v.safetensors"), REFUSE, keep=[r.place / "mlm"])
    r.trial("retrieval-index-id-twice", r.command(program, "index", "add", "--vectors", "v.safetensors", "--texts", "beir/corpus.jsonl", "ix"), REFUSE,
            keep=[p for p in (r.place / "ix").glob("*") if p.name != "lock"])
    r.trial("retrieval-delete-unknown", r.command(program, "index", "delete", "ix", "nobody"), EITHER, keep=[r.place / "corpus.jsonl"])
    for file in sorted(p for p in (r.place / "ix").rglob("*") if p.is_file() and p.name != "lock"):
        part, whole = file.name, file.read_bytes()
        for name, content in {"empty": b"", "cut": whole[:len(whole) // 2], "flipped": whole[:len(whole) // 3] + bytes([whole[len(whole) // 3] ^ 0x40]) + whole[len(whole) // 3 + 1:], "device": None}.items():
            file.unlink()
            if content is None:
                file.symlink_to("/dev/zero")
            else:
                file.write_bytes(content)
            r.trial(f"retrieval-index-{part}-{name}", r.command(program, "index", "info", "ix"), REFUSE, ["ix"], limit=20)
            file.unlink()
            file.write_bytes(whole)
    for name, more in {"top": ["--top", "0"], "filter": ["--filter", "x"], "model": ["--model", "nowhere"], "texts": ["--texts", "train.csv"], "out": ["--out", "train.csv"]}.items():
        r.trial(f"retrieval-search-{name}", r.command(program, "search", "--queries", "v.safetensors", "ix", *more), REFUSE, keep=[r.place / "train.csv"])
