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

from tst_mi import baselines, perturbations, stability
from tst_mi.analysis import COLUMNS, SCHEMA, undocumented
from tst_mi.artifacts import differing, manifest
from tst_mi.cli import LEAVABLE, main
from tst_mi.data import load_dataset
from tst_mi.training import train_checkpoint

QUICK = dict(max_pairs=32, n_boot=200, matchings=2, control_runs=1, placebo_runs=2, perturbation_seeds=0, ig_steps=0, leave_out="frozen")


def run(tmp_path, **parameters):
    "Execute the report; the text of its outputs."
    out = tmp_path/"report.ipynb"
    papermill.execute_notebook(str(ROOT/"nbs"/"99_report.ipynb"), str(out), {"out_dir": str(tmp_path/"out"), **QUICK, **parameters}, progress_bar=False)
    outputs = [o for c in nbformat.read(out, 4).cells for o in c.get("outputs", [])]
    return "\n".join(str(o.get("data", {}).get("text/markdown", "")) for o in outputs)


def sections(text):
    "COLUMNS.txt as file -> column -> meaning."
    found = {}
    for block in text.strip().split("\n\n")[1:]:
        lines = block.splitlines()
        if lines == ["(empty)"]: continue
        if len(lines) == 1 and ": " not in lines[0]: here = found.setdefault(lines[0], {})
        else: here.update({name: line.split(": ", 1)[1] for line in lines if ": " in line for name in line.split(": ", 1)[0].split(", ")})
    return found


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
    text = run(tmp_path, design="error", seed=3, perturbation_seeds=1, ig_steps=3, leave_out="")
    folder = tmp_path/"out"/"JapaneseVowels"
    tables = ["heads", "frozen", "matchings", "pairs", "effects", "power", "variation", "layers", "mlp", "segments", "together", "controls", "placebo", "preservation", "stability", "baselines"]
    figures = ["forest", "head_importance", "positions", "graph"]
    names = {"COLUMNS.txt", "manifest.json", "summary.json", *(f"{t}.csv" for t in tables), *(f"{f}.{end}" for f in figures for end in ("png", "pdf"))}
    assert {p.name for p in folder.iterdir()} == names
    heads, pairs, summary = pd.read_csv(folder/"heads.csv"), pd.read_csv(folder/"pairs.csv"), json.loads((folder/"summary.json").read_text())
    assert differing(folder) == [] and set(manifest(folder)) == names - {"manifest.json"}
    explained = sections((folder/"COLUMNS.txt").read_text())
    assert list(explained) == [f"{t}.csv" for t in tables] + [f"summary.json (schema {SCHEMA})"]
    for table in tables:
        if (folder/f"{table}.csv").stat().st_size > 1: assert set(pd.read_csv(folder/f"{table}.csv")) == set(explained[f"{table}.csv"]), table
    def meaning(page, column): return next(m for names, m in page.items() if column in names.split(", "))
    for table, page in (("stability", stability.COLUMNS), ("baselines", baselines.COLUMNS), ("preservation", perturbations.COLUMNS), ("heads", COLUMNS), ("pairs", COLUMNS), ("variation", COLUMNS)):
        known = [column for names in page for column in names.split(", ")]
        for column, told in explained[f"{table}.csv"].items(): assert column not in known or told == meaning(page, column), (table, column)
    assert explained["stability.csv"]["n"] != explained["heads.csv"]["n"] != explained["placebo.csv"]["n"]
    assert "added last" in explained["together.csv"]["layer"] and "all rows" in explained["layers.csv"]["band_lo"]
    assert summary["schema"] == SCHEMA and undocumented(summary) == []
    assert len(heads) == 48 and heads[["mean", "lo", "hi", "verdict"]].notna().to_numpy().all()
    assert heads[["p", "q", "p_max_t"]].isna().to_numpy().all()   # at most nine errors, and in noising the model chose the donors
    assert heads.groupby("direction").verdict.unique().map(list).to_dict() == {"denoising": ["untestable: few units"], "noising": ["untestable: selection"]}
    for direction in ("denoising", "noising"):
        found, part = summary["directions"][direction], heads[heads.direction == direction]
        assert found["n"] == (pairs.direction == direction).sum() == part.n.iloc[0]
        assert found["verdicts"] == {**dict.fromkeys(found["verdicts"], 0), **part.verdict.value_counts().to_dict()}
        assert f"**{direction}**" in text
    assert summary["settings"]["seed"] == 3 and summary["settings"]["n_boot"] == 200
    assert all(len(v) == 64 for v in summary["checksums"].values())


def test_a_small_budget_thins_and_says_so(tmp_path):
    text = run(tmp_path, max_pairs=200, budget=.05, matchings=8, leave_out="frozen power growth perturbations baselines")
    folder = tmp_path/"out"/"JapaneseVowels"
    work = json.loads((folder/"summary.json").read_text())["work"]
    assert work["budget"] == .05 and work["done"] < work["asked"] and {"matchings", "time"} <= set(work["thinned"])
    assert work["thinned"]["time"]["done"].startswith("stretches") and "each stretch was patched at once" in text and "Thinned (" in text
    segments, heads = pd.read_csv(folder/"segments.csv"), pd.read_csv(folder/"heads.csv")
    assert len(segments) == 5*24 and segments["last"].max() == 25 and segments.n.iloc[0] >= 30 and heads.n.iloc[0] >= 60
    assert pd.read_csv(folder/"matchings.csv").matchings.iloc[0] == 2 and not (folder/"positions.png").exists() and (folder/"graph.png").exists()


def test_every_part_can_be_left_out(tmp_path):
    text = run(tmp_path, leave_out=", ".join(LEAVABLE))
    folder = tmp_path/"out"/"JapaneseVowels"
    empty = {path.stem for path in folder.glob("*.csv") if path.stat().st_size < 2}
    assert empty >= {"frozen", "matchings", "controls", "placebo", "layers", "mlp", "segments", "together", "preservation", "stability", "baselines"}
    assert "Time is left out by name." in text and "Not compared with a frozen random network: left out by name." in text and "**Controls**: left out by name." in text
    work = json.loads((folder/"summary.json").read_text())["work"]
    assert 0 < work["done"] == work["asked"] < .1 and work["thinned"] == {} and len(pd.read_csv(folder/"heads.csv")) == 24   # of the heads alone


def test_same_seed_same_bytes(tmp_path):
    contents = []
    for name in "ab":
        (tmp_path/name).mkdir()
        run(tmp_path/name)
        contents.append([(tmp_path/name/"out"/"JapaneseVowels"/f).read_bytes() for f in ("heads.csv", "pairs.csv", "effects.csv", "summary.json", "forest.pdf")])
    assert contents[0] == contents[1]


# the same function judges the values for the command, where many more are tried: tests/test_bad_options.py
@pytest.mark.parametrize("parameters, message", [
    (dict(dataset="JapanesVowels"), "Close: ['JapaneseVowels'"),
    (dict(checkpoint="absent.safetensors"), "no checkpoint at absent.safetensors"),
    (dict(design="error", max_pairs=5), "5 independent triples"),
    (dict(datset="LSST"), "datset: the report has no such parameter; it has dataset, seed, design"),
    (dict(dataset=2024), "(in papermill, -r dataset 2024)"),
])
def test_bad_values_stop_with_a_message_and_leave_nothing(tmp_path, parameters, message):
    with pytest.raises(PapermillExecutionError) as error: run(tmp_path, **parameters)
    assert message in error.value.evalue and "\n" not in error.value.evalue
    assert not (tmp_path/"out").exists()


def test_a_copy_of_the_notebook_knows_its_parameters_too(tmp_path):
    notebook = nbformat.read(ROOT/"nbs"/"99_report.ipynb", 4)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    notebook.cells[place].source += "\ncolour = 'blue'"
    notebook.cells.insert(0, nbformat.v4.new_code_cell("shade = 1"))
    notebook.cells = notebook.cells[:place + 4]   # up to the checks
    notebook.cells[-1].source = notebook.cells[-1].source.split("model, data")[0]
    nbformat.write(notebook, tmp_path/"copy.ipynb")
    def execute(**given): return papermill.execute_notebook(str(tmp_path/"copy.ipynb"), None, {"out_dir": str(tmp_path/"out"), **given}, progress_bar=False)
    execute(colour="red")
    with pytest.raises(PapermillExecutionError, match="color: the report has no such parameter.*did you mean colour") as error: execute(color="red")
    assert error.value.ename == "ValueError"


def test_a_checkpoint_of_other_data_is_refused(tmp_path, power_checkpoint):
    with pytest.raises(PapermillExecutionError, match="trained on ItalyPowerDemand, reads"): run(tmp_path, checkpoint=str(power_checkpoint))


def options(**parameters): return [f"--{k}={v}" for k, v in {**QUICK, **parameters}.items()]


def test_the_command_gives_the_same_tables_and_a_page_and_they_go_together(tmp_path, capsys, monkeypatch):
    run(tmp_path, seed=1)
    monkeypatch.chdir(tmp_path)
    assert main(["report", "JapaneseVowels", *options(out_dir="command"), "-p", "seed", "1"]) == 0
    a, b = (tmp_path/folder/"JapaneseVowels" for folder in ("out", "command"))
    assert capsys.readouterr().out == "Read command/JapaneseVowels/report.html\n"
    assert {p.name for p in b.iterdir()} == {p.name for p in a.iterdir()} | {"report.ipynb", "report.html"}
    assert set(manifest(a)) | {"report.ipynb", "report.html"} == set(manifest(b)) and differing(a) == differing(b) == []
    for name in manifest(a): assert (a/name).read_bytes() == (b/name).read_bytes() or name.endswith(".pdf"), name
    page, notebook = (b/"report.html").read_text(encoding="utf-8"), (b/"report.ipynb").read_text(encoding="utf-8")
    assert "JapaneseVowels: which attention heads" in page and "def say(text)" not in page and "<title>JapaneseVowels: report</title>" in page
    assert not re.search(r"(src|href)=\"?https?://[^\"]*\.(js|css)", page), "the page needs no network"
    assert ".partial-" not in page + notebook and "command/JapaneseVowels" in page
    assert json.loads(notebook)["metadata"]["papermill"]["parameters"]["out_dir"] == "command" and 'out_dir = \\"command\\"' in notebook
    (b/"notes.txt").write_text("mine")
    run(tmp_path, seed=2, out_dir=str(tmp_path/"command"))   # tables of another run: the page of the first one goes, notes stay
    assert {p.name for p in b.iterdir()} == {p.name for p in a.iterdir()} | {"notes.txt"} and differing(b) == []
    assert [p.name for p in (tmp_path/"command").iterdir()] == ["JapaneseVowels"]


def after_the_forecast(error):
    "What stands on stderr after the line, or lines, that foretell how long it will take."
    lines = error.splitlines(keepends=True)
    assert lines[0].startswith("JapaneseVowels: about ")
    return "".join(line for line in lines[1:] if not line.startswith(("within a budget", "  ")) or "Traceback" in error)


def test_the_command_says_what_the_notebook_refused_and_leaves_nothing(tmp_path, capsys):
    assert main(["report", "JapaneseVowels", *options(out_dir=tmp_path/"out", design="error", max_pairs=5)]) == 2
    error = after_the_forecast(capsys.readouterr().err)
    assert error.startswith("tst_mi: error: design 'error' is not usable for JapaneseVowels") and error.count("\n") == 1
    assert not (tmp_path/"out").exists()


def with_cell(source, before, tmp_path, monkeypatch):
    "The command runs a report that has one cell more, before the one that begins so."
    notebook = nbformat.read(ROOT/"nbs"/"99_report.ipynb", 4)
    place = next(i for i, cell in enumerate(notebook.cells) if cell.source.startswith(before))
    notebook.cells.insert(place, nbformat.v4.new_code_cell(source))
    nbformat.write(notebook, tmp_path/"99_report.ipynb")
    monkeypatch.setattr("tst_mi.cli.report_notebook", lambda: tmp_path/"99_report.ipynb")


@pytest.mark.parametrize("raised, code, told", [
    ("ValueError(f'in {out_dir}/JapaneseVowels: too few')", 2, "tst_mi: error: in {out}/JapaneseVowels: too few\n"),
    ("OSError(28, 'No space left on device', f'{out_dir}/a.csv')", 2, "tst_mi: error: [Errno 28] No space left on device: '{out}/a.csv'\n"),
    ("RuntimeError(f'unforeseen in {out_dir}')", 3, "Traceback"),
])
def test_errors_inside_the_notebook(raised, code, told, tmp_path, monkeypatch, capsys):
    with_cell(f"raise {raised}", "# part: heads", tmp_path, monkeypatch)
    out = tmp_path/"out"
    assert main(["report", "JapaneseVowels", *options(out_dir=out)]) == code
    error = after_the_forecast(capsys.readouterr().err)
    assert ".partial-" not in error and not out.exists()
    if code == 2: assert error == told.format(out=out)
    else: assert error.startswith(told) and f"unforeseen in {out}" in error


def test_a_disk_that_fills_up_leaves_the_last_report_and_one_clear_line(tmp_path, monkeypatch, capsys):
    "On a disk of 64 MB, where one can be made; it fills up while the notebook runs."
    disk = tmp_path/"disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True).returncode == 0
    if not mounted: pytest.skip("only root can make a small disk")
    try:
        assert main(["report", "JapaneseVowels", *options(out_dir=disk)]) == 0
        before = {p.name: p.read_bytes() for p in (disk/"JapaneseVowels").iterdir()}
        fill = f"import shutil\nwith open('{disk}/other', 'wb') as file: file.write(bytes(shutil.disk_usage('{disk}').free - 300_000))"
        with_cell(fill, "tables = {", tmp_path, monkeypatch)
        capsys.readouterr()
        assert main(["report", "JapaneseVowels", *options(out_dir=disk, seed=1)]) == 2
        error = after_the_forecast(capsys.readouterr().err)
        assert error.startswith("tst_mi: error: the disk is full: ") and error.count("\n") == 1 and ".partial-" not in error and "stays as it was" in error
        assert {p.name: p.read_bytes() for p in (disk/"JapaneseVowels").iterdir()} == before
        assert sorted(p.name for p in disk.iterdir()) == ["JapaneseVowels", "other"]
    finally: subprocess.run(["umount", str(disk)], check=True)


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
    assert (command.returncode, after_the_forecast(error)) == (130, "tst_mi: interrupted\n")
    assert not (tmp_path/"out").exists()
