"""Patching, attribution and paths: what they are by definition, on families with random weights, and on SmolLM2."""

import contextlib

import numpy as np
import pytest
import torch

from interp.circuits.direct import attribute_directly
from interp.circuits.logit_lens import read_layers
from interp.circuits.metric import logit_difference
from interp.circuits.patching import attribute_patches, patch_activations
from interp.circuits.paths import all_parts, patch_paths
from interp.circuits.points import EMBED, MLP, RESIDUAL, Z, attention_heads, count_layers, each_layer, output_matrix
from interp.models import Edit, open_model
from interp.types import InterpError
from tests.families import FAMILIES, save

torch.set_num_threads(1)
MANY = ["llama", "gpt2", "gpt_neox"]
WHOLE = ["opt", "granite", "mamba", "mamba2", "xlstm", "recurrent_gemma"]
"""Families that show no output of attention and MLP apart."""
CLEAN = ["the city of blue music and the river seven", "the house of green paper and the winter seven"]
CORRUPT = ["the house of blue music and the train seven", "the city of green bread and the winter under"]
TARGETS, DISTRACTORS = [40, 50], [60, 71]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A model of each family, made when it is first asked for."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def model(family):
        if family not in made:
            made[family] = open_model(str(save(family, root / family)), dtype="float32")
            torch.manual_seed(2)
            with torch.no_grad():  # zeros as they are made, which would hide a bias that is forgotten
                for name, parameter in made[family].module.named_parameters():
                    if name.endswith("bias"):
                        parameter.normal_(0, 0.3)
        return made[family]

    return model


def ids(model, texts):
    rows = [model.prompt(text) for text in texts]
    shortest = min(map(len, rows))
    return torch.tensor([row[:shortest] for row in rows])


def pair(model):
    clean, corrupt = ids(model, CLEAN), ids(model, CORRUPT)
    shortest = min(clean.shape[1], corrupt.shape[1])
    return clean[:, -shortest:], corrupt[:, -shortest:]


METRIC = logit_difference(TARGETS, DISTRACTORS)


def metric_of(model, tokens, edits=()):
    return METRIC(model.run(tokens, edits=edits, logits=True).logits[:, -1]).double().numpy()


# ---- activation patching ----


@pytest.mark.parametrize("family", MANY)
def test_patching_every_position_of_the_residual_is_the_other_run_and_patching_with_itself_is_none(opened, family):
    model = opened(family)
    clean, corrupt = pair(model)
    hooks = [*each_layer(model, RESIDUAL), model.last_residual]
    found = patch_activations(model, clean, corrupt, METRIC, hooks, by="all")
    assert found.effect_RCB.shape == (len(hooks), 1, 2)
    assert np.abs(found.source_B - found.base_B).min() > 1e-2
    for row in found.effect_RCB[:, 0]:
        assert np.array_equal(found.base_B + row, found.source_B)
    same = patch_activations(model, clean, clean, METRIC, hooks, by="position")
    assert np.array_equal(same.effect_RCB, np.zeros_like(same.effect_RCB))


@pytest.mark.parametrize("family", MANY)
def test_a_patch_is_a_run_with_that_place_replaced(opened, family):
    """Against edits written out by hand, one at a time, for positions and for heads."""
    model = opened(family)
    clean, corrupt = pair(model)
    resid, z = "blocks.1.hook_resid_pre", f"blocks.1.{Z}"
    source = model.run(corrupt, [resid, z]).activations

    def at(x, site):
        x = x.clone()
        x[:, 3] = source[resid][:, 3]
        return x

    found = patch_activations(model, clean, corrupt, METRIC, [resid], positions=[3, -1])
    assert [name.strip() for name in found.columns] == ["3", str(clean.shape[1] - 1)]
    assert np.allclose(found.base_B + found.effect_RCB[0, 0], metric_of(model, clean, [Edit(resid, at)]), atol=1e-5)

    def head(x, site):
        x = x.clone()
        x[..., 8:16] = source[z][..., 8:16]  # head 1 of 4 in a width of 32
        return x

    found = patch_activations(model, clean, corrupt, METRIC, [z], by="head")
    assert found.effect_RCB.shape == (1, 4, 2)
    assert np.allclose(found.base_B + found.effect_RCB[0, 1], metric_of(model, clean, [Edit(z, head)]), atol=1e-5)


def test_the_last_position_of_the_last_residual_is_all_there_is(opened):
    model = opened("llama")
    clean, corrupt = pair(model)
    found = patch_activations(model, clean, corrupt, METRIC, [model.last_residual])
    assert np.allclose(found.share_RC[0, :-1], 0)
    assert np.allclose(found.share_RC[0, -1], 1)
    table = found.table()
    assert len(table) == clean.shape[1]
    assert table[-1]["share"] == pytest.approx(1)
    assert "<table" in found._repr_html_()


# ---- attribution patching ----


@pytest.mark.parametrize("family", MANY)
def test_attribution_is_exact_where_the_metric_is_linear(opened, family):
    """The final norm is made linear: in its place stands half of what it reads."""
    model = opened(family)
    clean, corrupt = pair(model)
    into, out = (model.hook_points[f"ln_final.hook_{end}"] for end in ("in", "out"))
    held = {}
    handles = [
        into.register_forward_hook(lambda _, __, x: held.update(x=x)),
        out.register_forward_hook(lambda _, __, x: held["x"] * 0.5),
    ]
    try:
        ours = attribute_patches(model, clean, corrupt, METRIC, [model.last_residual])
        theirs = patch_activations(model, clean, corrupt, METRIC, [model.last_residual])
    finally:
        for handle in handles:
            handle.remove()
    assert np.abs(theirs.effect_RCB).max() > 0.1
    assert np.allclose(ours.effect_RCB, theirs.effect_RCB, atol=1e-4)


@pytest.mark.parametrize("family", MANY)
def test_steps_along_the_activations_sum_to_patching_all_of_them(opened, family):
    model = opened(family)
    clean, corrupt = pair(model)
    hooks = ["blocks.1.hook_resid_pre", f"blocks.0.{MLP}", f"blocks.1.{Z}"]
    whole = patch_activations(model, clean, corrupt, METRIC, hooks, by="all").effect_RCB[:, 0]
    scale = np.abs(whole).max()
    off = []
    for steps in (0, 1, 40):
        found = attribute_patches(model, clean, corrupt, METRIC, hooks, steps=steps, along="activations")
        off.append(np.abs(found.effect_RCB.sum(1) - whole).max() / scale)
    assert off[-1] < 0.02
    assert off[-1] < off[0]


def test_steps_along_the_inputs_sum_to_the_whole_at_the_embedding(opened):
    model = opened("llama")
    clean, corrupt = pair(model)
    found = attribute_patches(model, clean, corrupt, METRIC, [EMBED, "blocks.1.hook_resid_pre"], steps=60)
    whole = found.source_B - found.base_B
    assert np.allclose(found.effect_RCB[0].sum(0), whole, atol=0.03 * np.abs(whole).max())


@pytest.mark.parametrize("by", ["position", "head"])
def test_attribution_is_the_slope_of_patching_a_little(opened, by):
    """Two thousandths of the way to the other text, from either side, by position and by head."""
    model = opened("gpt2")
    clean, corrupt = pair(model)
    hook, small = f"blocks.1.{Z}", 2e-3
    ours = attribute_patches(model, clean, corrupt, METRIC, [hook], by=by).effect_RCB[0]
    own, other = (model.run(tokens, [hook]).activations[hook] for tokens in (clean, corrupt))
    for column, ours_B in enumerate(ours):
        step = torch.zeros_like(own).reshape(*clean.shape, 4, -1)
        at = (slice(None), column) if by == "position" else (slice(None), slice(None), column)
        step[at] = (other - own).reshape(step.shape)[at]
        step = small * step.reshape(own.shape)
        up, down = (metric_of(model, clean, [Edit(hook, lambda x, site, by=by: x + by)]) for by in (step, -step))
        assert np.allclose(ours_B, (up - down) / (2 * small), atol=2e-2 * np.abs(ours).max())


# ---- paths ----


@pytest.mark.parametrize("family", MANY)
def test_everything_sent_to_the_logits_is_the_other_run_and_a_head_is_its_direct_effect(opened, family):
    model = opened(family)
    clean, corrupt = pair(model)
    parts = all_parts(model)
    assert len(parts) == 1 + count_layers(model) * (attention_heads(model).count + 1)
    found = patch_paths(model, clean, corrupt, METRIC, [parts, "1.2", "mlp 0", "embed"])
    assert np.allclose(found.base_B + found.effect_RCB[0, 0], found.source_B, atol=1e-4)
    last, z, mlp = model.last_residual, f"blocks.1.{Z}", f"blocks.0.{MLP}"
    runs = [model.run(tokens, [z, mlp, EMBED]).activations for tokens in (clean, corrupt)]
    W_HdO, _ = output_matrix(model, 1)
    moved_z = (runs[1][z] - runs[0][z]).reshape(*clean.shape, 4, -1)[:, :, 2] @ W_HdO[2]
    for row, moved in ((1, moved_z), (2, runs[1][mlp] - runs[0][mlp]), (3, runs[1][EMBED] - runs[0][EMBED])):
        direct = metric_of(model, clean, [Edit(last, lambda x, site, by=moved: x + by)])
        assert np.allclose(found.base_B + found.effect_RCB[row, 0], direct, atol=1e-4)
        assert np.abs(found.effect_RCB[row]).max() > 1e-3


@pytest.mark.parametrize("family", MANY)
def test_a_path_from_a_head_to_an_mlp_is_what_arrives_by_hand(opened, family):
    model = opened(family)
    clean, corrupt = pair(model)
    z, into = f"blocks.0.{Z}", "blocks.2.mlp.hook_in"
    found = patch_paths(model, clean, corrupt, METRIC, ["0.1", "mlp 2"], ["mlp 2", "2.3.q", ["2.0.q", "2.0.k"]])
    resid = "blocks.2.hook_resid_pre"
    runs = [model.run(tokens, [z]).activations for tokens in (clean, corrupt)]
    W_HdO, _ = output_matrix(model, 0)
    moved = (runs[1][z] - runs[0][z]).reshape(*clean.shape, 4, -1)[:, :, 1] @ W_HdO[1]
    hold = f"blocks.2.{Z}"
    own = model.run(clean, [hold]).activations[hold]
    # Layer 2 sees the residual moved by the head alone; its own heads stay as they were.
    edits = [Edit(resid, lambda x, site: x + moved), Edit(hold, lambda x, site: own.clone())]
    arrived = model.run(clean, [into], edits).activations[into]
    value = metric_of(model, clean, [Edit(into, lambda x, site: arrived)])
    assert np.allclose(found.base_B + found.effect_RCB[0, 0], value, atol=1e-4)
    assert np.abs(found.effect_RCB[0]).min(0).max() > 1e-4  # every receiver hears the earlier head
    assert np.abs(found.effect_RCB[1]).max() < 1e-5  # and nothing goes back in time


# ---- direct attribution ----


@pytest.mark.parametrize("by", ["layer", "component", "head"])
@pytest.mark.parametrize("family", MANY)
def test_parts_sum_to_the_logit_difference(opened, family, by):
    model = opened(family)
    tokens, _ = pair(model)
    for distractor in (DISTRACTORS, None):
        found = attribute_directly(model, tokens, TARGETS, distractor, by=by)
        logits = model.run(tokens, logits=True).logits[:, -1]
        assert np.allclose(found.logit_B, logit_difference(TARGETS, distractor)(logits).numpy(), atol=1e-5)
        assert np.abs(found.value_PB.sum(0) - found.logit_B).max() < 1e-4
        assert not found.before_cap
    if by == "head":
        assert found.heads_LH().shape == (3, 4)
    if family == "gpt2" and by == "head":
        assert "attn bias 1" in found.parts  # GPT-2's heads share one
    assert "<table" in found._repr_html_()


@pytest.mark.parametrize("family", MANY)
def test_a_part_taken_out_with_the_scale_held_takes_its_share_of_the_logit(opened, family):
    """The definition: the final norm's input less the part, its scale kept at what it was, changes the logit by the part."""
    model = opened(family)
    tokens, _ = pair(model)
    found = attribute_directly(model, tokens, TARGETS, DISTRACTORS)
    last, part = model.last_residual, f"blocks.1.{MLP}"
    run = model.run(tokens, [last, part])
    x, gone = run.activations[last][:, -1].double(), run.activations[part][:, -1].double()
    unembed, gain = (w.double() for w in model.unembedding())
    along = (unembed * gain)[torch.tensor(TARGETS)] - (unembed * gain)[torch.tensor(DISTRACTORS)]
    centred = x - x.mean(1, keepdim=True) if family != "llama" else x
    scale = 1 / (centred.square().mean(1) + 1e-5 * (family != "llama") + 1e-6 * (family == "llama")).sqrt()
    ours = found.value_PB[found.parts.index("mlp 1")]
    assert np.allclose(ours, ((gone * along).sum(1) * scale).numpy(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"rwkv"}))
def test_other_families_sum_too_or_say_why_not(opened, family):
    model = opened(family)
    tokens, _ = pair(model)
    by_layer = attribute_directly(model, tokens, TARGETS, DISTRACTORS, by="layer")  # of every family
    found = [by_layer]
    for by in ("component", "head"):
        with contextlib.suppress(InterpError):
            found.append(attribute_directly(model, tokens, TARGETS, DISTRACTORS, by=by))
    for one in found:
        assert np.abs(one.value_PB.sum(0) - one.logit_B).max() < 1e-4
        assert np.allclose(one.logit_B, by_layer.logit_B)
    assert len(found) == 1 + {"gemma2": 1, "gemma3": 1, "olmo2": 1, "glm4": 1}.get(family, 2 * (family not in WHOLE))
    assert by_layer.before_cap == (family in ("gemma2", "xlstm", "recurrent_gemma"))


# ---- the logit lens ----


@pytest.mark.parametrize("family", MANY)
def test_the_last_layer_says_what_the_model_says(opened, family):
    model = opened(family)
    tokens, _ = pair(model)
    found = read_layers(model, tokens, TARGETS)
    logprob = model.run(tokens, logits=True).logits.float().log_softmax(-1)
    assert np.allclose(found.logprob_LBT[-1, 0], logprob[0, :, TARGETS[0]].numpy(), atol=1e-5)
    assert np.array_equal(found.top_LBTK[-1, ..., 0], logprob.argmax(-1).numpy())
    assert found.rank_LBT[-1, 1, 2] == int((logprob[1, 2] > logprob[1, 2, TARGETS[1]]).sum())
    ends = read_layers(model, tokens)
    assert (ends.rank_LBT[-1] == 0).all()
    assert ends.first_layer() is not None
    assert len(ends.table()) == (count_layers(model) + 1) * tokens.numel()
    assert "<table" in ends._repr_html_()


# ---- what cannot be had ----


def test_mistakes_are_said_in_a_sentence(opened):
    model, recurrent = opened("llama"), opened("mamba")
    clean, corrupt = pair(model)
    resid = "blocks.1.hook_resid_pre"
    with pytest.raises(InterpError, match=r"give pairs of the same length"):
        patch_activations(model, clean, corrupt[:, 1:], METRIC, [resid])
    with pytest.raises(InterpError, match=r"no hook point in llama: 'blocks.1.hook_resid_prr': did you mean"):
        patch_activations(model, clean, corrupt, METRIC, ["blocks.1.hook_resid_prr"])
    with pytest.raises(InterpError, match=r"is not divided by heads"):
        patch_activations(model, clean, corrupt, METRIC, [resid], by="head")
    with pytest.raises(InterpError, match=r"positions \[99\]: the prompts have positions 0 to"):
        patch_activations(model, clean, corrupt, METRIC, [resid], positions=[99])
    with pytest.raises(InterpError, match=r"there are 2 prompts and 1 targets"):
        patch_activations(model, clean, corrupt, logit_difference([4]), [resid])
    with pytest.raises(
        InterpError, match=r"no sender '9.1' in llama: write a head as '3.1' \(layers 0 to 2, heads 0 to 3\)"
    ):
        patch_paths(model, clean, corrupt, METRIC, ["9.1"])
    with pytest.raises(
        InterpError, match=r"no receiver '1.3.k'.*heads 0 to 1"
    ):  # two heads of keys for four of queries
        patch_paths(model, clean, corrupt, METRIC, ["0.1"], ["1.3.k"])
    tokens, _ = pair(recurrent)
    with pytest.raises(InterpError, match=r"no hook point"):
        attribute_directly(recurrent, tokens, TARGETS, by="head")
    with pytest.raises(InterpError, match=r"do not add up.*ask by=\"component\""):
        attribute_directly(opened("olmo2"), pair(opened("olmo2"))[0], TARGETS, by="head")
