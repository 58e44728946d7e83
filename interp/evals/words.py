"""One word, one feature: how well the best feature of a dictionary tells a word from everything else.

    words       tokens that are a whole lower-case word of LETTERS letters or more with a space before it, and stand at COUNTED
                positions of the index's text or more; WORDS of them are drawn from a seed
    F1          of a feature as a detector of a word: 2 n / (firings + occurrences), n the positions of the word at which it fires
    best        the largest F1 over all features; how many were searched is said, and the word is one of many: a feature that fires on
                it by chance is found too, so that F1 of a dictionary that knows nothing is not 0

Which words follows from the text and the seed alone, so that dictionaries indexed over one text are asked for the same ones: set beside one
another, reports say where in a model a word has a feature of its own (`evals.depths`).

Axes    F feature, V token of the vocabulary, W word.
"""

import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from interp.evals.figure import Figure, Section
from interp.statistics import bootstrap, wilson
from interp.types import InterpError

LETTERS, COUNTED, WORDS = 4, 50, 300
HALF = 0.5
"""F1 from which a word is said to have a feature of its own."""
_WORD = re.compile(rf" [a-z]{{{LETTERS},}}")

OnTokens = Callable[[Int[np.ndarray, " W"]], Shaped[np.ndarray, "W F"]]
"""How often each feature fires on each of some tokens."""


def draw_words(vocabulary: Sequence[str], counted_V: Int[np.ndarray, " V"], seed: int) -> Int[np.ndarray, " W"]:
    """Token ids of the words, in the order in which they were drawn.

    Raises InterpError when the text has fewer than ten.
    """
    often = np.flatnonzero(counted_V >= COUNTED)
    able = [int(token) for token in often if _WORD.fullmatch(vocabulary[int(token)])]
    if len(able) < 10:
        raise InterpError(
            f"the index's text has {len(able)} whole words that stand there {COUNTED} times or more, too few to ask for features "
            "of words; index more text."
        )
    # By a hash of each word, so that two texts that share most of their words share most of those that are drawn.
    able.sort(key=lambda token: hashlib.sha256(f"{seed} {vocabulary[token]}".encode()).digest())
    return np.array(able[:WORDS], dtype=np.int64)


def measure_words(
    vocabulary: Sequence[str],
    counted_V: Int[np.ndarray, " V"],
    fires_F: Shaped[np.ndarray, " F"],
    on_tokens: OnTokens,
    *,
    of: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Section:
    """The section `words`: how many words have a feature of their own, and which; `fires_F` and `on_tokens` are of the same text as
    `counted_V`. Raises InterpError as `draw_words` does."""
    began, words_W = time.perf_counter(), draw_words(vocabulary, counted_V, seed)
    hits_WF = on_tokens(words_W).astype(np.float64)
    f1_WF = 2 * hits_WF / np.maximum(counted_V[words_W][:, None] + fires_F[None], 1)
    best_W = f1_WF.argmax(1)
    f1_W: Float[np.ndarray, " W"] = f1_WF.max(1)
    mean, low, high = bootstrap(f1_W)
    half = wilson(int((f1_W >= HALF).sum()), len(f1_W))
    searched = f"the best of {int((fires_F > 0).sum()):,} features, on the text that it was found on"
    figures = (
        Figure(name="best_f1", says="F1 of a word's best feature, mean over words", value=mean, interval=(low, high), n=len(f1_W), unit="words", better="higher", note=searched),
        Figure(name="own_feature", says=f"share of words whose best feature has an F1 of {HALF:g} or more", value=half[0], interval=half[1:], n=len(f1_W), unit="words", better="higher", note=searched),
    )  # fmt: skip
    rows = tuple(
        {"word": vocabulary[token].strip(), "feature": int(best), "f1": float(f1), "occurs": int(counted_V[token])}
        for token, best, f1 in zip(words_W, best_W, f1_W, strict=True)
    )
    return Section(
        name="words", title="One word, one feature", figures=figures, rows=rows, of={**(of or {}), "seed": seed},
        seconds=time.perf_counter() - began,
    )  # fmt: skip
