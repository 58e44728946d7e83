"""Publishing, archives, hubs, verification, conversion and exports on the command line."""

from typing import TYPE_CHECKING, Any

from interp.cli.app import Asked, register
from interp.commands.sharing import Exported, Received, Shipped
from interp.render.terminal import say, table, tell
from interp.types import InterpError

if TYPE_CHECKING:
    from interp.commands.sharing import Published, Verification


def _published(done: "Published", asked: Asked) -> None:
    tell(f"{asked['into']} carries {', '.join(done.carries)}")
    for phrase in done.left_out:
        tell(f"left out: {phrase}")
    tell(f"pin {done.pin}")


def _packed(done: Shipped, _: Asked) -> None:
    tell(f"{len(done.files)} files, {done.bytes:,} bytes in {done.where}")
    _shipped(done)


def _pushed(done: Shipped, _: Asked) -> None:
    tell(f"{len(done.files)} files at {done.where}")
    _shipped(done)


def _shipped(done: Shipped) -> None:
    """What an archive or a push carries, what this machine has besides, and its pin."""
    tell(f"carries {', '.join(done.carries)}")
    for phrase in done.not_in_it:
        tell(f"not in it: {phrase}")
    if done.left_out:
        tell(f"left out, as no files of a checkpoint: {', '.join(done.left_out)}")
    tell(f"pin {done.pin}")


def _unpacked(done: Received, _: Asked) -> None:
    tell(f"{len(done.files)} files, {done.bytes:,} bytes in {done.into}")


def _pulled(done: Received, _: Asked) -> None:
    tell(f"{len(done.files)} files of {done.address} in {done.into}")
    for phrase in done.not_taken:
        tell(f"not taken over: {phrase}")


def _verified(verification: "Verification", _: Asked) -> None:
    table(["", "what", "found"], [[check.verdict, check.what, check.found] for check in verification.checks])
    if verification.claims:
        rows = [[claim.status, claim.what, claim.said] for claim in verification.claims]
        table(["", "claim", "as it says"], rows, "what stands behind each claim")
    dtype = (
        f", recomputed in {verification.dtype}, blocks drawn by seed {verification.seed}" if verification.dtype else ""
    )
    tell(f"{verification.sentence}; {verification.seconds:.1f} s{dtype}")
    tell(f"pin {verification.pin}")


def _refuse_what_differs(verification: "Verification", _: Asked) -> None:
    if verification.differs:
        causes = "; ".join(f"{check.what}: {check.found}" for check in verification.differs)
        raise InterpError(f"{verification.name} is not what it says. {causes}")


def _converted(done: dict[str, Any], asked: Asked) -> None:
    tell(f"{done['source']} → {done['target']} in {asked['into']}")
    table(["not held", ""], [["", phrase] for phrase in done["lost"]])
    table(["measure", "value"], [[key, value] for key, value in done["error"].items()])


def _exported(done: Exported, asked: Asked) -> None:
    if done.partial:
        say(f"{asked['query']}: found in what an index of examples keeps; `interp index SAE` builds the full one.")
    tell(f"{done.to} in {done.into}; not held: {'; '.join(done.lost)}")


register("publish", _published, "interp publish saes/mine --into for-others --metrics wiki-en")
register("pack", _packed, "interp pack saes/mine --into mine.interp.tar", face=())
register("unpack", _unpacked, "interp unpack mine.interp.tar --into saes/again", face=())
register("push", _pushed, "interp push saes/mine hf:me/my-sae", face=())
register("pull", _pulled, "interp pull hf:me/my-sae --into saes/pulled", face=())
register("verify", _verified, "interp verify saes/theirs", after=_refuse_what_differs, face=("as_json", "background"))
register(
    "convert",
    _converted,
    "interp convert theirs/layers.15 --to saelens --into saes/converted --model smollm2",
)
register(
    "export",
    _exported,
    "interp export saes/mine --to html --into pages --query 'density:1e-5..1e-2' --limit 1000",
    face=(),
)
