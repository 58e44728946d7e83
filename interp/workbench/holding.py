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
    paths = {kind: below(folder / kind) for kind in (TRAINED, *KINDS)}
    if not paths[TRAINED] or not any(paths[kind] for kind in KINDS):
        raise InterpError(
            f"{folder} has no checkpoints in {TRAINED}/ and in one of {', '.join(f'{kind}/' for kind in KINDS)}; it is to hold "
            "SAEs of one recipe, a folder for each seed."
        )
    nulls: dict[Null, Sequence[Sequence[Section]]] = {}
    beside = _Beside(wb, text, about, keep, measures)
    # One kind is open at a time, those of other models before a pass of the open one's is kept.
    for kind, null in sorted(KINDS.items(), key=lambda one: one[1] != RANDOM_MODEL):
        if some := beside.opened(paths[kind]):
            nulls[null] = beside.sections(null, [(each, each.sae, "") for each in some])
        some = []
        beside.let_go()
    trained = beside.opened(paths[TRAINED])
    own = beside.sections(None, [(each, each.sae, "") for each in trained])
    of_seeds = list(enumerate(trained))
    nulls[CODES] = beside.sections(CODES, [(each, ShuffledCodes(each.sae, n), f"codes {n}") for n, each in of_seeds])
    nulls[ROWS] = beside.sections(ROWS, [(each, with_shuffled_rows(each.sae, n), f"rows {n}") for n, each in of_seeds])
    return discrimination(own, {null: nulls[null] for null in (*KINDS.values(), CODES, ROWS) if null in nulls})


class _Beside:
    """Measures SAEs beside the open one, on the same text."""

    def __init__(self, wb: Opened, text: Corpus, about: Setting, keep: Path, measures: Sequence[Measure]) -> None:
        self.wb, self.text, self.about, self.keep, self.measures = wb, text, about, keep, measures
        self.settings: dict[str, Setting] = {}
        """By a model's weights: blocks of one model are one object, so that its untouched and ablated passes are run once for all
        SAEs of it."""

    def opened(self, paths: Sequence[Path]) -> list[Opened]:
        """The checkpoints, of which the model is set up as well."""
        some = [_open(self.wb, path) for path in paths]
        for each in some:
            weights = each.card.model_sha256
            if weights not in self.settings:
                model = self.wb.model if weights == self.wb.card.model_sha256 else each.model
                positions = min(POSITIONS, self.about.blocks.positions)
                blocks = tokenize(self.text, model, positions, split="heldout")
                self.settings[weights] = replace(self.about, model=model, blocks=blocks, baselines=[])
            each.sae.to(self.settings[weights].model.device)  # before its codes are shuffled
        return some

    def let_go(self) -> None:
        """Forget other models than the open SAE's."""
        own = self.wb.card.model_sha256
        self.settings = {weights: setting for weights, setting in self.settings.items() if weights == own}

    def sections(self, null: Null | None, some: Sequence[tuple[Opened, SAE, str]]) -> Sequence[Sequence[Section]]:
        """Of each (checkpoint, the SAE made of it, what was done to it), what is fair of such a null."""
        fair = [one for one in self.measures if null is None or null in fair_for(one.name, "").nulls]
        made = []
        for of, sae, what in some:
            same = tuple(other for beside, other, _ in some if beside.card.mask.cutoffs == of.card.mask.cutoffs)
            setting = replace(self.settings[of.card.model_sha256], null=null, together=same)
            made.append(_measured(of, sae, what, setting, self.keep, fair))
        return made


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
