"A run that is killed at any moment leaves the old set of results, or the new one; and the next run clears up after it."
import json
import os
import random
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
from readme import ROOT

import tst_mi.training
from tst_mi.artifacts import LEFTOVER, MANIFEST, _host, differing, manifest, publish, recover
from tst_mi.cli import main
from tst_mi.training import model_for

FULL = os.environ.get("TST_MI_TRIALS") == "full"
REPORT = {"max_pairs": 20, "n_boot": 200, "matchings": 0, "control_runs": 0, "placebo_runs": 0, "perturbation_seeds": 0, "ig_steps": 0, "leave_out": "frozen"}
LOOP = """
import sys
from pathlib import Path
from tst_mi.artifacts import publish
def files(run): return {"heads.txt": f"run {run}", "report.html": f"run {run}", f"only{run % 2}.txt": f"run {run}", "summary.json": {"run": run}}
print("begins", flush=True)
for run in range(int(sys.argv[2]), 10**9): publish(Path(sys.argv[1]), files(run))
"""


def files(run):
    "A set of which every file says the run, and one file comes and goes."
    return {"heads.txt": f"run {run}", "report.html": f"run {run}", f"only{run % 2}.txt": f"run {run}", "summary.json": {"run": run}}


def publish_and_die(folder, run, step):
    "Publish in a process of its own that is killed just before its n-th change of the disk; was it?"
    process = os.fork()
    if process: return os.waitpid(process, 0)[1] == signal.SIGKILL
    seen = 0
    def die(event, arguments):
        nonlocal seen
        changes = event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link") or event == "open" and arguments[1] in ("w", "wb")
        seen += changes
        if changes and seen == step: os.kill(os.getpid(), signal.SIGKILL)
    try:
        sys.addaudithook(die)
        publish(folder, files(run))
    finally: os._exit(0)


def leftovers(folder): return [p.name for p in folder.iterdir() if LEFTOVER.fullmatch(p.name)]


def run_of(folder):
    "The number of the run that wrote a set, after checks that all of it is of one run."
    assert differing(folder) == []
    run = json.loads((folder/"summary.json").read_text())["run"]
    assert set(manifest(folder)) == {"heads.txt", "report.html", f"only{run % 2}.txt", "summary.json"}
    assert {p.name for p in folder.iterdir()} == {*manifest(folder), MANIFEST, "notes.txt"}
    for name in ("heads.txt", "report.html", f"only{run % 2}.txt"): assert (folder/name).read_text() == f"run {run}"
    assert (folder/"notes.txt").read_text() == "mine"
    return run


def start(folder):
    "A folder of results with a user's notes in it."
    publish(folder, files(0))
    (folder/"notes.txt").write_text("mine")


def kill_tree(process):
    "Kill a process group and what its members have started elsewhere."
    started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    if process.poll() is None: os.killpg(process.pid, signal.SIGKILL)
    for child in started:
        try: child.kill()
        except psutil.NoSuchProcess: pass
    process.communicate()
    psutil.wait_procs(started, timeout=20)


def test_killed_at_every_step_of_publishing(tmp_path):
    "One after the other, at each thing that `publish` does to the disk."
    folder, before, between = tmp_path/"LSST", 0, 0
    start(folder)
    for step in range(1, 200):
        killed = publish_and_die(folder, step, step)
        if not killed: break
        between += not folder.exists()
        recover(tmp_path)
        assert leftovers(tmp_path) == [] and run_of(folder) in (before, step), step
        before = run_of(folder)
    assert not killed and step > 15
    assert run_of(folder) == step and leftovers(tmp_path) == []
    assert between >= 1, "the moment between the two renames was among the steps"


def test_killed_at_random_while_publishing(tmp_path):
    "Many sets a second, so that kills come at any moment."
    folder, rng, before = tmp_path/"LSST", random.Random(0), 0
    start(folder)
    for trial in range(1000):
        if trial >= (40 if FULL else 4) and before > 10: break  # a slow machine needs more trials to have published so often
        loop = subprocess.Popen([sys.executable, "-c", LOOP, str(folder), str(before + 1)], stdout=subprocess.PIPE, start_new_session=True)
        assert loop.stdout.readline() == b"begins\n"
        time.sleep(rng.uniform(0, .3))
        kill_tree(loop)
        recover(tmp_path)
        assert leftovers(tmp_path) == [] and run_of(folder) >= before, trial
        before = run_of(folder)
    assert before > 10


def test_publishing_to_one_folder_from_several_processes(tmp_path):
    folder = tmp_path/"LSST"
    start(folder)
    loops = [subprocess.Popen([sys.executable, "-c", LOOP, str(folder), str(i * 10**6)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) for i in range(1, 4)]
    try:
        for loop in loops: loop.stdout.readline()
        time.sleep(2)
        assert [loop.poll() for loop in loops] == [None]*3, "none of them failed"
    finally:
        for loop in loops: kill_tree(loop)
    recover(tmp_path)
    assert leftovers(tmp_path) == [] and run_of(folder) >= 10**6


def command(*words):
    return subprocess.Popen([sys.executable, "-m", "tst_mi.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


RUN = """
import sys
from pathlib import Path
import tst_mi.cli as cli
if sys.argv[1]: cli.report_notebook = lambda: Path(sys.argv[1])
sys.exit(cli.main(sys.argv[2:]))
"""
SHORT = """from tst_mi.artifacts import publish
from tst_mi.cli import check_names, check_report
check_names(In)
folder, settings = check_report(globals())
publish(folder, {'heads.csv': __import__('pandas').DataFrame({'seed': [seed]}), 'COLUMNS.txt': '', **{f'{i}.txt': str(seed) for i in range(50)}, 'summary.json': {'settings': {'seed': seed}}})
print(f'seed {seed}, at most')"""


def short_notebook(folder):
    "A notebook with the report's parameters and checks, that publishes at once: most of a report's time is none of this file's business."
    notebook = nbformat.read(ROOT/"nbs"/"99_report.ipynb", 4)
    notebook.cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])] + [nbformat.v4.new_code_cell(SHORT)]
    nbformat.write(notebook, folder/"99_report.ipynb")
    return folder/"99_report.ipynb"


def report(notebook, folder, seed):
    words = ["report", "JapaneseVowels", f"--out_dir={folder}", f"--seed={seed}", *(f"--{name}={value}" for name, value in REPORT.items())]
    return subprocess.Popen([sys.executable, "-c", RUN, str(notebook), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def seed_of(folder):
    "The seed of a report, after checks that tables, summary and page are of one run."
    assert differing(folder) == []
    seed = json.loads((folder/"summary.json").read_text())["settings"]["seed"]
    assert {p.name for p in folder.iterdir()} == {*manifest(folder), MANIFEST}
    assert {"report.html", "report.ipynb", "heads.csv", "COLUMNS.txt"} <= set(manifest(folder))
    page = (folder/"report.html").read_text()
    assert f"seed {seed}, at most" in page and ".partial-" not in page + (folder/"report.ipynb").read_text()
    return seed


def wait_for_tables(running, out):
    "Seconds until the notebook of a running report has written its tables."
    begin = time.time()
    while running.poll() is None and not list(out.glob(f".partial-*/JapaneseVowels/{MANIFEST}")): time.sleep(.01)
    return time.time() - begin


@pytest.mark.parametrize("whole", [False, *[True]*FULL], ids=lambda whole: "whole" if whole else "short")
def test_a_killed_report_leaves_the_last_one(tmp_path, whole):
    "At random moments; every other one after the notebook has written its tables, when page and set are made."
    out, notebook, rng = tmp_path/"out", "" if whole else short_notebook(tmp_path), random.Random(1)
    folder, before, killed, new, found = out/"JapaneseVowels", 0, 0, 0, 0
    trials = {False: 40, True: 6}[whole] if FULL else 1
    first, begin = report(notebook, out, 0), time.time()
    until_tables = wait_for_tables(first, out)
    assert first.wait(600) == 0
    takes = time.time() - begin
    for trial in range(1, trials + 1):
        running = report(notebook, out, trial)
        if trial % 2: wait_for_tables(running, out)
        time.sleep(rng.uniform(0, 1.2*(takes - until_tables) if trial % 2 else until_tables))
        killed += running.poll() is None
        if running.poll() is None: kill_tree(running)
        found += bool(leftovers(out))
        recover(out)
        assert leftovers(out) == [] and seed_of(folder) in (before, trial), trial
        new += seed_of(folder) == trial
        before = seed_of(folder)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (out/f".partial-{_host()}-{gone.pid}-00000000-report").mkdir()   # the next run clears up by itself
    print(f"{killed} reports killed, which left something half made {found} times and the new set {new} times; one takes {takes:.0f} s")
    assert report(notebook, out, 77).wait(600) == 0
    assert seed_of(folder) == 77 and [p.name for p in out.iterdir()] == ["JapaneseVowels"]


def test_a_killed_training_leaves_no_model_and_the_next_one_works(tmp_path, monkeypatch, capsys):
    rng, words = random.Random(2), ["train", "ItalyPowerDemand", "--epochs=40", "--d_model=16", "--n_heads=2", "--n_layers=1", "--d_ff=32"]
    monkeypatch.setenv("TST_MI_CACHE", str(tmp_path/"cache"))
    for trial in range(20 if FULL else 2):
        running = command(*words, f"--path={tmp_path/'mine.safetensors'}")
        time.sleep(rng.uniform(1, 8))
        if running.poll() is None: kill_tree(running)
        copy = tmp_path/"mine.safetensors"
        if copy.exists():
            assert main(["calibrate", "ItalyPowerDemand", f"--checkpoint={copy}", "--replicates=1", "--n_flips=100"]) in (0, 1)
            copy.unlink()
    capsys.readouterr()
    assert main([*words, f"--path={tmp_path/'mine.safetensors'}"]) == 0
    assert "ItalyPowerDemand: trained" in capsys.readouterr().out
    assert leftovers(tmp_path) == leftovers(tmp_path/"cache"/"models") == []


TRAINING = """
import sys, tst_mi.training
tst_mi.training._EVERY = 0   # every epoch is kept
tst_mi.training.model_for("ItalyPowerDemand", progress=False, epochs=int(sys.argv[1]), d_model=16, n_heads=2, n_layers=1, d_ff=32)
"""


def test_a_killed_training_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    epochs, rng = 1500 if FULL else 200, random.Random(3)
    def trained(cache):
        monkeypatch.setenv("TST_MI_CACHE", str(tmp_path/cache))
        return model_for("ItalyPowerDemand", progress=False, epochs=epochs, d_model=16, n_heads=2, n_layers=1, d_ff=32)[2]["path"]
    name = trained("whole")
    killed, folder = 0, tmp_path/"killed"/"models"
    monkeypatch.setenv("TST_MI_CACHE", str(tmp_path/"killed"))
    while killed < (20 if FULL else 2) and not (folder/name).exists():
        before = (folder/f"{name}.unfinished").stat().st_mtime_ns if killed else None
        running = subprocess.Popen([sys.executable, "-c", TRAINING, str(epochs)], start_new_session=True)
        while running.poll() is None and (not (state := folder/f"{name}.unfinished").exists() or state.stat().st_mtime_ns == before): time.sleep(.001)
        time.sleep(rng.uniform(0, .2))
        if running.poll() is None: kill_tree(running)
        killed += running.wait() == -signal.SIGKILL
    assert killed and (folder/f"{name}.unfinished").exists() and not (folder/name).exists(), "it was killed in the middle"
    done, epoch = [], tst_mi.training._epoch
    monkeypatch.setattr(tst_mi.training, "_epoch", lambda *args: done.append(epoch(*args)))
    assert trained("killed") == name and 0 < len(done) < epochs - killed, "it went on from where it was"
    assert (folder/name).read_bytes() == (tmp_path/"whole"/"models"/name).read_bytes()
    assert [p.name for p in folder.iterdir()] == [name], "nothing is left over"


def test_what_a_live_process_or_another_machine_is_making_stays(tmp_path):
    loop = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    kinds = [f".partial-{_host()}-{loop.pid}-00000000-LSST", ".partial-elsewhere-1-00000000-LSST"]
    for name in kinds: (tmp_path/name).mkdir()
    recover(tmp_path)
    assert sorted(leftovers(tmp_path)) == sorted(kinds)
    kill_tree(loop)
    recover(tmp_path)
    assert leftovers(tmp_path) == kinds[1:]


def test_a_killed_report_goes_on_to_the_same_bytes(tmp_path):
    "The report itself, of two datasets' worth of parts; killed twice, and gone on with."
    options = dict(REPORT, matchings=2, control_runs=1, placebo_runs=1, n_boot=200, leave_out="frozen power growth perturbations baselines")
    def begin(out, cache):
        words = [f"--{name}={value}" for name, value in options.items()]
        return subprocess.Popen([sys.executable, "-m", "tst_mi.cli", "report", "JapaneseVowels", f"--out_dir={out}", *words], env={**os.environ, "TST_MI_CACHE": str(cache)},
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    def pieces(cache): return sorted(path.name for path in cache.glob("reports/*/*.npz"))
    begun = time.time()
    whole = begin(tmp_path/"whole", tmp_path/"cache0")
    _, error = whole.communicate(timeout=300)
    took = time.time() - begun
    assert whole.returncode == 0 and not list((tmp_path/"cache0").glob("reports/*")), error
    kept = []
    for trial in range(6 if FULL else 2):
        running = begin(tmp_path/"killed", tmp_path/"cache1")
        begun = time.time()
        while running.poll() is None and len(pieces(tmp_path/"cache1")) < 2*trial + 1: time.sleep(.01)   # killed ever later
        assert running.poll() is None and time.time() - begun < 2*took + 60
        kill_tree(running)
        kept.append(pieces(tmp_path/"cache1"))
    assert set(kept[0]) <= set(kept[-1]) and len(kept[-1]) > len(kept[0])
    last = begin(tmp_path/"killed", tmp_path/"cache1")
    _, error = last.communicate(timeout=300)
    assert last.returncode == 0, error
    a, b = (tmp_path/name/"JapaneseVowels" for name in ("whole", "killed"))
    assert {p.name for p in a.iterdir()} == {p.name for p in b.iterdir()}
    for path in a.iterdir():
        if path.suffix in (".csv", ".png", ".txt") or path.name == "summary.json": assert path.read_bytes() == (b/path.name).read_bytes(), path.name
    assert (a/"report.html").read_text().replace(str(tmp_path/"whole"), "") == (b/"report.html").read_text().replace(str(tmp_path/"killed"), "")
