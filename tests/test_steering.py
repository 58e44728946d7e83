"""Edits of features, against a slow hook that decodes everything."""

import pytest
import torch

from interp.models import Edit
from interp.steering import Ablate, Add, Clamp, Scale, model_edit
from interp.types import FeatureRef, InterpError
from tests.conftest import HOOK

TEXT = "The capital of France is Paris."


def activations(wb, edits=()):
    ids = torch.tensor([wb.model.prompt(TEXT)])
    hooked = [model_edit(e, wb.sae, norm_cutoff=wb.card.norm_cutoff, separator=0) for e in edits]
    return wb.model.run(ids, [HOOK], hooked).activations[HOOK][0].float()


def slow(wb, feature, wanted):
    """Encode everything, set one column, decode, and put the error of the reconstruction back."""
    x = activations(wb)
    code = wb.sae.encode(x)
    error = x - wb.sae.decode(code)
    edited = code.clone()
    edited[:, feature] = wanted(code[:, feature])
    out = wb.sae.decode(edited) + error
    out[0] = x[0]  # the first position is a sink
    return out


@pytest.fixture
def firing(wb):
    """A feature that fires somewhere on the text."""
    return wb.spectrum(TEXT).strongest(1)[0]


@pytest.mark.parametrize(
    ("edit", "wanted"),
    [
        (lambda f: Clamp(feature=f, strength=6.0), lambda z: torch.full_like(z, 6.0)),
        (lambda f: Ablate(feature=f), torch.zeros_like),
        (lambda f: Scale(feature=f, strength=3.0), lambda z: 3 * z),
        (lambda f: Add(feature=f, strength=2.0), lambda z: z + 2),
    ],
)
def test_an_edit_equals_the_slow_hook_within_1e5_of_the_norm(wb, firing, edit, wanted):
    got, expected = activations(wb, [edit(firing)]), slow(wb, firing, wanted)
    assert not torch.equal(got, activations(wb))
    assert float(((got - expected).norm(dim=1) / expected.norm(dim=1)).max()) < 1e-5


def test_the_sae_in_the_loop_with_no_change_leaves_every_bit(wb, firing):
    x = activations(wb)
    assert torch.equal(activations(wb, [Scale(feature=firing, strength=1.0)]), x)
    assert torch.equal(activations(wb, [Add(feature=firing, strength=0.0)]), x)


def test_sinks_are_never_moved(wb):
    assert torch.equal(activations(wb, [Clamp(feature=1, strength=50.0)])[0], activations(wb)[0])
    everything = model_edit(Clamp(feature=1, strength=50.0), wb.sae, norm_cutoff=0.0, separator=0)
    ids = torch.tensor([wb.model.prompt(TEXT)])
    assert torch.equal(wb.model.run(ids, edits=[everything]).logits, wb.model.run(ids).logits)


def test_edits_apply_to_the_prompt_or_to_what_is_generated(wb):
    seen = []

    def spy(x, site):
        seen.append((x[0, -1].clone(), site.generated))
        return x

    for where, moved in (("prompt", False), ("generated", True)):
        seen.clear()
        edit = model_edit(Add(feature=2, strength=30.0, where=where), wb.sae, norm_cutoff=1e9, separator=0)
        wb.model.generate([wb.model.prompt("A cat")], max_new_tokens=2, edits=[Edit(HOOK, spy), edit, Edit(HOOK, spy)])
        changed = {
            generated: not torch.equal(a, b) for (a, generated), (b, _) in zip(seen[::2], seen[1::2], strict=True)
        }
        assert changed == {False: not moved, True: moved}


def test_steering_gives_both_texts_and_a_record(wb):
    run = wb.steer("The capital", [Clamp(feature=3, strength=40.0)], max_new_tokens=12, seed=4, temperature=1.0)
    again = wb.steer("The capital", [Clamp(feature=3, strength=40.0)], max_new_tokens=12, seed=4, temperature=1.0)
    assert run == again
    assert run.baseline_tokens != run.steered_tokens
    assert run.baseline == wb.model.decode(run.baseline_tokens)
    assert run.edits == [{"kind": "Clamp", "feature": 3, "strength": 40.0, "where": "all"}]
    assert (
        wb.steer("The capital", [], max_new_tokens=5).steered == wb.steer("The capital", [], max_new_tokens=5).baseline
    )
    assert "steered" in run._repr_html_()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Clamp(feature=64, strength=1.0), "no feature 64 in .* features 0 to 63"),
        (Clamp(feature=1, strength=float("nan")), "is not finite"),
        (Add(feature=1, strength=1.0, where="nowhere"), "no place to edit 'nowhere'"),
        (Clamp(feature=FeatureRef(sae="other", feature=1), strength=1.0), "belongs to another SAE"),
    ],
)
def test_an_edit_that_cannot_be_made_is_refused_before_the_model_is_opened(checkpoint, edit, message, monkeypatch):
    from interp.workbench import Workbench

    fresh = Workbench.open(checkpoint, labels="sqlite://")
    monkeypatch.setattr("interp.workbench.open_model", lambda *a, **k: pytest.fail("the model was opened"))
    with pytest.raises(InterpError, match=message):
        fresh.steer("A cat", [edit])
