"""Trials of scripts/hostile: output paths with other contents, files that never end, settings at the ends of their types."""
import json
import os
import pathlib
import shutil
import zlib

from hostile_lib import ACCEPT, EITHER, REFUSE, model_with, sentence


def put(path, content):
    """Writes a file and its folders; a function of the path makes something else there."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file():
        path.unlink()
    if callable(content):
        content(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def zero(path):
    path.symlink_to("/dev/zero")


def beir(r, name="beir-places"):
    place = r.place / name
    put(place / "corpus.jsonl", "".join(json.dumps({"_id": f"d{i}", "title": "", "text": sentence(i)}) + "\n" for i in range(20)))
    put(place / "queries.jsonl", "".join(json.dumps({"_id": f"q{i}", "text": sentence(i)}) + "\n" for i in range(4)))
    put(place / "qrels/test.tsv", "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\td{i}\t1\n" for i in range(4)))
    return place


def places(r):
    """What is in a place of results and is not the program's own stays as it is."""
    program, p = "modernbert-retrieval", r.place
    beir(r)
    evaluate = r.command(program, "evaluate", "--data", "beir-places")
    r.trial("places-evaluate", [*evaluate, "--out", "ev"], ACCEPT)
    r.trial("places-evaluate-again", [*evaluate, "--out", "ev"], ACCEPT)
    r.trial("places-evaluate-reads-out", [*evaluate, "--run", "ev/bm25", "--out", "ev"], REFUSE, ["--out"], keep=[p / "ev"])
    r.trial("places-evaluate-in-data", [*evaluate, "--out", "beir-places/out"], REFUSE, ["inside the input"], keep=[p / "beir-places"])
    for name, change in {
        "edited-run": lambda f: put(next((f / "bm25").iterdir()), "q0 Q0 d0 1 1.0 mine\n"), "edited-page": lambda f: put(f / "evaluation.md", "mine"), "note": lambda f: put(f / "note.txt", "mine"),
        "report-of-others": lambda f: put(f / "evaluation.json", '{"mine": 1}'), "link": lambda f: ((f / "scores.png").unlink(), (f / "scores.png").symlink_to(p / "train.csv")),
    }.items():
        shutil.rmtree(p / "ev2", ignore_errors=True)
        shutil.copytree(p / "ev", p / "ev2")
        change(p / "ev2")
        r.trial(f"places-evaluate-{name}", [*evaluate, "--out", "ev2"], REFUSE, ["not empty"], keep=[p / "ev2", p / "train.csv"])
    put(p / "beir-space/corpus.jsonl", (p / "beir-places/corpus.jsonl").read_text() + json.dumps({"_id": "a b", "text": sentence(1)}) + "\n")
    for file in ("queries.jsonl", "qrels/test.tsv"):
        put(p / "beir-space" / file, (p / "beir-places" / file).read_bytes())
    r.trial("places-evaluate-fails-late", r.command(program, "evaluate", "--data", "beir-space", "--out", "late"), REFUSE, ["a b"])
    if (p / "late").exists():
        r.failed.append("places-evaluate-late-left")
        print("FAILED: evaluate left a folder after an error")
    r.trial("places-embed", r.command("embed", "--model", "mlm", "--input", "beir-places/corpus.jsonl", "--out", "places.safetensors"), ACCEPT)
    build = r.command(program, "index", "build", "--vectors", "places.safetensors", "--texts", "beir-places/corpus.jsonl")
    r.trial("places-index-in-model", [*build, "--model", "mlm", "mlm/index"], REFUSE, ["inside the input"], keep=[p / "mlm"])
    r.trial("places-index", [*build, "places-ix"], ACCEPT)
    put(p / "places-ix/segment-00000099.vec", "mine")
    r.trial("places-index-keeps-others", r.command(program, "index", "delete", "places-ix", "d3"), ACCEPT, keep=[p / "places-ix/segment-00000099.vec"])
    put(p / "pairs.jsonl", "".join(json.dumps({"query": f"{sentence(i)} q{i}", "positive": f"{sentence(i + 3)} p{i}"}) + "\n" for i in range(16)))
    for name, out in {"slash": "a.jsonl/", "dot": "a.jsonl/.", "parent": ".."}.items():
        r.trial(f"places-file-{name}", r.command(program, "mine", "--train", "pairs.jsonl", "--out", out), REFUSE)
    head = "finetune", "--model", "mlm", "--train", "train.csv", "--dev", "dev.csv", "--epochs", "1", "--lines"
    put(p / "theirs/model.safetensors", "mine")
    train = r.command(program, "train", "--model", "mlm", "--train", "pairs.jsonl", "--batch", "4", "--lines")
    for name, command in {"finetune": r.command(*head), "retrieval": train}.items():
        r.trial(f"places-{name}-resume-theirs", [*command, "--resume", "--out", "theirs"], REFUSE, ["not empty", "--resume"], keep=[p / "theirs"])
    (p / "hollow").mkdir()
    r.trial("places-predictions-inside", r.command(*head, "--out", "hollow", "--predictions", p / "hollow/model.safetensors"), REFUSE, ["--predictions"])
    jobs = r.command("modernbert-glue", "run", "--task", "rte", "--data", "glue", "--model", "mlm", "--mnli", "off", "--epochs", "1", "--lines")
    put(p / "project/runs/old/a.txt", "mine")
    put(p / "locked/lock", "mine")
    for out in ("project", "locked"):
        r.trial(f"places-glue-{out}", [*jobs, "--out", out], REFUSE, ["not empty"], keep=[p / out])
    predict = r.command("modernbert-glue", "predict", "--run", "g", "--data", "glue", "--task", "rte")
    if (p / "g").exists():
        for name, make in {"pipe": os.mkfifo, "device": zero}.items():
            put(p / f"predicted-{name}/x", make)
            r.trial(f"places-predict-{name}", [*predict, "--out", f"predicted-{name}"], REFUSE, ["not empty"], limit=20)
    run = r.command("modernbert-train", "run", "tiny.toml", "--lines", "--nproc", "2")
    put(p / "rk-ranks/rank-1.log", lambda path: path.symlink_to(p / "train.csv"))
    r.trial("places-ranks-link", [*run, "--out", "rk"], REFUSE, ["rank-1.log"], keep=[p / "train.csv"])
    r.trial("places-ranks-root", [*run, "--out", "/"], REFUSE, ["--out"])
    put(p / "piped/recipe.toml", os.mkfifo)
    r.trial("places-demo-pipe", r.command("modernbert-train", "demo", "--corpus", "corpus.jsonl", "--lines", "--out", "piped"), REFUSE, ["piped"], limit=20)
    for name, file in {"log": "metrics.jsonl", "history": "history.jsonl", "weights": "checkpoints/{}/model.safetensors"}.items():
        shutil.rmtree(p / "changed", ignore_errors=True)
        shutil.copytree(p / "run", p / "changed", symlinks=True)
        last = sorted((p / "changed/checkpoints").iterdir())[-1].name
        put(p / "changed" / file.format(last), "mine\n")
        r.trial(f"places-restart-changed-{name}", r.command("modernbert-train", "run", "tiny.toml", "--lines", "--restart", "--out", "changed"), REFUSE, ["was changed"], keep=[p / "changed"])


def endless(r):
    """Pipes and devices in place of files that are read beside the main ones."""
    for name, make in {"pipe": os.mkfifo, "device": zero}.items():
        folder = r.place / "endless"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(r.place / "run", folder, symlinks=True)
        put(folder / "metrics.jsonl", make)
        for command, code in {"resume": REFUSE, "inspect": EITHER, "plot": REFUSE}.items():
            more = ["--lines"] if command == "resume" else ["--out", "endless.png"] if command == "plot" else []
            r.trial(f"endless-log-{name}-{command}", r.command("modernbert-train", command, folder, *more), code, ["metrics.jsonl"], limit=20)
        token = put(r.place / f"token-{name}", make)
        hub = r.command("embed", "--model", "owner/name", "x")
        r.trial(f"endless-token-{name}", hub, REFUSE, ["owner/name"], limit=20, env={"HF_TOKEN_PATH": str(token), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"})
        put(r.place / f"hf-{name}/hub/models--owner--name/refs/main", make)
        r.trial(f"endless-reference-{name}", hub, REFUSE, ["owner/name"], limit=20, env={"HF_HOME": str(r.place / f"hf-{name}")})


def sentences(r):
    """The files of sentence-transformers and of PyLate, each with one fault."""
    library = "sentence_transformers.models."
    modules = [{"idx": 0, "name": "0", "path": "", "type": library + "Transformer"}, {"idx": 1, "name": "1", "path": "1_Pooling", "type": library + "Pooling"}]
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}

    def trial(name, expected=REFUSE, says=(), stages=modules, pools=pooling, **files):
        folder = model_with(r, "s", modules__json=json.dumps(stages), **{file: json.dumps(content) for file, content in files.items()})
        if pools is not None:
            put(folder / "1_Pooling/config.json", json.dumps(pools))
        r.trial(f"sentences-{name}", r.command("embed", "--model", folder, "x"), expected, says)

    trial("good", ACCEPT)
    trial("no-pooling-file", says=["1_Pooling", "missing"], pools=None)
    trial("two-poolings", says=["more than one pooling"], stages=[*modules, modules[1]])
    trial("own-class", says=["custom_st"], stages=[modules[0] | {"type": "custom_st.Transformer"}, modules[1]])
    for value in (0, -1, "512", 1.5, [8]):
        trial(f"length-{value}", says=["max_seq_length"], sentence_bert_config__json={"max_seq_length": value})
    trial("lower-case", says=["do_lower_case"], sentence_bert_config__json={"max_seq_length": 32, "do_lower_case": True})
    trial("prompt-number", says=["query"], config_sentence_transformers__json={"prompts": {"query": 3}})
    trial("prompts-list", says=["prompts"], config_sentence_transformers__json={"prompts": ["q"]})
    trial("prompt-unknown", says=["default_prompt_name"], config_sentence_transformers__json={"prompts": {"query": "q: "}, "default_prompt_name": "document"})
    config = json.loads((r.place / "mlm/config.json").read_text())
    for name, change in {"scaling": {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "partial": {"partial_rotary_factor": 0.5}}.items():
        folder = model_with(r, "s", config__json=json.dumps(config | change))
        r.trial(f"sentences-rotary-{name}", r.command("embed", "--model", folder, "x"), REFUSE, ["config.json"])
    tokenizer = json.loads((r.place / "mlm/tokenizer.json").read_text())
    tokenizer["model"]["dropout"] = 0.1
    r.trial("sentences-random-tokens", r.command("embed", "--model", model_with(r, "s", tokenizer__json=json.dumps(tokenizer)), "x"), REFUSE, ["dropout"])
    for file in ("tokenizer_config__json", "special_tokens_map__json"):
        r.trial(f"sentences-{file}-list", r.command("embed", "--model", model_with(r, "s", **{file: "[1]"}), "x"), REFUSE, [file.replace("__", ".")])
    folder = model_with(r, "s", model__safetensors=None, pytorch_model__bin=b"PK")
    r.trial("sentences-pickled-weights", r.command("embed", "--model", folder, "x"), REFUSE, ["pytorch_model.bin", "convert"])
    program = "modernbert-retrieval"
    tokens = [program, "train", "--model", "mlm", "--train", "pairs.jsonl", "--batch", "4", "--lines", "--per-token", "--query-length", "8", "--document-length", "16", "--out", "late-interaction"]
    r.trial("sentences-tokens", r.command(*tokens), ACCEPT)
    if not (r.place / "late-interaction").exists():
        return
    settings = json.loads((r.place / "late-interaction/config_sentence_transformers.json").read_text())
    faults = {f"{key}-{value}": {key: value} for key, value in [("query_length", -3), ("query_length", "32"), ("document_length", 1.5), ("skiplist_words", 3), ("do_query_expansion", "yes"), ("query_prefix", 7)]}
    for name, change in faults.items():
        folder = model_with(r, "s", "late-interaction", config_sentence_transformers__json=json.dumps(settings | change))
        r.trial(f"sentences-tokens-{name}", r.command(program, "train", "--model", folder, "--train", "pairs.jsonl", "--batch", "4", "--lines", "--out", "late-2"), REFUSE, ["config_sentence_transformers.json"])
        shutil.rmtree(r.place / "late-2", ignore_errors=True)
    folder = model_with(r, "s", "late-interaction")
    (folder / "1_Dense/model.safetensors").unlink()
    r.trial("sentences-tokens-no-projection", r.command(program, "train", "--model", folder, "--train", "pairs.jsonl", "--batch", "4", "--lines", "--out", "late-2"), REFUSE, ["1_Dense"])


def ends(r):
    """Settings at the ends of their types, and ones that would have no effect."""
    program, most = "modernbert-retrieval", str(2**64 - 1)
    evaluate = r.command(program, "evaluate", "--data", "beir-places")
    r.trial("ends-top", [*evaluate, "--top", most], ACCEPT)
    if not r.only and ("0.0000" in r.shown.split("bm25")[1].split("|")[1] or "-0.0" in r.shown):
        r.failed.append("ends-top-scores")
        print("FAILED ends-top: scores of nothing:", r.shown[-200:])
    r.trial("ends-data-twice", [*evaluate, "--data", "beir-places"], REFUSE, ["beir-places"])
    put(r.place / "ends.run", "".join(f"q{i} Q0 d{j} {j} {5 - j} x\n" for i in range(4) for j in range(5)))
    fuse = r.command(program, "fuse", "ends.run", "ends.run", "--out", "ends-fused.run")
    for name, more in {"huge": ["--weights", "1e308,1e308", "--k", "0"], "zeros": ["--weights", "0,0"], "tiny": ["--weights", "1e-320,1"], "k": ["--k", "1e308"]}.items():
        r.trial(f"ends-fuse-{name}", [*fuse, *more], REFUSE, ["--k"] if name == "k" else ["--weights"])
    train = r.command(program, "train", "--model", "mlm", "--train", "pairs.jsonl", "--lines", "--out", "ends-out")
    for name, more in {"batch": ["--batch", "1"], "epochs": ["--batch", "4", "--epochs", "1e300"], "accumulate": ["--batch", "4", "--accumulate", str(2**63)], "patience": ["--batch", "4", "--patience", "2"],
                       "evaluate-every": ["--batch", "4", "--evaluate-every", "2"]}.items():
        r.trial(f"ends-train-{name}", [*train, *more], REFUSE, [f"--{name}"])
        shutil.rmtree(r.place / "ends-out", ignore_errors=True)
    put(r.place / "ends.jsonl", '{"id":"a","embedding":[1,2],"lang":"de"}\n{"id":"b","embedding":[2,1]}\n')
    build = r.command(program, "index", "build", "ends-ix", "--vectors", "ends.jsonl")
    r.trial("ends-metadata-unknown", [*build, "--metadata", "lnag"], REFUSE, ["lnag"])
    r.trial("ends-metadata", [*build, "--metadata", "lang"], ACCEPT)
    r.trial("ends-filter-unknown", r.command(program, "search", "ends-ix", "--queries", "ends.jsonl", "--filter", "lnag=de"), REFUSE, ["lnag"])
    manifest = r.place / "ends-ix/manifest"
    if manifest.exists():
        head, body = manifest.read_bytes().split(b"\n", 1)
        body = json.loads(body)
        body["segments"] *= 2
        body = json.dumps(body).encode()
        manifest.write_bytes(json.dumps(json.loads(head) | {"crc32": zlib.crc32(body)}).encode() + b"\n" + body)
        r.trial("ends-segment-twice", r.command(program, "index", "info", "ends-ix"), REFUSE, ["manifest"])
    put(r.place / "ends-twice.jsonl", '{"id":"a","embedding":[1,2]}\n' * 2)
    r.trial("ends-id-twice", r.command(program, "index", "build", "ends-iy", "--vectors", "ends-twice.jsonl"), REFUSE, ["second time"])
    put(r.place / "beir-twice/corpus.jsonl", '{"_id":"d0","text":"a","text":"b"}\n')
    for file in ("queries.jsonl", "qrels/test.tsv"):
        put(r.place / "beir-twice" / file, (r.place / "beir-places" / file).read_bytes())
    r.trial("ends-field-twice", r.command(program, "evaluate", "--data", "beir-twice"), REFUSE, ["corpus.jsonl:1", "twice"])
    for key in ("data.corpus", "data.eval_corpus", "data.tokenizer", "model.from"):
        r.trial(f"ends-empty-{key}", r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", "x", "--set", f'{key}=""'), REFUSE, [key])
    for key, value in {"mask.train": "1e-9", "optimizer.learning_rate": "1e-45"}.items():
        r.trial(f"ends-tiny-{key}", r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", "x", "--set", f"{key}={value}"), REFUSE, [key])
    r.trial("ends-eval-tokens", r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", "x", "--set", "run.eval_tokens=1"), REFUSE, ["run.eval_tokens"])
    shutil.rmtree(r.place / "x", ignore_errors=True)
    r.trial("ends-eval-is-train", r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", "x", "--set", 'data.eval_corpus="corpus.jsonl"'), REFUSE, ["data.eval_corpus"])
    shutil.rmtree(r.place / "x", ignore_errors=True)
    r.trial("ends-plot-svg", r.command("modernbert-train", "plot", "run", "--out", "curves.svg"), REFUSE, [".png"])
    put(r.place / "ends.yaml", "[" * 100_000)
    r.trial("ends-yaml-long", r.command("modernbert-train", "convert", "ends.yaml"), REFUSE, ["ends.yaml:1"], never=["[" * 200])
    put(r.place / "ends.yaml", "")
    r.trial("ends-yaml-empty", r.command("modernbert-train", "convert", "ends.yaml"), REFUSE, ["ends.yaml"])
    put(r.place / "mac.txt", b"one\rtwo\rthree")
    r.trial("ends-lines-of-old-macs", r.command("embed", "--model", "mlm", "--input", "mac.txt"), REFUSE, ["mac.txt:1", "carriage return"])
    r.trial("ends-threads", r.command("embed", "--model", "mlm", "x"), REFUSE, ["RAYON_NUM_THREADS"], env={"RAYON_NUM_THREADS": "100000"}, limit=20)
    r.trial("ends-regression-tag", r.command("finetune", "--model", "mlm", "--train", "train.csv", "--dev", "dev.csv", "--regression", "--task", "tag"), REFUSE, ["--regression"])
    data = r.place / "glue/RTE"
    if data.exists() and (r.place / "g").exists():
        head = "index\tsentence1\tsentence2\n"
        for name, rows in {"gap": "0\ta\tb\n2\ta\tb\n", "twice": "0\ta\tb\n0\ta\tb\n", "order": "1\ta\tb\n0\ta\tb\n"}.items():
            put(data / "test.tsv", head + rows)
            r.trial(f"ends-test-{name}", r.command("modernbert-glue", "predict", "--run", "g", "--data", "glue", "--task", "rte", "--out", "ends-p"), REFUSE, ["test.tsv"])
        (data / "test.tsv").unlink()
