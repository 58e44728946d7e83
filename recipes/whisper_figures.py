"""The figures of `recipes/whisper.py`: words, word errors, and rates with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from interp.models.transcribing import NO_SPEECH, Heard
from interp.statistics import bootstrap_difference, bootstrap_ratio, wilson


def words(heard: Heard) -> list[str]:
    """The words that are kept of what was heard, as Whisper's own evaluation spells them."""
    return spelled(heard.text) if heard.speech else []


@cache
def _normaliser() -> Any:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


def spelled(text: str) -> list[str]:
    """The words of a text: small letters, no signs, numbers as figures."""
    return [word for word in str(_normaliser()(text)).split() if any(map(str.isalnum, word))]


def errors(reference: Sequence[str], written: Sequence[str]) -> int:
    """Words to change, leave out or put in until one text is the other (Levenshtein 1966)."""
    row = list(range(len(written) + 1))
    for at, word in enumerate(reference, 1):
        before, row[0] = row[0], at
        for to, other in enumerate(written, 1):
            before, row[to] = row[to], min(row[to] + 1, row[to - 1] + 1, before + (word != other))
    return row[-1]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What was heard of the clips under a condition, in figures a clip."""

    false_Q: np.ndarray
    """Of clips without speech, 1 where words were heard."""
    wrong_S: np.ndarray
    spoken_S: np.ndarray
    """Of clips whose words are known, word errors and words; of others whose own words without edits are taken for right, the same."""
    wrong_O: np.ndarray
    spoken_O: np.ndarray


def told(rows: Sequence[dict[str, Any]], heard: Mapping[str, Heard], plain: Mapping[str, Heard]) -> Told:
    """The figures of one condition beside what was heard with nothing edited."""
    made: dict[str, list[int]] = {name: [] for name in ("false_Q", "wrong_S", "spoken_S", "wrong_O", "spoken_O")}
    for row in rows:
        written = words(heard[row["file"]])
        if not row["speech"]:
            made["false_Q"].append(bool(written))
            continue
        right = spelled(row["words"]) if row["words"] else words(plain[row["file"]])
        made["wrong_S" if row["words"] else "wrong_O"].append(errors(right, written))
        made["spoken_S" if row["words"] else "spoken_O"].append(len(right))
    return Told(**{name: np.array(values) for name, values in made.items()})


def figures(one: Told, plain: Told) -> dict[str, Any]:
    """Rates with 95 % intervals, and how far they are from those with nothing edited, clip by clip."""
    share, low, high = wilson(int(one.false_Q.sum()), len(one.false_Q))
    ones = np.ones(len(one.false_Q))
    out: dict[str, Any] = {
        "false_speech": {"clips": int(one.false_Q.sum()), "of": len(one.false_Q), "rate": share, "interval": [low, high],
                         "change": share - plain.false_Q.mean(),
                         "change_interval": bootstrap_difference((plain.false_Q, ones), (one.false_Q, ones), paired=True)},
    }  # fmt: skip
    for name, wrong, spoken, before in (
        ("word_error", one.wrong_S, one.spoken_S, plain.wrong_S),
        ("word_change", one.wrong_O, one.spoken_O, plain.wrong_O),
    ):
        out[name] = {"errors": int(wrong.sum()), "words": int(spoken.sum()), "clips": len(wrong),
                     "rate": wrong.sum() / max(spoken.sum(), 1), "interval": bootstrap_ratio(wrong, spoken),
                     "change": (wrong.sum() - before.sum()) / max(spoken.sum(), 1),
                     "change_interval": bootstrap_difference((before, spoken), (wrong, spoken), paired=True)}  # fmt: skip
    return out


def otherwise(rows: Sequence[dict[str, Any]], heard: Mapping[str, Heard]) -> dict[str, int]:
    """How many clips other rules would say have words: without speech by the text alone and by the token for no speech alone;
    and of speech those that Whisper's own rule, and that token alone, lose."""
    quiet, speech = ([heard[row["file"]] for row in rows if row["speech"] == said] for said in (False, True))
    return {
        "no_speech_with_text": sum(bool(spelled(one.text)) for one in quiet),
        "no_speech_by_token": sum(bool(spelled(one.text)) and one.no_speech <= NO_SPEECH for one in quiet),
        "speech_lost": sum(not words(one) for one in speech),
        "speech_lost_by_token": sum(not spelled(one.text) or one.no_speech > NO_SPEECH for one in speech),
    }


def by_source(rows: Sequence[dict[str, Any]], heard: Mapping[str, Heard]) -> dict[str, dict[str, float]]:
    """Of each source, clips and in how many words were heard; of known words the error too."""
    out: dict[str, dict[str, float]] = {}
    for source in dict.fromkeys(row["source"] for row in rows):
        own = [row for row in rows if row["source"] == source]
        out[source] = {"clips": len(own), "with_words": sum(bool(words(heard[row["file"]])) for row in own)}
        if own[0]["words"]:
            right = [spelled(row["words"]) for row in own]
            wrong = [errors(r, words(heard[row["file"]])) for r, row in zip(right, own, strict=True)]
            out[source] |= {"words": sum(map(len, right)), "errors": sum(wrong)}
    return out


def rounded(value: Any) -> Any:
    """The same with four digits after the point."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return round(float(value), 4) if isinstance(value, float | np.floating) else value
