"""Trials of scripts/hostile: corpora, recipes, runs, arguments, signals and disks."""
import gzip
import json
import os
import shutil
import signal
import struct
import subprocess

from hostile_lib import ACCEPT, EITHER, RECIPE, REFUSE


def corpora(r):
    tokenize = lambda *more: r.command("modernbert-train", "tokenize", *more, "--tokenizer", "mlm")
    bad = {"latin.txt": b"caf\xe9", "half.jsonl": b'{"text": "a"}\n{', "null.jsonl": b'{"text": null}\n', "open.csv": b'text\n"a\n', "twice.csv": b"text,text\na,b\n",
           "cut.jsonl.gz": gzip.compress(b'{"text":"a"}\n' * 99)[:-9], "fake.parquet": b"PAR1PAR1", "other.jsonl": b'{"body": "a"}\n', "bom16.txt": "a".encode("utf-16"),
           "bomb.jsonl.gz": gzip.compress(b'{"text":"' + b"a" * (300 << 20) + b'"}\n', 9), "short.txt": b"a", "blank.txt": b" \n"}
    for name, content in bad.items():
        path = r.place / "bad" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        says = [name] if name not in ("short.txt", "blank.txt") else ["no document"]
        r.trial(f"corpus-tokenize-{name}", tokenize(path, "--out", "t"), REFUSE, says)
        if (r.place / "t").exists():
            print("FAILED corpus: t is left behind", name)
            r.failed.append(f"corpus-{name}-left")
            shutil.rmtree(r.place / "t")
        r.trial(f"corpus-run-{name}", r.command("modernbert-train", "run", "tiny.toml", "--out", "r", "--lines", "--corpus", path), REFUSE,
                [name] if name not in ("short.txt", "blank.txt") else [])
        shutil.rmtree(r.place / "r", ignore_errors=True)
    good = r.place / "corpus.jsonl"
    for name, more, says in [
        ("fraction-2", ["--eval-fraction", "2"], ["--eval-fraction"]), ("fraction-nan", ["--eval-fraction", "NaN"], ["--eval-fraction"]),
        ("length-2", ["--max-length", "2"], ["--max-length"]), ("threads-0", ["--threads", "0"], ["--threads"]), ("threads-huge", ["--threads", "999999"], ["--threads"]),
        ("shard-0", ["--shard-tokens", "0"], ["--shard-tokens"]), ("field", ["--text-field", "body"], ["body"]),
    ]:
        r.trial(f"corpus-{name}", tokenize(good, "--out", "t", *more), REFUSE, says)
    r.trial("corpus-twice", tokenize(good, good, "--out", "t"), REFUSE, ["corpus.jsonl"])
    r.trial("corpus-missing", tokenize("nowhere", "--out", "t"), REFUSE, ["nowhere"])
    r.trial("corpus-out-is-input", tokenize(good, "--out", good), REFUSE, ["corpus.jsonl"], keep=[good])
    r.trial("corpus-out-has-files", tokenize(good, "--out", "mlm", "--overwrite"), REFUSE, ["mlm"], keep=[r.place / "mlm"])
    r.trial("corpus-out-exists", tokenize(good, "--out", "shards"), REFUSE, ["shards"], keep=[r.place / "shards"])
    loop = r.place / "loop"
    loop.mkdir()
    (loop / "again").symlink_to(loop)
    (loop / "a.jsonl").write_bytes(good.read_bytes())
    r.trial("corpus-link-loop", tokenize(loop, "--out", "t-loop"), ACCEPT)
    (loop / "gone.jsonl").symlink_to("nowhere.jsonl")
    r.trial("corpus-link-broken", tokenize(loop, "--out", "t"), REFUSE, ["gone.jsonl"])
    (loop / "gone.jsonl").unlink()
    os.mkfifo(loop / "pipe.jsonl")
    r.trial("corpus-pipe-in-folder", tokenize(loop, "--out", "t-pipe"), EITHER, limit=20)
    mds = r.place / "mds"
    mds.mkdir()
    shard = {"column_encodings": ["str"], "column_names": ["text"], "column_sizes": [None], "compression": None, "format": "mds", "hashes": [],
             "raw_data": {"basename": "s.mds", "bytes": 100, "hashes": {}}, "samples": 3, "size_limit": 1000, "version": 2, "zip_data": None}
    for name, change, content in [
        ("short", {}, b"\3\0\0\0"), ("count-huge", {"samples": 2**40}, struct.pack("<I", 2**31) + b"\0" * 96), ("outside", {"raw_data": {"basename": "../corpus.jsonl", "bytes": 100, "hashes": {}}}, b"\0" * 100),
        ("offsets", {}, struct.pack("<5I", 3, 2**31, 5, 4, 99) + b"\0" * 80), ("encoding", {"column_encodings": ["pickle"]}, b"\0" * 100), ("columns", {"column_names": []}, b"\0" * 100), ("zeros", {}, b"\0" * 100),
    ]:
        (mds / "index.json").write_text(json.dumps({"shards": [shard | change], "version": 2}))
        (mds / "s.mds").write_bytes(content)
        r.trial(f"mds-{name}", tokenize(mds, "--out", "t"), REFUSE, ["mds"])
    for name, content in {"index-brace": "{", "index-list": "[]", "index-deep": "[" * 200_000, "index-version": '{"shards": [], "version": 99}'}.items():
        (mds / "index.json").write_text(content)
        r.trial(f"mds-{name}", tokenize(mds, "--out", "t"), REFUSE, ["mds"])


def shards(r):
    def trial(name, edit, says=("h/",)):
        folder = r.place / "h"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(r.place / "shards", folder)
        edit(folder)
        r.trial(f"shards-inspect-{name}", r.command("modernbert-train", "inspect", "h"), REFUSE, says)
        r.trial(f"shards-run-{name}", r.command("modernbert-train", "run", "shards.toml", "--out", "r", "--lines"), REFUSE, says)
        shutil.rmtree(r.place / "r", ignore_errors=True)

    (r.place / "shards.toml").write_text(RECIPE.replace('corpus = "corpus.jsonl"', 'corpus = "h"').replace('tokenizer = "train"\ntokenizer_vocab = 320\neval_bytes = 1500\n', ""))
    train = next((r.place / "shards").rglob("train-*.tokens")).relative_to(r.place / "shards")

    def index(change):
        def edit(folder):
            found = json.loads((folder / "shards.json").read_text())
            change(found)
            (folder / "shards.json").write_text(json.dumps(found))
        return edit

    def entry(key, value):
        return index(lambda i: i["sources"][0]["train"]["shards"][0].__setitem__(key, value))

    trial("cut", lambda f: (f / train).write_bytes((f / train).read_bytes()[:-7]))
    trial("flipped", lambda f: (f / train).write_bytes(bytes([*(f / train).read_bytes()[:-1], 99])))
    trial("header", lambda f: (f / train).write_bytes(b"\xff" * 200))
    trial("empty", lambda f: (f / train).write_bytes(b""))
    trial("gone", lambda f: (f / train).unlink())
    trial("passwd", entry("file", "../../etc/passwd"))
    trial("absolute", entry("file", "/etc/passwd"))
    trial("samples", entry("samples", 10**9))
    trial("tokens", entry("tokens", 1))
    trial("hash", entry("sha256", "00"))
    trial("no-sources", index(lambda i: i.__setitem__("sources", [])))
    trial("brace", lambda f: (f / "shards.json").write_text("{"))
    trial("tokenizer", lambda f: (f / "tokenizer.json").write_text((f / "tokenizer.json").read_text() + " " * 3 if False else "{}"))


def recipes(r):
    changes = [
        ("key", "learning_rate = 3e-3", "learning_rat = 3e-3"), ("type", "hidden_size = 32", 'hidden_size = "32"'), ("heads", "num_attention_heads = 2", "num_attention_heads = 3"),
        ("rate-nan", "learning_rate = 3e-3", "learning_rate = nan"), ("rate-0", "learning_rate = 3e-3", "learning_rate = 0"), ("rate-negative", "learning_rate = 3e-3", "learning_rate = -1"),
        ("tokens-0", "total_tokens = 3_000", "total_tokens = 0"), ("tokens-float", "total_tokens = 3_000", "total_tokens = 3e3"),
        ("row-0", "tokens = 64\n", "tokens = 0\n"), ("row-short", "tokens = 64\n", "tokens = 4\n"), ("row-huge", "tokens = 64\n", "tokens = 99999999999\n"), ("length-0", "sequence_length = 32", "sequence_length = 0"),
        ("length-long", "sequence_length = 32", "sequence_length = 4096"), ("micro-0", "micro_batches = 2", "micro_batches = 0"), ("micro-huge", "micro_batches = 2", "micro_batches = 999999999999"),
        ("layers-huge", "num_hidden_layers = 4", "num_hidden_layers = 1000000"), ("width-huge", "hidden_size = 32", "hidden_size = 1048576"), ("vocab-0", "tokenizer_vocab = 320", "tokenizer_vocab = 0"),
        ("vocab-10", "tokenizer_vocab = 320", "tokenizer_vocab = 10"), ("vocab-huge", "tokenizer_vocab = 320", "tokenizer_vocab = 99999999999"), ("eval-0", "eval_bytes = 1500", "eval_bytes = 0"),
        ("eval-all", "eval_bytes = 1500", "eval_bytes = 99999999999"), ("steps-0", "every_steps = 8", "every_steps = 0"), ("log-0", "log_every_steps = 2", "log_every_steps = 0"),
        ("mask-2", "[optimizer]", "[mask]\ntrain = 2.0\n[optimizer]"), ("mask-0", "[optimizer]", "[mask]\ntrain = 0.0\n[optimizer]"), ("mask-nan", "[optimizer]", "[mask]\neval = nan\n[optimizer]"),
        ("dropout-1", "[optimizer]", "[dropout]\nmlp = 1.0\n[optimizer]"), ("epsilon", "learning_rate = 3e-3", "learning_rate = 3e-3\nepsilon = -1.0"), ("minutes", "every_steps = 8", "every_minutes = 1e300"),
        ("minutes-nan", "every_steps = 8", "every_minutes = nan"), ("seconds", "log_every_steps = 2", "log_every_steps = 2\nmax_seconds = 18446744073709551615"), ("threads", "sequence_length = 32", "sequence_length = 32\nloader_threads = 9999999"),
        ("twice", "[optimizer]", "[optimizer]\nlearning_rate = 1e-3\n"), ("corpus-gone", '"corpus.jsonl"', '"nowhere.jsonl"'), ("corpus-number", '"corpus.jsonl"', "3"), ("tokenizer-gone", '"train"', '"nowhere"'), ("not-toml", "[model]", "[model"),
        ("phase-empty", "[checkpoint]", "[[phase]]\n[checkpoint]"), ("window-0", "local_attention = 16", "local_attention = 0"), ("theta", "global_rope_theta = 10_000.0", "global_rope_theta = -1.0"), ("range", "initializer_range = 0.08", "initializer_range = inf"),
    ]
    accepted = {"minutes", "seconds", "eval-all", "eval-0"}
    for name, old, new in changes:
        assert old in RECIPE, old
        (r.place / "x.toml").write_text(RECIPE.replace(old, new, 1))
        r.trial(f"recipe-{name}", r.command("modernbert-train", "run", "x.toml", "--out", "x", "--lines"), EITHER if name in accepted else REFUSE,
                ["nowhere"] if "gone" in name else ["disk"] if name == "width-huge" else ["x.toml"], limit=30)
        shutil.rmtree(r.place / "x", ignore_errors=True)
    r.trial("recipe-phase-of-36-TB", r.command("modernbert-train", "run", "tiny.toml", "--out", "x", "--lines", "--set", "batch.tokens=4_000_000_000",
                                               "--set", "run.total_tokens=9_000_000_000_000"), REFUSE, ["GB", "batch.tokens"])
    for name, more in {"set-no-value": ["--set", "run.seed"], "set-unknown": ["--set", "run.sed=3"], "set-section": ["--set", "run=3"], "set-phase": ["--set", "phase.none.run.seed=3"],
                       "set-quote": ["--set", 'data.corpus="'], "set-empty": ["--set", "data.corpus="], "set-beside-dtype": ["--dtype", "bf16", "--set", "run.precision=f32"], "phase-unknown": ["--phase", "none"], "dtype": ["--dtype", "f8"], "from-nothing": ["--from", "nowhere"], "from-other": ["--from", "cls"],
                       "from-corpus": ["--from", "corpus.jsonl"], "peak": ["--peak-tflops", "nan"]}.items():
        r.trial(f"recipe-{name}", r.command("modernbert-train", "run", "tiny.toml", "--out", "x", "--lines", *more), REFUSE)
        shutil.rmtree(r.place / "x", ignore_errors=True)
    r.trial("recipe-builtin-unknown", r.command("modernbert-train", "run", "bse", "--out", "x"), REFUSE, ["bse", "base"])
    r.trial("recipe-base-no-corpus", r.command("modernbert-train", "run", "base", "--out", "x"), REFUSE, ["--corpus"])


def runs(r):
    last = sorted((r.place / "run" / "checkpoints").iterdir())[-1].name

    def trial(name, edit, command=("resume",), expected=REFUSE, says=("k",), keep=()):
        folder = r.place / "k"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(r.place / "run", folder, symlinks=True)
        edit(folder)
        keep = [folder / name for name in keep]
        r.trial(f"run-{name}", r.command("modernbert-train", command[0], *(command[1:] or ["k", "--lines"])), expected, says, keep=keep)

    inside = lambda name: lambda f: f / "checkpoints" / last / name
    cut = lambda name: lambda f: (f / "checkpoints" / last / name).write_bytes((f / "checkpoints" / last / name).read_bytes()[:-9])
    for name in ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]:
        if (r.place / "run" / "checkpoints" / last / name).exists():
            trial(f"cut-{name}", cut(name))
            trial(f"gone-{name}", lambda f, name=name: (f / "checkpoints" / last / name).unlink(), expected=EITHER)
            trial(f"export-cut-{name}", cut(name), ("export", f"k/checkpoints/{last}", "e"))
    trial("recipe-gone", lambda f: (f / "recipe.toml").unlink())
    trial("recipe-other", lambda f: (f / "recipe.toml").write_text((f / "recipe.toml").read_text().replace("0.003", "0.004")))
    trial("log-gone", lambda f: (f / "metrics.jsonl").unlink(), expected=EITHER)
    trial("log-noise", lambda f: (f / "metrics.jsonl").write_text("{\n"), expected=EITHER)
    trial("shards-gone", lambda f: shutil.rmtree(f / "shards"))
    trial("lock-link", lambda f: ((f / "lock").unlink(missing_ok=True), (f / "lock").symlink_to(r.place / "train.csv")), keep=["../train.csv"])
    trial("history-link", lambda f: ((f / "history.jsonl").unlink(missing_ok=True), (f / "history.jsonl").symlink_to(r.place / "train.csv")), ("resume", "k", "--lines"), EITHER, keep=["../train.csv"])
    trial("renamed", lambda f: (f / "checkpoints" / last).rename(f / "checkpoints" / "step-99999999"))
    trial("foreign", lambda f: (f / "mine.txt").write_text("mine"), ("run", "tiny.toml", "--out", "k", "--restart", "--lines"), keep=["mine.txt", "model.safetensors"])
    trial("foreign-inside", lambda f: (f / "checkpoints" / "mine").write_text("mine"), ("run", "tiny.toml", "--out", "k", "--restart", "--lines"), keep=["checkpoints", "model.safetensors"])
    trial("again", lambda f: None, ("run", "tiny.toml", "--out", "k", "--lines"), keep=["model.safetensors", "recipe.toml"])
    trial("recipe-inside", lambda f: None, ("run", "k/recipe.toml", "--out", "k", "--lines"), keep=["model.safetensors", "recipe.toml"])
    trial("export-into-run", lambda f: None, ("export", "k", "k"), keep=["model.safetensors"])
    trial("export-into-checkpoint", lambda f: None, ("export", "k", f"k/checkpoints/{last}/x"))
    trial("export-over-model", lambda f: None, ("export", "k", "mlm"), keep=["../mlm"])
    trial("average-nothing", lambda f: None, ("average", "--out", "e"), says=())
    trial("average-other", lambda f: None, ("average", f"k/checkpoints/{last}", "mlm", "--out", "e"), says=("mlm",))
    trial("average-many", lambda f: None, ("average", "--run", "k", "--best", "99", "--out", "e"))
    trial("step-unknown", lambda f: None, ("resume", "k", "--from", "step-77", "--lines"))
    trial("which-unknown", lambda f: None, ("resume", "k", "--from", "newest", "--lines"), says=())
    trial("anneal-0", lambda f: None, ("anneal", "k", "--tokens", "0", "--out", "e"), says=())
    trial("anneal-out-is-run", lambda f: None, ("anneal", "k", "--tokens", "999", "--out", "k"), keep=["model.safetensors"])
    trial("rollback-missing", lambda f: None, ("rollback", "nowhere", "--out", "e"), says=("nowhere",))
    trial("diff-missing", lambda f: None, ("diff", "k", "nowhere"), says=("nowhere",))
    trial("inspect-missing", lambda f: None, ("inspect", "nowhere"), says=("nowhere",))
    trial("plot-missing", lambda f: None, ("plot", "nowhere"), says=("nowhere",))
    trial("plot-over-input", lambda f: None, ("plot", "k", "--out", "train.csv"), says=("train.csv",), keep=["../train.csv"])
    trial("plot-noise", lambda f: (f / "metrics.jsonl").write_text('{"step":1,"loss":1e308}\n{"step":2,"loss":null}\n[]\n'), ("plot", "k", "--out", "p.png"), EITHER)
    trial("plot-huge", lambda f: (f / "metrics.jsonl").write_text((f / "metrics.jsonl").read_text() + '{"step":18446744073709551615}\n'), ("plot", "k", "--out", "q.png"), EITHER)


def arguments(r):
    e, c = "embed", "classify"
    model = ["--model", "mlm"]
    trials = [
        ("none", e, []), ("no-text", e, model), ("unknown", e, [*model, "x", "--nope"]), ("model-missing", e, ["--model", "nowhere/here", "x"]), ("model-mistyped", e, ["--model", "./mml", "x"]),
        ("model-empty", e, ["--model", "", "x"]), ("model-file", e, ["--model", "train.csv", "x"]), ("device", e, [*model, "x", "--device", "gpu"]), ("device-number", e, [*model, "x", "--device", "cuda:99999999999999999999"]),
        ("dtype", e, [*model, "x", "--dtype", "f8"]), ("length-0", e, [*model, "x", "--max-length", "0"]), ("length-huge", e, [*model, "x", "--max-length", "18446744073709551615"]), ("length-negative", e, [*model, "x", "--max-length=-1"]),
        ("batch-0", e, [*model, "x", "--batch-tokens", "0"]), ("out-folder", e, [*model, "x", "--out", "mlm"]), ("out-ending", e, [*model, "x", "--out", "v.npy"]), ("out-exists", e, [*model, "x", "--out", "corpus.jsonl"]),
        ("out-missing-folder", e, [*model, "x", "--out", "no/v.jsonl"]), ("out-in-model", e, [*model, "x", "--out", "mlm/v.jsonl"]), ("out-is-input", e, [*model, "--input", "corpus.jsonl", "--out", "corpus.jsonl"]), ("out-null", e, [*model, "x", "--out", "/dev/null"]),
        ("input-and-text", e, [*model, "x", "--input", "train.csv"]), ("input-folder", e, [*model, "--input", "mlm"]), ("input-missing", e, [*model, "--input", "nowhere.txt"]), ("format", e, [*model, "--input", "train.csv", "--format", "xml"]), ("top-0", c, ["--model", "cls", "x", "--top", "0"]),
        ("top-text", c, ["--model", "cls", "x", "--top", "many"]), ("fill-top-0", "fill-mask", [*model, "[MASK]", "--top", "0"]), ("fill-no-mask", "fill-mask", [*model, "the cat"]), ("fill-many", "fill-mask", [*model, "[MASK] " * 200]),
        ("answer-no-context", "answer", ["--model", "qa", "--question", "x"]), ("answer-stride", "answer", ["--model", "qa", "--question", "x", "--context", "train.csv", "--stride", "9999"]), ("answer-length-0", "answer", ["--model", "qa", "--question", "x", "--context", "train.csv", "--max-answer", "0"]),
        ("tag-words-field", "tag", ["--model", "tok", "--input", "corpus.jsonl", "--words-field", "text"]), ("finetune-rate-0", "finetune", ["--learning-rate", "0"]), ("finetune-rate-nan", "finetune", ["--learning-rate", "nan"]), ("finetune-epochs-0", "finetune", ["--epochs", "0"]),
        ("finetune-batch-0", "finetune", ["--batch-size", "0"]), ("finetune-out-model", "finetune", ["--out", "mlm"]), ("finetune-column", "finetune", ["--label", "stars"]), ("finetune-epochs-huge", "finetune", ["--epochs", "18446744073709551615"]), ("finetune-diverges", "finetune", ["--learning-rate", "1e38", "--epochs", "1", "--out", "f"]),
        ("glue-folder", "modernbert-glue", ["run", "--model", "mlm", "--out", "g", "--data", "nowhere"]), ("retrieval-folder", "modernbert-retrieval", ["evaluate", "--data", "nowhere"]), ("train-none", "modernbert-train", []), ("train-unknown", "modernbert-train", ["trian"]),
        ("run-out-file", "modernbert-train", ["run", "tiny.toml", "--out", "train.csv"]), ("run-out-below-file", "modernbert-train", ["run", "tiny.toml", "--out", "train.csv/x"]), ("run-out-root", "modernbert-train", ["run", "tiny.toml", "--out", "/"]), ("run-out-proc", "modernbert-train", ["run", "tiny.toml", "--out", "/proc/x"]),
        ("run-out-corpus", "modernbert-train", ["run", "tiny.toml", "--out", "corpus.jsonl"]), ("resume-nothing", "modernbert-train", ["resume", "nowhere"]), ("resume-model", "modernbert-train", ["resume", "mlm"]),
    ]
    protected = [r.place / name for name in ("mlm", "cls", "train.csv", "corpus.jsonl")]
    for name, program, more in trials:
        if program == "finetune":
            more = [*model, "--train", "train.csv", "--dev", "dev.csv", *more]
        # Without arguments a program prints its usage.
        code = {0, 1, 2} if name.endswith("none") else REFUSE
        r.trial(f"arguments-{name}", r.command(program, *more), code, keep=protected, usage=name.endswith("none"))
    shutil.rmtree(r.place / "x", ignore_errors=True)
    bytes_name = os.fsencode(r.place) + b"/caf\xe9"
    shutil.copytree(r.place / "mlm", os.fsdecode(bytes_name))
    r.trial("path-not-utf8-model", r.command(e, "--model", os.fsdecode(bytes_name), "x"), ACCEPT)
    r.trial("path-not-utf8-out", r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", os.fsdecode(bytes_name + b"-run")), ACCEPT)
    r.trial("path-not-utf8-text", [*r.command(e, *model), b"caf\xe9"], REFUSE)
    r.trial("path-newline", r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", "a\nb"), ACCEPT)
    r.trial("path-long", r.command(e, *model, "x", "--out", "v" * 300 + ".jsonl"), REFUSE)
    for name, env, expected in [
        ("device-empty", {"MODERNBERT_DEVICE": ""}, ACCEPT), ("device-unknown", {"MODERNBERT_DEVICE": "gpu9"}, REFUSE), ("home-none", {"HOME": ""}, ACCEPT), ("home-file", {"HOME": str(r.place / "train.csv")}, ACCEPT), ("hf-home-empty", {"HF_HOME": ""}, ACCEPT),
        ("tmp-none", {"TMPDIR": "/nowhere"}, ACCEPT), ("log", {"RUST_LOG": "\x01nonsense=="}, ACCEPT), ("threads", {"RAYON_NUM_THREADS": "0"}, ACCEPT), ("threads-text", {"RAYON_NUM_THREADS": "many"}, REFUSE), ("term", {"TERM": ""}, ACCEPT), ("lang", {"LC_ALL": "xx"}, ACCEPT),
        ("color", {"CLICOLOR_FORCE": "1"}, ACCEPT), ("columns", {"COLUMNS": "0"}, ACCEPT),
    ]:
        r.trial(f"environment-{name}", r.command(e, *model, "x"), expected, env=env)
    for name, env in [("offline", {"HF_HUB_OFFLINE": "1"}), ("endpoint", {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "not a url"}), ("endpoint-closed", {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}), ("no-home", {"HOME": ""}), ("offline-unknown", {"HF_HUB_OFFLINE": "maybe"})]:
        r.trial(f"environment-hub-{name}", r.command(e, "--model", "owner/name", "x"), REFUSE, ["owner/name"], env=env)


def interrupts(r):
    long = ["modernbert-train", "run", "tiny.toml", "--lines", "--set", "run.total_tokens=3_000_000"]
    for name, send, expected in [("int", [(2, signal.SIGINT)], {130}), ("term", [(2, signal.SIGTERM)], {130, 143}), ("hup", [(2, signal.SIGHUP)], {130, 129}), ("int-twice", [(2, signal.SIGINT), (2.05, signal.SIGINT)], {130}), ("kill", [(2, signal.SIGKILL)], {-9})]:
        out = f"i-{name}"
        r.trial(f"signal-run-{name}", r.command(*long, "--out", out), expected, send=send)
        r.trial(f"signal-run-{name}-resumes", r.command("modernbert-train", "resume", out, "--lines"), {130}, send=[(4, signal.SIGINT)])
    r.trial("signal-run-endless", r.command(*long[:-1], "run.total_tokens=9_223_372_036_854_775_807", "--out", "unending"), {130}, send=[(3, signal.SIGINT)])
    finetune = r.command("finetune", "--model", "mlm", "--train", "train.csv", "--dev", "dev.csv", "--epochs", "9999", "--patience", "0")
    for name, send in [("int", signal.SIGINT), ("term", signal.SIGTERM), ("hup", signal.SIGHUP)]:
        r.trial(f"signal-finetune-{name}", [*finetune, "--out", f"f-{name}"], {130}, send=[(3, send)])
    big = r.place / "big-corpus.jsonl"
    big.write_bytes((r.place / "corpus.jsonl").read_bytes() * 300)
    for name, number in [("int", signal.SIGINT), ("hup", signal.SIGHUP), ("kill", signal.SIGKILL)]:
        r.trial(f"signal-tokenize-{name}", r.command("modernbert-train", "tokenize", big, "--tokenizer", "mlm", "--out", f"tk-{name}", "--threads", "1"), {130, -9}, send=[(0.7, number)])
        left = [p for p in (r.place / f"tk-{name}").rglob("*") if p.name == "shards.json"] if (r.place / f"tk-{name}").exists() else []
        if left:
            r.failed.append(f"signal-tokenize-{name}-left")
            print("FAILED: a killed tokenize left an index", left)
    for name, number in [("int", signal.SIGINT), ("term", signal.SIGTERM)]:
        r.trial(f"signal-embed-{name}", r.command("embed", "--model", "mlm", "--input", big, "--out", f"v-{name}.safetensors"), {-number, 128 + number}, send=[(2, number)])
        if any(p.name.startswith((".tmp", f"v-{name}")) for p in r.place.iterdir()):
            r.failed.append(f"signal-embed-{name}-left")
            print("FAILED: embed left a file")
    for name, command in {
        "run": ["modernbert-train", "run", "tiny.toml", "--lines", "--out", "full"], "resume": ["modernbert-train", "inspect", "run"], "embed": ["embed", "--model", "mlm", "--json", "x"], "classify": ["classify", "--model", "cls", "x"],
        "tag": ["tag", "--model", "tok", "x"], "fill-mask": ["fill-mask", "--model", "mlm", "[MASK]"], "answer": ["answer", "--model", "qa", "--question", "x", "--context", "train.csv", "--stride", "8"], "tokenize": ["modernbert-train", "tokenize", "corpus.jsonl", "--tokenizer", "mlm", "--out", "full-t"],
        "finetune": ["finetune", "--model", "mlm", "--train", "train.csv", "--dev", "dev.csv", "--epochs", "1", "--out", "full-f"], "diff": ["modernbert-train", "diff", "run", "run"], "help": ["embed", "--help"],
    }.items():
        with open("/dev/full", "wb") as full:
            r.trial(f"stdout-full-{name}", r.command(*command), {2} if name != "help" else EITHER, stdout=full)
        for extra in ("full", "full-t", "full-f"):
            shutil.rmtree(r.place / extra, ignore_errors=True)
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as closed:
            r.trial(f"stdout-closed-{name}", r.command(*command), {0, 141}, stdout=closed)
        if name in ("run", "tokenize", "finetune") and not r.only:
            made = {"run": "full/model.safetensors", "tokenize": "full-t/shards.json", "finetune": "full-f/model.safetensors"}[name]
            if not (r.place / made).exists():
                r.failed.append(f"stdout-closed-{name}-lost")
                print(f"FAILED stdout-closed-{name}: {made} is missing")
        for extra in ("full", "full-t", "full-f"):
            shutil.rmtree(r.place / extra, ignore_errors=True)


def disks(r):
    disk = r.place / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True).returncode:
        for name in ("run", "tokenize", "embed", "export", "finetune", "overwrite", "read-only"):
            r.skip(f"disk-{name}", "mount is not permitted here")
        return
    try:
        says = ["disk"]
        r.trial("disk-run", r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", disk / "r"), REFUSE, says)
        r.trial("disk-tokenize", r.command("modernbert-train", "tokenize", "big-corpus.jsonl", "--tokenizer", "mlm", "--out", disk / "t"), REFUSE, says)
        (r.place / "many.txt").write_text("the cat\n" * 20_000)
        r.trial("disk-embed", r.command("embed", "--model", "mlm", "--input", "many.txt", "--out", disk / "v.safetensors"), REFUSE, says)
        r.trial("disk-embed-pipe", r.command("embed", "--model", "mlm", "--input", "-", "--out", disk / "v.safetensors"), REFUSE, says, stdin=b"the cat\n" * 20_000)
        r.trial("disk-finetune", r.command("finetune", "--model", "mlm", "--train", "train.csv", "--dev", "dev.csv", "--epochs", "1", "--out", disk / "f"), EITHER, says)
        left = [str(p) for p in disk.rglob("*") if p.is_file() and p.suffix in (".safetensors", ".tokens") and not str(p).startswith(str(disk / "f"))]
        if left:
            r.failed.append("disk-left")
            print("FAILED: left on the full disk:", left)
        shutil.rmtree(disk / "r", ignore_errors=True)
        shutil.rmtree(disk / "f", ignore_errors=True)
        small = r.command("modernbert-train", "tokenize", "corpus.jsonl", "--tokenizer", "mlm", "--out", disk / "s")
        r.trial("disk-tokenize-small", small, ACCEPT)
        r.trial("disk-overwrite", r.command("modernbert-train", "tokenize", "big-corpus.jsonl", "--tokenizer", "mlm", "--out", disk / "s", "--overwrite"), REFUSE, says, keep=[disk / "s"])
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True, capture_output=True)
        for name, command in {"run": ["modernbert-train", "run", "tiny.toml", "--lines", "--out", disk / "r"], "embed": ["embed", "--model", "mlm", "x", "--out", disk / "v.jsonl"], "export": ["modernbert-train", "export", "run", disk / "e"],
                              "finetune": ["finetune", "--model", "mlm", "--train", "train.csv", "--dev", "dev.csv", "--out", disk / "f"], "plot": ["modernbert-train", "plot", "run", "--out", disk / "p.png"]}.items():
            r.trial(f"disk-read-only-{name}", r.command(*command), REFUSE, says)
    finally:
        subprocess.run(["umount", "-l", disk], capture_output=True)
