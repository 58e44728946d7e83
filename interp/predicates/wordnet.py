"""WordNet's nouns and verbs: what a word is a kind of.

WordNet 3.0 (Miller 1995; Fellbaum 1998), read out of the Debian package that `interp setup --texts` fetches. Of each word the
commonest senses count, in WordNet's own order (by how often they were tagged); a word's plural or past is led back to it by
WordNet's lists of exceptions and by its rules of endings (morphy).

Source  wndb(5WN), the files' format; morphy(7WN), the endings.
Axes    S synset (a sense that several words share).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from interp.types import unknown

SENSES = {"noun": 2, "verb": 1}
"""Senses of a word that count: verbs have many, and the second is mostly another thing."""
_ENDINGS = {
    "noun": (("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y")),
    "verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
}  # fmt: skip
_ABOVE = ("@", "@i")
"""Pointers to what a synset is a kind, or an instance, of."""


@dataclass(frozen=True, eq=False)
class WordNet:
    """Synsets by number."""

    name_S: list[str]
    """The first word of each, with spaces."""
    part_S: list[str]
    """noun or verb."""
    parents_S: list[tuple[int, ...]]
    senses: dict[str, dict[str, tuple[int, ...]]]
    """By part of speech, each word's synsets, commonest first."""
    exceptions: dict[str, dict[str, str]]
    """By part of speech, irregular forms and their words."""
    _known: dict[int, frozenset[int]] = field(default_factory=dict, repr=False)

    def synsets(self, word: str) -> tuple[int, ...]:
        """The senses that count of a word in any of its forms, nouns first; () for a word that it does not know."""
        found: dict[int, bool] = {}
        for part, most in SENSES.items():
            for lemma in self._lemmas(word.lower(), part):
                found |= dict.fromkeys(self.senses[part][lemma][:most], True)
                break
        return tuple(found)

    def lemma(self, word: str) -> str:
        """The first form of a word: seen, saw and sees are see; small letters, and itself where it is not known."""
        found = (form for part in reversed(SENSES) for form in self._lemmas(word.lower(), part))
        return min(found, key=len, default=word.lower())

    def _lemmas(self, word: str, part: str) -> Iterator[str]:
        """The words that this may be a form of: the exception, then itself, then by its ending."""
        known = self.senses[part]
        forms = [self.exceptions[part].get(word, ""), word]
        forms += [word.removesuffix(end) + base for end, base in _ENDINGS[part] if word.endswith(end)]
        return (form for form in forms if form in known)

    def above(self, synset: int) -> frozenset[int]:
        """The synset and all that it is a kind of."""
        if synset not in self._known:
            found, left = {synset}, [synset]
            while left:
                new = [parent for parent in self.parents_S[left.pop()] if parent not in found]
                found.update(new)
                left.extend(new)
            self._known[synset] = frozenset(found)
        return self._known[synset]

    def kinds(self, word: str) -> frozenset[int]:
        """All synsets that the word is a kind of, in any of the senses that count."""
        return frozenset().union(*(self.above(synset) for synset in self.synsets(word)))


@lru_cache(maxsize=1)
def wordnet() -> WordNet:
    """WordNet, read once a process (two seconds); InterpError when its package is not here."""
    from interp.corpus import archives  # which brings PyTorch; to read what a label claims needs none of it

    files = dict(archives.members("wordnet", "*/wordnet/*"))
    text = {path.rpartition("/")[2]: content.decode("ascii", "replace") for path, content in files.items()}
    name_S: list[str] = []
    part_S: list[str] = []
    above: list[tuple[str, list[str]]] = []
    number: dict[tuple[str, str], int] = {}
    for part in SENSES:
        for offset, name, parents in _synsets(text[f"data.{part}"]):
            number[part, offset] = len(name_S)
            name_S.append(name)
            part_S.append(part)
            above.append((part, parents))
    parents_S = [tuple(number[part, offset] for offset in parents) for part, parents in above]
    senses = {
        part: {
            lemma: tuple(number[part, offset] for offset in offsets) for lemma, offsets in _index(text[f"index.{part}"])
        }
        for part in SENSES
    }
    exceptions = {part: dict(line.split()[:2] for line in text[f"{part}.exc"].splitlines()) for part in SENSES}
    return WordNet(name_S, part_S, parents_S, senses, exceptions)


def is_here() -> bool:
    """Whether WordNet's package is on this machine."""
    from interp.corpus import archives

    return not archives.missing(["wordnet"])


def named(name: str) -> tuple[int, ...]:
    """The synsets that a word or phrase is a name of, those whose first word it is, commonest first; if there is none, all.

    Raises InterpError for a name that WordNet has not.
    """
    known, lemma = wordnet(), name.lower().strip().replace(" ", "_")
    found = [synset for part in SENSES for synset in known.senses[part].get(lemma, ())]
    if not found:
        near = (word.replace("_", " ") for word in known.senses["noun"])
        raise unknown("word of WordNet", name, near, try_="It is its own words that name kinds, in the singular.")
    first = [synset for synset in found if known.name_S[synset] == name.lower().strip()]
    return tuple(first or found)


def _lines(text: str) -> Iterator[str]:
    """Lines of data; those that begin with two spaces are the licence."""
    return (line for line in text.splitlines() if line and not line.startswith("  "))


def _synsets(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """(offset, first word, offsets of what it is a kind of) of each line of a data file."""
    for line in _lines(text):
        field = line.partition(" | ")[0].split()
        words = int(field[3], 16)
        start = 4 + 2 * words
        pointers = field[start + 1 : start + 1 + 4 * int(field[start])]
        parents = [pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] in _ABOVE]
        yield field[0], field[4].replace("_", " ").lower(), parents


def _index(text: str) -> Iterator[tuple[str, list[str]]]:
    """(word, offsets of its senses, commonest first) of each line of an index file."""
    for line in _lines(text):
        field = line.split()
        yield field[0], field[-int(field[2]) :]
