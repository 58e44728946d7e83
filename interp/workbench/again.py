"""A figure of one feature measured again, now and on this machine, and laid beside what was recorded.

Each figure has a question, the command that makes it for all features, and a function here that makes it for one: from weights, model
and index as they are open. A figure that would take minutes (or needs what is not here) has the command only.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from interp import places
from interp.evidence import EffectsConfig, Passages, choose_positions, measure_effects
from interp.evidence.trials import EditsConfig
from interp.labels.testing import Ground
from interp.predicates import read_claim
from interp.sae.dictionary import one_read, one_written
from interp.types import InterpError, unknown
from interp.verification.measure import activations
from interp.views import FeaturePage
from interp.workbench.evidencing import exact
from interp.workbench.falsifying import edit_tests
from interp.workbench.finding import feature as show_feature
from interp.workbench.finding import unembedding_rows
from interp.workbench.inspecting import edits_of, headline_of, level_of
from interp.workbench.opening import Opened

BLOCKS = 8
"""Blocks of the index's text that are read again."""
HALF = 2.0**-10
"""A relative error that float16 makes."""
NEAR = 0.02
"""A relative difference that another processor or dtype makes."""


@dataclass(frozen=True)
class Compared:
    """One number, as it was recorded and as it is now."""

    what: str
    recorded: float | None
    now: float | None


@dataclass(frozen=True, kw_only=True)
class Again:
    """What measuring a figure again gave."""

    figure: str
    feature: int
    rows: Sequence[Compared]
    agrees: bool | None
    """Whether what was recorded came out; None where nothing was recorded, or something else was measured."""
    sentence: str
    took: float
    """Seconds."""


Measured = tuple[list[Compared], bool | None, str]


def run_again(wb: Opened, feature: int, figure: str) -> Again:
    """Measure one figure (a name in FIGURES) of a feature again.

    Raises InterpError for an unknown figure, and when what it needs is not here.
    """
    if figure not in FIGURES:
        raise unknown("figure", figure, FIGURES)
    began = time.perf_counter()
    rows, agrees, sentence = FIGURES[figure](wb, show_feature(wb, feature, looks=False))
    return Again(
        figure=figure,
        feature=feature,
        rows=rows,
        agrees=agrees,
        sentence=sentence,
        took=time.perf_counter() - began,
    )


def _firing(wb: Opened, page: FeaturePage) -> Measured:
    """The activations at the peaks of examples, by a pass over the blocks that they lie in."""
    index = wb.index
    there = [e for e in page.examples if not e.unread]
    if not there:
        raise InterpError(f"no example of feature {page.feature} has its text on this machine.")
    blocks = list(dict.fromkeys(e.position // index.block for e in there))[:BLOCKS]
    some = [e for e in there if e.position // index.block in blocks]
    hook = one_read(wb.sae, "reading again").name
    tokens_BT = torch.from_numpy(index.tokens.reshape(-1, index.block)[blocks].astype(np.int64))
    x_BTD = activations(wb.model, [hook], tokens_BT)[hook]
    at = [(blocks.index(e.position // index.block), e.position % index.block) for e in some]
    x_ND = torch.stack([x_BTD[b, t] for b, t in at]).to(wb.sae.W_enc.device)
    with torch.inference_mode():
        active = wb.sae.active(x_ND)
    own = active.features == page.feature
    now_N = np.zeros(len(some))
    now_N[active.rows[own].cpu().numpy()] = active.values[own].cpu().numpy()
    rows = [
        Compared(f"activation at position {e.position:,}", e.value, float(now))
        for e, now in zip(some, now_N, strict=True)
    ]
    far = max(abs(now - e.value) / e.value for e, now in zip(some, now_N, strict=True))
    count = len(some)
    return (
        rows[:4],
        bool(far <= NEAR),
        f"{count} examples in {len(blocks)} blocks of text read again: at most {far:.2%} apart",
    )


def _promotes(wb: Opened, page: FeaturePage) -> Measured:
    """The logits of the tokens that the index lists, from decoder row and unembedding."""
    if not page.promoted:
        raise InterpError(f"nothing is recorded of what feature {page.feature} promotes.")
    row = wb.index.row(page.feature)
    ids = [int(t) for side in ("promoted", "suppressed") for t in row[side]]
    then = [float(x) for side in ("promoted_logits", "suppressed_logits") for x in row[side]]
    own_D = wb.sae.W_dec[page.feature].float().cpu()
    now = (unembedding_rows(wb, wb.index, ids) @ own_D).tolist()
    rows = [
        Compared(f"logit of ‘{wb.index.vocabulary[t]}’", a, b) for t, a, b in list(zip(ids, then, now, strict=True))[:4]
    ]
    far = max(abs(a - b) for a, b in zip(then, now, strict=True))
    return rows, far <= NEAR * max(map(abs, then)), f"{len(ids)} logits by the logit lens: at most {far:.2g} apart"


def _near(wb: Opened, page: FeaturePage) -> Measured:
    """Cosines of decoder rows."""
    with torch.inference_mode():
        unit_FD = torch.nn.functional.normalize(wb.sae.W_dec.float(), dim=1)
        cosine_F = unit_FD @ unit_FD[page.feature]
        cosine_F[page.feature] = -torch.inf
        best, order = cosine_F.topk(min(len(page.nearest), len(cosine_F)))
    rows = [Compared(f"cosine with {f}", c, float(cosine_F[f])) for f, c in page.nearest]
    far = max((abs(each.recorded - each.now) for each in rows if each.recorded and each.now), default=0.0)
    listed = {f for f, _ in page.nearest}
    floor = min((c for _, c in page.nearest), default=0.0)
    missed = [
        int(f) for f, c in zip(order.tolist(), best.tolist(), strict=True) if f not in listed and c > floor + 2 * HALF
    ]
    said = f"the cosines of {len(rows)} decoder rows: at most {far:.2g} apart, and {'none' if not missed else len(missed)} nearer is missing"
    return rows[:4], far <= 2 * HALF and not missed, said


def _label(wb: Opened, page: FeaturePage) -> Measured:
    """F1, precision and recall of the label's claim, by counting on the testing documents."""
    said, index = headline_of(page), wb.index
    if not said.claim:
        raise InterpError(f"the label of feature {page.feature} claims nothing that can be tried.")
    if index.partial:
        raise InterpError(
            f"the index in {index.folder} keeps examples only, which have no silent positions to try a label on; "
            f"`interp index {wb.folder}` builds the full one."
        )
    text = index.passages.read_by(wb.meanings) if "about:" in said.claim else index.passages
    ground = Ground(text)
    holds = ground.holds(read_claim(said.claim))
    place, _ = ground.places(*index.fired(page.feature), level_of(wb, page.feature, said))
    both, fires, held = int(holds[place].sum()), len(place), int(holds.sum())
    precision, recall = both / max(fires, 1), both / max(held, 1)
    f1 = 2 * both / max(fires + held, 1)
    rows = [
        Compared("F1", said.f1[0] if said.f1 else None, f1),
        Compared("precision", said.precision, precision),
        Compared("recall", said.recall, recall),
        Compared("firings above the level", float(said.fires) if said.f1 else None, float(fires)),
    ]
    known = [(each.recorded, each.now) for each in rows if each.recorded is not None and each.now is not None]
    agrees = all(abs(a - b) <= NEAR * max(a, 1e-6) for a, b in known) if known else None
    return (
        rows,
        agrees,
        f"counted on {len(ground.position_P):,} positions of {ground.documents:,} documents that labels are tried on",
    )


def _effect(wb: Opened, page: FeaturePage) -> Measured:
    """KL of ablating the feature and of its controls, at positions chosen from the index that is open."""
    index = wb.index
    chosen = choose_positions(index, [page.feature])
    if not len(chosen.position_M):
        raise InterpError(f"feature {page.feature} fires nowhere in this index that it could be tried.")
    one_written(wb.sae, "an effect")
    folder = places.cache() / "again" / wb.card.sae_sha256 / str(page.feature)
    config = EffectsConfig(restart=True)
    row = measure_effects(exact(wb), wb.sae, Passages.of(index), chosen, folder, config).to_pylist()[0]
    before = page.evidence.effect if page.evidence is not None else None
    names = {"kl": "KL, nats", "control_kl": "KL of the same amount along other features", "loss": "change of the loss"}
    rows = [Compared(words, getattr(before, name, None), row[name]) for name, words in names.items()]
    on = f"{len(chosen.position_M)} positions of the index that is open"
    agrees = None
    if before is not None and before.kl_low is not None and before.kl_high is not None and not index.partial:
        agrees = before.kl_low <= row["kl"] <= before.kl_high
    if index.partial:
        return (
            rows,
            None,
            f"ablated at {on}, which keeps examples only: stronger firings than the recorded figure is of",
        )
    return rows, agrees, f"ablated again at {on}; it agrees where the new KL lies in the recorded interval"


def _edits(wb: Opened, page: FeaturePage) -> Measured:
    """The label tried by editing texts."""
    before = edits_of(wb, page)
    tested = edit_tests(wb, [page.feature], config=EditsConfig(restart=True)).tests
    now = tested.get(page.feature)
    if now is None:
        raise InterpError(f"the label of feature {page.feature} claims nothing that can be tried by editing.")
    rows = [
        Compared("edits tried", float(before.tried) if before else None, float(now.tried)),
        Compared("edits that fail", float(before.failed) if before else None, float(now.failed)),
    ]
    said = " ".join(each.text for each in now.said())
    return rows, (before.tried, before.failed) == (now.tried, now.failed) if before else None, said


FIGURES: dict[str, Callable[[Opened, FeaturePage], Measured]] = {
    "firing": _firing,
    "promotes": _promotes,
    "near": _near,
    "label": _label,
    "edits": _edits,
    "effect": _effect,
}
"""What can be measured again on a feature's page, in seconds."""
