"""The card's metrics made anew on a text (`interp verify --metrics`)."""

from collections.abc import Iterator
from typing import Any

from interp.checkpoint import Card
from interp.corpus import Corpus, TokenBlocks, tokenize
from interp.evals import evaluate
from interp.models import Model
from interp.sae import SAE
from interp.verification.verdict import Check, differs, holds, unchecked

TOKENS = 50_000
"""Measured on where the card does not say how many it was, or on another text."""
JUDGED = ("fvu", "l0", "ce", "ce_sae", "ce_zero", "ce_mean", "delta_ce")
SAME_TEXT = 0.02
"""Of a figure, on the very tokens of the card: what dtype and processor make."""
SAME_CORPUS = 0.1
"""Of a figure without an interval, on other tokens of the card's corpus."""
OTHER = 2.0
"""Factor by which FVU and L0 may differ on another text."""


def check_metrics(card: Card, sae: SAE, model: Model, corpus: Corpus, tokens: int | None = None) -> list[Check]:
    """Each of the card's sets of figures against this text's: strictly on its own tokens, by overlap of intervals on
    others of its corpus, and by a factor on another text.

    Raises InterpError when the model alone does not give what the SAE reads, or the text has no held-out documents.
    """
    sets = {key: value for key, value in card.metrics.items() if isinstance(value, dict)}
    sets |= {"": card.metrics} if any(isinstance(card.metrics.get(key), int | float) for key in JUDGED) else {}
    checks: list[Check] = []
    for key, said in sets.items():
        if not any(isinstance(said.get(name), int | float) for name in JUDGED):
            continue
        checks += _of_set(f"metrics {key}".strip(), said, card, sae, model, corpus, tokens)
    return checks or [unchecked("metrics", "the card claims none that can be made anew")]


def _of_set(
    what: str, said: dict[str, Any], card: Card, sae: SAE, model: Model, corpus: Corpus, tokens: int | None
) -> list[Check]:
    text: Any = said.get("text")
    about = text if isinstance(text, dict) else {}
    blocks = _blocks(said, about, model, corpus, tokens)
    now = evaluate(model, sae, blocks, norm_cutoff=card.mask.cutoffs).to_dict()
    same = said.get("tokens_sha256") == blocks.sha256()
    near = same or not about or about.get("name") == corpus.name
    where = (
        "the card's own tokens"
        if same
        else corpus.name
        if near
        else f"{corpus.name} (the card's are of {about.get('name')})"
    )
    where = f"{blocks.positions:,} tokens of {where}"
    judge = _strictly if same else _by_intervals if near else _by_factor
    wrong = list(judge(said, now))
    told = ", ".join(
        f"{name} {now[name]:.4g} (card {said[name]:.4g})" for name in JUDGED if _number(said, name) is not None
    )
    if wrong:
        return [differs(what, f"{', '.join(wrong)} of the card do not come out on {where}: {told}")]
    return [holds(what, f"on {where}: {told}")]


def _blocks(
    said: dict[str, Any], about: dict[str, Any], model: Model, corpus: Corpus, tokens: int | None
) -> TokenBlocks:
    """As many blocks as the card measured, of the split that it names; the whole text where it has no such split."""
    count, own = said.get("blocks"), about.get("name") in (None, corpus.name)
    wanted = tokens or (int(count) * 256 if own and isinstance(count, int) and count > 0 else TOKENS)
    split = about.get("split", "heldout")
    return tokenize(corpus, model, wanted, split=split if isinstance(split, str) else None)


def _number(of: dict[str, Any], name: str) -> float | None:
    value = of.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _pairs(said: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, float, float]]:
    for name in JUDGED:
        value, made = _number(said, name), _number(now, name)
        if value is not None and made is not None:
            yield name, value, made


def _strictly(said: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for name, value, made in _pairs(said, now):
        slack = max(SAME_TEXT * abs(made), 0.005) if name != "fvu" else SAME_TEXT * abs(made) + 1e-4
        if not abs(value - made) <= slack:
            yield name


def _by_intervals(said: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for name, value, made in _pairs(said, now):
        low, high = _interval(said, name, value)
        bottom, top = _interval(now, name, made)
        half = (high - low + top - bottom) / 2
        slack = half if half > 0 else SAME_CORPUS * abs(made)
        if not abs(value - made) <= max(slack, SAME_TEXT * abs(made)):
            yield name


def _by_factor(said: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for name, value, made in _pairs(said, now):
        if name in ("fvu", "l0") and not made / OTHER <= value <= made * OTHER:
            yield name


def _interval(of: dict[str, Any], name: str, value: float) -> tuple[float, float]:
    interval = of.get(f"{name}_interval")
    if isinstance(interval, list | tuple) and len(interval) == 2 and all(isinstance(x, int | float) for x in interval):
        return float(interval[0]), float(interval[1])
    return value, value
