"""What a language model is asked of a feature, in which form it is to answer, and what such an answer says."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from interp.labels.label import LONGEST_NAME
from interp.labels.llm.asking import Question
from interp.labels.llm.examples import MARKS, Shown
from interp.predicates import Claim, read_claim
from interp.types import InterpError

PER_QUESTION = 5
"""Texts that are judged in one question."""
LONGEST_CLAIM = 1_900
"""Characters of a claim, which a label has to hold."""
NAMING = f"""You name features of a neural network. A feature fires on tokens in texts; the token is marked {MARKS[0]}like this{MARKS[1]}. \
Find what the marked tokens, or the texts just before them, have in common that the texts without the feature lack.
Answer with one line, or two:
NAME: a short name, at most ten words, as a person would say it
RULE: at:(...)
The second line is optional. It says exactly when the feature fires, as a search over the marked token. Leave it out unless it is simple and \
surely right. Its words: token:/regex/ (the marked token, with its leading space), before:/regex/ and next:/regex/ (the tokens beside it), \
near:/regex/ (a token within 16), is:digit, is:capitalised, is:"inside word", is:"sentence start", language:fr, about:"a subject"; \
several side by side must all hold, and `or`, `not` and parentheses work. For example: RULE: at:(token:/^ ?(river|lake)s?$/)"""
JUDGING = f"""You check whether a description fits texts. In each text one token is marked {MARKS[0]}like this{MARKS[1]}. \
For each numbered text say whether the description fits the marked token where it stands. Answer with one line for each text and nothing else, \
in the form
1: yes
2: no"""
_NAME = re.compile(r"^[\s*#>`_-]*name[*_`]*\s*:[*_`]*\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
_RULE = re.compile(r"^[\s*#>`_-]*rule[*_`]*\s*:[*_`]*\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
_JUDGED = re.compile(r"^[\s*#>`_-]*(\d+)\s*[:.)-]+\s*[*_`]*(yes|no)\b", re.IGNORECASE | re.MULTILINE)
_EMPTY = re.compile(r"[\W_]*|<.*>|\[.*\]|a short name.*", re.IGNORECASE)
"""What stands in the place of a name and is none."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """A name that came back."""

    name: str
    claim: Claim | None
    """What it claims of positions, where the answer said so in a form that can be read."""
    misread: str = ""
    """Why its rule cannot be read, where there is one that cannot."""


def naming(feature: int, firings: Sequence[Shown], silent: Sequence[Shown]) -> Question:
    """What is this feature's name?"""
    lines = ["Texts in which the feature fires, with how strongly (10 is the most):"]
    lines += [f"({max(round(10 * one.strength), 1)}) {one.text}" for one in firings]
    if silent:
        lines += ["", "Texts in which it does not fire at the marked token:"]
        lines += [f"(0) {one.text}" for one in silent]
    lines += ["", "What do the first have in common that the last lack? Begin your answer with NAME:"]
    return Question(feature=feature, kind="name", system=NAMING, prompt="\n".join(lines))


def read_name(text: str) -> Said | None:
    """What an answer says; None where no name can be read from it. A rule that search refuses (InterpError) is left out, and why
    is told in `misread`."""
    found = _NAME.search(text)
    name = re.sub(r"\s+", " ", found[1]).strip(" *_`\"'“”.") if found else ""
    if _EMPTY.fullmatch(name) or len(name) > LONGEST_NAME or not name.isprintable():
        return None
    rule = _RULE.search(text)
    if rule is None or rule[1].strip(" `.").lower() in ("", "none", "n/a", "at:(...)", "at:(…)"):
        return Said(name=name, claim=None)
    written = rule[1].strip().strip("`").strip()
    inner = written.removeprefix("at:(").removesuffix(")") if written.startswith("at:(") else written
    try:
        claim = read_claim(inner)
        if len(str(claim)) > LONGEST_CLAIM:
            raise InterpError(f"the rule has more than {LONGEST_CLAIM:,} characters.")
    except InterpError as error:
        return Said(name=name, claim=None, misread=str(error))
    return Said(name=name, claim=claim)


def judging(feature: int, name: str, texts: Sequence[Shown]) -> list[Question]:
    """Does the name fit these texts? PER_QUESTION of them at a time, in this order."""
    found = []
    for start in range(0, len(texts), PER_QUESTION):
        lines = [f"Description: {name}", ""]
        lines += [f"{place}. {one.text}" for place, one in enumerate(texts[start : start + PER_QUESTION], 1)]
        found.append(Question(feature=feature, kind="fits", system=JUDGING, prompt="\n".join(lines)))
    return found


def read_judged(text: str, count: int) -> list[bool] | None:
    """Which of so many texts an answer says the name fits; None where it does not say it of each of them once."""
    said = [(int(number), word.lower() == "yes") for number, word in _JUDGED.findall(text)]
    if sorted(number for number, _ in said) != list(range(1, count + 1)):
        return None
    return [fits for _, fits in sorted(said)]
