"What a verdict promises: one test behind all of it, and none where the model chose the donors, where nothing is to be carried, or where few triples lean."
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tst_mi import statistics
from tst_mi.analysis import Settings, analyse
from tst_mi.bootstrap import bootstrap_test
from tst_mi.calibration import Rotation, placebo_runs, rejection_rates, rotated, scrambled
from tst_mi.flips import PValues, sign_flip
from tst_mi.model import ModelConfig, TimeSeriesTransformer, predict
from tst_mi.training import fit
from tst_mi.pairs import make_pairs
from tst_mi.planning import detectable, power, units_needed
from tst_mi.questions import all_matchings, confirm
from tst_mi.statistics import LEAST_UNITS, TEST, TESTS, mean_test
from tst_mi.verdicts import VERDICTS, infer

LIGHT = Settings(max_pairs=40, n_boot=100, n_flips=400, power_runs=0)


@pytest.fixture(scope="module")
def network():
    "A small network that was trained to tell four classes apart, and series that it has not seen."
    rng = np.random.default_rng(0)
    y = np.arange(480) % 4
    X = rng.normal(size=(480, 8, 2)).astype(np.float32)
    X[np.arange(480), 2:5, 0] += 3*(y % 2)[:, None]
    X[np.arange(480), 2:5, 1] += 3*(y // 2)[:, None]
    model, _ = fit(X[:240], y[:240], 4, epochs=25, batch_size=8, lr=3e-3, d_model=16, n_heads=2, n_layers=1, d_ff=16, progress=False)
    X, y = X[240:], y[240:]
    return model, X, y


@pytest.fixture(scope="module")
def mistaken(network):
    "The same network where it often errs: series with more noise."
    model, X, y = network
    X = X + np.random.default_rng(5).normal(scale=2, size=X.shape).astype(np.float32)
    wrong = predict(model, X).argmax(1) != y
    assert .2 < wrong.mean() < .5
    return model, X, y


def always(units, shifts, n_flips, seed):
    "A test that believes everything."
    return PValues(*(np.full(shifts.shape, v) for v in (9., 1e-9, 1e-9, 1e-9)))


def never(units, shifts, n_flips, seed):
    return PValues(*(np.full(shifts.shape, v) for v in (0., 1., 1., 1.)))


@pytest.mark.parametrize("p_values, p", [(always, 1e-9), (never, 1.)])
def test_one_test_is_behind_everything(monkeypatch, network, mistaken, p_values, p):
    "What stands under `TEST` in the table is what judges: nothing else has to be told of another test."
    monkeypatch.setitem(TESTS, TEST, statistics.Test(p_values, "nothing", {LEAST_UNITS: np.inf}, TESTS[TEST].smallest_p))
    model, X, y = network
    x = np.random.default_rng(1).normal(size=(60, 3))
    gap = np.full(60, 5.)
    believed = p < .05
    assert (infer(x, gap, .01, n_boot=100).p == p).all()
    assert (power(x, np.ones(3), replicates=3) == believed).all()
    assert (np.isfinite(detectable(x, replicates=3).mde) == believed).all()
    assert (np.isfinite(units_needed(x, .5, replicates=3, most=60).units) == believed).all()
    found = analyse(model, X, y, LIGHT)
    assert (found.heads.p == p).all() and (found.heads.negative_p == p).all()
    assert (placebo_runs(model, X, y, LIGHT, 1).p == p).all()
    assert (scrambled(model, X, y, LIGHT, 1).p == p).all() and (rotated(model, X, y, LIGHT, 1).p == p).all()
    assert len(confirm(model, X, y, replace(LIGHT, max_pairs=80))) == 2*believed
    error = analyse(*mistaken, replace(LIGHT, design="error")).heads
    assert (error[error.direction == "denoising"].p == p).all() and error[error.direction == "noising"].p.isna().all()


def test_where_the_model_chose_the_instances_there_are_sizes_and_no_verdict(network):
    model, X, y = network
    for settings in (replace(LIGHT, selection="correct"), replace(LIGHT, design="error", selection="correct")):
        for site in ("head", "layer", "mlp"):
            heads = analyse(model, X, y, settings, site=site).heads
            assert set(heads.verdict) == {"untestable: selection"} and heads[["p", "q", "p_max_t", "negative_p"]].isna().all(axis=None)
            assert heads[["mean", "lo", "hi", "d_z"]].notna().all(axis=None)
    assert set(analyse(model, X, y, LIGHT).heads.verdict) <= {*VERDICTS} - {"untestable: selection"}
    with pytest.raises(ValueError, match="no test of heads is valid"): confirm(model, X, y, replace(LIGHT, selection="correct"))


def test_in_the_error_design_denoising_is_tested_on_donors_that_the_model_did_not_choose(mistaken):
    model, X, y = mistaken
    settings = replace(LIGHT, design="error")
    heads = analyse(model, X, y, settings).heads
    for direction, part in heads.groupby("direction"): assert part.verdict.eq("untestable: selection").all() == (direction == "noising")
    matched = analyse(model, X, y, settings, site="layer").matched
    assert not matched["denoising"].selected and matched["noising"].selected
    predicted, donors = predict(model, X).argmax(1), matched["denoising"].table[["source", "control"]].to_numpy().ravel()
    assert (predicted[matched["denoising"].table.base] != y[matched["denoising"].table.base]).all()
    assert (predicted[donors] != y[donors]).any()   # they come right or wrong
    runs = scrambled(model, X, y, settings, 20)
    assert set(runs.direction) == {"denoising"} and rejection_rates(runs).holds.all()


def test_what_the_model_says_of_donors_moves_no_triple(mistaken):
    model, X, y = mistaken
    logits = predict(model, X)
    rng = np.random.default_rng(0)
    for seed in range(20):
        for settings in (dict(), dict(stratify=True), dict(reuse=2)):
            matched = make_pairs(y, logits, "error", "denoising", seed=seed, **settings)
            bases = matched.table.base.unique()
            shuffled = logits.copy()
            donors = matched.table[["source", "control"]].to_numpy().ravel()
            shuffled[donors] = rng.normal(size=(len(donors), logits.shape[1]))
            again = make_pairs(y, shuffled, "error", "denoising", seed=seed, **settings)
            assert again.table.equals(matched.table) and not set(bases) & set(donors)


def test_confirming_needs_enough_triples_in_both_parts(network):
    model, X, y = network
    with pytest.raises(ValueError, match="a part has 20 independent triples"): confirm(model, X, y, replace(LIGHT, max_pairs=40))


def test_pairs_that_were_brought_along_remember_who_chose_them(network):
    model, X, y = network
    pairs = make_pairs(y, predict(model, X), max_pairs=40, selection="correct")
    assert set(analyse(model, X, y, LIGHT, matched={"contrast": pairs}).heads.verdict) == {"untestable: selection"}


def test_a_network_that_classifies_nothing_gets_no_verdict(network):
    _, X, y = network
    for seed in range(3):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            blind = TimeSeriesTransformer(ModelConfig(2, 8, 4, d_model=8, n_heads=2, n_layers=1, d_ff=8)).eval()
        shuffled = np.random.default_rng(seed).permutation(y)   # nothing in X tells of these
        heads = analyse(blind, X, shuffled, replace(LIGHT, max_pairs=60)).heads
        assert set(heads.verdict) == {"untestable: no gap"} and heads[["p", "q"]].isna().all(axis=None)


def test_a_head_that_is_the_whole_layer(network):
    _, X, y = network
    shape = dict(d_model=16, n_heads=1, n_layers=1, d_ff=16)
    alone, _ = fit(X[:120], y[:120], 4, epochs=25, batch_size=8, lr=3e-3, progress=False, **shape)
    alone = alone.double()
    head, layer = (analyse(alone, X[120:], y[120:], LIGHT, site=site).heads for site in ("head", "layer"))
    np.testing.assert_allclose(head[["mean", "recovery", "p", "q"]], layer[["mean", "recovery", "p", "q"]], rtol=1e-9)
    assert head.verdict.tolist() == layer.verdict.tolist() == ["more+"]
    believed = rejection_rates(scrambled(alone, X[120:], y[120:], LIGHT, 20))
    assert believed.tests.tolist() == [20] and believed.holds.all()


def test_few_units_and_skew():
    rng = np.random.default_rng(2)
    x, gap = rng.normal(2, 1, size=(LEAST_UNITS, 2)), np.full(LEAST_UNITS, 9.)
    assert list(infer(x, gap, .01, n_boot=100).verdict) == ["more+"]*2
    assert set(infer(x[1:], gap[1:], .01, n_boot=100).verdict) == {"untestable: few units"}
    leans = np.column_stack([x[:, 0], np.r_[np.full(LEAST_UNITS - 1, .1), 30] + rng.normal(size=LEAST_UNITS)*.01])
    table = infer(leans, gap, .01, n_boot=100)
    assert list(table.verdict) == ["more+", "untestable: skew"] and table.q[0] == min(1, 2*table.p[0])   # it stays in the family


@pytest.mark.parametrize("ties", [False, True])
def test_the_larger_p_value_counts(ties):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(50, 20)) + np.linspace(-1, 1, 20)
    if ties: x = x.round(0)
    both, flips, drawn = mean_test(x, n_flips=500), sign_flip(x, n_flips=500), bootstrap_test(x, n_boot=500)
    assert (both.p == np.maximum(flips.p, drawn.p)).all() and (both.p_max_t >= np.maximum(flips.p_max_t, drawn.p_max_t)).all()
    order = np.argsort(-abs(both.t))
    assert (np.diff(both.p_max_t[order]) >= 0).all()


def test_scrambled_heads_are_believed_no_more_than_alpha_allows_while_real_ones_are_found(network):
    model, X, y = network
    runs = scrambled(model, X, y, LIGHT, 20)
    table = rejection_rates(runs)
    assert table.holds.all() and len(runs) == 40
    assert (analyse(model, X, y, replace(LIGHT, max_pairs=80)).heads.p <= .05).any()


@pytest.mark.parametrize("call, says", [
    (lambda m, X, y: scrambled(m, X, y, replace(LIGHT, max_pairs=LEAST_UNITS - 1)), "independent triples can be formed"),
    (lambda m, X, y: rotated(m, X, y, replace(LIGHT, selection="correct")), "use selection 'all'"),
    (lambda m, X, y: scrambled(m, X, y, LIGHT, 0), "runs is 0"),
    (lambda m, X, y: all_matchings(m, X, y, analyse(m, X, y, LIGHT), 1), "at least two"),
    (lambda m, X, y: analyse(m, X, y, LIGHT, site="mlp", alter=Rotation()), "needs site 'head'"),
])
def test_controls_say_what_they_cannot_do(network, call, says):
    with pytest.raises(ValueError, match=says): call(*network)


@pytest.mark.parametrize("page, phrases", [
    ("30_statistics", ["With fewer than {n} units the answer is: nothing"]),
    ("31_verdicts", ["no test keeps its promise, fewer than {n}", "make fewer than {n} cells", "from {n} on p-values"]),
    ("75_own_model", ["Below {n} nothing can be tested"]),
    ("82_calibration_study", ["from {n} units on"]),
    ("90_cli", ["where at least {n} errors are usable"]),
    ("99_report", ["where at least {n} errors are usable"]),
])
def test_prose_names_the_number_of_units_that_the_code_asks_for(page, phrases):
    text = (Path(__file__).parents[1]/"nbs"/f"{page}.ipynb").read_text()
    for phrase in phrases: assert phrase.format(n=LEAST_UNITS) in text, phrase
