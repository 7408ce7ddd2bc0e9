"""packed-encoders (the strongest Python runtime for ModernBERT) on the sets of benches/lengths.json: inference and an MLM training step.

    python3 benches/peers/packed_encoders.py benches/lengths.json inference,training,latency [--shape base] [--sets fixed-512,...] [--json F]
"""
import argparse, json, statistics, time, torch
import torch.nn.functional as F
from transformers import ModernBertConfig, ModernBertForMaskedLM
import packed_encoders as pe
from packed_encoders.config import ModernBertParams
from packed_encoders.forward import packed_forward

p = argparse.ArgumentParser()
p.add_argument("lengths"); p.add_argument("what"); p.add_argument("--shape", default="base"); p.add_argument("--sets", default="fixed-512,fixed-8192,variable-256,variable-4096")
p.add_argument("--tokens", type=int, default=65536); p.add_argument("--json"); p.add_argument("--backends", default="auto,flash")
a = p.parse_args()
SHAPES = {"base": {}, "large": dict(hidden_size=1024, intermediate_size=2624, num_attention_heads=16, num_hidden_layers=28)}

def timed(call, warm, runs):
    for _ in range(warm): call()
    torch.cuda.synchronize(); out = []
    for _ in range(runs):
        s, e = torch.cuda.Event(True), torch.cuda.Event(True); s.record(); call(); e.record(); torch.cuda.synchronize(); out.append(s.elapsed_time(e))
    return statistics.median(out)

def batches():
    for entry in json.load(open(a.lengths))["sets"]:
        if entry["name"] not in a.sets.split(","): continue
        f = entry.get("fixed"); docs = [f["length"]] * f["count"] if f else entry["lengths"]; ls, t = [], 0
        for l in docs:
            if t + l > a.tokens: break
            t += l; ls.append(l)
        yield entry["name"], ls

rows = []
def note(**r): rows.append(r); print(json.dumps(r), flush=True)
def packed(ls):
    cu = torch.tensor([0] + ls, device="cuda").cumsum(0).to(torch.int32); ids = torch.randint(100, 16000, (sum(ls),), device="cuda")
    return ids, cu, max(ls), torch.cat([torch.arange(l, device="cuda") for l in ls])

def make(dtype, train, backend, **kw):
    torch.manual_seed(0); cfg = ModernBertConfig(**SHAPES[a.shape]); cfg._attn_implementation = "sdpa"; cfg.global_attn_every_n_layers = 3  # transformers 5.10 and later no longer have it
    m = ModernBertForMaskedLM(cfg).to(dtype).cuda(); m = m.train() if train else m.eval()
    pe.pack(m.model, attention_backend=backend, validate=False, **kw); return m, ModernBertParams.from_hf_config(m.config)

for what in a.what.split(","):
    for backend in a.backends.split(","):
        try:
            if what == "inference":
                m, par = make(torch.bfloat16, False, backend)
                for name, ls in batches():
                    ids, cu, mx, pos = packed(ls)
                    with torch.no_grad(): ms = timed(lambda: packed_forward(m.model, par, ids, cu, mx, pos), 5, 10)
                    note(peer="packed-encoders", what=what, backend=backend, set=name, ms=ms, tok_s=sum(ls) / ms * 1e3)
                del m
            if what == "latency":
                for graph in (False, True):
                    kw = dict(cuda_graph=pe.GraphConfig(pad_to=64, max_batch=64, max_seq=128, max_graphs=32)) if graph else {}
                    m, par = make(torch.bfloat16, False, backend, **kw)
                    for ls in ([16], [32], [32] * 8, [128] * 8, [32] * 64, [40] * 64, [512]):
                        if graph and max(ls) > 128: continue
                        ids, cu, mx, pos = packed(ls)
                        def call():
                            packed_forward(m.model, par, ids, cu, mx, pos); torch.cuda.synchronize()
                        with torch.no_grad():
                            for _ in range(10): call()
                            ts = []
                            for _ in range(50): t = time.perf_counter(); call(); ts.append((time.perf_counter() - t) * 1e3)
                        note(peer="packed-encoders", what=what, backend=backend, graph=graph, set=f"{len(ls)}x{ls[0]}", ms=statistics.median(ts))
                    del m
            if what == "training":
                m, par = make(torch.float32, True, backend)
                opt = torch.optim.AdamW(m.parameters(), lr=1e-4, fused=True)
                for name, ls in batches():
                    ids, cu, mx, pos = packed(ls); n = int(sum(ls) * 0.3); lab = torch.randperm(sum(ls), device="cuda")[:n].sort().values; y = ids[lab]
                    def step():
                        with torch.autocast("cuda", dtype=torch.bfloat16):
                            h = packed_forward(m.model, par, ids, cu, mx, pos)
                            loss = F.cross_entropy(m.decoder(m.head(h[lab])).float(), y)
                        loss.backward(); opt.step(); opt.zero_grad(set_to_none=True)
                    torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats(); ms = timed(step, 4, 8)
                    note(peer="packed-encoders", what=what, backend=backend, set=name, ms=ms, tok_s=sum(ls) / ms * 1e3, peak_mib=torch.cuda.max_memory_reserved() / 2**20)
                del m, opt
        except Exception as e:
            import traceback; traceback.print_exc(limit=-3); print(what, backend, "failed:", type(e).__name__, str(e)[:600], flush=True)
        torch.cuda.empty_cache()
if a.json: json.dump(rows, open(a.json, "w"), indent=1)
