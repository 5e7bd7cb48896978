"The published study, reproduced: runs where its files are at hand (`TST_MI_REFERENCE`; PenDigits also needs `TST_MI_DATA`)."
import os

import numpy as np
import pytest
import torch
from scipy.special import softmax

from tst_mi.model import rounding
from tst_mi.pairs import published_pairs
from tst_mi.patching import sweep
from tst_mi.published import MODES, study

REFERENCE = os.environ.get("TST_MI_REFERENCE")
pytestmark = pytest.mark.skipif(not REFERENCE, reason="TST_MI_REFERENCE is not set")
NEEDS_DATA = pytest.mark.skipif(not os.environ.get("TST_MI_DATA"), reason="TST_MI_DATA is not set")
RIGHT = {"JapaneseVowels": (361, 370), "PenDigits": (3431, 3498), "LSST": (1519, 2466)}


def rounding_of_probabilities(model, X):
    """What rounding may do to a model's probabilities: the stored ones were computed on another machine, in single precision too.

    p (1 - p) <= 1/4 bounds how fast a probability follows a difference of two logits; the softmax itself adds an ulp or two."""
    return rounding(model, lambda model, x: model(x), torch.as_tensor(X))/2 + 2*np.finfo(np.float32).eps


@pytest.fixture(scope="module", params=["JapaneseVowels", *(pytest.param(n, marks=NEEDS_DATA) for n in ("PenDigits", "LSST"))])
def published(request): return study(request.param)


def test_the_weights_get_as_many_right(published):
    right = published.logits.argmax(1) == published.data.y_test
    assert (right.sum(), len(right)) == RIGHT[published.name]


@pytest.mark.parametrize("mode, direction", MODES.items())
def test_pairs_and_patches_are_the_stored_ones(published, mode, direction):
    model, data, logits, stored = (getattr(published, k) for k in ("model", "data", "logits", "stored"))
    pairs = published_pairs(data.y_test, logits, direction).table
    if published.name != "LSST":  # its selection of errors is not determined by the study's description
        corrupted, clean = ("base", "source") if mode == "denoise" else ("source", "base")
        theirs = {"source": stored[f"{mode}_source"], "base": stored[f"{mode}_target"]}
        assert sorted(pairs[corrupted]) == sorted(theirs[corrupted])
        # several clean instances tie in single precision, and which of them is the largest differs between processors
        p = softmax(logits.astype(float), -1)[np.arange(len(logits)), data.y_test]
        most = {label: p[(data.y_test == label) & (logits.argmax(1) == label)].max() for label in set(pairs.label)}
        short = [most[data.y_test[i]] - p[i] for i in theirs[clean]]
        assert max(short) <= 4*np.finfo(np.float32).eps and len(set(theirs[clean])) == pairs[clean].nunique()
    table = published.pairs(mode)
    allowed = rounding_of_probabilities(model, data.X_test[table.base])
    for site, key in (("projection_slice", "head_patch"), ("layer", "layer_patch"), ("mlp", "mlp_patch")):
        swept = sweep(model, data.X_test, table, site, donors=("source",))
        assert abs(softmax(swept.patched["source"], -1) - stored[f"{mode}_{key}"]).max() <= allowed
    assert abs(softmax(swept.base, -1) - stored[f"{mode}_baseline"]).max() <= allowed < 1e-2


def test_projection_slices_are_not_heads():
    vowels = study("JapaneseVowels")
    pairs = vowels.pairs("denoise")
    heads, slices = (softmax(sweep(vowels.model, vowels.data.X_test, pairs, site, donors=("source",)).patched["source"], -1) for site in ("head", "projection_slice"))
    assert abs(heads - slices).max() > .01
