"""Share checkpoints and take over those of others: publish, pack, push, pull, convert, verify, export."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from interp.commands.opening import open_sae
from interp.commands.options import Device, Option, Sae, refuse_idle
from interp.places import refuse_read_only
from interp.types import InterpError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from interp.checkpoint.archive import Readable
    from interp.publishing import Published
    from interp.verification import Verification

NewFolder = Annotated[Path, Option("Folder to write into; it must be new or empty.")]
OwnLabels = Annotated[bool, Option("Take the labels that were written on this machine with it.")]
LARGEST_UPLOAD = 500 * 2**20
"""Bytes of a packed checkpoint that a browser may send: it lies in the server's memory until it is unpacked."""
Endpoint = Annotated[str | None, Option("Address of the hub. Without: huggingface_hub's own.")]


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """A checkpoint that was packed or pushed."""

    files: list[str]
    bytes: int = 0
    where: str
    carries: list[str]
    """What is in it, in words."""
    not_in_it: list[str]
    """What this machine knows of the checkpoint and is not in it."""
    left_out: list[str]
    """Names in the folder that are no files of a checkpoint."""
    pin: str


@dataclass(frozen=True, kw_only=True)
class Received:
    """A checkpoint that was unpacked or pulled."""

    files: list[str]
    bytes: int = 0
    address: str = ""
    into: Path
    not_taken: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Exported:
    """Features written for another tool."""

    to: str
    into: Path
    lost: list[str]
    """What the format does not hold."""
    partial: bool
    """Whether the features were found in an index that keeps examples only."""


def publish(
    sae: Sae,
    *,
    into: Annotated[Path, Option("Folder to make; `interp pack` and `interp push` take it from there.")],
    metrics: Annotated[str, Option("Text to measure on first; what `interp evaluate` found before without.")] = "",
    tokens: Annotated[int, Option("Tokens of the text that --metrics names.", low=256)] = 50_000,
    address: Annotated[str, Option("Where it will be found, such as hf:me/my-sae, for its README.")] = "",
    without_text: Annotated[
        bool,
        Option("Leave out the text of the index's documents, also where it may be passed on; hashes and titles stay."),
    ] = False,
    device: Device = "auto",
) -> "Published":
    """Put a checkpoint with its index, labels and metrics into a folder to be shared, sealed, and say what was left out.

    Raises InterpError when the folder is not new, and when the checkpoint contradicts its card.
    """
    return open_sae(sae, device).publish(
        into, metrics=metrics, tokens=tokens, address=address, without_text=without_text
    )


def pack(
    sae: Sae,
    *,
    into: Annotated[Path | None, Option("File to write. Without: the folder's name with .interp.tar.")] = None,
    labels: OwnLabels = False,
) -> Shipped:
    """Make one file of a checkpoint: weights, card, index, and labels, presets and report where there are any.

    Raises InterpError when the folder is no checkpoint or contradicts its card.
    """
    from interp.checkpoint import archive
    from interp.checkpoint.files import resolve

    folder = resolve(sae)
    target = into or Path(f"{folder.resolve().name}.interp.tar")
    packed = open_sae(sae).pack(target, labels=labels) if labels else archive.pack(folder, target)
    return _shipped(folder, packed.files, packed.left_out, packed.pin, labels, bytes=packed.bytes, where=str(target))


def unpack(
    archive: Annotated[Path, Option("File that `interp pack` wrote.")],
    *,
    into: Annotated[Path | None, Option("Folder to make. Without: the file's name, below saes/.")] = None,
) -> Received:
    """Check every name, size and hash of a packed checkpoint, and only then make its folder.

    Raises InterpError when the file is not one, was damaged, or the folder exists.
    """
    from interp.checkpoint.archive import unpack as open_archive

    target = into or Path("saes") / archive.name.removesuffix(".tar").removesuffix(".interp")
    unpacked = open_archive(archive, target)
    return Received(files=list(unpacked.files), bytes=unpacked.bytes, into=target)


def unpack_upload(file: "Readable", size: int, name: str, into: Path) -> Received:
    """As `unpack`, of a packed checkpoint of `size` bytes that somebody uploads, read once; `name` is what errors call it.

    Raises InterpError when it is larger than LARGEST_UPLOAD, and as `unpack` does.
    """
    from interp.checkpoint.archive import unpack_stream

    if size > LARGEST_UPLOAD:
        raise InterpError(
            f"{name} has {size / 2**20:,.0f} MiB, and an upload may have {LARGEST_UPLOAD / 2**20:,.0f} MiB; put the file "
            "into a folder of these pages and unpack it there."
        )
    unpacked = unpack_stream(file, size, into, name=name)
    return Received(files=list(unpacked.files), bytes=unpacked.bytes, into=into)


def push(
    sae: Sae,
    to: Annotated[str, Option("Where to: hf:org/name, hf:org/name/folder, or a URL such as s3://bucket/a.interp.tar.")],
    *,
    labels: OwnLabels = False,
    private: Annotated[bool, Option("If the repository is new, let only you see it.")] = False,
    message: Annotated[str, Option("Message of the commit on the hub.")] = "",
    endpoint: Endpoint = None,
) -> Shipped:
    """Share a checkpoint on a hub, in one commit with a README.md, or as one file at any URL that fsspec opens.

    Raises InterpError when the folder is no checkpoint, contradicts its card, or the other side refuses.
    """
    refuse_read_only("nothing is pushed")
    bench = open_sae(sae)
    on_hub: dict[str, Any] = {"private": private, "message": message, "endpoint": endpoint}
    moved = bench.push(to, labels=labels, **({} if "://" in to else on_hub))
    return _shipped(bench.folder, moved.files, moved.left_out, moved.pin, labels, where=moved.address)


def pull(
    source: Annotated[
        str, Option("Where from: hf:org/name, hf:org/name/folder@revision, a URL, or RELEASE/ID of sae-lens' list.")
    ],
    *,
    into: NewFolder,
    model: Annotated[str, Option("Model of an SAE that has no card. Without: as its files say.")] = "",
    hook: Annotated[str, Option("Hook point of an SAE that has no card.")] = "",
    endpoint: Endpoint = None,
) -> Received:
    """Fetch a shared checkpoint, check it, and only then make its folder.

    Raises InterpError when there is none, it was damaged, or the folder exists.
    """
    from interp.workbench import pull_checkpoint

    moved, note = pull_checkpoint(source, into, model=model, hook_name=hook, endpoint=endpoint)
    not_taken = [*moved.left_out, *([note] if note else [])]
    return Received(files=list(moved.files), address=moved.address, into=into, not_taken=not_taken)


def convert(
    source: Annotated[str, Option("Folder or file of an SAE, in any format that is known.")],
    *,
    into: NewFolder,
    to: Annotated[
        str, Option("Format to write: saelens (also ours), sparsify, dictionary_learning or llamascopium.")
    ] = "saelens",
    from_: Annotated[str, Option("Format of the source. Without: told from its files.")] = "",
    model: Annotated[str, Option("Model the SAE was made for. Without: as the source says.")] = "",
    hook: Annotated[str, Option("Hook point the SAE reads. Without: as the source says.")] = "",
    hook_out: Annotated[str, Option("Hook point a transcoder writes. Without: as the source says.")] = "",
    scale: Annotated[
        float | None,
        Option("Number that activations were multiplied by in training, where the weights do not hold it already."),
    ] = None,
) -> dict[str, Any]:
    """Write a checkpoint in another library's format, compare both on real activations, and list what is not held.

    Raises InterpError when a format is not known or cannot hold the SAE.
    """
    from interp import workbench

    return workbench.convert(
        source, to, into, format_=from_, model=model, hook_name=hook, hook_name_out=hook_out, scale=scale
    )


def verify(
    sae: Sae,
    *,
    model: Annotated[str, Option("Model to recompute with. Without: the one that the card names.")] = "",
    hook: Annotated[str, Option("Hook point of an SAE whose folder names none.")] = "",
    files_only: Annotated[bool, Option("Compare hashes only, and open no model.")] = False,
    write: Annotated[
        bool,
        Option("For the SAE's maker: write the hashes, numbers and tolerances that others will compare."),
    ] = False,
    full: Annotated[bool, Option("Make all of the index anew, and not only blocks that are drawn at random.")] = False,
    seed: Annotated[
        int | None, Option("Draw the same blocks of the index as an earlier verification that printed this.")
    ] = None,
    metrics: Annotated[str, Option("Text on whose held-out part the card's metrics are measured again.")] = "",
    tokens: Annotated[int | None, Option("Tokens of that text. Without: as many as the card says.", low=256)] = None,
    expect: Annotated[
        str, Option("Pin that the files must have, which you got elsewhere than from the checkpoint.")
    ] = "",
    device: Device = "auto",
    remember: Annotated[bool, Option("Keep the verdict on this machine, where `interp library` shows it.")] = True,
) -> "Verification":
    """Check every file's hash, then make anew what the checkpoint claims; exit code 2 when something differs.

    The list of claims says what was recomputed, what is only hashed (as its maker wrote it, true or not), and what
    nobody checked.

    Raises InterpError when the checkpoint or its model cannot be opened.
    """
    from interp import workbench

    given = {"full": full, "metrics": metrics} if files_only else {}
    refuse_idle(given, "with --files-only; leave out the one or the other")
    refuse_idle({"tokens": tokens} if not metrics else {}, "without --metrics TEXT")
    return workbench.verify(
        sae,
        model=model,
        hook_name=hook,
        numbers=not files_only,
        write=write,
        device=device,
        full=full,
        seed=seed,
        metrics=metrics,
        tokens=tokens,
        expect=expect,
        remember=remember,
    )


def export(
    sae: Sae,
    *,
    into: NewFolder,
    to: Annotated[str, Option("What to write: html, neuronpedia, csv, parquet or labels.")] = "html",
    query: Annotated[str, Option("Write only the features that this search finds.")] = "",
    limit: Annotated[int | None, Option("Write at most this many features.", low=1)] = None,
) -> Exported:
    """Write features for other tools: pages that open without a server, SAEDashboard's JSON, tables, labels.

    Raises InterpError when the format is not known or the folder is not empty.
    """
    bench = open_sae(sae)
    features, partial = None, False
    if query or limit:
        hits = bench.search(query, limit=limit or bench.sae.d_sae)
        features, partial = [hit.feature for hit in hits], hits.partial
    return Exported(to, into, bench.export(to, into, features), partial)


def _shipped(
    folder: Path, files: "Iterable[str]", left_out: list[str], pin: str, labels: bool, *, where: str, bytes: int = 0
) -> Shipped:
    """What an archive or a push carries, and what this machine has besides; `labels` came from this machine."""
    from contextlib import suppress

    from interp.checkpoint.files import LABELS, present
    from interp.publishing import carries
    from interp.workbench import Workbench

    own = labels and LABELS in files
    here = [phrase for phrase in carries(present(folder)[0]) if not (own and phrase.endswith(" labels"))]
    besides: list[str] = []
    with suppress(InterpError):  # it left already: that labels or an index here cannot be read takes nothing from that
        besides = Workbench.open(folder).lacks()
    return Shipped(
        files=list(files),
        bytes=bytes,
        where=where,
        carries=[*here, *(["labels, those of this machine with them"] if own else [])],
        not_in_it=[phrase for phrase in besides if not (own and phrase.startswith("labels"))],
        left_out=list(left_out),
        pin=pin,
    )
