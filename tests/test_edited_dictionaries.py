"""Edits of what is no plain SAE: transcoders, crosscoders, and several SAEs at one hook point, against sums by hand."""

import pytest
import torch

from interp.models import Edit
from interp.sae import SAE
from interp.steering import (
    Ablate,
    Add,
    Clamp,
    Hooked,
    Sampling,
    Scale,
    SteeredModel,
    When,
    compile_edits,
    effects,
    generate,
)
from interp.types import FeatureRef, Hook, InterpError
from tests.conftest import HOOK

READ, WRITTEN = "blocks.0.mlp.hook_in", "blocks.0.hook_mlp_out"
EARLY = "blocks.0.hook_resid_post"
TEXT = "The capital of France is Paris."


def dictionary(d_in, d_out, features=24, seed=3, **hooks):
    """Random features, of which about half fire at a position."""
    draw = torch.Generator().manual_seed(seed)
    return SAE(
        W_enc=torch.randn(d_in, features, generator=draw), W_dec=torch.randn(features, d_out, generator=draw),
        b_enc=torch.zeros(features), b_dec=torch.zeros(d_out), threshold=torch.zeros(features), centred=False, **hooks,
    )  # fmt: skip


@pytest.fixture(scope="module")
def transcoder(tiny):
    return dictionary(16, 16, name="transcoder", reads=Hook(READ, 16), writes=Hook(WRITTEN, 16))


@pytest.fixture(scope="module")
def crosscoder(tiny):
    return dictionary(32, 32, name="crosscoder", reads=(Hook(EARLY, 16), Hook(HOOK, 16)))


def steered(tiny, sae, cutoff=1e9):
    return SteeredModel(tiny, {"": Hooked(sae, cutoff, tiny.separator)}, lambda: tiny.vocabulary)


def run(tiny, hooks, edits=()):
    tokens_BT, real_BT = tiny.padded([tiny.prompt(TEXT)])
    made = tiny.run(tokens_BT, hooks, edits, real_BT=real_BT)
    return {name: x[0].float() for name, x in made.activations.items()}


def edited(tiny, sae, edits, hooks, cutoff=1e9):
    tokens_BT, real_BT = tiny.padded([tiny.prompt(TEXT)])
    return run(tiny, hooks, steered(tiny, sae, cutoff).compile([edits], tokens_BT, real_BT))


def test_every_sae_at_a_hook_point_keeps_its_own_mask(tiny):
    saes = {name: dictionary(16, 16, seed=4, name=name, reads=HOOK) for name in ("a", "b")}
    x = run(tiny, [HOOK])[HOOK]
    cutoff = float(x[1:].norm(dim=1).median())
    hooked = {"": Hooked(saes["a"], 0.0, 0), "a": Hooked(saes["a"], 0.0, 0), "b": Hooked(saes["b"], cutoff, 0)}
    moved = {}
    for name in ("a", "b"):
        edits = compile_edits([[Add(feature=FeatureRef(sae=name, feature=2), strength=3.0)]], hooked)
        moved[name] = (run(tiny, [HOOK], edits)[HOOK] - x).norm(dim=1) > 1e-6
    assert not moved["a"].any()  # a cut-off of 0 makes every position a sink
    assert moved["b"].tolist()[1:] == (x[1:].norm(dim=1) <= cutoff).tolist()


def test_ablating_a_transcoders_feature_takes_what_it_writes_off_the_written_hook(tiny, transcoder):
    clean = run(tiny, [READ, WRITTEN])
    z = transcoder.encode(clean[READ])
    feature = int((z[1:] > 0).sum(0).argmax())
    after = edited(tiny, transcoder, [Ablate(feature=feature)], [READ, WRITTEN])
    expected = clean[WRITTEN] - z[:, feature, None] * transcoder.W_dec[feature]
    assert torch.equal(after[READ], clean[READ])
    assert torch.allclose(after[WRITTEN][1:], expected[1:], atol=1e-5)
    assert torch.equal(after[WRITTEN][0], clean[WRITTEN][0])  # the first position is a sink
    assert not torch.allclose(after[WRITTEN], clean[WRITTEN])


def test_a_transcoder_is_held_and_asked_where_it_reads(tiny, transcoder):
    clean = run(tiny, [READ, WRITTEN])
    z = transcoder.encode(clean[READ])
    feature = int((z[1:] > 0).sum(0).clamp_max(len(z) - 3).argmax())
    held = edited(tiny, transcoder, [Clamp(feature=feature, strength=5.0)], [WRITTEN])[WRITTEN]
    row = transcoder.W_dec[feature]
    assert torch.allclose(held[1:], (clean[WRITTEN] + (5.0 - z[:, feature, None]) * row)[1:], atol=1e-4)
    asked = edited(tiny, transcoder, [Add(feature=1, strength=2.0, when=When(feature=feature, above=0.0))], [WRITTEN])
    moved = (asked[WRITTEN] - clean[WRITTEN]).norm(dim=1) > 1e-6
    assert moved.tolist()[1:] == (z[1:, feature] > 0).tolist()


def test_a_transcoders_mask_is_of_what_it_reads(tiny, transcoder):
    clean = run(tiny, [READ, WRITTEN])
    cutoff = float(clean[READ][1:].norm(dim=1).median())
    after = edited(tiny, transcoder, [Add(feature=1, strength=2.0)], [WRITTEN], cutoff)[WRITTEN]
    moved = (after - clean[WRITTEN]).norm(dim=1) > 1e-6
    assert moved.tolist()[1:] == (clean[READ][1:].norm(dim=1) <= cutoff).tolist()


def test_a_crosscoders_mask_is_of_all_that_it_reads(tiny, crosscoder):
    """Ablate goes by a pass of its own, which has seen both hook points; Add by what has passed where it writes."""
    clean = run(tiny, [EARLY, HOOK])
    z = crosscoder.encode(torch.cat([clean[EARLY], clean[HOOK]], dim=1))
    feature = int((z[1:] > 0).sum(0).argmax())
    cutoffs = {name: float(clean[name][1:].norm(dim=1).median()) for name in (EARLY, HOOK)}
    small = {name: clean[name].norm(dim=1) <= cutoffs[name] for name in (EARLY, HOOK)}
    assert small[EARLY].tolist() != small[HOOK].tolist()
    fires = z[:, feature] > 0
    ablated = edited(tiny, crosscoder, [Ablate(feature=feature)], [EARLY, HOOK], cutoffs)
    moved = (ablated[EARLY] - clean[EARLY]).norm(dim=1) > 1e-6
    assert moved.tolist()[1:] == (small[EARLY] & small[HOOK] & fires).tolist()[1:]
    added = edited(tiny, crosscoder, [Add(feature=feature, strength=2.0)], [EARLY, HOOK], cutoffs)
    moved = (added[EARLY] - clean[EARLY]).norm(dim=1) > 1e-6
    assert moved.tolist()[1:] == small[EARLY].tolist()[1:]


@pytest.mark.parametrize(
    ("edit", "change"),
    [
        (lambda f: Ablate(feature=f), lambda z: -z),
        (lambda f: Clamp(feature=f, strength=4.0), lambda z: 4.0 - z),
        (lambda f: Scale(feature=f, strength=3.0), lambda z: 2.0 * z),
        (lambda f: Add(feature=f, strength=2.0), lambda z: torch.full_like(z, 2.0)),
    ],
)
def test_an_edit_of_a_crosscoders_feature_acts_at_every_hook_it_writes(tiny, crosscoder, edit, change):
    """By what the clean pass says of the feature; at the later hook on what the earlier edit left there."""
    clean = run(tiny, [EARLY, HOOK])
    z = crosscoder.encode(torch.cat([clean[EARLY], clean[HOOK]], dim=1))
    feature = int((z[1:] > 0).sum(0).argmax())
    move_T, (early, late) = change(z[:, feature]), crosscoder.W_dec[feature].split(16)
    move_T[0] = 0.0
    after = edited(tiny, crosscoder, [edit(feature)], [EARLY, HOOK])
    assert torch.allclose(after[EARLY], clean[EARLY] + move_T[:, None] * early, atol=1e-4)

    # What the later hook point would hold, had only the earlier been moved, moves by hand once more.
    def by_hand(x, site):
        return x + move_T[:, None] * early

    between = run(tiny, [HOOK], [Edit(EARLY, by_hand)])[HOOK]
    assert torch.allclose(after[HOOK], between + move_T[:, None] * late, atol=1e-4)


def test_effects_of_a_crosscoders_feature_are_those_of_its_edit_at_both_hook_points(tiny, crosscoder):
    ids = tiny.prompt(TEXT)
    clean = run(tiny, [EARLY, HOOK])
    z = crosscoder.encode(torch.cat([clean[EARLY], clean[HOOK]], dim=1))
    z[0] = 0.0
    feature = int((z > 0).sum(0).argmax())
    rows = dict(zip((EARLY, HOOK), crosscoder.W_dec[feature].split(16), strict=True))

    def take_off(name):
        return Edit(name, lambda x, site: x - z[:, feature, None] * rows[name])

    tokens = torch.tensor([ids])
    logits = [tiny.run(tokens, edits=edits, logits=True).logits[0, -1] for edits in ([], list(map(take_off, rows)))]
    before, after = (x.float().log_softmax(-1) for x in logits)
    measured = effects(steered(tiny, crosscoder), feature, [ids], [-1], [0], 3.0, matched=[0, 1])
    assert measured.rows[0]["activation"] == pytest.approx(float(z[-1, feature]), rel=1e-4)
    assert measured.ablated.kl[0] == pytest.approx(float((after.exp() * (after - before)).sum()), rel=1e-3, abs=1e-6)
    assert measured.ablated.kl[0] > 0
    assert set(measured.ablated.controls) == {"random features", "noise"}


def test_a_crosscoders_edit_of_a_text_that_is_being_written_says_why_it_cannot_be_made(tiny, crosscoder):
    with pytest.raises(InterpError, match="read from a pass of its own.* generat"):
        generate(steered(tiny, crosscoder), "A cat", [Ablate(feature=1)], Sampling(max_new_tokens=2))
    added = generate(steered(tiny, crosscoder), "A cat", [Add(feature=1, strength=9.0)], Sampling(max_new_tokens=2))
    assert added.edits


def test_a_text_is_continued_under_a_transcoders_edit_token_by_token_as_all_at_once(tiny, transcoder):
    edit, stage = Clamp(feature=1, strength=9.0), steered(tiny, transcoder)
    made = generate(stage, "A cat", [edit], Sampling(max_new_tokens=6))
    assert made.steered_tokens != made.baseline_tokens
    tokens = torch.tensor([made.prompt_tokens + made.steered_tokens])
    logits = tiny.run(tokens, edits=stage.compile([[edit]]), logits=True).logits[0]
    assert logits[len(made.prompt_tokens) - 1 : -1].argmax(-1).tolist() == made.steered_tokens


def test_a_dictionary_of_two_models_is_refused(tiny):
    sae = dictionary(32, 32, name="diff", reads=(Hook(HOOK, 16, model=1), Hook(HOOK, 16, model=2)))
    with pytest.raises(InterpError, match="reads several models.*edits are made in one"):
        steered(tiny, sae).compile([[Ablate(feature=1)]])
