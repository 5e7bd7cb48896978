"""How fast is patching? Rates against a plain forward pass, a hook loop and TransformerLens, in one process on one thread.

    python benchmarks/patching.py                  # prints the tables
    python benchmarks/patching.py --write          # and keeps them beside this file, where nbs/20_patching.ipynb shows them

Jobs are interleaved and repeated; medians are given. A *patched pass* is one (pair, site variant). The bound is what the
multiply-accumulate counts allow if every one of them ran as fast as in the plain pass: it charges the runs of bases and donors.
It fails on nothing. TransformerLens (pip install "transformer-lens>=4.3,<4.4") is measured if it is installed.
"""
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tst_mi import fast, hooks
from tst_mi.model import ModelConfig, TimeSeriesTransformer
from tst_mi.patching import sweep

HERE = Path(__file__).parent
CONFIG = ModelConfig(n_channels=12, length=25, n_classes=10)


def macs(c: ModelConfig) -> dict:
    "Multiply-accumulates: of the pieces of one pass over one series."
    T, D, widths = c.length, c.d_model, (c.n_channels, c.d_model//4, c.d_model//2, c.d_model)
    embed = T*sum(i*o*k for i, o, k in zip(widths, widths[1:], (5, 3, 3)))
    qkv, scores, out, mlp = 3*T*D*D, 2*T*T*D, T*D*D, 2*T*D*c.d_ff
    return dict(embed=embed, qkv=qkv, scores=scores, out=out, mlp=mlp, layer=qkv + scores + out + mlp, plain=embed + c.n_layers*(qkv + scores + out + mlp))


def bound(site: str, c: ModelConfig, traced: int, donors: int) -> float:
    "Patched passes per plain pass that the counts allow; `traced` runs and `donors` sweeps per pair."
    m, L, H, T = macs(c), c.n_layers, c.n_heads, c.length
    per_head = m["out"]/H + m["mlp"]  # through its slice of W_O, then the feed-forward part
    if site == "head":
        patched = sum(H*(per_head + (L - 1 - l)*m["layer"]) for l in range(L))
        n = L*H
    else:  # one token leaves the layer; the next one: that token's q, k, v, its row of scores, the others' share, then all outputs
        next_layer = (m["qkv"] + m["scores"])/T + m["scores"]/2/c.d_model*H*2 + m["out"] + m["mlp"]
        without = T*m["scores"]/2  # attention without each token, once per base and layer
        patched = sum(H*T*(per_head/T + (next_layer + (L - 2 - l)*m["layer"] if l < L - 1 else 0)) + (without if l < L - 1 else 0) for l in range(L))
        n = L*H*T
    return donors*n*m["plain"]/(traced*m["plain"] + donors*patched)


@torch.no_grad()
def hook_loop(model, X, pairs, site, batch):
    "One head (and position) at a time, a batch of pairs per full forward pass."
    for i in range(0, len(pairs), batch):
        x, source = (torch.as_tensor(X[pairs[c].to_numpy()[i:i + batch]]) for c in ("base", "source"))
        kept = {}
        handles = [b.attn.z.register_forward_hook(lambda m, a, z, l=l: kept.update({l: z})) for l, b in enumerate(model.blocks)]
        model(source)
        for h in handles: h.remove()
        for l, block in enumerate(model.blocks):
            for head in range(model.config.n_heads):
                for position in (range(model.config.length) if site == "head_pos" else [slice(None)]):
                    def put(m, a, z):
                        z[:, position, head] = kept[l][:, position, head]
                        return z
                    handle = block.attn.z.register_forward_hook(put)
                    model(x)
                    handle.remove()


def transformer_lens_port(model):
    "The same model with TransformerLens hook points at z; None if TransformerLens is not installed."
    try:
        from transformer_lens import HookedRootModule
        from transformer_lens.hook_points import HookPoint
    except ImportError: return None

    class Port(HookedRootModule):
        def __init__(self):
            super().__init__()
            self.model = TimeSeriesTransformer(model.config)
            self.model.load_state_dict(model.state_dict())
            for block in self.model.blocks: block.attn.z = HookPoint()
            self.setup()
        def forward(self, x): return self.model(x)
    return Port().eval()


@torch.no_grad()
def lens_loop(port, X, pairs, site, batch):
    "The sweep as TransformerLens users write it: run_with_cache, then run_with_hooks for every head (and position)."
    c = port.model.config
    def put(z, hook, donor, head, position):
        z[:, position, head] = donor[:, position, head]
        return z
    for i in range(0, len(pairs), batch):
        x, source = (torch.as_tensor(X[pairs[k].to_numpy()[i:i + batch]]) for k in ("base", "source"))
        names = [f"model.blocks.{l}.attn.z" for l in range(c.n_layers)]
        _, cache = port.run_with_cache(source, names_filter=names)
        for name in names:
            for head in range(c.n_heads):
                for position in (range(c.length) if site == "head_pos" else [slice(None)]):
                    port.run_with_hooks(x, fwd_hooks=[(name, partial(put, donor=cache[name], head=head, position=position))])


def rates(repeats: int, device: str) -> pd.DataFrame:
    "Microseconds per patched pass, and patched passes per plain pass beside their bound."
    torch.manual_seed(0)
    model, rng, n, few = TimeSeriesTransformer(CONFIG).eval().to(device), np.random.default_rng(0), 256, 16
    X = rng.normal(size=(4*n, CONFIG.length, CONFIG.n_channels)).astype(np.float32)
    pairs = pd.DataFrame(np.arange(4*n).reshape(4, n).T, columns=["base", "source", "control", "second"])
    turned = pairs.assign(base=pairs.source, source=pairs.base, control=pairs.second)
    both = pd.concat([pairs, turned]).sort_index(kind="stable").drop(columns="second")  # a pair and its reversal share a chunk's runs
    heads, all_ = CONFIG.n_layers*CONFIG.n_heads, CONFIG.n_layers*CONFIG.n_heads*CONFIG.length
    X_device = torch.as_tensor(X[:n], device=device)
    def plain(batch):
        with torch.inference_mode():
            for x in X_device.split(batch): model(x)
    jobs = {("plain pass", f"batch {b}"): (partial(plain, b), n, None) for b in (8, 16, 32, 64, 128, 256)}
    jobs[("head sweep", "one direction")] = (lambda: sweep(model, X, pairs, donors=("source",)), heads*n, bound("head", CONFIG, 2, 1))
    jobs[("head sweep", "source and control")] = (lambda: sweep(model, X, pairs), 2*heads*n, bound("head", CONFIG, 3, 2))
    jobs[("head sweep", "both directions, source and control")] = (lambda: sweep(model, X, both[:n]), 2*heads*n, bound("head", CONFIG, 2, 2))
    jobs[("head x position sweep", "one direction")] = (lambda: sweep(model, X, pairs[:few], "head_pos", donors=("source",)), all_*few, bound("head_pos", CONFIG, 2, 1))
    if device == "cpu":
        port = transformer_lens_port(model)
        for batch in (16, 64):
            jobs[("hook loop, heads", f"batch {batch}")] = (lambda b=batch: hook_loop(model, X, pairs[:64], "head", b), heads*64, None)
            if port: jobs[("TransformerLens, heads", f"batch {batch}")] = (lambda b=batch: lens_loop(port, X, pairs[:64], "head", b), heads*64, None)
        jobs[("hook loop, heads x positions", "batch 16")] = (lambda: hook_loop(model, X, pairs[:few], "head_pos", few), all_*few, None)
        if port: jobs[("TransformerLens, heads x positions", "batch 16")] = (lambda: lens_loop(port, X, pairs[:few], "head_pos", few), all_*few, None)
    times = {k: [] for k in jobs}
    for r in range(repeats + 1):  # the first round warms up
        for k, (f, count, _) in jobs.items():
            start = time.perf_counter(); f()
            if device != "cpu": torch.cuda.synchronize()
            times[k].append((time.perf_counter() - start)/count*1e6)
        print(f"round {r} of {repeats}", file=sys.stderr, flush=True)
    table = pd.DataFrame([(*k, np.median(v[1:]), jobs[k][2]) for k, v in times.items()], columns=["job", "variant", "us_per_pass", "bound"])
    table["passes_per_plain"] = table[table.job == "plain pass"].us_per_pass.min()/table.us_per_pass
    table["share_of_bound"] = table.passes_per_plain/table.bound
    return table


@torch.inference_mode()
def where_time_goes(repeats: int) -> pd.DataFrame:
    "Microseconds per patched pass of the pieces of a head x position sweep, on the middle layer's shapes; CPU."
    torch.manual_seed(0)
    torch.zeros(7*2**20)  # once freed, the C library keeps memory of this size instead of asking the system anew, as it does during a sweep
    model, H, T = TimeSeriesTransformer(CONFIG).eval(), CONFIG.n_heads, CONFIG.length
    layers, last, _ = hooks._trace(model, torch.randn(2, T, CONFIG.n_channels), None)
    base, donor = ([hooks.Trace(*(v[i:i + 1] for v in layer)) for layer in layers] for i in (0, 1))
    block, at = model.blocks[1], torch.arange(2**18//(T*CONFIG.d_model)//H)
    leaving = fast._head_stream(model.blocks[0], base[0], donor[0])
    stream = fast._attend_one(block, base[1], leaving[:, :, at], None, at)
    rows = stream.flatten(0, 2)
    qkv = block.attn.qkv(block.attention_input(base[1].x))
    own = tuple(w.unflatten(2, (H, len(at))) for w in block.attn.qkv(block.attention_input(leaving[:, :, at]).flatten(1, 2)))
    pieces = {"patched layer, its own token (per position)": (lambda: fast._head_stream(block, base[0], donor[0]), H*T),
              "next layer, one token changed: all": (lambda: fast._attend_one(block, base[1], leaving[:, :, at], None, at), len(rows)),
              "next layer: attention without each position": (lambda: fast._without_each(*qkv, None, at), len(rows)),
              "next layer: the changed token's q, k, v and own attention": (lambda: (block.attn.qkv(leaving[:, :, at].flatten(1, 2)), fast._own_attention(*own, *qkv[1:], None, at)), len(rows)),
              "next layer: output projection": (lambda: block.attn.out_proj(rows), len(rows)),
              "next layer: feed-forward part": (lambda: block.mlp(rows), len(rows)),
              "next layer: two normalisations": (lambda: block.finish(rows, rows) if block.norm_first else (block.norm1(rows), block.norm2(rows)), len(rows)),
              "later layer, all of it": (lambda: block(rows), len(rows)),
              "plain pass": (lambda: model(torch.zeros(len(rows), T, CONFIG.n_channels)), len(rows))}
    times = {k: [] for k in pieces}
    for _ in range(repeats*20):
        for k, (f, count) in pieces.items():
            start = time.perf_counter(); f(); times[k].append((time.perf_counter() - start)/count*1e6)
    return pd.DataFrame([(k, np.median(v[5:])) for k, v in times.items()], columns=["piece", "us_per_pass"])


def memory(n_pairs: int) -> dict:
    "Seconds and peak memory of a head sweep, in a process of its own."
    program = f"""
import json, resource, time, numpy as np, pandas as pd, torch
from tst_mi.model import ModelConfig, TimeSeriesTransformer
from tst_mi.patching import sweep
model = TimeSeriesTransformer(ModelConfig(12, 25, 10)).eval()
X = np.random.default_rng(0).normal(size=(2000, 25, 12)).astype(np.float32)
pairs = pd.DataFrame(np.random.default_rng(1).integers(0, 2000, ({n_pairs}, 2)), columns=["base", "source"])
sweep(model, X, pairs[:64], donors=("source",))
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
t = time.perf_counter()
s = sweep(model, X, pairs, donors=("source",))
t = time.perf_counter() - t
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(dict(pairs={n_pairs}, seconds=t, result_mb=s.patched["source"].nbytes/2**20, peak_mb=peak/2**10, peak_before_mb=start/2**10)))
"""
    return json.loads(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="rounds, besides one to warm up")
    parser.add_argument("--write", action="store_true", help="keep the tables as CSV beside this file")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tables = {"patching": rates(args.repeats, args.device), "patching_pieces": where_time_goes(args.repeats), "patching_memory": pd.DataFrame([memory(n) for n in (1000, 10000)])}
    for name, t in tables.items():
        print(t.round(3).to_string(index=False), end="\n\n")
        if args.write: t.round(4).to_csv(HERE/f"{name}{'' if args.device == 'cpu' else '_' + args.device}.csv", index=False)


if __name__ == "__main__": main()
