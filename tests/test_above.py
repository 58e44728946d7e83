"""A pass that begins at a hook point gives, bit for bit, what a whole pass with that edit gives, and computes no layer below."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from interp.evals.baseline import read_baseline, reconstruct
from interp.evals.in_place import measure_losses, random_error
from interp.models import Edit, open_model
from interp.models.above import Above
from interp.types import InterpError
from tests.families import FAMILIES, WIDTH, save

torch.set_num_threads(1)
HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A model of each family, made and opened when it is first asked for."""
    root, made = tmp_path_factory.mktemp("above"), {}

    def model(family):
        if family not in made:
            made[family] = open_model(str(save(family, root / family)), dtype="float32")
        return made[family]

    return model


@contextmanager
def counted(layers):
    """Grows by one for each call of a layer while the block runs."""
    calls = []
    handles = [layer.register_forward_hook(lambda *_: calls.append(1)) for layer in layers]
    yield calls
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"xlstm"}))
def test_a_pass_from_a_hook_point_on_is_the_whole_pass_with_that_edit(opened, family):
    model = opened(family)
    tokens_BT = model.some_tokens(6).repeat(2, 1)
    plain = model.run(tokens_BT).logits
    for hook in (HOOK, "blocks.1.hook_resid_pre"):
        x_BTD = model.run(tokens_BT, [hook]).activations[hook]
        x_BTD = x_BTD + torch.randn(x_BTD.shape, generator=torch.Generator().manual_seed(0))
        assert model.above.begins(hook)
        whole = model.run(tokens_BT, edits=[Edit(hook, lambda _, __, x=x_BTD: x)], logits=True).logits
        assert torch.equal(model.above.logits(hook, tokens_BT, x_BTD), whole)
    assert torch.equal(model.run(tokens_BT).logits, plain)  # nothing stands aside any more


def test_a_family_whose_hook_points_are_taps_is_run_whole(opened):
    model = opened("xlstm")
    assert not model.above.begins(HOOK)
    with pytest.raises(InterpError, match=f"no pass of xlstm begins at {HOOK}; edit it in a whole one"):
        model.above.logits(HOOK, model.some_tokens(6), torch.zeros(1, 6, WIDTH))


def test_layers_below_are_not_computed_and_are_afterwards(tiny):
    below = tiny.module.model.layers[0]
    tokens_BT = tiny.some_tokens(5).repeat(2, 1)
    x_BTD = tiny.run(tokens_BT, [HOOK]).activations[HOOK]
    assert tiny.above.begins(HOOK)
    with counted([below.self_attn, below.mlp]) as inside:
        tiny.above.logits(HOOK, tokens_BT, x_BTD)
        assert not inside
        tiny.run(tokens_BT)
        assert len(inside) == 2


def test_where_something_above_reads_what_a_layer_below_remembers_no_pass_begins(tiny):
    first, second = tiny.module.model.layers
    kept = []
    handles = [
        first.mlp.register_forward_hook(lambda _, __, out: kept.append(out)),
        second.mlp.register_forward_hook(lambda _, __, out: out + kept[-1]),
    ]
    try:
        above, tokens_BT = Above(tiny), tiny.some_tokens(5).repeat(2, 1)
        hook = "blocks.1.hook_resid_pre"
        assert not above.begins(hook)
        with pytest.raises(InterpError, match=f"no pass of .* begins at {hook}; edit it in a whole one"):
            above.logits(hook, tokens_BT, torch.zeros(2, 5, 16))
    finally:
        for handle in handles:
            handle.remove()
    assert Above(tiny).begins(hook)


def test_a_pass_that_fails_leaves_every_layer_as_it_was(tiny):
    tokens_BT = tiny.some_tokens(5).repeat(2, 1)
    plain = tiny.run(tokens_BT).logits
    with pytest.raises(RuntimeError):
        tiny.above.logits(HOOK, tokens_BT, torch.zeros(2, 5, 3))
    assert torch.equal(tiny.run(tokens_BT).logits, plain)
    assert not any("forward" in vars(layer) for layer in tiny.module.model.layers)


def test_it_begins_nowhere_else_than_on_the_residual_stream(tiny):
    assert not tiny.above.begins("blocks.1.hook_mlp_out")
    assert not tiny.above.begins("blocks.0.hook_resid_post")  # nothing lies below
    with pytest.raises(InterpError, match="blocks.9"):
        tiny.above.begins("blocks.9.hook_resid_post")


def test_losses_are_the_same_bits_whether_layers_stand_aside_or_not(tiny, checkpoint_sae, store, monkeypatch):
    def measured():
        base = read_baseline(tiny, checkpoint_sae, store.blocks, norm_cutoff=store.norm_cutoff(HOOK))
        made = reconstruct(base, checkpoint_sae)
        return measure_losses(base, {"sae": made.change(), "random": random_error(base, made)})

    above = measured()
    monkeypatch.setattr(Above, "begins", lambda self, name: False)
    whole = measured()
    for name, one in above.items():
        np.testing.assert_array_equal(one.ce_P, whole[name].ce_P)
        np.testing.assert_array_equal(one.kl_P, whole[name].kl_P)


@pytest.fixture
def checkpoint_sae(checkpoint):
    from interp.checkpoint import load

    return load(checkpoint)
