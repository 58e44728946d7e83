"""Every measure that a report may have: what it is called, which version of it, and how it is made.

A new measure is a file of this room with one function that returns a `Section`, and a line in MEASURES. It is given a
`Setting` and takes from it what it needs. What cannot be measured here raises InterpError, with the remedy; the report says
that first. A null SAE is measured by the same functions; passes whose figures are not fair of it (`nulls.FAIR`) are left out.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from interp.corpus import TokenBlocks
from interp.evals.baseline import Baseline, Losses, Reconstructed, read_baseline, reconstruct
from interp.evals.bias import measure_bias
from interp.evals.dark_matter import measure_dark_matter
from interp.evals.fidelity import fidelity_losses, measure_fidelity, measure_reconstruction
from interp.evals.figure import Figure, Section
from interp.evals.geometry import measure_geometry
from interp.evals.nulls import Null, fair_for
from interp.evals.probing import probing
from interp.evals.probing_tasks import Plan
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
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """How the SAE was trained, as its card says (`Card.recipe`); empty where nobody knows."""
    ev_said: float | None = None
    """What the SAE's card says of EV: far less is no SAE of this model and hook point."""
    baselines: list[Baseline] = field(default_factory=list, repr=False)
    """What was read of the model; `replace(setting, sae=…)` goes on with it, so that nulls repeat no untouched pass."""
    rows: list[Reconstructed] = field(default_factory=list, repr=False)
    """What the SAE makes of it: encoded once for all measures."""
    null: Null | None = None
    """Which null the SAE is."""
    together: tuple[SAE, ...] = ()
    """SAEs of one baseline that are measured one after another: what each puts in place is run beside one untouched pass."""
    losses: dict[int, Mapping[str, Losses]] = field(default_factory=dict, repr=False)
    """Of those of them that are still to come, by their `id`."""

    @property
    def baseline(self) -> Baseline:
        """The activations at the SAE's hook points; read once for all SAEs of the same ones. Raises InterpError as `read_baseline` does."""
        hooks = (self.sae.reads, self.sae.writes)
        for base in self.baselines:
            same = base.model is self.model and base.blocks is self.blocks and base.cutoffs == self.norm_cutoff
            if same and (base.reads, base.writes) == hooks:
                return base
        base = read_baseline(self.model, self.sae, self.blocks, norm_cutoff=self.norm_cutoff)
        self.baselines.append(base)
        return base

    @property
    def reconstructed(self) -> Reconstructed:
        """What the SAE makes of the baseline's rows; made once. Raises InterpError as `reconstruct` does."""
        if not self.rows or self.rows[0].sae is not self.sae:
            self.rows[:] = [reconstruct(self.baseline, self.sae)]
        return self.rows[0]

    def in_place(self) -> Mapping[str, Losses]:
        """The SAE's losses, taken out; those of the SAEs that come after it are measured with them."""
        if id(self.sae) not in self.losses:
            own = next((n for n, each in enumerate(self.together) if each is self.sae), None)
            later = () if own is None else self.together[own + 1 :]
            made = [self.reconstructed, *(reconstruct(self.baseline, each) for each in later)]
            found = fidelity_losses(self.baseline, made, seed=self.seed)
            self.losses.update({id(each): losses for each, losses in zip((self.sae, *later), found, strict=True)})
        return self.losses.pop(id(self.sae))

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


WITHOUT_LOSS = "{model} predicts no next token, so there is neither loss nor KL"
"""What is said of a model that reads both ways, pictures, sound or numbers."""


def _fidelity(setting: Setting) -> Section:
    base, rows, said = setting.baseline, setting.reconstructed, setting.ev_said
    if not setting.model.causal:  # no token is the next one, so there is no loss
        made = _about(setting, measure_reconstruction(base, rows, ev_said=said))
        note = WITHOUT_LOSS.format(model=setting.model.name)
        loss = Figure(name="delta_ce", says="what it adds to the loss", value=None, n=0, unit="tokens", note=note)
        return replace(made, figures=(*made.figures, loss))
    if setting.null is not None and setting.null not in fair_for("fidelity", "kl").nulls:
        return _about(setting, measure_reconstruction(base, rows, ev_said=said))
    began = time.perf_counter()
    losses = setting.in_place()
    made = measure_fidelity(base, rows, seed=setting.seed, ev_said=said, losses=losses)
    return replace(_about(setting, made), seconds=time.perf_counter() - began)


def _about(setting: Setting, section: Section) -> Section:
    """The section with what its text is."""
    return replace(section, of={**section.of, **setting.said()})


def _probing(setting: Setting) -> Section:
    plan = Plan(seed=setting.seed)
    return probing(setting.model, setting.sae, norm_cutoff=setting.norm_cutoff, plan=plan)


MEASURES: tuple[Measure, ...] = (
    Measure(
        name="fidelity",
        title="Fidelity",
        version=2,
        make=_fidelity,
        headline=("fvu", "delta_ce", "recovered_mean", "dead_share", "kl_ratio"),
    ),
    Measure(
        name="bias",
        title="Shrinkage and bias",
        version=1,
        make=lambda setting: _about(setting, measure_bias(setting.baseline, setting.reconstructed)),
        headline=("shrinkage",),
    ),
    Measure(
        name="dark_matter",
        title="Dark matter: the error's linear part",
        version=1,
        make=lambda setting: _about(
            setting, measure_dark_matter(setting.baseline, setting.reconstructed, seed=setting.seed)
        ),
        headline=("error_r2", "nonlinear"),
    ),
    Measure(
        name="geometry",
        title="Decoder geometry",
        version=1,
        make=lambda setting: measure_geometry(setting.sae, seed=setting.seed),
        headline=("duplicates",),
        text=False,
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
