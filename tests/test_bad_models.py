"What a model, a training or a checkpoint must not be: one clear line, before any work, nothing left behind."
import json
import os
import pickle
import socket
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save
from torch import nn

import tst_mi.training
from tst_mi.cli import main
from tst_mi.model import ModelConfig, TimeSeriesTransformer, check_device, convert_state, load_published, predict
from tst_mi.training import SHIPPED, _checksum, check_accuracy, fit, from_cache, load_checkpoint, model_for, save_checkpoint, split_validation, train_checkpoint

SMALL = dict(d_model=8, n_heads=2, n_layers=1, d_ff=8)
TINY = dict(progress=False, epochs=1, batch_size=4, **SMALL)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 6, 2)).astype(np.float32)
Y = np.arange(12) % 2
HEADER = ("@problemName P\n@timeStamps false\n@missing false\n@univariate true\n"
          "@equalLength true\n@classLabel true a b\n@data\n")


def files(folder):
    "Every path under a folder, with the content of the regular files."
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def refused(call, *words, folder=None):
    "The message of a call that must be refused in one line, leaving a folder as it was."
    before = files(folder) if folder else None
    with pytest.raises((ValueError, OSError)) as error: call()
    message = str(error.value)
    assert all(word in message for word in words), message
    assert message and "\n" not in message and len(message) < 700, message
    if folder: assert files(folder) == before
    return message


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TimeSeriesTransformer(ModelConfig(2, 6, 2, **SMALL)).eval()


@pytest.fixture
def path(model, tmp_path):
    return save_checkpoint(model, tmp_path/"m.safetensors", dataset="P", test_accuracy=.5, note=[1, 2.5])


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    "A folder with a dataset P, and a cache of its own."
    monkeypatch.setenv("TST_MI_CACHE", str(tmp_path/"cache"))
    (tmp_path/"P").mkdir()
    rng, rows = np.random.default_rng(0), []
    for i in range(12):
        values = rng.normal(size=6) + 2*(i % 2)
        rows.append(",".join(f"{v:.3f}" for v in values) + f":{'ab'[i % 2]}\n")
    for split in ("TRAIN", "TEST"): (tmp_path/"P"/f"P_{split}.ts").write_text(HEADER + "".join(rows))
    return tmp_path


WHOLE = "it must be a whole number of at least 1"
CONFIGS = [
    *(({name: value}, (name, WHOLE))
      for name in ("n_layers", "d_model", "n_heads", "d_ff", "n_classes", "length", "n_channels")
      for value in (0, -16, 2.5, True, "8", None, np.nan)),
    ({"d_ff": 10**9}, ("d_ff is 1000000000", "at most 1000000")),
    ({"n_layers": 10**30}, ("n_layers", "at most")),
    ({"d_model": 10, "n_heads": 2}, ("d_model is 10", "multiple of 4")),
    ({"n_heads": 3}, ("n_heads is 3", "does not divide d_model = 8")),
    *(({"dropout": value}, ("dropout", "a number from 0 to below 1"))
      for value in (1, 1., -.1, np.nan, np.inf, True, "0.1", None)),
    *(({"norm_first": value}, ("norm_first", "[True, False]")) for value in ("no", 0, 1, None)),
    *(({"activation": value}, ("activation", "['relu', 'gelu']")) for value in ("tanh", None, ["relu"])),
    *(({"pooling": value}, ("pooling", "['max', 'mean', 'cls']")) for value in ("last", None, {}, ["max"])),
]


@pytest.mark.parametrize("fields, words", CONFIGS, ids=lambda v: str(v) if isinstance(v, dict) else "")
def test_a_shape_that_no_network_can_have(fields, words):
    refused(lambda: ModelConfig(**{**dict(n_channels=2, length=6, n_classes=2, **SMALL), **fields}), *words)


TOLD = [
    *(({name: value}, (name, WHOLE))
      for name in ("epochs", "batch_size", "patience") for value in (0, -1, 1.5, True, "3")),
    ({"epochs": None}, ("epochs is None", WHOLE)), ({"batch_size": None}, ("batch_size is None", WHOLE)),
    *(({"lr": value}, ("lr", "a number above 0")) for value in (0, -.1, np.nan, np.inf, True, "x", None)),
    *(({"weight_decay": value}, ("weight_decay", "at least 0")) for value in (-1, np.nan, np.inf, None)),
    *(({"share": value}, ("share", "from 0 to below 1")) for value in (1, -.1, 2, np.nan, True, None)),
    *(({"seed": value}, ("seed", "whole number of at least 0")) for value in (-1, 1.5, None, True, "x")),
    ({"seed": 2**32}, ("seed", "at most 4294967295")),
    ({"criterion": "f1"}, ("criterion is 'f1'", "['loss', 'accuracy', 'last']")),
    ({"criterion": None}, ("criterion is None",)),
    ({"share": 0, "criterion": "accuracy"}, ("share = 0", "leave criterion out")),
    *(({"device": value}, ("device is", "nothing can be computed here", "cpu"))
      for value in ("cuda:99", "foo", None, "meta", 0, "", "cpu\nx", "xla")),
    ({"n_layer": 2}, ("no setting 'n_layer'", "did you mean 'n_layers'", "epochs, batch_size")),
    ({"zebra": 2}, ("no setting 'zebra'; it has",)),
    ({"n_layers": 0}, ("n_layers is 0",)),
    ({"d_model": -16}, ("d_model is -16",)),
    ({"n_heads": -2}, ("n_heads is -2",)),
    ({"d_ff": -3}, ("d_ff is -3",)),
]


def told_id(value): return str(value) if isinstance(value, dict) else ""


@pytest.mark.parametrize("settings, words", TOLD, ids=told_id)
def test_what_a_training_cannot_be_told(settings, words):
    refused(lambda: fit(X, Y, 2, **{**TINY, **settings}), *words)


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    "An empty folder, also for the cache; data must not be asked for."
    monkeypatch.setenv("TST_MI_CACHE", str(tmp_path))
    monkeypatch.setattr(tst_mi.training, "load_dataset", lambda *a, **k: pytest.fail("data were loaded"))
    return tmp_path


@pytest.mark.parametrize("settings, words", TOLD, ids=told_id)
def test_it_is_refused_before_data_are_looked_for(settings, words, no_data):
    told = {**TINY, **settings}
    refused(lambda: model_for("P", **told), *words, folder=no_data)
    refused(lambda: train_checkpoint(None, no_data/"m.safetensors", **told), *words, folder=no_data)


def test_all_that_model_for_can_be_told_is_listed(no_data):
    refused(lambda: model_for("P", channels=3), "no setting 'channels'; it has length, method", "epochs")
    refused(lambda: model_for("P", n_classes=3), "model_for has no setting 'n_classes'")
    refused(lambda: fit(X, Y, 2, length=5), "fit has no setting 'length'")


def masked(values, **kinds): return np.ma.MaskedArray(values, np.zeros(values.shape, bool), **kinds)


def with_value(value, dtype=np.float64):
    changed = X.astype(dtype)
    changed[3, 2, 1] = value
    return changed


SERIES = [
    (X[0], ("X has shape (6, 2)", "(series, time steps, channels)")),
    (X[None], ("X has shape (1, 12, 6, 2)",)),
    (X[:, :, 0], ("X has shape (12, 6)", "X[:, :, None]")),
    (X[:0], ("X has shape (0, 6, 2)",)),
    (X[:, :0], ("X has shape (12, 0, 2)",)),
    (X[:, :, :0], ("X has shape (12, 6, 0)",)),
    (3., ("X has shape ()",)),
    (with_value(np.nan), ("not finite", "1 of 12 series, first in series 3")),
    (with_value(-np.inf), ("not finite", "series 3")),
    (with_value(1e300), ("not finite (as float32)", "series 3")),
    (masked(X), ("X is a masked array", "mask would be lost")),
    ([*map(masked, X)], ("X is a masked array",)),
    (X.astype(str), ("X holds values of type <U", "numbers")),
    (X.astype(object), ("X holds values of type object",)),
    (X + 1j, ("X holds values of type complex",)),
    ([[[1., 2.], [3.]]], ("X cannot be read as an array",)),
    (None, ("X holds values of type object",)),
]


@pytest.mark.parametrize("series, words", SERIES)
def test_series_that_are_none(series, words, model):
    refused(lambda: predict(model, series), *words)
    refused(lambda: fit(series, Y, 2, **TINY), *words)


LABELS = [
    (Y[:-3], 2, ("X holds 12 series and y 9 labels",)),
    (np.append(Y, 1), 2, ("12 series and y 13 labels",)),
    (Y + 1, 2, ("y holds class 2", "classes are 0 to 1", "number them from 0")),
    (Y - 1, 2, ("y holds class -1",)),
    (np.arange(12) % 3, 2, ("y holds class 2, but n_classes is 2",)),
    (0*Y, 2, ("all 12 series are of class 0", "at least two classes")),
    (Y.astype(float), 2, ("y holds values of type float64", "class indices")),
    (Y.astype(str), 2, ("y holds values of type <U",)),
    (Y.astype(bool), 2, ("y holds values of type bool",)),
    (masked(Y), 2, ("y is a masked array",)),
    (Y[:, None], 2, ("y has shape (12, 1)",)),
    (Y[:0], 2, ("y has shape (0,)",)),
    (1, 2, ("y has shape ()",)),
    (None, 2, ("y holds values of type object",)),
    (Y, 0, ("n_classes is 0", WHOLE)),
    (Y, 2., ("n_classes is 2.0", WHOLE)),
    (Y, True, ("n_classes is True", WHOLE)),
    (Y, 1, ("y holds class 1, but n_classes is 1",)),
    (np.arange(12), 12, ("each of the 12 classes has one training instance", "`tst_mi train NAME --share 0`"))
]


@pytest.mark.parametrize("y, n_classes, words", LABELS)
def test_labels_that_are_none(y, n_classes, words): refused(lambda: fit(X, y, n_classes, **TINY), *words)


def test_a_network_too_large_for_this_machine(monkeypatch):
    def fails(config): raise RuntimeError("[enforce fail at alloc_cpu.cpp:127]\nDefaultCPUAllocator: can't allocate memory")
    monkeypatch.setattr(tst_mi.training, "TimeSeriesTransformer", fails)
    refused(lambda: fit(X, Y, 2, **TINY), "a network of this shape cannot be made on cpu", "can't allocate memory")


def test_a_series_of_one_step(): refused(lambda: fit(X[:, :1], Y, 2, **TINY), "at least 2 time steps")


def test_numbers_of_any_kind_that_mean_the_same_train_the_same_network():
    plain, _ = fit(X, Y, 2, **TINY)
    kinds = {name: np.int64(value) for name, value in TINY.items() if name != "progress"}
    equal = [(X.astype(np.float64), Y.astype(np.int32)), (X.tolist(), Y.tolist()),
             (torch.tensor(X), torch.tensor(Y)), (X.astype(">f4"), Y.astype(np.uint8)),
             (np.ascontiguousarray(X[::-1])[::-1], np.ascontiguousarray(Y[::-1])[::-1])]
    for series, labels in equal:
        other, _ = fit(series, labels, np.int32(2), progress=False, **kinds)
        for name, value in plain.state_dict().items(): assert torch.equal(value, other.state_dict()[name])


@pytest.mark.parametrize("share", [1, -.5, np.nan, True, "0.2"])
def test_split_shares(share): refused(lambda: split_validation(Y, share), "share", "from 0 to below 1")


def test_without_a_validation_part_the_smallest_training_loss_is_kept(dataset):
    y = np.arange(12)
    model, history = fit(X, y, 12, share=0, **{**TINY, "epochs": 8, "lr": .05})
    assert [set(record) for record in history] == [{"epoch", "training_loss", "training_accuracy"}]*8
    least = min(history, key=lambda record: record["training_loss"])
    loss = nn.functional.cross_entropy(torch.tensor(predict(model, X)), torch.tensor(y)).item()
    assert loss == pytest.approx(least["training_loss"], rel=1e-5)
    _, _, info = model_for("P", data_dir=dataset, share=0, **TINY)
    assert info["training"]["share"] == 0 and "training_loss" in info["best"] and info["same_data"]


# predicting

def test_series_of_another_shape_than_the_model_reads(model):
    for other in (X[:, :5], X[:, :1], X[:, :, :1]):
        refused(lambda: predict(model, other), "but the model reads 6 x 2")


@pytest.mark.parametrize("rows", [0, -1, 2.5, True, "4"])
def test_rows_at_once(model, rows): refused(lambda: predict(model, X, rows), "batch_size", WHOLE)


@pytest.mark.parametrize("wrong", [None, "model", nn.Linear])
def test_what_is_no_model(wrong): refused(lambda: predict(wrong, X), "model is", "it must be a torch.nn.Module")


def test_models_of_half_precision_and_without_values(model):
    logits = predict(model, X)
    for dtype in (torch.bfloat16, torch.float16):
        halved = predict(TimeSeriesTransformer(model.config).to(dtype).eval().requires_grad_(False), X)
        assert halved.dtype == np.float32 and halved.shape == logits.shape
    assert predict(model.double(), X).dtype == np.float64
    refused(lambda: predict(model.to("meta"), X), "the model's device is 'meta'")


def test_devices():
    assert check_device("cpu") == check_device(torch.device("cpu")) == torch.device("cpu")
    if torch.cuda.is_available(): return
    refused(lambda: fit(X, Y, 2, device="cuda", **TINY), "device is 'cuda'", "this machine has cpu")


# checkpoints

def seal(path, /, tensors=None, entry=None, **changes):
    "Write a checkpoint anew with another content and, as an attacker could, the right checksum."
    with tst_mi.training.safe_open(path, framework="pt") as file: info = json.loads(file.metadata()["tst_mi"])
    tensors = load_file(path) if tensors is None else tensors
    info = {k: v for k, v in {**info, **changes}.items() if k != "sha256" and v is not None}
    text = json.dumps({"sha256": _checksum(info, tensors), **info}) if entry is None else entry
    path.write_bytes(save(tensors, metadata={"tst_mi": text}))


def change_tensor(name, make):
    def damage(path):
        tensors = load_file(path)
        tensors[name] = make(tensors[name]).contiguous()
        seal(path, tensors)
    return damage


def change_config(**fields):
    def damage(path):
        config = load_checkpoint(path)[1]["config"]
        seal(path, config={k: v for k, v in {**config, **fields}.items() if v != "gone"})
    return damage


def rewritten(old, new):
    def damage(path):
        content = path.read_bytes()
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))
    return damage


def without(path):
    tensors = load_file(path)
    del tensors["positions"]
    seal(path, tensors)


def swapped(path):
    "The first norm's scale and shift change places."
    with tst_mi.training.safe_open(path, framework="pt") as file: text = file.metadata()["tst_mi"]
    tensors = load_file(path)
    tensors["norms.0.weight"], tensors["norms.0.bias"] = tensors["norms.0.bias"], tensors["norms.0.weight"]
    seal(path, tensors, text)


def with_more(path): seal(path, {**load_file(path), "more": torch.zeros(3)})
def without_metadata(path): path.write_bytes(save(load_file(path)))
def of_another_entry(path): path.write_bytes(save(load_file(path), metadata={"format": "pt"}))


def a_folder(path):
    path.unlink()
    path.mkdir()


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def a_socket(path):
    path.unlink()
    with socket.socket(socket.AF_UNIX) as s: s.bind(os.path.relpath(path))


def a_broken_link(path):
    path.unlink()
    path.symlink_to("nowhere")


WEIGHT, WHAT = "blocks.0.linear1.weight", "written by save_checkpoint"
DAMAGED = {  # what happens to the file -> words of the message
    "missing": (Path.unlink, ("no checkpoint at", WHAT)),
    "a broken link": (a_broken_link, ("no checkpoint at", WHAT)),
    "empty": (lambda p: p.write_bytes(b""), ("damaged or not a .safetensors file", WHAT)),
    "zeros": (lambda p: p.write_bytes(bytes(5000)), ("damaged",)),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-7]), ("damaged or not a .safetensors file",)),
    "longer": (lambda p: p.write_bytes(p.read_bytes() + b"x"), ("damaged",)),
    "cut in its header": (lambda p: p.write_bytes(p.read_bytes()[:100]), ("damaged",)),
    "text": (lambda p: p.write_text("These are not weights.\n"*9), ("damaged", WHAT)),
    "JSON": (lambda p: p.write_text('{"config": {}}'), ("damaged", WHAT)),
    "state dict": (lambda p: torch.save({"a": torch.ones(2)}, p), ("load_published",)),
    "a folder": (a_folder, ("is a folder", WHAT)),
    "a pipe": (a_pipe, ("is no regular file", WHAT)),
    "a socket": (a_socket, ("is no regular file", WHAT)),
    "no metadata": (without_metadata, ("it has no description", WHAT)),
    "other metadata": (of_another_entry, ("it has no description",)),
    "broken JSON": (lambda p: seal(p, entry='{"config": '), ("not JSON",)),
    "deep JSON": (lambda p: seal(p, entry="["*10**5), ("not JSON",)),
    "empty JSON": (lambda p: seal(p, entry=""), ("not JSON",)),
    "a list": (lambda p: seal(p, entry="[]"), ("is [], not a JSON object",)),
    "null": (lambda p: seal(p, entry="null"), ("not a JSON object",)),
    "an empty record": (lambda p: seal(p, entry="{}"), ("checksum differs",)),
    "changed accuracy": (rewritten(b'accuracy\\": 0.5', b'accuracy\\": 0.9'), ("checksum differs",)),
    "changed note": (rewritten(b"[1, 2.5]", b"[1, 2.6]"), ("checksum differs",)),
    "changed d_ff": (rewritten(b'd_ff\\": 8', b'd_ff\\": 4'), ("checksum differs",)),
    "changed norm_first": (rewritten(b'first\\": false', b'first\\": true '), ("checksum differs",)),
    "changed pooling": (rewritten(b'pooling\\": \\"max', b'pooling\\": \\"cls'), ("checksum differs",)),
    "renamed tensor": (rewritten(b'"classifier.bias"', b'"classifier.bios"'), ("checksum differs",)),
    "tensors changed places": (swapped, ("checksum differs",)),
    "too few": (without, ("1 tensors are missing", "'positions'")),
    "too many": (with_more, ("1 tensors are not the network's", "'more'")),
    "none": (lambda p: seal(p, {}), ("cannot make 1 layers",)),
    "transposed": (change_tensor("blocks.0.attn.in_proj.weight", torch.Tensor.t), ("of shape (8, 24)",)),
    "of another shape": (change_tensor(WEIGHT, lambda t: t[:4]), ("of shape (4, 8)",)),
    "half": (change_tensor(WEIGHT, torch.Tensor.half), ("torch.float16", "torch.float32")),
    "bfloat16": (change_tensor(WEIGHT, torch.Tensor.bfloat16), ("torch.bfloat16",)),
    "double": (change_tensor(WEIGHT, torch.Tensor.double), ("torch.float64",)),
    "NaN": (change_tensor(WEIGHT, lambda t: t.fill_(torch.nan)), (WEIGHT, "NaN or infinite")),
    "infinite": (change_tensor("norms.0.running_var", lambda t: t/0), ("running_var", "NaN or infinite")),
    "sealed d_ff": (change_config(d_ff=16), ("of shape (8, 8)", "of shape (16, 8)")),
    "sealed layers": (change_config(n_layers=2), ("tensors are missing", "blocks.1")),
    "sealed pooling": (change_config(pooling="cls"), ("'cls'",)),
    "sealed norm_first": (change_config(norm_first=True), ("final_norm",)),
    "vast": (change_config(n_layers=10**6), ("cannot make 1000000 layers",)),
    "huge": (change_config(d_ff=10**6), ("of shape (1000000, 8)",)),
    "beyond": (change_config(d_model=10**18), ("d_model", "at most")),
    "negative": (change_config(n_heads=-2), ("n_heads is -2",)),
    "text in config": (change_config(d_model="8"), ("d_model is '8'",)),
    "true in config": (change_config(n_layers=True), ("n_layers is True",)),
    "unknown field": (change_config(width=3), ("its config is", "d_model")),
    "missing field": (change_config(d_ff="gone"), ("its config is", "d_ff")),
    "no config": (lambda p: seal(p, config=None), ("its config is None",)),
    "config a list": (lambda p: seal(p, config=[1]), ("its config is [1]",)),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_file_that_is_no_checkpoint(kind, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    damage, words = DAMAGED[kind]
    damage(path)
    before = files(tmp_path)
    message = refused(lambda: load_checkpoint(path), str(path), *words)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert from_cache(path) is None
    if kind == "missing":
        assert not caught and files(tmp_path) == before
    else:
        aside = path.with_name("m.safetensors.damaged-1")
        assert not os.path.lexists(path) and os.path.lexists(aside)
        assert files(tmp_path) == {str(aside): before[str(path)]}
        warning, = (str(w.message) for w in caught)
        assert str(aside) in warning and message in warning and "\n" not in warning


class Payload:
    "A pickle that writes a file when it is opened."
    def __init__(self, path): self.path = path
    def __reduce__(self): return Path.write_text, (Path(self.path), "executed")


def pickled(thing, path): path.write_bytes(pickle.dumps(thing))


@pytest.mark.parametrize("dump", [pickled, torch.save])
def test_no_pickle_is_opened(dump, tmp_path):
    marker, path = tmp_path/"executed", tmp_path/"m.safetensors"
    dump(Payload(marker), path)
    for load in (load_checkpoint, load_published): refused(lambda: load(path), str(path), folder=tmp_path)
    assert not marker.exists()
    control = path.rename(tmp_path/"m.pth")   # by the other name torch.load would look for tensors only
    if dump is torch.save: torch.load(control, weights_only=False)
    else: pickle.loads(control.read_bytes())
    assert marker.exists(), "the payload would have worked"


NO_PATHS = [
    ("", "checkpoint is empty"), (Path(), "checkpoint is empty"), (None, "checkpoint is None"),
    (5, "checkpoint is 5"), (b"m", "checkpoint is b'm'"), ("a\0b", "no checkpoint at"),
    ("x"*300, "name too long"), ("/dev/null", "no regular file")]


@pytest.mark.parametrize("value, words", NO_PATHS, ids=lambda v: repr(v)[:12])
def test_what_is_no_path(value, words): refused(lambda: load_checkpoint(value), words)


def test_any_changed_byte_is_noticed(path, model):
    good, state = path.read_bytes(), model.state_dict()
    info = load_checkpoint(path)[1]
    rng, noticed = np.random.default_rng(0), 0
    for place in rng.choice(len(good), 200, replace=False):
        bad = bytearray(good)
        bad[place] ^= int(rng.integers(1, 256))
        path.write_bytes(bad)
        try: loaded, said = load_checkpoint(path)
        except ValueError as e:
            noticed += 1
            assert str(path) in str(e) and "\n" not in str(e)
        else: assert said == info and all(torch.equal(v, state[k]) for k, v in loaded.state_dict().items())
    assert noticed > 190
    for length in range(0, len(good), 211):
        path.write_bytes(good[:length])
        refused(lambda: load_checkpoint(path), str(path))


def test_a_checkpoint_is_one_file_that_says_everything(path, model, tmp_path):
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    loaded, info = load_checkpoint(path)
    assert not loaded.training and info["note"] == [1, 2.5] and info["config"]["d_ff"] == 8
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in model.state_dict().items())
    assert sorted(p.suffix for p in SHIPPED.iterdir()) == [".safetensors"]*3
    note = np.int64(1), np.float64(2.5)
    again = save_checkpoint(model, tmp_path/"again.safetensors", dataset="P", test_accuracy=.5, note=note)
    assert again.read_bytes() == path.read_bytes()


def with_nan(model):
    with torch.no_grad(): model.positions.fill_(torch.nan)
    return model


def with_other_config(model):
    model.config = replace(model.config, d_ff=4)
    return model


def same(model): return model


UNSAVED = {  # what is saved, what is recorded, where -> words of the message
    "half": (nn.Module.half, {}, "m.safetensors", ("cannot be saved", "float16")),
    "NaN": (with_nan, {}, "m.safetensors", ("cannot be saved", "'positions'")),
    "meta": (lambda m: m.to("meta"), {}, "m.safetensors", ("cannot be saved", "'meta'")),
    "another class": (lambda m: nn.Linear(2, 2), {}, "m.safetensors", ("a Linear is no TimeSeriesTransformer",)),
    "other config": (with_other_config, {}, "m.safetensors", ("cannot be saved", "(4, 8)")),
    "config named": (same, {"config": 3}, "m.safetensors", ("'config' is recorded",)),
    "sha256 named": (same, {"sha256": 3}, "m.safetensors", ("'sha256' is recorded",)),
    "a set": (same, {"x": {1}}, "m.safetensors", ("numbers, texts, lists and dicts", "TypeError")),
    "another suffix": (same, {}, "m.pt", ("ends in .safetensors",)),
    "no name": (same, {}, ".safetensors", ("ends in .safetensors",)),
    "a folder": (same, {}, "folder.safetensors", ("is a folder",)),
    "under a file": (same, {}, "file/m.safetensors", ("is a file",)),
}


@pytest.mark.parametrize("kind", UNSAVED)
def test_nothing_is_saved_that_could_not_be_loaded(kind, model, tmp_path):
    (tmp_path/"folder.safetensors").mkdir()
    (tmp_path/"file").write_text("")
    change, info, name, words = UNSAVED[kind]
    refused(lambda: save_checkpoint(change(model), tmp_path/name, **info), *words, folder=tmp_path)


@pytest.mark.parametrize("name", ["m.pt", "m", "folder.safetensors", "file/m.safetensors"])
def test_a_place_is_refused_before_the_training(name, tmp_path, monkeypatch):
    (tmp_path/"folder.safetensors").mkdir()
    (tmp_path/"file").write_text("")
    monkeypatch.setattr(tst_mi.training, "fit", lambda *a, **k: pytest.fail("a training began"))
    refused(lambda: train_checkpoint(None, tmp_path/name), name.split("/")[0], folder=tmp_path)


# published weights

def published(tmp_path, change=lambda state: state):
    config = ModelConfig(2, 6, 2, **SMALL)
    file = tmp_path/"TST.pth"
    torch.save(change(convert_state(TimeSeriesTransformer(config).state_dict(), to_stock=True)), file)
    return file


def drop(name): return lambda state: {k: v for k, v in state.items() if name not in k}
def replaced(name, make): return lambda state: {k: make(v) if k == name else v for k, v in state.items()}


PUBLISHED = {
    "positions gone": (drop("pos_enc"), "positions"),
    "classifier gone": (drop("classifier.weight"), "classifier.weight"),
    "bias gone": (drop("classifier.bias"), "classifier.bias"),
    "layers gone": (drop("transformer"), "blocks.0"),
    "more": (lambda s: {**s, "more": torch.ones(2)}, "'more'"),
    "wrapped": (lambda s: {"state_dict": s}, "positions"),
    "a list": (lambda s: list(s.values()), "no PyTorch file of tensors"),
    "a tensor": (lambda s: torch.ones(3), "no PyTorch file of tensors"),
    "flat": (replaced("pos_enc", torch.Tensor.flatten), "ValueError"),
    "transposed": (replaced("classifier.weight", lambda t: t.t().contiguous()[:, :2]), "shape"),
    "NaN": (replaced("classifier.bias", lambda t: t*torch.nan), "NaN or infinite"),
    "no tensor": (replaced("pos_enc", lambda t: 3), "TST.pth"),
    "double": (replaced("classifier.bias", torch.Tensor.double), "torch.float64"),
    "numbers as names": (lambda s: {i: v for i, v in enumerate(s.values())}, "TST.pth"),
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_weights_that_are_not_the_studys(kind, tmp_path):
    change, word = PUBLISHED[kind]
    file = published(tmp_path, change)
    refused(lambda: load_published(file, 2), str(file), word, folder=tmp_path)


def test_heads_of_the_studys_network(tmp_path):
    file = published(tmp_path)
    assert load_published(file, 2).config == ModelConfig(2, 6, 2, **SMALL)
    refused(lambda: load_published(file, 3), str(file), "n_heads is 3", "does not divide")
    for wrong in (0, -2, 2.5, True, None): refused(lambda: load_published(file, wrong), "n_heads", WHOLE)


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "text", "a folder", "a pipe"])
def test_files_that_are_not_the_studys(kind, tmp_path):
    file = published(tmp_path)
    DAMAGED[kind][0](file)
    refused(lambda: load_published(file), str(file))


# a model for a dataset

def cached(folder):
    path, = (folder/"cache"/"models").glob("*.safetensors")
    return path


def train(folder, **settings): return model_for("P", data_dir=folder, **{**TINY, **settings})


def test_a_checkpoint_that_is_named_is_refused_and_left_alone(dataset, path):
    train(dataset)
    for kind in ("missing", "empty", "truncated", "no metadata", "changed d_ff", "NaN"):
        save_checkpoint(TimeSeriesTransformer(ModelConfig(2, 6, 2, **SMALL)), path, test_accuracy=.5)
        DAMAGED[kind][0](path)
        refused(lambda: model_for("P", path, dataset), str(path), *DAMAGED[kind][1], folder=dataset)


@pytest.mark.parametrize("checkpoint", ["", " ", Path()])
def test_an_empty_name_is_no_checkpoint(checkpoint, dataset):
    for name in ("P", "JapaneseVowels"): refused(lambda: model_for(name, checkpoint, dataset), folder=dataset)


def test_a_checkpoint_is_not_told_anything(dataset, path):
    refused(lambda: model_for("P", path, dataset, seed=3), "leave out ['seed']")
    refused(lambda: model_for("P", path, dataset, epochs=3, length=5), "leave out ['epochs', 'length']")


SET_ASIDE = ["empty", "truncated", "text", "no metadata", "a folder", "a pipe", "NaN", "too few", "sealed d_ff",
             "another's", "accuracy", "other files"]


@pytest.mark.parametrize("kind", SET_ASIDE)
def test_a_damaged_file_of_the_cache_is_set_aside_and_trained_again(kind, dataset):
    train(dataset)
    path = cached(dataset)
    good = path.read_bytes()
    if kind == "another's":
        train(dataset, seed=1)
        other, = (set((dataset/"cache"/"models").glob("*.safetensors")) - {path})
        other.replace(path)
    elif kind == "accuracy": seal(path, test_accuracy=.99)
    elif kind == "other files": seal(path, checksums={})
    else: DAMAGED[kind][0](path)
    bad = path.read_bytes() if path.is_file() else None
    with pytest.warns(UserWarning, match="is of no use and another takes its place") as caught: train(dataset)
    aside = path.with_name(path.name + ".damaged-1")
    assert str(aside) in str(caught[0].message) and path.read_bytes() == good and os.path.lexists(aside)
    if bad is not None: assert aside.read_bytes() == bad
    path.write_bytes(b"")
    with pytest.warns(UserWarning): train(dataset)
    assert path.with_name(path.name + ".damaged-2").read_bytes() == b"" and path.read_bytes() == good
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(dataset)


def test_the_former_layout_of_two_files_is_set_aside(dataset):
    train(dataset)
    path = cached(dataset)
    without_metadata(path)
    path.with_suffix(".json").write_text('{"config": {}}')
    with pytest.warns(UserWarning, match="it has no description"): train(dataset)
    load_checkpoint(path)


def test_the_recorded_accuracy_is_compared(dataset):
    model, data, info = train(dataset)
    n, path = len(data.y_test), cached(dataset)
    right = round(info["test_accuracy"]*n)
    assert check_accuracy(model, data, info["test_accuracy"]) == info["test_accuracy"]
    for wrong in {abs(right - 1), min(right + 1, n)} - {right}:
        words = f"{wrong/n:.4f} ({wrong} of {n} series)", f"{right/n:.4f} ({right} of {n})"
        refused(lambda: check_accuracy(model, data, wrong/n), *words)
    named = dataset/"named.safetensors"
    path.replace(named)
    seal(named, test_accuracy=(right + 1)/n if right < n else 0)
    refused(lambda: model_for("P", named, dataset), str(named), f"({right} of {n})")
    for wrong in ("high", 2, -1, True):
        refused(lambda: check_accuracy(model, data, wrong), "test_accuracy", "a number from 0 to 1")
    seal(named, test_accuracy=info["test_accuracy"], data_settings=[1])
    refused(lambda: model_for("P", named, dataset), str(named), "its data_settings are [1]")
    with torch.no_grad(): model.classifier.weight.fill_(3e38)
    refused(lambda: check_accuracy(model, data, .5), "logits are not finite")


def test_only_series_that_rounding_could_move_are_excused(dataset):
    model, data, _ = train(dataset)
    with torch.no_grad():
        model.classifier.weight[1] = model.classifier.weight[0]   # two logits that differ by a constant
        model.classifier.bias.copy_(torch.tensor([0., 1e-7]))
    assert check_accuracy(model, data, 1.) == check_accuracy(model, data, 0.) == .5, "all are borderline"
    with torch.no_grad(): model.classifier.bias.copy_(torch.tensor([0., 1e-2]))
    refused(lambda: check_accuracy(model, data, 1.), "rounding explains at most 0")


def test_what_a_description_says_of_its_data_does_not_win(dataset):
    _, _, info = train(dataset)
    path = cached(dataset)
    named = dataset/"named.safetensors"
    path.replace(named)
    seal(named, same_data=True, path="other", checksums={"P_TRAIN.ts": "of other files"})
    _, _, info = model_for("P", named, dataset)
    assert info["path"] == "named.safetensors" and info["same_data"] is False


SHELL = [
    "--n_layers 0", "--d_model -16", "--n_heads -2", "--d_ff -3", "--epochs 0", "--epochs -1", "--batch_size 0",
    "--lr -1", "--device cuda:99", "--device foo", "--share 1", "--seed -1", "--patience 0"]


@pytest.mark.parametrize("options", SHELL)
def test_in_the_shell(options, dataset, capsys):
    name, value = options.removeprefix("--").split()
    before = files(dataset)
    assert main(["train", "P", "--data_dir", str(dataset), *options.split()]) != 0
    err = capsys.readouterr().err.strip()
    assert f"{name} is " in err and value in err and "Traceback" not in err and len(err.splitlines()) == 1
    assert files(dataset) == before
