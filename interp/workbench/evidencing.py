"""The evidence of the open SAE: its parts made, joined, and found again."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from interp import places
from interp.checkpoint.files import called
from interp.evidence import card, caused, edited, labels
from interp.evidence.card import EvidenceTable, Of, evidence_folder, find_evidence, find_part, read_evidence
from interp.evidence.part import about_part, write_part
from interp.labels.automatic import hold_back
from interp.render.terminal import say
from interp.render.words import counted, duration
from interp.types import InterpError
from interp.workbench.falsifying import try_evidence
from interp.workbench.labelling import that_fire, trials
from interp.workbench.opening import Opened

if TYPE_CHECKING:
    from interp.models import Model


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a run made."""

    file: Path
    beside: Path | None
    """The copy in the SAE's folder, if one was asked for."""
    took: Mapping[str, float]
    """Seconds of each part that was asked for."""
    lacking: Mapping[str, str]
    """Parts that were asked for and could not be made here: why."""
    sentences: Sequence[str]
    """What the evidence comes to; what is missing first."""


@dataclass(frozen=True)
class Asked:
    """How parts are to be made."""

    restart: bool = False
    """Anew, whatever is there."""
    limit: int | None = None
    """Of how many features, for a part that takes hours."""


def build_evidence(
    wb: Opened, parts: Sequence[str] = (), *, limit: int | None = None, beside: bool = False, restart: bool = False
) -> Built:
    """Make the parts that are named (all that can be made here within minutes, unless told) and join them with those that are there.

    Each part goes on where a call before it was ended, and one that is done is only looked at. With `limit`, labels of so many
    features, drawn at random from those that have one, are tried by editing. `beside` writes the joined file into the SAE's folder too. Raises InterpError for an unknown part, when one that was named cannot be made, when none can, and when
    another process is at it.
    """
    wanted = [find_part(name).name for name in parts] or [name for name in MAKERS if name not in APART]
    for name in wanted:
        if name not in MAKERS:
            raise InterpError(f"the part {name} is not made by this command: {find_part(name).how}.")
    folder = evidence_folder(wb.card.sae_sha256)
    took: dict[str, float] = {}
    lacking: dict[str, str] = {}
    came = {} if parts else _came(wb)
    with places.only_one(folder, "making evidence"):
        places.drop_partials(folder)
        if beside:
            places.check_writable(wb.folder)
        for name in wanted:
            if name in came:
                lacking[name] = came[name]
                continue
            began = time.perf_counter()
            try:
                MAKERS[name](wb, folder, Asked(restart, limit))
            except InterpError as error:
                if parts:
                    raise
                lacking[name] = str(error)
                continue
            took[name] = time.perf_counter() - began
            say(f"{name}: done in {duration(took[name])}")
        if took or not came:  # else what came with the SAE is all there is, and goes on to hold
            table = _join(wb)
            for path in (folder / card.FILE, *([wb.folder / card.FILE] if beside else [])):
                card.write_evidence(table, path)
    made = evidence(wb)
    hold_labels_back(wb, made)
    return Built(
        file=find_evidence(wb.folder, wb.card.sae_sha256) or folder / card.FILE,
        beside=wb.folder / card.FILE if beside else None,
        took=took,
        lacking=lacking,
        sentences=made.sentences(),
    )


def hold_labels_back(wb: Opened, made: EvidenceTable) -> None:
    """Labels of the book that a run confirmed by the SAE's own nulls, and that are no better than those of a random-weight model, are
    undecided: the book is not to say more than the evidence."""
    try:
        told = np.flatnonzero(made.column("label_verdict") == labels.TOLD).tolist()
    except InterpError:  # nothing is known of labels
        return
    if told and (held := hold_back(wb.labels, told, NO_BETTER)):
        say(f"{counted(held, 'label')} that a run had confirmed: now undecided, {NO_BETTER}.")


def _came(wb: Opened) -> dict[str, str]:
    """Parts that came with the SAE and are left as they are unless they are named, and why: an index that keeps examples
    has less text than they were made from."""
    shipped = wb.folder / card.FILE
    try:
        if not shipped.exists() or not wb.index.partial:
            return {}
    except InterpError:  # no index: whatever makes a part says so
        return {}
    why = "it came with the SAE, and the index here keeps examples only; `interp evidence {} --parts {}` makes it of these"
    return {name: why.format(wb.folder, name) for name in read_evidence(shipped, identity(wb)).parts}


def _join(wb: Opened) -> pa.Table:
    """All parts there are; InterpError when there is none."""
    of = identity(wb)
    made = {part.name: table for part in card.PARTS if (table := card.read_made(part, of)) is not None}
    shipped = wb.folder / card.FILE
    before = read_evidence(shipped, of) if shipped.exists() else None
    if not made and before is None:
        raise InterpError(
            f"no part of the evidence of {wb.card.name} could be made here; `interp index {wb.folder}` comes first."
        )
    return card.join(of, made, before)


def identity(wb: Opened) -> Of:
    """The weights that evidence of the open SAE is of."""
    from interp.evidence.effects import weights_sha256

    own = wb.card.sae_sha256
    return Of(
        name=wb.card.name,
        model=wb.card.model,
        sae_sha256=own,
        d_sae=wb.sae.d_sae,
        same=frozenset([weights_sha256(wb.sae)]),
    )


# ---- found ----


def evidence(wb: Opened) -> EvidenceTable:
    """The evidence that holds (`card.find_evidence`), read once for all threads until its file changes.

    Raises InterpError when there is none, it is damaged, or of other weights.
    """
    path = find_evidence(wb.folder, wb.card.sae_sha256)
    if path is None:
        name = wb.card.name
        raise InterpError(f"there is no evidence of {name}; `interp evidence {called(wb.folder, name)}` makes it.")
    try:
        stat = path.stat()
    except OSError as error:
        raise places.disk_error(path, error) from error
    key = "evidence", str(path), stat.st_mtime_ns, stat.st_size
    with wb._lock:
        kept = wb._answers.get(key)
        if kept is None:
            of = Of(name=wb.card.name, model=wb.card.model, sae_sha256=wb.card.sae_sha256, d_sae=wb.sae.d_sae)
            kept = wb._answers[key] = read_evidence(path, of)
    assert isinstance(kept, EvidenceTable)
    return kept


def evidence_file(wb: Opened) -> Path | None:
    """The file of the evidence that holds; None where there is none.

    Raises InterpError when it is damaged or of other weights, so that it does not leave.
    """
    path = find_evidence(wb.folder, wb.card.sae_sha256)
    if path is not None:
        evidence(wb)
    return path


# ---- the parts ----


def _labels(wb: Opened, folder: Path, asked: Asked) -> None:
    index = wb.index
    if index.partial:
        raise InterpError(
            f"the index in {index.folder} keeps examples only, which have no silent positions to try a label on; "
            f"`interp index {wb.folder}` builds the full one."
        )
    from interp.labels.automatic import VERSION, scoped

    of = trials(wb)
    about = {
        "sae": wb.card.name,
        "sae_sha256": wb.card.sae_sha256,
        "run": of.run.folder.name,
        "method": VERSION,
        "index_files": index.meta["files"],
        "split": "labels",
        "seed": of.proposer.seed,
        "lacks": of.lacks,
    }
    path = folder / labels.PART.file
    if not asked.restart and _is(path, about):
        return
    if asked.restart and of.run.folder.exists():
        with places.only_one(of.run.folder, "autolabel"):
            for kept in of.run.folder.glob("*.json"):
                kept.unlink()
    tested = of.tried(wb, that_fire(wb))
    scopes = scoped(of.run, of.proposer, tested)
    about["tried"] = next((one.text for one in tested.values()), "on nothing, for no claim was found")
    table = labels.make_labels(wb.sae.d_sae, index.features["fires"].to_numpy(), tested, scopes, about)
    with places.whole_file(path) as partial:
        write_part(table, partial)


def _is(path: Path, about: Mapping[str, object]) -> bool:
    """Whether a table of labels made of the same lies there."""
    if not path.exists():
        return False
    try:
        told = about_part(labels.read_labels(path))
    except InterpError:
        return False
    return all(told.get(name) == value for name, value in about.items())


def _effects(wb: Opened, folder: Path, asked: Asked) -> None:
    from interp.evidence import EffectsConfig, Passages, choose_positions, measure_effects

    model, index = exact(wb), wb.index
    measure_effects(
        model, wb.sae, Passages.of(index), choose_positions(index), folder, EffectsConfig(restart=asked.restart)
    )


def exact(wb: Opened) -> "Model":
    """The model in float32: small effects drown in fewer digits."""
    from interp.models import open_model

    model = wb.model
    if model.dtype_name == "float32":
        return model
    return open_model(model.source, dtype="float32", device=wb.device, attention=wb.card.attention)


def _edits(wb: Opened, folder: Path, asked: Asked) -> None:
    try_evidence(wb, restart=asked.restart, limit=asked.limit)


MAKERS: dict[str, Callable[[Opened, Path, Asked], None]] = {
    labels.PART.name: _labels,
    caused.PART.name: _effects,
    edited.PART.name: _edits,
}
"""By part, in this order: writes the part's file into the folder, or leaves one that is of the same."""
NO_BETTER = "told from chance, but no better than the best twentieth of the labels of a random-weight model"
APART = frozenset({edited.PART.name})
"""Made only when they are named, for they take hours."""
