"""Labels that wait for a person: which, in which order, and who said what; and what a person decides."""

from typing import TYPE_CHECKING, Annotated

from interp.commands.labelling import current_label, label
from interp.commands.opening import open_sae
from interp.commands.options import Feature, Option, Sae
from interp.types import InterpError

if TYPE_CHECKING:
    from interp.labels import Label
    from interp.workbench.queueing import Queue

DECISIONS = ("confirmed", "refuted", "undecided")


def label_queue(
    sae: Sae,
    *,
    which: Annotated[str, Option("Which labels wait: undecided, unseen, unnamed, refuted or all.")] = "undecided",
    order: Annotated[str, Option("What comes first: fires, effect, doubt or F1.")] = "fires",
) -> "Queue":
    """The features that fire and whose label waits for a person.

    Raises InterpError for an unknown kind or order, and where an order needs evidence that was not made.
    """
    from interp.workbench.queueing import label_queue as queue

    return queue(open_sae(sae), which, order)


def waiting() -> dict[str, str]:
    """Kinds of waiting, in words."""
    from interp.workbench.queueing import WAITING

    return {name: words for name, (words, _) in WAITING.items()}


def orders() -> tuple[str, ...]:
    """What a queue can be ordered by."""
    from interp.workbench.queueing import ORDERS

    return tuple(ORDERS)


def decide(
    sae: Sae,
    number: Feature,
    status: Annotated[str, Option("confirmed, refuted or undecided.")],
    *,
    author: Annotated[str, Option("Who decides.")] = "",
) -> "list[Label]":
    """Say of a feature's label that it is confirmed, refuted or undecided; the name and all else stay, and the history has it.

    Raises InterpError when the feature has no label, or nobody is named.
    """
    if current_label(sae, number) is None:
        raise InterpError(f"feature {number} has no label that could be {status}; name it first.")
    if not author.strip():
        raise InterpError("say who decides: a label that nobody stands for is no decision.")
    return label(sae, number, author=author, status=status)
