"""What work would take, on the command line."""

from interp.cli.app import Asked, register
from interp.commands.planning import Planned
from interp.render.terminal import table, tell
from interp.render.words import duration, size


def _planned(planned: Planned, _: Asked) -> None:
    of = planned.size
    tell(
        f"{of.model} ({of.architecture}): {of.parameters:,} parameters in {of.layers} layers, {size(of.weights)} of weights in "
        f"{of.dtype}"
    )
    if planned.stages:
        rows = [
            [one.stage, size(one.memory), duration(one.seconds), size(one.disk), f"{one.rate:,.0f}", one.by]
            for one in planned.stages
        ]
        table(["stage", "memory", "time", "disk", "tokens/s", "measured"], rows)
    for one in planned.stages:
        if one.ranks > 1:
            tell(
                f"{one.stage} on {one.ranks} ranks: memory of each; a rank sends {size(one.sent)} a step, and all of them work "
                f"{one.hours:,.1f} hours, waiting for each other not counted"
            )


register("plan", _planned, "interp plan smollm2 blocks.15.hook_resid_post --tokens 1000000 --d-sae 9216")
