"""A world in which it is known what each feature fires on, for labels that are made without a person.

As a script: `python -m tests.named_world FOLDER SECONDS` labels it, BATCH features at a time with a pause before each batch.
"""

import sys
import time
from pathlib import Path

import numpy as np

from interp.labels import automatic
from interp.labels.automatic import Run, tried
from interp.labels.propose.proposing import Proposer
from interp.models.sentence import sentence_encoder
from interp.predicates import Text, Vocabulary, explain

WORDS = [f" {a}{b}{c}" for a in "bdfglmnrstvz" for b in "aeiou" for c in "dn"][:106]
MARKS = [",", ".", " (", " 1", " 2", " the", " of"]
VOCABULARY = ["<end>", *WORDS, *MARKS]
BLOCK, DOCUMENTS = 64, 480
FEATURES, BATCH = 60, 8
OWN = [1] * 24 + [2] * 16 + [3] * 10 + [2] * 10
"""How many words each feature has, which are no other's; the last ten fire on theirs in one source only."""
FIRST = np.cumsum([1, *OWN])


def text() -> Text:
    """Documents of one block each of random words and marks; one in five is of another source."""
    draw = np.random.default_rng(0)
    token = np.zeros((DOCUMENTS, BLOCK), dtype=np.int64)
    token[:, 1:] = draw.integers(1, len(VOCABULARY), (DOCUMENTS, BLOCK - 1))
    split = [
        "heldout" if d % 6 == 1 else "labels" if d % 6 == 2 else "final" if d % 6 == 3 else "train"
        for d in range(DOCUMENTS)
    ]
    columns = {"source": ["a" if d % 5 else "b" for d in range(DOCUMENTS)], "topic": [""] * DOCUMENTS}
    flat = token.reshape(-1)
    numbers = np.repeat(np.arange(DOCUMENTS), BLOCK)
    return Text(flat, numbers, flat != 0, BLOCK, 0, Vocabulary(VOCABULARY), split, columns)


def truth(feature: int, text: Text) -> np.ndarray:
    """Where a feature means to fire."""
    own = (text.token_N >= FIRST[feature]) & (text.token_N < FIRST[feature + 1])
    if feature < 50:
        return np.asarray(own)
    source = np.array([value == "b" for value in text.columns["source"]])
    return np.asarray(own & source[text.document_N])


def fired(feature: int, text: Text) -> tuple[np.ndarray, np.ndarray]:
    """It fires at nine of ten of these places, strongly, and weakly here and there."""
    draw = np.random.default_rng([7, feature])
    own = truth(feature, text) & (draw.random(len(text.token_N)) < 0.9) & text.kept_N
    stray = (draw.random(len(text.token_N)) < 0.002) & text.kept_N & ~own
    value = np.where(own, draw.uniform(5, 10, len(own)), draw.uniform(0.5, 2, len(own))).astype(np.float32)
    position = np.flatnonzero(own | stray)
    return position.astype(np.uint32), value[position]


class World:
    """The text and its features."""

    def __init__(self) -> None:
        self.text = text()
        self.fires = {feature: fired(feature, self.text) for feature in range(FEATURES)}
        self.fires_F = np.array([len(position) for position, _ in self.fires.values()])
        self.cleans = {feature: explain(*own, self.text) for feature, own in self.fires.items()}

    def proposer(self) -> Proposer:
        return Proposer(self.text, self.fires.__getitem__, self.cleans.__getitem__, sentence_encoder().encode)

    def tried(self, folder: Path, proposer: Proposer | None = None, features: range = range(FEATURES)):
        """Labels of the features, from a run in the folder."""
        return tried(Run(folder), proposer or self.proposer(), features, self.fires_F, lambda feature: [])


class Slow(Proposer):
    """A proposer that waits before each batch."""

    pause = 0.0

    def propose_batch(self, features):
        time.sleep(self.pause)
        return super().propose_batch(features)


if __name__ == "__main__":
    automatic.BATCH = BATCH
    world = World()
    slow = Slow(world.text, world.fires.__getitem__, world.cleans.__getitem__, sentence_encoder().encode)
    slow.pause = float(sys.argv[2])
    world.tried(Path(sys.argv[1]), slow)
