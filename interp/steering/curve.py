"""What a sweep of strengths is asked, and what it gives: a point a strength and series, the window, the verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from interp.render import table_html, title_html
from interp.steering.run import as_json
from interp.steering.sampling import check_seed
from interp.steering.verdict import OPENINGS, Verdict
from interp.steering.window import Window
from interp.types import InterpError

FACTORS = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
Figure = tuple[float, float, float]
"""(mean, low, high)"""


@dataclass(frozen=True, kw_only=True)
class StrengthSweepConfig:
    """Which strengths, on which prompts, with what beside them."""

    factors: Sequence[float] = FACTORS
    """Multiples of the feature's largest activation on text."""
    prompts: Sequence[str] = OPENINGS
    seeds: Sequence[int] = (0,)
    kind: str = "clamp"
    """`clamp` or `add`; a direction is always added."""
    where: str = "all"
    targets: Sequence[str] = ()
    """Tokens whose probability is followed; without, the 20 that the feature was measured to make likely (`targets.py`)."""
    regex: str | None = None
    """Looked for in the generated text."""
    controls: bool = True
    verdict: bool = True

    def __post_init__(self) -> None:
        for name in ("factors", "prompts", "seeds", "targets"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name) and name != "targets":
                raise InterpError(f"the sweep has no {name}; give at least one.")
        object.__setattr__(self, "seeds", tuple(map(check_seed, self.seeds)))
        for name in ("prompts", "targets"):
            if not all(isinstance(text, str) for text in getattr(self, name)):
                raise InterpError(f"the sweep's {name} are {list(getattr(self, name))}; give strings.")
        if not isinstance(self.regex, str | None):
            raise InterpError(f"the sweep's regex is {self.regex!r}; give a string.")
        for name in ("controls", "verdict"):
            if not isinstance(getattr(self, name), bool):
                raise InterpError(f"the sweep's {name} is {getattr(self, name)!r}; it is true or false.")
        if not all(map(math.isfinite, self.factors)):
            raise InterpError(
                f"the strengths {list(self.factors)} are not all finite; give numbers such as -1, 0.5, 2."
            )
        if self.kind not in ("clamp", "add"):
            raise InterpError(f"a sweep cannot {self.kind!r}; it is clamp or add.")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One strength of one series."""

    factor: float
    strength: float
    shift: Figure
    """Of the target tokens' log-probability while the baseline's text is read, nats."""
    kl: Figure
    """KL(steered ‖ unsteered) while the baseline's text is read, nats a token."""
    perplexity: Figure
    """Of the generated text under the unsteered model (the mean is geometric)."""
    perplexity_ratio: Figure
    """The same over that of the unsteered text, prompt by prompt."""
    distinct_1: Figure
    distinct_2: Figure
    distinct_3: Figure
    loops: Figure
    """Share of texts that end in a loop."""
    fires: Figure
    """Share of texts on which the feature fires when the unsteered model reads them."""
    says_target: Figure
    matches: Figure
    texts: list[str]
    tokens: list[list[int]]


@dataclass(frozen=True, kw_only=True)
class StrengthSweep:
    """The curve of a feature, its controls, the verdict, and all that is needed to do it again."""

    subject: Any
    words: str
    """The text put in front for the prompt-only baseline."""
    largest: float
    targets: list[str]
    target_tokens: list[int]
    targets_by: str
    """`name`, or `measure`: whether they were named or measured; records from before have them by the logit lens."""
    prompt_tokens: list[list[int]]
    baseline: Point
    series: dict[str, list[Point]]
    """`feature`, then the controls: `random features`, `noise`, `sign flipped`, `prompt only`."""
    window: Window
    """The strengths at which the feature moves the text and the text stays text."""
    verdict: Verdict | None
    config: dict[str, Any]
    sampling: dict[str, Any]
    environment: dict[str, Any]
    kind: Literal["sweep"] = "sweep"

    @property
    def curve(self) -> list[Point]:
        """The feature's own points, in the order of the strengths that were asked."""
        return self.series["feature"]

    def to_json(self) -> str:
        """As strict JSON: what could not be measured (nan) is null."""
        return as_json(self)

    def rows(self) -> list[dict[str, Any]]:
        """A row a series and strength, with the means and the intervals of shift and KL."""
        out = []
        for name, points in (("baseline", [self.baseline]), *self.series.items()):
            for p in points:
                figures = {key: getattr(p, key)[0] for key in FIGURES}
                out.append(
                    {"series": name, "factor": p.factor, "strength": p.strength}
                    | figures
                    | {"shift_low": p.shift[1], "shift_high": p.shift[2], "kl_low": p.kl[1], "kl_high": p.kl[2]}
                )
        return out

    def _repr_html_(self) -> str:
        rows = self.rows()
        said = title_html(self.verdict.sentence) if self.verdict else ""
        return said + title_html(self.window.sentence) + table_html(list(rows[0]), [list(row.values()) for row in rows])


FIGURES = (
    "shift",
    "kl",
    "perplexity",
    "distinct_1",
    "distinct_2",
    "distinct_3",
    "loops",
    "fires",
    "says_target",
    "matches",
)
