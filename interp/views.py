"""What a person is shown: a feature's page, a neuron's beside its features, a text's spectrum; notebooks draw them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd

from interp.evidence.card import Evidence, said_html
from interp.evidence.part import Said
from interp.index import Example, FeatureIndex, parse_neuron
from interp.index.levels import CleanLevel, clean_level
from interp.labels import Label
from interp.lenses.lens import LOGIT, NEXT
from interp.lenses.measure import SPANS
from interp.lenses.said import SEEN, SIDES, UNJUDGED
from interp.render import table_html, title_html, visible
from interp.render.look import NO_PLACE, Look, Picture, Sound, Unseen, look_over, shown_html
from interp.render.words import counted
from interp.types import InterpError


@dataclass(frozen=True)
class Coactive:
    """A feature that fires together with another."""

    feature: int
    count: int
    """Tokens on which it fires too."""
    of: int
    """Tokens of the other that were looked at."""
    lift: float
    """Share of them over its density."""


@dataclass(frozen=True, kw_only=True)
class Says:
    """What a feature is disposed to say in one span, by one lens; tokens that the index's text has fewer than SEEN times
    are left out."""

    span: str
    """`next`: at the same position; `later`: at the 16 tokens that follow."""
    lens: str
    """`logit`, `next`, `later` or `tuned` (docs/lenses.md)."""
    how: str
    """How right this lens was found to be; of one that was not judged, that it was not."""
    raised: list[tuple[str, float]]
    """Tokens with their scores, which are up to a scale that the feature's tokens share, strongest first."""
    lowered: list[tuple[str, float]]
    raised_times: list[int]
    """How often the indexed text has each of them."""
    lowered_times: list[int]

    @property
    def heads(self) -> list[str]:
        """Over the columns of `rows`."""
        verb = "promotes" if self.span == NEXT else "promotes later"
        score = "logit" if self.lens == LOGIT else "score"
        return [verb, score, "in the text", "suppresses", score, "in the text"]

    def rows(self) -> list[tuple[str, float | None, int | None, str, float | None, int | None]]:
        """(promoted token, score, times in the text, suppressed token, score, times), strongest first; where one list is
        shorter, an empty token and None."""
        none = ("", None, None)
        up = [(visible(a), x, n) for (a, x), n in zip(self.raised, self.raised_times, strict=True)]
        down = [(visible(a), x, n) for (a, x), n in zip(self.lowered, self.lowered_times, strict=True)]
        return [(*a, *b) for a, b in zip_longest(up, down, fillvalue=none)]


@dataclass(frozen=True, kw_only=True)
class FeaturePage:
    """All that the index and the labels know of one feature."""

    feature: int
    label: Label | None
    description: str
    """Automatic and untested."""
    density: float
    """Share of the index's counted positions."""
    fires: int
    mean: float
    max: float
    quantiles: list[float]
    """Of the activations above 0: 10, 25, 50, 75, 90 and 99 %."""
    histogram: list[int]
    """Counts in 50 equal bins from 0 to `max`."""
    token_entropy: float
    """Entropy in nats of the tokens it fires on."""
    documents: int
    top_tokens: list[tuple[str, int]]
    says: list[Says]
    """A list a span, by the lens that was judged best; where none was, of the logit lens."""
    promoted: list[tuple[str, float]]
    """The ten tokens of all whose logit a unit raises most when no later layer is asked (the logit lens), as the index has them."""
    suppressed: list[tuple[str, float]]
    promoted_times: list[int]
    """How often each promoted token stands in the indexed text; a token that never does may be a mere fragment."""
    suppressed_times: list[int]
    logit_histogram: list[int]
    """Counts of tokens in 50 equal bins from the most suppressed to the most promoted."""
    nearest: list[tuple[int, float]]
    """(feature, decoder cosine)."""
    coactive: list[Coactive]
    neurons: list[tuple[int, int, float]]
    """(layer, neuron, cosine of the decoder row with what the neuron writes)."""
    band_edges: list[float]
    """Largest activation of the documents it fires in, at the edges of their fifths, from strong to weak."""
    examples: list[Example]
    clean: CleanLevel | None = None
    """None where no simple predicate explains the feature, or the index is of before there were clean levels."""
    clean_looked_for: bool = False
    """Whether the index says where features are clean at all."""
    evidence: Evidence | None = None
    """What was tested of it; None where that was not done."""
    evidence_lacks: str = ""
    """Why there is none, with what makes it."""
    kind: str = "text"
    """What was indexed: `text`, `pictures`, `sound` or `numbers`."""
    _looks: Mapping[int, Look | Unseen] = field(default_factory=dict, repr=False)
    """What examples of pictures and sound look like, by position."""

    def clean_sentence(self) -> str:
        """What is known of the clean level, in words; nothing of an index that does not say."""
        if self.clean is not None:
            return self.clean.sentence()
        if not self.clean_looked_for or not self.fires:
            return ""
        return "no clean level: no simple predicate holds at nine of ten of its strongest firings"

    def tested(self) -> list[Said]:
        """The evidence in plain words: what could not be shown first, and before that whether the label that stands here is the
        one that was tried."""
        if self.evidence is None:
            return (
                [Said(f"{self.evidence_lacks[:1].upper()}{self.evidence_lacks[1:]}", shown=False)]
                if self.evidence_lacks
                else []
            )
        own, said = self.evidence.label, self.evidence.said
        if self.label is None or own is None or not own.claim or self.label.predicate == f"at:({own.claim})":
            return said
        return [Said(f"The label that stands here was not tried; what was tried is {own.claimed}.", shown=False), *said]

    def _repr_html_(self) -> str:
        name = self.label.text if self.label else f"{self.description} (automatic, untested)"
        facts = f"density {self.density:.2e}, max {self.max:.3g}, fires in {counted(self.documents, 'document')}"
        clean = self.clean_sentence()
        logits = "".join(
            title_html(each.how) + table_html(each.heads, [_filled(row) for row in each.rows()]) for each in self.says
        )
        some = self.examples[:10]
        looks = [self._looks.get(e.position) for e in some]
        shown = [
            shown_html(e.tokens, e.values, self.max, e.peak, look, e.title) for e, look in zip(some, looks, strict=True)
        ]
        rows = [(e.value, html, e.title, e.trained_on) for e, html in zip(some, shown, strict=True)]
        unread = "".join(title_html(said) for said in dict.fromkeys(e.unread for e in self.examples) if said)
        return (
            title_html(f"feature {self.feature}: {name}")
            + title_html(facts)
            + (title_html(clean) if clean else "")
            + (said_html(self.tested()) if self.evidence is not None else "")
            + table_html(["max", "text", "document", "trained on"], rows)
            + unread
            + logits
        )


def feature_page(index: FeatureIndex, feature: int, label: Label | None) -> FeaturePage:
    """The page of a row of an index; InterpError when there is no such row."""
    row = index.row(feature)

    def pairs(column: str) -> list[tuple[str, float]]:
        return list(zip(index.text(row[column]), map(float, row[f"{column}_logits"]), strict=True))

    return FeaturePage(
        feature=int(feature),
        label=label,
        description=index.describe(int(feature)),
        density=float(row["density"]),
        fires=int(row["fires"]),
        mean=float(row["mean"]),
        max=float(row["max"]),
        quantiles=[float(q) for q in row["quantiles"]],
        histogram=[int(n) for n in row["histogram"]],
        token_entropy=float(row["token_entropy"]),
        documents=int(row["documents"]),
        top_tokens=list(zip(index.text(row["top_tokens"]), map(int, row["top_token_counts"]), strict=True)),
        says=says(index, int(feature)),
        promoted=pairs("promoted"),
        suppressed=pairs("suppressed"),
        promoted_times=index.times(row["promoted"]),
        suppressed_times=index.times(row["suppressed"]),
        logit_histogram=[int(n) for n in row["logit_histogram"]],
        nearest=[(int(f), float(c)) for f, c in zip(row["nearest"], row["nearest_cosine"], strict=True)],
        coactive=[
            Coactive(int(f), int(n), int(row["coactive_of"]), float(lift))
            for f, n, lift in zip(row["coactive"], row["coactive_count"], row["coactive_lift"], strict=True)
        ],
        neurons=[
            (int(layer), int(n), float(cosine))
            for layer, n, cosine in zip(row["neuron_layers"], row["neurons"], row["neuron_cosines"], strict=True)
        ],
        band_edges=[float(edge) for edge in row["band_edges"]],
        examples=index.examples(int(feature)),
        clean=clean_level(index, int(feature)),
        clean_looked_for=index.has_clean_levels,
        kind=index.kind,
    )


def _filled(row: Sequence[Any]) -> list[Any]:
    return ["" if cell is None else cell for cell in row]


def says(index: FeatureIndex, feature: int) -> list[Says]:
    """What the feature is disposed to say, a list a span: by the lenses that were judged best, where any were."""
    if index.said is None:
        row = index.row(feature)
        raised, lowered = (
            [(int(token), float(x)) for token, x in zip(row[side], row[f"{side}_logits"], strict=True)]
            for side in ("promoted", "suppressed")
        )
        return [_says(index, NEXT, LOGIT, UNJUDGED, raised, lowered)]
    said = index.said
    return [
        _says(
            index, span, said.winner(span), said.sentence(span), *(said.tokens(span, side, feature) for side in SIDES)
        )
        for span in SPANS
    ]


def _says(
    index: FeatureIndex,
    span: str,
    lens: str,
    how: str,
    raised: list[tuple[int, float]],
    lowered: list[tuple[int, float]],
) -> Says:
    kept = [
        [(token, x, n) for (token, x), n in zip(pairs, index.times([token for token, _ in pairs]), strict=True)]
        for pairs in (raised, lowered)
    ]
    up, down = ([each for each in of if each[2] >= SEEN] for of in kept)
    return Says(
        span=span,
        lens=lens,
        how=how,
        raised=[(index.vocabulary[token], x) for token, x, _ in up],
        lowered=[(index.vocabulary[token], x) for token, x, _ in down],
        raised_times=[n for _, _, n in up],
        lowered_times=[n for _, _, n in down],
    )


def neuron_named(name: str) -> tuple[int, int]:
    """(layer, neuron) of `LAYER.NUMBER`; InterpError for anything else."""
    neuron = parse_neuron(name)
    if neuron is None:
        raise InterpError(f"{name!r} is no neuron; write LAYER.NUMBER, such as 15.3.")
    return neuron


@dataclass(frozen=True)
class Contexts:
    """Examples of a neuron that one feature accounts for."""

    feature: int | None
    """None: no feature fires at them."""
    name: str
    examples: list[tuple[Example, float]]
    """With the feature's activation there, as a share of its own largest."""


@dataclass(frozen=True, kw_only=True)
class NeuronPage:
    """A raw neuron, which takes part in many things, beside features that each take part in one.

    Its two signs are pages of their own: where it is positive, and where it is negative (values are magnitudes).
    """

    layer: int
    neuron: int
    positive: FeaturePage
    negative: FeaturePage
    features: list[tuple[FeaturePage, float]]
    """The features nearest to what the neuron writes, with the cosine of their decoder rows, nearest first."""
    untangled: dict[int, list[tuple[int, float, str]]]
    """For each example's position in the neurons' index, the features that fire where the neuron does: (feature, share
    of its largest activation, name), the three with the largest share. Sinks and texts' first tokens have none."""

    def contexts(self, sign: str) -> "list[Contexts]":
        """A sign's examples by the feature that fires most strongly there, in shares of its own largest: those with the most
        examples first, and last those at which none fires."""
        by_feature: dict[int | None, Contexts] = {}
        for example in self.signs[sign].examples:
            first = next(iter(self.untangled.get(example.position, [])), (None, 0.0, ""))
            own = by_feature.setdefault(first[0], Contexts(first[0], first[2], []))
            own.examples.append((example, first[1]))
        return sorted(by_feature.values(), key=lambda each: (each.feature is None, -len(each.examples)))

    @property
    def signs(self) -> dict[str, FeaturePage]:
        return {"positive": self.positive, "negative": self.negative}

    def _repr_html_(self) -> str:
        rows: list[tuple[str, str, Any]] = []
        for sign, page in self.signs.items():
            rows.append((f"neuron, {sign}", page.description, page.token_entropy))
            for e in page.examples[:5]:
                here = ", ".join(f"{feature} {name}" for feature, _, name in self.untangled.get(e.position, []))
                rows.append((f"{sign}, {e.value:.2f} at {visible(e.tokens[e.peak])}", here, ""))
        rows += [(f"feature {f.feature}, cosine {c:.2f}", f.description, f.token_entropy) for f, c in self.features]
        title = title_html(f"neuron {self.layer}.{self.neuron}")
        return title + table_html(["", "automatic description, untested", "entropy of its tokens"], rows)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Feature by token activations of a text."""

    tokens: list[str]
    counted: list[bool]
    """False at sinks (the first position, separators, massive norms), where nothing is encoded."""
    rows: np.ndarray
    """Token of each entry."""
    features: np.ndarray
    values: np.ndarray
    unexplained: np.ndarray | None = None
    """Of each token's activation the share that the SAE leaves: squared error over that of its bias alone, without any feature.
    Not a number at sinks; None of a dictionary that does not write what it reads."""
    medium: Picture | Sound | None = None
    """The picture or clip that was read; None of a text."""

    def largest(self, d_sae: int) -> np.ndarray:
        """Each feature's largest activation on the text."""
        out = np.zeros(d_sae, dtype=np.float64)
        np.maximum.at(out, self.features, self.values)
        return out

    def top(self, token: int, count: int = 5) -> list[tuple[int, float]]:
        """The strongest features at a token."""
        at = self.rows == token
        order = np.argsort(-self.values[at], kind="stable")[:count]
        return [(int(f), float(v)) for f, v in zip(self.features[at][order], self.values[at][order], strict=True)]

    def strongest(self, count: int = 30) -> list[int]:
        """The features with the largest activation anywhere in the text."""
        if not len(self.features):
            return []
        peak = self.largest(int(self.features.max()) + 1)
        order = np.argsort(-peak, kind="stable")[:count]
        return [int(f) for f in order if peak[f] > 0]

    def strongest_in(self, first: int, last: int, count: int) -> list[int]:
        """The features with the largest activation on the tokens from `first` up to `last`, which is left out, in the order in
        which they first fire there."""
        at = (self.rows >= first) & (self.rows < last)
        if not at.any():
            return []
        features, values, rows = self.features[at], self.values[at], self.rows[at]
        order = np.argsort(-values, kind="stable")
        kept = list(dict.fromkeys(features[order].tolist()))[:count]
        begins = {int(f): int(rows[features == f].min()) for f in kept}
        return sorted(begins, key=lambda f: (begins[f], kept.index(f)))

    def matrix(self, features: Sequence[int]) -> np.ndarray:
        """Activations of shape (features, tokens)."""
        place = {int(f): i for i, f in enumerate(features)}
        out = np.zeros((len(features), len(self.tokens)))
        for row, feature, value in zip(self.rows, self.features, self.values, strict=True):
            if int(feature) in place:
                out[place[int(feature)], row] = value
        return out

    def to_pandas(self) -> pd.DataFrame:
        """A row an active entry: token number, token, feature, value."""
        tokens = [self.tokens[row] for row in self.rows]
        return pd.DataFrame({"position": self.rows, "token": tokens, "feature": self.features, "value": self.values})

    def _repr_html_(self) -> str:
        rows = []
        for feature in self.strongest(20):
            values = self.matrix([feature])[0].tolist()
            rows.append((feature, max(values), shown_html(self.tokens, values, max(values), None, self.look(feature))))
        return table_html(["feature", "max", self.medium.what if self.medium else "text"], rows)

    @property
    def left_out(self) -> int:
        """Tokens, patches or frames that do not count; CLS, registers and silence are none."""
        return sum(name != NO_PLACE and not known for name, known in zip(self.tokens, self.counted, strict=True))

    def look(self, feature: int) -> Look | None:
        """The picture or clip under a feature's values; None of a text."""
        return None if self.medium is None else look_over(self.medium, self.tokens, self.matrix([feature])[0].tolist())
