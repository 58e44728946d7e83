"""What is known of features and was tested: labels tried, effects measured, joined into one table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from interp.commands.opening import open_sae
from interp.commands.options import Device, Option, Sae

if TYPE_CHECKING:
    from interp.workbench.evidencing import Built


def evidence(
    sae: Sae,
    *,
    parts: Annotated[
        Sequence[str],
        Option("A part to make: labels, effects or edits; repeatable. Without: all but edits, which take hours."),
    ] = (),
    limit: Annotated[
        int | None, Option("Try the labels of so many features by editing, drawn at random, instead of all.", low=1)
    ] = None,
    beside: Annotated[bool, Option("Write the table into the SAE's folder too, to be shared with it.")] = False,
    restart: Annotated[bool, Option("Make the parts anew instead of going on where a call before stopped.")] = False,
    device: Device = "auto",
) -> "Built":
    """Find out what is true of every feature, and keep it in one table, a row a feature.

    Labels are tried on text that they were not made from; effects are measured beside controls. Each part takes minutes, says how
    long as it goes, and lies under INTERP_HOME; one that is done is only looked at. They are joined in evidence.parquet, whose
    columns say unit, meaning and part. The table made on this machine holds; where there is none, the one that came with the SAE.
    `interp feature` shows it, and a search asks it (confirmed:yes, scope:en, effect:0.01.., replicates:2, sort:effect).

    Raises InterpError for an unknown part, and when none can be made or one that was named cannot.
    """
    return open_sae(sae, device).build_evidence(parts, limit=limit, beside=beside, restart=restart)


def evidence_time(sae: Sae) -> str:
    """Which evidence holds of an SAE, and when it was written; empty where there is none."""
    from interp.evidence.card import find_evidence

    bench = open_sae(sae)
    path = find_evidence(bench.folder, bench.card.sae_sha256)
    return "" if path is None else f"{path} {path.stat().st_mtime_ns}"
