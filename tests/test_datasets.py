"Datasets of extreme shapes: each is loaded, trained on and analysed."
import warnings

import numpy as np
import pytest

from tst_mi.analysis import Settings, analyse
from tst_mi.training import model_for

TINY = dict(progress=False, epochs=2, batch_size=32, d_model=8, n_heads=2, n_layers=1, d_ff=8)


def write(folder, series, labels, lengths="true"):
    "Both splits of a dataset P: `series` are arrays (channels, steps), NaN where a value is missing."
    (folder/"P").mkdir()
    head = (f"@problemName P\n@timeStamps false\n@missing true\n@univariate {str(len(series[0]) == 1).lower()}\n@dimensions {len(series[0])}\n"
            f"@equalLength {lengths}\n@classLabel true {' '.join(sorted(set(labels)))}\n@data\n")
    rows = (":".join(",".join("?" if np.isnan(v) else f"{v:.4f}" for v in channel) for channel in x) + f":{label}\n" for x, label in zip(series, labels))
    text = head + "".join(rows)
    for split in ("TRAIN", "TEST"): (folder/"P"/f"P_{split}.ts").write_text(text)


def make(n, steps, channels, classes, rng):
    "Noise about one level per class."
    y = np.arange(n) % classes
    return [rng.normal(size=(channels, steps)) + c for c in y], [f"c{c}" for c in y]


def punch(series, labels, rng):
    "Of unequal lengths, padded at the end, with gaps and a silent channel; the last class has one instance."
    for i, x in enumerate(series):
        x[rng.integers(len(x)), 2] = np.nan
        x[:, 12 + i % 9:] = np.nan
    series[0][1] = np.nan
    labels[5] = "alone"


CASES = {  # n, steps, channels, classes, length that the model sees
    "short": (30, 8, 1, 2, 8), "long": (12, 2000, 1, 3, 256), "many classes": (180, 10, 2, 60, 10), "gaps": (40, 24, 3, 4, 20)}


@pytest.mark.parametrize("case", CASES)
def test_any_shape_is_loaded_trained_on_and_analysed(tmp_path, monkeypatch, case):
    monkeypatch.setenv("TST_MI_CACHE", str(tmp_path/"cache"))
    n, steps, channels, classes, length = CASES[case]
    rng = np.random.default_rng(0)
    series, labels = make(n, steps, channels, classes, rng)
    if case == "gaps": punch(series, labels, rng)
    write(tmp_path, series, labels, "false" if case == "gaps" else "true")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, data, info = model_for("P", data_dir=tmp_path, **TINY)
    told = [str(w.message) for w in caught if "shortened" in str(w.message)]
    assert len(told) == (case == "long") and all("up to 2000 steps long, are shortened to 256 (max_length)" in m for m in told)
    assert data.X_test.shape == (n, length, channels) and np.isfinite(data.X_train).all() and np.isfinite(data.X_test).all()
    assert len(data.classes) == info["config"]["n_classes"] == classes + (case == "gaps") and info["same_data"]
    if case == "long": assert data.settings["resampled"] == data.settings["averaged"] == 2*n and data.settings["original_lengths"] == [2000, 2000]
    if case == "gaps":
        assert data.settings["original_lengths"] == [12, 20] and data.settings["imputed"]["empty_channels"] == 2
        assert data.settings["imputed"]["series"] == 2*n
        assert data.settings["imputed"]["values"] == 2*sum(np.isnan(x[:, :12 + i % 9]).sum() for i, x in enumerate(series))
        assert (data.y_train == data.classes.index("alone")).sum() == 1
    # matched by true class, since two epochs teach little
    result = analyse(model, data.X_test, data.y_test, Settings(selection="all", max_pairs=8, n_boot=100, n_flips=200, power_runs=0))
    assert len(result.heads) == 2 and result.heads["mean"].notna().all() and result.facts["contrast"]["specific"] == (classes > 2)
