"""Prompts of behaviours for several tokenizers, how often models do what they ask, and heads of published kinds."""

import re

import numpy as np
import pytest
import torch

from interp.circuits import (
    BEHAVIOURS,
    HeadScores,
    NameMovers,
    attribute_directly,
    batches,
    behaviour,
    behaviour_words,
    induction_scores,
    logit_differences,
    measure_accuracy,
    name_mover_scores,
    previous_token_scores,
)
from interp.circuits.behaviours import PARAPHRASE, TEMPLATE, is_held_out
from interp.circuits.points import each_layer
from interp.models import open_model
from interp.types import InterpError
from tests import families

torch.set_num_threads(1)
MANY = ["llama", "gpt2", "gpt_neox"]


def worded():
    """A byte-level tokenizer to which most of the behaviours' words are one token, and the tens of years two digits."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    w = behaviour_words
    known = [
        *w.MEN,
        *w.WOMEN,
        *w.PLACES,
        *w.GIFTS,
        *w.COUNTED,
        *w.COUNTED.values(),
        *w.ADJECTIVES,
        *w.ADJECTIVES.values(),
        *w.CITIES,
    ]
    known += "he she is are was were has have When and went to the gave isn't capital of country that".split()  # noqa: SIM905
    english = (w.FEMININE | w.MASCULINE).values()
    known += [*english, *(f"{noun}s" for noun in english)]
    # Centuries are learnt first, so that a year is a century and two digits.
    numbers = [f" {n}" for n in range(11, 19)] * 5 + [f"{n:02d}" for n in range(1, 100)]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=6_000, special_tokens=families.SPECIAL, initial_alphabet=alphabet)
    raw.train_from_iterator([f" {word}" for word in known] * 3 + numbers, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A model of each family with that tokenizer, made when it is first asked for."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def model(family):
        if family not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(families, "tokenizer", worded)
                made[family] = open_model(str(families.save(family, root / family)), dtype="float32")
        return made[family]

    return model


@pytest.fixture(scope="module")
def tokenizers(opened, request):
    """A model by name; the embedded one is opened when it is first asked for."""
    return lambda of: opened("llama") if of == "worded" else request.getfixturevalue("smollm2")


# ---- prompts ----


@pytest.mark.parametrize("of", ["worded", "smollm2"])
@pytest.mark.parametrize("name", sorted(BEHAVIOURS))
def test_a_behaviour_has_a_hundred_different_pairs_of_one_length_with_answers_of_one_token(tokenizers, name, of):
    model = tokenizers(of)
    found = behaviour(name, model)
    for wording in (TEMPLATE, PARAPHRASE):
        pairs = found.select(wording)
        assert len({pair.clean for pair in pairs}) == len(pairs) == 120
        halves = [len(found.select(wording, held_out=held_out)) for held_out in (False, True)]
        assert sum(halves) == 120
        assert min(halves) > 30
    for pair in found.pairs:
        assert len(pair.clean_tokens) == len(pair.corrupt_tokens)
        assert pair.clean_tokens != pair.corrupt_tokens
        assert pair.target != pair.distractor
        assert list(pair.clean_tokens) == model.prompt(pair.clean)
        for text in (pair.clean, pair.corrupt):
            for token in (pair.target, pair.distractor):
                assert model.tokenize(text + model.decode([token])) == [*model.tokenize(text), token]
        assert pair.held_out == is_held_out(pair.clean)
    assert behaviour(name, model) == found  # the same draws again
    assert behaviour(name, model, seed=1).pairs != found.pairs


def answers(model, pair):
    return model.decode([pair.target]).strip(), model.decode([pair.distractor]).strip()


def test_in_ioi_the_target_stands_once_and_the_twin_repeats_it_instead(tokenizers):
    found = behaviour("ioi", tokenizers("smollm2"))
    for pair in found.pairs:
        for tokens, once, twice in (
            (pair.clean_tokens, pair.target, pair.distractor),
            (pair.corrupt_tokens, pair.distractor, pair.target),
        ):
            assert (tokens.count(once), tokens.count(twice)) == (1, 2)
        first = min((pair.target, pair.distractor), key=pair.clean_tokens.index)
        assert (first == pair.target) == (pair.form == "ABBA")
    assert {pair.form for pair in found.pairs} == {"ABBA", "BABA"}


@pytest.mark.parametrize(("of", "digits"), [("worded", 2), ("smollm2", 1)])
def test_in_greater_than_the_target_is_later_and_the_distractor_earlier(tokenizers, of, digits):
    model = tokenizers(of)
    for pair in behaviour("greater_than", model).pairs:
        century, began = map(int, re.search(r"(\d\d)(\d\d)\b", pair.clean).groups())
        target, distractor = answers(model, pair)
        assert len(target) == len(distractor) == digits
        shift = 10 if digits == 1 else 1
        assert int(distractor) * shift < began // shift * shift < int(target) * shift
        assert pair.clean.endswith(str(century))
        assert f"{century}01" in pair.corrupt


def test_in_capital_the_answer_is_of_the_citys_country(tokenizers):
    model = tokenizers("smollm2")
    capital_of = {city: capital for capital, cities in behaviour_words.CITIES.items() for city in cities.split()}
    for pair in behaviour("capital", model).pairs:
        cities = [next(city for city in capital_of if f" {city}" in text) for text in (pair.clean, pair.corrupt)]
        assert tuple(capital_of[city] for city in cities) == answers(model, pair)


def test_in_agreement_the_answer_follows_the_subject_and_not_the_noun_beside_it(tokenizers):
    model = tokenizers("smollm2")
    plural, beside = set(behaviour_words.COUNTED.values()), set(behaviour_words.BESIDE.values())
    for pair in behaviour("subject_verb", model).pairs:
        several = bool(plural & set(pair.clean.split()))
        assert bool(plural & set(pair.corrupt.split())) != several
        assert bool(beside & set(pair.clean.split())) != several
        assert (answers(model, pair)[0] in ("are", "were", "have")) == several
    for pair in behaviour("french_agreement", model).pairs:
        feminine = bool(set(behaviour_words.FEMININE) & set(pair.clean.split()))
        assert (answers(model, pair)[0] in behaviour_words.ADJECTIVES.values()) == feminine
    for pair in behaviour("pronoun", model).pairs:
        woman = bool(set(behaviour_words.WOMEN) & set(re.split(r"\W+", pair.clean)))
        assert answers(model, pair) == (("she", "he") if woman else ("he", "she"))


def test_no_name_city_or_noun_is_in_two_lists():
    w = behaviour_words
    assert not set(w.MEN) & set(w.WOMEN)
    assert not set(w.FEMININE) & set(w.MASCULINE)
    assert not set(w.COUNTED.values()) & set(w.BESIDE.values())
    cities = [city for cities in w.CITIES.values() for city in cities.split()]
    assert len(cities) == len(set(cities))
    assert not set(cities) & set(w.CITIES)
    assert not [(a, b) for a in cities for b in cities if a != b and a in b]


def test_words_of_several_tokens_are_left_out_and_counted(tokenizers):
    model = tokenizers("smollm2")
    names = behaviour_words.MEN + behaviour_words.WOMEN
    several = [name for name in names if len(model.tokenize(f" {name}")) > 1]
    found = behaviour("ioi", model)
    assert found.left_out["words of several tokens"] == len(several) > 0
    assert not any(f" {name} " in pair.clean for pair in found.pairs for name in several)


def test_what_cannot_be_had_is_said(tmp_path, tokenizers):
    with pytest.raises(InterpError, match=r"no behaviour 'io': did you mean ioi"):
        behaviour("io", tokenizers("smollm2"))
    with pytest.raises(InterpError, match=r"no wording 'other'"):
        behaviour("ioi", tokenizers("smollm2"), count=2).select("other")
    poor = open_model(str(families.save("llama", tmp_path / "poor")), dtype="float32")
    with pytest.raises(
        InterpError, match=r"several tokens of the words that ioi asks for.*try another of ioi, greater_than"
    ):
        behaviour("ioi", poor)


# ---- accuracy ----


@pytest.mark.parametrize("family", MANY)
def test_accuracy_is_counted_prompt_by_prompt(opened, family):
    model = opened(family)
    found = behaviour("capital", model, count=20)  # of several lengths
    assert len(list(batches(found.pairs))) > 2
    clean, corrupt = logit_differences(model, found.pairs)
    for at, pair in enumerate(found.pairs):
        for tokens, ours in ((pair.clean_tokens, clean[at]), (pair.corrupt_tokens, corrupt[at])):
            logits = model.run(torch.tensor([tokens]), logits=True).logits[0, -1]
            assert float(logits[pair.target] - logits[pair.distractor]) == pytest.approx(ours, abs=1e-4)
    first, second = measure_accuracy(model, found).wordings
    assert (first.n, second.n) == (20, 20)
    assert first.right[0] == (clean[:20] > 0).mean()
    assert second.difference[0] == pytest.approx(clean[20:].mean())
    assert first.corrupt_right[0] == (corrupt[:20] < 0).mean()
    assert first.right[1] < first.right[0] + 1e-9 < first.right[2] + 1e-9
    assert measure_accuracy(model, behaviour("greater_than", model, count=4)).wordings[0].corrupt_right is None
    assert "<table" in measure_accuracy(model, found)._repr_html_()
    assert "<table" in found._repr_html_()


def test_smollm2_does_ioi(smollm2):
    """The embedded model, in the number type that it is opened with: nearly always right, and the twin turns it around."""
    first = measure_accuracy(smollm2, behaviour("ioi", smollm2, count=12)).wordings[0]
    assert first.right[0] > 0.8
    assert first.difference[1] > 1
    assert first.corrupt_difference[2] < -1


# ---- heads ----


@pytest.mark.parametrize("family", MANY)
def test_scores_of_heads_are_their_attention(opened, family):
    """Against the pattern itself, position by position."""
    model = opened(family)
    found = induction_scores(model, length=6, rows=2)
    before = previous_token_scores(model, length=6, rows=2)
    assert found.score_LHB.shape == (3, 4, 2)
    usual = [t for t in range(model.embedded_tokens) if t not in {model.separator, *model.tokenizer.all_special_ids}]
    for row in range(2):
        drawn = torch.tensor(usual)[torch.randint(len(usual), (2, 12), generator=torch.Generator().manual_seed(0))][row]
        once, twice = ([model.frame.first, *drawn.tolist()], [model.frame.first, *drawn[:6].tolist() * 2])
        for tokens, ours in ((twice, found.score_LHB), (once, found.control_LHB)):
            names = each_layer(model, "attn.hook_pattern")
            for layer, name in enumerate(names):
                pattern = model.run(torch.tensor([tokens]), [name]).activations[name][0]
                for head in range(4):
                    theirs = np.mean([float(pattern[head, q, q - 5]) for q in range(7, 13)])
                    assert ours[layer, head, row] == pytest.approx(theirs, abs=1e-6)
                    if ours is found.score_LHB:
                        assert tokens[7 - 6] == tokens[7]  # what is attended to follows the token when it came first
    assert before.control_LHB[0, 0, 0] == pytest.approx(np.mean([1 / (q + 1) for q in range(2, 7)]))


def test_a_head_is_found_by_its_interval():
    draw = np.random.default_rng(0)
    score = draw.uniform(0, 0.1, (2, 3, 10))
    score[1, 2] = draw.uniform(0.6, 0.9, 10)
    score[0, 1] = np.tile([0.0, 0.65], 5)  # its mean is high and its rows do not agree
    found = HeadScores(kind="k", says="s", score_LHB=score, control_LHB=np.full_like(score, 0.05))
    assert [row["head"] for row in found.found()] == ["1.2"]
    assert "1 found" in found._repr_html_()


def test_a_name_mover_adds_to_the_name_and_attends_to_it():
    shape = (2, 2, 30)
    value, name, other = np.zeros(shape), np.zeros(shape), np.full(shape, 0.05)
    value[1, 0], name[1, 0] = 1.0, 0.6
    value[0, 0] = 1.0  # speaks for the name without looking at it
    value[0, 1], name[0, 1] = -0.9, 0.6
    name[1, 1] = 0.9  # looks and says nothing
    movers = NameMovers(value_LHB=value, to_name_LHB=name, to_other_LHB=other, logit_B=np.full(30, 3.0))
    assert [row["head"] for row in movers.found()] == ["1.0"]
    assert [row["head"] for row in movers.found(negative=True)] == ["0.1"]


@pytest.mark.parametrize("family", MANY)
def test_what_heads_do_for_a_name_is_their_direct_effect_and_their_attention(opened, family):
    model = opened(family)
    pairs = behaviour("ioi", model, count=6).select()
    found = name_mover_scores(model, pairs)
    (batch,) = batches(pairs)
    direct = attribute_directly(model, batch.clean_BT, batch.target, batch.distractor, by="head")
    assert np.allclose(found.value_LHB.mean(2), direct.heads_LH(), atol=1e-6)
    name = "blocks.1.attn.hook_pattern"
    pattern = model.run(torch.tensor([pairs[2].clean_tokens]), [name]).activations[name][0, 3, -1]
    tokens = pairs[2].clean_tokens
    assert found.to_name_LHB[1, 3, 2] == pytest.approx(float(pattern[tokens.index(pairs[2].target)]), abs=1e-6)
    others = [at for at, token in enumerate(tokens) if token == pairs[2].distractor]
    assert found.to_other_LHB[1, 3, 2] == pytest.approx(float(pattern[others].sum()), abs=1e-6)
    with pytest.raises(InterpError, match=r"does not hold its target once"):
        name_mover_scores(model, behaviour("subject_verb", model, count=2).select())
    with pytest.raises(InterpError, match=r"1 rows of 80 tokens: give at least 2"):
        induction_scores(model, rows=1)
