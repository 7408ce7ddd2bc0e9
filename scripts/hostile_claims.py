"""Trials of scripts/hostile: files that contradict each other, control characters in names, results that are not defined, options that count twice
or not at all, places that another user may not write."""
import json
import os
import pathlib
import shutil

from hostile_lib import ACCEPT, EITHER, REFUSE, floats, model_with, read_tensors, sentence, write_tensors

QUANTIZED = {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"group_0": {
    "targets": ["Linear"], "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}}}}
RED = "\x1b[31mred\nerror: second"


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def claims(r):
    """A model's files that say different things."""
    good = {name: json.loads((r.place / name / "config.json").read_text()) for name in ("mlm", "cls", "qa")}
    nameless = {key: value for key, value in good["cls"].items() if key not in ("id2label", "label2id")}
    for name, config, said in (
        ("five", nameless | {"num_labels": 5}, ["2 outputs", "5 labels"]), ("one", nameless | {"num_labels": 1}, ["2 outputs"]),
        ("names", good["cls"] | {"num_labels": 5}, ["num_labels"]), ("three-names", good["cls"] | {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": None}, ["3 labels"]),
    ):
        r.trial(f"claims-labels-{name}", r.command("classify", "--model", model_with(r, "q", "cls", config__json=json.dumps(config)), "x"), REFUSE, said)
    r.trial("claims-labels-none", r.command("classify", "--model", model_with(r, "q", "cls", config__json=json.dumps(nameless)), "x"), ACCEPT)
    answer = ["--question", "x", "--context", "train.csv", "--stride", "8"]
    folder = model_with(r, "q", "qa", config__json=json.dumps(good["qa"] | {"num_labels": 3}))
    r.trial("claims-labels-answer", r.command("answer", "--model", folder, *answer), REFUSE, ["num_labels"])
    folder = model_with(r, "q", config__json=json.dumps(good["mlm"] | {"tie_word_embeddings": False}))
    r.trial("claims-untied", r.command("fill-mask", "--model", folder, "[MASK]"), REFUSE, ["decoder.weight"], never=["finetune it first"])
    r.trial("claims-untied-embed", r.command("embed", "--model", folder, "x"), ACCEPT)
    tensors = read_tensors(r.place / "mlm/model.safetensors")
    dtype, shape, data = tensors["model.embeddings.tok_embeddings.weight"]
    for name, values, code in (("same", data, ACCEPT), ("other", floats(*[0.01 * (i % 7) for i in range(len(data) // 4)]), REFUSE)):
        folder = model_with(r, "q", model__safetensors=lambda path: write_tensors(path, tensors | {"decoder.weight": (dtype, shape, values)}))
        r.trial(f"claims-tied-{name}", r.command("fill-mask", "--model", folder, "[MASK]"), code, ["tie_word_embeddings"])
    for lost, base, program, text in (("head.norm.weight", "mlm", "fill-mask", "[MASK]"), ("classifier.weight", "cls", "classify", "x"), ("classifier.bias", "cls", "classify", "x")):
        part = {name: tensor for name, tensor in read_tensors(r.place / base / "model.safetensors").items() if name != lost}
        folder = model_with(r, "q", base, model__safetensors=lambda path: write_tensors(path, part))
        r.trial(f"claims-lost-{lost}", r.command(program, "--model", folder, text), REFUSE, [lost], never=["finetune it first"])
    settings = json.loads((r.place / "mlm/tokenizer_config.json").read_text())
    token = lambda content: {"content": content, "special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    for name, change in {
        "length-text": {"model_max_length": "512"}, "length-negative": {"model_max_length": -1}, "length-0": {"model_max_length": 0}, "length-fraction": {"model_max_length": 7.9},
        "truncation": {"truncation_side": "left"}, "split": {"split_special_tokens": True}, "space": {"add_prefix_space": True}, "role-number": {"cls_token": 5},
        "role-unknown": {"cls_token": "[NOPE]"}, "mask-is-sep": {"mask_token": "[SEP]"}, "added": {"added_tokens_decoder": {"5": token("<new>")}},
        "added-id": {"added_tokens_decoder": {"5": token("[MASK]")}}, "special": {"additional_special_tokens": ["<new>"]},
    }.items():
        folder = model_with(r, "q", tokenizer_config__json=json.dumps(settings | change))
        r.trial(f"claims-tokenizer-{name}", r.command("embed", "--model", folder, "x"), REFUSE, ["tokenizer"])
    folder = model_with(r, "q", tokenizer_config__json=json.dumps(settings | {"model_max_length": 1e30, "padding_side": "left", "add_prefix_space": False}))
    mask = next(id for id, value in settings["added_tokens_decoder"].items() if value["content"] == "[MASK]")
    flags = settings["added_tokens_decoder"] | {mask: settings["added_tokens_decoder"][mask] | {"special": False}}
    r.trial("claims-tokenizer-flag", r.command("embed", "--model", model_with(r, "q2", tokenizer_config__json=json.dumps(settings | {"added_tokens_decoder": flags})), "x"), REFUSE, [f"added_tokens_decoder.{mask}.special"])
    for name, pooling in {"width": {"word_embedding_dimension": 768}, "modes": {"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, "prompt": {"include_prompt": False}}.items():
        pooled = model_with(r, "q2")
        (pooled / "1_Pooling").mkdir()
        (pooled / "1_Pooling/config.json").write_text(json.dumps(pooling))
        r.trial(f"claims-pooling-{name}", r.command("embed", "--model", pooled, "x", "--prompt", "q: "), REFUSE, ["1_Pooling"])
    r.trial("claims-prompt-fills", r.command("embed", "--model", "mlm", "x", "--max-length", "5", "--prompt", "a b c d e f g h"), REFUSE, ["shorten the prompt"])
    r.trial("claims-resume-nothing", r.command("finetune", "--model", "mlm", "--train", "train.csv", "--dev", "dev.csv", "--lines", "--resume", "--out", "q-typo"), REFUSE, ["no run"])
    r.trial("claims-length", r.command("finetune", "--model", "mlm", "--train", "train.csv", "--dev", "dev.csv", "--lines", "--max-length", "40000"), REFUSE, ["--max-length"])
    r.trial("claims-ending", r.command("classify", "--model", "cls", "x", "--out", "z.csv"), REFUSE, ["z.csv"])
    r.trial("claims-tokenizer-good", r.command("embed", "--model", folder, "x"), ACCEPT)
    r.trial("claims-int8", r.command("modernbert-train", "export", "mlm", "mlm8", "--int8"), ACCEPT)
    r.trial("claims-int8-again", r.command("modernbert-train", "export", "mlm8", "mlm88", "--int8"), REFUSE, ["in int8 already"])
    coded = read_tensors(r.place / "mlm8/model.safetensors") if (r.place / "mlm8").exists() else {}
    matrix = "model.layers.1.mlp.Wi.weight"
    scale = matrix + "_scale"
    if coded:
        rows = coded[matrix][1][0]
        filled = lambda value, shape=None: ("F32", shape or [rows, 1], floats(*[value] * (shape[0] if shape else rows)))
        for name, change, code in (
            ("lost", {scale: None}, REFUSE), ("nan", {scale: filled(float("nan"))}, REFUSE), ("huge", {scale: filled(1e30)}, REFUSE), ("short", {scale: filled(0.01, [rows - 1, 1])}, REFUSE),
            ("codes", {scale: ("I8", [rows, 1], bytes(rows))}, REFUSE), ("zero-point", {matrix + "_zero_point": ("I8", [rows, 1], bytes(rows))}, REFUSE), ("stale", {matrix: tensors[matrix]}, REFUSE),
            ("cut-rows", {matrix: ("I8", [rows - 1, 32], coded[matrix][2][:-32])}, REFUSE), ("one-in-f32", {matrix: tensors[matrix], scale: None}, ACCEPT), ("lowest-code", {matrix: ("I8", coded[matrix][1], b"\x80" * len(coded[matrix][2]))}, ACCEPT),
        ):
            changed = {key: value for key, value in (coded | change).items() if value}
            folder = model_with(r, "q", "mlm8", model__safetensors=lambda path: write_tensors(path, changed))
            r.trial(f"claims-int8-{name}", r.command("embed", "--model", folder, "x", "--dtype", "int8"), code, [matrix])
        whole = (r.place / "mlm8/model.safetensors").read_bytes()
        r.trial("claims-int8-cut", r.command("embed", "--model", model_with(r, "q", "mlm8", model__safetensors=whole[:len(whole) // 2]), "x"), REFUSE, ["model.safetensors"])
    group = QUANTIZED["config_groups"]["group_0"]
    for name, change in {
        "cache": {"kv_cache_scheme": {"num_bits": 8}}, "transform": {"transform_config": {"config_groups": {"a": {"type": "hadamard"}}}}, "sparse": {"sparsity_config": {"format": "sparse-bitmask"}},
        "static": {"config_groups": {"a": group | {"input_activations": {"num_bits": 8, "dynamic": False}}}}, "outputs": {"config_groups": {"a": group | {"output_activations": {"num_bits": 8}}}},
    }.items():
        folder = model_with(r, "q", config__json=json.dumps(good["mlm"] | {"quantization_config": QUANTIZED | change}))
        r.trial(f"claims-quantized-{name}", r.command("embed", "--model", folder, "x"), REFUSE, ["quantization_config"])
    stages = lambda encoder: json.dumps([{"path": encoder, "type": "sentence_transformers.models.Transformer"}, {"path": "pool", "type": "sentence_transformers.models.Pooling"}])
    for name, encoder, code in (("stages", "", ACCEPT), ("stage-elsewhere", "0_Transformer", REFUSE)):
        folder = model_with(r, "q", modules__json=stages(encoder))
        (folder / "pool").mkdir()
        (folder / "pool/config.json").write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
        r.trial(f"claims-{name}", r.command("embed", "--model", folder, "x"), code, ["modules.json"])
        if code == ACCEPT:
            r.trial("claims-stages-int8", r.command("modernbert-train", "export", folder, "stages8", "--int8"), ACCEPT)
            r.trial("claims-stages-int8-embed", r.command("embed", "--model", "stages8", "x"), ACCEPT)
    names = sorted(tensors)
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    for name, parts, index, code in (
        ("good", (names[:9], names[9:]), {}, ACCEPT), ("both", (names, names[9:]), {}, REFUSE), ("swapped", (names[:9], names[9:]), {names[0]: second}, REFUSE), ("empty", (names[:9], names[9:]), {names[0]: ""}, REFUSE),
        ("nul", (names[:9], names[9:]), {names[0]: "a\0b"}, REFUSE), ("control", (names[:9], names[9:]), {names[0]: RED}, REFUSE), ("itself", (names[:9], names[9:]), {names[0]: "model.safetensors.index.json"}, REFUSE),
    ):
        folder = model_with(r, "q", model__safetensors=None)
        for file, part in zip((first, second), parts):
            write_tensors(folder / file, {key: tensors[key] for key in part})
        places = {key: first for key in parts[0]} | {key: second for key in parts[1]} | index
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
        r.trial(f"claims-shards-{name}", r.command("embed", "--model", folder, "x"), code, [], never=["\x1b"])
    for key in ("attention_dropout", "mlp_dropout"):
        folder = model_with(r, "q", config__json=json.dumps(good["mlm"] | {key: 0.99999999999}))
        r.trial(f"claims-share-{key}", r.command("embed", "--model", folder, "x"), REFUSE, [key])
    folder = model_with(r, "q", config__json=json.dumps(good["mlm"] | {"flexbert": {"num_initial_layers": 99, "initial_mlp_layer": "glu"}}))
    r.trial("claims-first-layers", r.command("embed", "--model", folder, "x"), REFUSE, ["num_initial_layers"])


def spelled(r):
    """Names with control characters, labels in other spellings, files to score on without a label."""
    embed = r.command("embed", "--model", "mlm", "x")
    for name in ("MODERNBERT_CPU_UNIT", "MODERNBERT_DEVICE", "RAYON_NUM_THREADS"):
        r.trial(f"spelled-variable-{name}", embed, REFUSE, [name], never=["\x1b"], env={name: RED})
    for name, config in {"type": {"model_type": RED}, "activation": {"hidden_activation": RED}, "class": {"architectures": [RED], "model_type": "albert"}, "choice": {"flexbert": {RED: 1}}}.items():
        good = json.loads((r.place / "mlm/config.json").read_text())
        folder = model_with(r, "q", config__json=json.dumps(good | config))
        r.trial(f"spelled-config-{name}", r.command("embed", "--model", folder, "x"), REFUSE, ["config.json"], never=["\x1b"])
    r.trial("spelled-model", r.command("embed", "--model", f"./{RED}", "x"), REFUSE, never=["\x1b"])
    run = r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", "q-run")
    for name, value in {"key": f"run.se{RED}d=3", "value": f"data.tokenizer={RED}", "no-key": "=3"}.items():
        r.trial(f"spelled-set-{name}", [*run, "--set", value], REFUSE, never=["\x1b"])
        shutil.rmtree(r.place / "q-run", ignore_errors=True)
    (r.place / "q.conll").write_text("the O\ncat B-X\n\n" * 4)
    r.trial("spelled-tag", r.command("ner", "mlm", "q.conll", "q.conll", "a\x1b[31m b", "--epochs", "1"), ACCEPT)
    if not r.only and "\x1b" in r.shown:
        r.failed.append("spelled-tag")
        print("FAILED spelled-tag: a control character on standard output")
    finetune = lambda file, dev, *more: r.command("finetune", "--model", "mlm", "--train", file, "--dev", dev, "--epochs", "1", "--lines", *more)
    for name, pair in {"exponent": ("1000", "1e3"), "unit": ("1", "1E0"), "form": ("caf\u00e9", "cafe\u0301"), "width": ("good", "\uff47ood"), "sigma": ("\u03c3", "\u03c2")}.items():
        (r.place / "q.csv").write_text(f"text,label\na,{pair[0]}\nb,{pair[1]}\nc,other\n")
        r.trial(f"spelled-label-{name}", finetune("q.csv", "q.csv"), REFUSE, ["q.csv:3"])
    (r.place / "q.csv").write_text("text,label\n" + "".join(f"a {i},l{i}\n" for i in range(65_537)))
    r.trial("spelled-labels-many", finetune("q.csv", "dev.csv"), REFUSE, ["65537 different labels"])
    (r.place / "q.csv").write_text("text,label\na,1e-50\nb,2\n")
    r.trial("spelled-label-vanishes", finetune("q.csv", "q.csv", "--regression"), REFUSE, ["q.csv:2"])
    (r.place / "q-several.jsonl").write_text(lines({"text": "a", "label": ["x"]}, {"text": "b", "label": []}))
    (r.place / "q-none.jsonl").write_text(lines({"text": "a", "label": []}))
    r.trial("spelled-nothing-labels", finetune("q-several.jsonl", "q-none.jsonl", "--task", "multi-label"), REFUSE, ["q-none.jsonl", "undefined"])
    (r.place / "q-none.conll").write_text("the O\ncat O\n\n")
    r.trial("spelled-nothing-tags", finetune("q.conll", "q-none.conll", "--task", "tag"), REFUSE, ["q-none.conll", "undefined"])
    r.trial("spelled-nothing-ner", r.command("ner", "mlm", "q.conll", "q-none.conll", "--epochs", "1"), REFUSE, ["q-none.conll"])
    (r.place / "q-blank.txt").write_text(" \n")
    r.trial("spelled-blank-context", r.command("answer", "--model", "qa", "--question", "x", "--context", "q-blank.txt"), REFUSE, ["q-blank.txt"])
    r.trial("spelled-blank-question", r.command("answer", "--model", "qa", "--question", " ", "--context", "train.csv"), REFUSE, ["--question"])
    (r.place / "q.jsonl").write_text(lines({"question": "who", "context": "the cat", "answers": {"text": [""], "answer_start": [4]}}))
    r.trial("spelled-blank-answer", finetune("q.jsonl", "q.jsonl", "--task", "answer"), REFUSE, ["q.jsonl:1", "blank"])


def counted(r):
    """Options and rows that would count twice, or not at all."""
    program, p = "modernbert-retrieval", r.place
    for share in ("0.99999999999", "1"):
        r.trial(f"counted-dropout-{share}", r.command("finetune", "--model", "mlm", "--train", "train.csv", "--dev", "dev.csv", "--attention-output-dropout", share), REFUSE, ["--attention-output-dropout"])
    for key in ("dropout.mlp", "optimizer.beta2"):
        r.trial(f"counted-share-{key}", r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", "q-run", "--set", f"{key}=0.99999999999"), REFUSE, [key])
    for name, command in {
        "embed": r.command("embed", "--model", "mlm", "x", "--out", "-"), "predictions": r.command("finetune", "--model", "mlm", "--train", "train.csv", "--dev", "dev.csv", "--predictions", "-"),
        "run": r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", "-"), "export": r.command("modernbert-train", "export", "run", "-"), "tokenize": r.command("modernbert-train", "tokenize", "corpus.jsonl", "--tokenizer", "mlm", "--out", "-"),
    }.items():
        r.trial(f"counted-dash-{name}", command, REFUSE)
        if (p / "-").exists():
            r.failed.append(f"counted-dash-{name}-made")
            print("FAILED: a file called - was made by", name)
    r.trial("counted-out-is-missing-corpus", r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", "q-absent", "--corpus", "q-absent"), REFUSE, ["q-absent"], never=["history.jsonl"])
    closed = lambda *command: ["sh", "-c", 'exec "$0" "$@" <&-', *r.command(*command)]
    r.trial("counted-stdin-closed", closed("embed", "--model", "mlm", "--input", "-"), REFUSE, ["standard input"], stdin=None)
    r.trial("counted-stdin-context", closed("answer", "--model", "qa", "--question", "x", "--context", "-"), REFUSE, ["standard input"], stdin=None)
    r.trial("counted-stdin-write-only", ["sh", "-c", 'exec "$0" "$@" 0>q-written', *r.command("embed", "--model", "mlm", "--input", "-")], REFUSE, ["standard input"], stdin=None)
    (p / "q-pairs.jsonl").write_text(lines(*({"query": f"cat {i}", "positive": f"mat {i}"} for i in range(8))))
    train = r.command(program, "train", "--model", "mlm", "--batch", "4", "--lines", "--out", "q-late")
    for name, more in {
        "hardness": ["--hardness", "all"], "strength": ["--hardness", "all", "--hardness-strength", "1e300"], "scale": ["--scale", "1e300"], "split": ["--split", "dev"],
        "eval": ["--eval", "beir-places", "--eval", "beir-places/"], "minutes": ["--save-every-minutes", "1e300"],
    }.items():
        r.trial(f"counted-train-{name}", [*train, "--train", "q-pairs.jsonl", *more], REFUSE, [more[-2] if name != "hardness" else "--hardness-strength"])
        shutil.rmtree(p / "q-late", ignore_errors=True)
    for name, row in {
        "own-negative": {"query": "a", "positive": "b", "negative": "b"}, "two-queries": {"query": "a", "anchor": "c", "positive": "b"}, "two-positives": {"query": "a", "positive": "b", "answer": "c"},
        "gap": {"query": "a", "positive": "b", "negative_1": None, "negative_2": "c"}, "numbers": {"query": "a", "positive": "b", "negative_1": "c", "negative_3": "d"}, "two-lists": {"query": "a", "positive": "b", "negative": "c", "negatives": ["d"]},
    }.items():
        (p / "q-rows.jsonl").write_text(lines(row))
        r.trial(f"counted-rows-{name}", [*train, "--train", "q-rows.jsonl"], REFUSE)
        shutil.rmtree(p / "q-late", ignore_errors=True)
    mine = r.command(program, "mine", "--train", "q-pairs.jsonl", "--out", "q-mined.jsonl")
    r.trial("counted-mine-seed", [*mine, "--seed", "3"], REFUSE, ["--seed"])
    r.trial("counted-mine-split", [*mine, "--split", "dev"], REFUSE, ["--split"])
    (p / "q-runs").mkdir(exist_ok=True)
    r.trial("counted-run-folder", r.command(program, "evaluate", "--data", "beir-places", "--run", "q-runs"), REFUSE, ["q-runs"])
    if (p / "places-ix").exists():
        r.trial("counted-search-empty", r.command(program, "search", "places-ix", "", "--model", "mlm"), REFUSE, ["TEXT"])
        r.trial("counted-search-file", r.command(program, "search", "train.csv", "--queries", "ends.jsonl"), REFUSE, ["no index"])
    r.trial("counted-gpus", r.command("modernbert-train", "shapes", "base", "--gpus", "H100,H100"), REFUSE, ["--gpus"])
    r.trial("counted-plot", r.command("modernbert-train", "plot", "run", "./run", "--out", "q.png"), REFUSE, ["twice"])
    (p / "q-mixture.toml").write_text('[[source]]\nname = "a"\npaths = ["corpus.jsonl"]\nproportion = 1.0\nlicence = "x"\nfoo = 1\n')
    r.trial("counted-mixture-key", r.command("modernbert-train", "tokenize", "--mixture", "q-mixture.toml", "--tokenizer", "mlm", "--out", "q-shards"), REFUSE, ["q-mixture.toml:6", "foo"])
    for name, env in {"host": {"LOCAL_RANK": "7", "LOCAL_WORLD_SIZE": "1"}, "bytes": {"LOCAL_RANK": os.fsdecode(b"\xff")}}.items():
        r.trial(f"counted-ranks-{name}", r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", "q-run"), REFUSE, ["LOCAL_RANK"], env={"RANK": "0", "WORLD_SIZE": "1"} | env, limit=20)
        shutil.rmtree(p / "q-run", ignore_errors=True)
    hub = r.command("embed", "--model", "owner/name", "x")
    for name, env in {"HF_TOKEN": {"HF_TOKEN": "a\nb"}, "HF_ENDPOINT": {"HF_ENDPOINT": "http://user:secret@127.0.0.1:9"}}.items():
        r.trial(f"counted-hub-{name}", hub, REFUSE, [name], never=["secret"], env={"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"} | env, limit=20)
    for name, model, said in (("address", "https://huggingface.co/owner/name", "owner/name"), ("file", "mlm/config.json", "name its folder"), ("revision", "owner/name@v2", "--revision v2")):
        r.trial(f"counted-model-{name}", r.command("embed", "--model", model, "x"), REFUSE, [said])
    for name in ("embed", "finetune", "ner"):
        r.trial(f"counted-version-{name}", r.command(name, "--version"), ACCEPT)


def others(r):
    """Files and folders that this user may not read or write (as root, the programs run as another user)."""
    if os.getuid() or not shutil.which("setpriv"):
        for name in ("read", "write", "restart"):
            r.skip(f"others-{name}", "needs root and setpriv")
        return
    # The folders above must be open to the other user.
    place = pathlib.Path("/tmp") / f"others-{os.getpid()}"
    try:
        for name in ("mlm", "run"):
            shutil.copytree(r.place / name, place / name, symlinks=True)
        shutil.copytree(r.bin, place / "bin", ignore=lambda folder, names: [name for name in names if name not in ("embed", "modernbert-train", "finetune")])
        for name in ("tiny.toml", "corpus.jsonl", "train.csv"):
            shutil.copy(r.place / name, place)
        for path in [place, *place.rglob("*")]:
            os.chown(path, 65534, 65534, follow_symlinks=False)
        other = lambda program, *more: ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", place / "bin" / program, *more]
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            (place / "mlm" / name).chmod(0)
            r.trial(f"others-read-{name}", other("embed", "--model", "mlm", "x"), REFUSE, [name], cwd=place)
            (place / "mlm" / name).chmod(0o644)
        place.chmod(0o555)
        for name, command in {"embed": ("embed", "--model", "mlm", "x", "--out", "v.jsonl"), "run": ("modernbert-train", "run", "tiny.toml", "--lines", "--out", "new"), "export": ("modernbert-train", "export", "run", "new")}.items():
            r.trial(f"others-write-{name}", other(*command), REFUSE, ["denied"], cwd=place)
        place.chmod(0o755)
        restart = other("modernbert-train", "run", "tiny.toml", "--lines", "--restart", "--out", "run")
        (place / "run/checkpoints").chmod(0o555)
        r.trial("others-restart", restart, REFUSE, ["checkpoints"], cwd=place, keep=[place / "run/model.safetensors", place / "run/metrics.jsonl", place / "run/checkpoints"])
        (place / "run/checkpoints").chmod(0o755)
    finally:
        shutil.rmtree(place, ignore_errors=True)
