"Properties of patching over random models: the fast path equals hooks, for every site; what is wrong is refused; and models that are not ours."
import copy

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tst_mi import fast as fast_module, patching
from tst_mi.model import POOLINGS, Attention, ModelConfig, Pooling, TimeSeriesTransformer, rounding
from tst_mi.fast import FAST, has_fast_path, missing_members
from tst_mi.hooks import PROTOCOL, SITES, find_heads
from tst_mi.inputs import model_logits
from tst_mi.patching import sweep

pytestmark = pytest.mark.filterwarnings("ignore:in torch.*rounding may move")  # random networks with hardly any effect

EXACT = 1e-10  # two exact paths in float64 differ by rounding alone; logits here are of the order of 1


@st.composite
def cases(draw):
    "A small random model, inputs, pairs and perhaps padding."
    heads = draw(st.sampled_from([1, 2, 3, 4]))
    length = draw(st.integers(1, 9))
    config = ModelConfig(n_channels=draw(st.integers(1, 3)), length=length, n_classes=draw(st.integers(2, 5)), d_model=heads*4, n_heads=heads,
                         n_layers=draw(st.sampled_from([1, 2, 3, 12])), d_ff=draw(st.integers(1, 20)), norm_first=draw(st.booleans()),
                         activation=draw(st.sampled_from(["relu", "gelu"])), pooling=draw(st.sampled_from(sorted(POOLINGS))))
    seed = draw(st.integers(0, 2**31))
    model = random_model(config, seed)
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(7, length, config.n_channels)).astype(np.float32)
    mask = np.arange(length) < rng.integers(1, length + 1, size=(7, 1)) if draw(st.booleans()) else None
    return model, X, pd.DataFrame(rng.integers(0, 7, size=(3, 2)), columns=["base", "source"]), mask, rng


def random_model(config, seed=0, kind=TimeSeriesTransformer):
    "A network whose biases and norms are away from their start values."
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = kind(config).eval()
        for p in model.parameters(): p.data += .3*torch.randn_like(p)
    return model


def arguments(site, config, mask, rng):
    "What a sweep of this site is told."
    shape = config.n_layers, config.n_heads
    sets = [[tuple(map(int, rng.integers(0, shape))) for _ in range(k)] for k in (1, 2, 4)] if site == "set" else None
    layers = None if site == "set" else sorted({0, config.n_layers - 1})
    return dict(site=site, sets=sets, layers=layers, mask=mask, donors=("source", "zero"))


def difference(a, b): return max(abs(a.patched[d] - b.patched[d]).max() for d in a.patched)


@pytest.mark.parametrize("site", SITES)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(case=cases())
def test_fast_path_equals_hooks(site, case):
    "In double precision, where rounding cannot hide a mistake: with hooks, and a component's own activation changes nothing."
    model, X, pairs, mask, rng = case
    args = arguments(site, model.config, mask, rng)
    exact = copy.deepcopy(model).double()
    fast, generic = (sweep(exact, X, pairs, path=path, **args) for path in ("fast", "generic"))
    assert fast.info["path"] == "fast" and fast.base.dtype == np.float64
    assert {d: v.shape for d, v in fast.patched.items()} == {d: v.shape for d, v in generic.patched.items()}
    assert difference(fast, generic) <= EXACT
    own = sweep(exact, X, pairs.assign(source=pairs.base), **{**args, "donors": ("source",)})
    assert abs(own.patched["source"] - own.base.reshape(3, *[1]*len(own.axes), -1)).max() <= EXACT


def patched_runs(pairs, args):
    "A run of a model, of series and mask, that gives what a sweep by hooks gives: its rounding is that of patched logits."
    def run(model, X, mask):
        swept = sweep(model, X, pairs, path="generic", **{**args, "mask": None if mask is None else mask.numpy()})
        return torch.as_tensor(np.concatenate([v.ravel() for v in swept.patched.values()]))
    return run


@pytest.mark.parametrize("site", SITES)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(case=cases())
def test_single_precision_differs_by_what_rounding_explains(site, case):
    model, X, pairs, mask, rng = case
    args = arguments(site, model.config, mask, rng)
    fast, generic = (sweep(model, X, pairs, path=path, **args) for path in ("fast", "generic"))
    allowed = rounding(model, patched_runs(pairs, args), torch.as_tensor(X), None if mask is None else torch.as_tensor(mask))
    assert difference(fast, generic) <= allowed
    assert allowed < 1e-3*np.ptp(generic.base) + 1e-3*max(np.ptp(v) for v in generic.patched.values()), "so wide that it could not fail"
    fast.patched["source"][(0,)*fast.patched["source"].ndim] += 10*allowed
    assert difference(fast, generic) > allowed


CONFIG = dict(n_channels=2, length=6, n_classes=3, d_model=8, n_heads=2, n_layers=2, d_ff=12)
RNG = np.random.default_rng(0)
SERIES = RNG.normal(size=(10, 6, 2)).astype(np.float32)
PAIRS = pd.DataFrame(RNG.permutation(10)[:8].reshape(4, 2), columns=["base", "source"])
POS = [name for name, site in SITES.items() if site.one_position]
SETS = [[(0, 0), (1, 1)], [(1, 0)]]


def swept(model, site, **more): return sweep(model, SERIES, PAIRS, site, donors=("source",), sets=SETS if site == "set" else None, **more)


def rms(x, mask): return (x if mask is None else x*mask[..., None]).pow(2).mean(-2).sqrt()


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", [*POOLINGS, "rms"])
def test_every_pooling_that_is_registered_is_patched_exactly(monkeypatch, name, site):
    monkeypatch.setitem(POOLINGS, "rms", rms)
    model = random_model(ModelConfig(**CONFIG, pooling=name)).double()
    assert difference(swept(model, site), swept(model, site, path="generic")) <= EXACT


@pytest.mark.parametrize("site", ["head_pos", "layer_pos", "mlp_pos"])   # what enters a layer is not what leaves the last one
def test_a_wrong_shortcut_of_a_pooling_is_refused(monkeypatch, site):
    monkeypatch.setitem(POOLINGS, "rms", Pooling(rms, POOLINGS["max"].one_token))
    with pytest.raises(ValueError, match="another row's|its own") as error: swept(random_model(ModelConfig(**CONFIG, pooling="rms")), site)
    assert "shortcuts" in str(error.value)


class PositionBias(Attention):
    "Scores prefer near steps: the update of one token does not know that."
    def pattern_and_values(self, x, mask=None):
        q, k, v = self.qkv(x)
        step = torch.arange(x.shape[1])
        return (q @ k.mT - (step[:, None] - step).abs()).softmax(-1), v


class Doubled(Attention):
    "Mixes the heads with twice the weights that it shows."
    def out(self, z): return 2*self.out_proj(z.flatten(-2))


class Gated(Attention):
    "The heads' sum passes through a gate, so that it is no sum any more."
    def out(self, z): return self.out_proj(z.flatten(-2)).tanh()


def with_attention(kind, layers=(0, 1), shortcuts=None):
    "A network in whose layers attention is of another kind, perhaps with shortcuts declared."
    model = random_model(ModelConfig(**CONFIG))
    for l in layers:
        model.blocks[l].attn.__class__ = kind
        if shortcuts is not None: model.blocks[l].attn.shortcuts = frozenset(shortcuts)
    return model.double()


@pytest.mark.parametrize("kind, site, layer", [
    *((PositionBias, site, 1) for site in ("head_pos", "layer_pos", "mlp_pos")), (PositionBias, "residual_pos", 0), (PositionBias, "residual_pos", 1),
    *((kind, site, layer) for kind in (Doubled, Gated) for site in ("head", "set", "head_pos") for layer in (0, 1))])
def test_a_shortcut_that_does_not_hold_in_one_layer_is_refused(kind, site, layer):
    model = with_attention(kind, [layer], shortcuts={"mixing", "one_token"})
    with pytest.raises(ValueError, match="activation .* rounding explains .* shortcuts"): swept(model, site)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("kind, holds", [(PositionBias, {"mixing"}), (PositionBias, None), (Doubled, {"one_token"}), (Doubled, None), (Gated, {"one_token"}), (Gated, set())])
def test_what_is_not_declared_is_patched_step_by_step(kind, holds, site):
    "Nothing is declared by a class that overrides what attention computes and says nothing (None)."
    model = with_attention(kind, shortcuts=holds)
    ours = swept(model, site)
    relies = {s for s, used in (("mixing", SITES[site].activation == "z"), ("one_token", site in POS)) if used}
    assert ours.info["path"] == ("fast" if relies <= (holds or set()) else "steps")
    assert difference(ours, swept(model, site, path="generic")) <= EXACT


def test_influence_needs_the_mixing_of_heads():
    with pytest.raises(ValueError, match="another row's"): patching.head_influence(with_attention(Doubled, shortcuts={"mixing"}), SERIES, PAIRS)
    with pytest.raises(ValueError, match="declare 'mixing'"): patching.head_influence(with_attention(Doubled), SERIES, PAIRS)
    with pytest.raises(ValueError, match="declare 'mixing'"): patching.head_influence(with_attention(Doubled, shortcuts=()), SERIES, PAIRS)


def off(f): return lambda *inputs: f(*inputs)*(1 + 1e-6)


@pytest.mark.parametrize("site", [name for name, fast_way in FAST.items() if fast_way.stream])
def test_the_check_sees_a_mistake_of_a_millionth_in_every_site(monkeypatch, site):
    "Of a network in single precision too, since it is a copy in double precision that is checked."
    model = random_model(ModelConfig(**CONFIG))
    swept(model, site)
    monkeypatch.setitem(FAST, site, FAST[site]._replace(stream=off(FAST[site].stream)))
    with pytest.raises(ValueError, match="rounding explains"): swept(model, site)


@pytest.mark.parametrize("site, name", [("set", "_per_head"), ("head_pos", "_own_attention")])
def test_the_check_sees_a_mistake_of_a_millionth(monkeypatch, site, name):
    model, right = random_model(ModelConfig(**CONFIG)), getattr(fast_module, name)
    swept(model, site)
    monkeypatch.setattr(fast_module, name, off(right))
    with pytest.raises(ValueError, match="rounding explains"): swept(model, site)


@pytest.mark.parametrize("rows, donors", [([2], "zero"), ([2], "mean"), ([2, 5], "zero")])
def test_one_series_or_two_alike_do_not_hide_a_wrong_shortcut(rows, donors):
    "With a single base there is no other row, and a row's own activation changes nothing."
    series = SERIES.copy()
    series[5] = series[2]
    with pytest.raises(ValueError, match="another row's"):
        sweep(with_attention(Doubled, shortcuts={"mixing"}), series, pd.DataFrame({"base": rows}), donors=donors)


def test_a_model_with_one_layer_under_two_names_stays_as_it_is():
    "Exchanging weights for a while must put back what it took, whichever way a module can be reached."
    model = random_model(ModelConfig(**CONFIG)).double()
    model.blocks[1] = model.blocks[0]
    before = {k: v.detach().clone() for k, v in model.named_parameters(remove_duplicate=False)}
    twice = swept(model, "residual")
    apart = copy.deepcopy(model)
    apart.blocks[1] = copy.deepcopy(model.blocks[0])
    assert difference(twice, swept(apart, "residual")) <= EXACT
    after = dict(model.named_parameters(remove_duplicate=False))
    assert list(after) == list(before) and all(isinstance(v, nn.Parameter) and torch.equal(v, before[k]) for k, v in after.items())


def test_a_module_with_two_names_is_found_once():
    model = Two().eval()
    model.alias = model.first
    assert [h.name for h in find_heads(model, {"first.out_proj": 2})] == ["first.out_proj"]
    del model.second
    model.second = nn.Identity()
    assert [h.name for h in find_heads(model)] == ["first.out_proj"]


def test_resumed_chunks_are_of_the_same_question(tmp_path):
    model, donors = random_model(ModelConfig(**CONFIG)).double(), ("source", "control")
    pairs = PAIRS.assign(control=PAIRS.source[::-1].to_numpy())
    ask = lambda table, **more: sweep(model, SERIES, table, donors=donors, **more)
    first = ask(pairs, resume=tmp_path)
    turned = pairs.rename(columns={"source": "control", "control": "source"})
    changed = pairs.astype(object)
    changed.loc[0, "base"] = int(pairs.source[0])
    for table in (turned, changed, pairs.astype(object)): assert difference(ask(table, resume=tmp_path), ask(table)) == 0
    assert difference(ask(turned, resume=tmp_path), first) > .01
    both = {f"blocks.{l}.attn.out_proj": 2 for l in (0, 1)}
    ask(pairs, heads=both, resume=tmp_path)
    other = dict(reversed(both.items()))
    assert difference(ask(pairs, heads=other, resume=tmp_path), ask(pairs, heads=other)) == 0


def test_a_mean_in_half_precision_is_summed_in_more():
    series = np.tile(SERIES, (300, 1, 1))
    model = random_model(ModelConfig(**CONFIG))
    model.blocks[0].attn.in_proj.bias.data[-8:] += 20
    pairs = pd.DataFrame({"base": range(4)})
    single, half = (sweep(m, series, pairs, donors="mean") for m in (model, copy.deepcopy(model).half()))
    assert np.isfinite(half.patched["mean"]).all() and difference(half, single) < .1


@pytest.mark.filterwarnings("always:in torch.*rounding may move")
def test_effects_of_the_size_of_rounding_are_said_to_be():
    model = random_model(ModelConfig(**CONFIG))
    for block in model.blocks: block.attn.out_proj.weight.data *= 1e-8
    with pytest.warns(UserWarning, match="may be rounding alone; use model.double()"): swept(model, "head")


def test_whole_numbers_among_the_parameters_do_not_cut_off_the_series():
    model = random_model(ModelConfig(**CONFIG)).double()
    right = swept(model, "head")
    model.register_parameter("first", nn.Parameter(torch.arange(3), requires_grad=False))
    model._parameters.move_to_end("first", last=False) if hasattr(model._parameters, "move_to_end") else model._parameters.update({"first": model._parameters.pop("first")})
    assert difference(swept(model, "head"), right) == 0


def uneven(heads=(2, 4)):
    "A network whose layers have different numbers of heads."
    model = random_model(ModelConfig(**CONFIG))
    for block, n in zip(model.blocks, heads): block.attn.n_heads = n
    return model.double()


@pytest.mark.parametrize("path", ["fast", "generic"])
def test_layers_with_different_numbers_of_heads(path):
    with pytest.raises(ValueError, match=r"different numbers of heads, \[2, 4\]"): swept(uneven(), "head", path=path)
    args = dict(donors=("source",), path=path)
    assert sweep(uneven(), SERIES, PAIRS, layers=[1], **args).patched["source"].shape == (4, 1, 4, 3)
    sets = [[(1, 3)], [(0, 1), (1, 2)]]
    ours, other = (sweep(uneven(), SERIES, PAIRS, "set", sets=sets, donors=("source",), path=p) for p in (path, "generic"))
    assert difference(ours, other) <= EXACT
    with pytest.raises(ValueError, match="set 0 names layer 0 head 2"): sweep(uneven(), SERIES, PAIRS, "set", sets=[[(0, 2)]], **args)


def test_a_number_of_heads_that_is_not_that_of_z_is_refused():
    class Paired(Attention):
        shortcuts = frozenset()
        def heads(self, x, mask=None):
            z = super().heads(x, mask)
            return z[:, :, 0::2] - .5*z[:, :, 1::2]
        def out(self, z): return self.out_proj(torch.cat([z, z], 2).flatten(-2))
    with pytest.raises(ValueError, match=r"it has 2 heads \(attn.n_heads\), and heads\(x, mask\) gives 1"): swept(with_attention(Paired), "head")


class Plain(nn.MultiheadAttention):
    "Another forward under a known name."
    def forward(self, query, key, value, scale=1.): return super().forward(scale*query, key, value, need_weights=False)


def test_attention_with_a_forward_of_its_own_is_refused():
    model = Two().eval()
    model.first.__class__ = Plain
    with pytest.raises(ValueError, match="override the forward of nn.MultiheadAttention"): swept(model, "head", heads={"first.out_proj": 2})


KINDS = [  # arguments of a kind that ended in somebody else's error, or were taken for something else
    (dict(layers=1), "layers is 1; it must be a list of whole numbers from 0 to 1"), (dict(layers="all"), "layers is 'all'"), (dict(layers=[False, True]), "take np.flatnonzero"),
    (dict(layers=[.9]), "list of whole numbers"), (dict(site="head_pos", positions=np.arange(6) < 3), "take np.flatnonzero"), (dict(site="head_pos", positions=3), "positions is 3"),
    (dict(site="set", sets=[(0, 1)]), "sets must be a list of sets"), (dict(site="set", sets=[]), "it is empty"), (dict(site="set", sets=[[(0., 1)]]), "whole numbers from 0"),
    (dict(site="set", sets={"a": 1}), "sets must be a list of sets"), (dict(site="set", sets=[[(0, 1, 1)]]), "sets must be a list of sets"), (dict(chunk=2.5), "chunk is 2.5"), (dict(chunk="all"), "chunk is 'all'"),
    (dict(chunk=0), "chunk is 0"), (dict(donors=None), "donors is empty"), (dict(donors=(1,)), "donors is (1,)"), (dict(donors="mean", reference=[1.5]), "reference must name"), (dict(donors="mean", reference=3), "reference must name"),
    (dict(donors="mean", reference=np.ones(3, dtype=bool)), "reference must name"), (dict(path="fast", heads={"blocks.0.attn.out_proj": 2}), "takes neither heads nor call"), (dict(path="quick"), "path is 'quick'")]


@pytest.mark.parametrize("given, says", KINDS)
def test_arguments_of_another_kind_are_refused(given, says):
    with pytest.raises(ValueError) as error: sweep(random_model(ModelConfig(**CONFIG)), SERIES, PAIRS, **{"donors": ("source",), **given})
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("pairs, says", [(PAIRS.to_dict(), "pairs is a dict"), (PAIRS.assign(source="x"), "must hold row numbers"), (pd.concat([PAIRS, PAIRS], axis=1), "several columns of one name")])
def test_pairs_of_another_kind_are_refused(pairs, says):
    with pytest.raises(ValueError, match=says): sweep(random_model(ModelConfig(**CONFIG)), SERIES, pairs, donors=("source",))


def test_a_mask_of_steps_for_tokens_that_are_none_is_refused():
    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.attend, self.out = nn.Linear(4, 4), nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)
        def forward(self, x, mask=None):
            x = self.embed(x.unflatten(1, (3, 2)).flatten(2))
            return self.out(self.attend(x, x, x)[0].amax(1))
    with pytest.raises(ValueError, match="needs a method token_mask"): swept(Patches().eval(), "head", mask=np.ones((10, 6), dtype=bool))


@pytest.mark.parametrize("member", PROTOCOL)
def test_the_protocol_is_checked_whole(member):
    model = random_model(ModelConfig(**CONFIG))
    assert has_fast_path(model) and missing_members(model) == []
    *path, last = member.split(".")
    owner = model
    for name in path: owner = owner[1] if isinstance(owner := getattr(owner, name), nn.ModuleList) else owner
    object.__setattr__(owner, last, None)
    assert not has_fast_path(model) and member in missing_members(model)
    with pytest.raises(ValueError, match=f"does not show .*{member}"): swept(model, "head", path="fast")


def test_a_model_that_shows_eight_members_of_nine_is_patched_by_hooks():
    model = random_model(ModelConfig(**CONFIG)).double()
    right = swept(model, "head")
    for block in model.blocks:
        block.forward = type(block).forward.__get__(block)
        block.finish, block.forward = None, (lambda block: lambda x, mask=None: type(block).finish(block, h := block.mid(x, block.attn(x, mask)), block.mlp(h)))(block)
    hooked = swept(model, "head")
    assert hooked.info["path"] == "generic" and difference(hooked, right) <= EXACT


class Two(nn.Module):
    "Two kinds of attention: one whose parts have known names, one whose parts have not."
    def __init__(self, known=True):
        super().__init__()
        self.first = nn.MultiheadAttention(4, 2, batch_first=True)
        self.second = OtherAttention()
        self.embed, self.out = nn.Linear(2, 4), nn.Linear(4, 3)
    def forward(self, x):
        x = self.embed(x)
        x = x + self.first(x, x, x)[0]
        return self.out((x + self.second(x)).amax(1))


class OtherAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix_in, self.mix_out = nn.Linear(4, 12), Conv1D(4, 4)
    def forward(self, x):
        q, k, v = self.mix_in(x).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
        return self.mix_out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(-2))


class Conv1D(nn.Module):
    "A projection as in GPT-2: a weight the other way round, and no `in_features`."
    def __init__(self, n_in, n_out):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_in, n_out))
    def forward(self, x): return x @ self.weight


def test_attention_that_was_not_understood_is_named():
    model = Two().eval()
    with pytest.raises(ValueError, match=r"\['second'\] look like attention.*heads=\{'first.out_proj': 2\}"): find_heads(model)
    assert swept(model, "head", heads={"first.out_proj": 2}).patched["source"].shape == (4, 1, 2, 3)
    assert swept(model, "head", heads={"first.out_proj": 2, "second.mix_out": 2}).patched["source"].shape == (4, 2, 2, 3)


@pytest.mark.parametrize("heads, says", [
    ({"second.mix_out": 3}, "what enters second.mix_out is 4 wide, which 3 heads do not divide"), ({"first.out_proj": 3}, "has 4 inputs, which 3 heads do not divide"),
    *(({"first.out_proj": n}, "it must be a dict from names") for n in (0, -1, True, 2., "2")), ({}, "it must be a dict from names"), ("first.out_proj", "it must be a dict from names")])
def test_heads_that_cannot_be_are_refused(heads, says):
    with pytest.raises(ValueError, match=says): swept(Two().eval(), "head", heads=heads)


class BatchSecond(nn.Module):
    "Takes (instances, steps, channels) for (steps, instances, channels), as PyTorch's layers do by default."
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Linear(2, 4), nn.Linear(4, 3)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 1, enable_nested_tensor=False)
    def forward(self, x): return self.out(self.encoder(self.embed(x)).mean(1))


def test_a_model_that_mixes_instances_is_told_from_one_with_dropout():
    with pytest.raises(ValueError, match="batch_first=True"): model_logits(BatchSecond().eval(), SERIES)
    with pytest.raises(ValueError, match="differently when asked again"): model_logits(random_model(ModelConfig(**CONFIG)), SERIES, call=lambda model, x, mask: model(x) + torch.rand(()))


@pytest.mark.parametrize("last, says", [(nn.Sigmoid(), "lie between 0 and 1, as those of a sigmoid"), (nn.Softmax(1), "returns probabilities")])
def test_outputs_that_saturate_are_refused(last, says):
    model = random_model(ModelConfig(**CONFIG))
    with pytest.raises(ValueError, match=says): model_logits(model, SERIES, call=lambda model, x, mask: last(model(x)))
    kept = model_logits(model, SERIES, call=lambda model, x, mask: model(x).sigmoid() - 1)  # the way out that the message names
    assert kept.max() < 0


def test_small_logits_are_checked_as_strictly_as_large_ones():
    "With logits of 1e-5 an absolute tolerance of 1e-4 would let anything pass."
    class Small(TimeSeriesTransformer):
        def forward(self, x, mask=None): return super().forward(x, mask)*1e-5
        def readout(self, x, mask=None): return super().readout(x, mask)
    with pytest.raises(ValueError, match="where rounding explains"): swept(random_model(ModelConfig(**CONFIG), kind=Small), "head")


def test_half_precision_is_swept_where_it_can_be_and_refused_where_rounding_is_all():
    model = random_model(ModelConfig(**CONFIG))
    single = swept(model, "head")
    half = copy.deepcopy(model).bfloat16()
    try: found = swept(half, "head")
    except ValueError as e: assert "use model.float()" in str(e)
    else: assert difference(found, single) < .3*np.ptp(single.base)
    half.classifier.weight.data *= 1e-3   # logits whose differences drown in the bias
    half.classifier.bias.data[:] = 100.
    with pytest.raises(ValueError, match=r"in torch.bfloat16, rounding alone .* model.float\(\)"): swept(half, "head")


def test_kinds_of_input_that_would_lose_something_are_refused(tmp_path):
    model = random_model(ModelConfig(**CONFIG))
    with pytest.raises(ValueError, match="mask would be lost"): sweep(model, np.ma.masked_greater(SERIES, 2.), PAIRS, donors=("source",))
    sweep(model, np.ma.masked_greater(SERIES, 1e9), PAIRS, donors=("source",))   # nothing is masked
    with pytest.raises(ValueError, match="device 'meta'"): swept(TimeSeriesTransformer(ModelConfig(**CONFIG)).eval().to("meta"), "head")
    (tmp_path/"file").write_text("")
    with pytest.raises(ValueError, match="which is a file; name a folder"): swept(model, "head", resume=tmp_path/"file")


def test_one_token_update_keeps_its_digits_where_one_key_has_all_the_attention():
    "Where the patched position held nearly all attention, correcting the old sum would lose every digit; leaving it out first does not."
    torch.manual_seed(0)
    model = TimeSeriesTransformer(ModelConfig(2, 8, 3, d_model=16, n_heads=2, n_layers=2)).eval()
    for b in model.blocks: b.attn.in_proj.weight.data[:32] *= 12
    X = np.random.default_rng(0).normal(size=(12, 8, 2)).astype(np.float32)
    pairs = pd.DataFrame({"base": range(6), "source": range(6, 12)})
    pattern = model.blocks[1].attn.pattern_and_values(model.blocks[0](model.embed(torch.tensor(X))))[0]
    assert (pattern.max(-1).values > 1 - 1e-6).float().mean() > .2  # the case does occur
    args = dict(site="head_pos", donors=("source",))
    single, exact = sweep(model, X, pairs, **args), sweep(copy.deepcopy(model).double(), X, pairs, path="generic", **args)
    assert difference(single, exact) <= rounding(model, patched_runs(pairs, args), torch.as_tensor(X), None)


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
