"""Whether other trainings find the open SAE's features again, and how labels do where there is nothing to find.

Both read full indexes of the same text: activations are taken from them, and no model runs.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp import places
from interp.evals.figure import Section
from interp.evals.stability import Training, measure_stability
from interp.evidence import labels as labels_part
from interp.evidence import random_null as nulls
from interp.evidence import replication as again
from interp.evidence.card import evidence_folder
from interp.evidence.part import about_part, write_part
from interp.index import FeatureIndex
from interp.labels.testing import Ground, RandomNull
from interp.models.randomised import read_name
from interp.progress import bar
from interp.training.state import initial_decoder
from interp.types import InterpError
from interp.workbench.labelling import that_fire, trials
from interp.workbench.opening import Opened
from interp.workbench.transferring import check_same_model

if TYPE_CHECKING:
    import pyarrow as pa

    from interp.labels.matching import Side

READ = 1_310_720
"""Positions of the common text that are compared at most: three gigabytes of memory, and about a minute for each other SAE."""


def replication(
    wb: Opened,
    others: Sequence[str | Path | Opened],
    random: str | Path | Opened | None = None,
    *,
    tokens: int = READ,
    seed: int = 0,
    restart: bool = False,
) -> "pa.Table":
    """Look for every feature in other SAEs of the same hook point; a row a feature, kept as the evidence's part `replication`.

    `others` are SAEs of the same model that were trained apart (other seeds, say), `random` that of a random-weight copy of the
    model, for the null; without it the null is one of chance (`evidence.replication`). All have full indexes whose texts begin
    alike; what they have in common is compared, evenly thinned to `tokens`. What was made of the same is only read, unless
    `restart`. `interp evidence SAE` then joins it with the rest.
    Raises InterpError when there is nothing to compare with, the SAEs are not of one hook point and model, an index is missing
    or keeps examples only, and the indexes' texts differ.
    """
    benches = [_opened(wb, each) for each in others]
    null = None if random is None else _opened(wb, random)
    _check(wb, benches, null)
    every = [wb, *benches, *([] if null is None else [null])]
    text = common_text([bench.index for bench in every], tokens)
    about = _about(wb, benches, null, text) | {"seed": seed}
    folder = evidence_folder(wb.card.sae_sha256)
    path = folder / again.FILE
    with places.only_one(folder, "making evidence"):
        if not restart and path.exists():
            table = again.read_replication(path)
            if _made_of(table, about):
                return table
        table = _compared(wb, benches, null, text, about, seed)
        with places.whole_file(path) as partial:
            write_part(table, partial)
    return table


def stability(
    wb: Opened, others: Sequence[str | Path | Opened], *, fires_F: np.ndarray | None = None, seed: int = 0
) -> Section:
    """How much of the dictionary other trainings of the same recipe found, and how far they came to each other from where they began.

    `others` are SAEs of other seeds; `fires_F` are the features' firings, by which they are weighed (without: those of the index). The decoders that
    trainings began with are made again from their cards (`evals.stability`).
    Raises InterpError as `replication` does where the SAEs are not of one model and hook point, and when there is no index to count firings.
    """
    benches = [_opened(wb, each) for each in others]
    _check(wb, benches, None)
    if fires_F is None:
        fires_F = wb.index.features["fires"].to_numpy()
    own, *trainings = (_training(bench) for bench in (wb, *benches))
    return measure_stability(own, trainings, fires_F, seed=seed)


def _training(bench: Opened) -> Training:
    try:
        start = initial_decoder(bench.card.recipe)
    except InterpError:  # of other libraries, transcoders and crosscoders: what needs it is then not said
        start = None
    return Training(bench.card.name, bench.sae.W_dec, bench.sae.W_enc, start)


def _opened(wb: Opened, other: str | Path | Opened) -> Opened:
    return other if isinstance(other, Opened) else Opened.open(other, device=wb.device)


def _check(wb: Opened, others: Sequence[Opened], null: Opened | None) -> None:
    """Raises InterpError when these cannot be compared."""
    if not others:
        raise InterpError("name at least one other SAE of this hook point to look for the features in.")
    shas = [bench.card.sae_sha256 for bench in (wb, *others)]
    twice = next((bench for bench, sha in zip((wb, *others), shas, strict=True) if shas.count(sha) > 1), None)
    if twice is not None:
        raise InterpError(f"{twice.folder} is given twice; an SAE finds itself again, which tells nothing.")
    for other in others:
        check_same_model(wb, other)
    for other in (*others, *([] if null is None else [null])):
        ways = [(bench.card.hook_name, bench.card.hook_name_out) for bench in (wb, other)]
        if ways[0] != ways[1]:
            raise InterpError(
                f"{other.card.name} is of {ways[1][0]} and {wb.card.name} of {ways[0][0]}; features are looked for in SAEs of "
                "one hook point."
            )
    if null is not None:
        check_random(wb, null)


def check_random(wb: Opened, null: Opened) -> None:
    """Raises InterpError when an SAE is not of a random-weight copy of the open one's model."""
    own, seed = read_name(null.card.model)
    if seed is None or own != wb.card.model:
        raise InterpError(
            f"{null.card.name} was made for {null.card.model}, and not for a random-weight copy of {wb.card.model}; "
            "recipes/smollm2_again.py shows how one is made."
        )


# ---- the text ----


@dataclass(frozen=True, eq=False)
class CommonText:
    """Blocks that several indexes have in common, and what of them counts for all."""

    block_B: np.ndarray
    counted_BT: np.ndarray
    document_P: np.ndarray
    """The document of each counted position."""
    sha256: str
    """Of the tokens of these blocks."""

    @property
    def positions(self) -> int:
        return len(self.document_P)


def common_text(indexes: Sequence[FeatureIndex], tokens: int = READ) -> CommonText:
    """The text that all of the indexes begin with, evenly thinned to so many tokens.

    Raises InterpError when they differ before the shortest ends, or one keeps examples only.
    """
    from interp.index.chosen import block_counted, block_tokens

    first = indexes[0]
    for index in indexes:
        if index.partial:
            raise InterpError(
                f"the index in {index.folder} keeps examples only; `interp index SAE` builds the full one."
            )
    blocks = min(len(index.tokens) for index in indexes) // first.block
    whole = blocks * first.block
    for index in indexes[1:]:
        if index.block != first.block or not np.array_equal(index.tokens[:whole], first.tokens[:whole]):
            raise InterpError(
                f"the indexes in {first.folder} and {index.folder} are of different texts; build both over the same one."
            )
    block_B = np.unique(np.linspace(0, blocks - 1, min(blocks, max(tokens // first.block, 1))).astype(np.int64))
    counted_BT = np.logical_and.reduce([block_counted(index, block_B) for index in indexes])
    document_BT = first.document_at[:whole].reshape(-1, first.block)[block_B]
    digest = hashlib.sha256(np.ascontiguousarray(block_tokens(first, block_B)).tobytes()).hexdigest()
    if not counted_BT.any():
        raise InterpError(f"no position of the text of {first.folder} counts for all of the SAEs; index more text.")
    return CommonText(block_B, counted_BT, document_BT[counted_BT].astype(np.int64), digest)


def _side(bench: Opened, text: CommonText) -> "Side":
    from interp.index.chosen import block_activations
    from interp.labels.matching import Side

    active = block_activations(bench.index, text.block_B, text.counted_BT)
    return Side(bench.sae.W_dec.detach().float().cpu(), active)


def _about(wb: Opened, others: Sequence[Opened], null: Opened | None, text: CommonText) -> dict[str, Any]:
    return {
        "sae": wb.card.name,
        "sae_sha256": wb.card.sae_sha256,
        "others": [_named(other) for other in others],
        "null": {"kind": again.CHANCE} if null is None else {"kind": again.RANDOM_MODEL, **_named(null)},
        "tokens_sha256": text.sha256,
        "positions": text.positions,
        "documents": len(np.unique(text.document_P)),
    }


def _named(bench: Opened) -> dict[str, Any]:
    recipe = bench.card.recipe.get("training")
    seed = recipe.get("seed") if isinstance(recipe, dict) else None
    return {"name": bench.card.name, "sae_sha256": bench.card.sae_sha256, "model": bench.card.model, "seed": seed}


def _made_of(table: "pa.Table", about: Mapping[str, Any]) -> bool:
    told = about_part(table)
    return all(told.get(name) == value for name, value in about.items()) and told.get("rule") == again.RULE


def _compared(
    wb: Opened, others: Sequence[Opened], null: Opened | None, text: CommonText, about: Mapping[str, Any], seed: int
) -> "pa.Table":
    own_side = _side(wb, text)
    own, found, nothing = again.prepare(own_side), [], None
    with bar("looking for features", len(others) + 1, "SAEs") as step:
        for bench in others:
            side = _side(bench, text)
            again.check_sides(own_side, side)
            other = again.prepare(side)
            found.append(again.compare(own, other, text.document_P))
            if null is None and nothing is None:
                nothing = again.null_by_chance(own, other, seed)
            step(1)
        if null is not None:
            side = _side(null, text)
            again.check_sides(own_side, side)
            nothing = again.null_of(own, again.prepare(side))
        step(1)
    assert nothing is not None, "there is always a null"
    return again.make_replication(own.fires, found, nothing, about)


# ---- labels of the random model ----


def random_null(wb: Opened, random: str | Path | Opened, *, seed: int = 0) -> RandomNull:
    """How labels do on the SAE of a random-weight copy of the model; kept beside the evidence, with the part that follows from it.

    The labels are proposed and tried as `autolabel` does (and only read, where that was done), and written into no book. The
    open SAE's own tried labels come from the evidence's part `labels`. `interp evidence SAE` then joins it with the rest, and a
    confirmed label has to lie above this null as well.
    Raises InterpError when the SAE is of no random copy of the model, when labels were not tried yet, and when too few of the
    random model's can be judged.
    """
    other = _opened(wb, random)
    check_random(wb, other)
    folder = evidence_folder(wb.card.sae_sha256)
    own = labels_part.read_labels(folder / labels_part.PART.file)
    of = trials(other, seed)
    tested = of.tried(other, that_fire(other))
    positions = _tried_on(other)
    null = RandomNull.of([one.figures for one in tested.values()], positions)
    about = {
        "sae": wb.card.name,
        "sae_sha256": wb.card.sae_sha256,
        "random": _named(other),
        "labels": len(null.f1_N),
        "positions": positions,
        "run": of.run.folder.name,
    }
    made = {nulls.FILE: nulls.make_null_table(null, about)}
    made[labels_part.RANDOM.file] = nulls.make_random(own, null, _tried_on(wb), about)
    with places.only_one(folder, "making evidence"):
        for name, table in made.items():
            with places.whole_file(folder / name) as partial:
                write_part(table, partial)
    return null


def _tried_on(wb: Opened) -> int:
    """How many positions labels are tried on."""
    return len(Ground(wb.index.passages).position_P)
