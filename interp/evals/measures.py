"""Every measure that a report may have: what it is called, which version of it, and how it is made.

A new measure is a file of this room with one function that returns a `Section`, and a line in MEASURES. It is given a
`Setting` and takes from it what it needs. What cannot be measured here raises InterpError, with the remedy; the report says
that first. A null SAE is measured by the same functions: no measure knows what it measures.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from interp.corpus import TokenBlocks
from interp.evals.fidelity import evaluate
from interp.evals.figure import Section
from interp.evals.probing import probing
from interp.evals.probing_tasks import Plan
from interp.evals.sections import fidelity_section
from interp.models import Model
from interp.sae import SAE
from interp.types import unknown


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """What is measured, and on what."""

    model: Model
    sae: SAE
    blocks: TokenBlocks
    norm_cutoff: Mapping[str, float]
    """By hook point, the norm beyond which a position is a sink (`Card.mask.cutoffs`)."""
    seed: int = 0
    of: Mapping[str, Any] = field(default_factory=dict)
    """What the text is: name, version, split, licence; goes into `Section.of` as `text`."""

    def said(self) -> dict[str, Any]:
        """What belongs into `Section.of` of whatever is measured on the blocks."""
        return {"text": dict(self.of), "tokens_sha256": self.blocks.sha256(), "seed": self.seed}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One section of a report, and how it is made."""

    name: str
    """Of its section."""
    title: str
    version: int
    """To be raised whenever its figures would come out otherwise: what was kept of another version is made again."""
    make: Callable[[Setting], Section]
    """Raises InterpError when it cannot be measured here; the sentence names the remedy."""
    headline: tuple[str, ...] = ()
    """Names of the figures by which the SAE is known; those that do not separate from nulls are left out there."""
    nulls: bool = True
    """Whether null SAEs are measured by it too; not where it needs more of an SAE than its weights (an index, labels)."""
    text: bool = True
    """Whether it reads the report's own text; one that brings its own does not change with it."""
    on: str = ""
    """What else its figures depend on (a hash of the index, say)."""
    default: bool = True
    """Whether it is made when no section is named; what takes many minutes is asked for."""


def _fidelity(setting: Setting) -> Section:
    began = time.perf_counter()
    found = evaluate(setting.model, setting.sae, setting.blocks, norm_cutoff=setting.norm_cutoff)
    return fidelity_section(found, setting.said(), time.perf_counter() - began)


def _probing(setting: Setting) -> Section:
    plan = Plan(seed=setting.seed)
    return probing(setting.model, setting.sae, norm_cutoff=setting.norm_cutoff, plan=plan)


MEASURES: tuple[Measure, ...] = (
    Measure(
        name="fidelity",
        title="Fidelity",
        version=1,
        make=_fidelity,
        headline=("fvu", "delta_ce", "recovered_mean", "dead_share"),
    ),
    Measure(
        name="probing",
        title="Sparse probing",
        version=1,
        make=_probing,
        headline=("auroc_k1", "auroc_k5", "less_neurons_k1", "less_dense_k16"),
        text=False,
        default=False,  # five minutes for the first SAE of a model, one for each after it
    ),
)
"""In the order in which a report has them."""


def find_measures(
    names: tuple[str, ...], among: tuple[Measure, ...] = MEASURES, *, everything: bool = False
) -> tuple[Measure, ...]:
    """The measures of these names, in the order of `among`; without names, those that are made by default,
    or `everything`.

    Raises InterpError for a name that no measure has.
    """
    known = [measure.name for measure in among]
    for name in names:
        if name not in known:
            raise unknown("section of a report", name, known)
    return tuple(measure for measure in among if (measure.name in names if names else everything or measure.default))
