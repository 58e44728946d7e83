"""Behaviours: prompts by the hundred, each with a counterfactual twin of the same length, the token that follows and one that does not.

1.  A behaviour has two wordings (its template and a paraphrase), filled with words that are drawn by a seed.
2.  Of words that are to follow a prompt, only those are used that are one token of the tokenizer at hand, right after that
    prompt; the rest are counted. So are fillings whose two prompts have different lengths.
3.  In the counterfactual twin the other token follows (`flips`), so that the difference of the two logits changes its sign; of
    `greater_than` both tokens may follow it, so that nothing is said of its sign.
4.  A prompt is for attribution or held out by a bit of its hash, whatever else is drawn.

Axes    B prompt, T position, V vocabulary.
Source  Wang et al. 2022 (IOI); Hanna et al. 2023 (greater-than); Linzen et al. 2016 (agreement past another noun); Mathwin et al.
        2023 (gendered pronouns). The words and wordings here are our own.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from interp.circuits import behaviour_words as words
from interp.render import table_html, title_html, visible
from interp.types import InterpError, unknown

TEMPLATE, PARAPHRASE = "template", "paraphrase"
DRAWS = 100
"""Fillings that are drawn, at most, for each prompt that is wanted."""
FUTILE = 500
"""Fillings after which a tokenizer of which none was of use is given up."""


@runtime_checkable
class Tokenizes(Protocol):
    """What a behaviour needs of a `Model`, or of its `text`."""

    name: str

    def tokenize(self, text: str, /) -> list[int]: ...
    def prompt(self, text: str, /) -> list[int]: ...


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A prompt and its counterfactual twin."""

    clean: str
    corrupt: str
    clean_tokens: tuple[int, ...]
    """With what the family puts around a text; as many as `corrupt_tokens`."""
    corrupt_tokens: tuple[int, ...]
    target: int
    """The token that follows the clean prompt."""
    distractor: int
    wording: str
    """`template` or `paraphrase`."""
    form: str = ""
    """A variant within the wording: ABBA or BABA."""
    held_out: bool = False


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """Prompts of one behaviour, for one tokenizer."""

    name: str
    says: str
    """What the model is asked to do, in a sentence."""
    flips: bool
    """Whether the distractor follows the counterfactual twin."""
    pairs: tuple[Pair, ...]
    left_out: Mapping[str, int]
    """By reason, how many words or fillings were not used."""

    def __len__(self) -> int:
        return len(self.pairs)

    def select(self, wording: str = TEMPLATE, *, held_out: bool | None = None) -> list[Pair]:
        """Pairs of a wording: those for attribution (False), the held out ones (True), or all (None).

        Raises InterpError for a wording that there is not.
        """
        if wording not in (TEMPLATE, PARAPHRASE):
            raise unknown("wording", wording, (TEMPLATE, PARAPHRASE))
        return [p for p in self.pairs if p.wording == wording and held_out in (None, p.held_out)]

    def _repr_html_(self) -> str:
        rows = [
            (
                p.wording,
                "held out" if p.held_out else "attribution",
                visible(p.clean),
                visible(p.corrupt),
                p.target,
                p.distractor,
            )
            for wording in (TEMPLATE, PARAPHRASE)
            for p in self.select(wording)[:5]
        ]
        head = ["wording", "half", "clean", "counterfactual", "target", "distractor"]
        return title_html(f"{self.name}: {self.says} {len(self)} prompts.") + table_html(head, rows)


@dataclass(frozen=True)
class Batch:
    """Pairs of one length."""

    clean_BT: Int[Tensor, "B T"]
    corrupt_BT: Int[Tensor, "B T"]
    target: tuple[int, ...]
    distractor: tuple[int, ...]
    at: tuple[int, ...]
    """Where each stands in what was batched."""


def batches(pairs: Sequence[Pair], size: int = 32) -> Iterator[Batch]:
    """The pairs, those of one length together, at most `size` at a time."""
    lengths = sorted({len(pair.clean_tokens) for pair in pairs})
    for length in lengths:
        at = [n for n, pair in enumerate(pairs) if len(pair.clean_tokens) == length]
        for start in range(0, len(at), size):
            some = at[start : start + size]
            yield Batch(
                torch.tensor([pairs[n].clean_tokens for n in some]),
                torch.tensor([pairs[n].corrupt_tokens for n in some]),
                tuple(pairs[n].target for n in some),
                tuple(pairs[n].distractor for n in some),
                tuple(some),
            )


@dataclass(frozen=True)
class Draft:
    """A filling, before it is known to suit the tokenizer."""

    clean: str
    corrupt: str
    target: str
    distractor: str
    form: str = ""


@dataclass
class Words:
    """Draws words, and keeps to those that are one token where that is asked."""

    reads: Tokenizes
    draw: random.Random
    left_out: set[str] = field(default_factory=set)

    def one(self, some: Sequence[str], lead: str = " ") -> list[str]:
        """Those that are one token after a space."""
        kept = [word for word in some if len(self.reads.tokenize(lead + word)) == 1]
        self.left_out |= set(some) - set(kept)
        return kept

    def pick(self, some: Sequence[str], count: int = 1) -> list[str]:
        """Different ones by chance; none where there are too few."""
        return self.draw.sample(list(some), count) if len(some) >= count else []


def _ioi(words_: Words, wording: str) -> Iterator[Draft]:
    names = words_.one(words.MEN + words.WOMEN)
    while pair := words_.pick(names, 2):
        given, giver = pair
        (place,), (gift,) = words_.pick(words.PLACES), words_.pick(words.GIFTS)
        form = words_.draw.choice(("ABBA", "BABA"))
        first, second = (given, giver) if form == "ABBA" else (giver, given)
        if wording == TEMPLATE:
            text = f"When {first} and {second} went to the {place}, {{}} gave a {gift} to"
        else:
            text = f"Yesterday {first} and {second} had lunch near the {place}. Afterwards {{}} handed the {gift} to"
        yield Draft(text.format(giver), text.format(given), f" {given}", f" {giver}", form)


def _greater_than(words_: Words, wording: str, digits: int) -> Iterator[Draft]:
    """Of `digits` that are one token: the last two of a year, or the one before the last."""
    while True:
        century, tens, units = (words_.draw.randint(*ends) for ends in ((11, 18), (2, 7), (1, 8)))
        (event,) = words_.pick(words.EVENTS)
        text = {
            TEMPLATE: f"The {event} lasted from the year {century}{{}} to the year {century}",
            PARAPHRASE: f"The {event} that began in {century}{{}} did not end before {century}",
        }[wording]
        above, below = tens + words_.draw.randint(1, 9 - tens), words_.draw.randint(1, tens - 1)
        last = "" if digits == 1 else str(units)
        yield Draft(text.format(f"{tens}{units}"), text.format("01"), f"{above}{last}", f"{below}{last}")


def _subject_verb(words_: Words, wording: str) -> Iterator[Draft]:
    subjects, others = list(words.COUNTED.items()), list(words.BESIDE.items())
    while True:
        (one, several), other = words_.draw.choice(subjects), words_.draw.choice(others)
        verb = words_.draw.choice((("is", "are"), ("was", "were"), ("has", "have")))
        near = words_.draw.choice(("near", "behind", "beside", "by"))
        plural = words_.draw.random() < 0.5
        # The noun between is of the other number than the clean subject, so that the nearest noun misleads.
        text = {
            TEMPLATE: f"The {{}} {near} the {other[0] if plural else other[1]}",
            PARAPHRASE: f"Everybody says that the {{}} that we saw {near} the {other[0] if plural else other[1]}",
        }[wording]
        clean, corrupt = (several, one) if plural else (one, several)
        yield Draft(text.format(clean), text.format(corrupt), f" {verb[plural]}", f" {verb[not plural]}")


def _capital(words_: Words, wording: str) -> Iterator[Draft]:
    known = words_.one(list(words.CITIES))
    cities = [(city, capital) for capital in known for city in words.CITIES[capital].split()]
    text = {
        TEMPLATE: "The capital of the country that contains {} is",
        PARAPHRASE: "Our guest comes from {}, and the capital of that country is called",
    }[wording]
    while len(known) > 1:
        (city, capital), (other, its) = words_.draw.choice(cities), words_.draw.choice(cities)
        if capital != its:
            yield Draft(text.format(city), text.format(other), f" {capital}", f" {its}")


def _pronoun(words_: Words, wording: str) -> Iterator[Draft]:
    men, women = words_.one(words.MEN), words_.one(words.WOMEN)
    while (man := words_.pick(men)) and (woman := words_.pick(women)):
        (role,), (praise,) = words_.pick(words.ROLES), words_.pick(words.PRAISE)
        text = {
            TEMPLATE: f"{{}} is a very {praise} {role}, isn't",
            PARAPHRASE: f"Everyone asks the {praise} {role} {{}} for help, because",
        }[wording]
        clean, corrupt, target, distractor = man[0], woman[0], " he", " she"
        if words_.draw.random() < 0.5:
            clean, corrupt, target, distractor = corrupt, clean, distractor, target
        yield Draft(text.format(clean), text.format(corrupt), target, distractor)


def _french(words_: Words, wording: str) -> Iterator[Draft]:
    """An adjective after the verb: of every determiner here the form is the same for both genders."""
    pairs = [(m, f) for m, f in words.ADJECTIVES.items() if len(words_.one([m, f])) == 2]
    while pairs:
        masculine, feminine = words_.draw.choice(pairs)
        (his,), (hers,) = words_.pick(list(words.MASCULINE)), words_.pick(list(words.FEMININE))
        whose = words_.draw.choice(("Votre", "Notre", "Leur"))
        text = f"{whose} {{}} est" if wording == TEMPLATE else f"Je pense que {whose.lower()} {{}} est"
        clean, corrupt, target, distractor = hers, his, feminine, masculine
        if words_.draw.random() < 0.5:
            clean, corrupt, target, distractor = corrupt, clean, distractor, target
        yield Draft(text.format(clean), text.format(corrupt), f" {target}", f" {distractor}")


def _english(words_: Words, wording: str) -> Iterator[Draft]:
    """The same nouns and wordings in English, where number makes the verb's form."""
    nouns = [
        noun for noun in (words.FEMININE | words.MASCULINE).values() if not noun.endswith(("s", "x", "h", "f", "fe"))
    ]
    while True:
        (noun,), plural = words_.pick(nouns), words_.draw.random() < 0.5
        whose = words_.draw.choice(("Your", "Our", "Their"))
        text = f"{whose} {{}}" if wording == TEMPLATE else f"I think that {whose.lower()} {{}}"
        one, several = text.format(noun), text.format(noun + "s")
        verbs = (" are", " is") if plural else (" is", " are")
        yield Draft(several if plural else one, one if plural else several, *verbs)


Draws = Callable[[Words, str], Iterator[Draft]]
BEHAVIOURS: dict[str, tuple[str, Sequence[Draws]]] = {
    "ioi": ("A name stands twice, and the other one is to follow.", [_ioi]),
    "greater_than": (
        "A time ends after it began: the year's tens are to be larger.",
        [partial(_greater_than, digits=2), partial(_greater_than, digits=1)],
    ),
    "subject_verb": ("The verb is to agree with its subject, past a noun of the other number.", [_subject_verb]),
    "capital": ("From a city to its country, and from there to the capital.", [_capital]),
    "pronoun": ("A pronoun is to have the gender of a name.", [_pronoun]),
    "french_agreement": ("In French, an adjective is to have the gender of its noun.", [_french]),
    "english_agreement": (
        "The English twin of french_agreement: a verb is to have the number of its noun.",
        [_english],
    ),
}
"""By name: what is asked, and what draws its prompts (the first of several that suits the tokenizer)."""
OPEN = frozenset({"greater_than"})
"""Those after whose counterfactual both tokens may follow."""


def behaviour(name: str, model: Tokenizes, *, count: int = 120, seed: int = 0) -> Behaviour:
    """A behaviour's prompts for a model's tokenizer, `count` of each wording (fewer where its words do not suffice).

    Raises InterpError for a behaviour that there is not, and where the tokenizer leaves none of its words whole.
    """
    if name not in BEHAVIOURS:
        raise unknown("behaviour", name, BEHAVIOURS)
    says, ways = BEHAVIOURS[name]
    for draws in ways:
        pairs, left_out = [], Counter[str]()
        for wording in (TEMPLATE, PARAPHRASE):
            made, why = _fill(name, model, draws, wording, count, seed)
            pairs += made
            left_out += why
        if {pair.wording for pair in pairs} == {TEMPLATE, PARAPHRASE}:
            return Behaviour(name=name, says=says, flips=name not in OPEN, pairs=tuple(pairs), left_out=dict(left_out))
    raise InterpError(
        f"the tokenizer of {model.name} makes several tokens of the words that {name} asks for, so none of its prompts can be "
        f"used; try another of {', '.join(BEHAVIOURS)}."
    )


def _fill(
    name: str, model: Tokenizes, draws: Draws, wording: str, count: int, seed: int
) -> tuple[list[Pair], Counter[str]]:
    """(pairs that suit the tokenizer, how much was left out and why)."""
    chosen = Words(model, random.Random(f"{name} {wording} {seed}"))
    pairs: dict[str, Pair] = {}
    why: Counter[str] = Counter()
    for number, draft in enumerate(draws(chosen, wording)):
        if len(pairs) >= count or number >= (DRAWS * count if pairs else FUTILE):
            break
        if draft.clean in pairs:
            continue
        pair = _pair(model, draft, wording)
        if isinstance(pair, Pair):
            pairs[draft.clean] = pair
        else:
            why[pair] += 1
    if chosen.left_out and wording == TEMPLATE:  # the same words fill both wordings
        why["words of several tokens"] += len(chosen.left_out)
    return list(pairs.values()), why


def _pair(model: Tokenizes, draft: Draft, wording: str) -> Pair | str:
    """The filling as tokens, or why it is of no use."""
    clean, corrupt = model.prompt(draft.clean), model.prompt(draft.corrupt)
    if len(clean) != len(corrupt):
        return "prompts of two lengths"
    following = []
    for text in (draft.clean, draft.corrupt):
        before = model.tokenize(text)
        for word in (draft.target, draft.distractor):
            whole = model.tokenize(text + word)
            if whole[:-1] != before:
                return "prompts after which a word is several tokens"
            following.append(whole[-1])
    target, distractor = following[:2]
    if following[2:] != [target, distractor] or target == distractor:
        return "prompts after which a word is several tokens"
    return Pair(
        clean=draft.clean,
        corrupt=draft.corrupt,
        clean_tokens=tuple(clean),
        corrupt_tokens=tuple(corrupt),
        target=target,
        distractor=distractor,
        wording=wording,
        form=draft.form,
        held_out=is_held_out(draft.clean),
    )


def is_held_out(text: str) -> bool:
    """Half of all prompts, by a bit of the SHA-256 of the text."""
    return bool(hashlib.sha256(text.encode()).digest()[0] & 1)
