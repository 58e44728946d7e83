"""Where the circuit is known, its features carry the answers of prompts that they were not chosen on, random ones and those of
other countries do not."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.checkpoint.eight_bit import write_features
from interp.circuits.behaviours import Pair
from interp.circuits.faithful import put
from interp.circuits.held_out import AFTER, CHANGED, LAST, Placed, choose_features, measure_held_out, roles
from interp.circuits.replacement import make_replacement
from interp.commands.circuits import circuit_faithfulness
from interp.models import Edit, open_model
from interp.recipe.planted_dictionaries import planted
from interp.recipe.planted_models import CITIES, COUNTRIES, FILLERS, TwoHops
from interp.types import InterpError
from tests import families
from tests.families import save
from tests.test_behaviours import worded
from tests.transcoders import random_transcoders, save_random_cross_layer, save_transcoders


def pair_of(model, words, one, other, at, fill):
    """A city somewhere among fillers, and its twin with another country's city."""
    texts = []
    for city in (one, other):
        some = [f"word{(fill + 3 * n) % FILLERS}" for n in range(6)]
        some[at] = f"city{city}"
        texts.append(tuple(model.prompt(" ".join([*some, "asks"]))))
    ends = [words.index(f"capital{city // CITIES}") for city in (one, other)]
    return Pair(clean=str(one), corrupt=str(other), clean_tokens=texts[0], corrupt_tokens=texts[1], target=ends[0],
                distractor=ends[1], wording="template")  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("carried") / "two-hops"
    made = TwoHops.build(folder, 0)
    model = open_model(str(folder), dtype="float32", device="cpu")
    return made, make_replacement(model, planted(made))


def pairs_of(world, countries, places, fills):
    """Pairs of the first city of each of these countries with that of the next, at other places among other words."""
    made, replacement = world
    cities = [country * CITIES for country in countries]
    following = [*cities[1:], cities[0]]
    return [
        pair_of(replacement.model, made.words, one, other, at, fill)
        for (one, other), at, fill in zip(zip(cities, following, strict=True), places, fills, strict=False)
    ]


def test_roles_are_the_same_in_any_wording():
    pair = Pair(clean="", corrupt="", clean_tokens=(1, 5, 6, 7, 8, 9), corrupt_tokens=(1, 5, 3, 7, 4, 9), target=1, distractor=2, wording="template")  # fmt: skip
    assert roles(pair) == ("", "", CHANGED, AFTER, CHANGED, LAST)


def test_planted_features_carry_prompts_that_they_were_not_chosen_on(world):
    countries = range(4)
    chosen = choose_features(world[1], pairs_of(world, countries, (0, 1, 2, 3), (0, 1, 2, 3)))
    first = chosen.order[: 2 * len(countries)]
    # By construction: a neuron of MLP 0 for each city, where it stands, and one of MLP 1 for each capital, at the end.
    assert set(first) == {Placed(0, c * CITIES, CHANGED) for c in countries} | {Placed(1, c, LAST) for c in countries}
    held_out = pairs_of(world, countries, (5, 4, 1, 0), (4, 5, 6, 7))
    found = measure_held_out(world[1], chosen, held_out, sizes=(0, 1, 2, 4, 8), controls=2)
    assert found.sizes[-1] == 8
    assert found.f[0] == (0, 0, 0)
    value, low, high = found.f[-1]
    assert low <= value <= high
    assert value == pytest.approx(1, abs=0.15)
    assert found.control[-1][0] < 0.1
    assert found.every[0] == pytest.approx(value, abs=0.1), "the circuit's features are nearly all that matters"
    assert found.cpr[0] > 5 * abs(found.control_cpr[0])
    strange = pairs_of(world, range(6, 10), (5, 4, 1, 0), (4, 5, 6, 7))
    assert abs(measure_held_out(world[1], chosen, strange, sizes=(0, 8), controls=1).f[-1][0]) < 0.1


def test_a_control_has_other_features_of_the_same_layers_and_roles(world):
    chosen = choose_features(world[1], pairs_of(world, range(COUNTRIES), [n % 6 for n in range(12)], range(12)))
    control = chosen.control(6, seed=0)
    assert len(control) == 6
    assert not set(control) & set(chosen.order[:6])
    assert [each.role for each in control] == [each.role for each in chosen.order[:6]]
    assert control == chosen.control(6, seed=0)
    assert control != chosen.control(6, seed=1)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_features_are_put_as_a_slow_run_puts_them(family, tmp_path, monkeypatch):
    monkeypatch.setattr("interp.circuits.held_out.LEAST", -1e9)  # of an untrained model's answer, any change will do
    model = open_model(str(save(family, tmp_path / family)), dtype="float32")
    replacement = make_replacement(model, random_transcoders(model))
    texts = (("the blue city near the river", "the blue house near the river"), ("a green city over bread", "a green train over bread"))  # fmt: skip
    pairs = []
    for clean, corrupt in texts:
        read = replacement.read(torch.tensor(model.prompt(clean)))
        twin = replacement.read(torch.tensor(model.prompt(corrupt)))
        apart = (read.clean.logits_V - twin.clean.logits_V).argsort()
        pairs.append(Pair(clean=clean, corrupt=corrupt, clean_tokens=tuple(model.prompt(clean)), corrupt_tokens=tuple(model.prompt(corrupt)), target=int(apart[-1]), distractor=int(apart[0]), wording="template"))  # fmt: skip
    chosen = choose_features(replacement, pairs, nodes=100)
    found = measure_held_out(replacement, chosen, pairs, sizes=(0, 3), controls=1)
    gained, of = [], []
    for pair in pairs:
        read, twin = (replacement.read(torch.tensor(text)) for text in (pair.clean_tokens, pair.corrupt_tokens))
        m = []
        for kept in ([], chosen.order[:3], None):
            edits = []
            for number, hook in enumerate(replacement.writes):
                out = (read if kept is None else twin).layers[number].out_TD.clone()
                for layer, feature, role in kept or []:
                    for at, where in enumerate(roles(pair)):
                        if layer == number and where == role:
                            values = [_fires(side, layer, at, feature) for side in (read, twin)]
                            out[at] += (values[0] - values[1]) * replacement.transcoders[layer].W_dec[feature]
                edits.append(Edit(hook, lambda x, site, out=out: put(out[None], x, site)))
            logits = model.run(read.clean.tokens_T[None], [], edits, logits=True, last=1).logits[0, -1]
            m.append(float(logits[pair.target] - logits[pair.distractor]))
        gained.append(m[1] - m[0])
        of.append(m[2] - m[0])
    assert found.f[-1][0] == pytest.approx(np.sum(gained) / np.sum(of), abs=1e-3)


def _fires(read, layer, at, feature):
    own = read.layers[layer]
    return float(own.value_E[(own.position_E == at) & (own.feature_E == feature)].sum())


@pytest.fixture(scope="module")
def transcoders(tmp_path_factory):
    """A folder of transcoders of a tiny model to which the behaviours' words are one token."""
    root = tmp_path_factory.mktemp("behaving")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(families, "tokenizer", worded)
        model = open_model(str(families.save("gpt2", root / "model")), dtype="float32")
    return save_transcoders(model, root / "layers")


def test_a_behaviour_is_measured_by_a_command_in_both_wordings(transcoders, monkeypatch):
    """Of seed 2, for of this seed the random model happens to go from the one answer to the other in both wordings, if barely."""
    monkeypatch.setattr("interp.circuits.held_out.LEAST", 0.01)
    found = circuit_faithfulness("subject_verb", transcoders=str(transcoders), pairs=2, prompts=5, nodes=200, seed=2)
    assert set(found.wordings) == {"template", "paraphrase"}
    for one in found.wordings.values():
        assert one.n == 5
        assert one.f[0] == (0, 0, 0)
        assert all(low <= high for _, low, high in one.f)
    assert found.graphs == 4
    assert "5 prompts of the paraphrase" in found.sentence()
    json.dumps(found.to_dict(), allow_nan=False)
    with pytest.raises(InterpError, match="ask for no more than these"):
        circuit_faithfulness("english_agreement", transcoders=str(transcoders), prompts=900, nodes=200)
    with pytest.raises(InterpError, match="no behaviour"):
        circuit_faithfulness("french_verbs", transcoders=str(transcoders))


def test_a_cross_layer_transcoder_is_asked_the_same(transcoders, tmp_path, monkeypatch):
    monkeypatch.setattr("interp.circuits.held_out.LEAST", 0.0)
    model = open_model(str(transcoders.parent / "model"), dtype="float32")
    folder = save_random_cross_layer(model, tmp_path / "clt")
    said = [
        [{"density": 0.1, "fires_on": [f"w{n}"], "share": 1.0, "promotes": []} for _ in range(24)] for n in range(3)
    ]
    write_features(folder, said)
    found = circuit_faithfulness("subject_verb", transcoders=str(folder), pairs=1, prompts=2, nodes=60, seed=2)
    assert all(one.f[0] == (0, 0, 0) for one in found.wordings.values())
    assert found.top
    assert all(re.fullmatch(r"L(\d) #\d+ \(.+\) on ‘w\1’", name) for name in found.top)


def test_what_cannot_be_measured_is_said(world):
    pairs = pairs_of(world, range(3), (0, 1, 2), (0, 1, 2))
    with pytest.raises(InterpError, match="at least one pair"):
        choose_features(world[1], [])
    chosen = choose_features(world[1], pairs[:1])
    with pytest.raises(InterpError, match="two prompts"):
        measure_held_out(world[1], chosen, pairs[:1])
    same = [replace(pair, corrupt_tokens=pair.clean_tokens) for pair in pairs]
    with pytest.raises(InterpError, match="the answers do not differ"):
        measure_held_out(world[1], chosen, same, sizes=(0, 1))
