"""Words of one family by how they are written: argue, argues, argued, argument.

No dictionary is asked, so that it works in any language that adds its endings behind: two words are of a family when they begin alike
for most of the shorter one and go on in nothing but an ending.
"""

from collections.abc import Iterable

_ENDINGS = """
s es ed d ing er ers or ors ly ily al ally ality iness iest ier ation ations ion ions ment ments ness ity ities ful less able ible ive
y ies ied e ent ence ant ance ic ical ist ists ism ous en ens
a o as os es ar er ir ando iendo ado ada ados adas ido ida mente ción ciones dad
é ée és ées ait ent eur euse eux ement tion tions ique iques iste istes aux aient ant ants
"""
ENDINGS = frozenset(_ENDINGS.split())
"""Of English, Spanish and French."""
STEM = 4
"""Letters that a stem has at least; one fewer where it is a word of its own."""
LOST = 2
"""Letters that a stem may lose before an ending: happy, happiness."""


def same_family(one: str, other: str) -> bool:
    """Whether two words, in small letters, are of one family."""
    if one == other:
        return True
    shared = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        shared += 1
    whole = shared == min(len(one), len(other))
    for stem in range(shared, max(shared - LOST, STEM - 1 - whole) - 1, -1):
        rests = one[stem:], other[stem:]
        if all(not rest or (rest in ENDINGS and (stem >= STEM or len(rest) > 1 or rest == "s")) for rest in rests):
            return True
    return False


def families(words: Iterable[str]) -> list[list[str]]:
    """The words parted into families, each with its words in the order given, families by their first."""
    found: list[list[str]] = []
    for word in dict.fromkeys(words):
        own = next((family for family in found if any(same_family(word, known) for known in family)), None)
        if own is None:
            found.append([word])
        else:
            own.append(word)
    return found


def base(family: list[str]) -> str:
    """The shortest of a family's words, the first of several."""
    return min(family, key=len)
