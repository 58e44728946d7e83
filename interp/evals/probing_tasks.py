"""Labelled texts to probe on: which sets, which of their rows, and what is held back for testing.

The sets come with the package `sae-probes`, which is read and not run. It has 113 sets with two labels, a row a text. What
is done with them here:

1.  Texts are taken without the white space around them: all of some sets end in a space, which would be the token that is
    probed. A text counts once, and not at all where it stands under both labels. A third of some sets are rows that are there
    already, which would otherwise lie in the training part and in the test at once.
2.  Of each label the same number of texts is drawn, by the SHA-256 of the seed and the text, so that a draw follows from
    nothing but the texts themselves; which of them train and which test, the same hash says.

Source  Kantamneni et al. 2025, "Are Sparse Autoencoders Useful? A Case Study in Sparse Probing" (the sets).
"""

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from interp.corpus.sources.probes import labelled_folder, labelled_rows
from interp.types import InterpError, unknown

KINDS: Mapping[str, tuple[str, ...]] = {
    "places": ("119_us_state_TX", "120_us_timezone_Chicago", "123_world_country_United_Kingdom"),
    "names": ("154_athlete_sport_football", "126_art_type_book", "6_hist_fig_isamerican"),
    "headlines": ("105_click_bait", "24_headline_isiran", "26_headline_isfrontpage"),
    "phrases": ("66_living-room", "81_public-health", "68_credit-card"),
    "pairs of texts": ("91_glue_qqp", "138_glue_mnli_contradiction", "90_glue_qnli"),
    "language and time": ("87_glue_cola", "134_context_type_Belief_states", "42_temp_sense"),
    "right answers": ("54_cs_tf", "36_sciq_tf", "129_arith_mc_A"),
    "morals": ("52_virtue_is", "50_deon_isvalid", "51_just_is"),
    "moods": ("92_glue_sst2", "150_twt_emotion_sadness", "113_movie_sent"),
    "messages": ("106_hate_hate", "96_spam_is", "151_it_tick_HR Support"),
}
"""The thirty sets that are probed unless others are named, by what their labels are about.

The rule: sets with two labels and at least 400 distinct texts of each; one of those that differ only in which class is
asked about (three states, four names in headlines); of each kind the three whose texts have the fewest tokens, so that all
thirty together take half a million tokens. That leaves out what is long: code, articles, cases, accounts, biographies."""
TASKS: tuple[str, ...] = tuple(name for names in KINDS.values() for name in names)
LEAST = 32
"""Texts of each part that a probe is fitted or tested on at least."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is probed, and on how many texts."""

    tasks: tuple[str, ...] = TASKS
    ks: tuple[int, ...] = (1, 2, 5, 16)
    """How many latents or neurons a probe may use."""
    train: int = 512
    """Texts that latents are picked and probes fitted on, half of them of each label."""
    test: int = 288
    """Texts that all figures are of, half of them of each label."""
    tokens: int = 128
    """Of each text the first tokens up to this many are read, and the last of them is probed."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise InterpError("name at least one labelled set to probe on, and each of them once.")
        if not self.ks or min(self.ks) < 1:
            raise InterpError(f"ks are numbers of latents, 1 or more; they were {self.ks}.")
        for name in ("train", "test"):
            count = getattr(self, name)
            if count < LEAST or count % 2:
                raise InterpError(f"{name} is an even number of texts, {LEAST} or more; it was {count}.")
        if self.tokens < 1:
            raise InterpError(f"tokens is how many of a text's tokens are read, 1 or more; it was {self.tokens}.")


@dataclass(frozen=True, eq=False)
class Labelled:
    """The texts of one task; those of the training part come first, both parts in an order of their own."""

    task: str
    texts: tuple[str, ...]
    label_N: Bool[np.ndarray, " N"]
    meanings: tuple[str, str]
    """What False and True are called in the set."""
    train: int


def kind_of(task: str) -> str:
    """What the set's labels are about; "" for one that is not among the thirty."""
    return next((kind for kind, names in KINDS.items() if task in names), "")


def read_task(task: str, plan: Plan) -> Labelled:
    """The texts of a set that the plan draws, with their labels.

    Raises InterpError when `sae-probes` is not installed, has no such set, or one with more or fewer than two labels, and
    when the set has too few distinct texts.
    """
    by_text: dict[str, set[str]] = {}
    for text, label in _rows(task):
        by_text.setdefault(text.strip(), set()).add(label)
    meanings = sorted({label for labels in by_text.values() for label in labels})
    if len(meanings) != 2:
        raise InterpError(
            f"the set {task} has {len(meanings)} labels, and a probe tells two apart; choose another set."
        )
    train, test = plan.train // 2, plan.test // 2
    drawn = [
        sorted((_digest(plan.seed, text), text) for text, labels in by_text.items() if text and labels == {meaning})
        for meaning in meanings
    ]
    count, meaning = min((len(texts), meaning) for texts, meaning in zip(drawn, meanings, strict=True))
    if count < train + test:
        raise InterpError(
            f"the set {task} has {count:,} distinct texts labelled {meaning}, and {train + test:,} are asked for: {train:,} "
            f"to train on and {test:,} to test; ask for fewer, or choose another set."
        )
    parts = [
        [(*text, bool(positive)) for positive, texts in enumerate(drawn) for text in texts[part]]
        for part in (slice(train), slice(train, train + test))
    ]
    # By the hash again, so that the labels are mixed and no longer in two runs.
    rows = [row for part in parts for row in sorted(part, key=lambda row: row[0][::-1])]
    return Labelled(
        task=task,
        texts=tuple(text for _, text, _ in rows),
        label_N=np.array([label for *_, label in rows], dtype=bool),
        meanings=(meanings[0], meanings[1]),
        train=len(parts[0]),
    )


def _digest(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}:{text}".encode()).digest()


def _rows(task: str) -> list[tuple[str, str]]:
    """(text, label) of the set's rows."""
    folder: Path = labelled_folder()
    known = sorted(path.name.removesuffix(".csv.zst") for path in folder.glob("*.csv.zst"))
    if not known:
        raise InterpError(f"there are no labelled sets in {folder}; `interp setup` installs the package that has them.")
    if task not in known:
        raise unknown("labelled set in sae-probes:", task, known)
    try:
        return [(text, label) for _, text, label in labelled_rows(task)]
    except (KeyError, csv.Error, UnicodeDecodeError) as error:
        raise InterpError(f"the set {task} of sae-probes has no texts with labels ({error}).") from None
