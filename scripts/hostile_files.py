"""Trials of scripts/hostile: files of models, and rows of text."""
import copy
import gzip
import json
import os
import pathlib
import struct
import zlib

from hostile_lib import ACCEPT, EITHER, REFUSE, floats, model_with, read_tensors, write_tensors


def configs(r):
    good = json.loads((r.place / "mlm" / "config.json").read_text())
    changes = {
        "hidden-0": {"hidden_size": 0}, "hidden-negative": {"hidden_size": -32}, "hidden-huge": {"hidden_size": 2**40},
        "hidden-text": {"hidden_size": "32"}, "hidden-fraction": {"hidden_size": 32.5}, "hidden-null": {"hidden_size": None},
        "hidden-other": {"hidden_size": 64, "num_attention_heads": 4},
        "heads-0": {"num_attention_heads": 0}, "heads-3": {"num_attention_heads": 3}, "heads-32": {"num_attention_heads": 32},
        "layers-0": {"num_hidden_layers": 0}, "layers-huge": {"num_hidden_layers": 10**9}, "layers-5": {"num_hidden_layers": 5},
        "vocab-0": {"vocab_size": 0}, "vocab-small": {"vocab_size": 64}, "vocab-huge": {"vocab_size": 2**50},
        "positions-0": {"max_position_embeddings": 0}, "window-0": {"local_attention": 0},
        "window-negative": {"local_attention": -4}, "every-0": {"global_attn_every_n_layers": 0},
        "theta-0": {"global_rope_theta": 0.0, "rope_parameters": None}, "eps-negative": {"norm_eps": -1.0},
        "intermediate-0": {"intermediate_size": 0}, "activation": {"hidden_activation": "swish9"},
        "type-bert": {"model_type": "bert"}, "architectures-number": {"architectures": 3},
        "labels-list": {"id2label": ["a", "b"]}, "labels-gap": {"id2label": {"0": "a", "5": "b"}},
        "labels-empty": {"id2label": {}, "architectures": ["ModernBertForSequenceClassification"]},
        "problem": {"problem_type": "guessing"}, "dropout-2": {"attention_dropout": 2.0}, "pooling": {"classifier_pooling": "best"},
        "layer-types": {"layer_types": ["full_attention"]}, "pad-huge": {"pad_token_id": 10**9},
    }
    tolerated = {"every-0", "layer-types", "pad-huge", "labels-list", "labels-gap", "labels-empty", "problem", "pooling", "dropout-2", "vocab-small"}
    for name, change in changes.items():
        config = copy.deepcopy(good) | change
        if change.get("rope_parameters", 0) is None:
            config.pop("rope_parameters", None)
        folder = model_with(r, "c", config__json=json.dumps(config))
        r.trial(f"config-{name}", r.command("embed", "--model", folder, "x"), EITHER if name in tolerated else REFUSE, ["models/c"],
                never=["No such file"])
    text = json.dumps(good)
    raw = {
        "empty": b"", "brace": b"{", "list": b"[]", "null": b"null", "deep": b"[" * 200_000, "utf16": text.encode("utf-16"),
        "latin": b'{"model_type": "caf\xe9"}', "infinite": text.replace('"hidden_size": 32', '"hidden_size": 1e999').encode(),
        "nul": b"\0" * 100, "html": b"<!DOCTYPE html><html>404</html>", "missing": None,
    }
    for name, content in raw.items():
        folder = model_with(r, "c", config__json=content)
        r.trial(f"config-raw-{name}", r.command("embed", "--model", folder, "x"), REFUSE, ["config.json"])
    folder = model_with(r, "c", config__json=b"\xef\xbb\xbf" + text.encode())
    r.trial("config-raw-bom", r.command("embed", "--model", folder, "x"), ACCEPT)
    for name, make in [("folder", pathlib.Path.mkdir), ("pipe", os.mkfifo), ("link-away", lambda p: p.symlink_to("/nowhere/config.json")),
                       ("device", lambda p: p.symlink_to("/dev/zero"))]:
        for file in ["config__json", "tokenizer__json", "model__safetensors"]:
            folder = model_with(r, "c", **{file: make})
            r.trial(f"{file.replace('__', '-')}-{name}", r.command("embed", "--model", folder, "x"), REFUSE, [file.replace("__", ".")], limit=20)


def tokenizers(r):
    good = json.loads((r.place / "mlm" / "tokenizer.json").read_text())

    def trial(name, edit, expected=REFUSE, texts=("the cat",), says=("tokenizer",)):
        changed = copy.deepcopy(good)
        changed = edit(changed) or changed
        folder = model_with(r, "t", tokenizer__json=json.dumps(changed))
        r.trial(f"tokenizer-{name}", r.command("embed", "--model", folder, *texts), expected, says)

    def at(key, value):
        return lambda t: t.__setitem__(key, value)

    pattern = lambda kind, text: {"type": "Replace", "pattern": {kind: text}, "content": "xy"}
    split = lambda kind, text: {"type": "Split", "pattern": {kind: text}, "behavior": "Isolated", "invert": False}
    trial("no-model", lambda t: {k: v for k, v in t.items() if k != "model"})
    trial("model-null", at("model", None))
    trial("model-unknown", at("model", {"type": "Guess"}))
    trial("vocab-empty", lambda t: t["model"].__setitem__("vocab", {}))
    trial("vocab-negative", lambda t: t["model"]["vocab"].__setitem__("zz", -1))
    trial("vocab-huge-id", lambda t: t["model"]["vocab"].__setitem__("zz", 2**31))
    trial("merges-unknown", lambda t: t["model"]["merges"].append(["qqqq", "zzzz"]))
    trial("merges-number", lambda t: t["model"].__setitem__("merges", [3]))
    trial("added-empty", lambda t: t["added_tokens"].append(dict(t["added_tokens"][0], content="", id=900)), EITHER)
    trial("added-twice", lambda t: t["added_tokens"].append(dict(t["added_tokens"][0])), EITHER)
    trial("added-none", at("added_tokens", []))
    trial("normalizer-empty-regex", at("normalizer", pattern("Regex", "")), EITHER)
    trial("normalizer-empty-string", at("normalizer", pattern("String", "")), EITHER)
    trial("normalizer-star", at("normalizer", pattern("Regex", "a*")), EITHER)
    trial("normalizer-bad-regex", at("normalizer", pattern("Regex", "(")))
    trial("normalizer-grows", at("normalizer", {"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 50} for _ in range(8)]}), EITHER, ("a" * 5000,), ())
    trial("normalizer-prepend", at("normalizer", {"type": "Prepend", "prepend": ""}), EITHER)
    trial("normalizer-charsmap", at("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}), EITHER)
    trial("split-empty-regex", at("pre_tokenizer", split("Regex", "")), EITHER)
    trial("split-empty-string", at("pre_tokenizer", split("String", "")), EITHER)
    trial("split-backtracks", at("pre_tokenizer", split("Regex", "(?=(a+)+b)c")), EITHER, ("a" * 40 + "c",), ())
    trial("split-fixed-0", at("pre_tokenizer", {"type": "FixedLength", "length": 0}), EITHER)
    trial("post-missing", at("post_processor", {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[NOPE]", "type_id": 0}}],
                                                "pair": [], "special_tokens": {}}))
    trial("post-none", at("post_processor", None), EITHER)
    trial("post-bert", at("post_processor", {"type": "BertProcessing", "sep": ["[SEP]", 10**6], "cls": ["[CLS]", 10**6]}), EITHER)
    trial("truncation-0", at("truncation", {"max_length": 0, "strategy": "LongestFirst", "stride": 9, "direction": "Right"}), EITHER)
    trial("truncation-stride", at("truncation", {"max_length": 4, "strategy": "OnlySecond", "stride": 900, "direction": "Left"}), EITHER)
    trial("padding-huge", at("padding", {"strategy": {"Fixed": 10**11}, "direction": "Right", "pad_id": 0, "pad_type_id": 0,
                                         "pad_token": "[PAD]", "pad_to_multiple_of": None}), EITHER)
    trial("decoder-unknown", at("decoder", {"type": "Guess"}))
    trial("wordpiece", at("model", {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                                    "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "[MASK]": 4, "a": 5}}))
    for name, content in {"empty": "", "list": "[]", "deep": "[" * 200_000, "nul": "\0", "text": "tokenizer"}.items():
        folder = model_with(r, "t", tokenizer__json=content)
        r.trial(f"tokenizer-raw-{name}", r.command("embed", "--model", folder, "x"), REFUSE, ["tokenizer.json"])
    folder = model_with(r, "t", tokenizer_config__json="{")
    r.trial("tokenizer-config-brace", r.command("embed", "--model", folder, "x"), REFUSE, ["tokenizer_config.json"])


def weights(r):
    tensors = read_tensors(r.place / "mlm" / "model.safetensors")
    first = "model.embeddings.tok_embeddings.weight"
    first = first if first in tensors else next(iter(tensors))

    def trial(name, make, expected=REFUSE, says=("safetensors",), base="mlm", program="embed"):
        folder = model_with(r, "w", base, model__safetensors=make)
        r.trial(f"weights-{name}", r.command(program, "--model", folder, "the cat"), expected, says)

    data = (r.place / "mlm" / "model.safetensors").read_bytes()
    trial("empty", b"")
    trial("seven-bytes", b"1234567")
    trial("cut", data[:len(data) // 2])
    trial("one-short", data[:-1])
    trial("one-more", data + b"x", EITHER)
    trial("header-huge", struct.pack("<Q", 2**60) + b"{}")
    trial("header-cut", data[:100])
    trial("header-text", struct.pack("<Q", 4) + b"xxxx")
    trial("header-deep", struct.pack("<Q", 100_000) + b"[" * 100_000)
    trial("pickle", b"\x80\x02}q\x00.")
    trial("lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")

    def edited(edit):
        return lambda path: write_tensors(path, tensors, edit)

    def field(name, key, value):
        return edited(lambda h: h[name].__setitem__(key, value))

    size = len(tensors[first][2])
    trial("offset-beyond", field(first, "data_offsets", [0, 2**40]))
    trial("offset-backwards", field(first, "data_offsets", [size, 0]))
    trial("offset-negative", field(first, "data_offsets", [-4, size]))
    trial("shape-huge", field(first, "shape", [2**62, 2**62]))
    trial("shape-negative", field(first, "shape", [-1, 32]))
    trial("shape-swapped", field(first, "shape", tensors[first][1][::-1]))
    trial("shape-flat", field(first, "shape", [size // 4]))
    trial("dtype-unknown", field(first, "dtype", "F7"))
    trial("dtype-integer", field(first, "dtype", "I32"))
    trial("dtype-half", field(first, "dtype", "F16"))
    trial("overlap", edited(lambda h: [h[n].__setitem__("data_offsets", h[first]["data_offsets"]) for n in list(h)[1:2]]))
    missing = {k: v for k, v in tensors.items() if k != first}
    trial("missing", lambda p: write_tensors(p, missing))
    trial("extra", lambda p: write_tensors(p, tensors | {"extra.weight": ("F32", [1], floats(1.0))}), EITHER)
    for name, value in [("nan", float("nan")), ("infinite", float("inf")), ("huge", 3e38)]:
        broken = dict(tensors)
        broken[first] = (tensors[first][0], tensors[first][1], floats(*[value] * (size // 4)))
        trial(name, lambda p: write_tensors(p, broken), REFUSE, (first,))
        for program, base, more in [("classify", "cls", ["x"]), ("tag", "tok", ["x"]), ("fill-mask", "mlm", ["x [MASK]"]),
                                    ("answer", "qa", ["--question", "x", "--context", r.place / "corpus.jsonl"])]:
            there = read_tensors(r.place / base / "model.safetensors")
            there[first] = broken[first]
            folder = model_with(r, "w", base, model__safetensors=lambda p: write_tensors(p, there))
            r.trial(f"weights-{name}-{program}", r.command(program, "--model", folder, *more), REFUSE)
    index = lambda files: json.dumps({"metadata": {}, "weight_map": files})
    for name, files in {"outside": {n: "../../mlm/model.safetensors" for n in tensors}, "absolute": {n: "/etc/passwd" for n in tensors},
                        "absent": {n: "part-9.safetensors" for n in tensors}, "empty": {}, "number": 3}.items():
        folder = model_with(r, "w", model__safetensors=None, model__safetensors__index__json=index(files))
        r.trial(f"weights-index-{name}", r.command("embed", "--model", folder, "x"), REFUSE, ["model.safetensors.index.json"]
                if name != "absent" else ["part-9"])
    for program, base in [("classify", "mlm"), ("tag", "cls"), ("answer", "tok"), ("choose", "cls"), ("fill-mask", "cls")]:
        more = {"answer": ["--question", "x", "--context", "train.csv"], "choose": ["a", "b", "c"], "fill-mask": ["[MASK]"]}.get(program, ["x"])
        r.trial(f"weights-head-{program}", r.command(program, "--model", base, *more), REFUSE, ["mlm" if base == "mlm" else base])


def bomb(megabytes):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(megabytes)) + packer.flush()


def rows(r):
    files = {
        "latin.txt": b"caf\xe9\n", "utf16.txt": "text".encode("utf-16"), "gzip.txt": gzip.compress(b"text\n"), "a.pdf": b"%PDF-1.4",
        "a.xlsx": b"PK\x03\x04", "none": b"text\n", "cut.txt.gz": gzip.compress(b"text\n" * 999)[:-9], "fake.txt.gz": b"text\n",
        "open.csv": b'text,label\n"a,b\nc,d\n', "stray.csv": b'text\na"b\n', "behind.csv": b'text\n"a"b\n', "wide.csv": b"text\na,b\n",
        "twice.csv": b"text,text\na,b\n", "other.csv": b"body\na\n", "other.tsv": b"body\tx\na\tb\n", "wide.tsv": b"text\na\tb\n",
        "half.jsonl": b'{"text": "a"}\n{"text": ', "number.jsonl": b'{"text": 3}\n', "null.jsonl": b'{"text": null}\n', "list.jsonl": b"[1]\n",
        "deep.jsonl": b"[" * 200_000 + b"\n", "pretty.jsonl": b'{\n "text": "a"\n}\n', "twice.jsonl": b'{"text": "a", "text": "b"}\n',
        "surrogate.jsonl": b'{"text": "\\ud800"}\n', "a.zst": b"(\xb5/\xfd", "a.parquet": b"PAR1" + b"\0" * 40 + b"PAR1",
        "empty.parquet": b"", "foot.parquet": b"PAR1" + struct.pack("<I", 2**31) + b"PAR1",
        "bomb.jsonl.gz": bomb(300),
    }
    for name, content in files.items():
        path = r.place / name
        path.write_bytes(content)
        r.trial(f"rows-embed-{name}", r.command("embed", "--model", "mlm", "--input", name), REFUSE, [name])
        if name not in ("a.pdf", "none", "a.xlsx"):
            r.trial(f"rows-finetune-{name}", r.command("finetune", "--model", "mlm", "--train", name, "--dev", "dev.csv", "--epochs", "1"),
                    REFUSE, [name])
    for name, content in {"empty.txt": b"", "blank.jsonl": b"\n\n", "header.csv": b"text,label\n"}.items():
        (r.place / name).write_bytes(content)
        r.trial(f"rows-embed-{name}", r.command("embed", "--model", "mlm", "--input", name), EITHER)
        r.trial(f"rows-finetune-{name}", r.command("finetune", "--model", "mlm", "--train", name, "--dev", "dev.csv", "--epochs", "1"), REFUSE, [name])
    labels = {
        "empty-label.csv": "text,label\na,good\nb,\nc,bad\n", "one-label.csv": "text,label\na,good\nb,good\n", "case.csv": "text,label\na,good\nb,Good\n",
        "space.csv": "text,label\na,good\nb,good \n", "number.csv": "text,label\na,1\nb,1.0\nc,0\n", "types.jsonl": '{"text":"a","label":1}\n{"text":"b","label":"1"}\n',
        "null-label.jsonl": '{"text":"a","label":null}\n', "list-label.jsonl": '{"text":"a","label":[1]}\n', "bool.jsonl": '{"text":"a","label":true}\n{"text":"b","label":"true"}\n',
    }
    for name, content in labels.items():
        (r.place / name).write_text(content)
        r.trial(f"labels-{name}", r.command("finetune", "--model", "mlm", "--train", name, "--dev", "dev.csv", "--epochs", "1"), REFUSE, [name])
    (r.place / "strange.csv").write_text("text,label\na,neither\n")
    r.trial("labels-unseen", r.command("finetune", "--model", "mlm", "--train", "train.csv", "--dev", "strange.csv"), REFUSE, ["strange.csv", "neither"])
    (r.place / "big.jsonl").write_text("".join(f'{{"text":"a{i}","label":{2**64 + i}}}\n' for i in range(4)))
    r.trial("labels-64-bits", r.command("finetune", "--model", "mlm", "--train", "big.jsonl", "--dev", "big.jsonl", "--epochs", "1"), ACCEPT)
    if not r.only and "18446744073709551619" not in r.shown:
        print("FAILED labels-64-bits: labels merged:", r.shown)
        r.failed.append("labels-64-bits")
    (r.place / "scores.csv").write_text("text,label\na,nan\nb,1\n")
    r.trial("labels-nan-score", r.command("finetune", "--model", "mlm", "--train", "scores.csv", "--dev", "scores.csv", "--regression"), REFUSE, ["scores.csv:2"])
    line = r.place / "line.txt"
    with open(line, "wb") as file:
        for _ in range(40):
            file.write(b"the cat sat " * 100_000)
    r.trial("rows-line-of-48-MB", r.command("embed", "--model", "mlm", "--input", line), ACCEPT)
    line.unlink()
