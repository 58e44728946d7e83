"""A matrix that is frozen keeps every bit, however often the run is killed; and what an SAE begins with is known from its seed."""

from dataclasses import asdict

import pytest
import torch

from interp.checkpoint import stored
from interp.sae import BatchTopK, Gated, JumpReLU, Matryoshka, Standard, TopK, Transcoder
from interp.sae.architecture import unit_rows
from interp.training import TrainConfig, steps, train
from interp.training.state import first_rows, initial_decoder
from interp.types import InterpError
from tests.test_training import Rows, planted

SIZES = {"d_in": 32, "d_sae": 48}
RULES = [
    BatchTopK(**SIZES, k=3),
    Matryoshka(**SIZES, k=3),
    TopK(**SIZES, k=3),
    JumpReLU(**SIZES, l0=3.0),
    Gated(**SIZES),
    Standard(**SIZES),
]


def trained(rule, into, frozen, stop=None, x=None):
    """A run into a folder; with `stop` it is killed after that step."""
    x = planted(rows=256 * 24)[0] if x is None else x
    config = TrainConfig(save_every=256 * 4, dead_after=2_000, frozen=frozen, seed=7)
    run = steps(Rows(x), rule, config, held_out=x[:1024], into=into)
    for step in run:
        if step.step == stop:
            break
    run.close()
    return step.sae


@pytest.mark.parametrize("rule", [RULES[0], RULES[3], RULES[5]], ids=lambda rule: type(rule).__name__)
def test_a_frozen_decoder_is_what_it_began_as_also_when_the_run_was_killed(tmp_path, rule):
    begun = stored(first_rows(48, 32, seed=7)).float()
    whole = trained(rule, tmp_path / "whole", ("W_dec",))
    # Rows of norm 1, as every SAE's are when it is finished; float16, as they are stored.
    torch.testing.assert_close(whole.W_dec, begun, atol=1e-3, rtol=0)
    trained(rule, tmp_path / "killed", ("W_dec",), stop=11)
    again = trained(rule, tmp_path / "killed", ("W_dec",))
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert not torch.allclose(unit_rows(whole.W_enc.T), begun, atol=0.1)  # the encoder learnt


def test_frozen_matrices_keep_every_bit_of_the_state(tmp_path):
    from safetensors.torch import load_file

    rule = BatchTopK(**SIZES, k=3)
    trained(rule, tmp_path, ("W_dec", "W_enc"), stop=11)
    state = load_file(tmp_path / "state.safetensors")
    assert torch.equal(state["p.W_dec"], first_rows(48, 32, seed=7))
    assert torch.equal(state["p.W_enc"], first_rows(48, 32, seed=7) * 0.3)
    assert "adam.exp_avg.b_enc" in state
    assert not any(key.startswith("adam.") and "W_" in key for key in state)
    assert state["p.b_enc"].any()  # what is not frozen moved


def test_a_frozen_run_is_not_taken_up_by_one_that_trains_all(tmp_path):
    trained(BatchTopK(**SIZES, k=3), tmp_path, ("W_dec",), stop=11)
    with pytest.raises(InterpError, match=r"frozen = \['W_dec'\], and \[\] was asked"):
        trained(BatchTopK(**SIZES, k=3), tmp_path, ())


def test_nothing_frozen_trains_as_before(tmp_path):
    x, truth = planted(rows=256 * 24)
    nearest = [
        float((unit_rows(trained(BatchTopK(**SIZES, k=3), tmp_path / f"{len(f)}", f, x=x).W_dec) @ truth.T).max(0).values.mean())
        for f in ((), ("W_dec",))
    ]  # fmt: skip
    assert nearest[0] > nearest[1] + 0.1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"frozen": ("W_decoder",)}, "no matrix to freeze 'W_decoder'"),
        ({"frozen": ("W_dec",), "orthogonal": 0.1}, "orthogonal moves decoder rows, and W_dec is frozen"),
        ({"frozen": ("W_enc",), "resample": True}, "resample begins encoder rows anew, and W_enc is frozen"),
    ],
)
def test_what_cannot_be_frozen_is_refused(given, said):
    with pytest.raises(InterpError, match=said):
        TrainConfig(**given)


def test_a_decoder_that_begins_at_nothing_is_not_frozen():
    x, _ = planted(rows=4096)
    pairs = [(x, x)]
    with pytest.raises(InterpError, match="W_dec of a Transcoder begins at 0"):
        train(pairs, Transcoder(**SIZES, d_out=32, k=3), TrainConfig(tokens=4096, frozen=("W_dec",)), held_out=(x, x))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_the_first_decoder_follows_from_the_recipe_of_a_card(rule):
    recipe = {"architecture": {"name": "any", **asdict(rule)}, "training": {"seed": 7}}
    x, _ = planted(rows=4096)
    from interp.training.state import initial

    begun = initial(x, x, rule, 7).p["W_dec"]
    torch.testing.assert_close(initial_decoder(recipe), unit_rows(begun))


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({}, "does not say with which seed"),
        (
            {"architecture": {"name": "transcoder", "d_sae": 4, "d_in": 4}, "training": {"seed": 0}},
            "a transcoder begins",
        ),
    ],
)
def test_a_first_decoder_that_cannot_be_known_is_refused(recipe, said):
    with pytest.raises(InterpError, match=said):
        initial_decoder(recipe)
