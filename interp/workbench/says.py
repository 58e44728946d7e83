"""What features are disposed to say, made in one go for whatever shows it, and written beside the SAE."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interp import places
from interp.checkpoint import Card
from interp.lenses import FitConfig, readout
from interp.lenses.said import Said, list_tokens, save_said
from interp.models import Model, open_model
from interp.sae.dictionary import one_hook
from interp.types import InterpError
from interp.workbench.lenses import fit_lenses, judge_lenses, judged, lens_hashes, lenses, seen
from interp.workbench.opening import SAID, Opened

TEXTS, ROUNDS, JUDGED = 4, 16, 100
"""Of the Jacobian's fit, stretches of a pass and rounds at most; features that the lenses are judged on."""
TUNED = 4
"""The least-squares lens reads so many times as many stretches and rounds, for a pass of its costs a hundredth."""


@dataclass(frozen=True, kw_only=True)
class FittedLens:
    """How far a fit went."""

    lens: str
    positions: int
    """That each entry of its matrix rests on."""
    halves: float
    """Correlation over all tokens of what two halves of the text say of decoder rows, mean."""
    whole: float
    """What that would be between two fits of all the text each."""
    top: float
    """Share of one half's first ten tokens that are among the other's."""
    enough: bool


@dataclass(frozen=True, kw_only=True)
class Lenses:
    """What was fitted and found, and where it lies."""

    hook_name: str
    text: str
    """What they were fitted on."""
    fits: list[FittedLens]
    judged: Mapping[str, Any]
    """See `lenses.judge.Judgement`: figures by lens and measure, of halves, of chance, the winner of each span."""
    sentences: dict[str, str]
    """By span, how right the winner is."""
    where: str
    """The file that whatever shows a feature reads."""


def make_lenses(
    wb: Opened,
    *,
    texts: int = TEXTS,
    rounds: int = ROUNDS,
    features: int = JUDGED,
    beside: bool = False,
    restart: bool = False,
) -> Lenses:
    """Fit the lenses of the SAE's hook point, judge them on its features in float32, and list what the winners say.

    What was done before with the same arguments is taken as it is; what was ended goes on. With `beside` the list, and the
    matrices it was read by, are written into the SAE's folder too, and its card's seal is renewed. Raises InterpError
    where a lens cannot be fitted or judged.
    """
    jacobian = FitConfig(texts=texts, rounds=rounds)
    tuned = FitConfig(texts=TUNED * texts, rounds=TUNED * rounds)
    fit_lenses(wb, jacobian=jacobian, tuned=tuned, restart=restart)
    found = judged(wb)
    if found is None or restart or found.get("lenses") != lens_hashes(wb) or found.get("asked") != features:
        found = judge_lenses(wb, features=features, model=_precise(wb))
    said = keep_said(wb, found)
    where = _beside(wb, said) if beside else wb.said_path
    fitted = {name: lens for name, lens in lenses(wb).items() if lens.about}
    return Lenses(
        hook_name=one_hook(wb.sae, "a lens").name,
        text=next((str(lens.about["recipe"]["text"]) for lens in fitted.values()), ""),
        fits=[_fitted(name, lens.about) for name, lens in fitted.items()],
        judged=found,
        sentences={span: said.sentence(span) for span in found["winners"]},
        where=str(where),
    )


def _fitted(name: str, about: Mapping[str, Any]) -> FittedLens:
    last = about["agreement"][-1][name]
    return FittedLens(
        lens=name,
        positions=int(about["positions"]),
        halves=float(last["tokens"]),
        whole=float(last["whole"]),
        top=float(last["top"]),
        enough=bool(float(last["whole"]) >= float(about["recipe"]["enough"])),
    )


def _precise(wb: Opened) -> Model:
    """The model in float32: small changes of logits drown in another type's rounding."""
    if wb.model.dtype_name == "float32":
        return wb.model
    model = open_model(wb.card.model, dtype="float32", device=wb.device, attention=wb.card.attention)
    if model.fingerprint() != wb.model.fingerprint():
        raise InterpError(f"{wb.card.model} has other weights in float32 than in {wb.model.dtype_name}; open it anew.")
    return model


def keep_said(wb: Opened, found: Mapping[str, Any] | None = None) -> Said:
    """What the winners of the judgement say of all features, written for whatever shows it.

    Raises InterpError when nothing was judged yet.
    """
    found = found or judged(wb)
    if found is None:
        raise InterpError(f"no lens was judged on {wb.card.name}; `interp lenses {wb.folder}` fits and judges them.")
    about = {
        "sae": wb.card.name,
        "sae_sha256": wb.card.sae_sha256,
        "model": wb.card.model,
        "model_sha256": wb.card.model_sha256,
        "hook_name": one_hook(wb.sae, "a lens").name,
        "index_sha256": str(wb.index.meta.get("sha256", "")),
    }
    said = list_tokens(lenses(wb), found, wb.sae.W_dec.float().cpu(), readout(wb.model), seen(wb), about)
    save_said(wb.said_path, said)
    wb.__dict__.pop("said", None)
    wb.__dict__.pop("index", None)  # whose descriptions name what features say
    return said


def _beside(wb: Opened, said: Said) -> Path:
    """Write the file into the SAE's folder, and its hash into a card that has hashes of the other files."""
    path = wb.folder / SAID
    save_said(path, said)
    card = Card.read(wb.folder)
    if card.files:
        replace(card, files=dict(sorted((card.files | {SAID: places.sha256_file(path)}).items()))).write(wb.folder)
    return path
