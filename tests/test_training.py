"A training that is interrupted goes on to the same bytes, or begins anew; a set with one case in each class is trained as it is."
import io
import warnings

import numpy as np
import pytest
import torch

import tst_mi.training
from tst_mi.artifacts import sha256
from tst_mi.cli import main
from tst_mi.data import load_dataset
from tst_mi.training import fit, load_checkpoint, model_for, train_checkpoint

TINY = dict(progress=False, epochs=5, batch_size=4, d_model=8, n_heads=2, n_layers=1, d_ff=8)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6, 2)).astype(np.float32)
Y = np.arange(16) % 2
HEADER = "@problemName P\n@timeStamps false\n@missing false\n@univariate true\n@equalLength true\n@classLabel true {}\n@data\n"


class Stopped(Exception): "What ends a training in the middle."


def write(folder, labels):
    "A dataset P of short series with these labels, in both splits."
    (folder/"P").mkdir(exist_ok=True)
    rows = [",".join(f"{v:.3f}" for v in np.random.default_rng(i).normal(size=6) + i) + f":{label}\n" for i, label in enumerate(labels)]
    text = HEADER.format(" ".join(sorted(set(labels)))) + "".join(rows)
    for split in ("TRAIN", "TEST"): (folder/"P"/f"P_{split}.ts").write_text(text)


@pytest.fixture
def place(tmp_path, monkeypatch):
    "A folder with a dataset P and a cache of its own, where every epoch is kept."
    monkeypatch.setenv("TST_MI_CACHE", str(tmp_path/"cache"))
    monkeypatch.setattr(tst_mi.training, "_EVERY", 0)
    write(tmp_path, "ab"*6)
    return tmp_path


@pytest.fixture
def epochs(monkeypatch):
    "Counts epochs, and stops before one if told to."
    usual, counted = tst_mi.training._epoch, {"done": 0, "left": None}
    def epoch(*args):
        if counted["left"] == 0: raise Stopped
        if counted["left"] is not None: counted["left"] -= 1
        usual(*args)
        counted["done"] += 1
    def begin(left=None): counted.update(done=0, left=left)
    monkeypatch.setattr(tst_mi.training, "_epoch", epoch)
    return counted, begin


def same(a, b): return all(torch.equal(v, w) for v, w in zip(a.state_dict().values(), b.state_dict().values()))


SETTINGS = [{}, {"patience": 1, "lr": .3, "epochs": 8}, {"criterion": "accuracy", "pooling": "mean"}, {"share": 0, "seed": 3}, {"share": 0, "criterion": "last", "dropout": .5}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_stopped_after_any_epoch_it_comes_to_the_same_file(place, epochs, settings):
    counted, begin = epochs
    data, told = load_dataset("P", data_dir=place), {**TINY, **settings}
    whole, halves = place/"whole.safetensors", place/"halves.safetensors"
    _, info = train_checkpoint(data, whole, **told)
    for k in range(info["epochs"]):
        begin(k)
        with pytest.raises(Stopped): train_checkpoint(data, halves, **told)
        assert not halves.exists() and (place/"halves.safetensors.unfinished").exists() == (k > 0)
        begin()
        _, again = train_checkpoint(data, halves, **told)
        assert counted["done"] == info["epochs"] - k and again == info and sha256(halves) == sha256(whole)
        halves.unlink()
        assert not list(place.glob("*.unfinished"))


def test_stopped_again_and_again(place, epochs):
    counted, begin = epochs
    plain, history = fit(X, Y, 2, **TINY)
    for _ in range(4):
        begin(1)
        with pytest.raises(Stopped): fit(X, Y, 2, **TINY, resume=place/"state")
    begin(1)
    resumed, records = fit(X, Y, 2, **TINY, resume=place/"state")
    assert same(plain, resumed) and records == history
    begin(0)   # a training that is done has no epoch left
    resumed, records = fit(X, Y, 2, **TINY, resume=str(place/"state"))
    assert same(plain, resumed) and records == history and not resumed.training


def test_the_callers_random_numbers_are_untouched_and_do_not_matter(place, epochs):
    plain, _ = fit(X, Y, 2, **TINY)
    _, begin = epochs
    begin(2)
    with pytest.raises(Stopped): fit(X, Y, 2, **TINY, resume=place/"state")
    begin()
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    resumed, _ = fit(X, Y, 2, **TINY, resume=place/"state")
    assert same(plain, resumed) and torch.equal(before, torch.random.get_rng_state())


def flipped(content, at): return content[:at] + bytes([content[at] ^ 1]) + content[at + 1:]


def pickled(content):
    "Another state, well-formed but without the seal."
    buffer = io.BytesIO()
    torch.save({"history": []}, buffer)
    return content[:32] + buffer.getvalue()


DAMAGE = {"empty": lambda c: b"", "text": lambda c: b"no state", "truncated": lambda c: c[:-1], "longer": lambda c: c + b"\0", "seal": lambda c: flipped(c, 3),
          **{f"bit at {share}": lambda c, share=share: flipped(c, int(share*len(c))) for share in (.1, .3, .5, .7, .9)}, "another": pickled, "zeros": lambda c: bytes(len(c))}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_no_state(place, epochs, damage):
    counted, begin = epochs
    plain, history = fit(X, Y, 2, **TINY)
    begin(3)
    with pytest.raises(Stopped): fit(X, Y, 2, **TINY, resume=place/"state")
    (place/"state").write_bytes(DAMAGE[damage]((place/"state").read_bytes()))
    begin()
    again, records = fit(X, Y, 2, **TINY, resume=place/"state")
    assert counted["done"] == TINY["epochs"] and same(plain, again) and records == history


OTHERS = [dict(seed=1), dict(lr=1e-2), dict(weight_decay=0), dict(batch_size=5), dict(share=.4), dict(epochs=6), dict(patience=4), dict(criterion="accuracy"), dict(dropout=.2), dict(pooling="mean")]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_the_state_of_a_training_with_other_settings_is_no_state(place, epochs, other):
    counted, begin = epochs
    plain, _ = fit(X, Y, 2, **{**TINY, **other})
    begin(3)
    with pytest.raises(Stopped): fit(X, Y, 2, **TINY, resume=place/"state")
    begin()
    again, records = fit(X, Y, 2, **{**TINY, **other}, resume=place/"state")
    assert counted["done"] == len(records) and same(plain, again)


def other_program(monkeypatch, folder):
    for name in ("training.py", "model.py"): (folder/name).write_text(tst_mi.training.files("tst_mi").joinpath(name).read_text(encoding="utf-8") + "# changed\n"*(name == "model.py"), encoding="utf-8")
    monkeypatch.setattr(tst_mi.training, "files", lambda _: folder)


ELSEWHERE = {"series": lambda m, f: X.__setitem__((0, 0, 0), X[0, 0, 0] + 1), "program": other_program, "version": lambda m, f: m.setattr(tst_mi.training, "versions", lambda *packages: {"torch": "9"}),
             "threads": lambda m, f: m.setattr(torch, "get_num_threads", lambda: 77), "processor": lambda m, f: m.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "other")}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_the_state_of_other_data_another_program_or_machine_is_no_state(place, epochs, monkeypatch, what):
    counted, begin = epochs
    monkeypatch.setitem(globals(), "X", X.copy())
    begin(3)
    with pytest.raises(Stopped): fit(X, Y, 2, **TINY, resume=place/"state")
    begin()
    ELSEWHERE[what](monkeypatch, place)
    fit(X, Y, 2, **TINY, resume=place/"state")
    assert counted["done"] == TINY["epochs"]


def test_where_no_state_can_be_kept_the_training_goes_on(place, monkeypatch):
    plain, _ = fit(X, Y, 2, **TINY)
    def full(path): raise OSError("the disk is full")
    monkeypatch.setattr(tst_mi.training, "whole_file", full)
    with pytest.warns(UserWarning, match="cannot be kept on its way; interrupted, it would begin anew .the disk is full"):
        again, _ = fit(X, Y, 2, **TINY, resume=place/"state")
    assert same(plain, again)


@pytest.mark.parametrize("resume, words", [(3, "resume is 3; it must be the path of a file"), ("", "is a folder; name another file"), ("/dev/null/state", "is a file; name a folder")])
def test_a_place_where_no_state_can_be(resume, words):
    with pytest.raises(ValueError, match=words): fit(X, Y, 2, **TINY, resume=resume)


def test_states_are_kept_no_oftener_than_is_cheap(place, monkeypatch):
    clock, saved = [0.], []
    monkeypatch.setattr(tst_mi.training, "_EVERY", 10)
    monkeypatch.setattr(tst_mi.training.time, "monotonic", lambda: clock[0])
    usual, save = tst_mi.training._epoch, torch.save
    def epoch(*args):
        usual(*args)
        clock[0] += 4
    monkeypatch.setattr(tst_mi.training, "_epoch", epoch)
    monkeypatch.setattr(torch, "save", lambda state, place: (saved.append(len(state["history"])), save(state, place)))
    fit(X, Y, 2, **{**TINY, "epochs": 10}, resume=place/"state")
    assert saved == [3, 6, 9]


def test_the_bar_begins_at_the_epoch_reached(place, epochs, monkeypatch):
    _, begin = epochs
    begin(3)
    with pytest.raises(Stopped): fit(X, Y, 2, **TINY, resume=place/"state")
    begin()
    bars, bar = [], tst_mi.training.bar
    monkeypatch.setattr(tst_mi.training, "bar", lambda *args, **told: bars.append(bar(*args, **told)) or bars[-1])
    fit(X, Y, 2, **{**TINY, "progress": True}, resume=place/"state")
    assert (bars[0].initial, bars[0].total, bars[0].n) == (3, 5, 5)


def test_a_state_whose_checkpoint_is_there_is_cleared_away(place):
    _, _, info = model_for("P", data_dir=place, **TINY)
    left = place/"cache"/"models"/f"{info['path']}.unfinished"
    left.write_bytes(b"left by a run that was killed between the two")
    model_for("P", data_dir=place, **TINY)
    assert not left.exists()


# one training case in each class

def test_a_set_with_one_case_in_each_class_is_trained_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TST_MI_CACHE", str(tmp_path/"cache"))
    write(tmp_path, "abcde")
    shape = {name: value for name, value in TINY.items() if name != "epochs"}
    with pytest.warns(UserWarning, match="P has one training case in each class, so none is left for validation: the network is trained for 100 epochs") as caught:
        model, data, info = model_for("P", data_dir=tmp_path, **shape)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert info["validation"] == "none (one training case in each class, 100 epochs, the last kept)"
    assert info["training"] == dict(epochs=100, patience=None, share=0, criterion="last", batch_size=4, d_model=8, n_heads=2, n_layers=1, d_ff=8)
    assert info["best"]["epoch"] == 99 and info["epochs"] == 100 and set(info["best"]) == {"epoch", "training_loss", "training_accuracy"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, _, told = model_for("P", data_dir=tmp_path, **shape)
    assert same(model, again) and told == info
    last, _ = fit(data.X_train, data.y_train, 5, share=0, criterion="last", epochs=100, **shape)
    assert same(model, last)


def test_what_is_told_of_such_a_training_is_taken_at_its_word(place):
    write(place, "abcde")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="each of the 5 classes has one training instance"): model_for("P", data_dir=place, share=.3, **TINY)
        info = model_for("P", data_dir=place, share=0, **TINY)[2]
    assert info["training"]["patience"] == 30 and info["validation"] == "none (one training case in each class, 5 epochs, that of least loss kept)"
    with pytest.warns(UserWarning, match="trained for 5 epochs"): info = model_for("P", data_dir=place, **TINY)[2]
    assert info["epochs"] == 5 and load_checkpoint(place/"cache"/"models"/info["path"])[1]["validation"] == "none (one training case in each class, 5 epochs, the last kept)"


def test_one_case_in_some_classes_is_as_before(place):
    write(place, "aaaabbbbc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        info = model_for("P", data_dir=place, **TINY)[2]
    assert "validation" not in info and "validation_loss" in info["best"] and info["training"]["patience"] == 30


def test_in_the_shell(place, capsys):
    write(place, "abcde")
    words = ["train", "P", f"--data_dir={place}", "--epochs=3", "--d_model=8", "--n_heads=2", "--n_layers=1", "--d_ff=8"]
    with pytest.warns(UserWarning, match="P has one training case in each class"): assert main(words) == 0
    assert "P: trained for 3 epochs" in capsys.readouterr().out
    assert main(["train", "P", "--resume=state"]) == 2
