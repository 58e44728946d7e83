"""What work would take, before it is begun."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from interp.commands.options import Device, Model, Option, Stored
from interp.commands.training import K_, L1, Architecture, Batch, K, ModelType, takes_k

if TYPE_CHECKING:
    from interp.models.sizes import ModelSize
    from interp.recipe.forecast import Stage


@dataclass(frozen=True)
class Planned:
    """A model's size, and what each stage of the work would take on this machine."""

    size: "ModelSize"
    stages: Sequence["Stage"]


def plan(
    model: Model,
    hook: Annotated[
        str, Option("Hook point whose activations are harvested. Without: only the model's size is said.")
    ] = "",
    *,
    tokens: Annotated[int, Option("How many tokens are harvested, trained on and indexed.", low=1)] = 1_000_000,
    architecture: Architecture = "batchtopk",
    d_sae: Annotated[int, Option("How many features the SAE has.", low=1)] = 4608,
    k: K_ = None,
    l0: Annotated[float | None, Option("How many active features a token jumprelu aims at.")] = None,
    l1: L1 = None,
    batch: Batch = 4096,
    ranks: Annotated[int, Option("How many processes train together (docs/scale.md).", low=1)] = 1,
    feature_ranks: Annotated[
        int, Option("How many of them share the features; the others share a batch's rows.", low=1)
    ] = 1,
    dtype: ModelType = None,
    stored: Stored = "",
    device: Device = "auto",
) -> Planned:
    """Memory, time and disk that a model, a harvest, a training and an index would take here; no weights are loaded.

    A model is told by its configuration alone, so its weights need not be on this machine. A few of its layers, with random
    weights, a few training steps and a slice of an index are timed, which takes up to a minute. Raises InterpError when there is no such model,
    when its layers do not stand one after another, and when it lacks the hook point.
    """
    from interp.models.sizes import model_size
    from interp.recipe.forecast import forecast_harvest, forecast_training
    from interp.recipe.forecast_index import forecast_index
    from interp.training.watch import own_memory

    bare = own_memory()  # opening a model brings its libraries
    size = model_size(model, dtype=dtype, device=device)
    if not hook:
        return Planned(size, ())
    harvest, width = forecast_harvest(size, hook, tokens, stored=stored, device=device)
    asked = {"d_sae": d_sae, "k": k, "l0": l0, "l1": l1}
    options: Any = {name: value for name, value in asked.items() if value is not None}
    if takes_k([architecture]):
        options.setdefault("k", K)
    train = forecast_training(
        architecture,
        width,
        tokens,
        options,
        batch=batch,
        device=device,
        ranks=ranks,
        feature_ranks=feature_ranks,
        bare=bare,
    )
    return Planned(size, (harvest, train, forecast_index(size, width, tokens, architecture, options)))
