#!/usr/bin/env python3
"""Peers of `inference --device flex`: the ModernBERT of transformers as ONNX, run by OpenVINO or ONNX Runtime on the CPU.

    openvino_cpu.py export FOLDER                       writes one ONNX model of base for each set (fixed shapes, the fastest form)
    openvino_cpu.py turns FOLDER ENGINE [--threads N]   reads names of sets from standard input and prints one timed pass for each

Engines: ov (OpenVINO f32), ovbf16 (OpenVINO bf16), ovint8 (weights and activations in int8 by NNCF, calibrated on random ids), ort (ONNX
Runtime f32), ort8 (its dynamic int8). Weights are random. Padded batches; throughput counts tokens without padding. One model is loaded at
a time. Needs torch, transformers, onnx, onnxscript, onnxruntime, openvino, nncf.
"""
import argparse
import json
import pathlib
import sys
import time

import numpy as np

SETS = ["1x16", "16x32", "8x128", "2x512", "1x2048", "ragged"]


def chosen():
    path = pathlib.Path(__file__).resolve().parent.parent / "lengths.json"
    entries = [entry for entry in json.loads(path.read_text())["sets"] if entry["name"] in SETS]
    whole = lambda entry: [entry["fixed"]["length"]] * entry["fixed"]["count"] if "fixed" in entry else entry["lengths"]
    return {entry["name"]: whole(entry) for entry in entries}


def inputs(lengths, seed=0):
    rng = np.random.default_rng(seed)
    width = max(lengths)
    ids = rng.integers(100, 16000, (len(lengths), width)).astype(np.int64)
    return ids, (np.arange(width)[None] < np.array(lengths)[:, None]).astype(np.int64)


def export(folder):
    import torch
    from transformers import ModernBertConfig, ModernBertModel

    torch.manual_seed(0)
    config = ModernBertConfig()
    config._attn_implementation = "sdpa"

    class States(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    model = States(ModernBertModel(config).eval())
    folder.mkdir(parents=True, exist_ok=True)
    for name, lengths in chosen().items():
        path = folder / f"{name}.onnx"
        if path.exists():
            continue
        example = tuple(torch.from_numpy(part) for part in inputs(lengths))
        names = dict(input_names=["input_ids", "attention_mask"], output_names=["states"])
        torch.onnx.export(model, example, str(path), dynamo=True, opset_version=20, external_data=True, **names)
        print(path, flush=True)


def load(folder, engine, name, threads):
    path = folder / f"{name}.onnx"
    if engine in ("ort", "ort8"):
        import onnxruntime

        if engine == "ort8":
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantized = folder / f"ort8-{name}.onnx"
            if not quantized.exists():
                quantize_dynamic(path, quantized, weight_type=QuantType.QInt8, use_external_data_format=True)
            path = quantized
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})
    import openvino

    core = openvino.Core()
    if engine == "ovint8":
        quantized = folder / f"ovint8-{name}.xml"
        if not quantized.exists():
            import nncf

            lengths = chosen()[name]
            data = [dict(zip(("input_ids", "attention_mask"), inputs(lengths, seed))) for seed in range(1, 5)]
            model = nncf.quantize(core.read_model(path), nncf.Dataset(data), model_type=nncf.ModelType.TRANSFORMER, subset_size=4)
            openvino.save_model(model, quantized)
        path = quantized
    precision = "bf16" if engine == "ovbf16" else "f32"
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    return lambda ids, mask: compiled([ids, mask])


def turns(folder, engine, threads):
    loaded, run = None, None
    for line in sys.stdin:
        name = line.strip()
        ids, mask = inputs(chosen()[name])
        if name != loaded:
            run = None  # frees the one before
            run = load(folder, engine, name, threads)
            loaded = name
            for _ in range(2):
                run(ids, mask)
        start = time.perf_counter()
        run(ids, mask)
        ms = (time.perf_counter() - start) * 1e3
        print(json.dumps({"set": name, "ms": ms, "tok_s": int(mask.sum()) / ms * 1e3}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["export", "turns"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("engine", nargs="?", choices=["ov", "ovbf16", "ovint8", "ort", "ort8"])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.action == "export":
        export(args.folder)
    else:
        turns(args.folder, args.engine, args.threads)
