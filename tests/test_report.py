"The report through papermill: parameters reach it, results are whole, and bad values stop it with a clear message."
import json
import re
import signal
import subprocess
import sys

import nbformat
import pandas as pd
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError
from readme import ROOT

from tst_mi.analysis import SCHEMA, undocumented
from tst_mi.cli import main
from tst_mi.data import load_dataset
from tst_mi.model import train_checkpoint

QUICK = dict(max_pairs=20, n_boot=200, matchings=2, placebo_runs=4, perturbation_seeds=0, ig_steps=0)


def run(tmp_path, **parameters):
    "Execute the report; the text of its outputs."
    out = tmp_path/"report.ipynb"
    papermill.execute_notebook(str(ROOT/"nbs"/"99_report.ipynb"), str(out), {"out_dir": str(tmp_path/"out"), **QUICK, **parameters}, progress_bar=False)
    outputs = [o for c in nbformat.read(out, 4).cells for o in c.get("outputs", [])]
    return "\n".join(str(o.get("data", {}).get("text/markdown", "")) for o in outputs)


@pytest.fixture(scope="module")
def power_checkpoint(tmp_path_factory):
    "A small model of another bundled dataset: two classes, one channel."
    path = tmp_path_factory.mktemp("model")/"power.safetensors"
    train_checkpoint(load_dataset("ItalyPowerDemand"), path, epochs=30, batch_size=8, lr=3e-3, d_model=16, n_heads=2, n_layers=1, d_ff=32, progress=False)
    return path


def test_the_dataset_parameter_changes_the_dataset(tmp_path, power_checkpoint):
    text = run(tmp_path, dataset="ItalyPowerDemand", checkpoint=str(power_checkpoint))
    assert "# ItalyPowerDemand:" in text and "JapaneseVowels:" not in text
    assert "which class a head carries is not tested" in text
    summary = json.loads((tmp_path/"out"/"ItalyPowerDemand"/"summary.json").read_text())
    assert summary["dataset"] == "ItalyPowerDemand" and len(summary["classes"]) == 2


def test_results_are_whole_and_agree(tmp_path):
    text = run(tmp_path, design="error", seed=3, perturbation_seeds=1, ig_steps=3)
    folder = tmp_path/"out"/"JapaneseVowels"
    tables = ["heads", "pairs", "effects", "power", "variation", "layers", "mlp", "segments", "together", "placebo", "preservation", "stability", "baselines"]
    figures = ["forest", "head_importance", "positions", "graph"]
    names = {"COLUMNS.txt", "summary.json", *(f"{t}.csv" for t in tables), *(f"{f}.{end}" for f in figures for end in ("png", "pdf"))}
    assert {p.name for p in folder.iterdir()} == names
    heads, pairs, summary = pd.read_csv(folder/"heads.csv"), pd.read_csv(folder/"pairs.csv"), json.loads((folder/"summary.json").read_text())
    explained = {name for line in (folder/"COLUMNS.txt").read_text().splitlines() if ": " in line for name in line.split(": ")[0].split(", ")}
    for table in tables:
        if (folder/f"{table}.csv").stat().st_size > 1: assert set(pd.read_csv(folder/f"{table}.csv")) <= explained, table
    assert summary["schema"] == SCHEMA and undocumented(summary) == []
    assert len(heads) == 48 and heads[["mean", "lo", "hi", "q", "verdict"]].notna().to_numpy().all()
    for direction in ("denoising", "noising"):
        found, part = summary["directions"][direction], heads[heads.direction == direction]
        assert found["n"] == (pairs.direction == direction).sum() == part.n.iloc[0]
        assert found["verdicts"] == {**dict.fromkeys(found["verdicts"], 0), **part.verdict.value_counts().to_dict()}
        assert f"**{direction}**" in text
    assert summary["settings"]["seed"] == 3 and summary["settings"]["n_boot"] == 200
    assert all(len(v) == 64 for v in summary["checksums"].values())


def test_same_seed_same_bytes(tmp_path):
    contents = []
    for name in "ab":
        (tmp_path/name).mkdir()
        run(tmp_path/name)
        contents.append([(tmp_path/name/"out"/"JapaneseVowels"/f).read_bytes() for f in ("heads.csv", "pairs.csv", "effects.csv", "summary.json", "forest.pdf")])
    assert contents[0] == contents[1]


@pytest.mark.parametrize("parameters, message", [
    (dict(dataset="JapanesVowels"), "Close: ['JapaneseVowels'"),
    (dict(design="patching"), "one of ['contrast', 'error']"),
    (dict(alpha=2), "alpha is 2; it must lie between 0 and 0.5"),
    (dict(max_pairs="all"), "max_pairs is 'all'; it must be a whole number"),
    (dict(checkpoint="absent.safetensors"), "no checkpoint at absent.safetensors"),
    (dict(data_dir="absent"), "data_dir is 'absent', which is not a folder"),
    (dict(design="error", max_pairs=5), "5 independent triples"),
])
def test_bad_values_stop_with_a_message_and_leave_nothing(tmp_path, parameters, message):
    with pytest.raises(PapermillExecutionError) as error: run(tmp_path, **parameters)
    assert message in str(error.value)
    assert not (tmp_path/"out").exists()


def test_a_checkpoint_of_other_data_is_refused(tmp_path, power_checkpoint):
    with pytest.raises(PapermillExecutionError, match="trained on ItalyPowerDemand, reads"): run(tmp_path, checkpoint=str(power_checkpoint))


def options(**parameters): return [f"--{k}={v}" for k, v in {**QUICK, **parameters}.items()]


def test_the_command_gives_the_same_tables_and_a_page(tmp_path, capsys):
    run(tmp_path, seed=1)
    assert main(["report", "JapaneseVowels", *options(out_dir=tmp_path/"command"), "-p", "seed", "1"]) == 0
    a, b = (tmp_path/folder/"JapaneseVowels" for folder in ("out", "command"))
    assert capsys.readouterr().out == f"Read {b/'report.html'}\n"
    assert {p.name for p in b.iterdir()} == {p.name for p in a.iterdir()} | {"report.ipynb", "report.html"}
    for name in ("heads.csv", "pairs.csv", "summary.json"): assert (a/name).read_bytes() == (b/name).read_bytes()
    page = (b/"report.html").read_text(encoding="utf-8")
    assert "JapaneseVowels: which attention heads" in page and "def say(text)" not in page and "<title>JapaneseVowels: report</title>" in page
    assert not re.search(r"(src|href)=\"?https?://[^\"]*\.(js|css)", page), "the page needs no network"


def test_the_command_says_what_the_notebook_refused_and_leaves_nothing(tmp_path, capsys):
    assert main(["report", "JapaneseVowels", *options(out_dir=tmp_path/"out", design="error", max_pairs=5)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tst_mi: error: design 'error' is not usable for JapaneseVowels") and error.count("\n") == 1
    assert not (tmp_path/"out").exists()


INTERRUPTIBLE = """
import signal, sys
from contextlib import contextmanager
import tst_mi.cli as cli
signal.signal(signal.SIGINT, signal.default_int_handler)
watching = cli._watching
@contextmanager
def aloud(*args):
    with watching(*args) as started: yield lambda **cell: (started(**cell), print("a cell starts", flush=True))
cli._watching = aloud
sys.exit(cli.main())
"""


def test_an_interrupted_report_leaves_no_file(tmp_path):
    words = ["report", "JapaneseVowels", *options(out_dir=tmp_path/"out", matchings=5000)]
    command = subprocess.Popen([sys.executable, "-c", INTERRUPTIBLE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(4): assert command.stdout.readline() == "a cell starts\n"
    command.send_signal(signal.SIGINT)
    _, error = command.communicate(timeout=60)
    assert (command.returncode, error) == (130, "tst_mi: interrupted\n")
    assert not (tmp_path/"out").exists()
