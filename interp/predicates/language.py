"""The language of a document: by its function words, and code by its signs.

Metadata are not asked: sources name languages in many ways or not at all, and one document may be of another language than
its source. Words that two of the languages share are left out of the lists.

Axes    N position, D document, V vocabulary.
"""

import numpy as np

from interp.predicates.tokens import Vocabulary

LANGUAGES = ("en", "fr", "es", "code")
_FUNCTION = {
    "en": "the of and to is was for that with as by on are from it his were which this be an at or have not",
    "fr": "le les des du et est une dans qui pour par au sur il ou avec aux sont été cette ses plus être ont ce",
    "es": "el los las del y una por con fue para su como más lo al sus o era también pero sobre entre ha este desde",
}
FEWEST_WORDS = 4
"""Function words below which a document's language is not told."""
CODE_SHARE = 0.08
"""Share of operators, underscores, brackets and ends of lines from which a document with them is code."""


def languages(token_N: np.ndarray, document_N: np.ndarray, count: int, vocabulary: Vocabulary) -> np.ndarray:
    """For each of `count` documents the number of its language in LANGUAGES, -1 where it cannot be told."""
    folded = [text.strip(" ").lower() for text in vocabulary.texts] + [""]
    length_D = np.maximum(np.bincount(document_N, minlength=count), 1)

    def times(marked_V: np.ndarray) -> np.ndarray:
        return np.bincount(document_N[marked_V[token_N]], minlength=count)

    words = [np.isin(folded, _FUNCTION[language].split()) for language in LANGUAGES[:3]]
    words_LD = np.stack([times(marked_V) for marked_V in words])
    signs_V = (
        vocabulary.of_class("underscore") | vocabulary.of_class("operator") | vocabulary.of_class("opening bracket")
    )
    # Brackets and dashes stand in prose too; what begins a line further in does not.
    indented_V = np.array(
        [text.endswith("\n ") or "\n  " in text or text == "\n" or text.startswith("   ") for text in vocabulary.texts]
        + [False]
    )
    code_D = (times(signs_V) + times(indented_V)) / length_D >= CODE_SHARE
    best_D = words_LD.argmax(0)
    found_D = np.where(words_LD.max(0) >= FEWEST_WORDS, best_D, -1)
    return np.where(code_D, 3, found_D)
