"""How far the features of a few graphs carry a whole behaviour: chosen on some of its prompts, measured on others and in another wording."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from interp.circuits.behaviours import PARAPHRASE, TEMPLATE, behaviour
from interp.circuits.held_out import BehaviourFaithfulness, Chosen, choose_features, measure_held_out
from interp.types import InterpError
from interp.workbench.replacing import Opened

TOP = 10
"""Features that a record names."""


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """A behaviour's held-out prompts of both wordings, by features that were chosen on other prompts of its template."""

    behaviour: str
    model: str
    graphs: int
    chosen: Chosen
    top: tuple[str, ...]
    """The first features in words."""
    wordings: Mapping[str, BehaviourFaithfulness]

    def sentence(self) -> str:
        """What the largest set carries, of either wording."""
        parts = []
        for wording, found in self.wordings.items():
            (value, low, high), (control, *_) = found.f[-1], found.control[-1]
            parts.append(
                f"{value:.0%} ({low:.0%} to {high:.0%}) on {found.n} prompts of the {wording} (random {control:.0%})"
            )
        return f"{next(iter(self.wordings.values())).sizes[-1]} features bring back {' and '.join(parts)}."

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "behaviour": self.behaviour,
            "model": self.model,
            "graphs": self.graphs,
            "chosen": len(self.chosen.order),
            "fired": len(self.chosen.fired),
            "top": list(self.top),
            "wordings": {wording: asdict(found) for wording, found in self.wordings.items()},
            "said": self.sentence(),
        }


def measure_behaviour(
    opened: Opened, name: str, *, pairs: int, prompts: int, nodes: int, seed: int = 0
) -> Faithfulness:
    """Features chosen on the graphs of `pairs` pairs of the template, measured on `prompts` held-out prompts of each wording.

    Raises InterpError for a behaviour that there is not, for a tokenizer that leaves too few of its prompts, and where the model's answers
    do not differ from the twins'.
    """
    made = behaviour(name, opened.model, count=4 * (pairs + prompts), seed=seed)
    some = made.select(TEMPLATE, held_out=False)[:pairs]
    tried = {wording: made.select(wording, held_out=True)[:prompts] for wording in (TEMPLATE, PARAPHRASE)}
    few = min(map(len, tried.values()))
    if len(some) < pairs or few < prompts:
        raise InterpError(
            f"{name} has {len(some)} pairs to choose features on and {few} held-out prompts of a wording for the tokenizer of "
            f"{opened.model.name}; ask for no more than these."
        )
    chosen = choose_features(opened.replacement, some, nodes=nodes)
    found = {wording: measure_held_out(opened.replacement, chosen, each, seed=seed) for wording, each in tried.items()}
    names = opened.names((one.layer, one.feature) for one in chosen.order[:TOP])
    top = [
        f"L{one.layer} #{one.feature} ({one.role}) {names.get((one.layer, one.feature), '')}".rstrip()
        for one in chosen.order[:TOP]
    ]
    return Faithfulness(name, opened.model.name, 2 * pairs, chosen, tuple(top), found)
