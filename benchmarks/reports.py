"""How long reports take, beside what was foretold, and where the time goes.

    python benchmarks/reports.py                      # every set that is at hand, one after the other
    python benchmarks/reports.py --names LSST --profile

Networks of sets without a checkpoint are trained for a few epochs first, which is not counted. Writes reports.csv (one row per set: sizes,
work, seconds) and, with --profile, profile.csv (seconds of each part) beside this file. Rows that are there already stay, so that it can be interrupted.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import pandas as pd

from tst_mi.cli import _foretell, _kept, report_notebook, report_parameters
from tst_mi.training import SHIPPED, model_for

HERE = Path(__file__).parent
NAMES = ("JapaneseVowels PenDigits LSST BasicMotions ItalyPowerDemand Libras NATOPS GunPoint SwedishLeaf ArticularyWordRecognition Handwriting "
         "ArrowHead UWaveGestureLibrary Adiac FiftyWords ShapesAll").split()


def options(name, epochs):
    "How the model is made."
    return {} if (SHIPPED/f"{name}.safetensors").exists() else dict(epochs=epochs)


def defaults():
    "The report's parameters."
    return {key: value for key, (_, value, _) in report_parameters().items()}


def one(name, epochs):
    "Sizes, work and seconds of the command, as a user gives it."
    made = options(name, epochs)
    model, data, _ = model_for(name, progress=False, **made)
    planned, seconds = _foretell(name, defaults(), made)
    with tempfile.TemporaryDirectory() as out:
        words = [f"--{key}={value}" for key, value in made.items()]
        begun = perf_counter()
        subprocess.run([sys.executable, "-m", "tst_mi.cli", "report", name, "--out_dir", out, *words], check=True, capture_output=True)
        taken = perf_counter() - begun
    n_train, steps, channels = data.X_train.shape
    return dict(dataset=name, train=n_train, test=len(data.X_test), steps=steps, channels=channels, classes=len(data.classes),
                work_asked=round(planned.table.work_asked.sum(), 2), work=round(planned.table.work.sum(), 2), triples=planned.amounts.triples,
                thinned="; ".join(f"{row.part}: {row.done}" for row in planned.thinned.itertuples()), foretold_s=round(sum(seconds.values())), taken_s=round(taken))


def profile(name, epochs):
    "Seconds of each part of the report's notebook, run in this process."
    made = options(name, epochs)
    _, _, info = model_for(name, progress=False, **made)
    given = {"dataset": name, "checkpoint": str(_kept(info)) if made else None}
    values = {"In": [""]}
    rows = []
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as out:
        os.chdir(out)
        try:
            for cell in json.loads(report_notebook().read_text())["cells"]:
                if cell["cell_type"] != "code": continue
                source = "".join(cell["source"])
                part = re.match(r"# part: (\w+)", source)
                begun = perf_counter()
                exec(compile(source.replace("progress=True", "progress=False"), cell["id"], "exec"), values)
                rows.append(dict(dataset=name, part=part[1] if part else "pages and the rest", seconds=perf_counter() - begun))
                if "parameters" in cell["metadata"].get("tags", []): values |= given
        finally: os.chdir(here)
    table = pd.DataFrame(rows).groupby(["dataset", "part"], sort=False, as_index=False).seconds.sum()
    return table.assign(share=(table.seconds/table.seconds.sum()).round(3), seconds=table.seconds.round(1))


def keep(path, table):
    "Rows of these datasets in place of older ones."
    old = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=table.columns)
    pd.concat([old[~old.dataset.isin(table.dataset)], table]).to_csv(path, index=False, lineterminator="\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--names", nargs="*", default=NAMES)
    parser.add_argument("--epochs", type=int, default=5, help="of a training, where there is no checkpoint")
    parser.add_argument("--profile", action="store_true", help="seconds of each part instead")
    parser.add_argument("--again", action="store_true", help="sets that have a row already, too")
    a = parser.parse_args()
    path = HERE/("profile.csv" if a.profile else "reports.csv")
    done = set(pd.read_csv(path).dataset) if path.exists() and not a.again else set()
    for name in a.names:
        if name in done: continue
        table = profile(name, a.epochs) if a.profile else pd.DataFrame([one(name, a.epochs)])
        keep(path, table)
        print(table.to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
