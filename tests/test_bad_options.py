"Odd command lines: exit code 2, one line that says what to do, nothing written, and all of it at once."
import time

import pytest

from tst_mi.cli import main

REPORT = ("report", "JapaneseVowels")
TRAIN = ("train", "ItalyPowerDemand", "--epochs", "1")
CALIBRATE = ("calibrate", "JapaneseVowels")
NAMES = ["", ".", "..", "../LSST", "a/b", "/etc", "LSST/", "a\\b", ".hidden", "a\nb", "x" * 300, "Jäpanese", "\u202e", "JapaneseVowel"]

CASES = [
    # words of the command line, what the one line says
    ((), "Missing command; see tst_mi --help"),
    (("reprot", "LSST"), "No such command 'reprot'"),
    (("report",), "tst_mi report: error: Missing argument 'DATASET'; see tst_mi report --help"),
    (("train",), "Missing argument 'DATASET'; see tst_mi train --help"),
    (("--seed", "1", *REPORT), "options stand after the command, as in tst_mi report LSST --seed"),
    (("-p", "seed", "1", *REPORT), "options stand after the command"),
    (("--debug", *REPORT), "options stand after the command"),
    ((*REPORT, "--foo"), "tst_mi report: error: No such option '--foo'"),
    ((*REPORT, "--max", "20"), "No such option '--max'. (Did you mean one of: '--margin', '--max_pairs'?); see tst_mi report --help"),
    ((*REPORT, "--aplha", "0.1"), "Did you mean one of: '--alpha', '--plan'?"),
    ((*REPORT, "--seeds=3"), "No such option '--seeds'. (Did you mean one of: '--n_heads', '--seed'?)"),
    ((*REPORT, "--Seed", "3"), "Did you mean '--seed'?"),
    ((*REPORT, "--dataset", "LSST"), "the dataset is named first"),
    ((*REPORT, "LSST"), "Got unexpected extra argument (LSST)"),
    ((*REPORT, "-x"), "No such option '-x'"),
    ((*TRAIN, "--epoch", "3"), "Did you mean one of: '--epochs', '--path'"),
    ((*CALIBRATE, "--alhpa", "3"), "(Did you mean one of: '--alpha', '--help'?); see tst_mi calibrate --help"),
    (("datasets", "--cvs"), "Did you mean one of: '--csv', '--epochs'?); see tst_mi datasets --help"),
    # kinds
    *(((*REPORT, "--seed", value), "'--seed': ") for value in ("one", "", " ", "nan", "inf", "1e", "[1]", "True", "9" * 5000, "1;2", "½")),
    *(((*REPORT, "--alpha", value), "alpha") for value in ("0", "1", "-1", "-1e-3", "0.5", "1e400", "5", "None", "nan", "True", "2_0")),
    *(((*REPORT, "--max_pairs", value), "max_pairs is ") for value in ("0", "1", "-1", "2.5", "1e3", "None", "1" + "0" * 30)),
    *(((*REPORT, "--n_boot", value), "n_boot is ") for value in ("1", "99", "-100", "1000000000000")),
    *(((*REPORT, "--matchings", value), "matchings is ") for value in ("-1", "0.5", "1", "None", "1e9", "99999999")),
    *(((*REPORT, "--ig_steps", value), "ig_steps is ") for value in ("1", "-2", "2.5", "1000000")),
    *(((*REPORT, f"--{name}", value), f"{name} is ") for name in ("control_runs", "placebo_runs") for value in ("-1", "1e3")),
    *(((*REPORT, "--margin", value), "margin is ") for value in ("0", "1", "-0.01", "5")),
    *(((*REPORT, "--margin", value), "Invalid value for '--margin'") for value in ("nan", "1%", "")),
    *(((*REPORT, "--groups", value), "groups is ") for value in ("absent.txt", "/", "/dev/null/x")),
    *(((*REPORT, "--leave_out", value), "leave_out is ") for value in ("everything", "frozen,pairs", "7")),
    *(((*REPORT, "--perturbation_seeds", value), "perturbation_seeds is ") for value in ("-1", "1e3", "12345")),
    *(((*REPORT, "--seed", value), "seed is ") for value in ("-1", "0.5", "4294967296", "1" + "0" * 40)),
    *(((*REPORT, "--design", value), "design is ") for value in ("", "contrasts", "None", "Contrast", "1")),
    # given twice
    ((*REPORT, "--seed", "1", "--seed", "2"), "'--seed': given twice"),
    ((*REPORT, "--seed", "1", "-p", "seed", "2"), "-p seed: given twice"),
    ((*REPORT, "-p", "seed", "1", "-p", "seed", "1"), "-p seed: given twice"),
    ((*TRAIN, "--epochs", "2"), "'--epochs': given twice"),
    ((*REPORT, "--out_dir", "--debug"), "'--out_dir': '--debug' looks like an option, not a value"),
    ((*REPORT, "--seed"), "'--seed' requires an argument; see tst_mi report --help"),
    # papermill's way
    ((*REPORT, "-p", "max_pair", "20"), "-p max_pair: the report has no such parameter; it has dataset, "),
    ((*REPORT, "-p", "datset", "LSST"), "did you mean dataset?"),
    ((*REPORT, "-p", "dataset", "LSST"), "the dataset is named first"),
    ((*REPORT, "-p", "seed"), "requires 2 arguments"),
    ((*REPORT, "-p", "seed=1"), "requires 2 arguments"),
    ((*REPORT, "-p"), "requires 2 arguments"),
    ((*REPORT, "-p", "seed", "one"), "-p seed: 'one' is not of type int"),
    ((*REPORT, "-p", "alpha", "-1"), "alpha is -1"),
    ((*REPORT, "-p", "", "1"), "-p : the report has no such parameter"),
    ((*REPORT, "-p", "max-pairs", "20"), "did you mean max_pairs?"),
    # names
    *((("report", name), "dataset") for name in NAMES),
    *((("calibrate", name), "dataset") for name in NAMES[:6]),
    *((("train", name), "dataset") for name in NAMES[:6]),
    (("datasets", "JapaneseVowels", "PenDigit"), "no classification dataset is called 'PenDigit'"),
    (("datasets", "../x"), "it must be a plain name without slashes"),
    # paths
    ((*REPORT, "--checkpoint", ""), "checkpoint is '', which is no path; leave it out or name one"),
    ((*REPORT, "--checkpoint="), "checkpoint is '', which is no path"),
    ((*REPORT, "--checkpoint", " "), "checkpoint is ' ', which is no path"),
    ((*REPORT, "--checkpoint", "absent.safetensors"), "no checkpoint at absent.safetensors"),
    ((*REPORT, "--data_dir", ""), "data_dir is '', which is no path"),
    ((*REPORT, "--data_dir", "absent"), "data_dir is 'absent', which is not a folder"),
    ((*REPORT, "--out_dir", ""), "out_dir is '', which is no path"),
    ((*REPORT, "--out_dir", "None"), "out_dir is None"),
    ((*REPORT, "--out_dir", "a\0b"), "which is no path"),
    ((*REPORT, "--out_dir", "/proc/absent"), "nothing can be written there, in '/proc'"),
    ((*REPORT, "--out_dir", "/dev/null"), "'/dev/null' is a file; name a folder"),
    ((*REPORT, "--out_dir", "file"), "'file' is a file; name a folder"),
    ((*REPORT, "--out_dir", "file/deeper"), "'file' is a file; name a folder"),
    ((*REPORT, "--out_dir", "broken"), "'broken' is a link that leads nowhere"),
    ((*REPORT, "--out_dir", "x" * 300), "nothing can be written there"),
    ((*REPORT, "--out_dir", "own"), "it has sub-folders ['series'], and it is replaced as one; move them away"),
    ((*REPORT, "--out_dir", "web"), "does not list result files and their checksums; move it away"),
    ((*TRAIN, "--path", "model.pth"), "a checkpoint's name ends in .safetensors"),
    ((*TRAIN, "--path", ""), "a checkpoint's name ends in .safetensors"),
    ((*TRAIN, "--path", "file/m.safetensors"), "'file' is a file; name a folder"),
    ((*TRAIN, "--path", "/proc/absent/m.safetensors"), "nothing can be written there, in '/proc'"),
    ((*TRAIN, "--path", "there.safetensors"), "there.safetensors exists; move it away or name another --path"),
    ((*TRAIN, "--data_dir", ""), "data_dir is '', which is no path"),
    ((*TRAIN, "--data_dir", "absent"), "data_dir is 'absent', which is not a folder"),
    ((*CALIBRATE, "--checkpoint", ""), "checkpoint is '', which is no path"),
    (("datasets", "--data_dir", ""), "data_dir is '', which is no path"),
    (("datasets", "--data_dir", "absent"), "data_dir is 'absent', which is not a folder"),
    # a model that is to be made, in each command that needs one
    *(((*command, f"--{name}", value), name) for command in (REPORT, CALIBRATE, ("datasets", "JapaneseVowels"), ("datasets", "JapaneseVowels", "--train")) for name, value in [
        ("training_seed", "-1"), ("training_seed", "1.5"), ("training_seed", "None"), ("epochs", "0"), ("epochs", "many"), ("lr", "0"), ("share", "1"), ("n_layers", "0"),
        ("n_heads", "3"), ("d_model", "3"), ("length", "1"), ("length", "-3"), ("max_length", "0"), ("method", "cubic"), ("standardise", "2")]),
    *(((*command, "--checkpoint", "m.safetensors", *more), told) for command in (REPORT, CALIBRATE) for more, told in [
        (("--length", "20"), "leave out --length, or the checkpoint"), (("--training_seed", "0"), "leave out --training_seed, or the checkpoint")]),
    ((*REPORT, "--epochs", "3", "-p", "checkpoint", "m.safetensors"), "leave out --epochs, or the checkpoint"),
    ((*REPORT, "-p", "epochs", "3"), "-p epochs: the report has no such parameter"),
    ((*REPORT, "--epochs", "3", "--epochs", "4"), "'--epochs': given twice"),
    (("train", "ItalyPowerDemand", "--training_seed", "1"), "No such option '--training_seed'"),
    (("datasets", "JapaneseVowels", "--seed", "1"), "No such option '--seed'"),
    (("datasets", "--train"), "without a dataset there is no model to train; name one"),
    (("datasets", "--epochs", "3"), "without a dataset there is no model to train; name one"),
    # training and calibrating
    *((("train", "ItalyPowerDemand", "--epochs", value), "epochs") for value in ("0", "-1", "many", "1.5", "None", "True")),
    *((("train", "ItalyPowerDemand", f"--{name}", value), name) for name, value in [
        ("lr", "0"), ("lr", "-1e-3"), ("lr", "nan"), ("lr", "inf"), ("share", "-0.1"), ("share", "1"), ("share", "2"), ("batch_size", "0"),
        ("patience", "0"), ("dropout", "1"), ("dropout", "-0.1"), ("n_layers", "0"), ("d_model", "3"), ("length", "1"), ("seed", "-1"),
        ("weight_decay", "-1"), ("device", "cuda:99"), ("device", "gpu"), ("device", ""), ("d_ff", "0"), ("n_heads", "0"), ("max_length", "0")]),
    *(((*CALIBRATE, f"--{name}", value), name) for name, value in [
        ("alpha", "2"), ("alpha", "nan"), ("replicates", "0"), ("replicates", "-1"), ("replicates", "1.5"), ("max_pairs", "1"), ("n_flips", "2"), ("n_flips", "10000000000"), ("seed", "-1")]),
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    "A folder to stand in, with what is in the way; and what lies in it and in the cache."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TST_MI_CACHE", str(tmp_path/"cache"))
    (tmp_path/"file").touch()
    (tmp_path/"there.safetensors").touch()
    (tmp_path/"broken").symlink_to("gone")
    (tmp_path/"own"/"JapaneseVowels"/"series").mkdir(parents=True)
    (tmp_path/"web"/"JapaneseVowels").mkdir(parents=True)
    (tmp_path/"web"/"JapaneseVowels"/"manifest.json").write_text('{"name": "a page"}')
    return lambda: sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*"))


def refused(words, capsys):
    "The one line that a refused command says."
    code = main(list(words))
    out, err = capsys.readouterr()
    assert (code, out) == (2, "") and err.count("\n") == 1 and err.endswith("\n") and "Traceback" not in err, err
    assert len(err) < 1500 and ".partial-" not in err
    return err


@pytest.mark.parametrize("words, told", CASES, ids=lambda v: " ".join(v)[:50] if isinstance(v, tuple) else "")
def test_bad_options_are_refused_at_once(words, told, place, capsys, monkeypatch):
    def trained(*_, **__): raise AssertionError("a model was trained before the request was looked at")
    monkeypatch.setattr("tst_mi.training.train_checkpoint", trained)
    before, begin = place(), time.time()
    assert told in refused(words, capsys)
    assert place() == before
    assert time.time() - begin < 30


def test_there_are_many_of_them(): assert len(CASES) >= 150


@pytest.mark.parametrize("words", [("report", "Libras"), ("train", "Libras"), ("train", "JapaneseVowels", "--seed", "1"), ("calibrate", "Libras"), ("calibrate", "JapaneseVowels", "--length", "20"), ("report", "JapaneseVowels", "--training_seed", "1"), ("datasets", "Libras", "--train")])
def test_a_cache_that_cannot_be_written_to_is_found_before_training(words, place, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TST_MI_CACHE", str(tmp_path/"file"))
    monkeypatch.setattr("tst_mi.cli.check_dataset", lambda *_: None)   # Libras need not be here
    before = place()
    err = refused(words, capsys)
    assert "a trained model should go to" in err and "is a file; name a folder (the variable TST_MI_CACHE says where models are kept)" in err
    assert place() == before


@pytest.mark.parametrize("words, told", [((*REPORT,), "results should go to"), ((*TRAIN, "--path", "m.safetensors"), "the checkpoint should go to"), (("train", "ItalyPowerDemand"), "a trained model should go to")])
def test_a_full_disk_is_found_at_once(words, told, place, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1_000_000})())
    before = place()
    err = refused(words, capsys)
    assert told in err and "1.0 MB are free; at least 50 MB are needed: free some space or name another place" in err
    assert place() == before


def test_debug_adds_the_traceback(place, capsys):
    assert main([*REPORT, "--alpha", "5", "--debug"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and err.splitlines()[-1] == "tst_mi: error: alpha is 5; it must lie between 0 and 0.5"
