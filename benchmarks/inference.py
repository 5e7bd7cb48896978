"""Sign-flips with max-T and the studentised bootstrap of 24 heads x 1,000 pairs, against a loop over heads and resamples.

    OMP_NUM_THREADS=1 python benchmarks/inference.py

Writes inference.csv beside this file: medians of interleaved runs in one process on one thread, and peak memory.
"""
import argparse
import csv
import tracemalloc
from pathlib import Path
from time import perf_counter

import numpy as np

from tst_mi.bootstrap import bootstrap
from tst_mi.flips import sign_flip


def plain_bootstrap(x, n_boot):
    "Percentile limits, one head and one resample at a time: what a first draft would do."
    limits = []
    for column in x.T:
        means = [np.random.choice(column, len(column)).mean() for _ in range(n_boot)]
        limits.append(np.quantile(means, [.025, .975]))
    return np.array(limits)


def plain_flips(x, n_flips):
    "p-values and single-step max-T, one head and one pattern at a time."
    flipped = np.array([[abs((column*np.random.choice([-1, 1], len(column))).sum()) for _ in range(n_flips)] for column in x.T])
    scale = np.sqrt((x**2).sum(0))
    seen = abs(x.sum(0))
    return (flipped >= seen[:, None]).mean(1), ((flipped/scale[:, None]).max(0) >= (seen/scale)[:, None]).mean(1)


def timed(f):
    start = perf_counter()
    f()
    return perf_counter() - start


def peak(f):
    tracemalloc.start()
    f()
    top = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return top/2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--heads", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=10_000, help="resamples, and flips")
    parser.add_argument("--repeats", type=int, default=9, help="runs of the vectorised version")
    parser.add_argument("--plain", type=int, default=3, help="runs of the plain loop, interleaved")
    parser.add_argument("--out", default=Path(__file__).with_name("inference.csv"))
    a = parser.parse_args()
    x = np.random.default_rng(0).normal(size=(a.pairs, a.heads)) + .05
    ours = {"bootstrap": lambda: bootstrap(x, n_boot=a.draws), "sign_flip": lambda: sign_flip(x, n_flips=a.draws)}
    plain = {"bootstrap": lambda: plain_bootstrap(x, a.draws), "sign_flip": lambda: plain_flips(x, a.draws)}
    times = {k: {"ours": [], "plain": []} for k in ours}
    for k in ours: ours[k]()  # warm
    for r in range(a.repeats):
        for k in ours:
            times[k]["ours"].append(timed(ours[k]))
            if r < a.plain: times[k]["plain"].append(timed(plain[k]))
    memory = {k: peak(ours[k]) for k in ours}
    wide = np.random.default_rng(1).normal(size=(200, 24*36))
    memory_wide = peak(lambda: (bootstrap(wide, n_boot=a.draws), sign_flip(wide, n_flips=a.draws)))
    rows = [(k, *(np.median(t[v]) for v in ("ours", "plain")), memory[k]) for k, t in times.items()]
    rows.append(("together", sum(r[1] for r in rows), sum(r[2] for r in rows), max(memory.values())))
    with open(a.out, "w", newline="") as f:
        out = csv.writer(f)
        out.writerow(["procedure", "seconds", "plain_loop_seconds", "ratio", "peak_MiB"])
        for name, s, p, m in rows: out.writerow([name, f"{s:.3f}", f"{p:.1f}", f"{p/s:.0f}", f"{m:.0f}"])
        out.writerow(["864 head-positions x 200 pairs", "", "", "", f"{memory_wide:.0f}"])
    print(Path(a.out).read_text())


if __name__ == "__main__": main()
