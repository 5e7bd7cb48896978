"Properties of patching over random models: the fast path equals hooks, for every site; and models that are not ours."
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tst_mi.model import ModelConfig, TimeSeriesTransformer
from tst_mi.patching import SITES, find_heads, sweep


@st.composite
def cases(draw):
    "A small random model, inputs, pairs and perhaps padding."
    heads = draw(st.sampled_from([1, 2, 3, 4]))
    length = draw(st.integers(1, 9))
    config = ModelConfig(n_channels=draw(st.integers(1, 3)), length=length, n_classes=draw(st.integers(2, 5)), d_model=heads*4, n_heads=heads,
                         n_layers=draw(st.sampled_from([1, 2, 3, 12])), d_ff=draw(st.integers(1, 20)), norm_first=draw(st.booleans()),
                         activation=draw(st.sampled_from(["relu", "gelu"])), pooling=draw(st.sampled_from(["max", "mean", "cls"])))
    seed = draw(st.integers(0, 2**31))
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = TimeSeriesTransformer(config).eval()
        for p in model.parameters(): p.data += .3*torch.randn_like(p)
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(7, length, config.n_channels)).astype(np.float32)
    mask = np.arange(length) < rng.integers(1, length + 1, size=(7, 1)) if draw(st.booleans()) else None
    return model, X, pd.DataFrame(rng.integers(0, 7, size=(3, 2)), columns=["base", "source"]), mask, rng


@pytest.mark.parametrize("site", SITES)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(case=cases())
def test_fast_path_equals_hooks(site, case):
    model, X, pairs, mask, rng = case
    c = model.config
    sets = [[tuple(map(int, rng.integers(0, (c.n_layers, c.n_heads)))) for _ in range(k)] for k in (1, 2, 4)] if site == "set" else None
    layers = None if site == "set" else sorted({0, c.n_layers - 1})
    args = dict(site=site, sets=sets, layers=layers, mask=mask, donors=("source", "zero"))
    fast, generic = (sweep(model, X, pairs, path=path, **args) for path in ("fast", "generic"))
    for d in fast.patched:
        assert fast.patched[d].shape == generic.patched[d].shape
        np.testing.assert_allclose(fast.patched[d], generic.patched[d], atol=2e-5, rtol=1e-4)
    own = sweep(model, X, pairs.assign(source=pairs.base), **{**args, "donors": ("source",)})
    same = own.base.reshape(3, *[1]*len(own.axes), -1)
    np.testing.assert_allclose(own.patched["source"], np.broadcast_to(same, own.patched["source"].shape), atol=2e-6, rtol=1e-5)


def test_one_token_update_keeps_its_digits_where_one_key_has_all_the_attention():
    "Where the patched position held nearly all attention, correcting the old sum would lose every digit; leaving it out first does not."
    torch.manual_seed(0)
    model = TimeSeriesTransformer(ModelConfig(2, 8, 3, d_model=16, n_heads=2, n_layers=2)).eval()
    for b in model.blocks: b.attn.in_proj.weight.data[:32] *= 12
    X = np.random.default_rng(0).normal(size=(12, 8, 2)).astype(np.float32)
    pairs = pd.DataFrame({"base": range(6), "source": range(6, 12)})
    pattern = model.blocks[1].attn.pattern_and_values(model.blocks[0](model.embed(torch.tensor(X))))[0]
    assert (pattern.max(-1).values > 1 - 1e-6).float().mean() > .2  # the case does occur
    single = sweep(model, X, pairs, "head_pos", donors=("source",)).patched["source"]
    double = sweep(model.double(), X, pairs, "head_pos", donors=("source",), path="generic").patched["source"]
    reference = sweep(model.float(), X, pairs, "head_pos", donors=("source",), path="generic").patched["source"]
    assert abs(single - double).max() <= 3*abs(reference - double).max() + 1e-5


def test_hugging_face_patchtst():
    transformers = pytest.importorskip("transformers")
    config = transformers.PatchTSTConfig(num_input_channels=2, context_length=16, patch_length=4, patch_stride=4, d_model=8, num_attention_heads=2,
                                         num_hidden_layers=2, ffn_dim=12, num_targets=3, attention_dropout=0., use_cls_token=True)
    torch.manual_seed(0)
    model = transformers.PatchTSTForClassification(config).eval()
    for p in model.parameters(): p.data += .2*torch.randn_like(p)
    assert [h.n_heads for h in find_heads(model)] == [2, 2]
    X = np.random.default_rng(0).normal(size=(8, 16, 2)).astype(np.float32)
    pairs = pd.DataFrame({"base": range(4), "source": range(4, 8)})
    heads, whole = (sweep(model, X, pairs, site, donors=("source",), sets=[[(l, h) for h in range(2)] for l in range(2)] if site == "set" else None) for site in ("head", "set"))
    layer = sweep(model, X, pairs, "layer", donors=("source",))
    np.testing.assert_allclose(whole.patched["source"], layer.patched["source"], atol=1e-5)
    kept = {}
    attention = find_heads(model)[1].projection
    with torch.no_grad():  # by hand: one head of the last layer
        h = attention.register_forward_pre_hook(lambda m, a: kept.update(z=a[0].clone())); model(torch.tensor(X[4:5])); h.remove()
        def put(m, a):
            z = a[0].clone(); z[..., :4] = kept["z"][..., :4]
            return (z,)
        h = attention.register_forward_pre_hook(put); by_hand = model(torch.tensor(X[:1])).prediction_logits[0]; h.remove()
    np.testing.assert_allclose(heads.patched["source"][0, 1, 0], by_hand.numpy(), atol=1e-5)
    for site in ("head_pos", "mlp", "residual", "mlp_pos"): assert np.isfinite(sweep(model, X, pairs, site, donors=("source",)).patched["source"]).all()
