"""Trials of scripts/hostile: values of another JSON type in each file that the programs read, ids and names in two spellings, texts and shapes listed
twice, arguments about ranks in one process, folders that are left behind."""
import json
import os
import pathlib
import shutil

from hostile_lib import ACCEPT, EITHER, REFUSE, model_with

# A value of each JSON type, and two that look like another one.
VALUES = {"text": "x", "digits": "7", "flag": True, "negative": -1, "fraction": 7.5, "list": [], "nested": [[[]]], "object": {}, "deep": {"x": [[]]}}
TOKEN = {"content": "[MASK]", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}


def is_kind(kind, value):
    """Whether a value has a type; `kind` is a word, or several with blanks between them."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    tests = {
        "text": isinstance(value, str), "flag": isinstance(value, bool), "count": whole and value >= 0, "number": isinstance(value, float) or whole,
        "texts": isinstance(value, list) and all(isinstance(one, str) for one in value), "object": isinstance(value, dict),
        "map": value == {}, "list": value == [],
    }
    return any(tests[one] for one in kind.split())


def edited(path, *keys):
    """The JSON of a file, and a function that returns it as text with another value at a place."""
    good = json.loads(path.read_text()) if path.exists() else {}

    def with_value(value):
        root = at = json.loads(json.dumps(good))
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = value
        return json.dumps(root)
    return with_value


def model_types(r):
    """Each known key of each file of a model folder, with values of every other type."""
    pooled = r.place / "t-pooled"
    shutil.rmtree(pooled, ignore_errors=True)
    shutil.copytree(r.place / "mlm", pooled)
    (pooled / "1_Pooling").mkdir()
    library = "sentence_transformers.models."
    files = {
        "modules.json": [{"idx": 0, "name": "0", "path": "", "type": library + "Transformer"}, {"idx": 1, "name": "1", "path": "1_Pooling", "type": library + "Pooling"}],
        "1_Pooling/config.json": {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}, "sentence_bert_config.json": {"max_seq_length": 32},
        "config_sentence_transformers.json": {"prompts": {"query": "q: "}},
    }
    for name, content in files.items():
        (pooled / name).write_text(json.dumps(content))
    embed = lambda folder: r.command("embed", "--model", folder, "x")
    r.trial("types-good", embed(pooled), ACCEPT)
    trials = {
        "config.json": {
            "architectures": "texts", "attention_bias": "flag", "attention_dropout": "number", "classifier_pooling": "text", "dtype": "text", "flexbert": "object", "global_attn_every_n_layers": "count",
            "global_rope_theta": "number", "hidden_size": "count", "id2label": "map list", "label2id": "map", "layer_types": "texts", "local_rope_theta": "number", "model_type": "text",
            "num_labels": "count", "pad_token_id": "count", "problem_type": "text", "quantization_config": "object", "reference_compile": "flag", "rope_parameters": "object", "rope_scaling": "object",
            "sparse_prediction": "flag", "tie_word_embeddings": "flag", "torch_dtype": "text", "vocab_size": "count",
        },
        "tokenizer_config.json": {
            "add_prefix_space": "flag", "added_tokens_decoder": "map", "additional_special_tokens": "list", "clean_up_tokenization_spaces": "flag", "cls_token": "text", "do_lower_case": "flag",
            "extra_special_tokens": "map list", "model_input_names": "texts", "model_max_length": "number", "padding_side": "text", "split_special_tokens": "flag", "tokenizer_class": "text", "truncation_side": "text",
        },
        "special_tokens_map.json": {"additional_special_tokens": "list", "cls_token": "text", "extra_special_tokens": "map list", "mask_token": "text", "pad_token": "text", "sep_token": "text", "unk_token": "text"},
        "1_Pooling/config.json": {"include_prompt": "flag", "pooling_mode": "text texts", "pooling_mode_cls_token": "flag", "pooling_mode_lasttoken": "flag", "pooling_mode_mean_tokens": "flag", "word_embedding_dimension": "count"},
        "sentence_bert_config.json": {"do_lower_case": "flag", "max_seq_length": "count"},
        "config_sentence_transformers.json": {"default_prompt_name": "text", "prompts": "map", "similarity_fn_name": "text", "query_length": "count", "query_prefix": "text", "do_query_expansion": "flag", "skiplist_words": "texts"},
    }
    for file, keys in trials.items():
        for key, kind in keys.items():
            edit = edited(pooled / file, key)
            for name, value in VALUES.items():
                if is_kind(kind, value):
                    continue
                folder = model_with(r, "t", "t-pooled")
                (folder / file).write_text(edit(value))
                r.trial(f"types-{file}-{key}-{name}", embed(folder), REFUSE, [pathlib.Path(file).name, key], never=["u64", "struct", "; expected a list; "])
        for name in ("text", "flag", "negative", "list", "nested"):
            folder = model_with(r, "t", "t-pooled")
            (folder / file).write_text(json.dumps(VALUES[name]))
            r.trial(f"types-{file}-whole-{name}", embed(folder), REFUSE, [pathlib.Path(file).name], never=["u64", "struct"])
    for name, change in {"path": {"path": 1}, "type": {"type": []}, "idx": {"idx": "0"}, "outside": {"path": "../mlm"}, "no-object": None}.items():
        folder = model_with(r, "t", "t-pooled")
        modules = json.loads(json.dumps(files["modules.json"]))
        modules[1] = 5 if change is None else modules[1] | change
        (folder / "modules.json").write_text(json.dumps(modules))
        r.trial(f"types-modules-{name}", embed(folder), REFUSE, ["modules.json"])
    for name, text in {"object": "{}", "text": "\"x\"", "number": "3"}.items():
        folder = model_with(r, "t", "t-pooled")
        (folder / "modules.json").write_text(text)
        r.trial(f"types-modules-whole-{name}", embed(folder), REFUSE, ["modules.json", "expected a list"])


def tokens(r):
    """Special tokens in the forms of transformers, and older files."""
    path = r.place / "mlm/tokenizer_config.json"
    trial = lambda name, change, expected, says=(): r.trial(
        f"tokens-{name}", r.command("embed", "--model", model_with(r, "t", tokenizer_config__json=json.dumps(json.loads(path.read_text()) | change)), "x"), expected, says,
        never=["; copy or download it again; ", "again; copy"])
    trial("extra-object", {"extra_special_tokens": {"image_token": "[MASK]", "boi_token": TOKEN}}, ACCEPT)
    trial("extra-empty", {"extra_special_tokens": {}}, ACCEPT)
    trial("extra-list", {"extra_special_tokens": ["[MASK]"]}, ACCEPT)
    trial("extra-new", {"extra_special_tokens": {"image_token": "<image>"}}, REFUSE, ["extra_special_tokens.image_token", "tokenizer.json does not have"])
    trial("extra-new-object", {"extra_special_tokens": {"image_token": TOKEN | {"content": "<image>"}}}, REFUSE, ["extra_special_tokens.image_token"])
    trial("extra-list-new", {"extra_special_tokens": ["<image>"]}, REFUSE, ["extra_special_tokens"])
    trial("extra-list-number", {"extra_special_tokens": [3]}, REFUSE, ["extra_special_tokens.0"])
    trial("added-list", {"added_tokens_decoder": [TOKEN]}, REFUSE, ["added_tokens_decoder"])
    for number, value in enumerate(({"content": 3}, {}, None, 3, {"content": "[MASK]", "lstrip": "no"})):
        trial(f"added-{number}", {"added_tokens_decoder": {"3": value}}, REFUSE, ["added_tokens_decoder"])
    for spelling in ("+3", "03", " 3", "3.0", "x", "-3"):
        trial(f"added-id-{spelling}", {"added_tokens_decoder": {spelling: TOKEN}}, REFUSE, ["added_tokens_decoder"])
    settings = {key: value for key, value in json.loads(path.read_text()).items() if key != "added_tokens_decoder"}
    mask = next(int(id) for id, token in json.loads(path.read_text())["added_tokens_decoder"].items() if token["content"] == "[MASK]")
    for name, added, expected in (("same", {"[MASK]": mask}, ACCEPT), ("other-id", {"[MASK]": mask + 1}, REFUSE), ("new", {"<new>": 999}, REFUSE), ("list", ["<new>"], REFUSE), ("text", {"[MASK]": str(mask)}, REFUSE)):
        folder = model_with(r, "t", tokenizer_config__json=json.dumps(settings), added_tokens__json=json.dumps(added))
        r.trial(f"tokens-older-{name}", r.command("embed", "--model", folder, "x"), expected, ["added_tokens.json"])
    cls = json.loads((r.place / "cls/config.json").read_text())
    for number, change in enumerate((
        {"id2label": {"+0": "a", "1": "b"}}, {"id2label": {"00": "a", "1": "b"}}, {"id2label": {" 0": "a", "1": "b"}}, {"id2label": {"0": None, "1": "b"}}, {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": "0", "b": 1}},
        {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0.0, "b": 1}}, {"id2label": {"0": "a", "1": "b"}, "label2id": ["a", "b"]}, {"id2label": None, "label2id": {"a": "00", "b": 1}}, {"id2label": None, "label2id": {"a": -0.0, "b": 1}},
    )):
        folder = model_with(r, "t", "cls", config__json=json.dumps(cls | change))
        r.trial(f"tokens-label-{number}", r.command("classify", "--model", folder, "x"), REFUSE, ["config.json", "label"])


def run_types(r):
    """Files that the programs write and read again: a value of another type at each place."""
    run, p = "t-run", r.place

    def places(value, path=()):
        """Every place in a JSON value, without all but the first entry of a list and the first two keys of a map of files."""
        yield path
        if isinstance(value, dict):
            for key in list(value)[:12]:
                yield from places(value[key], (*path, key))
        if isinstance(value, list) and value:
            yield from places(value[0], (*path, 0))

    def others(value):
        good = "flag" if isinstance(value, bool) else "number" if isinstance(value, (int, float)) else type(value).__name__
        for name, other in VALUES.items():
            kind = "flag" if isinstance(other, bool) else "number" if isinstance(other, (int, float)) else type(other).__name__
            if kind != good and name in ("text", "flag", "list", "object", "negative"):
                yield name, other

    def each(source, file, command, says):
        good = json.loads((source / file).read_text())
        for place in places(good):
            value = good
            for key in place:
                value = value[key]
            if value is None:
                continue
            for name, other in others(value):
                shutil.rmtree(p / run, ignore_errors=True)
                shutil.copytree(source, p / run)
                root = json.loads(json.dumps(good))
                at = root
                for key in place[:-1]:
                    at = at[key]
                if place:
                    at[place[-1]] = other
                else:
                    root = other
                (p / run / file).write_text(json.dumps(root))
                r.trial(f"types-{file}-{'.'.join(map(str, place)) or 'whole'}-{name}", command, EITHER if file.endswith("run.json") else REFUSE, says, never=["struct ", "u64", "expected a map"])

    step = sorted((p / "run/checkpoints").iterdir())[-1].name
    each(p / "run", "run.json", r.command("modernbert-train", "resume", run, "--lines"), ["run.json"])
    each(p / "run", f"checkpoints/{step}/manifest.json", r.command("modernbert-train", "inspect", f"{run}/checkpoints/{step}"), ["manifest.json"])
    each(p / "run", f"checkpoints/{step}/manifest.json", r.command("modernbert-train", "export", f"{run}/checkpoints/{step}", "t-export"), ["manifest.json"])
    each(p / "shards", "shards.json", r.command("modernbert-train", "inspect", run), ["shards.json"])
    for name, content in {"list": "[]", "object": "{}", "text": "\"x\"", "twice": '{"metadata": {}, "weight_map": {}, "weight_map": {}}', "map-list": '{"weight_map": []}', "map-number": '{"weight_map": {"a": 1}}',
                          "size": '{"metadata": {"total_size": "9"}, "weight_map": {}}', "outside": '{"weight_map": {"a": "../x"}}'}.items():
        folder = model_with(r, "t", model__safetensors=None)
        (folder / "model.safetensors.index.json").write_text(content)
        r.trial(f"types-index-{name}", r.command("embed", "--model", folder, "x"), REFUSE, ["model.safetensors.index.json"], never=["struct", "u64"])
    (p / "t-glue").mkdir(exist_ok=True)
    for name, content in {"list": "[]", "text": "\"x\"", "task": '{"cola": []}', "seeds": '{"cola": {"metrics": "x"}}', "twice": '{"cola": {}, "cola": {}}'}.items():
        (p / "t-glue/results.json").write_text(content)
        r.trial(f"types-results-{name}", r.command("modernbert-glue", "report", "t-glue", "--out", "t-report"), REFUSE, never=["struct", "expected a map"], keep=[p / "t-glue/results.json"])
    log = (p / "run/metrics.jsonl").read_text()
    for name, line in {"list": "[]", "text": "\"x\"", "step": '{"split": "train", "step": "3", "tokens": 1}', "negative": '{"split": "train", "step": -3, "tokens": 1}', "broken": "{"}.items():
        (p / "t-log.jsonl").write_text(log + line + "\n")
        r.trial(f"types-log-{name}", r.command("modernbert-train", "plot", "t-log.jsonl", "--out", "t-log.png"), REFUSE, ["t-log.jsonl"], never=["u64", "struct"])
    (p / "t-log.jsonl").write_text(log + "{")
    r.trial("types-log-torn", r.command("modernbert-train", "plot", "t-log.jsonl", "--out", "t-log.png"), ACCEPT)
    (p / "t-mds").mkdir(exist_ok=True)
    (p / "t-mds/shard.00000.mds").write_bytes(bytes(64))
    (p / "t-mds/more.txt").write_text("the cat")
    for name, content in {"list": "[]", "shards": '{"version": 2, "shards": {}}', "entry": '{"version": 2, "shards": [3]}', "text": "\"x\"", "broken": "{", "version": '{"version": "2", "shards": [{"raw_data": {"basename": "shard.00000.mds", "bytes": 64}}]}'}.items():
        (p / "t-mds/index.json").write_text(content)
        r.trial(f"types-mds-{name}", r.command("modernbert-train", "tokenize", "t-mds", "--tokenizer", "mlm", "--out", "t-shards"), REFUSE, ["index.json"], never=["struct", "u32"])


def twice(r):
    """Texts, shapes and GPUs that are named twice, by any name; variables; arguments about ranks in one process."""
    p = r.place
    (p / "t-texts").mkdir(exist_ok=True)
    shutil.copy(p / "corpus.jsonl", p / "t-texts/a.jsonl")
    shutil.copy(p / "corpus.jsonl", p / "t-other.jsonl")
    for link, target in (("t-link.jsonl", "corpus.jsonl"), ("t-folder", "t-texts")):
        if not (p / link).is_symlink():
            (p / link).symlink_to(target)
    if not (p / "t-hard.jsonl").exists():
        os.link(p / "corpus.jsonl", p / "t-hard.jsonl")
    recipe = (p / "tiny.toml").read_text()
    for name, first, second in (
        ("same", "corpus.jsonl", "corpus.jsonl"), ("dot", "corpus.jsonl", "./corpus.jsonl"), ("up", "corpus.jsonl", "t-texts/../corpus.jsonl"), ("absolute", "corpus.jsonl", str(p / "corpus.jsonl")), ("link", "corpus.jsonl", "t-link.jsonl"),
        ("hard", "corpus.jsonl", "t-hard.jsonl"), ("folder-link", "t-texts", "t-folder"), ("inside", "t-texts", "t-texts/a.jsonl"), ("around", "t-folder/a.jsonl", "t-texts"),
    ):
        for key in ("corpus", "eval_corpus"):
            listed = f"{key} = [\n  {json.dumps(first)},\n  {json.dumps(second)},\n]"
            text = recipe.replace('corpus = "corpus.jsonl"', listed if key == "corpus" else 'corpus = "t-other.jsonl"\n' + listed)
            (p / "t-twice.toml").write_text(text)
            lines = [number for number, line in enumerate(text.splitlines(), 1) if line.startswith("  ")]
            r.trial(f"twice-{key}-{name}", r.command("modernbert-train", "run", "t-twice.toml", "--lines", "--out", "t-run2"), REFUSE, [f"t-twice.toml:{lines[0]}", f"t-twice.toml:{lines[1]}", f"data.{key}"])
            shutil.rmtree(p / "t-run2", ignore_errors=True)
        r.trial(f"twice-argument-{name}", r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", "t-run2", "--corpus", first, "--corpus", second), REFUSE, ["--corpus"])
    r.trial("twice-set", r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", "t-run2", "--set", 'data.corpus=["corpus.jsonl", "corpus.jsonl"]'), REFUSE, ["--set data.corpus"])
    r.trial("twice-anneal", r.command("modernbert-train", "anneal", "run", "--tokens", "1000", "--lines", "--out", "t-run2", "--corpus", "corpus.jsonl", "--corpus", "t-hard.jsonl"), REFUSE, ["--corpus"])
    (p / "t-twice.toml").write_text(recipe.replace('"corpus.jsonl"', '["corpus.jsonl", "t-texts"]'))
    r.trial("twice-copies", r.command("modernbert-train", "run", "t-twice.toml", "--lines", "--out", "t-run2"), ACCEPT)
    shutil.rmtree(p / "t-run2", ignore_errors=True)
    shapes = lambda *more: r.command("modernbert-train", "shapes", *more)
    for name, pair in {"name": ("base", "base"), "size": ("base", "768x1152x22"), "comma": ("64x128x4", "64,128,4"), "json": ("base", "base", "--json")}.items():
        r.trial(f"twice-shape-{name}", shapes(*pair), REFUSE, ["twice"])
    r.trial("twice-shape-two", shapes("base", "large"), ACCEPT)
    r.trial("twice-gpu", shapes("base", "--gpus", "H100,h100"), REFUSE, ["--gpus"])
    embed = r.command("embed", "--model", "mlm", "x")
    for number, value in enumerate(("sse", "amx\nerror: second", "AMX", " amx", "\x1b[31m", "auto")):
        r.trial(f"twice-unit-{number}", embed, REFUSE, ["MODERNBERT_CPU_UNIT"], never=["MODERNBERT_DEVICE", "\nerror: second"], env={"MODERNBERT_CPU_UNIT": value})
    r.trial("twice-unit-empty", embed, ACCEPT, env={"MODERNBERT_CPU_UNIT": ""})
    for number, value in enumerate(("gpu", "flex\nerror: second", "cuda:x", "\x1b[31m")):
        r.trial(f"twice-device-{number}", embed, REFUSE, ["MODERNBERT_DEVICE"], never=["MODERNBERT_CPU_UNIT", "\nerror: second"], env={"MODERNBERT_DEVICE": value})
    run = lambda *more: r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", "t-run2", *more)
    for name, more in {"order": ("--sum-order", "library"), "timeout": ("--rank-timeout", "30"), "way": ("--gradients", "host")}.items():
        r.trial(f"twice-single-{name}", run(*more), REFUSE, [more[0]])
    r.trial("twice-nproc-refused", run("--nproc", "2", "--set", "optimizer.beta1=2"), REFUSE, ["optimizer.beta1"], usage=True)
    left = [name for name in ("t-run2", "t-run2-ranks") if (p / name).exists()]
    if left and not r.only:
        r.failed.append("twice-nproc-left")
        print("FAILED: a refused run left", left)
    shutil.rmtree(p / "t-run2", ignore_errors=True)
    rank = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": "9"}
    r.trial("twice-rank-start", run("--rank-timeout", "2"), REFUSE, ["in 2 s", "MASTER_PORT"], env=rank, limit=20)
    r.trial("twice-rank-zero", run("--rank-timeout", "2"), REFUSE, ["did not connect in 2 s", "MASTER_PORT"], env=rank | {"RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "29871"}, limit=20)
    for name, env in {"number": {"RANK": "x"}, "range": {"RANK": "5"}, "port": {"MASTER_PORT": "0"}}.items():
        r.trial(f"twice-rank-{name}", run(), REFUSE, ["; "], env=rank | env, limit=20)
    shutil.rmtree(p / "t-run2", ignore_errors=True)


def left_behind(r):
    """Folders without permissions (as root, the programs run as another user), and full disks."""
    if os.getuid() or not shutil.which("setpriv"):
        r.skip("left-umask", "needs root and setpriv")
        return
    place = pathlib.Path("/tmp") / f"left-{os.getpid()}"
    try:
        for name in ("mlm", "run"):
            shutil.copytree(r.place / name, place / name, symlinks=True)
        shutil.copytree(r.bin, place / "bin", ignore=lambda folder, names: [name for name in names if name not in ("embed", "modernbert-train", "finetune", "modernbert-retrieval")])
        for name in ("tiny.toml", "corpus.jsonl", "train.csv"):
            shutil.copy(r.place / name, place)
        for path in [place, *place.rglob("*")]:
            os.chown(path, 65534, 65534, follow_symlinks=False)
        before = sorted(path.name for path in place.iterdir())
        other = lambda mask, program, *more: ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", f'umask {mask}; exec "$0" "$@"', place / "bin" / program, *more]
        for mask in ("0777", "0700", "0300"):
            for name, command in {
                "export": ("modernbert-train", "export", "run", "new"), "export-int8": ("modernbert-train", "export", "mlm", "new", "--int8"), "average": ("modernbert-train", "average", "--run", "run", "--with-last", "--out", "new"),
                "tokenize": ("modernbert-train", "tokenize", "corpus.jsonl", "--tokenizer", "mlm", "--out", "new"), "run": ("modernbert-train", "run", "tiny.toml", "--lines", "--out", "new"),
            }.items():
                r.trial(f"left-{name}-{mask}", other(mask, *command), REFUSE, cwd=place)
                left = [found for found in sorted(path.name for path in place.iterdir()) if found not in before]
                if left and not r.only:
                    r.failed.append(f"left-{name}-{mask}-folder")
                    print("FAILED:", name, mask, "left", left)
                for found in place.iterdir():
                    if found.name not in before:
                        shutil.rmtree(found, ignore_errors=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)
