"What could go wrong without a word, and now does not: designs, directions, pairs and logits of other data, figures and tables."
import ast
import re
import sys
from configparser import ConfigParser
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from readme import ROOT

from tst_mi import metrics, verdicts
from tst_mi.analysis import Settings, analyse
from tst_mi.baselines import functional
from tst_mi.data import Dataset
from tst_mi.figures import triple
from tst_mi.metrics import effect, negative_control, primary
from tst_mi.model import ModelConfig, TimeSeriesTransformer, predict
from tst_mi.pairs import DESIGNS, Design, make_pairs, published_pairs
from tst_mi.patching import sweep
from tst_mi.stability import stability

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6, 2)).astype(np.float32)
Y = np.arange(60) % 4
LIGHT = Settings(selection="all", max_pairs=12, n_boot=100, n_flips=200, power_runs=0)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return TimeSeriesTransformer(ModelConfig(2, 6, 4, d_model=8, n_heads=2, n_layers=1, d_ff=8)).eval()


@pytest.fixture(scope="module")
def analysis(model): return analyse(model, X, Y, LIGHT)


def first_three(asked):
    "A design of one's own: bases of class 0, sources of class 1, controls of class 2."
    of = [np.flatnonzero(asked.y == c)[:asked.max_pairs] for c in range(3)]
    return [[*rows, 1, 0, 2] for rows in zip(*of)], {}


def test_a_design_of_ones_own_is_matched_by_its_own_rule(monkeypatch, model):
    logits = predict(model, X)
    with pytest.raises(ValueError, match=re.escape(f"design is 'mine'; it must be one of {list(DESIGNS)}")): make_pairs(Y, logits, "mine")
    mine = Design(("contrast",), ("correct",), first_three, {"contrast": "classes 0 to 2"}, "three series, one {third}", "Dx.")
    monkeypatch.setitem(DESIGNS, "mine", mine)
    pairs = make_pairs(Y, logits, "mine", max_pairs=7)
    assert (pairs.design, pairs.direction, len(pairs)) == ("mine", "contrast", 7)
    assert set(pairs.table.label) == {1} and set(pairs.table.foil) == {0} and set(pairs.table.control_class) == {2}
    found = analyse(model, X, Y, replace(LIGHT, design="mine", selection="correct"))
    assert found.facts["contrast"]["n"] == 12 and (found.pairs.label == 1).all()


@pytest.mark.parametrize("refuses", [lambda swept: effect(swept, "sideways"), lambda swept: primary(swept, "sideways"), lambda swept: negative_control(swept, "sideways")])
def test_a_direction_that_nobody_defined_has_no_effect(model, refuses):
    table = make_pairs(Y, predict(model, X), selection="all", max_pairs=4).table
    with pytest.raises(ValueError, match="direction is 'sideways'"): refuses(sweep(model, X, table))
    with pytest.raises(ValueError, match="direction is 'sideways'"): functional(table, "sideways", 4)
    with pytest.raises(ValueError, match="direction is 'sideways'"): published_pairs(Y, predict(model, X), "sideways")


OTHER = RNG.permutation(60)


def two_swapped(rows):
    changed = rows.copy()
    changed[[30, 31]] = rows[[31, 30]]
    return changed


def turned(pairs, one, other): return replace(pairs, table=pairs.table.rename(columns={one: other, other: one}))


STRANGERS = [
    (lambda m, a: analyse(m, X[OTHER], Y, matched=a.matched), "matched on other series than X"),
    (lambda m, a: analyse(m, two_swapped(X), Y, matched=a.matched), "matched on other series than X"),
    (lambda m, a: analyse(m, X, Y, matched={d: turned(p, "label", "foil") for d, p in a.matched.items()}), "not of the class that their row says"),
    (lambda m, a: analyse(m, X, Y, matched={d: turned(p, "base", "source") for d, p in a.matched.items()}), "not of the class that their row says"),
    (lambda m, a: analyse(m, X, Y, LIGHT, matched=a.matched, logits=predict(m, X)), "give matched or logits, not both"),
    (lambda m, a: analyse(m, X, Y, LIGHT, logits=two_swapped(predict(m, X))), "the given logits are not this model's"),
    (lambda m, a: analyse(m, X, Y, LIGHT, logits=torch.as_tensor(predict(m, X)).softmax(1)), "returns probabilities"),
    (lambda m, a: analyse(m, X[:50], Y[:50], matched=a.matched), "matched on 60 instances, and X has 50"),
    (lambda m, a: analyse(m, X, Y[::-1], matched=a.matched), "matched on other labels than y"),
    (lambda m, a: analyse(m, X + 1, Y, matched=a.matched), "matched on other series than X"),
    (lambda m, a: analyse(TimeSeriesTransformer(m.config).eval(), X, Y, matched=a.matched), "not this model's"),
    (lambda m, a: analyse(TimeSeriesTransformer(replace(m.config, n_classes=5)).eval(), X, Y, matched=a.matched), "4 outputs, and the model has 5"),
    (lambda m, a: analyse(m, X, Y, LIGHT, logits=predict(m, X[OTHER])), "the given logits are not this model's"),
    (lambda m, a: analyse(m, X, Y, LIGHT, logits=predict(m, X)[:30]), r"logits have shape \(30, 4\)"),
    (lambda m, a: stability(m, X[OTHER], a, {"gaussian": (.1,)}, (0,), n_boot=100), "matched on other series than X")]


@pytest.mark.parametrize("stranger, says", STRANGERS)
def test_pairs_and_logits_of_other_data_are_refused(model, analysis, stranger, says):
    with pytest.raises(ValueError, match=says): stranger(model, analysis)


def test_pairs_and_logits_of_the_same_data_are_taken(model, analysis):
    again = analyse(model, torch.as_tensor(X), Y.tolist(), LIGHT, matched=analysis.matched)
    pd.testing.assert_frame_equal(again.heads, analysis.heads)
    pd.testing.assert_frame_equal(analyse(model, X, Y, LIGHT, logits=predict(model, X)).heads, analysis.heads)


def test_masked_labels_are_refused(model):
    with pytest.raises(ValueError, match="y is a masked array"): analyse(model, X, np.ma.masked_equal(Y, 2), LIGHT)


def test_a_triple_without_a_control_source_is_drawn_without_one(model):
    "Row -1 of X would be drawn as the control otherwise, and there is no Dx to show."
    logits = np.eye(4)[np.where(np.arange(60) % 5, Y, (Y + 1) % 4)]
    pairs = replace(published_pairs(Y, logits), origin=None)
    found = analyse(model, X, Y, LIGHT, matched={"denoising": pairs})
    data = Dataset("P", X, Y, X, Y, ("a", "b", "c", "d"), "", {}, {})
    axes = triple(data, found.pairs.iloc[0], found.effects).axes
    assert [len(ax.lines) > 0 for ax in axes[:3]] == [True, True, False] and not axes[2].axison
    assert axes[3].get_title().startswith("E ")
    with pytest.raises(ValueError, match="no column Dx, D or E of the 0 effects"): metrics.tested_quantity(found.effects[:0])


def test_only_what_cannot_be_known_is_left_empty(monkeypatch):
    "Not every column whose name begins with p or q."
    real = verdicts.bootstrap
    monkeypatch.setattr(verdicts, "bootstrap", lambda *args, **options: {**real(*args, **options), "proportion": np.ones(3)})
    table = verdicts.infer(RNG.normal(size=(4, 3)), np.ones(4), .01, n_boot=100)
    assert table.p.isna().all() and table.q.isna().all() and table.lo.isna().all() and table.se.isna().all()
    assert (table.proportion == 1).all() and table["mean"].notna().all()


def test_every_package_that_is_imported_is_declared():
    config = ConfigParser(delimiters=["="])
    config.read(ROOT/"settings.ini", encoding="utf-8")
    declared = {re.split(r"[<>=!~]", word)[0].lower() for word in config["DEFAULT"]["requirements"].split()}
    names = {"sklearn": "scikit-learn", "pil": "pillow", "ipython": "ipykernel", "nbformat": "nbconvert"}  # imported -> the package that brings it
    for path in (ROOT/"tst_mi").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import): found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level: found = [node.module]
            else: continue
            for name in {module.split(".")[0] for module in found} - set(sys.stdlib_module_names) - {"tst_mi"}:
                assert names.get(name.lower(), name.lower()) in declared, f"{path.name} imports {name}"
