"""Trials of scripts/hostile: rows with two meanings, scores that a loss ignores, names that look the same, other encodings, models that contradict
their tokenizer or their window."""
import json
import os
import shutil

from hostile_lib import ACCEPT, REFUSE, model_with, sentence


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def pairs(r):
    """Rows of retrieval: scores, negatives under other names, a query as a negative."""
    program = "modernbert-retrieval"
    rows = [{"query": f"q {sentence(i)}", "positive": f"d {sentence(i + 1)}"} for i in range(16)]
    train = lambda file, *more: r.command(program, "train", "--model", "mlm", "--train", file, "--batch", "4", "--steps", "1", "--lines", "--out", "p-out", *more)
    for name, change, said in (
        ("score", {"score": 1}, ["pairs.jsonl:1", "--loss"]), ("scores", {"scores": [0]}, ["pairs.jsonl:1", "--loss"]), ("label", {"label": 0}, ["\"label\" is not read"]),
        ("relevance", {"relevance": 2}, ["\"relevance\" is not read"]), ("two-scores", {"score": 1, "scores": [0]}, ["mean the same"]),
        ("hard", {"hard_negative": "x"}, ["name it \"negative\""]), ("capital", {"Negative": "x"}, ["name it \"negative\""]), ("neg", {"neg": ["x"]}, ["is not read"]),
    ):
        (r.place / "pairs.jsonl").write_text(lines(*[row | change for row in rows]))
        r.trial(f"pairs-{name}", train("pairs.jsonl"), REFUSE, said)
        shutil.rmtree(r.place / "p-out", ignore_errors=True)
    (r.place / "pairs.jsonl").write_text(lines(*[row | {"negative": row["query"]} for row in rows]))
    r.trial("pairs-own-query", train("pairs.jsonl"), REFUSE, ["has its query"])
    shutil.rmtree(r.place / "p-out", ignore_errors=True)
    (r.place / "pairs.jsonl").write_text(lines(*[{"query": row["query"], "positive": row["query"]} for row in rows]))
    r.trial("pairs-own-positive", train("pairs.jsonl"), REFUSE, ["its query as its positive"])
    shutil.rmtree(r.place / "p-out", ignore_errors=True)
    r.trial("pairs-own-allowed", train("pairs.jsonl", "--allow-duplicates"), ACCEPT)
    shutil.rmtree(r.place / "p-out", ignore_errors=True)
    (r.place / "pairs.jsonl").write_text(lines(*[row | {"score": i % 2, "id": i, "negative_ids": [1]} for i, row in enumerate(rows)]))
    r.trial("pairs-mse", train("pairs.jsonl", "--loss", "mse"), ACCEPT)
    mine = lambda out: r.command(program, "mine", "--train", "pairs.jsonl", "--negatives", "1", "--out", out)
    r.trial("pairs-mine-scores", mine("p-mined.jsonl"), REFUSE, ["remove the scores"])
    (r.place / "pairs.jsonl").write_text(lines(*[row | {"negative": "z"} for row in rows]))
    r.trial("pairs-mine-negatives", mine("p-mined.jsonl"), ACCEPT)
    (r.place / "two.jsonl").write_text(lines({"id": "a", "_id": "b", "text": "x"}))
    (r.place / "one.jsonl").write_text(lines({"_id": "b", "text": "x"}))
    embed = lambda file: r.command("embed", "--model", "mlm", "--input", file, "--out", file + ".vectors.jsonl")
    r.trial("pairs-two-ids", embed("two.jsonl"), REFUSE, ["two.jsonl:1"])
    r.trial("pairs-beir-id", embed("one.jsonl"), ACCEPT)
    r.trial("pairs-beir-index", r.command(program, "index", "build", "p-ix", "--vectors", "one.jsonl.vectors.jsonl"), ACCEPT)


def meanings(r):
    """Rows of finetuning that would be misread."""
    def tuned(name, task, content, said, suffix="jsonl", dev=None, code=REFUSE):
        (r.place / f"m.{suffix}").write_text(content)
        (r.place / f"md.{suffix}").write_text(content if dev is None else dev)
        command = r.command("finetune", "--task", task, "--model", "mlm", "--train", f"m.{suffix}", "--dev", f"md.{suffix}", "--epochs", "1", "--lines")
        r.trial(f"meanings-{name}", command, code, said)

    labels = lambda *sets: lines(*[{"text": sentence(i), "label": label} for i, label in enumerate(sets * 4)])
    tuned("one-hot-2", "multi-label", labels([0, 1], [1, 0]), ["a vector of 0 and 1"])
    tuned("one-hot-3", "multi-label", labels([0, 0, 1], [1, 0, 0]), ["m.jsonl:1", "a vector of 0 and 1"])
    tuned("one-set", "multi-label", labels(["x"], ["x"]), ["every row has the same labels"])
    tuned("pandas", "multi-label", "text,label\na,\"['x', 'y']\"\nb,\"['x']\"\n", ["m.csv:2", "a list in one text"], "csv")
    tuned("sets", "multi-label", labels(["x", "y"], [], ["y"]), [], code=ACCEPT)
    for name, other in {"selector": "good\ufe0f", "joiner": "go\u034fod", "filler": "good\u3164", "tag": "good\U000e0020", "blanks": "a  b", "sharp": "STRASSE"}.items():
        first = {"blanks": "a b", "sharp": "straße"}.get(name, "good")
        tuned(f"label-{name}", "classify", labels(first, other, "bad"), ["m.jsonl:2", "spelling"])
    for name, label in {"line": "a\nb", "tab": "a\tb", "direction": "\u202eb"}.items():
        tuned(f"label-{name}", "classify", labels("c", label), ["m.jsonl:2", "remove them"])
    tuned("outside-letter", "tag", "Ada B-X\nlived o\n\n", ["m.conll:1", "is not \"O\""], "conll")
    tuned("outside-digit", "tag", "Ada B-X\nlived 0\n\n", ["m.conll:1", "is not \"O\""], "conll")
    for label in ("O", "B-X"):
        tuned(f"span-{label}", "tag", lines({"text": "Ada", "spans": [{"start": 0, "end": 3, "label": label}]}), ["m.jsonl:1", "span 1"])
    tuned("no-tags", "tag", lines({"tokens": ["Ada"]}), ["m.jsonl:1", "no field \"tags\""])
    question = {"question": "who?", "context": "Ada", "answers": [{"text": "Ada", "answer_start": 0}]}
    tuned("possible", "answer", lines(question | {"answers": [], "is_impossible": False}), ["m.jsonl:1", "is_impossible"])
    tuned("one-id", "answer", lines(question, question), ["md.jsonl:2", "second time"], dev=lines(question | {"id": "a"}, question | {"id": "a"}))
    tuned("two-choices", "choose", lines({"prompt": "a", "choices": ["b", "c"], "choice0": "d", "choice1": "e", "label": 0}), ["m.jsonl:1", "two sets of choices"])
    r.trial("meanings-micro-batches", r.command("finetune", "--model", "mlm", "--train", "train.csv", "--dev", "dev.csv", "--micro-batches", "1000", "--lines"), REFUSE, ["micro_batches is 1000"])
    r.trial("meanings-half-epoch", r.command("finetune", "--model", "mlm", "--train", "train.csv", "--dev", "dev.csv", "--epochs", "0.5"), REFUSE, ["whole number such as"], never=["invalid digit"])
    (r.place / "pair.jsonl").write_text(lines({"text": "a", "pair": "b"}))
    r.trial("meanings-tag-pair", r.command("tag", "--model", "tok", "--input", "pair.jsonl"), REFUSE, ["pair.jsonl:1", "\"pair\""])
    r.trial("meanings-report-twice", r.command("modernbert-glue", "report", "run", "./run", "--out", "report"), REFUSE, ["named twice"])
    r.trial("meanings-all", r.command("modernbert-glue", "run", "--task", "all,wnli", "--data", "run", "--model", "mlm", "--out", "g-all"), REFUSE, ["all alone"])


def encodings(r):
    """Texts in UTF-16 and UTF-32, with and without a byte order mark."""
    for name, encoding, said in (("16", "utf-16", "UTF-16"), ("16le", "utf-16-le", "UTF-16LE"), ("16be", "utf-16-be", "UTF-16BE"), ("32", "utf-32", "UTF-32"), ("32le", "utf-32-le", "UTF-32")):
        for ending, content in {"txt": "hello\nworld\n", "csv": "text,label\na,b\n", "jsonl": lines({"text": "a"})}.items():
            (r.place / f"e.{ending}").write_bytes(content.encode(encoding))
            r.trial(f"encodings-{ending}-{name}", r.command("embed", "--model", "mlm", "--input", f"e.{ending}"), REFUSE, [f"e.{ending}:1", f"iconv -f {said}"])
        (r.place / "e.toml").write_bytes((r.place / "tiny.toml").read_text().encode(encoding))
        r.trial(f"encodings-recipe-{name}", r.command("modernbert-train", "inspect", "e.toml"), REFUSE, ["e.toml", f"iconv -f {said}"])
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            bytes_ = (r.place / "mlm" / file).read_text().encode(encoding)
            folder = model_with(r, "e", **{file.replace(".", "__"): bytes_})
            r.trial(f"encodings-{file}-{name}", r.command("embed", "--model", folder, "x"), REFUSE, [file, f"iconv -f {said}"])
        (r.place / "corpus16").mkdir(exist_ok=True)
        (r.place / "corpus16/a.txt").write_bytes(("a text\n" * 50).encode(encoding))
        r.trial(f"encodings-corpus-{name}", r.command("modernbert-train", "tokenize", "corpus16", "--tokenizer", "mlm", "--out", "e-shards"), REFUSE, ["a.txt"])
        shutil.rmtree(r.place / "e-shards", ignore_errors=True)


def models(r):
    """Models that mean something else to transformers, or that the run cannot use."""
    config = json.loads((r.place / "mlm/config.json").read_text())
    window = config["local_attention"]
    for name, value, code in (("other", 99, REFUSE), ("text", "8", REFUSE), ("half", window // 2, ACCEPT), ("null", None, ACCEPT)):
        folder = model_with(r, "w", config__json=json.dumps(config | {"sliding_window": value}))
        r.trial(f"models-window-{name}", r.command("embed", "--model", folder, "x"), code, ["sliding_window"])
    tokenizer = json.loads((r.place / "mlm/tokenizer.json").read_text())
    for name, direction, code in (("left", "Left", REFUSE), ("right", "Right", ACCEPT)):
        cut = {"direction": direction, "max_length": 4, "strategy": "LongestFirst", "stride": 0}
        folder = model_with(r, "w", tokenizer__json=json.dumps(tokenizer | {"truncation": cut}))
        r.trial(f"models-truncation-{name}", r.command("embed", "--model", folder, "x"), code, ["truncation.direction"])
    start = ["--from", "cls", "--set", "data.tokenizer=unset", "--set", "data.tokenizer_vocab=unset", "--lines", "--out", "w-run"]
    r.trial("models-from-classifier", r.command("modernbert-train", "run", "tiny.toml", *start), REFUSE, ["masked language model"])
    r.trial("models-from-classifier-folder", ["test", "!", "-e", os.fspath(r.place / "w-run")], ACCEPT)
    r.trial("models-fill-classifier", r.command("fill-mask", "--model", "cls", "[MASK]"), REFUSE, ["masked language model"], never=["that was finetuned for it;"])
    folder = model_with(r, "w", "mlm", model__safetensors=None)
    (folder / "model.safetensors").symlink_to("model.safetensors")
    r.trial("models-link", r.command("embed", "--model", folder, "x"), REFUSE, ["a link of that name"])
    r.trial("models-shards-beside-text", r.command("modernbert-train", "run", "tiny.toml", "--corpus", "shards", "--corpus", "corpus.jsonl", "--lines", "--out", "w-run2"), REFUSE, ["a folder of shards"])
    r.trial("models-inspect-rows", r.command("modernbert-train", "inspect", "corpus.jsonl"), REFUSE, ["inspect describes"])
    r.trial("models-convert-json", r.command("modernbert-train", "convert", "mlm/config.json"), REFUSE, ["JSON or TOML"])
