"A model that is made as the command line says, and what is seen of it in a terminal."
import io
import os
import pty
import termios
from contextlib import contextmanager
from threading import Thread

import nbformat
import pandas as pd
import pytest
from readme import ROOT

from tst_mi import cli
from tst_mi.cli import main
from tst_mi.training import load_checkpoint

MADE = dict(  # every option, none as it is by default
    length=12, method="fourier", standardise=False, reindex=True, max_length=100, training_seed=1, epochs=2, patience=1, criterion="accuracy", lr=.01, weight_decay=0.,
    batch_size=16, share=.3, device="cpu", d_model=8, n_heads=2, n_layers=1, d_ff=8, dropout=0., norm_first=True, activation="gelu", pooling="mean")
WORDS = [f"--{name}={value}" for name, value in MADE.items()]


@pytest.fixture
def models(tmp_path, monkeypatch):
    "The checkpoints in a cache of its own."
    monkeypatch.setenv("TST_MI_CACHE", str(tmp_path/"cache"))
    return lambda: sorted((tmp_path/"cache").rglob("*.safetensors"))


@contextmanager
def terminal(monkeypatch):
    "stderr is a terminal of 120 columns; yields what collects the text that is seen."
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 120))
    seen = io.BytesIO()
    def read():
        while True:
            try: seen.write(os.read(parent, 1 << 16))
            except OSError: return   # nobody writes any more
    reader = Thread(target=read, daemon=True)
    reader.start()
    with monkeypatch.context() as patched, os.fdopen(child, "w") as stderr:
        patched.setattr("sys.stderr", stderr)
        yield lambda: (reader.join(20), seen.getvalue().decode())[1]
    reader.join(20)
    os.close(parent)


def test_every_option_is_tried(): assert list(MADE) == list(cli._model_options())


def test_a_look_makes_no_model_unless_it_is_told_to(models, capsys):
    words = ["datasets", "ItalyPowerDemand", "--csv", *WORDS]
    def look(*more):
        assert main([*words, *more]) == 0
        return pd.read_csv(io.StringIO(capsys.readouterr().out))
    before = look()
    assert models() == []
    trained, after = look("--train"), look()
    assert before.accuracy.isna().all() and before.note.notna().sum() == 2 and before.triples.notna().sum() == 1
    pd.testing.assert_frame_equal(trained, after)
    assert after.accuracy.notna().all() and (after.steps == 12).all() and after.triples[0] == before.triples[0]
    _, info = load_checkpoint(models()[0])
    recorded = {**info["training"], **info["config"], **info["data_settings"], "training_seed": info["seed"]}
    assert {name: recorded[name] for name in MADE if name != "max_length"} == {name: value for name, value in MADE.items() if name != "max_length"}
    assert main(["calibrate", "ItalyPowerDemand", "--replicates=2", "--max_pairs=60", "--n_flips=200", *WORDS]) in (0, 1)
    assert len(models()) == 1


LOOP = """
import time
from tst_mi.artifacts import bar
for _ in bar(range(40), what='patching head', progress=True): time.sleep(.1)
raise ValueError('that is all')
"""


def test_a_terminal_shows_how_far_a_loop_of_the_report_is(tmp_path, monkeypatch):
    notebook = nbformat.read(ROOT/"nbs"/"99_report.ipynb", 4)
    place = next(i for i, cell in enumerate(notebook.cells) if cell.source.startswith("# part: heads"))
    notebook.cells.insert(place, nbformat.v4.new_code_cell(LOOP))
    nbformat.write(notebook, tmp_path/"99_report.ipynb")
    monkeypatch.setattr("tst_mi.cli.report_notebook", lambda: tmp_path/"99_report.ipynb")
    with terminal(monkeypatch) as seen:
        assert main(["report", "JapaneseVowels", f"--out_dir={tmp_path/'out'}"]) == 2
    text = seen()
    assert ", analysing, patching head " in text and "/40, 00:0" in text and " left]" in text
    assert text.splitlines()[-1].endswith("tst_mi: error: that is all")
