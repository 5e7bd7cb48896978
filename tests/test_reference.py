"The published study, reproduced: runs where its files are at hand (`TST_MI_REFERENCE`; PenDigits also needs `TST_MI_DATA`)."
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from tst_mi.data import load_dataset
from tst_mi.model import load_published, predict
from tst_mi.pairs import published_pairs
from tst_mi.patching import sweep

REFERENCE = os.environ.get("TST_MI_REFERENCE")
pytestmark = pytest.mark.skipif(not REFERENCE, reason="TST_MI_REFERENCE is not set")
NEEDS_DATA = pytest.mark.skipif(not os.environ.get("TST_MI_DATA"), reason="TST_MI_DATA is not set")
SETS = {"JapaneseVowels": dict(length=25, method="fourier"), "PenDigits": {}, "LSST": {}}
RIGHT = {"JapaneseVowels": (361, 370), "PenDigits": (3431, 3498), "LSST": (1519, 2466)}


def study(name):
    "Model, data, the model's logits and the stored results."
    data = load_dataset(name, standardise=False, reindex=False, **SETS[name])
    model = load_published(Path(REFERENCE)/f"TST_{name.lower()}.pth")
    return model, data, predict(model, data.X_test), np.load(Path(REFERENCE)/f"{name}.npz")


@pytest.fixture(scope="module", params=["JapaneseVowels", *(pytest.param(n, marks=NEEDS_DATA) for n in ("PenDigits", "LSST"))])
def published(request): return request.param, *study(request.param)


def test_the_weights_get_as_many_right(published):
    name, _, data, logits, _ = published
    assert ((logits.argmax(1) == data.y_test).sum(), len(logits)) == RIGHT[name]


@pytest.mark.parametrize("mode, direction", [("denoise", "denoising"), ("noise", "noising")])
def test_pairs_and_patches_are_the_stored_ones(published, mode, direction):
    name, model, data, logits, stored = published
    pairs = published_pairs(data.y_test, logits, direction).table
    if name != "LSST":  # its selection of errors is not determined by the study's description
        key = lambda source, base: sorted(zip(source, base))
        assert key(pairs.source, pairs.base) == key(stored[f"{mode}_source"], stored[f"{mode}_target"])
    table = pairs.iloc[:0].reindex(range(len(stored[f"{mode}_source"]))).assign(source=stored[f"{mode}_source"], base=stored[f"{mode}_target"])
    for site, key in (("projection_slice", "head_patch"), ("layer", "layer_patch"), ("mlp", "mlp_patch")):
        swept = sweep(model, data.X_test, table, site, donors=("source",))
        np.testing.assert_allclose(softmax(swept.patched["source"], -1), stored[f"{mode}_{key}"], atol=1e-5)
    np.testing.assert_allclose(softmax(swept.base, -1), stored[f"{mode}_baseline"], atol=1e-5)


def test_projection_slices_are_not_heads():
    model, data, logits, stored = study("JapaneseVowels")
    pairs = published_pairs(data.y_test, logits).table
    heads, slices = (softmax(sweep(model, data.X_test, pairs, site, donors=("source",)).patched["source"], -1) for site in ("head", "projection_slice"))
    assert abs(heads - slices).max() > .01
