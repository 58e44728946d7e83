"""The open SAE held against SAEs that found nothing: each measured by the same functions on the same tokens."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from interp.checkpoint.files import below
from interp.corpus import Corpus, tokenize
from interp.evals.figure import Section
from interp.evals.measures import Measure, Setting
from interp.evals.nulls import (
    CODES,
    FROZEN,
    RANDOM_MODEL,
    ROWS,
    Null,
    ShuffledCodes,
    discrimination,
    fair_for,
    with_shuffled_rows,
)
from interp.evals.report import DISCRIMINATION, Of, make_report
from interp.render.terminal import say
from interp.sae import SAE
from interp.types import InterpError
from interp.workbench.opening import Opened

TRAINED = "trained"
KINDS: dict[str, Null] = {"frozen": FROZEN, "random": RANDOM_MODEL}
"""Kinds of null by the folder that their checkpoints lie in, beside that of the trained ones."""
POSITIONS = 16_384
"""Tokens that nulls, and the trained SAEs beside them, are measured on."""


def held_against(wb: Opened, folder: str, text: Corpus, about: Setting, keep: Path, by: Sequence[Measure]) -> Measure:
    """The measure whose section has a row for each figure of `by` and each null; the SAEs lie in `folder`, as the recipe of nulls
    leaves them: `trained/`, `frozen/` and `random/`, a checkpoint for each seed in each. Shuffled codes and rows are made of
    the trained ones.
    """
    measures = [one for one in by if one.nulls]

    def make(setting: Setting) -> Section:
        if not folder:
            raise InterpError(
                "not measured: it needs SAEs of the same recipe that found nothing; `python recipes/smollm2_nulls.py` trains "
                "those of the embedded one, and `interp evaluate SAE --nulls FOLDER` measures them."
            )
        return _held(wb, Path(folder), text, about, keep, measures)

    return Measure(
        name=DISCRIMINATION, title="What tells a trained SAE from one that found nothing", version=1, make=make,
        nulls=False, default=bool(folder),
    )  # fmt: skip


def _held(wb: Opened, folder: Path, text: Corpus, about: Setting, keep: Path, measures: Sequence[Measure]) -> Section:
    trained = [_open(wb, path) for path in below(folder / TRAINED)]
    others = {null: [_open(wb, path) for path in below(folder / kind)] for kind, null in KINDS.items()}
    if not trained or not any(others.values()):
        raise InterpError(
            f"{folder} has no checkpoints in {TRAINED}/ and in one of {', '.join(f'{kind}/' for kind in KINDS)}; it is to hold "
            "SAEs of one recipe, a folder for each seed."
        )

    # Blocks of one model are one object, so that its untouched and ablated passes are run once for all SAEs of it.
    settings: dict[str, Setting] = {}
    for each in (*trained, *(one for some in others.values() for one in some)):
        weights = each.card.model_sha256
        if weights not in settings:
            model = wb.model if weights == wb.card.model_sha256 else each.model
            blocks = tokenize(text, model, min(POSITIONS, about.blocks.positions), split="heldout")
            settings[weights] = replace(about, model=model, blocks=blocks, baselines=[])
        each.sae.to(settings[weights].model.device)  # before its codes are shuffled

    def sections(null: Null | None, some: Sequence[tuple[Opened, SAE, str]]) -> Sequence[Sequence[Section]]:
        fair = [one for one in measures if null is None or null in fair_for(one.name, "").nulls]
        made = []
        for of, sae, what in some:
            one = settings[of.card.model_sha256]
            same = tuple(other for beside, other, _ in some if beside.card.mask.cutoffs == of.card.mask.cutoffs)
            made.append(_measured(of, sae, what, replace(one, null=null, together=same), keep, fair))
        return made

    own = sections(None, [(each, each.sae, "") for each in trained])
    nulls: dict[Null, Sequence[Sequence[Section]]] = {
        null: sections(null, [(each, each.sae, "") for each in some]) for null, some in others.items() if some
    }
    of_seeds = list(enumerate(trained))
    nulls[CODES] = sections(CODES, [(each, ShuffledCodes(each.sae, n), f"codes {n}") for n, each in of_seeds])
    nulls[ROWS] = sections(ROWS, [(each, with_shuffled_rows(each.sae, n), f"rows {n}") for n, each in of_seeds])
    return discrimination(own, nulls)


def _open(wb: Opened, path: Path) -> Opened:
    """A checkpoint; InterpError when it is not of the open SAE's hook point and width."""
    other = Opened.open(path)
    if (other.card.hook_name, other.sae.d_sae) != (wb.card.hook_name, wb.sae.d_sae):
        raise InterpError(
            f"{path} has {other.sae.d_sae:,} features of {other.card.hook_name}, and {wb.card.name} {wb.sae.d_sae:,} of "
            f"{wb.card.hook_name}; a null is to be like it in everything but what was learnt."
        )
    return other


def _measured(
    of: Opened, sae: SAE, what: str, about: Setting, keep: Path, measures: Sequence[Measure]
) -> Sequence[Section]:
    """The sections of these measures, kept like those of a report."""
    blocks = about.blocks
    setting = replace(about, sae=sae, norm_cutoff=of.card.mask.cutoffs, recipe=of.card.recipe, rows=[])
    name = f"{of.card.name} {what}".strip()
    own = hashlib.sha256(f"{of.card.sae_sha256} {what}".encode()).hexdigest()
    known = Of(
        name=name, model=of.card.model, model_sha256=of.card.model_sha256, sae_sha256=own, hook_name=of.card.hook_name,
        d_sae=sae.d_sae, text=about.of, tokens_sha256=blocks.sha256(), positions=blocks.positions, documents=0, seed=about.seed,
    )  # fmt: skip
    say(f"beside it: {name}")
    return make_report(known, setting, measures, keep, named=False, versions={}, among=measures).sections
