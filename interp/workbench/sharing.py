"""Checkpoints shared, fetched, converted and checked; the functions that take a path open nothing first.

What shares and checks is imported by the function that needs it: a search opens a workbench too, and waits for none of it.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp import places
from interp.checkpoint.files import LABELS, present, resolve
from interp.corpus import Corpus, open_corpus
from interp.types import InterpError
from interp.workbench.evidencing import evidence_file
from interp.workbench.looking import looks
from interp.workbench.meant import ship_meanings
from interp.workbench.measuring import evaluate
from interp.workbench.opening import Opened
from interp.workbench.reporting import find_report

if TYPE_CHECKING:
    from interp.checkpoint.archive import Packed
    from interp.checkpoint.remote import Moved
    from interp.publishing import Published
    from interp.verification import Verification


def publish(
    wb: Opened,
    into: str | Path,
    *,
    metrics: str | Corpus = "",
    tokens: int = 50_000,
    address: str = "",
    without_text: bool = False,
) -> "Published":
    """A folder with all that is known of this checkpoint, sealed (see `interp.publishing`).

    Metrics are those that `evaluate` kept, after measuring `tokens` of the text `metrics` if one is named.
    `address` is where it will be found, for the README; `without_text` leaves out the text of the index's documents.
    """
    from interp import publishing
    from interp.evals import record as evaluations

    if metrics:
        evaluate(wb, metrics, tokens)
    return publishing.publish(
        wb.folder,
        Path(into),
        index=wb.index_or_none(),
        labels=wb.labels,
        metrics=evaluations.kept(wb.card.sae_sha256),
        evidence=evidence_file(wb),
        report=find_report(wb),
        address=address,
        device=wb.device,
        without_text=without_text,
        beside_labels=ship_meanings,
    )


def lacks(wb: Opened) -> list[str]:
    """What this machine knows of the checkpoint and its folder does not hold, so that `pack` and `push` leave it."""
    from interp import publishing
    from interp.evals import record as evaluations

    files, _ = present(wb.folder)
    metrics = evaluations.kept(wb.card.sae_sha256)
    return publishing.lacks(files, wb.labels, wb.index_or_none(), metrics, evidence_file(wb), find_report(wb))


def pack(wb: Opened, into: str | Path, *, labels: bool = False) -> "Packed":
    """One file of the checkpoint (see `checkpoint.archive`); `labels` takes those of this machine with it."""
    from interp.checkpoint import archive

    with tempfile.TemporaryDirectory() as made:
        return archive.pack(wb.folder, into, added=_labels(wb, Path(made)) if labels else {})


def push(
    wb: Opened,
    to: str,
    *,
    labels: bool = False,
    endpoint: str | None = None,
    private: bool = False,
    message: str = "",
) -> "Moved":
    """Share the checkpoint on a hub or at a URL (see `checkpoint.remote`); `labels` as for `pack`."""
    from interp.checkpoint import remote

    with tempfile.TemporaryDirectory() as made:
        added = _labels(wb, Path(made)) if labels else {}
        return remote.push(wb.folder, to, added=added, endpoint=endpoint, private=private, message=message)


def export(wb: Opened, form: str, into: str | Path, features: Sequence[int] | None = None) -> list[str]:
    """Features (all that fire, without) for other tools: formats are `interp.exports.EXPORTS`.

    What the format does not hold comes back, a phrase each.
    """
    from interp import exports

    contents = exports.Contents(
        sae=wb.sae, card=wb.card, index=wb.index, labels=wb.labels.all(), looks=partial(looks, wb)
    )
    return exports.export(contents, form, into, features)


def _labels(wb: Opened, folder: Path) -> dict[str, Path]:
    """The current labels, shipped and own, as the file that ships; none when there are none. Where the card has a
    hash of the labels, it comes along with theirs."""
    path = folder / LABELS
    if not wb.labels.export(path):
        return {}
    if LABELS not in wb.card.files:
        return {LABELS: path}
    replace(wb.card, files=wb.card.files | {LABELS: places.sha256_file(path)}).write(folder)
    return {LABELS: path, "card.json": folder / "card.json"}


def verify(
    path: str | Path,
    *,
    model: str = "",
    hook_name: str = "",
    numbers: bool = True,
    write: bool = False,
    full: bool = False,
    seed: int | None = None,
    metrics: str | Corpus = "",
    tokens: int | None = None,
    expect: str = "",
    device: str = "auto",
    remember: bool = True,
) -> "Verification":
    """What can be checked of a checkpoint, with a card or without (see `interp.verification`).

    `write` first stores hashes, numbers and tolerances in it, which is its maker's part. `full` makes all of the index
    anew and not some blocks (drawn by `seed`), `metrics` names a text (`tokens` of it) on which the card's figures are
    made anew, `expect` is the pin that the files must have. What came of it is kept under INTERP_HOME for the
    library's list, if `remember`. Raises InterpError when there is no checkpoint, or no card where one is needed.
    """
    from interp import verification
    from interp.checkpoint import record

    folder = resolve(path)
    carded = (folder / "card.json").exists()
    if not carded and (write or full or metrics):
        needs = "hashes are written into" if write else "an index and metrics are checked against"
        raise InterpError(f"{folder} has no card.json, which {needs}; a checkpoint trained here has one.")
    if write:
        with places.only_one(folder, "sealing"):
            ship_meanings(folder)
            verification.seal(folder, device=device)
    if carded:
        text = open_corpus(metrics) if isinstance(metrics, str) and metrics else metrics or None
        asked = verification.Asked(
            model=model, device=device, numbers=numbers, full=full, seed=seed, metrics=text, tokens=tokens, expect=expect
        )  # fmt: skip
        checked = verification.verify(folder, asked)
    else:
        checked = verification.verify_plain(folder, model=model, hook_name=hook_name, device=device, expect=expect)
    if remember and not model:  # with another model than it names, the answer is of that question only
        record.remember(folder, checked.verdict, checked.dtype)
    return checked


def convert(
    source: str | Path,
    target: str,
    into: str | Path,
    *,
    format_: str = "",
    hook_name: str = "",
    hook_name_out: str = "",
    model: str = "",
    scale: float | None = None,
) -> dict[str, Any]:
    """Convert a checkpoint (see `checkpoint.formats.convert`), and compare what was written with what was read.

    The comparison is on activations of the model it was made for where that opens, else on rows drawn at random, and
    says which. In SAELens' format a card is written too, when the model opens: the folder is a checkpoint like one's own.
    """
    from interp import verification
    from interp.checkpoint import formats

    try:
        place: str | Path = resolve(source)
    except InterpError:
        place = source
    made = formats.convert(
        place,
        target,
        into,
        format_=format_,
        hook_name=hook_name,
        hook_name_out=hook_name_out,
        model=model,
        scale=scale,
    )
    return verification.adopt(made)


def pull_checkpoint(
    source: str, into: str | Path, *, model: str = "", hook_name: str = "", endpoint: str | None = None
) -> "tuple[Moved, str]":
    """Fetch a checkpoint (see `checkpoint.remote.pull`); one without a card gets one where its model opens.

    The sentence beside it says why there is no card; it is empty when there is one.
    """
    from interp import verification
    from interp.checkpoint import remote

    moved = remote.pull(source, into, endpoint=endpoint)
    if not (Path(into) / "card.json").exists():
        try:
            verification.give_card(Path(into), model, hook_name, source=moved.address)
        except InterpError as error:
            return moved, f"it has no card, and none could be made: {error}"
    return moved, ""
