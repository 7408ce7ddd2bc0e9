"""Trials of scripts/hostile: numbers at the ends of f32, keys twice, settings without an effect, dtypes and instruction sets of CPUs, limits."""
import json
import shutil
import signal
import struct

from hostile_lib import ACCEPT, EITHER, REFUSE, floats, model_with, read_tensors, write_tensors

UNITS = ("amx", "avx512-native", "avx512", "avx2", "portable")


def numbers(r):
    """Numbers that are 0, infinite or not a number in f32, in which models compute."""
    good = json.loads((r.place / "mlm/config.json").read_text())
    theta = lambda base: {"rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind in ("full_attention", "sliding_attention")}}
    scaled = lambda **more: {"flexbert": {"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 4.0} | more}}}
    for name, change in {
        "eps-huge": {"norm_eps": 1e300}, "eps-tiny": {"norm_eps": 1e-300}, "theta-huge": theta(1e300), "theta-tiny": theta(1e-300), "theta-small": theta(1e-37),
        "softcap-tiny": {"flexbert": {"attn_softcap": 1e-300}}, "softcap-huge": {"flexbert": {"attn_softcap": 1e300}},
        "xpos-tiny": {"flexbert": {"rotary_emb_scale_base": 1e-300}}, "xpos-short": {"flexbert": {"rotary_emb_scale_base": 1e-3}},
        "yarn-scale": scaled(mscale=1.0, mscale_all_dim=-7.213475204444817), "yarn-attention": scaled(attention_factor=1e300), "yarn-factor": scaled(factor=1e300),
        "yarn-betas": scaled(beta_fast=1.0, beta_slow=32.0), "positions-2": {"max_position_embeddings": 2},
    }.items():
        folder = model_with(r, "n", config__json=json.dumps(good | change))
        r.trial(f"numbers-config-{name}", r.command("embed", "--model", folder, "x"), REFUSE, ["config.json"])
    for key, value in {
        "model.initializer_cutoff_factor": "1e-9", "model.initializer_range": "1e300", "model.norm_eps": "1e300", "model.global_rope_theta": "1e300",
        "model.flexbert.attn_softcap": "1e-300", "model.flexbert.lse_square_scale": "1e300", "model.flexbert.label_smoothing": "0.999999999999",
        "optimizer.epsilon": "1e300", "optimizer.max_grad_norm": "1e-300", "optimizer.max_lr": "1e-9", "optimizer.learning_rate": "1e300", "run.seed": "9223372036854775808",
        "model.flexbert.head_dim": "7",
    }.items():
        r.trial(f"numbers-recipe-{key}", r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", "n-run", "--set", f"{key}={value}"), REFUSE, [f"--set {key}"])
        shutil.rmtree(r.place / "n-run", ignore_errors=True)
    for name, more in {"rate-tiny": ["--learning-rate", "1e-320"], "rate-huge": ["--learning-rate", "1e300"], "length": ["--max-length", "2"]}.items():
        command = r.command("finetune", "--model", "mlm", "--train", "train.csv", "--dev", "dev.csv", "--epochs", "1", "--lines", *more)
        r.trial(f"numbers-finetune-{name}", command, REFUSE, ["--learning-rate"] if name != "length" else ["length of 2"])
    batch = r.command("finetune", "--model", "mlm", "--train", "train.csv", "--dev", "dev.csv", "--epochs", "1", "--lines", "--batch-size", str(2**63))
    r.trial("numbers-finetune-batch", batch, ACCEPT)
    tensors = read_tensors(r.place / "mlm/model.safetensors")
    for value in (1e20, 3e38):
        for name in ("model.layers.1.mlp.Wi.weight", "model.final_norm.weight", "model.embeddings.tok_embeddings.weight"):
            dtype, shape, data = tensors[name]
            large = tensors | {name: (dtype, shape, floats(*[value] * (len(data) // 4)))}
            folder = model_with(r, "n", model__safetensors=lambda path: write_tensors(path, large))
            r.trial(f"numbers-weights-{value}-{name}", r.command("embed", "--model", folder, "x"), REFUSE, [name, "overflow f32"])
    name = "model.embeddings.tok_embeddings.weight"
    dtype, shape, data = tensors[name]
    zeros = tensors | {name: (dtype, shape, bytes(len(data)))}
    folder = model_with(r, "n", model__safetensors=lambda path: write_tensors(path, zeros))
    r.trial("numbers-vector-of-zeros", r.command("embed", "--model", folder, "x"), REFUSE, ["text 1", "are 0"])
    write_tensors(r.place / "wide.safetensors", {"embeddings": ("F64", [1, 2], struct.pack("<2d", 1e300, 0.0))})
    (r.place / "one.jsonl").write_text('{"id": "a", "n": 123456789012345678901234567890}\n')
    build = r.command("modernbert-retrieval", "index", "build", "n-ix", "--texts", "one.jsonl", "--vectors")
    r.trial("numbers-vectors-beyond-f32", [*build, "wide.safetensors"], REFUSE, ["wide.safetensors", "inf"])
    write_tensors(r.place / "flat.safetensors", {"embeddings": ("F32", [1, 2], floats(1.0, 0.0))})
    r.trial("numbers-metadata", [*build, "flat.safetensors", "--metadata", "n"], REFUSE, ["one.jsonl:1"])
    r.trial("numbers-index", [*build, "flat.safetensors"], ACCEPT)
    search = r.command("modernbert-retrieval", "search", "n-ix", "--queries", "flat.safetensors", "--texts", "one.jsonl")
    r.trial("numbers-search-top", [*search, "--top", str(2**64 - 1)], ACCEPT)
    (r.place / "none.jsonl").write_text("")
    r.trial("numbers-no-queries", r.command("modernbert-retrieval", "search", "n-ix", "--queries", "none.jsonl"), REFUSE, ["none.jsonl", "no vector"])
    (r.place / "same.jsonl").write_text('{"id": "a", "embedding": [1, 0]}\n' * 2)
    r.trial("numbers-query-twice", r.command("modernbert-retrieval", "search", "n-ix", "--queries", "same.jsonl"), REFUSE, ["same.jsonl", "second time"])
    answer = r.command("answer", "--model", "qa", "--question", "x", "--context", "train.csv", "--stride", "8", "--max-answer", str(2**64 - 1))
    r.trial("numbers-answer-length", answer, ACCEPT)
    (r.place / "n-pairs.jsonl").write_text("".join(json.dumps({"query": f"cat {i}", "positive": f"mat {i}"}) + "\n" for i in range(8)))
    train = r.command("modernbert-retrieval", "train", "--model", "mlm", "--train", "n-pairs.jsonl", "--batch", "4", "--lines", "--out", "n-late", "--steps", str(2**64 - 1))
    r.trial("numbers-train-steps", train, {130}, send=[(3, signal.SIGINT)])
    shapes = r.command("modernbert-train", "shapes", "--parameters", f"1..{2**64 - 1}")
    r.trial("numbers-shapes", shapes, ACCEPT)
    r.trial("numbers-shapes-best", [*shapes, "--best", "0"], REFUSE, ["--best"])


def keys(r):
    """Keys twice, keys of other encoders, labels that can't be told apart, settings that nothing reads."""
    good = json.loads((r.place / "mlm/config.json").read_text())
    text = json.dumps(good)
    default = {"rope_type": "default", "rope_theta": 10000.0}
    for name, content in {
        "twice": text.replace('"local_attention": 16', '"local_attention": 2, "local_attention": 16'),
        "twice-inside": text[:-1] + ', "flexbert": {"attn_softcap": 5, "attn_softcap": 50}}',
        "list": json.dumps(good | {"flexbert": []}), "top-level": json.dumps(good | {"bert_layer": "postnorm"}), "groups": json.dumps(good | {"num_key_value_heads": 1}),
        "quantized": json.dumps(good | {"quantization_config": {"bits": 4}}),
        "default-factor": json.dumps(good | {"rope_parameters": {"full_attention": default | {"factor": 4.0}, "sliding_attention": default}}),
        "two-types": json.dumps(good | {"rope_parameters": {"full_attention": default | {"type": "linear", "factor": 4.0}, "sliding_attention": default}}),
        "other-layers": json.dumps(good | {"rope_parameters": {"global_attention": default, "full_attention": default, "sliding_attention": default}}),
    }.items():
        r.trial(f"keys-config-{name}", r.command("embed", "--model", model_with(r, "k", config__json=content), "x"), REFUSE, ["config.json"])
    labels = json.loads((r.place / "cls/config.json").read_text())
    labels.pop("label2id", None)
    for name, change in {"id-twice": {"id2label": {"0": "a", "00": "b", "1": "c"}}, "name-twice": {"id2label": {"0": "a", "1": "a"}}, "no-name": {"id2label": {"0": "", "1": "a"}},
                         "contradict": {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}}}.items():
        folder = model_with(r, "k", "cls", config__json=json.dumps(labels | change))
        r.trial(f"keys-labels-{name}", r.command("classify", "--model", folder, "x"), REFUSE, ["config.json"])
    settings = (r.place / "mlm/tokenizer_config.json").read_text().rstrip()
    folder = model_with(r, "k", tokenizer_config__json=settings[:-1] + ', "model_max_length": 8, "model_max_length": 16}')
    r.trial("keys-tokenizer-config", r.command("embed", "--model", folder, "x"), REFUSE, ["tokenizer_config.json", "twice"])
    run = ["modernbert-train", "run", "tiny.toml", "--lines", "--out", "k-run"]
    for name, sets in {
        "ema": ["ema.every_steps=3"], "spikes": ["optimizer.spike_window=3"], "lengths": ["data.length_warmup_step=4"], "batches": ["batch.warmup_step=2"],
        "initial": ["model.flexbert.num_initial_layers=2"], "no-local": ["model.global_attn_every_n_layers=1"], "windows": ["model.flexbert.sliding_windows=[0,2,2,0]"],
        "no-rotary": ["model.flexbert.attention_layer=base"], "yarn": ['model.flexbert.rope_parameters={full_attention={rope_type="linear",factor=4.0,beta_fast=3.0}}'],
    }.items():
        r.trial(f"keys-recipe-{name}", r.command(*run, *[part for one in sets for part in ("--set", one)]), REFUSE, ["leave"])
        shutil.rmtree(r.place / "k-run", ignore_errors=True)
    tokenize = r.command("modernbert-train", "tokenize", "corpus.jsonl", "--tokenizer", "mlm", "--out", "k-shards")
    r.trial("keys-tokenize-lengths", [*tokenize, "--max-length", "6"], REFUSE, ["--min-length 8"])
    r.trial("keys-tokenize-licence", [*tokenize, "--licence", "a\nb\x1b[31m"], REFUSE, ["--licence"])


def processors(r):
    """Dtypes and instruction sets of CPUs."""
    for program, model, more in (("embed", "mlm", ["the cat", "one fine film"]), ("classify", "cls", ["x"]), ("tag", "tok", ["x"]), ("fill-mask", "mlm", ["x [MASK]"])):
        for dtype in ("f32", "bf16", "int8"):
            for unit in UNITS:
                command = r.command(program, "--model", model, *more, "--dtype", dtype)
                r.trial(f"processors-{program}-{dtype}-{unit}", command, EITHER, ["MODERNBERT_CPU_UNIT"], env={"MODERNBERT_CPU_UNIT": unit})
    for name, unit in {"unknown": "sse", "case": "AMX", "blank": " amx", "list": "amx,avx2"}.items():
        r.trial(f"processors-unit-{name}", r.command("embed", "--model", "mlm", "x"), REFUSE, ["MODERNBERT_CPU_UNIT"], env={"MODERNBERT_CPU_UNIT": unit})
    good = json.loads((r.place / "mlm/config.json").read_text())
    for name, change in {"norm": {"flexbert": {"normalization": "rmsnorm"}}, "activation": {"hidden_activation": "silu"}, "softcap": {"flexbert": {"attn_softcap": 30.0}}}.items():
        folder = model_with(r, "p", config__json=json.dumps(good | change))
        for dtype, code in {"f32": ACCEPT, "bf16": ACCEPT, "int8": REFUSE}.items():
            r.trial(f"processors-architecture-{name}-{dtype}", r.command("embed", "--model", folder, "x", "--dtype", dtype), code, ["int8"])
    for program, more in {"finetune": ["--train", "train.csv", "--dev", "dev.csv", "--epochs", "1"], "modernbert-train": []}.items():
        command = r.command(program, "--model", "mlm", *more) if more else r.command(program, "run", "tiny.toml", "--out", "p-run")
        r.trial(f"processors-{program}-int8", [*command, "--dtype", "int8"], REFUSE, ["int8"])


def limits(r):
    """Environment variables and limits of the system."""
    embed = r.command("embed", "--model", "mlm", "x")
    for value in ("many", "-1", "1.5", "99999999999999999999999"):
        r.trial(f"limits-threads-{value}", embed, REFUSE, ["RAYON_NUM_THREADS"], env={"RAYON_NUM_THREADS": value})
    run = r.command("modernbert-train", "run", "tiny.toml", "--lines", "--out", "l-run")
    ranks = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    r.trial("limits-port-0", run, REFUSE, ["MASTER_PORT"], env=ranks | {"MASTER_PORT": "0"}, limit=20)
    r.trial("limits-nproc-in-rank", [*run, "--nproc", "2"], REFUSE, ["--nproc"], env=ranks, limit=20)
    build = r.command("modernbert-retrieval", "index", "build", "l-ix", "--texts", "one.jsonl", "--vectors", "flat.safetensors")
    for name, command in {
        "run": run, "export": r.command("modernbert-train", "export", "run", "l-out"), "embed": r.command("embed", "--model", "mlm", "--input", "corpus.jsonl", "--out", "l.safetensors"),
        "tokenize": r.command("modernbert-train", "tokenize", "corpus.jsonl", "--tokenizer", "mlm", "--out", "l-shards"),
        "finetune": r.command("finetune", "--model", "mlm", "--train", "train.csv", "--dev", "dev.csv", "--epochs", "1", "--lines", "--out", "l-fine"),
        "index": build, "plot": r.command("modernbert-train", "plot", "run", "--out", "l.png"),
    }.items():
        # As a shell's `ulimit -f`: a program that the signal ends has no message.
        limited = ["prlimit", "--fsize=1000", *command] if name != "index" else ["prlimit", "--fsize=200", *command]
        if not shutil.which("prlimit"):
            r.skip(f"limits-file-size-{name}", "there is no prlimit here")
            continue
        r.trial(f"limits-file-size-{name}", limited, REFUSE, ["too large"])
        for left in ("l-run", "l-out", "l-shards", "l-fine", "l-ix"):
            shutil.rmtree(r.place / left, ignore_errors=True)
        left = [p.name for p in r.place.iterdir() if p.name in ("l.safetensors", "l.png") or p.name.startswith(".tmp")]
        if left:
            r.failed.append(f"limits-file-size-{name}-left")
            print("FAILED: a file beyond the limit was left:", left)
