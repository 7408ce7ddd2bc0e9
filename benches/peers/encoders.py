#!/usr/bin/env python3
"""The PyTorch peers of `efficiency measure`: encoders with random weights of the published shapes, on the same documents.

    python3 -P benches/peers/encoders.py --results rows.jsonl --program torch.compile --encoder "ModernBERT base" --leg throughput
                                         [--sets fixed-512,...] [--dtype bf16] [--seconds 1] [--runs 10] [--tokens 65536]

Programs: `transformers` (padded, scaled_dot_product_attention where the model has it), `torch.compile` (packed, FlashAttention-2; peers/model.py)
and `packed-encoders` (packed, FlashAttention-4 where it is installed, CUDA graphs for small batches). Adds lines to the file that
`efficiency measure` writes, and leaves out what it has. Padded programs pad documents to 512 or 8192 tokens, as in the paper; only real
tokens count. A batch that does not fit into memory is halved.
"""
import argparse
import datetime
import importlib.util
import json
import math
import pathlib
import statistics
import subprocess
import threading
import time

import torch

HERE = pathlib.Path(__file__).resolve().parent
PAPER = ["fixed-512", "variable-256", "fixed-8192", "variable-4096"]
LATENCY = [(1, 16), (1, 32), (8, 32), (8, 128), (64, 32), (1, 512)]
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def driver(fields):
    command = ["nvidia-smi", "--id=0", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class Watch:
    """Most memory beyond that of the start of the program, mean power and clock."""

    before = float(driver("memory.used"))

    def __enter__(self):
        self.samples, self.open, self.timed_from = [], True, None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def run(self):
        while self.open:
            begun = time.perf_counter()
            self.samples.append([begun, *(float(x) for x in driver("memory.used,power.draw,clocks.sm").split(","))])
            time.sleep(0.1)

    def __exit__(self, *_):
        self.open = False
        self.thread.join()
        used = max(sample[1] for sample in self.samples) - self.before
        # Memory that a process which has just ended held at the start, and gave back since, makes the difference meaningless.
        self.result = {"driver_mib": used} if used > 0 else {}
        # Power and clock of the timed runs alone.
        timed = [sample for sample in self.samples if self.timed_from is not None and sample[0] >= self.timed_from]
        if timed:
            self.result |= {"watts": statistics.mean(sample[2] for sample in timed), "clock_mhz": statistics.mean(sample[3] for sample in timed)}


def documents(name):
    for entry in json.loads((HERE.parent / "lengths.json").read_text())["sets"]:
        if entry["name"] == name:
            fixed = entry.get("fixed")
            return [fixed["length"]] * fixed["count"] if fixed else entry["lengths"]
    raise SystemExit(f"unknown set {name}")


def split(lengths, tokens, slots):
    """Batches of whole documents, in order, of at most `tokens` slots."""
    batches, used = [], 0
    for length in lengths:
        if not batches or used + slots(length) > tokens:
            batches.append([])
            used = 0
        used += slots(length)
        batches[-1].append(length)
    return batches


def load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ids_of(count):
    return torch.randint(100, 16000, (count,), device="cuda")


class Packed:
    """Documents one after the other, without padding."""

    padded = False

    def batch(self, lengths):
        boundaries = torch.tensor([0, *lengths], device="cuda").cumsum(0).to(torch.int32)
        positions = torch.cat([torch.arange(length, device="cuda") for length in lengths])
        return ids_of(sum(lengths)), positions, boundaries, max(lengths)


class Compiled(Packed):
    def __init__(self, size, dtype, graphs):
        peer = load("model")
        torch._dynamo.config.cache_size_limit = 64
        model = peer.Model(**peer.SHAPES[size]).cuda().to(dtype).eval()
        mode = {"mode": "reduce-overhead"} if graphs else {}
        self.variant = "CUDA graphs" if graphs else ""
        self.run = torch.compile(model, dynamic=False, **mode)

    def forward(self, batch):
        return self.run(*batch)


class PackedEncoders(Packed):
    def __init__(self, size, dtype, graphs):
        import packed_encoders as pe
        from packed_encoders.config import ModernBertParams
        from packed_encoders.forward import packed_forward
        from transformers import ModernBertConfig, ModernBertModel

        config = ModernBertConfig(**MODERNBERT[size])
        config._attn_implementation = "sdpa"
        config.global_attn_every_n_layers = 3
        self.model = ModernBertModel(config).to(dtype).cuda().eval()
        options = {"cuda_graph": pe.GraphConfig(pad_to=64, max_batch=64, max_seq=512, max_graphs=32)} if graphs else {}
        self.variant = "CUDA graphs" if graphs else ""
        pe.pack(self.model, attention_backend="auto", validate=False, **options)
        self.parameters, self.packed_forward = ModernBertParams.from_hf_config(config), packed_forward

    def forward(self, batch):
        ids, positions, boundaries, longest = batch
        return self.packed_forward(self.model, self.parameters, ids, boundaries, longest, positions)


MODERNBERT = {"base": {}, "large": dict(hidden_size=1024, intermediate_size=2624, num_attention_heads=16, num_hidden_layers=28)}
WIDE = dict(hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=24)


def deberta(size):
    import transformers

    more = WIDE if size == "large" else dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12)
    return transformers.DebertaV2Config(
        vocab_size=128100, max_position_embeddings=512, type_vocab_size=0, relative_attention=True, position_buckets=256, max_relative_positions=-1,
        norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type="p2c|c2p", position_biased_input=False, layer_norm_eps=1e-7, **more)


class Transformers:
    """An encoder of transformers on padded rows."""

    padded, variant = True, ""

    def __init__(self, encoder, size, dtype):
        import transformers

        def of(name, **options):
            config = getattr(transformers, f"{name}Config", None)
            if config is None:
                raise SystemExit(f"transformers {transformers.__version__} has no {name}")
            return config(**options), getattr(transformers, f"{name}Model")

        kind = encoder.split()[0]
        wide = WIDE if size == "large" else {}
        config, model = {
            "ModernBERT": lambda: of("ModernBert", **MODERNBERT[size]),
            "BERT": lambda: of("Bert", **wide),
            "RoBERTa": lambda: of("Roberta", vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, **wide),
            "DeBERTaV3": lambda: (deberta(size), transformers.DebertaV2Model),
            "NomicBERT": lambda: of("NomicBert", vocab_size=30528, max_position_embeddings=8192),
            "NeoBERT": lambda: of("NeoBert"),
            "EuroBERT": lambda: of("EuroBert"),
        }[kind]()
        if kind != "DeBERTaV3":
            config._attn_implementation = "sdpa"
        self.model = model(config).to(dtype).cuda().eval()

    def batch(self, lengths):
        width = 512 if max(lengths) <= 512 else 8192
        width = max(lengths) if len(set(lengths)) == 1 else width
        mask = torch.zeros(len(lengths), width, dtype=torch.long, device="cuda")
        for row, length in enumerate(lengths):
            mask[row, :length] = 1
        ids = ids_of(mask.numel()).view_as(mask) * mask
        return ids, (None if len(set(lengths)) == 1 else mask)

    def forward(self, batch):
        return self.model(input_ids=batch[0], attention_mask=batch[1]).last_hidden_state


def make(arguments, graphs=False):
    size = "large" if "large" in arguments.encoder else "base"
    dtype = DTYPES[arguments.dtype]
    torch.manual_seed(0)
    if arguments.program == "torch.compile":
        return Compiled(size, dtype, graphs)
    if arguments.program == "packed-encoders":
        return PackedEncoders(size, dtype, graphs)
    return Transformers(arguments.encoder, size, dtype)


def pass_over(peer, batches):
    for batch in batches:
        last = peer.forward(batch)
    torch.cuda.synchronize()
    return last


def throughput(arguments, name):
    peer = make(arguments)
    lengths, full = documents(name), 512 if "8192" not in name and "4096" not in name else 8192
    tokens = arguments.tokens
    with Watch() as watch:
        while True:
            parts = split(lengths, tokens, (lambda length: full) if peer.padded else (lambda length: length))
            try:
                begun = time.perf_counter()
                first = [peer.batch(parts[0])]
                pass_over(peer, first)
                first_s = time.perf_counter() - begun
                begun = time.perf_counter()
                pass_over(peer, first)
                one = time.perf_counter() - begun
                break
            except torch.cuda.OutOfMemoryError:
                tokens //= 2
                torch.cuda.empty_cache()
                if tokens < full:
                    raise SystemExit(f"{arguments.encoder}, {name}: one document does not fit into memory")
        count = min(len(parts), max(1, math.ceil(arguments.seconds / one))) if arguments.seconds > 0 else len(parts)
        if arguments.program == "torch.compile" and len(set(lengths)) > 1:
            # Each shape of a batch is compiled on its own.
            count = 1
        parts = parts[:count]
        batches, real, speeds = [peer.batch(part) for part in parts], sum(map(sum, parts)), []
        torch.cuda.reset_peak_memory_stats()
        for run in range(arguments.runs + 1):
            if run == 1:
                watch.timed_from = time.perf_counter()
            begun = time.perf_counter()
            last = pass_over(peer, batches)
            if run:
                speeds.append(real / (time.perf_counter() - begun))
        if not torch.isfinite(last.float()).all():
            raise SystemExit("the encoder's output is not finite")
    return {"variant": peer.variant, "tok_s": statistics.mean(speeds), "deviation": statistics.stdev(speeds), "runs": arguments.runs,
            "documents": sum(map(len, parts)), "batch": max(map(len, parts)), "first_s": first_s,
            "peak_mib": torch.cuda.max_memory_allocated() / 2**20, **watch.result}


def latency(arguments, name):
    peer = make(arguments, graphs=True)
    count, length = map(int, name.split("x"))
    batch = peer.batch([length] * count)
    begun = time.perf_counter()
    pass_over(peer, [batch])
    first_s, whole, host = time.perf_counter() - begun, [], []
    for _ in range(20):
        pass_over(peer, [batch])
    for _ in range(200):
        begun = time.perf_counter()
        peer.forward(batch)
        host.append((time.perf_counter() - begun) * 1e3)
        torch.cuda.synchronize()
        whole.append((time.perf_counter() - begun) * 1e3)
    whole.sort()
    return {"variant": peer.variant, "first_s": first_s, "p50_ms": whole[99], "p99_ms": whole[197], "host_ms": statistics.median(host), "runs": 200,
            "batch": count, "peak_mib": torch.cuda.max_memory_allocated() / 2**20}


def largest(arguments, name):
    """The search of `efficiency measure`, in one process: memory is linear in the batch."""
    length = int(name)
    cap = 24564 if arguments.variant == "24 GB" else None
    if cap:
        torch.cuda.set_per_process_memory_fraction(cap / (torch.cuda.get_device_properties(0).total_memory / 2**20))
    peer = make(arguments)

    def attempt(count):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            last = pass_over(peer, [peer.batch([length] * count)])
            del last
            return torch.cuda.max_memory_reserved() / 2**20
        except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
            if "out of memory" not in str(error).lower():
                raise
            return None

    ran, fails, points, count = 0, None, [], max(1, 16384 // length)
    while True:
        used = attempt(count)
        if used is None:
            fails = count
        else:
            ran = count
            points.append((count, used))
        if fails is None:
            count = ran * 2
        elif ran == 0:
            if count == 1:
                raise SystemExit(f"{arguments.encoder}: not one document of {length} tokens fits")
            count //= 2
        elif fails - ran <= max(1, ran // 200):
            if attempt(ran) is not None:
                break
            fails, points = ran, points[:-1]
            ran = points[-1][0]
        else:
            count = (ran + fails) // 2
    return {"largest": ran, "fails": fails, "points": sorted(points), "driver_mib": points[-1][1] if points else None}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", required=True)
    parser.add_argument("--program", required=True, choices=["transformers", "torch.compile", "packed-encoders"])
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--leg", required=True, choices=["throughput", "latency", "largest"])
    parser.add_argument("--sets")
    parser.add_argument("--variant", default="", help="of the leg largest: `24 GB` or `whole card`")
    parser.add_argument("--dtype", default="bf16", choices=list(DTYPES))
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=65536)
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    path = pathlib.Path(arguments.results)
    known = [json.loads(line) for line in path.read_text().splitlines() if line.strip()] if path.exists() else []
    usual = {"throughput": PAPER, "latency": [f"{a}x{b}" for a, b in LATENCY], "largest": ["512", "8192"]}[arguments.leg]
    import transformers

    for name in arguments.sets.split(",") if arguments.sets else usual:
        record = {"program": arguments.program, "encoder": arguments.encoder, "leg": arguments.leg, "set": name, "dtype": arguments.dtype}
        if any(all(old[key] == value for key, value in record.items()) and old.get("variant", "") in (arguments.variant, "CUDA graphs") for old in known):
            continue
        try:
            with torch.no_grad():
                found = {"throughput": throughput, "latency": latency, "largest": largest}[arguments.leg](arguments, name)
        except Exception as error:  # one that fails must not end the others
            print(f"{arguments.program}, {arguments.encoder}, {name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            torch.cuda.empty_cache()
            continue
        record |= {"variant": arguments.variant, **found}
        record |= {"device": driver("name"), "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
                   "software": f"driver {driver('driver_version')}, torch {torch.__version__}, transformers {transformers.__version__}"}
        line = json.dumps({key: value for key, value in record.items() if value not in ("", None)})
        print(line, flush=True)
        with path.open("a") as file:
            file.write(line + "\n")
        torch._dynamo.reset()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
