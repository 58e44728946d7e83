"""The query language: keys with values, joined by and, or, not and parentheses.

text:"European capitals" token:/^ ?(Paris|Rome)$/ promotes:" France" density:1e-5..1e-2 sort:score
(like:17 or with:17) not token:/^\\d/
"""

from dataclasses import dataclass

from interp.grammar import And, Keys, Node, Not, Or, Term, read, terms
from interp.predicates.keys import CLAIM
from interp.types import InterpError

__all__ = ["KEYS", "And", "Node", "Not", "Or", "Query", "Term", "parse", "span", "yes"]

KEYS = {
    "text": 'label, note or automatic description means this; quoted, has these words: text:"European capitals"',
    "token": "fires on tokens that match /regex/ (/regex/i: in either case) or contain the text, with precision, recall "
    "and F1; where it is above its clean level, token@all: wherever it is active",
    "context": "fires where the text within 16 tokens matches /regex/ or contains the text, with the same",
    "at": "fires where all of this holds at one position: at:(token:/ing$/ not language:fr); `interp keys --at` lists the keys "
    "that stand in it",
    "fires": 'is active on this text, by maximum; fires@mean:"text" by mean, fires@3:"text" at token 3, @-1 at the last; '
    "above its clean level, fires@all: or fires@mean,all: however weakly",
    "only": 'is active on more tokens of this text than its density explains: only:"text"; above its clean level, '
    "only@all: however weakly",
    "promotes": 'raises the logit of this token: promotes:" France", or of tokens that match /regex/; by the lens that was '
    "judged best, else by the logit lens",
    "suppresses": "lowers the logit of this token, by the same",
    "later": "makes this token likelier at the positions that follow, by the lens that was judged best (`interp lenses`)",
    "like": "decoder row near this feature's: like:17",
    "with": "fires together with this feature: with:17",
    "neuron": "nearest to what this MLP neuron writes: neuron:LAYER.NUMBER",
    "contrast": "separates two sets of texts: contrast:A,B with A and B files, corpora, or FILE#column=value",
    "topic": "concentrated in documents with this topic; topic:source=code-python asks another column",
    "density": "share of tokens it fires on: low..high",
    "max": "largest activation: low..high",
    "status": "label status",
    "author": "label author",
    "tag": "has this tag, in either case",
    "starred": "has a star: yes or no",
    "dead": "never fires in the index: yes or no",
    "labelled": "has a label: yes or no",
    "confirmed": "its label is confirmed on text that it was not made from: yes or no; this and the next five need "
    "`interp evidence`",
    "verdict": 'what became of its label there: confirmed, refuted, undecided, "too few" …',
    "scope": "its label holds in this language (scope:en), form (scope:prose) or source of text",
    "effect": "ablated, it changes the next token by this KL in nats: low..high",
    "exceeds": "it causes more than its controls: yes or no",
    "replicates": "other trainings have found it again, so many or more: replicates:2",
    "map": "stands on the map inside this outline, as a lasso draws it: map:X,Y;X,Y;X,Y in thousandths across and upwards",
    "sort": "order: score, feature, density, max, label or effect",
}
REGEX_KEYS = ("token", "context", "promotes", "suppresses", "later", "topic")
OPTION_KEYS = ("fires", "only", "token")
SORTS = ("score", "feature", "density", "max", "label", "effect")
QUERY = Keys(
    what="query",
    help=KEYS,
    regex=REGEX_KEYS,
    options=OPTION_KEYS,
    plain="text",
    settings={"sort": SORTS},
    groups={"at": CLAIM},
)


@dataclass(frozen=True)
class Query:
    """A condition and the order of the answers; `str` writes it so that `parse` reads it back."""

    root: Node
    sort: str = "score"

    def __str__(self) -> str:
        return f"{self.root}" + ("" if self.sort == "score" else f" sort:{self.sort}").replace("  ", " ")

    @property
    def terms(self) -> tuple[Term, ...]:
        """All conditions, from left to right."""
        return tuple(terms(self.root))


def parse(text: str) -> Query:
    """The query that a text means; InterpError points at the place of a mistake and names the keys."""
    root, settings = read(text, QUERY)
    return Query(root, settings.get("sort", "score"))


def span(term: Term) -> tuple[float, float]:
    """The bounds in `low..high`, either of which may be left out; a single number, or `>low`, is a lower bound, `<high` an upper.

    Raises InterpError when it is no range.
    """
    written = f"..{term.value[1:]}" if term.value.startswith("<") else term.value.removeprefix(">")
    low, dots, high = written.partition("..")
    try:
        bounds = float(low) if low else 0.0, float(high) if dots and high else float("inf")
    except ValueError:
        raise InterpError(
            f"{term.key}:{term.value} is no range (at character {term.at}); write {term.key}:1e-5..1e-2, either end may "
            "be left out."
        ) from None
    if not bounds[0] <= bounds[1]:
        raise InterpError(
            f"{term.key}:{term.value} is empty (at character {term.at}): its low end is above its high end."
        )
    return bounds


def yes(term: Term) -> bool:
    """Whether a condition of yes or no says yes; InterpError when it says neither."""
    if term.value.lower() not in ("yes", "no", "true", "false"):
        raise InterpError(f"{term.key}:{term.value} is neither yes nor no (at character {term.at}).")
    return term.value.lower() in ("yes", "true")
