"""The report of one SAE: every section that was measured of it, what could not be, and what tells it from a null.

A report is built section by section. Each is kept as soon as it is there, in a file named by what it depends on (weights,
tokens, seed, version of the measure), so that a run that was killed goes on, and a section is never taken for that of
something else. `report.json` has all of them; Markdown and HTML are made of it alone (`evals.told`, `evals.page`).

Whether a figure tells the SAE from one that found nothing stands in the section `discrimination`: a row for each figure and
null, with z. A figure whose z is below SEPARATES against any of its nulls is marked, and kept out of the headline.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from interp import places
from interp.evals.figure import Figure, Section, interval, number
from interp.evals.measures import MEASURES, Measure, Setting
from interp.evals.nulls import SEPARATES
from interp.render import table_html, title_html
from interp.types import InterpError

FORMAT = 1
FILE = "report.json"
DISCRIMINATION = "discrimination"
"""The name of the section that has a row for each figure and null."""


@dataclass(frozen=True, kw_only=True)
class Of:
    """What was measured, and on what."""

    name: str
    model: str
    model_sha256: str
    sae_sha256: str
    hook_name: str
    d_sae: int
    text: Mapping[str, Any]
    """Name, version, split and licence of the text."""
    tokens_sha256: str
    positions: int
    documents: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A figure beside what it comes to in SAEs that found nothing."""

    section: str
    figure: Figure
    nulls: tuple[Mapping[str, Any], ...] = ()
    """Rows of the section `discrimination`: null, null_mean, null_sd, null_n, z, note."""

    @property
    def z(self) -> float | None:
        """The least over its nulls; None where none has one."""
        sided = bool(self.figure.better)
        found = [row["z"] if sided else abs(row["z"]) for row in self.nulls if row.get("z") is not None]
        return min(found, default=None)

    @property
    def separates(self) -> bool | None:
        """Whether it tells the SAE from all of its nulls; None where that was not measured, or neither way is better."""
        return None if self.z is None or not self.figure.better else self.z >= SEPARATES


def verdict(standing: Standing) -> str:
    """What z says: `z 12`, `z 1.4: does not separate`; empty where there is none."""
    if standing.z is None:
        return ""
    said = f"z {standing.z:.1f}"
    return f"{said}: does not separate" if standing.separates is False else said


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that was measured of one SAE on one text."""

    of: Of
    sections: tuple[Section, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    """Sections that are not there: why, in a sentence."""
    headline: tuple[str, ...] = ()
    """Figures (`section.figure`) by which it is known, before those that do not separate are taken out."""
    measured: Mapping[str, int] = field(default_factory=dict)
    """By section, the version of its measure."""
    versions: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Section:
        """A section; InterpError when there is none of that name."""
        for section in self.sections:
            if section.name == name:
                return section
        why = self.missing.get(name, "it was not measured")
        raise InterpError(f"the report of {self.of.name} has no section {name}: {why}")

    @property
    def seconds(self) -> dict[str, float]:
        """What each section took."""
        return {section.name: section.seconds for section in self.sections}

    @cached_property
    def _beside(self) -> dict[str, tuple[Mapping[str, Any], ...]]:
        found: dict[str, tuple[Mapping[str, Any], ...]] = {}
        for section in self.sections:
            for row in section.rows if section.name == DISCRIMINATION else ():
                key = f"{row['section']}.{row['figure']}"
                found[key] = (*found.get(key, ()), row)
        return found

    def standings(self, section: Section) -> list[Standing]:
        """The section's figures, each beside its nulls."""
        return [
            Standing(section=section.name, figure=one, nulls=self._beside.get(f"{section.name}.{one.name}", ()))
            for one in section.figures
        ]

    def known_by(self) -> list[Standing]:
        """The headline: figures that can be said and are not known to fail to separate."""
        all_ = {f"{s.name}.{one.figure.name}": one for s in self.sections for one in self.standings(s)}
        named = [all_[key] for key in self.headline if key in all_]
        return [one for one in named if one.figure.value is not None and one.separates is not False]

    def unseparated(self) -> list[Standing]:
        """Figures with a better side that do not tell the SAE from every null."""
        return [one for section in self.sections for one in self.standings(section) if one.separates is False]

    def summary(self) -> dict[str, Any]:
        """The headline as a card has it: value, interval, n, unit and z by `section.figure`."""
        return {
            f"{one.section}.{one.figure.name}": {
                "value": one.figure.value,
                "interval": None if one.figure.interval is None else list(one.figure.interval),
                "n": one.figure.n,
                "unit": one.figure.unit,
                "z": one.z,
            }
            for one in self.known_by()
        }

    def for_card(self) -> dict[str, Any]:
        """What a card says of the report."""
        return {"headline": self.summary(), "text": dict(self.of.text), "tokens_sha256": self.of.tokens_sha256}

    def _repr_html_(self) -> str:
        """The headline, and by section what else was measured; `report.html` has all of it."""
        known = [
            (one.figure.says, number(one.figure.value, one.figure), interval(one.figure), verdict(one))
            for one in self.known_by()
        ]
        rows = [(s.name, s.title, len(s.figures)) for s in self.sections]
        rows += [(name, why, 0) for name, why in self.missing.items()]
        return (
            title_html(f"{self.of.name}: {self.of.positions:,} tokens of {self.of.documents:,} documents")
            + table_html(["", "value", "95 %", "against nulls"], known)
            + table_html(["section", "", "figures"], rows)
        )

    def to_dict(self) -> dict[str, Any]:
        """As report.json has it."""
        return {
            "format": FORMAT,
            "of": asdict(self.of),
            "missing": dict(self.missing),
            "headline": list(self.headline),
            "measured": dict(self.measured),
            "seconds": self.seconds,
            "versions": dict(self.versions),
            "sections": [section.to_dict() for section in self.sections],
        }

    def to_json(self) -> str:
        """Strict JSON, the same bytes for the same report."""
        return places.strict_json(self.to_dict(), indent=1) + "\n"


def read_report(path: Path, sae_sha256: str | None = None) -> Report:
    """The report in a file.

    Raises InterpError when it is missing, damaged, of another format, or (where `sae_sha256` is given) of other weights.
    """
    raw = places.read_json(path)
    again = "`interp evaluate SAE` makes it anew."
    if not isinstance(raw, dict) or not isinstance(raw.get("of"), dict) or "sections" not in raw:
        raise InterpError(f"{path} is no report of an SAE; {again}")
    if raw.get("format") != FORMAT:
        raise InterpError(f"{path} has format {raw.get('format')}, and this version reads {FORMAT}; {again}")
    own = str(raw["of"].get("sae_sha256"))
    if sae_sha256 is not None and own != sae_sha256:
        raise InterpError(f"{path} is a report of other weights ({own[:12]}…) than these ({sae_sha256[:12]}…); {again}")
    try:
        return Report(
            of=Of(**raw["of"]),
            sections=tuple(Section.from_dict(value) for value in raw["sections"]),
            missing=dict(raw["missing"]),
            headline=tuple(raw["headline"]),
            measured=dict(raw["measured"]),
            versions=dict(raw["versions"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InterpError(f"{path} was not written whole, or was edited ({error}); {again}") from None


# ---- made ----


def make_report(
    of: Of,
    setting: Setting,
    measures: Sequence[Measure],
    folder: Path,
    *,
    named: bool,
    versions: Mapping[str, str],
    among: Sequence[Measure] = MEASURES,
    before: Report | None = None,
    done: Callable[[Section, bool], None] = lambda section, kept: None,
) -> Report:
    """Every one of `measures`, taken from `folder` where it is kept there, else made and kept; of `among` those that are kept.

    What is neither kept nor made here is taken from `before`, a report that came with the SAE: a section of other seeds'
    trainings, say, which this machine does not have. `done` hears of each section, and whether it was kept. What cannot be
    measured is missing from the report, with the reason; InterpError where the measures were `named` by whoever asked.
    """
    sections, missing, measured = [], {}, {}
    for measure in among:
        path = kept_path(folder, of, measure)
        section, kept = _kept(path, measure), True
        if section is None and measure in measures:
            kept = False
            try:
                section = measure.make(setting)
            except InterpError as error:
                if named:
                    raise
                missing[measure.name] = str(error)
            else:
                places.write_json(path, {"format": FORMAT, "version": measure.version, "section": section.to_dict()})
        if section is None:
            section, kept = _of_before(before, of, measure), True
        if section is None:
            missing.setdefault(measure.name, f"not measured; `interp evaluate SAE --only {measure.name}` does it.")
            continue
        missing.pop(measure.name, None)
        done(section, kept)
        sections.append(section)
        measured[measure.name] = measure.version
    known = tuple(f"{measure.name}.{figure}" for measure in among for figure in measure.headline)
    return Report(
        of=of, sections=tuple(sections), missing=missing, headline=known, measured=measured, versions=versions
    )


def kept_path(folder: Path, of: Of, measure: Measure) -> Path:
    """The file that a section of these weights on this text is kept in."""
    on = [of.sae_sha256, of.model_sha256, of.seed, measure.version, measure.on]
    on += [of.tokens_sha256] if measure.text else []
    return folder / f"{measure.name}-{hashlib.sha256(json.dumps(on).encode()).hexdigest()[:16]}.json"


def _of_before(before: Report | None, of: Of, measure: Measure) -> Section | None:
    """The section in a report of before, where that is of the same weights, text and version of the measure."""
    if before is None or before.measured.get(measure.name) != measure.version:
        return None
    same = ["sae_sha256", "model_sha256", "seed"] + ["tokens_sha256"] * measure.text
    if any(getattr(before.of, name) != getattr(of, name) for name in same):
        return None
    return next((section for section in before.sections if section.name == measure.name), None)


def _kept(path: Path, measure: Measure) -> Section | None:
    """The section in a file; None where there is none that can be read, which is then made again."""
    if not path.exists():
        return None
    try:
        raw = places.read_json(path)
        if raw["format"] != FORMAT or raw["version"] != measure.version:
            return None
        return Section.from_dict(raw["section"])
    except (InterpError, KeyError, TypeError, ValueError, AttributeError):
        return None
