"""How often a model does what a behaviour asks, before anybody looks for the circuit that does it.

Axes    P prompt, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from interp.circuits.behaviours import PARAPHRASE, TEMPLATE, Behaviour, Pair, batches
from interp.circuits.metric import logit_difference
from interp.models import Model
from interp.render import table_html, title_html
from interp.statistics import bootstrap, wilson

Figure = tuple[float, float, float]
"""(value, and the ends of its 95 % interval)."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Of one wording."""

    wording: str
    n: int
    """Prompts."""
    right: Figure
    """The share at which the target has the larger logit, Wilson's interval."""
    difference: Figure
    """The logit of the target less that of the distractor, in logits: mean, bootstrap over prompts."""
    corrupt_right: Figure | None
    """The share of counterfactual twins at which the distractor has the larger logit; None where both may follow."""
    corrupt_difference: Figure
    """The same difference of the counterfactual twins."""


@dataclass(frozen=True, kw_only=True)
class Accuracies:
    """Of a behaviour, in both wordings."""

    model: str
    behaviour: str
    wordings: tuple[Accuracy, ...]

    def table(self) -> list[dict[str, object]]:
        """A row a wording."""
        rows: list[dict[str, object]] = []
        for one in self.wordings:
            figures = {"right": one.right, "difference": one.difference, "corrupt_difference": one.corrupt_difference}
            if one.corrupt_right is not None:
                figures["corrupt_right"] = one.corrupt_right
            row: dict[str, object] = {"behaviour": self.behaviour, "wording": one.wording, "n": one.n}
            for name, (value, low, high) in figures.items():
                row |= {name: value, f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
        return rows

    def _repr_html_(self) -> str:
        rows = [
            (
                one.wording,
                one.n,
                _said(one.right),
                _said(one.difference),
                _said(one.corrupt_right),
                _said(one.corrupt_difference),
            )
            for one in self.wordings
        ]
        head = ["wording", "prompts", "right", "logit difference", "counterfactual right", "its difference"]
        return title_html(f"{self.behaviour} by {self.model}") + table_html(head, rows)


def _said(figure: Figure | None) -> str:
    return "" if figure is None else f"{figure[0]:.2f} ({figure[1]:.2f} to {figure[2]:.2f})"


def measure_accuracy(model: Model, behaviour: Behaviour) -> Accuracies:
    """How often the model gives the target the larger logit, and by how much, in each wording; 95 % intervals."""
    model.check_causal("the next token")
    made = []
    for wording in (TEMPLATE, PARAPHRASE):
        pairs = behaviour.select(wording)
        clean_P, corrupt_P = logit_differences(model, pairs)
        made.append(
            Accuracy(
                wording=wording,
                n=len(pairs),
                right=wilson(int((clean_P > 0).sum()), len(pairs)),
                difference=bootstrap(clean_P),
                corrupt_right=wilson(int((corrupt_P < 0).sum()), len(pairs)) if behaviour.flips else None,
                corrupt_difference=bootstrap(corrupt_P),
            )
        )
    return Accuracies(model=model.name, behaviour=behaviour.name, wordings=tuple(made))


def logit_differences(model: Model, pairs: Sequence[Pair]) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"]]:
    """Target's logit less distractor's, of each prompt and of its counterfactual twin."""
    found = np.full((2, len(pairs)), np.nan)
    for batch in batches(pairs):
        metric = logit_difference(batch.target, batch.distractor)
        for side, tokens_BT in enumerate((batch.clean_BT, batch.corrupt_BT)):
            logits = model.run(tokens_BT, logits=True, last=1).logits
            assert logits is not None
            found[side, list(batch.at)] = metric(logits[:, -1]).double().cpu().numpy()
    return found[0], found[1]
