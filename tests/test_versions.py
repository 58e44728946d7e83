"""Single positions changed at a hook point, against whole passes with the same edit, for every family."""

import math
import re

import pytest
import torch

from interp.models import Edit, open_model
from interp.models.versions import TOLERANCE, Versions, try_versions
from interp.types import InterpError
from tests.conftest import HOOK
from tests.families import FAMILIES, save

torch.set_num_threads(1)

WHOLE = {"bloom", "mpt", "mamba", "mamba2", "rwkv", "xlstm", "recurrent_gemma"}
"""Families that go by whole passes: another way of telling positions, or a state in the place of keys and values."""
HOOKS = ("blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.1.hook_attn_out", "blocks.1.hook_mlp_out",
         "blocks.1.hook_resid_post")  # fmt: skip


def whole_passes(model, tokens_T, hook, position_E, x_ED):
    """Each version by a pass of its own over the whole text."""
    logits = []
    for position, x_D in zip(position_E.tolist(), x_ED, strict=True):

        def put(x_BTD, _, position=position, x_D=x_D):
            x_BTD = x_BTD.clone()
            x_BTD[0, position] = x_D
            return x_BTD

        logits.append(model.run(tokens_T[None], edits=[Edit(hook, put)], logits=True).logits[0, position])
    return torch.stack(logits)


def some_versions(model, tokens_T, hook):
    """(positions, what is put there): nothing changed, a little, and much, one position several times."""
    position_E = torch.tensor([0, 1, 7, 7, 7, 20, len(tokens_T) - 1])
    x_TD = model.run(tokens_T[None], [hook]).activations[hook][0]
    noise = torch.randn(len(position_E), x_TD.shape[-1], generator=torch.Generator().manual_seed(5))
    return position_E, x_TD[position_E] + noise * torch.tensor([0, 1, 0, 0.1, 3, 1, 1])[:, None]


@pytest.mark.parametrize("family", FAMILIES)
def test_versions_are_whole_passes_with_the_edit(tmp_path, family):
    model = open_model(str(save(family, tmp_path / family)), dtype="float32")
    tokens_T = model.some_tokens(30)[0]
    hooks = [hook for hook in HOOKS if hook in model.hook_points and model.fires_once(hook)]
    assert "blocks.1.hook_resid_post" in hooks
    for hook in hooks:
        trial = try_versions(model, tokens_T, hook)
        assert trial.cached == (family not in WHOLE)
        assert trial.cached == (not trial.why)
        assert not trial.cached or trial.off <= TOLERANCE[torch.float32]
        position_E, x_ED = some_versions(model, tokens_T, hook)
        theirs = whole_passes(model, tokens_T, hook, position_E, x_ED)
        versions = Versions(model, tokens_T, hook, cached=trial.cached)
        for _ in range(2):  # one call leaves nothing behind for the next
            assert (versions.logits(position_E, x_ED) - theirs).abs().max() < 1e-4 * theirs.std()
        alone = versions.logits(position_E[4:5], x_ED[4:5])
        assert (alone - theirs[4:5]).abs().max() < 1e-4 * theirs.std()
        assert (theirs[4] - theirs[2]).abs().max() > 1e-2 * theirs.std()  # a slip would show


def test_the_model_is_as_it_was_after_versions(tiny):
    tokens_T = tiny.some_tokens(30)[0]
    before = tiny.run(tokens_T[None]).logits
    versions = Versions(tiny, tokens_T, HOOK, read=["blocks.0.hook_resid_pre"])
    assert list(versions.x) == [HOOK, "blocks.0.hook_resid_pre"]
    position_E, x_ED = some_versions(tiny, tokens_T, HOOK)
    versions.logits(position_E, x_ED)
    with pytest.raises((RuntimeError, TypeError)):  # cut short half-way
        versions.logits(position_E, x_ED[:, :5])
    assert torch.equal(tiny.run(tokens_T[None]).logits, before)


def test_a_window_that_the_text_is_longer_than_is_noticed(tmp_path):
    model = open_model(str(save("gemma2", tmp_path / "m")), dtype="float32")
    long = try_versions(model, model.some_tokens(100)[0], HOOK)  # its window is 64
    assert not long.cached
    assert long.why
    assert try_versions(model, model.some_tokens(60)[0], HOOK).cached


def test_a_bfloat16_model_is_held_to_a_rougher_tolerance(tiny_folder, monkeypatch):
    from interp.models import versions

    model = open_model(str(tiny_folder), dtype="bfloat16")
    trial = try_versions(model, model.some_tokens(30)[0], HOOK)
    assert trial.cached
    assert trial.off <= versions.ROUGH
    monkeypatch.setattr(versions, "ROUGH", -1.0)  # which nothing meets
    trial = try_versions(model, model.some_tokens(30)[0], HOOK)
    assert not trial.cached
    assert re.fullmatch(r"logits differ from those of whole passes by \S+ standard deviations", trial.why)


def test_a_family_whose_layers_are_no_list_goes_by_whole_passes(tiny_folder, monkeypatch):
    from interp.models import versions

    model = open_model(str(tiny_folder), dtype="float32")
    monkeypatch.setattr(versions, "_stack", lambda model, layer: None)
    trial = try_versions(model, model.some_tokens(30)[0], HOOK)
    assert not trial.cached
    assert math.isnan(trial.off)
    assert trial.why == (
        f"layers from {HOOK} on could not be run by themselves (the layers of {model.name} that follow {HOOK} are not known.)"
    )


def test_hook_points_at_which_no_position_can_be_changed_are_refused(tiny, tmp_path):
    tokens_T = tiny.some_tokens(10)[0]
    with pytest.raises(InterpError, match=r"no hook point in .* 'blocks\.1\.hook_resid': did you mean"):
        Versions(tiny, tokens_T, "blocks.1.hook_resid")
    model = open_model(str(save("mixtral", tmp_path / "m")), dtype="float32")
    several = next(name for name, tried in model.tried.items() if not tried.once)
    with pytest.raises(InterpError, match=r"does not fire once on every token, so no position can be changed there"):
        try_versions(model, tokens_T, several)
